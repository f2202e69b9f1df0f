//! Choosing the next endpoint: power of two choices, round robin, random.
//!
//! As long as nothing is ejected a pick costs the same however many endpoints there are: endpoints are
//! drawn until one may be called. Only when [`DRAWS`] draws have met none (many are ejected, or have
//! been tried already) are they counted, one by one, so that the chance of each stays exactly equal;
//! walking on from an unlucky draw instead would favour whoever stands behind a run of ejected ones.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use selvedge_model::LoadBalancer;

use super::{Aperture, Weights};

/// Draws before the endpoints are counted. With a tenth of them ejected, one pick in 10,000 counts.
const DRAWS: usize = 4;

/// How often each endpoint is to be picked.
#[derive(Debug, Clone, Copy)]
pub enum Shares<'a> {
    /// All as often.
    Equal,
    /// As their weights say.
    Weighted(&'a Weights),
    /// Power of two choices draws from a part of them, all as often; otherwise as [`Self::Equal`].
    OfPart(&'a Aperture),
}

impl Shares<'_> {
    fn weight(self, index: usize) -> u64 {
        match self {
            Self::Weighted(weights) => weights.weight(index),
            Self::Equal | Self::OfPart(_) => 1,
        }
    }
}

/// What balancing needs to know about an endpoint.
pub trait Candidate {
    /// Requests sent to it that have not ended.
    fn in_flight(&self) -> u32;
    /// Whether it may be called: it is not ejected.
    fn is_available(&self, now: Instant) -> bool;
}

impl<T: Candidate + ?Sized> Candidate for Arc<T> {
    fn in_flight(&self) -> u32 {
        (**self).in_flight()
    }

    fn is_available(&self, now: Instant) -> bool {
        (**self).is_available(now)
    }
}

/// The index of the endpoint to call next; `None` if there is none that may be called.
///
/// `tried` are the endpoints of this request's earlier attempts: they are passed over while there is
/// another. `shares` are those of `candidates`; `turn` is round robin's cursor. Nothing is called while ejected,
/// even if all are: whoever sets `outlierDetection` has a panic threshold of 0, as in Istio.
pub fn pick<C: Candidate>(
    how: LoadBalancer,
    candidates: &[C],
    shares: Shares<'_>,
    turn: &AtomicUsize,
    tried: &[usize],
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Option<usize> {
    let shares = match (how, shares) {
        (LoadBalancer::RoundRobin | LoadBalancer::Random, Shares::OfPart(_)) => Shares::Equal,
        _ => shares,
    };
    let fresh = Eligible { candidates, shares, tried, now }.pick(how, turn, rng);
    if fresh.is_some() || tried.is_empty() {
        return fresh;
    }
    Eligible { candidates, shares, tried: &[], now }.pick(how, turn, rng)
}

/// The candidates that one pick may choose from.
struct Eligible<'a, C> {
    candidates: &'a [C],
    shares: Shares<'a>,
    tried: &'a [usize],
    now: Instant,
}

impl<C: Candidate> Eligible<'_, C> {
    fn pick(&self, how: LoadBalancer, turn: &AtomicUsize, rng: &mut fastrand::Rng) -> Option<usize> {
        match how {
            LoadBalancer::LeastRequest => self.less_loaded_of_two(rng),
            LoadBalancer::RoundRobin => self.next_in_turn(turn, rng),
            LoadBalancer::Random => self.any(rng),
        }
    }

    fn has(&self, index: usize) -> bool {
        !self.tried.contains(&index) && self.candidates[index].is_available(self.now)
    }

    /// Of two different ones drawn at random, the one with fewer requests in flight.
    ///
    /// M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001: nearly as even as
    /// asking all of them, and clients that see the same counts do not all run to the same endpoint.
    fn less_loaded_of_two(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        let first = self.any(rng)?;
        let second = self.any_but(first, rng).unwrap_or(first);
        // Equally loaded: the first, which is as likely to be either of the two, or as their weights say.
        let in_flight = |index: usize| self.candidates[index].in_flight();
        let load =
            |in_flight: u32, other: usize| u64::from(in_flight).saturating_mul(self.shares.weight(other));
        let (of_first, of_second) = (in_flight(first), in_flight(second));
        let (picked, in_flight) = match load(of_second, first) < load(of_first, second) {
            true => (second, of_second),
            false => (first, of_first),
        };
        if let Shares::OfPart(aperture) = self.shares {
            aperture.picked(in_flight);
        }
        Some(picked)
    }

    /// The next one after the last pick, whoever made it.
    fn next_in_turn(&self, turn: &AtomicUsize, rng: &mut fastrand::Rng) -> Option<usize> {
        let len = self.candidates.len();
        if len == 0 {
            return None;
        }
        let start = turn.fetch_add(1, Ordering::Relaxed);
        let at = |step: usize| match self.shares {
            Shares::Weighted(weights) => weights.in_turn(start.wrapping_add(step)),
            Shares::Equal | Shares::OfPart(_) => start.wrapping_add(step) % len,
        };
        let Some(skipped) = (0..len).find(|step| self.has(at(*step))) else {
            // With weights, as many steps as there are endpoints need not meet all of them.
            let weighted = matches!(self.shares, Shares::Weighted(_));
            return weighted.then(|| self.any_by_count(None, rng)).flatten();
        };
        if skipped > 0 {
            // The turn moves past those left out as well; otherwise the endpoint behind an ejected one
            // would get two shares.
            turn.fetch_add(skipped, Ordering::Relaxed);
        }
        Some(at(skipped))
    }

    fn any(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        let len = self.candidates.len();
        if len == 0 {
            return None;
        }
        let draw = |_| match self.shares {
            Shares::OfPart(aperture) => aperture.draw(rng),
            Shares::Weighted(weights) => weights.draw(rng),
            Shares::Equal => rng.usize(..len),
        };
        (0..DRAWS).map(draw).find(|index| self.has(*index)).or_else(|| self.any_by_count(None, rng))
    }

    fn any_but(&self, other: usize, rng: &mut fastrand::Rng) -> Option<usize> {
        let others = self.candidates.len() - 1;
        if others == 0 {
            return None;
        }
        let draw = |_| match self.shares {
            // It is seldom the same again, and then there are more draws.
            Shares::OfPart(aperture) => aperture.draw(rng),
            Shares::Weighted(weights) => weights.draw(rng),
            Shares::Equal => {
                let index = rng.usize(..others);
                index + usize::from(index >= other)
            }
        };
        (0..DRAWS)
            .map(draw)
            .find(|index| *index != other && self.has(*index))
            .or_else(|| self.any_by_count(Some(other), rng))
    }

    /// Counts those that may be called, then draws among them: each has the same chance, or that of its weight.
    fn any_by_count(&self, other: Option<usize>, rng: &mut fastrand::Rng) -> Option<usize> {
        let eligible =
            || (0..self.candidates.len()).filter(|index| Some(*index) != other && self.has(*index));
        let sum: u64 = eligible().map(|index| self.shares.weight(index)).sum();
        if sum == 0 {
            return None;
        }
        let mut drawn = rng.u64(..sum);
        let found = eligible().find(|index| match drawn.checked_sub(self.shares.weight(*index)) {
            Some(left) => {
                drawn = left;
                false
            }
            None => true,
        });
        // Another worker may eject one between the two passes: then the first that is left.
        found.or_else(|| eligible().next())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

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

    fn picks(how: LoadBalancer, candidates: &[Arc<Endpoint>], count: usize, seed: u64) -> Vec<usize> {
        let (turn, now, mut rng) = (AtomicUsize::new(0), Instant::now(), fastrand::Rng::with_seed(seed));
        (0..count).filter_map(|_| pick(how, candidates, Shares::Equal, &turn, &[], now, &mut rng)).collect()
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
        let weights = Weights::of([6, 3, 1].into_iter()).unwrap();
        for how in [LoadBalancer::Random, LoadBalancer::LeastRequest, LoadBalancer::RoundRobin] {
            let (turn, now, mut rng) = (AtomicUsize::new(0), Instant::now(), fastrand::Rng::with_seed(3));
            let mut taken = [0.0_f64; 3];
            for _ in 0..100_000 {
                let index = pick(how, &three, Shares::Weighted(&weights), &turn, &[], now, &mut rng);
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
        let weights = Weights::of([4, 1].into_iter()).unwrap();
        let (turn, now, mut rng) = (AtomicUsize::new(0), Instant::now(), fastrand::Rng::with_seed(5));
        for _ in 0..1_000 {
            let how = LoadBalancer::LeastRequest;
            let index = pick(how, &two, Shares::Weighted(&weights), &turn, &[], now, &mut rng).unwrap();
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
            let (turn, now, mut rng) = (AtomicUsize::new(0), Instant::now(), fastrand::Rng::with_seed(11));
            for _ in 0..5_000 {
                let index = pick(how, &candidates, Shares::Equal, &turn, &[], now, &mut rng)
                    .expect("all are available");
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
        let (turn, now, mut rng) =
            (AtomicUsize::new(usize::MAX), Instant::now(), fastrand::Rng::with_seed(1));

        for _ in 0..4 {
            assert!(
                pick(LoadBalancer::RoundRobin, &three, Shares::Equal, &turn, &[], now, &mut rng).is_some()
            );
        }
    }

    fn any_balancer() -> impl Strategy<Value = LoadBalancer> {
        prop_oneof![
            Just(LoadBalancer::LeastRequest),
            Just(LoadBalancer::RoundRobin),
            Just(LoadBalancer::Random)
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
            let turn = AtomicUsize::new(turn.into());
            let mut rng = fastrand::Rng::with_seed(seed);
            let fresh = (0..available.len()).any(|index| available[index] && !tried.contains(&index));

            let weights = Weights::of(weights[..available.len()].iter().copied());
            let shares = weights.as_ref().map_or(Shares::Equal, Shares::Weighted);
            match pick(how, &candidates, shares, &turn, &tried, Instant::now(), &mut rng) {
                Some(index) => {
                    prop_assert!(available[index]);
                    prop_assert!(!fresh || !tried.contains(&index));
                }
                None => prop_assert!(!available.contains(&true)),
            }
        }
    }
}
