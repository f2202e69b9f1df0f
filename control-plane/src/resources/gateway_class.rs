//! `GatewayClass` (Gateway API): whose its gateways are. In a directory all gateways are ours, whatever their class says.

use serde::Deserialize;

use super::{
    document::Reading,
    kinds::{Feedback, GATEWAY, ResourceKind},
    typed::{FieldError, Present},
};

/// The `controllerName` of classes whose gateways are ours.
pub const CONTROLLER: &str = "selvedge.io/gateway";

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("GatewayClass", GATEWAY, "gatewayclasses", Feedback::Events)
        .cluster_wide()
        .with_any_annotations()
        .read_as_spec::<Yaml>(|document| document.with_spec(read));

/// What a `GatewayClass` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayClassSpec {
    /// Who acts on its gateways.
    pub controller: String,
}

impl GatewayClassSpec {
    /// Whether its gateways are ours.
    pub fn is_ours(&self) -> bool {
        self.controller == CONTROLLER
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    controller_name: String,
    #[serde(rename = "description")]
    _description: Option<String>,
    parameters_ref: Option<Present>,
}

#[expect(clippy::unnecessary_wraps, reason = "it is one of many that may refuse")]
fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<GatewayClassSpec, FieldError> {
    let spec = GatewayClassSpec { controller: yaml.controller_name };
    if !spec.is_ours() {
        // Everything else of it is for its own controller.
        reading.unknown.clear();
    } else if yaml.parameters_ref.is_some() {
        reading.not_acted_on("spec.parametersRef", "not acted on");
    }
    Ok(spec)
}
