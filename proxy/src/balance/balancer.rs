//! Choosing the next endpoint: one enum for what each algorithm keeps, one file for each algorithm.
//!
//! Endpoints come in groups, the nearest first or each with a share ([`Loads`] says how much each gets); a request
//! draws a group, and an algorithm of the group's own picks in it. Mostly there is one group alone.
//!
//! As long as nothing is ejected, a pick costs the same however many endpoints there are: endpoints are drawn until one
//! may be called. If a few draws find none (many are ejected, or have been tried), the endpoints are counted one by
//! one, so that each has exactly the same chance. Walking on from an unlucky draw would favour the endpoint behind a
//! run of ejected ones.
//!
//! Of very many endpoints a proxy uses a part at a time ([`aperture`](super::aperture)), except with consistent hashing
//! and `PASSTHROUGH`, which must reach each of them.

mod algorithm;
mod consistent_hash;
mod eligible;
mod latency;
mod least_request;
mod loads;
mod member;
mod passthrough;
mod peak_ewma;
mod random;
mod round_robin;
mod shares;
mod warming;

use std::{net::SocketAddr, ops::Range, sync::Arc, time::Instant};

use selvedge_model::TrafficPolicy;
use xxhash_rust::xxh3::xxh3_64;

use self::{
    algorithm::{Algorithm, Before},
    eligible::Eligible,
    loads::Loads,
    shares::Shares,
};
pub use self::{
    consistent_hash::Unmade,
    latency::Latency,
    member::{Member, address_bytes},
};
use super::{
    load::{Load, Total},
    outlier::Ejection,
};

/// What balancing needs to know about an endpoint.
pub trait Candidate {
    /// Requests sent to it that have not ended.
    fn in_flight(&self) -> u32;
    /// Until when it gets no requests, because it is ejected or fails its health checks: nanoseconds, as its backend's
    /// [`Ejection`] counts them. `None`: it may be called.
    fn out_until(&self, now: Instant) -> Option<u64>;
    /// How long an answer of it is expected to take, in nanoseconds, if that is measured.
    fn latency(&self, now: Instant) -> Option<f64>;
    /// What it has in flight of its own group, where [`Balancer::total_of`] says of what.
    fn load(&self) -> Option<&Arc<Load>>;
}

impl<T: Candidate + ?Sized> Candidate for Arc<T> {
    fn in_flight(&self) -> u32 {
        (**self).in_flight()
    }

    fn out_until(&self, now: Instant) -> Option<u64> {
        (**self).out_until(now)
    }

    fn latency(&self, now: Instant) -> Option<f64> {
        (**self).latency(now)
    }

    fn load(&self) -> Option<&Arc<Load>> {
        (**self).load()
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
    /// The address that the client dialled, if it was redirected.
    pub dialled: Option<SocketAddr>,
    /// The ejections of the backend's endpoints, and what their health checks say; `None`: there are neither.
    pub ejection: Option<&'a Ejection>,
}

/// Endpoints that are alike for us, which a balancer is made for.
#[derive(Debug)]
pub struct MemberGroup {
    /// What they have in common: a group goes on as the one that had this before.
    pub key: u32,
    /// Its share of requests is this / the sum of all; without meaning if groups are priorities.
    pub weight: u32,
    /// The endpoints.
    pub members: Vec<Member>,
}

/// How one backend's endpoints are picked, and what that must remember. Shared by all workers.
#[derive(Debug)]
pub struct Balancer {
    groups: Box<[Group]>,
    loads: Loads,
}

#[derive(Debug)]
struct Group {
    key: u32,
    /// The indices of its endpoints.
    range: Range<usize>,
    algorithm: Algorithm,
}

/// What a group gets at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupShare {
    /// The place of the group; 0: the highest priority.
    pub place: usize,
    /// How many of the requests it gets, in percent.
    pub percent: f64,
}

/// How a group does at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupState {
    /// The indices of its endpoints.
    pub range: Range<usize>,
    /// Those that may be called, whatever becomes of the others.
    pub healthy: usize,
    /// How many of the requests it gets, in percent.
    pub percent: f64,
}

impl Balancer {
    /// The one that `policy` names, over `members`, all in one group. It goes on as the one `before`, as far as that is
    /// of the same kind.
    pub fn new(policy: &TrafficPolicy, members: &[Member], before: Option<&Self>, now: Instant) -> Self {
        let group = MemberGroup { key: 0, weight: 1, members: members.to_vec() };
        Self::of_groups(policy, vec![group], false, before, now)
    }

    /// The same over `groups`, the highest priority first or, if so, `by_weight`. What it picks among are their members
    /// in this order; others may follow, which it never picks.
    pub fn of_groups(
        policy: &TrafficPolicy,
        mut groups: Vec<MemberGroup>,
        by_weight: bool,
        before: Option<&Self>,
        now: Instant,
    ) -> Self {
        if groups.is_empty() {
            groups.push(MemberGroup { key: 0, weight: 1, members: Vec::new() });
        }
        let all_before: Option<Vec<&Shares>> =
            before.map(|before| before.groups.iter().filter_map(|group| group.algorithm.shares()).collect());
        let group_before = |key: u32| {
            let groups = before.map(|before| &*before.groups).unwrap_or_default();
            match groups {
                // Where there was one group alone, each goes on as that.
                [only] => Some(only),
                groups => groups.iter().find(|group| group.key == key),
            }
        };
        let weights = by_weight.then(|| groups.iter().map(|group| group.weight).collect());
        let loads = Loads::of(groups.iter().map(|group| group.members.len()), weights);
        let mut start = 0;
        let groups = groups.into_iter().map(|MemberGroup { key, members, .. }| {
            let range = start..start + members.len();
            start = range.end;
            let before = group_before(key);
            let before = Before {
                group: before.map(|before| &before.algorithm),
                is_itself: before.is_some_and(|before| before.key == key),
                shares: all_before.as_deref(),
            };
            Group { key, range, algorithm: Algorithm::new(policy, &members, before, now) }
        });
        Self { groups: groups.collect(), loads }
    }

    /// The hash tables that somebody has to make off the workers: large ones that are not made yet.
    pub fn unmade(&self) -> impl Iterator<Item = Unmade> {
        self.groups.iter().filter_map(|group| group.algorithm.unmade())
    }

    /// Where what the endpoint at `index` has in flight is to be counted, for all endpoints of its group together. `None`:
    /// nowhere.
    pub fn total_of(&self, index: usize) -> Option<&Arc<Total>> {
        self.groups.get(self.place_of(index)?)?.algorithm.total()
    }

    /// How many endpoints it picks among.
    pub fn len(&self) -> usize {
        self.groups.last().map_or(0, |group| group.range.end)
    }

    /// Whether it has no endpoint to pick.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the endpoint at `index` may be called: it is picked among, and it is not ejected and
    /// fails no health check, or too many do.
    pub fn admits<C: Candidate>(
        &self,
        candidates: &[C],
        index: usize,
        ejection: Option<&Ejection>,
        now: Instant,
    ) -> bool {
        let Some(place) = self.place_of(index) else { return false };
        let is_out = candidates.get(index).is_none_or(|one| one.out_until(now).is_some());
        !is_out || (self.look(candidates, ejection, now) && self.loads.is_panicking(place))
    }

    /// What the group of the endpoint at `index` gets now; `None`: the endpoint is never picked.
    pub fn share_of<C: Candidate>(
        &self,
        candidates: &[C],
        index: usize,
        ejection: Option<&Ejection>,
        now: Instant,
    ) -> Option<GroupShare> {
        let place = self.place_of(index)?;
        let some_out = self.look(candidates, ejection, now);
        Some(GroupShare { place, percent: self.loads.percent(some_out, place) })
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// How each group does now, the highest priority first.
    pub fn states<C: Candidate>(
        &self,
        candidates: &[C],
        ejection: Option<&Ejection>,
        now: Instant,
    ) -> Vec<GroupState> {
        let some_out = self.look(candidates, ejection, now);
        let state = |(place, group): (usize, &Group)| {
            let members = candidates.get(group.range.clone()).unwrap_or_default();
            GroupState {
                range: group.range.clone(),
                healthy: members.iter().filter(|one| one.out_until(now).is_none()).count(),
                percent: self.loads.percent(some_out, place),
            }
        };
        self.groups.iter().enumerate().map(state).collect()
    }

    fn place_of(&self, index: usize) -> Option<usize> {
        self.groups.iter().position(|group| group.range.contains(&index))
    }

    /// Sees whether ejections and health checks change what groups get, and how. `false`: they do not.
    fn look<C: Candidate>(&self, candidates: &[C], ejection: Option<&Ejection>, now: Instant) -> bool {
        let Some(ejection) = ejection.filter(|ejection| !ejection.none_out()) else { return false };
        if self.groups.len() < 2 && ejection.settings().min_health_percent == 0 {
            return false;
        }
        self.loads.count(candidates, self.groups.iter().map(|group| group.range.clone()), ejection, now);
        true
    }

    /// The index of the endpoint to call next; `None` if there is none that may be called. `candidates` are the endpoints
    /// that this was made for, in the same order.
    ///
    /// An endpoint that was tried is called again only if there is no other, in whichever group. An endpoint that
    /// is ejected or fails its health checks is not called, even if all do, unless `minHealthPercent` says so: with
    /// `outlierDetection` the panic threshold is 0 by default, as in Istio; with health checks alone it is 50 %.
    pub fn pick<C: Candidate>(
        &self,
        candidates: &[C],
        facts: &PickFacts<'_>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let some_out = self.look(candidates, facts.ejection, facts.now);
        if facts.dialled.is_some()
            && let Some(dialled) = self.dialled(facts)
        {
            // Even if it was tried before: no other was asked for.
            return self.admits(candidates, dialled, facts.ejection, facts.now).then_some(dialled);
        }
        let drawn = match self.groups.len() {
            1 => 0,
            _ if !some_out && self.loads.are_priorities() => 0,
            // Of a key, other bits than those that find the endpoint in its group.
            _ => self.loads.draw(some_out, facts.hash.map(mixed), rng).unwrap_or(0),
        };
        let drawn_first = || {
            let others = (0..self.groups.len()).filter(|place| *place != drawn);
            std::iter::once(drawn).chain(others)
        };
        let mut pick = |place: usize, tried: &[usize]| {
            let group = self.groups.get(place)?;
            let eligible = Eligible {
                candidates: candidates.get(group.range.clone())?,
                tried,
                offset: group.range.start,
                panicking: some_out && self.loads.is_panicking(place),
                now: facts.now,
            };
            Some(group.range.start + group.algorithm.pick(&eligible, facts, rng)?)
        };
        let fresh = drawn_first().find_map(|place| pick(place, facts.tried));
        if fresh.is_some() || facts.tried.is_empty() {
            return fresh;
        }
        drawn_first().find_map(|place| pick(place, &[]))
    }

    /// The index of the endpoint that the client dialled, if that is asked for.
    fn dialled(&self, facts: &PickFacts<'_>) -> Option<usize> {
        self.groups.iter().find_map(|group| Some(group.range.start + group.algorithm.dialled(facts)?))
    }
}

fn mixed(key: u64) -> u64 {
    xxh3_64(&key.to_le_bytes())
}

#[cfg(test)]
mod tests;
