//! Rules bound to what they act on: pools, endpoints' health, retry budgets, metric series.
//!
//! Built by the control thread when configuration changes (`discovery::binder`), read by workers with no lock and no look-up
//! by name. What has state of its own (an endpoint's health, a budget) is carried over from the table
//! before, so that a change of configuration forgets nothing.

mod affinity;
mod egress;
mod filters;
mod gateway;
mod limits;
mod others;
mod places;
mod rules;
mod session;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use selvedge_model::{
    BackendName, Called, Place, Protocol, ProxyProtocol, ServiceKey, SpiffeId, TrafficPolicy, Workload,
    WorkloadName, locality::LeftOut,
};

pub use self::affinity::{Affinity, AffinityCookie, CookieText, Signature};
pub use self::egress::{Denied, Egress, Permit, Refused, Rules, Ruling, judged, withdrawn};
pub use self::filters::{BoundBasic, BoundFilters, BoundMirror};
pub use self::gateway::{BoundListener, BoundPort, BoundTls, Life};
pub use self::limits::{BoundGlobal, BoundLimits, Exceeded, LastKey, Left, LimitServer, Limiters};
pub use self::others::{Other, Others};
pub use self::places::Places;
pub use self::rules::{BoundHttp, BoundRule, BoundShare, BoundTcp, BoundTcpRule, SeriesPair};
pub(crate) use self::session::stands_for;
pub use self::session::{BoundSession, Carrier, Session};
use crate::{
    balance::{Balancer, Candidate, Circuit, Counts, Ejection, Flight, Health, Latency, Load},
    budget::RetryBudget,
    dns::DnsName,
    telemetry::Peer,
    trust::outside::Origination,
};

/// Everything that workers look up, at one moment.
#[derive(Debug, Default, Clone)]
pub struct Table {
    /// What each authority that was asked for means; lower case, as the client wrote it.
    pub destinations: HashMap<Arc<str>, Arc<Destination>>,
    /// Those of them that are addresses, as redirected connections are looked up.
    pub addresses: HashMap<SocketAddr, Arc<Destination>>,
    /// Who we are and what we let in. `None`: not known yet, so nothing is let in.
    pub own: Option<Arc<Workload>>,
    /// Whom our workload may call.
    pub egress: Egress,
    /// What we serve as a gateway, by the port that clients call.
    pub gateway: BTreeMap<u16, Arc<BoundPort>>,
    /// How many requests we let in. `None`: all.
    pub limits: Option<Arc<BoundLimits>>,
    /// The backends whose endpoints are compared with each other, or asked whether they are well; each once. The same list as in
    /// the table before if all of them are the same.
    pub looked_after: Arc<[Arc<BoundBackend>]>,
}

impl Table {
    /// All backends that requests and connections may go to, each once.
    pub fn backends(&self) -> Vec<&Arc<BoundBackend>> {
        let ours = self.gateway.values().flat_map(|port| &port.listeners);
        let ours = ours.flat_map(|listener| listener.hosts.iter().flatten());
        let destinations = self.destinations.values().chain(ours);
        let bounds = destinations.flat_map(|one| [&one.bound, &one.service].into_iter().flatten());
        let mut seen = HashSet::new();
        let backends = bounds.flat_map(|bound| &bound.backends);
        backends.filter(|backend| seen.insert(Arc::as_ptr(backend))).collect()
    }
}

/// What one authority means.
#[derive(Debug)]
pub struct Destination {
    /// The authority.
    pub authority: Arc<str>,
    /// The service behind it. `None`: the control plane knows of nothing by that name.
    pub bound: Option<Arc<Bound>>,
    /// If it is an address of an endpoint: the one service that has no address of its own and has this endpoint,
    /// whose opaque connections these may be.
    pub service: Option<Arc<Bound>>,
    /// If it is an address that the control plane knows nothing of: one rule that leads to that address itself, for
    /// what may pass through.
    pub through: Option<Arc<Bound>>,
    /// Why it may be a workload's address all the same: DNS does not say where a workload's name leads. Then nothing
    /// goes out.
    pub doubt: Option<Arc<str>>,
    /// Set by workers on use, cleared by the control thread; what stays clear is unsubscribed.
    pub used: AtomicBool,
}

impl Destination {
    /// Notes that it is in use.
    pub fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

/// A service's port, its rules bound.
#[derive(Debug)]
pub struct Bound {
    /// Which port of which service; for a workload's own address, that address.
    pub key: ServiceKey,
    /// How redirected connections find it.
    pub called: Called,
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether what is sent goes wherever it was going (`ServiceEntry` resolution NONE).
    pub requested: bool,
    /// The rules for requests.
    pub http: BoundHttp,
    /// The rules for opaque connections.
    pub tcp: BoundTcp,
    /// All that the rules' shares go to.
    pub backends: Vec<Arc<BoundBackend>>,
    /// What limits retries to this service.
    pub budget: Arc<RetryBudget>,
}

/// A backend, its endpoints bound.
#[derive(Debug)]
pub struct BoundBackend {
    /// What it is called.
    pub name: BackendName,
    /// Balancing, ejection, time limits.
    pub policy: TrafficPolicy,
    /// Why it cannot be used; its share answers 503.
    pub broken: Option<Arc<str>>,
    /// Which names of its endpoints have no address, and why.
    pub unresolved: Option<Arc<str>>,
    /// Why some of its endpoints may not be called: they are not among `endpoints`.
    pub denied: Option<Denied>,
    /// Its endpoints (the subset's, if it is one), in the order in which the balancer has them; then those that it never
    /// picks.
    pub endpoints: Vec<Arc<BoundEndpoint>>,
    /// Which of them each endpoint is that its service's list has with an address; `u32::MAX`: none. For who binds the next list.
    pub listed: Box<[u32]>,
    /// Why it never picks some of them.
    pub left_out: Option<LeftOut>,
    /// Where each of them is in the list, by the address of its app.
    pub places: Places,
    /// How one of them is picked.
    pub balancer: Balancer,
    /// What stands for it in the tokens of sessions.
    pub in_tokens: u64,
    /// What its requests are kept together by; `None`: nothing.
    pub affinity: Option<Affinity>,
    /// What is in progress with it, by all workers; shared with the same backend in the table before.
    pub counts: Arc<Counts>,
    /// Ejection of its endpoints; `None` if the policy has none.
    pub ejection: Option<Arc<Ejection>>,
    /// What there may be in progress with it; `None` if the policy has no limits.
    pub circuit: Option<Circuit>,
    /// What limits retries to it; `None`: the budget of its service.
    pub retry_budget: Option<Arc<RetryBudget>>,
}

impl BoundBackend {
    /// Whether its endpoints are compared with each other, or asked whether they are well.
    pub fn is_looked_after(&self) -> bool {
        let compares = |ejection: &Arc<Ejection>| ejection.settings().compares();
        self.policy.health_check.is_some() || self.ejection.as_ref().is_some_and(compares)
    }

    /// The endpoint at `address`, whether it may be called or not.
    pub fn at(&self, address: SocketAddr) -> Option<&Arc<BoundEndpoint>> {
        self.endpoints.get(self.places.find(&self.endpoints, address)?)
    }

    /// The endpoint at `address`, if it may be called: it is one that is picked, it is not ejected, and it
    /// fails no health check, or too many do.
    pub fn callable_at(&self, address: SocketAddr, now: Instant) -> Option<&Arc<BoundEndpoint>> {
        let index = self.places.find(&self.endpoints, address)?;
        let admits = self.balancer.admits(&self.endpoints, index, self.ejection.as_deref(), now);
        self.endpoints.get(index).filter(|_| admits)
    }

    /// Whether the balancer picks the endpoint at `address`, ejected or not.
    pub fn is_picked_at(&self, address: SocketAddr) -> bool {
        self.places.find(&self.endpoints, address).is_some_and(|index| index < self.balancer.len())
    }
}

/// An endpoint as one backend sees it.
#[derive(Debug)]
pub struct BoundEndpoint {
    /// Where to connect, shared by every backend that has this endpoint.
    pub target: Arc<Target>,
    /// Where the app itself listens.
    pub address: SocketAddr,
    /// The workload, if known.
    pub workload: Option<WorkloadName>,
    /// What metrics call it; `None`: they do not tell it apart.
    pub peer: Option<Arc<Peer>>,
    /// Where it is, if known.
    pub place: Option<Arc<Place>>,
    /// The name that its address was found by, if it was.
    pub dns_name: Option<Arc<DnsName>>,
    /// Failures seen by this backend; shared with the same endpoint in the table before.
    pub health: Arc<Health>,
    /// The same as its backend's.
    pub counts: Arc<Counts>,
    /// The same as its backend's.
    pub ejection: Option<Arc<Ejection>>,
    /// How long its answers take; `None`: its backend's balancer does not ask.
    pub latency: Option<Arc<Latency>>,
    /// What its backend has in flight with it; `None`: its backend's balancer does not ask.
    pub load: Option<Arc<Load>>,
}

/// Where workers keep the connections to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// Among those to endpoints. No other target has this place while anything holds the one that has it.
    Endpoint(usize),
    /// Among those to the app beside us. Targets may share a place; its pool is that of the one used last.
    App(usize),
    /// Nowhere: each is used once.
    None,
}

/// TLS to a target, besides the mesh's own.
#[derive(Debug, Clone, Default)]
pub enum ClientTls {
    /// None: the mesh's where an identity is expected, plaintext otherwise.
    #[default]
    ByIdentity,
    /// The mesh's is asked for, and the endpoint is not meshed: it is not called.
    Impossible,
    /// As servers outside of the mesh speak it.
    Outside(Arc<Origination>),
}

/// What connections are pooled by: address, workload port, expected identity and workload, TLS, PROXY protocol.
#[derive(Debug)]
pub struct Target {
    /// Where workers keep its pool.
    pub slot: Slot,
    /// Where to connect.
    pub dial: SocketAddr,
    /// The workload's port.
    pub port: u16,
    /// Who must answer. `None`: not mutual TLS of the mesh.
    pub identity: Option<SpiffeId>,
    /// The workload that is there, as far as documents say.
    pub workload: Option<WorkloadName>,
    /// Whether network policies let us call it; `None`: they are not asked.
    pub permit: Option<Arc<Permit>>,
    /// TLS besides the mesh's.
    pub tls: ClientTls,
    /// How it is told whose connection each is; `None`: it is not. Without a sidecar only.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Requests and connections in flight, by all workers, and how many have begun.
    pub flight: Flight,
    /// Where connections may go instead.
    pub others: Others,
}

impl Target {
    /// Whether it is the app beside us.
    pub fn is_app(&self) -> bool {
        matches!(self.slot, Slot::App(_))
    }

    /// Whether health checks may ask it: it is outside the mesh, and not our app.
    pub fn is_outside(&self) -> bool {
        self.identity.is_none() && !self.is_app()
    }

    /// Whether what is sent there goes over TLS to the outside.
    pub fn is_tls_outside(&self) -> bool {
        matches!(self.tls, ClientTls::Outside(_))
    }
}

impl Candidate for BoundEndpoint {
    fn in_flight(&self) -> u32 {
        self.target.flight.now()
    }

    fn out_until(&self, now: Instant) -> Option<u64> {
        self.ejection.as_ref()?.out_until(&self.health, now)
    }

    fn latency(&self, now: Instant) -> Option<f64> {
        self.latency.as_ref().map(|latency| latency.expected(now))
    }

    fn load(&self) -> Option<&Arc<Load>> {
        self.load.as_ref()
    }
}
