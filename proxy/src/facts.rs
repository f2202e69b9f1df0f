//! What the model may look at, gathered from a connection or a request of ours.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::header::HOST;
use selvedge_model::{
    SpiffeId, Workload,
    facts::{Client, Connection, Request, Source},
    token::Token,
};

use crate::{
    arrival::OriginalDestination,
    error::Reason,
    fields::get_rare,
    step::{Conn, Error, Head},
    worker::Worker,
};

/// A connection that comes in to our workload's `port`.
pub fn incoming(
    peer: SocketAddr,
    identity: Option<&SpiffeId>,
    original: Option<OriginalDestination>,
    port: u16,
) -> Connection<'_> {
    let destination = original.and_then(OriginalDestination::dialled);
    let arrived_at = original.map(|original| original.local);
    Connection { destination, arrived_at, ..Connection::new(Source::peer(peer.ip(), identity), port) }
}

/// A connection of a client at `peer` to a gateway's `port`. If a load balancer (`via`) has named the client, policies see
/// both: the load balancer is who connects (`source.ip`), and the client is `remote.ip`, as Istio has it.
pub fn at_gateway<'a>(peer: SocketAddr, via: Option<IpAddr>, port: u16) -> Connection<'a> {
    let client = via.map_or(Client::Source, |_| Client::At(peer.ip()));
    Connection { client, ..Connection::new(Source::peer(via.unwrap_or(peer.ip()), None), port) }
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

/// The address of a client that a trusted proxy has told a gateway of, among the extensions of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// Copies what of the request `http` is looked at here to `head`, to be looked at again. A token that was verified stays so.
pub fn keep<B>(http: &http::Request<B>, head: &mut Head) {
    head.copy(http);
    if let Some(token) = http.extensions().get::<Arc<Token>>() {
        head.extensions.insert(Arc::clone(token));
    }
    if let Some(address) = http.extensions().get::<ClientAddress>() {
        head.extensions.insert(*address);
    }
}

/// `connection`, as the request `http` on it says whose it is.
pub fn of_client<'a, B>(connection: Connection<'a>, http: &http::Request<B>) -> Connection<'a> {
    match connection.client {
        Client::OfRequest => match http.extensions().get::<ClientAddress>() {
            Some(ClientAddress(address)) => Connection { client: Client::At(*address), ..connection },
            None => connection,
        },
        Client::Source | Client::At(_) => connection,
    }
}

impl Conn {
    /// The address of the client whose request `http` came on this connection.
    pub fn client_address<B>(&self, http: &http::Request<B>) -> IpAddr {
        match self.gateway() {
            Some(gateway) if gateway.trusted_hops > 0 => {
                http.extensions().get().map_or(self.peer.ip(), |ClientAddress(address)| *address)
            }
            _ => self.peer.ip(),
        }
    }

    /// What is known of a connection that comes in.
    pub fn incoming(&self) -> Connection<'_> {
        let port = self.entry().map_or(0, |entry| entry.port);
        let Some(gateway) = self.gateway() else {
            return incoming(self.peer, self.identity(), self.original, port);
        };
        let connection = at_gateway(self.peer, gateway.via, port);
        let connection = Connection { server_name: gateway.server_name.as_deref(), ..connection };
        match gateway.trusted_hops {
            0 => connection,
            _ => Connection { client: Client::OfRequest, ..connection },
        }
    }
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
