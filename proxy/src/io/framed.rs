//! How opaque connections share a mesh connection, one after the other.
//!
//! A TLS handshake costs several times what carrying a small request does, so a mesh connection outlives what
//! it carries. Between sidecars each opaque connection is a *session* on it: frames of a 32-bit big-endian length
//! and so many bytes, both ways, until each side has said that it ends. Then the next session may begin.
//! Nothing is multiplexed: a session has the connection to itself, and slowness and backpressure stay TCP's.
//!
//! | length | |
//! |---|---|
//! | 0 | this side ends (half-close); the other may go on |
//! | 1 to [`LONGEST`] | so many bytes follow |
//! | [`OPEN`] | the client begins another session; the first begins with the connection |
//! | [`CLOSING`] | the server takes no more sessions. A client that did not know yet is served |
//!
//! A session that breaks off takes the connection with it: no word for it would arrive sooner than a reset.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Bytes before a frame's own.
pub(crate) const HEADER: usize = 4;

/// The most bytes of one frame.
const LONGEST: u32 = 1 << 20;

const END: u32 = 0;
const OPEN: u32 = u32::MAX;
const CLOSING: u32 = u32::MAX - 1;

/// Bytes that wait to be sent before a frame's: an opening, an answer in a frame of its own, and a header at most.
const AHEAD: usize = HEADER + HEADER + 2 + HEADER;

/// A stream that carries sessions in frames, or bytes as they are.
#[derive(Debug)]
pub struct Framed<S> {
    inner: S,
    /// `None`: bytes pass as they are, and their end is the stream's.
    frames: Option<Frames>,
}

#[derive(Debug, Default)]
struct Frames {
    ahead: Ahead,
    /// What is still to be written of the frame that has begun.
    to_write: u32,
    /// Whether an opening must go out, even if no byte of the session goes with it.
    unflushed: bool,
    write_end: End,
    header: [u8; HEADER],
    header_read: usize,
    /// What is still to be read of the frame that has begun.
    to_read: u32,
    read_ended: bool,
    /// The other side takes no more sessions.
    closing: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Said,
    Sent,
}

/// Bytes of our own that go out before any others.
#[derive(Debug, Default)]
struct Ahead {
    bytes: [u8; AHEAD],
    start: usize,
    end: usize,
}

impl Ahead {
    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn push(&mut self, more: &[u8]) {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        self.bytes[self.end..self.end + more.len()].copy_from_slice(more);
        self.end += more.len();
    }

    fn sent(&mut self, length: usize) {
        self.start += length;
    }
}

impl<S> Framed<S> {
    /// `inner`, whose first session has begun.
    pub fn new(inner: S) -> Self {
        Self { inner, frames: Some(Frames::default()) }
    }

    /// `inner` as it is, where no sidecar is at the other end.
    pub(crate) fn raw(inner: S) -> Self {
        Self { inner, frames: None }
    }

    /// What carries them.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Whether both sides have ended the session, and another may follow.
    pub(crate) fn is_free(&self) -> bool {
        self.frames.as_ref().is_some_and(|frames| {
            frames.read_ended && frames.write_end == End::Sent && !frames.closing && frames.ahead.is_empty()
        })
    }

    /// Puts `bytes` into a frame that goes out with whatever is sent next.
    pub(crate) fn send_along(&mut self, bytes: [u8; 2]) {
        if let Some(frames) = &mut self.frames {
            frames.ahead.push(&2_u32.to_be_bytes());
            frames.ahead.push(&bytes);
        }
    }

    /// Begins another session. It is said with the session's first bytes, or before it is listened for the other
    /// side's.
    pub fn begin(&mut self) {
        if let Some(frames) = &mut self.frames {
            frames.again();
            frames.ahead.push(&OPEN.to_be_bytes());
            frames.unflushed = true;
        }
    }
}

impl Frames {
    fn again(&mut self) {
        (self.read_ended, self.write_end) = (false, End::Open);
    }

    /// The next frame's length, or `None` at the stream's end.
    fn poll_header<S: AsyncRead>(
        &mut self,
        cx: &mut Context<'_>,
        mut inner: Pin<&mut S>,
    ) -> Poll<io::Result<Option<u32>>> {
        while self.header_read < HEADER {
            let mut into = ReadBuf::new(&mut self.header[self.header_read..]);
            ready!(inner.as_mut().poll_read(cx, &mut into))?;
            match into.filled().len() {
                0 if self.header_read == 0 => return Poll::Ready(Ok(None)),
                0 => return Poll::Ready(Err(broken_off())),
                read => self.header_read += read,
            }
        }
        self.header_read = 0;
        Poll::Ready(Ok(Some(u32::from_be_bytes(self.header))))
    }

    fn poll_read<S: AsyncRead>(
        &mut self,
        cx: &mut Context<'_>,
        mut inner: Pin<&mut S>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.read_ended && self.to_read == 0 {
            match ready!(self.poll_header(cx, inner.as_mut()))? {
                None => return Poll::Ready(Err(broken_off())),
                Some(END) => self.read_ended = true,
                Some(CLOSING) => self.closing = true,
                Some(length) if length <= LONGEST => self.to_read = length,
                Some(length) => return Poll::Ready(Err(not_ours(length))),
            }
        }
        if self.read_ended {
            return Poll::Ready(Ok(()));
        }
        let room = buf.remaining().min(self.to_read as usize);
        let mut into = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(inner.poll_read(cx, &mut into))?;
        let read = into.filled().len();
        if read == 0 && room > 0 {
            return Poll::Ready(Err(broken_off()));
        }
        buf.advance(read);
        self.to_read -= u32::try_from(read).unwrap_or(self.to_read);
        Poll::Ready(Ok(()))
    }

    /// Sends what goes ahead of everything else.
    fn poll_ahead<S: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut inner: Pin<&mut S>,
    ) -> Poll<io::Result<()>> {
        while !self.ahead.is_empty() {
            let sent = ready!(inner.as_mut().poll_write(cx, self.ahead.bytes()))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.ahead.sent(sent);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write<S: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut inner: Pin<&mut S>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.to_write == 0 {
            self.to_write = u32::try_from(buf.len()).map_or(LONGEST, |length| length.min(LONGEST));
            self.ahead.push(&self.to_write.to_be_bytes());
        }
        let payload = &buf[..buf.len().min(self.to_write as usize)];
        loop {
            let ahead = self.ahead.bytes();
            let sent = if ahead.is_empty() {
                ready!(inner.as_mut().poll_write(cx, payload))?
            } else {
                let both = [IoSlice::new(ahead), IoSlice::new(payload)];
                ready!(inner.as_mut().poll_write_vectored(cx, &both))?
            };
            if sent == 0 {
                return Poll::Ready(Ok(0));
            }
            let of_ahead = sent.min(ahead.len());
            self.ahead.sent(of_ahead);
            let of_payload = sent - of_ahead;
            if of_payload > 0 {
                self.to_write -= u32::try_from(of_payload).unwrap_or(self.to_write);
                return Poll::Ready(Ok(of_payload));
            }
        }
    }

    fn poll_flush<S: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut inner: Pin<&mut S>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_ahead(cx, inner.as_mut()))?;
        ready!(inner.poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_end<S: AsyncWrite>(&mut self, cx: &mut Context<'_>, inner: Pin<&mut S>) -> Poll<io::Result<()>> {
        if self.write_end == End::Open {
            if self.to_write > 0 {
                // Its length has been announced, and its writer has given it up.
                return Poll::Ready(Err(broken_off()));
            }
            self.ahead.push(&END.to_be_bytes());
            self.write_end = End::Said;
        }
        ready!(self.poll_flush(cx, inner))?;
        self.write_end = End::Sent;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> Framed<S> {
    /// Whether the server still waits for another session, as far as it has said. What it says is read without
    /// waiting.
    pub(crate) fn is_awaited(&mut self) -> bool {
        let Some(frames) = &mut self.frames else { return false };
        let mut cx = Context::from_waker(Waker::noop());
        !frames.closing && frames.poll_header(&mut cx, Pin::new(&mut self.inner)).is_pending()
    }

    /// Waits for the client to begin another session. `false`: it has closed the connection.
    ///
    /// # Errors
    /// If the connection breaks, or something else than a session begins.
    pub async fn next_session(&mut self) -> io::Result<bool> {
        let Some(frames) = &mut self.frames else { return Ok(false) };
        let inner = &mut self.inner;
        match std::future::poll_fn(|cx| frames.poll_header(cx, Pin::new(inner))).await? {
            None => Ok(false),
            Some(OPEN) => {
                frames.again();
                Ok(true)
            }
            Some(other) => Err(not_ours(other)),
        }
    }
}

impl<S: AsyncWrite + Unpin> Framed<S> {
    /// Closes the connection, once everything has been sent.
    ///
    /// # Errors
    /// If the connection breaks.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.inner.shutdown().await
    }

    /// Tells the client that no more sessions are taken.
    ///
    /// # Errors
    /// If the connection breaks.
    pub(crate) async fn say_closing(&mut self) -> io::Result<()> {
        let Some(frames) = &mut self.frames else { return Ok(()) };
        frames.ahead.push(&CLOSING.to_be_bytes());
        let inner = &mut self.inner;
        std::future::poll_fn(|cx| frames.poll_flush(cx, Pin::new(inner))).await
    }
}

fn broken_off() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the other sidecar's connection ended before the session did",
    )
}

fn not_ours(length: u32) -> io::Error {
    let what =
        format!("the other sidecar sent {length:#x} inside a session, and this version does not know it");
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Framed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, frames } = self.get_mut();
        let mut inner = Pin::new(inner);
        let Some(frames) = frames else { return inner.poll_read(cx, buf) };
        if frames.unflushed
            && let Poll::Ready(Err(error)) = frames.poll_flush(cx, inner.as_mut())
        {
            return Poll::Ready(Err(error));
        }
        frames.poll_read(cx, inner, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { inner, frames } = self.get_mut();
        match frames {
            Some(frames) => frames.poll_write(cx, Pin::new(inner), buf),
            None => Pin::new(inner).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, frames } = self.get_mut();
        match frames {
            Some(frames) => frames.poll_flush(cx, Pin::new(inner)),
            None => Pin::new(inner).poll_flush(cx),
        }
    }

    /// Ends this side of the session. The connection stays.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, frames } = self.get_mut();
        match frames {
            Some(frames) => frames.poll_end(cx, Pin::new(inner)),
            None => Pin::new(inner).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
