use proptest::prelude::*;

use super::*;

fn requests(total: u32, failed: u32) -> Option<Requests> {
    Some(Requests { total, failed })
}

fn places(outliers: &[Outlier]) -> Vec<usize> {
    outliers.iter().map(|outlier| outlier.place).collect()
}

fn by_rate() -> OutlierDetection {
    OutlierDetection { success_rate: Some(SuccessRate::default()), ..OutlierDetection::default() }
}

#[test]
fn an_endpoint_far_below_the_others_stands_out() {
    let mut endpoints = vec![requests(100, 2); 9];
    endpoints.push(requests(100, 40));

    assert_eq!(places(&outliers(&endpoints, &by_rate(), false)), [9]);
    // All are equally bad: nobody stands out.
    assert_eq!(outliers(&[requests(100, 90); 10], &by_rate(), false), []);
}

#[test]
fn endpoints_with_few_requests_and_those_that_are_ejected_are_not_compared() {
    let mut endpoints = vec![requests(100, 2); 9];
    endpoints.push(requests(99, 99));
    assert_eq!(outliers(&endpoints, &by_rate(), false), []);

    endpoints[9] = None;
    assert_eq!(outliers(&endpoints, &by_rate(), false), []);

    // Four busy ones are too few.
    let mut four = vec![requests(100, 0); 3];
    four.extend([requests(100, 99), requests(1, 0), requests(1, 0)]);
    assert_eq!(outliers(&four, &by_rate(), false), []);
}

#[test]
fn a_share_of_failures_ejects_all_that_have_it() {
    let settings = OutlierDetection {
        failure_percentage: Some(FailurePercentage::default()),
        ..OutlierDetection::default()
    };
    let endpoints = [50, 42, 43, 0, 0].map(|failed| requests(50, failed));

    let found = outliers(&endpoints, &settings, true);
    assert_eq!(places(&found), [0, 2], "86 % and not 84 %");
    assert_eq!(found[0].why, Why::LocalOriginFailurePercentage);
    assert_eq!(outliers(&endpoints[..4], &settings, true), [], "four are too few");
}

#[test]
fn what_was_counted_is_taken_at_once_and_split_by_whether_there_was_an_answer() {
    use Outcome::{Failure5xx, GatewayFailure, NoAnswer, Success};
    let all = [Success, Failure5xx, GatewayFailure, NoAnswer];
    let counted = |split| {
        let tallies = Tallies::default();
        all.iter().for_each(|outcome| tallies.note(*outcome, split));
        let taken = tallies.take().map(|requests| (requests.total, requests.failed));
        assert_eq!(tallies.take().map(|requests| requests.total), [0, 0]);
        taken
    };

    assert_eq!(counted(false), [(4, 3), (0, 0)]);
    assert_eq!(counted(true), [(3, 2), (4, 1)]);
}

#[test]
fn no_request_is_lost_between_workers_and_intervals() {
    let tally = Tally::default();
    let taken: u64 = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..10_000).for_each(|n| tally.note(n % 2 == 0)));
        }
        let taker = scope.spawn(|| {
            (0..1_000)
                .map(|_| tally.take())
                .map(|taken| u64::from(taken.total) + u64::from(taken.failed))
                .sum()
        });
        taker.join().expect("it does not panic")
    });
    let rest = tally.take();
    assert_eq!(taken + u64::from(rest.total) + u64::from(rest.failed), 30_000);
}

/// Envoy's documentation, word by word.
fn naive(requests: &[Option<Requests>], settings: &OutlierDetection) -> Vec<usize> {
    let mut ejected = vec![];
    if let Some(SuccessRate { minimum_hosts, request_volume, stdev_factor }) = settings.success_rate {
        let mut rates = vec![];
        for one in requests.iter().flatten() {
            if one.total >= request_volume && one.total > 0 {
                rates.push(f64::from(one.total - one.failed) * 100.0 / f64::from(one.total));
            }
        }
        if !rates.is_empty() && rates.len() >= minimum_hosts as usize {
            let mut sum = 0.0;
            rates.iter().for_each(|rate| sum += rate);
            let mean = sum / rates.len() as f64;
            let mut squares = 0.0;
            rates.iter().for_each(|rate| squares += (rate - mean) * (rate - mean));
            let threshold = mean - (squares / rates.len() as f64).sqrt() * (f64::from(stdev_factor) / 1000.0);
            for (place, one) in requests.iter().enumerate() {
                let Some(one) = one.filter(|one| one.total >= request_volume && one.total > 0) else {
                    continue;
                };
                // What is as good as equal is not compared here: both are right.
                if f64::from(one.total - one.failed) * 100.0 / f64::from(one.total) < threshold - 1e-6 {
                    ejected.push(place);
                }
            }
        }
    }
    if let Some(FailurePercentage { threshold, minimum_hosts, request_volume }) = settings.failure_percentage
    {
        let busy = |one: &Requests| one.total >= request_volume && one.total > 0;
        if requests.iter().flatten().filter(|one| busy(one)).count() >= minimum_hosts as usize {
            for (place, one) in requests.iter().enumerate() {
                let fails = |one: &Requests| {
                    u64::from(one.failed) * 100 >= u64::from(threshold) * u64::from(one.total)
                };
                if one.is_some_and(|one| busy(&one) && fails(&one)) && !ejected.contains(&place) {
                    ejected.push(place);
                }
            }
        }
    }
    ejected
}

proptest! {
    #[test]
    fn the_same_stand_out_as_by_the_documentation(
        counts in proptest::collection::vec(proptest::option::weighted(0.9, (0_u32..300, 0_u32..300)), 0..12),
        rate in proptest::option::of((0_u32..6, 0_u32..200, 0_u32..3_000)),
        percentage in proptest::option::of((0_u8..=100, 0_u32..6, 0_u32..200)),
    ) {
        let requests: Vec<_> = counts
            .iter()
            .map(|counted| counted.map(|(total, failed)| Requests { total, failed: failed.min(total) }))
            .collect();
        let settings = OutlierDetection {
            success_rate: rate.map(|(minimum_hosts, request_volume, stdev_factor)| SuccessRate {
                minimum_hosts, request_volume, stdev_factor,
            }),
            failure_percentage: percentage.map(|(threshold, minimum_hosts, request_volume)| FailurePercentage {
                threshold, minimum_hosts, request_volume,
            }),
            ..OutlierDetection::default()
        };

        let mut found = places(&outliers(&requests, &settings, false));
        let mut expected = naive(&requests, &settings);
        found.sort_unstable();
        expected.sort_unstable();
        // An endpoint at the threshold itself may be on either side of it: rounding decides.
        let on_the_edge = |place: &usize| {
            let all = outliers(&requests, &settings, false);
            let one = all.iter().find(|outlier| outlier.place == *place);
            one.is_some_and(|one| (one.requests.success() - one.enough).abs() < 1e-5)
        };
        found.retain(|place| expected.contains(place) || !on_the_edge(place));
        prop_assert_eq!(found, expected);
    }
}
