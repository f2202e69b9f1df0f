//! Choosing the next endpoint: one enum for what each algorithm keeps, one file for each algorithm.
//!
//! As long as nothing is ejected, a pick costs the same however many endpoints there are: endpoints are drawn until one
//! may be called. If a few draws find none (many are ejected, or have been tried), the endpoints are counted one by
//! one, so that each has exactly the same chance. Walking on from an unlucky draw would favour the endpoint behind a
//! run of ejected ones.

mod eligible;
mod least_request;
mod random;
mod round_robin;
mod shares;

use std::{hash::Hash, sync::Arc, time::Instant};

use selvedge_model::LoadBalancer;

use self::{
    eligible::Eligible, least_request::LeastRequest, random::Random, round_robin::RoundRobin, shares::Shares,
};

/// What balancing needs to know about an endpoint.
pub trait Candidate {
    /// Requests sent to it that have not ended.
    fn in_flight(&self) -> u32;
    /// Whether it may be called: it is not ejected.
    fn is_available(&self, now: Instant) -> bool;
}

impl<T: Candidate + ?Sized> Candidate for Arc<T> {
    fn in_flight(&self) -> u32 {
        (**self).in_flight()
    }

    fn is_available(&self, now: Instant) -> bool {
        (**self).is_available(now)
    }
}

/// What a pick may look at, besides the endpoints.
#[derive(Debug, Clone, Copy)]
pub struct PickFacts<'a> {
    /// The endpoints of this request's earlier attempts, by their indices: they are passed over while there is another.
    pub tried: &'a [usize],
    /// When it is picked.
    pub now: Instant,
    /// The hash of what requests are to be kept together by; `None`: of nothing.
    pub hash: Option<u64>,
}

/// How one backend's endpoints are picked, and what that must remember. Shared by all workers.
#[derive(Debug)]
pub enum Balancer {
    /// Of two endpoints drawn at random, the one with fewer requests in flight.
    LeastRequest(LeastRequest),
    /// Each in turn.
    RoundRobin(RoundRobin),
    /// Any, each as likely as its weight says.
    Random(Random),
}

impl Balancer {
    /// The one that `how` names, over endpoints in one order: their weights, none of them 0, and keys that stay the same
    /// when other endpoints come or leave. It goes on as the one `before`, if that is of the same kind.
    pub fn new<K: Hash>(
        how: LoadBalancer,
        weights: impl Iterator<Item = u32> + Clone,
        keys: impl ExactSizeIterator<Item = K>,
        before: Option<&Self>,
    ) -> Self {
        let shares = Shares::of(weights);
        match (how, before) {
            (LoadBalancer::LeastRequest, Some(Self::LeastRequest(before))) => {
                Self::LeastRequest(LeastRequest::new(shares, keys, Some(before)))
            }
            (LoadBalancer::LeastRequest, _) => Self::LeastRequest(LeastRequest::new(shares, keys, None)),
            (LoadBalancer::RoundRobin, Some(Self::RoundRobin(before))) => {
                Self::RoundRobin(RoundRobin::new(shares, before.turn()))
            }
            (LoadBalancer::RoundRobin, _) => Self::RoundRobin(RoundRobin::new(shares, 0)),
            (LoadBalancer::Random, _) => Self::Random(Random::new(shares)),
        }
    }

    /// The index of the endpoint to call next; `None` if there is none that may be called. `candidates` are the endpoints
    /// that this was made for, in the same order.
    ///
    /// An ejected endpoint is never called, even if all are ejected: with `outlierDetection` the panic threshold is 0,
    /// as in Istio.
    pub fn pick<C: Candidate>(
        &self,
        candidates: &[C],
        facts: &PickFacts<'_>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let PickFacts { tried, now, .. } = *facts;
        let fresh = self.pick_among(&Eligible { candidates, tried, now }, rng);
        if fresh.is_some() || tried.is_empty() {
            return fresh;
        }
        self.pick_among(&Eligible { candidates, tried: &[], now }, rng)
    }

    fn pick_among<C: Candidate>(&self, eligible: &Eligible<'_, C>, rng: &mut fastrand::Rng) -> Option<usize> {
        match self {
            Self::LeastRequest(least_request) => least_request.pick(eligible, rng),
            Self::RoundRobin(round_robin) => round_robin.pick(eligible, rng),
            Self::Random(random) => random.pick(eligible, rng),
        }
    }
}

#[cfg(test)]
mod tests;
