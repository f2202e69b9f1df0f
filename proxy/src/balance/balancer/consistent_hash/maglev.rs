//! A table in which every endpoint has as many places as its weight says, each at places of its own liking (Eisenbud et
//! al., "Maglev: A Fast and Reliable Software Network Load Balancer", 2016).
//!
//! Endpoints take places in turn, each the next free one of its own order of all places. Shares are more even than on a
//! [ring](super::ring), and a look-up is one read; in exchange a few more keys move when endpoints change.

use selvedge_model::balancing::is_prime;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::super::Member;

/// No endpoint has this place yet.
const FREE: u32 = u32::MAX;

/// See the module.
#[derive(Debug)]
pub(super) struct Maglev {
    /// The endpoint of each place.
    places: Box<[u32]>,
}

/// An endpoint that takes places.
struct Taking {
    index: u32,
    /// The place that it likes next, and how far it goes from one to the next.
    next: u64,
    step: u64,
    weight: u64,
    /// What it is owed: it takes a place whenever this reaches the heaviest weight.
    owed: u64,
}

impl Maglev {
    /// A table of `size` places, a prime; or of more, if there are too many endpoints for each to have two.
    pub(super) fn over(size: u32, members: &[Member], keys: &[u64]) -> Self {
        let count = places(size, members.len());
        let (size, mut places) = (count as u64, vec![FREE; count]);
        let mut taking: Vec<Taking> = members
            .iter()
            .zip(keys)
            .zip(0_u32..)
            .map(|((member, key), index)| Taking {
                index,
                next: xxh3_64_with_seed(&key.to_le_bytes(), 0) % size.max(1),
                step: xxh3_64_with_seed(&key.to_le_bytes(), 1) % size.saturating_sub(1).max(1) + 1,
                weight: u64::from(member.weight),
                owed: 0,
            })
            .collect();
        // So that the order in which they are listed does not matter.
        taking.sort_by_key(|one| keys[one.index as usize]);
        let heaviest = taking.iter().map(|one| one.weight).max().unwrap_or(1).max(1);
        let mut free = places.len();
        // At first everybody has one, however little its weight is.
        taking.iter_mut().for_each(|one| one.owed = heaviest - one.weight.min(heaviest));
        while free > 0 {
            for one in &mut taking {
                one.owed += one.weight;
                if one.owed < heaviest {
                    continue;
                }
                one.owed -= heaviest;
                one.take(&mut places, size);
                free -= 1;
                if free == 0 {
                    break;
                }
            }
        }
        Self { places: places.into() }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn place(&self, key: u64) -> usize {
        // The remainder is less than the length.
        (key % self.places.len() as u64) as usize
    }

    pub(super) fn at(&self, place: usize) -> usize {
        self.places[place] as usize
    }
}

impl Taking {
    /// Takes the next place of its order that is free; there is one.
    fn take(&mut self, places: &mut [u32], size: u64) {
        loop {
            let place = &mut places[self.next as usize];
            self.next += self.step;
            if self.next >= size {
                self.next -= size;
            }
            if *place == FREE {
                *place = self.index;
                return;
            }
        }
    }
}

/// How many places a table of `size` has for this many endpoints: more, if they are too many for each to have two; none for
/// none.
pub(super) fn places(size: u32, members: usize) -> usize {
    let places = u64::from(size).max(next_prime(members as u64 * 2));
    if members == 0 { 0 } else { usize::try_from(places).unwrap_or(0) }
}

/// The smallest prime that is not below `number`, which is less than 2^32.
fn next_prime(number: u64) -> u64 {
    let from = u32::try_from(number).unwrap_or(u32::MAX);
    (from..).find(|number| is_prime(*number)).unwrap_or(u32::MAX).into()
}
