//! The endpoints behind every port that can be called.
//!
//! There are three steps: which endpoints documents list ([`super::candidates`]), who owns their addresses ([`Owners`]), and
//! how each is called ([`endpoints`]). If a document lists an address that another namespace owns, the owner decides how it
//! is called.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use selvedge_model::{
    Endpoint, Endpoints, Host, HostPort, NamedEndpoint, ServiceKey, SpiffeId, WorkloadName,
};

use super::{
    MeshSettings, Problems,
    candidates::{Candidate, Candidates},
    claims::ClaimedBy,
    inbound::Policies,
    keep,
    owners::Owners,
    services::{Backing, Catalog, KnownHost},
    workloads::{Workloads, expected_identity},
};
use crate::resources::{
    Document, EndpointSliceSpec, ServiceEntrySpec, SliceAddress, WorkloadEntrySpec, service_entry::Resolution,
};

/// The endpoints of every port of every host.
pub(super) fn endpoints(
    settings: &MeshSettings,
    catalog: &Catalog<'_>,
    policies: &Policies<'_>,
    candidates: &Candidates<'_>,
    owners: &Owners<'_>,
    workloads: &mut Workloads<'_>,
    problems: &mut Problems,
) -> BTreeMap<ServiceKey, Endpoints> {
    note_served(catalog, candidates, workloads);
    let settled = EndpointRules { settings, policies, owners };
    let mut endpoints: BTreeMap<ServiceKey, Endpoints> = BTreeMap::new();
    for (key, list) in candidates {
        let Some(host) = catalog.find(&key.host) else { continue };
        let mut by_address = BTreeMap::new();
        for candidate in list {
            if let Some(endpoint) = settled.endpoint(host, key.port, candidate, workloads, problems) {
                by_address.entry((endpoint.address.clone(), endpoint.dial.clone())).or_insert(endpoint);
            }
        }
        endpoints.insert(key.clone(), listed(key, host, by_address.into_values()));
    }
    for host in catalog.hosts() {
        for port in host.ports.keys() {
            if let Some(Backing::Alias(target)) = host.backing(*port) {
                let key = host.service(*port);
                let same = endpoints.get(&target).cloned();
                let same = same.unwrap_or_else(|| Endpoints::new(key.clone(), Vec::new()));
                endpoints.insert(key.clone(), Endpoints { key, ..same });
            }
        }
    }
    workloads.report_shared_addresses(problems);
    endpoints
}

fn listed(key: &ServiceKey, host: &KnownHost<'_>, found: impl Iterator<Item = NamedEndpoint>) -> Endpoints {
    let resolution = host.resolution(key.port);
    let mut endpoints = Endpoints::new(key.clone(), Vec::new());
    endpoints.requested = host.requested(key.port);
    for mut endpoint in found {
        endpoint.one_address = resolution == Resolution::Dns { one_address: true };
        match endpoint.fixed() {
            Some(fixed) => endpoints.list.push(fixed),
            None => endpoints.named.push(endpoint),
        }
    }
    endpoints
}

/// Notes what workloads serve and speak at addresses that services of their namespace list. Others have no say.
fn note_served(catalog: &Catalog<'_>, candidates: &Candidates<'_>, workloads: &mut Workloads<'_>) {
    for (key, list) in candidates {
        let Some(namespace) = catalog.find(&key.host).map(|host| host.namespace) else { continue };
        for candidate in list {
            let (Candidate::Sliced { host_port, .. } | Candidate::Name(host_port)) = candidate else {
                continue;
            };
            let index = workloads.serving(host_port, namespace);
            if let Some(index) = index.filter(|index| workloads.at(*index).name.namespace() == namespace) {
                workloads.serves(index, host_port.port);
                workloads.speaks(index, host_port.port, catalog.spoken(key));
                workloads.is_behind(index, host_port.port, key);
            }
        }
    }
}

/// What decides about candidates, once the owner of every address is known.
struct EndpointRules<'a> {
    settings: &'a MeshSettings,
    policies: &'a Policies<'a>,
    owners: &'a Owners<'a>,
}

impl EndpointRules<'_> {
    fn endpoint(
        &self,
        host: &KnownHost<'_>,
        port: u16,
        candidate: &Candidate<'_>,
        workloads: &mut Workloads<'_>,
        problems: &mut Problems,
    ) -> Option<NamedEndpoint> {
        let (namespace, external) = (host.namespace, host.is_external(port));
        match candidate {
            Candidate::Workload(index, port) => {
                Some(as_declared(workloads.at(*index).endpoint(*port)?, external))
            }
            Candidate::Name(host_port) => {
                let known = workloads.endpoint_at(host_port, namespace);
                let endpoint = known.unwrap_or_else(|| plaintext(host_port.clone(), BTreeMap::new()));
                Some(as_declared(endpoint, external))
            }
            Candidate::Sliced { slice, address, host_port } => {
                let mut endpoint = self.sliced(slice, address, host_port, workloads, problems)?;
                endpoint.place = workloads.places().of_slice(address, endpoint.place.as_ref());
                Some(endpoint)
            }
            Candidate::Inline(document, inline, host_port) => {
                let mut alone = as_declared(self.inline(document, inline, host_port), external);
                alone.place = workloads.places().of_inline(inline, None);
                let Some(mut endpoint) = workloads.endpoint_at(host_port, namespace) else {
                    return self
                        .unless_a_services(document, "spec.endpoints", host_port, problems)
                        .then_some(alone);
                };
                endpoint.weight = inline.weight;
                endpoint.place = workloads.places().of_inline(inline, endpoint.place);
                if !inline.labels.is_empty() {
                    endpoint.labels = Arc::new(inline.labels.clone());
                }
                let is_own = |owner: &WorkloadName| owner.namespace() == namespace;
                if endpoint.workload.as_ref().is_none_or(is_own) {
                    return Some(as_declared(endpoint, external));
                }
                if (&alone.identity, &alone.dial) != (&endpoint.identity, &endpoint.dial) {
                    self.report_anothers(document, "spec.endpoints", host_port, problems);
                }
                Some(endpoint)
            }
        }
    }

    /// An address of a slice: the pod in its `targetRef`; without that, the workload at the address.
    fn sliced(
        &self,
        slice: &Document<EndpointSliceSpec>,
        address: &SliceAddress,
        host_port: &HostPort,
        workloads: &mut Workloads<'_>,
        problems: &mut Problems,
    ) -> Option<NamedEndpoint> {
        let namespace = &*slice.name.namespace;
        if let Some(pod) = &address.pod {
            let of = pod.namespace.as_deref().unwrap_or(namespace);
            let index = workloads.pod(of, &pod.name);
            return match index.filter(|index| workloads.at(*index).is_at(&host_port.host)) {
                Some(index) => Some(workloads.at(index).endpoint_at(host_port.clone())),
                // Nothing goes out unprotected, or to somebody else, because pods and slices arrive one after the other.
                None => {
                    if index.is_some() || slice.location.path.is_some() {
                        let message = format!(
                            "{} is not an address of Pod {of}/{}, so it is left out; correct the address or its targetRef",
                            host_port.host, pod.name
                        );
                        problems.error(slice, "endpoints", message);
                    }
                    None
                }
            };
        }
        let Some(endpoint) = workloads.endpoint_at(host_port, namespace) else {
            let free = self.unless_a_services(slice, "endpoints", host_port, problems);
            return free.then(|| plaintext(host_port.clone(), BTreeMap::new()));
        };
        let is_a_pods =
            self.owners.of(&host_port.host, host_port.port).is_some_and(|owner| owner.what == ClaimedBy::Pod);
        if is_a_pods && endpoint.workload.as_ref().is_some_and(|owner| owner.namespace() != namespace) {
            self.report_anothers(slice, "endpoints", host_port, problems);
        }
        Some(endpoint)
    }

    /// Whether `host_port` is none of another namespace's service, whose own workloads would be called through it in
    /// plaintext.
    fn unless_a_services<T>(
        &self,
        document: &Document<T>,
        field: &str,
        host_port: &HostPort,
        problems: &mut Problems,
    ) -> bool {
        let owner = self.owners.of(&host_port.host, host_port.port);
        let Some(owner) = owner.filter(|owner| owner.what == ClaimedBy::Service) else { return true };
        if owner.namespace == &*document.name.namespace {
            return true;
        }
        let message = format!(
            "{host_port} is the address of {}; an endpoint with this address would bypass that service's routes and policy, \
             so it is left out: call the service itself, or route to it with a VirtualService",
            owner.by
        );
        problems.error(document, field, message);
        false
    }

    fn report_anothers<T>(
        &self,
        document: &Document<T>,
        field: &str,
        host_port: &HostPort,
        problems: &mut Problems,
    ) {
        let Some(owner) = self.owners.of(&host_port.host, host_port.port) else { return };
        let message = format!(
            "{host_port} belongs to {}, and only its owner decides how it is called and which identity is expected there; \
             remove it from here",
            owner.by
        );
        problems.error(document, field, message);
    }

    /// What a `ServiceEntry` says of an endpoint of its own.
    fn inline(
        &self,
        document: &Document<ServiceEntrySpec>,
        inline: &WorkloadEntrySpec,
        host_port: &HostPort,
    ) -> NamedEndpoint {
        let namespace = &*document.name.namespace;
        let policy = self.policies.find(namespace, &inline.labels);
        let identity = SpiffeId::new(&self.settings.trust_domain, namespace, &inline.service_account).ok();
        let mut endpoint = plaintext(host_port.clone(), inline.labels.clone());
        endpoint.weight = inline.weight;
        endpoint.identity = identity
            .and_then(|identity| expected_identity(inline.meshed, &policy, host_port.port, &identity));
        endpoint
    }
}

/// An endpoint of a namespace's own, as a service in it calls it: what is outside the mesh never with mutual TLS.
fn as_declared(mut endpoint: NamedEndpoint, external: bool) -> NamedEndpoint {
    if external {
        endpoint.identity = None;
        endpoint.dial = endpoint.address.clone();
    }
    endpoint
}

fn plaintext(address: HostPort, labels: BTreeMap<String, String>) -> NamedEndpoint {
    // Nearly all that documents list has none, and there may be ten thousands.
    static NO_LABELS: LazyLock<Arc<BTreeMap<String, String>>> = LazyLock::new(Arc::default);
    let labels = if labels.is_empty() { Arc::clone(&NO_LABELS) } else { labels.into() };
    let dial = address.clone();
    NamedEndpoint {
        address,
        dial,
        one_address: false,
        identity: None,
        workload: None,
        labels,
        weight: 1,
        place: None,
    }
}

/// What is at each address that services list and that does not belong to a workload: what those of the namespace say that has it.
pub(super) fn addresses(
    catalog: &Catalog<'_>,
    owners: &Owners<'_>,
    endpoints: &BTreeMap<ServiceKey, Endpoints>,
    addresses: &mut BTreeMap<SocketAddr, Endpoint>,
) {
    for host in catalog.in_order() {
        for port in host.ports.keys() {
            let key = host.service(*port);
            for endpoint in endpoints.get(&key).into_iter().flat_map(|endpoints| &endpoints.list) {
                let owner = owners.of(&Host::Ip(endpoint.address.ip()), endpoint.address.port());
                let is_pods = owner.is_some_and(|owner| owner.what.is_a_pod());
                if !is_pods && owner.is_none_or(|owner| owner.namespace == host.namespace) {
                    // It is one of several in a service only.
                    let alone = || Endpoint { weight: 1, ..endpoint.clone() };
                    addresses.entry(endpoint.address).or_insert_with(alone);
                }
            }
        }
    }
}

/// `endpoints`, each as it was `before` if it is the same.
pub(super) fn kept(
    endpoints: BTreeMap<ServiceKey, Endpoints>,
    before: &BTreeMap<ServiceKey, Arc<Endpoints>>,
) -> BTreeMap<ServiceKey, Arc<Endpoints>> {
    let kept = |(key, endpoints)| {
        let kept = keep(endpoints, before.get(&key));
        (key, kept)
    };
    endpoints.into_iter().map(kept).collect()
}
