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
use memchr::memchr_iter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    chunks::Chunks,
    head::{Framing, NO_TUNNEL, judge},
    unfinished::Unfinished,
};
use crate::{
    budget::Budget,
    clients::{For, Watch},
    error::{Reason, Refusal},
    io::Abort,
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
    limits: HeadLimits,
    watch: Arc<Watch>,
    stage: Stage,
    /// What was read and not yet handed on: cleared bytes, then the beginning of a head.
    held: BytesMut,
    /// How many bytes of `held` may be handed on.
    cleared: usize,
    /// Who is woken when the client has kept us waiting.
    parked: Option<Waker>,
    /// Whether a client that closes its half still waits for its answers.
    half_closes: bool,
    /// Whether CONNECT may open a tunnel.
    tunnels: bool,
    /// Whether it has closed it.
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

/// What the next byte belongs to.
#[derive(Debug)]
enum Stage {
    Head,
    Sized(u64),
    Chunked(Chunks),
    /// The answer to CONNECT says whether it is a tunnel's, or begins the next head.
    Asked,
    /// No HTTP any more.
    Tunnel,
    /// A request was refused: nothing more is read.
    Refused,
    /// A body went wrong.
    Broken,
}

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
            limits,
            watch,
            stage: Stage::Head,
            held: BytesMut::new(),
            cleared: 0,
            parked: None,
            half_closes,
            tunnels: false,
            ended: false,
            writing: false,
            interim: Vec::new(),
            finished: false,
            unfinished,
        }
    }

    /// The same; `tunnels`: its client may ask for a tunnel by CONNECT.
    pub(super) fn with_tunnels(mut self, tunnels: bool) -> Self {
        self.tunnels = tunnels;
        self
    }

    /// Goes through `bytes`, the first `seen` of which are an incomplete head. Returns how many of them
    /// hyper may have.
    fn inspect(&mut self, bytes: &[u8], seen: usize) -> usize {
        let partial = seen > 0 && !self.may_be_whole(bytes, seen);
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match &mut self.stage {
                Stage::Head if self.watch.is_tunnel() => self.stage = Stage::Tunnel,
                Stage::Head if at == 0 && partial => break,
                Stage::Head => match judge(rest, self.limits) {
                    Ok(Some(head)) if head.framing == Framing::Tunnel && !self.tunnels => {
                        // hyper would keep such a connection for a tunnel, and never close it as it closes others.
                        self.refuse(NO_TUNNEL);
                        break;
                    }
                    Ok(Some(head)) => {
                        at += head.length;
                        self.follow(head.framing);
                    }
                    Ok(None) => break,
                    Err(refusal) => {
                        self.refuse(refusal);
                        break;
                    }
                },
                Stage::Sized(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= here as u64;
                    at += here;
                    if *left == 0 {
                        self.follow(Framing::Empty);
                    }
                }
                Stage::Chunked(chunks) => match chunks.pass(rest) {
                    Ok(passed) => {
                        at += passed;
                        if chunks.is_over() {
                            self.follow(Framing::Empty);
                        }
                    }
                    Err(_) => {
                        self.stage = Stage::Broken;
                        break;
                    }
                },
                Stage::Tunnel => at = bytes.len(),
                Stage::Asked | Stage::Refused | Stage::Broken => break,
            }
        }
        if matches!(self.stage, Stage::Head) && at < bytes.len() && !self.watch.waits_for(For::Head) {
            self.watch.wait(For::Head);
        }
        at
    }

    /// Whether a head that was incomplete can be whole now. Saves judging it again for every byte.
    fn may_be_whole(&self, bytes: &[u8], seen: usize) -> bool {
        let from = seen.saturating_sub(2);
        let end = |at: usize| matches!(bytes[from + at..], [_, b'\n', ..] | [_, b'\r', b'\n', ..]);
        bytes.len() > self.limits.bytes || memchr_iter(b'\n', &bytes[from..]).any(end)
    }

    /// A head has ended, or a body.
    fn follow(&mut self, framing: Framing) {
        let (stage, waiting) = match framing {
            Framing::Empty => (Stage::Head, For::Request),
            Framing::Sized(length) => (Stage::Sized(length), For::Nothing),
            Framing::Chunked => (Stage::Chunked(Chunks::new()), For::Nothing),
            Framing::Tunnel => (Stage::Asked, For::Request),
        };
        self.stage = stage;
        self.watch.wait(waiting);
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.watch.refuse(refusal);
        self.stage = Stage::Refused;
    }

    /// Puts the stand-in after what hyper may still have, if the request that follows is refused.
    fn stand_in(&mut self) {
        if matches!(self.stage, Stage::Refused) {
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
            self.watch.park(waker);
            self.parked = Some(waker.clone());
        }
    }

    /// The rest of a head has not come in time, or there is no room for it.
    fn give_up(&mut self) {
        let late = Refusal {
            reason: Reason::RequestTimeout,
            what: "the rest of the request's head did not arrive in time (--header-timeout)",
        };
        self.refuse(if self.watch.is_overloaded() { OVERLOADED } else { late });
        self.stand_in();
        self.account();
    }

    /// Takes account of what is held of a head that has not ended.
    fn account(&mut self) {
        let of_head = matches!(self.stage, Stage::Head) && self.watch.waits_for(For::Head);
        // The room that it takes, which is more than its bytes.
        let bytes = if of_head && self.held.len() > self.cleared { self.held.capacity() } else { 0 };
        self.unfinished.holds(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
}

impl<S: AsyncRead + Abort + Unpin> AsyncRead for Strict<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.stage {
            Stage::Head | Stage::Asked if this.watch.is_tunnel() => {
                // What was held as the beginning of a head is none.
                this.stage = Stage::Tunnel;
                this.cleared = this.held.len();
            }
            Stage::Asked if this.cleared == 0 && !this.watch.awaited.is_on() => {
                // There is no tunnel.
                this.stage = Stage::Head;
                let held = std::mem::take(&mut this.held);
                this.cleared = this.inspect(&held, 0);
                this.held = held;
                this.stand_in();
            }
            Stage::Refused if this.watch.is_tunnel() => {
                // The client did not wait for its answer, and what it sent was taken for a request: the
                // stand-in must not get into the tunnel.
                this.stage = Stage::Broken;
                this.held.clear();
                this.cleared = 0;
            }
            _ => {}
        }
        loop {
            if this.cleared > 0 {
                this.hand_over(buf);
                return Poll::Ready(Ok(()));
            }
            match this.stage {
                Stage::Refused => return Poll::Pending,
                Stage::Broken => return Poll::Ready(Err(malformed())),
                _ if this.ended => return Poll::Ready(Ok(())),
                _ => {}
            }
            let before = buf.filled().len();
            let Poll::Ready(read) = Pin::new(&mut this.inner).poll_read(cx, buf) else {
                if !this.watch.is_over() {
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
            if this.watch.is_over() {
                // It comes at the last moment. Who was parked has been woken for nothing, and parks again.
                this.parked = None;
            }
            let read = buf.filled().len() - before;
            if read == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() {
                let passed = this.inspect(&buf.filled()[before..], 0);
                this.held.extend_from_slice(&buf.filled()[before + passed..]);
                buf.set_filled(before + passed);
                this.stand_in();
                if passed > 0 {
                    this.account();
                    return Poll::Ready(Ok(()));
                }
            } else {
                let seen = this.held.len();
                this.held.extend_from_slice(&buf.filled()[before..]);
                buf.set_filled(before);
                let held = std::mem::take(&mut this.held);
                this.cleared = this.inspect(&held, seen);
                this.held = held;
                this.stand_in();
            }
            this.account();
            if this.watch.is_overloaded() && matches!(this.stage, Stage::Head) && this.cleared == 0 {
                this.give_up();
            }
        }
    }
}

impl<S: AsyncRead + Abort + Unpin> Strict<S> {
    /// Reads while an answer is awaited, to learn of a client that is gone.
    fn look(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.ended || !self.held.is_empty() || !matches!(self.stage, Stage::Head | Stage::Asked) {
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
        self.cleared = self.inspect(bytes, 0);
        self.stand_in();
        Ok(())
    }
}

impl<S: AsyncWrite + Abort + Unpin> Strict<S> {
    /// Sends interim answers, if there are any. They come between whole messages: those that find hyper in
    /// the middle of one are left out.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim.is_empty() {
            if !self.watch.awaited.has_interim() {
                return Poll::Ready(Ok(()));
            }
            // Who was parked has been woken for this, and parks again.
            self.parked = None;
            let interim = self.watch.awaited.take();
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
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_interim(cx))?;
        this.writing = true;
        Pin::new(&mut this.inner).poll_write(cx, buf)
    }

    /// hyper comes here whenever it has been woken, after it has written all that it had.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let is_awaited = this.watch.awaited.is_on();
        // A message has come to its end, unless its answer's body is what hyper waits for.
        this.writing &= !is_awaited;
        ready!(this.poll_interim(cx))?;
        ready!(Pin::new(&mut this.inner).poll_flush(cx))?;
        if is_awaited || this.watch.in_progress() > 0 {
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
        if !matches!(this.stage, Stage::Head | Stage::Tunnel) {
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

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
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
        if !self.finished && self.watch.awaited.is_old() {
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
