//! The Services and Gateways that a policy of Istio's is for, by name.

use serde::Deserialize;

use super::{document::wrong, gateway::GATEWAY_GROUP, typed::FieldError};

/// One of `targetRefs`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TargetYaml {
    group: String,
    kind: String,
    name: String,
    namespace: Option<String>,
}

/// What a policy is for, all of its own namespace.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// Services: the workloads behind them.
    pub(super) services: Vec<String>,
    /// Gateways of the Gateway API: the workloads that are one of them.
    pub(super) gateways: Vec<String>,
}

/// What a policy names, which may not select workloads too; `None`: nothing.
pub(super) fn named(
    alone: Option<&TargetYaml>,
    listed: &[TargetYaml],
    selects: bool,
) -> Result<Option<Named>, FieldError> {
    let numbered = listed.iter().enumerate();
    let numbered = numbered.map(|(number, target)| (format!("spec.targetRefs[{number}]"), target));
    let one = alone.iter().map(|target| ("spec.targetRef".to_owned(), *target));
    let all: Vec<_> = one.chain(numbered).collect();
    let Some((first, _)) = all.first() else { return Ok(None) };
    if selects || (alone.is_some() && !listed.is_empty()) {
        return Err(wrong(
            first,
            "only one of selector, targetRef and targetRefs may be set; remove the others",
        ));
    }
    let mut named = Named::default();
    for (field, target) in &all {
        named.add(target, field)?;
    }
    Ok(Some(named))
}

impl Named {
    fn add(&mut self, target: &TargetYaml, field: &str) -> Result<(), FieldError> {
        for (name, text) in [("kind", &target.kind), ("name", &target.name)] {
            if text.is_empty() {
                return Err(wrong(format!("{field}.{name}"), "is missing"));
            }
        }
        if target.namespace.as_ref().is_some_and(|namespace| !namespace.is_empty()) {
            let message =
                "a policy is for what is in its own namespace; remove the field, or move the policy";
            return Err(wrong(format!("{field}.namespace"), message));
        }
        match (target.group.as_str(), target.kind.as_str()) {
            ("" | "core", "Service") => self.services.push(target.name.clone()),
            (GATEWAY_GROUP, "Gateway") => self.gateways.push(target.name.clone()),
            (group, kind) => {
                let group = if group.is_empty() { "core" } else { group };
                let message = format!(
                    "a policy for a {kind} of {group} cannot be enforced; name a Service, or a Gateway of {GATEWAY_GROUP}, or select \
                     workloads with selector"
                );
                return Err(wrong(field, message));
            }
        }
        Ok(())
    }
}
