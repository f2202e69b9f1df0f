//! What the command line says, as the request path reads it: the same for all workers.

mod app_addresses;
mod own_listeners;
mod upstream;

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;
use selvedge_model::{Protocol, WorkloadName, normalize::path::Slashes};

#[cfg(test)]
pub(crate) use self::own_listeners::tests::listeners;
pub use self::{
    app_addresses::{Listen, Listens, not_ours},
    own_listeners::{OwnListeners, Way},
    upstream::Upstream,
};
use crate::io::Liveness;

/// What all workers have in common.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who we are.
    pub workload: WorkloadName,
    /// Where the app listens for each port. `None`: connections are redirected, and the kernel says where each was
    /// going.
    pub app: Option<Listens>,
    /// Whether a request's authority beats the address that was dialled.
    pub ingress: bool,
    /// How many proxies before a gateway are trusted to say whom they were called by.
    pub trusted_hops: u8,
    /// Load balancers before a gateway that name their clients by the PROXY protocol.
    pub proxied_from: Box<[IpNet]>,
    /// What connections to the listeners of `--upstream` are for.
    pub upstreams: Vec<Upstream>,
    /// Our own listeners, where nothing that we carry may arrive.
    pub own: Arc<OwnListeners>,
    /// What carries HTTP/1.1 requests between sidecars.
    pub carrier: Carrier,
    /// What happens to requests for what is in no configuration.
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    /// How long shutting down may take, and how long what is in progress may take on a connection that must end.
    pub drain_timeout: Duration,
    /// What clients may ask of us, on one connection.
    pub limits: RequestLimits,
    /// How long the rest of a request's head may take.
    pub header_timeout: Duration,
    /// How slowly the body of a request may come.
    pub pace: PaceLimits,
    /// How slowly a gateway's clients may read their answers.
    pub read: PaceLimits,
    /// The longest body of a request to a gateway, in bytes, if its route says nothing. 0: no limit.
    pub max_body: u64,
    /// How long a client's connection may stay without a request.
    pub idle_timeout: Duration,
    /// Whether header names keep their case where HTTP/1.1 goes on as HTTP/1.1.
    pub preserve_header_case: bool,
    /// What a gateway makes of slashes in paths.
    pub path_slashes: PathSlashes,
    /// How long a client may say nothing, until its server is connected to.
    pub detect_timeout: Duration,
    /// Ports that are opaque, where nothing else is declared.
    pub opaque_ports: Vec<u16>,
    /// How long opaque connections may last, where no policy says it for their destination.
    pub tcp: StreamLimits,
    /// How long WebSockets may last.
    pub websocket: StreamLimits,
    /// How soon the proxy notices that a peer is gone silently.
    pub liveness: Liveness,
    /// The greatest age of a client's connection, whatever is in progress. `None`: no limit.
    pub max_connection_age: Option<Duration>,
}

impl Settings {
    /// What is spoken on `port`, of which `declared` is what configuration says.
    pub fn spoken(&self, declared: Protocol, port: u16) -> Protocol {
        declared.spoken(port, &self.opaque_ports)
    }
}

/// What carries HTTP/1.1 requests between sidecars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Carrier {
    /// One connection per request in flight; the shorter path at low load and for bulk.
    Http1,
    /// Many requests on one connection; fewer writes under load.
    Http2,
}

/// What a gateway makes of slashes in paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PathSlashes {
    /// They stay as they come.
    Kept,
    /// Several become one.
    Merged,
    /// `%2F` and `%5C` become `/`, and then several become one.
    Decoded,
}

impl From<PathSlashes> for Slashes {
    fn from(slashes: PathSlashes) -> Self {
        match slashes {
            PathSlashes::Kept => Self::Kept,
            PathSlashes::Merged => Self::Merged,
            PathSlashes::Decoded => Self::Decoded,
        }
    }
}

/// What happens to requests for destinations that are in no configuration (Istio `outboundTrafficPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutboundTrafficPolicy {
    /// They go out in plaintext, to whatever address their name has.
    AllowAny,
    /// They are answered 502.
    RegistryOnly,
}

/// What clients may ask of us, on one connection.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// A request's head.
    pub head: HeadLimits,
    /// Requests in progress on an HTTP/2 connection.
    pub streams: u32,
}

/// How large a request's head may be.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes: of an HTTP/1 head as it is written, of an HTTP/2 head as RFC 9113 counts (section 6.5.2).
    pub bytes: usize,
    /// Header fields.
    pub count: usize,
}

impl HeadLimits {
    /// The same, with room for what a sidecar adds to the request of a client that may use all of them: who called, where it
    /// comes from, and the trace that it is part of.
    pub(crate) const fn with_room_for_a_sidecar(self) -> Self {
        Self { bytes: self.bytes.saturating_add(8 << 10), count: self.count.saturating_add(16) }
    }
}

/// How slowly bodies may come.
#[derive(Debug, Clone, Copy)]
pub struct PaceLimits {
    /// How long a body may keep the proxy waiting before anything of it has come.
    pub patience: Duration,
    /// Each time this many bytes arrive, the body gets one more second. 0 means no limit.
    pub rate: u32,
}

/// How long a stream of bytes may last that is not HTTP, or no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Without a byte in either direction. `None`: no limit.
    pub idle: Option<Duration>,
    /// In all. `None`: no limit.
    pub longest: Option<Duration>,
}

impl StreamLimits {
    /// These times; zero means no limit.
    pub fn new(idle: Duration, longest: Duration) -> Self {
        let unless_zero = |time: Duration| (!time.is_zero()).then_some(time);
        Self { idle: unless_zero(idle), longest: unless_zero(longest) }
    }
}
