//! What the status of a policy of the Gateway API says: one entry for each ancestor, whose controller follows the policy there
//! (<https://gateway-api.sigs.k8s.io/geps/gep-713/#policy-status>). Pure.

use serde_json::{Value, json};

use super::conditions::{CONTROLLER, condition, dated, is_error, is_service, said};
use crate::{
    problem::{Fault, PolicyFault, Problem},
    resources::{Object, gateway_class},
};

/// The kind of policy that names other objects than its targets, and is told whether those are there.
const NAMES_OBJECTS: &str = "BackendTLSPolicy";

/// So many entries an API server keeps.
const MOST_ANCESTORS: usize = 16;

/// The status that `policy`, which has these references to its ancestors, should have where it has `existing`. `None`: it has
/// that already. What other controllers say there stays.
pub(super) fn status(
    policy: &Object,
    ancestors: &[Value],
    problems: &[&Problem],
    existing: &Value,
    now: &str,
) -> Option<Value> {
    let before = existing["ancestors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_ours = |entry: &&Value| {
        entry["controllerName"] == CONTROLLER || entry["controllerName"] == gateway_class::CONTROLLER
    };
    let others: Vec<Value> = before.iter().filter(|entry| !is_ours(entry)).cloned().collect();
    let places = MOST_ANCESTORS.saturating_sub(others.len());
    let ours = ancestors.iter().take(places).map(|reference| {
        let controller = if is_service(reference) { CONTROLLER } else { gateway_class::CONTROLLER };
        let old = before.iter().filter(is_ours).find(|entry| entry["ancestorRef"] == *reference);
        let resolved = (&*policy.name.kind == NAMES_OBJECTS).then(|| resolved_refs(problems));
        let conditions = [accepted(problems)].into_iter().chain(resolved).map(|mut new| {
            new["observedGeneration"] = policy.generation.into();
            let listed = old.and_then(|old| old["conditions"].as_array());
            let old = listed.and_then(|list| list.iter().find(|old| old["type"] == new["type"]));
            dated(new, old, now)
        });
        let conditions: Vec<Value> = conditions.collect();
        json!({"ancestorRef": reference, "controllerName": controller, "conditions": conditions})
    });
    let ours: Vec<Value> = ours.collect();
    let all: Vec<Value> = others.into_iter().chain(ours).collect();
    (all.as_slice() != before).then(|| json!({ "ancestors": all }))
}

fn accepted(problems: &[&Problem]) -> Value {
    let refusal = |problem: &Problem| match problem.fault {
        _ if !is_error(problem) => None,
        Fault::Policy(PolicyFault::NoTarget) => Some("TargetNotFound"),
        Fault::Policy(PolicyFault::NoAuthority) => Some("NoValidCACertificate"),
        Fault::Overruled => Some("Conflicted"),
        Fault::Policy(PolicyFault::Authority { .. }) => None,
        _ => Some("Invalid"),
    };
    let reason = problems.iter().find_map(|problem| refusal(problem));
    let those = problems.iter().copied();
    match reason {
        Some(reason) => {
            let message = said(those.filter(|problem| refusal(problem).is_some()));
            condition("Accepted", "False", reason, &message)
        }
        None => {
            let message = said(those.filter(|problem| !is_error(problem)));
            condition("Accepted", "True", "Accepted", if message.is_empty() { "in use" } else { &message })
        }
    }
}

fn resolved_refs(problems: &[&Problem]) -> Value {
    let unresolved = |problem: &Problem| match problem.fault {
        Fault::Policy(PolicyFault::Authority { is_kind: true }) => Some("InvalidKind"),
        Fault::Policy(PolicyFault::Authority { is_kind: false }) => Some("InvalidCACertificateRef"),
        _ => None,
    };
    match problems.iter().find_map(|problem| unresolved(problem)) {
        None => condition("ResolvedRefs", "True", "ResolvedRefs", "everything that it names exists"),
        Some(reason) => {
            let message = said(problems.iter().copied().filter(|problem| unresolved(problem).is_some()));
            condition("ResolvedRefs", "False", reason, &message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        problem::{DocumentName, Severity},
        resources::kinds::Feedback,
    };

    const NOW: &str = "2026-01-02T00:00:00Z";

    fn policy(generation: i64) -> Object {
        Object {
            name: DocumentName {
                kind: "BackendTLSPolicy".into(),
                namespace: "shop".into(),
                name: "tls".into(),
            },
            feedback: Feedback::Ancestors,
            api_version: "gateway.networking.k8s.io/v1".into(),
            uid: "u-1".into(),
            generation,
            parents: None,
        }
    }

    fn problem(fault: Fault) -> Problem {
        Problem {
            severity: Severity::Error,
            document: None,
            path: None,
            line: None,
            field: "spec".to_owned(),
            message: "is wrong".to_owned(),
            fault,
        }
    }

    /// The status of `policy` with the ancestors of every case.
    fn told(policy: &Object, problems: &[&Problem], existing: &Value, now: &str) -> Option<Value> {
        let ancestors = [
            json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "edges", "name": "ours"}),
            json!({"group": "", "kind": "Service", "name": "shop"}),
        ];
        status(policy, &ancestors, problems, existing, now)
    }

    /// The reasons of both conditions at the first ancestor.
    fn reasons(faults: &[Fault]) -> [String; 2] {
        let problems: Vec<Problem> = faults.iter().map(|fault| problem(*fault)).collect();
        let status = told(&policy(1), &problems.iter().collect::<Vec<_>>(), &Value::Null, NOW).unwrap();
        let reason = |index: usize| {
            let condition = &status["ancestors"][0]["conditions"][index];
            format!("{} {}", condition["status"].as_str().unwrap(), condition["reason"].as_str().unwrap())
        };
        [reason(0), reason(1)]
    }

    #[test]
    fn each_ancestor_has_its_controller_and_what_others_say_stays() {
        let theirs =
            json!({"ancestorRef": {"name": "x"}, "controllerName": "example.com/edge", "conditions": []});
        let first = told(&policy(3), &[], &json!({ "ancestors": [theirs] }), NOW).unwrap();

        let controllers: Vec<&Value> =
            first["ancestors"].as_array().unwrap().iter().map(|entry| &entry["controllerName"]).collect();
        assert_eq!(controllers, ["example.com/edge", gateway_class::CONTROLLER, CONTROLLER]);
        assert_eq!(first["ancestors"][1]["conditions"][0]["observedGeneration"], 3);
        assert_eq!(told(&policy(3), &[], &first, "2026-01-03T00:00:00Z"), None, "nothing is new");
        let later = told(&policy(4), &[], &first, "2026-01-03T00:00:00Z").unwrap();
        assert_eq!(later["ancestors"][1]["conditions"][0]["lastTransitionTime"], NOW);
        assert_eq!(later["ancestors"][1]["conditions"][0]["observedGeneration"], 4);
    }

    #[test]
    fn reasons_are_those_of_the_gateway_api() {
        let authority = |is_kind| Fault::Policy(PolicyFault::Authority { is_kind });
        let none = Fault::Policy(PolicyFault::NoAuthority);
        let resolved = "True ResolvedRefs";
        for (faults, expected) in [
            (vec![], ["True Accepted", resolved]),
            (vec![authority(false), none], ["False NoValidCACertificate", "False InvalidCACertificateRef"]),
            (vec![authority(true), none], ["False NoValidCACertificate", "False InvalidKind"]),
            (vec![authority(false)], ["True Accepted", "False InvalidCACertificateRef"]),
            (vec![Fault::Overruled], ["False Conflicted", resolved]),
            (vec![Fault::Policy(PolicyFault::NoTarget)], ["False TargetNotFound", resolved]),
            (vec![Fault::Unusable], ["False Invalid", resolved]),
        ] {
            assert_eq!(reasons(&faults), expected, "{faults:?}");
        }
    }

    #[test]
    fn an_api_server_keeps_so_many_entries_and_no_more() {
        let others: Vec<Value> =
            (0..16).map(|index| json!({"ancestorRef": {"name": index}, "controllerName": "x"})).collect();
        assert_eq!(told(&policy(1), &[], &json!({ "ancestors": others }), NOW), None);
    }
}
