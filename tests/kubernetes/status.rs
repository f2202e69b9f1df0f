//! What the status of objects says, and when: written by a control plane with the rights of the chart, beside what others
//! write there.

use std::process::Command;

use selvedge_tests::{
    SOON,
    kubernetes::ApiServer,
    poll,
    statuses::{DOCUMENTS, expected, lines, sorted},
};
use serde_json::{Value, json};

use crate::{SELVEDGE, control_plane::Prepared};

const GATEWAY: &str = "/apis/gateway.networking.k8s.io/v1";
const VALID: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/mesh/httproutes/valid";

/// Every kind of which the documents have one.
const WRITTEN: [&str; 8] = [
    "/apis/gateway.networking.k8s.io/v1/backendtlspolicies",
    "/apis/gateway.networking.x-k8s.io/v1alpha1/xbackendtrafficpolicies",
    "/apis/gateway.networking.k8s.io/v1/httproutes",
    "/apis/gateway.networking.k8s.io/v1/grpcroutes",
    "/apis/gateway.networking.k8s.io/v1/tlsroutes",
    "/apis/gateway.networking.k8s.io/v1alpha2/tcproutes",
    "/apis/networking.istio.io/v1/virtualservices",
    "/apis/networking.istio.io/v1/destinationrules",
];

/// Every object of those kinds.
async fn written(server: &ApiServer) -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    for path in WRITTEN {
        let list = server.api().get(path).await.map_err(|error| error.to_string())?;
        objects.extend(list["items"].as_array().into_iter().flatten().cloned());
    }
    Ok(objects)
}

/// Waits until an object is such.
async fn becomes(server: &ApiServer, path: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    poll(SOON, what, async || {
        let found = server.api().get(path).await.map_err(|error| error.to_string())?;
        if is_so(&found) { Ok(found) } else { Err(found["status"].to_string()) }
    })
    .await
}

/// The entries of `status.parents`, by who wrote them.
fn entries<'a>(object: &'a Value, controller: &str) -> Vec<&'a Value> {
    let parents = object["status"]["parents"].as_array().into_iter().flatten();
    parents.filter(|parent| parent["controllerName"] == controller).collect()
}

fn ours(object: &Value) -> Vec<&Value> {
    entries(object, "selvedge.io/control-plane")
}

/// Whether every condition of each of our entries has seen this generation.
fn has_observed(object: &Value, generation: i64) -> bool {
    let seen = |entry: &&Value| {
        let conditions = entry["conditions"].as_array().into_iter().flatten();
        conditions.clone().count() >= 2
            && conditions.clone().all(|condition| condition["observedGeneration"] == generation)
    };
    !ours(object).is_empty() && ours(object).iter().all(seen)
}

#[tokio::test]
async fn the_status_of_objects_says_what_became_of_them() {
    let Some(prepared) = Prepared::new().await else { return };
    let server = &prepared.server;
    server.apply(DOCUMENTS).await;
    let control_plane = prepared.start("replica-1").await;

    every_condition_is_written_as_check_prints_it(server).await;
    a_generation_follows_edits_and_a_transition_is_dated_when_it_comes(server).await;
    a_backend_that_comes_is_seen_without_an_edit(server).await;
    entries_of_others_stay_and_ours_go_with_their_parents(server).await;
    losers_win_when_the_winner_goes(server).await;
    control_plane.lacked_no_right(server).await;
}

async fn every_condition_is_written_as_check_prints_it(server: &ApiServer) {
    poll(SOON, "every object has its status", async || {
        let found = sorted(written(server).await?.iter().flat_map(lines).collect());
        let wanted = expected();
        if found == wanted {
            return Ok(());
        }
        let missing: Vec<_> = wanted.iter().filter(|line| !found.iter().any(|one| one == *line)).collect();
        Err(format!("not there: {missing:#?}\nthere: {found:#?}"))
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("documents.yaml"), DOCUMENTS).unwrap();
    let mut check = Command::new(SELVEDGE);
    let output = check.args(["check", "-o", "json", "--config-dir"]).arg(directory.path()).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for object in written(server).await.unwrap() {
        let same = |printed: &&Value| {
            printed["kind"] == object["kind"]
                && ["name", "namespace"].iter().all(|key| printed["metadata"][key] == object["metadata"][key])
        };
        let printed = report["statuses"].as_array().unwrap().iter().find(same).unwrap();
        assert_eq!(comparable(&printed["status"]), comparable(&object["status"]), "{}", object["metadata"]);
    }
}

/// Without what differs between a file and a cluster: when, and where another document stands.
fn comparable(status: &Value) -> Value {
    match status {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(key, _)| *key != "lastTransitionTime");
            kept.map(|(key, value)| (key.clone(), comparable(value))).collect()
        }
        Value::Array(items) => items.iter().map(comparable).collect(),
        Value::String(text) => without_places(text).into(),
        other => other.clone(),
    }
}

/// `text` without what stands in its brackets.
fn without_places(text: &str) -> String {
    let mut depth = 0;
    let outside = |letter: &char| {
        depth += i32::from(*letter == '(') - i32::from(*letter == ')');
        depth == 0
    };
    text.chars().filter(outside).collect()
}

async fn a_generation_follows_edits_and_a_transition_is_dated_when_it_comes(server: &ApiServer) {
    let before =
        becomes(server, VALID, "its first generation is observed", |route| has_observed(route, 1)).await;
    let backends = |name: &str| json!({"spec": {"rules": [{"backendRefs": [{"name": name, "port": 80}]}]}});
    server.api().merge(VALID, &backends("not-yet")).await.unwrap();

    let after = becomes(server, VALID, "the next one is observed", |route| has_observed(route, 2)).await;
    let [old, new] = [&before, &after].map(|route| ours(route)[0]["conditions"].clone());
    assert_eq!(
        lines(&after),
        ["HTTPRoute mesh/valid echo: Accepted True Accepted, ResolvedRefs False BackendNotFound"]
    );
    assert_eq!(old[0]["lastTransitionTime"], new[0]["lastTransitionTime"], "it is as it was");
    // Labels ask for nothing.
    server.api().merge(VALID, &json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    let labelled =
        becomes(server, VALID, "it has the label", |route| route["metadata"]["labels"]["a"] == "b").await;
    assert!(has_observed(&labelled, 2), "{labelled}");
}

async fn a_backend_that_comes_is_seen_without_an_edit(server: &ApiServer) {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: not-yet, namespace: mesh}\n\
         spec: {ports: [{name: http, port: 80}]}\n";
    server.apply(service).await;

    let resolved = |route: &Value| ours(route)[0]["conditions"][1]["status"] == "True";
    let found = becomes(server, VALID, "its backend is there", resolved).await;
    assert!(has_observed(&found, 2), "{found}");
}

async fn entries_of_others_stay_and_ours_go_with_their_parents(server: &ApiServer) {
    const OTHER: &str = "example.com/gateways";
    let mesh = json!({"group": "", "kind": "Service", "name": "echo", "port": 80});
    let edge = json!({"name": "edge"});
    let condition = json!({
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": "theirs",
        "observedGeneration": 2, "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let theirs = json!({"parentRef": edge, "controllerName": OTHER, "conditions": [condition]});
    let route = server.api().get(VALID).await.unwrap();
    let mut parents = route["status"]["parents"].as_array().unwrap().clone();
    parents.insert(0, theirs.clone());
    let status = json!({"status": {"parents": parents}});
    server.api().merge(&format!("{VALID}/status"), &status).await.unwrap();

    let both = json!({"spec": {"parentRefs": [edge, mesh]}});
    server.api().merge(VALID, &both).await.unwrap();
    let found = becomes(server, VALID, "the third one is observed", |route| has_observed(route, 3)).await;
    assert_eq!(entries(&found, OTHER), [&theirs]);
    assert_eq!(ours(&found).iter().map(|entry| &entry["parentRef"]).collect::<Vec<_>>(), [&mesh]);

    server.api().merge(VALID, &json!({"spec": {"parentRefs": [edge]}})).await.unwrap();
    let found = becomes(server, VALID, "our entry is gone", |route| ours(route).is_empty()).await;
    assert_eq!(entries(&found, OTHER), [&theirs]);

    let ports = [json!({"group": "", "kind": "Service", "name": "echo", "port": 81}), mesh];
    server.api().merge(VALID, &json!({"spec": {"parentRefs": ports}})).await.unwrap();
    let found = becomes(server, VALID, "an entry for each parent", |route| ours(route).len() == 2).await;
    let accepted = |index: usize| {
        let condition = &ours(&found)[index]["conditions"][0];
        (condition["status"].as_str().unwrap(), condition["reason"].as_str().unwrap())
    };
    assert_eq!([accepted(0), accepted(1)], [("False", "NoMatchingParent"), ("True", "Accepted")]);
    assert_eq!(entries(&found, OTHER), [&theirs]);
}

async fn losers_win_when_the_winner_goes(server: &ApiServer) {
    server.api().delete(&format!("{GATEWAY}/namespaces/mesh/grpcroutes/four")).await.unwrap();
    server.api().delete(&format!("{GATEWAY}/namespaces/mesh/httproutes/newer")).await.unwrap();

    let four = |kind: &str| format!("{GATEWAY}/namespaces/mesh/{kind}/four");
    let reason =
        |wanted: &'static str| move |route: &Value| ours(route)[0]["conditions"][0]["reason"] == wanted;
    becomes(server, &four("httproutes"), "the next in rank decides", reason("Accepted")).await;
    let still = server.api().get(&four("tlsroutes")).await.unwrap();
    assert_eq!(ours(&still)[0]["conditions"][0]["reason"], "Conflicted");
    let older = "/apis/networking.istio.io/v1/namespaces/mesh/virtualservices/older";
    becomes(server, older, "the VirtualService decides again", |object| {
        object["status"]["conditions"][0]["reason"] == "Accepted"
    })
    .await;
}
