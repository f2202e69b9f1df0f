//! The endpoints that one pick may choose from, and drawing among them.

use std::time::Instant;

use super::{Candidate, shares::Shares};

/// Draws before the endpoints are counted. With a tenth of them ejected, one pick in 10,000 counts.
const DRAWS: usize = 4;

/// The candidates that one pick may choose from: all but those that were tried and those that are ejected.
pub(super) struct Eligible<'a, C> {
    pub(super) candidates: &'a [C],
    pub(super) tried: &'a [usize],
    pub(super) now: Instant,
}

impl<C: Candidate> Eligible<'_, C> {
    /// How many candidates there are, eligible or not.
    pub(super) fn len(&self) -> usize {
        self.candidates.len()
    }

    pub(super) fn has(&self, index: usize) -> bool {
        !self.tried.contains(&index) && self.candidates[index].is_available(self.now)
    }

    pub(super) fn in_flight(&self, index: usize) -> u32 {
        self.candidates[index].in_flight()
    }

    /// Any of them, each as likely as its share.
    pub(super) fn any(&self, shares: &Shares, rng: &mut fastrand::Rng) -> Option<usize> {
        let len = self.len();
        if len == 0 {
            return None;
        }
        let draw = |_| shares.draw(len, rng);
        (0..DRAWS).map(draw).find(|index| self.has(*index)).or_else(|| self.any_by_count(shares, None, rng))
    }

    /// Any of them but the `other`.
    pub(super) fn any_but(&self, other: usize, shares: &Shares, rng: &mut fastrand::Rng) -> Option<usize> {
        let len = self.len();
        if len < 2 {
            return None;
        }
        let draw = |_| shares.draw_but(other, len, rng);
        (0..DRAWS)
            .map(draw)
            .find(|index| *index != other && self.has(*index))
            .or_else(|| self.any_by_count(shares, Some(other), rng))
    }

    /// Counts those that may be called, then draws among them: each has the same chance, or that of its weight.
    pub(super) fn any_by_count(
        &self,
        shares: &Shares,
        other: Option<usize>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let eligible = || (0..self.len()).filter(|index| Some(*index) != other && self.has(*index));
        let sum: u64 = eligible().map(|index| shares.weight(index)).sum();
        if sum == 0 {
            return None;
        }
        let mut drawn = rng.u64(..sum);
        let found = eligible().find(|index| match drawn.checked_sub(shares.weight(*index)) {
            Some(left) => {
                drawn = left;
                false
            }
            None => true,
        });
        // Another worker may eject one between the two passes: then the first that is left.
        found.or_else(|| eligible().next())
    }
}
