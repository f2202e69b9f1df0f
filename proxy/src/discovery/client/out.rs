//! The endpoints that get no requests, although their backends have them, as the control plane is told.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use selvedge_model::{
    BackendName,
    traffic::{MOST_OUT, Out},
};

use crate::{
    bind::{BoundBackend, BoundEndpoint},
    discovery::Store,
};

/// What tells one spell of an endpoint's being out from another: the backend, the endpoint, and when an ejection ends.
pub(super) type OutKey = (BackendName, SocketAddr, Option<u64>);

/// How many are out at `now`; each counts once for each of its backends.
pub fn count_out(store: &Store, now: Instant) -> usize {
    all(store, now).len()
}

/// All that are out at `now`; each once for each of its backends.
pub(super) fn now(store: &Store, now: Instant) -> (Vec<OutKey>, Vec<Out>) {
    let mut all = all(store, now);
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all.truncate(MOST_OUT);
    all.into_iter().unzip()
}

fn all(store: &Store, now: Instant) -> Vec<(OutKey, Out)> {
    let table = store.table();
    let mut all = Vec::new();
    for backend in table.backends() {
        let Some(ejection) = backend.ejection.as_ref().filter(|ejection| !ejection.none_out()) else {
            continue;
        };
        let of = |endpoint: &Arc<BoundEndpoint>| {
            let until = ejection.ejected_until(&endpoint.health, now);
            told(backend, endpoint, now).map(|out| ((out.backend.clone(), out.address, until), out))
        };
        all.extend(backend.endpoints.iter().filter_map(of));
    }
    all
}

/// What is told of `endpoint`, if it is out.
fn told(backend: &BoundBackend, endpoint: &BoundEndpoint, now: Instant) -> Option<Out> {
    let out = |left, why: &str, last_failure: &str| Out {
        backend: backend.name.clone(),
        address: endpoint.address,
        left,
        why: why.into(),
        last_failure: last_failure.into(),
    };
    // A failing check keeps it out for longer than any ejection.
    if let Some(check) = endpoint.health.last_check().filter(|check| !check.is_well) {
        return Some(out(None, "health-check", check.failure.as_deref().unwrap_or_default()));
    }
    let left = endpoint.ejection.as_ref()?.remaining(&endpoint.health, now)?;
    let cause = endpoint.health.cause();
    let (why, last) = cause.as_ref().map_or(("", ""), |cause| (cause.why.word(), cause.last.as_str()));
    Some(out(Some(left), why, last))
}
