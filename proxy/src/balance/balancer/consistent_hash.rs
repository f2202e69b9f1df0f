//! The endpoint that a request's key belongs to (`loadBalancer.consistentHash`).
//!
//! A table says which endpoint a key belongs to. It is made from the endpoints' addresses and weights alone, with a hash
//! function that never changes (XXH3), so every proxy has the same one, also after a restart. It is made when endpoints
//! change, off the workers, and all of them share it. A [large](Table::is_large) one is made by [a thread of its
//! own](super::Unmade); meanwhile keys belong to the endpoints that the table before gives them.
//!
//! Ejected endpoints stay in the table: a key whose endpoint is ejected walks on, and comes home when the ejection ends.

mod maglev;
mod ring;
mod table;

use std::sync::Arc;

use selvedge_model::ConsistentHash as How;

pub use self::table::Unmade;
use self::table::{Places, Table};
use super::{Candidate, Eligible, Member};
use crate::balance::load::Total;

/// Places that a key walks on before all endpoints are asked in another way. Half of them must be ejected for one key in
/// 18 million million million to come so far.
const STEPS: usize = 64;

/// Endpoints without room that a key walks past before any other will do.
const FULL: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct ConsistentHash {
    table: Arc<Table>,
    bound: Option<Bound>,
}

/// How much an endpoint may have in flight.
#[derive(Debug)]
struct Bound {
    /// In percent of its share of all.
    percent: u32,
    /// All.
    total: Arc<Total>,
}

impl ConsistentHash {
    /// The table `before` is kept if it is made of the same, and what is in flight if it `is_itself` the same group.
    pub(super) fn new(how: &How, members: &[Member], before: Option<&Self>, is_itself: bool) -> Self {
        let bound = how.load_bound.map(|percent| {
            let known = before.filter(|_| is_itself).and_then(Self::total);
            Bound { percent, total: known.cloned().unwrap_or_default() }
        });
        let before = before.map(|before| &before.table);
        let same = before.filter(|table| table.is_of(how.table, members));
        let table = same.cloned().unwrap_or_else(|| Arc::new(Table::over(how.table, members, before)));
        Self { table, bound }
    }

    /// Where what the endpoints have in flight is to be counted together.
    pub(super) fn total(&self) -> Option<&Arc<Total>> {
        self.bound.as_ref().map(|bound| &bound.total)
    }

    /// The table that somebody has to make, if it is not made yet.
    pub(super) fn unmade(&self) -> Option<Unmade> {
        Table::unmade(&self.table)
    }

    /// The endpoint of `key`.
    pub(super) fn pick<C: Candidate>(
        &self,
        eligible: &Eligible<'_, C>,
        key: u64,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        if eligible.len() == 0 {
            return None;
        }
        let found = self.table.with_places(|places, now| self.walk(eligible, (places, now), key, rng));
        let has_room = |index: &usize| self.has_room(eligible, *index);
        let found = found.or_else(|| self.table.highest(eligible, key).filter(has_room));
        // Where none of them has room, the bound still says where there is most of it.
        found.or_else(|| self.least_loaded(eligible))
    }

    /// The first endpoint from the place of `key` on that may be called and has room. If several have none, the request
    /// goes to any that has some: with many endpoints, those next to a popular key fill up one after the other, and it would
    /// be a long way past them. If none is found, to the one of those looked at that has least to do. `now`: which endpoint stands for each of those in
    /// `places`. `None`: none of those next to it may be called.
    fn walk<C: Candidate>(
        &self,
        eligible: &Eligible<'_, C>,
        (places, now): (&Places, Option<&[Option<u32>]>),
        key: u64,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let len = places.len();
        let start = if len == 0 { return None } else { places.of(key) };
        let at = |place: usize| {
            let index = places.at(place);
            now.map_or(Some(index), |now| now[index].map(|index| index as usize))
        };
        let next = |step: usize| {
            let place = start + step;
            at(if place < len { place } else { place % len })
        };
        let (mut full, mut least): (usize, Option<(f64, usize)>) = (0, None);
        let mut takes = |index: usize, full: &mut usize| {
            if self.has_room(eligible, index) {
                return true;
            }
            *full += 1;
            let load = self.load(eligible, index);
            if least.is_none_or(|(before, _)| load < before) {
                least = Some((load, index));
            }
            false
        };
        for step in 0..STEPS.min(len) {
            let Some(index) = next(step).filter(|index| eligible.has(*index)) else { continue };
            if takes(index, &mut full) {
                return Some(index);
            }
            if full == FULL {
                break;
            }
        }
        if full == 0 {
            return None;
        }
        let elsewhere = (0..STEPS).filter_map(|_| at(places.of(rng.u64(..))));
        let mut elsewhere = elsewhere.filter(|index| eligible.has(*index));
        let found = elsewhere.find(|index| takes(*index, &mut full));
        found.or_else(|| least.map(|(_, index)| index))
    }

    /// Whether an endpoint may have one more in flight: they may be so many percent of its share of all, rounded up, where the
    /// one at hand is one of them. What this proxy has in flight with an endpoint for another backend counts in neither.
    fn has_room<C: Candidate>(&self, eligible: &Eligible<'_, C>, index: usize) -> bool {
        let Some(bound) = &self.bound else { return true };
        let (weight, in_flight) = (u128::from(self.table.weight(index)), eligible.own_load(index));
        if in_flight == 0 {
            return weight > 0;
        }
        let room = (u128::from(bound.total.all()) + 1) * u128::from(bound.percent) * weight;
        u128::from(in_flight) < room.div_ceil(100 * u128::from(self.table.weights().max(1)))
    }

    /// Of the eligible endpoints, the one with the fewest requests in flight for its weight.
    fn least_loaded<C: Candidate>(&self, eligible: &Eligible<'_, C>) -> Option<usize> {
        let found = (0..eligible.len()).filter(|index| eligible.has(*index));
        let load = |index: &usize| self.load(eligible, *index);
        found.min_by(|one, other| load(one).total_cmp(&load(other)))
    }

    /// What an endpoint would have in flight for its weight.
    fn load<C: Candidate>(&self, eligible: &Eligible<'_, C>, index: usize) -> f64 {
        (f64::from(eligible.own_load(index)) + 1.0) / f64::from(self.table.weight(index))
    }
}

#[cfg(test)]
mod tests;
