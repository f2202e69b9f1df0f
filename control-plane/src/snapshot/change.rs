//! What is different between two meshes, in the words of what views are made from.
//!
//! Parts that are equal are the same `Arc`s, so that this compares pointers, and values only where a mesh has no pointers.
//! It may name too much and never too little.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use selvedge_model::{
    Mesh, ServiceKey,
    snapshot::{Occupant, ServiceViews},
};

use super::view::Input;

/// What is different.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// What every workload is told, or what every name means.
    pub(super) everything: bool,
    /// Inputs of views.
    pub(super) inputs: HashSet<Input>,
    /// Hosts of which there is another set of ports, or of which other namespaces know.
    pub(super) hosts: HashSet<Arc<str>>,
}

impl Change {
    /// What `after` has that `before` had not, or had otherwise.
    pub(super) fn between(before: &Mesh, after: &Mesh) -> Self {
        let everything = before.cluster_domain != after.cluster_domain
            || !Arc::ptr_eq(&before.revocations, &after.revocations)
                && before.revocations != after.revocations;
        let mut change = Self { everything, ..Self::default() };
        change.workloads(before, after);
        change.services(before, after);
        change.addresses(before, after);
        change
    }

    fn add(&mut self, input: Input) {
        self.inputs.insert(input);
    }

    fn workloads(&mut self, before: &Mesh, after: &Mesh) {
        different(&before.workloads, &after.workloads, Arc::ptr_eq, |name| {
            self.add(Input::Workload(name.clone()));
        });
        different(&before.gateways, &after.gateways, Arc::ptr_eq, |name| {
            self.add(Input::Workload(name.clone()));
        });
        different(&before.selected, &after.selected, PartialEq::eq, |name| {
            self.add(Input::Workload(name.clone()));
        });
        different(&before.sets, &after.sets, Arc::ptr_eq, |name| self.add(Input::SetPart(name.clone())));
    }

    fn services(&mut self, before: &Mesh, after: &Mesh) {
        different(&before.services, &after.services, same_views, |key| {
            self.inputs.insert(Input::Service(key.clone()));
            if before.services.contains_key(key) != after.services.contains_key(key) {
                self.add_host(key);
            }
        });
        different(&before.exported, &after.exported, PartialEq::eq, |key| {
            // Whoever is led there is told where it is if he knows of it.
            self.inputs.extend([Input::Exports, Input::Endpoints(key.clone())]);
            self.add_host(key);
        });
        different(&before.endpoints, &after.endpoints, Arc::ptr_eq, |key| {
            self.add(Input::Endpoints(key.clone()));
        });
    }

    /// Notes that it is another one who is called by the name of `key`.
    fn add_host(&mut self, key: &ServiceKey) {
        let name = key.name();
        self.hosts.insert(if name == &*key.host { Arc::clone(&key.host) } else { Arc::from(name) });
    }

    fn addresses(&mut self, before: &Mesh, after: &Mesh) {
        let mut at = |ip: IpAddr| self.add(Input::Address(ip));
        let addresses =
            (before.addresses.beside(&after.addresses), after.addresses.beside(&before.addresses));
        differing(addresses, PartialEq::eq, |address| at(address.ip()));
        different(&before.service_addresses, &after.service_addresses, PartialEq::eq, |address| {
            at(address.ip());
        });
        let callers = (before.callers.beside(&after.callers), after.callers.beside(&before.callers));
        differing(callers, PartialEq::eq, |address| at(address.ip()));
        let occupants =
            (before.occupants.beside(&after.occupants), after.occupants.beside(&before.occupants));
        differing(occupants, same_occupant, |ip| at(*ip));
        let mut at = |port: &u16| self.add(Input::Port(*port));
        different(&before.service_ranges, &after.service_ranges, PartialEq::eq, &mut at);
        different(&before.named.endpoints, &after.named.endpoints, PartialEq::eq, &mut at);
        different(&before.named.callers, &after.named.callers, PartialEq::eq, &mut at);
        let same = |one: &(usize, Occupant), other: &(usize, Occupant)| {
            one.0 == other.0 && same_occupant(&one.1, &other.1)
        };
        different(&before.named.occupants, &after.named.occupants, same, |_| {
            self.inputs.insert(Input::NamedWorkloads);
        });
    }
}

fn same_views(one: &ServiceViews, other: &ServiceViews) -> bool {
    let mut pairs = one.by_namespace.iter().zip(&other.by_namespace);
    Arc::ptr_eq(&one.default, &other.default)
        && one.by_namespace.len() == other.by_namespace.len()
        && pairs.all(|((namespace, one), (same, other))| namespace == same && Arc::ptr_eq(one, other))
        && same_selected(one, other)
}

fn same_selected(one: &ServiceViews, other: &ServiceViews) -> bool {
    let (mut ones, mut others) = (one.each_selected(), other.each_selected());
    loop {
        match (ones.next(), others.next()) {
            (None, None) => return true,
            (Some((namespace, labels, one)), Some((same, same_labels, other)))
                if namespace == same && labels == same_labels && Arc::ptr_eq(one, other) => {}
            _ => return false,
        }
    }
}

fn same_occupant(one: &Occupant, other: &Occupant) -> bool {
    Arc::ptr_eq(&one.workload, &other.workload) && one.skipped == other.skipped
}

/// Tells of every key that only one of the two has, or whose values are not the same. Both are walked once.
fn different<K: Ord, V>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    same: impl Fn(&V, &V) -> bool,
    tell: impl FnMut(&K),
) {
    if !std::ptr::eq(before, after) {
        differing((before.iter(), after.iter()), same, tell);
    }
}

/// The same of what is in the order of its keys.
fn differing<'m, K: Ord + 'm, V: 'm>(
    (old, new): (impl Iterator<Item = (&'m K, &'m V)>, impl Iterator<Item = (&'m K, &'m V)>),
    same: impl Fn(&V, &V) -> bool,
    mut tell: impl FnMut(&K),
) {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    loop {
        match (old.peek(), new.peek()) {
            (Some((one, _)), Some((other, _))) if one < other => {
                old.next().into_iter().for_each(|(key, _)| tell(key))
            }
            (Some((one, _)), Some((other, _))) if other < one => {
                new.next().into_iter().for_each(|(key, _)| tell(key))
            }
            (Some((key, one)), Some((_, other))) => {
                if !same(one, other) {
                    tell(key);
                }
                old.next();
                new.next();
            }
            (Some(_), None) => old.next().into_iter().for_each(|(key, _)| tell(key)),
            (None, Some(_)) => new.next().into_iter().for_each(|(key, _)| tell(key)),
            (None, None) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, add_service, add_workload};
    use selvedge_model::ServiceKey;

    const REVIEWS: &str = "reviews.shop.svc.cluster.local";

    fn mesh() -> Mesh {
        let mut mesh = testing::mesh();
        add_workload(&mut mesh, "shop/frontend", "frontend");
        add_service(&mut mesh, REVIEWS, &["127.0.0.2:80"]);
        mesh
    }

    #[test]
    fn what_kept_its_pointers_is_not_named() {
        let before = mesh();

        assert_eq!(Change::between(&before, &before.clone()), Change::default());
    }

    #[test]
    fn a_list_of_endpoints_is_named_alone() {
        let before = mesh();
        let mut after = before.clone();
        let (views, key) = (after.services.clone(), ServiceKey::new(REVIEWS, 80));
        add_service(&mut after, REVIEWS, &["127.0.0.2:80", "127.0.0.3:80"]);
        after.services = views;

        let change = Change::between(&before, &after);

        assert_eq!(change.inputs, HashSet::from([Input::Endpoints(key)]));
        assert!(change.hosts.is_empty() && !change.everything);
    }

    #[test]
    fn who_knows_of_a_service_decides_who_is_told_where_it_is() {
        let (before, key) = (mesh(), ServiceKey::new(REVIEWS, 80));
        let mut after = before.clone();
        after.exported.insert(key.clone(), ["shop".to_owned()].into());

        let change = Change::between(&before, &after);

        assert_eq!(change.inputs, HashSet::from([Input::Exports, Input::Endpoints(key)]));
    }

    #[test]
    fn a_service_that_is_new_or_gone_may_change_what_names_mean() {
        let before = mesh();
        let mut after = before.clone();
        add_service(&mut after, "ratings.shop.svc.cluster.local", &[]);

        for (one, other) in [(&before, &after), (&after, &before)] {
            let change = Change::between(one, other);
            assert_eq!(change.hosts, HashSet::from([Arc::from("ratings.shop.svc.cluster.local")]));
        }
    }
}
