//! The whole mesh at one moment, as `compile` made it from documents.
//!
//! Parts are shared by `Arc`: what a change did not touch keeps its pointer, so a diff is a comparison
//! of pointers and never of contents.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use serde::Serialize;

use crate::{Endpoint, Endpoints, InboundPolicy, Service, ServiceKey, SpiffeId, WorkloadName};

/// Everything that the control plane knows to tell its proxies.
#[derive(Debug, Clone, Default)]
pub struct Mesh {
    /// Every workload, by name.
    pub workloads: BTreeMap<WorkloadName, Arc<Workload>>,
    /// Every service port, by key.
    pub services: BTreeMap<ServiceKey, ServiceViews>,
    /// Every service port's endpoints.
    pub endpoints: BTreeMap<ServiceKey, Arc<Endpoints>>,
    /// Workloads by each address and port that their apps serve.
    pub addresses: BTreeMap<SocketAddr, Endpoint>,
    /// The DNS suffix of Kubernetes services, such as `cluster.local`.
    pub cluster_domain: Arc<str>,
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
    /// What it lets in.
    pub policy: InboundPolicy,
}

/// The answer to "what does this authority mean here?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// This port of this service.
    Service(ServiceKey),
    /// One workload's own address: no routes, mutual TLS if it is meshed.
    Endpoint(Box<Endpoint>),
    /// Nothing that the mesh knows; only this may pass through, as the outbound traffic policy says.
    None,
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
    /// as it is written. An address and port that a workload serves is that workload itself.
    pub fn lookup(&self, namespace: &str, authority: &str) -> Lookup {
        if let Ok(address) = authority.parse::<SocketAddr>() {
            let endpoint = self.addresses.get(&address);
            return endpoint.map_or(Lookup::None, |endpoint| Lookup::Endpoint(Box::new(endpoint.clone())));
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
        names
            .iter()
            .map(|host| ServiceKey::new(host, port))
            .find(|key| self.services.contains_key(key))
            .map_or(Lookup::None, Lookup::Service)
    }
}
