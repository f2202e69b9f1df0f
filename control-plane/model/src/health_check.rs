//! How a proxy asks endpoints outside the mesh whether they are well (Envoy's active health checks; where Envoy has no
//! answer, as the kubelet probes).
//!
//! Endpoints in the mesh are not asked: their sidecars tell how requests go, and their own platform probes them.

use std::time::Duration;

use serde::Serialize;

/// How and how often endpoints are asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct HealthCheck {
    /// What is asked.
    pub question: HealthQuestion,
    /// The port that is asked, at the endpoint's address; `None`: the endpoint's own.
    pub port: Option<u16>,
    /// The pause between two questions, give or take a tenth; default 10 s.
    pub interval: Duration,
    /// Within which time an answer must come, connecting included; default 1 s.
    pub timeout: Duration,
    /// Bad answers in a row after which an endpoint gets no requests; default 2. The very first answer counts at once.
    pub unhealthy_threshold: u32,
    /// Good answers in a row after which it gets requests again; default 1.
    pub healthy_threshold: u32,
}

/// What an endpoint is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub enum HealthQuestion {
    /// `GET path` by HTTP/1.1.
    Http {
        /// The path, with its query; default `/`.
        path: String,
        /// The `host` header; `None`: the host that is called.
        host: Option<String>,
        /// The statuses that are good, first and last of each range; default 200 to 399, as for the kubelet.
        statuses: Vec<(u16, u16)>,
    },
    /// `grpc.health.v1.Health/Check`; `SERVING` is good.
    Grpc {
        /// The `:authority`; `None`: the host that is called.
        host: Option<String>,
        /// The service; empty: the server as a whole.
        service: String,
    },
    /// Whether a connection is made, with its TLS if there is any.
    Tcp,
}

/// The share of endpoints that must be left, in percent, so that those which fail their checks get no requests, where no
/// `outlierDetection` says another one (Envoy's `healthy_panic_threshold`).
pub const USUAL_MIN_HEALTH_PERCENT: u8 = 50;

impl HealthCheck {
    /// Asks `question` as often as is usual.
    pub fn new(question: HealthQuestion) -> Self {
        Self {
            question,
            port: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            unhealthy_threshold: 2,
            healthy_threshold: 1,
        }
    }
}
