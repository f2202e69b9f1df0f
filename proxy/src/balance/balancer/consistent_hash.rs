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

use std::{cell::OnceCell, sync::Arc};

use selvedge_model::ConsistentHash as How;

pub use self::table::Unmade;
use self::table::{Places, Table};
use super::{Candidate, Eligible, Member};

/// Places that a key walks on before all endpoints are asked in another way. Half of them must be ejected for one key in
/// 18 million million million to come so far.
const STEPS: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct ConsistentHash {
    table: Arc<Table>,
    bound: Option<u32>,
}

impl ConsistentHash {
    /// The table `before` is kept if it is made of the same.
    pub(super) fn new(how: &How, members: &[Member], before: Option<&Self>) -> Self {
        let before = before.map(|before| &before.table);
        let same = before.filter(|table| table.is_of(how.table, members));
        let table = same.cloned().unwrap_or_else(|| Arc::new(Table::over(how.table, members, before)));
        Self { table, bound: how.load_bound }
    }

    /// The table that somebody has to make, if it is not made yet.
    pub(super) fn unmade(&self) -> Option<Unmade> {
        Table::unmade(&self.table)
    }

    /// The endpoint of `key`.
    pub(super) fn pick<C: Candidate>(&self, eligible: &Eligible<'_, C>, key: u64) -> Option<usize> {
        if eligible.len() == 0 {
            return None;
        }
        let all = OnceCell::new();
        let has_room = |index: usize| match self.bound {
            None => true,
            Some(bound) => self.has_room(eligible, index, bound, &all),
        };
        let found = self.table.with_places(|places, now| walk(eligible, (places, now), key, has_room));
        let found = found.or_else(|| self.table.highest(eligible, key).filter(|index| has_room(*index)));
        // Where none of them has room, the bound still says where there is most of it.
        found.or_else(|| self.least_loaded(eligible))
    }

    /// Whether an endpoint may have one more in flight: they may be `bound` percent of its share of all, rounded up, where the
    /// one at hand is one of them. `all` are what this proxy has in flight with all endpoints, for whichever backend and
    /// however they were counted there: the same as is counted for the one. They are counted when it matters.
    fn has_room<C: Candidate>(
        &self,
        eligible: &Eligible<'_, C>,
        index: usize,
        bound: u32,
        all: &OnceCell<u64>,
    ) -> bool {
        let (weight, in_flight) = (u128::from(self.table.weight(index)), eligible.in_flight(index));
        if in_flight == 0 {
            return weight > 0;
        }
        let all =
            all.get_or_init(|| (0..eligible.len()).map(|index| u64::from(eligible.in_flight(index))).sum());
        let room = (u128::from(*all) + 1) * u128::from(bound) * weight;
        u128::from(in_flight) < room.div_ceil(100 * u128::from(self.table.weights().max(1)))
    }

    /// Of the eligible endpoints, the one with the fewest requests in flight for its weight.
    fn least_loaded<C: Candidate>(&self, eligible: &Eligible<'_, C>) -> Option<usize> {
        let load = |index: &usize| {
            (f64::from(eligible.in_flight(*index)) + 1.0) / f64::from(self.table.weight(*index))
        };
        let found = (0..eligible.len()).filter(|index| eligible.has(*index));
        found.min_by(|one, other| load(one).total_cmp(&load(other)))
    }
}

/// The first endpoint from the place of `key` on that may be called. `now`: which endpoint stands for each of those in
/// `places`.
fn walk<C: Candidate>(
    eligible: &Eligible<'_, C>,
    (places, now): (&Places, Option<&[Option<u32>]>),
    key: u64,
    has_room: impl Fn(usize) -> bool,
) -> Option<usize> {
    let len = places.len();
    let start = if len == 0 { return None } else { places.of(key) };
    let at = |step: usize| {
        let place = start + step;
        let index = places.at(if place < len { place } else { place % len });
        now.map_or(Some(index), |now| now[index].map(|index| index as usize))
    };
    let mut steps = (0..STEPS.min(len)).filter_map(at).filter(|index| eligible.has(*index));
    steps.find(|index| has_room(*index))
}

#[cfg(test)]
mod tests;
