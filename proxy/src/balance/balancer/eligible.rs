//! The endpoints that one pick may choose from, and drawing among them.

use std::time::Instant;

use super::{Candidate, shares::Shares};

/// Draws before the endpoints are counted. With a tenth of them ejected, one pick in 10,000 counts.
const DRAWS: usize = 4;

/// The same while endpoints warm up, where a draw may fall on one and not take it.
const DRAWS_WHILE_GROWING: usize = 16;

/// The candidates that one pick may choose from: all but those that were tried, are ejected, or fail
/// their health checks.
pub(super) struct Eligible<'a, C> {
    pub(super) candidates: &'a [C],
    pub(super) tried: &'a [usize],
    /// What the indices in `tried` are larger by than those of `candidates`.
    pub(super) offset: usize,
    /// Whether those are called, too, that are ejected or fail their health checks.
    pub(super) panicking: bool,
    pub(super) now: Instant,
}

impl<C: Candidate> Eligible<'_, C> {
    /// How many candidates there are, eligible or not.
    pub(super) fn len(&self) -> usize {
        self.candidates.len()
    }

    pub(super) fn has(&self, index: usize) -> bool {
        !self.tried.contains(&(index + self.offset))
            && (self.panicking || self.candidates[index].out_until(self.now).is_none())
    }

    /// What it has in flight of its own group, or of all where that is not counted.
    pub(super) fn own_load(&self, index: usize) -> u32 {
        let candidate = &self.candidates[index];
        candidate.load().map_or_else(|| candidate.in_flight(), |load| load.own())
    }

    pub(super) fn in_flight(&self, index: usize) -> u32 {
        self.candidates[index].in_flight()
    }

    fn draws(&self, shares: &Shares) -> usize {
        if shares.are_growing(self.now) { DRAWS_WHILE_GROWING } else { DRAWS }
    }

    /// Any of them, each as likely as its share.
    pub(super) fn any(&self, shares: &Shares, rng: &mut fastrand::Rng) -> Option<usize> {
        let len = self.len();
        if len == 0 {
            return None;
        }
        for _ in 0..self.draws(shares) {
            let index = shares.draw(len, rng);
            if self.has(index) && shares.takes(index, self.now, rng) {
                return Some(index);
            }
        }
        self.any_by_count(shares, None, rng)
    }

    /// Two of them, which are the same if there is one alone.
    pub(super) fn two(&self, shares: &Shares, rng: &mut fastrand::Rng) -> Option<[usize; 2]> {
        let first = self.any(shares, rng)?;
        Some([first, self.any_but(first, shares, rng).unwrap_or(first)])
    }

    /// Any of them but the `other`.
    fn any_but(&self, other: usize, shares: &Shares, rng: &mut fastrand::Rng) -> Option<usize> {
        let len = self.len();
        if len < 2 {
            return None;
        }
        for _ in 0..self.draws(shares) {
            let index = shares.draw_but(other, len, rng);
            if index != other && self.has(index) && shares.takes(index, self.now, rng) {
                return Some(index);
            }
        }
        self.any_by_count(shares, Some(other), rng)
    }

    /// Counts those that may be called, then draws among them: each has the same chance, or that of its weight.
    pub(super) fn any_by_count(
        &self,
        shares: &Shares,
        other: Option<usize>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let eligible = || (0..self.len()).filter(|index| Some(*index) != other && self.has(*index));
        let weight = |index: usize| shares.weight(index, self.now);
        let sum: u64 = eligible().map(weight).sum();
        if sum == 0 {
            return None;
        }
        let mut drawn = rng.u64(..sum);
        let found = eligible().find(|index| match drawn.checked_sub(weight(*index)) {
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
