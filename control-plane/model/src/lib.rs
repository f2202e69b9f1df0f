//! What the mesh means: identities, services, routes, policies, and the whole they form.
//!
//! Pure: nothing here does I/O, reads a clock or knows a wire format, so that `selvedge check`, the
//! control plane and the proxy run the same rules.

pub mod balancing;
pub mod destination;
pub mod expression;
pub mod facts;
pub mod filter;
pub mod gateway;
pub mod grpc_timeout;
pub mod health_check;
pub mod host;
pub mod identity;
pub mod limit;
pub mod locality;
pub mod naming;
pub mod normalize;
pub mod outlier;
pub mod policy;
pub mod resilience;
pub mod retry;
pub mod revocation;
pub mod route;
pub mod seen;
pub mod service;
pub mod session;
pub mod snapshot;
pub mod tap;
pub mod tcp;
pub mod telemetry;
pub mod token;
pub mod traffic;
pub mod upstream_tls;

pub use balancing::{ConsistentHash, HashCookie, HashKey, HashTable, LoadBalancer, Warmup};
pub use destination::Called;
pub use expression::RegexError;
pub use filter::Filters;
pub use health_check::{HealthCheck, HealthQuestion};
pub use host::{Host, HostPort};
pub use identity::{SpiffeId, TrustDomain, WorkloadName};
pub use locality::{Locality, LocalityPolicy, Place};
pub use outlier::{FailurePercentage, OutlierDetection, SuccessRate};
pub use policy::{Authorization, ConnectionVerdict, InboundPolicy, MtlsMode, MtlsRule, Verdict};
pub use resilience::{
    AppConnections, ConnectionLimits, ConnectionPool, Hedge, Http2Upgrade, HttpTunnel, ProxyProtocol,
    RetryBudget, RetryOn, RetryPolicy, StreamTimeouts, TcpKeepalive, TrafficPolicy, TunnelMethod,
};
pub use revocation::{Holder, Revocation, Revocations, Revoked, Serial};
pub use route::{
    ClientMatch, Followed, FullRegex, GrpcMatch, HeaderField, Match, Missed, Order, RouteTable, Rule,
    StringMatch, WeightedBackend, draw,
};
pub use service::{
    Backend, BackendName, Endpoint, Endpoints, NamedEndpoint, Protocol, Service, ServiceKey, unproven_ports,
};
pub use session::{SessionCarrier, SessionKey, SessionPersistence};
pub use snapshot::{Lookup, Mesh, Workload};
pub use tcp::{Layer, TcpMatch, TcpRule, TcpTable};
pub use telemetry::{AccessLog, Telemetry};
pub use upstream_tls::{
    ClientCertificate, Credential, GivenAuthorities, Shown, TlsOrigination, Transport, Trusted, UpstreamTls,
};
