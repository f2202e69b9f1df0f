//! `Gateway` of Istio: which ports the workloads of some labels serve for clients outside the mesh, and for which hosts.
//! `VirtualService`s that name it say where requests go.

mod hosts;
mod server;
mod tls;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

pub use self::{
    hosts::{HostsOf, ServerHost},
    server::{GatewayServer, ServerProtocol},
    tls::{AskedClients, ServerTls},
};
use super::{
    document::{Reading, wrong},
    kinds::{Feedback, ISTIO_NETWORKING, ResourceKind},
    typed::FieldError,
};

/// What its documents are called: the Gateway API has a kind of the same name.
pub const CALLED: &str = "Gateway.networking.istio.io";

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("Gateway", ISTIO_NETWORKING, "gateways", Feedback::Conditions)
        .called(CALLED)
        .read_as_spec::<Yaml>(|document| document.with_spec(read));

/// What a `Gateway` says.
#[derive(Debug, Clone, PartialEq)]
pub struct IstioGatewaySpec {
    /// The labels of the gateway workloads that it is for; empty = all.
    pub selector: BTreeMap<String, String>,
    /// In the order of the document.
    pub servers: Vec<GatewayServer>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Yaml {
    #[serde(default)]
    selector: BTreeMap<String, String>,
    #[serde(default)]
    servers: Vec<server::Yaml>,
}

fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<IstioGatewaySpec, FieldError> {
    if yaml.servers.is_empty() {
        return Err(wrong("spec.servers", "is empty; give at least one server"));
    }
    if yaml.selector.is_empty() {
        let message = "is empty, so every gateway of the mesh serves this; name labels of one";
        reading.warning("spec.selector", message);
    }
    let mut names = BTreeSet::new();
    let mut servers = Vec::new();
    for (index, yaml) in yaml.servers.into_iter().enumerate() {
        let server = yaml.read(index, reading)?;
        if !names.insert(server.port_name.clone()) {
            let message = format!("{:?} is given twice; give each server's port its own", server.port_name);
            return Err(wrong(format!("spec.servers[{index}].port.name"), message));
        }
        servers.push(server);
    }
    Ok(IstioGatewaySpec { selector: yaml.selector, servers })
}
