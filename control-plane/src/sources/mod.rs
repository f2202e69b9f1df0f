//! Where documents come from. Every source yields the same thing: all resources, and what is wrong.

pub mod directory;
mod files;
pub mod kubernetes;
mod last_good;

use std::sync::Arc;

use crate::{
    problem::{DocumentName, Problem},
    resources::{Resource, Resources, StandIn, kinds::Feedback},
};

/// All that a source has, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// Every document that is in use.
    pub resources: Resources,
    /// What is wrong with single documents, files, or the source itself.
    pub problems: Vec<Problem>,
    /// The objects that people wrote and may be told about; none where there is nowhere to write.
    pub objects: Arc<Vec<Object>>,
}

/// An object in a cluster, as far as it takes to write about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Which.
    pub name: DocumentName,
    /// Where whoever wrote it is told what became of it.
    pub feedback: Feedback,
    /// Such as `networking.istio.io/v1`.
    pub api_version: Arc<str>,
    /// What tells it from an earlier object of the same name.
    pub uid: Arc<str>,
    /// Counts the changes of what it asks for.
    pub generation: i64,
    /// Of a route, its `spec.parentRefs`.
    pub parents: Option<Arc<serde_json::Value>>,
}

/// What is in use of a document that cannot be used: its last good version, or else what it is taken for.
fn consequence(good: Option<&Resource>, stand_in: Option<&StandIn>) -> String {
    match (good, stand_in) {
        (Some(_), _) => "; its last good version stays in use".to_owned(),
        (None, Some(stand_in)) => format!("; {}", stand_in.words),
        (None, None) => "; nothing of it is in use".to_owned(),
    }
}

#[cfg(test)]
mod tests;
