//! Clients' connections that keep us waiting: one sweep over all of them instead of a timer for each request.
//!
//! A connection notes the tick at which it began to wait, which is one store; every tick, those that have
//! waited for too long are woken and end themselves. Limits are kept to within one tick.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use futures_util::task::AtomicWaker;

use super::awaited::Awaited;
use crate::error::Refusal;

/// The longest tick: how long an idle worker sleeps.
const MAX_TICK: Duration = Duration::from_secs(5);
/// The shortest tick, for short limits.
const MIN_TICK: Duration = Duration::from_millis(50);

/// How long a client that is not welcome any more may take to read why, and to go.
const FAREWELL: Duration = Duration::from_secs(5);

/// A worker's connections from clients.
#[derive(Debug)]
pub struct Patience {
    tick: Duration,
    clock: Arc<Clock>,
    connections: RefCell<Vec<Weak<Watch>>>,
}

/// What time it is, and how much of it may pass; in ticks.
#[derive(Debug)]
struct Clock {
    head: u32,
    idle: u32,
    now: AtomicU32,
}

impl Patience {
    /// Waits for the rest of a head for `head`, and for another request for `idle`.
    pub fn new(head: Duration, idle: Duration) -> Rc<Self> {
        let tick = (head.min(idle) / 4).clamp(MIN_TICK, MAX_TICK);
        let ticks = |limit: Duration| {
            let ticks = limit.as_millis().div_ceil(tick.as_millis());
            u32::try_from(ticks).unwrap_or(u32::MAX / 2)
        };
        let clock = Clock { head: ticks(head), idle: ticks(idle), now: AtomicU32::new(0) };
        Rc::new(Self { tick, clock: Arc::new(clock), connections: RefCell::default() })
    }

    /// How often to call [`Self::advance`].
    pub fn tick(&self) -> Duration {
        self.tick
    }

    /// One tick later: wakes who has waited for too long, forgets who is gone.
    pub fn advance(&self) {
        self.clock.now.fetch_add(1, Ordering::Relaxed);
        self.connections.borrow_mut().retain(|connection| {
            let connection = connection.upgrade();
            if let Some(watch) = connection.as_ref().filter(|watch| watch.is_over()) {
                watch.waker.wake();
            }
            connection.is_some()
        });
    }

    /// Watches one more connection, as long as the result lives.
    pub fn watch(&self) -> Arc<Watch> {
        let watch = Arc::new(Watch {
            clock: Arc::clone(&self.clock),
            waiting: AtomicU8::new(WaitingFor::Request as u8),
            since: AtomicU32::new(self.clock.now.load(Ordering::Relaxed)),
            waker: AtomicWaker::new(),
            refusal: OnceLock::new(),
            tunnel: AtomicBool::new(false),
            overloaded: AtomicBool::new(false),
            head_bytes: AtomicU32::new(0),
            heads: AtomicU32::new(0),
            unwelcome: AtomicBool::new(false),
            under_way: AtomicU32::new(0),
            awaited: Awaited::default(),
        });
        self.connections.borrow_mut().push(Arc::downgrade(&watch));
        watch
    }
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum WaitingFor {
    /// Nothing that its client is to hurry for.
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
/// All on one thread: the atomics are there because hyper upgrades only streams that could be sent to
/// another, and cost what plain fields would.
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
    /// Whether its client is not welcome any more, once it has been told why.
    unwelcome: AtomicBool,
    /// Requests in progress.
    under_way: AtomicU32,
    /// The answer that its client waits for; HTTP/1 only.
    pub(crate) awaited: Awaited,
}

impl Watch {
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

    /// Requests in progress: until the last byte of their answers has been taken, or nobody waits for it any more.
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

    /// The head that has begun holds so many bytes; nothing once it is refused. Returns how many it held before.
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

    /// Waits until a client that is not welcome has had time to go, and nothing of its is in progress.
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

    /// Sends `text`, an interim answer, to whoever waits for the answer to request number `exchange`.
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn advance(patience: &Patience, time: Duration) {
        for _ in 0..time.as_millis() / patience.tick().as_millis() {
            patience.advance();
        }
    }

    #[test]
    fn each_wait_has_its_own_limit() {
        let (head, idle) = (Duration::from_secs(1), Duration::from_secs(10));
        let patience = Patience::new(head, idle);
        let watch = patience.watch();
        advance(&patience, idle);
        assert_eq!(watch.over().now_or_never(), None);
        patience.advance();
        assert_eq!(watch.over().now_or_never(), Some(()));

        watch.wait(WaitingFor::Head);
        advance(&patience, head);
        assert_eq!(watch.over().now_or_never(), None);
        patience.advance();
        assert_eq!(watch.over().now_or_never(), Some(()));

        watch.wait(WaitingFor::Nothing);
        advance(&patience, 10 * idle);
        assert_eq!(watch.over().now_or_never(), None);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let patience = Patience::new(Duration::from_secs(1), Duration::from_secs(1));
        drop(patience.watch());
        let _kept = patience.watch();

        patience.advance();

        assert_eq!(patience.connections.borrow().len(), 1);
    }
}
