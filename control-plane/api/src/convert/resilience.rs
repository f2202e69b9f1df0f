//! How a destination is treated.

use std::time::Duration;

use selvedge_model::{
    AppConnections, ConnectionLimits, ConnectionPool, Hedge, Http2Upgrade, HttpTunnel, ProxyProtocol,
    RetryBudget, RetryOn, RetryPolicy, TcpKeepalive, TrafficPolicy, TunnelMethod, filter::Fraction,
};

use super::{
    ConvertError,
    balancing::{balancer, from_balancer, from_warmup},
    milliseconds, parse, required,
    service::protocol,
};
use crate::wire;

impl From<&TrafficPolicy> for wire::TrafficPolicy {
    fn from(policy: &TrafficPolicy) -> Self {
        let (load_balancer, consistent_hash) = from_balancer(&policy.load_balancer);
        Self {
            load_balancer: load_balancer.into(),
            consistent_hash,
            warmup: from_warmup(policy),
            locality: (!policy.locality.is_indifferent()).then(|| (&policy.locality).into()),
            outlier_detection: policy.outlier_detection.as_ref().map(Into::into),
            health_check: policy.health_check.as_ref().map(Into::into),
            connect_timeout_ms: milliseconds(policy.connect_timeout),
            connections: Some(policy.connections.into()),
            retry_budget: policy.retry_budget.map(Into::into),
            hedge: policy.hedge.map(Into::into),
            proxy_protocol: policy.proxy_protocol.map(|version| match version {
                ProxyProtocol::V1 => 1,
                ProxyProtocol::V2 => 2,
            }),
            tunnel: policy.tunnel.as_ref().map(|tunnel| tunnel.target.to_string()),
            tunnel_by_post: policy.tunnel.as_ref().is_some_and(|tunnel| tunnel.method == TunnelMethod::Post),
            tls: policy.tls.as_ref().map(Into::into),
            spoken: policy.spoken.map(|spoken| wire::Protocol::from(spoken).into()),
            connection_pool: (policy.connection_pool != ConnectionPool::default())
                .then(|| (&policy.connection_pool).into()),
        }
    }
}

impl TryFrom<wire::TrafficPolicy> for TrafficPolicy {
    type Error = ConvertError;

    fn try_from(policy: wire::TrafficPolicy) -> Result<Self, ConvertError> {
        Ok(Self {
            load_balancer: balancer(&policy)?,
            warmup: policy.warmup.map(TryInto::try_into).transpose()?,
            locality: policy.locality.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            outlier_detection: policy.outlier_detection.map(TryInto::try_into).transpose()?,
            health_check: policy.health_check.map(TryInto::try_into).transpose()?,
            connect_timeout: Duration::from_millis(policy.connect_timeout_ms),
            connections: required("connection limits", policy.connections)?.into(),
            retry_budget: policy.retry_budget.map(TryInto::try_into).transpose()?,
            hedge: policy.hedge.map(TryInto::try_into).transpose()?,
            proxy_protocol: policy.proxy_protocol.map(proxy_protocol).transpose()?,
            tunnel: policy.tunnel.map(|target| tunnel(&target, policy.tunnel_by_post)).transpose()?,
            tls: policy.tls.map(TryInto::try_into).transpose()?,
            spoken: policy.spoken.map(protocol).transpose()?,
            connection_pool: policy.connection_pool.map(TryInto::try_into).transpose()?.unwrap_or_default(),
        })
    }
}

impl From<Hedge> for wire::Hedge {
    fn from(hedge: Hedge) -> Self {
        let after = match hedge {
            Hedge::Percentile(share) => wire::hedge::After::Percentile(share.parts()),
            Hedge::After(delay) => wire::hedge::After::DelayMs(milliseconds(delay)),
        };
        Self { after: Some(after) }
    }
}

impl TryFrom<wire::Hedge> for Hedge {
    type Error = ConvertError;

    fn try_from(hedge: wire::Hedge) -> Result<Self, ConvertError> {
        match required("when a request is hedged", hedge.after)? {
            wire::hedge::After::Percentile(parts) => {
                Ok(Self::Percentile(share("percentile of a hedge", parts)?))
            }
            wire::hedge::After::DelayMs(delay) => Ok(Self::After(Duration::from_millis(delay))),
        }
    }
}

/// So many `parts` of a million.
fn share(field: &'static str, parts: u32) -> Result<Fraction, ConvertError> {
    let largest = Fraction::ALL.parts().into();
    Fraction::of_million(parts).ok_or(ConvertError::OutOfRange { field, value: parts.into(), largest })
}

fn proxy_protocol(version: u32) -> Result<ProxyProtocol, ConvertError> {
    match version {
        1 => Ok(ProxyProtocol::V1),
        2 => Ok(ProxyProtocol::V2),
        _ => Err(ConvertError::OutOfRange {
            field: "version of the PROXY protocol",
            value: version.into(),
            largest: 2,
        }),
    }
}

fn tunnel(target: &str, by_post: bool) -> Result<HttpTunnel, ConvertError> {
    let method = if by_post { TunnelMethod::Post } else { TunnelMethod::Connect };
    Ok(HttpTunnel { target: parse("target of a tunnel", target)?, method })
}

impl From<Http2Upgrade> for wire::Http2Upgrade {
    fn from(upgrade: Http2Upgrade) -> Self {
        match upgrade {
            Http2Upgrade::Default => Self::Unspecified,
            Http2Upgrade::Never => Self::Never,
            Http2Upgrade::Always => Self::Always,
            Http2Upgrade::AsClient => Self::AsClient,
        }
    }
}

fn http2_upgrade(value: i32) -> Result<Http2Upgrade, ConvertError> {
    match wire::Http2Upgrade::try_from(value) {
        Ok(wire::Http2Upgrade::Unspecified) => Ok(Http2Upgrade::Default),
        Ok(wire::Http2Upgrade::Never) => Ok(Http2Upgrade::Never),
        Ok(wire::Http2Upgrade::Always) => Ok(Http2Upgrade::Always),
        Ok(wire::Http2Upgrade::AsClient) => Ok(Http2Upgrade::AsClient),
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
            keepalive: limits.keepalive.map(Into::into),
        }
    }
}

impl From<wire::ConnectionLimits> for ConnectionLimits {
    fn from(limits: wire::ConnectionLimits) -> Self {
        Self {
            max_connections: limits.max_connections,
            idle_timeout: limits.idle_timeout_ms.map(Duration::from_millis),
            max_duration: limits.max_duration_ms.map(Duration::from_millis),
            keepalive: limits.keepalive.map(Into::into),
        }
    }
}

impl From<TcpKeepalive> for wire::TcpKeepalive {
    fn from(TcpKeepalive { probes, time, interval }: TcpKeepalive) -> Self {
        Self { probes, time_ms: time.map(milliseconds), interval_ms: interval.map(milliseconds) }
    }
}

impl From<wire::TcpKeepalive> for TcpKeepalive {
    fn from(wire::TcpKeepalive { probes, time_ms, interval_ms }: wire::TcpKeepalive) -> Self {
        let time = |milliseconds: Option<u64>| milliseconds.map(Duration::from_millis);
        Self { probes, time: time(time_ms), interval: time(interval_ms) }
    }
}

impl From<RetryBudget> for wire::RetryBudget {
    fn from(budget: RetryBudget) -> Self {
        let RetryBudget { share, at_once, interval, at_least, refuses } = budget;
        Self {
            share: share.parts(),
            at_once,
            interval_ms: interval.map(milliseconds).unwrap_or_default(),
            at_least,
            refuses,
        }
    }
}

impl TryFrom<wire::RetryBudget> for RetryBudget {
    type Error = ConvertError;

    fn try_from(budget: wire::RetryBudget) -> Result<Self, ConvertError> {
        let wire::RetryBudget { share, at_once, interval_ms, at_least, refuses } = budget;
        let share = self::share("share of a retry budget", share)?;
        let interval = (interval_ms != 0).then(|| Duration::from_millis(interval_ms));
        Ok(Self { share, at_once, interval, at_least, refuses })
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
