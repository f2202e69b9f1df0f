//! One workload: who it is, where it is, and what calling one of its ports takes.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use selvedge_model::{
    AppConnections, Host, HostPort, InboundPolicy, MtlsMode, MtlsRule, NamedEndpoint, Place, Protocol,
    ServiceKey, SpiffeId, WorkloadName, gateway::GatewayRole,
};

use super::{
    super::{MeshSettings, Problems, network::Candidate, servers, targets::Selected},
    document::WorkloadDocument,
};
use crate::{
    problem::DocumentName,
    resources::{Document, GatewayAnnotations, WorkloadEntrySpec},
};

/// One workload with what other documents say about it.
#[derive(Debug)]
pub(in super::super) struct KnownWorkload<'a> {
    pub(super) source: WorkloadDocument<'a>,
    pub(in super::super) name: WorkloadName,
    pub(super) identity: SpiffeId,
    /// As before, where they were the same before: whatever is made of it shares them.
    pub(super) labels: Arc<BTreeMap<String, String>>,
    pub(super) policy: InboundPolicy,
    /// Where it is; a pod may have an address of each family.
    pub(super) hosts: Vec<Host>,
    /// The ports that it serves: its own, and those that services name as their targets.
    pub(super) ports: BTreeSet<u16>,
    /// Ports at its address that belong to other workloads.
    pub(super) lost: BTreeSet<u16>,
    /// What services say is spoken on them.
    pub(super) protocols: BTreeMap<u16, Protocol>,
    /// The services that it is behind, by those of its ports that they send to.
    pub(super) services: BTreeMap<u16, BTreeSet<ServiceKey>>,
    /// Which gateway it is.
    pub(super) gateway: Option<Arc<GatewayRole>>,
    /// Where it runs.
    pub(super) place: Option<Arc<Place>>,
}

impl<'a> KnownWorkload<'a> {
    /// How `port` is called here, at its first address; `None` if it has no address, or the port belongs to another.
    pub(in super::super) fn endpoint(&self, port: u16) -> Option<NamedEndpoint> {
        let host = self.hosts.first().filter(|_| !self.lost.contains(&port))?;
        Some(self.endpoint_at(HostPort::new(host.clone(), port)))
    }

    /// The host of the service that leads to each port; of several, the first.
    pub(super) fn first_services(&self) -> BTreeMap<u16, Arc<str>> {
        let first = |(port, services): (&u16, &BTreeSet<ServiceKey>)| {
            Some((*port, Arc::clone(&services.first()?.host)))
        };
        self.services.iter().filter_map(first).collect()
    }

    /// Whether it is at `host`.
    pub(in super::super) fn is_at(&self, host: &Host) -> bool {
        self.hosts.contains(host)
    }

    /// What policies select it by.
    pub(in super::super) fn selected(&self) -> Selected<'_> {
        Selected {
            namespace: self.name.namespace(),
            labels: (!self.source.is_unusable()).then(|| self.source.labels()),
            services: &self.services,
            gateway: self.gateway.as_ref().map(|role| &*role.name),
        }
    }

    /// What network policies know it by.
    pub(super) fn candidate(&self) -> Candidate<'_> {
        let ips = self.hosts.iter().filter_map(Host::ip);
        // Its sidecar may call from there, where nothing is redirected.
        let inbound = self.source.inbound().filter(|_| self.source.meshed());
        let addresses: BTreeSet<IpAddr> = ips.chain(inbound.and_then(|inbound| inbound.host.ip())).collect();
        let ports = self.ports.iter().filter(|port| self.serves(**port));
        let served = |ip: IpAddr| ports.clone().map(move |port| SocketAddr::new(ip, *port));
        Candidate {
            account_labels: None,
            name: &self.name,
            identity: &self.identity,
            labels: (!self.source.is_unusable()).then(|| self.source.labels()),
            is_meshed: self.source.meshed(),
            is_redirected: self.source.inbound().is_none(),
            may_prove_identity: self.source.meshed() || self.source.what().is_a_pod(),
            is_of_node: self.source.shares_address(),
            is_named: self.hosts.iter().any(|host| host.name().is_some()),
            sockets: Cow::Owned(self.hosts.iter().filter_map(Host::ip).flat_map(served).collect()),
            addresses: Cow::Owned(addresses),
            named_ports: self.source.named_ports(),
            skipped: self.source.skipped(),
        }
    }

    pub(super) fn serves(&self, port: u16) -> bool {
        self.ports.contains(&port) && !self.lost.contains(&port)
    }

    /// What calling it at `host_port`, which is here, takes.
    pub(in super::super) fn endpoint_at(&self, host_port: HostPort) -> NamedEndpoint {
        let meshed = self.source.meshed() && !self.source.skips(host_port.port);
        NamedEndpoint {
            dial: self.source.inbound().filter(|_| meshed).cloned().unwrap_or_else(|| host_port.clone()),
            one_address: false,
            identity: expected_identity(meshed, &self.policy, host_port.port, &self.identity),
            workload: Some(self.name.clone()),
            labels: Arc::clone(&self.labels),
            weight: self.source.weight(),
            place: self.place.clone(),
            address: host_port,
        }
    }

    /// The namespace and the name of its service account.
    pub(in super::super) fn account(&self) -> (&str, &str) {
        (self.name.namespace(), self.source.service_account())
    }

    /// The `WorkloadEntry` that it is; `None` for a pod.
    pub(in super::super) fn entry(&self) -> Option<&'a Document<WorkloadEntrySpec>> {
        match self.source {
            WorkloadDocument::Entry(document) => Some(document),
            WorkloadDocument::Pod(_) => None,
        }
    }

    /// What servers select it by.
    pub(super) fn selected_by_servers<'k>(
        &'k self,
        named_ports: &'k [(&'k str, u16)],
    ) -> servers::Selected<'k> {
        servers::Selected {
            namespace: self.name.namespace(),
            labels: (!self.source.is_unusable()).then(|| self.source.labels()),
            annotations: self.source.annotations(),
            named_ports,
        }
    }

    /// What is spoken on its ports, where it is said: by services, by its own opaque-ports annotation, or by a `Server`
    /// that has whatever is spoken on these ports carried as it is.
    pub(super) fn said_protocols(&self, opaque_servers: &BTreeSet<u16>) -> BTreeMap<u16, Protocol> {
        let mut protocols = self.protocols.clone();
        protocols.retain(|_, spoken| *spoken != Protocol::Unspecified);
        let opaque = self.source.opaque_ports();
        let ranges = opaque.iter().flat_map(|(first, last)| self.ports.range(first..=last));
        protocols.extend(ranges.chain(opaque_servers).map(|port| (*port, Protocol::Tcp)));
        protocols
    }
}

/// Which gateway the workload `source` is. Whoever makes workloads in a namespace gets its gateways' certificates with
/// their keys: so it must be the gateway's own, or that of the control plane.
pub(super) fn role(
    source: WorkloadDocument<'_>,
    settings: &MeshSettings,
    problems: &mut Problems,
) -> Option<Arc<GatewayRole>> {
    let GatewayAnnotations { namespace, name, ports } = source.gateway()?;
    let own = &*source.name().namespace;
    if own != namespace && own != settings.own_namespace {
        let message = format!(
            "has no effect: only workloads of the namespaces {namespace} and {} can be a gateway of {namespace}; move \
             this one there",
            settings.own_namespace
        );
        source.gateway_error(problems, message);
        return None;
    }
    let name = format!("{namespace}/{name}").into();
    let address = match source {
        WorkloadDocument::Entry(document) => document.spec.address.as_ref().and_then(Host::ip),
        WorkloadDocument::Pod(_) => None,
    };
    Some(Arc::new(GatewayRole { name, address, ports: ports.clone() }))
}

/// The inbound policy of a workload if it is unknown which policies select it.
pub(super) fn strict(document: &DocumentName) -> InboundPolicy {
    let name = format!("{document}, which cannot be used");
    let default = MtlsRule { mode: MtlsMode::Strict, name: name.into() };
    InboundPolicy { default, ..InboundPolicy::default() }
}

impl KnownWorkload<'_> {
    /// How its app is connected to, by port, where something is said about it: if several services do, as the
    /// strictest says.
    pub(super) fn app_connections(
        &self,
        connections: impl Fn(&ServiceKey, &str) -> AppConnections,
    ) -> BTreeMap<u16, AppConnections> {
        let namespace = self.name.namespace();
        let of = |services: &BTreeSet<ServiceKey>| {
            let said = services.iter().map(|service| connections(service, namespace));
            said.fold(AppConnections::default(), AppConnections::strictest)
        };
        let ports = self.services.iter().map(|(port, services)| (*port, of(services)));
        ports.filter(|(_, said)| *said != AppConnections::default()).collect()
    }
}

/// The identity that a client expects at `port`: none where it must call in plaintext.
pub(in super::super) fn expected_identity(
    meshed: bool,
    policy: &InboundPolicy,
    port: u16,
    identity: &SpiffeId,
) -> Option<SpiffeId> {
    (meshed && policy.takes_mtls(port)).then(|| identity.clone())
}

impl KnownWorkload<'_> {
    /// Whether policies make the same of both, and say the same of them.
    pub(in super::super) fn is_same_but_weight(&self, other: &Self) -> bool {
        self.source.is_same_but_weight(other.source)
            && (&self.name, &self.identity, &self.hosts, &self.place)
                == (&other.name, &other.identity, &other.hosts, &other.place)
            && self.has_same_ports(other)
            && self.gateway == other.gateway
    }

    /// Whether policies ask the same of both, but for their names, accounts, addresses and places.
    pub(in super::super) fn is_alike(&self, other: &Self) -> bool {
        self.source.is_alike(other.source)
            && self.name.namespace() == other.name.namespace()
            && self.has_same_ports(other)
            && self.gateway == other.gateway
    }

    fn has_same_ports(&self, other: &Self) -> bool {
        (&self.labels, &self.ports, &self.lost) == (&other.labels, &other.ports, &other.lost)
            && (&self.protocols, &self.services) == (&other.protocols, &other.services)
            && self.policy == other.policy
    }

    /// Whether what policies say is enforced at all of its ports.
    pub(in super::super) fn enforces_all(&self) -> bool {
        self.source.meshed() && !self.source.shares_address() && self.source.skipped().is_empty()
    }
}
