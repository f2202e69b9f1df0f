//! What has become of a part of the mesh, put into its place.

use std::{collections::BTreeMap, sync::Arc};

use selvedge_model::{
    Host,
    snapshot::{Divided, OwnedPorts, Owners, Shared},
};

use super::index::Everything;

/// A part of a mesh that is found by keys.
pub(super) trait Keyed<K, V> {
    fn find(&self, key: &K) -> Option<&V>;
    fn put(&mut self, key: K, value: V);
    fn take_out(&mut self, key: &K);
}

/// Maps that have these methods of their own.
macro_rules! keyed {
    ($($map:ty),+) => {$(
        impl<K: Ord + Clone, V: Clone> Keyed<K, V> for $map {
            fn find(&self, key: &K) -> Option<&V> {
                self.get(key)
            }

            fn put(&mut self, key: K, value: V) {
                self.insert(key, value);
            }

            fn take_out(&mut self, key: &K) {
                self.remove(key);
            }
        }
    )+};
}

keyed!(Shared<BTreeMap<K, V>>, BTreeMap<K, V>, Divided<K, V>);

/// Who owns which addresses in a mesh.
pub(super) struct OwnersIn<'m>(pub(super) &'m mut Arc<Owners>);

impl Keyed<Host, Vec<OwnedPorts>> for OwnersIn<'_> {
    fn find(&self, key: &Host) -> Option<&Vec<OwnedPorts>> {
        self.0.addresses.get(key)
    }

    fn put(&mut self, key: Host, value: Vec<OwnedPorts>) {
        Arc::make_mut(self.0).addresses.insert(key, value);
    }

    fn take_out(&mut self, key: &Host) {
        Arc::make_mut(self.0).addresses.remove(key);
    }
}

/// Who has which hosts of `ServiceEntry`s in a mesh.
pub(super) struct NamesIn<'m>(pub(super) &'m mut Arc<Owners>);

impl Keyed<Arc<str>, Arc<str>> for NamesIn<'_> {
    fn find(&self, key: &Arc<str>) -> Option<&Arc<str>> {
        self.0.names.get(key)
    }

    fn put(&mut self, key: Arc<str>, value: Arc<str>) {
        Arc::make_mut(self.0).names.insert(key, value);
    }

    fn take_out(&mut self, key: &Arc<str>) {
        Arc::make_mut(self.0).names.remove(key);
    }
}

/// Gives `map` what has become of its part `old`.
///
/// # Errors
/// `map` has not `old` in it, or has already what is new in `new`.
pub(super) fn splice<K: Ord, V: PartialEq>(
    map: &mut impl Keyed<K, V>,
    old: &BTreeMap<K, V>,
    new: BTreeMap<K, V>,
) -> Result<(), Everything> {
    let is_there = old.iter().all(|(key, value)| map.find(key) == Some(value));
    let mut added = new.keys().filter(|key| !old.contains_key(*key));
    if !is_there || added.any(|key| map.find(key).is_some()) {
        return Err(Everything);
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        map.take_out(key);
    }
    for (key, value) in new {
        if old.get(&key) != Some(&value) {
            map.put(key, value);
        }
    }
    Ok(())
}
