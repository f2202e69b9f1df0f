//! The words themselves. Pure: what a status or an Event says about a document's problems.

use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use selvedge_kubernetes::Kind;
use selvedge_ops::plain;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::CONTROLLER;
use crate::{
    problem::{Problem, Severity},
    sources::Object,
};

/// Both Events (`note`) and conditions may say more than that, and nobody reads it.
const LONGEST: usize = 1024;
/// The condition of Istio's kinds; its domain tells it from Istio's own conditions.
const ACCEPTED: &str = "selvedge.io/Accepted";

/// What became of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    outcome: Acceptance,
    /// Every problem, in its order.
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acceptance {
    /// All of it is in use.
    Accepted,
    /// It is in use, but for what the message names.
    InPart,
    /// Something that it asks for does not happen.
    Invalid,
    /// Nothing acts on its kind.
    NotActedOn,
}

impl Verdict {
    pub(super) fn of(problems: &[&Problem]) -> Self {
        let any = |severity| problems.iter().any(|problem| problem.severity == severity);
        let whole =
            |problem: &&&Problem| problem.severity == Severity::NotActedOn && problem.field.is_empty();
        let outcome = match () {
            () if any(Severity::Error) => Acceptance::Invalid,
            () if problems.iter().any(|problem| whole(&problem)) => Acceptance::NotActedOn,
            () if problems.is_empty() => Acceptance::Accepted,
            () => Acceptance::InPart,
        };
        let message = if problems.is_empty() { "in use".to_owned() } else { said(problems.iter().copied()) };
        Self { outcome, message }
    }

    fn reason(&self) -> &'static str {
        match self.outcome {
            Acceptance::Accepted => "Accepted",
            Acceptance::InPart => "AcceptedInPart",
            Acceptance::Invalid => "Invalid",
            Acceptance::NotActedOn => "NotActedOn",
        }
    }

    fn is_accepted(&self) -> bool {
        matches!(self.outcome, Acceptance::Accepted | Acceptance::InPart)
    }
}

fn said<'a>(problems: impl Iterator<Item = &'a Problem>) -> String {
    let words: Vec<String> = problems
        .map(|problem| match problem.field.as_str() {
            "" => problem.message.clone(),
            field => format!("{field}: {}", problem.message),
        })
        .collect();
    shortened(&words.join("; "))
}

fn shortened(text: &str) -> String {
    let mut text = plain(text).into_owned();
    if text.len() > LONGEST {
        let mut end = LONGEST - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The status that an object of an Istio kind should have; `None` if it has that already.
pub(super) fn conditions(object: &Object, verdict: &Verdict, existing: &Value, now: &str) -> Option<Value> {
    let status = if verdict.is_accepted() { "True" } else { "False" };
    let ours = condition(ACCEPTED, status, verdict.reason(), &verdict.message);
    let before = existing["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mine = before.iter().find(|condition| condition["type"] == ACCEPTED);
    // Istio's own form of the field is a text.
    let generation = Value::String(object.generation.to_string());
    if mine.is_some_and(|mine| same(mine, &ours)) && says(&existing["observedGeneration"], object.generation)
    {
        return None;
    }
    let others = before.iter().filter(|condition| condition["type"] != ACCEPTED).cloned();
    let all: Vec<Value> = others.chain([dated(ours, mine, now)]).collect();
    Some(json!({"observedGeneration": generation, "conditions": all}))
}

fn says(observed: &Value, generation: i64) -> bool {
    observed.as_i64() == Some(generation) || observed.as_str() == Some(&generation.to_string())
}

/// The status that a route should have; `None` if it has that already. What other controllers say of it
/// stays.
pub(super) fn parents(
    object: &Object,
    verdict: &Verdict,
    problems: &[&Problem],
    existing: &Value,
    now: &str,
) -> Option<Value> {
    let before = existing["parents"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_ours = |parent: &&Value| parent["controllerName"] == CONTROLLER;
    let references = object.parents.as_deref().and_then(Value::as_array).map(Vec::as_slice);
    let services = references.unwrap_or_default().iter().enumerate().filter(|(_, parent)| is_service(parent));
    let acted_on = verdict.outcome != Acceptance::NotActedOn;
    let ours: Vec<Value> = services
        .filter(|_| acted_on)
        .map(|(index, reference)| {
            let old = before.iter().filter(is_ours).find(|parent| parent["parentRef"] == *reference);
            let conditions: Vec<Value> = route_conditions(index, problems)
                .into_iter()
                .map(|mut new| {
                    new["observedGeneration"] = object.generation.into();
                    let listed = old.and_then(|old| old["conditions"].as_array());
                    let old = listed.and_then(|list| list.iter().find(|old| old["type"] == new["type"]));
                    dated(new, old, now)
                })
                .collect();
            json!({"parentRef": reference, "controllerName": CONTROLLER, "conditions": conditions})
        })
        .collect();
    let others = before.iter().filter(|parent| !is_ours(parent)).cloned();
    let all: Vec<Value> = others.chain(ours).collect();
    (all.as_slice() != before).then(|| json!({ "parents": all }))
}

/// Whether a route is for callers of a Service inside the mesh; other parents are Gateways, and others'.
fn is_service(parent: &Value) -> bool {
    parent["kind"] == "Service" && matches!(parent["group"].as_str(), None | Some("" | "core"))
}

/// `Accepted` and `ResolvedRefs` of the parent at `index`, and `PartiallyInvalid` where a part of the route has no effect
/// (<https://gateway-api.sigs.k8s.io/reference/spec/#routeconditiontype>).
fn route_conditions(index: usize, problems: &[&Problem]) -> Vec<Value> {
    let own = format!("spec.parentRefs[{index}]");
    let errors = || problems.iter().copied().filter(|problem| problem.severity == Severity::Error);
    let of_reference = |problem: &&Problem| problem.unresolved.is_some();
    let of_parent = |problem: &&Problem| problem.field.starts_with("spec.parentRefs");
    let mine = |problem: &&Problem| problem.field.starts_with(&own) || problem.field == "spec.parentRefs";
    let others = || errors().filter(move |problem| !of_reference(problem) && !of_parent(problem));
    let accepted = if errors().any(|problem| mine(&problem)) {
        let overruled = errors().filter(mine).all(|problem| problem.overruled);
        let reason = if overruled { "Conflicted" } else { "NoMatchingParent" };
        condition("Accepted", "False", reason, &said(errors().filter(mine)))
    } else if others().any(|problem| problem.alone) {
        condition("Accepted", "False", "UnsupportedValue", &said(others().filter(|problem| problem.alone)))
    } else {
        let rest = || problems.iter().copied().filter(|problem| problem.severity != Severity::Error);
        let message = if rest().next().is_some() { said(rest()) } else { "in use".to_owned() };
        condition("Accepted", "True", "Accepted", &message)
    };
    let resolved = match errors().find_map(|problem| problem.unresolved) {
        None => condition("ResolvedRefs", "True", "ResolvedRefs", "every backend exists"),
        Some(why) => {
            let message = said(errors().filter(of_reference));
            condition("ResolvedRefs", "False", why.gateway_reason(), &message)
        }
    };
    let in_part = accepted["status"] == "True" && others().next().is_some();
    let in_part = in_part.then(|| condition("PartiallyInvalid", "True", "UnsupportedValue", &said(others())));
    [accepted, resolved].into_iter().chain(in_part).collect()
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

fn same(this: &Value, other: &Value) -> bool {
    ["type", "status", "reason", "message"].iter().all(|field| this[field] == other[field])
}

/// `new` with the time of its last transition: that of `old` while the status is the same.
fn dated(mut new: Value, old: Option<&Value>, now: &str) -> Value {
    let unchanged = old.filter(|old| old["status"] == new["status"]);
    let since = unchanged.and_then(|old| old["lastTransitionTime"].as_str()).unwrap_or(now);
    new["lastTransitionTime"] = since.into();
    new
}

/// The name of the Event that tells of `problem`: the same from every replica.
pub(super) fn event_name(object: &Object, problem: &Problem) -> String {
    let words = format!("{}\n{:?}\n{}\n{}", object.uid, problem.severity, problem.field, problem.message);
    let hash = digest(&SHA256, words.as_bytes());
    let hash: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    // Names have at most 253 letters.
    let name: String = object.name.name.chars().take(200).collect();
    format!("{name}.{hash}")
}

/// The Event (events.k8s.io/v1) that tells of `problem`.
pub(super) fn event(
    object: &Object,
    problem: &Problem,
    name: &str,
    instance: &str,
    now: SystemTime,
) -> Value {
    let (severity, reason) = match problem.severity {
        Severity::Error => ("Warning", "Invalid"),
        Severity::Warning => ("Warning", "Doubtful"),
        Severity::NotActedOn => ("Normal", "NotActedOn"),
    };
    // Events about what has no namespace are in the default one.
    let namespace = if object.name.namespace.is_empty() { "default" } else { &object.name.namespace };
    let mut regarding = json!({
        "apiVersion": &*object.api_version,
        "kind": &*object.name.kind,
        "name": &*object.name.name,
        "uid": &*object.uid,
    });
    if !object.name.namespace.is_empty() {
        regarding["namespace"] = (*object.name.namespace).into();
    }
    let words = EventWords { severity, reason, action: "Compile", note: said([problem].into_iter()) };
    event_object(namespace, name, &regarding, words, instance, now)
}

/// What an Event says.
pub(in crate::cluster) struct EventWords {
    /// `Normal` or `Warning`.
    pub(in crate::cluster) severity: &'static str,
    /// What happened, in one word.
    pub(in crate::cluster) reason: &'static str,
    /// What we were doing, in one word.
    pub(in crate::cluster) action: &'static str,
    /// The whole of it.
    pub(in crate::cluster) note: String,
}

/// The kind of what [`event_object`] makes.
pub(in crate::cluster) fn event_kind() -> Kind {
    Kind::namespaced("events.k8s.io/v1", "Event", "events")
}

/// An Event (events.k8s.io/v1) of ours about `regarding`.
pub(in crate::cluster) fn event_object(
    namespace: &str,
    name: &str,
    regarding: &Value,
    words: EventWords,
    instance: &str,
    now: SystemTime,
) -> Value {
    let EventWords { severity, reason, action, note } = words;
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "name": name, "namespace": namespace },
        "eventTime": micro_time(now),
        "type": severity,
        "reason": reason,
        "action": action,
        "note": shortened(&note),
        "regarding": regarding,
        "reportingController": CONTROLLER,
        "reportingInstance": shorter(instance),
    })
}

/// At most 128 letters, as Events want it.
fn shorter(instance: &str) -> String {
    instance.chars().take(128).collect()
}

/// With exactly six digits behind the dot, as Kubernetes' `MicroTime` has it.
fn micro_time(now: SystemTime) -> String {
    let now = OffsetDateTime::from(now);
    let micros = now.microsecond();
    let whole = now.replace_nanosecond(0).unwrap_or(now);
    let text = whole.format(&Rfc3339).unwrap_or_default();
    text.replace('Z', &format!(".{micros:06}Z"))
}

#[cfg(test)]
mod tests;
