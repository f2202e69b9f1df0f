//! Any endpoint, each as likely as its weight says.

use super::{Candidate, Eligible, Shares};

/// See the module.
#[derive(Debug)]
pub(super) struct Random {
    shares: Shares,
}

impl Random {
    pub(super) fn new(shares: Shares) -> Self {
        Self { shares }
    }

    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    pub(super) fn pick<C: Candidate>(
        &self,
        eligible: &Eligible<'_, C>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let picked = eligible.any(&self.shares, rng)?;
        self.shares.picked(|| eligible.in_flight(picked));
        Some(picked)
    }
}
