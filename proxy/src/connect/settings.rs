//! What is the same for every connection that a worker opens.

use std::{sync::Arc, time::Duration};

use selvedge_certs::tls::Live;

use super::hops::Instance;
use crate::{
    budget::Budget,
    io::Liveness,
    settings::{Carrier, OwnListeners},
    telemetry::Metrics,
};

/// What is the same for every connection that a worker opens.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// Our certificate and the trust roots.
    pub live: Live,
    /// What carries HTTP/1.1 requests between sidecars.
    pub carrier: Carrier,
    /// Whether header names keep their case where HTTP/1.1 goes on as HTTP/1.1.
    pub preserve_header_case: bool,
    /// Our workload's name, for display in peers' logs.
    pub source: String,
    /// The budget for bytes that have arrived and that nobody has taken.
    pub budget: Arc<Budget>,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
    /// How soon the proxy notices that a peer is gone.
    pub liveness: Liveness,
    /// Our own listeners. Nothing is connected to them.
    pub own: Arc<OwnListeners>,
    /// Our name in the mark of requests that may come back.
    pub instance: Instance,
    /// The greatest age of a connection, whatever is in progress. `None`: no limit.
    pub max_connection_age: Option<Duration>,
}
