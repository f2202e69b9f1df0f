//! The proxy's settings: command-line flags, each also an environment variable.

mod concurrency;
mod edge;
mod told;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use selvedge_model::{TrustDomain, WorkloadName, service::OPAQUE_PORTS};

pub use self::{concurrency::ConcurrencyArgs, edge::EdgeArgs, told::ToldArgs};
use crate::{
    joining::{Address, token::RootSha256, workload_api::Socket},
    probes::{AppMetrics, AppProbes},
    settings::{Carrier, Listen, OutboundTrafficPolicy, Upstream},
    telemetry::MetricsCompat,
};

/// The sidecar: carries one workload's traffic, in and out.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The workload that this proxy is the sidecar of, as NAMESPACE/NAME.
    #[arg(long, env = "SELVEDGE_WORKLOAD")]
    pub workload: WorkloadName,

    /// The address of the control plane's gRPC port, as HOST:PORT.
    #[arg(long, env = "SELVEDGE_CONTROL_PLANE", default_value = "127.0.0.1:8086")]
    pub control_plane: Address,

    /// A join token, as `selvedge token create` prints it.
    #[arg(long, env = "SELVEDGE_TOKEN", hide_env_values = true, conflicts_with = "token_file")]
    pub token: Option<String>,

    /// A file that holds the join token or, in a cluster, the pod's ServiceAccount token. The proxy reads it again for
    /// every attempt to join.
    #[arg(long, env = "SELVEDGE_TOKEN_FILE", required_unless_present = "token")]
    pub token_file: Option<PathBuf>,

    /// The SHA-256 of the control plane's root certificate, in hexadecimal. Separate several with commas while
    /// one root replaces another. Needed with a ServiceAccount token, which does not contain it; the ConfigMap
    /// selvedge-trust-roots does.
    #[arg(long, env = "SELVEDGE_TRUST_ROOTS", value_name = "SHA256", value_delimiter = ',')]
    pub trust_roots: Vec<RootSha256>,

    /// The control plane's trust domain. Needed with a ServiceAccount token, which does not name it.
    #[arg(long, env = "SELVEDGE_TRUST_DOMAIN", default_value_t)]
    pub trust_domain: TrustDomain,

    /// The socket of a SPIFFE agent, such as SPIRE's, as unix:///PATH; `env`: where SPIFFE_ENDPOINT_SOCKET says. Peers then
    /// see the SVID that the agent gives, which has to be for this workload's identity. The token is needed all the same:
    /// it proves to the control plane which workload this is.
    #[arg(long, env = "SELVEDGE_WORKLOAD_API", value_name = "SOCKET")]
    pub workload_api: Option<Socket>,

    /// Where the app listens: IP:PORT, or PORT=IP:PORT for one of the workload's ports. May be given more than once.
    /// IP:PORT alone serves the workload's port of the same number, or its only port. Requests for a port without
    /// an address are refused.
    #[arg(
        long,
        env = "SELVEDGE_APP",
        value_name = "[PORT=]IP:PORT",
        value_delimiter = ',',
        required_unless_present_any = ["redirected", "gateway"],
        conflicts_with = "redirected"
    )]
    pub app: Vec<Listen>,

    /// This proxy is a gateway: it carries what comes in from outside to the services of the mesh, and has no app. Its
    /// workload has the annotation `config.selvedge.io/gateway`, and configuration says on which ports it listens.
    #[arg(
        long,
        env = "SELVEDGE_GATEWAY",
        conflicts_with_all = ["app", "redirected", "ingress", "upstream", "inbound"]
    )]
    pub gateway: bool,

    /// Rules on this host redirect the app's connections, in and out, to this proxy. The proxy carries each to its
    /// original destination.
    #[arg(long, env = "SELVEDGE_REDIRECTED")]
    pub redirected: bool,

    /// The address where the proxy calls the app's probes and metrics: the pod's own.
    #[arg(long, env = "SELVEDGE_APP_ADDRESS", value_name = "IP", default_value = "127.0.0.1")]
    pub app_address: IpAddr,

    /// The app's probes, as JSON that injection writes. The admin port answers each at a path below /app-health or
    /// /app-lifecycle.
    #[arg(
        long,
        env = "SELVEDGE_APP_PROBES",
        value_name = "JSON",
        default_value = "{}",
        hide_default_value = true
    )]
    pub app_probes: AppProbes,

    /// Where the app's metrics are, as JSON that injection writes. The admin port passes them on at /metrics/app.
    #[arg(long, env = "SELVEDGE_APP_METRICS", value_name = "JSON")]
    pub app_metrics: Option<AppMetrics>,

    /// This proxy is an ingress controller's sidecar. A request's Host header then chooses the service. Only if no
    /// service has that name, the address that was dialled chooses it.
    #[arg(long, env = "SELVEDGE_INGRESS", requires = "redirected")]
    pub ingress: bool,

    /// Where the proxy listens for the app's outgoing requests, as IP:PORT. May be given more than once. A gateway has
    /// none by default.
    #[arg(
        long,
        env = "SELVEDGE_OUTBOUND",
        value_delimiter = ',',
        default_values = ["127.0.0.1:4140", "[::1]:4140"],
        default_value_if("gateway", "true", None)
    )]
    pub outbound: Vec<SocketAddr>,

    /// A local port (or IP:PORT) whose connections all go to HOST:PORT, whatever they carry, as LISTEN=HOST:PORT. It is
    /// for protocols that do not name their destination, such as those of databases. May be given more than once.
    #[arg(
        long,
        env = "SELVEDGE_UPSTREAM",
        value_name = "LISTEN=HOST:PORT",
        value_delimiter = ',',
        conflicts_with = "redirected"
    )]
    pub upstream: Vec<Upstream>,

    /// Where the proxy listens for other sidecars, as IP:PORT. A gateway does not.
    #[arg(
        long,
        env = "SELVEDGE_INBOUND",
        default_value = "[::]:4143",
        default_value_if("gateway", "true", None)
    )]
    pub inbound: Option<SocketAddr>,

    /// The admin port, as IP:PORT. It answers /live, /ready and /metrics to everybody, and everything else only to
    /// clients on loopback.
    #[arg(long, env = "SELVEDGE_ADMIN", default_value = "[::]:4191")]
    pub admin: SocketAddr,

    /// Whose metrics /metrics tells beside the proxy's own: `istio` adds istio_requests_total and the like, which Kiali,
    /// Flagger and existing dashboards ask for.
    #[arg(long, env = "SELVEDGE_METRICS_COMPAT", value_name = "WHOSE", value_enum, default_value_t = MetricsCompat::None)]
    pub metrics_compat: MetricsCompat,

    /// Threads that carry traffic.
    #[arg(long, env = "SELVEDGE_WORKERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,

    /// What carries HTTP/1.1 requests between sidecars. HTTP/2 and gRPC always travel as HTTP/2.
    #[arg(long, env = "SELVEDGE_CARRIER", value_enum, default_value_t = Carrier::Http2)]
    pub carrier: Carrier,

    /// Keep the upper and lower case of header names where HTTP/1.1 goes on as HTTP/1.1 (between sidecars only with
    /// `--carrier http1`). Without this flag they arrive in lower case. It is for apps that need one case, although HTTP
    /// says that case does not matter.
    #[arg(long, env = "SELVEDGE_PRESERVE_HEADER_CASE")]
    pub preserve_header_case: bool,

    /// The lifetime of the certificates that the proxy asks for. The control plane's maximum limits it.
    #[arg(long, env = "SELVEDGE_CERTIFICATE_TTL", default_value = "24h", value_parser = humantime::parse_duration)]
    pub certificate_ttl: Duration,

    /// How long the proxy carries new requests and connections after SIGTERM, while the app keeps its port open.
    #[arg(long, env = "SELVEDGE_DRAIN_DELAY", default_value = "5s", value_parser = humantime::parse_duration)]
    pub drain_delay: Duration,

    /// How long shutting down may take after SIGTERM. Then the proxy cuts off the requests that are still in progress.
    #[arg(long, env = "SELVEDGE_DRAIN_TIMEOUT", default_value = "30s", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,

    /// What happens to requests for destinations that no configuration declares.
    #[arg(long, env = "SELVEDGE_OUTBOUND_TRAFFIC_POLICY", value_enum, default_value_t = OutboundTrafficPolicy::AllowAny)]
    pub outbound_traffic_policy: OutboundTrafficPolicy,

    /// The largest head of a request, in bytes. A larger one is answered with 431.
    #[arg(long, env = "SELVEDGE_MAX_HEADER_BYTES", default_value_t = 60 * 1024)]
    pub max_header_bytes: usize,

    /// The most header fields of a request. One with more is answered with 431.
    #[arg(long, env = "SELVEDGE_MAX_HEADERS", default_value_t = 100)]
    pub max_headers: usize,

    /// How long a request's head may take to arrive after its first bytes. After that the request is answered with 408.
    #[arg(long, env = "SELVEDGE_HEADER_TIMEOUT", default_value = "60s", value_parser = humantime::parse_duration)]
    pub header_timeout: Duration,

    /// How long the proxy waits for the next bytes of a request's body of declared length. After that the request is
    /// answered with 408. Bytes that arrive extend the time, as `--min-body-rate` says.
    #[arg(long, env = "SELVEDGE_BODY_TIMEOUT", default_value = "60s", value_parser = humantime::parse_duration)]
    pub body_timeout: Duration,

    /// The lowest average rate of a request's body, in bytes per second. Each time this many bytes arrive, the body gets
    /// one more second, but never more than `--body-timeout` ahead. 0 means no limit.
    #[arg(long, env = "SELVEDGE_MIN_BODY_RATE", value_name = "BYTES", default_value_t = 240)]
    pub min_body_rate: u32,

    /// How long a client's connection may stay open without a request.
    #[arg(long, env = "SELVEDGE_IDLE_TIMEOUT", default_value = "1h", value_parser = humantime::parse_duration)]
    pub idle_timeout: Duration,

    /// How long the proxy waits for a client's first bytes on a port of undeclared protocol. After that it connects to
    /// the server, because the server may be the one that speaks first.
    #[arg(long, env = "SELVEDGE_DETECT_TIMEOUT", default_value = "100ms", value_parser = humantime::parse_duration)]
    pub detect_timeout: Duration,

    /// Ports whose connections are carried as opaque TCP without detection, unless their protocol is declared.
    #[arg(long, env = "SELVEDGE_OPAQUE_PORTS", value_delimiter = ',', default_values_t = OPAQUE_PORTS)]
    pub opaque_ports: Vec<u16>,

    /// How long an opaque TCP connection may stay open without a byte in either direction. 0s means no limit. A
    /// `DestinationRule`'s `connectionPool.tcp.idleTimeout` takes precedence.
    #[arg(long, env = "SELVEDGE_TCP_IDLE_TIMEOUT", default_value = "1h", value_parser = humantime::parse_duration)]
    pub tcp_idle_timeout: Duration,

    /// How long an opaque TCP connection may last. 0s means no limit. A `DestinationRule`'s
    /// `connectionPool.tcp.maxConnectionDuration` takes precedence.
    #[arg(long, env = "SELVEDGE_TCP_MAX_DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    pub tcp_max_duration: Duration,

    /// How long a WebSocket may stay open without a byte in either direction. 0s means no limit.
    #[arg(long, env = "SELVEDGE_WEBSOCKET_IDLE_TIMEOUT", default_value = "1h", value_parser = humantime::parse_duration)]
    pub websocket_idle_timeout: Duration,

    /// The age at which the proxy closes a connection, in or out, even with requests in progress. 0s means no limit. The
    /// connection takes no new requests from a little before. Without a limit, what is in progress goes on until its
    /// peer is no longer allowed, however often certificates are renewed. New requests move to a new connection once
    /// an hour, or when a certificate ends.
    #[arg(long, env = "SELVEDGE_MAX_CONNECTION_AGE", default_value = "0s", value_parser = humantime::parse_duration)]
    pub max_connection_age: Duration,

    /// How soon the proxy notices that the peer of a silent connection to or from another host is gone, in whole seconds.
    /// 0s turns this off. It is done by TCP keep-alive: half of the time, then five probes.
    #[arg(long, env = "SELVEDGE_TCP_KEEPALIVE", default_value = "30s", value_parser = humantime::parse_duration)]
    pub tcp_keepalive: Duration,

    /// How long another host may leave bytes unacknowledged. After that its connection counts as broken. 0s means as long
    /// as the kernel tries, about 15 minutes. This also cuts off a peer that is alive and reads nothing for so long.
    #[arg(long, env = "SELVEDGE_TCP_USER_TIMEOUT", default_value = "0s", value_parser = humantime::parse_duration)]
    pub tcp_user_timeout: Duration,

    /// How long an HTTP/2 connection may be silent before the proxy sends a PING. 0s turns this off. On a connection that
    /// the proxy opened it sends one only while requests are in progress.
    #[arg(long, env = "SELVEDGE_PING_INTERVAL", default_value = "10s", value_parser = humantime::parse_duration)]
    pub ping_interval: Duration,

    /// How long the answer to a PING may take. After that the connection counts as broken.
    #[arg(long, env = "SELVEDGE_PING_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub ping_timeout: Duration,

    /// The most requests in progress on one HTTP/2 connection.
    #[arg(long, env = "SELVEDGE_MAX_STREAMS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams: u32,

    /// What limits the requests that the app has in progress.
    #[command(flatten)]
    pub concurrency: ConcurrencyArgs,

    /// What holds for gateways alone.
    #[command(flatten)]
    pub edge: EdgeArgs,

    /// Names.
    #[command(flatten)]
    pub resolver: selvedge_ops::ResolverArgs,

    /// The most connections that clients may have open, counted for each direction by itself. A quarter of the incoming
    /// ones is reserved for mesh peers. When all incoming ones are taken, the proxy closes the one that has been
    /// open longest without sending anything, and accepts the new one. Default: three tenths of the files that the
    /// process may have open.
    #[arg(long, env = "SELVEDGE_MAX_CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: Option<u32>,

    /// The most memory, in MiB, for HTTP/2 connections, unfinished heads, and bodies that are kept for another attempt.
    /// Above it the proxy answers new requests with 503, stops reading from the connections that hold the most, and
    /// then closes them.
    #[arg(long, env = "SELVEDGE_BUFFER_BUDGET", value_name = "MIB", default_value_t = 256)]
    pub buffer_budget: u32,

    /// What is told of requests.
    #[command(flatten)]
    pub told: ToldArgs,

    /// Logging.
    #[command(flatten)]
    pub log: selvedge_ops::LogArgs,

    /// Exit when standard input closes, so that this process ends with its parent.
    #[arg(long, hide = true)]
    pub exit_on_stdin_close: bool,
}
