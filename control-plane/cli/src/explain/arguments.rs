//! The command lines of `selvedge explain request` and `selvedge explain connection`.

use std::{net::IpAddr, path::PathBuf};

use selvedge_proxy::settings::{OutboundTrafficPolicy, PathSlashes};

use crate::{documents::DocumentArgs, output::OutputArgs};

/// Explain what would become of an HTTP request
///
/// It says what the name means, which document, rule and match decide, which rules before it miss and on which
/// condition, what the filters do, and which backends and endpoints may get the request. Nothing is sent.
///
/// Without --from, a client outside of the mesh sends it, to a gateway: then it also says which gateway, listener and
/// certificate it comes to, and what the gateway's own policies say.
///
/// Exit status: 0 if the request would be sent, 1 if the mesh would answer it, 2 if the question or the documents cannot be
/// used.
#[derive(Debug, clap::Args)]
pub(super) struct RequestArgs {
    #[command(flatten)]
    pub(super) documents: DocumentArgs,

    /// Who sends it: a workload or a ServiceAccount, with labels for rules that ask for some; default: a client outside of
    /// the mesh
    #[arg(long, value_name = "NAMESPACE/NAME[,LABEL=VALUE]", conflicts_with_all = OUTSIDE)]
    pub(super) from: Option<String>,

    /// What it asks for, as the app would write it: http://HOST[:PORT]/PATH; to a gateway also https://
    #[arg(long, value_name = "URL")]
    pub(super) to: String,

    #[command(flatten)]
    pub(super) outside: OutsideArgs,

    /// How many proxies before the gateway are trusted to say whom they were called by; use the value that the gateway has
    #[arg(long, value_name = "NUMBER", default_value_t = 0, conflicts_with = "from")]
    pub(super) trusted_hops: u8,

    /// What the gateway makes of slashes in paths; use the value that the gateway has
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = PathSlashes::Decoded, conflicts_with = "from")]
    pub(super) path_slashes: PathSlashes,

    /// The method; default: GET
    #[arg(short = 'X', long, value_name = "METHOD", conflicts_with = "grpc")]
    pub(super) method: Option<String>,

    /// A header, such as 'end-user: jason'; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(super) headers: Vec<String>,

    /// It is a gRPC call of this method; --to has no path then
    #[arg(long, value_name = "SERVICE/METHOD")]
    pub(super) grpc: Option<String>,

    /// A file with a token (JWT) that the request bears in its header Authorization; - reads it from stdin
    #[arg(long, value_name = "FILE")]
    pub(super) token: Option<PathBuf>,

    #[command(flatten)]
    pub(super) output: OutputArgs,

    /// Draw what is left to chance once, with random numbers from this seed: faults, mirrors, and the backend
    #[arg(long, value_name = "NUMBER")]
    pub(super) seed: Option<u64>,

    /// What the client's sidecar does with destinations that no document declares; default: as the pod's annotation says,
    /// and otherwise allow-any
    #[arg(long, env = "SELVEDGE_OUTBOUND_TRAFFIC_POLICY", value_enum, value_name = "POLICY")]
    pub(super) outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// Explain whether a connection would be let in, by both ends
///
/// It says what the client's own network policies say of each address that the connection may go to, and then what each
/// kind of policy of the server's says: PeerAuthentication, NetworkPolicy, AuthorizationPolicy, Linkerd's, and Revocation.
/// Nothing is sent. Where only a request decides, it says so, unless the request is given by -X, --path, -H or --token.
///
/// Without --from, a client outside of the mesh connects to a gateway: then it says which listener it comes to, and for
/// TLS that passes through, or opaque TCP, where its bytes go.
///
/// Exit status: 0 if it would be let in with all its requests, or with this request; 1 if it would be refused, if some of the
/// endpoints would refuse it, or if only a request says; 2 if the question or the documents cannot be used.
#[derive(Debug, clap::Args)]
pub(super) struct ConnectionArgs {
    #[command(flatten)]
    pub(super) documents: DocumentArgs,

    /// Who connects: a workload, a ServiceAccount, or the address of somebody without a sidecar; default: a client outside
    /// of the mesh, to a gateway
    #[arg(long, value_name = "NAMESPACE/NAME[,LABEL=VALUE]|IP", conflicts_with_all = OUTSIDE)]
    pub(super) from: Option<String>,

    /// Where to: HOST:PORT as the app would write it, or the port of one workload as NAMESPACE/NAME:PORT
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) to: String,

    #[command(flatten)]
    pub(super) outside: OutsideArgs,

    /// The method of a request on the connection; default with --path, -H or --token: GET
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub(super) method: Option<String>,

    /// The path of a request on the connection, with its query; default with -X, -H or --token: /
    #[arg(long, value_name = "PATH")]
    pub(super) path: Option<String>,

    /// A header of a request on the connection, such as 'end-user: jason'; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(super) headers: Vec<String>,

    /// A file with a token (JWT) that the request bears in its header Authorization; - reads it from stdin
    #[arg(long, value_name = "FILE")]
    pub(super) token: Option<PathBuf>,

    #[command(flatten)]
    pub(super) output: OutputArgs,

    /// What the client's sidecar does with destinations that no document declares; default: as the pod's annotation says,
    /// and otherwise allow-any
    #[arg(long, env = "SELVEDGE_OUTBOUND_TRAFFIC_POLICY", value_enum, value_name = "POLICY")]
    pub(super) outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// What is said of a client outside of the mesh alone.
const OUTSIDE: [&str; 4] = ["gateway", "from_address", "sni", "client_certificate"];

/// What is known of a client outside of the mesh.
#[derive(Debug, clap::Args)]
pub(super) struct OutsideArgs {
    /// The gateway that a client outside of the mesh calls: its name, or that of an Istio Gateway which selects it; default:
    /// the one that is for the host
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(super) gateway: Option<String>,

    /// The address that such a client connects from; default: not known, so that it matches no rule that names addresses
    #[arg(long, value_name = "IP")]
    pub(super) from_address: Option<IpAddr>,

    /// The name that its TLS asks for; default: the host of --to
    #[arg(long, value_name = "NAME")]
    pub(super) sni: Option<String>,

    /// A PEM file with the certificate that it shows, and those between that and its authority; default: it shows none
    #[arg(long, value_name = "FILE")]
    pub(super) client_certificate: Option<PathBuf>,
}
