//! Bytes as the bodies of a request and of its answer (RFC 9112, section 7.1): what an HTTP proxy carries that was asked by
//! POST.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes of one chunk of ours.
const LONGEST: usize = 64 << 10;

/// The most bytes of a line between chunks, and of all lines after the last one.
const MAX_LINE: usize = 8 << 10;

/// So much is read at once where lines are expected.
const PIECE: usize = 1 << 10;

/// Where the body of an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerBody {
    /// With its last chunk.
    Chunked,
    /// After so many bytes.
    Length(u64),
    /// With the connection.
    UntilClose,
}

#[derive(Debug)]
pub(super) struct Chunks {
    /// Chunks that are not sent yet.
    out: BytesMut,
    has_ended: bool,
    /// What was read and not given to anybody.
    input: BytesMut,
    reading: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// The line that says how long the next chunk is.
    Size,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The end of line behind a chunk.
    AfterChunk,
    /// What follows the last chunk, with so many bytes so far.
    Trailers(usize),
    Length(u64),
    UntilClose,
    Ended,
}

impl Chunks {
    /// `input`: what has come of the answer's body already.
    pub(super) fn new(body: AnswerBody, input: BytesMut) -> Self {
        let reading = match body {
            AnswerBody::Chunked => Reading::Size,
            AnswerBody::Length(0) => Reading::Ended,
            AnswerBody::Length(length) => Reading::Length(length),
            AnswerBody::UntilClose => Reading::UntilClose,
        };
        Self { out: BytesMut::new(), has_ended: false, input, reading }
    }

    /// Writes bytes as a chunk. What the other side does not take at once is kept, and nothing more is taken until it is
    /// sent.
    pub(super) fn poll_write<S: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut inner: Pin<&mut S>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx, inner.as_mut()))?;
        let piece = &buf[..buf.len().min(LONGEST)];
        if piece.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        self.out.extend_from_slice(piece);
        self.out.extend_from_slice(b"\r\n");
        match self.poll_send(cx, inner) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(piece.len())),
        }
    }

    fn poll_send<S: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut inner: Pin<&mut S>,
    ) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match ready!(inner.as_mut().poll_write(cx, &self.out))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.out.advance(sent),
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_flush<S: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut inner: Pin<&mut S>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx, inner.as_mut()))?;
        inner.poll_flush(cx)
    }

    /// Ends the request's body. The answer's may go on.
    pub(super) fn poll_end<S: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        inner: Pin<&mut S>,
    ) -> Poll<io::Result<()>> {
        if !self.has_ended {
            self.has_ended = true;
            self.out.extend_from_slice(b"0\r\n\r\n");
        }
        self.poll_flush(cx, inner)
    }

    /// Reads bytes of the answer's body; none at its end.
    pub(super) fn poll_read<S: AsyncRead>(
        &mut self,
        cx: &mut Context<'_>,
        mut inner: Pin<&mut S>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            self.pass_lines()?;
            let left = match self.reading {
                Reading::Ended => return Poll::Ready(Ok(())),
                Reading::Chunk(left) | Reading::Length(left) => Some(left),
                Reading::UntilClose => Some(u64::MAX),
                Reading::Size | Reading::AfterChunk | Reading::Trailers(_) => None,
            };
            let Some(left) = left else {
                let mut piece = [0; PIECE];
                let mut into = ReadBuf::new(&mut piece);
                ready!(inner.as_mut().poll_read(cx, &mut into))?;
                if into.filled().is_empty() {
                    return Poll::Ready(Err(broken_off()));
                }
                self.input.extend_from_slice(into.filled());
                continue;
            };
            let room = buf.remaining().min(usize::try_from(left).unwrap_or(usize::MAX));
            if !self.input.is_empty() {
                let taken = self.input.split_to(room.min(self.input.len()));
                buf.put_slice(&taken);
                self.note(taken.len());
                return Poll::Ready(Ok(()));
            }
            let mut into = ReadBuf::new(buf.initialize_unfilled_to(room));
            ready!(inner.poll_read(cx, &mut into))?;
            let read = into.filled().len();
            buf.advance(read);
            return match (read, self.reading) {
                (0, Reading::UntilClose) => {
                    self.reading = Reading::Ended;
                    Poll::Ready(Ok(()))
                }
                (0, _) if room > 0 => Poll::Ready(Err(broken_off())),
                _ => {
                    self.note(read);
                    Poll::Ready(Ok(()))
                }
            };
        }
    }

    /// Counts bytes of the body that were read.
    fn note(&mut self, read: usize) {
        let read = read as u64;
        self.reading = match self.reading {
            Reading::Chunk(left) if left == read => Reading::AfterChunk,
            Reading::Chunk(left) => Reading::Chunk(left - read),
            Reading::Length(left) if left == read => Reading::Ended,
            Reading::Length(left) => Reading::Length(left - read),
            other => other,
        };
    }

    /// Takes the lines between chunks out of what was read, as far as it goes.
    fn pass_lines(&mut self) -> io::Result<()> {
        while let Reading::Size | Reading::AfterChunk | Reading::Trailers(_) = self.reading {
            let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else {
                return if self.input.len() > MAX_LINE { Err(not_chunks()) } else { Ok(()) };
            };
            let line = self.input.split_to(end + 1);
            let line = line.trim_ascii_end();
            self.reading = match self.reading {
                Reading::AfterChunk if line.is_empty() => Reading::Size,
                Reading::AfterChunk => return Err(not_chunks()),
                Reading::Trailers(_) if line.is_empty() => Reading::Ended,
                Reading::Trailers(so_far) if so_far + end < MAX_LINE => Reading::Trailers(so_far + end),
                Reading::Trailers(_) => return Err(not_chunks()),
                _ => match size(line).ok_or_else(not_chunks)? {
                    0 => Reading::Trailers(0),
                    size => Reading::Chunk(size),
                },
            };
        }
        Ok(())
    }
}

/// The size that a chunk's line says; extensions are passed over.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    // from_str_radix takes a sign, too.
    let are_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    are_digits.then(|| u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()).flatten()
}

fn broken_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the HTTP proxy's connection ended before its answer did")
}

fn not_chunks() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the HTTP proxy's answer is not in chunks, as its head says")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_hexadecimal_digits() {
        for (line, expected) in [
            ("0", Some(0)),
            ("1aF", Some(0x1af)),
            ("5;name=value", Some(5)),
            ("5 ", Some(5)),
            ("", None),
            ("+5", None),
            ("-5", None),
            ("0x5", None),
            ("10000000000000000", None),
        ] {
            assert_eq!(size(line.as_bytes()), expected, "{line}");
        }
    }
}
