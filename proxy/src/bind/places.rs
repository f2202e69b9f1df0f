//! Where endpoints are in the list of their backend, by their addresses.

use std::{net::SocketAddr, sync::Arc};

use super::BoundEndpoint;

/// So few are looked through one by one.
const FEW: usize = 16;

/// An index of many endpoints. It is made where they are bound: a worker would make others wait.
#[derive(Debug)]
pub struct Places {
    /// The places of all, in the order of their addresses. `None`: that is the order in which they are listed, as mostly, or
    /// there are few.
    by_address: Option<Box<[u32]>>,
}

impl Places {
    /// Those of `endpoints`; whether they are known to be in the order of their addresses.
    pub fn of(endpoints: &[Arc<BoundEndpoint>], are_sorted: bool) -> Self {
        let address = |place: &u32| endpoints[*place as usize].address;
        let is_sorted = || are_sorted || endpoints.is_sorted_by_key(|endpoint| endpoint.address);
        let is_needed = endpoints.len() > FEW && !is_sorted();
        let by_address = is_needed.then(|| {
            let mut places: Vec<u32> = (0..).take(endpoints.len()).collect();
            // It is stable: of two at one address the first comes first. Groups are sorted, each by itself, which makes it fast.
            places.sort_by_key(address);
            places.into()
        });
        Self { by_address }
    }

    /// The place of the endpoint at `address` among `endpoints`, which are the same each time; of two the first.
    pub(super) fn find(&self, endpoints: &[Arc<BoundEndpoint>], address: SocketAddr) -> Option<usize> {
        if endpoints.len() <= FEW {
            return endpoints.iter().position(|endpoint| endpoint.address == address);
        }
        let place = match &self.by_address {
            None => endpoints.partition_point(|endpoint| endpoint.address < address),
            Some(places) => {
                let address_of = |place: &u32| endpoints[*place as usize].address;
                let first = places.partition_point(|place| address_of(place) < address);
                *places.get(first)? as usize
            }
        };
        endpoints.get(place).filter(|endpoint| endpoint.address == address).map(|_| place)
    }
}
