//! `selvedge check -o json` prints the status that the control plane writes in a cluster, as `tests/kubernetes/status.rs`
//! finds it there.

use std::{path::Path, process::Command};

use selvedge_tests::statuses::{DOCUMENTS, expected, lines, sorted};
use serde_json::{Value, json};

use crate::SELVEDGE;

fn check(directory: &Path, flags: &[&str]) -> Value {
    let mut command = Command::new(SELVEDGE);
    let output = command.args(["check", "--config-dir"]).arg(directory).args(flags).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn of_text(text: &str) -> Value {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("documents.yaml"), text).unwrap();
    check(directory.path(), &["-o", "json"])
}

fn statuses(report: &Value) -> &[Value] {
    report["statuses"].as_array().unwrap()
}

#[test]
fn every_condition_is_printed_with_its_reason_for_each_parent() {
    let report = of_text(DOCUMENTS);

    let found = statuses(&report).iter().flat_map(lines).collect();
    assert_eq!(sorted(found), expected());
    let valid = statuses(&report).iter().find(|one| one["metadata"]["name"] == "valid").unwrap();
    let mut valid = valid.clone();
    for condition in valid["status"]["parents"][0]["conditions"].as_array_mut().unwrap() {
        assert!(condition["lastTransitionTime"].as_str().unwrap().ends_with('Z'), "{condition}");
        condition["lastTransitionTime"] = "then".into();
    }
    let condition = |kind: &str, message: &str| {
        json!({
            "type": kind, "status": "True", "reason": kind, "message": message,
            "observedGeneration": 1, "lastTransitionTime": "then",
        })
    };
    assert_eq!(
        valid,
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"namespace": "mesh", "name": "valid", "generation": 1},
            "status": {"parents": [{
                "parentRef": {"group": "", "kind": "Service", "name": "echo", "port": 80},
                "controllerName": "selvedge.io/control-plane",
                "conditions": [
                    condition("Accepted", "in use"), condition("ResolvedRefs", "every backend exists"),
                ],
            }]},
        })
    );
}

#[test]
fn the_generation_that_a_document_says_is_the_one_observed() {
    let text =
        DOCUMENTS.replace("{name: valid, namespace: mesh}", "{name: valid, namespace: mesh, generation: 7}");
    let report = of_text(
        &text.replace("{name: right, namespace: mesh}", "{name: right, namespace: mesh, generation: 8}"),
    );

    let of = |name: &str| statuses(&report).iter().find(|one| one["metadata"]["name"] == name).unwrap();
    assert_eq!(of("valid")["status"]["parents"][0]["conditions"][0]["observedGeneration"], 7);
    // Istio's kinds have it as a text, beside their conditions.
    assert_eq!(of("right")["status"]["observedGeneration"], "8");
}

#[test]
fn a_loser_names_the_winner_and_the_port() {
    let report = of_text(DOCUMENTS);
    let said = |kind: &str, name: &str| {
        let named = |one: &&Value| one["kind"] == kind && one["metadata"]["name"] == name;
        statuses(&report).iter().find(named).unwrap()["status"].to_string()
    };

    for kind in ["HTTPRoute", "TLSRoute", "TCPRoute"] {
        let said = said(kind, "four");
        assert!(
            said.contains("has no effect on echo.mesh.svc.cluster.local:6000: GRPCRoute mesh/four"),
            "{said}"
        );
    }
    let in_part = said("HTTPRoute", "both-ports");
    assert!(in_part.contains("mixed.mesh.svc.cluster.local:6001: GRPCRoute mesh/one-port"), "{in_part}");
    let istio = said("VirtualService", "older");
    assert!(istio.contains("HTTPRoute mesh/newer"), "{istio}");
}

#[test]
fn of_two_documents_of_one_name_the_status_is_that_of_the_first() {
    let second = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
        metadata: {name: right, namespace: mesh}\nspec: {host: gone}\n";

    let report = of_text(&format!("{DOCUMENTS}---\n{second}"));

    let found: Vec<_> =
        statuses(&report).iter().filter(|one| one["metadata"]["name"] == "right").flat_map(lines).collect();
    assert_eq!(found, ["DestinationRule mesh/right: selvedge.io/Accepted True Accepted"]);
    assert!(report["problems"].to_string().contains("is defined twice"), "{report}");
}

#[test]
fn both_ways_to_ask_for_json_are_the_same() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n")
        .unwrap();

    assert_eq!(check(directory.path(), &["--json"]), check(directory.path(), &["--output=json"]));
}
