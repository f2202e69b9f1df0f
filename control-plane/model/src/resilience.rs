//! How a destination is treated: balancing, outlier ejection, retries, time limits.
//!
//! These are values only; the algorithms that act on them live in the proxy, beside their state.

use std::time::Duration;

use serde::Serialize;

use crate::{
    HealthCheck, HostPort, LoadBalancer, LocalityPolicy, OutlierDetection, Protocol, UpstreamTls, Warmup,
    filter::Fraction,
};

/// How HTTP/1.1 requests travel to an endpoint (`DestinationRule` `connectionPool.http.h2UpgradePolicy`).
/// Whatever it says, the app is asked in HTTP/1.1 if there is a sidecar beside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Http2Upgrade {
    /// As the proxy's own setting says, but as HTTP/1.1 if connections, or
    /// requests on one, are limited, which is meant for connections with one request at a time; to endpoints without a sidecar as HTTP/1.1.
    #[default]
    Default,
    /// As HTTP/1.1.
    Never,
    /// As HTTP/2; to endpoints without a sidecar in plaintext, by prior knowledge.
    Always,
    /// As [`Self::Default`], and a gateway speaks to apps as its client speaks to it, too (`useClientProtocol`). Between
    /// sidecars this changes nothing: what carries requests there is the mesh's own matter, and the app is spoken to as
    /// its client speaks anyway.
    AsClient,
}

/// How much one proxy has in progress with one backend, and how it keeps connections to it
/// (`DestinationRule` `connectionPool.http`; Envoy's circuit breakers). What exceeds a limit is answered 503 at
/// once. `None`: no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct ConnectionPool {
    /// `http.http1MaxPendingRequests`: requests that wait for a connection, one that opens included.
    pub max_pending_requests: Option<u32>,
    /// `http.http2MaxRequests`: requests in progress, whatever they travel as.
    pub max_requests: Option<u32>,
    /// `http.maxRequestsPerConnection`: requests after which a connection takes no more.
    pub max_requests_per_connection: Option<u32>,
    /// `http.maxConcurrentStreams`: requests in progress on one HTTP/2 connection; the endpoint may allow
    /// fewer.
    pub max_concurrent_streams: Option<u32>,
    /// `http.maxRetries`: attempts after a request's first that are in progress.
    pub max_retries: Option<u32>,
    /// `http.idleTimeout`: how long a connection without a request is kept. `None`: with HTTP/1.1, 4 s in
    /// plaintext and 60 s between sidecars; with HTTP/2, until the endpoint closes it.
    pub idle_timeout: Option<Duration>,
    /// How HTTP/1.1 requests travel.
    pub http2_upgrade: Http2Upgrade,
}

impl ConnectionPool {
    /// No limits, and connections kept as long as is usual.
    pub const UNLIMITED: Self = Self {
        max_pending_requests: None,
        max_requests: None,
        max_requests_per_connection: None,
        max_concurrent_streams: None,
        max_retries: None,
        idle_timeout: None,
        http2_upgrade: Http2Upgrade::Default,
    };
}

/// How a sidecar connects to its own app on one port: the part of `DestinationRule` `connectionPool` that Istio has
/// servers' sidecars follow, too, and that means something there. `None`: as the proxy does by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct AppConnections {
    /// `tcp.connectTimeout`; by itself 5 s.
    pub connect_timeout: Option<Duration>,
    /// `http.idleTimeout`: how long a connection without a request is kept; by itself 4 s.
    pub idle_timeout: Option<Duration>,
    /// `http.maxRequestsPerConnection`: requests after which a connection takes no more; by itself any number.
    pub max_requests: Option<u32>,
}

impl AppConnections {
    /// Of two, the shorter and the smaller: what is right for an app that closes connections soon is not wrong
    /// for anybody.
    #[must_use]
    pub fn strictest(self, other: Self) -> Self {
        fn smaller<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            [one, other].into_iter().flatten().min()
        }
        Self {
            connect_timeout: smaller(self.connect_timeout, other.connect_timeout),
            idle_timeout: smaller(self.idle_timeout, other.idle_timeout),
            max_requests: smaller(self.max_requests, other.max_requests),
        }
    }
}

/// What a client does with one backend (`DestinationRule` `trafficPolicy`, the part that we act on).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct TrafficPolicy {
    /// How the next endpoint is chosen.
    pub load_balancer: LoadBalancer,
    /// How the share of a new endpoint grows; `None` = it is whole at once.
    pub warmup: Option<Warmup>,
    /// Which endpoints come first, by where they are.
    pub locality: LocalityPolicy,
    /// When an endpoint is ejected; `None` = never.
    pub outlier_detection: Option<OutlierDetection>,
    /// How endpoints outside the mesh are asked whether they are well; `None` = not at all.
    pub health_check: Option<HealthCheck>,
    /// Time for TCP and TLS together; default 10 s, as in Istio.
    pub connect_timeout: Duration,
    /// What limits connections.
    pub connections: ConnectionLimits,
    /// What limits requests.
    pub connection_pool: ConnectionPool,
    /// How many retries there may be; `None` = as the proxy does by itself: 20 % of the requests to the whole service,
    /// and 10 per second.
    pub retry_budget: Option<RetryBudget>,
    /// When a request goes to a second endpoint, too, because the first has not answered; `None`: never.
    pub hedge: Option<Hedge>,
    /// How servers without a sidecar are told whose connection each is; `None`: they are not.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Where opaque connections go through the endpoint, which is an HTTP proxy without a sidecar; `None`: to the endpoint.
    pub tunnel: Option<HttpTunnel>,
    /// TLS other than what each endpoint asks for.
    pub tls: Option<UpstreamTls>,
    /// What the app is spoken to in, where that does not depend on what the client speaks: at a gateway. HTTP/2 if that is
    /// declared for the port; otherwise HTTP/1.1, and HTTP/2 for gRPC. `None`: as the client speaks.
    pub spoken: Option<Protocol>,
}

/// How many retries one proxy may make to one backend (`DestinationRule` `trafficPolicy.retryBudget`, Gateway API
/// `retryConstraint`).
///
/// A retry is made if the share and `at_least` together allow it, or `at_once`. Without an `interval`, retries in progress are
/// compared with requests in progress, as Envoy does. With one both are counted over that time, so that failures which come
/// fast allow no more retries than those that come late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct RetryBudget {
    /// How many retries there may be, as a share of the requests in `interval`, or in progress (`percent`); default 20 %.
    pub share: Fraction,
    /// How many retries may be in progress at the same time in any case (`minRetryConcurrency`); default 3.
    pub at_once: u32,
    /// Over which time requests and retries are counted (`budgetInterval`), 100 ms to 1 h; `None`, the default: those in
    /// progress are.
    pub interval: Option<Duration>,
    /// How many more there may be in `interval` (`minRetryRate`); default 0. Without an `interval` it means nothing.
    pub at_least: u32,
    /// Whether a request that would need one more is answered 503, as the Gateway API wants it; otherwise with the answer
    /// that there is.
    pub refuses: bool,
}

impl RetryBudget {
    /// Over which time requests are counted where nothing says it.
    pub const USUAL_INTERVAL: Duration = Duration::from_secs(10);
}

impl Default for RetryBudget {
    fn default() -> Self {
        let share = Fraction::of_percent(20.0).expect("it is a percentage");
        Self { share, at_once: 3, interval: None, at_least: 0, refuses: false }
    }
}

/// When a request that may be carried out twice is sent to a second endpoint, because the first has not answered yet (our
/// annotation `config.selvedge.io/hedge`). The first good answer counts, and the other attempt is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Hedge {
    /// After the time that this share of the route's answers takes at the most, 50 % to 99.9 %.
    Percentile(Fraction),
    /// After this time, at least 1 ms.
    After(Duration),
}

/// The version of the PROXY protocol in which a server is told whose connection it is (`DestinationRule`
/// `trafficPolicy.proxyProtocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum ProxyProtocol {
    /// As text.
    V1,
    /// As bytes.
    V2,
}

/// Where an HTTP proxy is asked to carry opaque connections (`DestinationRule` `trafficPolicy.tunnel`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct HttpTunnel {
    /// `targetHost` and `targetPort`.
    pub target: HostPort,
    /// How it is asked (`protocol`).
    pub method: TunnelMethod,
}

/// How an HTTP proxy is asked to carry a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub enum TunnelMethod {
    /// The connection's bytes follow the request and its answer, as they are. The default, as in Istio.
    #[default]
    Connect,
    /// They are the body of the request, and of its answer.
    Post,
}

impl TunnelMethod {
    /// The method of the request.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Post => "POST",
        }
    }
}

/// How the kernel asks whether the other end of a silent connection is still there (`DestinationRule`
/// `connectionPool.tcp.tcpKeepalive`). `None`: as the operating system does by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub struct TcpKeepalive {
    /// Probes without an answer after which a connection counts as broken, 1 to 127.
    pub probes: Option<u32>,
    /// Silence before the first probe, 1 s to 32,767 s.
    pub time: Option<Duration>,
    /// Time between probes, 1 s to 32,767 s.
    pub interval: Option<Duration>,
}

/// What limits connections to one backend (`DestinationRule` `connectionPool.tcp`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub struct ConnectionLimits {
    /// Open at once, by one client's sidecar. Further opaque ones are refused; requests wait for one of those
    /// that there are, and each worker may always have one to each endpoint. `None` = no limit.
    pub max_connections: Option<u32>,
    /// Opaque connections' time without a byte either way; zero = without a limit, `None` = as the proxy's own setting says (1 h).
    pub idle_timeout: Option<Duration>,
    /// Time at all; `None` = as the proxy's own setting says (without a limit). A connection for requests takes no
    /// more of them then; `None` = an hour.
    pub max_duration: Option<Duration>,
    /// How the kernel asks whether the other end is still there; `None` = as the proxy's own setting says.
    pub keepalive: Option<TcpKeepalive>,
}

impl ConnectionLimits {
    /// No limits.
    pub const NONE: Self =
        Self { max_connections: None, idle_timeout: None, max_duration: None, keepalive: None };
}

impl Default for TrafficPolicy {
    fn default() -> Self {
        Self {
            load_balancer: LoadBalancer::default(),
            warmup: None,
            locality: LocalityPolicy::default(),
            outlier_detection: None,
            health_check: None,
            connect_timeout: Duration::from_secs(10),
            connections: ConnectionLimits::default(),
            connection_pool: ConnectionPool::default(),
            retry_budget: None,
            hedge: None,
            proxy_protocol: None,
            tunnel: None,
            tls: None,
            spoken: None,
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
    /// `reset-before-request`: the connection broke before any of the request was sent.
    pub reset_before_request: bool,
    /// `connect-failure`: no connection was made.
    pub connect_failure: bool,
    /// `retriable-4xx`: 409.
    pub retriable_4xx: bool,
    /// `refused-stream`: HTTP/2 REFUSED_STREAM.
    pub refused_stream: bool,
    /// The time of one attempt ran out. `5xx`, `gateway-error` and `reset` include it; here it is meant alone (Linkerd's
    /// `retry.linkerd.io/timeout`).
    pub per_try_timeout: bool,
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
    /// Whether the last attempt may take longer than that, because nothing follows it (Linkerd); default no, as in Istio.
    pub last_attempt_unlimited: bool,
    /// First pause: drawn from \[0, this), doubling each time, at most ten times this; default 25 ms.
    pub backoff: Duration,
}

impl RetryPolicy {
    /// The time of attempt number `attempt` (0 = the first), if it is limited.
    pub fn limit_of(&self, attempt: u32) -> Option<Duration> {
        self.per_try_timeout.filter(|_| !self.last_attempt_unlimited || attempt < self.attempts)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 2,
            on: RetryOn::istio_default(),
            per_try_timeout: None,
            last_attempt_unlimited: false,
            backoff: Duration::from_millis(25),
        }
    }
}

/// How long an answer may take once its request is sent, and how long nothing may pass (Linkerd's
/// `timeout.linkerd.io/response` and `timeout.linkerd.io/idle`). Neither is followed by another attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub struct StreamTimeouts {
    /// From the last byte of an attempt's request to the last byte of its answer; default none.
    pub response: Option<Duration>,
    /// Without a byte of the request or of its answer; default none.
    pub idle: Option<Duration>,
}

impl StreamTimeouts {
    /// Whether there is no limit.
    pub const fn is_empty(&self) -> bool {
        self.response.is_none() && self.idle.is_none()
    }
}
