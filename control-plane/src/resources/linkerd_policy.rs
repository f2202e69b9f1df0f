//! Linkerd's policies (`policy.linkerd.io`): which ports are servers, who may call them, and how clients prove who they
//! are.
//!
//! What Linkerd's own webhook refuses is refused here, too (`policy-controller/src/admission.rs` of
//! <https://github.com/linkerd/linkerd2>).

pub mod access;
pub mod authentication;
pub mod authorization;
pub mod identity;
pub mod networks;
pub mod rate_limit;
pub mod server;
pub mod server_authorization;
#[cfg(test)]
mod tests;

use serde::Deserialize;

use super::{document::wrong, typed::FieldError};

/// The group of all of them.
pub const GROUP: &str = "policy.linkerd.io";

/// A reference to a document of whatever kind.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ReferenceYaml {
    group: String,
    kind: String,
    name: String,
    namespace: Option<String>,
}

impl ReferenceYaml {
    /// Whether it is to an object of `kind` of `group`; empty: of Kubernetes' first kinds.
    fn is(&self, group: &str, kind: &str) -> bool {
        let own = if self.group.eq_ignore_ascii_case("core") { "" } else { &self.group };
        own.eq_ignore_ascii_case(group) && self.kind.eq_ignore_ascii_case(kind)
    }

    /// What it is to, for those who are told that nothing can be done with it.
    fn words(&self) -> String {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        format!("{} of {group}", if self.kind.is_empty() { "something without a kind" } else { &self.kind })
    }

    /// Its name; it stands at `field`.
    fn name(&self, field: &str) -> Result<String, FieldError> {
        match self.name.is_empty() {
            true => Err(wrong(format!("{field}.name"), "is missing; name the object")),
            false => Ok(self.name.clone()),
        }
    }
}

/// Another document by namespace and name; without a namespace, in the document's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// `None`: as the document that names it.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}
