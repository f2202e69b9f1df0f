//! Which endpoint of a backend gets the next attempt.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use crate::{
    balance::PickFacts,
    bind::{BoundBackend, BoundEndpoint},
    error::{Failure, Reason},
    worker::Worker,
};

/// The endpoints of one backend that a request or a connection has tried, by their places.
#[derive(Debug, Default)]
pub struct Tried(Vec<usize>);

impl Tried {
    /// Notes that `endpoint` of `backend` was tried; it is nothing to note if it is none of them.
    pub(crate) fn note(&mut self, backend: &BoundBackend, endpoint: &Arc<BoundEndpoint>) {
        self.0.extend(backend.endpoints.iter().position(|one| Arc::ptr_eq(one, endpoint)));
    }

    /// Whether `endpoint` of `backend` was tried.
    pub(super) fn has(&self, backend: &BoundBackend, endpoint: &Arc<BoundEndpoint>) -> bool {
        let mut tried = self.0.iter().filter_map(|place| backend.endpoints.get(*place));
        tried.any(|one| Arc::ptr_eq(one, endpoint))
    }

    /// How many were tried, each as often as it was.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// What an attempt asks of the balancer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked {
    /// The hash of what it is kept together with others by.
    pub(crate) hash: Option<u64>,
    /// The address that the client dialled, if it was redirected.
    pub(crate) dialled: Option<SocketAddr>,
}

/// Picks an endpoint of `backend`, one that was not `tried` if there is one.
///
/// # Errors
/// [`Reason::NoBackend`] if the backend cannot be used, [`Reason::NoEndpoint`] if it has no endpoint that may be called,
/// [`Reason::Policy`] if network policies let us call none of them.
pub(crate) fn choose(
    worker: &Worker,
    backend: &BoundBackend,
    Tried(tried): &Tried,
    now: Instant,
    asked: Asked,
) -> Result<Arc<BoundEndpoint>, Failure> {
    if let Some(broken) = &backend.broken {
        return Err(Failure::new(Reason::NoBackend, format!("{} cannot be used: {broken}", backend.name)));
    }
    let Asked { hash, dialled } = asked;
    let ejection = backend.ejection.as_deref();
    let facts = PickFacts { tried, now, hash, dialled, ejection };
    let picked = backend.balancer.pick(&backend.endpoints, &facts, &mut worker.rng.borrow_mut());
    picked.map(|place| Arc::clone(&backend.endpoints[place])).ok_or_else(|| {
        if let (true, Some(denied)) = (backend.endpoints.is_empty(), &backend.denied) {
            return worker.denied(denied);
        }
        let what = match (backend.balancer.len(), &backend.unresolved) {
            (0, _) if let Some(why) = &backend.left_out => {
                format!(
                    "{} has no endpoint for this workload, of {}: {why}",
                    backend.name,
                    backend.endpoints.len()
                )
            }
            (0, Some(unresolved)) => format!("{} has no endpoint: {unresolved}", backend.name),
            (0, None) => {
                format!("{} has no endpoint; check that its selector selects a workload", backend.name)
            }
            (all, _) => {
                let failing = backend.ejection.as_ref().map_or(0, |ejection| ejection.failing());
                let checks = if failing > 0 { ", or fail their health checks" } else { "" };
                format!(
                    "all {all} endpoints of {} are ejected for failing{checks}; see /endpoints",
                    backend.name
                )
            }
        };
        Failure::new(Reason::NoEndpoint, what)
    })
}
