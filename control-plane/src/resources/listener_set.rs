//! `ListenerSet` (Gateway API): listeners that are added to a `Gateway`, written by another team than that of the `Gateway`.
//! `XListenerSet` is what it was called while it was experimental.

use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    gateway::{GATEWAY_GROUP, ListenerSpec, ListenerYaml, read_listeners},
    kinds::{Feedback, LISTENER_SETS, OLD_LISTENER_SETS, ResourceKind},
    typed::FieldError,
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("ListenerSet", LISTENER_SETS, "listenersets", Feedback::Events)
        .with_any_annotations()
        .read_as_spec::<Yaml>(|document| document.with_spec(read));

/// The same for its old name.
pub(super) const OLD: ResourceKind =
    ResourceKind::new("XListenerSet", OLD_LISTENER_SETS, "xlistenersets", Feedback::Events)
        .with_any_annotations()
        .read_as_spec::<Yaml>(|document| document.with_spec(read));

/// The group of `XListenerSet`.
const OLD_GROUP: &str = "gateway.networking.x-k8s.io";

/// The group of a kind that has listeners; `None`: it is no such kind.
pub fn group_of(kind: &str) -> Option<&'static str> {
    match kind {
        "Gateway" | "ListenerSet" => Some(GATEWAY_GROUP),
        "XListenerSet" => Some(OLD_GROUP),
        _ => None,
    }
}

/// The kind `kind` of `group`, if it has listeners.
pub fn with_listeners(group: &str, kind: &str) -> Option<&'static str> {
    let known = ["Gateway", "ListenerSet", "XListenerSet"].into_iter().find(|known| *known == kind)?;
    (group_of(known) == Some(group)).then_some(known)
}

/// What a `ListenerSet` says.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerSetSpec {
    /// The namespace of its `Gateway`; `None` = its own.
    pub namespace: Option<String>,
    /// The name of its `Gateway`.
    pub gateway: String,
    /// In the order of the document.
    pub listeners: Vec<ListenerSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    parent_ref: ParentYaml,
    #[serde(default)]
    listeners: Vec<ListenerYaml>,
}

#[derive(Debug, Deserialize)]
struct ParentYaml {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
}

fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<ListenerSetSpec, FieldError> {
    let ParentYaml { group, kind, namespace, name } = yaml.parent_ref;
    let (group, kind) = (group.as_deref().unwrap_or(GATEWAY_GROUP), kind.as_deref().unwrap_or("Gateway"));
    if (group, kind) != (GATEWAY_GROUP, "Gateway") {
        let message = format!("{group}/{kind} has no listeners; name a Gateway of {GATEWAY_GROUP}");
        return Err(wrong("spec.parentRef", message));
    }
    let listeners = read_listeners(yaml.listeners, reading)?;
    Ok(ListenerSetSpec { namespace, gateway: name, listeners })
}
