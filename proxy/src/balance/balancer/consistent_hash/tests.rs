use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Instant,
};

use selvedge_model::{HashKey, HashTable};
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::balance::load::{Begun, Load};

#[derive(Debug, Default)]
struct Endpoint {
    in_flight: AtomicU32,
    ejected: AtomicBool,
    load: Option<Arc<Load>>,
}

impl Candidate for Endpoint {
    fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn out_until(&self, _: Instant) -> Option<u64> {
        self.ejected.load(Ordering::Relaxed).then_some(u64::MAX)
    }

    fn latency(&self, _: Instant) -> Option<f64> {
        None
    }

    fn load(&self) -> Option<&Arc<Load>> {
        self.load.as_ref()
    }
}

const TABLES: [HashTable; 2] = [HashTable::RING, HashTable::MAGLEV];

fn member(host: u32, weight: u32) -> Member {
    Member { address: SocketAddr::new(IpAddr::V4((0x0a01_0000 + host).into()), 9080), weight, occupant: 0 }
}

fn members(count: u32) -> Vec<Member> {
    (1..=count).map(|host| member(host, 1)).collect()
}

fn endpoints(count: usize) -> Vec<Endpoint> {
    (0..count).map(|_| Endpoint::default()).collect()
}

/// The same, whose loads are compared with each other.
fn loaded(hash: &ConsistentHash, count: usize) -> Vec<Endpoint> {
    let total = hash.total().expect("there is a bound");
    let endpoint = |_| Endpoint { load: Some(Arc::new(Load::new(total))), ..Endpoint::default() };
    (0..count).map(endpoint).collect()
}

/// Picks so many times for one key, all of which stay in flight; the most that one endpoint has.
fn pile_up(hash: &ConsistentHash, endpoints: &[Endpoint], count: usize) -> u32 {
    let pick = |_| endpoints[pick(hash, endpoints, 42).unwrap()].load.as_ref().unwrap().begin();
    let begun: Vec<Begun> = (0..count).map(pick).collect();
    let most = endpoints.iter().map(|endpoint| endpoint.load.as_ref().unwrap().own()).max().unwrap();
    drop(begun);
    most
}

fn over(table: HashTable, members: &[Member]) -> ConsistentHash {
    ConsistentHash::new(&How { key: HashKey::SourceAddress, table, load_bound: None }, members, None, true)
}

fn pick(hash: &ConsistentHash, endpoints: &[Endpoint], key: u64) -> Option<usize> {
    hash.pick(
        &Eligible { candidates: endpoints, tried: &[], offset: 0, panicking: false, now: Instant::now() },
        key,
        &mut fastrand::Rng::with_seed(key),
    )
}

fn keys(count: u32) -> impl Iterator<Item = u64> {
    (0..count).map(|key| xxh3_64(&key.to_le_bytes()))
}

/// The member of each key.
fn assigned(table: HashTable, members: &[Member]) -> Vec<Member> {
    let (hash, endpoints) = (over(table, members), endpoints(members.len()));
    keys(20_000).map(|key| members[pick(&hash, &endpoints, key).expect("there are some")]).collect()
}

/// The part of keys whose member is another one.
fn moved(before: &[Member], after: &[Member]) -> f64 {
    let moved = before.iter().zip(after).filter(|(before, after)| before != after).count();
    moved as f64 / before.len() as f64
}

#[test]
fn each_endpoint_has_about_its_share_of_keys_and_none_starves() {
    for table in TABLES {
        for count in [3, 10, 100] {
            let (members, assigned) = (members(count), assigned(table, &members(count)));
            let mean = f64::from(20_000 / count);
            for member in members {
                let share = assigned.iter().filter(|one| **one == member).count() as f64 / mean;
                assert!((0.7..1.4).contains(&share), "{table:?}, {count}: {share} of a share");
            }
        }
    }
}

#[test]
fn shares_follow_weights() {
    let members = [member(1, 6), member(2, 3), member(3, 1)];
    for table in TABLES {
        let assigned = assigned(table, &members);
        for (member, expected) in members.iter().zip([0.6, 0.3, 0.1]) {
            let share = assigned.iter().filter(|one| *one == member).count() as f64 / 20_000.0;
            assert!((share - expected).abs() < 0.06, "{table:?}: {share}, not {expected}");
        }
    }
}

#[test]
fn when_an_endpoint_leaves_or_joins_hardly_more_than_its_own_keys_move() {
    for table in TABLES {
        for count in [5, 10, 50] {
            let all = members(count);
            let mut fewer = all.clone();
            fewer.remove(2);
            let moved = moved(&assigned(table, &all), &assigned(table, &fewer));
            let bound = 1.0 / f64::from(count) * 1.3 + 0.03;
            assert!(moved <= bound, "{table:?}, {count}: {moved} moved, more than {bound}");
        }
    }
}

#[test]
fn on_a_ring_only_the_keys_of_the_one_that_leaves_move() {
    let all = members(10);
    let (before, mut fewer) = (assigned(HashTable::RING, &all), all);
    let left = fewer.remove(4);

    let after = assigned(HashTable::RING, &fewer);

    assert!(before.iter().zip(&after).all(|(before, after)| before == after || *before == left));
}

#[test]
fn the_order_in_which_endpoints_are_listed_does_not_matter() {
    for table in TABLES {
        let listed = members(20);
        let mut reversed = listed.clone();
        reversed.reverse();

        assert_eq!(assigned(table, &listed), assigned(table, &reversed), "{table:?}");
    }
}

/// If this fails, clients of two versions of the proxy do not agree, and an update moves all keys.
#[test]
fn keys_stay_where_they_have_always_been() {
    let at = |table| {
        let (hash, endpoints) = (over(table, &members(5)), endpoints(5));
        let keys = ["alice", "bob", "carol", "dave", "eve", "frank"];
        keys.map(|key| pick(&hash, &endpoints, xxh3_64(key.as_bytes())).unwrap())
    };

    assert_eq!(at(HashTable::RING), [3, 3, 4, 0, 2, 1]);
    assert_eq!(at(HashTable::MAGLEV), [0, 4, 1, 4, 4, 0]);
}

#[test]
fn the_keys_of_an_ejected_endpoint_are_spread_and_come_home() {
    for table in TABLES {
        let members = members(10);
        let (hash, endpoints) = (over(table, &members), endpoints(10));
        let before: Vec<_> = keys(5_000).map(|key| pick(&hash, &endpoints, key).unwrap()).collect();

        endpoints[3].ejected.store(true, Ordering::Relaxed);
        let during: Vec<_> = keys(5_000).map(|key| pick(&hash, &endpoints, key).unwrap()).collect();
        endpoints[3].ejected.store(false, Ordering::Relaxed);
        let after: Vec<_> = keys(5_000).map(|key| pick(&hash, &endpoints, key).unwrap()).collect();

        assert_eq!(before, after, "{table:?}");
        let others = before.iter().zip(&during).filter(|(before, _)| **before != 3);
        assert!(others.clone().all(|(before, during)| before == during), "{table:?}: others stay");
        let spread: std::collections::BTreeSet<_> = before
            .iter()
            .zip(&during)
            .filter(|(before, _)| **before == 3)
            .map(|(_, during)| during)
            .collect();
        assert_eq!(spread.len(), 9, "{table:?}: over all others");
    }
}

#[test]
fn where_most_are_ejected_the_rest_serves_and_none_is_none() {
    for table in TABLES {
        let members = members(200);
        let (hash, endpoints) = (over(table, &members), endpoints(200));
        endpoints[1..].iter().for_each(|one| one.ejected.store(true, Ordering::Relaxed));
        assert!(keys(50).all(|key| pick(&hash, &endpoints, key) == Some(0)), "{table:?}");

        endpoints[0].ejected.store(true, Ordering::Relaxed);
        assert_eq!(pick(&hash, &endpoints, 7), None);
        assert_eq!(pick(&over(table, &[]), &[], 7), None);
    }
}

#[test]
fn a_bound_keeps_a_popular_key_from_overloading_its_endpoint() {
    for table in TABLES {
        let how = How { key: HashKey::SourceAddress, table, load_bound: Some(125) };
        let hash = ConsistentHash::new(&how, &members(10), None, true);
        let endpoints = loaded(&hash, 10);
        let most = pile_up(&hash, &endpoints, 1_000);
        assert!((100..=126).contains(&most), "{table:?}: {most} of 1,000 at one of ten");
        assert_eq!(pile_up(&hash, &endpoints, 1), 1, "{table:?}: what has ended does not count");
    }
}

#[test]
fn what_others_have_in_flight_sends_no_key_away() {
    for table in TABLES {
        let how = How { key: HashKey::SourceAddress, table, load_bound: Some(125) };
        let hash = ConsistentHash::new(&how, &members(10), None, true);
        let endpoints = loaded(&hash, 10);
        let home: Vec<_> = keys(500).map(|key| pick(&hash, &endpoints, key)).collect();

        // Of another backend with the same endpoints.
        endpoints.iter().step_by(2).for_each(|one| one.in_flight.store(100, Ordering::Relaxed));

        assert_eq!(keys(500).map(|key| pick(&hash, &endpoints, key)).collect::<Vec<_>>(), home, "{table:?}");
    }
}

#[test]
fn where_there_is_no_table_the_bound_holds_too() {
    let how = How { key: HashKey::SourceAddress, table: LARGE, load_bound: Some(125) };
    let hash = ConsistentHash::new(&how, &members(10), None, true);
    let most = pile_up(&hash, &loaded(&hash, 10), 1_000);
    assert!((100..=126).contains(&most), "{most} of 1,000 at one of ten");
}

#[test]
fn a_change_of_something_else_keeps_the_table() {
    let how = How { key: HashKey::SourceAddress, table: HashTable::RING, load_bound: None };
    let before = ConsistentHash::new(&how, &members(10), None, true);

    let other = How { key: HashKey::Header("user".into()), load_bound: Some(150), ..how.clone() };
    let same = ConsistentHash::new(&other, &members(10), Some(&before), true);
    let fewer = ConsistentHash::new(&how, &members(9), Some(&before), true);

    assert!(Arc::ptr_eq(&same.table, &before.table));
    assert!(!Arc::ptr_eq(&fewer.table, &before.table));
}

#[test]
fn a_table_has_two_places_for_each_endpoint_at_least() {
    let small = over(HashTable::Maglev { size: 7 }, &members(50));
    let endpoints = endpoints(50);

    let used: std::collections::BTreeSet<_> = keys(20_000).map(|key| pick(&small, &endpoints, key)).collect();

    assert_eq!(used.len(), 50);
}

/// More than is made at once.
const LARGE: HashTable = HashTable::Maglev { size: 100_003 };

fn large(members: &[Member], before: Option<&ConsistentHash>) -> ConsistentHash {
    ConsistentHash::new(
        &How { key: HashKey::SourceAddress, table: LARGE, load_bound: None },
        members,
        before,
        true,
    )
}

#[test]
fn until_a_large_table_is_made_keys_stay_where_they_were() {
    let before = large(&members(10), None);
    before.unmade().expect("it is large").make();
    assert!(before.unmade().is_none());
    let endpoints = endpoints(10);
    let at = |hash: &ConsistentHash| keys(2_000).map(|key| pick(hash, &endpoints, key)).collect::<Vec<_>>();
    let (at_first, mut listed) = (at(&before), members(10));
    // The same endpoint now is another one's place, one has left, and one has come.
    listed.reverse();
    listed[9] = member(99, 1);

    let after = large(&listed, Some(&before));
    let again = large(&listed, Some(&after));
    let meanwhile = at(&after);

    assert!(Arc::ptr_eq(&after.table, &again.table), "it is made once");
    for (first, now) in at_first.iter().zip(&meanwhile) {
        let (first, now) = (first.unwrap(), now.unwrap());
        assert!(first == 0 || 9 - first == now, "{first} became {now}");
        assert_ne!(now, 9, "the new one has no keys yet");
    }
    after.unmade().expect("it is not made yet").make();
    assert_eq!(
        at(&after),
        at(&{
            let alone = large(&listed, None);
            alone.unmade().unwrap().make();
            alone
        })
    );
    assert!(at(&after).contains(&Some(9)));
}

#[test]
fn without_a_table_every_proxy_finds_the_same_endpoint() {
    let (one, other, endpoints) = (large(&members(10), None), large(&members(10), None), endpoints(10));

    let picked: Vec<_> = keys(200).map(|key| pick(&one, &endpoints, key)).collect();

    assert!(picked.iter().all(Option::is_some));
    assert_eq!(picked, keys(200).map(|key| pick(&other, &endpoints, key)).collect::<Vec<_>>());
}

#[test]
fn a_table_that_nothing_uses_any_more_is_not_made() {
    let hash = large(&members(10), None);
    let unmade = hash.unmade().unwrap();
    drop(hash);
    unmade.make();
}
