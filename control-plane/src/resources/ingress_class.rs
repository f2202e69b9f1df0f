//! `IngressClass` (networking.k8s.io/v1): who serves the `Ingress`es that name it.

use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    kinds::{CLUSTER_NETWORKING, Feedback, ResourceKind},
    typed::{FieldError, Present},
};

/// What a class says whose `Ingress`es Selvedge serves.
pub const CONTROLLER: &str = "selvedge.io/ingress";

/// Says that a class is that of `Ingress`es which name none.
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("IngressClass", CLUSTER_NETWORKING, "ingressclasses", Feedback::Events)
        .cluster_wide()
        .with_any_annotations()
        .read_as_spec::<Yaml>(|document| document.with_spec(read));

/// What an `IngressClass` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressClassSpec {
    /// Whether Selvedge serves its `Ingress`es.
    pub is_ours: bool,
    /// Whether `Ingress`es that name no class are of this one.
    pub is_default: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Yaml {
    controller: Option<String>,
    parameters: Option<Present>,
}

fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<IngressClassSpec, FieldError> {
    let Some(controller) = yaml.controller.filter(|controller| !controller.is_empty()) else {
        return Err(wrong("spec.controller", format!("is missing; write {CONTROLLER}")));
    };
    let is_ours = controller == CONTROLLER;
    if is_ours && yaml.parameters.is_some() {
        reading.not_acted_on("spec.parameters", "not acted on: this class has no parameters; remove them");
    }
    if !is_ours {
        // They are those of another controller.
        reading.take_unknown_below("spec.parameters");
    }
    let is_default = reading.metadata.annotations.get(IS_DEFAULT).is_some_and(|said| said == "true");
    Ok(IngressClassSpec { is_ours, is_default })
}
