//! Workloads: who they are, where they are, and what calling one of their ports takes.
//!
//! A `WorkloadEntry` and a `Pod` both are one. A cluster has thousands of pods, and many changes compile
//! everything: nothing here looks through all workloads to find one.

mod document;
mod faced;
mod finish;
mod known;
mod networked;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use selvedge_model::{
    Host, HostPort, NamedEndpoint, Protocol, ServiceKey, SpiffeId, Workload, WorkloadName, facts::selects,
    gateway::GatewayRole,
};

use self::{
    document::WorkloadDocument,
    known::{role, strict},
};
pub(super) use self::{
    faced::Faced,
    finish::Asked,
    known::{KnownWorkload, expected_identity},
    networked::Networked,
};
use super::{
    MeshSettings, Problems,
    claims::{Claim, Claimant, ClaimedBy, LostClaim},
    inbound::Policies,
    network::Candidate,
    places::Places,
};
use crate::resources::{Document, PodSpec, Resources, Seniority, WorkloadEntrySpec};

/// Every workload.
#[derive(Debug)]
pub(super) struct Workloads<'a> {
    list: Vec<KnownWorkload<'a>>,
    /// Those that selectors may select, by namespace: `WorkloadEntry`s. Which pods are behind a service is
    /// what its `EndpointSlice`s say, and they alone know which of them are ready.
    entries: HashMap<&'a str, Entries<'a>>,
    /// Pods by namespace and name.
    pods: HashMap<(&'a str, &'a str), usize>,
    /// Each by its addresses; the newest last.
    at_host: HashMap<Host, Vec<usize>>,
    places: Places<'a>,
}

/// The `WorkloadEntry`s of one namespace, first to last.
#[derive(Debug, Default)]
struct Entries<'a> {
    all: Vec<usize>,
    /// By each of their labels, so that a selector looks at those alone that have its rarest one.
    by_label: HashMap<&'a str, HashMap<&'a str, Vec<usize>>>,
}

impl<'a> Entries<'a> {
    fn add(&mut self, index: usize, labels: &'a BTreeMap<String, String>) {
        self.all.push(index);
        for (name, value) in labels {
            self.by_label.entry(name).or_default().entry(value).or_default().push(index);
        }
    }

    /// All that `selector` may select; perhaps more.
    fn that_may_fit(&self, selector: &BTreeMap<String, String>) -> &[usize] {
        let with = |name: &str, value: &str| self.by_label.get(name).and_then(|values| values.get(value));
        let fitting = selector.iter().map(|(name, value)| with(name, value).map_or(&[][..], Vec::as_slice));
        fitting.min_by_key(|fitting| fitting.len()).unwrap_or(&self.all)
    }
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
            places: Places::new(resources),
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
        self.note_hosts(source, &hosts, index);
        match source {
            WorkloadDocument::Entry(_) => self.entries.entry(namespace).or_default().add(index, labels),
            WorkloadDocument::Pod(_) => drop(self.pods.insert((namespace, &document.name), index)),
        }
        let before =
            previous.get(&name).map(|workload| &workload.labels).filter(|before| ***before == *labels);
        let labels = before.map_or_else(|| Arc::new(labels.clone()), Arc::clone);
        let (ports, lost, protocols) = (source.ports(), BTreeSet::new(), BTreeMap::new());
        let services = BTreeMap::new();
        let gateway = role(source, settings, problems);
        let place = self.places.of_workload(source.labels(), source.node(), source.locality());
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
            gateway,
            place,
        });
    }

    /// Notes that the workload of `source`, which gets the place `index` in the list, is at `hosts`.
    fn note_hosts(&mut self, source: WorkloadDocument<'a>, hosts: &[Host], index: usize) {
        for host in hosts {
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
    }

    /// The `WorkloadEntry`s of `namespace` that `selector` selects.
    pub(super) fn selected(
        &self,
        namespace: &str,
        selector: &BTreeMap<String, String>,
    ) -> impl Iterator<Item = (usize, &'a Document<WorkloadEntrySpec>)> {
        let entries = self.entries.get(namespace);
        let indexes = entries.into_iter().flat_map(|entries| entries.that_may_fit(selector));
        indexes.filter_map(move |index| {
            let known = &self.list[*index];
            let entry = known.entry()?;
            selects(selector, known.source.labels()).then_some((*index, entry))
        })
    }

    /// Where everything is.
    pub(super) fn places(&self) -> &Places<'a> {
        &self.places
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

    /// Where those are that are gateways, by their names.
    pub(super) fn gateway_hosts(&self) -> HashMap<&WorkloadName, Vec<&Host>> {
        let mut hosts: HashMap<_, Vec<_>> = HashMap::new();
        for known in self.list.iter().filter(|known| known.gateway.is_some()) {
            hosts.entry(&known.name).or_default().extend(&known.hosts);
        }
        hosts
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

    /// Each as network policies know it, in the order in which they are numbered.
    pub(super) fn candidates(&self) -> Vec<Candidate<'_>> {
        self.list.iter().map(KnownWorkload::candidate).collect()
    }

    /// Each with its labels, as far as they are known.
    pub(super) fn labels(&self) -> impl Iterator<Item = (&WorkloadName, &BTreeMap<String, String>)> {
        self.list.iter().map(|known| (&known.name, &*known.labels))
    }

    /// Those that are gateways, with their labels.
    pub(super) fn gateways(
        &self,
    ) -> impl Iterator<Item = (&WorkloadName, &GatewayRole, &BTreeMap<String, String>)> {
        self.list
            .iter()
            .filter_map(|known| Some((&known.name, known.gateway.as_deref()?, known.source.labels())))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }
}
