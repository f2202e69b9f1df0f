//! The documents that a change can reach, as they are picked out of all.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use super::index::{Index, Item};
use crate::resources::Resources;

/// All that a change can reach.
#[derive(Debug, Default)]
pub(super) struct Affected {
    pub(super) items: HashSet<Item>,
    pub(super) hosts: HashSet<Arc<str>>,
    pub(super) addresses: HashSet<IpAddr>,
    /// Those items and services that were not looked at yet.
    pub(super) left: Vec<Item>,
    pub(super) hosts_left: Vec<Arc<str>>,
}

impl Affected {
    pub(super) fn add(&mut self, item: Item) {
        if !self.items.contains(&item) {
            self.items.insert(item.clone());
            self.left.push(item);
        }
    }

    pub(super) fn add_host(&mut self, host: &Arc<str>) {
        if self.hosts.insert(Arc::clone(host)) {
            self.hosts_left.push(Arc::clone(host));
        }
    }

    /// Those documents of `all`, which `index` is of, that are affected, in their order.
    pub(super) fn of(&self, index: &Index, all: &Resources) -> Resources {
        let (mut entries, mut pods, mut slices) = (Places::default(), Places::default(), Places::default());
        let (mut services, mut service_entries) = (Places::default(), Places::default());
        for item in &self.items {
            match item {
                Item::Entry(key) => index.entries.get(key).into_iter().for_each(|one| entries.add(one)),
                Item::Pod(key) => index.pods.get(key).into_iter().for_each(|one| pods.add(one)),
                Item::Slice(key) => index.slices.get(key).into_iter().for_each(|one| slices.add(one)),
                Item::ServiceEntry(key) => {
                    index.service_entries.get(key).into_iter().for_each(|one| service_entries.add(one));
                }
            }
        }
        self.hosts.iter().filter_map(|host| index.services.get(host)).for_each(|one| services.add(one));
        Resources {
            workload_entries: entries.of(&all.workload_entries),
            pods: pods.of(&all.pods),
            endpoint_slices: slices.of(&all.endpoint_slices),
            services: services.of(&all.services),
            service_entries: service_entries.of(&all.service_entries),
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
