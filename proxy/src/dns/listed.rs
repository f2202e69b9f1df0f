//! The endpoints of a service's port as they are held: each by itself, so that a list and the one before it share what both
//! have. So whoever takes over a new list compares pointers, and a change costs little more than what it changes.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use selvedge_model::{Endpoint, Endpoints, NamedEndpoint, ServiceKey, unproven_ports};

/// See the module.
#[derive(Debug)]
pub struct Listed {
    /// Whose they are.
    pub key: ServiceKey,
    /// Those with addresses, in the order of the control plane.
    list: Vec<Arc<Endpoint>>,
    /// Those whose addresses only DNS knows.
    pub named: Vec<NamedEndpoint>,
    /// If a request goes wherever its own authority says: to which port there.
    pub requested: Option<u16>,
    /// Whether `list` is in the order of its addresses, as a control plane of this version sends it.
    is_sorted: bool,
}

impl From<Endpoints> for Listed {
    fn from(Endpoints { key, list, named, requested }: Endpoints) -> Self {
        let list: Vec<_> = list.into_iter().map(Arc::new).collect();
        Self { is_sorted: list.is_sorted_by_key(place), key, list, named, requested }
    }
}

fn place(endpoint: &Arc<Endpoint>) -> (SocketAddr, SocketAddr) {
    (endpoint.address, endpoint.dial)
}

impl Listed {
    /// Those with addresses.
    pub fn list(&self) -> &[Arc<Endpoint>] {
        &self.list
    }

    /// The ports at which DNS alone says who is called in plaintext: see [`Endpoints::unproven_ports`].
    pub fn unproven_ports(&self) -> BTreeSet<u16> {
        unproven_ports(&self.named, self.requested)
    }

    /// The same with another `list` of those with addresses, in which those at the places `added` are new.
    pub fn with(&self, list: Vec<Arc<Endpoint>>, added: &[u32]) -> Self {
        let around = |at: &u32| {
            let (first, end) = ((*at as usize).saturating_sub(1), list.len().min(*at as usize + 2));
            list.get(first..end).is_some_and(|around| around.is_sorted_by_key(place))
        };
        let is_sorted = self.is_sorted && added.iter().all(around);
        Self { key: self.key.clone(), list, named: self.named.clone(), requested: self.requested, is_sorted }
    }

    /// Whether those with addresses are in the order of these.
    pub fn is_sorted(&self) -> bool {
        self.is_sorted
    }

    /// Shares with `before` the endpoints that both have. In lists that are not in the order of their addresses some may be
    /// missed, which costs the proxy time and nothing else.
    pub fn share_with(&mut self, before: &Self) {
        let mut old = before.list.iter().peekable();
        for endpoint in &mut self.list {
            while old.next_if(|old| place(old) < place(endpoint)).is_some() {}
            if let Some(same) = old.next_if(|old| place(old) == place(endpoint))
                && same == endpoint
            {
                *endpoint = Arc::clone(same);
            }
        }
    }

    /// The first endpoint with an address of its own that is this.
    pub fn at(&self, address: SocketAddr) -> Option<&Endpoint> {
        let found = if self.is_sorted {
            let first = self.list.partition_point(|endpoint| endpoint.address < address);
            self.list.get(first).filter(|endpoint| endpoint.address == address)
        } else {
            self.list.iter().find(|endpoint| endpoint.address == address)
        };
        found.map(|endpoint| &**endpoint)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::discovery::fixtures;

    fn listed(places: &[(usize, u32)]) -> Listed {
        let endpoint =
            |(place, weight): &(usize, u32)| Endpoint { weight: *weight, ..fixtures::model_endpoint(*place) };
        Endpoints::new(fixtures::key(), places.iter().map(endpoint).collect()).into()
    }

    #[test]
    fn a_list_with_others_is_searched_by_its_order_or_else_from_the_begin() {
        let sorted = listed(&[(1, 1), (5, 1), (9, 1)]);
        let with = |list: &[usize], added: &[u32]| {
            let endpoint = |place: &usize| Arc::new(fixtures::model_endpoint(*place));
            sorted.with(list.iter().map(endpoint).collect(), added)
        };
        for (list, added, is_sorted) in [
            (&[1, 5][..], &[][..], true),
            (&[0, 1, 5, 7, 9, 10], &[0, 3, 5], true),
            (&[1, 7, 5, 9], &[1], false),
            (&[1, 0, 5, 9], &[1], false),
            (&[1, 5, 9, 3], &[3], false),
        ] {
            let listed = with(list, added);
            assert_eq!(listed.is_sorted(), is_sorted, "{list:?}");
            let found = |place: &&usize| listed.at(fixtures::model_endpoint(**place).address).is_some();
            assert_eq!(list.iter().filter(found).count(), list.len(), "{list:?}");
        }
    }

    proptest! {
        /// Sorted or not, with endpoints that are there twice.
        #[test]
        fn a_list_is_what_it_was_and_shares_what_is_the_same(
            before in prop::collection::vec((0_usize..20, 1_u32..3), 0..20),
            now in prop::collection::vec((0_usize..20, 1_u32..3), 0..20),
            is_sorted in any::<bool>(),
        ) {
            let (mut before, mut now) = (before, now);
            if is_sorted {
                before.sort_unstable();
                before.dedup_by_key(|(place, _)| *place);
                now.sort_unstable();
                now.dedup_by_key(|(place, _)| *place);
            }
            let (before_list, mut list) = (listed(&before), listed(&now));

            list.share_with(&before_list);

            let whole = listed(&now);
            prop_assert_eq!(list.list(), whole.list());
            let is_shared = |one: &Arc<Endpoint>| before_list.list().iter().any(|old| Arc::ptr_eq(old, one));
            let shared = list.list().iter().filter(|one| is_shared(one)).count();
            let same = now.iter().filter(|one| before.contains(one)).count();
            prop_assert!(shared <= same && (shared == same || !is_sorted), "{shared} of {same}");
            for place in 0..20 {
                let address = fixtures::model_endpoint(place).address;
                let first = now.iter().find(|(at, _)| *at == place).map(|(_, weight)| *weight);
                prop_assert_eq!(list.at(address).map(|endpoint| endpoint.weight), first);
            }
        }
    }
}
