//! What an address may mean that clients dial and that is no service's own: an endpoint's.
//!
//! Those with an IP address are found here. Names have addresses in each proxy's own network, so what is known by
//! name is listed by its port, and each proxy finds out by itself which of it an address is.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use selvedge_model::{Endpoints, Host, NamedEndpoint, ServiceKey, Workload, snapshot::Named};

use super::services::Catalog;

/// The services that may be meant by whoever dials one of their endpoints.
fn called_by_endpoints<'a>(
    catalog: &'a Catalog<'_>,
    endpoints: &'a BTreeMap<ServiceKey, Endpoints>,
) -> impl Iterator<Item = (&'a ServiceKey, &'a Endpoints)> {
    let called = |key: &ServiceKey| catalog.find(&key.host).is_some_and(|host| host.is_called_by_endpoints());
    endpoints.iter().filter(move |(key, _)| called(key))
}

/// Those services by the addresses of their endpoints.
pub(super) fn callers(
    catalog: &Catalog<'_>,
    endpoints: &BTreeMap<ServiceKey, Endpoints>,
) -> BTreeMap<SocketAddr, Vec<ServiceKey>> {
    let mut callers: BTreeMap<SocketAddr, Vec<ServiceKey>> = BTreeMap::new();
    for (key, endpoints) in called_by_endpoints(catalog, endpoints) {
        for endpoint in &endpoints.list {
            add(callers.entry(endpoint.address).or_default(), key);
        }
    }
    callers
}

/// Everything that is known by name.
pub(super) fn named(
    catalog: &Catalog<'_>,
    endpoints: &BTreeMap<ServiceKey, Endpoints>,
    workloads: impl Iterator<Item = NamedEndpoint>,
    redirected: &BTreeMap<Host, Arc<Workload>>,
) -> Named {
    let mut named = Named::default();
    // Workloads first: where a service lists the same place without knowing whose it is, it is theirs.
    let listed = endpoints.values().flat_map(|endpoints| endpoints.named.iter().cloned());
    for endpoint in workloads.chain(listed) {
        let here = named.endpoints.entry(endpoint.address.port).or_default();
        if !here.iter().any(|other| other.address == endpoint.address && other.dial == endpoint.dial) {
            here.push(endpoint);
        }
    }
    for (key, endpoints) in called_by_endpoints(catalog, endpoints) {
        for endpoint in &endpoints.named {
            add(named.callers.entry(endpoint.address.port).or_default(), key);
        }
    }
    let by_name = redirected.iter().filter(|(host, _)| host.name().is_some());
    named.redirected = by_name.map(|(host, workload)| (host.clone(), Arc::clone(workload))).collect();
    named
}

fn add(keys: &mut Vec<ServiceKey>, key: &ServiceKey) {
    if !keys.contains(key) {
        keys.push(key.clone());
    }
}
