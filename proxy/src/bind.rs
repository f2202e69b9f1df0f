//! Rules bound to what they act on: pools, endpoints' health, retry budgets, metric series.
//!
//! Built by the control thread when configuration changes, read by workers with no lock and no look-up
//! by name. What has state of its own (an endpoint's health, a budget) is carried over from the table
//! before, so that a change of configuration forgets nothing.

mod egress;
mod filters;
mod rules;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Instant,
};

use selvedge_model::{
    BackendName, Called, Protocol, ServiceKey, SpiffeId, TrafficPolicy, Workload, WorkloadName,
};

pub use self::egress::{Egress, Permit, withdrawn};
pub use self::filters::{BoundFilters, BoundMirror};
pub use self::rules::{BoundHttp, BoundRule, BoundShare, BoundTcp, BoundTcpRule, SeriesPair};
use crate::{
    balance::{Balancer, Candidate, Circuit, Counts, Ejection, Health},
    budget::RetryBudget,
    dns::DnsName,
    error::Failure,
    trust::outside::Origination,
};

/// Everything that workers look up, at one moment.
#[derive(Debug, Default)]
pub struct Table {
    /// What each authority that was asked for means; lower case, as the client wrote it.
    pub destinations: HashMap<Arc<str>, Arc<Destination>>,
    /// Those of them that are addresses, as redirected connections are looked up.
    pub addresses: HashMap<SocketAddr, Arc<Destination>>,
    /// Who we are and what we let in. `None`: not known yet, so nothing is let in.
    pub own: Option<Arc<Workload>>,
    /// Whom our workload may call.
    pub egress: Egress,
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
    pub denied: Option<Failure>,
    /// Its endpoints (the subset's, if it is one).
    pub endpoints: Vec<Arc<BoundEndpoint>>,
    /// How one of them is picked.
    pub balancer: Balancer,
    /// What is in progress with it, by all workers; shared with the same backend in the table before.
    pub counts: Arc<Counts>,
    /// Ejection of its endpoints; `None` if the policy has none.
    pub ejection: Option<Arc<Ejection>>,
    /// What there may be in progress with it; `None` if the policy has no limits.
    pub circuit: Option<Circuit>,
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
    /// The name that its address was found by, if it was.
    pub dns_name: Option<Arc<DnsName>>,
    /// Failures seen by this backend; shared with the same endpoint in the table before.
    pub health: Arc<Health>,
    /// The same as its backend's.
    pub ejection: Option<Arc<Ejection>>,
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

/// What connections are pooled by: address, workload port, expected identity and workload, TLS.
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
    /// Requests in flight, by all workers.
    pub in_flight: AtomicU32,
}

impl Target {
    /// Whether it is the app beside us.
    pub fn is_app(&self) -> bool {
        matches!(self.slot, Slot::App(_))
    }

    /// Whether what is sent there goes over TLS to the outside.
    pub fn is_tls_outside(&self) -> bool {
        matches!(self.tls, ClientTls::Outside(_))
    }
}

impl Candidate for BoundEndpoint {
    fn in_flight(&self) -> u32 {
        self.target.in_flight.load(Ordering::Relaxed)
    }

    fn is_available(&self, now: Instant) -> bool {
        self.ejection.as_ref().is_none_or(|ejection| !ejection.is_ejected(&self.health, now))
    }
}
