//! What is known by a DNS name, which only the proxies know the addresses of.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{Declared, Occupant};
use crate::{Endpoints, Host, HostPort, NamedEndpoint, ServiceKey};

/// What an address may turn out to be that is in no document: one that a name has.
#[derive(Debug, Clone, Default)]
pub struct NamedAddresses {
    /// Endpoints by their port, each with its rank. Where two names have one address, the lower rank counts.
    pub endpoints: BTreeMap<u16, Vec<(usize, NamedEndpoint)>>,
    /// Workloads by the names whose addresses are theirs at every port, each with its rank.
    pub occupants: BTreeMap<Host, (usize, Occupant)>,
    /// Services without addresses of their own that have such endpoints, or any (resolution NONE), by the port of
    /// those; those that were declared first come first.
    pub callers: BTreeMap<u16, Vec<Declared>>,
}

impl NamedAddresses {
    pub(super) fn may_be_at(&self, port: u16) -> bool {
        !self.occupants.is_empty() || self.endpoints.contains_key(&port)
    }

    /// Everything that may be at `port`, by rank. It takes as long as there are names: whoever tells many proxies of it makes
    /// it once.
    pub fn at(&self, port: u16) -> Endpoints {
        let served = self.endpoints.get(&port).map(Vec::as_slice).unwrap_or_default();
        let hosts: HashSet<&Host> = served.iter().map(|(_, endpoint)| &endpoint.address.host).collect();
        let elsewhere = self.occupants.iter().filter(|(host, _)| !hosts.contains(host));
        let elsewhere = elsewhere.map(|(host, (rank, occupant))| (*rank, occupant.named(host, port)));
        let mut named: Vec<(usize, NamedEndpoint)> = served.iter().cloned().chain(elsewhere).collect();
        named.sort_by_key(|(rank, _)| *rank);
        let named = named.into_iter().map(|(_, endpoint)| endpoint).collect();
        Endpoints { named, ..Endpoints::new(ServiceKey::named(port), Vec::new()) }
    }
}

impl Occupant {
    /// How it is called at `port` of its name `host`.
    fn named(&self, host: &Host, port: u16) -> NamedEndpoint {
        let place = HostPort::new(host.clone(), port);
        NamedEndpoint {
            dial: place.clone(),
            address: place,
            one_address: false,
            identity: self.expected_identity(port).cloned(),
            workload: Some(self.workload.name.clone()),
            labels: Arc::default(),
            weight: 1,
            place: self.workload.place.clone(),
        }
    }
}
