//! One HTTP/1 request head, judged as a whole.
//!
//! hyper's parser is lenient where two readers of one head may differ: it removes a `Content-Length` beside a
//! `Transfer-Encoding`, and accepts a bare line feed. Its own refusals do not say who refuses. So every head is judged
//! here first, as strictly as RFC 9112 allows, with Envoy's choices where the RFC leaves one. Pure, and without
//! allocation.

use memchr::memchr;

use crate::{
    error::{REFUSED, Reason, Refusal},
    refuse::{NO_METHOD, TOO_LONG, TOO_MANY_FIELDS},
    settings::HeadLimits,
};

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// The next head.
    Empty,
    /// A body of this many bytes.
    Sized(u64),
    /// Chunks.
    Chunked,
    /// Whatever its tunnel carries, if it is given one; otherwise the next head (CONNECT).
    Tunnel,
}

/// A head that may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// How long it is, with the empty line that ends it.
    pub(super) length: usize,
    /// What follows it.
    pub(super) framing: Framing,
}

const fn bad(what: &'static str) -> Refusal {
    Refusal { reason: Reason::BadRequest, what }
}

/// The refusal of a request for a tunnel (RFC 9110, section 9.3.6).
pub(super) const NO_TUNNEL: Refusal = bad(crate::normalize::NO_TUNNEL);

/// Judges the head that `bytes` begin with. `None`: it does not end in them.
pub(super) fn judge(bytes: &[u8], limits: HeadLimits) -> Result<Option<Head>, Refusal> {
    let mut lines = Lines { bytes, at: 0, count: 0 };
    let result = judge_lines(&mut lines, limits.count);
    let length = if matches!(result, Ok(None)) { bytes.len() } else { lines.at };
    if length > limits.bytes {
        return Err(TOO_LONG);
    }
    let Some(framing) = result? else { return Ok(None) };
    // Every line has its own CR LF, and nothing else of the kind.
    if controls(&bytes[..length]) != 2 * lines.count {
        return Err(bad("the request's head has a control character"));
    }
    Ok(Some(Head { length, framing }))
}

fn judge_lines(lines: &mut Lines<'_>, limit: usize) -> Result<Option<Framing>, Refusal> {
    // RFC 9112, section 2.2: empty lines before a request are ignored.
    let request = loop {
        match lines.next()? {
            None => return Ok(None),
            Some([]) => {}
            Some(line) => break RequestLine::judge(line)?,
        }
    };
    let mut fields = Fields::default();
    for count in 0.. {
        match lines.next()? {
            None => return Ok(None),
            Some([]) => break,
            Some(_) if count == limit => return Err(TOO_MANY_FIELDS),
            Some(line) => fields.take(line)?,
        }
    }
    fields.judge(&request).map(Some)
}

/// Lines that end with CR LF, and with nothing less.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    count: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<Option<&'a [u8]>, Refusal> {
        let rest = &self.bytes[self.at..];
        let Some(end) = memchr(b'\n', rest) else { return Ok(None) };
        self.at += end + 1;
        self.count += 1;
        rest[..end].strip_suffix(b"\r").map(Some).ok_or(bad("a line of the request's head ends without CR"))
    }
}

struct RequestLine<'a> {
    /// The host of a target in absolute form.
    authority: Option<&'a [u8]>,
    is_http_10: bool,
    is_connect: bool,
}

impl<'a> RequestLine<'a> {
    fn judge(line: &'a [u8]) -> Result<Self, Refusal> {
        let invalid = bad("the request line is not METHOD TARGET HTTP/1.1");
        let mut words = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(invalid);
        };
        if !is_token(method) || method == REFUSED.as_bytes() {
            return Err(NO_METHOD);
        }
        let is_connect = method == b"CONNECT";
        let is_http_10 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(invalid),
        };
        let authority = if is_connect { tunnel(target)? } else { authority(target)? };
        Ok(Self { authority, is_http_10, is_connect })
    }
}

/// The host and port that a tunnel is asked for to (RFC 9112, section 3.2.3).
fn tunnel(target: &[u8]) -> Result<Option<&[u8]>, Refusal> {
    let valid = target.iter().all(|&byte| HOST[usize::from(byte)]) && http::Uri::try_from(target).is_ok();
    valid.then_some(None).ok_or(bad("the target of CONNECT is not HOST:PORT"))
}

/// The host of a target in absolute form, after seeing that the target is in a form that it may have.
fn authority(target: &[u8]) -> Result<Option<&[u8]>, Refusal> {
    let invalid = bad("the request's target is not valid");
    if memchr(b'#', target).is_some() {
        return Err(bad("the request's target has a fragment"));
    }
    if !target.iter().all(|&byte| TARGET[usize::from(byte)]) && http::Uri::try_from(target).is_err() {
        return Err(invalid);
    }
    match target {
        [b'/', ..] | b"*" => Ok(None),
        _ => {
            let scheme = [&b"http://"[..], b"https://"].into_iter().find(|scheme| {
                target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            });
            let rest = &target[scheme.ok_or(invalid)?.len()..];
            let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
            Ok(Some(&rest[..end]))
        }
    }
}

/// What the fields of a head say that decides where its message ends, and whom it is for.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
}

impl<'a> Fields<'a> {
    fn take(&mut self, line: &'a [u8]) -> Result<(), Refusal> {
        if matches!(line, [b' ' | b'\t', ..]) {
            return Err(bad("a header field is folded over two lines"));
        }
        let colon = memchr(b':', line).ok_or(bad("a header field has no colon"))?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !is_token(name) {
            return Err(bad("a header field's name is not valid"));
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value.trim_ascii()),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.length(value.trim_ascii()),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.encoding(value.trim_ascii()),
            _ => Ok(()),
        }
    }

    fn host(&mut self, value: &'a [u8]) -> Result<(), Refusal> {
        if self.host.replace(value).is_some() {
            return Err(bad("the request has more than one Host"));
        }
        let valid = !value.is_empty() && value.iter().all(|&byte| HOST[usize::from(byte)]);
        valid.then_some(()).ok_or(bad("the request's Host is not a host name"))
    }

    fn length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        // 18 digits cannot overflow, and nothing is as long.
        let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
        if !digits {
            return Err(bad("the request's Content-Length is not a number"));
        }
        let length = value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0'));
        if self.length.replace(length).is_some() {
            return Err(bad("the request has more than one Content-Length"));
        }
        Ok(())
    }

    fn encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.chunked, true) || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(bad("the request's Transfer-Encoding is not one \"chunked\""));
        }
        Ok(())
    }

    fn judge(&self, request: &RequestLine<'_>) -> Result<Framing, Refusal> {
        if request.is_connect {
            let has_body = self.chunked || self.length.is_some_and(|length| length > 0);
            return if has_body { Err(bad("CONNECT has no body")) } else { Ok(Framing::Tunnel) };
        }
        // HTTP/1.0 has no Host: a target in absolute form says it all.
        let named = request.authority.filter(|_| request.is_http_10);
        let host = self.host.or(named).ok_or(bad("the request has no Host"))?;
        if request.authority.is_some_and(|authority| !same_host(authority, host)) {
            return Err(bad("the request's target and its Host have different host names"));
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(bad("the request has both Content-Length and Transfer-Encoding")),
            (true, None) if request.is_http_10 => Err(bad("HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => Ok(Framing::Chunked),
            (false, None | Some(0)) => Ok(Framing::Empty),
            (false, Some(length)) => Ok(Framing::Sized(length)),
        }
    }
}

fn same_host(one: &[u8], other: &[u8]) -> bool {
    fn bare(host: &[u8]) -> &[u8] {
        host.strip_suffix(b":80").unwrap_or(host)
    }
    bare(one).eq_ignore_ascii_case(bare(other))
}

/// How many control characters other than tabs there are. Counted in bytes, so that many are counted at once.
fn controls(bytes: &[u8]) -> usize {
    let is_control = |byte: u8| u8::from(((byte < b' ') & (byte != b'\t')) | (byte == 0x7F));
    let count = |chunk: &[u8]| chunk.iter().fold(0, |sum, &byte| sum + is_control(byte));
    bytes.chunks(usize::from(u8::MAX)).map(|chunk| usize::from(count(chunk))).sum()
}

fn is_token(bytes: &[u8]) -> bool {
    // No early end: without branches it takes a third of the time.
    !bytes.is_empty() && bytes.iter().fold(true, |all, &byte| all & TOKEN[usize::from(byte)])
}

const fn table(more: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut place = 0;
    while place < more.len() {
        table[more[place] as usize] = true;
        place += 1;
    }
    table
}

/// What names of methods and fields consist of (RFC 9110, section 5.6.2).
const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~");

/// What usual targets consist of; of others it is asked whether they are a URI.
const TARGET: [bool; 256] = table(b"-._~!$&'()*+,;=:@/?%");

/// What names, addresses and ports consist of. RFC 3986 would allow more than any resolver does.
const HOST: [bool; 256] = table(b"-._~:[]");

#[cfg(test)]
mod tests;
