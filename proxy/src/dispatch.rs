//! The step that picks an endpoint and sends the request there; one call is one attempt.

pub(crate) mod affinity;
mod choose;
mod judge;
mod kept;
pub(crate) mod session;

use std::{
    cell::OnceCell,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
    time::{Duration, Instant},
};

use http::HeaderMap;

pub use self::choose::Tried;
pub(crate) use self::{
    choose::{Asked, choose},
    judge::{announce, count, succeeded},
};
use selvedge_model::grpc_timeout;

use self::{
    judge::{Said, judge, named_by_peer},
    kept::Kept,
};
use crate::{
    balance::{Held, Limit, Outcome},
    bind::{BoundBackend, BoundEndpoint, BoundShare},
    body::{Blamed, Body, Exceeded, InFlight, Progress, Sending},
    connect::{SendError, Terms},
    error::{Failure, Reason},
    step::{AnswerFacts, Conn, Error, HttpVersion, Response, Taken},
    telemetry::trace,
    worker::Worker,
};

/// One attempt at a request. It borrows what is known of the request, so that its future is small.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The connection that the request came on.
    pub conn: &'a Conn,
    /// The share that it is of: where it goes, and where it is counted.
    pub share: &'a Arc<BoundShare>,
    /// The endpoints that earlier attempts used; others are preferred.
    pub tried: &'a Tried,
    /// When it begins.
    pub at: Instant,
    /// When it must have answered, if it may not take all the time that there is.
    pub until: Option<Instant>,
    /// How far the request and its answer have come, if the rule limits that.
    pub progress: Option<&'a Rc<Progress>>,
    /// When all attempts together must have answered.
    pub deadline: Option<Instant>,
    /// Whether the connection of an attempt before it broke.
    pub fresh: bool,
    /// Whether it is the endpoint's fault if no answer comes in time: see [`is_endpoints_fault`].
    pub blames: bool,
    /// Whether, and how, another attempt at the request is in progress.
    pub beside: Beside<'a>,
}

/// Whether another attempt at the same request may be, or is, in progress.
#[derive(Debug, Clone, Copy)]
pub enum Beside<'a> {
    /// It is alone.
    Nothing,
    /// Another may come: it says which endpoint it goes to.
    Says(&'a OnceCell<Arc<BoundEndpoint>>),
    /// It is the second one: it goes to an endpoint that was not tried, or nowhere.
    Another,
}

impl Attempt<'_> {
    /// Whether its request was sent and broke off without an answer, perhaps because of its own body.
    fn excuses(&self, sent: &Result<Box<http::Response<Body>>, SendError>, sending: &Sending) -> bool {
        let Err(SendError { failure, .. }) = sent else { return false };
        failure.reason == Reason::Reset
            && !failure.undelivered
            && sending.may_have_broken_its_answer(self.conn.is_strangers())
    }
}

/// Makes one attempt at a request. It is not a [`crate::step::Step`]: its future is not boxed but part of the caller's,
/// so that a request and all its attempts share one allocation.
pub trait Attempting: Clone + 'static {
    /// Picks an endpoint and sends the request there.
    fn attempt(
        &self,
        http: Box<http::Request<Body>>,
        attempt: &Attempt<'_>,
    ) -> impl Future<Output = Result<Response, Error>>;
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Dispatch {
    worker: Rc<Worker>,
}

/// The last step of the way out.
pub fn dispatch(worker: Rc<Worker>) -> Dispatch {
    Dispatch { worker }
}

impl Attempting for Dispatch {
    fn attempt(
        &self,
        http: Box<http::Request<Body>>,
        attempt: &Attempt<'_>,
    ) -> impl Future<Output = Result<Response, Error>> {
        send(&self.worker, http, attempt)
    }
}

/// Whether it is an endpoint's fault if `http`, which came on `conn`, gets no answer in time. Not if a stranger sends the rest of a
/// body as slowly as he likes, or says himself how little time there is (`grpc-timeout`): else he could have every endpoint
/// ejected that others need.
pub fn is_endpoints_fault(conn: &Conn, http: &http::Request<Body>) -> bool {
    !conn.is_strangers() || http.body().is_empty() && of_caller(conn.version, http.headers()).is_none()
}

/// How much time the caller gives a request, if it says so. Only HTTP/2 carries gRPC.
pub(crate) fn of_caller(version: HttpVersion, headers: &HeaderMap) -> Option<Duration> {
    match version {
        HttpVersion::Http1 => None,
        HttpVersion::Http2 => grpc_timeout::given(headers),
    }
}

/// No `async fn`, which would hold its arguments twice.
fn send(
    worker: &Rc<Worker>,
    http: Box<http::Request<Body>>,
    attempt: &Attempt<'_>,
) -> impl Future<Output = Result<Response, Error>> {
    let mut http = http;
    async move {
        let backend = &*attempt.share.backend;
        let mut facts =
            AnswerFacts { route: Some(Taken::Share(Arc::clone(attempt.share))), ..AnswerFacts::default() };
        let (mut kept, endpoint) = match Kept::choose(worker, attempt, &http) {
            Ok(chosen) => chosen,
            Err(failure) => return Err(unsent(failure, facts, http)),
        };
        match attempt.beside {
            Beside::Nothing => {}
            // It is the first time, so there is room.
            Beside::Says(picked) => drop(picked.set(Arc::clone(&endpoint))),
            Beside::Another if attempt.tried.has(backend, &endpoint) => {
                let failure =
                    Failure::new(Reason::NoEndpoint, "there is no endpoint but the one that is asked");
                return Err(unsent(failure, facts, http));
            }
            Beside::Another => {}
        }
        facts.endpoint = Some(Arc::clone(&endpoint));
        facts.note_underway(&http);
        let admitted = match admit(worker, backend) {
            Ok(admitted) => admitted,
            Err(failure) => return Err(unsent(failure, facts, http)),
        };

        let in_flight = InFlight::new(&endpoint, admitted);
        let sending = match backend.ejection {
            None => Sending::Whole,
            Some(_) => http.body_mut().sending(),
        };
        let (workload, address) = (endpoint.workload.as_ref(), endpoint.address);
        let span = trace::attempt(&mut http, address, workload, attempt.at);
        let terms = Terms {
            connect_timeout: backend.policy.connect_timeout,
            limits: &backend.policy.connections,
            pool: &backend.policy.connection_pool,
            circuit: backend.circuit.as_ref(),
            counts: Some(&backend.counts),
            spoken: backend.policy.spoken,
            fresh: attempt.fresh,
        };
        let mut awaited = Awaited { worker, attempt, endpoint: Some(&endpoint) };
        let waiting = pin!(worker.pools.send(&endpoint.target, attempt.conn, http, &terms));
        let sent = match attempt.progress {
            None => worker.deadlines.within(attempt.until, waiting).await,
            Some(progress) => {
                // Boxed, so that requests without such limits carry nothing for it.
                let mut waiting = Box::pin(unless_exceeded(progress, &endpoint, waiting));
                worker.deadlines.within(attempt.until, waiting.as_mut()).await
            }
        };
        let sent = sent.unwrap_or_else(|| Err(late(&endpoint).into()));
        awaited.endpoint = None;
        let excused = attempt.excuses(&sent, &sending);
        let mut result = ended(worker, attempt, facts, in_flight, (sent, sending));
        kept.tell(attempt, &endpoint, &mut result);
        if let Some(span) = span {
            end(*span, &result);
        }
        note_latency(&endpoint, attempt, result.is_ok());
        if let Some(outcome) = judge(&result, endpoint.ejection.is_some())
            && !excused
            && (attempt.blames || !is_late(&result))
        {
            // Not by what was borrowed before: it would be held while the answer is waited for.
            count(worker, &attempt.share.backend, &endpoint, outcome, &Said(&result));
        }
        result
    }
}

/// Whether its time was over before there was an answer.
fn is_late(result: &Result<Response, Error>) -> bool {
    result.as_ref().is_err_and(|error| error.failure.reason == Reason::Timeout)
}

/// The span of an attempt says what it came to.
fn end(span: trace::Attempted, result: &Result<Response, Error>) {
    match result {
        Ok(response) => span.ended(Some(response.http.status().as_u16()), response.facts.reason),
        Err(error) => span.ended(None, Some(error.failure.reason)),
    }
}

/// The result of an attempt, from what was `sent` back, and how the request's body goes on.
fn ended(
    worker: &Rc<Worker>,
    attempt: &Attempt<'_>,
    mut facts: AnswerFacts,
    in_flight: InFlight,
    (sent, sending): (Result<Box<http::Response<Body>>, SendError>, Sending),
) -> Result<Response, Error> {
    match sent {
        Ok(mut http) => {
            facts.reason = named_by_peer(&http);
            http.body_mut().end().in_flight = Some(in_flight);
            if let Some(endpoint) =
                facts.endpoint.as_ref().filter(|_| attempt.share.backend.ejection.is_some())
                && !http.body().is_empty()
            {
                let (share, endpoint) = (Arc::clone(attempt.share), Arc::clone(endpoint));
                let (judge, is_strangers) = (Rc::<Worker>::clone(worker), attempt.conn.is_strangers());
                let blamed = Blamed { judge, share, endpoint, sending, is_strangers };
                http.body_mut().end().blamed = Some(blamed);
            }
            if let Some(progress) = attempt.progress {
                progress.sent();
                if !http.body().is_empty() {
                    http.body_mut().end().progress = Some(Rc::clone(progress));
                }
            }
            Ok(Response { http, facts })
        }
        Err(SendError { failure, request }) => {
            if failure.reason == Reason::Overflow {
                let backend = &attempt.share.backend;
                worker.metrics.overflow(&backend.name, Limit::Pending, worker.index);
            }
            facts.reason = Some(failure.reason);
            Err(Error { failure, facts: Box::new(facts), request })
        }
    }
}

/// The error of an attempt that ended before any byte of its request was sent.
fn unsent(failure: Failure, mut facts: AnswerFacts, request: Box<http::Request<Body>>) -> Error {
    facts.reason = Some(failure.reason);
    Error { failure, facts: Box::new(facts), request: Some(request) }
}

/// Counts one more request to `backend`, if its policy limits them.
fn admit(worker: &Worker, backend: &BoundBackend) -> Result<Option<Held>, Failure> {
    let Some(circuit) = &backend.circuit else { return Ok(None) };
    let admitted = circuit.enter(Limit::Requests);
    admitted.map(Some).ok_or_else(|| overflow(worker, backend, Limit::Requests))
}

/// Notes how long `endpoint` has taken for `attempt`, where that is measured.
fn note_latency(endpoint: &BoundEndpoint, attempt: &Attempt<'_>, has_answered: bool) {
    let Some(latency) = &endpoint.latency else { return };
    let now = Instant::now();
    let time = now.saturating_duration_since(attempt.at);
    if has_answered { latency.note(time, now) } else { latency.note_unanswered(time, now) }
}

/// An answer that is waited for. The route's time limit drops the whole request from outside, as a client that leaves does,
/// and another endpoint that answers first. If the time limit ends the waiting, the endpoint was too slow, and this counts it
/// on drop: no timer of its own is needed. How long it was waited for is noted in any case.
struct Awaited<'a> {
    worker: &'a Worker,
    attempt: &'a Attempt<'a>,
    /// `None`: the waiting is over.
    endpoint: Option<&'a Arc<BoundEndpoint>>,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        let Some(endpoint) = self.endpoint else { return };
        note_latency(endpoint, self.attempt, false);
        if self.attempt.blames && self.attempt.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let late = late(endpoint);
            count(self.worker, &self.attempt.share.backend, endpoint, Outcome::NoAnswer, &late);
            self.worker.late.replace(Some(Arc::clone(endpoint)));
        }
    }
}

/// There is no room for one more of `what`.
fn overflow(worker: &Worker, backend: &BoundBackend, what: Limit) -> Failure {
    worker.metrics.overflow(&backend.name, what, worker.index);
    let name = &backend.name;
    Failure::new(
        Reason::Overflow,
        format!("{name} has as many requests in progress as {} allows", what.word()),
    )
}

fn late(endpoint: &BoundEndpoint) -> Failure {
    Failure::new(
        Reason::Timeout,
        format!("{} has not answered within the time of one attempt", endpoint.address),
    )
}

/// What `sending` gives; a failure if a limit of its rule is exceeded first.
async fn unless_exceeded(
    progress: &Progress,
    endpoint: &BoundEndpoint,
    mut sending: Pin<&mut impl Future<Output = Result<Box<http::Response<Body>>, SendError>>>,
) -> Result<Box<http::Response<Body>>, SendError> {
    std::future::poll_fn(|cx| {
        if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
            return Poll::Ready(sent);
        }
        ready!(progress.poll_exceeded(cx));
        Poll::Ready(Err(exceeded(progress, endpoint).into()))
    })
    .await
}

fn exceeded(progress: &Progress, endpoint: &BoundEndpoint) -> Failure {
    let address = &endpoint.address;
    let what = match progress.exceeded() {
        Some(Exceeded::Idle(limit)) => {
            format!("nothing has passed to or from {address} for {limit:?}, the idle timeout of the route")
        }
        Some(Exceeded::Response(limit)) => {
            format!(
                "{address} has not answered within {limit:?} of the request's end, the response timeout of the route"
            )
        }
        None => format!("{address} has not answered in time"),
    };
    Failure::new(Reason::Timeout, what)
}
