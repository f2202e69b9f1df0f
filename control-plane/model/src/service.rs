//! What can be called: services, the backends that their routes name, and the endpoints behind them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::Serialize;

use crate::{
    HostPort, Place, RouteTable, SpiffeId, TcpTable, TrafficPolicy, UpstreamTls, WorkloadName,
    gateway::{CertificateName, UserListName},
};

/// Ports of protocols whose servers speak first, or that are not HTTP wherever they are met: unless something
/// else is declared, what is spoken there is opaque. Istio's and Linkerd's lists together.
pub const OPAQUE_PORTS: [u16; 10] = [25, 53, 587, 3306, 4444, 5432, 6379, 9300, 11211, 27017];

/// One port of one service: the unit that is looked up, routed and subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ServiceKey {
    /// The fully qualified host, such as `reviews.default.svc.cluster.local`; lower case. Where a namespace has a host of its own that
    /// others have, too, `@` and the namespace follow.
    pub host: Arc<str>,
    /// The service's port.
    pub port: u16,
}

impl ServiceKey {
    /// The port `port` of the service `host`.
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: Arc::from(host), port }
    }

    /// What `host` is called if it is the namespace's own, whatever others have under this name. No host has an `@` in it.
    pub fn own_host(host: &str, namespace: &str) -> String {
        format!("{host}@{namespace}")
    }

    /// The name by which clients call it, and what documents call it.
    pub fn name(&self) -> &str {
        self.host.split_once('@').map_or(&*self.host, |(name, _)| name)
    }

    /// Of no service: what is known by a DNS name and may be at `port`.
    pub fn named(port: u16) -> Self {
        Self::new("*", port)
    }

    /// Of no service: the workloads with an app at `port` whose sidecars connections reach only if they are made to them.
    pub fn beside_sidecars(port: u16) -> Self {
        Self::new("*sidecars", port)
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What is spoken on a port, as its `appProtocol` or name says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Protocol {
    /// Not said: HTTP/1.1 or HTTP/2, whichever the client speaks.
    #[default]
    Unspecified,
    /// HTTP/1.1 (or HTTP/2 where the client speaks it).
    Http,
    /// HTTP/2, gRPC included.
    Http2,
    /// Opaque bytes.
    Tcp,
}

impl Protocol {
    /// What is spoken on `port` for which this is declared, where `opaque` are the ports that are opaque unless something
    /// else is declared.
    pub fn spoken(self, port: u16, opaque: &[u16]) -> Self {
        if self == Self::Unspecified && opaque.contains(&port) { Self::Tcp } else { self }
    }
}

/// A service's port as one class of clients sees it: its routes, and the backends that they name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Service {
    /// Which port of which service.
    pub key: ServiceKey,
    /// The addresses by which alone it is called where connections are redirected (a `Service`'s
    /// clusterIPs). Empty: it is called by name, at whichever address.
    pub addresses: Vec<IpAddr>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Which backend a request goes to.
    pub routes: RouteTable,
    /// Which backend an opaque connection goes to.
    pub tcp: TcpTable,
    /// What the rules of `routes` and `tcp` name by index.
    pub backends: Vec<Backend>,
}

impl Service {
    /// The certificates that a gateway shows to servers of its backends.
    pub fn certificates(&self) -> BTreeSet<&CertificateName> {
        let tls = self.backends.iter().filter_map(|backend| backend.policy.tls.as_ref());
        tls.filter_map(UpstreamTls::certificate).collect()
    }

    /// The users that its rules let in by their passwords, once each.
    pub fn user_lists(&self) -> BTreeSet<&UserListName> {
        let filters = self.routes.rules().iter().map(|rule| &rule.filters);
        filters.filter_map(|filters| filters.basic.as_ref()).map(|basic| &basic.users).collect()
    }
}

/// What a route names: a service's port, or a subset of its endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct BackendName {
    /// The service's port.
    pub service: ServiceKey,
    /// The `DestinationRule` subset, if the route names one.
    pub subset: Option<Arc<str>>,
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subset {
            Some(subset) => write!(f, "{}/{subset}", self.service),
            None => fmt::Display::fmt(&self.service, f),
        }
    }
}

/// One backend with the policy that clients apply to it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Backend {
    /// What it is called in logs, metrics and errors.
    pub name: BackendName,
    /// The endpoints of `name.service` that carry all these labels.
    pub labels: BTreeMap<String, String>,
    /// Balancing, ejection, time limits.
    pub policy: TrafficPolicy,
    /// Why this backend cannot be used (an unknown host or subset): its share answers 503.
    pub broken: Option<String>,
}

/// All endpoints of one service port; the same for every client.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Endpoints {
    /// Which port of which service.
    pub key: ServiceKey,
    /// In a stable order.
    pub list: Vec<Endpoint>,
    /// Those whose addresses only DNS knows; each client resolves them in its own network.
    pub named: Vec<NamedEndpoint>,
    /// If a request goes wherever its own authority says (`ServiceEntry` resolution NONE): to which port there.
    pub requested: Option<u16>,
}

impl Endpoints {
    /// These endpoints and no others.
    pub fn new(key: ServiceKey, list: Vec<Endpoint>) -> Self {
        Self { key, list, named: Vec::new(), requested: None }
    }

    /// The ports at which DNS alone says who is called in plaintext. A workload may be there whose sidecar must not be
    /// passed by: one of [`ServiceKey::beside_sidecars`].
    pub fn unproven_ports(&self) -> BTreeSet<u16> {
        unproven_ports(&self.named, self.requested)
    }
}

/// [`Endpoints::unproven_ports`], of their parts.
pub fn unproven_ports(named: &[NamedEndpoint], requested: Option<u16>) -> BTreeSet<u16> {
    let named = named.iter().filter(|one| one.identity.is_none()).map(|one| one.dial.port);
    named.chain(requested).collect()
}

/// An endpoint by name: as many endpoints as the name has addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct NamedEndpoint {
    /// Where the app itself listens.
    pub address: HostPort,
    /// Where a client's sidecar connects: `address`, or the workload's inbound listener in explicit mode.
    pub dial: HostPort,
    /// Whether only one of the addresses is used at a time (`DNS_ROUND_ROBIN`).
    pub one_address: bool,
    /// The identity that each of the addresses must prove. `None`: it is called in plaintext.
    pub identity: Option<SpiffeId>,
    /// The workload, if it is one.
    pub workload: Option<WorkloadName>,
    /// The workload's labels, for subsets; shared with all else that knows them.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Its share of requests is this / the sum of its backend's endpoints'; not 0.
    pub weight: u32,
    /// Where it is; shared with all else that is there. `None`: not known.
    pub place: Option<Arc<Place>>,
}

impl NamedEndpoint {
    /// The endpoint, if nothing of it is a name after all.
    pub fn fixed(&self) -> Option<Endpoint> {
        Some(Endpoint {
            address: self.address.socket()?,
            dial: self.dial.socket()?,
            identity: self.identity.clone(),
            workload: self.workload.clone(),
            labels: self.labels.clone(),
            weight: self.weight,
            place: self.place.clone(),
        })
    }
}

/// One address that answers for a service port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Endpoint {
    /// Where the app itself listens: the address and the workload's (target) port.
    pub address: SocketAddr,
    /// Where a client's sidecar connects: `address`, or the workload's inbound listener in explicit mode.
    pub dial: SocketAddr,
    /// The identity that it must prove. `None`: it is not meshed, or its workload's mode is DISABLE,
    /// and is called in plaintext.
    pub identity: Option<SpiffeId>,
    /// The workload, if one is known at this address.
    pub workload: Option<WorkloadName>,
    /// The workload's labels, for subsets; shared with all else that knows them.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Its share of requests is this / the sum of its backend's endpoints'; not 0.
    pub weight: u32,
    /// Where it is; shared with all else that is there. `None`: not known.
    pub place: Option<Arc<Place>>,
}
