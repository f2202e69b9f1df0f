//! A document as an object that has a status.

use std::sync::Arc;

use super::{
    kinds::{self, Feedback},
    node::{Node, Value},
};
use crate::problem::DocumentName;

/// A document, as far as it takes to write about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Which.
    pub name: DocumentName,
    /// Where whoever wrote it is told what became of it.
    pub feedback: Feedback,
    /// Such as `networking.istio.io/v1`.
    pub api_version: Arc<str>,
    /// What tells it from an earlier object of the same name; empty in a file.
    pub uid: Arc<str>,
    /// Counts the changes of what it asks for; 1 if it does not say.
    pub generation: i64,
    /// Of a route, its `spec.parentRefs`.
    pub parents: Option<Arc<serde_json::Value>>,
}

impl Object {
    /// Its kind, as the API server calls it.
    pub fn kind(&self) -> &str {
        self.name.kind.split('.').next().unwrap_or_default()
    }

    /// The document `node`, which is called `name`; `None` for kinds of whose objects nobody writes.
    pub(super) fn of(node: &Node, name: &DocumentName) -> Option<Self> {
        let version = node.text("apiVersion")?;
        let group = version.rsplit_once('/').map_or("", |(group, _)| group);
        let kind = kinds::followed().find(|known| *known.called == *name.kind && known.group() == group)?;
        if kind.feedback == Feedback::Nowhere {
            return None;
        }
        let metadata = node.field("metadata").map(|entry| &entry.node);
        let generation =
            match metadata.and_then(|metadata| metadata.field("generation")).map(|entry| &entry.node.value) {
                Some(Value::Unsigned(number)) => i64::try_from(*number).ok(),
                Some(Value::Signed(number)) => Some(*number),
                _ => None,
            };
        let parents = node.field("spec").and_then(|spec| spec.node.field("parentRefs"));
        let parents = parents.filter(|_| kind.feedback == Feedback::Parents);
        Some(Self {
            name: name.clone(),
            feedback: kind.feedback,
            api_version: version.into(),
            uid: metadata.and_then(|metadata| metadata.text("uid")).unwrap_or_default().into(),
            generation: generation.unwrap_or(1),
            parents: parents.map(|parents| Arc::new(parents.node.to_json())),
        })
    }
}
