//! A client's HTTP/1 stream, on which hyper only gets to see requests that are beyond doubt.
//!
//! Heads are judged as their bytes arrive, in the buffer that they were read into; only a head that comes
//! in parts is held back here until it is whole. Bodies pass uncopied, and are followed just as far as is
//! needed to know where the next head begins. In place of a request that is refused hyper sees a small one
//! of our own, after which nothing is read any more: so the refusal is answered in its turn by the same
//! path as everything else, with our header, counted and logged, and the connection closes.
//!
//! While an answer is awaited hyper does not read, since a client may close its half and still be answered.
//! One that is gone altogether would then be noticed when its answer is written: too late for the app, which
//! works for nobody. So this stream reads on instead, and holds what comes. An end is kept for later, and a
//! reset ends the connection, and with it the request.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    requests::{Requests, Stage},
    unfinished::Unfinished,
};
use crate::{
    budget::Budget,
    clients::{WaitingFor, Watch},
    error::{Reason, Refusal},
    io::{Abort, passes_on},
    refuse::OVERLOADED,
    settings::HeadLimits,
};

/// What hyper sees instead of a refused request. Its method is [`crate::refuse::REFUSED`].
const STAND_IN: &[u8] = b"SELVEDGE-REFUSED / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// How much of what a client has sent already that was refused, or cut short, is read before the connection closes. Closing over
/// unread bytes would reset it, and take the answer away from the client.
const LINGER: usize = 256 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Strict<S: Abort> {
    inner: S,
    requests: Requests,
    /// What was read and not yet handed on: cleared bytes, then the beginning of a head.
    held: BytesMut,
    /// How many bytes of `held` may be handed on.
    cleared: usize,
    /// Who is woken when the client has kept us waiting.
    parked: Option<Waker>,
    /// Whether a client that closes its half still waits for its answers.
    half_closes: bool,
    /// Whether the client has closed its half.
    ended: bool,
    /// Whether hyper is in the middle of writing something.
    writing: bool,
    /// Interim answers that are being sent.
    interim: Vec<u8>,
    /// Whether hyper has ended it well.
    finished: bool,
    /// What a head holds that has not ended.
    unfinished: Unfinished,
}

/// How many bytes of the next request are taken in while an answer is awaited, at the most.
const AHEAD: usize = 1024;

impl<S: Abort> Strict<S> {
    /// `half_closes`: its client may close its half and wait for its answers, as HTTP/1.1 allows.
    pub(super) fn new(
        inner: S,
        limits: HeadLimits,
        watch: Arc<Watch>,
        half_closes: bool,
        budget: &Arc<Budget>,
    ) -> Self {
        let unfinished = Unfinished::new(Arc::clone(budget), Arc::clone(&watch));
        Self {
            inner,
            requests: Requests::new(limits, watch),
            held: BytesMut::new(),
            cleared: 0,
            parked: None,
            half_closes,
            ended: false,
            writing: false,
            interim: Vec::new(),
            finished: false,
            unfinished,
        }
    }

    /// The same; `tunnels`: its client may ask for a tunnel by CONNECT.
    pub(super) fn with_tunnels(mut self, tunnels: bool) -> Self {
        self.requests.tunnels = tunnels;
        self
    }

    /// Puts the stand-in after what hyper may still have, if the request that follows is refused.
    fn stand_in(&mut self) {
        if matches!(self.requests.stage, Stage::Refused) {
            self.held.truncate(self.cleared);
            self.held.extend_from_slice(STAND_IN);
            self.cleared = self.held.len();
        }
    }

    fn hand_over(&mut self, buf: &mut ReadBuf<'_>) {
        let length = self.cleared.min(buf.remaining());
        buf.put_slice(&self.held[..length]);
        self.held.advance(length);
        self.cleared -= length;
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }

    /// Has `waker` woken in time. It is the connection's, and seldom another than last time.
    fn park(&mut self, waker: &Waker) {
        if !self.parked.as_ref().is_some_and(|parked| parked.will_wake(waker)) {
            self.requests.watch.park(waker);
            self.parked = Some(waker.clone());
        }
    }

    /// The rest of a head has not come in time, or there is no room for it.
    fn give_up(&mut self) {
        let late = Refusal {
            reason: Reason::RequestTimeout,
            what: "the rest of the request's head did not arrive in time (--header-timeout)",
        };
        self.requests.refuse(if self.requests.watch.is_overloaded() { OVERLOADED } else { late });
        self.stand_in();
        self.account();
    }

    /// Takes account of what is held of a head that has not ended.
    fn account(&mut self) {
        let of_head =
            matches!(self.requests.stage, Stage::Head) && self.requests.watch.waits_for(WaitingFor::Head);
        // The room that it takes, which is more than its bytes.
        let bytes = if of_head && self.held.len() > self.cleared { self.held.capacity() } else { 0 };
        self.unfinished.holds(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
}

impl<S: AsyncRead + Abort + Unpin> AsyncRead for Strict<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.settle();
        loop {
            if this.cleared > 0 {
                this.hand_over(buf);
                return Poll::Ready(Ok(()));
            }
            match this.requests.stage {
                Stage::Refused => return Poll::Pending,
                Stage::Broken => return Poll::Ready(Err(malformed())),
                _ if this.ended => return Poll::Ready(Ok(())),
                _ => {}
            }
            let before = buf.filled().len();
            let Poll::Ready(read) = Pin::new(&mut this.inner).poll_read(cx, buf) else {
                if !this.requests.watch.is_over() {
                    this.park(cx.waker());
                    return Poll::Pending;
                }
                if this.held.is_empty() {
                    // As if the client had closed: it has long not wanted anything.
                    return Poll::Ready(Ok(()));
                }
                this.give_up();
                continue;
            };
            read?;
            if this.requests.watch.is_over() {
                // It comes at the last moment. Who was parked has been woken for nothing, and parks again.
                this.parked = None;
            }
            if buf.filled().len() == before || this.take_in(buf, before) {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: Abort> Strict<S> {
    /// Follows what has become of the connection since it was last read from: a tunnel, or none.
    fn settle(&mut self) {
        match self.requests.stage {
            Stage::Head | Stage::Asked if self.requests.watch.is_tunnel() => {
                // What was held as the beginning of a head is none.
                self.requests.stage = Stage::Tunnel;
                self.cleared = self.held.len();
            }
            Stage::Asked if self.cleared == 0 && !self.requests.watch.awaited.is_on() => {
                // There is no tunnel.
                self.requests.stage = Stage::Head;
                self.cleared = self.requests.inspect(&self.held, 0);
                self.stand_in();
            }
            Stage::Refused if self.requests.watch.is_tunnel() => {
                // The client did not wait for its answer, and what it sent was taken for a request: the
                // stand-in must not get into the tunnel.
                self.requests.stage = Stage::Broken;
                self.held.clear();
                self.cleared = 0;
            }
            _ => {}
        }
    }

    /// Judges what was read into `buf` after its first `before` bytes, and holds back what hyper may not have. Whether
    /// something is left in `buf`.
    fn take_in(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> bool {
        if self.held.is_empty() {
            let passed = self.requests.inspect(&buf.filled()[before..], 0);
            self.held.extend_from_slice(&buf.filled()[before + passed..]);
            buf.set_filled(before + passed);
            self.stand_in();
            if passed > 0 {
                self.account();
                return true;
            }
        } else {
            let seen = self.held.len();
            self.held.extend_from_slice(&buf.filled()[before..]);
            buf.set_filled(before);
            self.cleared = self.requests.inspect(&self.held, seen);
            self.stand_in();
        }
        self.account();
        let is_in_head = matches!(self.requests.stage, Stage::Head) && self.cleared == 0;
        if is_in_head && self.requests.watch.is_overloaded() {
            self.give_up();
        }
        false
    }
}

impl<S: AsyncRead + Abort + Unpin> Strict<S> {
    /// Reads while an answer is awaited, to learn of a client that is gone.
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
            let gone =
                || io::Error::new(io::ErrorKind::ConnectionAborted, "the client closed before its answer");
            return self.half_closes.then_some(()).ok_or_else(gone);
        }
        self.held.extend_from_slice(bytes);
        self.cleared = self.requests.inspect(bytes, 0);
        self.stand_in();
        Ok(())
    }
}

impl<S: AsyncWrite + Abort + Unpin> Strict<S> {
    /// Sends interim answers, if there are any. They come between whole messages: those that find hyper in
    /// the middle of one are left out.
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

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the request's body is not chunked as HTTP/1.1 requires")
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
            // Also while an answer comes bit by bit: who has left it would be noticed at its next bit only.
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

impl<S: Abort> Abort for Strict<S> {
    fn abort(&self) {
        self.inner.abort();
    }
}

impl<S: Abort> Drop for Strict<S> {
    fn drop(&mut self) {
        // To a client of HTTP/1.0 the connection's end is the answer's, and one that was cut short would be a whole
        // one (RFC 9112, section 8).
        if !self.finished && self.requests.watch.awaited.is_old() {
            self.inner.abort();
        }
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

#[cfg(test)]
mod tests;
