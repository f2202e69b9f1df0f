//! Each endpoint in turn, as often as its weight says.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Candidate, Eligible, Shares};

/// See the module.
#[derive(Debug)]
pub(super) struct RoundRobin {
    shares: Shares,
    turn: AtomicUsize,
}

impl RoundRobin {
    /// One whose next turn is `turn`.
    pub(super) fn new(shares: Shares, turn: usize) -> Self {
        Self { shares, turn: AtomicUsize::new(turn) }
    }

    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// The next turn.
    pub(super) fn turn(&self) -> usize {
        self.turn.load(Ordering::Relaxed)
    }

    /// The next one after the last pick of any worker.
    pub(super) fn pick<C: Candidate>(
        &self,
        eligible: &Eligible<'_, C>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let len = eligible.len();
        if len == 0 {
            return None;
        }
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let at = |step: usize| self.shares.in_turn(start.wrapping_add(step), len);
        let mut takes = |index| eligible.has(index) && self.shares.takes(index, eligible.now, rng);
        let Some(skipped) = (0..len).find(|step| takes(at(*step))) else {
            let not_met = !self.shares.turns_meet_all(eligible.now);
            return not_met.then(|| eligible.any_by_count(&self.shares, None, rng)).flatten();
        };
        if skipped > 0 {
            // The turn moves past those left out as well; otherwise the endpoint behind an ejected one
            // would get two shares.
            self.turn.fetch_add(skipped, Ordering::Relaxed);
        }
        let picked = at(skipped);
        self.shares.picked(|| eligible.in_flight(picked));
        Some(picked)
    }
}
