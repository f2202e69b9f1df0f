//! How slowly a request's body may arrive. A body that is too slow keeps an app waiting (slow POST).
//!
//! A body with a declared length has to keep a pace. A client that knows the length has the bytes, so only the network or
//! ill will delays them. A body of unknown length may be a stream that has nothing to say for hours: it has to keep one
//! only at a gateway, until its answer has begun, and not if it is gRPC's. Only the time counts in which the proxy waits
//! for the client, not the time in which the app does not read.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use crate::{
    settings::PaceLimits,
    telemetry::Coming,
    time::{Deadline, Deadlines},
};

/// The pace of one body.
#[derive(Debug)]
pub struct Pace {
    /// How the body goes on.
    pub(super) coming: Cell<Coming>,
    limits: PaceLimits,
    deadlines: Rc<Deadlines>,
    /// How much longer it may keep the proxy waiting.
    left: Cell<Duration>,
    /// Since when we wait, and until when.
    waiting: RefCell<Option<(Instant, Deadline)>>,
    slow: Cell<bool>,
    /// Whether it need not keep it any more.
    released: Cell<bool>,
}

impl Pace {
    /// The pace of a body of this `length`; if that is unknown, it has to keep one if it is a `strangers`. `None`: it need
    /// not keep any.
    pub fn of(
        length: Option<u64>,
        strangers: bool,
        limits: PaceLimits,
        deadlines: &Rc<Deadlines>,
    ) -> Option<Rc<Self>> {
        let limited = limits.rate > 0 && length.map_or(strangers, |length| length > 0);
        limited.then(|| {
            Rc::new(Self {
                coming: Cell::default(),
                limits,
                deadlines: Rc::clone(deadlines),
                left: Cell::new(limits.patience),
                waiting: RefCell::default(),
                slow: Cell::new(false),
                released: Cell::new(false),
            })
        })
    }

    /// Nothing has come. Ready when the proxy has waited for too long.
    pub fn poll_wait(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.released.get() {
            return Poll::Pending;
        }
        let mut waiting = self.waiting.borrow_mut();
        let (_, deadline) = waiting.get_or_insert_with(|| {
            let now = Instant::now();
            (now, self.deadlines.at(now + self.left.get()))
        });
        ready!(Pin::new(deadline).poll(cx));
        self.slow.set(true);
        Poll::Ready(())
    }

    /// Notes that `bytes` have come.
    pub fn came(&self, bytes: usize) {
        let waited = self.waiting.take().map(|(since, _)| since.elapsed()).unwrap_or_default();
        self.left.set(after(self.limits, self.left.get(), waited, bytes));
    }

    /// It need not keep it any more: its answer has begun, so it is one side of a conversation.
    pub fn release(&self) {
        self.released.set(true);
    }

    /// Whether it was too slow.
    pub fn was_slow(&self) -> bool {
        self.slow.get()
    }
}

/// How much longer a body may keep the proxy waiting, after it has `waited` for these `bytes`.
fn after(limits: PaceLimits, left: Duration, waited: Duration, bytes: usize) -> Duration {
    let nanos = (bytes as u64).saturating_mul(1_000_000_000) / u64::from(limits.rate.max(1));
    left.saturating_sub(waited).saturating_add(Duration::from_nanos(nanos)).min(limits.patience)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: PaceLimits = PaceLimits { patience: Duration::from_secs(10), rate: 100 };

    #[test]
    fn bytes_make_good_for_time_but_are_not_saved_up() {
        let second = Duration::from_secs(1);

        assert_eq!(after(LIMITS, 10 * second, 4 * second, 0), 6 * second);
        assert_eq!(after(LIMITS, 6 * second, second, 200), 7 * second);
        assert_eq!(
            after(LIMITS, 6 * second, second, 1_000_000),
            10 * second,
            "a fast start earns no long stall"
        );
        assert_eq!(after(LIMITS, second, 4 * second, 50), second / 2);
    }

    #[test]
    fn only_a_body_of_known_length_or_a_strangers_keeps_a_pace() {
        let deadlines = Rc::new(Deadlines::default());

        assert!(Pace::of(Some(1), false, LIMITS, &deadlines).is_some());
        assert!(Pace::of(Some(0), true, LIMITS, &deadlines).is_none());
        assert!(Pace::of(None, false, LIMITS, &deadlines).is_none());
        assert!(Pace::of(None, true, LIMITS, &deadlines).is_some(), "a stranger's");
        let unlimited = PaceLimits { rate: 0, ..LIMITS };
        assert!(Pace::of(Some(1), true, unlimited, &deadlines).is_none());
    }

    proptest! {
        #[test]
        fn who_keeps_the_rate_is_never_cut_off(waits in prop::collection::vec(1u64..9_000, 1..200)) {
            let mut left = LIMITS.patience;
            for millis in waits {
                let waited = Duration::from_millis(millis);
                prop_assert!(waited < left, "{left:?} left");
                // A whole second's bytes for each second begun.
                left = after(LIMITS, left, waited, millis.div_ceil(1000) as usize * 100);
            }
        }

        #[test]
        fn who_is_slower_is_cut_off(millis in 1_500u64..5_000) {
            let (mut left, mut bytes) = (LIMITS.patience, 0);
            while left > Duration::from_millis(millis) {
                left = after(LIMITS, left, Duration::from_millis(millis), 100);
                bytes += 100;
                prop_assert!(bytes < 100_000);
            }
        }
    }
}
