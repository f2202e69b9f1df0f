//! The outbound path: from the app, through routing, retries and balancing, to an endpoint.

use std::{fmt, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use bytes::BytesMut;
use selvedge_model::{Protocol as Spoken, normalize::path::Slashes};
use tokio::net::TcpStream;
use tower::ServiceBuilder;

use crate::{
    arrival::{Arrival, Direction, OriginalDestination},
    bind::Destination,
    detect::{
        Detected, First, detect_until,
        hello::{HELLO_TIMEOUT, hello},
    },
    dispatch::dispatch,
    error::Reason,
    io::{Prefixed, reset},
    lifetime, lookup,
    normalize::normalize,
    observe::observe,
    opaque::{self, Outgoing, outbound::Speaker},
    refuse::refuse,
    respond::respond,
    retry, route, serve,
    settings::Upstream,
    step::{Conn, HttpVersion, Outbound, Request, Side, Step},
    tunnel::tunnel,
    worker::Worker,
};

/// How long an app may hold a connection open before its first byte. Apps open some ahead of need.
const FIRST_BYTE: Duration = Duration::from_secs(300);

/// The path of a request that leaves this workload, first step first.
pub fn path(worker: &Rc<Worker>) -> impl Step<Request> + use<> {
    let unknown = worker.metrics.unknown_destination(&worker.settings.workload);
    ServiceBuilder::new()
        .layer(observe(worker, Direction::Outbound, unknown)) // keeps one record of each request; sees every answer, the proxy's own included
        .layer(respond(Rc::clone(worker))) // our failures become HTTP or gRPC answers
        .layer(refuse(Rc::clone(worker))) // what is malformed or too large, or comes while too much is held
        .layer(normalize(Slashes::Kept)) // one path and one authority, for all that follows
        .layer(tunnel(Rc::clone(worker))) // CONNECT goes no further
        .layer(route::find(Rc::clone(worker))) // Request -> Matched: the service's rule that it follows
        .layer(route::filter(Rc::clone(worker))) // the rule's filters: faults, redirects, changes of headers and paths, copies for mirrors
        .layer(route::draw(Rc::clone(worker))) // Matched -> Routed: one of the rule's backends
        .layer(route::timeout(Rc::clone(worker))) // the whole request, all attempts
        .layer(retry::attempts(Rc::clone(worker))) // Routed -> Attempt, one or several
        .service(dispatch(Rc::clone(worker)))
}

/// Carries one connection of the app's.
pub async fn connection(worker: Rc<Worker>, path: impl Step<Request>, tcp: TcpStream, arrival: Arrival) {
    if let Some(place) = arrival.upstream {
        let Some(upstream) = worker.settings.upstreams.get(place).cloned() else { return };
        return carry_to(worker, path, tcp, arrival, ConnectionTarget::Upstream(upstream)).await;
    }
    match arrival.original {
        None => explicit(worker, path, tcp, arrival).await,
        Some(original) if original.is_ours => {
            worker.metrics.connection_refused(Direction::Outbound, false, Reason::Loop);
            tracing::warn!(peer = %arrival.peer, "connection refused: it was not redirected, so its destination is unknown");
            reset(&tcp);
        }
        Some(original) => carry_to(worker, path, tcp, arrival, ConnectionTarget::Dialled(original)).await,
    }
}

/// Where a connection goes that does not say it itself.
#[derive(Debug, Clone)]
enum ConnectionTarget {
    /// To the address that its client dialled. HTTP requests for a service that is called by name say that name.
    Dialled(OriginalDestination),
    /// Where all connections of its listener go.
    Upstream(Upstream),
}

impl ConnectionTarget {
    /// What that is; `None`: the control plane has not said it in time.
    async fn destination(&self, worker: &Worker) -> Option<Arc<Destination>> {
        match self {
            Self::Dialled(original) => lookup::dialled(worker, *original).await,
            Self::Upstream(upstream) => lookup::destination(worker, &upstream.authority).await,
        }
    }

    /// The port of where it goes.
    fn port(&self) -> u16 {
        match self {
            Self::Dialled(original) => original.address.port(),
            Self::Upstream(upstream) => upstream.port(),
        }
    }

    /// From `peer`, to what is there: `destination`.
    fn outgoing(&self, peer: SocketAddr, destination: &Arc<Destination>) -> Outgoing {
        let address = match self {
            Self::Dialled(original) => Some(original.address),
            Self::Upstream(upstream) => upstream.authority.parse().ok(),
        };
        Outgoing::to(peer, address, Arc::clone(destination))
    }
}

impl fmt::Display for ConnectionTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dialled(original) => original.address.fmt(f),
            Self::Upstream(upstream) => f.write_str(&upstream.authority),
        }
    }
}

/// A connection to our listener: HTTP, whose authority says where each request goes.
async fn explicit(worker: Rc<Worker>, path: impl Step<Request>, mut tcp: TcpStream, arrival: Arrival) {
    let mut read = BytesMut::new();
    match first(&worker, &mut tcp, &mut read, None).await {
        None | Some(First::End | First::Silence) => {}
        Some(First::Bytes(detected @ (Detected::Tls | Detected::Opaque))) => {
            refuse_unnamed(&worker, arrival, detected);
            if read.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
                // Perhaps it means HTTP: then it is refused in HTTP's words.
                http(worker, path, tcp, arrival, read, detected).await;
            } else {
                reset(&tcp);
            }
        }
        Some(First::Bytes(detected)) => http(worker, path, tcp, arrival, read, detected).await,
    }
}

/// Carries a connection to its `target`, whatever it carries.
async fn carry_to(
    worker: Rc<Worker>,
    path: impl Step<Request>,
    mut tcp: TcpStream,
    arrival: Arrival,
    target: ConnectionTarget,
) {
    let destination = target.destination(&worker).await;
    let bound = destination.as_ref().and_then(|destination| {
        // Who dials an endpoint speaks what its service says.
        destination.service.as_ref().or(destination.bound.as_ref())
    });
    let declared = bound.map_or(Spoken::Unspecified, |bound| bound.protocol);
    let spoken = worker.settings.spoken(declared, target.port());
    let asks_for_names = bound.is_some_and(|bound| bound.tcp.has_names);
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
            return refuse_unknown(&worker, arrival, &target, &tcp);
        };
        let outgoing = target.outgoing(arrival.peer, destination);
        let speaker =
            Box::pin(opaque::outbound::speculate(Rc::clone(&worker), outgoing, tcp, &mut read)).await;
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
        _ => Box::pin(opaque(worker, tcp, arrival, target, destination, read, detected)).await,
    }
}

/// Carries what is not HTTP as it is: to where it was going, or to the host that its TLS asks for.
async fn opaque(
    worker: Rc<Worker>,
    mut tcp: TcpStream,
    arrival: Arrival,
    target: ConnectionTarget,
    destination: Option<Arc<Destination>>,
    mut read: BytesMut,
    detected: Detected,
) {
    let mut destination = destination;
    let mut tls = None;
    if detected == Detected::Tls {
        let hello = tokio::time::timeout(HELLO_TIMEOUT, hello(&mut tcp, &mut read)).await;
        let Ok(Ok(hello)) = hello else { return };
        let name = hello.server_name();
        if let (Some(name), ConnectionTarget::Dialled(original)) = (&name, &target) {
            destination = lookup::named(&worker, *original, name).await.or(destination);
        }
        tls = Some(name);
    }
    let Some(destination) = destination else {
        return refuse_unknown(&worker, arrival, &target, &tcp);
    };
    let outgoing = target.outgoing(arrival.peer, &destination);
    let outgoing = match tls {
        Some(server_name) => outgoing.with_tls(server_name),
        None => outgoing,
    };
    opaque::outbound::carry(worker, outgoing, tcp, read).await;
}

/// Waits for a connection's first bytes. `None`: it failed, or they did not come in time or before the proxy drained.
async fn first(
    worker: &Worker,
    tcp: &mut TcpStream,
    read: &mut BytesMut,
    silence: Option<Duration>,
) -> Option<First> {
    let over = worker.leave.closed(Direction::Outbound);
    detect_until(tcp, read, silence, FIRST_BYTE, over).await
}

fn refuse_unknown(worker: &Worker, arrival: Arrival, target: &ConnectionTarget, tcp: &TcpStream) {
    worker.metrics.connection_refused(Direction::Outbound, false, Reason::Discovery);
    tracing::info!(peer = %arrival.peer, original = %target, "connection refused: the control plane has not said in time what its destination is");
    reset(tcp);
}

/// Refuses a connection that does not say where it goes, because it is not HTTP.
fn refuse_unnamed(worker: &Worker, arrival: Arrival, detected: Detected) {
    worker.metrics.connection_refused(Direction::Outbound, false, Reason::Protocol);
    let carries = if detected == Detected::Tls { "TLS" } else { "something other than HTTP" };
    tracing::warn!(
        peer = %arrival.peer,
        "connection refused: it carries {carries}, which does not name its destination; give the destination a port of its own (--upstream PORT=HOST:PORT), or, if the client can use an HTTPS proxy, let it use this listener (https_proxy)"
    );
}

fn refuse_tls(arrival: Arrival) {
    tracing::warn!(peer = %arrival.peer, "connection refused: the app speaks TLS on a port that is declared to speak HTTP; let it speak plain HTTP, or declare the port as tls or tcp");
}

async fn http(
    worker: Rc<Worker>,
    path: impl Step<Request>,
    tcp: TcpStream,
    arrival: Arrival,
    read: BytesMut,
    detected: Detected,
) {
    let version = match detected {
        Detected::Http2 => HttpVersion::Http2,
        Detected::Http1 | Detected::Opaque | Detected::Tls => HttpVersion::Http1,
    };
    // Where connections are redirected, CONNECT is meant for the proxy that was dialled.
    let offers_tunnels = arrival.original.is_none() && arrival.upstream.is_none();
    let outbound = Outbound { upstream: arrival.upstream, offers_tunnels, ..Outbound::default() };
    let conn = Rc::new(Conn::new(arrival, version, Side::Outbound(outbound)));
    let stream = Prefixed::new(read.freeze(), tcp);
    serve::serve(version, stream, path, conn, lifetime::until(worker, Direction::Outbound, None)).await;
}

#[cfg(test)]
mod tests {
    /// What every request moves about. A growth here is paid for by each one of them, so it has to be
    /// meant: see "Performance" in the README of `tests/bench`.
    #[test]
    fn what_a_request_carries_stays_small() {
        // Eight bytes of it say where the request is seen to go: a request that is logged would have seven allocations for that.
        assert!(size_of::<crate::body::Body>() <= 72, "{}", size_of::<crate::body::Body>());
        assert!(size_of::<crate::step::Request>() <= 32, "{}", size_of::<crate::step::Request>());
        assert!(size_of::<crate::step::Matched>() <= 48, "{}", size_of::<crate::step::Matched>());
        assert!(size_of::<crate::step::Routed>() <= 64, "{}", size_of::<crate::step::Routed>());
        assert!(size_of::<crate::step::Response>() <= 64, "{}", size_of::<crate::step::Response>());
        assert!(size_of::<crate::step::Error>() <= 64, "{}", size_of::<crate::step::Error>());
    }
}
