//! `TCPRoute` and `TLSRoute` (Gateway API) whose parent is a `Service`: where its opaque connections go.
//!
//! As GAMMA says (<https://gateway-api.sigs.k8s.io/mesh/>): a route in its service's namespace is for every
//! client, one in another namespace for the clients there.

use selvedge_model::Layer;
use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    kinds::{Feedback, ResourceKind, YOUNG_GATEWAY},
    typed::FieldError,
    virtual_service::server_name,
    words::port_number,
};

/// The group of Gateway API's own kinds.
const GATEWAY: &str = "gateway.networking.k8s.io";

/// The largest weight that Gateway API allows.
const MAX_WEIGHT: u32 = 1_000_000;

/// Its line in the [list of kinds](super::kinds).
pub(super) const TCP_ROUTE: ResourceKind =
    ResourceKind::new("TCPRoute", YOUNG_GATEWAY, "tcproutes", Feedback::Parents).read_as_spec::<Words>(
        |document| document.with_spec(|words, reading| read(words, Layer::Tcp, reading)),
    );

/// Its line in the [list of kinds](super::kinds).
pub(super) const TLS_ROUTE: ResourceKind =
    ResourceKind::new("TLSRoute", YOUNG_GATEWAY, "tlsroutes", Feedback::Parents).read_as_spec::<Words>(
        |document| document.with_spec(|words, reading| read(words, Layer::Tls, reading)),
    );

/// What a `TCPRoute` or `TLSRoute` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpRouteSpec {
    /// Which of the two kinds it is.
    pub layer: Layer,
    /// The services whose connections it is about.
    pub parents: Vec<Parent>,
    /// The names that TLS may ask for; empty = any, or none.
    pub hostnames: Vec<String>,
    /// Where the connections go.
    pub backends: Vec<BackendRef>,
}

/// One of `parentRefs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Its place in the document.
    pub index: usize,
    /// The service's namespace; `None` = the route's own.
    pub namespace: Option<String>,
    /// The service's name.
    pub name: String,
    /// The service's port; `None` = every one.
    pub port: Option<u16>,
}

/// One of `backendRefs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRef {
    /// Its place in the rule.
    pub index: usize,
    /// The service that it names, or why it names none.
    pub service: Result<BackendService, Broken>,
    /// Its share is this / the sum of all.
    pub weight: u32,
}

/// Why a reference names nothing that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {why}")]
pub struct Broken {
    /// The part of the reference that is wrong: a field.
    pub part: &'static str,
    /// What is wrong with it, and the remedy.
    pub why: String,
}

impl Broken {
    /// `part` is wrong, because of `why`.
    pub fn new(part: &'static str, why: impl Into<String>) -> Self {
        Self { part, why: why.into() }
    }
}

/// The service that a backend is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendService {
    /// Its namespace; `None` = the route's own.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Words {
    #[serde(default)]
    parent_refs: Vec<ParentWords>,
    #[serde(default)]
    hostnames: Vec<String>,
    #[serde(default)]
    rules: Vec<RuleWords>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ParentWords {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    port: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleWords {
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(default)]
    backend_refs: Vec<BackendWords>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BackendWords {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    port: Option<u32>,
    weight: Option<u32>,
}

pub(super) fn read(
    words: Words,
    layer: Layer,
    reading: &mut Reading<'_>,
) -> Result<TcpRouteSpec, FieldError> {
    let parents = read_parents(words.parent_refs, reading)?;
    let mut hostnames = Vec::new();
    for (index, name) in words.hostnames.iter().enumerate() {
        let field = format!("spec.hostnames[{index}]");
        if layer == Layer::Tcp {
            return Err(wrong(field, "belongs to TLSRoute; TCP names no host"));
        }
        hostnames.push(server_name(name, &field)?);
    }
    let mut rules = words.rules.into_iter();
    let Some(rule) = rules.next() else {
        return Err(wrong("spec.rules", "is empty; give one rule"));
    };
    if rules.next().is_some() {
        let message =
            "has no effect: the connections of two rules cannot be told apart; use one rule with weights";
        reading.error("spec.rules[1]", message);
    }
    let mut backends = Vec::new();
    for (index, backend) in rule.backend_refs.into_iter().enumerate() {
        backends.push(read_backend(backend, index)?);
    }
    Ok(TcpRouteSpec { layer, parents, hostnames, backends })
}

fn read_parents(words: Vec<ParentWords>, reading: &mut Reading<'_>) -> Result<Vec<Parent>, FieldError> {
    let mut parents = Vec::new();
    for (index, parent) in words.into_iter().enumerate() {
        let field = format!("spec.parentRefs[{index}]");
        let group = parent.group.as_deref().unwrap_or(GATEWAY);
        let kind = parent.kind.as_deref().unwrap_or("Gateway");
        if !(matches!(group, "" | "core") && kind == "Service") {
            let message = format!("{kind} is not acted on; name a Service (group: \"\", kind: Service)");
            reading.not_acted_on(field, message);
            continue;
        }
        let port = parent.port.map(|port| port_number(port, &format!("{field}.port"))).transpose()?;
        parents.push(Parent { index, namespace: parent.namespace, name: parent.name, port });
    }
    Ok(parents)
}

fn read_backend(words: BackendWords, index: usize) -> Result<BackendRef, FieldError> {
    let field = format!("spec.rules[0].backendRefs[{index}]");
    let weight = words.weight.unwrap_or(1);
    if weight > MAX_WEIGHT {
        return Err(wrong(format!("{field}.weight"), format!("{weight} is more than {MAX_WEIGHT}")));
    }
    let kind = words.kind.as_deref().unwrap_or("Service");
    let service = match (words.group.as_deref().unwrap_or_default(), words.port) {
        ("" | "core", Some(port)) if kind == "Service" => {
            let port = port_number(port, &format!("{field}.port"))?;
            Ok(BackendService { namespace: words.namespace, name: words.name, port })
        }
        ("" | "core", None) if kind == "Service" => {
            Err(Broken::new("port", "is missing; a Service needs one"))
        }
        (_, _) => Err(Broken::new("kind", format!("{kind} is not acted on; name a Service"))),
    };
    Ok(BackendRef { index, service, weight })
}
