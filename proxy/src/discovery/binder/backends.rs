//! Binds backends to the endpoints that they select, and to the state that belongs to their names.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Instant};

use selvedge_model::{Backend, BackendName, Endpoint, WorkloadName, facts};

use super::{
    inputs::{Entry, Inputs, same},
    targets::{Reach, Targets, Tls, Work},
};
use crate::{
    balance::{Balancer, Circuit, Ejection, Health},
    bind::{BoundBackend, BoundEndpoint},
    dns::{DnsName, Reached},
};

/// A backend, and what it was made of.
#[derive(Clone)]
pub(super) struct Place<'a> {
    definition: &'a Backend,
    endpoints: Option<&'a Arc<Reached>>,
    bound: Arc<BoundBackend>,
}

/// The first backend of each name.
pub(super) fn named<'a>(entries: impl Iterator<Item = &'a Entry>) -> HashMap<&'a BackendName, Place<'a>> {
    let mut places = HashMap::new();
    for Entry { inputs, bound } in entries {
        let backends = inputs.service.backends.iter().zip(&inputs.endpoints);
        for ((definition, endpoints), bound) in backends.zip(&bound.backends) {
            places.entry(&definition.name).or_insert_with(|| Place {
                definition,
                endpoints: endpoints.as_ref(),
                bound: Arc::clone(bound),
            });
        }
    }
    places
}

/// Binds the backends of what has changed, in one pass.
pub(super) struct BackendBinder<'a> {
    /// Backends that are in use after this pass. Services that name the same one share it.
    pub(super) shared: HashMap<&'a BackendName, Place<'a>>,
    /// Backends of what has changed or is gone. Their state goes to the backend that has their name now.
    pub(super) predecessors: HashMap<&'a BackendName, Place<'a>>,
    pub(super) own: &'a WorkloadName,
    pub(super) local: Option<u16>,
    pub(super) targets: &'a mut Targets,
    pub(super) work: Work,
    /// Whether we may call others than before.
    pub(super) egress_changed: bool,
    pub(super) now: Instant,
}

impl<'a> BackendBinder<'a> {
    /// The backends of one service.
    pub(super) fn backends(&mut self, inputs: &'a Inputs) -> Vec<Arc<BoundBackend>> {
        self.work.services += 1;
        let backends = inputs.service.backends.iter().zip(&inputs.endpoints);
        backends.map(|(definition, endpoints)| self.backend(definition, endpoints.as_ref())).collect()
    }

    /// One backend: shared, as it was, or bound anew.
    fn backend(&mut self, definition: &'a Backend, endpoints: Option<&'a Arc<Reached>>) -> Arc<BoundBackend> {
        let is_for = |place: &Place<'_>| same(place.endpoints, endpoints) && place.definition == definition;
        let bound = match self.shared.get(&definition.name) {
            Some(place) if is_for(place) => return Arc::clone(&place.bound),
            // Two services that see one backend differently cannot share its state.
            Some(_) => return self.bind(definition, endpoints, None),
            None => match self.predecessors.remove(&definition.name) {
                Some(place) if is_for(&place) && !self.egress_changed => place.bound,
                place => self.bind(definition, endpoints, place.map(|place| place.bound).as_deref()),
            },
        };
        let place = Place { definition, endpoints, bound: Arc::clone(&bound) };
        self.shared.insert(&definition.name, place);
        bound
    }

    /// What connections to `endpoint` reach. Our own workload is dialled at our own inbound listener: what this host
    /// sends to itself is not redirected, and its app does not speak mesh TLS.
    fn reach(&self, backend: &Backend, endpoint: &Endpoint, dns_name: Option<&Arc<DnsName>>) -> Reach {
        let host = dns_name.map_or(&backend.name.service.host, |dns_name| &dns_name.name);
        let (tls, identity) = Tls::of(backend.policy.tls.as_ref(), endpoint.identity.as_ref(), host);
        let local = endpoint.workload.as_ref() == Some(self.own) && identity.is_some();
        let dial = match self.local {
            Some(inbound) if local => SocketAddr::new(endpoint.address.ip(), inbound),
            _ => endpoint.dial,
        };
        // Without an identity to prove, it does not matter which workload it is.
        let workload = endpoint.workload.clone().filter(|_| identity.is_some());
        (dial, endpoint.address, identity, workload, tls)
    }

    /// A backend bound anew; its state is the `predecessor`'s.
    fn bind(
        &mut self,
        definition: &Backend,
        endpoints: Option<&Arc<Reached>>,
        predecessor: Option<&BoundBackend>,
    ) -> Arc<BoundBackend> {
        let ejection = ejection(definition, predecessor, self.now);
        let mut known = endpoints_with_health(predecessor.filter(|_| ejection.is_some()));
        let unresolved = endpoints.and_then(|endpoints| endpoints.unresolved.clone());
        self.work.endpoints += endpoints.map_or(0, |endpoints| endpoints.len());
        let list = endpoints.into_iter().flat_map(|endpoints| endpoints.list());
        let mut denied = None;
        let reached: Vec<_> = list
            .filter(|(endpoint, _)| facts::selects(&definition.labels, &endpoint.labels))
            .filter_map(|(endpoint, dns_name)| {
                let reach = self.reach(definition, endpoint, dns_name);
                let target = self.targets.reach(reach, self.own, &mut self.work);
                let refusal = target.permit.as_ref().and_then(|permit| permit.refusal());
                let is_permitted = refusal.is_none();
                denied = denied.take().or(refusal);
                is_permitted.then_some((endpoint, dns_name, target))
            })
            .collect();
        let endpoints = reached.iter().map(|(endpoint, dns_name, target)| {
            Arc::new(BoundEndpoint {
                target: Arc::clone(target),
                address: endpoint.address,
                workload: endpoint.workload.clone(),
                dns_name: dns_name.cloned(),
                health: known.remove(&(endpoint.address, endpoint.dial)).unwrap_or_default(),
                ejection: ejection.clone(),
            })
        });
        let endpoints: Vec<_> = endpoints.collect();
        let keys = endpoints.iter().map(|endpoint| (endpoint.address, endpoint.target.dial));
        let balancer = Balancer::new(
            definition.policy.load_balancer,
            reached.iter().map(|(endpoint, ..)| endpoint.weight),
            keys,
            predecessor.map(|before| &before.balancer),
        );
        if let Some(ejection) = &ejection {
            // They have left: what they were ejected for no longer counts against the cap.
            known.values().for_each(|health| ejection.forget(health));
        }
        let counts = predecessor.map(|before| Arc::clone(&before.counts)).unwrap_or_default();
        Arc::new(BoundBackend {
            name: definition.name.clone(),
            policy: definition.policy.clone(),
            broken: definition.broken.as_deref().map(Arc::from),
            unresolved,
            denied,
            endpoints,
            balancer,
            ejection,
            circuit: Circuit::new(&definition.policy, &counts),
            counts,
        })
    }
}

/// The backend's ejections: those that it had, under the settings that it has now.
fn ejection(definition: &Backend, predecessor: Option<&BoundBackend>, now: Instant) -> Option<Arc<Ejection>> {
    let settings = definition.policy.outlier_detection.as_ref()?;
    match predecessor.and_then(|before| before.ejection.as_ref()) {
        Some(before) if before.settings() == settings => Some(Arc::clone(before)),
        Some(before) => Some(Arc::new(before.with_settings(settings.clone()))),
        None => Some(Arc::new(Ejection::new(settings.clone(), now))),
    }
}

/// Each endpoint's health, if it belongs to ejections that go on.
fn endpoints_with_health(
    predecessor: Option<&BoundBackend>,
) -> HashMap<(SocketAddr, SocketAddr), Arc<Health>> {
    let before = predecessor.filter(|before| before.ejection.is_some());
    let endpoints = before.map(|before| before.endpoints.as_slice()).unwrap_or_default();
    let health = |endpoint: &Arc<BoundEndpoint>| {
        ((endpoint.address, endpoint.target.dial), Arc::clone(&endpoint.health))
    };
    endpoints.iter().map(health).collect()
}
