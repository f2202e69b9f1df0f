//! The Services that a policy of Istio's is for, by name.

use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    typed::FieldError,
};

/// One of `targetRefs`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TargetYaml {
    group: String,
    kind: String,
    name: String,
    namespace: Option<String>,
}

/// The Services that a policy is for, which may not select workloads too; `None`: it names none.
pub(super) fn services(
    alone: Option<&TargetYaml>,
    listed: &[TargetYaml],
    selects: bool,
    reading: &mut Reading<'_>,
) -> Result<Option<Vec<String>>, FieldError> {
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
    let mut services = Vec::new();
    for (field, target) in &all {
        services.extend(service_of(target, field, reading)?);
    }
    Ok(Some(services))
}

fn service_of(
    target: &TargetYaml,
    field: &str,
    reading: &mut Reading<'_>,
) -> Result<Option<String>, FieldError> {
    for (name, text) in [("kind", &target.kind), ("name", &target.name)] {
        if text.is_empty() {
            return Err(wrong(format!("{field}.{name}"), "is missing"));
        }
    }
    if target.namespace.as_ref().is_some_and(|namespace| !namespace.is_empty()) {
        let message = "a policy is for what is in its own namespace; remove the field, or move the policy";
        return Err(wrong(format!("{field}.namespace"), message));
    }
    match (target.group.as_str(), target.kind.as_str()) {
        ("" | "core", "Service") => Ok(Some(target.name.clone())),
        (group, kind) => {
            let group = if group.is_empty() { "core" } else { group };
            let message = format!(
                "a policy for a {kind} of {group} is not enforced; name a Service, or select workloads with selector"
            );
            reading.error(field, message);
            Ok(None)
        }
    }
}
