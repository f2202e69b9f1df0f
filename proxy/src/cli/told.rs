//! Settings of what is told of requests: the access log and traces. Configuration turns both on.

use crate::{
    export::{Collector, Protocol},
    telemetry::LineFormat,
};

/// What is told of requests.
#[derive(Debug, Clone, clap::Args)]
pub struct ToldArgs {
    /// How lines of the access log are written to standard output, where configuration only says that they are.
    #[arg(long, env = "SELVEDGE_ACCESS_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = LineFormat::Text)]
    pub access_log_format: LineFormat,

    /// The OpenTelemetry collector that is sent spans of traces, and lines of the access log where configuration says so, as
    /// http://HOST[:PORT]. Without a port: 4317, and with `--otlp-protocol http` 4318. The proxy connects to it directly,
    /// and not through the mesh.
    #[arg(long, env = "SELVEDGE_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<Collector>,

    /// What the collector is spoken to with: OTLP over gRPC, or over HTTP with protobuf.
    #[arg(long, env = "SELVEDGE_OTLP_PROTOCOL", value_name = "PROTOCOL", value_enum, default_value_t = Protocol::Grpc)]
    pub otlp_protocol: Protocol,
}
