//! The command line of `selvedge explain request`.

use selvedge_proxy::settings::OutboundTrafficPolicy;

use crate::documents::DocumentArgs;

/// Explain what would become of an HTTP request
///
/// It says what the name means, which document, rule and match decide, which rules before it miss and on which
/// condition, what the filters do, and which backends and endpoints may get the request. Nothing is sent.
///
/// Exit status: 0 if the request would be sent, 1 if the mesh would answer it, 2 if the question or the documents cannot be
/// used.
#[derive(Debug, clap::Args)]
pub(super) struct RequestArgs {
    #[command(flatten)]
    pub(super) documents: DocumentArgs,

    /// Who sends it: a workload or a ServiceAccount, with labels for rules that ask for some
    #[arg(long, value_name = "NAMESPACE/NAME[,LABEL=VALUE]")]
    pub(super) from: String,

    /// What it asks for, as the app would write it: http://HOST[:PORT]/PATH
    #[arg(long, value_name = "URL")]
    pub(super) to: String,

    /// The method; default: GET
    #[arg(short = 'X', long, value_name = "METHOD", conflicts_with = "grpc")]
    pub(super) method: Option<String>,

    /// A header, such as 'end-user: jason'; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(super) headers: Vec<String>,

    /// It is a gRPC call of this method; --to has no path then
    #[arg(long, value_name = "SERVICE/METHOD")]
    pub(super) grpc: Option<String>,

    /// In which form to print the explanation; json is one JSON object
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub(super) output: Format,

    /// Draw what is left to chance once, with random numbers from this seed: faults, mirrors, and the backend
    #[arg(long, value_name = "NUMBER")]
    pub(super) seed: Option<u64>,

    /// What the client's sidecar does with destinations that no document declares; default: as the pod's annotation says,
    /// and otherwise allow-any
    #[arg(long, env = "SELVEDGE_OUTBOUND_TRAFFIC_POLICY", value_enum, value_name = "POLICY")]
    pub(super) outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// In which form an explanation is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A tree, for people.
    Text,
    /// One JSON object.
    Json,
}
