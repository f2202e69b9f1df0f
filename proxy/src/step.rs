//! A request's path, in types: what each step receives, and what comes back.
//!
//! A [`Step`] is a Tower service over our own request, response and error. What is known grows along the
//! path, so a missing fact is a compile error: a [`Request`] has a connection, a [`Matched`] has a rule as well,
//! and a [`Routed`] a backend. Facts about the answer travel back with it ([`AnswerFacts`]), so that the outermost step
//! can count it without anything shared.

use std::{
    future::{Ready, ready},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use futures_util::future::Either;
use http::HeaderMap;
use hyper::upgrade::OnUpgrade;
use selvedge_model::SpiffeId;
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    arrival::{Arrival, Direction, Original},
    bind::{Bound, BoundEndpoint, BoundRule, BoundShare, Destination, SeriesPair, Target},
    body::{Body, End, Opened},
    clients::{Client, Watch},
    error::{Failure, Reason},
    telemetry::{self, Series},
};

/// One step of a request's path. Always ready: whatever waits, waits inside `call`.
pub trait Step<R>: Service<R, Response = Response, Error = Error, Future: 'static> + Clone + 'static {}

impl<R, S> Step<R> for S where
    S: Service<R, Response = Response, Error = Error, Future: 'static> + Clone + 'static
{
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

/// What a connection's own end speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What is known about the connection that a request came on.
#[derive(Debug)]
pub struct Conn {
    /// The other end.
    pub peer: SocketAddr,
    /// What it speaks; for a request from a mesh peer, what its own client speaks.
    pub version: HttpVersion,
    /// Who it has proven to be. `None`: plaintext.
    pub identity: Option<SpiffeId>,
    /// Where it was going when it was redirected to us. `None`: nobody redirects.
    pub original: Option<Original>,
    /// Which of the settings' upstreams all of its requests are for, whatever their authority (outbound only).
    pub upstream: Option<usize>,
    /// Whether CONNECT opens tunnels on it (outbound only).
    pub offers_tunnels: bool,
    /// Its place among the clients that come in (inbound only).
    pub client: Option<Rc<Client>>,
    /// The workload's port that is meant (inbound only).
    pub port: u16,
    /// Where its requests are forwarded (inbound only).
    pub app: Option<Arc<Target>>,
    /// Why its requests are forwarded nowhere (inbound only). Boxed: few connections have it.
    pub unserved: Option<Box<Failure>>,
    /// What its requests are counted in (inbound only).
    pub series: Option<Arc<Series>>,
    /// What the app is told about the peer, ready to be inserted (inbound only).
    pub xfcc: Option<http::HeaderValue>,
    /// The generation of the table whose policy lets it in, whatever its requests (inbound only).
    pub let_in: std::cell::Cell<Option<u64>>,
    /// What the last look-up found (outbound only).
    pub last: std::cell::RefCell<Option<LastLookup>>,
    /// What the connection goes on as when it is HTTP no longer.
    pub tunnel: std::cell::RefCell<Option<Box<Tunnel>>>,
    /// What its stream is told about the requests on it (HTTP/1 only).
    pub watch: std::cell::OnceCell<Arc<Watch>>,
}

/// What a look-up found.
#[derive(Debug, Clone)]
pub struct LastLookup {
    /// The table that it was found in.
    pub generation: u64,
    /// The authority that it holds for, as the client writes it. `None`: for any, because the address that
    /// the client dialled says it all.
    pub authority: Option<Arc<str>>,
    /// What was found.
    pub destination: Arc<Destination>,
}

impl LastLookup {
    /// What was found, if it is still in force and holds for `authority`. It counts as used: a client that
    /// keeps its connection for long would otherwise lose what it calls all the time.
    pub fn again(&self, generation: u64, authority: &str) -> Option<&Arc<Destination>> {
        let holds = || self.authority.as_ref().is_none_or(|own| own.eq_ignore_ascii_case(authority));
        let found = (self.generation == generation && holds()).then_some(&self.destination)?;
        found.touch();
        Some(found)
    }
}

impl Conn {
    /// Which way its requests go.
    pub fn direction(&self) -> Direction {
        if self.series.is_some() { Direction::Inbound } else { Direction::Outbound }
    }

    /// What is known of every connection: one in plaintext, until more is said.
    pub fn new(arrival: Arrival, version: HttpVersion) -> Self {
        Self {
            peer: arrival.peer,
            version,
            identity: None,
            client: None,
            original: arrival.original,
            upstream: arrival.upstream,
            offers_tunnels: false,
            port: 0,
            app: None,
            unserved: None,
            series: None,
            xfcc: None,
            let_in: std::cell::Cell::default(),
            last: std::cell::RefCell::default(),
            tunnel: std::cell::RefCell::default(),
            watch: std::cell::OnceCell::new(),
        }
    }
}

/// What a connection or a stream goes on as when it is HTTP no longer.
#[derive(Debug)]
pub enum Tunnel {
    /// A WebSocket.
    WebSocket(Switched),
    /// Opaque TCP.
    Connect {
        /// The client's end.
        client: OnUpgrade,
        /// The way to the endpoint.
        opened: Box<dyn Opened>,
    },
}

/// Two connections that have become one stream of bytes each way.
#[derive(Debug)]
pub struct Switched {
    /// The client's end.
    pub client: OnUpgrade,
    /// The app's end.
    pub server: OnUpgrade,
    /// What happens when it ends.
    pub end: End,
    /// The connection that its request came on.
    pub conn: Rc<Conn>,
}

impl telemetry::Origin for Conn {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn identity(&self) -> Option<&SpiffeId> {
        self.identity.as_ref()
    }

    fn series(&self) -> Option<&Arc<Series>> {
        self.series.as_ref()
    }

    /// Outbound with the service that was last looked up.
    fn unanswered(&self) -> Option<Arc<Series>> {
        let last = self.last.borrow();
        let bound = last.as_ref()?.destination.bound.as_ref()?;
        Some(Arc::clone(&bound.http.unrouted.plain))
    }
}

/// A request as it arrived.
#[derive(Debug)]
pub struct Request {
    /// The request itself. Boxed: it is moved from step to step, and into each one's future.
    pub http: Box<http::Request<Body>>,
    /// The connection that it came on.
    pub conn: Rc<Conn>,
    /// When it came. Read once, for all steps that ask no more than roughly what time it is.
    pub at: Instant,
}

/// A request that has found its rule. Nothing is drawn yet: what the rule says of its requests themselves comes first.
#[derive(Debug)]
pub struct Matched {
    /// The request itself.
    pub http: Box<http::Request<Body>>,
    /// The connection that it came on.
    pub conn: Rc<Conn>,
    /// When its rule's time begins: when it came, unless something had to be waited for first.
    pub at: Instant,
    /// The rule that it follows.
    pub rule: Arc<BoundRule>,
    /// The place of the match by which it does, in the rule's; `None`: the rule is for every request.
    pub place: Option<u16>,
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
    /// What filters add to the headers of an answer that is not made yet: that to an [`Error`].
    pub headers: Option<Box<HeaderMap>>,
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn found(authority: Option<&str>) -> LastLookup {
        let destination = Destination {
            authority: Arc::from("reviews:9080"),
            bound: None,
            service: None,
            through: None,
            doubt: None,
            used: AtomicBool::new(false),
        };
        LastLookup { generation: 7, authority: authority.map(Arc::from), destination: Arc::new(destination) }
    }

    #[test]
    fn what_was_found_holds_for_its_authority_and_its_table() {
        let found = found(Some("reviews:9080"));

        assert!(found.again(7, "Reviews:9080").is_some());
        assert!(found.again(7, "ratings:9080").is_none());
        assert!(found.again(8, "reviews:9080").is_none());
    }

    #[test]
    fn what_an_address_says_holds_for_any_authority() {
        assert!(found(None).again(7, "anything").is_some());
    }

    #[test]
    fn each_use_is_noted_on_a_connection_that_is_kept() {
        let found = found(None);
        for _ in 0..2 {
            found.destination.used.store(false, Ordering::Relaxed);

            found.again(7, "reviews");

            assert!(found.destination.used.load(Ordering::Relaxed));
        }
    }
}
