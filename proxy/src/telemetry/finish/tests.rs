use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, HeaderValue, header};
use selvedge_model::{AccessLog, SpiffeId};

use super::*;
use crate::{
    arrival::Direction,
    telemetry::{InProgress, LineFormat, Series, Tap, Watched, durations::Durations, series::End},
};

/// A frontend's connection.
#[derive(Debug)]
struct Frontend(SpiffeId);

impl ClientConnection for Frontend {
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

pub(crate) fn series() -> Arc<Series> {
    Arc::new(Series::new(None, 1, Arc::new(Durations::new(None, 1))))
}

/// The record of a request that came in just now, from who has proven to be a frontend.
pub(crate) fn begun(unknown: &Arc<Series>) -> Record {
    begun_with(unknown, &Arc::default())
}

/// The same, where those who ask see it.
pub(in crate::telemetry) fn begun_with(unknown: &Arc<Series>, tap: &Arc<Tap>) -> Record {
    begun_at(usual(), unknown, tap, Watched::new(1))
}

/// The same at a gateway.
pub(in crate::telemetry) fn begun_at_gateway() -> Record {
    let watched = Watched::new(1);
    watched.set_up(LineFormat::Text, false, true);
    begun_at(usual(), &series(), &Arc::default(), watched)
}

/// The same of another request.
pub(in crate::telemetry) fn begun_of(
    http: http::Request<()>,
    unknown: &Arc<Series>,
    tap: &Arc<Tap>,
) -> Record {
    begun_at(http, unknown, tap, Watched::new(1))
}

fn usual() -> http::Request<()> {
    http::Request::get("/reviews/0?token=secret")
        .header("host", "reviews:9080")
        .header("x-request-id", "one-two")
        .header("x-forwarded-for", "10.0.0.1")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .body(())
        .expect("a valid request")
}

fn begun_at(mut http: http::Request<()>, unknown: &Arc<Series>, tap: &Arc<Tap>, watched: Watched) -> Record {
    let identity = "spiffe://cluster.local/ns/default/sa/frontend".parse().expect("an identity");
    let (unknown, tap) = (Arc::clone(unknown).into(), Arc::clone(tap));
    let (watched, in_progress) = (Arc::new(watched), Arc::new(InProgress::new(1)));
    let path = OnPath { worker: 0, direction: Direction::Inbound, unknown, tap, watched, in_progress };
    Record::begin(Rc::new(path), &mut http, Rc::new(Frontend(identity)), Instant::now())
}

#[test]
fn what_a_gateway_calls_a_request_is_known_although_its_client_leaves() {
    let watched = Watched::new(1);
    watched.set_up(LineFormat::Text, false, true);
    // A rule that may have a line about it.
    let _log = watched.of_route(&AccessLog::default());
    let (mut http, identity) = (usual(), "spiffe://cluster.local/ns/default/sa/frontend".parse());
    let (tap, in_progress) = (Arc::default(), Arc::new(InProgress::new(1)));
    let (unknown, watched) = (series().into(), Arc::new(watched));
    let path = OnPath { worker: 0, direction: Direction::Outbound, unknown, tap, watched, in_progress };
    let client = Rc::new(Frontend(identity.expect("an identity")));
    let mut record = Record::begin(Rc::new(path), &mut http, client, Instant::now());

    let underway = record.underway().expect("its rule may have a line about it");
    let [id, addresses] = ["ours", "192.0.2.7"].map(HeaderValue::from_static);
    underway.settled(Some(id), Some(addresses));
    record.unanswered();

    let head = record.head.as_ref().expect("its rule may have a line about it");
    assert_eq!(head.request_id.get(), Some("ours"));
    assert_eq!(head.forwarded_for.get(), Some("192.0.2.7"));
}

#[test]
fn what_has_become_a_connection_is_counted_once_and_is_in_progress_no_longer() {
    let (unknown, in_progress) = (series(), Arc::new(InProgress::new(1)));
    let path = Rc::new(OnPath {
        worker: 0,
        direction: Direction::Outbound,
        unknown: Arc::clone(&unknown).into(),
        tap: Arc::default(),
        watched: Arc::new(Watched::new(1)),
        in_progress: Arc::clone(&in_progress),
    });
    let begin = || {
        let identity = "spiffe://cluster.local/ns/default/sa/frontend".parse().expect("an identity");
        Record::begin(Rc::clone(&path), &mut usual(), Rc::new(Frontend(identity)), Instant::now())
    };
    let (_another, mut record) = (begin(), begin());
    assert_eq!(in_progress.count(), 2);

    record.answered(&answer(200), None, 0, None);
    record.count(Instant::now());
    assert_eq!((in_progress.count(), only(&unknown).status), (1, Some(200)));
    record.finish(true, Instant::now());

    assert_eq!((in_progress.count(), only(&unknown).status), (1, Some(200)));
}

#[test]
fn what_lasts_keeps_its_words() {
    let watched = Watched::new(1);
    watched.set_up(LineFormat::Text, false, true);
    // A rule that may have a line about it.
    let _log = watched.of_route(&AccessLog::default());
    let identity = "spiffe://cluster.local/ns/default/sa/frontend".parse().expect("an identity");
    let path = OnPath {
        worker: 0,
        direction: Direction::Outbound,
        unknown: series().into(),
        tap: Arc::default(),
        watched: Arc::new(watched),
        in_progress: Arc::new(InProgress::new(1)),
    };
    let client = Rc::new(Frontend(identity));
    let mut record = Record::begin(Rc::new(path), &mut usual(), client, Instant::now());

    record.lasts();

    let head = record.head.as_ref().expect("its rule may have a line about it");
    assert_eq!((head.authority.as_str(), head.path.as_str()), ("reviews:9080", "/reviews/0"));
    assert_eq!(head.user_agent.get(), None);
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

/// Why that is: the word for metrics.
pub(crate) fn only_reason(series: &Series) -> Option<&'static str> {
    only(series).error_type()
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
fn an_answer_that_its_client_does_not_read_to_its_end_is_no_reset() {
    let unknown = series();
    let mut record = begun(&unknown);

    record.answered(&answer(200), None, 0, None);
    record.given_up();
    record.finish(false, Instant::now());

    let end = only(&unknown);
    assert_eq!((end.status, end.error_type()), (Some(200), Some("canceled")));
}

#[test]
fn an_answer_that_a_proxy_breaks_off_has_the_reason_and_is_no_reset() {
    let unknown = series();
    let mut record = begun(&unknown);

    record.answered(&answer(200), None, 0, None);
    record.broken_off(Reason::Timeout);
    record.given_up();
    record.finish(false, Instant::now());

    let end = only(&unknown);
    assert_eq!((end.status, end.error_type()), (Some(200), Some("timeout")));
}

/// A frontend's connection that we have ended.
#[derive(Debug)]
struct Cut(Frontend, Reason);

impl ClientConnection for Cut {
    fn peer(&self) -> SocketAddr {
        self.0.peer()
    }

    fn identity(&self) -> Option<&SpiffeId> {
        self.0.identity()
    }

    fn series(&self) -> Option<&Arc<Series>> {
        None
    }

    fn unanswered(&self) -> Option<Arc<Series>> {
        None
    }

    fn cut(&self) -> Option<Reason> {
        Some(self.1)
    }
}

#[test]
fn what_ends_with_a_connection_that_we_end_has_our_reason() {
    for (status, cut, counted) in [
        (None, Reason::Draining, "draining"),
        (Some(200), Reason::Draining, "draining"),
        (Some(200), Reason::Policy, "policy"),
        // What a policy or a slow client ends is no failure of a server that has not answered yet.
        (None, Reason::Policy, "canceled"),
        (None, Reason::RequestTimeout, "canceled"),
    ] {
        let unknown = series();
        let mut record = begun(&unknown);
        let identity = "spiffe://cluster.local/ns/default/sa/frontend".parse().expect("an identity");
        record.client = Rc::new(Cut(Frontend(identity), cut));

        match status {
            Some(status) => {
                record.answered(&answer(status), None, 0, None);
                record.given_up();
                record.finish(false, Instant::now());
            }
            None => record.cancel(Instant::now()),
        }

        let end = only(&unknown);
        assert_eq!((end.status, end.error_type()), (status, Some(counted)));
    }
}

#[test]
fn a_failure_that_its_client_does_not_read_to_its_end_stays_one() {
    let unknown = series();
    let mut record = begun(&unknown);

    record.answered(&answer(503), None, 0, None);
    record.given_up();
    record.finish(false, Instant::now());

    let end = only(&unknown);
    assert_eq!((end.status, end.error_type()), (Some(503), None));
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
