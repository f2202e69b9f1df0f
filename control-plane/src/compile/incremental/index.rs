//! Which documents have to do with each other: by an address, a name, or a selector.
//!
//! What workloads and endpoints come to depends on nothing else of the other workloads. So [`Index::affected`] is all that a
//! change can reach, and compiling that alone gives what compiling everything gives. Where documents meet in other ways (most
//! `ServiceEntry`s, a DNS name, a gateway, an `ExternalName`), it says so, and everything is compiled.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use selvedge_model::Host;

use super::{super::hosts::service_host, Facts, edits::Pair, entries::Names};
use crate::{
    problem::DocumentName,
    resources::{
        Document, EndpointSliceSpec, PodSpec, Resources, ServiceEntrySpec, ServiceSpec, WorkloadEntrySpec,
    },
};

/// A document's namespace and name.
pub(super) type Key = (Arc<str>, Arc<str>);

/// A document that has addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Entry(Key),
    Pod(Key),
    Slice(Key),
    ServiceEntry(Key),
}

/// What else has an address.
#[derive(Debug, PartialEq)]
pub(super) enum Fixed {
    /// A `Service`, by its host.
    Service(Arc<str>),
    /// A `ServiceEntry` that is nothing but itself, or an endpoint of it.
    Entry(Key),
    /// One whose meaning is not that of its addresses and labels alone.
    Other,
}

/// Who selects `WorkloadEntry`s by one of their labels, and who has it.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) hosts: Vec<Arc<str>>,
    pub(super) entries: HashSet<Arc<str>>,
}

/// Each label that a selector asks for first: by namespace, name and value.
pub(super) type Groups = HashMap<Arc<str>, HashMap<String, HashMap<String, Group>>>;

/// A selector, and the `ServiceEntry` whose it is if that is nothing but itself.
type Selecting = (BTreeMap<String, String>, Option<Key>);

/// All workloads and endpoints, and what they may have to do with.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Each `Service` that is nothing but itself, by its host.
    pub(super) services: HashMap<Arc<str>, Arc<Document<ServiceSpec>>>,
    pub(super) groups: Groups,
    /// Each `ServiceEntry` that is nothing but itself.
    pub(super) service_entries: HashMap<Key, Arc<Document<ServiceEntrySpec>>>,
    /// The selectors of `ServiceEntry`s by their namespaces.
    pub(super) selecting: HashMap<Arc<str>, Vec<Selecting>>,
    pub(super) fixed: HashMap<IpAddr, Vec<Fixed>>,
    /// Hosts that are not those of one `Service` alone.
    pub(super) others: HashSet<Arc<str>>,
    pub(super) entries: HashMap<Key, Arc<Document<WorkloadEntrySpec>>>,
    pub(super) pods: HashMap<Key, Arc<Document<PodSpec>>>,
    pub(super) slices: HashMap<Key, Arc<Document<EndpointSliceSpec>>>,
    pub(super) at: HashMap<IpAddr, Vec<Item>>,
    /// The slices of each host.
    pub(super) of_host: HashMap<String, HashSet<Key>>,
    /// The slices that name each pod.
    pub(super) naming: HashMap<Key, HashSet<Key>>,
    cluster_domain: String,
}

/// There is more to a change than its neighbours tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Everything;

pub(super) fn key(name: &DocumentName) -> Key {
    (Arc::clone(&name.namespace), Arc::clone(&name.name))
}

impl Index {
    /// Of all documents; `None` if two have one name.
    pub(super) fn new(resources: &Resources, cluster_domain: &str, facts: &Facts) -> Option<Self> {
        let mut index = Self { cluster_domain: cluster_domain.to_owned(), ..Self::default() };
        index.others.extend(facts.others.iter().cloned());
        for document in &resources.services {
            index.add_service(document).ok()?;
        }
        let names = Names::new(resources);
        for document in &resources.service_entries {
            index.add_service_entry(document, names.is_plain(document, &index));
        }
        for document in &resources.workload_entries {
            index.add_entry(document).ok()?;
        }
        for document in &resources.pods {
            index.add_pod(document).ok()?;
        }
        for document in &resources.endpoint_slices {
            index.add_slice(document).ok()?;
        }
        Some(index)
    }

    fn add_service(&mut self, document: &Arc<Document<ServiceSpec>>) -> Result<(), Everything> {
        let namespace = &document.name.namespace;
        let host = self.host(document);
        let is_other = document.spec.external_name.is_some() || self.others.contains(&host);
        for ip in &document.spec.addresses {
            let fixed = if is_other { Fixed::Other } else { Fixed::Service(Arc::clone(&host)) };
            self.fixed.entry(*ip).or_default().push(fixed);
        }
        if let Some(Host::Ip(ip)) = &document.spec.external_name {
            self.fixed.entry(*ip).or_default().push(Fixed::Other);
        }
        if let Some((label, value)) = document.spec.selector.first_key_value() {
            let here = self.groups.entry(Arc::clone(namespace)).or_default();
            let group = here.entry(label.clone()).or_default().entry(value.clone());
            let entries = &self.entries;
            let group = group.or_insert_with(|| Group {
                hosts: Vec::new(),
                entries: labelled(entries, namespace, (label, value)),
            });
            group.hosts.push(Arc::clone(&host));
        }
        if is_other {
            self.others.insert(host);
            return Ok(());
        }
        let before = self.services.insert(host, Arc::clone(document));
        before.map_or(Ok(()), |_| Err(Everything))
    }

    /// The host of a `Service`.
    pub(super) fn host(&self, document: &Document<ServiceSpec>) -> Arc<str> {
        let DocumentName { namespace, name, .. } = &document.name;
        service_host(name, namespace, &self.cluster_domain).to_ascii_lowercase().into()
    }

    /// Whether `host` is not that of one `Service` alone.
    pub(super) fn is_other(&self, host: &str) -> bool {
        self.others.contains(host)
    }

    /// Whether there is a `Service` whose host this is.
    pub(super) fn has_service(&self, host: &str) -> bool {
        self.services.contains_key(host) || self.others.contains(host)
    }

    pub(super) fn cluster_domain(&self) -> &str {
        &self.cluster_domain
    }

    fn add_entry(&mut self, document: &Arc<Document<WorkloadEntrySpec>>) -> Result<(), Everything> {
        let key = key(&document.name);
        if let Some(ip) = document.spec.address.as_ref().and_then(Host::ip) {
            self.at.entry(ip).or_default().push(Item::Entry(key.clone()));
        }
        each_group(&mut self.groups, document, |group| {
            group.entries.insert(Arc::clone(&key.1));
        });
        let before = self.entries.insert(key, Arc::clone(document));
        before.map_or(Ok(()), |_| Err(Everything))
    }

    fn add_pod(&mut self, document: &Arc<Document<PodSpec>>) -> Result<(), Everything> {
        let key = key(&document.name);
        for ip in &document.spec.addresses {
            self.at.entry(*ip).or_default().push(Item::Pod(key.clone()));
        }
        let before = self.pods.insert(key, Arc::clone(document));
        before.map_or(Ok(()), |_| Err(Everything))
    }

    fn add_slice(&mut self, document: &Arc<Document<EndpointSliceSpec>>) -> Result<(), Everything> {
        let key = key(&document.name);
        for ip in addresses_of(document) {
            self.at.entry(ip).or_default().push(Item::Slice(key.clone()));
        }
        for pod in pods_of(document) {
            self.naming.entry(pod).or_default().insert(key.clone());
        }
        self.of_host.entry(self.host_of(document)).or_default().insert(key.clone());
        let before = self.slices.insert(key, Arc::clone(document));
        before.map_or(Ok(()), |_| Err(Everything))
    }

    pub(super) fn host_of(&self, slice: &Document<EndpointSliceSpec>) -> String {
        service_host(&slice.spec.service, &slice.name.namespace, &self.cluster_domain)
    }

    fn leaves(&mut self, ip: IpAddr, item: &Item) {
        if let Some(here) = self.at.get_mut(&ip) {
            here.retain(|other| other != item);
            if here.is_empty() {
                self.at.remove(&ip);
            }
        }
    }

    /// Follows a change of `WorkloadEntry`s.
    pub(super) fn change_entries(&mut self, changed: &[Pair<WorkloadEntrySpec>]) -> Result<(), Everything> {
        for old in changed.iter().filter_map(|(old, _)| old.as_ref()) {
            let key = key(&old.name);
            if let Some(ip) = old.spec.address.as_ref().and_then(Host::ip) {
                self.leaves(ip, &Item::Entry(key.clone()));
            }
            each_group(&mut self.groups, old, |group| {
                group.entries.remove(&key.1);
            });
            self.entries.remove(&key);
        }
        changed.iter().filter_map(|(_, new)| new.as_ref()).try_for_each(|new| self.add_entry(new))
    }

    /// Follows a change of pods.
    pub(super) fn change_pods(&mut self, changed: &[Pair<PodSpec>]) -> Result<(), Everything> {
        for old in changed.iter().filter_map(|(old, _)| old.as_ref()) {
            let key = key(&old.name);
            for ip in &old.spec.addresses {
                self.leaves(*ip, &Item::Pod(key.clone()));
            }
            self.pods.remove(&key);
        }
        changed.iter().filter_map(|(_, new)| new.as_ref()).try_for_each(|new| self.add_pod(new))
    }

    /// Follows a change of `EndpointSlice`s.
    pub(super) fn change_slices(&mut self, changed: &[Pair<EndpointSliceSpec>]) -> Result<(), Everything> {
        for old in changed.iter().filter_map(|(old, _)| old.as_ref()) {
            let key = key(&old.name);
            for ip in addresses_of(old) {
                self.leaves(ip, &Item::Slice(key.clone()));
            }
            for pod in pods_of(old) {
                remove(&mut self.naming, &pod, &key);
            }
            let host = self.host_of(old);
            remove(&mut self.of_host, &host, &key);
            self.slices.remove(&key);
        }
        changed.iter().filter_map(|(_, new)| new.as_ref()).try_for_each(|new| self.add_slice(new))
    }

    /// Follows a change of `Service`s, each of which is nothing but itself.
    pub(super) fn change_services(&mut self, changed: &[Pair<ServiceSpec>]) -> Result<(), Everything> {
        for old in changed.iter().filter_map(|(old, _)| old.as_ref()) {
            let host = self.host(old);
            let fixed = Fixed::Service(Arc::clone(&host));
            old.spec.addresses.iter().for_each(|ip| remove_fixed(&mut self.fixed, *ip, &fixed));
            if let Some((label, value)) = old.spec.selector.first_key_value()
                && let Some(group) = self.group(&old.name.namespace, (label, value))
            {
                group.hosts.retain(|other| *other != host);
            }
            self.services.remove(&host);
        }
        changed.iter().filter_map(|(_, new)| new.as_ref()).try_for_each(|new| self.add_service(new))
    }

    fn group(&mut self, namespace: &str, (label, value): (&str, &str)) -> Option<&mut Group> {
        self.groups.get_mut(namespace)?.get_mut(label)?.get_mut(value)
    }

    /// Takes a `Service` that was read again and says the same.
    pub(super) fn service_again(&mut self, document: &Arc<Document<ServiceSpec>>) {
        let host = self.host(document);
        if let Some(there) = self.services.get_mut(&host) {
            *there = Arc::clone(document);
        }
    }

    /// Takes a `WorkloadEntry` that was read again and says the same.
    pub(super) fn entry_again(&mut self, document: &Arc<Document<WorkloadEntrySpec>>) {
        self.entries.insert(key(&document.name), Arc::clone(document));
    }

    /// The same of a pod.
    pub(super) fn pod_again(&mut self, document: &Arc<Document<PodSpec>>) {
        self.pods.insert(key(&document.name), Arc::clone(document));
    }

    /// The same of an `EndpointSlice`.
    pub(super) fn slice_again(&mut self, document: &Arc<Document<EndpointSliceSpec>>) {
        self.slices.insert(key(&document.name), Arc::clone(document));
    }
}

/// Each document of `changed`, before and after.
pub(super) fn both<T>(changed: &[Pair<T>]) -> impl Iterator<Item = &Document<T>> {
    changed.iter().flat_map(|(old, new)| [old, new]).flatten().map(|document| &**document)
}

/// The names of the `WorkloadEntry`s of `namespace` that have this label.
pub(super) fn labelled(
    entries: &HashMap<Key, Arc<Document<WorkloadEntrySpec>>>,
    namespace: &str,
    (label, value): (&str, &str),
) -> HashSet<Arc<str>> {
    let here = entries.iter().filter(|((own, _), _)| **own == *namespace);
    let with = here.filter(|(_, entry)| entry.spec.labels.get(label).is_some_and(|own| own == value));
    with.map(|((_, name), _)| Arc::clone(name)).collect()
}

/// Each group that `document` belongs to by one of its labels.
fn each_group(groups: &mut Groups, document: &Document<WorkloadEntrySpec>, mut tell: impl FnMut(&mut Group)) {
    let Some(here) = groups.get_mut(&document.name.namespace) else { return };
    for (label, value) in &document.spec.labels {
        if let Some(group) = here.get_mut(label).and_then(|values| values.get_mut(value)) {
            tell(group);
        }
    }
}

/// Takes `one` away from `ip`.
pub(super) fn remove_fixed(fixed: &mut HashMap<IpAddr, Vec<Fixed>>, ip: IpAddr, one: &Fixed) {
    if let Some(here) = fixed.get_mut(&ip) {
        here.retain(|other| other != one);
        if here.is_empty() {
            fixed.remove(&ip);
        }
    }
}

/// Where a `ServiceEntry`'s endpoint is called, if not at its own address.
pub(super) fn inline_dial(inline: &WorkloadEntrySpec) -> Option<&Host> {
    inline.inbound.as_ref().map(|inbound| &inbound.host)
}

pub(super) fn addresses_of(slice: &Document<EndpointSliceSpec>) -> impl Iterator<Item = IpAddr> {
    slice.spec.addresses.iter().chain(&slice.spec.ending).map(|address| address.ip)
}

/// The pods that `slice` names.
pub(super) fn pods_of(slice: &Document<EndpointSliceSpec>) -> impl Iterator<Item = Key> {
    let named = slice.spec.addresses.iter().chain(&slice.spec.ending);
    named.filter_map(|address| {
        let pod = address.pod.as_ref()?;
        let namespace = pod.namespace.as_ref().unwrap_or(&slice.name.namespace);
        Some((Arc::clone(namespace), Arc::clone(&pod.name)))
    })
}

fn remove<K: std::hash::Hash + Eq + Clone>(sets: &mut HashMap<K, HashSet<Key>>, of: &K, one: &Key) {
    if let Some(set) = sets.get_mut(of) {
        set.remove(one);
        if set.is_empty() {
            sets.remove(of);
        }
    }
}
