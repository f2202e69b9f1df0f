//! One connection: opened to a target in the way that its endpoint expects.

use std::{sync::Arc, time::Duration};

use selvedge_api::wire;
use selvedge_certs::tls::Live;

use super::{hops::Instance, tls};
use crate::{
    arrival::Direction,
    bind::Target,
    budget::Budget,
    error::Failure,
    io::Liveness,
    settings::{Carrier, OwnListeners},
    telemetry::{Metrics, OpenConnection},
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

/// Opens a connection to `target` within `limit`; it is used for `max_age` at the most. A failure is counted.
pub(super) async fn open(
    target: &Target,
    settings: &PoolSettings,
    carrier: wire::Carrier,
    app: wire::AppProtocol,
    limit: Duration,
    max_age: Duration,
) -> Result<tls::Opened, Failure> {
    let preamble = wire::Preamble {
        carrier: carrier.into(),
        port: target.port.into(),
        source: settings.source.clone(),
        app: app.into(),
    };
    let max_age = settings.max_connection_age.map_or(max_age, |oldest| oldest.min(max_age));
    let opened = tls::open(target, &preamble, settings, limit, max_age).await;
    if let (Err(failure), false) = (&opened, target.is_app()) {
        settings.metrics.connection_refused(Direction::Outbound, target.identity.is_some(), failure.reason);
    }
    opened
}

/// Counts a connection as open until the result is dropped. Connections to our own app are not counted.
pub(super) fn counted(target: &Target, settings: &PoolSettings) -> Option<OpenConnection> {
    let counted = || settings.metrics.connection_opened(Direction::Outbound, target.identity.is_some());
    (!target.is_app()).then(counted)
}
