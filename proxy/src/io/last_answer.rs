//! Reads an answer that comes before its request has ended, from a server that then closes.
//!
//! Such a server resets a connection that still sends to it (RFC 9112, section 9.6). hyper gives up a connection that
//! it cannot write to, and with it an answer that has arrived and was not read yet. So here writing waits instead, and
//! what has arrived is read to its end.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::delegate::passes_on;

/// A stream that is read to its end before it says that it cannot be written to. See the module.
#[derive(Debug)]
pub(crate) struct LastAnswer<S> {
    inner: S,
    /// Why nothing can be written any more.
    broken: Option<ErrorKind>,
    /// Whether nothing more comes.
    ended: bool,
    /// Who wants to write.
    writer: Option<Waker>,
}

impl<S> LastAnswer<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, broken: None, ended: false, writer: None }
    }

    /// What became of writing, to be said once there is nothing left to read.
    fn written<T>(&mut self, cx: &Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Poll::Ready(Err(error)) = &written else { return written };
        let is_closed = matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
        if self.ended || !is_closed {
            return written;
        }
        // The kernel names a reset once, and says EPIPE then.
        self.broken.get_or_insert(error.kind());
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LastAnswer<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (before, has_room) = (buf.filled().len(), buf.remaining() > 0);
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        match &read {
            Poll::Ready(Ok(())) if buf.filled().len() > before || !has_room => return read,
            Poll::Pending => return read,
            Poll::Ready(_) => this.ended = true,
        }
        if let Some(writer) = this.writer.take() {
            writer.wake();
        }
        match this.broken {
            // What ends with the connection may have been cut short.
            Some(ErrorKind::ConnectionReset) => Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
            _ => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LastAnswer<S> {
    passes_on!(poll_shutdown, is_write_vectored);

    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.written(cx, written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        this.written(cx, flushed)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.written(cx, written)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, Join, join};

    use super::*;

    /// Takes nothing.
    struct Closed(ErrorKind);

    impl AsyncWrite for Closed {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(self.0.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn answered(kind: ErrorKind) -> LastAnswer<Join<&'static [u8], Closed>> {
        LastAnswer::new(join(&b"answer"[..], Closed(kind)))
    }

    #[test]
    fn what_has_arrived_is_read_before_writing_fails() {
        for (kind, is_whole) in [(ErrorKind::BrokenPipe, true), (ErrorKind::ConnectionReset, false)] {
            let mut stream = answered(kind);
            assert!(stream.write(b"more").now_or_never().is_none(), "{kind}");
            let mut answer = Vec::new();
            let end = stream.read_to_end(&mut answer).now_or_never().expect("it is all there");
            assert_eq!((&answer[..], end.is_ok()), (&b"answer"[..], is_whole), "{kind}");
            assert!(stream.write(b"more").now_or_never().expect("no wait").is_err(), "{kind}");
        }
    }

    #[test]
    fn any_other_failure_is_said_at_once() {
        let written = answered(ErrorKind::TimedOut).write(b"more").now_or_never();

        assert_eq!(written.expect("no wait").unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
