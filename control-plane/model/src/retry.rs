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

/// The longest that a server can have a retry wait (`Retry-After`). If it asks for more, its answer is final.
pub const LONGEST_WAIT: Duration = Duration::from_secs(10);

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
    /// `grpc-status` of an answer without a message: from its headers, or from trailers that came with them. After a
    /// message it comes too late to try again.
    pub grpc_status: Option<u8>,
    /// Why the app gave no answer; also what a peer's sidecar names in the answer that it made itself.
    pub failure: Option<Failure>,
    /// Whether a proxy made the answer. Such a 503 is not the app's: a policy's plain status codes do
    /// not match it (`5xx` and `gateway-error` do, as in Envoy).
    pub made_by_proxy: bool,
    /// Whether the app may have seen the request. Looked at for failures only.
    pub delivered: bool,
    /// After what time the server wants to be asked again (`Retry-After` of a 429 or 503, `grpc-retry-pushback-ms`); the
    /// longest time: never.
    pub not_before: Option<Duration>,
}

impl AttemptOutcome {
    /// An answer of the app's own.
    pub const fn answer(status: u16, grpc_status: Option<u8>) -> Self {
        Self {
            status: Some(status),
            grpc_status,
            failure: None,
            made_by_proxy: false,
            delivered: true,
            not_before: None,
        }
    }

    /// An answer that a mesh peer's sidecar made itself, because of the `failure` that it names; `None`: another
    /// attempt is up to the answer's status alone.
    pub const fn answer_of_peer(status: u16, grpc_status: Option<u8>, failure: Option<Failure>) -> Self {
        Self {
            status: Some(status),
            grpc_status,
            failure,
            made_by_proxy: true,
            delivered: true,
            not_before: None,
        }
    }

    /// No answer.
    pub const fn failed(failure: Failure) -> Self {
        Self {
            status: None,
            grpc_status: None,
            failure: Some(failure),
            made_by_proxy: false,
            delivered: true,
            not_before: None,
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
    /// Another attempt would be made if there had not been so many: it was tried again, in vain.
    Exhausted,
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
/// waits for Envoy's fully jittered, exponential backoff. What a server asks for counts if it is longer, and half as much
/// more at random, so that those who were told the same do not all come together (Envoy's `rate_limited_retry_back_off`).
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
    // It goes elsewhere: what this one asks for is no matter there.
    let asked = outcome.not_before.filter(|_| !proven_undelivered);
    if !wanted || asked.is_some_and(|asked| asked > LONGEST_WAIT) {
        return Decision::Done;
    }
    if attempt >= allowed {
        return if attempt > 0 { Decision::Exhausted } else { Decision::Done };
    }
    let at_once = proven_undelivered && attempt == 0;
    let backoff = if at_once { Duration::ZERO } else { backoff(policy.backoff, attempt + 1, rng) };
    let asked = asked.map(|asked| asked + asked.mul_f64(rng.f64() / 2.0));
    Decision::Retry { proven_undelivered, backoff: backoff.max(asked.unwrap_or_default()) }
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
mod tests;
