//! Points of every endpoint on a ring of 2^64; a key belongs to the endpoint of the next point (Karger et al., 1997).
//!
//! How many points an endpoint has must not depend on how many other endpoints there are: if it did, each one that came or
//! left would move the keys of all. So it is `minimumRingSize` / 4 points for a whole weight, and from [`LARGE`] points on
//! half as many, a quarter, and so on. Only there, at some hundred endpoints, many keys move at once. No rule makes a ring
//! larger than that: proxies of others would have to keep it.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use selvedge_model::HashTable;

use super::super::Member;

/// Points of the smallest ring that has fewer of them for each endpoint.
const LARGE: u64 = HashTable::LARGEST_MADE as u64;

/// Points that an endpoint always has, so that none has much less than its share by chance.
const FEWEST: u64 = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Ring {
    /// The points, in order.
    points: Box<[u64]>,
    /// The endpoint of each.
    endpoints: Box<[u32]>,
}

impl Ring {
    /// What a point takes, in bytes.
    pub(super) const POINT_BYTES: usize = size_of::<u64>() + size_of::<u32>();

    pub(super) fn over(minimum: u32, members: &[Member], keys: &[u64]) -> Self {
        let points_of = counts(minimum, members);
        let mut points: Vec<(u64, u32)> =
            Vec::with_capacity(points_of.iter().map(|count| *count as usize).sum());
        for ((key, count), index) in keys.iter().zip(points_of).zip(0_u32..) {
            let key = key.to_le_bytes();
            points.extend((0..count).map(|point| (xxh3_64_with_seed(&key, point), index)));
        }
        // Of two at one point, the one whose key is smaller, so that their order in the list does not matter.
        points.sort_unstable_by(|(one, its), (other, others)| {
            one.cmp(other).then_with(|| keys[*its as usize].cmp(&keys[*others as usize]))
        });
        let (points, endpoints): (Vec<u64>, Vec<u32>) = points.into_iter().unzip();
        Self { points: points.into(), endpoints: endpoints.into() }
    }

    pub(super) fn len(&self) -> usize {
        self.points.len()
    }

    /// The place of the next point at or after `key`.
    pub(super) fn place(&self, key: u64) -> usize {
        let place = self.points.partition_point(|point| *point < key);
        if place < self.points.len() { place } else { 0 }
    }

    pub(super) fn at(&self, place: usize) -> usize {
        self.endpoints[place] as usize
    }
}

/// How many points a ring has.
pub(super) fn points(minimum: u32, members: &[Member]) -> usize {
    counts(minimum, members).iter().map(|count| *count as usize).sum()
}

/// How many points each endpoint has.
fn counts(minimum: u32, members: &[Member]) -> Vec<u64> {
    let heaviest = members.iter().map(|member| u64::from(member.weight)).max().unwrap_or(1).max(1);
    let all = members.len() as u64;
    let mut whole = (u64::from(minimum) / 4).next_power_of_two().max(FEWEST);
    // As large as can be made in a few milliseconds.
    while whole > FEWEST && whole * all > LARGE {
        whole /= 2;
    }
    members.iter().map(|member| (whole * u64::from(member.weight)).div_ceil(heaviest).max(1)).collect()
}
