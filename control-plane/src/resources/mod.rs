//! The YAML words: what a document says, checked as far as it can be checked alone.
//!
//! One file per kind that is acted on. Each has its words (serde structs with exactly the fields that we
//! honour) and what they mean (`…Spec`), so that `compile` never sees a text that was not understood.

pub mod connection_pool;
pub mod decode;
pub mod destination_rule;
mod document;
pub mod endpoint_slice;
pub mod export_to;
pub mod fields;
pub mod gateway_tcp;
pub mod namespace;
mod node;
pub mod peer_authentication;
pub mod pod;
pub mod revocation;
pub mod service;
pub mod service_entry;
mod typed;
pub mod unusable;
pub mod virtual_service;
mod words;
pub mod workload_entry;

use std::sync::Arc;

pub use self::{
    decode::{Decoded, Outcome, chunks, decode, decode_value},
    destination_rule::DestinationRuleSpec,
    document::{Document, Metadata, Origin, Seniority},
    endpoint_slice::{EndpointSliceSpec, SliceAddress},
    gateway_tcp::TcpRouteSpec,
    namespace::NamespaceSpec,
    peer_authentication::PeerAuthenticationSpec,
    pod::PodSpec,
    revocation::RevocationSpec,
    service::ServiceSpec,
    service_entry::ServiceEntrySpec,
    unusable::StandIn,
    virtual_service::VirtualServiceSpec,
    words::port_ranges,
    workload_entry::WorkloadEntrySpec,
};
use crate::problem::DocumentName;

/// Every document that is acted on, each list in its order of precedence (oldest first).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    /// `Namespace`.
    pub namespaces: Vec<Arc<Document<NamespaceSpec>>>,
    /// `Pod`.
    pub pods: Vec<Arc<Document<PodSpec>>>,
    /// `Service`.
    pub services: Vec<Arc<Document<ServiceSpec>>>,
    /// `EndpointSlice`.
    pub endpoint_slices: Vec<Arc<Document<EndpointSliceSpec>>>,
    /// `WorkloadEntry`.
    pub workload_entries: Vec<Arc<Document<WorkloadEntrySpec>>>,
    /// `ServiceEntry`.
    pub service_entries: Vec<Arc<Document<ServiceEntrySpec>>>,
    /// `VirtualService`.
    pub virtual_services: Vec<Arc<Document<VirtualServiceSpec>>>,
    /// `DestinationRule`.
    pub destination_rules: Vec<Arc<Document<DestinationRuleSpec>>>,
    /// `PeerAuthentication`.
    pub peer_authentications: Vec<Arc<Document<PeerAuthenticationSpec>>>,
    /// `TCPRoute` and `TLSRoute`.
    pub tcp_routes: Vec<Arc<Document<TcpRouteSpec>>>,
    /// `Revocation`.
    pub revocations: Vec<Arc<Document<RevocationSpec>>>,
}

/// One document of any kind that is acted on.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// `Namespace`.
    Namespace(Arc<Document<NamespaceSpec>>),
    /// `Pod`.
    Pod(Arc<Document<PodSpec>>),
    /// `Service`.
    Service(Arc<Document<ServiceSpec>>),
    /// `EndpointSlice`.
    EndpointSlice(Arc<Document<EndpointSliceSpec>>),
    /// `WorkloadEntry`.
    WorkloadEntry(Arc<Document<WorkloadEntrySpec>>),
    /// `ServiceEntry`.
    ServiceEntry(Arc<Document<ServiceEntrySpec>>),
    /// `VirtualService`.
    VirtualService(Arc<Document<VirtualServiceSpec>>),
    /// `DestinationRule`.
    DestinationRule(Arc<Document<DestinationRuleSpec>>),
    /// `PeerAuthentication`.
    PeerAuthentication(Arc<Document<PeerAuthenticationSpec>>),
    /// `TCPRoute` or `TLSRoute`.
    TcpRoute(Arc<Document<TcpRouteSpec>>),
    /// `Revocation`.
    Revocation(Arc<Document<RevocationSpec>>),
}

macro_rules! of_any_kind {
    ($resource:expr, $document:ident => $body:expr) => {
        match $resource {
            Resource::Namespace($document) => $body,
            Resource::Pod($document) => $body,
            Resource::Service($document) => $body,
            Resource::EndpointSlice($document) => $body,
            Resource::WorkloadEntry($document) => $body,
            Resource::ServiceEntry($document) => $body,
            Resource::VirtualService($document) => $body,
            Resource::DestinationRule($document) => $body,
            Resource::PeerAuthentication($document) => $body,
            Resource::TcpRoute($document) => $body,
            Resource::Revocation($document) => $body,
        }
    };
}

impl Resource {
    /// What it is called.
    pub fn name(&self) -> &DocumentName {
        of_any_kind!(self, document => &document.name)
    }

    /// Its labels, annotations and age.
    pub fn metadata(&self) -> &Metadata {
        of_any_kind!(self, document => &document.metadata)
    }

    /// Whether it stands in for a document that cannot be used.
    pub fn is_stand_in(&self) -> bool {
        of_any_kind!(self, document => document.unusable)
    }

    /// Where it stands.
    pub fn origin(&self) -> &Origin {
        of_any_kind!(self, document => &document.origin)
    }
}

impl Resources {
    /// Adds `resource` behind those of its kind that are already there.
    pub fn push(&mut self, resource: Resource) {
        match resource {
            Resource::Namespace(document) => self.namespaces.push(document),
            Resource::Pod(document) => self.pods.push(document),
            Resource::Service(document) => self.services.push(document),
            Resource::EndpointSlice(document) => self.endpoint_slices.push(document),
            Resource::WorkloadEntry(document) => self.workload_entries.push(document),
            Resource::ServiceEntry(document) => self.service_entries.push(document),
            Resource::VirtualService(document) => self.virtual_services.push(document),
            Resource::DestinationRule(document) => self.destination_rules.push(document),
            Resource::PeerAuthentication(document) => self.peer_authentications.push(document),
            Resource::TcpRoute(document) => self.tcp_routes.push(document),
            Resource::Revocation(document) => self.revocations.push(document),
        }
    }

    /// Puts `resource` in the place of the one of its name, or behind those of its kind that are there.
    pub fn put(&mut self, resource: Resource) {
        let name = resource.name().clone();
        let mut alone = Self::default();
        alone.push(resource);
        macro_rules! put_each {
            ($($list:ident),*) => {$(
                for document in alone.$list {
                    match self.$list.iter_mut().find(|there| there.name == name) {
                        Some(there) => *there = document,
                        None => self.$list.push(document),
                    }
                }
            )*};
        }
        put_each!(
            namespaces,
            pods,
            services,
            endpoint_slices,
            workload_entries,
            service_entries,
            virtual_services,
            destination_rules,
            peer_authentications,
            tcp_routes,
            revocations
        );
    }

    /// How many documents there are.
    pub fn len(&self) -> usize {
        self.namespaces.len()
            + self.pods.len()
            + self.services.len()
            + self.endpoint_slices.len()
            + self.workload_entries.len()
            + self.service_entries.len()
            + self.virtual_services.len()
            + self.destination_rules.len()
            + self.peer_authentications.len()
            + self.tcp_routes.len()
            + self.revocations.len()
    }

    /// Whether there is no document at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
