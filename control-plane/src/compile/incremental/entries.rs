//! `ServiceEntry`s that are nothing but themselves, whose changes are compiled alone.
//!
//! Of such a one no other document has a host, and no wildcard is above it; it is called at addresses that are written down, or at the
//! `WorkloadEntry`s that it selects. So it meets other documents by addresses and labels, as a `Service` does. Where DNS says who is
//! called, everything that is known by name has a part in it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use selvedge_model::{Host, facts::selects};

use super::{
    super::hosts::namespace_of,
    changes::ChangedWorkloads,
    edits::Pair,
    index::{Everything, Fixed, Group, Index, Key, both, inline_dial, key, labelled, remove_fixed},
};
use crate::resources::{
    Document, Resources, ServiceEntrySpec, WorkloadEntrySpec,
    service_entry::{EntryEndpoints, Resolution},
};

/// How often a changed `ServiceEntry` may be compared with a pod, all together. To compile everything takes less then.
const MOST_COMPARED: usize = 1_000_000;

/// By what `ServiceEntry`s have to do with each other, and with names of `Service`s.
pub(super) struct Names<'a> {
    /// How many times each host is named.
    hosts: HashMap<&'a str, usize>,
    /// The suffixes of wildcards, by their lengths: there may be very many, and each host is asked for all.
    suffixes: HashMap<usize, HashSet<&'a str>>,
    /// How many documents have each namespace and name.
    documents: HashMap<(&'a str, &'a str), usize>,
    /// What `Service`s of the type `ExternalName` stand for.
    external: HashSet<&'a str>,
}

impl<'a> Names<'a> {
    pub(super) fn new(all: &'a Resources) -> Self {
        let mut names = Self {
            hosts: HashMap::new(),
            suffixes: HashMap::new(),
            documents: HashMap::with_capacity(all.service_entries.len()),
            external: HashSet::new(),
        };
        for document in &all.service_entries {
            *names.documents.entry((&document.name.namespace, &document.name.name)).or_default() += 1;
            for host in &document.spec.hosts {
                *names.hosts.entry(host).or_default() += 1;
                if let Some(suffix) = host.strip_prefix('*') {
                    names.suffixes.entry(suffix.len()).or_default().insert(suffix);
                }
            }
        }
        let external = all.services.iter().filter_map(|service| service.spec.external_name.as_ref()?.name());
        names.external.extend(external.map(|name| &**name));
        names
    }

    /// Whether `document` is nothing but itself, where `index` knows the `Service`s.
    pub(super) fn is_plain(&self, document: &Document<ServiceEntrySpec>, index: &Index) -> bool {
        let spec = &document.spec;
        let name = (&*document.name.namespace, &*document.name.name);
        !document.unusable
            && spec.ranges.is_empty()
            && spec.resolution == Resolution::Static
            && are_at_addresses(&spec.endpoints)
            && self.documents.get(&name) == Some(&1)
            && spec.hosts.iter().all(|host| self.is_own(host, index))
    }

    /// Whether a wildcard is above `host`.
    fn is_below_wildcard(&self, host: &str) -> bool {
        self.suffixes.iter().any(|(length, here)| {
            let end = host.len().checked_sub(*length).and_then(|start| host.get(start..));
            end.is_some_and(|end| here.contains(end))
        })
    }

    /// Whether nobody else has to do with `host`.
    fn is_own(&self, host: &str, index: &Index) -> bool {
        self.hosts.get(host) == Some(&1)
            && !host.starts_with('*')
            && host.parse::<IpAddr>().is_err()
            && !self.is_below_wildcard(host)
            && !self.external.contains(host)
            && namespace_of(host, index.cluster_domain()).is_none()
            && !index.has_service(&format!("{host}.svc.{}", index.cluster_domain()))
    }
}

/// Whether all `endpoints` are at IP addresses, or are workloads.
fn are_at_addresses(endpoints: &EntryEndpoints) -> bool {
    let is_address = |host: &Host| host.ip().is_some();
    match endpoints {
        EntryEndpoints::Inline(list) => list.iter().all(|inline| {
            inline.address.as_ref().is_some_and(is_address) && inline_dial(inline).is_none_or(is_address)
        }),
        EntryEndpoints::Selected(selector) => !selector.is_empty(),
        EntryEndpoints::Hosts => false,
    }
}

/// Each address that `spec` names.
pub(super) fn addresses_in(spec: &ServiceEntrySpec) -> impl Iterator<Item = IpAddr> {
    let inline = if let EntryEndpoints::Inline(list) = &spec.endpoints { &list[..] } else { &[] };
    let places = |inline: &WorkloadEntrySpec| {
        [inline.address.as_ref().and_then(Host::ip), inline_dial(inline).and_then(Host::ip)]
    };
    spec.addresses.iter().copied().chain(inline.iter().flat_map(places).flatten())
}

/// Whether nothing is said otherwise but where the endpoints of a host are, which nobody reads to find out what the host is.
pub(super) fn is_of_endpoints_alone((old, new): &Pair<ServiceEntrySpec>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return false };
    let (before, after) = (&old.spec.endpoints, &new.spec.endpoints);
    if std::mem::discriminant(before) != std::mem::discriminant(after) {
        return false;
    }
    let spec = ServiceEntrySpec { endpoints: after.clone(), ..old.spec.clone() };
    **new == Document { spec, size: new.size, ..Document::clone(old) }
}

impl ChangedWorkloads {
    /// # Errors
    /// These `ServiceEntry`s select too much to look for pods among it.
    fn select_little(&self, index: &Index) -> Result<(), Everything> {
        let selecting = both(&self.service_entries.changed)
            .filter(|one| matches!(one.spec.endpoints, EntryEndpoints::Selected(_)))
            .count();
        if selecting.saturating_mul(index.pods.len()) <= MOST_COMPARED { Ok(()) } else { Err(Everything) }
    }

    /// # Errors
    /// There is more to one of these `ServiceEntry`s than itself, of which `index` knows, and of which endpoints alone have changed.
    pub(super) fn have_plain_endpoints(&self, index: &Index) -> Result<(), Everything> {
        self.select_little(index)?;
        let is_plain = |one: &Document<ServiceEntrySpec>| {
            index.service_entries.contains_key(&key(&one.name))
                && are_at_addresses(&one.spec.endpoints)
                && !index.selects_a_pod(one)
        };
        if both(&self.service_entries.changed).all(is_plain) { Ok(()) } else { Err(Everything) }
    }

    /// # Errors
    /// There is more to one of these `ServiceEntry`s than itself, in the documents that there were or that there are.
    pub(super) fn are_plain_entries(
        &self,
        (old, new): (&Resources, &Resources),
        index: &Index,
    ) -> Result<(), Everything> {
        let changed = &self.service_entries.changed;
        if changed.is_empty() {
            return Ok(());
        }
        self.select_little(index)?;
        let (before, after) = (Names::new(old), Names::new(new));
        let is_plain = |names: &Names<'_>, one: Option<&Arc<Document<ServiceEntrySpec>>>| {
            one.is_none_or(|one| names.is_plain(one, index) && !index.selects_a_pod(one))
        };
        // A route that may not know of a host does not say which one it names.
        let is_seen_as_before = |one: &ServiceEntrySpec, other: Option<&ServiceEntrySpec>| {
            let same = |other: &ServiceEntrySpec| {
                let hosts: HashSet<&str> = other.hosts.iter().map(String::as_str).collect();
                one.export_to == other.export_to && one.hosts.iter().all(|host| hosts.contains(host.as_str()))
            };
            one.export_to.is_everywhere() || other.is_some_and(same)
        };
        let may_be_followed = changed.iter().all(|(old, new)| {
            let spec = new.as_ref().map(|new| &new.spec);
            is_plain(&before, old.as_ref())
                && is_plain(&after, new.as_ref())
                && old.as_ref().is_none_or(|old| is_seen_as_before(&old.spec, spec))
        });
        if may_be_followed { Ok(()) } else { Err(Everything) }
    }
}

impl Index {
    /// Adds a `ServiceEntry`, which is nothing but itself if it `is_plain`.
    pub(super) fn add_service_entry(&mut self, document: &Arc<Document<ServiceEntrySpec>>, is_plain: bool) {
        let (spec, key) = (&document.spec, key(&document.name));
        let fixed = || if is_plain { Fixed::Entry(key.clone()) } else { Fixed::Other };
        let hosts = spec.hosts.iter().filter_map(|host| host.parse().ok());
        for ip in addresses_in(spec).chain(hosts) {
            self.fixed.entry(ip).or_default().push(fixed());
        }
        if let EntryEndpoints::Selected(selector) = &spec.endpoints {
            let namespace = &document.name.namespace;
            let whose = is_plain.then(|| key.clone());
            self.selecting.entry(Arc::clone(namespace)).or_default().push((selector.clone(), whose));
            if let Some((label, value)) = selector.first_key_value() {
                let here = self.groups.entry(Arc::clone(namespace)).or_default();
                let entries = &self.entries;
                here.entry(label.clone()).or_default().entry(value.clone()).or_insert_with(|| Group {
                    hosts: Vec::new(),
                    entries: labelled(entries, namespace, (label, value)),
                });
            }
        }
        if is_plain {
            self.service_entries.insert(key, Arc::clone(document));
        }
    }

    /// Follows a change of `ServiceEntry`s, each of which is nothing but itself.
    pub(super) fn change_service_entries(&mut self, changed: &[Pair<ServiceEntrySpec>]) {
        for old in changed.iter().filter_map(|(old, _)| old.as_ref()) {
            let key = key(&old.name);
            let fixed = Fixed::Entry(key.clone());
            addresses_in(&old.spec).for_each(|ip| remove_fixed(&mut self.fixed, ip, &fixed));
            if let Some(here) = self.selecting.get_mut(&old.name.namespace) {
                here.retain(|(_, whose)| whose.as_ref() != Some(&key));
            }
            self.service_entries.remove(&key);
        }
        changed.iter().filter_map(|(_, new)| new.as_ref()).for_each(|new| self.add_service_entry(new, true));
    }

    /// Takes a `ServiceEntry` that was read again and says the same.
    pub(super) fn service_entry_again(&mut self, document: &Arc<Document<ServiceEntrySpec>>) {
        if let Some(there) = self.service_entries.get_mut(&key(&document.name)) {
            *there = Arc::clone(document);
        }
    }

    /// Whether `document` selects pods, which is reported.
    fn selects_a_pod(&self, document: &Document<ServiceEntrySpec>) -> bool {
        let EntryEndpoints::Selected(selector) = &document.spec.endpoints else { return false };
        let mut pods = self.pods.iter().filter(|((namespace, _), _)| *namespace == document.name.namespace);
        pods.any(|(_, pod)| selects(selector, &pod.metadata.labels))
    }

    /// The `ServiceEntry`s that select a workload of `namespace` with these labels.
    ///
    /// # Errors
    /// There is more to one of them than itself.
    pub(super) fn selecting(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<Key>, Everything> {
        let here = self.selecting.get(namespace).into_iter().flatten();
        let selecting = here.filter(|(selector, _)| selects(selector, labels));
        selecting.map(|(_, whose)| whose.clone().ok_or(Everything)).collect()
    }
}
