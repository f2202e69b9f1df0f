//! The way out: from the app, through routing, retries and balancing, to an endpoint.

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::BytesMut;
use selvedge_model::{Layer, Protocol as Spoken};
use tokio::net::TcpStream;
use tower::ServiceBuilder;

use crate::{
    accept::{self, Arrival, Original, original::reset},
    balance,
    bind::Destination,
    connect::stream::Prefixed,
    detect::{Detected, First, detect_until, hello::hello},
    error::Reason,
    identify::HANDSHAKE_TIMEOUT,
    normalize::normalize,
    opaque::way_out::{self, Outgoing, Speaker},
    respond::respond,
    retry, route,
    serve::{self, Protocol},
    step::{Conn, HttpVersion, Request, Step},
    telemetry::{self, Direction},
    worker::Worker,
};

/// How long an app may hold a connection open before its first byte. Apps open some ahead of need.
const FIRST_BYTE: Duration = Duration::from_secs(300);

/// The path of a request that leaves this workload, first step first.
pub fn path(worker: &Rc<Worker>) -> impl Step<Request> + use<> {
    let unknown = worker.metrics.unknown_destination(&worker.settings.workload);
    ServiceBuilder::new()
        .layer(telemetry::observe(Rc::clone(worker), Direction::Outbound, unknown)) // sees every answer, the proxy's own included
        .layer(respond()) // our failures become HTTP or gRPC answers
        .layer(normalize()) // one path and one authority, for all that follows
        .layer(route::choose(Rc::clone(worker))) // Request -> Routed
        .layer(route::timeout(Rc::clone(worker))) // the whole request, all attempts
        .layer(retry::attempts(Rc::clone(worker))) // Routed -> Attempt, one or several
        .service(balance::endpoints(Rc::clone(worker)))
}

/// Carries one connection of the app's.
pub async fn connection(worker: Rc<Worker>, path: impl Step<Request>, tcp: TcpStream, arrival: Arrival) {
    match arrival.original {
        None => explicit(worker, path, tcp, arrival).await,
        Some(original) if original.is_ours => {
            worker.metrics.connection_refused(Direction::Outbound, false, Reason::Loop);
            tracing::warn!(peer = %arrival.peer, "connection refused: it was not redirected here, so it is not known where it goes");
            reset(&tcp);
        }
        Some(original) => redirected(worker, path, tcp, arrival, original).await,
    }
}

/// A connection to our listener: HTTP, whose authority says where it goes.
async fn explicit(worker: Rc<Worker>, path: impl Step<Request>, mut tcp: TcpStream, arrival: Arrival) {
    let mut read = BytesMut::new();
    match first(&worker, &mut tcp, &mut read, None).await {
        None | Some(First::End | First::Silence) => {}
        Some(First::Bytes(Detected::Tls)) => refuse_tls(arrival),
        // What is no HTTP is refused in its words.
        Some(First::Bytes(detected)) => http(worker, path, tcp, arrival, read, detected).await,
    }
}

/// A connection that was going elsewhere: whatever it carries.
async fn redirected(
    worker: Rc<Worker>,
    path: impl Step<Request>,
    mut tcp: TcpStream,
    arrival: Arrival,
    original: Original,
) {
    let destination = route::dialled(&worker, original).await;
    let bound = destination.as_ref().and_then(|destination| {
        // Who dials an endpoint speaks what its service says.
        destination.service.as_ref().or(destination.bound.as_ref())
    });
    let declared = bound.map_or(Spoken::Unspecified, |bound| bound.protocol);
    let spoken = worker.settings.spoken(declared, original.address.port());
    let asks_for_names = bound.is_some_and(|bound| bound.tcp.has_names());
    let mut read = BytesMut::new();
    let mut detected = match (spoken, &destination) {
        (Spoken::Tcp, _) if !asks_for_names => Some(First::Bytes(Detected::Opaque)),
        (Spoken::Http | Spoken::Http2, _) => first(&worker, &mut tcp, &mut read, None).await,
        (Spoken::Tcp | Spoken::Unspecified, _) => {
            first(&worker, &mut tcp, &mut read, Some(worker.settings.detect_timeout)).await
        }
    };
    if detected == Some(First::Silence) {
        let Some(destination) = &destination else {
            // A server that may be waited for, and nobody has said where it is.
            return refuse_unknown(&worker, arrival, original, &tcp);
        };
        let outgoing = outgoing(arrival, original, destination);
        let speaker = Box::pin(way_out::speculate(Rc::clone(&worker), outgoing, tcp, &mut read)).await;
        let Ok(Speaker::Client(client, said)) = speaker else { return };
        (tcp, detected) = (client, Some(said));
    }
    let Some(First::Bytes(detected)) = detected else { return };
    match (detected, spoken) {
        (Detected::Http1 | Detected::Http2, Spoken::Unspecified | Spoken::Http | Spoken::Http2)
        | (Detected::Opaque, Spoken::Http | Spoken::Http2) => {
            http(worker, path, tcp, arrival, read, detected).await;
        }
        (Detected::Tls, Spoken::Http | Spoken::Http2) => {
            refuse_tls(arrival);
            reset(&tcp);
        }
        _ => Box::pin(opaque(worker, tcp, arrival, original, destination, read, detected)).await,
    }
}

fn outgoing(arrival: Arrival, original: Original, destination: &Arc<Destination>) -> Outgoing {
    let (dialled, destination) = (original.address, Arc::clone(destination));
    Outgoing { arrival, dialled, destination, layer: Layer::Tcp, server_name: None }
}

/// Whatever is not HTTP: as it is, to where it was going, or to whom its TLS asks for.
async fn opaque(
    worker: Rc<Worker>,
    mut tcp: TcpStream,
    arrival: Arrival,
    original: Original,
    destination: Option<Arc<Destination>>,
    mut read: BytesMut,
    detected: Detected,
) {
    let mut destination = destination;
    let mut tls = None;
    if detected == Detected::Tls {
        let hello = tokio::time::timeout(HANDSHAKE_TIMEOUT, hello(&mut tcp, &mut read)).await;
        let Ok(Ok(hello)) = hello else { return };
        let name = hello.server_name();
        if let Some(name) = &name {
            destination = route::named(&worker, original, name).await.or(destination);
        }
        tls = Some(name);
    }
    let Some(destination) = destination else {
        return refuse_unknown(&worker, arrival, original, &tcp);
    };
    let mut outgoing = outgoing(arrival, original, &destination);
    if let Some(server_name) = tls {
        (outgoing.layer, outgoing.server_name) = (Layer::Tls, server_name);
    }
    way_out::carry(worker, outgoing, tcp, read).await;
}

/// How a connection begins; `None`: with an error, or not in time, or not before we drain.
async fn first(
    worker: &Worker,
    tcp: &mut TcpStream,
    read: &mut BytesMut,
    silence: Option<Duration>,
) -> Option<First> {
    let over = worker.leave.closed(accept::Direction::Outbound);
    detect_until(tcp, read, silence, FIRST_BYTE, over).await
}

fn refuse_unknown(worker: &Worker, arrival: Arrival, original: Original, tcp: &TcpStream) {
    worker.metrics.connection_refused(Direction::Outbound, false, Reason::Discovery);
    tracing::info!(peer = %arrival.peer, original = %original.address, "connection refused: the control plane has not said in time what that is");
    reset(tcp);
}

fn refuse_tls(arrival: Arrival) {
    tracing::warn!(peer = %arrival.peer, "connection refused: the app speaks TLS where HTTP is declared; let it speak plain HTTP, or declare the port as tls or tcp");
}

async fn http(
    worker: Rc<Worker>,
    path: impl Step<Request>,
    tcp: TcpStream,
    arrival: Arrival,
    read: BytesMut,
    detected: Detected,
) {
    let (version, protocol) = match detected {
        Detected::Http2 => (HttpVersion::Http2, Protocol::Http2),
        Detected::Http1 | Detected::Opaque | Detected::Tls => (HttpVersion::Http1, Protocol::Http1),
    };
    let conn = Rc::new(Conn::new(arrival, version));
    let stream = Prefixed::new(read.freeze(), tcp);
    serve::serve(protocol, stream, path, conn, serve::until(worker, accept::Direction::Outbound, None)).await;
}

#[cfg(test)]
mod tests {
    /// What every request moves about. A growth here is paid for by each one of them, so it has to be
    /// meant: see "Performance" in the README of `tests/bench`.
    #[test]
    fn what_a_request_carries_stays_small() {
        assert!(size_of::<crate::body::Body>() <= 64, "{}", size_of::<crate::body::Body>());
        assert!(size_of::<crate::step::Request>() <= 32, "{}", size_of::<crate::step::Request>());
        assert!(size_of::<crate::step::Routed>() <= 80, "{}", size_of::<crate::step::Routed>());
        assert!(size_of::<crate::step::Response>() <= 64, "{}", size_of::<crate::step::Response>());
        assert!(size_of::<crate::step::Error>() <= 64, "{}", size_of::<crate::step::Error>());
    }
}
