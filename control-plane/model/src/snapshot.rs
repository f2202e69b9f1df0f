//! The whole mesh at one moment, as `compile` made it from documents.
//!
//! Parts are shared by `Arc`: what a change did not touch keeps its pointer, so a diff is a comparison
//! of pointers and never of contents.

mod divided;
mod named;
mod shared;
mod views;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::{
    divided::Divided,
    named::NamedAddresses,
    shared::Shared,
    views::{Clients, SelectedViews, ServiceViews},
};

use crate::{
    AppConnections, Endpoint, Endpoints, Host, InboundPolicy, Place, Protocol, Revocations, ServiceKey,
    SpiffeId, Telemetry, WorkloadName,
    gateway::{Gateway, GatewayRole},
    policy::network::{NetworkRules, PartName, SetName, SetPart, WorkloadSet},
};

/// Everything that the control plane knows to tell its proxies.
#[derive(Debug, Clone, Default)]
pub struct Mesh {
    /// Every workload, by name.
    pub workloads: Shared<BTreeMap<WorkloadName, Arc<Workload>>>,
    /// Every service port, by key.
    pub services: Shared<BTreeMap<ServiceKey, ServiceViews>>,
    /// Every service port's endpoints.
    pub endpoints: Shared<BTreeMap<ServiceKey, Arc<Endpoints>>>,
    /// Workloads by each address and port that their apps serve, and the other endpoints of services.
    pub addresses: Divided<SocketAddr, Endpoint>,
    /// Workloads by the addresses that are theirs at every port, whether anybody declares it or not.
    pub occupants: Divided<IpAddr, Occupant>,
    /// Services by each address and port that is theirs alone (a clusterIP, a `ServiceEntry`'s address).
    pub service_addresses: Shared<BTreeMap<SocketAddr, Declared>>,
    /// The same for ranges of addresses (a `ServiceEntry`'s), by their ports; the smallest ranges first. A range has
    /// only those addresses that nobody names more closely.
    pub service_ranges: Shared<BTreeMap<u16, Vec<(IpNet, Declared)>>>,
    /// Services without addresses of their own, by each address and port of their endpoints; first those of the
    /// namespace that declared the address first.
    pub callers: Divided<SocketAddr, Vec<Declared>>,
    /// The namespaces whose clients know of a service's port, where that is not all.
    pub exported: Shared<BTreeMap<ServiceKey, BTreeSet<String>>>,
    /// What is known by a DNS name, which only the proxies know the addresses of.
    pub named: Shared<NamedAddresses>,
    /// Who is refused although its certificate is still valid.
    pub revocations: Arc<Revocations>,
    /// The parts of the sets of workloads that network policies name.
    pub sets: Shared<BTreeMap<PartName, Arc<SetPart>>>,
    /// Of workloads that rules select as clients by their labels: these labels ([`Clients::selected`]).
    pub selected: Shared<BTreeMap<WorkloadName, Arc<BTreeMap<String, String>>>>,
    /// What each workload serves that is a gateway.
    pub gateways: Shared<BTreeMap<WorkloadName, Arc<Gateway>>>,
    /// Which namespace has which addresses and names by documents in files. No proxy is told.
    pub owners: Arc<Owners>,
    /// The DNS suffix of Kubernetes services, such as `cluster.local`.
    pub cluster_domain: Arc<str>,
}

/// Which namespaces have what. Whoever has something keeps it while its documents claim it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners {
    /// Who has which ports of an address, or of a name that a workload is at.
    pub addresses: Divided<Host, Vec<OwnedPorts>>,
    /// The namespace of each host of a `ServiceEntry`, which may be a wildcard.
    pub names: Shared<BTreeMap<Arc<str>, Arc<str>>>,
}

/// The ports of a host that a namespace has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedPorts {
    /// The namespace.
    pub namespace: String,
    /// `None` = all.
    pub ports: Option<BTreeSet<u16>>,
}

/// A service's port, and the namespace of the document that declares it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Declared {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The service's port.
    pub key: ServiceKey,
}

/// A workload that has all of an address: a pod, or one whose sidecar takes every connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Occupant {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Its ports that connections reach without its sidecar; first and last of each range.
    pub skipped: Vec<(u16, u16)>,
}

/// A workload as its own sidecar sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Workload {
    /// `<namespace>/<name>`.
    pub name: WorkloadName,
    /// What its certificate must say.
    pub identity: SpiffeId,
    /// Whether it has a sidecar.
    pub meshed: bool,
    /// Where clients' sidecars connect, if not at the endpoint's own address (explicit mode).
    pub inbound: Option<SocketAddr>,
    /// The ports that its app serves, by number.
    pub ports: Vec<u16>,
    /// What is spoken on those of them of which it is said.
    pub protocols: BTreeMap<u16, Protocol>,
    /// How its sidecar connects to its app, by port, where a `DestinationRule` for a service says it.
    pub app_connections: BTreeMap<u16, AppConnections>,
    /// Its labels, which rules may ask for; shared with all else that knows them.
    pub labels: Arc<BTreeMap<String, String>>,
    /// The host of the Service that leads to each of its ports, for display; of several, the first by name.
    pub services: BTreeMap<u16, Arc<str>>,
    /// Where it is. `None`: not known.
    pub place: Option<Arc<Place>>,
    /// What it lets in.
    pub policy: InboundPolicy,
    /// Whom it may call (`NetworkPolicy`). `None`: everybody.
    pub egress: Option<Arc<NetworkRules>>,
    /// That it is a gateway. `None`: it is an app with or without a sidecar.
    pub gateway: Option<Arc<GatewayRole>>,
    /// What is written down of its requests, and which are traced. `None`: nothing.
    pub telemetry: Option<Arc<Telemetry>>,
}

/// The answer to "what does this authority, or this address, mean here?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// This port of this service.
    Service(ServiceKey),
    /// An address that does not belong to a service, and may still be something.
    Address(Box<Address>),
    /// Nothing that the mesh knows; only this may pass through, as the outbound traffic policy says.
    None,
}

/// What may be at an address that does not belong to a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// A workload, or another endpoint of a service: no routes, mutual TLS if it is meshed.
    pub endpoint: Option<Endpoint>,
    /// Services without addresses of their own that have the `endpoint`; if there is none, those that have one
    /// there if their names lead there. Of several namespaces the first that has it counts.
    pub services: Vec<Declared>,
    /// Whether it may be an address that a name has: of the endpoints of [`ServiceKey::named`].
    pub named: bool,
}

impl Address {
    /// The one service that opaque connections to the address may be for. `has_it` says of a service that has no
    /// address of its own whether it is at this one. Where several of one namespace are, it is none; what other
    /// namespaces declare later changes nothing.
    pub fn only_service(&self, has_it: impl Fn(&Declared) -> bool) -> Option<&Declared> {
        let mut services = self.services.iter().filter(|declared| has_it(declared));
        let first = services.next()?;
        let another = services.any(|other| first.namespace == other.namespace);
        (!another).then_some(first)
    }
}

/// The full name that comes first where a client in `namespace` calls `host`, if that is a shorter one. It is completed to a
/// service's name only, not to a longer one, which would be anybody's to have.
pub fn completed(host: &str, namespace: &str, cluster_domain: &str) -> Option<String> {
    match host.split('.').collect::<Vec<_>>().as_slice() {
        [_] => Some(format!("{host}.{namespace}.svc.{cluster_domain}")),
        [_, _] => Some(format!("{host}.svc.{cluster_domain}")),
        [_, _, "svc"] => Some(format!("{host}.{cluster_domain}")),
        _ => None,
    }
}

impl Mesh {
    /// Those clients to whom `workload` belongs.
    pub fn clients(&self, workload: &WorkloadName) -> Clients {
        let selected = self.selected.get(workload).map(Arc::clone);
        Clients { namespace: workload.namespace().into(), selected }
    }

    /// What `authority` (`host` or `host:port`; no port = 80) means to a client in `namespace`.
    ///
    /// Names resolve as Kubernetes' DNS search list does: `svc` in the client's namespace, `svc.ns`,
    /// `svc.ns.svc`, and the full name, each with an optional trailing dot; then a `ServiceEntry`'s host
    /// as it is written, one of the client's namespace alone first, then the longest of its wildcards that fits. A `Service` has all ports of its names: at one
    /// that it does not serve there is nothing. An IP address is first a service
    /// whose own it is, then the workload or other endpoint at it (a workload that has all of its address is
    /// found by that alone), then a service in whose range it is, and then perhaps something known by name.
    pub fn lookup(&self, namespace: &str, authority: &str) -> Lookup {
        if let Some(address) = address(authority) {
            return self.lookup_address(namespace, address);
        }
        let Some((host, port)) = name_and_port(authority) else { return Lookup::None };
        self.lookup_name(namespace, &host, port)
    }

    /// Whether the services of some hosts may decide what `authority` means to a client in `namespace`: what
    /// [`Self::lookup`] of a name reads of a mesh. None does for an address, or for what is neither. `is_one` says of a name
    /// whether it is one of the hosts, and `wildcards` are those of them that begin with `*.`.
    pub fn is_decided_by<'h>(
        &self,
        namespace: &str,
        authority: &str,
        is_one: impl Fn(&str) -> bool,
        mut wildcards: impl Iterator<Item = &'h str>,
    ) -> bool {
        let name = name_and_port(authority).filter(|_| address(authority).is_none());
        let Some((asked, _)) = name else { return false };
        self.names(namespace, &asked).iter().any(|name| is_one(name))
            || wildcards.any(|host| host.strip_prefix('*').is_some_and(|suffix| asked.ends_with(suffix)))
    }

    fn lookup_name(&self, namespace: &str, host: &str, port: u16) -> Lookup {
        let services = self.suffix_of_services();
        for name in &self.names(namespace, host) {
            let own = ServiceKey::new(&ServiceKey::own_host(name, namespace), port);
            if self.is_there(namespace, &own) {
                return Lookup::Service(own);
            }
            // Nothing that others have under this name is meant.
            if self.has_other_ports(namespace, &own) {
                return Lookup::None;
            }
            let key = ServiceKey::new(name, port);
            if self.is_there(namespace, &key) {
                return Lookup::Service(key);
            }
            if name.ends_with(&services) && self.has_other_ports(namespace, &key) {
                return Lookup::None;
            }
        }
        let mut wildcards = self.wildcards(host).into_iter().map(|wildcard| ServiceKey::new(&wildcard, port));
        wildcards.find(|key| self.is_there(namespace, key)).map_or(Lookup::None, Lookup::Service)
    }

    fn suffix_of_services(&self) -> String {
        format!(".svc.{}", self.cluster_domain)
    }

    /// `host`, and the full name that it may be short for, which comes first.
    fn names(&self, namespace: &str, host: &str) -> Vec<String> {
        completed(host, namespace, &self.cluster_domain).into_iter().chain([host.to_owned()]).collect()
    }

    /// The wildcards that `host` fits; the longest comes first. Names of services belong to their namespaces: no wildcard
    /// that is wider than one namespace is for them.
    fn wildcards(&self, host: &str) -> Vec<String> {
        let services = self.suffix_of_services();
        let is_service = host.ends_with(&services);
        let wildcards = host.match_indices('.').map(|(dot, _)| &host[dot..]);
        let wildcards = wildcards.take_while(|suffix| !is_service || suffix.len() > services.len());
        wildcards.map(|suffix| format!("*{suffix}")).collect()
    }

    fn is_there(&self, namespace: &str, key: &ServiceKey) -> bool {
        self.services.contains_key(key) && self.is_known_to(namespace, key)
    }

    fn has_other_ports(&self, namespace: &str, key: &ServiceKey) -> bool {
        let at = |port| ServiceKey { host: Arc::clone(&key.host), port };
        let mut ports = self.services.range(at(0)..=at(u16::MAX)).map(|(key, _)| key);
        ports.any(|key| self.is_known_to(namespace, key))
    }

    fn lookup_address(&self, namespace: &str, address: SocketAddr) -> Lookup {
        let known = |declared: &&Declared| self.is_known_to(namespace, &declared.key);
        if let Some(own) = self.service_addresses.get(&address).filter(known) {
            return Lookup::Service(own.key.clone());
        }
        let served = self.addresses.get(&address).cloned();
        let occupant = || self.occupants.get(&address.ip());
        if let Some(endpoint) = served.or_else(|| occupant().map(|occupant| occupant.at(address))) {
            let callers = self.callers.get(&address).into_iter().flatten().filter(known);
            let services = of_first_namespace(callers);
            return Lookup::Address(Box::new(Address { endpoint: Some(endpoint), services, named: false }));
        }
        // What is a service's at one port is not somebody else's at another.
        let owner = self.owner_of_ports(address.ip());
        let theirs =
            |declared: &&Declared| known(declared) && owner.is_none_or(|owner| *owner == declared.namespace);
        if let Some(declared) = self.ranges_with(address).find(theirs) {
            return Lookup::Service(declared.key.clone());
        }
        let services = self.named.callers.get(&address.port()).into_iter().flatten();
        let services = services.filter(theirs).cloned().collect();
        let named = owner.is_none() && self.named.may_be_at(address.port());
        let found = Address { endpoint: None, services, named };
        if found == Address::default() { Lookup::None } else { Lookup::Address(Box::new(found)) }
    }

    /// Whether clients in `namespace` know of a service.
    pub fn is_known_to(&self, namespace: &str, key: &ServiceKey) -> bool {
        self.exported.get(key).is_none_or(|namespaces| namespaces.contains(namespace))
    }

    /// The namespace that has a service with the address `ip` at any port.
    fn owner_of_ports(&self, ip: IpAddr) -> Option<&Arc<str>> {
        let ports = SocketAddr::new(ip, 0)..=SocketAddr::new(ip, u16::MAX);
        self.service_addresses.range(ports).next().map(|(_, declared)| &declared.namespace)
    }

    fn ranges_with(&self, address: SocketAddr) -> impl Iterator<Item = &Declared> {
        let ranges = self.service_ranges.get(&address.port()).into_iter().flatten();
        ranges.filter(move |(range, _)| range.contains(&address.ip())).map(|(_, declared)| declared)
    }

    /// Everything known by name that may be at `port`; what [`Lookup::Address`] refers to.
    pub fn named_at(&self, port: u16) -> Endpoints {
        self.named.at(port)
    }
}

/// Those of `declared` that are of the same namespace as the first.
fn of_first_namespace<'a>(declared: impl Iterator<Item = &'a Declared>) -> Vec<Declared> {
    let mut declared = declared.peekable();
    let first = declared.peek().map(|first| Arc::clone(&first.namespace));
    declared.filter(|one| Some(&one.namespace) == first.as_ref()).cloned().collect()
}

impl Occupant {
    /// The identity that a client expects at `port`: none where it must call in plaintext.
    fn expected_identity(&self, port: u16) -> Option<&SpiffeId> {
        let skipped = self.skipped.iter().any(|(first, last)| (*first..=*last).contains(&port));
        self.workload.expected_identity(port).filter(|_| !skipped)
    }

    fn at(&self, address: SocketAddr) -> Endpoint {
        Endpoint {
            address,
            dial: address,
            identity: self.expected_identity(address.port()).cloned(),
            workload: Some(self.workload.name.clone()),
            labels: Arc::default(),
            weight: 1,
            place: self.workload.place.clone(),
        }
    }
}

impl Workload {
    /// The sets that its network policies name; one may come several times.
    pub fn sets(&self) -> impl Iterator<Item = &SetName> {
        self.policy.network.iter().chain(&self.egress).flat_map(|rules| rules.sets())
    }

    /// The workload with the members of each set of which `part` knows all parts. Of any other set nobody knows who is in
    /// it, so that it is refused.
    #[must_use]
    pub fn with_sets(&self, part: impl Fn(&PartName) -> Option<Arc<SetPart>>) -> Self {
        let mut known: BTreeMap<SetName, Option<Arc<WorkloadSet>>> = BTreeMap::new();
        let mut find = |name: &SetName| {
            let make = || {
                let all = name.each().map(|name| part(&name)).collect::<Option<Vec<_>>>()?;
                Some(Arc::new(WorkloadSet::new(all)))
            };
            known.entry(name.clone()).or_insert_with(make).clone()
        };
        let mut resolved = |rules: &Option<Arc<NetworkRules>>| {
            rules.as_ref().map(|rules| Arc::new(rules.resolved(&mut find)))
        };
        let network = resolved(&self.policy.network);
        let egress = resolved(&self.egress);
        Self { policy: InboundPolicy { network, ..self.policy.clone() }, egress, ..self.clone() }
    }

    /// Whether a proxy of ours is to run for it: beside it as its sidecar, or as the gateway that it is.
    pub fn has_proxy(&self) -> bool {
        self.meshed || self.gateway.is_some()
    }

    /// The identity that a client expects at `port`: none where it must call in plaintext.
    pub fn expected_identity(&self, port: u16) -> Option<&SpiffeId> {
        (self.meshed && self.policy.takes_mtls(port)).then_some(&self.identity)
    }
}

/// The name and the port of an authority that is not an address: no port = 80. `None`: what follows the colon is no port.
fn name_and_port(authority: &str) -> Option<(String, u16)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => (host, port.parse().ok()?),
        _ => (authority, 80),
    };
    Some((host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(), port))
}

/// The address that `authority` is, if it is one: `1.2.3.4:80`, `[::1]:80`, or without a port (80). `::ffff:1.2.3.4` is
/// `1.2.3.4`, because that is whom the kernel connects to.
pub fn address(authority: &str) -> Option<SocketAddr> {
    let ip = authority.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(authority);
    let of_ip = || ip.parse().ok().map(|ip| SocketAddr::new(ip, 80));
    let found: SocketAddr = authority.parse().ok().or_else(of_ip)?;
    Some(SocketAddr::new(found.ip().to_canonical(), found.port()))
}

#[cfg(test)]
mod tests;
