//! Which documents have to do with each other: by an address, a name, or a selector.
//!
//! What workloads and endpoints come to depends on nothing else of the other workloads. So [`Index::affected`] is all that a
//! change can reach, and compiling that alone gives what compiling everything gives. Where documents meet in other ways (a
//! `ServiceEntry`, a DNS name, a gateway, an `ExternalName`), it says so, and everything is compiled.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use selvedge_model::{Host, facts::selects};

use super::{super::hosts::service_host, Facts, edits::Pair};
use crate::{
    problem::DocumentName,
    resources::{
        Document, EndpointSliceSpec, PodSpec, Resources, ServiceEntrySpec, ServiceSpec, WorkloadEntrySpec,
        service_entry::EntryEndpoints,
    },
};

/// A document's namespace and name.
pub(super) type Key = (Arc<str>, Arc<str>);

/// The most documents that are worth being compiled alone. Both what there was and what there is are.
const MOST: usize = 2_000;

/// A document that has addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Item {
    Entry(Key),
    Pod(Key),
    Slice(Key),
}

/// A document that has addresses, and does not change while the index lives.
#[derive(Debug)]
enum Fixed {
    /// A `Service`, by its host.
    Service(Arc<str>),
    /// One whose meaning is not that of its addresses and labels alone.
    Other,
}

/// Who selects `WorkloadEntry`s by one of their labels, and who has it.
#[derive(Debug, Default)]
struct Group {
    hosts: Vec<Arc<str>>,
    entries: HashSet<Arc<str>>,
}

/// Each label that a selector asks for first: by namespace, name and value.
type Groups = HashMap<Arc<str>, HashMap<String, HashMap<String, Group>>>;

/// All workloads and endpoints, and what they may have to do with.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Each `Service` that is nothing but itself, by its host, with its place among all.
    services: HashMap<Arc<str>, (usize, Arc<Document<ServiceSpec>>)>,
    groups: Groups,
    /// The selectors of `ServiceEntry`s by their namespaces.
    selecting: HashMap<Arc<str>, Vec<BTreeMap<String, String>>>,
    fixed: HashMap<IpAddr, Vec<Fixed>>,
    /// Hosts that are not those of one `Service` alone.
    others: HashSet<Arc<str>>,
    entries: HashMap<Key, Arc<Document<WorkloadEntrySpec>>>,
    pods: HashMap<Key, Arc<Document<PodSpec>>>,
    slices: HashMap<Key, Arc<Document<EndpointSliceSpec>>>,
    at: HashMap<IpAddr, Vec<Item>>,
    /// The slices of each host.
    of_host: HashMap<String, HashSet<Key>>,
    /// The slices that name each pod.
    naming: HashMap<Key, HashSet<Key>>,
    cluster_domain: String,
}

/// All that a change can reach.
#[derive(Debug, Default)]
pub(super) struct Affected {
    items: HashSet<Item>,
    hosts: HashSet<Arc<str>>,
    addresses: HashSet<IpAddr>,
    /// Those items and services that were not looked at yet.
    left: Vec<Item>,
    hosts_left: Vec<Arc<str>>,
}

/// There is more to a change than its neighbours tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Everything;

fn key(name: &DocumentName) -> Key {
    (Arc::clone(&name.namespace), Arc::clone(&name.name))
}

impl Index {
    /// Of all documents; `None` if two have one name.
    pub(super) fn new(resources: &Resources, cluster_domain: &str, facts: &Facts) -> Option<Self> {
        let mut index = Self { cluster_domain: cluster_domain.to_owned(), ..Self::default() };
        index.others.extend(facts.others.iter().cloned());
        for (place, document) in resources.services.iter().enumerate() {
            index.add_service(place, document)?;
        }
        resources.service_entries.iter().for_each(|document| index.add_service_entry(document));
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

    fn add_service(&mut self, place: usize, document: &Arc<Document<ServiceSpec>>) -> Option<()> {
        let DocumentName { namespace, name, .. } = &document.name;
        let host: Arc<str> = service_host(name, namespace, &self.cluster_domain).to_ascii_lowercase().into();
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
            let group = here.entry(label.clone()).or_default().entry(value.clone()).or_default();
            group.hosts.push(Arc::clone(&host));
        }
        if is_other {
            self.others.insert(host);
            return Some(());
        }
        let is_new = self.services.insert(host, (place, Arc::clone(document))).is_none();
        is_new.then_some(())
    }

    fn add_service_entry(&mut self, document: &Document<ServiceEntrySpec>) {
        let spec = &document.spec;
        let mut other = |ip: IpAddr| self.fixed.entry(ip).or_default().push(Fixed::Other);
        spec.addresses.iter().copied().for_each(&mut other);
        spec.hosts.iter().filter_map(|host| host.parse().ok()).for_each(&mut other);
        match &spec.endpoints {
            EntryEndpoints::Inline(list) => {
                let places = list.iter().flat_map(|inline| inline.address.iter().chain(inline_dial(inline)));
                places.filter_map(Host::ip).for_each(other);
            }
            EntryEndpoints::Selected(selector) => {
                let here = self.selecting.entry(Arc::clone(&document.name.namespace)).or_default();
                here.push(selector.clone());
            }
            EntryEndpoints::Hosts => {}
        }
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

    fn host_of(&self, slice: &Document<EndpointSliceSpec>) -> String {
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

    /// All that these changes can reach, of what is in the index: what there was before them.
    pub(super) fn affected(
        &self,
        entries: &[Pair<WorkloadEntrySpec>],
        pods: &[Pair<PodSpec>],
        slices: &[Pair<EndpointSliceSpec>],
    ) -> Result<Affected, Everything> {
        let mut affected = Affected::default();
        for document in entries.iter().flat_map(|(old, new)| [old, new]).flatten() {
            affected.items.insert(Item::Entry(key(&document.name)));
            self.reach_entry(document, &mut affected)?;
        }
        for document in pods.iter().flat_map(|(old, new)| [old, new]).flatten() {
            affected.items.insert(Item::Pod(key(&document.name)));
            self.reach_pod(document, &mut affected)?;
        }
        for document in slices.iter().flat_map(|(old, new)| [old, new]).flatten() {
            affected.items.insert(Item::Slice(key(&document.name)));
            self.reach_slice(document, &mut affected)?;
        }
        loop {
            if affected.items.len() > MOST {
                return Err(Everything);
            }
            if let Some(host) = affected.hosts_left.pop() {
                self.reach_service(&host, &mut affected)?;
            } else if let Some(item) = affected.left.pop() {
                self.reach(&item, &mut affected)?;
            } else {
                return Ok(affected);
            }
        }
    }

    fn reach(&self, item: &Item, affected: &mut Affected) -> Result<(), Everything> {
        match item {
            Item::Entry(key) => self.reach_entry(self.entries.get(key).ok_or(Everything)?, affected),
            Item::Pod(key) => self.reach_pod(self.pods.get(key).ok_or(Everything)?, affected),
            Item::Slice(key) => self.reach_slice(self.slices.get(key).ok_or(Everything)?, affected),
        }
    }

    /// A namespace's workload with these labels is none that a `ServiceEntry` asks for.
    fn is_not_selected(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Result<(), Everything> {
        let mut selecting = self.selecting.get(namespace).into_iter().flatten();
        if selecting.any(|selector| selects(selector, labels)) { Err(Everything) } else { Ok(()) }
    }

    fn reach_entry(
        &self,
        document: &Document<WorkloadEntrySpec>,
        affected: &mut Affected,
    ) -> Result<(), Everything> {
        let spec = &document.spec;
        self.is_not_selected(&document.name.namespace, &spec.labels)?;
        if spec.gateway.is_some() || spec.address.as_ref().is_some_and(|host| host.name().is_some()) {
            return Err(Everything);
        }
        if let Some(ip) = spec.address.as_ref().and_then(Host::ip) {
            self.reach_address(ip, affected)?;
        }
        let key = key(&document.name);
        if self.pods.contains_key(&key) {
            affected.add(Item::Pod(key));
        }
        let here = self.groups.get(&document.name.namespace);
        for (label, value) in &spec.labels {
            let group = here.and_then(|here| here.get(label)?.get(value));
            for host in group.into_iter().flat_map(|group| &group.hosts) {
                affected.add_host(host);
            }
        }
        Ok(())
    }

    fn reach_pod(&self, document: &Document<PodSpec>, affected: &mut Affected) -> Result<(), Everything> {
        self.is_not_selected(&document.name.namespace, &document.metadata.labels)?;
        if document.spec.gateway.is_some() {
            return Err(Everything);
        }
        document.spec.addresses.iter().try_for_each(|ip| self.reach_address(*ip, affected))?;
        let key = key(&document.name);
        for slice in self.naming.get(&key).into_iter().flatten() {
            affected.add(Item::Slice(slice.clone()));
        }
        if self.entries.contains_key(&key) {
            affected.add(Item::Entry(key));
        }
        Ok(())
    }

    fn reach_slice(
        &self,
        document: &Document<EndpointSliceSpec>,
        affected: &mut Affected,
    ) -> Result<(), Everything> {
        let host = self.host_of(document);
        if self.others.contains(&*host) {
            return Err(Everything);
        }
        match self.services.get_key_value(&*host) {
            Some((host, _)) => affected.add_host(host),
            None => {
                let others = self.of_host.get(&host).into_iter().flatten();
                others.for_each(|slice| affected.add(Item::Slice(slice.clone())));
            }
        }
        for pod in pods_of(document).filter(|pod| self.pods.contains_key(pod)) {
            affected.add(Item::Pod(pod));
        }
        addresses_of(document).try_for_each(|ip| self.reach_address(ip, affected))
    }

    fn reach_service(&self, host: &Arc<str>, affected: &mut Affected) -> Result<(), Everything> {
        let Some((_, document)) = self.services.get(host) else { return Err(Everything) };
        document.spec.addresses.iter().try_for_each(|ip| self.reach_address(*ip, affected))?;
        let namespace = &document.name.namespace;
        if let Some((label, value)) = document.spec.selector.first_key_value() {
            let group = self.groups.get(namespace).and_then(|here| here.get(label)?.get(value));
            for name in group.into_iter().flat_map(|group| &group.entries) {
                affected.add(Item::Entry((Arc::clone(namespace), Arc::clone(name))));
            }
        }
        for slice in self.of_host.get(&**host).into_iter().flatten() {
            affected.add(Item::Slice(slice.clone()));
        }
        Ok(())
    }

    fn reach_address(&self, ip: IpAddr, affected: &mut Affected) -> Result<(), Everything> {
        if !affected.addresses.insert(ip) {
            return Ok(());
        }
        for fixed in self.fixed.get(&ip).into_iter().flatten() {
            match fixed {
                Fixed::Service(host) => affected.add_host(host),
                Fixed::Other => return Err(Everything),
            }
        }
        for item in self.at.get(&ip).into_iter().flatten() {
            affected.add(item.clone());
        }
        Ok(())
    }
}

impl Affected {
    fn add(&mut self, item: Item) {
        if !self.items.contains(&item) {
            self.items.insert(item.clone());
            self.left.push(item);
        }
    }

    fn add_host(&mut self, host: &Arc<str>) {
        if self.hosts.insert(Arc::clone(host)) {
            self.hosts_left.push(Arc::clone(host));
        }
    }

    /// Those documents of `all`, which `index` is of, that are affected, in their order.
    pub(super) fn of(&self, index: &Index, all: &Resources) -> Resources {
        let (mut entries, mut pods, mut slices) = (Places::default(), Places::default(), Places::default());
        for item in &self.items {
            match item {
                Item::Entry(key) => index.entries.get(key).into_iter().for_each(|one| entries.add(one)),
                Item::Pod(key) => index.pods.get(key).into_iter().for_each(|one| pods.add(one)),
                Item::Slice(key) => index.slices.get(key).into_iter().for_each(|one| slices.add(one)),
            }
        }
        let mut services: Vec<_> = self.hosts.iter().filter_map(|host| index.services.get(host)).collect();
        services.sort_by_key(|(place, _)| *place);
        Resources {
            workload_entries: entries.of(&all.workload_entries),
            pods: pods.of(&all.pods),
            endpoint_slices: slices.of(&all.endpoint_slices),
            services: services.into_iter().map(|(_, document)| Arc::clone(document)).collect(),
            nodes: all.nodes.clone(),
            ..Resources::default()
        }
    }
}

/// Where some documents are in memory, to be found in a long list.
#[derive(Debug, Default)]
struct Places(HashSet<usize>);

impl Places {
    fn add<T>(&mut self, document: &Arc<T>) {
        self.0.insert(place_of(document));
    }

    fn of<T>(&self, all: &[Arc<T>]) -> Vec<Arc<T>> {
        if self.0.is_empty() {
            return Vec::new();
        }
        // Most are none of them, which 1,024 bits tell sooner than the set.
        let mut bits = [0_u64; 16];
        let bit = |place: usize| ((place >> 10) % 16, (place >> 4) % 64);
        for (word, bit) in self.0.iter().map(|place| bit(*place)) {
            bits[word] |= 1 << bit;
        }
        let is_one = |document: &&Arc<T>| {
            let place = place_of(document);
            let (word, bit) = bit(place);
            bits[word] & (1 << bit) != 0 && self.0.contains(&place)
        };
        all.iter().filter(is_one).cloned().collect()
    }
}

fn place_of<T>(document: &Arc<T>) -> usize {
    Arc::as_ptr(document).addr()
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

/// Where a `ServiceEntry`'s endpoint is called, if not at its own address.
fn inline_dial(inline: &WorkloadEntrySpec) -> Option<&Host> {
    inline.inbound.as_ref().map(|inbound| &inbound.host)
}

fn addresses_of(slice: &Document<EndpointSliceSpec>) -> impl Iterator<Item = IpAddr> {
    slice.spec.addresses.iter().chain(&slice.spec.ending).map(|address| address.ip)
}

/// The pods that `slice` names.
fn pods_of(slice: &Document<EndpointSliceSpec>) -> impl Iterator<Item = Key> {
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
