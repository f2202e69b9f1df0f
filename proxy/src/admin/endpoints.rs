//! The answer of `/endpoints`: how each endpoint of each backend does.

use std::{
    borrow::Cow,
    sync::Arc,
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
    /// Where it is: region, zone and subzone. Absent: not known.
    pub locality: Option<String>,
    /// The node that it runs on. Absent: not known.
    pub node: Option<String>,
    /// The place of its group: 0 is the highest priority, or the first share of a distribution. Absent: it is never called.
    pub priority: Option<usize>,
    /// How many of the requests its group gets now, in percent.
    pub priority_percent: Option<f64>,
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
    /// What its health checks say. Absent: it has none, or no answer yet.
    #[serde(default)]
    pub health_check: Option<CheckState>,
}

/// What the health checks of an endpoint say.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckState {
    /// Whether it gets requests.
    pub passing: bool,
    /// Why the last check failed. Absent: it passed.
    pub last_failure: Option<Arc<str>>,
}

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EjectionState {
    /// The limit that it reached, such as `consecutive-5xx` or `success-rate`.
    pub reason: Cow<'static, str>,
    /// The failures that reached it: in a row, or in the interval that had ended.
    pub failures: u32,
    /// What the base ejection time was multiplied by.
    #[serde(default)]
    pub times: u32,
    /// The last failure, or what was compared, in words.
    pub last_failure: String,
}

/// The endpoints of everything in `store`.
pub(super) fn endpoint_states(store: &Store, now: Instant) -> Vec<EndpointState> {
    let table = store.table();
    let mut states = Vec::new();
    for backend in table.backends() {
        let endpoints = backend.endpoints.iter().enumerate();
        states.extend(endpoints.map(|(index, endpoint)| endpoint_state(backend, index, endpoint, now)));
    }
    states.sort_by(|a, b| (&a.backend, &a.address).cmp(&(&b.backend, &b.address)));
    states
}

fn endpoint_state(
    backend: &BoundBackend,
    index: usize,
    endpoint: &BoundEndpoint,
    now: Instant,
) -> EndpointState {
    let share = backend.balancer.share_of(&backend.endpoints, index, backend.ejection.as_deref(), now);
    let place = endpoint.place.as_deref();
    let locality = place.map(|place| &place.locality).filter(|locality| !locality.is_empty());
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
        locality: locality.map(ToString::to_string),
        node: place.and_then(|place| place.node.clone()),
        priority: share.map(|share| share.place),
        priority_percent: share.map(|share| share.percent),
        in_flight: endpoint.target.flight.now(),
        ejected: ejected.is_some(),
        ejected_until: ejected.map(|left| utc(SystemTime::now() + left)),
        ejected_for_seconds: ejected.map(|left| left.as_secs_f64()),
        ejection: ejected.and_then(|_| ejection(endpoint)),
        consecutive_failures: endpoint.health.consecutive_failures(),
        health_check: endpoint
            .health
            .last_check()
            .map(|check| CheckState { passing: check.is_well, last_failure: check.failure.clone() }),
    }
}

fn ejection(endpoint: &BoundEndpoint) -> Option<EjectionState> {
    let cause = endpoint.health.cause()?;
    let (reason, failures, last_failure) = (cause.why.word().into(), cause.failures, cause.last.clone());
    Some(EjectionState { reason, failures, times: cause.times, last_failure })
}
