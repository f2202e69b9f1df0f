//! The whole mesh at one moment, as `compile` made it from documents.
//!
//! Parts are shared by `Arc`: what a change did not touch keeps its pointer, so a diff is a comparison
//! of pointers and never of contents.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use serde::Serialize;

use crate::{
    Endpoint, Endpoints, Host, InboundPolicy, NamedEndpoint, Place, Protocol, Revocations, Service,
    ServiceKey, SpiffeId, WorkloadName,
};

/// Everything that the control plane knows to tell its proxies.
#[derive(Debug, Clone, Default)]
pub struct Mesh {
    /// Every workload, by name.
    pub workloads: BTreeMap<WorkloadName, Arc<Workload>>,
    /// Every service port, by key.
    pub services: BTreeMap<ServiceKey, ServiceViews>,
    /// Every service port's endpoints.
    pub endpoints: BTreeMap<ServiceKey, Arc<Endpoints>>,
    /// Workloads by each address and port that their apps serve, and the other endpoints of services.
    pub addresses: BTreeMap<SocketAddr, Endpoint>,
    /// Workloads whose sidecars take every connection to their address, whatever its port.
    pub redirected: BTreeMap<IpAddr, Arc<Workload>>,
    /// Services by each address and port that is theirs alone (a clusterIP, a `ServiceEntry`'s address).
    pub service_addresses: BTreeMap<SocketAddr, ServiceKey>,
    /// The same for ranges of addresses (a `ServiceEntry`'s), by their ports; the smallest ranges first.
    pub service_ranges: BTreeMap<u16, Vec<(IpNet, ServiceKey)>>,
    /// Services without addresses of their own, by each address and port of their endpoints.
    pub callers: BTreeMap<SocketAddr, Vec<ServiceKey>>,
    /// The namespaces whose clients know of a host, where that is not all.
    pub exported: BTreeMap<Arc<str>, BTreeSet<String>>,
    /// What is known by a DNS name, which only the proxies know the addresses of.
    pub named: Named,
    /// Who is refused although its certificate is still valid.
    pub revocations: Arc<Revocations>,
    /// The DNS suffix of Kubernetes services, such as `cluster.local`.
    pub cluster_domain: Arc<str>,
}

/// What an address may turn out to be that is in no document: one that a name has.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// Endpoints, by their port.
    pub endpoints: BTreeMap<u16, Vec<NamedEndpoint>>,
    /// Workloads whose sidecars take every connection to their name's addresses, whatever its port.
    pub redirected: BTreeMap<Host, Arc<Workload>>,
    /// Services without addresses of their own that have such endpoints, or any (resolution NONE), by the port of
    /// those.
    pub callers: BTreeMap<u16, Vec<ServiceKey>>,
}

/// One service port, as each class of clients sees it.
#[derive(Debug, Clone)]
pub struct ServiceViews {
    /// For clients in a namespace that `by_namespace` does not name.
    pub default: Arc<Service>,
    /// For clients in namespaces with rules of their own for this host.
    pub by_namespace: BTreeMap<Arc<str>, Arc<Service>>,
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
    /// Its labels, which rules may ask for; shared with all else that knows them.
    pub labels: Arc<BTreeMap<String, String>>,
    /// What it lets in.
    pub policy: InboundPolicy,
}

/// The answer to "what does this authority, or this address, mean here?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// This port of this service.
    Service(ServiceKey),
    /// An address that is no service's own, and may be something nevertheless.
    Address(Box<Address>),
    /// Nothing that the mesh knows; only this may pass through, as the outbound traffic policy says.
    None,
}

/// What may be at an address that is no service's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// A workload, or another endpoint of a service: no routes, mutual TLS if it is meshed.
    pub endpoint: Option<Endpoint>,
    /// Services without addresses of their own that have the `endpoint`; if there is none, those that have one
    /// there if their names lead there.
    pub services: Vec<ServiceKey>,
    /// Whether it may be an address that a name has: of the endpoints of [`ServiceKey::named`].
    pub named: bool,
}

impl ServiceViews {
    /// The service as a client in `namespace` sees it.
    pub fn for_namespace(&self, namespace: &str) -> &Arc<Service> {
        self.by_namespace.get(namespace).unwrap_or(&self.default)
    }
}

impl Mesh {
    /// What `authority` (`host` or `host:port`; no port = 80) means to a client in `namespace`.
    ///
    /// Names resolve as Kubernetes' DNS search list does: `svc` in the client's namespace, `svc.ns`,
    /// `svc.ns.svc`, and the full name, each with an optional trailing dot; then a `ServiceEntry`'s host
    /// as it is written, then the longest of its wildcards that fits. An IP address is first a service
    /// whose own it is, then the workload or other endpoint at it (a workload whose sidecar takes every connection is
    /// found by its address alone), then a service in whose range it is, and then perhaps something known by name.
    pub fn lookup(&self, namespace: &str, authority: &str) -> Lookup {
        if let Some(address) = address(authority) {
            return self.lookup_address(namespace, address);
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') => match port.parse() {
                Ok(port) => (host, port),
                Err(_) => return Lookup::None,
            },
            _ => (authority, 80),
        };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let domain = &self.cluster_domain;
        let names = [
            host.clone(),
            format!("{host}.{namespace}.svc.{domain}"),
            format!("{host}.svc.{domain}"),
            format!("{host}.{domain}"),
        ];
        // The longest wildcard that fits comes first.
        let wildcards = host.match_indices('.').map(|(dot, _)| format!("*{}", &host[dot..]));
        names
            .into_iter()
            .chain(wildcards)
            .map(|host| ServiceKey::new(&host, port))
            .find(|key| self.services.contains_key(key) && self.is_known_to(namespace, key))
            .map_or(Lookup::None, Lookup::Service)
    }

    fn lookup_address(&self, namespace: &str, address: SocketAddr) -> Lookup {
        let known = |key: &&ServiceKey| self.is_known_to(namespace, key);
        if let Some(key) = self.service_addresses.get(&address).filter(known) {
            return Lookup::Service(key.clone());
        }
        let served = self.addresses.get(&address).cloned();
        let workload = || self.redirected.get(&address.ip());
        let endpoint = served.or_else(|| workload().map(|workload| workload.at(address)));
        if endpoint.is_none()
            && let Some(key) = self.service_of_range(address).filter(known)
        {
            return Lookup::Service(key.clone());
        }
        let (services, named) = match endpoint {
            Some(_) => (self.callers.get(&address), false),
            None => (self.named.callers.get(&address.port()), self.named.may_be_at(address.port())),
        };
        let services = services.into_iter().flatten().filter(known).cloned().collect();
        let found = Address { endpoint, services, named };
        if found == Address::default() { Lookup::None } else { Lookup::Address(Box::new(found)) }
    }

    /// Whether clients in `namespace` know of a service.
    fn is_known_to(&self, namespace: &str, key: &ServiceKey) -> bool {
        self.exported.get(&key.host).is_none_or(|namespaces| namespaces.contains(namespace))
    }

    fn service_of_range(&self, address: SocketAddr) -> Option<&ServiceKey> {
        let mut ranges = self.service_ranges.get(&address.port())?.iter();
        ranges.find(|(range, _)| range.contains(&address.ip())).map(|(_, key)| key)
    }

    /// Everything known by name that may be at `port`; what [`Lookup::Address`] refers to.
    pub fn named_at(&self, port: u16) -> Endpoints {
        let mut named = self.named.endpoints.get(&port).cloned().unwrap_or_default();
        let served = named.clone();
        let elsewhere = |host: &&Host| !served.iter().any(|endpoint| endpoint.address.host == **host);
        for host in self.named.redirected.keys().filter(elsewhere) {
            let (place, workload) = (Place::new(host.clone(), port), &self.named.redirected[host]);
            named.push(NamedEndpoint {
                dial: place.clone(),
                address: place,
                one_address: false,
                identity: workload.expected_identity(port).cloned(),
                workload: Some(workload.name.clone()),
                labels: Arc::default(),
                weight: 1,
            });
        }
        Endpoints { named, ..Endpoints::new(ServiceKey::named(port), Vec::new()) }
    }
}

impl Named {
    fn may_be_at(&self, port: u16) -> bool {
        !self.redirected.is_empty() || self.endpoints.contains_key(&port)
    }
}

impl Workload {
    /// The identity that a client expects at `port`: none where it must call in plaintext.
    pub fn expected_identity(&self, port: u16) -> Option<&SpiffeId> {
        (self.meshed && self.policy.takes_mtls(port)).then_some(&self.identity)
    }

    fn at(&self, address: SocketAddr) -> Endpoint {
        Endpoint {
            address,
            dial: address,
            identity: self.expected_identity(address.port()).cloned(),
            workload: Some(self.name.clone()),
            labels: Arc::default(),
            weight: 1,
        }
    }
}

/// The address that `authority` is, if it is one: `1.2.3.4:80`, `[::1]:80`, or without a port (80).
pub fn address(authority: &str) -> Option<SocketAddr> {
    let ip = authority.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(authority);
    let of_ip = || ip.parse().ok().map(|ip| SocketAddr::new(ip, 80));
    authority.parse().ok().or_else(of_ip)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{MtlsMode, MtlsRule, TrustDomain};

    fn workload(mode: MtlsMode) -> Arc<Workload> {
        let mut policy = InboundPolicy::default();
        policy.ports.insert(7000, MtlsRule { mode, name: "test".into() });
        Arc::new(Workload {
            name: "shop/db-0".parse().unwrap(),
            identity: SpiffeId::new(&TrustDomain::default(), "shop", "db").unwrap(),
            meshed: true,
            inbound: None,
            ports: vec![5432],
            policy,
            protocols: BTreeMap::new(),
            labels: Arc::default(),
        })
    }

    fn mesh() -> Mesh {
        let db = workload(MtlsMode::Disable);
        let own = "10.0.0.5:5432".parse().unwrap();
        Mesh {
            addresses: BTreeMap::from([(own, db.at(own))]),
            redirected: BTreeMap::from([(own.ip(), db)]),
            service_addresses: BTreeMap::from([(
                "10.96.0.1:80".parse().unwrap(),
                ServiceKey::new("db.shop.svc.cluster.local", 80),
            )]),
            ..Mesh::default()
        }
    }

    fn endpoint(lookup: Lookup) -> Endpoint {
        match lookup {
            Lookup::Address(found) => found.endpoint.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_services_own_address_is_the_service_and_only_at_its_ports() {
        let mesh = mesh();

        let key = ServiceKey::new("db.shop.svc.cluster.local", 80);
        assert_eq!(mesh.lookup("shop", "10.96.0.1:80"), Lookup::Service(key.clone()));
        assert_eq!(mesh.lookup("shop", "10.96.0.1"), Lookup::Service(key));
        assert_eq!(mesh.lookup("shop", "10.96.0.1:81"), Lookup::None);
    }

    #[test]
    fn a_workload_whose_sidecar_takes_all_is_expected_to_prove_itself_at_every_port() {
        let mesh = mesh();
        let at = |authority| endpoint(mesh.lookup("shop", authority));

        assert!(at("10.0.0.5:5432").identity.is_some());
        assert!(at("10.0.0.5:6000").identity.is_some());
        assert_eq!(at("10.0.0.5:6000").dial, "10.0.0.5:6000".parse().unwrap());
        assert_eq!(at("10.0.0.5:7000").identity, None, "its policy says DISABLE");
        assert_eq!(mesh.lookup("shop", "10.0.0.6:5432"), Lookup::None);
    }

    proptest! {
        #[test]
        fn an_address_is_looked_up_as_it_is_written(ip: [u8; 16], port: u16) {
            let v6 = SocketAddr::from((ip, port));
            let v4 = SocketAddr::from(([ip[0], ip[1], ip[2], ip[3]], port));

            prop_assert_eq!(address(&v6.to_string()), Some(v6));
            prop_assert_eq!(address(&v4.to_string()), Some(v4));
            prop_assert_eq!(address(&format!("[{}]", v6.ip())), Some(SocketAddr::new(v6.ip(), 80)));
            prop_assert_eq!(address(&format!("{}.svc:{port}", v4.ip())), None);
        }
    }
}
