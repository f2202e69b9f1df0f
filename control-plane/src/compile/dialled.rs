//! What an address means that clients dial and that does not belong to a service: the address of an endpoint.
//!
//! Endpoints with an IP address are found here. A DNS name can have other addresses in each proxy's network. So endpoints
//! with a DNS name are listed by their port, and each proxy finds out which of them has the address.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    net::SocketAddr,
    sync::Arc,
};

use selvedge_model::{
    Endpoint, Endpoints, Host, HostPort, NamedEndpoint, ServiceKey,
    snapshot::{Declared, NamedAddresses, Occupant},
};

use super::{
    Problems,
    owners::Owners,
    services::{Catalog, KnownHost},
};

/// How many services of one namespace may be meant by whoever dials one address, or a port of addresses that names have. Everybody
/// who dials such an address is told of all of them.
const MOST_AT_ONE: usize = 500;

/// The services that may be meant by whoever dials one of their endpoints; the first first.
fn called_by_endpoints<'a, 'c>(
    catalog: &'a Catalog<'c>,
    endpoints: &'a BTreeMap<ServiceKey, Endpoints>,
) -> impl Iterator<Item = (&'a KnownHost<'c>, Declared, &'a Endpoints)> {
    catalog.in_order().flat_map(move |host| {
        let called = host.ports.keys().filter(|port| host.is_called_by_endpoints(**port));
        called.filter_map(move |port| {
            let declared = host.declared(*port);
            let endpoints = endpoints.get(&declared.key)?;
            Some((host, declared, endpoints))
        })
    })
}

/// Services by where their endpoints are, at most [`MOST_AT_ONE`] of each namespace at each place.
struct Callers<P> {
    found: BTreeMap<P, Vec<Declared>>,
    /// How many of each namespace there are.
    counts: HashMap<(P, Arc<str>), usize>,
}

impl<P: Ord + Clone + Hash> Callers<P> {
    fn new() -> Self {
        Self { found: BTreeMap::new(), counts: HashMap::new() }
    }

    /// Adds `declared`, a port of `host`, of which all endpoints are added one after the other.
    fn add(&mut self, place: P, host: &KnownHost<'_>, declared: &Declared, problems: &mut Problems) {
        let here = self.found.entry(place.clone()).or_default();
        if here.last() == Some(declared) {
            return;
        }
        let count = self.counts.entry((place, Arc::clone(&declared.namespace))).or_default();
        *count += 1;
        if *count > MOST_AT_ONE {
            host.report_callers(declared.key.port, MOST_AT_ONE, problems);
        } else {
            here.push(declared.clone());
        }
    }
}

/// Those services by the addresses of their endpoints. A workload's address means only services of its namespace, and
/// a pod's means that pod.
pub(super) fn callers(
    catalog: &Catalog<'_>,
    endpoints: &BTreeMap<ServiceKey, Endpoints>,
    owners: &Owners<'_>,
    problems: &mut Problems,
) -> BTreeMap<SocketAddr, Vec<Declared>> {
    let mut callers = Callers::new();
    for (host, declared, endpoints) in called_by_endpoints(catalog, endpoints) {
        for endpoint in &endpoints.list {
            let owner = owners.of(&Host::Ip(endpoint.address.ip()), endpoint.address.port());
            let is_a_workloads = endpoint.workload.is_some();
            let is_theirs = owner.is_none_or(|owner| {
                !owner.what.is_a_pod() && (!is_a_workloads || owner.namespace == &*declared.namespace)
            });
            if is_theirs {
                callers.add(endpoint.address, host, &declared, problems);
            }
        }
    }
    let mut callers = callers.found;
    // The namespace that has the address comes first, whatever order its services are in; others are only for clients
    // who do not know of those.
    callers.retain(|address, declared| {
        let Some(owner) = owners.of(&Host::Ip(address.ip()), address.port()) else { return true };
        declared.sort_by_key(|one| &*one.namespace != owner.namespace);
        declared.first().is_some_and(|first| &*first.namespace == owner.namespace)
    });
    callers
}

/// Everything that is known by name.
pub(super) fn named(
    catalog: &Catalog<'_>,
    endpoints: &BTreeMap<ServiceKey, Endpoints>,
    workloads: impl Iterator<Item = (usize, NamedEndpoint)>,
    count: usize,
    occupants: &BTreeMap<Host, (usize, Occupant)>,
    problems: &mut Problems,
) -> NamedAddresses {
    let mut named = NamedAddresses::default();
    // Workloads first: where a service lists the same place without knowing whose it is, it is theirs.
    let of_host = |host: &KnownHost<'_>| -> Vec<NamedEndpoint> {
        let keys = host.ports.keys().map(|port| host.declared(*port).key);
        let lists = keys.filter_map(|key| endpoints.get(&key));
        lists.flat_map(|endpoints| endpoints.named.iter().cloned()).collect()
    };
    let listed = catalog.in_order().flat_map(of_host).enumerate();
    let listed = listed.map(|(place, endpoint)| (count + place, endpoint));
    let mut there: HashSet<(HostPort, HostPort)> = HashSet::new();
    for (rank, endpoint) in workloads.chain(listed) {
        if there.insert((endpoint.address.clone(), endpoint.dial.clone())) {
            named.endpoints.entry(endpoint.address.port).or_default().push((rank, endpoint));
        }
    }
    let mut callers = Callers::new();
    for (host, declared, endpoints) in called_by_endpoints(catalog, endpoints) {
        for endpoint in &endpoints.named {
            callers.add(endpoint.address.port, host, &declared, problems);
        }
    }
    named.callers = callers.found;
    let by_name = occupants.iter().filter(|(host, _)| host.name().is_some());
    named.occupants = by_name.map(|(host, occupant)| (host.clone(), occupant.clone())).collect();
    named
}

/// The ports at which DNS alone says whom a service calls in plaintext.
pub(super) fn unproven_ports(endpoints: &BTreeMap<ServiceKey, Endpoints>) -> BTreeSet<u16> {
    endpoints.values().flat_map(Endpoints::unproven_ports).collect()
}

/// Whether `one` is a workload that is dialled elsewhere than where its app listens: there its sidecar is passed by.
pub(super) fn is_beside_its_sidecar(one: &Endpoint) -> bool {
    one.identity.is_some() && one.dial != one.address
}

/// The workloads that are dialled elsewhere than where their apps listen, by each of the `ports` at which DNS alone says whom a
/// service calls in plaintext. Each proxy finds out whether a name leads to one of them: only there is a sidecar passed by.
pub(super) fn beside_sidecars(
    ports: &BTreeSet<u16>,
    addresses: &BTreeMap<SocketAddr, Endpoint>,
    workloads: impl Iterator<Item = (usize, NamedEndpoint)>,
) -> BTreeMap<ServiceKey, Endpoints> {
    let mut found = BTreeMap::new();
    if ports.is_empty() {
        return found;
    }
    let mut at = |port: u16, put: &dyn Fn(&mut Endpoints)| {
        if ports.contains(&port) {
            let key = ServiceKey::beside_sidecars(port);
            put(found.entry(key.clone()).or_insert_with(|| Endpoints::new(key, Vec::new())));
        }
    };
    for one in addresses.values().filter(|one| is_beside_its_sidecar(one)) {
        at(one.address.port(), &|here| here.list.push(one.clone()));
    }
    for (_, one) in workloads.filter(|(_, one)| one.identity.is_some() && one.dial != one.address) {
        at(one.address.port, &|here| here.named.push(one.clone()));
    }
    found
}
