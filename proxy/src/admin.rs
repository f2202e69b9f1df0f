//! What the admin port of a sidecar shows: the configuration in force, and how its endpoints do.
//!
//! The answers reveal the neighbourhood, so they are given on loopback only (`selvedge_ops::admin` sees to that). They
//! are read from what workers read: what is shown is what is done. Their types are public, for those who read them.

mod config;
mod endpoints;
mod priorities;

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use selvedge_certs::{facts::Utc, tls::Live};
use selvedge_model::WorkloadName;
use selvedge_ops::{Drain, Reason};
use tokio::sync::watch;

use self::endpoints::endpoint_states;
use self::priorities::group_healths;
pub use self::{
    config::{
        BackendState, Certificate, Config, ControlPlaneState, DestinationState, GatewayPortState, Refused,
        ServiceState, StreamState, Transaction,
    },
    endpoints::{EjectionState, EndpointState},
};
use crate::{
    accept::Ports,
    discovery::{Status, Store, count_out},
    joining::{Address, workload_api::Socket},
    telemetry::Metrics,
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
    /// The agent that its certificate is from, if it is not the control plane's.
    pub workload_api: Option<Socket>,
    /// The conversation with the control plane.
    pub status: watch::Receiver<Status>,
    /// The ports that this proxy serves as a gateway; `None`: it is a sidecar.
    pub ports: Option<Arc<Ports>>,
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

/// The text of `/metrics`, of what is so now: also while there is no control plane.
pub fn metrics(metrics: &Arc<Metrics>, store: &Store) -> String {
    let now = Instant::now();
    let out = i64::try_from(count_out(store, now)).unwrap_or(i64::MAX);
    metrics.control.endpoints_out.set(out);
    metrics.render(group_healths(store, now))
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

fn utc(at: SystemTime) -> String {
    Utc(at).to_string()
}

#[cfg(test)]
mod tests;
