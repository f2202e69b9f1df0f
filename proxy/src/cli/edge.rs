//! Settings of gateways: what stands before them, and how much their clients may take.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use crate::settings::PathSlashes;

/// What holds for gateways alone.
#[derive(Debug, Clone, clap::Args)]
pub struct EdgeArgs {
    /// How many proxies stand between clients and this gateway, and are trusted to append to `x-forwarded-for` whom they
    /// were called by. The client's address is then the entry at this place from the right of what arrives. 0: clients
    /// connect themselves, and what they say of their address is replaced.
    #[arg(
        long,
        env = "SELVEDGE_TRUSTED_HOPS",
        value_name = "COUNT",
        default_value_t = 0,
        requires = "gateway"
    )]
    pub trusted_hops: u8,

    /// Load balancers before this gateway that begin each connection with a header of the PROXY protocol (version 1 or 2), as
    /// addresses and networks. The client is then who the header names. From these addresses the header is required,
    /// and from all others it is refused.
    #[arg(
        long,
        env = "SELVEDGE_PROXY_PROTOCOL_FROM",
        value_name = "CIDR",
        value_delimiter = ',',
        value_parser = network,
        requires = "gateway"
    )]
    pub proxy_protocol_from: Vec<IpNet>,

    /// The most connections that one client's address may have open at a gateway. An IPv6 client is its network of 64 bits.
    /// 0 means no limit. Default: four times as many as are still free for others, but 16 in any case.
    #[arg(long, env = "SELVEDGE_MAX_CONNECTIONS_PER_CLIENT", value_name = "COUNT", requires = "gateway")]
    pub max_connections_per_client: Option<u32>,

    /// The most connections of one client's address whose TLS handshake, or first bytes, a gateway still waits for. 0 means
    /// no limit.
    #[arg(
        long,
        env = "SELVEDGE_MAX_HANDSHAKES_PER_CLIENT",
        value_name = "COUNT",
        default_value_t = 512,
        requires = "gateway"
    )]
    pub max_handshakes_per_client: u32,

    /// The most connections that may be open to one of this gateway's ports, if it has several. 0 means no limit. Default: four
    /// times as many as are still free for others.
    #[arg(long, env = "SELVEDGE_MAX_CONNECTIONS_PER_LISTENER", value_name = "COUNT", requires = "gateway")]
    pub max_connections_per_listener: Option<u32>,

    /// How many connections one client's address may open to a gateway in a second, and as many at once. More are reset. An
    /// IPv6 client is its network of 64 bits. 0 means no limit.
    #[arg(
        long,
        env = "SELVEDGE_MAX_CONNECTION_RATE_PER_CLIENT",
        value_name = "COUNT",
        default_value_t = 0,
        requires = "gateway"
    )]
    pub max_connection_rate_per_client: u32,

    /// How many requests one client's address may send to a gateway in a second, and as many at once. More are answered 429.
    /// The client is whom `--trusted-hops` or the PROXY protocol names. An IPv6 client is its network of 64 bits. 0
    /// means no limit.
    #[arg(
        long,
        env = "SELVEDGE_MAX_REQUEST_RATE_PER_CLIENT",
        value_name = "COUNT",
        default_value_t = 0,
        requires = "gateway"
    )]
    pub max_request_rate_per_client: u32,

    /// What a gateway makes of slashes in paths, for rules, policies and the app alike. Apps differ in how they read these.
    #[arg(
        long,
        env = "SELVEDGE_PATH_SLASHES",
        value_enum,
        default_value_t = PathSlashes::Decoded,
        requires = "gateway"
    )]
    pub path_slashes: PathSlashes,

    /// How long a client of this gateway may leave its answers unread. Bytes that it takes extend the time, as
    /// `--min-body-rate` says for bodies of requests. After that its connection is closed. This does not hold for gRPC, and
    /// not while the app has nothing to send. 0s means no limit.
    #[arg(
        long,
        env = "SELVEDGE_ANSWER_TIMEOUT",
        default_value = "60s",
        value_parser = humantime::parse_duration,
        requires = "gateway"
    )]
    pub answer_timeout: Duration,

    /// The longest body of a request to this gateway, in bytes. A longer one is answered with 413. A route that says something
    /// else, such as an Ingress by `proxy-body-size`, goes first. 0 means no limit.
    #[arg(
        long,
        env = "SELVEDGE_MAX_BODY_BYTES",
        value_name = "BYTES",
        default_value_t = 0,
        requires = "gateway"
    )]
    pub max_body_bytes: u64,
}

/// A network, or an address alone.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let address = || text.parse().map(|address: IpAddr| address.to_canonical().into());
    text.parse()
        .or_else(|_| address())
        .map_err(|_| "write an address or a network, for example 10.0.0.0/8".to_owned())
}
