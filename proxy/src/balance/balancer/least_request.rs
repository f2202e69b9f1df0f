//! Of two different endpoints drawn at random, the one with fewer requests in flight.
//!
//! M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001: nearly as even as
//! asking all of them, and clients that see the same counts do not all run to the same endpoint.
//!
//! Where a part of very many endpoints is used, most of it is idle. Then a few more are looked at if neither of the two is:
//! a request to a busy endpoint would wait there, or need a second connection, which is cold in every cache.

use super::{Candidate, Eligible, Shares};

/// See the module.
#[derive(Debug)]
pub(super) struct LeastRequest {
    shares: Shares,
}

impl LeastRequest {
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
        // Equally loaded: the first, which is as likely to be either of the two, or as their weights say.
        let load = |in_flight: u32, other: usize| {
            u64::from(in_flight).saturating_mul(self.shares.weight(other, eligible.now))
        };
        let (of_first, of_second) = (eligible.in_flight(first), eligible.in_flight(second));
        let (mut picked, mut in_flight) = match load(of_second, first) < load(of_first, second) {
            true => (second, of_second),
            false => (first, of_first),
        };
        let is_idle = |index: usize| eligible.in_flight(index) == 0 && eligible.has(index);
        if let Some(idle) = self.shares.idle(in_flight, eligible.now, rng, is_idle) {
            (picked, in_flight) = (idle, 0);
        }
        self.shares.picked(|| in_flight);
        Some(picked)
    }
}
