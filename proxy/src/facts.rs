//! What the model may look at, gathered from a connection or a request of ours.

use std::{net::SocketAddr, sync::Arc};

use http::header::HOST;
use selvedge_model::{
    SpiffeId, Workload,
    facts::{Connection, Request, Source},
    token::Token,
};

use crate::{
    arrival::OriginalDestination,
    error::Reason,
    fields::get_rare,
    step::{Conn, Error},
    worker::Worker,
};

/// A connection that comes in to our workload's `port`.
pub fn incoming(
    peer: SocketAddr,
    identity: Option<&SpiffeId>,
    original: Option<OriginalDestination>,
    port: u16,
) -> Connection<'_> {
    let destination = dialled(original);
    let arrived_at = original.map(|original| original.local);
    Connection { destination, arrived_at, ..Connection::new(Source::peer(peer.ip(), identity), port) }
}

/// A connection of our app's at `peer` to a service's `port`. `own` is our workload, as soon as it is known.
pub fn outgoing<'a>(
    worker: &'a Worker,
    own: Option<&'a Workload>,
    peer: SocketAddr,
    port: u16,
) -> Connection<'a> {
    let source = Source {
        address: Some(peer.ip()),
        identity: own.map(|own| &own.identity),
        namespace: Some(worker.settings.workload.namespace()),
        labels: own.map_or(Source::UNKNOWN.labels, |own| &own.labels),
    };
    Connection::new(source, port)
}

/// A request on `connection`.
///
/// # Errors
/// If it names no authority.
pub fn request<'a, B>(
    http: &'a http::Request<B>,
    connection: &'a Connection<'a>,
) -> Result<Request<'a>, Error> {
    Ok(Request {
        connection,
        method: http.method(),
        scheme: http.uri().scheme_str().unwrap_or("http"),
        authority: authority(http)?,
        path: http.uri().path(),
        query: http.uri().query().unwrap_or_default(),
        headers: http.headers(),
        token: http.extensions().get::<Arc<Token>>().map(|token| &**token),
    })
}

impl Conn {
    /// What is known of a connection that comes in.
    pub fn incoming(&self) -> Connection<'_> {
        incoming(self.peer, self.identity(), self.original, self.inbound().map_or(0, |inbound| inbound.port))
    }
}

/// Where a connection was going when it was redirected to us.
pub fn dialled(original: Option<OriginalDestination>) -> Option<SocketAddr> {
    original.filter(|original| !original.is_ours).map(|original| original.address)
}

/// The host and port that the request names.
///
/// # Errors
/// If it names none.
pub fn authority<B>(request: &http::Request<B>) -> Result<&str, Error> {
    if let Some(authority) = request.uri().authority() {
        return Ok(authority.as_str());
    }
    // There is no second one: `normalize` has seen to that.
    match get_rare(request.headers(), &HOST).map(http::HeaderValue::to_str) {
        Some(Ok(host)) if !host.is_empty() => Ok(host),
        _ => Err(Error::new(Reason::BadRequest, "the request must have exactly one Host header")),
    }
}
