//! What is known about the connection that a request came on.

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use http::{HeaderValue, uri::Authority};
use hyper::upgrade::OnUpgrade;
use selvedge_model::SpiffeId;

use crate::{
    arrival::{Arrival, Direction, OriginalDestination},
    bind::{Bound, BoundPort, Destination, LastKey, Life, Target},
    body::{End, OpenTunnel},
    clients::{Client, Watch},
    error::{Failure, Reason},
    telemetry::{self, Record, Series},
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
    /// The client: the other end, or whom a load balancer before a gateway has named.
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
    /// Why we have ended it. `None`: we have not.
    pub cut: Cell<Option<Reason>>,
}

/// What only connections of one direction have.
#[derive(Debug)]
pub enum Side {
    /// To the app.
    Inbound(Inbound),
    /// From the app.
    Outbound(Outbound),
    /// From a stranger, to a gateway.
    Gateway(Box<AtGateway>),
}

/// What is known about a connection that comes in.
#[derive(Debug)]
pub struct Inbound {
    /// Who it has proven to be. `None`: plaintext.
    pub identity: Option<SpiffeId>,
    /// What its requests are let in by.
    pub entry: Entry,
    /// Where its requests are forwarded, or why nowhere. The failure is boxed: few connections have it.
    pub app: Result<Arc<Target>, Box<Failure>>,
    /// What its requests are counted in.
    pub series: Arc<Series>,
    /// What the app is told about the peer: the value of `x-forwarded-client-cert`.
    pub xfcc: Option<HeaderValue>,
}

/// What is known of a connection that policy must let in.
#[derive(Debug, Default)]
pub struct Entry {
    /// Its place among the clients that come in. `None`: it does not need one.
    pub client: Option<Rc<Client>>,
    /// The port that it is for: the workload's, or a gateway's as its clients call it.
    pub port: u16,
    /// What the policy of a generation of the table says of it; `None`: it was not asked yet, or it refuses.
    pub decided: Cell<Option<(u64, Decided)>>,
    /// Where the bucket of its client is, if a rate limit goes by identities.
    pub limited: LastKey,
}

/// What a policy says of a connection that it does not refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// It is let in, whatever its requests are.
    LetIn,
    /// Each of its requests is asked for.
    ByRequest,
}

impl Entry {
    /// A connection to `port`, of which nothing is decided yet.
    pub fn to(port: u16, client: Option<Rc<Client>>) -> Self {
        Self { client, port, decided: Cell::default(), limited: LastKey::default() }
    }

    /// What the policy of this `generation` has said of it.
    pub fn decided_at(&self, generation: u64) -> Option<Decided> {
        self.decided.get().filter(|(at, _)| *at == generation).map(|(_, decided)| decided)
    }
}

impl Inbound {
    /// A connection in plaintext to the workload's `port`, which `app` serves.
    pub fn to(app: Arc<Target>, port: u16, series: Arc<Series>) -> Self {
        Self { identity: None, entry: Entry::to(port, None), app: Ok(app), series, xfcc: None }
    }

    /// A connection in plaintext whose requests are forwarded nowhere, because of a `failure`.
    pub fn unserved(failure: Failure, series: Arc<Series>) -> Self {
        let app = Err(Box::new(failure));
        Self { identity: None, entry: Entry::default(), app, series, xfcc: None }
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

/// What is known about a connection to a gateway.
#[derive(Debug)]
pub struct AtGateway {
    /// What its requests are let in by.
    pub entry: Entry,
    /// The port that it came to, as it was when the connection began.
    pub port: Arc<BoundPort>,
    /// How many proxies before us are trusted to say whom they were called by.
    pub trusted_hops: u8,
    /// The load balancer that has named the client. `None`: the client connects itself.
    pub via: Option<IpAddr>,
    /// What its TLS chose. `None`: plaintext.
    pub listener: Option<Life>,
    /// The name that its TLS asks for, lower case.
    pub server_name: Option<Box<str>>,
    /// What the app is told about the client: the value of `x-forwarded-client-cert`.
    pub xfcc: Option<HeaderValue>,
    /// The virtual host that the last look-up found.
    pub last: RefCell<Option<LastHost>>,
    /// The client's address, as the app is told it. Written once: all requests need it.
    pub address: OnceCell<HeaderValue>,
    /// What the last request has named.
    pub named: RefCell<Option<LastNamed>>,
}

/// What a request has named, as it is told to apps and as its URI has it. Most requests on a connection name the same.
#[derive(Debug)]
pub struct LastNamed {
    /// As the value of a header.
    pub host: HeaderValue,
    /// The same as a part of a URI; `None`: it is none.
    pub authority: Option<Authority>,
}

/// The virtual host that a look-up found.
#[derive(Debug, Clone)]
pub struct LastHost {
    /// The table that it was found in.
    pub generation: u64,
    /// The authority that it holds for.
    pub authority: Box<str>,
    /// Its rules.
    pub bound: Arc<Bound>,
}

impl LastHost {
    /// Its rules, if they are still in force and hold for `authority`.
    pub fn again(&self, generation: u64, authority: &str) -> Option<&Arc<Bound>> {
        let holds = self.generation == generation && self.authority.eq_ignore_ascii_case(authority);
        holds.then_some(&self.bound)
    }
}

impl AtGateway {
    /// A connection to `port` that came by `arrival`, whose place is `client`. For one over TLS, `listener` and `xfcc` are to be
    /// set.
    pub fn new(arrival: Arrival, port: Arc<BoundPort>, client: Rc<Client>, trusted_hops: u8) -> Self {
        Self {
            entry: Entry::to(port.served.port, Some(client)),
            port,
            trusted_hops,
            via: arrival.via,
            listener: None,
            server_name: None,
            xfcc: None,
            last: RefCell::default(),
            address: OnceCell::new(),
            named: RefCell::default(),
        }
    }

    /// The address of `peer`, whose connection it is, as a header's value.
    pub fn address_of(&self, peer: SocketAddr) -> HeaderValue {
        self.address.get_or_init(|| address_value(peer.ip())).clone()
    }
}

/// `address` as a header's value.
pub fn address_value(address: IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_string()).expect("digits, letters, dots and colons")
}

impl Conn {
    /// A connection that came by `arrival`, and speaks `version`.
    pub fn new(arrival: Arrival, version: HttpVersion, side: Side) -> Self {
        let Arrival { peer, original, .. } = arrival;
        let (tunnel, watch, cut) = (RefCell::default(), OnceCell::new(), Cell::new(None));
        Self { peer, version, original, side, tunnel, watch, cut }
    }

    /// Which way it goes itself. A gateway's clients come in, although their requests go on from it as an app's do.
    pub fn direction(&self) -> Direction {
        match self.side {
            Side::Inbound(_) | Side::Gateway(_) => Direction::Inbound,
            Side::Outbound(_) => Direction::Outbound,
        }
    }

    /// What policy must let in; `None`: our own app may always go out.
    pub fn entry(&self) -> Option<&Entry> {
        match &self.side {
            Side::Inbound(inbound) => Some(&inbound.entry),
            Side::Gateway(gateway) => Some(&gateway.entry),
            Side::Outbound(_) => None,
        }
    }

    /// The same, if its requests may go on at all: whoever is refused anyway is not asked about again.
    pub fn guarded(&self) -> Option<&Entry> {
        match &self.side {
            Side::Inbound(Inbound { app: Err(_), .. }) => None,
            _ => self.entry(),
        }
    }

    /// Whether what its client speaks with us is encrypted.
    pub fn is_secure(&self) -> bool {
        self.gateway().is_some_and(|gateway| gateway.listener.is_some())
    }

    /// Whether it comes in and has proven no identity of the mesh.
    pub fn is_strangers(&self) -> bool {
        self.entry().is_some() && self.identity().is_none()
    }

    /// What is known of it if it comes in.
    pub fn inbound(&self) -> Option<&Inbound> {
        match &self.side {
            Side::Inbound(inbound) => Some(inbound),
            Side::Outbound(_) | Side::Gateway(_) => None,
        }
    }

    /// What is known of it if it leaves the app.
    pub fn outbound(&self) -> Option<&Outbound> {
        match &self.side {
            Side::Outbound(outbound) => Some(outbound),
            Side::Inbound(_) | Side::Gateway(_) => None,
        }
    }

    /// What is known of it if it came to a gateway.
    pub fn gateway(&self) -> Option<&AtGateway> {
        match &self.side {
            Side::Gateway(gateway) => Some(gateway),
            Side::Inbound(_) | Side::Outbound(_) => None,
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
        /// What is written down when it is over. `None`: nothing is asked for.
        record: Option<Box<Record>>,
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

    fn cut(&self) -> Option<Reason> {
        self.cut.get()
    }

    fn is_http2(&self) -> bool {
        self.version == HttpVersion::Http2
    }

    fn is_tls(&self) -> bool {
        self.is_secure()
    }

    /// With the service, or the virtual host, that was last looked up.
    fn unanswered(&self) -> Option<Arc<Series>> {
        if let Some(gateway) = self.gateway() {
            return gateway.last.borrow().as_ref().map(|last| Arc::clone(&last.bound.http.unrouted.plain));
        }
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
