//! `Namespace` (v1): the labels and annotations by which others choose namespaces.

use serde::Deserialize;

use super::{document::Reading, typed::FieldError};

/// What a `Namespace` says besides its labels and annotations, which are in its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceSpec {
    /// Whether it is being deleted, with all that it holds.
    pub terminating: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Words {
    #[serde(default)]
    status: StatusWords,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StatusWords {
    phase: Option<String>,
}

pub(super) fn read(words: &Words, reading: &mut Reading<'_>) -> Result<NamespaceSpec, FieldError> {
    // Like a pod's, its other fields ask nothing of a mesh.
    reading.unknown.clear();
    Ok(NamespaceSpec { terminating: words.status.phase.as_deref() == Some("Terminating") })
}
