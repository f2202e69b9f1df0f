//! What policies have in common however they are written: where those are kept that may be for a workload, and how
//! workloads share what is made of the same policies.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
};

use super::keep;

/// Policies by the namespace of the workloads that they may be for. Each is known by its place in a list of all.
#[derive(Debug, Default)]
pub(super) struct ByNamespace<'a> {
    everywhere: Vec<usize>,
    own: BTreeMap<&'a str, Vec<usize>>,
}

impl<'a> ByNamespace<'a> {
    /// Adds the policy at `place`, which is for workloads of `namespace`; `None`: of every namespace.
    pub(super) fn add(&mut self, namespace: Option<&'a str>, place: usize) {
        match namespace {
            Some(namespace) => self.own.entry(namespace).or_default().push(place),
            None => self.everywhere.push(place),
        }
    }

    /// The places of those for workloads of `namespace` alone, in the order in which they were added.
    pub(super) fn own(&self, namespace: &str) -> impl Iterator<Item = usize> + Clone {
        self.own.get(namespace).map_or(&[][..], Vec::as_slice).iter().copied()
    }

    /// The places of those for workloads of `namespace`: first those for every namespace, each group in the order in
    /// which they were added.
    pub(super) fn places(&self, namespace: &str) -> impl Iterator<Item = usize> + Clone {
        self.everywhere.iter().copied().chain(self.own(namespace))
    }
}

/// What is made of a key once, and shared by all workloads that have it.
#[derive(Debug)]
pub(super) struct MadeOnce<K, V>(RefCell<HashMap<K, Arc<V>>>);

impl<K, V> Default for MadeOnce<K, V> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<K: Eq + Hash, V: PartialEq> MadeOnce<K, V> {
    /// What `make` makes of `key`; as `previous`, which its first workload had before, if that is the same.
    pub(super) fn get(&self, key: K, previous: Option<&Arc<V>>, make: impl FnOnce(&K) -> V) -> Arc<V> {
        let mut known = self.0.borrow_mut();
        if let Some(made) = known.get(&key) {
            return Arc::clone(made);
        }
        let made = keep(make(&key), previous);
        known.insert(key, Arc::clone(&made));
        made
    }
}
