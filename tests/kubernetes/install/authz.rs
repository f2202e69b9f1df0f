//! `selvedge authz` and `selvedge explain connection` over what a cluster holds.

use selvedge_demo::processes::Process;
use selvedge_tests::{SOON, kubernetes::ApiServer};
use serde_json::{Value, json};

use super::selvedge;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Only `web` may call the vault, and `other` may call nobody.
const POLICIES: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: default}
spec:
  selector: {matchLabels: {app: vault}}
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/web]}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: inside, namespace: default}
spec: {podSelector: {matchLabels: {app: other}}, policyTypes: [Egress]}
";

pub(super) async fn who_may_call_whom_is_said_of_what_the_cluster_holds(
    server: &ApiServer,
    control_plane: &Process,
) {
    for (name, address) in [("web", "10.77.0.1"), ("other", "10.77.0.2"), ("vault", "10.77.0.3")] {
        pod(server, name, address).await;
    }
    server.apply(POLICIES).await;

    let matrix = said(server, &["authz", "matrix", "--to", "default/vault"], 0).await;
    let verdicts: Vec<_> = matrix["pairs"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| (&one["from"], &one["outcome"], one["rule"].as_str().expect("a rule")))
        .collect();
    assert_eq!(verdicts.len(), 2, "{matrix:#}");
    assert!(
        verdicts[0].1 == "denied" && verdicts[0].2.contains("NetworkPolicy default/inside"),
        "{matrix:#}"
    );
    assert!(
        verdicts[1].1 == "allowed" && verdicts[1].2.contains("AuthorizationPolicy default/web"),
        "{matrix:#}"
    );

    let to = ["--to", "10.77.0.3:80"];
    let asked = |from| [&["explain", "connection", "--from", from][..], &to].concat();
    assert_eq!(said(server, &asked("default/web"), 0).await["outcome"], "allowed");
    let refused = said(server, &asked("default/other"), 1).await;
    assert_eq!(refused["places"][0]["source"]["outcome"], "denied", "{refused:#}");

    // No replica runs in this cluster; the one that runs beside it is asked by its address.
    let tried = said(server, &["authz", "try", "--strict"], 0).await;
    assert!(tried["not_seen"].is_string(), "{tried:#}");
    let admin = control_plane.listener("admin", SOON).await.unwrap().to_string();
    let tried = said(server, &["authz", "try", "--strict", "--admin", &admin], 0).await;
    assert_eq!(tried["seen"]["silent"].as_array().map(Vec::len), Some(3), "{tried:#}");

    for name in ["web", "other", "vault"] {
        server.api().delete(&format!("{PODS}/{name}")).await.unwrap();
    }
    for (kind, name) in [("authorizationpolicy", "web"), ("networkpolicy", "inside")] {
        server.kubectl(&["delete", "--namespace=default", kind, name], "").await.unwrap();
    }
}

/// A pod with a sidecar that runs at `address`.
async fn pod(server: &ApiServer, name: &str, address: &str) {
    server.api().service_account("default", name).await;
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": name, "selvedge.io/sidecar": "injected"},
            "annotations": {"selvedge.io/injected": "0.1.0"},
        },
        "spec": {
            "serviceAccountName": name,
            "containers": [{"name": "app", "image": "app", "ports": [{"containerPort": 80}]}],
        },
    });
    server.api().create(PODS, &pod).await.unwrap();
    let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
    server.api().merge(&format!("{PODS}/{name}/status"), &status).await.unwrap();
}

/// What the command answers as JSON, which must end with `status`.
async fn said(server: &ApiServer, words: &[&str], status: i32) -> Value {
    let output = selvedge(&server.admin_kubeconfig(), &[words, &["-o", "json"]].concat()).await;
    assert_eq!(output.status.code(), Some(status), "{words:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}
