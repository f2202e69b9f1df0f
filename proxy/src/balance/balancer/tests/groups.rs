//! Balancers of several groups, with ejections as they happen.

use selvedge_model::OutlierDetection;

use super::*;
use crate::balance::outlier::{Health, Outcome};

struct Judged {
    ejection: Arc<Ejection>,
    health: Health,
}

impl Candidate for Judged {
    fn in_flight(&self) -> u32 {
        0
    }

    fn out_until(&self, now: Instant) -> Option<u64> {
        self.ejection.out_until(&self.health, now)
    }

    fn latency(&self, _: Instant) -> Option<f64> {
        None
    }

    fn load(&self) -> Option<&Arc<Load>> {
        None
    }
}

/// Endpoints in groups, and their ejections, which last 10 s.
struct Backend {
    balancer: Balancer,
    ejection: Arc<Ejection>,
    candidates: Vec<Judged>,
    rng: fastrand::Rng,
    start: Instant,
}

impl Backend {
    fn of(how: LoadBalancer, sizes: &[usize], weights: Option<&[u32]>, min_health_percent: u8) -> Self {
        let start = Instant::now();
        let settings = OutlierDetection {
            consecutive_5xx: Some(1),
            base_ejection_time: Duration::from_secs(10),
            max_ejection_percent: 100,
            min_health_percent,
            ..OutlierDetection::default()
        };
        let ejection = Arc::new(Ejection::new(settings, start));
        let all: usize = sizes.iter().sum();
        ejection.set_endpoints(all);
        let mut left = members(&vec![1; all]).into_iter();
        let group = |(place, size): (usize, &usize)| MemberGroup {
            key: u32::try_from(place).unwrap(),
            weight: weights.map_or(1, |weights| weights[place]),
            members: left.by_ref().take(*size).collect(),
        };
        let groups = sizes.iter().enumerate().map(group).collect();
        let balancer = Balancer::of_groups(&policy(how), groups, weights.is_some(), None, start);
        let judged = |_| Judged { ejection: Arc::clone(&ejection), health: Health::new() };
        let candidates = (0..all).map(judged).collect();
        Self { balancer, ejection, candidates, rng: fastrand::Rng::with_seed(7), start }
    }

    fn after(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn eject(&self, index: usize, seconds: u64) {
        let health = &self.candidates[index].health;
        let rng = &mut fastrand::Rng::new();
        self.ejection.record(health, Outcome::Failure5xx, self.after(seconds), rng).expect("ejected");
    }

    fn pick(&mut self, hash: Option<u64>, tried: &[usize], seconds: u64) -> Option<usize> {
        let now = self.after(seconds);
        let facts = PickFacts { tried, now, hash, ejection: Some(&self.ejection), ..first() };
        self.balancer.pick(&self.candidates, &facts, &mut self.rng)
    }

    /// Of 10,000 picks, the share of each group of these sizes.
    fn shares(&mut self, sizes: &[usize], seconds: u64) -> Vec<f64> {
        let mut counts = vec![0.0; sizes.len()];
        for _ in 0..10_000 {
            let Some(picked) = self.pick(None, &[], seconds) else { continue };
            let mut end = 0;
            let group = sizes.iter().position(|size| {
                end += size;
                picked < end
            });
            counts[group.unwrap()] += 1.0;
        }
        counts.into_iter().map(|count| count / 10_000.0).collect()
    }
}

fn close(found: &[f64], expected: &[f64]) {
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 0.03, "{found:?}, not {expected:?}");
    }
}

fn every_balancer() -> Vec<LoadBalancer> {
    let hash = |table| How { key: HashKey::SourceAddress, table, load_bound: None };
    vec![
        LoadBalancer::LeastRequest,
        LoadBalancer::RoundRobin,
        LoadBalancer::Random,
        LoadBalancer::Passthrough,
        LoadBalancer::PeakEwma,
        LoadBalancer::ConsistentHash(hash(HashTable::RING)),
        LoadBalancer::ConsistentHash(hash(HashTable::Maglev { size: 1_009 })),
    ]
}

#[test]
fn requests_spill_from_priority_to_priority_and_come_home() {
    let sizes = [4, 4, 2];
    for how in every_balancer() {
        let mut backend = Backend::of(how.clone(), &sizes, None, 0);
        close(&backend.shares(&sizes, 0), &[1.0, 0.0, 0.0]);

        backend.eject(0, 0);
        close(&backend.shares(&sizes, 1), &[1.0, 0.0, 0.0]);
        backend.eject(1, 1);
        close(&backend.shares(&sizes, 2), &[0.7, 0.3, 0.0]);
        (2..4).for_each(|index| backend.eject(index, 3));
        close(&backend.shares(&sizes, 4), &[0.0, 1.0, 0.0]);
        (4..8).for_each(|index| backend.eject(index, 4));
        close(&backend.shares(&sizes, 5), &[0.0, 0.0, 1.0]);
        (8..10).for_each(|index| backend.eject(index, 5));
        assert_eq!(backend.pick(None, &[], 6), None, "{how:?}");

        // Nobody has called them meanwhile: the end of their time is seen all the same.
        close(&backend.shares(&sizes, 11), &[1.0, 0.0, 0.0]);
        close(&backend.shares(&sizes, 60), &[1.0, 0.0, 0.0]);
    }
}

#[test]
fn shares_by_weight_shrink_with_what_is_ejected() {
    let sizes = [2, 3, 1];
    for how in every_balancer() {
        let mut backend = Backend::of(how, &sizes, Some(&[80, 15, 5]), 0);
        close(&backend.shares(&sizes, 0), &[0.8, 0.15, 0.05]);

        backend.eject(0, 0);
        close(&backend.shares(&sizes, 1), &[56.0 / 76.0, 15.0 / 76.0, 5.0 / 76.0]);
        backend.eject(1, 1);
        close(&backend.shares(&sizes, 2), &[0.0, 0.75, 0.25]);
        close(&backend.shares(&sizes, 60), &[0.8, 0.15, 0.05]);
    }
}

#[test]
fn a_key_stays_in_its_group_and_at_its_endpoint() {
    let hash = How { key: HashKey::SourceAddress, table: HashTable::RING, load_bound: None };
    let sizes = [3, 3];
    for weights in [None, Some(&[50, 50][..])] {
        let mut backend = Backend::of(LoadBalancer::ConsistentHash(hash.clone()), &sizes, weights, 0);
        let picks = |backend: &mut Backend, seconds| -> Vec<usize> {
            (0..200).map(|key| backend.pick(Some(mixed(key)), &[], seconds).unwrap()).collect()
        };
        let before = picks(&mut backend, 0);
        assert_eq!(before, picks(&mut backend, 0));
        // Keys of one endpoint move, and they come home.
        backend.eject(0, 0);
        let during = picks(&mut backend, 1);
        assert!(before.iter().zip(&during).all(|(before, during)| *during != 0
            && (*before == 0 || before == during || weights.is_some() || *during > 2)));
        assert_eq!(before, picks(&mut backend, 60));
        let taken: std::collections::BTreeSet<_> = before.iter().collect();
        assert_eq!(taken.len(), if weights.is_some() { 6 } else { 3 });
    }
}

#[test]
fn another_attempt_goes_on_to_the_next_group_once_all_of_the_first_were_tried() {
    for how in every_balancer() {
        let mut backend = Backend::of(how.clone(), &[2, 1], None, 0);

        assert_eq!(backend.pick(None, &[0], 0), Some(1), "{how:?}");
        assert_eq!(backend.pick(None, &[0, 1], 0), Some(2), "{how:?}");
        assert!(backend.pick(None, &[0, 1, 2], 0).is_some_and(|index| index < 2), "{how:?}");
    }
}

#[test]
fn if_too_few_endpoints_are_healthy_all_are_called() {
    let mut backend = Backend::of(LoadBalancer::Random, &[4], None, 50);
    let called = |backend: &mut Backend, seconds| {
        let picked: std::collections::BTreeSet<_> =
            (0..200).filter_map(|_| backend.pick(None, &[], seconds)).collect();
        picked.len()
    };

    for (ejected, expected) in [(0, 3), (1, 2), (2, 4), (3, 4)] {
        backend.eject(ejected, 0);
        assert_eq!(called(&mut backend, 0), expected, "{} of 4 ejected", ejected + 1);
    }
    assert!((0..4).all(|index| {
        let Backend { balancer, candidates, ejection, .. } = &backend;
        balancer.admits(candidates, index, Some(ejection), backend.after(1))
    }));
    assert_eq!(called(&mut backend, 20), 4);
    assert!(backend.ejection.none_ejected());
}

#[test]
fn endpoints_that_fail_their_checks_count_as_ejected_ones_do() {
    let sizes = [4, 4];
    let mut backend = Backend::of(LoadBalancer::Random, &sizes, None, 50);
    let check = |backend: &Backend, index: usize, is_well| {
        backend.ejection.checked(&backend.candidates[index].health, Some(is_well), None);
    };
    let admitted = |backend: &Backend| {
        let Backend { balancer, candidates, ejection, start, .. } = backend;
        (0..8).filter(|index| balancer.admits(candidates, *index, Some(ejection), *start)).count()
    };

    check(&backend, 0, false);
    close(&backend.shares(&sizes, 0), &[1.0, 0.0]);
    assert_eq!(admitted(&backend), 7);
    backend.eject(1, 0);
    close(&backend.shares(&sizes, 0), &[0.7, 0.3]);
    (2..8).for_each(|index| check(&backend, index, false));
    close(&backend.shares(&sizes, 0), &[0.5, 0.5]);
    assert_eq!(admitted(&backend), 8, "all are out, so all are called");

    // Checks have no end of their own, and ejections have.
    (2..8).for_each(|index| check(&backend, index, true));
    close(&backend.shares(&sizes, 60), &[1.0, 0.0]);
    assert_eq!(admitted(&backend), 7);
    check(&backend, 0, true);
    assert_eq!(admitted(&backend), 8);
}

#[test]
fn a_priority_is_not_called_as_a_whole_while_another_can_take_what_it_cannot() {
    let mut backend = Backend::of(LoadBalancer::Random, &[4, 4], None, 50);

    (0..3).for_each(|index| backend.eject(index, 0));
    close(&backend.shares(&[3, 1, 4], 1), &[0.0, 0.35, 0.65]);
    (4..8).for_each(|index| backend.eject(index, 1));
    // 35 % of the first and nothing of the second: both as a whole.
    close(&backend.shares(&[3, 1, 4], 2), &[0.375, 0.125, 0.5]);
}

#[test]
fn what_a_group_gets_can_be_seen() {
    let backend = Backend::of(LoadBalancer::Random, &[2, 2], None, 0);
    let share = |index| {
        let share =
            backend.balancer.share_of(&backend.candidates, index, Some(&backend.ejection), backend.start);
        share.map(|share| (share.place, share.percent.round() as u32))
    };
    assert_eq!((share(0), share(3), share(4)), (Some((0, 100)), Some((1, 0)), None));

    backend.eject(1, 0);

    assert_eq!((share(0), share(3)), (Some((0, 70)), Some((1, 30))));
}
