//! What each algorithm keeps: one enum, one file for each.

use std::{sync::Arc, time::Instant};

use selvedge_model::{LoadBalancer, TrafficPolicy};

use super::{
    Candidate, Member, PickFacts, Unmade, consistent_hash::ConsistentHash, eligible::Eligible,
    least_request::LeastRequest, passthrough::Passthrough, peak_ewma::PeakEwma, random::Random,
    round_robin::RoundRobin, shares::Shares,
};
use crate::balance::load::Total;

/// How the endpoints of one group are picked, and what that must remember.
#[derive(Debug)]
pub(super) enum Algorithm {
    /// Of two endpoints drawn at random, the one with fewer requests in flight.
    LeastRequest(LeastRequest),
    /// Each in turn.
    RoundRobin(RoundRobin),
    /// Any, each as likely as its weight says.
    Random(Random),
    /// The one that the client dialled.
    Passthrough(Passthrough),
    /// Of two endpoints drawn at random, the one that is expected to answer sooner.
    PeakEwma(PeakEwma),
    /// The one that the request's key belongs to.
    ConsistentHash(ConsistentHash),
}

/// What was before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Before<'a> {
    /// The same group.
    pub(super) group: Option<&'a Algorithm>,
    /// Whether it is the same group indeed, and not one that was divided.
    pub(super) is_itself: bool,
    /// The shares of all groups. `None`: there were no endpoints before.
    pub(super) shares: Option<&'a [&'a Shares]>,
}

impl Algorithm {
    /// The one that `policy` names, over `members`. It goes on as the one `before`, as far as that is of the same kind.
    pub(super) fn new(policy: &TrafficPolicy, members: &[Member], before: Before<'_>, now: Instant) -> Self {
        let of_before = before.group.and_then(Self::shares);
        let is_itself = before.is_itself;
        let shares = || Shares::of(members, of_before).warming(policy.warmup, members, before.shares, now);
        match (&policy.load_balancer, before.group) {
            (LoadBalancer::LeastRequest, _) => Self::LeastRequest(LeastRequest::new(shares())),
            (LoadBalancer::RoundRobin, before) => {
                let turn = if let Some(Self::RoundRobin(before)) = before { before.turn() } else { 0 };
                Self::RoundRobin(RoundRobin::new(shares(), turn))
            }
            (LoadBalancer::Random, _) => Self::Random(Random::new(Shares::of(members, of_before))),
            (LoadBalancer::Passthrough, _) => {
                Self::Passthrough(Passthrough::new(members, LeastRequest::new(shares())))
            }
            (LoadBalancer::PeakEwma, _) => Self::PeakEwma(PeakEwma::new(shares())),
            (LoadBalancer::ConsistentHash(how), before) => {
                let hash = if let Some(Self::ConsistentHash(before)) = before { Some(before) } else { None };
                Self::ConsistentHash(ConsistentHash::new(how, members, hash, is_itself))
            }
        }
    }

    pub(super) fn shares(&self) -> Option<&Shares> {
        match self {
            Self::LeastRequest(least_request) => Some(least_request.shares()),
            Self::RoundRobin(round_robin) => Some(round_robin.shares()),
            Self::Random(random) => Some(random.shares()),
            Self::Passthrough(passthrough) => Some(passthrough.shares()),
            Self::PeakEwma(peak_ewma) => Some(peak_ewma.shares()),
            Self::ConsistentHash(_) => None,
        }
    }

    /// Where what its endpoints have in flight is to be counted together, if it compares each with all.
    pub(super) fn total(&self) -> Option<&Arc<Total>> {
        match self {
            Self::ConsistentHash(hash) => hash.total(),
            _ => None,
        }
    }

    /// The hash table that somebody has to make, if it is not made yet.
    pub(super) fn unmade(&self) -> Option<Unmade> {
        match self {
            Self::ConsistentHash(hash) => hash.unmade(),
            _ => None,
        }
    }

    /// The place of the endpoint that the client dialled, if that is asked for and is here.
    pub(super) fn dialled(&self, facts: &PickFacts<'_>) -> Option<usize> {
        match self {
            Self::Passthrough(passthrough) => passthrough.place(facts.dialled?),
            _ => None,
        }
    }

    /// The place of the endpoint to call next.
    pub(super) fn pick<C: Candidate>(
        &self,
        eligible: &Eligible<'_, C>,
        facts: &PickFacts<'_>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        match self {
            Self::LeastRequest(least_request) => least_request.pick(eligible, rng),
            Self::RoundRobin(round_robin) => round_robin.pick(eligible, rng),
            Self::Random(random) => random.pick(eligible, rng),
            Self::Passthrough(passthrough) => passthrough.pick(eligible, rng),
            Self::PeakEwma(peak_ewma) => peak_ewma.pick(eligible, rng),
            Self::ConsistentHash(hash) => {
                let key = facts.hash.unwrap_or_else(|| rng.u64(..));
                hash.pick(eligible, key, rng)
            }
        }
    }
}
