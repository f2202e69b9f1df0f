//! A request's path, in types: what each step receives, and what comes back.
//!
//! A `Step` is a Tower service over our own request, response and error. What is known grows along the path, so a
//! missing fact is a compile error: a `Request` has a connection, a `Matched` also has a rule, and a `Routed`
//! also has a backend. Facts about the answer travel back with it (`AnswerFacts`), so that the outermost step can
//! count it without shared state.

mod admitted;
mod conn;
mod copied;
mod reused;

use std::{
    future::{Ready, ready},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::future::Either;
use http::{HeaderMap, HeaderValue};
use tower::{Layer, Service, layer::layer_fn};

pub use self::admitted::Admitted;
pub use self::conn::{
    AtGateway, Conn, Decided, Entry, HttpVersion, Inbound, LastHost, LastLookup, LastNamed, Outbound, Side,
    Switched, Tunnel, address_value,
};
pub use self::copied::{Head, HeadCopy};
pub use self::reused::{Boxed, Reused, in_boxes, reused};
use crate::{
    bind::{Bound, BoundEndpoint, BoundRule, BoundShare, SeriesPair},
    body::Body,
    error::{Failure, Reason},
    telemetry::{RouteLog, Series, WentTo},
};

/// One step of a request's path. Always ready: whatever waits, waits inside `call`.
pub trait Step<R>: Service<R, Response = Response, Error = Error, Future: 'static> + Clone + 'static {}

impl<R, S> Step<R> for S where
    S: Service<R, Response = Response, Error = Error, Future: 'static> + Clone + 'static
{
}

/// The headers of an answer, whether it is made already or will be.
pub(crate) fn headers_of(result: &mut Result<Response, Error>) -> &mut HeaderMap {
    match result {
        Ok(response) => response.http.headers_mut(),
        Err(error) => &mut error.facts.rare().headers,
    }
}

/// The step that refuses each request that `refusal` says something about, and lets all others go on.
pub fn refuse_if<S, F>(refusal: F) -> impl Layer<S, Service = RefuseIf<S, F>>
where
    S: Step<Request>,
    F: Fn(&Request) -> Option<Error> + Clone + 'static,
{
    layer_fn(move |inner| RefuseIf { inner, refusal: refusal.clone() })
}

/// See [`refuse_if`].
#[derive(Debug, Clone)]
pub struct RefuseIf<S, F> {
    inner: S,
    refusal: F,
}

impl<S, F> Service<Request> for RefuseIf<S, F>
where
    S: Step<Request>,
    F: Fn(&Request) -> Option<Error> + Clone + 'static,
{
    type Response = Response;
    type Error = Error;
    type Future = Either<S::Future, Ready<Result<Response, Error>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match (self.refusal)(&request) {
            None => Either::Left(self.inner.call(request)),
            Some(error) => Either::Right(ready(Err(error))),
        }
    }
}

/// A request as it arrived.
#[derive(Debug)]
pub struct Request {
    /// The request itself. Boxed: it is moved from step to step, and into each one's future.
    pub http: Box<http::Request<Body>>,
    /// The connection that it came on.
    pub conn: Rc<Conn>,
    /// When it came. The clock is read once, for all steps that need only roughly the time.
    pub at: Instant,
}

/// A request that has found its rule. No backend is drawn yet: the rule's filters come first.
#[derive(Debug)]
pub struct Matched {
    /// The request itself.
    pub http: Box<http::Request<Body>>,
    /// The connection that it came on.
    pub conn: Rc<Conn>,
    /// When its rule's time begins: when it came, unless something had to be waited for first.
    pub at: Instant,
    /// How long that was, in milliseconds: so much earlier it came.
    pub waited: u32,
    /// The rule that it follows.
    pub rule: Arc<BoundRule>,
    /// The place of the match by which it does, in the rule's; `None`: the rule is for every request.
    pub place: Option<u16>,
}

impl Matched {
    /// Notes that it had to wait, and has its rule's time begin now.
    pub fn has_waited(&mut self, time: Duration) {
        self.waited = self.waited.saturating_add(u32::try_from(time.as_millis()).unwrap_or(u32::MAX));
        self.at = Instant::now();
    }

    /// How long ago it came.
    pub fn age(&self) -> Duration {
        self.at.elapsed() + Duration::from_millis(self.waited.into())
    }
}

/// A request that has found its rule, and whose backend is drawn.
#[derive(Debug)]
pub struct Routed {
    /// The request itself.
    pub http: Box<http::Request<Body>>,
    /// The connection that it came on.
    pub conn: Rc<Conn>,
    /// When its rule's time began.
    pub at: Instant,
    /// The rule that it follows.
    pub rule: Arc<BoundRule>,
    /// Which of the rule's shares was drawn for it.
    pub share: Arc<BoundShare>,
    /// When all attempts together must have answered.
    pub deadline: Option<Instant>,
}

/// How far a request came on its way.
#[derive(Debug)]
pub enum Taken {
    /// To a service: no rule of its matched.
    Service(Arc<Bound>),
    /// To a rule: nothing was drawn.
    Rule(Arc<BoundRule>),
    /// To a backend's share of a rule.
    Share(Arc<BoundShare>),
}

impl Taken {
    /// Where its rule has lines about it go; `None`: as the workload does.
    pub fn access_log(&self) -> Option<Arc<RouteLog>> {
        match self {
            Self::Service(_) => None,
            Self::Rule(rule) => rule.access_log.clone(),
            Self::Share(share) => share.access_log.clone(),
        }
    }

    /// The host and the port of the service that was called; `None`: it is in no configuration.
    pub fn service(&self) -> Option<(Arc<str>, u16)> {
        let labels = self.series().labels()?;
        (labels.server_port != 0).then(|| (Arc::clone(&labels.server_address), labels.server_port))
    }

    /// Where it is counted.
    pub fn series(&self) -> &SeriesPair<Series> {
        match self {
            Self::Service(bound) => &bound.http.unrouted,
            Self::Rule(rule) => &rule.series,
            Self::Share(share) => &share.series,
        }
    }
}

/// What is known about an answer, besides itself.
#[derive(Debug, Default)]
pub struct AnswerFacts {
    /// The way that the request took, as far as it came.
    pub route: Option<Taken>,
    /// The endpoint that answered, or was tried last.
    pub endpoint: Option<Arc<BoundEndpoint>>,
    /// Why a proxy, ours or the peer's, made the answer itself. `None`: the app made it.
    pub reason: Option<Reason>,
    /// Attempts after the first.
    pub retries: u32,
    /// What few answers have.
    pub rare: Option<Box<RareFacts>>,
}

/// What is known about an answer that is a failure's, or that the log needs more of.
#[derive(Debug, Default)]
pub struct RareFacts {
    /// What filters add to the headers of an answer that does not exist yet: the answer to an [`Error`].
    pub headers: HeaderMap,
    /// What a gateway calls the request; only where the log may need it.
    pub request_id: Option<HeaderValue>,
    /// What a gateway says of the addresses that the request came by (`x-forwarded-for`); likewise.
    pub forwarded_for: Option<HeaderValue>,
    /// The failure in all its words, for the access log, if that is on.
    pub error: Option<Box<str>>,
}

impl AnswerFacts {
    /// Where the request went, for those who see it.
    pub fn went_to(&self) -> WentTo {
        let labels = self.route.as_ref().and_then(|taken| taken.series().labels());
        let endpoint = self.endpoint.as_ref();
        WentTo {
            service: self.route.as_ref().and_then(Taken::service),
            route: labels.map(|labels| Arc::clone(&labels.route)).filter(|route| !route.is_empty()),
            endpoint: endpoint.map(|endpoint| endpoint.address),
            workload: endpoint.and_then(|endpoint| endpoint.workload.clone()),
            identity: endpoint.and_then(|endpoint| endpoint.target.identity.clone()),
        }
    }

    /// Where its rule has lines about it go; `None`: as the workload does.
    pub fn access_log(&self) -> Option<Arc<RouteLog>> {
        self.route.as_ref().and_then(Taken::access_log)
    }

    /// Notes for those who see `request` that it goes there now: its client may leave before there is an answer.
    pub fn note_underway(&self, request: &http::Request<Body>) {
        if let Some(underway) = request.body().underway() {
            underway.note(self.went_to(), self.access_log());
        }
    }

    /// What few answers have, to be added to.
    pub fn rare(&mut self) -> &mut RareFacts {
        self.rare.get_or_insert_default()
    }

    /// What a gateway calls the request, if that is known.
    pub fn request_id(&self) -> Option<&HeaderValue> {
        self.rare.as_ref()?.request_id.as_ref()
    }
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// The answer itself. Boxed, as the request is.
    pub http: Box<http::Response<Body>>,
    /// What is known about it.
    pub facts: AnswerFacts,
}

/// No answer.
#[derive(Debug)]
pub struct Error {
    /// Why.
    pub failure: Failure,
    /// What is known about it.
    pub facts: Box<AnswerFacts>,
    /// The request, where it is certain that no byte of it was sent.
    pub request: Option<Box<http::Request<Body>>>,
}

impl Error {
    /// A failure of which nothing else is known.
    pub fn new(reason: Reason, what: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self::from(Failure::new(reason, what))
    }

    /// A failure at a service, before any of its rules was found.
    pub fn at(bound: Arc<Bound>, failure: Failure) -> Self {
        let mut error = Self::from(failure);
        error.facts.route = Some(Taken::Service(bound));
        error
    }

    /// A failure at a rule, before any of its backends was drawn.
    pub fn at_rule(rule: Arc<BoundRule>, failure: Failure) -> Self {
        let mut error = Self::from(failure);
        error.facts.route = Some(Taken::Rule(rule));
        error
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let facts = AnswerFacts { reason: Some(failure.reason), ..AnswerFacts::default() };
        Self { failure, facts: Box::new(facts), request: None }
    }
}
