//! What is known about the connection that a request came on.

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use http::HeaderValue;
use hyper::upgrade::OnUpgrade;
use selvedge_model::SpiffeId;

use crate::{
    arrival::{Arrival, Direction, OriginalDestination},
    bind::{Destination, Target},
    body::{End, OpenTunnel},
    clients::{Client, Watch},
    error::Failure,
    telemetry::{self, Series},
};

/// What a connection's own end speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What is known about the connection that a request came on.
#[derive(Debug)]
pub struct Conn {
    /// The other end.
    pub peer: SocketAddr,
    /// What it speaks; for a request from a mesh peer, what its own client speaks.
    pub version: HttpVersion,
    /// Where it was going when it was redirected to us. `None`: nobody redirects.
    pub original: Option<OriginalDestination>,
    /// What only connections of its direction have.
    pub side: Side,
    /// What the connection becomes when it is no longer HTTP.
    pub tunnel: RefCell<Option<Box<Tunnel>>>,
    /// What its stream is told about the requests on it (HTTP/1 only).
    pub watch: OnceCell<Arc<Watch>>,
}

/// What only connections of one direction have.
#[derive(Debug)]
pub enum Side {
    /// To the app.
    Inbound(Inbound),
    /// From the app.
    Outbound(Outbound),
}

/// What is known about a connection that comes in.
#[derive(Debug)]
pub struct Inbound {
    /// Who it has proven to be. `None`: plaintext.
    pub identity: Option<SpiffeId>,
    /// Its place among the clients that come in. `None`: it does not need one.
    pub client: Option<Rc<Client>>,
    /// The workload's port that it is for.
    pub port: u16,
    /// Where its requests are forwarded, or why nowhere. The failure is boxed: few connections have it.
    pub app: Result<Arc<Target>, Box<Failure>>,
    /// What its requests are counted in.
    pub series: Arc<Series>,
    /// What the app is told about the peer: the value of `x-forwarded-client-cert`.
    pub xfcc: Option<HeaderValue>,
    /// The generation of the table whose policy lets it in, whatever its requests are.
    pub let_in: Cell<Option<u64>>,
}

impl Inbound {
    /// A connection in plaintext to the workload's `port`, which `app` serves.
    pub fn to(app: Arc<Target>, port: u16, series: Arc<Series>) -> Self {
        Self { identity: None, client: None, port, app: Ok(app), series, xfcc: None, let_in: Cell::default() }
    }

    /// A connection in plaintext whose requests are forwarded nowhere, because of a `failure`.
    pub fn unserved(failure: Failure, series: Arc<Series>) -> Self {
        let app = Err(Box::new(failure));
        Self { identity: None, client: None, port: 0, app, series, xfcc: None, let_in: Cell::default() }
    }
}

/// What is known about a connection that leaves the app.
#[derive(Debug, Default)]
pub struct Outbound {
    /// Which of the settings' upstreams all of its requests are for, whatever their authority.
    pub upstream: Option<usize>,
    /// Whether CONNECT opens tunnels on it.
    pub offers_tunnels: bool,
    /// What the last look-up found.
    pub last: RefCell<Option<LastLookup>>,
}

impl Conn {
    /// A connection that came by `arrival`, and speaks `version`.
    pub fn new(arrival: Arrival, version: HttpVersion, side: Side) -> Self {
        let Arrival { peer, original, .. } = arrival;
        Self { peer, version, original, side, tunnel: RefCell::default(), watch: OnceCell::new() }
    }

    /// Which way its requests go.
    pub fn direction(&self) -> Direction {
        match self.side {
            Side::Inbound(_) => Direction::Inbound,
            Side::Outbound(_) => Direction::Outbound,
        }
    }

    /// What is known of it if it comes in.
    pub fn inbound(&self) -> Option<&Inbound> {
        match &self.side {
            Side::Inbound(inbound) => Some(inbound),
            Side::Outbound(_) => None,
        }
    }

    /// What is known of it if it leaves the app.
    pub fn outbound(&self) -> Option<&Outbound> {
        match &self.side {
            Side::Inbound(_) => None,
            Side::Outbound(outbound) => Some(outbound),
        }
    }

    /// Who the other end has proven to be. `None`: plaintext.
    pub fn identity(&self) -> Option<&SpiffeId> {
        self.inbound()?.identity.as_ref()
    }
}

/// What a look-up found.
#[derive(Debug, Clone)]
pub struct LastLookup {
    /// The table that it was found in.
    pub generation: u64,
    /// The authority that it holds for, as the client writes it. `None`: for any, because the address that
    /// the client dialled says it all.
    pub authority: Option<Arc<str>>,
    /// What was found.
    pub destination: Arc<Destination>,
}

impl LastLookup {
    /// What was found, if it is still in force and holds for `authority`. It counts as used: a client that
    /// keeps its connection for long would otherwise lose what it calls all the time.
    pub fn again(&self, generation: u64, authority: &str) -> Option<&Arc<Destination>> {
        let holds = || self.authority.as_ref().is_none_or(|own| own.eq_ignore_ascii_case(authority));
        let found = (self.generation == generation && holds()).then_some(&self.destination)?;
        found.touch();
        Some(found)
    }
}

/// What a connection or a stream goes on as when it is HTTP no longer.
#[derive(Debug)]
pub enum Tunnel {
    /// A WebSocket.
    WebSocket(Switched),
    /// Opaque TCP.
    Connect {
        /// The client's end.
        client: OnUpgrade,
        /// The way to the endpoint.
        opened: Box<dyn OpenTunnel>,
    },
}

/// Two connections that have become one stream of bytes each way.
#[derive(Debug)]
pub struct Switched {
    /// The client's end.
    pub client: OnUpgrade,
    /// The app's end.
    pub server: OnUpgrade,
    /// What happens when it ends.
    pub end: Box<End>,
    /// The connection that its request came on.
    pub conn: Rc<Conn>,
    /// On the way in, the request in normal form, so that policies can be asked about it again.
    pub head: Option<Box<http::Request<()>>>,
}

impl telemetry::ClientConnection for Conn {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    fn identity(&self) -> Option<&SpiffeId> {
        Self::identity(self)
    }

    fn series(&self) -> Option<&Arc<Series>> {
        Some(&self.inbound()?.series)
    }

    /// Outbound with the service that was last looked up.
    fn unanswered(&self) -> Option<Arc<Series>> {
        let last = self.outbound()?.last.borrow();
        let bound = last.as_ref()?.destination.bound.as_ref()?;
        Some(Arc::clone(&bound.http.unrouted.plain))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn found(authority: Option<&str>) -> LastLookup {
        let destination = Destination {
            authority: Arc::from("reviews:9080"),
            bound: None,
            service: None,
            through: None,
            doubt: None,
            used: AtomicBool::new(false),
        };
        LastLookup { generation: 7, authority: authority.map(Arc::from), destination: Arc::new(destination) }
    }

    #[test]
    fn what_was_found_holds_for_its_authority_and_its_table() {
        let found = found(Some("reviews:9080"));

        assert!(found.again(7, "Reviews:9080").is_some());
        assert!(found.again(7, "ratings:9080").is_none());
        assert!(found.again(8, "reviews:9080").is_none());
    }

    #[test]
    fn what_an_address_says_holds_for_any_authority() {
        assert!(found(None).again(7, "anything").is_some());
    }

    #[test]
    fn each_use_is_noted_on_a_connection_that_is_kept() {
        let found = found(None);
        for _ in 0..2 {
            found.destination.used.store(false, Ordering::Relaxed);

            found.again(7, "reviews");

            assert!(found.destination.used.load(Ordering::Relaxed));
        }
    }
}
