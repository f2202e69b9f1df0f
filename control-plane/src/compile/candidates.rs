//! What documents list behind every port that can be called, before it is known whose the addresses are.

use std::{
    collections::{BTreeMap, HashMap, btree_map},
    net::SocketAddr,
    ops::Deref,
    sync::Arc,
};

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
#[derive(Debug, Default)]
pub(super) struct Candidates<'a> {
    by_port: BTreeMap<ServiceKey, Vec<Candidate<'a>>>,
    /// How much room they take.
    pub(super) behind: Behind,
}

impl<'a> Deref for Candidates<'a> {
    type Target = BTreeMap<ServiceKey, Vec<Candidate<'a>>>;

    fn deref(&self) -> &Self::Target {
        &self.by_port
    }
}

impl<'c, 'a> IntoIterator for &'c Candidates<'a> {
    type Item = (&'c ServiceKey, &'c Vec<Candidate<'a>>);
    type IntoIter = btree_map::Iter<'c, ServiceKey, Vec<Candidate<'a>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_port.iter()
    }
}

/// How many endpoints the ports of one namespace's services may have together, of those that are selected or in `EndpointSlice`s.
/// Each takes more than a kilobyte, and one document of a thousand ports that selects a thousand workloads would be a million.
pub(super) const MOST_BEHIND: usize = if cfg!(test) { 5_000 } else { 250_000 };

/// How many endpoints the services of each namespace have, of those that count for [`MOST_BEHIND`].
#[derive(Debug, Clone, Default)]
pub(super) struct Behind(HashMap<Arc<str>, usize>);

impl Behind {
    /// Takes `more` of the room that `namespace` has; whether it had as much.
    fn take(&mut self, namespace: &str, more: usize) -> bool {
        let Some(taken) = self.0.get_mut(namespace) else {
            self.0.insert(Arc::from(namespace), more.min(MOST_BEHIND));
            return more <= MOST_BEHIND;
        };
        // Who has asked for too much once gets no more, so that it does not depend on sizes who is left out.
        let has_room = more <= MOST_BEHIND - *taken;
        *taken = if has_room { *taken + more } else { MOST_BEHIND };
        has_room
    }

    /// What becomes of it where the services that came to `old` come to `new` now. `None`: that has to be asked of all documents,
    /// because there may be no room.
    pub(super) fn follow(&mut self, old: &Self, new: &Self) -> Option<()> {
        for (namespace, was) in &old.0 {
            let taken = self.0.get_mut(namespace).filter(|taken| **taken < MOST_BEHIND)?;
            *taken = taken.checked_sub(*was)?;
        }
        for (namespace, more) in &new.0 {
            let taken = self.0.entry(Arc::clone(namespace)).or_default();
            *taken += more;
            if *taken >= MOST_BEHIND {
                return None;
            }
        }
        Some(())
    }
}

/// What documents list behind every port; notes which workload serves which port.
pub(super) fn candidates<'a>(
    resources: &'a Resources,
    settings: &MeshSettings,
    catalog: &Catalog<'a>,
    workloads: &mut Workloads<'a>,
    problems: &mut Problems,
) -> Candidates<'a> {
    let slices = slices_by_service(resources, catalog, settings, problems);
    let mut candidates = Candidates::default();
    let mut told = Told::default();
    let mut selected = Selected::default();
    for host in catalog.hosts() {
        let sliced_here = slices.get(&*host.host);
        for port in host.ports.keys() {
            let Some(backing) = host.backing(*port) else { continue };
            let more = match &backing {
                Backing::Service(document, declared) => {
                    let listed = parts_of(sliced_here, declared).map(|(_, addresses, _)| addresses.len());
                    selected.by_service(document, workloads) + listed.sum::<usize>()
                }
                Backing::Entry(document, _) => selected.by_entry(document, workloads),
                Backing::Name(..) => 0,
                Backing::Alias(_) => continue,
            };
            let key = host.service(*port);
            if more > 0 && !candidates.behind.take(host.namespace, more) {
                host.report_no_room(*port, MOST_BEHIND, problems);
                candidates.by_port.insert(key, Vec::new());
                continue;
            }
            let list = match backing {
                Backing::Service(document, declared) => {
                    let mut list = selected_by_service(document, declared, workloads, &mut told);
                    list.extend(sliced(sliced_here, declared));
                    list
                }
                Backing::Entry(document, declared) => of_entry(document, declared, workloads),
                Backing::Name(name, target) => vec![Candidate::Name(HostPort::new(name, target))],
                Backing::Alias(_) => continue,
            };
            candidates.by_port.insert(key, list);
        }
    }
    told.report(problems);
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

/// How many workloads documents select, by where these are in memory: each of their ports has all of them.
#[derive(Debug, Default)]
struct Selected(HashMap<*const (), usize>);

impl Selected {
    fn count(
        &mut self,
        document: *const (),
        namespace: &str,
        selector: &BTreeMap<String, String>,
        workloads: &Workloads<'_>,
    ) -> usize {
        *self.0.entry(document).or_insert_with(|| workloads.selected(namespace, selector).count())
    }

    fn by_service(&mut self, document: &Document<ServiceSpec>, workloads: &Workloads<'_>) -> usize {
        let selector = &document.spec.selector;
        if selector.is_empty() {
            return 0;
        }
        self.count(std::ptr::from_ref(document).cast(), &document.name.namespace, selector, workloads)
    }

    fn by_entry(&mut self, document: &Document<ServiceEntrySpec>, workloads: &Workloads<'_>) -> usize {
        let EntryEndpoints::Selected(selector) = &document.spec.endpoints else { return 0 };
        self.count(std::ptr::from_ref(document).cast(), &document.name.namespace, selector, workloads)
    }
}

/// What is wrong between the ports of services and workloads, each thing once for a document: a service may have a thousand ports,
/// and a thousand workloads.
#[derive(Debug, Default)]
struct Told<'t> {
    /// By the workload: what is wrong first, and how many other ports are asked for that it has not.
    missing: BTreeMap<usize, (&'t Document<WorkloadEntrySpec>, String, usize)>,
    /// By the service: what is wrong first, and how often else.
    others: Vec<(&'t Document<ServiceSpec>, String, usize)>,
}

impl<'t> Told<'t> {
    /// `port` of `document` asks a workload for a port called `name`, which it has not.
    fn misses(
        &mut self,
        (index, entry): (usize, &'t Document<WorkloadEntrySpec>),
        name: &str,
        document: &Document<ServiceSpec>,
    ) {
        if let Some((_, _, others)) = self.missing.get_mut(&index) {
            *others += 1;
            return;
        }
        let message = format!(
            "has no port named {name:?}, which {} ({}) asks for, so it gets no requests; add it to spec.ports",
            document.name, document.location
        );
        self.missing.insert(index, (entry, message, 0));
    }

    /// A port of `document` leads elsewhere.
    fn leads_elsewhere(&mut self, document: &'t Document<ServiceSpec>, message: impl FnOnce() -> String) {
        match self.others.last_mut().filter(|(last, ..)| std::ptr::eq(*last, document)) {
            Some((_, _, others)) => *others += 1,
            None => self.others.push((document, message(), 0)),
        }
    }

    fn report(self, problems: &mut Problems) {
        for (entry, message, others) in self.missing.into_values() {
            let message = match others {
                0 => message,
                others => format!("{message} (and so with {others} other ports that services ask for)"),
            };
            problems.error(entry, "spec.ports", message);
        }
        for (document, message, others) in self.others {
            let message = match others {
                0 => message,
                others => format!("{message} (and {others} times more, at other ports or entries)"),
            };
            problems.warning(document, "spec.ports", message);
        }
    }
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
    document: &'a Document<ServiceSpec>,
    port: &ServicePort,
    workloads: &Workloads<'a>,
    told: &mut Told<'a>,
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
                warn_of_another_port(document, port, entry, *own, told);
                Some(*own)
            }
            (TargetPort::Same, None) => Some(port.port),
            (TargetPort::Number(number), None) => Some(*number),
            (TargetPort::Named(name), _) => {
                let found = ports.get(name).copied();
                if found.is_none() {
                    told.misses((index, entry), name, document);
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
fn warn_of_another_port<'a>(
    document: &'a Document<ServiceSpec>,
    port: &ServicePort,
    entry: &Document<WorkloadEntrySpec>,
    own: u16,
    told: &mut Told<'a>,
) {
    let said = match port.target {
        TargetPort::Number(number) => number,
        _ if entry.spec.ports.values().any(|other| *other == port.port) => port.port,
        _ => own,
    };
    if said != own {
        told.leads_elsewhere(document, || {
            format!(
                "port {} leads to port {own} of {} ({}) and not to {said}: the entry's spec.ports calls that one {:?}, and \
                 the name comes first; name the port otherwise, or name it as its targetPort",
                port.port, entry.name, entry.location, port.name
            )
        });
    }
}

/// The addresses that `slices` list for the service port `port`, each slice's with the number of the port there.
fn parts_of<'a, 's>(
    slices: Option<&'s Vec<&'a Document<EndpointSliceSpec>>>,
    port: &'s ServicePort,
) -> impl Iterator<Item = (&'a Document<EndpointSliceSpec>, &'a [SliceAddress], u16)> {
    let own = match port.target {
        TargetPort::Number(number) => number,
        TargetPort::Same | TargetPort::Named(_) => port.port,
    };
    let slices = move || slices.into_iter().flatten().copied();
    let any_ready = slices().any(|slice| !slice.spec.addresses.is_empty());
    slices().filter_map(move |slice| {
        let number = match &slice.spec.ports {
            None => own,
            Some(ports) => ports.iter().find(|sliced| sliced.name == port.name)?.port.unwrap_or(own),
        };
        let addresses = if any_ready { &slice.spec.addresses } else { &slice.spec.ending };
        Some((slice, &**addresses, number))
    })
}

/// The same as candidates.
fn sliced<'a>(
    slices: Option<&Vec<&'a Document<EndpointSliceSpec>>>,
    port: &ServicePort,
) -> Vec<Candidate<'a>> {
    let each = parts_of(slices, port).flat_map(|(slice, addresses, number)| {
        addresses.iter().map(move |address| {
            let host_port = SocketAddr::new(address.ip, number).into();
            Candidate::Sliced { slice, address, host_port }
        })
    });
    each.collect()
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
