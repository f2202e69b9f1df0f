//! Any endpoint, each as likely as its weight says.

use super::{Candidate, Eligible, Shares};

/// See the module.
#[derive(Debug)]
pub struct Random {
    shares: Shares,
}

impl Random {
    pub(super) fn new(shares: Shares) -> Self {
        Self { shares }
    }

    pub(super) fn pick<C: Candidate>(
        &self,
        eligible: &Eligible<'_, C>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        eligible.any(&self.shares, rng)
    }
}
