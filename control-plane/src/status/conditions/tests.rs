use std::sync::Arc;

use super::*;
use crate::{compile::HolderFacts, problem::Unresolved};

const NOW: &str = "2026-01-02T00:00:00Z";
const BEFORE: &str = "2026-01-01T00:00:00Z";

fn object(feedback: Feedback, parents: Value) -> Object {
    Object {
        name: DocumentName { kind: "TCPRoute".into(), namespace: "shop".into(), name: "a".into() },
        feedback,
        api_version: "gateway.networking.k8s.io/v1alpha2".into(),
        uid: "u-1".into(),
        generation: 7,
        parents: Some(Arc::new(parents)),
    }
}

fn problem(severity: Severity, field: &str, message: &str) -> Problem {
    Problem {
        severity,
        document: None,
        path: None,
        line: None,
        field: field.to_owned(),
        message: message.to_owned(),
        fault: Fault::Between,
    }
}

fn parents_of(parents: &Value, problems: &[Problem], existing: &Value) -> Option<Value> {
    let problems: Vec<&Problem> = problems.iter().collect();
    let object = object(Feedback::Parents, parents.clone());
    Verdict::of(&problems).status(&object, &problems, &attached(), existing, NOW)
}

/// The one Gateway that is ours.
fn attached() -> Attached {
    let name = DocumentName { kind: "Gateway".into(), namespace: "edges".into(), name: "ours".into() };
    let facts =
        HolderFacts { gateway: ("edges".into(), "ours".into()), routes: Some(vec![1]), overlaps: vec![None] };
    Attached { holders: [(name, facts)].into(), ..Attached::default() }
}

/// Type, status and reason of every condition of our parent at `index`.
fn facts(status: &Value, index: usize) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let conditions = status["parents"][index]["conditions"].as_array().unwrap();
    let fact = |one: &Value| (text(&one["type"]), text(&one["status"]), text(&one["reason"]));
    conditions.iter().map(fact).collect()
}

fn fact(kind: &str, status: &str, reason: &str) -> (String, String, String) {
    (kind.to_owned(), status.to_owned(), reason.to_owned())
}

fn service(name: &str) -> Value {
    json!({"group": "", "kind": "Service", "name": name})
}

#[test]
fn a_route_in_use_is_accepted_for_each_service_and_others_words_stay() {
    let gateway =
        json!({"parentRef": {"name": "edge"}, "controllerName": "example.com/edge", "conditions": []});
    let references = json!([{"name": "edge"}, service("a")]);

    let status = parents_of(&references, &[], &json!({"parents": [gateway]})).unwrap();

    assert_eq!(status["parents"][0], gateway);
    assert_eq!(status["parents"][1]["parentRef"], service("a"));
    assert_eq!(status["parents"][1]["controllerName"], CONTROLLER);
    assert_eq!(
        facts(&status, 1),
        [fact("Accepted", "True", "Accepted"), fact("ResolvedRefs", "True", "ResolvedRefs")]
    );
    assert_eq!(status["parents"][1]["conditions"][0]["observedGeneration"], 7);
    assert_eq!(status["parents"][1]["conditions"][0]["lastTransitionTime"], NOW);
    assert_eq!(parents_of(&references, &[], &status), None, "it says so already");
}

#[test]
fn what_others_say_of_a_route_at_our_parent_stays() {
    let references = json!([service("a")]);
    let mut status = parents_of(&references, &[], &json!({})).unwrap();
    let foreign = json!({"type": "example.com/Policed", "status": "True", "reason": "Policed"});
    status["parents"][0]["conditions"].as_array_mut().unwrap().push(foreign.clone());
    assert_eq!(parents_of(&references, &[], &status), None);

    let broken = problem(Severity::Error, "spec", "no");
    let changed = parents_of(&references, &[Problem { fault: Fault::Unusable, ..broken }], &status).unwrap();

    let conditions = changed["parents"][0]["conditions"].as_array().unwrap();
    assert_eq!((conditions.len(), conditions.last()), (3, Some(&foreign)), "{conditions:?}");
    assert_eq!(conditions[0]["status"], "False");
}

#[test]
fn each_field_in_trouble_has_its_condition() {
    let references = json!([service("a"), service("b")]);
    let conditions =
        |problem: Problem, index| facts(&parents_of(&references, &[problem], &json!({})).unwrap(), index);
    let backend = |why: Unresolved| {
        let problem = problem(Severity::Error, "spec.rules[0].backendRefs[1].name", "no");
        conditions(Problem { fault: Fault::Backend(why), ..problem }, 0)
    };
    let other = |field: &str, index| conditions(problem(Severity::Error, field, "no"), index);
    let resolved = fact("ResolvedRefs", "True", "ResolvedRefs");
    let accepted = fact("Accepted", "True", "Accepted");

    for (why, reason) in [
        (Unresolved::NoSuchHost, "BackendNotFound"),
        (Unresolved::NoSuchPort, "BackendNotFound"),
        (Unresolved::UnsupportedKind, "InvalidKind"),
        (Unresolved::NotPermitted, "RefNotPermitted"),
    ] {
        assert_eq!(backend(why), [accepted.clone(), fact("ResolvedRefs", "False", reason)], "{why:?}");
    }
    for (why, reason) in [
        (Detached::NoSuchParent, "NoMatchingParent"),
        (Detached::OtherProtocol, "NoMatchingParent"),
        (Detached::GivenTwice, "UnsupportedValue"),
        (Detached::Overruled, "Conflicted"),
    ] {
        let parent = problem(Severity::Error, "spec.parentRefs[1]", "no");
        let parent = Problem { fault: Fault::Parent { index: 1, why }, ..parent };
        let refused = [fact("Accepted", "False", reason), resolved.clone()];
        assert_eq!(conditions(parent.clone(), 1), refused, "{why:?}");
        assert_eq!(conditions(parent, 0), [accepted.clone(), resolved.clone()], "the other parent");
    }
    let rule = other("spec.rules[0].matches", 0);
    let in_part = fact("PartiallyInvalid", "True", "UnsupportedValue");
    assert_eq!(rule, [accepted.clone(), resolved.clone(), in_part]);
    for (fault, reason) in
        [(Fault::Unusable, "UnsupportedValue"), (Fault::IncompatibleFilters, "IncompatibleFilters")]
    {
        let refused = Problem { fault, ..problem(Severity::Error, "spec.rules[0].matches", "is wrong") };
        assert_eq!(conditions(refused, 0), [fact("Accepted", "False", reason), resolved.clone()]);
    }
    let loser = problem(Severity::Error, "spec.parentRefs[1]", "another decides");
    let in_part = Fault::Parent { index: 1, why: Detached::OverruledInPart };
    let loser = Problem { fault: in_part, ..loser };
    assert_eq!(conditions(loser, 1), [accepted, resolved], "elsewhere it decides");
}

#[test]
fn a_transition_is_dated_when_the_status_changes_and_only_then() {
    let references = json!([service("a")]);
    let mut before = parents_of(&references, &[], &json!({})).unwrap();
    for condition in before["parents"][0]["conditions"].as_array_mut().unwrap() {
        condition["lastTransitionTime"] = json!(BEFORE);
    }

    let broken = problem(Severity::Error, "spec.rules[0].backendRefs[0].name", "no such service");
    let broken = [Problem { fault: Fault::Backend(Unresolved::NoSuchHost), ..broken }];
    let after = parents_of(&references, &broken, &before).unwrap();

    let conditions = &after["parents"][0]["conditions"];
    assert_eq!(conditions[0]["lastTransitionTime"], BEFORE);
    assert_eq!(conditions[1]["lastTransitionTime"], NOW);
    assert_eq!(conditions[1]["message"], "spec.rules[0].backendRefs[0].name: no such service");
}

#[test]
fn a_route_of_a_gateway_or_of_a_kind_that_nothing_acts_on_is_not_ours() {
    assert_eq!(parents_of(&json!([{"name": "edge"}]), &[], &json!({})), None);
    let not_acted_on = problem(Severity::NotActedOn, "", "TCPRoute is not acted on");
    let not_acted_on = [Problem { fault: Fault::Unusable, ..not_acted_on }];
    assert_eq!(parents_of(&json!([service("a")]), &not_acted_on, &json!({})), None);

    let old = parents_of(&json!([service("a")]), &[], &json!({})).unwrap();
    let gone = parents_of(&json!([{"name": "edge"}]), &[], &old).unwrap();
    assert_eq!(gone, json!({"parents": []}), "what we said is taken back");
}

#[test]
fn a_route_of_a_gateway_of_ours_is_told_by_its_controller() {
    let gateway = json!({"name": "ours", "namespace": "edges", "sectionName": "http"});
    let refused = problem(Severity::Error, "spec.parentRefs[1]", "the listener takes no HTTPRoute");
    let fault = Fault::Parent { index: 1, why: Detached::NotAllowed };

    let status =
        parents_of(&json!([service("a"), gateway]), &[Problem { fault, ..refused }], &json!({})).unwrap();

    let controllers = ["selvedge.io/control-plane", "selvedge.io/gateway"];
    for (index, controller) in controllers.iter().enumerate() {
        assert_eq!(status["parents"][index]["controllerName"], *controller);
    }
    assert_eq!(facts(&status, 0)[0], fact("Accepted", "True", "Accepted"));
    assert_eq!(facts(&status, 1)[0], fact("Accepted", "False", "NotAllowedByListeners"));
    assert_eq!(parents_of(&json!([{"name": "ours"}]), &[], &json!({})), None, "that of its own namespace");
}

#[test]
fn an_istio_kind_has_our_condition_beside_others() {
    let reconciled = json!({"type": "Reconciled", "status": "True"});
    let existing = json!({"conditions": [reconciled], "observedGeneration": "6"});
    let object = object(Feedback::Conditions, Value::Null);
    let broken = [problem(Severity::Error, "spec.http[0].route[0].destination.host", "nothing has it")];
    let problems: Vec<&Problem> = broken.iter().collect();

    let status = Verdict::of(&problems).status(&object, &problems, &attached(), &existing, NOW).unwrap();

    assert_eq!(status["observedGeneration"], "7");
    assert_eq!(status["conditions"][0], reconciled);
    assert_eq!(
        status["conditions"][1],
        json!({"type": "selvedge.io/Accepted", "status": "False", "reason": "Invalid",
               "message": "spec.http[0].route[0].destination.host: nothing has it",
               "lastTransitionTime": NOW})
    );
    assert_eq!(Verdict::of(&problems).status(&object, &problems, &attached(), &status, NOW), None);
    let fixed = Verdict::of(&[]).status(&object, &[], &attached(), &status, NOW).unwrap();
    assert_eq!(fixed["conditions"][1]["reason"], "Accepted");
}

#[test]
fn a_document_that_only_loses_to_others_says_so() {
    let loser = problem(Severity::Error, "spec.http", "another decides");
    let loser = Problem { fault: Fault::Overruled, ..loser };
    let other = problem(Severity::Error, "spec.hosts[0]", "no such host");

    assert_eq!(Verdict::of(&[&loser]).reason(), "Conflicted");
    assert_eq!(Verdict::of(&[&loser, &other]).reason(), "Invalid");
}

#[test]
fn a_part_without_effect_is_told_as_the_gateway_api_wants_it_told() {
    let part = [problem(Severity::Error, "spec.rules[0].filters[0]", "no such kind")];
    let status = parents_of(&json!([service("a")]), &part, &json!({})).unwrap();

    let message = &status["parents"][0]["conditions"][2]["message"];
    assert_eq!(message, "Dropped Rule: spec.rules[0].filters[0]: no such kind");
}

#[test]
fn warnings_leave_a_document_accepted_in_part() {
    let warned =
        [problem(Severity::Warning, "spec.x", "maybe"), problem(Severity::NotActedOn, "spec.y", "no")];
    let verdict = Verdict::of(&warned.iter().collect::<Vec<_>>());

    assert_eq!((verdict.reason(), verdict.is_accepted()), ("AcceptedInPart", true));
    assert_eq!(verdict.message, "spec.x: maybe; spec.y: no");
}

#[test]
fn a_long_message_is_cut_between_letters() {
    let long = shortened(&"é".repeat(2000));

    assert!(long.len() <= LONGEST && long.ends_with('…'));
}
