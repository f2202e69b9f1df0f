//! What a pick costs where there are very many endpoints: how many of them it looks at.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::balance::load::Begun;

/// An endpoint that counts how often it is looked at.
struct Watched {
    looks: Arc<AtomicUsize>,
    in_flight: AtomicU32,
    load: Option<Arc<Load>>,
}

impl Watched {
    fn look(&self) {
        self.looks.fetch_add(1, Ordering::Relaxed);
    }
}

impl Candidate for Watched {
    fn in_flight(&self) -> u32 {
        self.look();
        self.in_flight.load(Ordering::Relaxed)
    }

    fn out_until(&self, _: Instant) -> Option<u64> {
        self.look();
        None
    }

    fn latency(&self, _: Instant) -> Option<f64> {
        self.look();
        Some(1.0)
    }

    fn load(&self) -> Option<&Arc<Load>> {
        self.look();
        self.load.as_ref()
    }
}

#[test]
fn of_very_many_an_idle_one_is_found_and_few_connections_are_in_use() {
    const AT_ONCE: usize = 64;
    let members = members(&[1; 10_000]);
    let start = Instant::now();
    let balancer = Balancer::new(&policy(LoadBalancer::LeastRequest), &members, None, start);
    let candidates = endpoints(&vec![true; members.len()]);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut in_progress = Vec::new();
    // Connections: the second is used while the first is, and so on.
    let (mut used, mut busy) = (std::collections::BTreeSet::new(), 0);
    for number in 0..20_000 {
        if in_progress.len() == AT_ONCE {
            let index: usize = in_progress.swap_remove(rng.usize(..AT_ONCE));
            candidates[index].in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        let index = balancer.pick(&candidates, &PickFacts { now: start, ..first() }, &mut rng).unwrap();
        let before = candidates[index].in_flight.fetch_add(1, Ordering::Relaxed);
        in_progress.push(index);
        // Not the beginning, when none of them is in use.
        if number >= 10_000 {
            used.insert((index, before));
            busy += usize::from(before > 0);
        }
    }

    // Of two endpoints alone, both are busy with every fifth request, and there are 330 connections.
    assert!(busy < 50, "{busy} of 10,000 requests went to a busy endpoint");
    assert!(used.len() < 170, "{} connections are in use", used.len());
}

const PICKS: usize = 2_000;

/// How many endpoints one of [`PICKS`] picks looks at on average. What is picked stays in flight.
fn looks(policy: &TrafficPolicy, members: &[Member]) -> f64 {
    let start = Instant::now();
    let before = Balancer::new(policy, &members[1..], None, start);
    // One has just joined.
    let balancer = Balancer::new(policy, members, Some(&before), start);
    balancer.unmade().for_each(Unmade::make);
    let looks = Arc::new(AtomicUsize::new(0));
    let candidates: Vec<Watched> = (0..members.len())
        .map(|index| Watched {
            looks: Arc::clone(&looks),
            in_flight: AtomicU32::new(0),
            load: balancer.total_of(index).map(|total| Arc::new(Load::new(total))),
        })
        .collect();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut begun: Vec<Option<Begun>> = Vec::new();
    for key in 0..PICKS as u64 {
        // A tenth of all requests are for one key.
        let hash = Some(if key % 10 == 0 { 42 } else { rng.u64(..) });
        let index = balancer.pick(&candidates, &PickFacts { hash, now: start, ..first() }, &mut rng).unwrap();
        candidates[index].in_flight.fetch_add(1, Ordering::Relaxed);
        begun.push(candidates[index].load.as_ref().map(Load::begin));
    }
    looks.load(Ordering::Relaxed) as f64 / PICKS as f64
}

#[test]
fn a_pick_looks_at_no_more_of_10_000_endpoints_than_of_ten() {
    let hash = |table, load_bound| How { key: HashKey::SourceAddress, table, load_bound };
    let warmup = Warmup {
        duration: Duration::from_secs(60),
        minimum: Fraction::of_percent(10.0).unwrap(),
        aggression_thousandths: 1_000,
    };
    for how in [
        LoadBalancer::LeastRequest,
        LoadBalancer::RoundRobin,
        LoadBalancer::Random,
        LoadBalancer::PeakEwma,
        LoadBalancer::Passthrough,
        LoadBalancer::ConsistentHash(hash(HashTable::RING, None)),
        LoadBalancer::ConsistentHash(hash(HashTable::MAGLEV, None)),
        LoadBalancer::ConsistentHash(hash(HashTable::RING, Some(125))),
    ] {
        for (warmup, weight) in [(None, 1), (None, 3), (Some(warmup), 1)] {
            let policy = TrafficPolicy { warmup, ..policy(how.clone()) };
            let of = |count: usize| {
                // Unequal, if it is not 1.
                let weights: Vec<u32> =
                    (0..count).map(|index| if index % 2 == 0 { weight } else { 1 }).collect();
                looks(&policy, &members(&weights))
            };
            let (few, many) = (of(10), of(10_000));
            // With a bound, some full ones are passed over on the way.
            assert!(many <= few + 4.0, "{how:?}, {warmup:?}, weight {weight}: {many} looks, {few} of ten");
        }
    }
}
