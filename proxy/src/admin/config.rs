//! The answer of `/config`: the configuration in force, and where it comes from.

use std::{collections::BTreeMap, sync::Arc};

use selvedge_api::ResourceName;
use selvedge_model::{
    Called, Protocol, RouteTable, TrafficPolicy, Workload, WorkloadName, gateway::GatewayPort,
};
use serde::{Deserialize, Serialize};

use super::{Shown, utc};
use crate::{
    accept::PortState,
    bind::{Bound, BoundBackend, BoundPort, Destination, Table},
    discovery::status::{Status, Stream},
    joining::Address,
};

/// What `/config` answers.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    /// The workload that this is the sidecar of.
    pub workload: WorkloadName,
    /// The certificate in use. Absent before the first one.
    pub certificate: Option<Certificate>,
    /// The control plane, and the conversation with it.
    pub control_plane: ControlPlaneState,
    /// The workload as the control plane knows it, and what it lets in. Absent: not known yet, so nothing is let in.
    pub own: Option<Arc<Workload>>,
    /// What each authority means that was asked for, in alphabetical order.
    pub destinations: Vec<DestinationState>,
    /// What it serves as a gateway, by the port that clients call. Absent: it is a sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<BTreeMap<u16, GatewayPortState>>,
    /// The version of every resource that is held, as the control plane named it.
    pub versions: BTreeMap<String, String>,
}

/// Our certificate, and what its peers are verified with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Certificate {
    /// The SPIFFE ID in it.
    pub identity: String,
    /// From when it is valid (RFC 3339, UTC).
    pub not_before: String,
    /// Until when it is valid (RFC 3339, UTC).
    pub not_after: String,
    /// How often a certificate or trust roots have been put into use.
    pub generation: u64,
    /// The trust domain whose roots are in use.
    pub trust_domain: String,
    /// How many roots there are.
    pub roots: usize,
    /// How many further ones vouch for workloads only, such as SPIRE's.
    #[serde(default)]
    pub workload_roots: usize,
    /// The socket of the SPIFFE agent that gives it; absent: the control plane does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_api: Option<String>,
}

/// Whether the stream is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamState {
    /// It has not been open yet.
    NotYet,
    /// It is open.
    Connected,
    /// It was open. The last good configuration stays in force.
    Away,
}

/// The conversation with the control plane.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ControlPlaneState {
    /// `--control-plane`.
    pub address: String,
    /// Whether the stream is open.
    pub stream: StreamState,
    /// When it was opened, or when it ended (RFC 3339, UTC).
    pub since: Option<String>,
    /// The last transaction that was applied.
    pub last_transaction: Option<Transaction>,
    /// The last transaction that was refused. Absent if a later one was applied.
    pub refused: Option<Refused>,
}

/// A transaction that was applied.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Transaction {
    /// Its number on the stream.
    pub nonce: u64,
    /// When it was applied (RFC 3339, UTC).
    pub at: String,
    /// How many resources it brought.
    pub upserts: usize,
    /// How many it removed.
    pub removals: usize,
}

/// A transaction that was refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refused {
    /// Its number on the stream.
    pub nonce: u64,
    /// When it was refused (RFC 3339, UTC).
    pub at: String,
    /// What the control plane was told.
    pub why: String,
}

/// A port of a gateway.
#[derive(Debug, Clone, Serialize)]
pub struct GatewayPortState {
    /// Whether clients can connect. Absent: it has not been tried yet.
    pub state: Option<PortState>,
    /// Its listeners, and the host names of each.
    pub served: Arc<GatewayPort>,
    /// The rules of its virtual hosts.
    pub virtual_hosts: Vec<ServiceState>,
}

/// What one authority means.
#[derive(Debug, Clone, Serialize)]
pub struct DestinationState {
    /// The authority, in lower case.
    pub authority: Arc<str>,
    /// The service behind it. Absent: the control plane knows none.
    pub service: Option<ServiceState>,
    /// The address to which its requests pass through, if the outbound traffic policy allows it.
    pub through: Option<String>,
    /// Why nothing may pass through: the address may be a workload's.
    pub doubt: Option<Arc<str>>,
}

/// A service's port, as requests find it.
#[derive(Debug, Clone, Serialize)]
pub struct ServiceState {
    /// The service's host and port.
    pub key: String,
    /// How redirected connections find it.
    pub called: Called,
    /// The version of its rules. Absent for a workload's own address.
    pub version: Option<String>,
    /// The protocol that is declared for it.
    pub protocol: Protocol,
    /// Its rules for requests of this workload.
    pub routes: RouteTable,
    /// All that its rules lead to.
    pub backends: Vec<BackendState>,
}

/// A backend, as one service sees it.
#[derive(Debug, Clone, Serialize)]
pub struct BackendState {
    /// Its service, and its subset.
    pub name: String,
    /// How requests are sent to it.
    pub policy: TrafficPolicy,
    /// Why it cannot be used.
    pub broken: Option<Arc<str>>,
    /// How many endpoints it has.
    pub endpoints: usize,
    /// Which names of its endpoints have no address, and why.
    pub unresolved: Option<Arc<str>>,
    /// The version of its endpoints.
    pub version: Option<String>,
}

impl Config {
    pub(super) fn of(shown: &Shown) -> Self {
        let table = shown.store.table();
        let status = shown.status.borrow().clone();
        let mut destinations: Vec<_> = table.destinations.values().collect();
        destinations.sort_by(|a, b| a.authority.cmp(&b.authority));
        let versions = &status.versions;
        Self {
            workload: shown.workload.clone(),
            certificate: certificate(shown),
            destinations: destinations.into_iter().map(|each| destination(each, versions)).collect(),
            own: table.own.clone(),
            gateway: shown.ports.as_ref().map(|ports| gateway(&table, &ports.states(), versions)),
            versions: versions.iter().map(|(name, version)| (name.to_string(), version.clone())).collect(),
            control_plane: control_plane(&shown.control_plane, status),
        }
    }
}

fn certificate(shown: &Shown) -> Option<Certificate> {
    let current = shown.live.current()?;
    Some(Certificate {
        identity: current.identity.to_string(),
        not_before: utc(current.not_before),
        not_after: utc(current.not_after),
        generation: current.generation,
        trust_domain: current.trust_domain().to_string(),
        roots: current.bundle.roots.len(),
        workload_roots: current.bundle.workload_roots.len(),
        workload_api: shown.workload_api.as_ref().map(ToString::to_string),
    })
}

fn control_plane(address: &Address, status: Status) -> ControlPlaneState {
    let (stream, since) = match status.stream {
        Stream::NotYet => (StreamState::NotYet, None),
        Stream::Connected { since } => (StreamState::Connected, Some(since)),
        Stream::Away { since } => (StreamState::Away, Some(since)),
    };
    ControlPlaneState {
        address: address.to_string(),
        stream,
        since: since.map(utc),
        last_transaction: status.applied.map(|applied| Transaction {
            nonce: applied.nonce,
            at: utc(applied.at),
            upserts: applied.upserts,
            removals: applied.removals,
        }),
        refused: status.refused.map(|refused| Refused {
            nonce: refused.nonce,
            at: utc(refused.at),
            why: refused.why,
        }),
    }
}

fn gateway(
    table: &Table,
    states: &BTreeMap<u16, PortState>,
    versions: &BTreeMap<ResourceName, String>,
) -> BTreeMap<u16, GatewayPortState> {
    let port = |(number, port): (&u16, &Arc<BoundPort>)| {
        let hosts = port.listeners.iter().flat_map(|listener| &listener.hosts).flatten();
        let bound = hosts.filter_map(|host| host.bound.as_deref());
        let shown = GatewayPortState {
            state: states.get(number).cloned(),
            served: Arc::clone(&port.served),
            virtual_hosts: bound.map(|bound| service(bound, versions)).collect(),
        };
        (*number, shown)
    };
    table.gateway.iter().map(port).collect()
}

fn destination(destination: &Destination, versions: &BTreeMap<ResourceName, String>) -> DestinationState {
    let service = destination.bound.as_deref().map(|bound| service(bound, versions));
    let through = destination.through.as_ref().map(|_| destination.authority.to_string());
    let (authority, doubt) = (Arc::clone(&destination.authority), destination.doubt.clone());
    DestinationState { authority, service, through, doubt }
}

fn service(bound: &Bound, versions: &BTreeMap<ResourceName, String>) -> ServiceState {
    let backend = |backend: &Arc<BoundBackend>| BackendState {
        name: backend.name.to_string(),
        policy: backend.policy.clone(),
        broken: backend.broken.clone(),
        endpoints: backend.endpoints.len(),
        unresolved: backend.unresolved.clone(),
        version: versions.get(&ResourceName::Endpoints(backend.name.service.clone())).cloned(),
    };
    ServiceState {
        key: bound.key.to_string(),
        called: bound.called,
        version: versions.get(&ResourceName::Service(bound.key.clone())).cloned(),
        protocol: bound.protocol,
        routes: bound.http.table().clone(),
        backends: bound.backends.iter().map(backend).collect(),
    }
}
