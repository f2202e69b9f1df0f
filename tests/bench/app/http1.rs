//! HTTP/1.1 as far as the benchmark sends it: a head ends at an empty line, a body is counted by
//! `content-length`, and `GET /bytes/N` asks for N bytes.

use std::io;
use std::sync::LazyLock;

use super::{BODY_BYTES, CHUNK};

/// A head longer than this is not from our load generator.
const MAX_HEAD: usize = 64 * 1024;

static SMALL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut answer = head(BODY_BYTES as u64);
    answer.resize(answer.len() + BODY_BYTES, b'x');
    answer
});

fn head(length: u64) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n").into_bytes()
}

#[derive(Default)]
pub(super) struct Http1 {
    /// The beginning of a head whose end has not arrived.
    partial: Vec<u8>,
    /// Bytes of a request's body that are to come.
    body: u64,
    /// Bytes of an answer's body that are to be sent.
    bulk: u64,
}

impl Http1 {
    /// Whether the answer under way goes on after what is unsent.
    pub(super) const fn has_more(&self) -> bool {
        self.bulk > 0
    }

    /// Makes more of it.
    pub(super) fn more(&mut self, unsent: &mut Vec<u8>) {
        let length = self.bulk.min(CHUNK as u64);
        unsent.resize(unsent.len() + length as usize, b'x');
        self.bulk -= length;
    }

    /// Answers the requests that are whole with these bytes.
    pub(super) fn receive(&mut self, mut bytes: &[u8], unsent: &mut Vec<u8>) -> io::Result<()> {
        loop {
            if self.body > 0 {
                let some = self.body.min(bytes.len() as u64);
                bytes = &bytes[some as usize..];
                self.body -= some;
                if self.body > 0 {
                    return Ok(());
                }
                unsent.extend_from_slice(&SMALL);
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let before = self.partial.len();
            // The end may lie across what came before and what came now.
            let from = before.saturating_sub(3);
            self.partial.extend_from_slice(bytes);
            let Some(end) = find(&self.partial[from..], b"\r\n\r\n").map(|at| from + at + 4) else {
                return if self.partial.len() > MAX_HEAD {
                    Err(io::ErrorKind::InvalidData.into())
                } else {
                    Ok(())
                };
            };
            bytes = &bytes[end - before..];
            self.partial.truncate(end);
            self.answer(unsent)?;
            self.partial.clear();
        }
    }

    /// Answers the request whose head is `partial`, or waits for its body.
    fn answer(&mut self, unsent: &mut Vec<u8>) -> io::Result<()> {
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        if let Some(rest) = self.partial.strip_prefix(b"GET /bytes/") {
            self.bulk = digits(rest).ok_or_else(malformed)?;
            unsent.extend_from_slice(&head(self.bulk));
        } else if self.partial.starts_with(b"POST ") {
            self.body = content_length(&self.partial).filter(|length| *length > 0).ok_or_else(malformed)?;
        } else {
            unsent.extend_from_slice(&SMALL);
        }
        Ok(())
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The number that `bytes` begin with.
fn digits(bytes: &[u8]) -> Option<u64> {
    let count = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&bytes[..count]).ok()?.parse().ok()
}

fn content_length(head: &[u8]) -> Option<u64> {
    let lower = head.to_ascii_lowercase();
    let at = find(&lower, b"\r\ncontent-length:")? + "\r\ncontent-length:".len();
    let spaces = lower[at..].iter().take_while(|byte| **byte == b' ').count();
    digits(&lower[at + spaces..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(http1: &mut Http1, pieces: &[&[u8]]) -> usize {
        let mut unsent = Vec::new();
        for piece in pieces {
            http1.receive(piece, &mut unsent).unwrap();
        }
        assert_eq!(unsent.len() % SMALL.len(), 0);
        unsent.len() / SMALL.len()
    }

    #[test]
    fn a_request_is_answered_when_its_empty_line_has_come_wherever_it_is_cut() {
        let two = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(2);

        for cut in 0..two.len() {
            assert_eq!(answers(&mut Http1::default(), &[&two[..cut], &two[cut..]]), 2, "cut at {cut}");
        }
        assert_eq!(answers(&mut Http1::default(), &[&two[..two.len() - 1]]), 1);
    }

    #[test]
    fn an_upload_is_answered_when_its_body_has_come() {
        let head = b"POST /x HTTP/1.1\r\nContent-Length:  6\r\n\r\n";
        let mut http1 = Http1::default();

        assert_eq!(answers(&mut http1, &[head, b"abc"]), 0);
        assert_eq!(answers(&mut http1, &[b"defGET / HTTP/1.1\r\n\r\n"]), 2);
    }

    #[test]
    fn a_download_is_as_long_as_it_was_asked_to_be() {
        let (mut http1, mut sent) = (Http1::default(), Vec::new());
        http1.receive(b"GET /bytes/600000 HTTP/1.1\r\n\r\n", &mut sent).unwrap();

        while http1.has_more() {
            http1.more(&mut sent);
        }

        assert_eq!(sent.len(), head(600_000).len() + 600_000);
    }

    #[test]
    fn an_answer_carries_the_length_that_it_has() {
        assert!(SMALL.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert_eq!(SMALL.len() - find(&SMALL, b"\r\n\r\n").unwrap() - 4, 1024);
    }
}
