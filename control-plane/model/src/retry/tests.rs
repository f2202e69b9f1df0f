use proptest::prelude::*;

use super::*;

fn on(change: impl FnOnce(&mut RetryOn)) -> RetryPolicy {
    let mut on = RetryOn::default();
    change(&mut on);
    RetryPolicy { on, ..RetryPolicy::default() }
}

fn retried(policy: &RetryPolicy, method: &Method, attempt: u32, outcome: &AttemptOutcome) -> bool {
    let mut rng = fastrand::Rng::with_seed(1);
    matches!(decide(policy, method, attempt, outcome, &mut rng), Decision::Retry { .. })
}

/// POST, after the first attempt: only what the policy itself names.
fn named(policy: &RetryPolicy, outcome: &AttemptOutcome) -> bool {
    retried(policy, &Method::POST, 0, outcome)
}

#[test]
fn the_default_retries_what_istio_retries() {
    let default = RetryPolicy::default();

    assert!(named(&default, &AttemptOutcome::failed(Failure::Connect)));
    assert!(named(&default, &AttemptOutcome::failed(Failure::RefusedStream)));
    assert!(named(&default, &AttemptOutcome::answer(200, Some(14))), "gRPC unavailable");
    assert!(named(&default, &AttemptOutcome::answer(200, Some(1))), "gRPC cancelled");
    assert!(!named(&default, &AttemptOutcome::answer(200, Some(13))), "gRPC internal");
    assert!(!named(&default, &AttemptOutcome::answer(503, None)), "not since 2024");
    assert!(!named(&default, &AttemptOutcome::answer(200, None)));
    assert!(!named(&default, &AttemptOutcome::failed(Failure::Reset)), "a POST may have been carried out");
    assert!(!named(&default, &AttemptOutcome::failed(Failure::PerTryTimeout)));
}

#[test]
fn the_number_of_attempts_is_kept() {
    let policy = on(|on| on.any_5xx = true);
    let outcome = AttemptOutcome::answer(500, None);

    let attempts = [0, 1, 2, 3].map(|attempt| retried(&policy, &Method::GET, attempt, &outcome));
    assert_eq!(attempts, [true, true, false, false]);
}

#[test]
fn each_word_names_its_failures() {
    let answers = [409, 500, 502, 503, 504].map(|status| AttemptOutcome::answer(status, None));
    let which = |policy: &RetryPolicy| answers.map(|outcome| named(policy, &outcome));

    assert_eq!(which(&on(|on| on.any_5xx = true)), [false, true, true, true, true]);
    assert_eq!(which(&on(|on| on.gateway_error = true)), [false, false, true, true, true]);
    assert_eq!(which(&on(|on| on.retriable_4xx = true)), [true, false, false, false, false]);
    assert_eq!(which(&on(|on| on.status_codes = vec![500, 503])), [false, true, false, true, false]);
    assert_eq!(which(&on(|on| on.reset = true)), [false; 5]);
}

#[test]
fn a_missing_answer_counts_for_reset_5xx_and_gateway_error() {
    for failure in [Failure::Reset, Failure::PerTryTimeout] {
        let outcome = AttemptOutcome::failed(failure);
        assert!(named(&on(|on| on.reset = true), &outcome));
        assert!(named(&on(|on| on.any_5xx = true), &outcome));
        assert!(named(&on(|on| on.gateway_error = true), &outcome));
        assert!(!named(&on(|on| on.connect_failure = true), &outcome));
        assert!(!named(&on(|on| on.status_codes = vec![503]), &outcome));
    }
}

#[test]
fn the_time_of_one_attempt_may_be_named_alone() {
    let timeouts = on(|on| on.per_try_timeout = true);

    assert!(named(&timeouts, &AttemptOutcome::failed(Failure::PerTryTimeout)));
    assert!(!named(&timeouts, &AttemptOutcome::failed(Failure::Reset)));
    assert!(!named(&timeouts, &AttemptOutcome::answer(504, None)));
}

#[test]
fn a_proxys_own_503_is_not_the_status_code_503() {
    let own = AttemptOutcome::answer_of_peer(503, None, None);

    assert!(!named(&on(|on| on.status_codes = vec![503]), &own));
    assert!(named(&on(|on| on.any_5xx = true), &own));
    assert!(named(&on(|on| on.gateway_error = true), &own));
}

#[test]
fn an_answer_of_the_peers_sidecar_counts_as_the_failure_that_it_names() {
    let default = RetryPolicy::default();
    let of_peer = |failure| AttemptOutcome::answer_of_peer(503, None, Some(failure));

    assert!(of_peer(Failure::Connect).proves_undelivered());
    assert!(of_peer(Failure::NotDelivered).proves_undelivered());
    assert!(named(&default, &of_peer(Failure::Connect)));
    assert!(!named(&default, &of_peer(Failure::Reset)));
    assert!(retried(&default, &Method::GET, 0, &of_peer(Failure::Reset)));
    assert!(!retried(&default, &Method::GET, 0, &AttemptOutcome::answer_of_peer(403, None, None)));
    assert!(named(&default, &AttemptOutcome::answer_of_peer(200, Some(14), None)), "gRPC");
}

#[test]
fn idempotent_requests_are_retried_after_a_reset_whatever_the_policy_names() {
    let nothing = on(|_| {});
    let reset = AttemptOutcome::failed(Failure::Reset);
    let idempotent = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];

    for method in idempotent.map(|method| method.parse::<Method>().unwrap()) {
        assert!(retried(&nothing, &method, 0, &reset), "{method}");
        assert!(!retried(&nothing, &method, 2, &reset), "{method}");
        assert!(!retried(&nothing, &method, 0, &AttemptOutcome::failed(Failure::PerTryTimeout)), "{method}");
    }
    for method in ["POST", "PATCH", "CONNECT", "BREW"].map(|method| method.parse::<Method>().unwrap()) {
        assert!(!retried(&nothing, &method, 0, &reset), "{method}");
    }
}

#[test]
fn attempts_0_leaves_only_what_was_never_delivered() {
    let none = RetryPolicy { attempts: 0, ..on(|on| on.any_5xx = true) };

    assert!(!retried(&none, &Method::GET, 0, &AttemptOutcome::failed(Failure::Reset)));
    assert!(!retried(&none, &Method::GET, 0, &AttemptOutcome::answer(503, None)));
    for failure in [Failure::Connect, Failure::NotDelivered, Failure::RefusedStream] {
        let outcome = AttemptOutcome::failed(failure);
        let attempts = [0, 1, 2].map(|attempt| retried(&none, &Method::POST, attempt, &outcome));
        assert_eq!(attempts, [true, true, false], "{failure:?}");
    }
    let unsent = AttemptOutcome { delivered: false, ..AttemptOutcome::failed(Failure::Reset) };
    assert!(retried(&none, &Method::POST, 0, &unsent));
}

#[test]
fn the_first_retry_of_what_was_never_delivered_goes_at_once() {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut pauses = |attempt| match decide(
        &RetryPolicy { backoff: Duration::from_secs(1), ..RetryPolicy::default() },
        &Method::POST,
        attempt,
        &AttemptOutcome::failed(Failure::Connect),
        &mut rng,
    ) {
        Decision::Retry { proven_undelivered: true, backoff } => backoff,
        other => panic!("{other:?}"),
    };

    assert_eq!(pauses(0), Duration::ZERO);
    assert_ne!(pauses(1), Duration::ZERO);
}

proptest! {
    #[test]
    fn pauses_are_drawn_below_a_doubling_ceiling_of_at_most_ten_times(
        base in 0_u64..10_000_000_000, retry in 1_u32..70, seed in any::<u64>(),
    ) {
        let pause = backoff(Duration::from_nanos(base), retry, &mut fastrand::Rng::with_seed(seed));

        let times = match retry { 1 => 1, 2 => 3, 3 => 7, _ => 10 };
        prop_assert!(base == 0 || pause < Duration::from_nanos(base * times));
        prop_assert!(base > 0 || pause.is_zero());
    }
}

#[test]
fn pauses_fill_the_whole_range() {
    let mut rng = fastrand::Rng::with_seed(5);
    let base = Duration::from_millis(25);
    let pauses: Vec<Duration> = (0..1_000).map(|_| backoff(base, 2, &mut rng)).collect();

    let mean = pauses.iter().sum::<Duration>() / 1_000;
    assert!((Duration::from_millis(35)..Duration::from_millis(40)).contains(&mean), "{mean:?}");
    assert!(pauses.iter().max().is_some_and(|longest| *longest > Duration::from_millis(74)));
}

#[test]
fn a_server_is_asked_again_no_earlier_than_it_says_and_not_if_that_is_long() {
    let policy =
        RetryPolicy { on: RetryOn { any_5xx: true, ..RetryOn::default() }, ..RetryPolicy::default() };
    let mut rng = fastrand::Rng::with_seed(7);
    let mut decided = |outcome: AttemptOutcome| decide(&policy, &Method::GET, 0, &outcome, &mut rng);
    let answered = |seconds| AttemptOutcome {
        not_before: Some(Duration::from_secs(seconds)),
        ..AttemptOutcome::answer(503, None)
    };

    for _ in 0..1000 {
        let Decision::Retry { backoff, .. } = decided(answered(2)) else { panic!("it is tried again") };
        assert!((Duration::from_secs(2)..=Duration::from_secs(3)).contains(&backoff), "{backoff:?}");
    }
    assert_eq!(decided(answered(11)), Decision::Done);
    let never = AttemptOutcome { not_before: Some(Duration::MAX), ..AttemptOutcome::answer(503, None) };
    assert_eq!(decided(never), Decision::Done);
    let elsewhere = AttemptOutcome {
        not_before: Some(Duration::from_secs(60)),
        ..AttemptOutcome::answer_of_peer(503, None, Some(Failure::NotDelivered))
    };
    let at_once = Decision::Retry { proven_undelivered: true, backoff: Duration::ZERO };
    assert_eq!(decided(elsewhere), at_once, "another endpoint has not said so");
}

#[test]
fn only_what_was_tried_again_is_exhausted() {
    let mut rng = fastrand::Rng::with_seed(7);
    let on = RetryOn { any_5xx: true, ..RetryOn::default() };
    let mut decided = |attempts, attempt, status| {
        let policy = RetryPolicy { attempts, on: on.clone(), ..RetryPolicy::default() };
        decide(&policy, &Method::GET, attempt, &AttemptOutcome::answer(status, None), &mut rng)
    };

    assert_eq!(decided(2, 2, 503), Decision::Exhausted);
    assert_eq!(decided(2, 2, 404), Decision::Done);
    assert_eq!(decided(0, 0, 503), Decision::Done);
}
