//! `ReferenceGrant` (Gateway API): which objects of its namespace those of another namespace may name.

use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    kinds::{Feedback, GATEWAY, ResourceKind},
    typed::FieldError,
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("ReferenceGrant", GATEWAY, "referencegrants", Feedback::Events)
        .read_as_spec::<Yaml>(|document| document.with_spec(read));

/// What a `ReferenceGrant` says: each of `from` may name each of `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceGrantSpec {
    /// Who may name something.
    pub from: Vec<GrantedTo>,
    /// What may be named.
    pub to: Vec<GrantedObject>,
}

/// One of `from`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GrantedTo {
    /// The group of the kind that refers.
    pub group: String,
    /// The kind that refers, such as `HTTPRoute`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
}

/// One of `to`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GrantedObject {
    /// The group of the kind that is named; empty for `Service` and `Secret`.
    pub group: String,
    /// The kind that is named.
    pub kind: String,
    /// Its name; `None` = all of that kind.
    pub name: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Yaml {
    #[serde(default)]
    from: Vec<GrantedTo>,
    #[serde(default)]
    to: Vec<GrantedObject>,
}

fn read(yaml: Yaml, _: &mut Reading<'_>) -> Result<ReferenceGrantSpec, FieldError> {
    let Yaml { from, mut to } = yaml;
    if from.is_empty() {
        return Err(wrong("spec.from", "is empty; say which kind of which namespace may refer"));
    }
    if to.is_empty() {
        return Err(wrong("spec.to", "is empty; say which kind may be named"));
    }
    for granted in &mut to {
        // An empty name is none, as to an API server.
        granted.name = granted.name.take().filter(|name| !name.is_empty());
    }
    Ok(ReferenceGrantSpec { from, to })
}
