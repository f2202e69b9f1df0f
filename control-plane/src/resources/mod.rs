//! The documents: what each says, checked as far as it can be checked alone.
//!
//! There is one file for each kind that is acted on. It has two sides. The structs called `Yaml` or `…Yaml` have exactly
//! the fields that are acted on, as a document spells them. The `…Spec` is what the fields mean. So `compile` never sees
//! a text that was not understood.

pub mod authorization_policy;
pub mod calico;
pub mod connection_pool;
pub mod decode;
pub mod destination_rule;
mod document;
pub mod endpoint_slice;
pub mod export_to;
pub mod fields;
pub mod gateway_tcp;
pub mod grpc_route;
pub mod http_route;
pub mod kinds;
pub mod label_selector;
pub mod linkerd;
pub mod linkerd_policy;
pub mod namespace;
mod nearest;
pub mod network_policy;
mod node;
mod object;
pub mod peer_authentication;
pub mod pod;
pub mod references;
pub mod request_authentication;
pub mod revocation;
pub mod route_filters;
mod selector;
pub mod service;
pub mod service_entry;
mod targets;
mod trim;
mod typed;
mod unread;
pub mod unusable;
mod values;
pub mod virtual_service;
pub mod workload_entry;

pub use self::{
    authorization_policy::{AuthorizationAction, AuthorizationPolicySpec},
    calico::{
        Expression,
        network_set::NetworkSetSpec,
        policy::{CalicoEntity, CalicoPolicySpec, CalicoRule},
    },
    decode::{DecodeOutcome, Decoded, chunks, decode, decode_value},
    destination_rule::DestinationRuleSpec,
    document::{Document, Location, Metadata, Seniority},
    endpoint_slice::{EndpointSliceSpec, SliceAddress},
    gateway_tcp::TcpRouteSpec,
    http_route::HttpRouteSpec,
    kinds::{Resource, Resources},
    label_selector::LabelSelector,
    linkerd_policy::{
        authentication::{MeshTlsSpec, NetworksSpec},
        authorization::ServerPolicySpec,
        server::ServerSpec,
        server_authorization::ServerAuthorizationSpec,
    },
    namespace::NamespaceSpec,
    network_policy::{NetworkPolicySpec, NetworkRuleSpec, PeerSpec, PortSpec},
    object::Object,
    peer_authentication::PeerAuthenticationSpec,
    pod::PodSpec,
    request_authentication::{JwtRule, KeyAddress, KeySource, RequestAuthenticationSpec},
    revocation::RevocationSpec,
    service::ServiceSpec,
    service_entry::ServiceEntrySpec,
    unusable::StandIn,
    values::port_ranges,
    virtual_service::VirtualServiceSpec,
    workload_entry::WorkloadEntrySpec,
};

#[cfg(test)]
mod tests;
