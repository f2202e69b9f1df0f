//! What may stand where a request names its host: one host, and perhaps a port.
//!
//! Stricter than RFC 3986, which would allow more than any resolver does; and judged alike wherever it stands,
//! in `Host`, in `:authority` and in an absolute target, because an app gets to see it as `Host` in any case.

/// Whether `text` is `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
///
/// # Errors
/// What is wrong with it.
pub fn check(text: &[u8]) -> Result<(), &'static str> {
    if text.contains(&b'@') {
        return Err("the request's authority names a user, and not only a host");
    }
    let (is_host, port) = match text {
        [b'[', rest @ ..] => {
            let end = rest.iter().position(|&byte| !is_of_address(byte)).unwrap_or(rest.len());
            (end > 0 && rest.get(end) == Some(&b']'), rest.get(end + 1..).unwrap_or_default())
        }
        _ => {
            let end = text.iter().position(|&byte| !is_of_name(byte)).unwrap_or(text.len());
            (end > 0, &text[end..])
        }
    };
    let is_port = match port {
        [] => true,
        // RFC 3986, section 3.2.3: it may be empty.
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    (is_host && is_port).then_some(()).ok_or("the request's Host or :authority is not a host and a port")
}

/// Whether two authorities mean the same: in any case, and with port 80 or without a port.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let without_port = |text: &[u8]| text.len() - if text.ends_with(b":80") { 3 } else { 0 };
    one[..without_port(one)].eq_ignore_ascii_case(&other[..without_port(other)])
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn is_of_address(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_perhaps_a_port_is_an_authority() {
        for text in ["a", "Reviews.default.svc:9080", "a_b-c~d", "10.0.0.1:80", "[::1]", "[::1]:80", "a:"] {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn port_80_and_case_make_no_difference() {
        assert!(same(b"a", b"A:80"));
        assert!(same(b"a:80", b"a:80"));
        assert!(same(b"[::1]:80", b"[::1]"));
        assert!(!same(b"a:81", b"a"));
        assert!(!same(b"a", b"b"));
    }

    #[test]
    fn what_would_be_more_or_less_than_a_host_is_none() {
        for text in [
            "",
            ":80",
            "a/b",
            "reviews:9080/x",
            "a:b",
            "a:80:80",
            "a:123456",
            "a b",
            "a,b",
            "a@b",
            "me:pw@b",
            "[::1",
            "::1",
            "[::1]x",
            "[]:80x",
            "[::1%25eth0]",
            "a#b",
            "a?b",
            "a\\b",
            "\u{e9}",
            "a\tb",
            "a[",
            "%61",
        ] {
            assert!(check(text.as_bytes()).is_err(), "{text}");
        }
    }
}
