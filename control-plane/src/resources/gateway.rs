//! `Gateway` (Gateway API): which ports a gateway serves, for which host names, and which routes may be attached.

mod clients;
mod infrastructure;
mod listener;

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    kinds::{Feedback, GATEWAY, ResourceKind},
    typed::FieldError,
};
use clients::GatewayTlsYaml;
pub use clients::{ClientsSpec, FrontendClients, ObjectRef};
pub use infrastructure::{Address, Infrastructure};
use infrastructure::{AddressYaml, InfrastructureYaml, read_addresses};
use listener::AllowedListenersYaml;
pub(crate) use listener::GATEWAY_GROUP;
pub(super) use listener::ListenerYaml;
pub use listener::{AllowedRoutes, FromNamespaces, ListenerProtocol, ListenerSpec, RouteKind, TlsSpec};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind = ResourceKind::new("Gateway", GATEWAY, "gateways", Feedback::Events)
    .with_any_annotations()
    .read_as_spec::<Yaml>(|document| {
        let in_file = document.location.path.is_some();
        document.with_spec(move |yaml, reading| read(yaml, in_file, reading))
    });

/// So many listeners an API server lets a gateway have, and a `ListenerSet`.
const MOST_LISTENERS: usize = 64;

/// What a `Gateway` says.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewaySpec {
    /// The name of its `GatewayClass`.
    pub class: String,
    /// In the order of the document.
    pub listeners: Vec<ListenerSpec>,
    /// How it runs in a cluster.
    pub infrastructure: Infrastructure,
    /// The addresses that it asks for there.
    pub addresses: Vec<Address>,
    /// Whom they ask for a certificate.
    pub clients: FrontendClients,
    /// The certificate that it shows to backends (`tls.backend`).
    pub to_backends: Option<ObjectRef>,
    /// The namespaces whose `ListenerSet`s may add listeners.
    pub allowed_sets: FromNamespaces,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    gateway_class_name: String,
    #[serde(default)]
    listeners: Vec<ListenerYaml>,
    #[serde(default)]
    infrastructure: InfrastructureYaml,
    #[serde(default)]
    addresses: Vec<AddressYaml>,
    #[serde(default)]
    tls: GatewayTlsYaml,
    #[serde(default)]
    allowed_listeners: AllowedListenersYaml,
}

fn read(yaml: Yaml, in_file: bool, reading: &mut Reading<'_>) -> Result<GatewaySpec, FieldError> {
    let infrastructure = yaml.infrastructure.read(in_file, reading)?;
    let addresses = read_addresses(yaml.addresses, in_file, reading)?;
    let listeners = read_listeners(yaml.listeners, reading)?;
    let allowed_sets = yaml.allowed_listeners.read()?;
    let (clients, to_backends) = yaml.tls.read(reading)?;
    let class = yaml.gateway_class_name;
    Ok(GatewaySpec { class, listeners, infrastructure, addresses, clients, to_backends, allowed_sets })
}

/// The listeners of a gateway or of a `ListenerSet`, which stand at `spec.listeners`.
pub(super) fn read_listeners(
    yaml: Vec<ListenerYaml>,
    reading: &mut Reading<'_>,
) -> Result<Vec<ListenerSpec>, FieldError> {
    if yaml.is_empty() {
        return Err(wrong("spec.listeners", "is empty; give at least one"));
    }
    if yaml.len() > MOST_LISTENERS {
        let message = format!("has more than {MOST_LISTENERS} entries; make it two documents");
        return Err(wrong("spec.listeners", message));
    }
    let mut names = BTreeSet::new();
    let mut listeners = Vec::new();
    for (index, listener) in yaml.into_iter().enumerate() {
        let field = format!("spec.listeners[{index}]");
        let listener = listener.read(index, &field, reading)?;
        if !names.insert(listener.name.clone()) {
            let message = format!("{:?} is given twice; give each listener its own", listener.name);
            return Err(wrong(format!("{field}.name"), message));
        }
        listeners.push(listener);
    }
    Ok(listeners)
}
