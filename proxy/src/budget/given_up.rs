//! Calls of our app that failed although they were tried again: whoever called our app need not try again what follows.
//!
//! Each hop that tries again multiplies the load on the last one, just when that fails: with a budget of 20 % at each of
//! three hops it is 1.2³. So only the hop next to the failure tries again. When a sidecar gives a call up, it notes it. If
//! its app then answers a request with a failure, the request had begun before, and the note is not yet taken, the
//! sidecar says so to the client's sidecar. That one gives up as well. Nothing tells which call belongs to which request;
//! but no more answers are marked than calls were given up.
//!
//! Requests overlap, and what began first often ends last. So an answer takes the oldest note that it may have: younger
//! requests may have only the newer ones. If each failed request has left a note, each finds one, in whatever order they end.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

/// How many notes are kept. Those of calls whose requests were answered well are never taken, and the oldest go first.
const KEPT: usize = 1024;

/// The calls that all workers have given up, and which of them were not taken for an answer's cause.
#[derive(Debug, Default)]
pub struct GivenUp {
    calls: AtomicU32,
    /// The numbers of calls that nobody has taken, in their order. Only failures lock it.
    left: Mutex<VecDeque<u32>>,
}

impl GivenUp {
    /// Notes a call that is given up.
    pub fn note(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.len() == KEPT {
            left.pop_front();
        }
        left.push_back(self.calls.fetch_add(1, Ordering::AcqRel).wrapping_add(1));
    }

    /// How many calls have been given up. It starts again at 0 after 2³².
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Acquire)
    }

    /// Takes one of the calls that were given up after there were `since`. `false`: there is none.
    pub fn take(&self, since: u32) -> bool {
        if self.calls() == since {
            return false;
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let first = left.partition_point(|&call| !is_after(call, since));
        left.remove(first).is_some()
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
    fn a_younger_request_that_ends_first_leaves_an_older_one_its_call() {
        let given_up = GivenUp::default();
        let older = given_up.calls();
        given_up.note();
        let younger = given_up.calls();
        given_up.note();

        assert!(given_up.take(younger), "the younger request's own");
        assert!(given_up.take(older), "the older one's is still there");
        assert!(!given_up.take(older) && !given_up.take(younger));
    }

    #[test]
    fn an_older_request_that_ends_first_leaves_a_younger_one_its_call() {
        let given_up = GivenUp::default();
        let older = given_up.calls();
        given_up.note();
        let younger = given_up.calls();
        given_up.note();

        assert!(given_up.take(older));
        assert!(given_up.take(younger), "it may have only the newer one");
    }

    #[test]
    fn calls_of_requests_that_were_answered_well_do_not_pile_up() {
        let given_up = GivenUp::default();
        let before = given_up.calls();
        (0..KEPT + 5).for_each(|_| given_up.note());

        assert!(!given_up.take(given_up.calls()), "what began later has nothing of them");
        assert_eq!((0..KEPT + 5).filter(|_| given_up.take(before)).count(), KEPT);
    }

    #[test]
    fn numbers_may_start_again() {
        let given_up = GivenUp { calls: u32::MAX.into(), left: Mutex::default() };
        let before = given_up.calls();

        given_up.note();
        given_up.note();

        assert_eq!(given_up.calls(), 1);
        assert!(given_up.take(before) && given_up.take(before) && !given_up.take(before));
    }
}
