//! The gateway's path: from a stranger, past policy, and then as from an app: through routing, retries and balancing, to
//! an endpoint.
//!
//! Requests are counted as outgoing ones, because that is what they are to the services behind the gateway. Clients'
//! connections are counted as incoming ones, and have the places of those.

mod places;
mod plain;
mod proxied;
mod tls;

use std::{rc::Rc, time::Duration};

use bytes::BytesMut;
use futures_util::future::LocalBoxFuture;
use selvedge_model::gateway::Carries;
use tokio::net::TcpStream;
use tower::ServiceBuilder;

pub use self::places::seats;
use crate::{
    arrival::{Arrival, Direction},
    authenticate::authenticate,
    authorize::authorize,
    bind::BoundPort,
    clients::Client,
    detect::{First, detect_until},
    dispatch::dispatch,
    edge::{self, edge},
    error::{Failure, Reason},
    io::Abort,
    normalize::normalize,
    observe::observe,
    refuse::refuse,
    respond::respond,
    retry, route,
    step::{Request, Step},
    worker::Worker,
};

/// Why a client is turned away that speaks TLS where HTTP in plaintext is served.
pub const TLS_AT_PLAINTEXT: &str =
    "the client speaks TLS, and this port of the gateway is for HTTP in plaintext";
/// Why a client is turned away that does not speak TLS where it must.
pub const PLAINTEXT_AT_TLS: &str =
    "the client does not speak TLS, and this port of the gateway is for TLS alone";
/// Why a client is turned away whose TLS server name is that of no listener.
pub const NO_LISTENER: &str = "no listener of this port is for the name that TLS asks for";
/// Why a client is turned away whose listener cannot end TLS.
pub const NO_CERTIFICATE: &str = "its listener has no certificate that can be used";

/// How long a client may take to send its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(10);

/// Why a client is turned away.
const NO_PLACE: &str = "all places that --max-connections leaves for clients without a certificate are taken";

/// The path of a request that comes to this gateway, first step first.
pub fn path(worker: &Rc<Worker>) -> impl Step<Request> + use<> {
    let unknown = worker.metrics.unknown_destination(&worker.settings.workload);
    ServiceBuilder::new()
        .layer(observe(worker, Direction::Outbound, unknown)) // keeps one record of each request; sees every answer, the proxy's own included
        .layer(respond(Rc::clone(worker))) // our failures become HTTP or gRPC answers
        .layer(refuse(Rc::clone(worker))) // what is malformed or too large, or comes while too much is held
        .layer(normalize(worker.settings.path_slashes.into())) // one path and one authority, for all that follows
        .layer(edge()) // what the client says about itself is replaced by what is known of it
        .layer(edge::pace(Rc::clone(worker))) // no more of them in a second than one client may send
        .layer(authenticate(Rc::clone(worker))) // whose token is not accepted goes no further
        .layer(authorize(Rc::clone(worker))) // by the policy in force now, not when the connection came
        .layer(route::limit(Rc::clone(worker))) // no more of them than the gateway's rate limits let in
        .layer(route::find(Rc::clone(worker))) // Request -> Matched: the virtual host's rule that it follows
        .layer(route::filter(Rc::clone(worker))) // the rule's filters: faults, redirects, changes of headers and paths, copies for mirrors
        .layer(route::draw(Rc::clone(worker))) // Matched -> Routed: one of the rule's backends
        .layer(route::timeout(Rc::clone(worker))) // the whole request, all attempts
        .layer(retry::attempts(Rc::clone(worker))) // Routed -> Attempt, one or several
        .service(dispatch(Rc::clone(worker)))
}

/// Carries one connection of a client's to `port`.
pub async fn connection(
    worker: Rc<Worker>,
    path: impl Step<Request>,
    tcp: TcpStream,
    arrival: Arrival,
    port: u16,
    client: Rc<Client>,
) {
    let mut begun = Begun { tcp, read: BytesMut::new(), arrival, client };
    if proxied::is_announced(&worker.settings, arrival.peer.ip()) {
        // Boxed: connections that come directly would carry its room.
        match Box::pin(proxied::named(&worker, begun, port)).await {
            Some(named) => begun = named,
            None => return,
        }
    }
    worker.view.refresh();
    // It may be gone since the connection was accepted.
    let Some(port) = worker.view.with(|table| table.gateway.get(&port).cloned()) else { return };
    // Boxed: to find out what a connection carries takes room that it does not need any more then.
    let served = match port.served.carries {
        Carries::Http => Box::pin(plain::http(worker, path, begun, port)).await,
        Carries::Tcp => return Box::pin(plain::opaque(worker, begun, port)).await,
        Carries::Tls => Box::pin(tls::carry(worker, path, begun, port)).await,
    };
    if let Some(served) = served {
        served.await;
    }
}

/// How a connection goes on whose requests are served.
type Served = LocalBoxFuture<'static, ()>;

/// A client's connection, of which nothing is known but who it is.
struct Begun {
    tcp: TcpStream,
    /// What was read of it.
    read: BytesMut,
    arrival: Arrival,
    /// Its place.
    client: Rc<Client>,
}

/// Counts and logs a connection that is not let in.
fn refuse_connection(worker: &Worker, arrival: Arrival, failure: &Failure) {
    worker.metrics.connection_refused(Direction::Inbound, false, failure.reason);
    if let Some(left_out) = worker.says_refused(arrival.peer, failure) {
        tracing::info!(peer = %arrival.peer, %failure, left_out, "connection refused");
    }
}

/// Waits for a connection's first bytes. `None`: it failed, or they did not come in time or before the port is closed.
async fn first(worker: &Worker, tcp: &mut TcpStream, read: &mut BytesMut, port: &BoundPort) -> Option<First> {
    let over = async {
        tokio::select! {
            () = worker.leave.closed(Direction::Inbound) => {}
            () = port.life.ended() => {}
        }
    };
    detect_until(tcp, read, None, FIRST_BYTE, over).await
}

/// Gives the client a place among those without a certificate. `false`: there is none.
fn admit(worker: &Worker, arrival: Arrival, client: &Rc<Client>, stream: &impl Abort) -> bool {
    let admitted = worker.places.admit_plain(client);
    if !admitted {
        refuse_connection(worker, arrival, &Failure::new(Reason::Overflow, NO_PLACE));
        stream.abort();
    }
    admitted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::{Error, Response};

    fn size_of_output<A, B, C, D, E, R>(_: impl FnOnce(A, B, C, D, E) -> R) -> usize {
        size_of::<R>()
    }

    /// Every client holds it, idle ones too, beside the room of [`serve::serve`](crate::serve).
    #[test]
    fn what_a_connection_holds_while_it_is_served_stays_small() {
        let path = tower::service_fn(|_: Request| std::future::pending::<Result<Response, Error>>());
        let size = size_of_output(|worker, tcp, arrival, port, client| {
            connection(worker, path, tcp, arrival, port, client)
        });
        assert!(size <= 768, "{size}");
    }
}
