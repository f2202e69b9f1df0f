//! Where endpoints are in the list of their backend, by their addresses.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, sync::OnceLock};

use super::BoundEndpoint;

/// So few are looked through one by one.
const FEW: usize = 16;

/// An index of many endpoints, made when it is first asked for: most backends are never asked.
#[derive(Debug, Default)]
pub struct Places(OnceLock<HashMap<SocketAddr, usize>>);

impl Places {
    /// The place of the endpoint at `address` among `endpoints`, which are the same each time; of two the first.
    pub(super) fn find(&self, endpoints: &[Arc<BoundEndpoint>], address: SocketAddr) -> Option<usize> {
        if endpoints.len() <= FEW {
            return endpoints.iter().position(|endpoint| endpoint.address == address);
        }
        let all = || endpoints.iter().enumerate().rev();
        let places = self.0.get_or_init(|| all().map(|(place, one)| (one.address, place)).collect());
        places.get(&address).copied()
    }
}
