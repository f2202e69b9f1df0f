//! `selvedge explain request` as people call it: what it prints, and its exit status.

mod agrees;
mod gateways;
mod random;
mod tokens;

use std::process::{Command, Output};

use serde_json::Value;

use crate::SELVEDGE;

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/canary/config");

fn explain(directory: &str, more: &[&str]) -> Output {
    let mut command = Command::new(SELVEDGE);
    command.args(["explain", "request", "--config-dir", directory, "--from", "default/frontend"]).args(more);
    command.output().expect("the command runs")
}

#[test]
fn the_exit_status_says_whether_the_request_would_be_sent() {
    let (nowhere, registry_only) = ("http://nowhere/", ["--outbound-traffic-policy", "registry-only"]);
    for (directory, more, status) in [
        (CONFIG, vec!["--to", nowhere], 0),
        (CONFIG, [&["--to", nowhere], &registry_only[..]].concat(), 1),
        // No document of the example declares an endpoint.
        (CONFIG, vec!["--to", "http://reviews:9080/"], 1),
        (CONFIG, vec!["--to", "reviews"], 2),
        (CONFIG, vec![], 2),
        ("/nowhere/at/all", vec!["--to", nowhere], 2),
        (CONFIG, vec!["--to", nowhere, "-X", "A B"], 2),
    ] {
        let output = explain(directory, &more);
        assert_eq!(output.status.code(), Some(status), "{more:?}: {output:?}");
        assert_eq!(output.stdout.is_empty(), status == 2, "{output:?}");
        assert_eq!(output.stderr.is_empty(), status != 2, "{output:?}");
    }
}

#[test]
fn a_cluster_that_cannot_be_reached_is_no_answer() {
    let mut command = Command::new(SELVEDGE);
    command.args([
        "explain",
        "request",
        "--kubeconfig",
        "/nowhere/at/all",
        "--from",
        "a/b",
        "--to",
        "http://c/",
    ]);
    let output = command.output().expect("the command runs");

    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/nowhere/at/all") && said.contains("give --config-dir"), "{said}");
}

#[test]
fn json_names_the_document_and_its_line() {
    let output = explain(CONFIG, &["--to", "http://reviews:9080/", "-H", "end-user: jason", "-o", "json"]);
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");

    let written = &said["rule"]["written"];
    assert_eq!(written["document"]["name"], "reviews");
    assert!(written["path"].as_str().is_some_and(|path| path.ends_with("/virtualservice.yaml")), "{said:#}");
    assert_eq!(written["field"], "spec.http[0]");
    assert!(written["line"].is_u64());
    assert_eq!(said["answer"]["error"], "no-endpoint");
}

#[test]
fn the_exit_status_says_whether_the_connection_would_be_let_in() {
    let directory = tempfile::tempdir().expect("a directory");
    let entry = |name: &str, host: u8| {
        format!(
            "---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}, annotations: {{config.selvedge.io/inbound: '127.0.0.{host}:4143'}}}}
spec:
  address: 127.0.0.{host}
  labels: {{app: {name}, security.istio.io/tlsMode: istio}}
  ports: {{http: 9080}}
  serviceAccount: {name}
"
        )
    };
    let policy = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: read-only}
spec:
  selector: {matchLabels: {app: vault}}
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/web]}}], to: [{operation: {methods: [GET]}}]}]
";
    let documents = [&*entry("web", 1), &entry("vault", 2), &entry("other", 3), policy].concat();
    std::fs::write(directory.path().join("mesh.yaml"), documents).expect("a file");
    let directory = directory.path().to_str().expect("a path");
    let ask = |from: &str, more: &[&str]| {
        let mut command = Command::new(SELVEDGE);
        command.args(["explain", "connection", "--config-dir", directory, "--from", from]);
        command.args(["--to", "default/vault:9080"]).args(more).output().expect("the command runs")
    };

    for (from, more, status) in [
        ("default/web", &[][..], 1),
        ("default/web", &["-X", "GET"], 0),
        ("default/web", &["-X", "POST"], 1),
        ("default/other", &[], 1),
        ("nobody", &[], 2),
    ] {
        let output = ask(from, more);
        assert_eq!(output.status.code(), Some(status), "{from} {more:?}: {output:?}");
        assert_eq!(output.stdout.is_empty(), status == 2, "{output:?}");
    }
    let said: Value = serde_json::from_slice(&ask("default/web", &["-o", "json"]).stdout).expect("JSON");
    assert_eq!(said["outcome"], "depends-on-the-request");
    assert_eq!(said["places"][0]["destination"][1]["asked"], "AuthorizationPolicy", "{said:#}");
}
