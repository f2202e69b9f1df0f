//! Of two different endpoints drawn at random, the one that is expected to answer sooner: what its answers take, times the
//! requests that it has in flight, this one included.

use super::{Candidate, Eligible, Shares};

/// See the module.
#[derive(Debug)]
pub(super) struct PeakEwma {
    shares: Shares,
}

impl PeakEwma {
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
        let [first, second] = eligible.two(&self.shares, rng)?;
        // Weights count in the draws. Here they say how many requests are many for an endpoint.
        let weight = |index: usize| self.shares.weight(index, eligible.now) as f64;
        let mean = f64::midpoint(weight(first), weight(second));
        let cost = |index: usize| {
            let expected = eligible.candidates[index].latency(eligible.now).unwrap_or(1.0);
            expected * (1.0 + f64::from(eligible.in_flight(index)) * mean / weight(index))
        };
        let picked = if cost(second) < cost(first) { second } else { first };
        self.shares.picked(|| eligible.in_flight(picked));
        Some(picked)
    }
}
