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

mod chunks;
mod frames;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

pub(crate) use self::{chunks::AnswerBody, frames::HEADER};
use self::{
    chunks::Chunks,
    frames::{CLOSING, Frames, OPEN, not_ours},
};

/// A stream that carries sessions in frames, bytes as they are, or bytes in bodies of HTTP.
#[derive(Debug)]
pub struct Framed<S> {
    inner: S,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// Bytes pass as they are, and their end is the stream's.
    Plain,
    Frames(Frames),
    Chunks(Box<Chunks>),
}

impl<S> Framed<S> {
    /// `inner`, whose first session has begun.
    pub fn new(inner: S) -> Self {
        Self { inner, form: Form::Frames(Frames::default()) }
    }

    /// `inner` as it is, where no sidecar is at the other end.
    pub(crate) fn raw(inner: S) -> Self {
        Self { inner, form: Form::Plain }
    }

    /// The same stream, which from now on carries a request's body in chunks, and an answer's `body`, of which `said` has
    /// come already.
    pub(crate) fn in_bodies(self, body: AnswerBody, said: BytesMut) -> Self {
        Self { form: Form::Chunks(Box::new(Chunks::new(body, said))), ..self }
    }

    fn frames(&mut self) -> Option<&mut Frames> {
        match &mut self.form {
            Form::Frames(frames) => Some(frames),
            Form::Plain | Form::Chunks(_) => None,
        }
    }

    /// What carries them.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Whether both sides have ended the session, and another may follow.
    pub(crate) fn is_free(&self) -> bool {
        matches!(&self.form, Form::Frames(frames) if frames.is_free())
    }

    /// Puts `bytes` into a frame that goes out with whatever is sent next.
    pub(crate) fn send_along(&mut self, bytes: [u8; 2]) {
        if let Some(frames) = self.frames() {
            frames.push(&2_u32.to_be_bytes());
            frames.push(&bytes);
        }
    }

    /// Begins another session. The opening is sent with the session's first bytes, or before the other side's are
    /// awaited.
    pub fn begin(&mut self) {
        if let Some(frames) = self.frames() {
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
        let Form::Frames(frames) = &mut self.form else { return false };
        let mut cx = Context::from_waker(Waker::noop());
        !frames.closing && frames.poll_header(&mut cx, Pin::new(&mut self.inner)).is_pending()
    }

    /// Waits for the client to begin another session. `false`: it has closed the connection.
    ///
    /// # Errors
    /// If the connection breaks, or something else than a session begins.
    pub async fn next_session(&mut self) -> io::Result<bool> {
        let Form::Frames(frames) = &mut self.form else { return Ok(false) };
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
        let Form::Frames(frames) = &mut self.form else { return Ok(()) };
        frames.push(&CLOSING.to_be_bytes());
        let inner = &mut self.inner;
        std::future::poll_fn(|cx| frames.poll_flush(cx, Pin::new(inner))).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Framed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, form } = self.get_mut();
        let mut inner = Pin::new(inner);
        let frames = match form {
            Form::Frames(frames) => frames,
            Form::Plain => return inner.poll_read(cx, buf),
            Form::Chunks(chunks) => return chunks.poll_read(cx, inner, buf),
        };
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
        let Self { inner, form } = self.get_mut();
        match form {
            Form::Frames(frames) => frames.poll_write(cx, Pin::new(inner), buf),
            Form::Plain => Pin::new(inner).poll_write(cx, buf),
            Form::Chunks(chunks) => chunks.poll_write(cx, Pin::new(inner), buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, form } = self.get_mut();
        match form {
            Form::Frames(frames) => frames.poll_flush(cx, Pin::new(inner)),
            Form::Plain => Pin::new(inner).poll_flush(cx),
            Form::Chunks(chunks) => chunks.poll_flush(cx, Pin::new(inner)),
        }
    }

    /// Ends this side of the session. The connection stays.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, form } = self.get_mut();
        match form {
            Form::Frames(frames) => frames.poll_end(cx, Pin::new(inner)),
            Form::Plain => Pin::new(inner).poll_shutdown(cx),
            Form::Chunks(chunks) => chunks.poll_end(cx, Pin::new(inner)),
        }
    }
}

#[cfg(test)]
mod tests;
