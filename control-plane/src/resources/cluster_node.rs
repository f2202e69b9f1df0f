//! `Node` (v1): where the pods on it are.

use selvedge_model::{
    Locality,
    locality::{REGION_LABEL, SUBZONE_LABEL, ZONE_LABEL},
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    document::Reading,
    kinds::{CORE, Feedback, ResourceKind},
    trim,
    typed::FieldError,
};

/// What the labels of the region and the zone were called before Kubernetes 1.17.
const OLD_REGION_LABEL: &str = "failure-domain.beta.kubernetes.io/region";
const OLD_ZONE_LABEL: &str = "failure-domain.beta.kubernetes.io/zone";
/// The labels that are read.
const LABELS: [&str; 5] = [REGION_LABEL, ZONE_LABEL, SUBZONE_LABEL, OLD_REGION_LABEL, OLD_ZONE_LABEL];

/// Its line in the [list of kinds](super::kinds). Without the right to watch it, nothing is known of places, and everything
/// else goes on.
pub(super) const KIND: ResourceKind = ResourceKind::new("Node", CORE, "nodes", Feedback::Nowhere)
    .cluster_wide()
    .dispensable()
    .trimmed(trim)
    .with_any_annotations()
    .read_as_whole::<Yaml>(|document| document.whole(|yaml, reading| read(&yaml, reading)));

fn trim(object: &mut Value) {
    trim::status(object);
    trim::keep(object, "spec", &[]);
    if let Some(metadata) = object.get_mut("metadata") {
        trim::remove(metadata, "annotations");
        if let Some(Value::Object(labels)) = metadata.get_mut("labels") {
            labels.retain(|name, _| LABELS.contains(&name.as_str()));
        }
    }
}

/// What a `Node` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Where it is.
    pub locality: Locality,
}

#[derive(Debug, Deserialize)]
pub(super) struct Yaml {}

pub(super) fn read(Yaml {}: &Yaml, reading: &mut Reading<'_>) -> Result<NodeSpec, FieldError> {
    // Its other fields ask nothing of a mesh.
    reading.unknown.clear();
    let label = |name: &str| reading.metadata.labels.get(name).filter(|value| !value.is_empty()).cloned();
    let locality = Locality {
        region: label(REGION_LABEL).or_else(|| label(OLD_REGION_LABEL)).unwrap_or_default(),
        zone: label(ZONE_LABEL).or_else(|| label(OLD_ZONE_LABEL)).unwrap_or_default(),
        subzone: label(SUBZONE_LABEL).unwrap_or_default(),
    };
    Ok(NodeSpec { locality })
}
