//! Whether bytes are the beginning of a request of HTTP/1 (RFC 9112, section 3).
//!
//! Lenient about requests, because a malformed one should be refused in HTTP's own words. Strict about what other
//! protocols begin with: `SET a b` and `EHLO there` look like a method and a target, so there the line must say that it
//! is HTTP.

use super::Detected;

/// The longest method that counts as one; registered ones have up to 17 letters, and some apps take any.
const LONGEST_METHOD: usize = 128;

/// Where in a line ` HTTP/1.` must be found, if the target does not say what it is.
const LONGEST_TARGET: usize = 512;

/// The most empty lines before a request, as bytes: servers ignore at least one (RFC 9112, section 2.2), and many any
/// number. What begins with more is refused as HTTP, since it must not pass by those who read HTTP.
const EMPTY_LINES: usize = 32;

/// [`Detected::Http1`], [`Detected::Opaque`], or `None` if more bytes are needed.
pub(super) fn decide(read: &[u8]) -> Option<Detected> {
    let empty = read.iter().take(EMPTY_LINES).take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    if empty == EMPTY_LINES {
        return Some(Detected::Http1);
    }
    let line = &read[empty..];
    let Some(end) = line.iter().take(LONGEST_METHOD + 1).position(|byte| !is_token(*byte)) else {
        return (line.len() > LONGEST_METHOD).then_some(Detected::Opaque);
    };
    if end == 0 || line[end] != b' ' {
        return Some(Detected::Opaque);
    }
    let target = &line[end + 1..];
    if target.first() == Some(&b'/') || names_http(target) {
        return Some(Detected::Http1);
    }
    let window = &target[..target.len().min(LONGEST_TARGET)];
    let first_line = window.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if memchr::memmem::find(first_line, b" HTTP/1.").is_some() {
        Some(Detected::Http1)
    } else if first_line.len() < window.len() || window.len() == LONGEST_TARGET {
        Some(Detected::Opaque)
    } else {
        None
    }
}

/// A letter of a token (RFC 9110, section 5.6.2), which a method is.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a target is in absolute form.
fn names_http(target: &[u8]) -> bool {
    ["http://", "https://"].iter().any(|scheme| {
        target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_from_what_only_looks_like_one() {
        for (read, expected) in [
            (&b"GET /"[..], Some(Detected::Http1)),
            (b"\r\nGET /", Some(Detected::Http1)),
            (b"\r\n\r\n\n\r\n\r\nGET /", Some(Detected::Http1)),
            (b"\r\n\r\n\n\r\n\r\nPING\r\n", Some(Detected::Opaque)),
            (b"AMETHODOFMORELETTERSTHANANYTHATISREGISTERED /", Some(Detected::Http1)),
            (b"get / nonsense", Some(Detected::Http1)),
            (b"OPTIONS * HTTP/1.1", Some(Detected::Http1)),
            (b"CONNECT db:5432 HTTP/1.1", Some(Detected::Http1)),
            (b"GET HTTP://a/", Some(Detected::Http1)),
            (b"GET  /x HTTP/1.1", Some(Detected::Http1)),
            (b"OPTIONS *", None),
            (b"CONNECT db:5432 HTTP/", None),
            (b"BREW", None),
            (b"EHLO there\r\n", Some(Detected::Opaque)),
            (b"SET a b\n", Some(Detected::Opaque)),
            (b"*1\r\n", Some(Detected::Opaque)),
            (b"PING\r\n", Some(Detected::Opaque)),
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Some(Detected::Opaque)),
            (b"SSH-2.0-OpenSSH_9.6\r\n", Some(Detected::Opaque)),
            (b" GET / HTTP/1.1", Some(Detected::Opaque)),
            (b"INVITE sip:a@b SIP/2.0\r\n", Some(Detected::Opaque)),
        ] {
            assert_eq!(decide(read), expected, "{}", read.escape_ascii());
        }
        assert_eq!(decide(&[b'A'; LONGEST_METHOD + 1]), Some(Detected::Opaque));
        assert_eq!(decide(&[b'\n'; EMPTY_LINES]), Some(Detected::Http1));
    }
}
