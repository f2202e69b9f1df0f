//! The way in: from a mesh peer or a plain client, past policy, to the app.

mod meant;

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::BytesMut;
use http::HeaderValue;
use meant::{AppTarget, meant};
use selvedge_api::wire;
use selvedge_model::{Protocol as Spoken, Workload};
use tokio::net::TcpStream;
use tokio_rustls::StartHandshake;
use tower::ServiceBuilder;

use crate::{
    arrival::{Arrival, Direction},
    authorize::{authorize, opaque_refusal},
    budget::{Action, Counted},
    clients::Client,
    connect::tls::MAX_AGE,
    detect::{
        Detected, First, detect_until,
        hello::{Hello, hello},
    },
    error::{Failure, Reason},
    facts,
    forward::forward,
    identify::{HandshakeError, Identified, identify},
    io::{Prefixed, ReadAhead, reset},
    lifetime,
    normalize::normalize,
    observe::observe,
    opaque::{self, Incoming},
    refuse::refuse,
    respond::respond,
    serve,
    step::{Conn, HttpVersion, Request, Step},
    trust::{Part, revoked},
    worker::Worker,
};

/// How long a client may take to send its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(10);

/// Why a plain client is turned away.
const NO_PLACE: &str = "all places that --max-connections leaves for clients without a certificate are taken";

/// The path of a request that comes in to this workload, first step first.
pub fn path(worker: &Rc<Worker>) -> impl Step<Request> + use<> {
    let unknown = worker.metrics.unknown_source(&worker.settings.workload);
    ServiceBuilder::new()
        .layer(observe(worker, Direction::Inbound, unknown)) // keeps one record of each request; sees every answer, the proxy's own included
        .layer(respond()) // our failures become HTTP or gRPC answers
        .layer(refuse(Rc::clone(worker))) // what is malformed or too large, or comes while too much is held
        .layer(normalize()) // one path and one authority, for all that follows
        .layer(authorize(Rc::clone(worker))) // by the policy in force now, not when the connection came
        .service(forward(Rc::clone(worker)))
}

/// Carries one connection to our workload.
pub async fn connection(
    worker: Rc<Worker>,
    path: impl Step<Request>,
    mut tcp: TcpStream,
    arrival: Arrival,
    client: Rc<Client>,
) {
    worker.view.refresh();
    let Some(own) = worker.view.with(|table| table.own.clone()) else {
        // Nothing is let in before our own policy has arrived.
        return;
    };
    // Where it goes unless it turns out to be a mesh peer's.
    let meant = meant(&worker.settings, &own, arrival.original, None);
    let spoken = meant.as_ref().map_or(Spoken::Unspecified, |meant| spoken(&worker, &own, meant));
    let may_be_opaque = matches!(spoken, Spoken::Unspecified | Spoken::Tcp);
    let silence = match &meant {
        Ok(meant) if may_be_opaque && may_be_silent(&worker, arrival, meant) => {
            Some(worker.settings.detect_timeout)
        }
        _ => None,
    };
    let mut read = BytesMut::new();
    let Some(mut begun) = first(&worker, &mut tcp, &mut read, silence).await else { return };
    if let (First::Silence, Ok(meant)) = (begun, &meant) {
        let incoming = plain_incoming(&worker, tcp, &arrival, meant);
        let carried = opaque::inbound::speculate(Rc::clone(&worker), incoming, &mut read, &client);
        let Some(speaks) = Box::pin(carried).await else { return };
        (tcp, begun) = speaks;
    }
    let First::Bytes(detected) = begun else { return };
    if detected == Detected::Tls {
        match counted_hello(&worker, &client, &mut tcp, &mut read).await {
            Ok(Hello::Mesh { accepted, rest }) => {
                let stream = ReadAhead::new(Prefixed::new(rest.freeze(), tcp));
                let hello = StartHandshake::from_parts(*accepted, stream);
                return mesh(worker, path, hello, arrival, &own, &client).await;
            }
            Ok(Hello::Other { .. }) if may_be_opaque => {}
            Ok(Hello::Other { .. }) => {
                return refuse_handshake(&worker, arrival, &HandshakeError::NotMesh);
            }
            Err(error) => return refuse_handshake(&worker, arrival, &error),
        }
    }
    let meant = match meant {
        Ok(meant) => meant,
        Err(failure) => {
            refuse_connection(&worker, arrival, false, &failure);
            let is_told = matches!(detected, Detected::Http1 | Detected::Http2) && arrival.original.is_none();
            if !is_told {
                return reset(&tcp);
            }
            let stream = Prefixed::new(read.freeze(), tcp);
            return tell(worker, path, stream, arrival, detected, failure).await;
        }
    };
    if !worker.doors.admit_plain(&client) {
        refuse_connection(&worker, arrival, false, &Failure::new(Reason::Overflow, NO_PLACE));
        return reset(&tcp);
    }
    let version = match detected {
        Detected::Http1 if spoken != Spoken::Tcp => HttpVersion::Http1,
        Detected::Http2 if spoken != Spoken::Tcp => HttpVersion::Http2,
        // Refused in HTTP's own words.
        Detected::Opaque if !may_be_opaque => HttpVersion::Http1,
        _ => {
            let incoming = plain_incoming(&worker, Prefixed::new(read.freeze(), tcp), &arrival, &meant);
            return Box::pin(opaque::inbound::plain(worker, incoming)).await;
        }
    };
    let conn = Conn { client: Some(client), ..plain_conn(&worker, arrival, &meant, version) };
    plain(worker, path, Prefixed::new(read.freeze(), tcp), conn).await;
}

/// Whether policy lets a plain client in that says nothing.
fn may_be_silent(worker: &Worker, arrival: Arrival, meant: &AppTarget) -> bool {
    let connection = facts::incoming(arrival.peer, None, arrival.original, meant.port);
    opaque_refusal(worker, &connection).is_none()
}

/// What is declared to be spoken where a connection goes.
fn spoken(worker: &Worker, own: &Workload, meant: &AppTarget) -> Spoken {
    let declared = own.protocols.get(&meant.port).copied().unwrap_or_default();
    worker.settings.spoken(declared, meant.port)
}

/// A plain client's connection of requests.
fn plain_conn(worker: &Worker, arrival: Arrival, meant: &AppTarget, version: HttpVersion) -> Conn {
    Conn {
        port: meant.port,
        app: Some(worker.apps.at(meant.address, meant.is_known)),
        series: Some(worker.metrics.inbound(&worker.settings.workload, meant.counted(), None)),
        ..Conn::new(arrival, version)
    }
}

/// A plain client's connection that is opaque.
fn plain_incoming<C>(worker: &Rc<Worker>, client: C, arrival: &Arrival, meant: &AppTarget) -> Incoming<C> {
    let until = lifetime::until(Rc::clone(worker), Direction::Inbound, None);
    Incoming {
        client,
        peer: arrival.peer,
        original: arrival.original,
        identity: None,
        port: meant.port,
        counted: meant.counted(),
        app: meant.address,
        until,
    }
}

/// Answers a plain client's requests with why they are forwarded nowhere.
async fn tell(
    worker: Rc<Worker>,
    path: impl Step<Request>,
    stream: Prefixed<TcpStream>,
    arrival: Arrival,
    detected: Detected,
    failure: Failure,
) {
    let version = match detected {
        Detected::Http2 => HttpVersion::Http2,
        _ => HttpVersion::Http1,
    };
    let series = worker.metrics.inbound(&worker.settings.workload, 0, None);
    let (unserved, series) = (Some(Box::new(failure)), Some(series));
    let conn = Conn { unserved, series, ..Conn::new(arrival, version) };
    plain(worker, path, stream, conn).await;
}

/// A client's hello. What it holds until it is whole counts, here and in rustls; where that is too much, the newcomer
/// that came first is closed.
async fn counted_hello(
    worker: &Worker,
    client: &Client,
    tcp: &mut TcpStream,
    read: &mut BytesMut,
) -> Result<Hello, HandshakeError> {
    let count = |bytes: usize| {
        client.holds_hello(&worker.budget, 2 * bytes);
        if worker.budget.is_exhausted() && worker.doors.dismiss_newcomer() {
            worker.budget.acted(Action::ClosedConnection);
        }
    };
    let mut counted = Counted::new(tcp, count);
    let hello = tokio::time::timeout(FIRST_BYTE, hello(&mut counted, read)).await;
    client.hello_ended();
    Ok(hello.map_err(|_| HandshakeError::Timeout)??)
}

/// How a connection begins; `None`: with an error, or not in time, or not before we drain.
async fn first(
    worker: &Worker,
    tcp: &mut TcpStream,
    read: &mut BytesMut,
    silence: Option<Duration>,
) -> Option<First> {
    let over = worker.leave.closed(Direction::Inbound);
    detect_until(tcp, read, silence, FIRST_BYTE, over).await
}

/// Counts and logs a handshake that came to nothing.
fn refuse_handshake(worker: &Worker, arrival: Arrival, error: &HandshakeError) {
    worker.metrics.connection_refused(Direction::Inbound, true, error.reason());
    tracing::info!(peer = %arrival.peer, %error, "connection refused");
}

/// Counts and logs a connection that is not let in.
fn refuse_connection(worker: &Worker, arrival: Arrival, mtls: bool, failure: &Failure) {
    worker.metrics.connection_refused(Direction::Inbound, mtls, failure.reason);
    let Arrival { peer, original, .. } = arrival;
    tracing::info!(%peer, original = original.map(|original| tracing::field::display(original.address)), %failure, "connection refused");
}

/// A client without mutual TLS. Whether it may come in is decided for each request, so that it is told.
async fn plain(worker: Rc<Worker>, path: impl Step<Request>, stream: Prefixed<TcpStream>, conn: Conn) {
    let _open = worker.metrics.connection_opened(Direction::Inbound, false);
    let (version, until) = (conn.version, lifetime::until(Rc::clone(&worker), Direction::Inbound, None));
    serve::serve(version, stream, path, Rc::new(conn), until).await;
}

async fn mesh(
    worker: Rc<Worker>,
    path: impl Step<Request>,
    hello: StartHandshake<ReadAhead<Prefixed<TcpStream>>>,
    arrival: Arrival,
    own: &Arc<Workload>,
    client: &Client,
) {
    let peer = arrival.peer;
    // Boxed: a handshake's future is large, and the connection's would keep its room.
    let Identified { stream, standing, preamble } = match Box::pin(identify(hello, &worker.live)).await {
        Ok(identified) => identified,
        Err(error) => return refuse_handshake(&worker, arrival, &error),
    };
    if let Some(failure) = revoked(&worker.live, standing.peer.holder(), Part::Client) {
        return refuse_connection(&worker, arrival, true, &failure);
    }
    client.mark_known();
    let port = u16::try_from(preamble.port).unwrap_or_default();
    let meant = match meant(&worker.settings, own, arrival.original, Some(port)) {
        Ok(meant) => Ok(meant),
        Err(failure) => {
            refuse_connection(&worker, arrival, true, &failure);
            // Whose sidecar is told can say why; it has proven that it is of this mesh.
            if arrival.original.is_some() {
                return;
            }
            Err(failure)
        }
    };
    let counted = meant.as_ref().map_or(0, AppTarget::counted);
    let identity = standing.peer.identity.clone();
    tracing::debug!(%peer, %identity, source = preamble.source, port, "mesh peer connected");
    let _open = worker.metrics.connection_opened(Direction::Inbound, true);
    let retire_at = retire_at(standing.peer.not_after);
    let until = lifetime::until(Rc::clone(&worker), Direction::Inbound, Some((retire_at, standing)));
    let carrier = match preamble.carrier() {
        wire::Carrier::Http1 => HttpVersion::Http1,
        wire::Carrier::Http2 => HttpVersion::Http2,
        wire::Carrier::Tcp => {
            let identity = Some(identity);
            let app = meant.as_ref().map_or(worker.settings.own.inbound, |meant| meant.address);
            let original = arrival.original;
            let incoming = Incoming { client: stream, peer, original, identity, port, counted, app, until };
            return match meant {
                Ok(_) => opaque::inbound::mesh(worker, incoming).await,
                Err(failure) => opaque::inbound::refuse(worker, incoming, failure).await,
            };
        }
        wire::Carrier::Unspecified => return,
    };
    let version = match preamble.app() {
        wire::AppProtocol::Http2 => HttpVersion::Http2,
        _ => HttpVersion::Http1,
    };
    let conn = Conn {
        port,
        app: meant.as_ref().ok().map(|meant| worker.apps.at(meant.address, meant.is_known)),
        unserved: meant.err().map(Box::new),
        series: Some(worker.metrics.inbound(&worker.settings.workload, counted, Some(&identity))),
        xfcc: forwarded_client_cert(own, &identity),
        identity: Some(identity),
        ..Conn::new(arrival, version)
    };
    serve::serve(carrier, stream, path, Rc::new(conn), until).await;
}

/// `x-forwarded-client-cert`, as Envoy writes it: whom the app's sidecar is, and whom the client proved to be.
fn forwarded_client_cert(own: &Workload, peer: &selvedge_model::SpiffeId) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("By={};URI={peer}", own.identity)).ok()
}

/// When a connection takes no more requests: when the peer's certificate ends, or when it is [`MAX_AGE`] old. The
/// peer, which retires it a little earlier by the same rule, is normally first.
fn retire_at(not_after: SystemTime) -> Instant {
    Instant::now() + not_after.duration_since(SystemTime::now()).unwrap_or_default().min(MAX_AGE)
}
