//! The documents: what each says, checked as far as it can be checked alone.
//!
//! There is one file for each kind that is acted on. It has two sides. The structs called `Yaml` or `…Yaml` have exactly
//! the fields that are acted on, as a document spells them. The `…Spec` is what the fields mean. So `compile` never sees
//! a text that was not understood.

mod annotated;
pub mod authorization_policy;
pub mod backend_tls_policy;
pub mod backend_traffic_policy;
pub mod calico;
mod client_tls;
pub mod cluster_node;
pub mod connection_pool;
pub mod decode;
pub mod destination_rule;
mod document;
pub mod endpoint_slice;
pub mod export_to;
pub mod fields;
pub mod gateway;
pub mod gateway_class;
pub mod gateway_role;
pub mod gateway_tcp;
pub mod grpc_route;
mod health_check;
mod hedge;
pub mod http_route;
pub mod ingress;
pub mod ingress_class;
pub mod istio_gateway;
pub mod kinds;
pub mod label_selector;
mod lines;
pub mod linkerd;
pub mod linkerd_policy;
pub mod listener_set;
pub mod load_balancer;
pub mod locality_setting;
pub mod namespace;
mod nearest;
pub mod network_policy;
mod node;
mod object;
mod outlier_detection;
pub mod peer_authentication;
pub mod pod;
pub mod policy_target;
mod rate_limit;
pub mod reference_grant;
pub mod references;
pub mod request_authentication;
mod retry_budget;
pub mod revocation;
pub mod route_filters;
pub mod secret;
mod selector;
pub mod service;
pub mod service_account;
pub mod service_entry;
mod session_persistence;
mod targets;
mod telemetry;
mod telemetry_annotations;
mod through;
mod trim;
mod typed;
mod unread;
pub mod unusable;
mod values;
pub mod virtual_service;
pub mod workload_entry;

pub use self::{
    authorization_policy::{AuthorizationAction, AuthorizationPolicySpec},
    backend_tls_policy::BackendTlsPolicySpec,
    backend_traffic_policy::BackendTrafficPolicySpec,
    calico::{
        Expression,
        network_set::NetworkSetSpec,
        policy::{CalicoEntity, CalicoPolicySpec, CalicoRule},
        tier::{DEFAULT_TIER, DEFAULT_TIER_ORDER, TierSpec},
    },
    cluster_node::NodeSpec,
    decode::{DecodeOutcome, Decoded, chunks, decode, decode_value},
    destination_rule::DestinationRuleSpec,
    document::{Document, Location, Metadata, Seniority},
    endpoint_slice::{EndpointSliceSpec, SliceAddress},
    gateway::GatewaySpec,
    gateway_class::GatewayClassSpec,
    gateway_role::GatewayAnnotations,
    gateway_tcp::TcpRouteSpec,
    http_route::HttpRouteSpec,
    ingress::IngressSpec,
    ingress_class::IngressClassSpec,
    istio_gateway::IstioGatewaySpec,
    kinds::{Resource, Resources},
    label_selector::LabelSelector,
    linkerd_policy::{
        authentication::{MeshTlsSpec, NetworksSpec},
        authorization::ServerPolicySpec,
        rate_limit::ServerLimitSpec,
        server::ServerSpec,
        server_authorization::ServerAuthorizationSpec,
    },
    listener_set::ListenerSetSpec,
    namespace::NamespaceSpec,
    network_policy::{NetworkPolicySpec, NetworkRuleSpec, PeerSpec, PortSpec},
    object::Object,
    peer_authentication::PeerAuthenticationSpec,
    pod::PodSpec,
    rate_limit::{GlobalSpec, LimitTarget, RateLimitSpec, ServerRef},
    reference_grant::ReferenceGrantSpec,
    request_authentication::{BadUrl, JwtRule, KeyAddress, KeySource, RequestAuthenticationSpec, key_url},
    revocation::RevocationSpec,
    secret::{ConfigMapSpec, SecretSpec},
    service::ServiceSpec,
    service_account::ServiceAccountSpec,
    service_entry::ServiceEntrySpec,
    telemetry::{LogRule, MetricOverride, MetricRule, TelemetrySpec, TraceRule, Ways},
    telemetry_annotations::{TelemetryAnnotations, filter_of, sampling_of, sinks_of},
    unusable::StandIn,
    values::port_ranges,
    virtual_service::VirtualServiceSpec,
    workload_entry::WorkloadEntrySpec,
};

#[cfg(test)]
mod tests;
