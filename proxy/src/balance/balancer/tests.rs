use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;

#[derive(Debug)]
struct Endpoint {
    in_flight: AtomicU32,
    available: bool,
}

impl Candidate for Endpoint {
    fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn is_available(&self, _: Instant) -> bool {
        self.available
    }
}

fn endpoints(available: &[bool]) -> Vec<Arc<Endpoint>> {
    available
        .iter()
        .map(|available| Arc::new(Endpoint { in_flight: AtomicU32::new(0), available: *available }))
        .collect()
}

/// A balancer of endpoints with these weights.
fn balancer(how: LoadBalancer, weights: &[u32]) -> Balancer {
    Balancer::new(how, weights.iter().copied(), 0..weights.len(), None)
}

/// A pick that nothing was tried before.
fn first() -> PickFacts<'static> {
    PickFacts { tried: &[], now: Instant::now(), hash: None }
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
    for how in [LoadBalancer::Random, LoadBalancer::LeastRequest] {
        for seed in 1..=5 {
            let statistic = chi_squared(&picks(how, &ten, 100_000, seed), &all);
            // 9 degrees of freedom: 27.9 is passed once in 1,000 times.
            assert!(statistic < 27.9, "{how:?}, seed {seed}: {statistic}");
        }
    }
}

#[test]
fn endpoints_get_shares_as_their_weights_say() {
    let three = endpoints(&[true; 3]);
    for how in [LoadBalancer::Random, LoadBalancer::LeastRequest, LoadBalancer::RoundRobin] {
        let (balancer, mut rng) = (balancer(how, &[6, 3, 1]), fastrand::Rng::with_seed(3));
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
            let statistic = chi_squared(&picks(how, &candidates, 20_000, seed), &left);
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
    let balancer = Balancer::RoundRobin(RoundRobin::new(Shares::Equal, usize::MAX));
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

    let after = |how| Balancer::new(how, [1; 4].into_iter(), 0..4, Some(&before));

    let next = after(LoadBalancer::RoundRobin).pick(&endpoints(&[true; 4]), &first(), &mut rng);
    assert_eq!(next, Some(2));
    assert!(matches!(after(LoadBalancer::Random), Balancer::Random(_)));
    assert!(matches!(after(LoadBalancer::LeastRequest), Balancer::LeastRequest(_)));
}

fn any_balancer() -> impl Strategy<Value = LoadBalancer> {
    prop_oneof![Just(LoadBalancer::LeastRequest), Just(LoadBalancer::RoundRobin), Just(LoadBalancer::Random)]
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
            LoadBalancer::RoundRobin => {
                Balancer::RoundRobin(RoundRobin::new(Shares::of(weights.iter().copied()), turn.into()))
            }
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
