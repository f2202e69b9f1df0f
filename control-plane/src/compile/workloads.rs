//! Workloads: who they are, where they are, and what calling one of their ports takes.
//!
//! A `WorkloadEntry` and a `Pod` both are one. A cluster has thousands of pods, and each change compiles
//! everything: nothing here looks through all workloads to find one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use selvedge_model::{
    Endpoint, Host, InboundPolicy, NamedEndpoint, Place, Protocol, SpiffeId, Workload, WorkloadName,
};

use super::{Problems, Settings, inbound::Policies, keep, selects};
use crate::{
    problem::DocumentName,
    resources::{Document, PodSpec, Resources, WorkloadEntrySpec},
};

/// The document that describes a workload.
#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    Entry(&'a Document<WorkloadEntrySpec>),
    Pod(&'a Document<PodSpec>),
}

impl<'a> Source<'a> {
    fn name(self) -> &'a DocumentName {
        match self {
            Self::Entry(document) => &document.name,
            Self::Pod(document) => &document.name,
        }
    }

    fn labels(self) -> &'a BTreeMap<String, String> {
        match self {
            Self::Entry(document) => &document.spec.labels,
            Self::Pod(document) => &document.metadata.labels,
        }
    }

    fn service_account(self) -> &'a str {
        match self {
            Self::Entry(document) => &document.spec.service_account,
            Self::Pod(document) => &document.spec.service_account,
        }
    }

    fn meshed(self) -> bool {
        match self {
            Self::Entry(document) => document.spec.meshed,
            Self::Pod(document) => document.spec.meshed,
        }
    }

    /// Whether connections to `port` pass by its sidecar.
    fn skips(self, port: u16) -> bool {
        let among = |(first, last): &(u16, u16)| (*first..=*last).contains(&port);
        match self {
            Self::Entry(_) => false,
            Self::Pod(document) => document.spec.skipped_ports.iter().any(among),
        }
    }

    fn inbound(self) -> Option<&'a Place> {
        match self {
            Self::Entry(document) => document.spec.inbound.as_ref(),
            Self::Pod(_) => None,
        }
    }

    fn weight(self) -> u32 {
        match self {
            Self::Entry(document) => document.spec.weight,
            Self::Pod(_) => 1,
        }
    }

    fn opaque_ports(self) -> &'a [(u16, u16)] {
        match self {
            Self::Entry(document) => &document.spec.opaque_ports,
            Self::Pod(document) => &document.spec.opaque_ports,
        }
    }

    fn ports(self) -> BTreeSet<u16> {
        match self {
            Self::Entry(document) => document.spec.ports.values().copied().collect(),
            Self::Pod(document) => document.spec.ports.iter().map(|(_, port)| *port).collect(),
        }
    }

    fn hosts(self) -> Vec<Host> {
        match self {
            Self::Entry(document) => document.spec.address.iter().cloned().collect(),
            Self::Pod(document) => document.spec.addresses.iter().map(|ip| Host::Ip(*ip)).collect(),
        }
    }

    /// Whether others may have its address too, so that only a port tells which one is meant.
    fn shares_address(self) -> bool {
        matches!(self, Self::Pod(document) if document.spec.host_network)
    }

    /// Whether its address is its own for as long as it lives.
    fn owns_address(self) -> bool {
        matches!(self, Self::Pod(document) if !document.spec.host_network)
    }

    /// Reports a name that no workload can have.
    fn error(self, problems: &mut Problems, message: String) {
        match self {
            Self::Entry(document) => problems.error_alone(document, "metadata", message),
            Self::Pod(document) => problems.error_alone(document, "metadata", message),
        }
    }
}

/// One workload with what other documents say about it.
#[derive(Debug)]
pub(super) struct Known<'a> {
    source: Source<'a>,
    pub(super) name: WorkloadName,
    identity: SpiffeId,
    /// As before, where they were the same before: whatever is made of it shares them.
    labels: Arc<BTreeMap<String, String>>,
    policy: InboundPolicy,
    /// Where it is; a pod may have an address of each family.
    hosts: Vec<Host>,
    /// The ports that it serves: its own, and those that services name as their targets.
    ports: BTreeSet<u16>,
    /// What services say is spoken on them.
    protocols: BTreeMap<u16, Protocol>,
}

impl<'a> Known<'a> {
    /// What calling `port` here takes, at its first address; `None` if it has none.
    pub(super) fn endpoint(&self, port: u16) -> Option<NamedEndpoint> {
        let host = self.hosts.first()?;
        Some(self.endpoint_at(Place::new(host.clone(), port)))
    }

    /// What calling it at `place`, which is here, takes.
    fn endpoint_at(&self, place: Place) -> NamedEndpoint {
        let meshed = self.source.meshed() && !self.source.skips(place.port);
        NamedEndpoint {
            dial: self.source.inbound().filter(|_| meshed).cloned().unwrap_or_else(|| place.clone()),
            one_address: false,
            identity: expected_identity(meshed, &self.policy, place.port, &self.identity),
            workload: Some(self.name.clone()),
            labels: Arc::clone(&self.labels),
            weight: self.source.weight(),
            address: place,
        }
    }

    /// The `WorkloadEntry` that it is; `None` for a pod.
    pub(super) fn entry(&self) -> Option<&'a Document<WorkloadEntrySpec>> {
        match self.source {
            Source::Entry(document) => Some(document),
            Source::Pod(_) => None,
        }
    }

    /// What is spoken on its ports, where it is said: by services, or by its own opaque-ports annotation.
    fn said_protocols(&self) -> BTreeMap<u16, Protocol> {
        let mut protocols = self.protocols.clone();
        protocols.retain(|_, spoken| *spoken != Protocol::Unspecified);
        let opaque = self.source.opaque_ports();
        let ranges = opaque.iter().flat_map(|(first, last)| self.ports.range(first..=last));
        protocols.extend(ranges.map(|port| (*port, Protocol::Tcp)));
        protocols
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

/// Every workload.
#[derive(Debug)]
pub(super) struct Workloads<'a> {
    list: Vec<Known<'a>>,
    /// Those that selectors may select, by namespace: `WorkloadEntry`s. Which pods are behind a service is
    /// what its `EndpointSlice`s say, and they alone know which of them are ready.
    entries: HashMap<&'a str, Vec<usize>>,
    /// Each by its addresses; the newest last.
    at_host: HashMap<Host, Vec<usize>>,
}

impl<'a> Workloads<'a> {
    pub(super) fn new(
        resources: &'a Resources,
        settings: &Settings,
        policies: &Policies<'_>,
        previous: &BTreeMap<WorkloadName, Arc<Workload>>,
        problems: &mut Problems,
    ) -> Self {
        let count = resources.pods.len() + resources.workload_entries.len();
        let mut workloads = Self {
            list: Vec::with_capacity(count),
            entries: HashMap::new(),
            at_host: HashMap::with_capacity(count),
        };
        let mut pods: HashMap<(&str, &str), &Document<PodSpec>> =
            HashMap::with_capacity(resources.pods.len());
        for document in resources.pods.iter().filter(|pod| !pod.spec.has_ended()) {
            if document.origin.path.is_some() {
                let message = "outside a cluster nothing runs it and nobody lists it behind its services; \
                               describe where it runs with a WorkloadEntry";
                problems.warning(document, "", message);
            }
            pods.insert((&document.name.namespace, &document.name.name), document);
            workloads.add(Source::Pod(document), settings, policies, previous, problems);
        }
        for document in &resources.workload_entries {
            if let Some(pod) = pods.get(&(&*document.name.namespace, &*document.name.name)) {
                let message = format!(
                    "has no effect: {} ({}) is the workload of that name; rename this entry",
                    pod.name,
                    pod.place()
                );
                problems.error(document, "metadata.name", message);
                continue;
            }
            workloads.add(Source::Entry(document), settings, policies, previous, problems);
        }
        workloads
    }

    fn add(
        &mut self,
        source: Source<'a>,
        settings: &Settings,
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
        let policy = policies.find(namespace, labels);
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
        if matches!(source, Source::Entry(_)) {
            self.entries.entry(namespace).or_default().push(index);
        }
        let before =
            previous.get(&name).map(|workload| &workload.labels).filter(|before| ***before == *labels);
        let labels = before.map_or_else(|| Arc::new(labels.clone()), Arc::clone);
        let (ports, protocols) = (source.ports(), BTreeMap::new());
        self.list.push(Known { source, name, identity, labels, policy, hosts, ports, protocols });
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
    pub(super) fn at(&self, index: usize) -> &Known<'a> {
        &self.list[index]
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

    /// The workload that serves `place`: one with that port, or the only one with that address.
    pub(super) fn serving(&self, place: &Place) -> Option<usize> {
        let here = self.at_host.get(&place.host)?;
        let with_port = here.iter().copied().find(|index| self.list[*index].ports.contains(&place.port));
        with_port.or_else(|| match here.as_slice() {
            [only] if !self.list[*only].source.shares_address() => Some(*only),
            _ => None,
        })
    }

    /// The workload at `place` as an endpoint; notes that it serves that port.
    pub(super) fn endpoint_at(&mut self, place: &Place) -> Option<NamedEndpoint> {
        let index = self.serving(place)?;
        self.serves(index, place.port);
        Some(self.list[index].endpoint_at(place.clone()))
    }

    /// Reports every address and port that two workloads claim.
    pub(super) fn report_shared_addresses(&self, problems: &mut Problems) {
        for (host, here) in self.at_host.iter().filter(|(_, here)| here.len() > 1) {
            let mut owners: BTreeMap<u16, &Known<'_>> = BTreeMap::new();
            for known in here.iter().map(|index| &self.list[*index]) {
                for port in &known.ports {
                    let owner = *owners.entry(*port).or_insert(known);
                    let Some(entry) = known.entry().filter(|_| !std::ptr::eq(owner, known)) else { continue };
                    let place = match owner.source {
                        Source::Entry(document) => document.place(),
                        Source::Pod(document) => document.place(),
                    };
                    let message = format!(
                        "{} is also the address of {} ({place}), whose identity is expected there; give each workload its own port",
                        Place::new(host.clone(), *port),
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
                let places = known.ports.iter().map(|port| Place::new(host.clone(), *port));
                for endpoint in places.filter_map(|place| known.endpoint_at(place).fixed()) {
                    addresses.entry(endpoint.address).or_insert(endpoint);
                }
            }
        }
        addresses
    }

    /// Each workload by every port that it serves, where its address is a name.
    pub(super) fn named(&self) -> impl Iterator<Item = NamedEndpoint> {
        let by_name = self.list.iter().filter(|known| known.hosts.iter().any(|host| host.name().is_some()));
        by_name.flat_map(|known| known.ports.iter().filter_map(|port| known.endpoint(*port)))
    }

    /// Those that are dialled at their own address, where their sidecars take every connection. Where two
    /// workloads share an address, only their ports tell which one is meant.
    pub(super) fn redirected(
        &self,
        finished: &BTreeMap<WorkloadName, Arc<Workload>>,
    ) -> BTreeMap<Host, Arc<Workload>> {
        let alone = self.at_host.iter().filter_map(|(host, here)| match here.as_slice() {
            [index] if self.list[*index].source.inbound().is_none() => {
                Some((host, finished.get(&self.list[*index].name)?))
            }
            _ => None,
        });
        let redirected = alone.filter(|(_, workload)| workload.meshed);
        redirected.map(|(address, workload)| (address.clone(), Arc::clone(workload))).collect()
    }

    /// Each workload as its own sidecar sees it.
    pub(super) fn finish(
        &self,
        previous: &BTreeMap<WorkloadName, Arc<Workload>>,
    ) -> BTreeMap<WorkloadName, Arc<Workload>> {
        let finished = self.list.iter().map(|known| {
            let meshed = known.source.meshed();
            let workload = Workload {
                name: known.name.clone(),
                identity: known.identity.clone(),
                meshed,
                inbound: known.source.inbound().filter(|_| meshed).and_then(Place::socket),
                ports: known.ports.iter().copied().collect(),
                policy: known.policy.clone(),
                protocols: known.said_protocols(),
                labels: Arc::clone(&known.labels),
            };
            (known.name.clone(), keep(workload, previous.get(&known.name)))
        });
        finished.collect()
    }
}
