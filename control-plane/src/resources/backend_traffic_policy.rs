//! `XBackendTrafficPolicy` (Gateway API, experimental): how many retries a `Service` may be sent, and whether sessions stay at
//! its endpoints.

use selvedge_model::{RetryBudget, SessionPersistence};
use serde::Deserialize;

use super::{
    document::Reading,
    kinds::{Feedback, ResourceKind},
    policy_target::{PolicyTarget, each_once},
    retry_budget::ConstraintYaml,
    session_persistence::SessionYaml,
    typed::FieldError,
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("XBackendTrafficPolicy", VERSIONS, "xbackendtrafficpolicies", Feedback::Ancestors)
        .read_as_spec::<Yaml>(|document| document.with_spec(read));

const VERSIONS: &[&str] = &["gateway.networking.x-k8s.io/v1alpha1"];

/// What an `XBackendTrafficPolicy` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTrafficPolicySpec {
    /// What it is for: each as a whole, none for one of its ports.
    pub targets: Vec<PolicyTarget>,
    /// How many retries there may be; `None`: it does not say.
    pub retry: Option<RetryBudget>,
    /// How sessions stay at their endpoints; `None`: it does not say. Its key is not made yet.
    pub session: Option<Box<SessionPersistence>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    #[serde(default)]
    target_refs: Vec<TargetYaml>,
    retry_constraint: Option<ConstraintYaml>,
    session_persistence: Option<SessionYaml>,
}

#[derive(Debug, Deserialize)]
struct TargetYaml {
    #[serde(default)]
    group: String,
    kind: String,
    name: String,
}

fn read(yaml: Yaml, _: &mut Reading<'_>) -> Result<BackendTrafficPolicySpec, FieldError> {
    let Yaml { target_refs, retry_constraint, session_persistence } = yaml;
    let target =
        |(index, TargetYaml { group, kind, name })| PolicyTarget { index, group, kind, name, section: None };
    let targets = each_once(target_refs.into_iter().enumerate().map(target))?;
    let retry = retry_constraint.map(|yaml| yaml.read("spec.retryConstraint")).transpose()?;
    let session = session_persistence.map(|yaml| yaml.read("spec.sessionPersistence")).transpose()?;
    Ok(BackendTrafficPolicySpec { targets, retry, session: session.map(Box::new) })
}
