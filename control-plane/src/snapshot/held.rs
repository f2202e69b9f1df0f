//! What a proxy holds. Ten thousand proxies hold mostly the same, so all of them share the names and the versions, and each
//! has only pointers to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_api::ResourceName;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Encoded, view::Part};

/// One version of a resource.
#[derive(Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The resource.
    pub name: ResourceName,
    /// The hash of its contents.
    pub version: Arc<str>,
}

/// The resources that a proxy holds, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held(
    /// In the order of their names.
    Vec<Arc<Stamp>>,
);

/// What becomes of what is held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// New, or in another version; no name twice.
    pub upserts: Vec<Arc<Stamp>>,
    /// Not held any more.
    pub removals: Vec<ResourceName>,
}

/// What is held, to be found by where it is in memory: whoever else has the very same version shares it.
#[derive(Debug)]
pub struct SharedStamps(
    /// Where each is, and its place among all that are held; in the order of the former.
    Vec<(usize, usize)>,
);

impl SharedStamps {
    /// Whether this is held, and not only what is equal to it.
    pub fn has(&self, stamp: &Arc<Stamp>) -> bool {
        self.find(stamp).is_some()
    }

    /// The places of those that are held and not among `stamps`, in their order.
    pub fn without<'s>(&self, stamps: impl Iterator<Item = &'s Arc<Stamp>>) -> Vec<usize> {
        let mut is_met = vec![false; self.0.len()];
        stamps.filter_map(|stamp| self.find(stamp)).for_each(|place| is_met[place] = true);
        (0..is_met.len()).filter(|place| !is_met[*place]).collect()
    }

    fn find(&self, stamp: &Arc<Stamp>) -> Option<usize> {
        let address = Arc::as_ptr(stamp).addr();
        let found = self.0.binary_search_by_key(&address, |(address, _)| *address).ok()?;
        Some(self.0[found].1)
    }
}

impl Held {
    /// All of them, by where they are in memory.
    pub fn shared(&self) -> SharedStamps {
        let mut all: Vec<(usize, usize)> =
            self.0.iter().map(|stamp| Arc::as_ptr(stamp).addr()).zip(0..).collect();
        all.sort_unstable();
        SharedStamps(all)
    }

    /// Those at these `places`.
    pub fn at(&self, places: Vec<usize>) -> impl Iterator<Item = &Stamp> {
        places.into_iter().filter_map(|place| self.0.get(place)).map(|stamp| &**stamp)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Stamp> {
        self.0.iter().map(|stamp| &**stamp)
    }

    /// The version of `name` that is held.
    pub fn version(&self, name: &ResourceName) -> Option<&Arc<str>> {
        self.place(name).ok().map(|place| &self.0[place].version)
    }

    /// Whether `resource` is held as it is now.
    pub fn has(&self, resource: &Encoded) -> bool {
        let stamp = resource.stamp();
        self.place(&stamp.name).is_ok_and(|place| {
            let held = &self.0[place];
            Arc::ptr_eq(held, stamp) || held == stamp
        })
    }

    /// Holds `name` no longer.
    pub fn remove(&mut self, name: &ResourceName) {
        if let Ok(place) = self.place(name) {
            self.0.remove(place);
        }
    }

    /// Makes these changes.
    pub fn apply(&mut self, changes: Changes) {
        let mut new = Vec::new();
        for stamp in changes.upserts {
            match self.place(&stamp.name) {
                Ok(place) => self.0[place] = stamp,
                Err(_) => new.push(stamp),
            }
        }
        if !new.is_empty() {
            self.0.reserve_exact(new.len());
            self.0.append(&mut new);
            self.0.sort_by(|one, other| one.name.cmp(&other.name));
        }
        if !changes.removals.is_empty() {
            let gone: BTreeSet<&ResourceName> = changes.removals.iter().collect();
            self.0.retain(|stamp| !gone.contains(&stamp.name));
            self.0.shrink_to_fit();
        }
    }

    /// Shares with `parts` what is the same: a proxy that has come back has told its own copies of names and versions.
    pub fn share(&mut self, parts: &[Part]) {
        for stamp in parts.iter().flat_map(|part| part.resources.iter()).map(Encoded::stamp) {
            if let Ok(place) = self.place(&stamp.name)
                && self.0[place] == *stamp
            {
                self.0[place] = Arc::clone(stamp);
            }
        }
    }

    fn place(&self, name: &ResourceName) -> Result<usize, usize> {
        self.0.binary_search_by(|stamp| stamp.name.cmp(name))
    }
}

impl FromIterator<(ResourceName, Arc<str>)> for Held {
    /// Of a name that comes twice, the last counts.
    fn from_iter<I: IntoIterator<Item = (ResourceName, Arc<str>)>>(all: I) -> Self {
        let by_name: BTreeMap<ResourceName, Arc<str>> = all.into_iter().collect();
        Self(by_name.into_iter().map(|(name, version)| Arc::new(Stamp { name, version })).collect())
    }
}

impl Serialize for Held {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|stamp| (stamp.name.to_string(), &stamp.version)))
    }
}

impl<'de> Deserialize<'de> for Held {
    /// Those of resources that this version knows: a newer control plane may have others.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = BTreeMap::<String, Arc<str>>::deserialize(deserializer)?;
        Ok(written.into_iter().filter_map(|(name, version)| Some((name.parse().ok()?, version))).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use selvedge_api::wire::{self, resource::Body};

    use super::*;
    use crate::snapshot::view::Subject;

    fn name(number: u8) -> ResourceName {
        ResourceName::Lookup(format!("service-{number}").into())
    }

    fn stamp(number: u8, version: u8) -> Arc<Stamp> {
        Arc::new(Stamp { name: name(number), version: version.to_string().into() })
    }

    proptest! {
        #[test]
        fn what_is_held_is_what_a_map_would_hold(
            steps in proptest::collection::vec(
                (proptest::collection::btree_map(0_u8..20, 0_u8..4, 0..6), proptest::collection::vec(0_u8..20, 0..4)),
                1..20,
            )
        ) {
            let (mut held, mut map) = (Held::default(), BTreeMap::new());
            for (upserts, removals) in steps {
                let changes = Changes {
                    upserts: upserts.iter().map(|(number, version)| stamp(*number, *version)).collect(),
                    removals: removals.iter().filter(|gone| !upserts.contains_key(gone)).map(|gone| name(*gone)).collect(),
                };
                for stamp in &changes.upserts {
                    map.insert(stamp.name.clone(), Arc::clone(&stamp.version));
                }
                for gone in &changes.removals {
                    map.remove(gone);
                }

                held.apply(changes);

                let shown: Vec<_> = held.iter().map(|stamp| (&stamp.name, &stamp.version)).collect();
                prop_assert_eq!(shown, map.iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn what_a_proxy_has_told_is_shared_where_it_is_the_same() {
        let lookup = |contents: &str| wire::Lookup { authority: contents.into(), ..wire::Lookup::default() };
        let resource = |number, contents| Encoded::new(name(number), Body::Lookup(lookup(contents)));
        let (same, other) = (resource(1, "a"), resource(2, "b"));
        let told = [(name(1), Arc::from(&**same.version())), (name(2), Arc::from("older"))];
        let mut held: Held = told.into_iter().collect();
        let resources = [same.clone(), other.clone()].into();

        held.share(&[Part { subject: Subject::Own, resources }]);

        assert!(Arc::ptr_eq(&held.0[0], same.stamp()));
        assert!(held.has(&same) && !held.has(&other));
        assert_eq!(held.version(&name(2)).map(|version| &**version), Some("older"));
    }

    #[test]
    fn it_is_written_by_name_and_read_again() {
        let held: Held =
            [(name(1), Arc::from("x")), (ResourceName::Own, Arc::from("y"))].into_iter().collect();

        let written = serde_json::to_string(&held).unwrap();

        assert_eq!(written, r#"{"self":"y","lookup/service-1":"x"}"#);
        let more = r#"{"self":"y","lookup/service-1":"x","from-the-future/a":"z"}"#;
        assert_eq!(serde_json::from_str::<Held>(more).unwrap(), held);
    }
}
