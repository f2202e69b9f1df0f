//! The proxy's settings: command-line flags, each also an environment variable.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use selvedge_model::{TrustDomain, WorkloadName, service::OPAQUE_PORTS};

use crate::{
    discovery::Address,
    identify::token::RootSha256,
    listens::Listen,
    probes::{AppMetrics, AppProbes},
    upstream::Upstream,
};

/// The sidecar: carries one workload's traffic, in and out.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The workload that this is the sidecar of, as NAMESPACE/NAME.
    #[arg(long, env = "SELVEDGE_WORKLOAD")]
    pub workload: WorkloadName,

    /// The control plane's gRPC port, as HOST:PORT.
    #[arg(long, env = "SELVEDGE_CONTROL_PLANE", default_value = "127.0.0.1:8086")]
    pub control_plane: Address,

    /// A join token, as `selvedge token create` prints it.
    #[arg(long, env = "SELVEDGE_TOKEN", hide_env_values = true, conflicts_with = "token_file")]
    pub token: Option<String>,

    /// A file that holds the join token, or in a cluster the pod's ServiceAccount token; read again for every
    /// attempt to join.
    #[arg(long, env = "SELVEDGE_TOKEN_FILE", required_unless_present = "token")]
    pub token_file: Option<PathBuf>,

    /// The SHA-256 of the control plane's root certificate, in hexadecimal; several, separated by commas,
    /// while one root takes over from another. Needed with a ServiceAccount token, which does not say it: the
    /// ConfigMap selvedge-trust-roots does.
    #[arg(long, env = "SELVEDGE_TRUST_ROOTS", value_name = "SHA256", value_delimiter = ',')]
    pub trust_roots: Vec<RootSha256>,

    /// The control plane's trust domain, where the token names none: beside a ServiceAccount token.
    #[arg(long, env = "SELVEDGE_TRUST_DOMAIN", default_value_t)]
    pub trust_domain: TrustDomain,

    /// Where the app listens: IP:PORT, or PORT=IP:PORT for one of the workload's ports; may be given more than once.
    /// An address alone serves the workload's port of the same number, or the only one that it has. A port without
    /// an address is refused.
    #[arg(
        long,
        env = "SELVEDGE_APP",
        value_name = "[PORT=]IP:PORT",
        value_delimiter = ',',
        required_unless_present = "redirected",
        conflicts_with = "redirected"
    )]
    pub app: Vec<Listen>,

    /// The app's connections, in and out, are redirected to this proxy; each is carried to where it was
    /// going.
    #[arg(long, env = "SELVEDGE_REDIRECTED")]
    pub redirected: bool,

    /// The address at which the app is asked for its probes and metrics: the pod's own.
    #[arg(long, env = "SELVEDGE_APP_ADDRESS", value_name = "IP", default_value = "127.0.0.1")]
    pub app_address: IpAddr,

    /// The app's probes, each answered for at a path below /app-health or /app-lifecycle of the admin port: JSON,
    /// as injection writes it.
    #[arg(
        long,
        env = "SELVEDGE_APP_PROBES",
        value_name = "JSON",
        default_value = "{}",
        hide_default_value = true
    )]
    pub app_probes: AppProbes,

    /// Where the app's metrics are, which /metrics/app of the admin port passes on: JSON, as injection writes it.
    #[arg(long, env = "SELVEDGE_APP_METRICS", value_name = "JSON")]
    pub app_metrics: Option<AppMetrics>,

    /// This is an ingress controller's sidecar: what a request names as its Host says which service it is for, if
    /// there is one of that name, and only otherwise the address that was dialled.
    #[arg(long, env = "SELVEDGE_INGRESS", requires = "redirected")]
    pub ingress: bool,

    /// Where the app's outgoing requests are taken, as IP:PORT; may be given more than once.
    #[arg(
        long,
        env = "SELVEDGE_OUTBOUND",
        value_delimiter = ',',
        default_values = ["127.0.0.1:4140", "[::1]:4140"]
    )]
    pub outbound: Vec<SocketAddr>,

    /// A port of loopback (or an IP:PORT) whose connections all go to HOST:PORT, whatever they carry, as LISTEN=HOST:PORT:
    /// for what does not say itself where it is going, as databases do; may be given more than once.
    #[arg(
        long,
        env = "SELVEDGE_UPSTREAM",
        value_name = "LISTEN=HOST:PORT",
        value_delimiter = ',',
        conflicts_with = "redirected"
    )]
    pub upstream: Vec<Upstream>,

    /// Where other sidecars connect, as IP:PORT.
    #[arg(long, env = "SELVEDGE_INBOUND", default_value = "[::]:4143")]
    pub inbound: SocketAddr,

    /// Where /live, /ready and /metrics are answered, as IP:PORT; everything else there only to loopback.
    #[arg(long, env = "SELVEDGE_ADMIN", default_value = "[::]:4191")]
    pub admin: SocketAddr,

    /// Threads that carry traffic.
    #[arg(long, env = "SELVEDGE_WORKERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,

    /// What carries HTTP/1.1 requests between sidecars. HTTP/2 and gRPC always travel as HTTP/2.
    #[arg(long, env = "SELVEDGE_CARRIER", value_enum, default_value_t = Carrier::Http2)]
    pub carrier: Carrier,

    /// Header names keep their upper and lower case where HTTP/1.1 goes on as HTTP/1.1 (with `--carrier http1`
    /// between sidecars, too). Without it they arrive in lower case; for apps that mind, which HTTP forbids them.
    #[arg(long, env = "SELVEDGE_PRESERVE_HEADER_CASE")]
    pub preserve_header_case: bool,

    /// The lifetime to ask for our certificates; the control plane's maximum is the cap.
    #[arg(long, env = "SELVEDGE_CERTIFICATE_TTL", default_value = "24h", value_parser = humantime::parse_duration)]
    pub certificate_ttl: Duration,

    /// How long after SIGTERM everything is still carried, as long as the app keeps its port open.
    #[arg(long, env = "SELVEDGE_DRAIN_DELAY", default_value = "5s", value_parser = humantime::parse_duration)]
    pub drain_delay: Duration,

    /// How long leaving may take after SIGTERM; requests in progress are cut off then.
    #[arg(long, env = "SELVEDGE_DRAIN_TIMEOUT", default_value = "30s", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,

    /// What happens to requests for destinations that are in no configuration.
    #[arg(long, env = "SELVEDGE_OUTBOUND_TRAFFIC_POLICY", value_enum, default_value_t = OutboundTrafficPolicy::AllowAny)]
    pub outbound_traffic_policy: OutboundTrafficPolicy,

    /// How many bytes a request's head may have; larger ones are answered 431.
    #[arg(long, env = "SELVEDGE_MAX_HEADER_BYTES", default_value_t = 60 * 1024)]
    pub max_header_bytes: usize,

    /// How many header fields a request may have; more are answered 431.
    #[arg(long, env = "SELVEDGE_MAX_HEADERS", default_value_t = 100)]
    pub max_headers: usize,

    /// How long the rest of a request's head may take after its first bytes; then it is answered 408.
    #[arg(long, env = "SELVEDGE_HEADER_TIMEOUT", default_value = "60s", value_parser = humantime::parse_duration)]
    pub header_timeout: Duration,

    /// How long a request's body of declared length may keep us waiting; then it is answered 408. Bytes
    /// that arrive extend the limit, as `--min-body-rate` says.
    #[arg(long, env = "SELVEDGE_BODY_TIMEOUT", default_value = "60s", value_parser = humantime::parse_duration)]
    pub body_timeout: Duration,

    /// The slowest that a request's body may arrive on average, in bytes per second: so many bytes extend
    /// `--body-timeout` by one second, up to all of it in hand. 0 means no limit.
    #[arg(long, env = "SELVEDGE_MIN_BODY_RATE", value_name = "BYTES", default_value_t = 240)]
    pub min_body_rate: u32,

    /// How long a client's connection may stay open without a request.
    #[arg(long, env = "SELVEDGE_IDLE_TIMEOUT", default_value = "1h", value_parser = humantime::parse_duration)]
    pub idle_timeout: Duration,

    /// How long a client may say nothing on a port whose protocol is not declared, until its server is
    /// connected to: perhaps it speaks first.
    #[arg(long, env = "SELVEDGE_DETECT_TIMEOUT", default_value = "100ms", value_parser = humantime::parse_duration)]
    pub detect_timeout: Duration,

    /// Ports whose connections are opaque without being looked at, where nothing else is declared.
    #[arg(long, env = "SELVEDGE_OPAQUE_PORTS", value_delimiter = ',', default_values_t = OPAQUE_PORTS)]
    pub opaque_ports: Vec<u16>,

    /// How long an opaque TCP connection may stay open with no byte either way; 0s: for good. A
    /// `DestinationRule`'s `connectionPool.tcp.idleTimeout` beats it.
    #[arg(long, env = "SELVEDGE_TCP_IDLE_TIMEOUT", default_value = "1h", value_parser = humantime::parse_duration)]
    pub tcp_idle_timeout: Duration,

    /// How long an opaque TCP connection may last at all; 0s: for good. A `DestinationRule`'s
    /// `connectionPool.tcp.maxConnectionDuration` beats it.
    #[arg(long, env = "SELVEDGE_TCP_MAX_DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    pub tcp_max_duration: Duration,

    /// How long a WebSocket may stay open with no byte either way; 0s: for good.
    #[arg(long, env = "SELVEDGE_WEBSOCKET_IDLE_TIMEOUT", default_value = "1h", value_parser = humantime::parse_duration)]
    pub websocket_idle_timeout: Duration,

    /// How old a connection may be at all, whatever is in progress on it, in and out; 0s: for good. A little before,
    /// it takes no more requests. Without it, what is in progress goes on however often certificates are renewed,
    /// until its peer is no longer allowed; new requests move to a new connection once an hour, or as often as
    /// certificates end.
    #[arg(long, env = "SELVEDGE_MAX_CONNECTION_AGE", default_value = "0s", value_parser = humantime::parse_duration)]
    pub max_connection_age: Duration,

    /// How long a connection to or from another host may be silent until it is known that its peer is gone, in
    /// whole seconds; 0s: it is not asked. (TCP keep-alive: half of the time, then five probes.)
    #[arg(long, env = "SELVEDGE_TCP_KEEPALIVE", default_value = "30s", value_parser = humantime::parse_duration)]
    pub tcp_keepalive: Duration,

    /// How long another host may leave bytes unacknowledged until its connection counts as broken; 0s: as long as
    /// the kernel tries, some 15 minutes. A peer that lives and takes nothing for so long is cut off, too.
    #[arg(long, env = "SELVEDGE_TCP_USER_TIMEOUT", default_value = "0s", value_parser = humantime::parse_duration)]
    pub tcp_user_timeout: Duration,

    /// How long an HTTP/2 connection may be silent until its peer is asked whether it lives; 0s: it is not asked.
    /// One that we opened is asked only while requests are in progress.
    #[arg(long, env = "SELVEDGE_PING_INTERVAL", default_value = "10s", value_parser = humantime::parse_duration)]
    pub ping_interval: Duration,

    /// How long the answer may take; then the connection counts as broken.
    #[arg(long, env = "SELVEDGE_PING_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub ping_timeout: Duration,

    /// Requests that one HTTP/2 connection may have in progress.
    #[arg(long, env = "SELVEDGE_MAX_STREAMS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams: u32,

    /// Names.
    #[command(flatten)]
    pub resolver: selvedge_ops::ResolverArgs,

    /// Connections that clients may have open in each direction: so the app's way out is never taken up by who comes
    /// in. Of those that come in, a quarter is left to mesh peers, and where all are taken, the connection that has
    /// been open longest without saying anything is closed for a newcomer. Default: three tenths of the files that
    /// the process may have open.
    #[arg(long, env = "SELVEDGE_MAX_CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: Option<u32>,

    /// Bytes that HTTP/2 connections, heads that have not ended, and bodies kept for another attempt may hold
    /// together, in MiB. With more of them new requests are answered 503, and connections that hold much are not read from, then closed.
    #[arg(long, env = "SELVEDGE_BUFFER_BUDGET", value_name = "MIB", default_value_t = 256)]
    pub buffer_budget: u32,

    /// Logging.
    #[command(flatten)]
    pub log: selvedge_ops::LogArgs,

    /// Exit when standard input closes, so that a parent's death takes this process along.
    #[arg(long, hide = true)]
    pub exit_on_stdin_close: bool,
}

/// What carries HTTP/1.1 requests between sidecars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Carrier {
    /// One connection per request in flight; the shorter path at low load and for bulk.
    Http1,
    /// Many requests on one connection; fewer writes under load.
    Http2,
}

/// What happens to requests for destinations that are in no configuration (Istio `outboundTrafficPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutboundTrafficPolicy {
    /// They go out in plaintext, to whatever address their name has.
    AllowAny,
    /// They are answered 502.
    RegistryOnly,
}
