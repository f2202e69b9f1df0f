//! A client's HTTP/1 stream that shows hyper only requests that are beyond doubt.
//!
//! Heads are judged as their bytes arrive, in the buffer that they were read into. Only a head that comes in parts is
//! held back here until it is whole. Bodies pass uncopied, and are followed only to find where the next head begins.
//! Instead of a refused request hyper sees a small one of our own, and after it nothing is read any more. So the
//! refusal is answered in its turn by the same path as everything else, with our header, counted and logged, and the
//! connection closes.
//!
//! While an answer is awaited hyper does not read. A client that has left would be noticed only when its answer is
//! written, and the app would work for nobody: its requests would be tried again and hold places among those that limits
//! allow. So this stream reads on, and holds what comes. An end or a reset ends the connection, and the request with it.
//! TCP does not tell a client that has left from one that closes its half and waits; clients of HTTP do the first when
//! their time is over, and the second is all but unknown. Envoy and nginx (`proxy_ignore_client_abort`) do the same.

mod write;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    requests::{Requests, Stage},
    unfinished::Unfinished,
};
use crate::{
    budget::Budget,
    clients::{WaitingFor, Watch},
    error::{Reason, Refusal},
    io::Abort,
    refuse::OVERLOADED,
    settings::HeadLimits,
};

/// What hyper sees instead of a refused request. Its method is [`crate::error::REFUSED`].
const STAND_IN: &[u8] = b"SELVEDGE-REFUSED / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// See the module.
#[derive(Debug)]
pub(super) struct Strict<S: Abort> {
    inner: S,
    requests: Requests,
    /// What was read and not yet handed on: cleared bytes, then the beginning of a head.
    held: BytesMut,
    /// How many bytes of `held` may be handed on.
    cleared: usize,
    /// The task that is woken when the client has kept the proxy waiting.
    parked: Option<Waker>,
    /// Whether the client has closed.
    ended: bool,
    /// Whether hyper is in the middle of writing something.
    writing: bool,
    /// Interim answers that are being sent.
    interim: Vec<u8>,
    /// Whether hyper has ended it well.
    finished: bool,
    /// The memory of a head that has not ended.
    unfinished: Unfinished,
}

impl<S: Abort> Strict<S> {
    /// A stream that has not been read.
    pub(super) fn new(inner: S, limits: HeadLimits, watch: Arc<Watch>, budget: &Arc<Budget>) -> Self {
        let unfinished = Unfinished::new(Arc::clone(budget), Arc::clone(&watch));
        Self {
            inner,
            requests: Requests::new(limits, watch),
            held: BytesMut::new(),
            cleared: 0,
            parked: None,
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

    /// Has `waker` woken in time. It is the connection's, and rarely another than last time.
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

    /// Accounts for the bytes of a head that has not ended.
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
                    // As if the client had closed: it has not wanted anything for a long time.
                    return Poll::Ready(Ok(()));
                }
                this.give_up();
                continue;
            };
            read?;
            if this.requests.watch.is_over() {
                // It came at the last moment. The task was woken for nothing, and parks again.
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
                // What was held as the beginning of a head belongs to the tunnel.
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
                // The client did not wait for its answer, and what it sent was taken for a request. The stand-in must
                // not get into the tunnel.
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

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the request's body is not chunked as HTTP/1.1 requires")
}

impl<S: Abort> Abort for Strict<S> {
    fn abort(&self) {
        self.inner.abort();
    }
}

impl<S: Abort> Drop for Strict<S> {
    fn drop(&mut self) {
        // For an HTTP/1.0 client the end of the connection is the end of the answer, so an answer that was cut short
        // would look whole (RFC 9112, section 8).
        if !self.finished && self.requests.watch.awaited.is_old() {
            self.inner.abort();
        }
    }
}

#[cfg(test)]
mod tests;
