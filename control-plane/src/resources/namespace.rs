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
    .read_as_whole::<Yaml>(|document| document.whole(|yaml, reading| read(&yaml, reading)));

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
pub(super) struct Yaml {
    #[serde(default)]
    status: StatusYaml,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StatusYaml {
    phase: Option<String>,
}

pub(super) fn read(yaml: &Yaml, reading: &mut Reading<'_>) -> Result<NamespaceSpec, FieldError> {
    // Like a pod's, its other fields ask nothing of a mesh.
    reading.unknown.clear();
    Ok(NamespaceSpec { terminating: yaml.status.phase.as_deref() == Some("Terminating") })
}
