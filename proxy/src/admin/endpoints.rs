//! The answer of `/endpoints`: how each endpoint of each backend does.

use std::{
    borrow::Cow,
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::{Instant, SystemTime},
};

use selvedge_model::WorkloadName;
use serde::{Deserialize, Serialize};

use super::utc;
use crate::{
    bind::{BoundBackend, BoundEndpoint, ClientTls},
    discovery::Store,
};

/// One endpoint of one backend: an element of what `/endpoints` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndpointState {
    /// The backend: its service, and its subset.
    pub backend: String,
    /// Where the app listens.
    pub address: String,
    /// Where the proxy connects.
    pub dial: String,
    /// The name that its address was found by. Absent: it was configured by address.
    pub name: Option<Arc<str>>,
    /// Why that name does not resolve now. The address is the last one that it had.
    pub name_failing: Option<Arc<str>>,
    /// The SPIFFE ID that must answer. Absent: plaintext, or TLS to a server outside the mesh.
    pub identity: Option<String>,
    /// The server name for TLS to a server outside the mesh.
    pub tls_to: Option<String>,
    /// The workload, if it is known.
    pub workload: Option<WorkloadName>,
    /// How many requests wait for their answer, or for its end.
    pub in_flight: u32,
    /// Whether it is ejected.
    pub ejected: bool,
    /// When it is let back in (RFC 3339, UTC).
    pub ejected_until: Option<String>,
    /// The seconds until then.
    pub ejected_for_seconds: Option<f64>,
    /// Why it is ejected. Absent: it is not.
    pub ejection: Option<EjectionState>,
    /// How many failures it has had since its last success.
    pub consecutive_failures: u32,
}

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EjectionState {
    /// The limit that it reached: `consecutive-5xx` or `consecutive-gateway-errors`.
    pub reason: Cow<'static, str>,
    /// The failures in a row that reached it.
    pub failures: u32,
    /// The last of them, in words.
    pub last_failure: String,
}

/// The endpoints of everything in `store`.
pub(super) fn endpoint_states(store: &Store, now: Instant) -> Vec<EndpointState> {
    let table = store.table();
    let mut seen = HashSet::new();
    let mut states = Vec::new();
    let bounds = table.destinations.values().filter_map(|destination| destination.bound.as_deref());
    for backend in bounds.flat_map(|bound| &bound.backends) {
        if seen.insert(Arc::as_ptr(backend)) {
            states.extend(backend.endpoints.iter().map(|endpoint| endpoint_state(backend, endpoint, now)));
        }
    }
    states.sort_by(|a, b| (&a.backend, &a.address).cmp(&(&b.backend, &b.address)));
    states
}

fn endpoint_state(backend: &BoundBackend, endpoint: &BoundEndpoint, now: Instant) -> EndpointState {
    let ejected = endpoint.ejection.as_ref().and_then(|ejection| ejection.remaining(&endpoint.health, now));
    EndpointState {
        backend: backend.name.to_string(),
        address: endpoint.address.to_string(),
        dial: endpoint.target.dial.to_string(),
        name: endpoint.dns_name.as_ref().map(|found| Arc::clone(&found.name)),
        name_failing: endpoint.dns_name.as_ref().and_then(|found| found.failing.clone()),
        identity: endpoint.target.identity.as_ref().map(ToString::to_string),
        tls_to: match &endpoint.target.tls {
            ClientTls::Outside(outside) => Some(outside.name().to_owned()),
            ClientTls::ByIdentity | ClientTls::Impossible => None,
        },
        workload: endpoint.workload.clone(),
        in_flight: endpoint.target.in_flight.load(Ordering::Relaxed),
        ejected: ejected.is_some(),
        ejected_until: ejected.map(|left| utc(SystemTime::now() + left)),
        ejected_for_seconds: ejected.map(|left| left.as_secs_f64()),
        ejection: ejected.and_then(|_| ejection(endpoint)),
        consecutive_failures: endpoint.health.consecutive_failures(),
    }
}

fn ejection(endpoint: &BoundEndpoint) -> Option<EjectionState> {
    let cause = endpoint.health.cause()?;
    let (reason, failures, last_failure) = (cause.why.word().into(), cause.failures, cause.last.clone());
    Some(EjectionState { reason, failures, last_failure })
}
