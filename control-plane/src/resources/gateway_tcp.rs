//! `TCPRoute` and `TLSRoute` (Gateway API) whose parents are `Service`s or `Gateway`s: where their opaque connections go.
//!
//! As GAMMA says (<https://gateway-api.sigs.k8s.io/mesh/>): a route in its service's namespace is for every
//! client, one in another namespace for the clients there.

use selvedge_model::{Layer, gateway::Hostname};
use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    http_route::read_hostnames,
    kinds::{Feedback, ResourceKind, YOUNG_GATEWAY},
    references::{BackendRef, BackendYaml, HttpParents, ParentYaml, read_backends, read_tcp_parents},
    typed::FieldError,
    virtual_service::server_name,
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const TCP_ROUTE: ResourceKind =
    ResourceKind::new("TCPRoute", YOUNG_GATEWAY, "tcproutes", Feedback::Parents)
        .read_as_spec::<Yaml>(|document| document.with_spec(|yaml, reading| read(yaml, Layer::Tcp, reading)));

/// Its line in the [list of kinds](super::kinds).
pub(super) const TLS_ROUTE: ResourceKind =
    ResourceKind::new("TLSRoute", YOUNG_GATEWAY, "tlsroutes", Feedback::Parents)
        .read_as_spec::<Yaml>(|document| document.with_spec(|yaml, reading| read(yaml, Layer::Tls, reading)));

/// What a `TCPRoute` or `TLSRoute` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpRouteSpec {
    /// Which of the two kinds it is.
    pub layer: Layer,
    /// Whose connections it is about. None of them is a server.
    pub parents: HttpParents,
    /// The names that TLS may ask for; empty = any, or none.
    pub hostnames: Vec<String>,
    /// The same, for its gateways.
    pub names: Vec<Hostname>,
    /// Where the connections go.
    pub backends: Vec<BackendRef>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    #[serde(default)]
    parent_refs: Vec<ParentYaml>,
    #[serde(default)]
    hostnames: Vec<String>,
    #[serde(default)]
    rules: Vec<RuleYaml>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleYaml {
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(default)]
    backend_refs: Vec<BackendYaml>,
}

pub(super) fn read(yaml: Yaml, layer: Layer, reading: &mut Reading<'_>) -> Result<TcpRouteSpec, FieldError> {
    let parents = read_tcp_parents(yaml.parent_refs, reading)?;
    let mut hostnames = Vec::new();
    for (index, name) in yaml.hostnames.iter().enumerate() {
        let field = format!("spec.hostnames[{index}]");
        if layer == Layer::Tcp {
            return Err(wrong(field, "belongs to TLSRoute; TCP names no host"));
        }
        hostnames.push(server_name(name, &field)?);
    }
    let names = match parents.gateways.is_empty() {
        true => Vec::new(),
        false => read_hostnames(&yaml.hostnames, &parents, reading)?,
    };
    let mut rules = yaml.rules.into_iter();
    let Some(rule) = rules.next() else {
        return Err(wrong("spec.rules", "is empty; give one rule"));
    };
    if rules.next().is_some() {
        let message =
            "has no effect: the connections of two rules cannot be told apart; use one rule with weights";
        reading.error("spec.rules[1]", message);
    }
    let backends = read_backends(rule.backend_refs, "spec.rules[0].backendRefs")?;
    Ok(TcpRouteSpec { layer, parents, hostnames, names, backends })
}
