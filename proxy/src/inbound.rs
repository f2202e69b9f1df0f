//! The way in: from a mesh peer or a plain client, past policy, to the app.

mod meant;

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::HeaderValue;
use meant::{Meant, meant};
use selvedge_api::wire;
use selvedge_model::Workload;
use tokio::net::TcpStream;
use tower::ServiceBuilder;

use crate::{
    accept::{self, Arrival, original::reset},
    authorize::authorize,
    connect::{stream::Prefixed, tls::MAX_AGE},
    detect::{Detected, detect},
    error::Failure,
    forward::forward,
    identify::{Identified, identify},
    normalize::normalize,
    opaque::{
        ReadAhead,
        way_in::{self, Incoming},
    },
    respond::respond,
    serve::{self, Lifetime, Protocol},
    step::{Conn, HttpVersion, Request, Step},
    telemetry::{self, Direction},
    worker::Worker,
};

/// How long a client may take to send its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(10);

/// The path of a request that comes in to this workload, first step first.
pub fn path(worker: &Rc<Worker>) -> impl Step<Request> + use<> {
    let unknown = worker.metrics.unknown_source(&worker.settings.workload);
    ServiceBuilder::new()
        .layer(telemetry::observe(Rc::clone(worker), Direction::Inbound, unknown)) // sees every answer, the proxy's own included
        .layer(respond()) // our failures become HTTP or gRPC answers
        .layer(normalize()) // one path and one authority, for all that follows
        .layer(authorize(Rc::clone(worker))) // by the policy in force now, not when the connection came
        .service(forward(Rc::clone(worker)))
}

/// Carries one connection to our workload.
pub async fn connection(worker: Rc<Worker>, path: impl Step<Request>, mut tcp: TcpStream, arrival: Arrival) {
    worker.view.refresh();
    let Some(own) = worker.view.with(|table| table.own.clone()) else {
        // Nothing is let in before our own policy has arrived.
        return;
    };
    let detected = tokio::select! {
        detected = tokio::time::timeout(FIRST_BYTE, detect(&mut tcp)) => detected,
        () = worker.leave.closed(accept::Direction::Inbound) => return,
    };
    let Ok(Ok(Some((detected, prefix)))) = detected else { return };
    let (version, protocol) = match detected {
        Detected::Tls => return mesh(worker, path, Prefixed::new(prefix, tcp), arrival, &own).await,
        Detected::Http1 => (HttpVersion::Http1, Protocol::Http1),
        Detected::Http2 => (HttpVersion::Http2, Protocol::Http2),
    };
    let meant = match meant(&worker.settings, &own, arrival.original, None) {
        Ok(meant) => meant,
        Err(failure) => {
            refuse(&worker, arrival, false, &failure);
            return reset(&tcp);
        }
    };
    let series = worker.metrics.inbound(&worker.settings.workload, meant.counted(), None);
    let conn = Conn {
        port: meant.port,
        app: Some(worker.apps.at(meant.address, meant.is_known)),
        series: Some(series),
        ..Conn::new(arrival, version)
    };
    plain(worker, path, Prefixed::new(prefix, tcp), conn, protocol).await;
}

/// Counts and logs a connection that is not let in.
fn refuse(worker: &Worker, arrival: Arrival, mtls: bool, failure: &Failure) {
    worker.metrics.connection_refused(Direction::Inbound, mtls, failure.reason);
    let Arrival { peer, original } = arrival;
    tracing::info!(%peer, original = original.map(|original| tracing::field::display(original.address)), %failure, "connection refused");
}

/// A client without mutual TLS. Whether it may come in is decided for each request, so that it is told.
async fn plain(
    worker: Rc<Worker>,
    path: impl Step<Request>,
    stream: Prefixed<TcpStream>,
    conn: Conn,
    protocol: Protocol,
) {
    let _open = worker.metrics.connection_opened(Direction::Inbound, false);
    serve::serve(
        protocol,
        stream,
        path,
        Rc::new(conn),
        serve::until(worker, accept::Direction::Inbound, None),
    )
    .await;
}

async fn mesh(
    worker: Rc<Worker>,
    path: impl Step<Request>,
    stream: Prefixed<TcpStream>,
    arrival: Arrival,
    own: &Arc<Workload>,
) {
    let peer = arrival.peer;
    // Boxed: a handshake's future is large, and the connection's would keep its room.
    let Identified { stream, peer: proven, preamble, current } =
        match Box::pin(identify(ReadAhead::new(stream), &worker.live)).await {
            Ok(identified) => identified,
            Err(error) => {
                worker.metrics.connection_refused(Direction::Inbound, true, error.reason());
                tracing::info!(%peer, %error, "connection refused");
                return;
            }
        };
    let port = u16::try_from(preamble.port).unwrap_or_default();
    let meant = match meant(&worker.settings, own, arrival.original, Some(port)) {
        Ok(meant) => meant,
        Err(failure) => return refuse(&worker, arrival, true, &failure),
    };
    let Meant { address, is_known, .. } = meant;
    tracing::debug!(%peer, identity = %proven.identity, source = preamble.source, port, "mesh peer connected");
    let _open = worker.metrics.connection_opened(Direction::Inbound, true);
    let ends_at = ends_at(proven.not_after);
    let lifetime = Lifetime { retire_at: ends_at.min(Instant::now() + MAX_AGE), ends_at, current };
    let until = serve::until(Rc::clone(&worker), accept::Direction::Inbound, Some(lifetime));
    let protocol = match preamble.carrier() {
        wire::Carrier::Http1 => Protocol::Http1,
        wire::Carrier::Http2 => Protocol::Http2,
        wire::Carrier::Tcp => {
            let (identity, app) = (Some(proven.identity), address);
            return way_in::mesh(worker, Incoming { client: stream, peer, identity, port, app, until }).await;
        }
        wire::Carrier::Unspecified => return,
    };
    let version = match preamble.app() {
        wire::AppProtocol::Http2 => HttpVersion::Http2,
        _ => HttpVersion::Http1,
    };
    let conn = Conn {
        port,
        app: Some(worker.apps.at(address, is_known)),
        series: Some(worker.metrics.inbound(
            &worker.settings.workload,
            meant.counted(),
            Some(&proven.identity),
        )),
        xfcc: forwarded_client_cert(own, &proven.identity),
        identity: Some(proven.identity),
        ..Conn::new(arrival, version)
    };
    serve::serve(protocol, stream, path, Rc::new(conn), until).await;
}

/// `x-forwarded-client-cert`, as Envoy writes it: whom the app's sidecar is, and whom the client proved to be.
fn forwarded_client_cert(own: &Workload, peer: &selvedge_model::SpiffeId) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("By={};URI={peer}", own.identity)).ok()
}

/// When a peer's certificate ends. Its connection takes no more requests then, or when it is [`MAX_AGE`]
/// old; the peer, which retires it a little earlier by the same rule, is normally first.
fn ends_at(not_after: SystemTime) -> Instant {
    Instant::now() + not_after.duration_since(SystemTime::now()).unwrap_or_default()
}
