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

    /// Whether endpoints with many requests are passed over.
    pub(super) fn is_bounded(&self) -> bool {
        self.bound.is_some()
    }

    /// The endpoint of `key`, where this proxy has `in_progress` requests with all of them.
    pub(super) fn pick<C: Candidate>(
        &self,
        eligible: &Eligible<'_, C>,
        key: u64,
        in_progress: u32,
    ) -> Option<usize> {
        if eligible.len() == 0 {
            return None;
        }
        let found =
            self.table.with_places(|places, now| self.walk(eligible, (places, now), key, in_progress));
        found.or_else(|| self.table.highest(eligible, key))
    }

    /// The first endpoint from the place of `key` on that may be called. `now`: which endpoint stands for each of those in
    /// `places`.
    fn walk<C: Candidate>(
        &self,
        eligible: &Eligible<'_, C>,
        (places, now): (&Places, Option<&[Option<u32>]>),
        key: u64,
        in_progress: u32,
    ) -> Option<usize> {
        let len = places.len();
        let start = if len == 0 { return None } else { places.of(key) };
        let at = |step: usize| {
            let place = start + step;
            let index = places.at(if place < len { place } else { place % len });
            now.map_or(Some(index), |now| now[index].map(|index| index as usize))
        };
        let mut steps = (0..STEPS.min(len)).filter_map(at).filter(|index| eligible.has(*index));
        match self.bound {
            None => steps.next(),
            Some(bound) => steps
                .find(|index| u64::from(eligible.in_flight(*index)) < self.room(*index, bound, in_progress)),
        }
    }

    /// How many requests an endpoint may have in flight: `bound` percent of its share of all, rounded up, where the
    /// request at hand is one of them.
    fn room(&self, index: usize, bound: u32, in_progress: u32) -> u64 {
        let weight = u128::from(self.table.weight(index));
        let all = (u128::from(in_progress) + 1) * u128::from(bound) * weight;
        let room = all.div_ceil(100 * u128::from(self.table.weights().max(1)));
        u64::try_from(room).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
