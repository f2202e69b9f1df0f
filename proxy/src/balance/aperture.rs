//! Uses only a part of very many endpoints at a time.
//!
//! A process that sends requests to each of ten thousand endpoints has ten thousand connections, and uses each of them
//! rarely: it is cold in every cache, or closed before its next request. So with many endpoints ([`MANY`]), balancers
//! draw from a part of them, as Finagle's aperture balancer does. The part
//!
//! - is each process's own: endpoints stand in an order that is another one for each, so that all together
//!   reach all;
//! - widens when even the better of two endpoints is busy, so that nobody waits who need not; before that, a few more are
//!   looked at for one that is idle;
//! - narrows again, and moves on, little by little: in the end every endpoint has its turn.
//!
//! Endpoints that come or leave change the part by as many as they are.

use std::sync::atomic::{AtomicU32, Ordering};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// With more endpoints than this, only a part is used at a time.
const MANY: usize = 256;

/// The fewest endpoints that are used.
const LEAST: u32 = 128;

/// In flight at the better of two endpoints, before the request at hand, when the part widens.
const BUSY: u32 = 2;

/// The most further endpoints that are looked at for an idle one, if the better of two is not.
const LOOKS: u32 = 12;

/// Requests after which the part moves on by one endpoint, which costs one connection.
const TURN: u32 = 4096;

/// The bits of a rank; those below hold an endpoint's place while they are sorted, as one number each.
const RANK: u64 = !0 << 24;

/// See the module. Shared by all workers; it does not matter if they overwrite each other's values.
#[derive(Debug)]
pub(super) struct Aperture {
    /// The endpoints' indices, in the order of `ranks`.
    order: Box<[u32]>,
    /// What the order is by: hashes of what the endpoints are, which stay when others come or leave.
    ranks: Box<[u64]>,
    /// What makes the order this process's own.
    seed: u64,
    /// The first that is used, and how many.
    start: AtomicU32,
    size: AtomicU32,
    picks: AtomicU32,
    /// How many are looked at further: many while one of them is idle, few while none is.
    looks: AtomicU32,
}

impl Aperture {
    /// One for the endpoints with these keys, which goes on as the one `before`. `None`: they are few.
    pub(super) fn over(keys: impl ExactSizeIterator<Item = u64>, before: Option<&Self>) -> Option<Self> {
        let len = u32::try_from(keys.len()).ok().filter(|len| u64::from(*len) <= !RANK)?;
        if keys.len() <= MANY {
            return None;
        }
        let seed = before.map_or_else(|| fastrand::u64(..), |before| before.seed);
        let rank = |key: u64| xxh3_64_with_seed(&key.to_le_bytes(), seed) & RANK;
        let mut ranked: Vec<u64> = keys.map(rank).zip(0..).map(|(rank, place)| rank | place).collect();
        ranked.sort_unstable();
        let ranks: Vec<u64> = ranked.iter().map(|ranked| ranked & RANK).collect();
        let order: Vec<u32> = ranked.iter().map(|ranked| (ranked & !RANK) as u32).collect();
        let start = before.map_or(0, Self::first_rank);
        let start = u32::try_from(ranks.partition_point(|rank| *rank < start)).unwrap_or_default();
        let size = before.map_or(LEAST, |before| before.size.load(Ordering::Relaxed));
        Some(Self {
            order: order.into(),
            ranks: ranks.into(),
            seed,
            start: AtomicU32::new(start % len),
            size: AtomicU32::new(size.min(len)),
            picks: AtomicU32::new(0),
            looks: AtomicU32::new(LOOKS),
        })
    }

    fn first_rank(&self) -> u64 {
        self.ranks[self.start.load(Ordering::Relaxed) as usize]
    }

    /// The index of an endpoint, each of those in use as likely.
    pub(super) fn draw(&self, rng: &mut fastrand::Rng) -> usize {
        let place = self.start.load(Ordering::Relaxed) + rng.u32(..self.size.load(Ordering::Relaxed));
        self.order[place as usize % self.order.len()] as usize
    }

    /// The index of the endpoint whose turn it is, of those in use.
    pub(super) fn in_turn(&self, turn: usize) -> usize {
        let size = self.size.load(Ordering::Relaxed) as usize;
        let place = self.start.load(Ordering::Relaxed) as usize + turn % size;
        self.order[place % self.order.len()] as usize
    }

    /// How many more endpoints are to be looked at, if the better of two has this many requests in flight. None if it is
    /// busy: then few are idle, and the part widens.
    pub(super) fn further_looks(&self, in_flight: u32) -> u32 {
        if (1..BUSY).contains(&in_flight) { self.looks.load(Ordering::Relaxed) } else { 0 }
    }

    /// Notes whether one of so many `looks` found an idle endpoint.
    pub(super) fn looked(&self, looks: u32, found: bool) {
        let next = if found { (looks * 2).min(LOOKS) } else { (looks / 2).max(1) };
        if next != looks {
            self.looks.store(next, Ordering::Relaxed);
        }
    }

    /// Notes that a request goes to an endpoint with this many requests in flight.
    pub(super) fn picked(&self, in_flight: u32) {
        let len = self.order.len() as u32;
        let size = self.size.load(Ordering::Relaxed);
        if in_flight >= BUSY && size < len {
            self.size.store(size + 1, Ordering::Relaxed);
        }
        let picks = self.picks.load(Ordering::Relaxed).wrapping_add(1);
        self.picks.store(picks, Ordering::Relaxed);
        if picks.is_multiple_of(TURN) {
            let start = self.start.load(Ordering::Relaxed) + 1;
            self.start.store(if start < len { start } else { 0 }, Ordering::Relaxed);
            self.size.store(size - (size - LEAST).div_ceil(16), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn in_use(aperture: &Aperture, keys: &[u64]) -> BTreeSet<u64> {
        let mut rng = fastrand::Rng::with_seed(7);
        (0..20 * keys.len()).map(|_| keys[aperture.draw(&mut rng)]).collect()
    }

    fn over(keys: &[u64], before: Option<&Aperture>) -> Aperture {
        Aperture::over(keys.iter().copied(), before).expect("there are many")
    }

    #[test]
    fn few_endpoints_are_all_used() {
        let keys = |count: usize| (0..count).map(|key| key as u64);

        assert!(Aperture::over(keys(MANY), None).is_none());
        assert!(Aperture::over(keys(MANY + 1), None).is_some());
    }

    #[test]
    fn idle_endpoints_are_not_all_called_and_each_process_has_its_own() {
        let keys: Vec<u64> = (0..2_000).collect();
        let (one, other) = (over(&keys, None), over(&keys, None));

        let (one, other) = (in_use(&one, &keys), in_use(&other, &keys));

        assert_eq!((one.len(), other.len()), (LEAST as usize, LEAST as usize));
        assert_ne!(one, other);
    }

    #[test]
    fn an_idle_one_is_looked_for_as_long_as_there_are_some() {
        let keys: Vec<u64> = (0..1_000).collect();
        let aperture = over(&keys, None);
        assert_eq!((aperture.further_looks(0), aperture.further_looks(BUSY)), (0, 0));

        let looks = |found| {
            (0..10).for_each(|_| aperture.looked(aperture.further_looks(1), found));
            aperture.further_looks(1)
        };
        assert_eq!(looks(false), 1);
        assert_eq!(looks(true), LOOKS);
    }

    #[test]
    fn it_widens_while_endpoints_are_busy_and_narrows_afterwards() {
        let keys: Vec<u64> = (0..1_000).collect();
        let aperture = over(&keys, None);

        (0..5_000).for_each(|_| aperture.picked(BUSY));
        assert_eq!(in_use(&aperture, &keys).len(), 1_000);
        (0..100 * TURN).for_each(|_| aperture.picked(0));

        assert_eq!(in_use(&aperture, &keys).len(), LEAST as usize);
    }

    #[test]
    fn every_endpoint_has_its_turn() {
        let keys: Vec<u64> = (0..300).collect();
        let aperture = over(&keys, None);
        let mut used = in_use(&aperture, &keys);

        // So that the last comes just before the first.
        (0..(300 - LEAST) * TURN).for_each(|_| aperture.picked(0));
        used.extend(in_use(&aperture, &keys));
        assert_eq!(used.len(), 2 * LEAST as usize);
        (0..LEAST * TURN).for_each(|_| aperture.picked(0));

        assert_eq!(aperture.start.load(Ordering::Relaxed), 0, "all the way round");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn who_comes_and_leaves_changes_it_by_as_many(
            left in prop::collection::btree_set(0_u64..1_000, 0..20),
            came in prop::collection::btree_set(1_000_u64..2_000, 0..20),
            turns in 0_u32..1_500,
        ) {
            let keys: Vec<u64> = (0..1_000).collect();
            let before = over(&keys, None);
            (0..turns * 8).for_each(|_| before.picked(0));
            let later: Vec<u64> = (0..1_000).filter(|key| !left.contains(key)).chain(came.iter().copied()).collect();

            let after = over(&later, Some(&before));

            let (old, new) = (in_use(&before, &keys), in_use(&after, &later));
            prop_assert_eq!(new.len(), LEAST as usize);
            let stayed = new.intersection(&old).count();
            prop_assert!(stayed + left.len() + came.len() >= LEAST as usize, "{} stayed", stayed);
        }
    }
}
