//! How a destination is treated: balancing, outlier ejection, retries, time limits.
//!
//! These are values only; the algorithms that act on them live in the proxy, beside their state.

use std::time::Duration;

use serde::Serialize;

use crate::UpstreamTls;

/// How the next endpoint is chosen (`DestinationRule` `loadBalancer.simple`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub enum LoadBalancer {
    /// Of two endpoints drawn at random, the one with fewer requests in flight. Istio's default.
    #[default]
    LeastRequest,
    /// Each in turn.
    RoundRobin,
    /// Any, with equal chance.
    Random,
}

/// When an endpoint is ejected (`DestinationRule` `outlierDetection`; Envoy's algorithm).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct OutlierDetection {
    /// Failures in a row (any 5xx, or no answer at all) that eject; default 5, `None` = off.
    pub consecutive_5xx: Option<u32>,
    /// Gateway failures in a row (502, 503, 504, or no answer) that eject; default off.
    pub consecutive_gateway_errors: Option<u32>,
    /// How often the time multiplier of a healthy endpoint falls by one; default 10 s.
    pub interval: Duration,
    /// The first ejection's length; the n-th lasts n times as long; default 30 s.
    pub base_ejection_time: Duration,
    /// No ejection lasts longer: the larger of 300 s and `base_ejection_time`.
    pub max_ejection_time: Duration,
    /// Largest share of a backend's endpoints ejected at once, in percent (0–100); default 10.
    /// One endpoint may always be ejected.
    pub max_ejection_percent: u8,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx: Some(5),
            consecutive_gateway_errors: None,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 10,
        }
    }
}

/// What a client does with one backend (`DestinationRule` `trafficPolicy`, the part that we act on).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct TrafficPolicy {
    /// How the next endpoint is chosen.
    pub load_balancer: LoadBalancer,
    /// When an endpoint is ejected; `None` = never.
    pub outlier_detection: Option<OutlierDetection>,
    /// Time for TCP and TLS together; default 10 s, as in Istio.
    pub connect_timeout: Duration,
    /// What limits opaque connections.
    pub connections: ConnectionLimits,
    /// TLS other than what each endpoint asks for.
    pub tls: Option<UpstreamTls>,
}

/// What limits opaque connections to one backend (`DestinationRule` `connectionPool.tcp`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub struct ConnectionLimits {
    /// Open at once, by one client's sidecar; further ones are refused. `None` = no limit.
    pub max_connections: Option<u32>,
    /// Time without a byte either way; zero = for good, `None` = as the proxy's own setting says (1 h).
    pub idle_timeout: Option<Duration>,
    /// Time at all; `None` = as the proxy's own setting says (for good).
    pub max_duration: Option<Duration>,
}

impl Default for TrafficPolicy {
    fn default() -> Self {
        Self {
            load_balancer: LoadBalancer::default(),
            outlier_detection: None,
            connect_timeout: Duration::from_secs(10),
            connections: ConnectionLimits::default(),
            tls: None,
        }
    }
}

/// Which failures are worth another attempt (`VirtualService` `retries.retryOn`; Envoy's words).
///
/// A set of named conditions. A failure that proves that the request was never delivered is retried
/// whatever this says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct RetryOn {
    /// `5xx`: any 5xx answer, or none (reset, connect failure, timeout).
    pub any_5xx: bool,
    /// `gateway-error`: 502, 503, 504.
    pub gateway_error: bool,
    /// `reset`: the connection broke before any answer.
    pub reset: bool,
    /// `connect-failure`: no connection was made.
    pub connect_failure: bool,
    /// `retriable-4xx`: 409.
    pub retriable_4xx: bool,
    /// `refused-stream`: HTTP/2 REFUSED_STREAM.
    pub refused_stream: bool,
    /// Plain status codes, sorted. Never matched by an answer that a proxy made itself.
    pub status_codes: Vec<u16>,
    /// gRPC statuses by number, sorted: `cancelled` 1, `deadline-exceeded` 4, `resource-exhausted` 8,
    /// `internal` 13, `unavailable` 14. Seen in headers only (trailers-only answers).
    pub grpc_statuses: Vec<u8>,
}

impl RetryOn {
    /// Istio's default since 2024: `connect-failure,refused-stream,unavailable,cancelled`.
    pub fn istio_default() -> Self {
        Self { connect_failure: true, refused_stream: true, grpc_statuses: vec![1, 14], ..Self::default() }
    }
}

/// How often and when a request is tried again (`VirtualService` `retries`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct RetryPolicy {
    /// Further attempts after the first; default 2; 0 = only failures proven never delivered.
    pub attempts: u32,
    /// Which failures are tried again.
    pub on: RetryOn,
    /// Time for one attempt until its answer's headers; default none.
    pub per_try_timeout: Option<Duration>,
    /// First pause: drawn from \[0, this), doubling each time, at most ten times this; default 25 ms.
    pub backoff: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 2,
            on: RetryOn::istio_default(),
            per_try_timeout: None,
            backoff: Duration::from_millis(25),
        }
    }
}
