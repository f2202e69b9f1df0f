//! How slowly a gateway's client may read its answers. One that reads nothing keeps an app's connection as well as its own.
//!
//! An answer waits for its client from when a piece of it is given to the connection until the next one is asked for. The
//! sweep over all connections ([`super::Patience`]) looks at those where some do: a request costs no timer. A client of
//! HTTP/2 has to keep the pace for each answer that waits, because others on its connection could hide those that it
//! never reads.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    task::Poll,
};

use futures_util::task::AtomicWaker;

/// How slowly clients may read, for a sweep; in milliseconds, and bytes per second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) patience: u64,
    pub(super) rate: u64,
    /// How much time passes between two looks.
    pub(super) tick: u64,
}

/// What a connection's client has not taken of its answers. On one thread, as its [`super::Watch`] is.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    /// Whether it has to keep a pace.
    limited: AtomicBool,
    /// How many answers wait.
    waiting: AtomicU32,
    /// Bytes that it has taken since the last look.
    taken: AtomicU64,
    /// How many milliseconds it has left.
    left: AtomicU64,
    slow: AtomicBool,
    waker: AtomicWaker,
}

impl Readers {
    /// It has to keep a pace.
    pub(crate) fn limit(&self) {
        // More than any limit: the first look makes it that.
        self.left.store(u64::MAX, Ordering::Relaxed);
        self.limited.store(true, Ordering::Relaxed);
    }

    /// Whether it has to.
    pub(crate) fn is_limited(&self) -> bool {
        self.limited.load(Ordering::Relaxed)
    }

    /// A piece of an answer waits for it.
    pub(crate) fn waits(&self) {
        self.waiting.store(self.waiting.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// It has taken the `bytes` of one, or nobody waits for that any more.
    pub(crate) fn took(&self, bytes: u32) {
        self.waiting.store(self.waiting.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        self.taken.store(self.taken.load(Ordering::Relaxed) + u64::from(bytes), Ordering::Relaxed);
    }

    /// One tick later.
    pub(super) fn look(&self, pace: Pace) {
        let taken = self.taken.swap(0, Ordering::Relaxed);
        let waiting = u64::from(self.waiting.load(Ordering::Relaxed));
        if waiting == 0 || pace.rate == 0 {
            // Up to a tick of the next wait has passed at the next look.
            return self.left.store(pace.patience + pace.tick, Ordering::Relaxed);
        }
        let more = taken.saturating_mul(1000) / pace.rate.saturating_mul(waiting);
        let left = self.left.load(Ordering::Relaxed).saturating_add(more).min(pace.patience + pace.tick);
        self.left.store(left.saturating_sub(pace.tick), Ordering::Relaxed);
        if left <= pace.tick {
            self.slow.store(true, Ordering::Relaxed);
            self.waker.wake();
        }
    }

    /// Completes when the client is too slow.
    pub(crate) async fn are_slow(&self) {
        std::future::poll_fn(|cx| {
            if self.slow.load(Ordering::Relaxed) {
                return Poll::Ready(());
            }
            self.waker.register(cx.waker());
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const PACE: Pace = Pace { patience: 10_000, rate: 100, tick: 1000 };

    fn readers() -> Readers {
        let readers = Readers::default();
        readers.limit();
        readers
    }

    fn is_slow(readers: &Readers) -> bool {
        readers.are_slow().now_or_never().is_some()
    }

    #[test]
    fn who_takes_nothing_is_too_slow_after_its_time_and_not_before() {
        let readers = readers();
        readers.waits();
        for _ in 0..10 {
            readers.look(PACE);
            assert!(!is_slow(&readers));
        }

        readers.look(PACE);

        assert!(is_slow(&readers));
    }

    #[test]
    fn who_keeps_the_rate_is_not_and_who_has_nothing_to_take_neither() {
        let readers = readers();
        for _ in 0..100 {
            readers.waits();
            readers.look(PACE);
            readers.took(100);
        }
        assert!(!is_slow(&readers));
        for _ in 0..100 {
            readers.look(PACE);
        }
        assert!(!is_slow(&readers), "an idle connection");
    }

    #[test]
    fn one_answer_that_is_read_does_not_hide_others_that_are_not() {
        let readers = readers();
        (0..50).for_each(|_| readers.waits());
        for _ in 0..30 {
            readers.waits();
            readers.look(PACE);
            readers.took(100);
        }

        assert!(is_slow(&readers));
    }
}
