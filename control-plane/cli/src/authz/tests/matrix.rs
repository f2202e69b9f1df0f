//! What the matrix says, and in which forms.

use std::path::Path;

use selvedge_control_plane::{compile::MeshSettings, resources::Resources};
use selvedge_model::Mesh;

use super::{
    BY_SERVICE_ACCOUNT, DENY_ALL, EXERCISE_3, LINKERD, STRICT, STRICT_BUT_ONE_PORT, filtered, matrix, meshed,
    plain, tiers, vault,
};
use crate::authz::{self, compile, trying};

#[test]
fn the_matrix_of_exercise_3() {
    insta::assert_snapshot!(matrix(&[&tiers(), EXERCISE_3], "table"));
}

#[test]
fn the_matrix_of_policies_of_istio() {
    insta::assert_snapshot!(matrix(&[&vault(), BY_SERVICE_ACCOUNT, STRICT], "table"));
}

#[test]
fn a_port_of_its_own_mode() {
    let reviews = [meshed("reviews", 1, "{http: 9080, tcp-metrics: 9090}"), plain("legacy", 2)].concat();
    insta::assert_snapshot!(matrix(&[&reviews, STRICT_BUT_ONE_PORT], "table"));
}

#[test]
fn routes_of_a_server_of_linkerd_depend_on_the_request() {
    let voting = [meshed("voting", 1, "{http: 8080}"), meshed("web", 2, "{}"), plain("legacy", 3)].concat();
    insta::assert_snapshot!(matrix(&[&voting, LINKERD], "table"));
}

#[test]
fn a_picture_shows_what_is_not_denied() {
    insta::assert_snapshot!(matrix(&[&vault(), BY_SERVICE_ACCOUNT], "dot"));
}

#[test]
fn json_has_one_object_for_each_pair() {
    let text = matrix(&[&tiers(), EXERCISE_3], "json");
    let said: serde_json::Value = serde_json::from_str(&text).unwrap();
    let pairs = said["pairs"].as_array().unwrap();

    crate::documented::is_documented("authz", &said);
    assert_eq!(pairs.len(), 12, "{text}");
    let denied = pairs.iter().find(|one| one["from"] == "default/frontend" && one["port"] == 5432).unwrap();
    assert_eq!(denied["outcome"], "denied");
    assert_eq!(denied["mutual_tls"], true);
    assert!(denied["rule"].as_str().unwrap().contains("NetworkPolicy default/database-policy"), "{denied}");
    assert!(denied["why"].is_string());
}

#[test]
fn a_gateway_calls_with_its_own_identity() {
    let gateway = "---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: edge-1, annotations: {config.selvedge.io/gateway: default/edge}}
spec: {address: 127.0.0.9, serviceAccount: web}
---
";
    let text = matrix(&[&vault(), gateway, BY_SERVICE_ACCOUNT, STRICT], "table");
    let outcome = |from: &str| {
        let line = text.lines().find(|line| line.starts_with(from) && line.contains(" 9090 "));
        line.unwrap_or_else(|| panic!("{from}: {text}")).to_owned()
    };

    // It has the ServiceAccount of another workload, so both are let in by the same rule.
    let (sidecar, edge) = (outcome("default/web "), outcome("default/edge-1 "));
    let rest = |line: &str| line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(rest(&edge), rest(&sidecar));
}

#[test]
fn who_is_revoked_is_denied() {
    let revocation = "apiVersion: selvedge.io/v1alpha1
kind: Revocation
metadata: {name: stolen}
spec: {workloads: [web], reason: stolen}
";
    let text = matrix(&[&vault(), revocation], "table");

    let line = text.lines().find(|line| line.starts_with("default/web ") && line.contains(" 9090 ")).unwrap();
    assert!(line.contains("denied") && line.contains("Revocation default/stolen"), "{line}");
}

#[test]
fn a_port_of_opaque_bytes_never_depends_on_requests() {
    let service = "apiVersion: v1
kind: Service
metadata: {name: metrics}
spec: {selector: {app: vault}, ports: [{name: tcp-metrics, port: 9090}]}
";
    let text = matrix(&[&vault(), service, BY_SERVICE_ACCOUNT], "table");

    let line = text.lines().find(|line| line.starts_with("default/web ") && line.contains("9090")).unwrap();
    assert!(line.contains("denied"), "{line}");
}

#[test]
fn a_port_that_passes_by_the_sidecar_lets_everybody_in() {
    let pod = |name: &str, host: u8, annotations: &str| {
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}, selvedge.io/sidecar: injected}}, annotations: {annotations}}}
spec: {{serviceAccountName: {name}, containers: [{{name: a, ports: [{{containerPort: 80}}, {{containerPort: 90}}]}}]}}
status: {{phase: Running, podIP: 10.1.0.{host}}}
---
"
        )
    };
    let documents = [
        pod("vault", 1, "{config.selvedge.io/skip-inbound-ports: '90'}"),
        pod("web", 2, "{}"),
        DENY_ALL.to_owned(),
    ]
    .concat();
    let settings = MeshSettings::default();
    let mut resources = Resources::default();
    trying::put(&mut resources, &documents, Path::new("mesh.yaml"), &settings).unwrap();
    let matrix = authz::matrix::of(&compile(&resources, &settings, &Mesh::default()).0);
    let to_vault: Vec<(u16, &str, bool)> = matrix
        .iter()
        .filter(|(pair, _)| pair.to == "default/vault")
        .map(|(pair, cell)| (pair.port, cell.outcome().word(), cell.mutual_tls))
        .collect();

    assert_eq!(to_vault, [(80, "denied", true), (90, "allowed", false)]);
}

#[test]
fn without_a_sidecar_there_is_no_matrix() {
    assert!(matrix(&[&plain("legacy", 1)], "table").starts_with("there are no two workloads"));
}

#[test]
fn the_matrix_may_be_of_some_clients_and_servers_only() {
    let pairs = |more: &[&str]| -> Vec<String> {
        let text = filtered(&[&tiers()], more).unwrap();
        let said: serde_json::Value = serde_json::from_str(&text).unwrap();
        let name = |one: &serde_json::Value| one.as_str().unwrap().trim_start_matches("default/").to_owned();
        let pair = |one: &serde_json::Value| format!("{} {}", name(&one["from"]), name(&one["to"]));
        said["pairs"].as_array().unwrap().iter().map(pair).collect()
    };

    assert_eq!(pairs(&["--from", "default/frontend", "--to", "default/database"]), ["frontend database"]);
    assert_eq!(pairs(&["--to", "default/legacy"]), ["backend legacy", "database legacy", "frontend legacy"]);
    assert_eq!(pairs(&["--from", "default/*"]).len(), 12);
    assert_eq!(pairs(&["--from", "default/legacy", "--from", "default/backend"]).len(), 6);
    let error = filtered(&[&tiers()], &["--from", "shop/*"]).unwrap_err();
    assert!(error.contains("--from shop/*: no document declares"), "{error}");
    assert!(filtered(&[&tiers()], &["--from", "frontend"]).unwrap_err().contains("NAMESPACE/NAME"));
    // By its ServiceAccount.
    let twins = tiers().replace("serviceAccount: backend", "serviceAccount: shared");
    let said = filtered(&[&twins], &["--from", "default/shared", "--to", "default/database"]).unwrap();
    assert!(said.contains("\"from\": \"default/backend\""), "{said}");
}
