use proptest::prelude::*;
use selvedge_model::FailurePercentage;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Three failures eject, for 2 s at first; no cap.
fn settings() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: Some(3),
        consecutive_gateway_errors: None,
        interval: SECOND,
        base_ejection_time: 2 * SECOND,
        max_ejection_time: 300 * SECOND,
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    }
}

/// The ejections of a backend of so many endpoints.
fn among(endpoints: usize, settings: OutlierDetection, now: Instant) -> Ejection {
    let ejection = Ejection::new(settings, now);
    ejection.set_endpoints(endpoints);
    ejection
}

fn fail(ejection: &Ejection, health: &Health, times: usize, now: Instant) -> Option<Ejected> {
    (0..times)
        .filter_map(|_| ejection.record(health, Outcome::Failure5xx, now, &mut fastrand::Rng::new()))
        .next()
}

#[test]
fn failures_in_a_row_eject_and_a_success_starts_again() {
    let now = Instant::now();
    let (ejection, health) = (among(2, settings(), now), Health::new());

    assert_eq!(fail(&ejection, &health, 2, now), None);
    assert_eq!(ejection.record(&health, Outcome::Success, now, &mut fastrand::Rng::new()), None);
    assert_eq!(fail(&ejection, &health, 2, now), None);
    assert!(!ejection.is_ejected(&health, now));

    let third = ejection.record(&health, Outcome::GatewayFailure, now, &mut fastrand::Rng::new());
    assert_eq!(third, Some(Ejected { time: 2 * SECOND, times: 1, why: Why::Consecutive5xx, failures: 3 }));
    assert!(ejection.is_ejected(&health, now));
    assert!(!ejection.none_ejected());
}

#[test]
fn an_ejected_endpoint_returns_after_its_time_and_not_before() {
    let now = Instant::now();
    let (ejection, health) = (among(2, settings(), now), Health::new());
    fail(&ejection, &health, 3, now);

    assert!(ejection.is_ejected(&health, now + 2 * SECOND - Duration::from_nanos(1)));
    assert_eq!(ejection.remaining(&health, now + SECOND), Some(SECOND));
    assert!(!ejection.is_ejected(&health, now + 2 * SECOND));
    assert!(ejection.none_ejected());
    assert_eq!(fail(&ejection, &health, 2, now + 2 * SECOND), None, "it starts without failures");
}

#[test]
fn answers_that_come_while_ejected_are_not_counted() {
    let now = Instant::now();
    let (ejection, health) = (among(2, settings(), now), Health::new());
    fail(&ejection, &health, 3, now);

    assert_eq!(fail(&ejection, &health, 10, now + SECOND), None);
    assert!(!ejection.is_ejected(&health, now + 2 * SECOND));
    assert_eq!(fail(&ejection, &health, 2, now + 2 * SECOND), None);
}

#[test]
fn each_ejection_is_longer_and_each_healthy_interval_forgives_one() {
    let start = Instant::now();
    let (ejection, health) = (among(2, settings(), start), Health::new());

    let first = fail(&ejection, &health, 3, start).expect("ejected");
    let second = fail(&ejection, &health, 3, start + 2 * SECOND).expect("ejected");
    let third = fail(&ejection, &health, 3, start + 6 * SECOND).expect("ejected");
    assert_eq!([first.times, second.times, third.times], [1, 2, 3]);
    assert_eq!([first.time, second.time, third.time], [2 * SECOND, 4 * SECOND, 6 * SECOND]);

    // Ends at 12 s; healthy for two intervals of 1 s.
    let fourth = fail(&ejection, &health, 3, start + 14 * SECOND).expect("ejected");
    assert_eq!(fourth.times, 2);
    // Ends at 18 s; healthy for long enough to have no record.
    let fifth = fail(&ejection, &health, 3, start + 60 * SECOND).expect("ejected");
    assert_eq!(fifth.times, 1);
}

#[test]
fn no_ejection_is_longer_than_the_longest() {
    let mut now = Instant::now();
    let longest = OutlierDetection { max_ejection_time: 5 * SECOND, ..settings() };
    let (ejection, health) = (among(2, longest, now), Health::new());

    let times: Vec<Duration> = (0..5)
        .map(|_| {
            let time = fail(&ejection, &health, 3, now).expect("ejected").time;
            now += time;
            time
        })
        .collect();

    assert_eq!(times, [2 * SECOND, 4 * SECOND, 5 * SECOND, 5 * SECOND, 5 * SECOND]);
    // The multiplier stopped at 3: after two healthy intervals it is back at 1, then one more.
    assert_eq!(fail(&ejection, &health, 3, now + 2 * SECOND).expect("ejected").times, 2);
}

#[test]
fn gateway_errors_have_a_limit_of_their_own_which_other_failures_reset() {
    let now = Instant::now();
    let two = OutlierDetection { consecutive_5xx: None, consecutive_gateway_errors: Some(2), ..settings() };
    let (ejection, health) = (among(2, two, now), Health::new());
    let record = |outcome| ejection.record(&health, outcome, now, &mut fastrand::Rng::new());

    assert_eq!(record(Outcome::GatewayFailure), None);
    assert_eq!(record(Outcome::Failure5xx), None);
    assert_eq!(record(Outcome::GatewayFailure), None);
    let ejected = record(Outcome::GatewayFailure).expect("two in a row");
    assert_eq!(ejected.why, Why::ConsecutiveGatewayErrors);
}

#[test]
fn attempts_without_an_answer_count_as_gateway_errors_unless_they_are_counted_apart() {
    let now = Instant::now();
    let together = OutlierDetection { consecutive_gateway_errors: Some(2), ..settings() };
    let apart = OutlierDetection { consecutive_local_origin_failures: Some(3), ..together.clone() };
    let why = |settings: &OutlierDetection, outcomes: &[Outcome]| {
        let (ejection, health) = (among(2, settings.clone(), now), Health::new());
        let ejected = outcomes
            .iter()
            .filter_map(|outcome| ejection.record(&health, *outcome, now, &mut fastrand::Rng::new()));
        ejected.map(|ejected| (ejected.why, ejected.failures)).next()
    };
    use Outcome::{Failure5xx, GatewayFailure, NoAnswer, Success};

    assert_eq!(why(&together, &[NoAnswer, GatewayFailure]), Some((Why::ConsecutiveGatewayErrors, 2)));
    let three = Some((Why::ConsecutiveLocalOriginFailures, 3));
    assert_eq!(why(&apart, &[NoAnswer; 2]), None);
    assert_eq!(why(&apart, &[NoAnswer; 3]), three);
    for answer in [Success, Failure5xx, GatewayFailure] {
        assert_eq!(
            why(&apart, &[NoAnswer, NoAnswer, answer, NoAnswer, NoAnswer]),
            None,
            "{answer:?} is an answer"
        );
    }
    // Answers go on being counted: no answer is not one that resets them.
    let answers = Some((Why::ConsecutiveGatewayErrors, 2));
    assert_eq!(why(&apart, &[GatewayFailure, NoAnswer, GatewayFailure]), answers);
    let never = OutlierDetection { consecutive_local_origin_failures: Some(0), ..together };
    assert_eq!(why(&never, &[NoAnswer; 100]), None);
}

#[test]
fn a_limit_of_zero_or_none_never_ejects() {
    let now = Instant::now();
    let off = OutlierDetection { consecutive_5xx: Some(0), consecutive_gateway_errors: None, ..settings() };
    let (ejection, health) = (among(2, off, now), Health::new());

    assert_eq!(fail(&ejection, &health, 100, now), None);
}

#[test]
fn one_endpoint_may_always_be_ejected_and_the_next_only_within_the_cap() {
    let now = Instant::now();
    let ten_percent = OutlierDetection { max_ejection_percent: 10, ..settings() };
    let ejection = among(2, ten_percent, now);
    let (first, second) = (Health::new(), Health::new());

    assert!(fail(&ejection, &first, 3, now).is_some());
    assert_eq!(fail(&ejection, &second, 3, now), None);

    // The first comes back: the second, which failed all the while, goes at its next failure.
    let later = now + 2 * SECOND;
    assert!(!ejection.is_ejected(&first, later));
    assert!(fail(&ejection, &second, 1, later).is_some());
}

#[test]
fn a_forgotten_endpoint_gives_its_place_back_and_cannot_take_another() {
    let now = Instant::now();
    let (ejection, gone) = (among(2, settings(), now), Health::new());
    fail(&ejection, &gone, 3, now);

    ejection.forget(&gone);
    ejection.forget(&gone);
    assert!(ejection.none_ejected());
    assert_eq!(fail(&ejection, &gone, 10, now), None);
    assert!(ejection.none_ejected());
    assert!(!ejection.is_ejected(&gone, now));
}

#[test]
fn ejections_survive_new_settings() {
    let now = Instant::now();
    let (before, health) = (among(2, settings(), now), Health::new());
    fail(&before, &health, 3, now);

    let after = before.with_settings(OutlierDetection { base_ejection_time: 60 * SECOND, ..settings() });
    drop(before);
    assert!(after.is_ejected(&health, now + SECOND));
    assert!(!after.is_ejected(&health, now + 2 * SECOND));
    assert_eq!(fail(&after, &health, 3, now + 2 * SECOND).expect("ejected").time, 120 * SECOND);
}

#[test]
fn statuses_mean_what_envoy_says() {
    use Outcome::{Failure5xx as F, GatewayFailure as G, Success as S};
    let outcomes = [200, 404, 499, 500, 501, 502, 503, 504, 505, 599].map(Outcome::of_status);
    assert_eq!(outcomes, [S, S, S, F, F, G, G, G, F, F]);
    let of_grpc = [0, 1, 2, 4, 5, 8, 12, 13, 14, 15, 99].map(Outcome::of_grpc_status);
    assert_eq!(of_grpc, [S, S, F, G, S, S, S, F, G, F, S]);
}

#[test]
fn workers_that_fail_together_never_pass_the_cap() {
    let now = Instant::now();
    let third = OutlierDetection { max_ejection_percent: 30, ..settings() };
    let ejection = among(10, third, now);
    let endpoints: Vec<Health> = (0..10).map(|_| Health::new()).collect();

    let ejected: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let failures = endpoints.iter().cycle().take(1_000);
                    failures
                        .filter_map(|h| {
                            ejection.record(h, Outcome::GatewayFailure, now, &mut fastrand::Rng::new())
                        })
                        .count()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("no worker panics")).sum()
    });

    assert_eq!(ejected, 3);
    assert_eq!(endpoints.iter().filter(|health| ejection.is_ejected(health, now)).count(), 3);

    // However many notice the end of an ejection, it is uncounted once.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| endpoints.iter().all(|h| !ejection.is_ejected(h, now + 2 * SECOND)));
        }
    });
    assert_eq!(ejection.ejected(), 0);
}

proptest! {
    #[test]
    fn the_cap_holds_and_every_ejection_lasts_exactly_its_time(
        endpoints in 1_usize..8,
        percent in 0_u8..=100,
        events in proptest::collection::vec((0_usize..8, 0_u8..4, 0_u64..3_000), 1..300),
    ) {
        let mut now = Instant::now();
        let ejection =
            among(endpoints, OutlierDetection { max_ejection_percent: percent, ..settings() }, now);
        let healths: Vec<Health> = (0..endpoints).map(|_| Health::new()).collect();
        let mut ends: Vec<Option<Instant>> = vec![None; endpoints];
        let cap = (endpoints * usize::from(percent) / 100).max(1);

        for (endpoint, kind, pause) in events {
            now += Duration::from_millis(pause);
            let endpoint = endpoint % endpoints;
            let outcome = match kind {
                0 => Outcome::Success,
                1 => Outcome::Failure5xx,
                _ => Outcome::GatewayFailure,
            };
            for (health, end) in healths.iter().zip(&ends) {
                prop_assert_eq!(ejection.is_ejected(health, now), end.is_some_and(|end| now < end));
            }
            if let Some(ejected) = ejection.record(&healths[endpoint], outcome, now, &mut fastrand::Rng::new()) {
                prop_assert!(ejected.time >= 2 * SECOND);
                ends[endpoint] = Some(now + ejected.time);
            }
            let ejected = ends.iter().flatten().filter(|end| now < **end).count();
            prop_assert!(ejected <= cap, "{} of {} ejected, cap {} %", ejected, endpoints, percent);
            prop_assert_eq!(ejection.ejected(), ejected);
        }
    }
}

#[test]
fn an_endpoint_that_fails_its_checks_is_not_compared() {
    let now = Instant::now();
    let failure_percentage = Some(FailurePercentage { threshold: 50, minimum_hosts: 1, request_volume: 1 });
    let settings = OutlierDetection { consecutive_5xx: None, failure_percentage, ..settings() };
    for (is_well, ejections) in [(true, 1), (false, 0)] {
        let (ejection, failing, well) = (among(2, settings.clone(), now), Health::new(), Health::new());
        ejection.checked(&failing, Some(is_well), None);
        fail(&ejection, &failing, 3, now);
        ejection.record(&well, Outcome::Success, now, &mut fastrand::Rng::new());

        let ejected = ejection.compare(&[&failing, &well], now, &mut fastrand::Rng::new());

        assert_eq!(ejected.len(), ejections, "{is_well}: {ejected:?}");
    }
}
