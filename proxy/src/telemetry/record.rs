//! What happened to one request: the one record that everything which tells of requests is made from.
//!
//! The outermost step begins it when the request comes, adds the answer, and hangs it on the answer's body. It is
//! finished once: when that body has ended or was given up, or when the client has left before there was an answer.
//! Then each consumer reads it: [`Series::count`] for metrics, [`access_log::write`] for the access log. A
//! further consumer is one more function over it, called where it is finished.

use std::{
    fmt,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, header};
use selvedge_model::SpiffeId;

use super::{Metrics, Series, TcpSeries, access_log};
use crate::{arrival::Direction, error::Reason, fields::grpc_status};

/// The connection that a request came on, as far as its record tells of it.
pub trait Origin: fmt::Debug {
    /// The other end.
    fn peer(&self) -> SocketAddr;

    /// Who that has proven to be. `None`: plaintext.
    fn identity(&self) -> Option<&SpiffeId>;

    /// Where its requests are counted. `None`: with what they are for.
    fn series(&self) -> Option<&Arc<Series>>;

    /// Where a request is counted whose client left before there was an answer. `None`: with its connection, or with
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
}

/// What happened to one request. Until it is finished it says what is known so far.
#[derive(Debug)]
pub struct Record {
    path: Rc<OnPath>,
    /// The connection that it came on: from whom, and who that has proven to be.
    pub(super) origin: Rc<dyn Origin>,
    pub(super) began: Instant,
    /// What it was, in its own words. `None`: nobody asks for that.
    pub(super) head: Option<Box<Head>>,
    /// Where it is counted. `None`: with its connection, or with what is unknown.
    series: Option<Arc<Series>>,
    /// The answer's status. `None`: there is no answer.
    pub(super) status: Option<u16>,
    /// How a gRPC call ended, as far as the answer says it.
    pub(super) grpc_status: Option<u8>,
    /// Why a proxy, ours or the peer's, made the answer itself, or why there is none or half of one.
    pub(super) reason: Option<Reason>,
    /// Attempts after the first.
    pub(super) retries: u32,
    /// How long it took, the answer's body included. Zero until it is finished.
    pub(super) duration: Duration,
}

/// What is copied of a request for those who tell of it by its name. The query is left out: it often holds what
/// should not be in logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) authority: String,
    pub(super) path: String,
    /// `x-request-id`.
    pub(super) request_id: Option<String>,
    /// The trace's id in `traceparent`.
    pub(super) trace_id: Option<String>,
}

impl Record {
    /// The record of `request`, which has come from `origin` at `began`.
    pub fn begin<B>(
        path: Rc<OnPath>,
        request: &http::Request<B>,
        origin: Rc<dyn Origin>,
        began: Instant,
    ) -> Self {
        let head = access_log::enabled().then(|| Box::new(Head::of(request)));
        Self {
            path,
            origin,
            began,
            head,
            series: None,
            status: None,
            grpc_status: None,
            reason: None,
            retries: 0,
            duration: Duration::ZERO,
        }
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

    /// Adds the answer's trailers: where gRPC says how the call ended.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        self.grpc_status = grpc_status(trailers).or(self.grpc_status);
    }

    /// Where the request is counted as a WebSocket, which it has become.
    pub fn websockets(&self, metrics: &Metrics) -> Arc<TcpSeries> {
        metrics.websockets(self.series())
    }

    /// The answer is over at `now`. `whole`: its body came to its end.
    pub fn finish(mut self, whole: bool, now: Instant) {
        self.reason = self.reason.or((!whole).then_some(Reason::Reset));
        self.tell(now);
    }

    /// The client left at `now`, before there was an answer.
    pub fn cancel(mut self, now: Instant) {
        self.series = self.origin.unanswered();
        self.reason = Some(Reason::Canceled);
        self.tell(now);
    }

    fn tell(&mut self, now: Instant) {
        self.duration = now.duration_since(self.began);
        self.series().count(self);
        access_log::write(self);
    }

    fn series(&self) -> &Arc<Series> {
        self.series.as_ref().or(self.origin.series()).unwrap_or(&self.path.unknown)
    }

    pub(super) fn worker(&self) -> usize {
        self.path.worker
    }

    pub(super) fn direction(&self) -> Direction {
        self.path.direction
    }
}

impl Head {
    fn of<B>(request: &http::Request<B>) -> Self {
        let headers = request.headers();
        let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
        Self {
            method: request.method().clone(),
            authority: authority.or_else(|| text(headers, header::HOST.as_str())).unwrap_or_default(),
            path: request.uri().path().to_owned(),
            request_id: text(headers, "x-request-id"),
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
pub(super) mod tests {
    use super::*;
    use crate::telemetry::series::{Durations, End};

    /// A frontend's connection.
    #[derive(Debug)]
    struct Frontend(SpiffeId);

    impl Origin for Frontend {
        fn peer(&self) -> SocketAddr {
            SocketAddr::from(([127, 0, 0, 1], 5000))
        }

        fn identity(&self) -> Option<&SpiffeId> {
            Some(&self.0)
        }

        fn series(&self) -> Option<&Arc<Series>> {
            None
        }

        fn unanswered(&self) -> Option<Arc<Series>> {
            None
        }
    }

    pub(in crate::telemetry) fn series() -> Arc<Series> {
        Arc::new(Series::new(None, 1, Arc::new(Durations::new(None, 1))))
    }

    /// The record of a request that came in just now, from who has proven to be a frontend.
    pub(in crate::telemetry) fn begun(unknown: &Arc<Series>) -> Record {
        let http = http::Request::get("/reviews/0?token=secret")
            .header("host", "reviews:9080")
            .header("x-request-id", "one-two")
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .body(())
            .expect("a valid request");
        let identity = "spiffe://cluster.local/ns/default/sa/frontend".parse().expect("an identity");
        let path = OnPath { worker: 0, direction: Direction::Inbound, unknown: Arc::clone(unknown) };
        Record::begin(Rc::new(path), &http, Rc::new(Frontend(identity)), Instant::now())
    }

    fn answer(status: u16) -> http::Response<()> {
        http::Response::builder().status(status).body(()).expect("an answer")
    }

    /// How the one request ended that `series` counts.
    fn only(series: &Series) -> End {
        let counts = series.counts();
        assert_eq!(counts.values().sum::<u64>(), 1, "{counts:?}");
        counts.into_keys().next().flatten().expect("one end")
    }

    #[test]
    fn an_answer_that_breaks_off_is_a_reset() {
        for (whole, reason) in [(true, None), (false, Some("reset"))] {
            let (unknown, of_service) = (series(), series());
            let mut record = begun(&unknown);

            record.answered(&answer(200), None, 0, Some(Arc::clone(&of_service)));
            record.finish(whole, Instant::now());

            let end = only(&of_service);
            assert_eq!((end.status, end.error_type()), (Some(200), reason));
            assert!(unknown.counts().is_empty());
        }
    }

    #[test]
    fn a_named_reason_outlives_a_reset() {
        let unknown = series();
        let mut record = begun(&unknown);

        record.answered(&answer(504), Some(Reason::Timeout), 0, None);
        record.finish(false, Instant::now());

        assert_eq!(only(&unknown).error_type(), Some("timeout"));
    }

    #[test]
    fn trailers_say_how_a_grpc_call_ended() {
        let unknown = series();
        let mut record = begun(&unknown);
        let trailers = HeaderMap::from_iter([(
            header::HeaderName::from_static("grpc-status"),
            header::HeaderValue::from_static("14"),
        )]);

        record.answered(&answer(200), None, 0, None);
        record.trailers(&trailers);
        record.trailers(&HeaderMap::new());
        record.finish(true, Instant::now());

        assert_eq!(only(&unknown).grpc_status, Some(14));
    }

    #[test]
    fn who_leaves_before_the_answer_is_counted_without_one() {
        let unknown = series();

        begun(&unknown).cancel(Instant::now());

        let end = only(&unknown);
        assert_eq!((end.status, end.error_type()), (None, Some("canceled")));
    }

    #[test]
    fn what_is_no_trace_id_is_left_out() {
        assert_eq!(trace_id("00-short-b7ad6b7169203331-01"), None);
        assert_eq!(trace_id("nonsense"), None);
    }
}
