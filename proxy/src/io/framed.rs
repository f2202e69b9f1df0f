//! How opaque connections share a mesh connection, one after the other.
//!
//! A TLS handshake costs several times what carrying a small request does, so a mesh connection outlives what it
//! carries. Between sidecars each opaque connection is a *session* on it: frames of a 32-bit big-endian length and that
//! many bytes, in both directions, until each side has said that it ends. Then the next session may begin. Nothing is
//! multiplexed: a session has the connection to itself, and slowness and backpressure stay TCP's.
//!
//! | length | |
//! |---|---|
//! | 0 | this side ends (half-close); the other may go on |
//! | 1 to 2^20 | this many bytes follow |
//! | `OPEN` | the client begins another session; the first begins with the connection |
//! | `CLOSING` | the server takes no more sessions. A client that did not know yet is served |
//!
//! A session that breaks off ends the connection: no message about it would arrive sooner than a reset.

mod frames;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

pub(crate) use self::frames::HEADER;
use self::frames::{CLOSING, Frames, OPEN, not_ours};

/// A stream that carries sessions in frames, or bytes as they are.
#[derive(Debug)]
pub struct Framed<S> {
    inner: S,
    /// `None`: bytes pass as they are, and their end is the stream's.
    frames: Option<Frames>,
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
        self.frames.as_ref().is_some_and(Frames::is_free)
    }

    /// Puts `bytes` into a frame that goes out with whatever is sent next.
    pub(crate) fn send_along(&mut self, bytes: [u8; 2]) {
        if let Some(frames) = &mut self.frames {
            frames.push(&2_u32.to_be_bytes());
            frames.push(&bytes);
        }
    }

    /// Begins another session. The opening is sent with the session's first bytes, or before the other side's are
    /// awaited.
    pub fn begin(&mut self) {
        if let Some(frames) = &mut self.frames {
            frames.again();
            frames.push(&OPEN.to_be_bytes());
            frames.unflushed = true;
        }
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
        frames.push(&CLOSING.to_be_bytes());
        let inner = &mut self.inner;
        std::future::poll_fn(|cx| frames.poll_flush(cx, Pin::new(inner))).await
    }
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
