//! When an endpoint is ejected (`DestinationRule` `outlierDetection`; Envoy's algorithm).
//!
//! These are values only; the proxy has the algorithm, beside its state (`balance::outlier`).

use std::time::Duration;

use serde::Serialize;

/// When an endpoint is ejected.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct OutlierDetection {
    /// Failures in a row (any 5xx, or no answer at all) that eject; default 5, `None` = off.
    pub consecutive_5xx: Option<u32>,
    /// Gateway failures in a row (502, 503, 504, or no answer) that eject; default off.
    pub consecutive_gateway_errors: Option<u32>,
    /// How often the time multiplier of a healthy endpoint falls by one, and how often endpoints are compared; default
    /// 10 s.
    pub interval: Duration,
    /// The first ejection's length; the n-th lasts n times as long; default 30 s.
    pub base_ejection_time: Duration,
    /// No ejection lasts longer, but for its jitter: the larger of 300 s and `base_ejection_time`, unless an annotation
    /// says otherwise.
    pub max_ejection_time: Duration,
    /// Up to so much is added to the length of each ejection, at random, so that endpoints which were ejected together
    /// come back one after the other (Envoy's `max_ejection_time_jitter`); default 0.
    pub max_ejection_time_jitter: Duration,
    /// Largest share of a backend's endpoints ejected at once, in percent (0–100); default 10.
    /// One endpoint may always be ejected.
    pub max_ejection_percent: u8,
    /// Attempts without an answer in a row that eject (not connected, reset, timed out), counted apart from answers of 5xx
    /// (`splitExternalLocalOriginErrors` with `consecutiveLocalOriginFailures`, by default 5 then; 0 = they eject nobody). `None`:
    /// they count as gateway failures.
    pub consecutive_local_origin_failures: Option<u32>,
    /// While fewer than this share of a backend's endpoints is not ejected, in percent (0–100), all are called, ejected or not
    /// (`minHealthPercent`; Envoy's panic threshold); default 0: never.
    pub min_health_percent: u8,
    /// Ejects endpoints that succeed far less often than the others; `None` = off, as in Istio.
    pub success_rate: Option<SuccessRate>,
    /// Ejects endpoints that fail a share of their requests; `None` = off, as in Istio.
    pub failure_percentage: Option<FailurePercentage>,
}

/// When an endpoint succeeds so much less often than the others that it is ejected: if the share of its requests in an
/// interval that succeeded is lower than the mean of all endpoints minus some standard deviations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct SuccessRate {
    /// Endpoints with enough requests that there must be; default 5.
    pub minimum_hosts: u32,
    /// Requests in an interval that are enough; default 100.
    pub request_volume: u32,
    /// The standard deviations, in thousandths; default 1900.
    pub stdev_factor: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { minimum_hosts: 5, request_volume: 100, stdev_factor: 1900 }
    }
}

/// When an endpoint is ejected for the share of its requests in an interval that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct FailurePercentage {
    /// The share that ejects, in percent (0–100); default 85.
    pub threshold: u8,
    /// Endpoints with enough requests that there must be; default 5.
    pub minimum_hosts: u32,
    /// Requests in an interval that are enough; default 50.
    pub request_volume: u32,
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self { threshold: 85, minimum_hosts: 5, request_volume: 50 }
    }
}

impl OutlierDetection {
    /// Whether endpoints are compared at the end of each interval.
    pub const fn compares(&self) -> bool {
        self.success_rate.is_some() || self.failure_percentage.is_some()
    }
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx: Some(5),
            consecutive_gateway_errors: None,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: 10,
            consecutive_local_origin_failures: None,
            min_health_percent: 0,
            success_rate: None,
            failure_percentage: None,
        }
    }
}
