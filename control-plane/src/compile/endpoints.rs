//! The endpoints behind every port that can be called.
//!
//! There are three steps: which endpoints documents list ([`candidates`]), who owns their addresses ([`Owners`]), and how
//! each is called ([`endpoints`]). If a document lists an address that another namespace owns, the owner decides how it is
//! called.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use selvedge_model::{Endpoint, Endpoints, Host, NamedEndpoint, Place, ServiceKey, SpiffeId, WorkloadName};

use super::{
    Problems, Settings,
    hosts::service_host,
    inbound::Policies,
    owners::{Owners, What},
    services::{Backing, Catalog, KnownHost},
    workloads::{Workloads, expected_identity},
};
use crate::resources::{
    Document, EndpointSliceSpec, Resources, ServiceEntrySpec, ServiceSpec, SliceAddress, WorkloadEntrySpec,
    service::{ServicePort, TargetPort},
    service_entry::{EntryEndpoints, EntryPort, Resolution},
};

/// Where an endpoint comes from, before the owners of addresses are known.
#[derive(Debug, Clone)]
pub(super) enum Candidate<'a> {
    /// A workload that is selected, by its number, and its port.
    Workload(usize, u16),
    /// An address of an `EndpointSlice`.
    Sliced { slice: &'a Document<EndpointSliceSpec>, address: &'a SliceAddress, place: Place },
    /// An endpoint that a `ServiceEntry` lists.
    Inline(&'a Document<ServiceEntrySpec>, &'a WorkloadEntrySpec, Place),
    /// Wherever a name leads.
    Name(Place),
}

/// The candidates of every port, but of those that are other names of others.
pub(super) type Candidates<'a> = BTreeMap<ServiceKey, Vec<Candidate<'a>>>;

/// What documents list behind every port; notes which workload serves which port.
pub(super) fn candidates<'a>(
    resources: &'a Resources,
    settings: &Settings,
    catalog: &Catalog<'a>,
    workloads: &mut Workloads<'a>,
    problems: &mut Problems,
) -> Candidates<'a> {
    let slices = slices_by_service(resources, catalog, settings, problems);
    let mut candidates = Candidates::new();
    for host in catalog.hosts() {
        for port in host.ports.keys() {
            let list = match host.backing(*port) {
                Some(Backing::Service(document, declared)) => {
                    let mut list = selected_by_service(document, declared, workloads, problems);
                    list.extend(sliced(slices.get(&*host.host), declared));
                    list
                }
                Some(Backing::Entry(document, declared)) => of_entry(document, declared, workloads),
                Some(Backing::Name(name, target)) => vec![Candidate::Name(Place::new(name, target))],
                Some(Backing::Alias(_)) | None => continue,
            };
            candidates.insert(ServiceKey { host: Arc::clone(&host.host), port: *port }, list);
        }
    }
    for (key, list) in &candidates {
        for candidate in list {
            if let Candidate::Workload(index, port) = candidate {
                workloads.serves(*index, *port);
                workloads.speaks(*index, *port, catalog.spoken(key));
                workloads.is_behind(*index, *port, key);
            }
        }
    }
    candidates
}

/// The endpoints of every port of every host.
pub(super) fn endpoints(
    settings: &Settings,
    catalog: &Catalog<'_>,
    policies: &Policies<'_>,
    candidates: &Candidates<'_>,
    owners: &Owners<'_>,
    workloads: &mut Workloads<'_>,
    problems: &mut Problems,
) -> BTreeMap<ServiceKey, Endpoints> {
    note_served(catalog, candidates, workloads);
    let settled = Settled { settings, policies, owners };
    let mut endpoints: BTreeMap<ServiceKey, Endpoints> = BTreeMap::new();
    for (key, list) in candidates {
        let Some(host) = catalog.find(&key.host) else { continue };
        let mut by_place = BTreeMap::new();
        for candidate in list {
            if let Some(endpoint) = settled.endpoint(host, key.port, candidate, workloads, problems) {
                by_place.entry((endpoint.address.clone(), endpoint.dial.clone())).or_insert(endpoint);
            }
        }
        endpoints.insert(key.clone(), listed(key, host, by_place.into_values()));
    }
    for host in catalog.hosts() {
        for port in host.ports.keys() {
            if let Some(Backing::Alias(target)) = host.backing(*port) {
                let key = ServiceKey { host: Arc::clone(&host.host), port: *port };
                let same = endpoints.get(&target).cloned();
                let same = same.unwrap_or_else(|| Endpoints::new(key.clone(), Vec::new()));
                endpoints.insert(key.clone(), Endpoints { key, ..same });
            }
        }
    }
    workloads.report_shared_addresses(problems);
    endpoints
}

fn listed(key: &ServiceKey, host: &KnownHost<'_>, found: impl Iterator<Item = NamedEndpoint>) -> Endpoints {
    let resolution = host.resolution(key.port);
    let mut endpoints = Endpoints::new(key.clone(), Vec::new());
    endpoints.requested = resolution == Resolution::Requested;
    for mut endpoint in found {
        endpoint.one_address = resolution == Resolution::Dns { one_address: true };
        match endpoint.fixed() {
            Some(fixed) => endpoints.list.push(fixed),
            None => endpoints.named.push(endpoint),
        }
    }
    endpoints
}

/// Notes what workloads serve and speak at addresses that services of their namespace list. Others have no say.
fn note_served(catalog: &Catalog<'_>, candidates: &Candidates<'_>, workloads: &mut Workloads<'_>) {
    for (key, list) in candidates {
        let Some(namespace) = catalog.find(&key.host).map(|host| host.namespace) else { continue };
        for candidate in list {
            let (Candidate::Sliced { place, .. } | Candidate::Name(place)) = candidate else { continue };
            let index = workloads.serving(place, namespace);
            if let Some(index) = index.filter(|index| workloads.at(*index).name.namespace() == namespace) {
                workloads.serves(index, place.port);
                workloads.speaks(index, place.port, catalog.spoken(key));
                workloads.is_behind(index, place.port, key);
            }
        }
    }
}

type Slices<'a> = BTreeMap<String, Vec<&'a Document<EndpointSliceSpec>>>;

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
        slices.entry(host).or_default().push(slice);
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
        // As in Istio: a target that is named goes by that name alone, any other by the port's own name first.
        let target = match (&port.target, ports.get(&port.name)) {
            (TargetPort::Same | TargetPort::Number(_), Some(own)) => {
                warn_of_another_port(document, port, entry, *own, problems);
                Some(*own)
            }
            (TargetPort::Same, None) => Some(port.port),
            (TargetPort::Number(number), None) => Some(*number),
            (TargetPort::Named(name), _) => {
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

/// Says that `port` leads to `own`, which the entry calls by the port's name, and not to the number that the service
/// has: if that is written as its target, or is another port of the entry's.
fn warn_of_another_port(
    document: &Document<ServiceSpec>,
    port: &ServicePort,
    entry: &Document<WorkloadEntrySpec>,
    own: u16,
    problems: &mut Problems,
) {
    let said = match port.target {
        TargetPort::Number(number) => number,
        _ if entry.spec.ports.values().any(|other| *other == port.port) => port.port,
        _ => own,
    };
    if said != own {
        let message = format!(
            "port {} leads to port {own} of {} ({}) and not to {said}: the entry's spec.ports calls that one {:?}, and \
             the name comes first; name the port otherwise, or name it as its targetPort",
            port.port,
            entry.name,
            entry.place(),
            port.name
        );
        problems.warning(document, "spec.ports", message);
    }
}

/// The addresses that `slices` list for the service port `port`.
fn sliced<'a>(
    slices: Option<&Vec<&'a Document<EndpointSliceSpec>>>,
    port: &ServicePort,
) -> Vec<Candidate<'a>> {
    let own = match port.target {
        TargetPort::Number(number) => number,
        TargetPort::Same | TargetPort::Named(_) => port.port,
    };
    let slices = || slices.into_iter().flatten();
    let any_ready = slices().any(|slice| !slice.spec.addresses.is_empty());
    let mut list = Vec::new();
    for slice in slices() {
        let number = match &slice.spec.ports {
            None => own,
            Some(ports) => match ports.iter().find(|sliced| sliced.name == port.name) {
                Some(sliced) => sliced.port.unwrap_or(own),
                None => continue,
            },
        };
        let addresses = if any_ready { &slice.spec.addresses } else { &slice.spec.ending };
        list.extend(addresses.iter().map(|address| {
            let place = SocketAddr::new(address.ip, number).into();
            Candidate::Sliced { slice, address, place }
        }));
    }
    list
}

fn of_entry<'a>(
    document: &'a Document<ServiceEntrySpec>,
    port: &EntryPort,
    workloads: &Workloads<'_>,
) -> Vec<Candidate<'a>> {
    let target = |ports: &BTreeMap<String, u16>| ports.get(&port.name).copied().unwrap_or(port.target);
    match &document.spec.endpoints {
        EntryEndpoints::Selected(selector) => workloads
            .selected(&document.name.namespace, selector)
            .map(|(index, entry)| Candidate::Workload(index, target(&entry.spec.ports)))
            .collect(),
        EntryEndpoints::Hosts => Vec::new(),
        EntryEndpoints::Inline(list) => list
            .iter()
            .filter_map(|inline| {
                let place = Place::new(inline.address.clone()?, target(&inline.ports));
                Some(Candidate::Inline(document, inline, place))
            })
            .collect(),
    }
}

/// What decides about candidates, once the owner of every address is known.
struct Settled<'a> {
    settings: &'a Settings,
    policies: &'a Policies<'a>,
    owners: &'a Owners<'a>,
}

impl Settled<'_> {
    fn endpoint(
        &self,
        host: &KnownHost<'_>,
        port: u16,
        candidate: &Candidate<'_>,
        workloads: &mut Workloads<'_>,
        problems: &mut Problems,
    ) -> Option<NamedEndpoint> {
        let (namespace, external) = (host.namespace, host.is_external(port));
        match candidate {
            Candidate::Workload(index, port) => {
                Some(as_declared(workloads.at(*index).endpoint(*port)?, external))
            }
            Candidate::Name(place) => {
                let known = workloads.endpoint_at(place, namespace);
                let endpoint = known.unwrap_or_else(|| plaintext(place.clone(), BTreeMap::new()));
                Some(as_declared(endpoint, external))
            }
            Candidate::Sliced { slice, address, place } => {
                self.sliced(slice, address, place, workloads, problems)
            }
            Candidate::Inline(document, inline, place) => {
                let alone = as_declared(self.inline(document, inline, place), external);
                let Some(mut endpoint) = workloads.endpoint_at(place, namespace) else {
                    return self
                        .unless_a_services(document, "spec.endpoints", place, problems)
                        .then_some(alone);
                };
                endpoint.weight = inline.weight;
                if !inline.labels.is_empty() {
                    endpoint.labels = Arc::new(inline.labels.clone());
                }
                let is_own = |owner: &WorkloadName| owner.namespace() == namespace;
                if endpoint.workload.as_ref().is_none_or(is_own) {
                    return Some(as_declared(endpoint, external));
                }
                if (&alone.identity, &alone.dial) != (&endpoint.identity, &endpoint.dial) {
                    self.report_anothers(document, "spec.endpoints", place, problems);
                }
                Some(endpoint)
            }
        }
    }

    /// An address of a slice: the pod in its `targetRef`; without that, the workload at the address.
    fn sliced(
        &self,
        slice: &Document<EndpointSliceSpec>,
        address: &SliceAddress,
        place: &Place,
        workloads: &mut Workloads<'_>,
        problems: &mut Problems,
    ) -> Option<NamedEndpoint> {
        let namespace = &*slice.name.namespace;
        if let Some(pod) = &address.pod {
            let of = pod.namespace.as_deref().unwrap_or(namespace);
            let index = workloads.pod(of, &pod.name);
            return match index.filter(|index| workloads.at(*index).is_at(&place.host)) {
                Some(index) => Some(workloads.at(index).endpoint_at(place.clone())),
                // Nothing goes out unprotected, or to somebody else, because pods and slices arrive one after the other.
                None => {
                    if index.is_some() || slice.origin.path.is_some() {
                        let message = format!(
                            "{} is not an address of Pod {of}/{}, so it is left out; correct the address or its targetRef",
                            place.host, pod.name
                        );
                        problems.error(slice, "endpoints", message);
                    }
                    None
                }
            };
        }
        let Some(endpoint) = workloads.endpoint_at(place, namespace) else {
            let free = self.unless_a_services(slice, "endpoints", place, problems);
            return free.then(|| plaintext(place.clone(), BTreeMap::new()));
        };
        let is_a_pods = self.owners.of(&place.host, place.port).is_some_and(|owner| owner.what == What::Pod);
        if is_a_pods && endpoint.workload.as_ref().is_some_and(|owner| owner.namespace() != namespace) {
            self.report_anothers(slice, "endpoints", place, problems);
        }
        Some(endpoint)
    }

    /// Whether `place` is none of another namespace's service, whose own workloads would be called through it in
    /// plaintext.
    fn unless_a_services<T>(
        &self,
        document: &Document<T>,
        field: &str,
        place: &Place,
        problems: &mut Problems,
    ) -> bool {
        let owner = self.owners.of(&place.host, place.port);
        let Some(owner) = owner.filter(|owner| owner.what == What::Service) else { return true };
        if owner.namespace == &*document.name.namespace {
            return true;
        }
        let message = format!(
            "{place} is the address of {}; an endpoint with this address would bypass that service's routes and policy, \
             so it is left out: call the service itself, or route to it with a VirtualService",
            owner.by
        );
        problems.error(document, field, message);
        false
    }

    fn report_anothers<T>(
        &self,
        document: &Document<T>,
        field: &str,
        place: &Place,
        problems: &mut Problems,
    ) {
        let Some(owner) = self.owners.of(&place.host, place.port) else { return };
        let message = format!(
            "{place} belongs to {}, and only its owner decides how it is called and which identity is expected there; \
             remove it from here",
            owner.by
        );
        problems.error(document, field, message);
    }

    /// What a `ServiceEntry` says of an endpoint of its own.
    fn inline(
        &self,
        document: &Document<ServiceEntrySpec>,
        inline: &WorkloadEntrySpec,
        place: &Place,
    ) -> NamedEndpoint {
        let namespace = &*document.name.namespace;
        let policy = self.policies.find(namespace, &inline.labels);
        let identity = SpiffeId::new(&self.settings.trust_domain, namespace, &inline.service_account).ok();
        let mut endpoint = plaintext(place.clone(), inline.labels.clone());
        endpoint.weight = inline.weight;
        endpoint.identity =
            identity.and_then(|identity| expected_identity(inline.meshed, &policy, place.port, &identity));
        endpoint
    }
}

/// An endpoint of a namespace's own, as a service in it calls it: what is outside the mesh never with mutual TLS.
fn as_declared(mut endpoint: NamedEndpoint, external: bool) -> NamedEndpoint {
    if external {
        endpoint.identity = None;
        endpoint.dial = endpoint.address.clone();
    }
    endpoint
}

fn plaintext(address: Place, labels: BTreeMap<String, String>) -> NamedEndpoint {
    let (dial, labels) = (address.clone(), labels.into());
    NamedEndpoint { address, dial, one_address: false, identity: None, workload: None, labels, weight: 1 }
}

/// What is at each address that services list and that does not belong to a workload: what those of the namespace say that has it.
pub(super) fn addresses(
    catalog: &Catalog<'_>,
    owners: &Owners<'_>,
    endpoints: &BTreeMap<ServiceKey, Endpoints>,
    addresses: &mut BTreeMap<SocketAddr, Endpoint>,
) {
    for host in catalog.in_order() {
        for port in host.ports.keys() {
            let key = ServiceKey { host: Arc::clone(&host.host), port: *port };
            for endpoint in endpoints.get(&key).into_iter().flat_map(|endpoints| &endpoints.list) {
                let owner = owners.of(&Host::Ip(endpoint.address.ip()), endpoint.address.port());
                let is_pods = owner.is_some_and(|owner| owner.what.is_a_pod());
                if !is_pods && owner.is_none_or(|owner| owner.namespace == host.namespace) {
                    addresses.entry(endpoint.address).or_insert_with(|| endpoint.clone());
                }
            }
        }
    }
}
