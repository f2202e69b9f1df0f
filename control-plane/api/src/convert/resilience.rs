//! How a destination is treated.

use std::time::Duration;

use selvedge_model::{
    AppConnections, ConnectionLimits, ConnectionPool, Http2Upgrade, LoadBalancer, OutlierDetection, RetryOn,
    RetryPolicy, TrafficPolicy,
};

use super::{ConvertError, milliseconds, required};
use crate::wire;

impl From<LoadBalancer> for wire::LoadBalancer {
    fn from(balancer: LoadBalancer) -> Self {
        match balancer {
            LoadBalancer::LeastRequest => Self::LeastRequest,
            LoadBalancer::RoundRobin => Self::RoundRobin,
            LoadBalancer::Random => Self::Random,
        }
    }
}

fn load_balancer(value: i32) -> Result<LoadBalancer, ConvertError> {
    match wire::LoadBalancer::try_from(value) {
        Ok(wire::LoadBalancer::LeastRequest) => Ok(LoadBalancer::LeastRequest),
        Ok(wire::LoadBalancer::RoundRobin) => Ok(LoadBalancer::RoundRobin),
        Ok(wire::LoadBalancer::Random) => Ok(LoadBalancer::Random),
        Ok(wire::LoadBalancer::Unspecified) | Err(_) => {
            Err(ConvertError::Unknown { field: "load balancer", value })
        }
    }
}

impl From<&OutlierDetection> for wire::OutlierDetection {
    fn from(detection: &OutlierDetection) -> Self {
        Self {
            consecutive_5xx: detection.consecutive_5xx,
            consecutive_gateway_errors: detection.consecutive_gateway_errors,
            interval_ms: milliseconds(detection.interval),
            base_ejection_time_ms: milliseconds(detection.base_ejection_time),
            max_ejection_time_ms: milliseconds(detection.max_ejection_time),
            max_ejection_percent: detection.max_ejection_percent.into(),
        }
    }
}

impl TryFrom<wire::OutlierDetection> for OutlierDetection {
    type Error = ConvertError;

    fn try_from(detection: wire::OutlierDetection) -> Result<Self, ConvertError> {
        let percent = detection.max_ejection_percent;
        let out_of_range =
            ConvertError::OutOfRange { field: "max ejection percent", value: percent.into(), largest: 100 };
        let max_ejection_percent =
            u8::try_from(percent).ok().filter(|percent| *percent <= 100).ok_or(out_of_range)?;
        Ok(Self {
            consecutive_5xx: detection.consecutive_5xx,
            consecutive_gateway_errors: detection.consecutive_gateway_errors,
            interval: Duration::from_millis(detection.interval_ms),
            base_ejection_time: Duration::from_millis(detection.base_ejection_time_ms),
            max_ejection_time: Duration::from_millis(detection.max_ejection_time_ms),
            max_ejection_percent,
        })
    }
}

impl From<&TrafficPolicy> for wire::TrafficPolicy {
    fn from(policy: &TrafficPolicy) -> Self {
        Self {
            load_balancer: wire::LoadBalancer::from(policy.load_balancer).into(),
            outlier_detection: policy.outlier_detection.as_ref().map(Into::into),
            connect_timeout_ms: milliseconds(policy.connect_timeout),
            connections: Some(policy.connections.into()),
            tls: policy.tls.as_ref().map(Into::into),
            connection_pool: (policy.connection_pool != ConnectionPool::default())
                .then(|| (&policy.connection_pool).into()),
        }
    }
}

impl TryFrom<wire::TrafficPolicy> for TrafficPolicy {
    type Error = ConvertError;

    fn try_from(policy: wire::TrafficPolicy) -> Result<Self, ConvertError> {
        Ok(Self {
            load_balancer: load_balancer(policy.load_balancer)?,
            outlier_detection: policy.outlier_detection.map(TryInto::try_into).transpose()?,
            connect_timeout: Duration::from_millis(policy.connect_timeout_ms),
            connections: required("connection limits", policy.connections)?.into(),
            tls: policy.tls.map(TryInto::try_into).transpose()?,
            connection_pool: policy.connection_pool.map(TryInto::try_into).transpose()?.unwrap_or_default(),
        })
    }
}

impl From<Http2Upgrade> for wire::Http2Upgrade {
    fn from(upgrade: Http2Upgrade) -> Self {
        match upgrade {
            Http2Upgrade::Default => Self::Unspecified,
            Http2Upgrade::Never => Self::Never,
            Http2Upgrade::Always => Self::Always,
        }
    }
}

fn http2_upgrade(value: i32) -> Result<Http2Upgrade, ConvertError> {
    match wire::Http2Upgrade::try_from(value) {
        Ok(wire::Http2Upgrade::Unspecified) => Ok(Http2Upgrade::Default),
        Ok(wire::Http2Upgrade::Never) => Ok(Http2Upgrade::Never),
        Ok(wire::Http2Upgrade::Always) => Ok(Http2Upgrade::Always),
        Err(_) => Err(ConvertError::Unknown { field: "upgrade to HTTP/2", value }),
    }
}

impl From<&ConnectionPool> for wire::ConnectionPool {
    fn from(pool: &ConnectionPool) -> Self {
        Self {
            max_pending_requests: pool.max_pending_requests,
            max_requests: pool.max_requests,
            max_requests_per_connection: pool.max_requests_per_connection,
            max_concurrent_streams: pool.max_concurrent_streams,
            max_retries: pool.max_retries,
            idle_timeout_ms: pool.idle_timeout.map(milliseconds),
            http2_upgrade: wire::Http2Upgrade::from(pool.http2_upgrade).into(),
        }
    }
}

impl TryFrom<wire::ConnectionPool> for ConnectionPool {
    type Error = ConvertError;

    fn try_from(pool: wire::ConnectionPool) -> Result<Self, ConvertError> {
        Ok(Self {
            max_pending_requests: pool.max_pending_requests,
            max_requests: pool.max_requests,
            max_requests_per_connection: pool.max_requests_per_connection,
            max_concurrent_streams: pool.max_concurrent_streams,
            max_retries: pool.max_retries,
            idle_timeout: pool.idle_timeout_ms.map(Duration::from_millis),
            http2_upgrade: http2_upgrade(pool.http2_upgrade)?,
        })
    }
}

impl From<AppConnections> for wire::AppConnections {
    fn from(connections: AppConnections) -> Self {
        Self {
            connect_timeout_ms: connections.connect_timeout.map(milliseconds),
            idle_timeout_ms: connections.idle_timeout.map(milliseconds),
            max_requests: connections.max_requests,
        }
    }
}

impl From<wire::AppConnections> for AppConnections {
    fn from(connections: wire::AppConnections) -> Self {
        Self {
            connect_timeout: connections.connect_timeout_ms.map(Duration::from_millis),
            idle_timeout: connections.idle_timeout_ms.map(Duration::from_millis),
            max_requests: connections.max_requests,
        }
    }
}

impl From<ConnectionLimits> for wire::ConnectionLimits {
    fn from(limits: ConnectionLimits) -> Self {
        Self {
            max_connections: limits.max_connections,
            idle_timeout_ms: limits.idle_timeout.map(milliseconds),
            max_duration_ms: limits.max_duration.map(milliseconds),
        }
    }
}

impl From<wire::ConnectionLimits> for ConnectionLimits {
    fn from(limits: wire::ConnectionLimits) -> Self {
        Self {
            max_connections: limits.max_connections,
            idle_timeout: limits.idle_timeout_ms.map(Duration::from_millis),
            max_duration: limits.max_duration_ms.map(Duration::from_millis),
        }
    }
}

impl From<&RetryOn> for wire::RetryOn {
    fn from(on: &RetryOn) -> Self {
        Self {
            any_5xx: on.any_5xx,
            gateway_error: on.gateway_error,
            reset: on.reset,
            connect_failure: on.connect_failure,
            retriable_4xx: on.retriable_4xx,
            refused_stream: on.refused_stream,
            reset_before_request: on.reset_before_request,
            per_try_timeout: on.per_try_timeout,
            status_codes: on.status_codes.iter().copied().map(Into::into).collect(),
            grpc_statuses: on.grpc_statuses.iter().copied().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::RetryOn> for RetryOn {
    type Error = ConvertError;

    fn try_from(on: wire::RetryOn) -> Result<Self, ConvertError> {
        Ok(Self {
            any_5xx: on.any_5xx,
            gateway_error: on.gateway_error,
            reset: on.reset,
            connect_failure: on.connect_failure,
            retriable_4xx: on.retriable_4xx,
            refused_stream: on.refused_stream,
            reset_before_request: on.reset_before_request,
            per_try_timeout: on.per_try_timeout,
            status_codes: numbers("retry status code", &on.status_codes, 999)?,
            grpc_statuses: numbers("retry gRPC status", &on.grpc_statuses, u8::MAX.into())?,
        })
    }
}

fn numbers<T: TryFrom<u32>>(field: &'static str, list: &[u32], largest: u32) -> Result<Vec<T>, ConvertError> {
    let number = |value: u32| {
        let number = T::try_from(value).ok().filter(|_| value <= largest);
        number.ok_or(ConvertError::OutOfRange { field, value: value.into(), largest: largest.into() })
    };
    list.iter().copied().map(number).collect()
}

impl From<&RetryPolicy> for wire::RetryPolicy {
    fn from(policy: &RetryPolicy) -> Self {
        Self {
            attempts: policy.attempts,
            on: Some((&policy.on).into()),
            per_try_timeout_ms: policy.per_try_timeout.map(milliseconds),
            last_attempt_unlimited: policy.last_attempt_unlimited,
            backoff_ms: milliseconds(policy.backoff),
        }
    }
}

impl TryFrom<wire::RetryPolicy> for RetryPolicy {
    type Error = ConvertError;

    fn try_from(policy: wire::RetryPolicy) -> Result<Self, ConvertError> {
        Ok(Self {
            attempts: policy.attempts,
            on: required("retry conditions", policy.on)?.try_into()?,
            per_try_timeout: policy.per_try_timeout_ms.map(Duration::from_millis),
            last_attempt_unlimited: policy.last_attempt_unlimited,
            backoff: Duration::from_millis(policy.backoff_ms),
        })
    }
}
