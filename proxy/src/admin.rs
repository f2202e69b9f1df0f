//! What the admin port says of a sidecar: the configuration in force, and how its endpoints do.
//!
//! Reveals the neighbourhood, so it answers on loopback only (`selvedge_ops::admin` sees to that).
//! Everything is read from what workers read: what is shown is what is done.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Instant, SystemTime},
};

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use selvedge_api::ResourceName;
use selvedge_certs::{facts::Utc, tls::Live};
use selvedge_model::{Called, Protocol, RouteTable, TrafficPolicy, Workload, WorkloadName};
use selvedge_ops::{Drain, Reason};
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    bind::{Bound, BoundBackend, BoundEndpoint, ClientTls, Destination},
    discovery::{
        Store,
        status::{Status, Stream},
    },
    joining::Address,
};

/// What is shown.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Whose sidecar this is.
    pub workload: WorkloadName,
    /// Where its control plane is.
    pub control_plane: Address,
    /// The configuration in force.
    pub store: Arc<Store>,
    /// Our certificate.
    pub live: Live,
    /// The conversation with the control plane.
    pub status: watch::Receiver<Status>,
    /// What `/drain` begins.
    pub drain: Drain,
}

/// `/config`, `/endpoints` and `/drain`.
pub fn routes(shown: Shown) -> Router {
    Router::new()
        .route("/config", get(config))
        .route("/endpoints", get(endpoints))
        .route("/drain", post(drain))
        .with_state(shown)
}

async fn config(State(shown): State<Shown>) -> Json<Config> {
    Json(Config::of(&shown))
}

async fn endpoints(State(shown): State<Shown>) -> Json<Vec<EndpointState>> {
    Json(endpoint_states(&shown.store, Instant::now()))
}

async fn drain(State(shown): State<Shown>) -> &'static str {
    shown.drain.begin(Reason::Asked);
    "draining\n"
}

/// The answer of `/config`.
#[derive(Debug, Serialize)]
struct Config {
    workload: WorkloadName,
    /// Absent before the first certificate.
    certificate: Option<Certificate>,
    control_plane: ControlPlaneState,
    /// What this workload lets in. Absent: nothing yet.
    own: Option<Arc<Workload>>,
    destinations: Vec<DestinationState>,
    /// Everything held, by the names and versions that the control plane gave it.
    versions: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Certificate {
    identity: String,
    not_before: String,
    not_after: String,
    generation: u64,
    trust_domain: String,
    roots: usize,
}

#[derive(Debug, Serialize)]
struct ControlPlaneState {
    address: String,
    /// `connected`, `away` (it was connected), or `not-yet`.
    stream: &'static str,
    /// When that began.
    since: Option<String>,
    last_transaction: Option<Transaction>,
    /// Absent if a later transaction was taken in.
    refused: Option<Refused>,
}

#[derive(Debug, Serialize)]
struct Transaction {
    nonce: u64,
    at: String,
    upserts: usize,
    removals: usize,
}

#[derive(Debug, Serialize)]
struct Refused {
    nonce: u64,
    at: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct DestinationState {
    authority: Arc<str>,
    /// Absent: the control plane knows of nothing by that name.
    service: Option<ServiceState>,
    /// Where it goes if it may pass through: to the address that it is.
    through: Option<String>,
    /// Why it may not: it may be a workload's address.
    doubt: Option<Arc<str>>,
}

#[derive(Debug, Serialize)]
struct ServiceState {
    key: String,
    /// How redirected connections find it.
    called: Called,
    /// Absent for a workload's own address.
    version: Option<String>,
    protocol: Protocol,
    routes: RouteTable,
    backends: Vec<BackendState>,
}

#[derive(Debug, Serialize)]
struct BackendState {
    name: String,
    policy: TrafficPolicy,
    broken: Option<Arc<str>>,
    endpoints: usize,
    /// Which names of endpoints have no address, and why.
    unresolved: Option<Arc<str>>,
    /// The version of the endpoints.
    version: Option<String>,
}

impl Config {
    fn of(shown: &Shown) -> Self {
        let table = shown.store.table();
        let status = shown.status.borrow().clone();
        let mut destinations: Vec<_> = table.destinations.values().collect();
        destinations.sort_by(|a, b| a.authority.cmp(&b.authority));
        let versions = &status.versions;
        Self {
            workload: shown.workload.clone(),
            certificate: certificate(&shown.live),
            destinations: destinations.into_iter().map(|each| destination(each, versions)).collect(),
            own: table.own.clone(),
            versions: versions.iter().map(|(name, version)| (name.to_string(), version.clone())).collect(),
            control_plane: control_plane(&shown.control_plane, status),
        }
    }
}

fn certificate(live: &Live) -> Option<Certificate> {
    let current = live.current()?;
    Some(Certificate {
        identity: current.identity.to_string(),
        not_before: utc(current.not_before),
        not_after: utc(current.not_after),
        generation: current.generation,
        trust_domain: current.trust_domain().to_string(),
        roots: current.bundle.roots.len(),
    })
}

fn control_plane(address: &Address, status: Status) -> ControlPlaneState {
    let (stream, since) = match status.stream {
        Stream::NotYet => ("not-yet", None),
        Stream::Connected { since } => ("connected", Some(since)),
        Stream::Away { since } => ("away", Some(since)),
    };
    ControlPlaneState {
        address: address.to_string(),
        stream,
        since: since.map(utc),
        last_transaction: status.applied.map(|applied| Transaction {
            nonce: applied.nonce,
            at: utc(applied.at),
            upserts: applied.upserts,
            removals: applied.removals,
        }),
        refused: status.refused.map(|refused| Refused {
            nonce: refused.nonce,
            at: utc(refused.at),
            why: refused.why,
        }),
    }
}

fn destination(destination: &Destination, versions: &BTreeMap<ResourceName, String>) -> DestinationState {
    let service = destination.bound.as_deref().map(|bound| service(bound, versions));
    let through = destination.through.as_ref().map(|_| destination.authority.to_string());
    let (authority, doubt) = (Arc::clone(&destination.authority), destination.doubt.clone());
    DestinationState { authority, service, through, doubt }
}

fn service(bound: &Bound, versions: &BTreeMap<ResourceName, String>) -> ServiceState {
    let backend = |backend: &Arc<BoundBackend>| BackendState {
        name: backend.name.to_string(),
        policy: backend.policy.clone(),
        broken: backend.broken.clone(),
        endpoints: backend.endpoints.len(),
        unresolved: backend.unresolved.clone(),
        version: versions.get(&ResourceName::Endpoints(backend.name.service.clone())).cloned(),
    };
    ServiceState {
        key: bound.key.to_string(),
        called: bound.called,
        version: versions.get(&ResourceName::Service(bound.key.clone())).cloned(),
        protocol: bound.protocol,
        routes: bound.http.table().clone(),
        backends: bound.backends.iter().map(backend).collect(),
    }
}

/// One element of the answer of `/endpoints`.
#[derive(Debug, Serialize)]
struct EndpointState {
    backend: String,
    /// Where the app listens.
    address: String,
    /// Where we connect.
    dial: String,
    /// The name that its address was found by. Absent: it was configured by address.
    name: Option<Arc<str>>,
    /// Why that name does not resolve now; the address is the last that it had.
    name_failing: Option<Arc<str>>,
    /// Who must answer. Absent: plaintext, or TLS to the outside.
    identity: Option<String>,
    /// The server name of TLS to the outside.
    tls_to: Option<String>,
    workload: Option<WorkloadName>,
    /// Requests that wait for their answer, or whose answer has not ended.
    in_flight: u32,
    ejected: bool,
    /// When it is let back in (RFC 3339).
    ejected_until: Option<String>,
    /// Seconds until then.
    ejected_for_seconds: Option<f64>,
    /// Why it is out. Absent: it is not.
    ejection: Option<EjectionState>,
    /// Failures since its last success.
    consecutive_failures: u32,
}

/// Why an endpoint is ejected.
#[derive(Debug, Serialize)]
struct EjectionState {
    /// The limit that it reached: `consecutive-5xx` or `consecutive-gateway-errors`.
    reason: &'static str,
    /// The failures in a row that reached it.
    failures: u32,
    /// The last of them, in words.
    last_failure: String,
}

fn endpoint_states(store: &Store, now: Instant) -> Vec<EndpointState> {
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
        name: endpoint.origin.as_ref().map(|origin| Arc::clone(&origin.name)),
        name_failing: endpoint.origin.as_ref().and_then(|origin| origin.failing.clone()),
        identity: endpoint.target.identity.as_ref().map(ToString::to_string),
        tls_to: match &endpoint.target.tls {
            ClientTls::Outside(outside) => Some(outside.name().to_owned()),
            ClientTls::ByIdentity | ClientTls::Impossible => None,
        },
        workload: endpoint.workload.clone(),
        in_flight: endpoint.target.in_flight.load(std::sync::atomic::Ordering::Relaxed),
        ejected: ejected.is_some(),
        ejected_until: ejected.map(|left| utc(SystemTime::now() + left)),
        ejected_for_seconds: ejected.map(|left| left.as_secs_f64()),
        ejection: ejected.and_then(|_| ejection(endpoint)),
        consecutive_failures: endpoint.health.consecutive_failures(),
    }
}

fn ejection(endpoint: &BoundEndpoint) -> Option<EjectionState> {
    let cause = endpoint.health.cause()?;
    let (reason, failures, last_failure) = (cause.why.word(), cause.failures, cause.last.clone());
    Some(EjectionState { reason, failures, last_failure })
}

fn utc(at: SystemTime) -> String {
    Utc(at).to_string()
}

#[cfg(test)]
mod tests;
