//! What the status of a document says of its problems. Pure: the replica that writes it into a cluster and `selvedge check`,
//! which prints it, say the same.

use std::collections::HashMap;

use selvedge_ops::plain;
use serde::Serialize;
use serde_json::{Value, json};

use super::policies;
use crate::{
    compile::Attached,
    problem::{Detached, DocumentName, Fault, Problem, Severity},
    resources::{Object, gateway::GATEWAY_GROUP, gateway_class, kinds::Feedback, listener_set},
};

/// Our name in `status.parents[].controllerName` and as the reporter of Events.
pub const CONTROLLER: &str = "selvedge.io/control-plane";
/// Both Events (`note`) and conditions may say more than that, and nobody reads it.
const LONGEST: usize = 1024;
/// The condition of Istio's kinds; its domain tells it from Istio's own conditions.
const ACCEPTED: &str = "selvedge.io/Accepted";

/// Our conditions of a route; others may say more of it at the same parent.
const OF_ROUTES: [&str; 3] = ["Accepted", "ResolvedRefs", "PartiallyInvalid"];

/// An object, and the status that it should have.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStatus {
    /// Such as `gateway.networking.k8s.io/v1`.
    pub api_version: String,
    /// Such as `HTTPRoute`.
    pub kind: String,
    /// Which one.
    pub metadata: ObjectMetadata,
    /// As it is written into a cluster.
    pub status: Value,
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectMetadata {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What counts the changes of what it asks for: 1 where a file does not say, as an API server counts.
    pub generation: i64,
}

/// The status of every object that has one, by everything that is wrong; `now` as RFC 3339 writes it. Of objects that have
/// a status already, nothing is known here.
pub fn statuses(
    objects: &[Object],
    problems: &[Problem],
    attached: &Attached,
    now: &str,
) -> Vec<ObjectStatus> {
    let by_document = by_document(problems);
    let of = |object: &Object| {
        let problems = by_document.get(&object.name).map(Vec::as_slice).unwrap_or_default();
        let status = Verdict::of(problems).status(object, problems, attached, &Value::Null, now)?;
        let metadata = ObjectMetadata {
            namespace: object.name.namespace.to_string(),
            name: object.name.name.to_string(),
            generation: object.generation,
        };
        let (api_version, kind) = (object.api_version.to_string(), object.kind().to_owned());
        Some(ObjectStatus { api_version, kind, metadata, status })
    };
    objects.iter().filter_map(of).collect()
}

/// The problems of each document.
pub(crate) fn by_document(problems: &[Problem]) -> HashMap<&DocumentName, Vec<&Problem>> {
    let mut by_document: HashMap<_, Vec<&Problem>> = HashMap::new();
    for problem in problems.iter().filter(|problem| problem.fault != Fault::Namesake) {
        if let Some(document) = &problem.document {
            by_document.entry(document).or_default().push(problem);
        }
    }
    by_document
}

/// What became of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
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
    /// Something that it asks for does not happen, only because other documents decide instead.
    Conflicted,
    /// Nothing acts on its kind.
    NotActedOn,
}

impl Verdict {
    pub(crate) fn of(problems: &[&Problem]) -> Self {
        let mut errors = problems.iter().filter(|problem| is_error(problem)).peekable();
        let outcome = match () {
            () if problems.iter().any(|problem| is_of_kind(problem)) => Acceptance::NotActedOn,
            () if errors.peek().is_some() => match errors.all(|problem| problem.fault == Fault::Overruled) {
                true => Acceptance::Conflicted,
                false => Acceptance::Invalid,
            },
            () if problems.is_empty() => Acceptance::Accepted,
            () => Acceptance::InPart,
        };
        let message = if problems.is_empty() { "in use".to_owned() } else { words(problems.iter().copied()) };
        Self { outcome, message }
    }

    fn reason(&self) -> &'static str {
        match self.outcome {
            Acceptance::Accepted => "Accepted",
            Acceptance::InPart => "AcceptedInPart",
            Acceptance::Invalid => "Invalid",
            Acceptance::Conflicted => "Conflicted",
            Acceptance::NotActedOn => "NotActedOn",
        }
    }

    fn is_accepted(&self) -> bool {
        matches!(self.outcome, Acceptance::Accepted | Acceptance::InPart)
    }

    /// The status that `object` should have where it has `existing`, by its problems, of which this is the verdict. `None`: it
    /// has that already, or its kind has no status of ours. What other controllers say there stays.
    pub(crate) fn status(
        &self,
        object: &Object,
        problems: &[&Problem],
        attached: &Attached,
        existing: &Value,
        now: &str,
    ) -> Option<Value> {
        match object.feedback {
            Feedback::Parents => self.parents(object, problems, attached, existing, now),
            Feedback::Conditions => self.conditions(object, existing, now),
            Feedback::Ancestors => {
                let ancestors = attached.ancestors.get(&object.name).map(Vec::as_slice).unwrap_or_default();
                policies::status(object, ancestors, problems, existing, now)
            }
            Feedback::Events | Feedback::Nowhere => None,
        }
    }

    /// Of an Istio kind.
    fn conditions(&self, object: &Object, existing: &Value, now: &str) -> Option<Value> {
        let status = if self.is_accepted() { "True" } else { "False" };
        let ours = condition(ACCEPTED, status, self.reason(), &self.message);
        let before = existing["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mine = before.iter().find(|condition| condition["type"] == ACCEPTED);
        if mine.is_some_and(|mine| same(mine, &ours))
            && says(&existing["observedGeneration"], object.generation)
        {
            return None;
        }
        // Istio's own form of the field is a text.
        let generation = Value::String(object.generation.to_string());
        let others = before.iter().filter(|condition| condition["type"] != ACCEPTED).cloned();
        let all: Vec<Value> = others.chain([dated(ours, mine, now)]).collect();
        Some(json!({"observedGeneration": generation, "conditions": all}))
    }

    /// Of a route of the Gateway API: one entry for each parent that is a Service or a Gateway of ours.
    fn parents(
        &self,
        object: &Object,
        problems: &[&Problem],
        attached: &Attached,
        existing: &Value,
        now: &str,
    ) -> Option<Value> {
        let before = existing["parents"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_ours = |parent: &&Value| {
            parent["controllerName"] == CONTROLLER || parent["controllerName"] == gateway_class::CONTROLLER
        };
        let controller = |parent: &Value| match is_service(parent) {
            true => Some(CONTROLLER),
            false => {
                is_gateway_of(parent, &object.name.namespace, attached).then_some(gateway_class::CONTROLLER)
            }
        };
        let references = object.parents.as_deref().and_then(Value::as_array).map(Vec::as_slice);
        let references = references.unwrap_or_default().iter().enumerate();
        let acted_on = self.outcome != Acceptance::NotActedOn;
        let ours = references.filter(|_| acted_on).filter_map(|(index, reference)| {
            let controller = controller(reference)?;
            let old = before.iter().filter(is_ours).find(|parent| parent["parentRef"] == *reference);
            let listed = old.and_then(|old| old["conditions"].as_array());
            let listed = listed.map(Vec::as_slice).unwrap_or_default();
            let ours = route_conditions(index, problems).into_iter().map(|mut new| {
                new["observedGeneration"] = object.generation.into();
                let old = listed.iter().find(|old| old["type"] == new["type"]);
                dated(new, old, now)
            });
            let is_foreign = |one: &&Value| !OF_ROUTES.iter().any(|kind| one["type"] == *kind);
            let conditions: Vec<Value> = ours.chain(listed.iter().filter(is_foreign).cloned()).collect();
            Some(json!({"parentRef": reference, "controllerName": controller, "conditions": conditions}))
        });
        let others = before.iter().filter(|parent| !is_ours(parent)).cloned();
        let all: Vec<Value> = others.chain(ours).collect();
        (all.as_slice() != before).then(|| json!({ "parents": all }))
    }
}

pub(super) fn is_error(problem: &Problem) -> bool {
    problem.severity == Severity::Error
}

/// Whether it says that nothing acts on the document's kind.
pub(crate) fn is_of_kind(problem: &Problem) -> bool {
    let is_left_out = problem.severity == Severity::NotActedOn && problem.fault == Fault::Unusable;
    is_left_out || problem.fault == Fault::Unenforced
}

/// What they say, with the fields.
pub(super) fn words<'a>(problems: impl Iterator<Item = &'a Problem>) -> String {
    let words: Vec<String> = problems
        .map(|problem| match problem.field.as_str() {
            "" => problem.message.clone(),
            field => format!("{field}: {}", problem.message),
        })
        .collect();
    words.join("; ")
}

/// What they say, as far as it has a place.
pub(crate) fn said<'a>(problems: impl Iterator<Item = &'a Problem>) -> String {
    shortened(&words(problems))
}

/// `text`, as far as it has a place, without what a terminal would act on.
pub(crate) fn shortened(text: &str) -> String {
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

fn says(observed: &Value, generation: i64) -> bool {
    observed.as_i64() == Some(generation) || observed.as_str() == Some(&generation.to_string())
}

/// Whether a parent of a route in `namespace` is one of these Gateways and ListenerSets.
fn is_gateway_of(parent: &Value, namespace: &str, attached: &Attached) -> bool {
    let text = |field: &str, default| parent[field].as_str().unwrap_or(default);
    let kind = text("kind", "Gateway");
    let name = DocumentName {
        kind: kind.into(),
        namespace: text("namespace", namespace).into(),
        name: text("name", "").into(),
    };
    listener_set::group_of(kind) == Some(text("group", GATEWAY_GROUP)) && attached.holders.contains_key(&name)
}

/// Whether a route is for callers of a Service inside the mesh.
pub(super) fn is_service(parent: &Value) -> bool {
    parent["kind"] == "Service" && matches!(parent["group"].as_str(), None | Some("" | "core"))
}

/// `Accepted` and `ResolvedRefs` of the parent at `index`, and `PartiallyInvalid` where a part of the route has no effect
/// (<https://gateway-api.sigs.k8s.io/reference/spec/#routeconditiontype>).
fn route_conditions(index: usize, problems: &[&Problem]) -> Vec<Value> {
    let accepted = accepted(index, problems);
    let partly = (accepted["status"] == "True").then(|| partially_invalid(problems)).flatten();
    [accepted, resolved_refs(problems)].into_iter().chain(partly).collect()
}

fn accepted(index: usize, problems: &[&Problem]) -> Value {
    let detached = |problem: &Problem| match problem.fault {
        Fault::Parent { index: at, why } if at == index => why.gateway_reason(),
        _ => None,
    };
    let refusal = |problem: &Problem| match problem.fault {
        Fault::Unusable => Some("UnsupportedValue"),
        Fault::IncompatibleFilters => Some("IncompatibleFilters"),
        _ => None,
    };
    let refused = |problem: &Problem| refusal(problem).filter(|_| is_error(problem));
    let those =
        |wanted: &dyn Fn(&Problem) -> bool| said(problems.iter().copied().filter(|problem| wanted(problem)));
    if let Some(reason) = problems.iter().find_map(|problem| detached(problem)) {
        return condition("Accepted", "False", reason, &those(&|problem| detached(problem).is_some()));
    }
    if let Some(reason) = problems.iter().find_map(|problem| refused(problem)) {
        return condition("Accepted", "False", reason, &those(&|problem| refused(problem).is_some()));
    }
    let in_part =
        |problem: &Problem| problem.fault == Fault::Parent { index, why: Detached::OverruledInPart };
    let message = those(&|problem| !is_error(problem) || in_part(problem));
    condition("Accepted", "True", "Accepted", if message.is_empty() { "in use" } else { &message })
}

fn resolved_refs(problems: &[&Problem]) -> Value {
    let unresolved = |problem: &Problem| match problem.fault {
        Fault::Backend(why) => Some(why),
        _ => None,
    };
    match problems.iter().find_map(|problem| unresolved(problem)) {
        None => condition("ResolvedRefs", "True", "ResolvedRefs", "every backend exists"),
        Some(why) => {
            let message = said(problems.iter().copied().filter(|problem| unresolved(problem).is_some()));
            condition("ResolvedRefs", "False", why.gateway_reason(), &message)
        }
    }
}

fn partially_invalid(problems: &[&Problem]) -> Option<Value> {
    let in_part =
        |problem: &&Problem| is_error(problem) && matches!(problem.fault, Fault::Part | Fault::Between);
    let mut parts = problems.iter().copied().filter(in_part).peekable();
    parts.peek()?;
    // What the Gateway API has every such message begin with.
    let message = shortened(&format!("Dropped Rule: {}", words(parts)));
    Some(condition("PartiallyInvalid", "True", "UnsupportedValue", &message))
}

pub(super) fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": shortened(message)})
}

fn same(this: &Value, other: &Value) -> bool {
    ["type", "status", "reason", "message"].iter().all(|field| this[field] == other[field])
}

/// `new` with the time of its last transition: that of `old` while the status is the same.
pub(super) fn dated(mut new: Value, old: Option<&Value>, now: &str) -> Value {
    let unchanged = old.filter(|old| old["status"] == new["status"]);
    let since = unchanged.and_then(|old| old["lastTransitionTime"].as_str()).unwrap_or(now);
    new["lastTransitionTime"] = since.into();
    new
}

#[cfg(test)]
mod tests;
