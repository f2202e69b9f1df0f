//! Workloads: who they are, where they are, and what calling one of their ports takes.
//!
//! A `WorkloadEntry` and a `Pod` both are one. A cluster has thousands of pods, and each change compiles
//! everything: nothing here looks through all workloads to find one.

mod document;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use selvedge_model::{
    AppConnections, Endpoint, Host, HostPort, InboundPolicy, MtlsMode, MtlsRule, NamedEndpoint, Protocol,
    ServiceKey, SpiffeId, Workload, WorkloadName, facts::selects, snapshot::Occupant,
};

use document::WorkloadDocument;

use super::{
    MeshSettings, Problems,
    authentication::Authentications,
    authorization::Authorizations,
    claims::{Claim, Claimant, ClaimedBy, LostClaim},
    inbound::Policies,
    keep,
    network::{Candidate, Network},
    servers::{self, Servers},
    targets::Selected,
};
use crate::{
    problem::DocumentName,
    resources::{Document, PodSpec, Resources, Seniority, WorkloadEntrySpec},
};

/// One workload with what other documents say about it.
#[derive(Debug)]
pub(super) struct KnownWorkload<'a> {
    source: WorkloadDocument<'a>,
    pub(super) name: WorkloadName,
    identity: SpiffeId,
    /// As before, where they were the same before: whatever is made of it shares them.
    labels: Arc<BTreeMap<String, String>>,
    policy: InboundPolicy,
    /// Where it is; a pod may have an address of each family.
    hosts: Vec<Host>,
    /// The ports that it serves: its own, and those that services name as their targets.
    ports: BTreeSet<u16>,
    /// Ports at its address that belong to other workloads.
    lost: BTreeSet<u16>,
    /// What services say is spoken on them.
    protocols: BTreeMap<u16, Protocol>,
    /// The services that it is behind, by those of its ports that they send to.
    services: BTreeMap<u16, BTreeSet<ServiceKey>>,
}

impl<'a> KnownWorkload<'a> {
    /// How `port` is called here, at its first address; `None` if it has no address, or the port belongs to another.
    pub(super) fn endpoint(&self, port: u16) -> Option<NamedEndpoint> {
        let host = self.hosts.first().filter(|_| !self.lost.contains(&port))?;
        Some(self.endpoint_at(HostPort::new(host.clone(), port)))
    }

    /// Whether it is at `host`.
    pub(super) fn is_at(&self, host: &Host) -> bool {
        self.hosts.contains(host)
    }

    /// What policies select it by.
    fn selected(&self) -> Selected<'_> {
        Selected {
            namespace: self.name.namespace(),
            labels: (!self.source.is_unusable()).then(|| self.source.labels()),
            services: &self.services,
        }
    }

    /// What network policies know it by.
    fn candidate(&self) -> Candidate<'_> {
        let ips = self.hosts.iter().filter_map(Host::ip);
        // Its sidecar may call from there, where nothing is redirected.
        let inbound = self.source.inbound().filter(|_| self.source.meshed());
        let addresses: BTreeSet<IpAddr> = ips.chain(inbound.and_then(|inbound| inbound.host.ip())).collect();
        let ports = self.ports.iter().filter(|port| self.serves(**port));
        let served = |ip: IpAddr| ports.clone().map(move |port| SocketAddr::new(ip, *port));
        Candidate {
            name: &self.name,
            identity: &self.identity,
            labels: (!self.source.is_unusable()).then(|| self.source.labels()),
            is_meshed: self.source.meshed(),
            is_redirected: self.source.inbound().is_none(),
            may_prove_identity: self.source.meshed() || self.source.what().is_a_pod(),
            is_of_node: self.source.shares_address(),
            is_named: self.hosts.iter().any(|host| host.name().is_some()),
            sockets: self.hosts.iter().filter_map(Host::ip).flat_map(served).collect(),
            addresses,
            named_ports: self.source.named_ports(),
            skipped: self.source.skipped(),
        }
    }

    fn serves(&self, port: u16) -> bool {
        self.ports.contains(&port) && !self.lost.contains(&port)
    }

    /// What calling it at `host_port`, which is here, takes.
    pub(super) fn endpoint_at(&self, host_port: HostPort) -> NamedEndpoint {
        let meshed = self.source.meshed() && !self.source.skips(host_port.port);
        NamedEndpoint {
            dial: self.source.inbound().filter(|_| meshed).cloned().unwrap_or_else(|| host_port.clone()),
            one_address: false,
            identity: expected_identity(meshed, &self.policy, host_port.port, &self.identity),
            workload: Some(self.name.clone()),
            labels: Arc::clone(&self.labels),
            weight: self.source.weight(),
            address: host_port,
        }
    }

    /// The `WorkloadEntry` that it is; `None` for a pod.
    pub(super) fn entry(&self) -> Option<&'a Document<WorkloadEntrySpec>> {
        match self.source {
            WorkloadDocument::Entry(document) => Some(document),
            WorkloadDocument::Pod(_) => None,
        }
    }

    /// What servers select it by.
    fn selected_by_servers<'k>(&'k self, named_ports: &'k [(&'k str, u16)]) -> servers::Selected<'k> {
        servers::Selected {
            namespace: self.name.namespace(),
            labels: (!self.source.is_unusable()).then(|| self.source.labels()),
            annotations: self.source.annotations(),
            named_ports,
        }
    }

    /// What is spoken on its ports, where it is said: by services, by its own opaque-ports annotation, or by a `Server`
    /// that has whatever is spoken on these ports carried as it is.
    fn said_protocols(&self, opaque_servers: &BTreeSet<u16>) -> BTreeMap<u16, Protocol> {
        let mut protocols = self.protocols.clone();
        protocols.retain(|_, spoken| *spoken != Protocol::Unspecified);
        let opaque = self.source.opaque_ports();
        let ranges = opaque.iter().flat_map(|(first, last)| self.ports.range(first..=last));
        protocols.extend(ranges.chain(opaque_servers).map(|port| (*port, Protocol::Tcp)));
        protocols
    }
}

/// The inbound policy of a workload if it is unknown which policies select it.
fn strict(document: &DocumentName) -> InboundPolicy {
    let name = format!("{document}, which cannot be used");
    let default = MtlsRule { mode: MtlsMode::Strict, name: name.into() };
    InboundPolicy { default, ..InboundPolicy::default() }
}

impl KnownWorkload<'_> {
    /// How its app is connected to, by port, where something is said about it: if several services do, as the
    /// strictest says.
    fn app_connections(
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
pub(super) fn expected_identity(
    meshed: bool,
    policy: &InboundPolicy,
    port: u16,
    identity: &SpiffeId,
) -> Option<SpiffeId> {
    (meshed && policy.takes_mtls(port)).then(|| identity.clone())
}

/// The policies of all workloads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'p, 'a> {
    pub(super) authentications: &'p Authentications<'a>,
    pub(super) authorizations: &'p Authorizations<'a>,
    pub(super) servers: &'p Servers<'a>,
    pub(super) network: &'p Network<'a>,
}

/// Every workload.
#[derive(Debug)]
pub(super) struct Workloads<'a> {
    list: Vec<KnownWorkload<'a>>,
    /// Those that selectors may select, by namespace: `WorkloadEntry`s. Which pods are behind a service is
    /// what its `EndpointSlice`s say, and they alone know which of them are ready.
    entries: HashMap<&'a str, Vec<usize>>,
    /// Pods by namespace and name.
    pods: HashMap<(&'a str, &'a str), usize>,
    /// Each by its addresses; the newest last.
    at_host: HashMap<Host, Vec<usize>>,
}

impl<'a> Workloads<'a> {
    pub(super) fn new(
        resources: &'a Resources,
        settings: &MeshSettings,
        policies: &Policies<'_>,
        previous: &BTreeMap<WorkloadName, Arc<Workload>>,
        problems: &mut Problems,
    ) -> Self {
        let count = resources.pods.len() + resources.workload_entries.len();
        let mut workloads = Self {
            list: Vec::with_capacity(count),
            entries: HashMap::new(),
            pods: HashMap::with_capacity(resources.pods.len()),
            at_host: HashMap::with_capacity(count),
        };
        let mut pods: HashMap<(&str, &str), &Document<PodSpec>> =
            HashMap::with_capacity(resources.pods.len());
        for document in resources.pods.iter().filter(|pod| !pod.spec.has_ended()) {
            if document.location.path.is_some() {
                let message = "outside a cluster nothing runs this pod, and no EndpointSlice lists it; \
                               declare the workload with a WorkloadEntry";
                problems.warning(document, "", message);
            }
            pods.insert((&document.name.namespace, &document.name.name), document);
            workloads.add(WorkloadDocument::Pod(document), settings, policies, previous, problems);
        }
        for document in &resources.workload_entries {
            if let Some(pod) = pods.get(&(&*document.name.namespace, &*document.name.name)) {
                let message = format!(
                    "has no effect: {} ({}) is the workload of that name; rename this entry",
                    pod.name, pod.location
                );
                problems.error(document, "metadata.name", message);
                continue;
            }
            workloads.add(WorkloadDocument::Entry(document), settings, policies, previous, problems);
        }
        workloads
    }

    fn add(
        &mut self,
        source: WorkloadDocument<'a>,
        settings: &MeshSettings,
        policies: &Policies<'_>,
        previous: &BTreeMap<WorkloadName, Arc<Workload>>,
        problems: &mut Problems,
    ) {
        let (document, labels) = (source.name(), source.labels());
        let namespace = &*document.namespace;
        let name = WorkloadName::new(namespace, &document.name);
        let identity = SpiffeId::new(&settings.trust_domain, namespace, source.service_account());
        let (name, identity) = match (name, identity) {
            (Ok(name), Ok(identity)) => (name, identity),
            (Err(error), _) | (_, Err(error)) => return source.error(problems, error.to_string()),
        };
        policies.report_losers(&name, labels, problems);
        let policy = match source.is_unusable() {
            true => strict(document),
            false => policies.find(namespace, labels),
        };
        let index = self.list.len();
        let hosts = source.hosts();
        for host in &hosts {
            let here = self.at_host.entry(host.clone()).or_default();
            if source.owns_address() {
                // An address that two pods have is the newer one's: the other has ended, and its node has
                // not said so yet.
                let list = &mut self.list;
                here.retain(|older| {
                    let owned = list[*older].source.owns_address();
                    list[*older].hosts.retain(|its| !owned || its != host);
                    !owned
                });
            }
            here.push(index);
        }
        match source {
            WorkloadDocument::Entry(_) => self.entries.entry(namespace).or_default().push(index),
            WorkloadDocument::Pod(_) => drop(self.pods.insert((namespace, &document.name), index)),
        }
        let before =
            previous.get(&name).map(|workload| &workload.labels).filter(|before| ***before == *labels);
        let labels = before.map_or_else(|| Arc::new(labels.clone()), Arc::clone);
        let (ports, lost, protocols) = (source.ports(), BTreeSet::new(), BTreeMap::new());
        let services = BTreeMap::new();
        self.list.push(KnownWorkload {
            source,
            name,
            identity,
            labels,
            policy,
            hosts,
            ports,
            lost,
            protocols,
            services,
        });
    }

    /// The `WorkloadEntry`s of `namespace` that `selector` selects.
    pub(super) fn selected(
        &self,
        namespace: &str,
        selector: &BTreeMap<String, String>,
    ) -> impl Iterator<Item = (usize, &'a Document<WorkloadEntrySpec>)> {
        let indexes = self.entries.get(namespace).into_iter().flatten();
        indexes.filter_map(move |index| {
            let known = &self.list[*index];
            let entry = known.entry()?;
            selects(selector, known.source.labels()).then_some((*index, entry))
        })
    }

    /// The workload at `index`, as [`Self::selected`] numbers them.
    pub(super) fn at(&self, index: usize) -> &KnownWorkload<'a> {
        &self.list[index]
    }

    /// The pod of that name.
    pub(super) fn pod(&self, namespace: &str, name: &str) -> Option<usize> {
        self.pods.get(&(namespace, name)).copied()
    }

    /// What the pods of a cluster claim which are `what`.
    pub(super) fn pod_claims(&self, what: ClaimedBy) -> impl Iterator<Item = (&Host, Claim<'a>)> {
        let pods =
            self.list.iter().filter(move |known| known.source.what() == what && known.source.in_cluster());
        pods.flat_map(|known| known.hosts.iter().map(|host| (host, known.source.claim(&known.ports))))
    }

    /// What other workloads claim.
    pub(super) fn other_claims(&self) -> Vec<(Seniority<'a>, Claimant<'a>)> {
        let others = self
            .list
            .iter()
            .enumerate()
            .filter(|(_, known)| !(known.source.what().is_a_pod() && known.source.in_cluster()));
        let claims = others.flat_map(|(index, known)| {
            known.hosts.iter().map(move |host| {
                let claim = known.source.claim(&known.ports);
                (known.source.seniority(), Claimant::Workload(index, host.clone(), claim))
            })
        });
        claims.collect()
    }

    /// Takes from the workload at `index` the ports of its address `host` that belong to others.
    pub(super) fn lose(&mut self, index: usize, host: &Host, lost: &LostClaim<'_>, problems: &mut Problems) {
        let known = &mut self.list[index];
        if lost.all {
            known.hosts.retain(|own| own != host);
            if let Some(here) = self.at_host.get_mut(host) {
                here.retain(|other| *other != index);
            }
        }
        known.lost.extend(&lost.ports);
        match known.source {
            WorkloadDocument::Entry(document) => problems.error(document, "spec.address", lost.message(host)),
            WorkloadDocument::Pod(document) => problems.error(document, "status.podIPs", lost.message(host)),
        }
    }

    /// Notes that the workload at `index` serves `port`.
    pub(super) fn serves(&mut self, index: usize, port: u16) {
        self.list[index].ports.insert(port);
    }

    /// Notes that a service says that a workload speaks `protocol` on `port`. Where two services disagree,
    /// nothing is said.
    pub(super) fn speaks(&mut self, index: usize, port: u16, protocol: Protocol) {
        let said = self.list[index].protocols.entry(port).or_insert(protocol);
        if *said != protocol {
            *said = Protocol::Unspecified;
        }
    }

    /// Notes that a service's port sends to `port` of the workload at `index`.
    pub(super) fn is_behind(&mut self, index: usize, port: u16, service: &ServiceKey) {
        self.list[index].services.entry(port).or_default().insert(service.clone());
    }

    /// The workload that serves `host_port`: one with that port, or the only one there of those that have all ports or are
    /// in `namespace`.
    pub(super) fn serving(&self, host_port: &HostPort, namespace: &str) -> Option<usize> {
        let here = self.at_host.get(&host_port.host)?;
        if let Some(index) = here.iter().find(|index| self.list[**index].serves(host_port.port)) {
            return Some(*index);
        }
        let may_be = |index: &&usize| {
            let known = &self.list[**index];
            known.source.has_all_ports() || known.name.namespace() == namespace
        };
        let mut here = here.iter().filter(may_be);
        match (here.next(), here.next()) {
            (Some(only), None) if !self.list[*only].source.shares_address() => Some(*only),
            _ => None,
        }
    }

    /// The workload at `host_port` as an endpoint of a service in `namespace`; notes that it serves that port, if that is
    /// its own namespace.
    pub(super) fn endpoint_at(&mut self, host_port: &HostPort, namespace: &str) -> Option<NamedEndpoint> {
        let index = self.serving(host_port, namespace)?;
        if self.list[index].name.namespace() == namespace {
            self.serves(index, host_port.port);
        }
        Some(self.list[index].endpoint_at(host_port.clone()))
    }

    /// Reports every address and port that two workloads claim.
    pub(super) fn report_shared_addresses(&self, problems: &mut Problems) {
        for (host, here) in self.at_host.iter().filter(|(_, here)| here.len() > 1) {
            let mut owners: BTreeMap<u16, &KnownWorkload<'_>> = BTreeMap::new();
            for known in here.iter().map(|index| &self.list[*index]) {
                for port in known.ports.iter().filter(|port| known.serves(**port)) {
                    let owner = *owners.entry(*port).or_insert(known);
                    let Some(entry) = known.entry().filter(|_| !std::ptr::eq(owner, known)) else { continue };
                    let location = match owner.source {
                        WorkloadDocument::Entry(document) => document.location.to_string(),
                        WorkloadDocument::Pod(document) => document.location.to_string(),
                    };
                    let message = format!(
                        "{} is also the address of {} ({location}), whose identity is expected there; give each workload its own port",
                        HostPort::new(host.clone(), *port),
                        owner.source.name(),
                    );
                    problems.warning(entry, "spec.address", message);
                }
            }
        }
    }

    /// Each workload by every address and port that it serves, where that is an IP address.
    pub(super) fn addresses(&self) -> BTreeMap<SocketAddr, Endpoint> {
        let mut addresses = BTreeMap::new();
        for known in &self.list {
            for host in &known.hosts {
                let ports = known.ports.iter().filter(|port| known.serves(**port));
                let host_ports = ports.map(|port| HostPort::new(host.clone(), *port));
                for endpoint in host_ports.filter_map(|host_port| known.endpoint_at(host_port).fixed()) {
                    addresses.entry(endpoint.address).or_insert(endpoint);
                }
            }
        }
        addresses
    }

    /// Each workload by every port that it serves, where its address is a name; with its rank.
    pub(super) fn named(&self) -> impl Iterator<Item = (usize, NamedEndpoint)> {
        let by_name = self.list.iter().enumerate();
        let by_name = by_name.filter(|(_, known)| known.hosts.iter().any(|host| host.name().is_some()));
        by_name.flat_map(|(rank, known)| {
            known.ports.iter().filter_map(move |port| Some((rank, known.endpoint(*port)?)))
        })
    }

    /// Each as network policies know it, in the order in which they are numbered.
    pub(super) fn candidates(&self) -> Vec<Candidate<'_>> {
        self.list.iter().map(KnownWorkload::candidate).collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Those that have all of their address; with their rank. Where two workloads share one, only their ports tell
    /// which one is meant.
    pub(super) fn occupants(
        &self,
        finished: &BTreeMap<WorkloadName, Arc<Workload>>,
    ) -> BTreeMap<Host, (usize, Occupant)> {
        let alone = self.at_host.iter().filter_map(|(host, here)| match here.as_slice() {
            [index] if self.list[*index].source.has_all_ports() => {
                let known = &self.list[*index];
                let workload = Arc::clone(finished.get(&known.name)?);
                let skipped = known.source.skipped().to_vec();
                Some((host.clone(), (*index, Occupant { workload, skipped })))
            }
            _ => None,
        });
        alone.collect()
    }

    /// Each workload as its own sidecar sees it. `connections` says how those in a namespace are to be connected to
    /// for a service.
    pub(super) fn finish(
        &self,
        previous: &BTreeMap<WorkloadName, Arc<Workload>>,
        Asked { authentications, authorizations, servers, network }: Asked<'_, '_>,
        connections: impl Fn(&ServiceKey, &str) -> AppConnections,
    ) -> BTreeMap<WorkloadName, Arc<Workload>> {
        let finished = self.list.iter().enumerate().map(|(place, known)| {
            let meshed = known.source.meshed();
            let before = previous.get(&known.name);
            let policy_before = before.map(|before| &before.policy);
            let authentication = authentications
                .find(known.selected(), policy_before.and_then(|before| before.authentication.as_ref()));
            let authorization = authorizations.find(
                known.selected(),
                authentication.is_some(),
                policy_before.and_then(|before| before.authorization.as_ref()),
            );
            let rules_before = before.map(|before| (before.policy.network.as_ref(), before.egress.as_ref()));
            let (ingress_before, egress_before) = rules_before.unwrap_or_default();
            let named_ports = known.source.named_ports();
            let selected = known.selected_by_servers(&named_ports);
            let servers_before = before.and_then(|before| before.policy.servers.as_ref());
            let workload = Workload {
                name: known.name.clone(),
                identity: known.identity.clone(),
                meshed,
                inbound: known.source.inbound().filter(|_| meshed).and_then(HostPort::socket),
                ports: known.ports.iter().copied().collect(),
                policy: InboundPolicy {
                    network: network.ingress(place, ingress_before),
                    authorization,
                    authentication,
                    servers: servers.find(selected, servers_before),
                    ..known.policy.clone()
                },
                egress: network.egress(place, egress_before),
                protocols: known.said_protocols(&servers.opaque_ports(selected)),
                app_connections: known.app_connections(&connections),
                labels: Arc::clone(&known.labels),
            };
            (known.name.clone(), keep(workload, before))
        });
        finished.collect()
    }
}
