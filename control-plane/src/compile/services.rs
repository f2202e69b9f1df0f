//! Services and the endpoints behind them, from `Service`, `EndpointSlice` and `ServiceEntry`.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use selvedge_model::{Endpoints, NamedEndpoint, Place, Protocol, ServiceKey, SpiffeId};

use super::{
    Problems, Settings,
    hosts::service_host,
    inbound::Policies,
    workloads::{Workloads, expected_identity},
};
use crate::resources::{
    Document, EndpointSliceSpec, Resources, ServiceEntrySpec, ServiceSpec, WorkloadEntrySpec,
    service::{ServicePort, TargetPort},
    service_entry::{EntryEndpoints, EntryPort, Resolution},
};

/// One host that can be called.
#[derive(Debug)]
pub(super) struct KnownHost<'a> {
    pub(super) host: Arc<str>,
    pub(super) namespace: &'a str,
    pub(super) ports: BTreeMap<u16, Protocol>,
    source: Source<'a>,
}

impl KnownHost<'_> {
    /// The addresses by which alone it is called. A `ServiceEntry`'s HTTP is found by its name, as Istio
    /// does; its addresses are for what has no name.
    pub(super) fn own_addresses(&self) -> Vec<IpAddr> {
        match self.source {
            Source::Service(document) => document.spec.addresses.clone(),
            Source::Entry(_) => Vec::new(),
        }
    }
}

impl KnownHost<'_> {
    /// Whether whoever dials one of its endpoints may mean all of it: it has no address of its own, and does not
    /// say that its endpoints are called one by one (a headless `Service`).
    pub(super) fn is_called_by_endpoints(&self) -> bool {
        match self.source {
            Source::Service(document) => document.spec.addresses.is_empty() && !document.spec.headless,
            Source::Entry(document) => document.spec.addresses.is_empty() && document.spec.ranges.is_empty(),
        }
    }

    /// What certificates of its servers may say instead of its name.
    pub(super) fn subject_alt_names(&self) -> &[String] {
        match self.source {
            Source::Service(_) => &[],
            Source::Entry(document) => &document.spec.subject_alt_names,
        }
    }

    fn resolution(&self) -> Resolution {
        match self.source {
            Source::Service(_) => Resolution::Static,
            Source::Entry(document) => document.spec.resolution,
        }
    }
}

/// The document that defines a host.
#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    Service(&'a Document<ServiceSpec>),
    Entry(&'a Document<ServiceEntrySpec>),
}

impl Source<'_> {
    /// The addresses of its own that it says it has.
    fn addresses(&self) -> &[IpAddr] {
        match self {
            Self::Service(document) => &document.spec.addresses,
            Self::Entry(document) => &document.spec.addresses,
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Service(this), Self::Service(other)) => std::ptr::eq(*this, *other),
            (Self::Entry(this), Self::Entry(other)) => std::ptr::eq(*this, *other),
            _ => false,
        }
    }

    fn error(&self, problems: &mut Problems, message: String) {
        match self {
            Self::Service(document) => problems.error(document, "spec.clusterIP", message),
            Self::Entry(document) => problems.error(document, "spec.addresses", message),
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Service(document) => format!("{} ({})", document.name, document.place()),
            Self::Entry(document) => format!("{} ({})", document.name, document.place()),
        }
    }
}

/// Every host that can be called, by its full name.
#[derive(Debug)]
pub(super) struct Catalog<'a> {
    hosts: BTreeMap<Arc<str>, KnownHost<'a>>,
}

impl<'a> Catalog<'a> {
    pub(super) fn new(resources: &'a Resources, settings: &Settings, problems: &mut Problems) -> Self {
        let mut hosts = BTreeMap::new();
        for document in &resources.services {
            let name = &document.name;
            let host: Arc<str> = service_host(&name.name, &name.namespace, &settings.cluster_domain)
                .to_ascii_lowercase()
                .into();
            let ports = document.spec.ports.iter().map(|port| (port.port, port.protocol)).collect();
            let known = KnownHost {
                host: Arc::clone(&host),
                namespace: &name.namespace,
                ports,
                source: Source::Service(document),
            };
            hosts.insert(host, known);
        }
        for document in &resources.service_entries {
            for (index, host) in document.spec.hosts.iter().enumerate() {
                let ports = document.spec.ports.iter().map(|port| (port.number, port.protocol)).collect();
                let host: Arc<str> = Arc::from(host.as_str());
                match hosts.entry(Arc::clone(&host)) {
                    Entry::Vacant(vacant) => {
                        let namespace = &*document.name.namespace;
                        vacant.insert(KnownHost { host, namespace, ports, source: Source::Entry(document) });
                    }
                    Entry::Occupied(taken) => {
                        let (first, field) = (taken.get().source, format!("spec.hosts[{index}]"));
                        if first.is(&Source::Entry(document)) {
                            problems.error_alone(
                                document,
                                &field,
                                format!("{host} is given twice; keep one"),
                            );
                        } else {
                            let message = format!(
                                "{host} is already defined by {}; remove one of them",
                                first.describe()
                            );
                            problems.error(document, &field, message);
                        }
                    }
                }
            }
        }
        Self { hosts }
    }

    /// The namespaces whose clients know of a host, where that is not all.
    pub(super) fn exported(&self) -> BTreeMap<Arc<str>, BTreeSet<String>> {
        let exported = self.hosts().filter_map(|host| {
            let Source::Entry(document) = &host.source else { return None };
            let to = &document.spec.export_to;
            let namespaces = || to.namespaces(host.namespace).map(str::to_owned).collect();
            (!to.is_everywhere()).then(|| (Arc::clone(&host.host), namespaces()))
        });
        exported.collect()
    }

    /// Each range of addresses that is a service's own, by its ports; the smallest first, and of equal ones the
    /// first.
    pub(super) fn ranges(&self, problems: &mut Problems) -> BTreeMap<u16, Vec<(IpNet, ServiceKey)>> {
        let mut ranges: BTreeMap<u16, Vec<(IpNet, ServiceKey, &Source<'_>)>> = BTreeMap::new();
        for host in self.hosts() {
            let Source::Entry(document) = &host.source else { continue };
            for (port, range) in host
                .ports
                .keys()
                .flat_map(|port| document.spec.ranges.iter().map(move |range| (*port, range)))
            {
                let here = ranges.entry(port).or_default();
                match here.iter().find(|(other, ..)| other == range) {
                    None => {
                        here.push((*range, ServiceKey { host: Arc::clone(&host.host), port }, &host.source))
                    }
                    Some((_, _, first)) if host.source.is(first) => {}
                    Some((_, _, first)) => {
                        let message = format!(
                            "{range} at port {port} is already the range of {}; give each its own",
                            first.describe()
                        );
                        host.source.error(problems, message);
                    }
                }
            }
        }
        let sorted = ranges.into_iter().map(|(port, mut ranges)| {
            ranges.sort_by_key(|(range, ..)| std::cmp::Reverse(range.prefix_len()));
            (port, ranges.into_iter().map(|(range, key, _)| (range, key)).collect())
        });
        sorted.collect()
    }

    /// Each address and port that is a service's own, and whose. The first claim counts.
    pub(super) fn addresses(&self, problems: &mut Problems) -> BTreeMap<SocketAddr, ServiceKey> {
        let mut owners: BTreeMap<SocketAddr, (ServiceKey, &Source<'_>)> = BTreeMap::new();
        for host in self.hosts() {
            let addresses = host.source.addresses().iter();
            for address in addresses.flat_map(|ip| host.ports.keys().map(|port| SocketAddr::new(*ip, *port)))
            {
                let key = ServiceKey { host: Arc::clone(&host.host), port: address.port() };
                match owners.entry(address) {
                    Entry::Vacant(vacant) => {
                        vacant.insert((key, &host.source));
                    }
                    Entry::Occupied(taken) if taken.get().1.is(&host.source) => {}
                    Entry::Occupied(taken) => {
                        let first = taken.get().1.describe();
                        let message =
                            format!("{address} is already the address of {first}; give each its own");
                        host.source.error(problems, message);
                    }
                }
            }
        }
        owners.into_iter().map(|(address, (key, _))| (address, key)).collect()
    }

    pub(super) fn find(&self, host: &str) -> Option<&KnownHost<'a>> {
        self.hosts.get(host)
    }

    /// What is said to be spoken on a service's port.
    fn spoken(&self, key: &ServiceKey) -> Protocol {
        let port = self.find(&key.host).and_then(|host| host.ports.get(&key.port));
        port.copied().unwrap_or_default()
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &KnownHost<'a>> {
        self.hosts.values()
    }
}

/// Where an endpoint list comes from, before addresses are known to belong to workloads.
enum Candidate<'a> {
    Workload(usize, u16),
    Address(Place),
    Inline(&'a Document<ServiceEntrySpec>, &'a WorkloadEntrySpec, Place),
}

/// The endpoints of every port of every host.
pub(super) fn endpoints(
    resources: &Resources,
    settings: &Settings,
    catalog: &Catalog<'_>,
    policies: &Policies<'_>,
    workloads: &mut Workloads<'_>,
    problems: &mut Problems,
) -> BTreeMap<ServiceKey, Endpoints> {
    let slices = slices_by_service(resources, catalog, settings, problems);
    let mut candidates: BTreeMap<ServiceKey, Vec<Candidate<'_>>> = BTreeMap::new();
    // Selected workloads first: they say which workload serves which port, and addresses are matched by that.
    for host in catalog.hosts() {
        match host.source {
            Source::Service(document) => {
                for port in &document.spec.ports {
                    let mut list = selected_by_service(document, port, workloads, problems);
                    list.extend(sliced(slices.get(&*host.host), port));
                    candidates.insert(ServiceKey { host: Arc::clone(&host.host), port: port.port }, list);
                }
            }
            Source::Entry(document) => {
                for port in &document.spec.ports {
                    let list = of_entry(document, &host.host, port, workloads);
                    candidates.insert(ServiceKey { host: Arc::clone(&host.host), port: port.number }, list);
                }
            }
        }
    }
    for (key, candidates) in &candidates {
        for candidate in candidates {
            if let Candidate::Workload(index, port) = candidate {
                workloads.serves(*index, *port);
                workloads.speaks(*index, *port, catalog.spoken(key));
            }
        }
    }
    for (key, candidates) in &candidates {
        for candidate in candidates {
            if let Candidate::Address(place) = candidate
                && let Some(index) = workloads.serving(place)
            {
                workloads.serves(index, place.port);
                workloads.speaks(index, place.port, catalog.spoken(key));
            }
        }
    }
    let settled = Settled { settings, policies, external: external_keys(catalog) };
    let endpoints = candidates
        .into_iter()
        .map(|(key, candidates)| {
            let mut by_place = BTreeMap::new();
            for endpoint in candidates.iter().filter_map(|one| settled.endpoint(&key, one, workloads)) {
                by_place.entry((endpoint.address.clone(), endpoint.dial.clone())).or_insert(endpoint);
            }
            let resolution = catalog.find(&key.host).map_or(Resolution::Static, KnownHost::resolution);
            let mut endpoints = Endpoints::new(key.clone(), Vec::new());
            endpoints.requested = resolution == Resolution::Requested;
            for mut endpoint in by_place.into_values() {
                endpoint.one_address = resolution == Resolution::Dns { one_address: true };
                match endpoint.fixed() {
                    Some(fixed) => endpoints.list.push(fixed),
                    None => endpoints.named.push(endpoint),
                }
            }
            (key, endpoints)
        })
        .collect();
    workloads.report_shared_addresses(problems);
    endpoints
}

/// The ports of hosts outside the mesh, whose endpoints are never called with mutual TLS.
fn external_keys(catalog: &Catalog<'_>) -> BTreeSet<Arc<str>> {
    let external = catalog.hosts().filter(|host| match host.source {
        Source::Service(_) => false,
        Source::Entry(document) => !document.spec.internal,
    });
    external.map(|host| Arc::clone(&host.host)).collect()
}

type Slices<'a> = BTreeMap<String, Vec<&'a EndpointSliceSpec>>;

fn slices_by_service<'a>(
    resources: &'a Resources,
    catalog: &Catalog<'_>,
    settings: &Settings,
    problems: &mut Problems,
) -> Slices<'a> {
    let mut slices: Slices<'a> = BTreeMap::new();
    for slice in &resources.endpoint_slices {
        let host = service_host(&slice.spec.service, &slice.name.namespace, &settings.cluster_domain);
        // In a cluster a deleted service's slices follow it in a moment, and nobody wrote them.
        if catalog.find(&host).is_none() && slice.origin.path.is_some() {
            let message = format!(
                "names the service {}/{}, which does not exist; add it or correct the label",
                slice.name.namespace, slice.spec.service
            );
            problems.error(slice, "metadata.labels", message);
        }
        slices.entry(host).or_default().push(&slice.spec);
    }
    slices
}

fn selected_by_service<'a>(
    document: &Document<ServiceSpec>,
    port: &ServicePort,
    workloads: &Workloads<'_>,
    problems: &mut Problems,
) -> Vec<Candidate<'a>> {
    let selector = &document.spec.selector;
    if selector.is_empty() {
        return Vec::new();
    }
    let mut list = Vec::new();
    for (index, entry) in workloads.selected(&document.name.namespace, selector) {
        let ports = &entry.spec.ports;
        let target = match (ports.get(&port.name), &port.target) {
            (Some(own), _) => Some(*own),
            (None, TargetPort::Same) => Some(port.port),
            (None, TargetPort::Number(number)) => Some(*number),
            (None, TargetPort::Named(name)) => {
                let found = ports.get(name).copied();
                if found.is_none() {
                    let message = format!(
                        "has no port named {name:?}, which {} ({}) asks for, so it gets no requests; add it to spec.ports",
                        document.name,
                        document.place()
                    );
                    problems.error(entry, "spec.ports", message);
                }
                found
            }
        };
        list.extend(target.map(|target| Candidate::Workload(index, target)));
    }
    list
}

/// The addresses that `slices` list for the service port `port`.
fn sliced<'a>(slices: Option<&Vec<&EndpointSliceSpec>>, port: &ServicePort) -> Vec<Candidate<'a>> {
    let own = match port.target {
        TargetPort::Number(number) => number,
        TargetPort::Same | TargetPort::Named(_) => port.port,
    };
    let slices = || slices.into_iter().flatten();
    let any_ready = slices().any(|slice| !slice.addresses.is_empty());
    let mut list = Vec::new();
    for slice in slices() {
        let number = match &slice.ports {
            None => own,
            Some(ports) => match ports.iter().find(|sliced| sliced.name == port.name) {
                Some(sliced) => sliced.port.unwrap_or(own),
                None => continue,
            },
        };
        let addresses = if any_ready { &slice.addresses } else { &slice.ending };
        list.extend(addresses.iter().map(|ip| Candidate::Address(SocketAddr::new(*ip, number).into())));
    }
    list
}

fn of_entry<'a>(
    document: &'a Document<ServiceEntrySpec>,
    host: &str,
    port: &EntryPort,
    workloads: &Workloads<'_>,
) -> Vec<Candidate<'a>> {
    let target = |ports: &BTreeMap<String, u16>| ports.get(&port.name).copied().unwrap_or(port.target);
    match &document.spec.endpoints {
        EntryEndpoints::Selected(selector) => workloads
            .selected(&document.name.namespace, selector)
            .map(|(index, entry)| Candidate::Workload(index, target(&entry.spec.ports)))
            .collect(),
        EntryEndpoints::Hosts => {
            let host = host.parse().ok();
            host.map(|host| Candidate::Address(Place::new(host, port.target))).into_iter().collect()
        }
        EntryEndpoints::Inline(list) => list
            .iter()
            .filter_map(|inline| {
                let place = Place::new(inline.address.clone()?, target(&inline.ports));
                Some(Candidate::Inline(document, inline, place))
            })
            .collect(),
    }
}

/// What candidates are settled by, once every workload's ports are known.
struct Settled<'a> {
    settings: &'a Settings,
    policies: &'a Policies<'a>,
    external: BTreeSet<Arc<str>>,
}

impl Settled<'_> {
    fn endpoint(
        &self,
        key: &ServiceKey,
        candidate: &Candidate<'_>,
        workloads: &mut Workloads<'_>,
    ) -> Option<NamedEndpoint> {
        let mut endpoint = match candidate {
            Candidate::Workload(index, port) => workloads.at(*index).endpoint(*port)?,
            Candidate::Address(address) => {
                workloads.endpoint_at(address).unwrap_or_else(|| plaintext(address.clone(), BTreeMap::new()))
            }
            Candidate::Inline(document, inline, address) => self.inline(document, inline, address, workloads),
        };
        if self.external.contains(&key.host) {
            endpoint.identity = None;
            endpoint.dial = endpoint.address.clone();
        }
        Some(endpoint)
    }

    fn inline(
        &self,
        document: &Document<ServiceEntrySpec>,
        inline: &WorkloadEntrySpec,
        address: &Place,
        workloads: &mut Workloads<'_>,
    ) -> NamedEndpoint {
        if let Some(mut endpoint) = workloads.endpoint_at(address) {
            if !inline.labels.is_empty() {
                endpoint.labels = Arc::new(inline.labels.clone());
            }
            endpoint.weight = inline.weight;
            return endpoint;
        }
        let namespace = &*document.name.namespace;
        let policy = self.policies.find(namespace, &inline.labels);
        let identity = SpiffeId::new(&self.settings.trust_domain, namespace, &inline.service_account).ok();
        let mut endpoint = plaintext(address.clone(), inline.labels.clone());
        endpoint.weight = inline.weight;
        endpoint.identity =
            identity.and_then(|identity| expected_identity(inline.meshed, &policy, address.port, &identity));
        endpoint
    }
}

fn plaintext(address: Place, labels: BTreeMap<String, String>) -> NamedEndpoint {
    let (dial, labels) = (address.clone(), labels.into());
    NamedEndpoint { address, dial, one_address: false, identity: None, workload: None, labels, weight: 1 }
}
