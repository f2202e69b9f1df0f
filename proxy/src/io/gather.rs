//! Gathers what HTTP/2 sends, and sends it together: one system call, and below TLS one record, for many frames.
//!
//! h2 writes and flushes after each DATA frame of 256 bytes or more, so every answer would be a record and a system call of
//! its own. Here the frames are copied into a buffer. They are sent when the connection's task has done all that it can do at
//! the moment ([`Gathering::sending`]), or when the buffer is full. A frame that does not fit is sent from where it is, after
//! what waits.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is gathered, in bytes: one TLS record (RFC 8446, section 5.1). A peer that does not read keeps that much.
const ROOM: usize = 16 << 10;

/// How many buffers a worker keeps that are not in use: 1 MiB.
const KEPT: usize = 64;

/// How many pieces of what does not fit are sent at once, besides what waits.
const PIECES: usize = 7;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The stream as HTTP/2 has it. See the module.
#[derive(Debug)]
pub(crate) struct Gathered<S>(Rc<Shared<S>>);

/// What sends what a [`Gathered`] holds.
#[derive(Debug)]
pub(crate) struct Gathering<S>(Weak<Shared<S>>);

#[derive(Debug)]
struct Shared<S> {
    stream: RefCell<Stream<S>>,
    /// Whether something is to be sent.
    is_due: Cell<bool>,
    /// Whether the client's connection has been given to [`Gathering`] to run.
    is_run: Cell<bool>,
}

#[derive(Debug)]
struct Stream<S> {
    inner: S,
    /// What waits; the first `sent` bytes of it no longer do. Without room while nothing waits.
    waiting: Vec<u8>,
    sent: usize,
    /// Why it could not be sent.
    failed: Option<io::Error>,
}

impl<S> Gathered<S> {
    /// Gathers what is sent on `inner`.
    pub(crate) fn new(inner: S) -> (Self, Gathering<S>) {
        let stream = RefCell::new(Stream { inner, waiting: Vec::new(), sent: 0, failed: None });
        let shared = Rc::new(Shared { stream, is_due: Cell::new(false), is_run: Cell::new(false) });
        let gathering = Gathering(Rc::downgrade(&shared));
        (Self(shared), gathering)
    }
}

impl<S> Clone for Gathering<S> {
    fn clone(&self) -> Self {
        Self(Weak::clone(&self.0))
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    /// `future`, each poll of which ends with sending what was gathered in it. Only for the task that reads and writes the stream.
    pub(crate) fn sending<F>(self, future: F) -> Sending<F, S> {
        Sending { future, gathering: self }
    }

    fn send(&self, cx: &mut Context<'_>) {
        let Some(shared) = self.0.upgrade().filter(|shared| shared.is_due.get()) else { return };
        let sent = shared.stream.borrow_mut().poll_send(cx);
        match sent {
            // It is due still, and the task is woken when it can go on.
            Poll::Pending => {}
            Poll::Ready(Ok(())) => shared.is_due.set(false),
            Poll::Ready(Err(error)) => {
                shared.is_due.set(false);
                shared.stream.borrow_mut().failed = Some(error);
                cx.waker().wake_by_ref();
            }
        }
    }
}

/// Where a client's connection runs, and what belongs to it: the worker's own thread. hyper gives it the connection itself first,
/// as a future, when it has been opened, and then futures of its requests. Only the connection's may send. A socket wakes one
/// task when it can be written to, and the task of a request may be gone by then.
impl<F, S> hyper::rt::Executor<F> for Gathering<S>
where
    F: Future + 'static,
    S: AsyncWrite + Unpin + 'static,
{
    fn execute(&self, future: F) {
        let is_connection = self.0.upgrade().is_some_and(|shared| !shared.is_run.replace(true));
        if is_connection {
            drop(tokio::task::spawn_local(self.clone().sending(future)));
        } else {
            drop(tokio::task::spawn_local(future));
        }
    }
}

pin_project! {
    /// See [`Gathering::sending`].
    #[derive(Debug)]
    pub(crate) struct Sending<F, S> {
        #[pin]
        future: F,
        gathering: Gathering<S>,
    }
}

impl<F, S> Sending<F, S> {
    /// The future itself.
    pub(crate) fn get_pin(self: Pin<&mut Self>) -> Pin<&mut F> {
        self.project().future
    }
}

impl<F: Future, S: AsyncWrite + Unpin> Future for Sending<F, S> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.future.poll(cx);
        this.gathering.send(cx);
        polled
    }
}

impl<S> Stream<S> {
    /// Adds all of `bufs` to what waits, if there is room.
    fn gather(&mut self, bufs: &[IoSlice<'_>], length: usize) -> bool {
        if self.waiting.len() + length > ROOM {
            return false;
        }
        if self.waiting.capacity() == 0 {
            self.waiting = FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(ROOM));
        }
        bufs.iter().for_each(|buf| self.waiting.extend_from_slice(buf));
        true
    }

    /// The first `bytes` of what waits have been sent.
    fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent < self.waiting.len() {
            return;
        }
        let mut free = std::mem::take(&mut self.waiting);
        self.sent = 0;
        free.clear();
        // At the end of the thread there may be nowhere to give it back to.
        let _ = FREE.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if free.capacity() > 0 && kept.len() < KEPT {
                kept.push(free);
            }
        });
    }
}

impl<S: AsyncWrite + Unpin> Stream<S> {
    /// Sends what waits.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.waiting.len() {
            let waiting = &self.waiting[self.sent..];
            let sent = ready!(Pin::new(&mut self.inner).poll_write(cx, waiting))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// The same, down to the socket.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Takes `bufs`, which are `length` bytes: for later, or for now and after what waits.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
        length: usize,
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        if self.gather(bufs, length) {
            return Poll::Ready(Ok(length));
        }
        loop {
            let waiting = self.waiting.len() - self.sent;
            if waiting == 0 {
                return Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
            }
            let mut pieces = [IoSlice::new(&[]); 1 + PIECES];
            pieces[0] = IoSlice::new(&self.waiting[self.sent..]);
            let count = bufs.len().min(PIECES);
            pieces[1..=count].copy_from_slice(&bufs[..count]);
            let sent = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, &pieces[..=count]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(sent.min(waiting));
            if sent > waiting {
                return Poll::Ready(Ok(sent - waiting));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.stream.borrow_mut().inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.is_due.set(true);
        let length = bufs.iter().map(|buf| buf.len()).sum();
        self.0.stream.borrow_mut().poll_take(cx, bufs, length)
    }

    /// Sends nothing: that comes when the task has done what it can.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let failed = self.0.stream.borrow_mut().failed.take();
        Poll::Ready(failed.map_or(Ok(()), Err))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.0.stream.borrow_mut();
        ready!(stream.poll_send(cx))?;
        Pin::new(&mut stream.inner).poll_shutdown(cx)
    }

    /// Small pieces are copied once here, and large ones not at all.
    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
