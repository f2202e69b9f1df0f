mod groups;
mod many;

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use proptest::prelude::*;
use selvedge_model::{ConsistentHash as How, HashKey, HashTable, LoadBalancer, Warmup, filter::Fraction};

use super::*;

#[derive(Debug)]
struct Endpoint {
    in_flight: AtomicU32,
    available: bool,
    latency: f64,
}

impl Candidate for Endpoint {
    fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn out_until(&self, _: Instant) -> Option<u64> {
        (!self.available).then_some(u64::MAX)
    }

    fn latency(&self, _: Instant) -> Option<f64> {
        Some(self.latency)
    }

    fn load(&self) -> Option<&Arc<Load>> {
        None
    }
}

fn endpoints(available: &[bool]) -> Vec<Arc<Endpoint>> {
    available
        .iter()
        .map(|available| {
            Arc::new(Endpoint { in_flight: AtomicU32::new(0), available: *available, latency: 1.0 })
        })
        .collect()
}

/// Endpoints with these weights, each at an address of its own.
fn members(weights: &[u32]) -> Vec<Member> {
    let address = |host: u32| SocketAddr::new(IpAddr::V4((0x0a00_0000 + host).into()), 8080);
    weights
        .iter()
        .zip(1..)
        .map(|(weight, host)| Member { address: address(host), weight: *weight, occupant: 0 })
        .collect()
}

fn policy(how: LoadBalancer) -> TrafficPolicy {
    TrafficPolicy { load_balancer: how, ..TrafficPolicy::default() }
}

/// A balancer of endpoints with these weights.
fn balancer(how: LoadBalancer, weights: &[u32]) -> Balancer {
    Balancer::new(&policy(how), &members(weights), None, Instant::now())
}

/// One that takes each in turn, the next turn being `turn`.
fn in_turn(weights: &[u32], turn: usize) -> Balancer {
    let mut balancer = balancer(LoadBalancer::RoundRobin, weights);
    let shares = Shares::of(&members(weights), None);
    balancer.groups[0].algorithm = Algorithm::RoundRobin(round_robin::RoundRobin::new(shares, turn));
    balancer
}

/// A pick that nothing was tried before.
fn first() -> PickFacts<'static> {
    PickFacts { tried: &[], now: Instant::now(), hash: None, dialled: None, ejection: None }
}

fn picks(how: LoadBalancer, candidates: &[Arc<Endpoint>], count: usize, seed: u64) -> Vec<usize> {
    let balancer = balancer(how, &vec![1; candidates.len()]);
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..count).filter_map(|_| balancer.pick(candidates, &first(), &mut rng)).collect()
}

/// The chi-squared statistic of how often each of `among` was picked, against equal shares.
fn chi_squared(picked: &[usize], among: &[usize]) -> f64 {
    let expected = picked.len() as f64 / among.len() as f64;
    among
        .iter()
        .map(|index| picked.iter().filter(|picked| *picked == index).count() as f64)
        .map(|seen| (seen - expected).powi(2) / expected)
        .sum()
}

#[test]
fn equal_endpoints_get_equal_shares_at_random() {
    let ten = endpoints(&[true; 10]);
    let all: Vec<usize> = (0..10).collect();
    for how in [LoadBalancer::Random, LoadBalancer::LeastRequest, LoadBalancer::PeakEwma] {
        for seed in 1..=5 {
            let statistic = chi_squared(&picks(how.clone(), &ten, 100_000, seed), &all);
            // 9 degrees of freedom: 27.9 is passed once in 1,000 times.
            assert!(statistic < 27.9, "{how:?}, seed {seed}: {statistic}");
        }
    }
}

#[test]
fn endpoints_get_shares_as_their_weights_say() {
    let three = endpoints(&[true; 3]);
    let all =
        [LoadBalancer::Random, LoadBalancer::LeastRequest, LoadBalancer::RoundRobin, LoadBalancer::PeakEwma];
    for how in all {
        let (balancer, mut rng) = (balancer(how.clone(), &[6, 3, 1]), fastrand::Rng::with_seed(3));
        let mut taken = [0.0_f64; 3];
        for _ in 0..100_000 {
            let index = balancer.pick(&three, &first(), &mut rng);
            taken[index.expect("all are available")] += 1.0;
        }
        for (share, expected) in taken.iter().zip([0.6, 0.3, 0.1]) {
            assert!((share / 100_000.0 - expected).abs() < 0.01, "{how:?}: {taken:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn each_endpoint_gets_the_share_that_its_weight_says_and_none_starves(
        weights in prop::collection::vec(1..=20_u32, 2..=12),
        seed in any::<u64>(),
    ) {
        const PICKS: u32 = 20_000;
        let candidates = endpoints(&vec![true; weights.len()]);
        let sum: u32 = weights.iter().sum();
        for how in
            [LoadBalancer::Random, LoadBalancer::LeastRequest, LoadBalancer::PeakEwma, LoadBalancer::RoundRobin]
        {
            let (balancer, mut rng) = (balancer(how.clone(), &weights), fastrand::Rng::with_seed(seed));
            let mut taken = vec![0_u32; weights.len()];
            for _ in 0..PICKS {
                taken[balancer.pick(&candidates, &first(), &mut rng).expect("all are available")] += 1;
            }

            let expected = weights.iter().map(|weight| f64::from(PICKS) * f64::from(*weight) / f64::from(sum));
            let off: Vec<f64> = taken.iter().zip(expected).map(|(seen, expected)| {
                (f64::from(*seen) - expected).powi(2) / expected
            }).collect();
            let statistic: f64 = off.iter().sum();
            // With 11 degrees of freedom, 60 is passed once in a hundred million times.
            prop_assert!(statistic < 60.0, "{how:?}: {statistic}, {taken:?} for {weights:?}");
            prop_assert!(taken.iter().all(|seen| *seen > 0), "{how:?}: {taken:?} for {weights:?}");
            if how == LoadBalancer::RoundRobin {
                prop_assert!(statistic < 0.1, "each in its turn: {statistic}, {taken:?} for {weights:?}");
            }
        }
    }
}

#[test]
fn a_heavier_endpoint_bears_more_load() {
    let two = endpoints(&[true; 2]);
    let balancer = balancer(LoadBalancer::LeastRequest, &[4, 1]);
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..1_000 {
        let index = balancer.pick(&two, &first(), &mut rng).unwrap();
        two[index].in_flight.fetch_add(1, Ordering::Relaxed);
    }

    let first = two[0].in_flight();
    assert!((795..=805).contains(&first), "{first} of 1,000 in flight at the endpoint of four fifths");
}

#[test]
fn shares_stay_equal_when_most_endpoints_are_ejected() {
    let mut available = [false; 40];
    // A run of ejected ones before each: the walk that we do not make would favour these unequally.
    let left = [3, 4, 20, 21, 39];
    left.iter().for_each(|index| available[*index] = true);
    let candidates = endpoints(&available);
    for how in [LoadBalancer::Random, LoadBalancer::LeastRequest] {
        for seed in 1..=5 {
            let statistic = chi_squared(&picks(how.clone(), &candidates, 20_000, seed), &left);
            // 4 degrees of freedom: 18.5 is passed once in 1,000 times.
            assert!(statistic < 18.5, "{how:?}, seed {seed}: {statistic}");
        }
    }
}

#[test]
fn of_two_endpoints_the_less_loaded_is_always_picked() {
    let two = endpoints(&[true; 2]);
    two[0].in_flight.store(3, Ordering::Relaxed);
    two[1].in_flight.store(2, Ordering::Relaxed);

    assert_eq!(picks(LoadBalancer::LeastRequest, &two, 100, 7), [1; 100]);
}

#[test]
fn two_choices_keep_loads_closer_together_than_one() {
    let spread = |how| {
        let candidates = endpoints(&[true; 50]);
        let (balancer, mut rng) = (balancer(how, &[1; 50]), fastrand::Rng::with_seed(11));
        for _ in 0..5_000 {
            let index = balancer.pick(&candidates, &first(), &mut rng).expect("all are available");
            candidates[index].in_flight.fetch_add(1, Ordering::Relaxed);
        }
        let loads = candidates.iter().map(Candidate::in_flight);
        loads.clone().max().unwrap_or(0) - loads.min().unwrap_or(0)
    };

    // 5,000 requests on 50 endpoints: a mean of 100.
    let (two_choices, one) = (spread(LoadBalancer::LeastRequest), spread(LoadBalancer::Random));
    assert!(two_choices <= 8, "{two_choices}");
    assert!(one >= 30, "{one}");
}

#[test]
fn round_robin_takes_each_in_turn_and_passes_over_the_ejected() {
    assert_eq!(picks(LoadBalancer::RoundRobin, &endpoints(&[true; 3]), 6, 1), [0, 1, 2, 0, 1, 2]);
    let with_a_gap = endpoints(&[true, false, false, true]);
    assert_eq!(picks(LoadBalancer::RoundRobin, &with_a_gap, 6, 1), [0, 3, 0, 3, 0, 3]);
}

#[test]
fn round_robin_survives_the_end_of_its_cursor() {
    let three = endpoints(&[true; 3]);
    let balancer = in_turn(&[1; 3], usize::MAX);
    let mut rng = fastrand::Rng::with_seed(1);

    for _ in 0..4 {
        assert!(balancer.pick(&three, &first(), &mut rng).is_some());
    }
}

#[test]
fn a_change_of_endpoints_goes_on_with_the_next_in_turn() {
    let mut rng = fastrand::Rng::with_seed(1);
    let before = balancer(LoadBalancer::RoundRobin, &[1; 3]);
    let picked = [(); 2].map(|()| before.pick(&endpoints(&[true; 3]), &first(), &mut rng));
    assert_eq!(picked, [Some(0), Some(1)]);

    let after = |how| Balancer::new(&policy(how), &members(&[1; 4]), Some(&before), Instant::now());

    let next = after(LoadBalancer::RoundRobin).pick(&endpoints(&[true; 4]), &first(), &mut rng);
    assert_eq!(next, Some(2));
    assert!(matches!(after(LoadBalancer::Random).groups[0].algorithm, Algorithm::Random(_)));
    assert!(matches!(after(LoadBalancer::LeastRequest).groups[0].algorithm, Algorithm::LeastRequest(_)));
}

/// Of 100,000 picks `age` after the last of three endpoints has joined, the share of the last.
fn share_of_the_newest(how: LoadBalancer, age: Duration) -> f64 {
    let start = Instant::now();
    let minimum = Fraction::of_percent(10.0).unwrap();
    let warmup = Warmup { duration: Duration::from_secs(100), minimum, aggression_thousandths: 1_000 };
    let policy = TrafficPolicy { warmup: Some(warmup), ..policy(how) };
    let two = Balancer::new(&policy, &members(&[1; 2]), None, start);
    let joins = start + Duration::from_secs(500);
    let three = Balancer::new(&policy, &members(&[1; 3]), Some(&two), joins);
    // A change of something else forgets nothing.
    let three = Balancer::new(&policy, &members(&[1; 3]), Some(&three), joins + age / 2);
    let (candidates, mut rng) = (endpoints(&[true; 3]), fastrand::Rng::with_seed(9));
    let facts = PickFacts { now: joins + age, ..first() };
    let picked = (0..100_000).filter(|_| three.pick(&candidates, &facts, &mut rng) == Some(2));
    picked.count() as f64 / 100_000.0
}

#[test]
fn the_share_of_a_new_endpoint_grows() {
    for how in [LoadBalancer::LeastRequest, LoadBalancer::RoundRobin, LoadBalancer::PeakEwma] {
        // 10 % of a share beside two whole ones, then a half, then a whole one.
        for (seconds, expected) in [(1, 0.1 / 2.1), (50, 0.5 / 2.5), (100, 1.0 / 3.0)] {
            let share = share_of_the_newest(how.clone(), Duration::from_secs(seconds));
            // Of two draws the first is taken where both are idle, so shares are those of one draw.
            assert!((share - expected).abs() < 0.01, "{how:?} after {seconds} s: {share}, not {expected}");
        }
    }
}

#[test]
fn another_workload_at_the_same_address_is_a_new_endpoint() {
    let start = Instant::now();
    let minimum = Fraction::of_percent(10.0).unwrap();
    let warmup = Warmup { duration: Duration::from_secs(100), minimum, aggression_thousandths: 1_000 };
    let policy = TrafficPolicy { warmup: Some(warmup), ..TrafficPolicy::default() };
    let mut three = members(&[1; 3]);
    let before = Balancer::new(&policy, &three, None, start);
    let joins = start + Duration::from_secs(500);
    three[2].occupant = 1;
    let after = Balancer::new(&policy, &three, Some(&before), joins);
    let (candidates, mut rng) = (endpoints(&[true; 3]), fastrand::Rng::with_seed(9));
    let facts = PickFacts { now: joins + Duration::from_secs(1), ..first() };

    let picked = (0..100_000).filter(|_| after.pick(&candidates, &facts, &mut rng) == Some(2)).count();

    // 10 % of a share beside two whole ones.
    let share = picked as f64 / 100_000.0;
    assert!((share - 0.1 / 2.1).abs() < 0.01, "{share}");
}

#[test]
fn endpoints_that_all_are_new_get_equal_shares() {
    let minimum = Fraction::of_percent(10.0).unwrap();
    let warmup = Warmup { duration: Duration::from_secs(100), minimum, aggression_thousandths: 1_000 };
    let policy = TrafficPolicy { warmup: Some(warmup), ..TrafficPolicy::default() };
    let balancer = Balancer::new(&policy, &members(&[1; 10]), None, Instant::now());
    let (ten, mut rng) = (endpoints(&[true; 10]), fastrand::Rng::with_seed(2));

    let picked: Vec<usize> = (0..50_000).filter_map(|_| balancer.pick(&ten, &first(), &mut rng)).collect();

    assert!(chi_squared(&picked, &(0..10).collect::<Vec<_>>()) < 27.9);
}

#[test]
fn a_slow_endpoint_gets_few_requests_and_a_busy_one_none() {
    let mut two = endpoints(&[true; 2]);
    Arc::get_mut(&mut two[0]).unwrap().latency = 5.0;
    let picked = picks(LoadBalancer::PeakEwma, &two, 100, 7);
    assert_eq!(picked, [1; 100]);

    two[1].in_flight.store(5, Ordering::Relaxed);
    assert_eq!(picks(LoadBalancer::PeakEwma, &two, 100, 7), [0; 100]);
}

#[test]
fn what_was_dialled_is_what_is_called() {
    let balancer = balancer(LoadBalancer::Passthrough, &[1; 3]);
    let three = endpoints(&[true, true, false]);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut pick = |dialled: &str| {
        let facts = PickFacts { dialled: Some(dialled.parse().unwrap()), tried: &[1], ..first() };
        balancer.pick(&three, &facts, &mut rng)
    };

    assert_eq!(pick("10.0.0.2:8080"), Some(1), "also if it was tried: no other was asked for");
    assert_eq!(pick("10.0.0.3:8080"), None, "it is ejected, and nobody asked for another");
    assert_eq!(pick("10.96.0.1:80"), Some(0), "the service's own address");
}

#[test]
fn of_very_many_endpoints_every_balancer_that_can_uses_a_part() {
    let many = endpoints(&[true; 1_000]);
    for how in
        [LoadBalancer::Random, LoadBalancer::LeastRequest, LoadBalancer::RoundRobin, LoadBalancer::PeakEwma]
    {
        let picked: std::collections::BTreeSet<_> = picks(how.clone(), &many, 3_000, 3).into_iter().collect();
        assert!(picked.len() < 200, "{how:?}: {}", picked.len());
    }
    let hash = How { key: HashKey::SourceAddress, table: HashTable::RING, load_bound: None };
    let picked: std::collections::BTreeSet<_> =
        picks(LoadBalancer::ConsistentHash(hash), &many, 30_000, 3).into_iter().collect();
    assert!(picked.len() > 990, "{}", picked.len());
}

fn any_balancer() -> impl Strategy<Value = LoadBalancer> {
    let hash = |table| How { key: HashKey::SourceAddress, table, load_bound: None };
    prop_oneof![
        Just(LoadBalancer::LeastRequest),
        Just(LoadBalancer::RoundRobin),
        Just(LoadBalancer::Random),
        Just(LoadBalancer::PeakEwma),
        Just(LoadBalancer::Passthrough),
        Just(LoadBalancer::ConsistentHash(hash(HashTable::RING))),
        Just(LoadBalancer::ConsistentHash(hash(HashTable::Maglev { size: 1_009 }))),
        Just(LoadBalancer::ConsistentHash(How { load_bound: Some(120), ..hash(HashTable::RING) })),
    ]
}

proptest! {
    #[test]
    fn only_available_endpoints_are_picked_and_tried_ones_only_when_no_other_is_left(
        available in proptest::collection::vec(any::<bool>(), 0..12),
        tried in proptest::collection::vec(0_usize..12, 0..12),
        how in any_balancer(),
        weights in proptest::collection::vec(1_u32..5, 12),
        turn in any::<u16>(),
        seed in any::<u64>(),
    ) {
        let candidates = endpoints(&available);
        let mut rng = fastrand::Rng::with_seed(seed);
        let fresh = (0..available.len()).any(|index| available[index] && !tried.contains(&index));

        let weights = &weights[..available.len()];
        let balancer = match how {
            LoadBalancer::RoundRobin => in_turn(weights, turn.into()),
            other => balancer(other, weights),
        };
        match balancer.pick(&candidates, &PickFacts { tried: &tried, ..first() }, &mut rng) {
            Some(index) => {
                prop_assert!(available[index]);
                prop_assert!(!fresh || !tried.contains(&index));
            }
            None => prop_assert!(!available.contains(&true)),
        }
    }
}
