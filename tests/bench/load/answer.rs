//! One answer of HTTP/1.1, as it arrives.

use std::io;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    Partial,
    Complete { status: u16 },
}

/// Reads one answer, whose body must be counted by `content-length`.
pub(super) fn parse(bytes: &[u8]) -> io::Result<Received> {
    let Some(head_end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(Received::Partial);
    };
    let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let head = std::str::from_utf8(&bytes[..head_end]).map_err(|_| malformed("the head is not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(|| malformed("the first line is not HTTP/1.1's"))?;
    let body = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .ok_or_else(|| malformed("the answer has no content-length"))?;
    match bytes.len().checked_sub(head_end + 4) {
        Some(arrived) if arrived < body => Ok(Received::Partial),
        Some(arrived) if arrived == body => Ok(Received::Complete { status }),
        _ => Err(malformed("more bytes than one answer has")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_byte_and_not_before() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

        for cut in 0..answer.len() {
            assert_eq!(parse(&answer[..cut]).unwrap(), Received::Partial, "cut at {cut}");
        }
        assert_eq!(parse(answer).unwrap(), Received::Complete { status: 200 });
    }

    #[test]
    fn an_answer_that_nobody_can_count_is_an_error() {
        assert!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab").is_err());
        assert!(parse(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
    }
}
