//! What configuration says of an authority, before it is bound: what a [`Bound`] is known by, and
//! what it is made of.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use selvedge_model::{
    Backend, Endpoint, Place, Service, ServiceKey, Workload, gateway::UserList, locality::Located,
};

use crate::{
    bind::Bound,
    discovery::held::Resources,
    dns::{Listed, Names, Reached},
};

/// What a [`Bound`] is known by from one table to the next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum BoundKey {
    /// A service's port.
    Service(ServiceKey),
    /// A service's port whose requests go wherever they say, and the authority that says where.
    Requested(ServiceKey, Arc<str>),
    /// A workload's own address, by the authority that names it.
    Address(Arc<str>),
    /// An address at which nothing is known to be, by the authority that names it.
    Unknown(Arc<str>),
}

/// What a [`Bound`] is made of.
#[derive(Debug, Clone)]
pub(super) struct Inputs {
    pub(super) service: Arc<Service>,
    /// In the order of the service's backends.
    pub(super) endpoints: Vec<Option<Arc<Reached>>>,
    /// Our own labels, if some of the service's rules are for certain clients only.
    pub(super) client: Option<Arc<BTreeMap<String, String>>>,
    /// Those of the users that its rules let in who are known, at a gateway.
    pub(super) users: Vec<Arc<UserList>>,
}

impl Inputs {
    pub(super) fn is(&self, other: &Self) -> bool {
        let mut endpoints = self.endpoints.iter().zip(&other.endpoints);
        Arc::ptr_eq(&self.service, &other.service)
            && same(self.client.as_ref(), other.client.as_ref())
            && endpoints.all(|(mine, its)| same(mine.as_ref(), its.as_ref()))
            && self.users.len() == other.users.len()
            && self.users.iter().zip(&other.users).all(|(mine, its)| Arc::ptr_eq(mine, its))
    }
}

/// Where we are, and our own labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Here {
    place: Option<Arc<Place>>,
    labels: Arc<BTreeMap<String, String>>,
}

impl Here {
    pub(super) fn of(own: Option<&Arc<Workload>>) -> Self {
        let here = |own: &Arc<Workload>| Self { place: own.place.clone(), labels: Arc::clone(&own.labels) };
        own.map(here).unwrap_or_default()
    }

    pub(super) fn located(&self) -> Located<'_> {
        Located { place: self.place.as_deref(), labels: &self.labels }
    }
}

/// What one authority means, before it is bound.
#[derive(Debug, Default)]
pub(super) struct Resolution {
    /// `None`: nothing that is known.
    pub(super) bound: Option<BoundKey>,
    /// The one service that has the endpoint which `bound` is.
    pub(super) service: Option<BoundKey>,
    /// The way to what is there, if nothing that is known is.
    pub(super) through: Option<BoundKey>,
    /// Why it is not certain that nothing known is there.
    pub(super) doubt: Option<Arc<str>>,
}

/// What one pass collects before anything is bound.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) inputs: BTreeMap<BoundKey, Inputs>,
    pub(super) addresses: BTreeMap<Arc<str>, (Endpoint, Inputs)>,
    pub(super) asked: BTreeMap<Arc<str>, Instant>,
}

pub(super) fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// What `service` is bound as for requests for `authority`.
pub(super) fn bound_key(held: &Resources, service: &Service, authority: &Arc<str>) -> BoundKey {
    let mut endpoints = service.backends.iter().filter_map(|backend| held.endpoints(&backend.name.service));
    if endpoints.any(|endpoints| endpoints.requested.is_some()) {
        BoundKey::Requested(service.key.clone(), Arc::clone(authority))
    } else {
        BoundKey::Service(service.key.clone())
    }
}

/// What `service` is made of for requests for `authority`; `None` while names in it are not answered.
pub(super) fn inputs(
    held: &Resources,
    names: &mut Names,
    service: &Arc<Service>,
    authority: &str,
) -> Option<Inputs> {
    let reach = |backend: &Backend| match held.endpoints(&backend.name.service) {
        None => Some(None),
        Some(endpoints) => reach(held, names, endpoints, authority).map(Some),
    };
    // All of them are looked at before one that waits ends it: they are looked up at the same time.
    let endpoints: Vec<Option<_>> = service.backends.iter().map(reach).collect();
    let endpoints = endpoints.into_iter().collect::<Option<Vec<_>>>()?;
    Some(Inputs { endpoints, service: Arc::clone(service), client: None, users: Vec::new() })
}

/// Where `endpoints` are for a request for `authority`, none of them past a sidecar; `None` while names are not answered.
pub(super) fn reach(
    held: &Resources,
    names: &mut Names,
    endpoints: &Arc<Listed>,
    authority: &str,
) -> Option<Arc<Reached>> {
    let ports = endpoints.unproven_ports().into_iter();
    let workloads = ports.filter_map(|port| held.endpoints(&ServiceKey::beside_sidecars(port)));
    let workloads: Vec<_> = workloads.map(|workloads| names.reach(workloads, "", &[])).collect();
    names.reach(endpoints, authority, &workloads)
}

/// A [`Bound`], and what it was made of.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) inputs: Inputs,
    pub(super) bound: Arc<Bound>,
}
