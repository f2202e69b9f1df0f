//! One client's connection, as its stream and its service both see it: what it waits for, and what is in progress on it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use futures_util::task::AtomicWaker;

use super::{awaited::Awaited, readers::Readers};
use crate::error::Refusal;

/// How long a refused client may take to read why, and to close its connection.
const FAREWELL: Duration = Duration::from_secs(5);

/// What time it is, and how much of it may pass; in ticks.
#[derive(Debug)]
pub(super) struct Clock {
    pub(super) head: u32,
    pub(super) idle: u32,
    pub(super) now: AtomicU32,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum WaitingFor {
    /// For nothing: its client may take its time.
    Nothing,
    /// The rest of a head.
    Head,
    /// A request.
    Request,
}

/// A request in progress, as long as this lives.
#[derive(Debug)]
pub struct UnderWay(pub(crate) Arc<Watch>);

impl UnderWay {
    /// One more on the connection of `watch`.
    #[cfg(test)]
    pub(crate) fn of(watch: &Arc<Watch>) -> Self {
        Self::new(Arc::clone(watch))
    }

    /// One more on the connection of `watch`.
    pub(crate) fn new(watch: Arc<Watch>) -> Self {
        // Plain loads and stores: all on one thread.
        watch.under_way.store(watch.in_progress() + 1, Ordering::Relaxed);
        Self(watch)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.store(self.0.in_progress() - 1, Ordering::Relaxed);
    }
}

/// One connection from a client, as its stream and its service both see it.
///
/// Used on one thread. It has atomics because hyper upgrades only streams that could move to another thread; they cost
/// what plain fields would.
#[derive(Debug)]
pub struct Watch {
    clock: Arc<Clock>,
    waiting: AtomicU8,
    since: AtomicU32,
    waker: AtomicWaker,
    /// What was wrong with the request that is refused.
    refusal: OnceLock<Refusal>,
    /// Whether HTTP has ended on it, by an upgrade.
    tunnel: AtomicBool,
    /// Whether the head that has begun is to be refused, because too much is held.
    overloaded: AtomicBool,
    /// Bytes of the head that has begun.
    head_bytes: AtomicU32,
    /// How many heads have come in parts.
    heads: AtomicU32,
    /// Whether its client should close the connection, once it has been told why.
    unwelcome: AtomicBool,
    /// Whether the next answer is the last one.
    closes: AtomicBool,
    /// Requests in progress.
    under_way: AtomicU32,
    /// What its client has not taken of its answers.
    pub(crate) readers: Readers,
    /// The answer that its client waits for; HTTP/1 only.
    pub(crate) awaited: Awaited,
}

impl Watch {
    /// A connection that waits for its first request, from now.
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        Self {
            waiting: AtomicU8::new(WaitingFor::Request as u8),
            since: AtomicU32::new(clock.now.load(Ordering::Relaxed)),
            clock,
            waker: AtomicWaker::new(),
            refusal: OnceLock::new(),
            tunnel: AtomicBool::new(false),
            overloaded: AtomicBool::new(false),
            head_bytes: AtomicU32::new(0),
            heads: AtomicU32::new(0),
            unwelcome: AtomicBool::new(false),
            closes: AtomicBool::new(false),
            under_way: AtomicU32::new(0),
            readers: Readers::default(),
            awaited: Awaited::default(),
        }
    }

    /// Wakes whatever serves it.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// Begins to wait, from now.
    pub(crate) fn wait(&self, what: WaitingFor) {
        self.waiting.store(what as u8, Ordering::Relaxed);
        self.since.store(self.clock.now.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// A request has come; on HTTP/2 that is all that is known.
    pub(crate) fn request(&self) {
        if self.waits_for(WaitingFor::Request) {
            self.wait(WaitingFor::Request);
        }
    }

    /// How many requests are in progress: until the last byte of the answer has been taken, or nobody waits for it any
    /// more.
    pub(crate) fn in_progress(&self) -> u32 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Whether `what` is waited for.
    pub(crate) fn waits_for(&self, what: WaitingFor) -> bool {
        self.waiting.load(Ordering::Relaxed) == what as u8
    }

    /// Whether what is waited for has taken too long.
    pub(crate) fn is_over(&self) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        let waited = self.clock.now.load(Ordering::Relaxed).wrapping_sub(since);
        // The tick that was running when it began does not count.
        self.unwelcome.load(Ordering::Relaxed)
            || self.is_overloaded()
            || (self.waits_for(WaitingFor::Head) && waited > self.clock.head)
            || (self.waits_for(WaitingFor::Request) && waited > self.clock.idle)
    }

    /// A head has begun that comes in parts; its number.
    pub(crate) fn begin_head(&self) -> u32 {
        let number = self.heads.load(Ordering::Relaxed).wrapping_add(1);
        self.heads.store(number, Ordering::Relaxed);
        number
    }

    /// Whether head `number` has not ended.
    pub(crate) fn is_in_head(&self, number: u32) -> bool {
        self.waits_for(WaitingFor::Head) && self.heads.load(Ordering::Relaxed) == number
    }

    /// Notes that the head that has begun holds `bytes`; nothing once it is refused. Returns how many it held before.
    pub(crate) fn head_holds(&self, bytes: u32) -> u32 {
        let before = self.head_bytes.load(Ordering::Relaxed);
        if !self.is_overloaded() {
            self.head_bytes.store(bytes, Ordering::Relaxed);
            return before;
        }
        bytes
    }

    /// Refuses the head that has begun. Returns how many bytes it held.
    pub(crate) fn overload(&self) -> u32 {
        self.overloaded.store(true, Ordering::Relaxed);
        self.waker.wake();
        let held = self.head_bytes.load(Ordering::Relaxed);
        self.head_bytes.store(0, Ordering::Relaxed);
        held
    }

    /// Whether the head that has begun is refused.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.overloaded.load(Ordering::Relaxed)
    }

    /// Takes no more requests: one was refused.
    pub(crate) fn dismiss(&self) {
        self.unwelcome.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    /// Has the connection close with its next answer, which says so.
    pub(crate) fn close_after_answer(&self) {
        self.closes.store(true, Ordering::Relaxed);
    }

    /// Whether it does.
    pub(crate) fn closes_after_answer(&self) -> bool {
        self.closes.load(Ordering::Relaxed)
    }

    /// Waits until a refused client has had time to close the connection, and nothing is in progress on it.
    pub(crate) async fn left_unserved(&self) {
        loop {
            tokio::time::sleep(FAREWELL).await;
            if self.unwelcome.load(Ordering::Relaxed) && self.in_progress() == 0 {
                return;
            }
        }
    }

    /// Wakes `waker` when it has taken too long.
    pub(crate) fn park(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Waits until it has taken too long.
    pub(crate) async fn over(&self) {
        std::future::poll_fn(|cx| {
            if self.is_over() {
                return Poll::Ready(());
            }
            self.park(cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Serves no request any more, for this reason.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        // There is but one: nothing is read after it.
        let _ = self.refusal.set(refusal);
        self.wait(WaitingFor::Nothing);
    }

    /// Why a request is refused in whose place hyper saw our own. `None`: it was a client's.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal.get().copied()
    }

    /// The number of the request whose client may get interim answers; `None`: there is none.
    pub(crate) fn exchange(&self) -> Option<u32> {
        self.awaited.exchange()
    }

    /// Sends `text`, an interim answer, to the client that waits for the answer to request number `exchange`.
    pub(crate) fn interim(&self, exchange: u32, text: &[u8]) {
        if self.awaited.leave(exchange, text) {
            self.waker.wake();
        }
    }

    /// HTTP ends here; nothing is waited for any more.
    pub(crate) fn become_tunnel(&self) {
        self.tunnel.store(true, Ordering::Relaxed);
        self.wait(WaitingFor::Nothing);
    }

    /// Whether HTTP has ended.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Relaxed)
    }
}
