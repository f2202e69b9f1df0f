//! HTTP/2 that does not flood: frames that cost their sender nothing, and us an answer or a place in a table.
//!
//! Counted as they pass, before HTTP/2's own code sees them (RFC 9113, section 10.5, names them). Each takes one
//! from an allowance that grows with time and with what we send, since a window is updated as often as it is
//! filled. Who has used it up is answered with GOAWAY: what follows its last frame is a frame that may not be.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// The most frames at once.
const MOST: f64 = 2_000.0;
/// How many more each second.
const PER_SECOND: f64 = 200.0;
/// For so many bytes that we send, one more.
const BYTES_PER_FRAME: f64 = 1024.0;
/// What a client sends before its first frame.
const PREFACE: usize = 24;
/// Bytes of a frame's head.
const HEAD: usize = 9;
const DATA: u8 = 0;
/// SETTINGS on a stream: an error of the connection (section 6.5).
const FORBIDDEN: [u8; HEAD] = [0, 0, 0, 4, 0, 0, 0, 0, 1];

/// A server's connection whose client's frames are counted.
#[derive(Debug)]
pub struct Calm<S> {
    stream: S,
    frames: Frames,
    allowance: f64,
    at: Instant,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    /// The frame that may not be is still to be read.
    Due,
    Over,
}

/// The place in what the client sends.
#[derive(Debug)]
struct Frames {
    /// Bytes before the next head.
    skip: usize,
    head: [u8; HEAD],
    seen: usize,
}

impl Frames {
    /// Goes on through `bytes`; returns how far, if `counts` says of a frame's head that it is one too many.
    fn pass(&mut self, bytes: &[u8], mut is_too_many: impl FnMut(u8, usize) -> bool) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            if self.skip > 0 {
                let part = self.skip.min(bytes.len() - at);
                self.skip -= part;
                at += part;
                continue;
            }
            let begins = at;
            let part = (HEAD - self.seen).min(bytes.len() - at);
            self.head[self.seen..self.seen + part].copy_from_slice(&bytes[at..at + part]);
            self.seen += part;
            at += part;
            if self.seen == HEAD {
                self.seen = 0;
                let [a, b, c, kind, ..] = self.head;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                // A head that began in an earlier piece is past: the next is soon enough.
                if is_too_many(kind, self.skip) && at - begins == HEAD {
                    return Some(begins);
                }
            }
        }
        None
    }
}

impl<S> Calm<S> {
    /// `stream`, from its first byte on.
    pub fn new(stream: S) -> Self {
        let frames = Frames { skip: PREFACE, head: [0; HEAD], seen: 0 };
        Self { stream, frames, allowance: MOST, at: Instant::now(), end: End::NotYet }
    }

    /// How many of `bytes` may be seen; `None`: all of them.
    fn count(&mut self, bytes: &[u8]) -> Option<usize> {
        let now = Instant::now();
        self.grow((now - self.at).min(Duration::from_secs(60)).as_secs_f64() * PER_SECOND);
        self.at = now;
        let allowance = &mut self.allowance;
        self.frames.pass(bytes, |kind, length| {
            if kind != DATA || length == 0 {
                *allowance -= 1.0;
            }
            *allowance < 0.0
        })
    }

    fn grow(&mut self, by: f64) {
        self.allowance = (self.allowance + by).min(MOST);
    }

    fn sent(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.grow(bytes as f64 / BYTES_PER_FRAME);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Calm<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if this.end == End::NotYet {
            std::task::ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            if let Some(seen) = this.count(&buffer.filled()[before..]) {
                buffer.set_filled(before + seen);
                this.end = End::Due;
            }
        }
        if this.end == End::Due && buffer.remaining() >= HEAD {
            buffer.put_slice(&FORBIDDEN);
            this.end = End::Over;
        } else if this.end == End::Due && buffer.filled().len() == before {
            // No room for the frame, and nothing else to read: the end will have to do.
            this.end = End::Over;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Calm<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    async fn read(sent: Vec<u8>, piece: usize) -> Vec<u8> {
        let mut calm = Calm::new(std::io::Cursor::new(sent));
        let (mut all, mut part) = (Vec::new(), vec![0; piece]);
        loop {
            let read = calm.read(&mut part).await.unwrap();
            if read == 0 {
                return all;
            }
            all.extend_from_slice(&part[..read]);
        }
    }

    fn pings(count: usize) -> Vec<u8> {
        [vec![b'P'; PREFACE], PING.repeat(count)].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_ends_between_two_frames_with_one_that_may_not_be() {
        for piece in [9, 17, 1000, 16 << 10] {
            let seen = read(pings(5_000), piece).await;

            let flood =
                seen.strip_suffix(&FORBIDDEN[..]).unwrap_or_else(|| panic!("{piece}: {}", seen.len()));
            assert_eq!((flood.len() - PREFACE) % PING.len(), 0, "{piece}");
            assert!(flood.len() < PREFACE + PING.len() * 2_300, "{piece}: {}", flood.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_within_the_allowance_is_read_as_it_is() {
        assert_eq!(read(pings(1_000), 100).await, pings(1_000));
        let data = [vec![b'P'; PREFACE], [0, 0, 1, 0, 0, 0, 0, 0, 1, b'x'].repeat(20_000)].concat();
        assert_eq!(read(data.clone(), 4096).await, data, "data is what connections are for");
    }
}
