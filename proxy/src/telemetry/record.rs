//! What happened to one request. Metrics and the access log are both written from this record.

use std::{
    fmt,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, header};
use selvedge_model::SpiffeId;

use super::{
    Metrics, Series, TcpSeries,
    tap::{Tap, Tapped, WentTo},
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
}

/// What is the same for all requests that take one path on one worker.
#[derive(Debug)]
pub struct OnPath {
    /// The worker's index.
    pub worker: usize,
    /// Which way the path leads.
    pub direction: Direction,
    /// What counts requests that have no better place.
    pub unknown: Arc<Series>,
    /// Who asks to see requests.
    pub tap: Arc<Tap>,
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
}

/// The parts of a request's head that the access log shows. The query is left out: it often holds what should not be in
/// logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) authority: String,
    pub(super) path: String,
    /// `x-request-id`.
    pub(super) request_id: Option<String>,
    /// The trace's id in `traceparent`.
    pub(super) trace_id: Option<String>,
    /// What else those see who ask to see requests. `None`: nobody asks.
    pub(super) tapped: Option<Box<Tapped>>,
}

impl Record {
    /// A record of a request that has come from `client` at `began`.
    pub(super) fn new(
        path: Rc<OnPath>,
        head: Option<Box<Head>>,
        client: Rc<dyn ClientConnection>,
        began: Instant,
    ) -> Self {
        Self {
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
        }
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

    /// Adds what only the log says: the failure in all its words, and what a gateway has called the request.
    pub fn explained(&mut self, error: Option<Box<str>>, request_id: Option<&HeaderValue>) {
        self.error = error;
        if let (Some(head), Some(Ok(id))) = (&mut self.head, request_id.map(HeaderValue::to_str)) {
            head.request_id = Some(id.to_owned());
        }
    }

    /// Adds the answer's trailers: where gRPC says how the call ended.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        self.grpc_status = grpc_status(trailers).or(self.grpc_status);
    }

    /// The client left before there was an answer.
    pub(super) fn unanswered(&mut self) {
        self.series = self.client.unanswered();
        self.reason = Some(Reason::Canceled);
    }

    /// Where the request is counted as a WebSocket, which it has become.
    pub fn websockets(&self, metrics: &Metrics) -> Arc<TcpSeries> {
        metrics.websockets(self.series())
    }

    /// Where it is counted.
    pub(super) fn series(&self) -> &Arc<Series> {
        self.series.as_ref().or(self.client.series()).unwrap_or(&self.path.unknown)
    }

    /// Whether somebody asks to see it.
    pub fn is_tapped(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.tapped.is_some())
    }

    /// Adds where it went, for those who ask to see it.
    pub fn went_to(&mut self, place: WentTo) {
        if let Some(tapped) = self.head.as_mut().and_then(|head| head.tapped.as_mut()) {
            tapped.went_to(place);
        }
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

impl Head {
    pub(super) fn of<B>(request: &http::Request<B>, tapped: Option<Box<Tapped>>) -> Self {
        let headers = request.headers();
        let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
        Self {
            method: request.method().clone(),
            authority: authority.or_else(|| text(headers, header::HOST.as_str())).unwrap_or_default(),
            path: request.uri().path().to_owned(),
            request_id: text(headers, "x-request-id"),
            tapped,
            trace_id: text(headers, "traceparent").and_then(|parent| trace_id(&parent).map(str::to_owned)),
        }
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The trace's id in a W3C `traceparent`: `<version>-<trace id>-<parent id>-<flags>`.
fn trace_id(traceparent: &str) -> Option<&str> {
    let id = traceparent.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_trace_id_is_left_out() {
        assert_eq!(trace_id("00-short-b7ad6b7169203331-01"), None);
        assert_eq!(trace_id("nonsense"), None);
    }
}
