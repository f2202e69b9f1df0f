//! Whether an attempt's end is worth another attempt, and after what pause.
//!
//! Two rules stand above the policy. What is proven never to have been delivered is tried again whatever
//! the policy says, because that cannot do anything twice. And an idempotent request whose connection
//! broke before any byte of an answer is tried again if any attempts are allowed: that is what a client
//! without a proxy does by itself (RFC 9110, 9.2.2), mostly because an idle connection was closed just as
//! the request was sent. Everything else, a POST above all, is tried again only where the policy names
//! the failure.

use std::time::Duration;

use http::Method;

use crate::{RetryOn, RetryPolicy};

/// Further attempts that a request which was never delivered may have, if the policy allows fewer.
///
/// Two: enough for a stale connection and then one endpoint that has just gone; more would only be slower
/// to say that nobody is there.
pub const PROVEN_ATTEMPTS: u32 = 2;

/// The longest pause, as a multiple of the policy's first.
const LONGEST_PAUSE: u32 = 10;

/// How an attempt failed to get an answer from the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No connection was made.
    Connect,
    /// The request was handed back unsent, or the peer said that it did not look at it (GOAWAY with a
    /// lower last stream, a peer that drains).
    NotDelivered,
    /// No answer's headers within the policy's `perTryTimeout`.
    PerTryTimeout,
    /// HTTP/2 REFUSED_STREAM, which promises that nothing was processed (RFC 9113, 8.7).
    RefusedStream,
    /// The connection or stream broke before any byte of an answer.
    Reset,
}

impl Failure {
    /// Whether the app was certainly not reached.
    pub const fn proves_undelivered(self) -> bool {
        matches!(self, Self::Connect | Self::NotDelivered | Self::RefusedStream)
    }
}

/// How one attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptOutcome {
    /// The answer's status, if there was an answer.
    pub status: Option<u16>,
    /// `grpc-status` from the answer's *headers*; in trailers it comes too late to try again.
    pub grpc_status: Option<u8>,
    /// Why the app gave no answer; also what a peer's sidecar names in the answer that it made itself.
    pub failure: Option<Failure>,
    /// Whether a proxy made the answer. Such a 503 is not the app's: a policy's plain status codes do
    /// not match it (`5xx` and `gateway-error` do, as in Envoy).
    pub made_by_proxy: bool,
    /// Whether the app may have seen the request. Looked at for failures only.
    pub delivered: bool,
}

impl AttemptOutcome {
    /// An answer of the app's own.
    pub const fn answer(status: u16, grpc_status: Option<u8>) -> Self {
        Self { status: Some(status), grpc_status, failure: None, made_by_proxy: false, delivered: true }
    }

    /// An answer that a mesh peer's sidecar made itself, because of the `failure` that it names; `None`: another
    /// attempt is up to the answer's status alone.
    pub const fn answer_of_peer(status: u16, grpc_status: Option<u8>, failure: Option<Failure>) -> Self {
        Self { status: Some(status), grpc_status, failure, made_by_proxy: true, delivered: true }
    }

    /// No answer.
    pub const fn failed(failure: Failure) -> Self {
        Self {
            status: None,
            grpc_status: None,
            failure: Some(failure),
            made_by_proxy: false,
            delivered: true,
        }
    }

    /// Whether it is certain that no app saw the request.
    pub const fn proves_undelivered(&self) -> bool {
        match self.failure {
            Some(failure) => failure.proves_undelivered() || !self.delivered,
            None => false,
        }
    }
}

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Its end is the request's end.
    Done,
    /// Another attempt, if the body can be sent again.
    Retry {
        /// No app saw the request, so the retry needs nothing from the budget.
        proven_undelivered: bool,
        /// How long to wait first.
        backoff: Duration,
    },
}

/// Whether to try again after attempt number `attempt` (0 = the first) ended as `outcome` says.
///
/// What another attempt cannot change (no route, no endpoint, a policy that refuses) is not to be asked
/// about. The first retry of what was never delivered goes at once, because it goes elsewhere; any other
/// waits for Envoy's fully jittered, exponential backoff.
pub fn decide(
    policy: &RetryPolicy,
    method: &Method,
    attempt: u32,
    outcome: &AttemptOutcome,
    rng: &mut fastrand::Rng,
) -> Decision {
    let proven_undelivered = outcome.proves_undelivered();
    let allowed = if proven_undelivered { policy.attempts.max(PROVEN_ATTEMPTS) } else { policy.attempts };
    let wanted = proven_undelivered || lost_safely(method, outcome) || names(&policy.on, outcome);
    if attempt >= allowed || !wanted {
        return Decision::Done;
    }
    let at_once = proven_undelivered && attempt == 0;
    let backoff = if at_once { Duration::ZERO } else { backoff(policy.backoff, attempt + 1, rng) };
    Decision::Retry { proven_undelivered, backoff }
}

/// Whether no answer came at all to a request that may be carried out twice.
fn lost_safely(method: &Method, outcome: &AttemptOutcome) -> bool {
    outcome.failure == Some(Failure::Reset) && method.is_idempotent()
}

/// Whether the policy names this end of an attempt.
fn names(on: &RetryOn, outcome: &AttemptOutcome) -> bool {
    outcome.failure.is_some_and(|failure| names_failure(on, failure))
        || outcome.status.is_some_and(|status| names_status(on, status, outcome.made_by_proxy))
        || outcome.grpc_status.is_some_and(|status| on.grpc_statuses.contains(&status))
}

/// As in Envoy any missing answer counts for `reset`, `5xx` and `gateway-error`.
fn names_failure(on: &RetryOn, failure: Failure) -> bool {
    on.any_5xx
        || on.gateway_error
        || on.reset
        || match failure {
            Failure::Connect => on.connect_failure,
            Failure::RefusedStream => on.refused_stream,
            Failure::PerTryTimeout => on.per_try_timeout,
            Failure::NotDelivered | Failure::Reset => false,
        }
}

fn names_status(on: &RetryOn, status: u16, made_by_proxy: bool) -> bool {
    on.any_5xx && (500..=599).contains(&status)
        || on.gateway_error && (502..=504).contains(&status)
        || !made_by_proxy && (on.retriable_4xx && status == 409 || on.status_codes.contains(&status))
}

/// The pause before retry number `retry` (1 = the first): anything in [0, (2^retry − 1) · `base`), but
/// below ten times `base`.
fn backoff(base: Duration, retry: u32, rng: &mut fastrand::Rng) -> Duration {
    let doubled = 1_u32.checked_shl(retry).unwrap_or(0).wrapping_sub(1);
    let ceiling = base.saturating_mul(doubled.min(LONGEST_PAUSE));
    let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 { Duration::ZERO } else { Duration::from_nanos(rng.u64(..nanos)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn on(change: impl FnOnce(&mut RetryOn)) -> RetryPolicy {
        let mut on = RetryOn::default();
        change(&mut on);
        RetryPolicy { on, ..RetryPolicy::default() }
    }

    fn retried(policy: &RetryPolicy, method: &Method, attempt: u32, outcome: &AttemptOutcome) -> bool {
        let mut rng = fastrand::Rng::with_seed(1);
        decide(policy, method, attempt, outcome, &mut rng) != Decision::Done
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
        assert!(
            !named(&default, &AttemptOutcome::failed(Failure::Reset)),
            "a POST may have been carried out"
        );
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
            assert!(
                !retried(&nothing, &method, 0, &AttemptOutcome::failed(Failure::PerTryTimeout)),
                "{method}"
            );
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
}
