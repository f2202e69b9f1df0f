//! The contract between control plane and proxies.
//!
//! [`wire`] is generated from `proto/`; [`convert`] turns it into the model's types and back, refusing
//! (never crashing on) what this version does not know. A proxy one minor version older is supported.

pub mod convert;
pub mod delta;
pub mod encoded;
pub mod preamble;
pub mod resource;

pub use convert::ConvertError;
pub use resource::ResourceName;

/// The longest message of a proxy's on its configuration stream, in bytes. What a Hello cannot name within it, the
/// proxy leaves out: of what it holds it names nothing then, and is told all of it again.
pub const MAX_CLIENT_MESSAGE: usize = 512 << 10;
/// The longest request for a certificate, in bytes: a token and a CSR are 4 KiB together.
pub const MAX_SIGN_REQUEST: usize = 64 << 10;

/// The metadata in which a refusal of the control plane's says what its clock says, in seconds since 1970.
pub const TIME_METADATA: &str = "selvedge-time";

/// The metadata in which the end of a stream says how long the proxy is to wait before it comes back, in milliseconds, as gRPC
/// has it for retries. Who has to let many in says to each another time.
pub const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The generated messages, clients and servers of the protobuf package `selvedge.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)] // generated
pub mod wire {
    tonic::include_proto!("selvedge.v1");
}

/// What a proxy asks a server of Envoy's rate limit service (RLS): its messages, client and server.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)] // generated
pub mod rls {
    tonic::include_proto!("envoy.service.ratelimit.v3");
}

/// What a proxy tells a collector of OpenTelemetry's (OTLP): its messages, clients and servers.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)] // generated
pub mod otlp {
    /// Lines of a log.
    pub mod logs {
        /// The one version.
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.collector.logs.v1");
        }
    }
    /// Traces, and what both have in common.
    pub mod trace {
        /// The one version.
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.collector.trace.v1");
        }
    }
}
