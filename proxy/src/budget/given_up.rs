//! Calls of our app that failed although they were tried again: whoever called our app need not try again what follows.
//!
//! Each hop that tries again multiplies the load on the last one, just when that fails: with a budget of 20 % at each of
//! three hops it is 1.2³. So only the hop next to the failure tries again. When a sidecar gives a call up, it notes it. If
//! its app then answers a request with a failure, the request had begun before, and the note is not yet taken, the
//! sidecar says so to the client's sidecar. That one gives up as well. Nothing tells which call belongs to which request;
//! but no more answers are marked than calls were given up.

use std::sync::atomic::{AtomicU32, Ordering};

/// The calls that all workers have given up, and how many of them were taken for an answer's cause.
#[derive(Debug, Default)]
pub struct GivenUp {
    calls: AtomicU32,
    /// All calls up to this one are taken, or too old.
    taken: AtomicU32,
}

impl GivenUp {
    /// Notes a call that is given up.
    pub fn note(&self) {
        self.calls.fetch_add(1, Ordering::AcqRel);
    }

    /// How many calls have been given up. It starts again at 0 after 2³².
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Acquire)
    }

    /// Takes one of the calls that were given up after there were `since`. `false`: there is none.
    pub fn take(&self, since: u32) -> bool {
        let calls = self.calls();
        let next = |taken: u32| {
            let taken = if is_after(taken, since) { taken } else { since };
            is_after(calls, taken).then(|| taken.wrapping_add(1))
        };
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }
}

/// Whether `one` comes after `other`, where numbers start again at 0.
fn is_after(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_answers_have_such_a_cause_than_calls_were_given_up() {
        let given_up = GivenUp::default();
        let before = given_up.calls();
        assert!(!given_up.take(before));

        given_up.note();
        let between = given_up.calls();
        given_up.note();

        assert!(given_up.take(before) && given_up.take(between));
        assert!(!given_up.take(before));

        given_up.note();
        assert!(!given_up.take(given_up.calls()), "the request came after it");
        assert!(given_up.take(before));
    }

    #[test]
    fn numbers_may_start_again() {
        let given_up = GivenUp { calls: u32::MAX.into(), taken: u32::MAX.into() };
        let before = given_up.calls();

        given_up.note();

        assert_eq!(given_up.calls(), 0);
        assert!(given_up.take(before) && !given_up.take(before));
    }
}
