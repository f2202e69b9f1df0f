//! The step that tries again: each attempt goes through balancing anew.
//!
//! A request without a body costs one copy of its head. The body of a request is kept as it passes, up to [`Replay`]'s
//! limit. A retry that does not happen costs nothing else.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{Method, Version};
use selvedge_model::RetryPolicy;
use tower::{Layer, layer::layer_fn};

use super::{AttemptOutcome, Decision, Failure, decide, hedge, told};
use crate::{
    balance::{Hedging, Held, Limit},
    bind::{BoundBackend, BoundRule, BoundShare},
    body::{Arriving, Body, Original},
    budget::Budget,
    dispatch::{Attempt, Attempting, Beside, Tried, is_endpoints_fault},
    error::{self, Reason, SaidBy},
    fields::{grpc_status, has_failed, is_grpc},
    step::{AnswerFacts, Error, HeadCopy, Response, Routed, Step, reused},
    telemetry::Underway,
    worker::Worker,
};

/// The step that sends a request, and sends it again where the route's policy says so.
pub fn attempts<S: Attempting>(worker: Rc<Worker>) -> impl Layer<S, Service = impl Step<Routed>> {
    layer_fn(move |inner| {
        let attempts = Attempts { inner, worker: Rc::clone(&worker) };
        reused(move |routed| attempts.clone().run(routed))
    })
}

/// See [`attempts`].
#[derive(Debug, Clone)]
struct Attempts<S> {
    inner: S,
    worker: Rc<Worker>,
}

/// What is kept of a request so that it can be sent again.
struct Kept {
    /// With what hyper keeps in its extensions, such as the case of header names; nearly always nothing.
    head: HeadCopy,
    /// What the client speaks: HTTP/2 allows what is to be rewritten for HTTP/1.1.
    version: Version,
    body: Option<Original<Arriving>>,
    underway: Option<Underway>,
    is_web_socket: bool,
}

impl Kept {
    /// Takes the request's body over, and gives it the first attempt's share of it.
    fn of(request: &mut http::Request<Body>, budget: &Arc<Budget>) -> Self {
        let is_web_socket = request.body().is_web_socket();
        let underway = request.body().underway().cloned();
        let body = request.body_mut().take_arriving();
        let body = body.map(|body| Original::new(body, budget));
        if let Some(first) = body.as_ref().and_then(Original::attempt) {
            *request.body_mut() = Body::replay(first);
            request.body_mut().follow(underway.clone());
        }
        let (head, version) = (HeadCopy::of(request), request.version());
        Self { head, version, body, underway, is_web_socket }
    }

    /// The request, for one more attempt; `None` if too much of its body has passed.
    fn again(&self) -> Option<Box<http::Request<Body>>> {
        let mut body = match &self.body {
            None if self.is_web_socket => Body::web_socket(),
            None => Body::default(),
            Some(original) => Body::replay(original.attempt()?),
        };
        body.follow(self.underway.clone());
        let mut request = http::Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.head.uri.clone();
        *request.version_mut() = self.version;
        *request.extensions_mut() = self.head.extensions.clone();
        self.head.add_to(request.headers_mut());
        Some(Box::new(request))
    }
}

impl<S: Attempting> Attempts<S> {
    fn run(self, routed: Routed) -> impl Future<Output = Result<Response, Error>> {
        let Routed { mut http, conn, mut at, rule, share, deadline } = routed;
        async move {
            let backend = &share.backend;
            backend.retry_budget.as_ref().unwrap_or(&rule.budget).deposit(at);
            let progress = rule.stream.map(|limits| http.body_mut().progress(limits, &self.worker.deadlines));
            let retry = rule.retry.as_ref();
            let retry = retry.map(|policy| (policy, Kept::of(&mut http, &self.worker.budget)));
            let (mut tried, mut attempt, mut retrying, mut fresh) = (Tried::default(), 0, None, false);
            loop {
                // The route's own limit is kept outside, by `route::timeout`.
                let until = retry.as_ref().and_then(|(policy, _)| policy.limit_of(attempt));
                let until = until.map(|limit| at + limit);
                let this = Attempt {
                    conn: &conn,
                    share: &share,
                    tried: &tried,
                    at,
                    until,
                    progress: progress.as_ref(),
                    deadline,
                    fresh,
                    blames: is_endpoints_fault(&conn, &http),
                    beside: Beside::Nothing,
                };
                let first = retry.as_ref().filter(|_| attempt == 0);
                let mut result = match first.and_then(|(_, kept)| hedging(&this, kept)) {
                    None => self.inner.attempt(http, &this).await,
                    // Boxed: it is rare, and twice as large.
                    Some((hedging, kept)) => {
                        Box::pin(self.hedge(http, &this, hedging, kept, &rule, &mut retrying)).await
                    }
                };
                facts(&mut result).retries = attempt;
                let exceeded = progress.as_ref().is_some_and(|progress| progress.exceeded().is_some());
                let Some((policy, kept)) = retry.as_ref().filter(|_| !exceeded) else {
                    // A mark is for us alone, also where nothing is tried again.
                    let was_retried =
                        result.as_mut().is_ok_and(|it| told::was_retried(it.http.headers_mut()));
                    return if was_retried { self.given_up(result) } else { result };
                };
                let (outcome, was_retried) = outcome(&mut result, policy);
                note(backend, &outcome);
                let again =
                    decide(policy, &kept.head.method, attempt, &outcome, &mut self.worker.rng.borrow_mut());
                let (proven_undelivered, backoff) = match again {
                    Decision::Retry { proven_undelivered, backoff } if proven_undelivered || !was_retried => {
                        (proven_undelivered, backoff)
                    }
                    Decision::Done if !was_retried => return result,
                    _ => return self.given_up(result),
                };
                let now = Instant::now();
                // What has reached nobody loads nobody, unless there is nobody anywhere.
                let is_free = proven_undelivered && !backend.counts.nobody_is_there();
                if deadline.is_some_and(|deadline| now + backoff >= deadline) {
                    return if attempt > 0 { self.given_up(result) } else { result };
                }
                if !self.enter(backend, &mut retrying) || !is_free && !self.withdraw(&rule, backend, now) {
                    return self.given_up(no_more(backend, result));
                }
                // Last, because it takes the body away from the attempt before.
                let Some(next) = unsent(&mut result).or_else(|| kept.again()) else { return result };
                http = next;
                fresh = fresh || outcome.failure == Some(Failure::Reset);
                log(&kept.head.method, attempt, &result, backoff);
                facts(&mut result).endpoint.iter().for_each(|used| tried.note(backend, used));
                self.worker.metrics.retries(&rule.service, self.worker.index);
                drop(result);
                if !backoff.is_zero() {
                    tokio::time::sleep(backoff).await;
                }
                attempt += 1;
                at = Instant::now();
                progress.iter().for_each(|progress| progress.begin_again());
            }
        }
    }

    /// Makes the first attempt at a request of `rule`, and a second one beside it if that takes long.
    async fn hedge(
        &self,
        http: Box<http::Request<Body>>,
        first: &Attempt<'_>,
        hedging: &Hedging,
        kept: &Kept,
        rule: &BoundRule,
        retrying: &mut Option<Held>,
    ) -> Result<Response, Error> {
        let backend = &*first.share.backend;
        let again = |now| {
            let granted = backend.endpoints.len() > 1
                && self.enter(backend, retrying)
                && self.withdraw(rule, backend, now);
            if !granted {
                return None;
            }
            let again = kept.again()?;
            self.worker.metrics.hedges(&rule.service, self.worker.index);
            Some(again)
        };
        hedge::attempt(&self.inner, http, first, hedging, again).await
    }

    /// Notes that no more is done than `result` says, although more was tried, here or behind the endpoint.
    fn given_up(&self, result: Result<Response, Error>) -> Result<Response, Error> {
        self.worker.given_up.note();
        result
    }

    /// Takes one retry from the budget of `backend`, or of the rule's service; it is counted as in progress already, if
    /// `backend` has its own. `false`: the budget is exhausted.
    fn withdraw(&self, rule: &BoundRule, backend: &BoundBackend, now: Instant) -> bool {
        let granted = match &backend.retry_budget {
            None => rule.budget.withdraw(now, u32::MAX, 0),
            Some(budget) => {
                let of = |limit| backend.counts.of(limit);
                let requests = of(Limit::Requests).saturating_add(of(Limit::Pending));
                budget.withdraw(now, of(Limit::Retries).saturating_sub(1), requests)
            }
        };
        if !granted {
            self.worker.metrics.retry_budget_exhausted(&rule.service, self.worker.index);
        }
        granted
    }

    /// Counts a retry to `backend` in `retrying`, instead of the retry before it. `false`: the backend's policy allows no
    /// more retries at once.
    fn enter(&self, backend: &BoundBackend, retrying: &mut Option<Held>) -> bool {
        drop(retrying.take());
        *retrying = match &backend.circuit {
            Some(circuit) => circuit.enter(Limit::Retries),
            None => Some(backend.counts.enter(Limit::Retries)),
        };
        if retrying.is_none() {
            self.worker.metrics.overflow(&backend.name, Limit::Retries, self.worker.index);
        }
        retrying.is_some()
    }
}

/// When `first`, the attempt at a request, of which this is `kept`, is to have another one beside it; `None`: never. Only
/// what may be carried out twice is hedged, and only what may go to any endpoint.
fn hedging<'a>(first: &Attempt<'a>, kept: &'a Kept) -> Option<(&'a Hedging, &'a Kept)> {
    let share: &'a BoundShare = first.share;
    let hedging = share.hedging.as_deref()?;
    let may_be = kept.head.method.is_idempotent()
        && kept.body.is_none()
        && !kept.is_web_socket
        && first.progress.is_none()
        && share.session.is_none()
        && share.backend.affinity.is_none();
    may_be.then_some((hedging, kept))
}

/// What becomes of a request whose last attempt came to `result`, if no more may be made: that, unless the budget of
/// `backend` wants it refused (Gateway API `retryConstraint`: a MUST).
fn no_more(backend: &BoundBackend, mut result: Result<Response, Error>) -> Result<Response, Error> {
    if !backend.policy.retry_budget.is_some_and(|budget| budget.refuses) {
        return result;
    }
    let last = match &result {
        Ok(response) => format!("status {}", response.http.status().as_u16()),
        Err(error) => error.failure.to_string(),
    };
    let what = format!(
        "no more retries to {} are made, whose budget is spent (the last attempt: {last})",
        backend.name
    );
    let mut error = Error::from(error::Failure::new(Reason::Overflow, what));
    let facts = std::mem::take(facts(&mut result));
    *error.facts = AnswerFacts { reason: Some(error.failure.reason), ..facts };
    Err(error)
}

/// Notes whether an attempt has reached an app of `backend`.
fn note(backend: &BoundBackend, outcome: &AttemptOutcome) {
    if outcome.proves_undelivered() {
        backend.counts.not_reached();
    } else if outcome.status.is_some() || outcome.failure.is_some() {
        backend.counts.reached();
    }
}

fn log(method: &Method, attempt: u32, result: &Result<Response, Error>, backoff: Duration) {
    let (status, why) = match result {
        Ok(response) => (Some(response.http.status().as_u16()), None),
        Err(error) => (None, Some(&error.failure)),
    };
    tracing::debug!(%method, attempt, ?status, ?why, ?backoff, "trying again");
}

fn facts(result: &mut Result<Response, Error>) -> &mut AnswerFacts {
    match result {
        Ok(response) => &mut response.facts,
        Err(error) => &mut error.facts,
    }
}

/// The request itself, where it came back because no byte of it was sent.
fn unsent(result: &mut Result<Response, Error>) -> Option<Box<http::Request<Body>>> {
    result.as_mut().err().and_then(|error| error.request.take())
}

/// What `decide` needs to know about an attempt's result, and whether it was tried again behind the endpoint, in vain.
fn outcome(result: &mut Result<Response, Error>, policy: &RetryPolicy) -> (AttemptOutcome, bool) {
    match result {
        Ok(response) => {
            let status = response.http.status().as_u16();
            let grpc = grpc_status_of(&mut response.http, policy);
            let mut outcome = match response.facts.reason {
                None => AttemptOutcome::answer(status, grpc),
                Some(reason) => {
                    AttemptOutcome::answer_of_peer(status, grpc, reason.for_retries(SaidBy::Peer))
                }
            };
            if !has_failed(status, grpc) {
                return (outcome, false);
            }
            outcome.not_before = told::not_before(status, response.http.headers(), SystemTime::now());
            (outcome, told::was_retried(response.http.headers_mut()))
        }
        Err(error) => (without_answer(&error.failure), false),
    }
}

/// The status of a gRPC answer that has no message: in its headers, or in trailers that have come together with them.
fn grpc_status_of(answer: &mut http::Response<Body>, policy: &RetryPolicy) -> Option<u8> {
    let in_headers = grpc_status(answer.headers());
    if in_headers.is_some() || policy.on.grpc_statuses.is_empty() || !is_grpc(answer.headers()) {
        return in_headers;
    }
    answer.body_mut().trailers_without_data().and_then(grpc_status)
}

fn without_answer(failed: &error::Failure) -> AttemptOutcome {
    let failure = match failed {
        error::Failure { undelivered: true, .. } => Some(Failure::NotDelivered),
        error::Failure { broke_off: true, .. } => Some(Failure::Reset),
        failed => failed.reason.for_retries(SaidBy::Us),
    };
    AttemptOutcome {
        status: None,
        grpc_status: None,
        failure,
        made_by_proxy: true,
        delivered: !failed.undelivered,
        not_before: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Dispatch;

    /// Whether the request is sent again after its first attempt, by the usual policy.
    fn again(method: &Method, outcome: &AttemptOutcome) -> bool {
        let mut rng = fastrand::Rng::with_seed(1);
        matches!(decide(&RetryPolicy::default(), method, 0, outcome, &mut rng), Decision::Retry { .. })
    }

    #[test]
    fn reasons_lead_to_another_attempt_as_their_table_says() {
        let (get, post) = (&Method::GET, &Method::POST);
        let ours = |reason| without_answer(&error::Failure::new(reason, ""));
        let peers = |reason: Reason| {
            AttemptOutcome::answer_of_peer(reason.status().as_u16(), None, reason.for_retries(SaidBy::Peer))
        };
        use Reason::{
            AppUnreachable, ConnectFailure, Draining, Identity, Overflow, Policy, Protocol, Reset, Timeout,
        };

        for reason in [AppUnreachable, ConnectFailure, Draining] {
            assert!(again(post, &ours(reason)) && again(post, &peers(reason)), "{reason}");
        }
        for outcome in [ours(Reset), peers(Reset), ours(Protocol)] {
            assert!(again(get, &outcome) && !again(post, &outcome), "{outcome:?}");
        }
        for outcome in [ours(Overflow), peers(Overflow), peers(Policy), ours(Timeout), peers(Protocol)] {
            assert!(!again(get, &outcome), "{outcome:?}");
        }
        assert!(again(post, &without_answer(&error::Failure::new(Reset, "").never_delivered())));
        for reason in [Identity, Policy, Overflow] {
            let ended_by_us = without_answer(&error::Failure::new(reason, "").breaking_off());
            assert!(again(get, &ended_by_us) && !again(post, &ended_by_us), "{reason}");
        }
    }

    #[test]
    fn what_is_sent_again_is_what_came() {
        let mut request = http::Request::builder().method("PUT").uri("http://a/b?c").version(Version::HTTP_2);
        for crumb in ["a=1", "b=2"] {
            request = request.header("cookie", crumb);
        }
        let mut request = request.body(Body::default()).unwrap();

        let kept = Kept::of(&mut request, &Arc::new(Budget::new(1)));
        *request.version_mut() = Version::HTTP_11;
        let again = kept.again().unwrap();

        // Only of HTTP/2 is it known that its cookies may be in several fields.
        assert_eq!((again.version(), again.headers()), (Version::HTTP_2, request.headers()));
        assert_eq!((again.method(), again.uri()), (request.method(), request.uri()));
    }

    fn size_of_output<A, B, R>(_: impl FnOnce(A, B) -> R) -> usize {
        size_of::<R>()
    }

    /// Every request allocates it. At 1,032 bytes it would cost glibc's malloc a third of what it does.
    #[test]
    fn the_future_of_all_attempts_stays_small() {
        let size = size_of_output(Attempts::<Dispatch>::run);
        assert!(size <= 1_408, "{size}");
    }
}
