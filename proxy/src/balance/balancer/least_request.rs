//! Of two different endpoints drawn at random, the one with fewer requests in flight.
//!
//! M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001: nearly as even as
//! asking all of them, and clients that see the same counts do not all run to the same endpoint.

use std::hash::Hash;

use super::{Candidate, Eligible, Shares};
use crate::balance::aperture::Aperture;

/// See the module.
#[derive(Debug)]
pub struct LeastRequest {
    shares: Shares,
}

impl LeastRequest {
    /// Of very many endpoints that are all alike, a part is drawn from, which is about the same as `before`.
    pub(super) fn new<K: Hash>(
        shares: Shares,
        keys: impl ExactSizeIterator<Item = K>,
        before: Option<&Self>,
    ) -> Self {
        let before = before.and_then(Self::aperture);
        let shares = match shares {
            Shares::Equal => Aperture::over(keys, before).map_or(Shares::Equal, Shares::OfPart),
            unequal => unequal,
        };
        Self { shares }
    }

    fn aperture(&self) -> Option<&Aperture> {
        match &self.shares {
            Shares::OfPart(aperture) => Some(aperture),
            Shares::Equal | Shares::Weighted(_) => None,
        }
    }

    pub(super) fn pick<C: Candidate>(
        &self,
        eligible: &Eligible<'_, C>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let first = eligible.any(&self.shares, rng)?;
        let second = eligible.any_but(first, &self.shares, rng).unwrap_or(first);
        // Equally loaded: the first, which is as likely to be either of the two, or as their weights say.
        let load =
            |in_flight: u32, other: usize| u64::from(in_flight).saturating_mul(self.shares.weight(other));
        let (of_first, of_second) = (eligible.in_flight(first), eligible.in_flight(second));
        let (picked, in_flight) = match load(of_second, first) < load(of_first, second) {
            true => (second, of_second),
            false => (first, of_first),
        };
        if let Some(aperture) = self.aperture() {
            aperture.picked(in_flight);
        }
        Some(picked)
    }
}
