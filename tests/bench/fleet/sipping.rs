//! A connection that may be read very slowly.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// Between two bytes.
const PAUSE: Duration = Duration::from_secs(1);

/// Reads as much as there is, until it is told to [sip](Self::sip).
#[derive(Debug)]
pub(super) struct Sipping<S> {
    stream: S,
    next: Option<Pin<Box<Sleep>>>,
}

impl<S> Sipping<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, next: None }
    }

    /// Reads a byte a second from now on.
    pub(super) fn sip(&mut self) {
        self.next = Some(Box::pin(sleep(PAUSE)));
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sipping<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, next } = &mut *self;
        let Some(next) = next else { return Pin::new(stream).poll_read(context, buffer) };
        ready!(next.as_mut().poll(context));
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        ready!(Pin::new(stream).poll_read(context, &mut one))?;
        buffer.put_slice(one.filled());
        next.as_mut().reset(Instant::now() + PAUSE);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sipping<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
