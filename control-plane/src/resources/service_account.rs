//! `ServiceAccount` (v1): the labels by which policies choose service accounts.

use serde::Deserialize;
use serde_json::Value;

use super::{
    kinds::{CORE, Feedback, ResourceKind},
    trim,
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("ServiceAccount", CORE, "serviceaccounts", Feedback::Nowhere)
        .metadata_only()
        .trimmed(trim)
        .with_any_annotations()
        .read_as_whole::<Yaml>(|document| {
            document.whole(|_: Yaml, reading| {
                // The names of its secrets and the like ask nothing of a mesh.
                reading.unknown.clear();
                Ok(ServiceAccountSpec)
            })
        });

fn trim(object: &mut Value) {
    trim::keep_fields(object, &["apiVersion", "kind", "metadata"]);
    trim::keep_annotations(object);
}

/// What a `ServiceAccount` says besides its labels, which are in its metadata: nothing that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceAccountSpec;

#[derive(Debug, Deserialize)]
struct Yaml {}
