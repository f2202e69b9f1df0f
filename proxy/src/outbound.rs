//! The way out: from the app, through routing, retries and balancing, to an endpoint.

use std::{rc::Rc, time::Duration};

use tokio::net::TcpStream;
use tower::ServiceBuilder;

use crate::{
    accept::{self, Arrival, original::reset},
    balance,
    connect::stream::Prefixed,
    detect::{Detected, detect},
    error::Reason,
    normalize::normalize,
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
pub async fn connection(worker: Rc<Worker>, path: impl Step<Request>, mut tcp: TcpStream, arrival: Arrival) {
    let peer = arrival.peer;
    if arrival.original.is_some_and(|original| original.is_ours) {
        worker.metrics.connection_refused(Direction::Outbound, false, Reason::Loop);
        tracing::warn!(%peer, "connection refused: it was not redirected here, so it is not known where it goes");
        return reset(&tcp);
    }
    let detected = tokio::select! {
        detected = tokio::time::timeout(FIRST_BYTE, detect(&mut tcp)) => detected,
        () = worker.leave.closed(accept::Direction::Outbound) => return,
    };
    let Ok(Ok(Some((detected, prefix)))) = detected else { return };
    let (version, protocol) = match detected {
        Detected::Http1 => (HttpVersion::Http1, Protocol::Http1),
        Detected::Http2 => (HttpVersion::Http2, Protocol::Http2),
        Detected::Tls => {
            tracing::warn!(%peer, "the app speaks TLS to the outbound listener, which takes HTTP; let it speak plain HTTP");
            return;
        }
    };
    let conn = Rc::new(Conn::new(arrival, version));
    serve::serve(
        protocol,
        Prefixed::new(prefix, tcp),
        path,
        conn,
        serve::until(worker, accept::Direction::Outbound, None),
    )
    .await;
}

#[cfg(test)]
mod tests {
    /// What every request moves about. A growth here is paid for by each one of them, so it has to be
    /// meant: see "Performance" in the README of `tests/bench`.
    #[test]
    fn what_a_request_carries_stays_small() {
        assert!(size_of::<crate::body::Body>() <= 56, "{}", size_of::<crate::body::Body>());
        assert!(size_of::<crate::step::Request>() <= 32, "{}", size_of::<crate::step::Request>());
        assert!(size_of::<crate::step::Routed>() <= 80, "{}", size_of::<crate::step::Routed>());
        assert!(size_of::<crate::step::Response>() <= 64, "{}", size_of::<crate::step::Response>());
        assert!(size_of::<crate::step::Error>() <= 64, "{}", size_of::<crate::step::Error>());
    }
}
