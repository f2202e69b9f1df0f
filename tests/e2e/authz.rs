//! `selvedge authz` as people call it: its matrix is what real sidecars answer, and its exit status says who breaks.

mod random;
mod seen;

use std::process::{Command, Output};

use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{Mesh, SOON, policies::recipes::EXERCISE_3, poll};
use serde_json::Value;

use crate::SELVEDGE;

/// Only `frontend` may call `other`, and only with GET.
const GET_ONLY: &str = "
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: default}
spec:
  selector: {matchLabels: {tier: other}}
  rules:
  - from: [{source: {serviceAccounts: [frontend]}}]
    to: [{operation: {methods: [GET]}}]
";

fn authz(mesh: &Mesh, words: &[&str]) -> Output {
    let mut command = Command::new(SELVEDGE);
    command.arg("authz").args(words).arg("--config-dir").arg(mesh.config_dir());
    command.output().expect("the command runs")
}

fn said(mesh: &Mesh, words: &[&str], status: i32) -> Value {
    let output = authz(mesh, words);
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The pairs of `list`, by the names of client and server.
fn outcomes<'a>(list: &'a Value, outcome: &str) -> Vec<(&'a str, &'a str, &'a str)> {
    let name = |text: &'a Value| text.as_str().and_then(|text| text.rsplit('/').next()).expect("a name");
    let one = |pair: &'a Value| (name(&pair["from"]), name(&pair["to"]), pair.pointer(outcome));
    let all = list.as_array().expect("a list").iter().map(one);
    all.map(|(from, to, outcome)| (from, to, outcome.and_then(Value::as_str).expect("an outcome"))).collect()
}

#[tokio::test]
async fn the_matrix_is_what_sidecars_answer() {
    let tier = |name: &str, port: u16| Spec::server(name, name, port).label("tier", name);
    let tiers = [tier("frontend", 8080), tier("backend", 8080), tier("database", 5432), tier("other", 8080)];
    let mesh = Mesh::of(SELVEDGE, tiers).await;
    let change = mesh.directory().join("change.yaml");
    let policies = EXERCISE_3.to_owned() + GET_ONLY;
    std::fs::write(&change, &policies).expect("a writable directory");
    let file = change.to_str().expect("a path");

    let tried = said(&mesh, &["try", "-o", "json", "-f", file], 1);
    let refused = outcomes(&tried["refused"], "/after/outcome");
    assert!(refused.contains(&("other", "database", "denied")), "{tried:#}");
    assert!(refused.contains(&("frontend", "other", "depends-on-the-request")), "{tried:#}");

    mesh.write("policies.yaml", &policies).expect("a writable directory");
    said(&mesh, &["try", "-o", "json", "-f", file], 0);
    let matrix = said(&mesh, &["matrix", "-o", "json"], 0);
    let pairs = outcomes(&matrix["pairs"], "/outcome");
    assert_eq!(pairs.len(), 12, "{matrix:#}");
    for (from, to, outcome) in pairs {
        let port = if to == "database" { 5432 } else { 8080 };
        let statuses: &[u16] = match outcome {
            "allowed" => &[200, 200],
            "denied" => &[403, 403],
            _ => &[200, 403],
        };
        answers(&mesh, from, &format!("{to}:{port}"), statuses).await;
    }
}

/// Waits until a GET and a DELETE of `from` are answered with these statuses.
async fn answers(mesh: &Mesh, from: &str, to: &str, statuses: &[u16]) {
    poll(SOON, &format!("{from} calls {to}: {statuses:?}"), async || {
        let mut answered = Vec::new();
        for method in [http::Method::GET, http::Method::DELETE] {
            let answer = mesh.workload(from).call(call::to(to, "/").method(method)).await;
            answered.push(answer.map_err(|error| error.to_string())?.status.as_u16());
        }
        if answered == statuses { Ok(()) } else { Err(format!("{answered:?}")) }
    })
    .await;
}

#[test]
fn documents_that_cannot_be_read_are_no_answer() {
    for words in [&["matrix"][..], &["try", "--strict"]] {
        let output = Command::new(SELVEDGE)
            .arg("authz")
            .args(words)
            .args(["--config-dir", "/nowhere/at/all"])
            .output();
        let output = output.expect("the command runs");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn a_change_that_selects_nothing_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let change = directory.path().join("change.yaml");
    std::fs::write(&change, GET_ONLY).expect("a writable directory");
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/policies");
    let mut command = Command::new(SELVEDGE);
    command.args(["authz", "try", "--config-dir", config, "-f"]).arg(&change);
    let output = command.output().expect("the command runs");

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("AuthorizationPolicy default/readers") && told.contains("selects no"), "{told}");
}
