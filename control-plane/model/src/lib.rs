//! What the mesh means: identities, services, routes, policies, and the whole they form.
//!
//! Pure: nothing here does I/O, reads a clock or knows a wire format, so that `selvedge check`, the
//! control plane and the proxy run the same rules.

pub mod destination;
pub mod facts;
pub mod filter;
pub mod grpc_timeout;
pub mod host;
pub mod identity;
pub mod normalize;
pub mod policy;
pub mod resilience;
pub mod retry;
pub mod revocation;
pub mod route;
pub mod service;
pub mod snapshot;
pub mod tcp;
pub mod token;
pub mod upstream_tls;

pub use destination::Called;
pub use filter::Filters;
pub use host::{Host, HostPort};
pub use identity::{SpiffeId, TrustDomain, WorkloadName};
pub use policy::{Authorization, ConnectionVerdict, InboundPolicy, MtlsMode, MtlsRule, Verdict};
pub use resilience::{
    AppConnections, ConnectionLimits, ConnectionPool, Http2Upgrade, LoadBalancer, OutlierDetection, RetryOn,
    RetryPolicy, StreamTimeouts, TrafficPolicy,
};
pub use revocation::{Holder, Revocation, Revocations, Revoked, Serial};
pub use route::{
    ClientMatch, Followed, FullRegex, GrpcMatch, HeaderField, Match, Missed, Order, RouteTable, Rule,
    StringMatch, WeightedBackend, draw,
};
pub use service::{Backend, BackendName, Endpoint, Endpoints, NamedEndpoint, Protocol, Service, ServiceKey};
pub use snapshot::{Lookup, Mesh, Workload};
pub use tcp::{Layer, TcpMatch, TcpRule, TcpTable};
pub use upstream_tls::{ClientCertificate, TlsOrigination, Transport, UpstreamTls};
