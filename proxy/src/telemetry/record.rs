//! What happened to one request. Metrics and the access log are both written from this record.

mod head;

use std::{
    cell::Cell,
    fmt,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue};
use selvedge_model::{SpiffeId, traffic::BROKEN_OFF};

pub(super) use self::head::Head;
use super::{
    InProgress, Metrics, Series, TcpSeries,
    measured::Measure,
    method,
    said::Said,
    series::Ended,
    tap::{Tap, WentTo},
    trace_id::TraceId,
    underway::{self, Underway},
    unknown::Unknown,
    watched::{RouteLog, Watched},
};
use crate::{arrival::Direction, error::Reason, fields::grpc_status};

/// The connection that a request came on, as far as its record tells of it.
pub trait ClientConnection: fmt::Debug {
    /// The other end.
    fn peer(&self) -> SocketAddr;

    /// Who that has proven to be. `None`: plaintext.
    fn identity(&self) -> Option<&SpiffeId>;

    /// Where its requests are counted. `None`: with what they are for.
    fn series(&self) -> Option<&Arc<Series>>;

    /// Where a request is counted if its client left before there was an answer. `None`: with its connection, or with
    /// what is unknown.
    fn unanswered(&self) -> Option<Arc<Series>>;

    /// Why we have ended it. `None`: we have not.
    fn cut(&self) -> Option<Reason> {
        None
    }

    /// Whether it, or who speaks through it, speaks HTTP/2.
    fn is_http2(&self) -> bool {
        false
    }

    /// Whether it speaks TLS with us.
    fn is_tls(&self) -> bool {
        self.identity().is_some()
    }
}

/// What is the same for all requests that take one path on one worker.
#[derive(Debug)]
pub struct OnPath {
    /// The worker's index.
    pub worker: usize,
    /// Which way the path leads.
    pub direction: Direction,
    /// What counts requests that have no better place.
    pub unknown: Unknown,
    /// Who asks to see requests.
    pub tap: Arc<Tap>,
    /// What is written down and traced.
    pub watched: Arc<Watched>,
    /// What counts those that have begun and have not ended.
    pub in_progress: Arc<InProgress>,
}

/// How many bytes a request's body has.
#[derive(Debug, Clone)]
pub enum BodySize {
    /// As many as it says.
    Told(u64),
    /// As many as have come.
    Counted(Rc<Received>),
}

/// What has come of a request's body.
#[derive(Debug, Default)]
pub struct Received {
    /// How many bytes.
    pub bytes: Cell<u64>,
    /// How it goes on.
    pub coming: Cell<Coming>,
}

/// How a request's body goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Coming {
    /// More is to come.
    #[default]
    More,
    /// All of it has been passed on.
    Whole,
    /// It has failed: its client has left or broken it off, or we have, because it was too slow or too long.
    Failed,
}

/// What has passed on a connection that a request has become.
#[derive(Debug, Clone, Copy, Default)]
pub struct Passed {
    /// Where it went; `None`: nowhere, or what the answer said.
    pub endpoint: Option<SocketAddr>,
    /// Why it did not come to its own end.
    pub reason: Option<Reason>,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// Whether it went over the mesh's mutual TLS; `None`: as the answer said.
    pub mtls: Option<bool>,
}

/// What happened to one request. Until it is finished it says what is known so far.
#[derive(Debug)]
pub struct Record {
    path: Rc<OnPath>,
    /// The connection that it came on: from whom, and who that has proven to be.
    pub(super) client: Rc<dyn ClientConnection>,
    pub(super) began: Instant,
    /// The request's head. `None`: nothing needs it.
    pub(super) head: Option<Box<Head>>,
    /// Where it is counted. `None`: with its connection, or with what is unknown.
    series: Option<Arc<Series>>,
    /// The answer's status. `None`: there is no answer.
    pub(super) status: Option<u16>,
    /// How a gRPC call ended, as far as the answer says it.
    pub(super) grpc_status: Option<u8>,
    /// Why a proxy, ours or the peer's, made the answer itself, or why there is no answer or only part of one.
    pub(super) reason: Option<Reason>,
    /// The failure in all its words, if it is known.
    pub(super) error: Option<Box<str>>,
    /// Attempts after the first.
    pub(super) retries: u32,
    /// How long it took, the answer's body included. Zero until it is finished.
    pub(super) duration: Duration,
    /// Bytes of the answer's body that its client has been given.
    pub(super) sent: u64,
    /// Those of the request's body.
    received: BodySize,
    method: method::Method,
    /// The trace that it is part of, if that is kept.
    trace: Option<TraceId>,
    /// It has been counted before its end, as what has become a connection.
    is_counted: bool,
}

impl Record {
    /// A record of `request`, which has come from `client` at `began`.
    pub(super) fn new<B>(
        path: Rc<OnPath>,
        request: &http::Request<B>,
        head: Option<Box<Head>>,
        client: Rc<dyn ClientConnection>,
        began: Instant,
    ) -> Self {
        path.in_progress.begin(path.worker);
        Self {
            method: method::Method::of(request.method()),
            trace: TraceId::sampled(request.headers()),
            received: BodySize::Told(0),
            path,
            client,
            began,
            head,
            series: None,
            status: None,
            grpc_status: None,
            reason: None,
            error: None,
            retries: 0,
            duration: Duration::ZERO,
            sent: 0,
            is_counted: false,
        }
    }

    /// Adds how many bytes the request's body has.
    #[must_use]
    pub fn receiving(mut self, size: BodySize) -> Self {
        self.received = size;
        self
    }

    /// Bytes of the request's body.
    pub(super) fn received(&self) -> u64 {
        match &self.received {
            BodySize::Told(bytes) => *bytes,
            BodySize::Counted(received) => received.bytes.get(),
        }
    }

    /// What is counted of it, now that it is over.
    pub(super) fn ended(&self) -> Ended {
        let Self { status, grpc_status, .. } = *self;
        let reason = match (status, self.reason) {
            // A server's failure is one, also if the client that tries again reads no more of it.
            (Some(500..), Some(Reason::Canceled)) => None,
            // We have ended its client's connection, and no server is to blame for that: as if the client had left.
            (None, Some(reason)) if !BROKEN_OFF.contains(&reason.word()) => Some(Reason::Canceled),
            (_, reason) => reason,
        };
        let measure =
            Measure { time: self.duration, received: self.received(), sent: self.sent, trace: self.trace };
        Ended { status, grpc_status, reason, method: Some(self.method), measure }
    }

    /// Adds bytes of the answer's body.
    pub fn gave(&mut self, bytes: usize) {
        self.sent = self.sent.wrapping_add(bytes as u64);
    }

    /// Adds the headers of the answer, for which `reason` a proxy made it itself, and how often the request was sent
    /// again. It is counted in `series`, if it has one that is not its connection's.
    pub fn answered<B>(
        &mut self,
        answer: &http::Response<B>,
        reason: Option<Reason>,
        retries: u32,
        series: Option<Arc<Series>>,
    ) {
        self.series = series;
        self.status = Some(answer.status().as_u16());
        self.grpc_status = grpc_status(answer.headers());
        self.reason = reason;
        self.retries = retries;
    }

    /// Adds what only the log says: the failure in all its words, what a gateway has called the request, and by which
    /// addresses it says that the request came.
    pub fn explained(
        &mut self,
        error: Option<Box<str>>,
        request_id: Option<&HeaderValue>,
        forwarded_for: Option<&HeaderValue>,
    ) {
        self.error = error;
        let Some(head) = &mut self.head else { return };
        for (known, said) in [(&mut head.request_id, request_id), (&mut head.forwarded_for, forwarded_for)] {
            let said = said.map(Said::value).unwrap_or_default();
            if said.get().is_some() {
                *known = said;
            }
        }
    }

    /// Adds the answer's trailers: where gRPC says how the call ended.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        self.grpc_status = grpc_status(trailers).or(self.grpc_status);
    }

    /// The client left before there was an answer, or we have ended its connection.
    pub(super) fn unanswered(&mut self) {
        self.series = self.client.unanswered();
        self.reason = Some(self.left());
        let underway = self.head.as_ref().and_then(|head| head.underway.as_ref());
        let Some(noted) = underway.map(Underway::take) else { return };
        let underway::Noted { place, request_id, forwarded_for } = noted;
        if let Some((place, log)) = place {
            self.went_to(place, log);
        }
        self.explained(None, request_id.as_ref(), forwarded_for.as_ref());
    }

    /// Nobody reads the answer to its end: the client has left, or we have ended its connection.
    pub fn given_up(&mut self) {
        self.broken_off(self.left());
    }

    /// The answer does not come to its end for this reason. A proxy that has made it has said one before.
    pub fn broken_off(&mut self, reason: Reason) {
        self.reason = self.reason.or(Some(reason));
    }

    /// Why nobody reads an answer to its end.
    fn left(&self) -> Reason {
        self.client.cut().unwrap_or(Reason::Canceled)
    }

    /// Counts it at `now`, as answered: what it has become is counted as a connection from here on. It is written down when
    /// that is over.
    pub fn count(&mut self, now: Instant) {
        self.duration = now.duration_since(self.began);
        self.series().ended(self.worker(), &self.ended());
        self.path.in_progress.end(self.worker());
        self.is_counted = true;
        self.lasts();
    }

    /// It may go on for hours: lets go of the buffer that its head was read into.
    pub fn lasts(&mut self) {
        let Some(head) = &mut self.head else { return };
        let Head { authority, path, request_id, user_agent, forwarded_for, .. } = &mut **head;
        for text in [authority, path, request_id, user_agent, forwarded_for] {
            *text = Said::own(text.get().map(str::to_owned));
        }
    }

    /// Whether it was counted before its end.
    pub(super) fn is_counted(&self) -> bool {
        self.is_counted
    }

    /// Adds what has passed on the connection that it has become, which is over.
    pub fn passed(&mut self, passed: &Passed) {
        self.reason = self.reason.or(passed.reason);
        let Some(head) = &mut self.head else { return };
        head.passed = Some((passed.received, passed.sent));
        head.mtls = passed.mtls;
        if let Some(endpoint) = passed.endpoint {
            head.place.get_or_insert_default().endpoint = Some(endpoint);
        }
    }

    /// Where the request is counted as a WebSocket, which it has become.
    pub fn websockets(&self, metrics: &Metrics) -> Arc<TcpSeries> {
        metrics.websockets(self.series())
    }

    /// Where it is counted.
    pub(super) fn series(&self) -> &Arc<Series> {
        self.series.as_ref().or(self.client.series()).unwrap_or_else(|| self.path.unknown.series())
    }

    /// Where it is to be noted where the request goes; `None`: nobody sees that.
    pub fn underway(&self) -> Option<Underway> {
        self.head.as_ref()?.underway.clone()
    }

    /// Whether somebody asks to see it, or it may be written down.
    pub fn is_shown(&self) -> bool {
        self.head.is_some()
    }

    /// Adds where it went, and where its rule has lines about it go.
    pub fn went_to(&mut self, place: WentTo, log: Option<Arc<RouteLog>>) {
        if let Some(head) = &mut self.head {
            head.place = Some(place);
            head.route_log = log;
        }
    }

    /// What is written down and traced.
    pub(super) fn watched(&self) -> Arc<Watched> {
        Arc::clone(&self.path.watched)
    }

    /// Who asks to see it.
    pub(super) fn tap(&self) -> &Tap {
        &self.path.tap
    }

    pub(super) fn worker(&self) -> usize {
        self.path.worker
    }

    /// Which way it goes.
    pub fn direction(&self) -> Direction {
        self.path.direction
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.is_counted {
            self.path.in_progress.end(self.path.worker);
        }
    }
}
