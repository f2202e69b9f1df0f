//! Settings of what is told of requests: the access log and traces. Configuration turns both on.

use std::path::PathBuf;

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
    /// http://HOST[:PORT], or https:// for TLS. Without a port: 4317, and with `--otlp-protocol http` 4318. The proxy connects
    /// to it directly, and not through the mesh.
    #[arg(long, env = "SELVEDGE_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<Collector>,

    /// What the collector is spoken to with: OTLP over gRPC, or over HTTP with protobuf.
    #[arg(long, env = "SELVEDGE_OTLP_PROTOCOL", value_name = "PROTOCOL", value_enum, default_value_t = Protocol::Grpc)]
    pub otlp_protocol: Protocol,

    /// A file with certificate authorities in PEM form, by which a collector is believed that is spoken to over TLS
    /// (https://). Without it those of the operating system are. It is read again when a connection has failed.
    #[arg(long, env = "SELVEDGE_OTLP_CA_FILE", value_name = "FILE")]
    pub otlp_ca_file: Option<PathBuf>,
}

impl ToldArgs {
    /// Refuses what would be read over.
    ///
    /// # Errors
    /// If authorities are named, and TLS is spoken to no collector.
    pub fn check(&self) -> anyhow::Result<()> {
        let is_tls = self.otlp_endpoint.as_ref().is_some_and(Collector::is_tls);
        anyhow::ensure!(
            self.otlp_ca_file.is_none() || is_tls,
            "--otlp-ca-file is for a collector over TLS: give --otlp-endpoint https://HOST:PORT, or leave the file out"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_that_nobody_would_be_believed_by_are_refused() {
        let told = |endpoint: Option<&str>| ToldArgs {
            access_log_format: LineFormat::Text,
            otlp_endpoint: endpoint.map(|url| url.parse().unwrap()),
            otlp_protocol: Protocol::Grpc,
            otlp_ca_file: Some("ca.pem".into()),
        };
        assert!(told(Some("https://collector")).check().is_ok());
        for endpoint in [None, Some("http://collector")] {
            let error = told(endpoint).check().unwrap_err().to_string();
            assert!(error.contains("--otlp-endpoint https://"), "{error}");
        }
    }
}
