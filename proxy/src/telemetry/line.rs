//! The pieces that a line of the access log is made of, in Istio's text format and in JSON.
//!
//! With the access log on, every request has a line of some two dozen pieces. So what is usual is written without the
//! standard library's formatting: numbers, IPv4 addresses, and text without anything that would have to be escaped.

use std::{
    cell::Cell,
    io::Write as _,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// `time` in whole milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How long `2026-01-02T03:04:05` is.
const DATE: usize = 19;

thread_local! {
    /// The last second that was written, since the epoch, and its date: most lines are written in the same second as the one
    /// before.
    static SECOND: Cell<(u64, [u8; DATE])> = const { Cell::new((u64::MAX, [0; DATE])) };
}

/// Writes `time` as RFC 3339 has it, with milliseconds.
fn write_time(out: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (second, mut date) = SECOND.get();
    if second != since.as_secs() {
        // Not of `time`, which a wrong clock puts before the epoch.
        let text =
            humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(since.as_secs())).to_string();
        let Some(fresh) = text.as_bytes().first_chunk::<DATE>().filter(|_| text.len() == DATE + 1) else {
            // A Vec takes whatever is written to it.
            let _ = write!(out, "{}", humantime::format_rfc3339_millis(UNIX_EPOCH + since));
            return;
        };
        date = *fresh;
        SECOND.set((since.as_secs(), date));
    }
    out.extend_from_slice(&date);
    let millis = since.subsec_millis();
    let digit = |of: u32| b'0' + (millis / of % 10) as u8;
    out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1), b'Z']);
}

fn write_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn write_address(out: &mut Vec<u8>, address: SocketAddr) {
    let SocketAddr::V4(address) = address else {
        // A Vec takes whatever is written to it.
        let _ = write!(out, "{address}");
        return;
    };
    let [a, b, c, d] = address.ip().octets();
    for (octet, end) in [(a, b'.'), (b, b'.'), (c, b'.'), (d, b':')] {
        write_number(out, octet);
        out.push(end);
    }
    write_number(out, address.port());
}

/// Whether `text` stands for itself between quotes. No way out of the loop: so it is done many bytes at a time.
fn is_plain(text: &str) -> bool {
    let needs_escape = |byte: u8| !(0x20..0x7f).contains(&byte) | (byte == b'"') | (byte == b'\\');
    !text.bytes().fold(false, |found, byte| found | needs_escape(byte))
}

/// A line of Istio's text format.
pub(super) struct Text<'o>(pub(super) &'o mut Vec<u8>);

impl Text<'_> {
    pub(super) fn time(&mut self, time: SystemTime) {
        self.0.push(b'[');
        write_time(self.0, time);
        self.0.push(b']');
    }

    pub(super) fn number(&mut self, number: u64) {
        write_number(self.0, number);
    }

    /// An address, with a space before it.
    pub(super) fn address(&mut self, address: SocketAddr) {
        self.0.push(b' ');
        write_address(self.0, address);
    }

    /// An address in quotes, with a space before it.
    pub(super) fn quoted_address(&mut self, address: Option<SocketAddr>) {
        let Some(address) = address else { return self.quoted(None) };
        self.0.extend_from_slice(b" \"");
        write_address(self.0, address);
        self.0.push(b'"');
    }

    /// What has no spaces, with one before it.
    pub(super) fn word(&mut self, word: Option<&str>) {
        self.0.push(b' ');
        self.bare(word);
    }

    /// The same in quotes.
    pub(super) fn quoted(&mut self, text: Option<&str>) {
        self.0.extend_from_slice(b" \"");
        self.bare(text);
        self.0.push(b'"');
    }

    /// Nobody who writes a header forges a line, or a field of one.
    pub(super) fn bare(&mut self, text: Option<&str>) {
        let text = text.filter(|text| !text.is_empty()).unwrap_or("-");
        if is_plain(text) {
            return self.0.extend_from_slice(text.as_bytes());
        }
        for letter in text.chars() {
            let is_plain = !letter.is_control() && letter != '"' && letter != '\\';
            if is_plain && letter.is_ascii() {
                self.0.push(letter as u8);
            } else {
                // A Vec takes whatever is written to it.
                let _ = write!(self.0, "{}", letter.escape_default());
            }
        }
    }
}

/// The name of a field of a line of JSON, as it is written: see [`Json`].
macro_rules! key {
    ($name:literal) => {
        $crate::telemetry::line::Key(concat!(",\"", $name, "\":"))
    };
}
pub(super) use key;

/// See [`key`]. Written in one piece, with what is around it: a line has two dozen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key(pub(super) &'static str);

/// A line of JSON.
pub(super) struct Json<'o>(&'o mut Vec<u8>);

impl<'o> Json<'o> {
    /// A line whose first field is when what it tells of began.
    pub(super) fn beginning(out: &'o mut Vec<u8>, time: SystemTime) -> Self {
        out.extend_from_slice(b"{\"start_time\":\"");
        write_time(out, time);
        out.push(b'"');
        Self(out)
    }

    #[inline]
    fn key(&mut self, Key(key): Key) {
        self.0.extend_from_slice(key.as_bytes());
    }

    #[inline]
    pub(super) fn text(&mut self, key: Key, text: Option<&str>) {
        if let Some(text) = text {
            self.pieces(key, [text]);
        }
    }

    /// A text that is these pieces.
    #[inline]
    pub(super) fn pieces<const N: usize>(&mut self, key: Key, pieces: [&str; N]) {
        self.key(key);
        if pieces.iter().all(|piece| is_plain(piece)) {
            self.0.push(b'"');
            for piece in pieces {
                self.0.extend_from_slice(piece.as_bytes());
            }
            self.0.push(b'"');
        } else {
            // A Vec takes whatever is written to it, and a text is always JSON.
            let _ = serde_json::to_writer(&mut *self.0, &pieces.concat());
        }
    }

    /// A word of ours, which stands for itself between quotes.
    #[inline]
    pub(super) fn word(&mut self, key: Key, word: &'static str) {
        self.key(key);
        self.0.push(b'"');
        self.0.extend_from_slice(word.as_bytes());
        self.0.push(b'"');
    }

    pub(super) fn address(&mut self, key: Key, address: Option<SocketAddr>) {
        let Some(address) = address else { return };
        self.key(key);
        self.0.push(b'"');
        write_address(self.0, address);
        self.0.push(b'"');
    }

    pub(super) fn number(&mut self, key: Key, number: Option<u64>) {
        let Some(number) = number else { return };
        self.key(key);
        write_number(self.0, number);
    }

    pub(super) fn flag(&mut self, key: Key, flag: bool) {
        self.key(key);
        self.0.extend_from_slice(if flag { b"true" } else { b"false" });
    }

    pub(super) fn end(self) {
        self.0.extend_from_slice(b"}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_addresses_and_times_are_written_as_the_standard_formatting_writes_them() {
        for address in ["1.2.3.4:5", "255.0.10.199:65535", "[::1]:80", "[fe80::1%3]:8080"] {
            let (address, mut out) = (address.parse::<SocketAddr>().unwrap(), Vec::new());
            write_address(&mut out, address);
            assert_eq!(String::from_utf8(out).unwrap(), address.to_string());
        }
        let near = UNIX_EPOCH + Duration::from_millis(1_764_500_000_007);
        let far = UNIX_EPOCH + Duration::from_secs(200_000_000_000);
        for time in [near, near + Duration::from_millis(993), near, UNIX_EPOCH, far] {
            let mut out = Vec::new();
            write_time(&mut out, time);
            let expected = humantime::format_rfc3339_millis(time).to_string();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        let mut before = Vec::new();
        write_time(&mut before, UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(before, b"1970-01-01T00:00:00.000Z", "a wrong clock ends no proxy");
    }

    #[test]
    fn text_is_json_whatever_is_in_it() {
        for text in ["", "plain", "a \"quoted\\\" one", "new\nline", "\u{7f}", "grün", "\u{0}"] {
            let mut out = Vec::new();
            let mut line = Json::beginning(&mut out, UNIX_EPOCH);
            line.text(key!("of"), Some(text));
            line.pieces(key!("pieces"), ["/", text]);
            line.end();
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let expected = serde_json::json!({
                "start_time": "1970-01-01T00:00:00.000Z",
                "of": text,
                "pieces": format!("/{text}"),
            });
            assert_eq!(value, expected);
        }
    }
}
