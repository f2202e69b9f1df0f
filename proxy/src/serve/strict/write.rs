//! What goes out on a client's HTTP/1 stream: hyper's answers, and interim answers between them.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Stage, Strict};
use crate::io::{Abort, passes_on};

/// How many bytes are read before a connection closes of what its client has already sent. Closing with unread bytes
/// would reset the connection, and the client would lose its answer.
const LINGER: usize = 256 * 1024;

/// The most bytes of the next request that are read while an answer is awaited.
const AHEAD: usize = 1024;

impl<S: AsyncRead + Abort + Unpin> Strict<S> {
    /// Reads while an answer is awaited, to notice a client that has left.
    fn look(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.ended || !self.held.is_empty() || !matches!(self.requests.stage, Stage::Head | Stage::Asked) {
            return Ok(());
        }
        let mut space = [const { MaybeUninit::uninit() }; AHEAD];
        let mut buf = ReadBuf::uninit(&mut space);
        let Poll::Ready(read) = Pin::new(&mut self.inner).poll_read(cx, &mut buf) else { return Ok(()) };
        read?;
        let bytes = buf.filled();
        if bytes.is_empty() {
            self.ended = true;
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the client closed before the end of its answer",
            ));
        }
        self.held.extend_from_slice(bytes);
        self.cleared = self.requests.inspect(bytes, 0);
        self.stand_in();
        Ok(())
    }
}

impl<S: AsyncWrite + Abort + Unpin> Strict<S> {
    /// Sends interim answers, if there are any. They go out between whole messages, and are left out while hyper is in
    /// the middle of one.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim.is_empty() {
            if !self.requests.watch.awaited.has_interim() {
                return Poll::Ready(Ok(()));
            }
            // Who was parked has been woken for this, and parks again.
            self.parked = None;
            let interim = self.requests.watch.awaited.take();
            if !self.writing {
                self.interim = interim;
            }
        }
        while !self.interim.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.interim))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Abort + Unpin> AsyncWrite for Strict<S> {
    passes_on!(is_write_vectored);

    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_interim(cx))?;
        this.writing = true;
        Pin::new(&mut this.inner).poll_write(cx, buf)
    }

    /// hyper comes here whenever it has been woken, after it has written all that it had.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let is_awaited = this.requests.watch.awaited.is_on();
        // A message has come to its end, unless its answer's body is what hyper waits for.
        this.writing &= !is_awaited;
        ready!(this.poll_interim(cx))?;
        ready!(Pin::new(&mut this.inner).poll_flush(cx))?;
        if is_awaited || this.requests.watch.in_progress() > 0 {
            // Also while an answer comes slowly: a client that has left would be noticed only at its next piece.
            this.park(cx.waker());
            this.look(cx)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.finished = true;
        ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
        if !matches!(this.requests.stage, Stage::Head | Stage::Tunnel) {
            discard(&mut this.inner, cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_interim(cx))?;
        this.writing = true;
        Pin::new(&mut this.inner).poll_write_vectored(cx, bufs)
    }
}

/// Reads what has arrived already, and waits for nothing.
fn discard<S: AsyncRead + Unpin>(stream: &mut S, cx: &mut Context<'_>) {
    let mut waste = [0; 4096];
    for _ in 0..LINGER / waste.len() {
        let mut buf = ReadBuf::new(&mut waste);
        match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
            _ => return,
        }
    }
}
