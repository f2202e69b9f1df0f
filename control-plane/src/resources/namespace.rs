//! `Namespace` (v1): the labels and annotations by which others choose namespaces.

use serde::Deserialize;
use serde_json::Value;

use super::{
    document::Reading,
    kinds::{CORE, Feedback, ResourceKind},
    trim,
    typed::FieldError,
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind = ResourceKind::new("Namespace", CORE, "namespaces", Feedback::Nowhere)
    .cluster_wide()
    .trimmed(trim)
    .with_any_annotations()
    .read_as_whole::<Words>(|document| document.whole(|words, reading| read(&words, reading)));

fn trim(object: &mut Value) {
    trim::deletion(object);
    trim::keep_annotations(object);
    trim::keep(object, "spec", &[]);
    trim::keep(object, "status", &["phase"]);
}

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
