use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use super::*;
use crate::{
    problem::{DocumentName, Unresolved},
    resources::kinds::Feedback,
};

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
        alone: false,
        unresolved: None,
        overruled: false,
    }
}

fn parents_of(parents: &Value, problems: &[Problem], existing: &Value) -> Option<Value> {
    let problems: Vec<&Problem> = problems.iter().collect();
    let object = object(Feedback::Parents, parents.clone());
    super::parents(&object, &Verdict::of(&problems), &problems, existing, NOW)
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
fn each_field_in_trouble_has_its_condition() {
    let references = json!([service("a"), service("b")]);
    let conditions =
        |problem: Problem, index| facts(&parents_of(&references, &[problem], &json!({})).unwrap(), index);
    let backend = |why: Unresolved| {
        let problem = problem(Severity::Error, "spec.rules[0].backendRefs[1].name", "no");
        conditions(Problem { unresolved: Some(why), ..problem }, 0)
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
    let parent = other("spec.parentRefs[1].name", 1);
    assert_eq!(parent, [fact("Accepted", "False", "NoMatchingParent"), resolved.clone()]);
    assert_eq!(other("spec.parentRefs[1].name", 0), [accepted.clone(), resolved.clone()], "the other parent");
    let rule = other("spec.rules[0].matches", 0);
    let in_part = fact("PartiallyInvalid", "True", "UnsupportedValue");
    assert_eq!(rule, [accepted.clone(), resolved.clone(), in_part]);
    let refused = Problem { alone: true, ..problem(Severity::Error, "spec.rules[0].matches", "is wrong") };
    assert_eq!(conditions(refused, 0), [fact("Accepted", "False", "UnsupportedValue"), resolved.clone()]);
    let loser = problem(Severity::Error, "spec.parentRefs[1]", "another decides");
    let loser = Problem { overruled: true, ..loser };
    assert_eq!(conditions(loser.clone(), 1), [fact("Accepted", "False", "Conflicted"), resolved.clone()]);
    assert_eq!(conditions(loser, 0), [accepted, resolved]);
}

#[test]
fn a_transition_is_dated_when_the_status_changes_and_only_then() {
    let references = json!([service("a")]);
    let mut before = parents_of(&references, &[], &json!({})).unwrap();
    for condition in before["parents"][0]["conditions"].as_array_mut().unwrap() {
        condition["lastTransitionTime"] = json!(BEFORE);
    }

    let broken = problem(Severity::Error, "spec.rules[0].backendRefs[0].name", "no such service");
    let broken = [Problem { unresolved: Some(Unresolved::NoSuchHost), ..broken }];
    let after = parents_of(&references, &broken, &before).unwrap();

    let conditions = &after["parents"][0]["conditions"];
    assert_eq!(conditions[0]["lastTransitionTime"], BEFORE);
    assert_eq!(conditions[1]["lastTransitionTime"], NOW);
    assert_eq!(conditions[1]["message"], "spec.rules[0].backendRefs[0].name: no such service");
}

#[test]
fn a_route_of_a_gateway_or_of_a_kind_that_nothing_acts_on_is_not_ours() {
    assert_eq!(parents_of(&json!([{"name": "edge"}]), &[], &json!({})), None);
    let not_acted_on = [problem(Severity::NotActedOn, "", "TCPRoute is not acted on")];
    assert_eq!(parents_of(&json!([service("a")]), &not_acted_on, &json!({})), None);

    let old = parents_of(&json!([service("a")]), &[], &json!({})).unwrap();
    let gone = parents_of(&json!([{"name": "edge"}]), &[], &old).unwrap();
    assert_eq!(gone, json!({"parents": []}), "what we said is taken back");
}

#[test]
fn an_istio_kind_has_our_condition_beside_others() {
    let reconciled = json!({"type": "Reconciled", "status": "True"});
    let existing = json!({"conditions": [reconciled], "observedGeneration": "6"});
    let object = object(Feedback::Conditions, Value::Null);
    let broken = [problem(Severity::Error, "spec.http[0].route[0].destination.host", "nothing has it")];
    let problems: Vec<&Problem> = broken.iter().collect();

    let status = super::conditions(&object, &Verdict::of(&problems), &existing, NOW).unwrap();

    assert_eq!(status["observedGeneration"], "7");
    assert_eq!(status["conditions"][0], reconciled);
    assert_eq!(
        status["conditions"][1],
        json!({"type": "selvedge.io/Accepted", "status": "False", "reason": "Invalid",
               "message": "spec.http[0].route[0].destination.host: nothing has it",
               "lastTransitionTime": NOW})
    );
    assert_eq!(super::conditions(&object, &Verdict::of(&problems), &status, NOW), None);
    let fixed = super::conditions(&object, &Verdict::of(&[]), &status, NOW).unwrap();
    assert_eq!(fixed["conditions"][1]["reason"], "Accepted");
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
fn an_event_names_its_object_and_has_one_name_everywhere() {
    let object = object(Feedback::Events, Value::Null);
    let problem = problem(Severity::Warning, "spec.ports", "is doubtful");
    let name = event_name(&object, &problem);
    let at = UNIX_EPOCH + Duration::from_micros(1_500_000);

    let event = event(&object, &problem, &name, "replica-1", at);

    assert!(name.starts_with("a.") && name.len() == 18, "{name}");
    assert_eq!(event["eventTime"], "1970-01-01T00:00:01.500000Z");
    assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("Doubtful")));
    assert_eq!(event["note"], "spec.ports: is doubtful");
    assert_eq!(event["regarding"]["uid"], "u-1");
    assert_eq!(event["metadata"]["namespace"], "shop");
}

#[test]
fn a_long_message_is_cut_between_letters() {
    let long = shortened(&"é".repeat(2000));

    assert!(long.len() <= LONGEST && long.ends_with('…'));
}
