//! How the priorities of each backend do, for metrics.

use std::{collections::BTreeSet, time::Instant};

use selvedge_model::Locality;

use crate::{
    bind::{BoundBackend, BoundEndpoint},
    discovery::Store,
    telemetry::{GroupHealth, MOST_GROUPS},
};

/// The groups of all backends in `store` that have several, or whose endpoints may be out.
pub(super) fn group_healths(store: &Store, now: Instant) -> Vec<GroupHealth> {
    let table = store.table();
    let mut backends = table.backends();
    backends.retain(|backend| backend.ejection.is_some() || backend.balancer.groups() > 1);
    backends.sort_by(|one, other| one.name.cmp(&other.name));
    // Services that see one backend differently have one each. They are told as one: the first.
    let mut named = BTreeSet::new();
    let each = backends.into_iter().filter(|backend| named.insert(&backend.name));
    each.flat_map(|backend| of_backend(backend, now)).take(MOST_GROUPS).collect()
}

fn of_backend(backend: &BoundBackend, now: Instant) -> Vec<GroupHealth> {
    let states = backend.balancer.states(&backend.endpoints, backend.ejection.as_deref(), now);
    let group = |(place, state): (usize, crate::balance::GroupState)| {
        let endpoints = backend.endpoints.get(state.range).unwrap_or_default();
        GroupHealth {
            backend: backend.name.clone(),
            place,
            locality: common(endpoints.iter().map(|endpoint| &**endpoint)).cloned(),
            endpoints: endpoints.len(),
            healthy: state.healthy,
            share: state.percent / 100.0,
        }
    };
    states.into_iter().enumerate().map(group).collect()
}

/// Where all of `endpoints` are, if that is one place.
fn common<'e>(mut endpoints: impl Iterator<Item = &'e BoundEndpoint>) -> Option<&'e Locality> {
    let of = |endpoint: &'e BoundEndpoint| Some(&endpoint.place.as_ref()?.locality);
    let first = of(endpoints.next()?).filter(|locality| !locality.is_empty())?;
    endpoints.all(|endpoint| of(endpoint) == Some(first)).then_some(first)
}
