//! Where a chunked body ends, without keeping any of it (RFC 9112, section 7.1).
//!
//! Stricter than hyper's decoder, which accepts spaces after a chunk's size: a body that is not as the RFC says breaks
//! the connection.

/// Bytes of chunk extensions and trailers that one body may have, together.
const LIMIT: u32 = 16 * 1024;

/// A size of 15 hex digits cannot overflow, and nothing is as long.
const MAX_DIGITS: u8 = 15;

/// The body is not as chunked bodies are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The place in a chunked body that has been reached.
#[derive(Debug)]
pub(super) struct Chunks {
    state: State,
    /// Bytes of extensions and trailers so far.
    extra: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Size { size: u64, digits: u8 },
    Extension { size: u64 },
    SizeLf { size: u64 },
    Data { rest: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self { state: State::Size { size: 0, digits: 0 }, extra: 0 }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// Goes on through `bytes`. Returns how many of them are the body's.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() && !self.is_over() {
            if let State::Data { rest } = &mut self.state {
                let here = usize::try_from(*rest).unwrap_or(usize::MAX).min(bytes.len() - at);
                *rest -= here as u64;
                at += here;
                if *rest == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.step(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        match (self.state, byte) {
            (State::Size { digits: 1.., size }, b'\r') | (State::Extension { size }, b'\r') => {
                Ok(State::SizeLf { size })
            }
            (State::Size { digits: 1.., size }, b';') => Ok(State::Extension { size }),
            (State::Size { digits: ..MAX_DIGITS, .. }, _) => self.digit(byte),
            (State::Extension { .. } | State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extra(self.state)
            }
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::TrailerStart),
            (State::SizeLf { size }, b'\n') => Ok(State::Data { rest: size }),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart, b'!'..=b'~') => self.extra(State::Trailer),
            (State::Trailer, b'\r') => Ok(State::TrailerLf),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::End),
            _ => Err(Malformed),
        }
    }

    fn digit(&self, byte: u8) -> Result<State, Malformed> {
        let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
        let State::Size { size, digits } = self.state else { return Err(Malformed) };
        Ok(State::Size { size: size * 16 + u64::from(digit), digits: digits + 1 })
    }

    fn extra(&mut self, state: State) -> Result<State, Malformed> {
        self.extra += 1;
        if self.extra <= LIMIT { Ok(state) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn end(body: &[u8]) -> Option<usize> {
        let mut chunks = Chunks::new();
        let passed = chunks.pass(body).ok()?;
        chunks.is_over().then_some(passed)
    }

    #[test]
    fn a_body_ends_after_its_trailers() {
        for body in
            ["0\r\n\r\n", "3\r\nabc\r\n00\r\n\r\n", "a;x=y\r\n0123456789\r\n0;z\r\nt: u\r\nv:\r\n\r\n"]
        {
            let more = format!("{body}GET");
            assert_eq!(end(more.as_bytes()), Some(body.len()), "{body:?}");
        }
    }

    #[test]
    fn what_readers_might_take_in_two_ways_is_malformed() {
        for body in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            "1 \r\n",
            " 1\r\n",
            "1\n",
            "1\ra",
            "1\r\nab\r\n",
            "1\r\na\n0",
            "0\r\n\n",
            "0\r\n x: y\r\n",
            "0\r\nx: y\n",
            "1;\0\r\n",
            "1;\n",
            "ffffffffffffffff\r\n",
        ] {
            assert_eq!(Chunks::new().pass(body.as_bytes()), Err(Malformed), "{body:?}");
        }
        let endless = format!("1;{}", "x".repeat(20_000));
        assert_eq!(Chunks::new().pass(endless.as_bytes()), Err(Malformed));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_body_is_cut(cuts in prop::collection::vec(0usize..40, 0..6)) {
            let body = b"3;a=b\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nt: u\r\n\r\n";
            let mut chunks = Chunks::new();
            let mut rest = &body[..];
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                prop_assert_eq!(chunks.pass(now), Ok(now.len()));
                rest = later;
            }
            prop_assert_eq!(chunks.pass(rest), Ok(rest.len()));
            prop_assert!(chunks.is_over());
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Chunks::new().pass(&bytes);
        }
    }
}
