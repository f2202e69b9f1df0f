//! What documents list behind every port that can be called, before it is known whose the addresses are.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use selvedge_model::{HostPort, ServiceKey};

use super::{
    MeshSettings, Problems,
    hosts::service_host,
    services::{Backing, Catalog},
    workloads::Workloads,
};
use crate::resources::{
    Document, EndpointSliceSpec, Resources, ServiceEntrySpec, ServiceSpec, SliceAddress, WorkloadEntrySpec,
    service::{ServicePort, TargetPort},
    service_entry::{EntryEndpoints, EntryPort},
};

/// Where an endpoint comes from, before the owners of addresses are known.
#[derive(Debug, Clone)]
pub(super) enum Candidate<'a> {
    /// A workload that is selected, by its number, and its port.
    Workload(usize, u16),
    /// An address of an `EndpointSlice`.
    Sliced { slice: &'a Document<EndpointSliceSpec>, address: &'a SliceAddress, host_port: HostPort },
    /// An endpoint that a `ServiceEntry` lists.
    Inline(&'a Document<ServiceEntrySpec>, &'a WorkloadEntrySpec, HostPort),
    /// Wherever a name leads.
    Name(HostPort),
}

/// The candidates of every port, but of those that are other names of others.
pub(super) type Candidates<'a> = BTreeMap<ServiceKey, Vec<Candidate<'a>>>;

/// What documents list behind every port; notes which workload serves which port.
pub(super) fn candidates<'a>(
    resources: &'a Resources,
    settings: &MeshSettings,
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
                Some(Backing::Name(name, target)) => vec![Candidate::Name(HostPort::new(name, target))],
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

type Slices<'a> = BTreeMap<String, Vec<&'a Document<EndpointSliceSpec>>>;

fn slices_by_service<'a>(
    resources: &'a Resources,
    catalog: &Catalog<'_>,
    settings: &MeshSettings,
    problems: &mut Problems,
) -> Slices<'a> {
    let mut slices: Slices<'a> = BTreeMap::new();
    for slice in &resources.endpoint_slices {
        let host = service_host(&slice.spec.service, &slice.name.namespace, &settings.cluster_domain);
        // In a cluster a deleted service's slices follow it in a moment, and nobody wrote them.
        if catalog.find(&host).is_none() && slice.location.path.is_some() {
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
                        document.name, document.location
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
            port.port, entry.name, entry.location, port.name
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
            let host_port = SocketAddr::new(address.ip, number).into();
            Candidate::Sliced { slice, address, host_port }
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
                let host_port = HostPort::new(inline.address.clone()?, target(&inline.ports));
                Some(Candidate::Inline(document, inline, host_port))
            })
            .collect(),
    }
}
