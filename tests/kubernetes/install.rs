//! An installation from nothing to nothing: `install`, the control plane with exactly the rights that it gives,
//! `check`, `status`, and `uninstall`.

mod authz;

use std::{path::Path, process::Output, time::Duration};

use rustix::process::Signal;
use selvedge_demo::processes::{Process, Processes};
use selvedge_tests::{
    SOON,
    kubernetes::{ApiServer, assets, kinds},
    poll,
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::SELVEDGE;

const NAMESPACE: &str = "selvedge";
/// Where what an installation makes could be left behind.
const PLACES: [&str; 12] = [
    "/api/v1/namespaces/selvedge/secrets",
    "/api/v1/namespaces/selvedge/configmaps",
    "/api/v1/namespaces/selvedge/services",
    "/api/v1/namespaces/selvedge/serviceaccounts",
    "/apis/apps/v1/namespaces/selvedge/deployments",
    "/apis/coordination.k8s.io/v1/namespaces/selvedge/leases",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/selvedge/roles",
    "/apis/rbac.authorization.k8s.io/v1/namespaces/selvedge/rolebindings",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
];

#[tokio::test]
async fn an_installation_is_checked_used_and_leaves_nothing() {
    let Some(assets) = assets() else { return };
    let server = ApiServer::start(assets).await;
    for kinds in [kinds::CORE, kinds::GATEWAY, kinds::ISTIO] {
        server.serve(kinds).await;
    }
    // Without one, `kubectl` would wait for what no controller of this cluster makes.
    server.namespace("shop", json!({"labels": {"selvedge.io/inject": "enabled"}})).await;

    before_installation_only_the_server_is_judged(&server).await;
    let manifests = install(&server).await;
    upgrade_by_kustomize(&server, &manifests).await;
    let control_plane = start_control_plane(&server).await;
    what_is_there_is_found(&server).await;
    the_newest_change_has_arrived(&server, &control_plane).await;
    documents_are_judged(&server).await;
    a_request_is_explained_by_what_the_cluster_holds(&server).await;
    authz::who_may_call_whom_is_said_of_what_the_cluster_holds(&server, &control_plane).await;
    while_pods_have_sidecars_nothing_is_uninstalled(&server).await;
    while_gateways_run_nothing_is_uninstalled(&server).await;
    nothing_is_left(&server, control_plane).await;
}

async fn before_installation_only_the_server_is_judged(server: &ApiServer) {
    let report = check(server, &["--pre"]).await;
    // The one thing that is not well here: what the tests' server says of its version is old.
    let errors = words(&report, "error");
    assert!(errors.len() == 1 && errors[0].ends_with("is too old"), "{report:#}");
    assert!(words(&report, "ok").contains(&"you may install and upgrade".to_owned()), "{report:#}");

    server.api().service_account("default", "nobody").await;
    let nobody = server.kubeconfig_of("default", "nobody").await;
    let output = selvedge(&nobody, &["check", "--pre", "--json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let warnings = words(&report, "warning").join("\n");
    assert!(warnings.contains("you may not install or upgrade: create namespaces"), "{report:#}");

    let report = check(server, &[]).await;
    assert!(
        words(&report, "error").join("\n").contains("there is no control plane in the namespace selvedge")
    );
}

async fn install(server: &ApiServer) -> String {
    let output = selvedge(&server.admin_kubeconfig(), &["install"]).await;
    assert!(output.status.success(), "{output:?}");
    let manifests = String::from_utf8(output.stdout).unwrap();
    server.apply(&manifests).await;
    manifests
}

/// To the same version: nothing changes.
async fn upgrade_by_kustomize(server: &ApiServer, manifests: &str) {
    let directory = server.directory().join("kustomize");
    std::fs::create_dir(&directory).unwrap();
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kustomize/kustomization.yaml");
    std::fs::copy(ours, directory.join("kustomization.yaml")).unwrap();
    std::fs::write(directory.join("selvedge.yaml"), manifests).unwrap();

    let said = server.kubectl(&["apply", "-k", directory.to_str().unwrap()], "").await.unwrap();

    assert!(said.contains("deployment.apps/selvedge-control-plane "), "{said}");
    let changed: Vec<&str> = said.lines().filter(|line| !line.ends_with(" unchanged")).collect();
    // Of these the API server fills fields in that the manifest leaves out.
    let only_filled = changed.iter().all(|line| line.ends_with(" configured"));
    assert!(only_filled, "{said}");
}

/// The control plane with the installed role, on this host: there is no node here to run it on.
async fn start_control_plane(server: &ApiServer) -> Process {
    let kubeconfig = server.kubeconfig_of(NAMESPACE, "selvedge-control-plane").await;
    let data = server.directory().join("control-plane");
    let (processes, _exits) = Processes::new(Path::new(SELVEDGE), server.directory());
    let arguments = [
        "control-plane",
        "--source=kubernetes",
        "--listen=127.0.0.1:0",
        "--admin=127.0.0.1:0",
        "--webhook-listen=127.0.0.1:0",
        &format!("--kubeconfig={}", kubeconfig.display()),
        &format!("--data-dir={}", data.display()),
    ];
    let process = processes.start("installed-control-plane", arguments).unwrap();
    let admin = process.listener("admin", SOON).await.unwrap().to_string();
    let waited = selvedge(&kubeconfig, &["control-plane", "wait", "--timeout=60s", "--admin", &admin]).await;
    assert!(waited.status.success(), "{waited:?}\n{}", process.log_tail());
    // Beside serving it publishes its roots.
    let roots = "/api/v1/namespaces/selvedge/configmaps/selvedge-trust-roots";
    poll(SOON, "the trust roots are published", async || {
        server.api().get(roots).await.map_err(|refused| format!("{refused:?}"))
    })
    .await;
    process
}

async fn what_is_there_is_found(server: &ApiServer) {
    let report = check(server, &[]).await;

    let ok = words(&report, "ok").join("\n");
    assert!(ok.contains("every object of the installation exists"), "{report:#}");
    assert!(ok.contains("the control plane has this command's version"), "{report:#}");
    assert!(ok.contains("the root certificate expires in "), "{report:#}");
    // Nobody runs the Deployment here.
    let errors = words(&report, "error").join("\n");
    assert!(errors.contains("0 of 1 replicas are ready"), "{report:#}");

    // A role that somebody has cut.
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/selvedge-control-plane";
    let whole = server.api().get(role).await.unwrap();
    server.api().merge(role, &json!({"rules": []})).await.unwrap();
    let report = check(server, &[]).await;
    assert!(
        words(&report, "error").join("\n").contains("lacks permissions that this version needs"),
        "{report:#}"
    );
    server.api().merge(role, &json!({"rules": whole["rules"]})).await.unwrap();
}

async fn the_newest_change_has_arrived(server: &ApiServer, control_plane: &Process) {
    let admin = control_plane.listener("admin", SOON).await.unwrap().to_string();
    let output = selvedge(
        &server.admin_kubeconfig(),
        &["status", "--json", "--wait=10s", "--expect=0", "--admin", &admin],
    )
    .await;

    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["trust_roots"].as_array().map(Vec::len), Some(1), "{report}");
    let arrival = ["arrived", "up_to_date", "proxies", "missing", "expected"];
    assert_eq!(
        Value::from_iter(arrival.map(|field| (field, report[field].clone()))),
        json!({"arrived": true, "up_to_date": 0, "proxies": [], "missing": [], "expected": 0})
    );
}

async fn documents_are_judged(server: &ApiServer) {
    server
        .apply(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: broken, namespace: shop}\n\
             spec: {hosts: [reviews], http: [{route: [{destination: {host: nowhere}}]}]}\n",
        )
        .await;

    let report = check(server, &[]).await;

    let problems = report["documents"]["problems"].to_string();
    assert!(problems.contains("broken"), "{report:#}");
    assert_eq!(report["passed"], false);
    server.kubectl(&["delete", "--namespace=shop", "virtualservice", "broken"], "").await.unwrap();
}

async fn a_request_is_explained_by_what_the_cluster_holds(server: &ApiServer) {
    let account = "cluster.local/ns/shop/sa/web";
    server
        .apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: reviews, namespace: shop}}\n\
             spec: {{selector: {{app: reviews}}, ports: [{{name: http, port: 80}}]}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: shop}}\n\
             spec: {{hosts: [reviews], http: [{{match: [{{uri: {{prefix: /old}}}}], redirect: {{uri: /new}}}}, \
             {{route: [{{destination: {{host: reviews}}}}]}}]}}\n---\n\
             apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: web, namespace: shop}}\n\
             spec: {{selector: {{matchLabels: {{app: reviews}}}}, rules: [{{from: [{{source: {{principals: [{account}]}}}}]}}]}}\n"
        ))
        .await;
    let explain = async |path: &str| {
        let to = format!("http://reviews{path}");
        let line = ["explain", "request", "-o", "json", "--from", "shop/web", "--to", &to];
        let output = selvedge(&server.admin_kubeconfig(), &line).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };

    let moved = explain("/old").await;
    assert_eq!(moved["answer"]["location"], "http://reviews/new", "{moved:#}");
    let written = &moved["rule"]["written"];
    assert_eq!(
        (&written["document"]["name"], &written["field"]),
        (&json!("reviews"), &json!("spec.http[0]"))
    );
    assert_eq!((&written["path"], &written["line"]), (&Value::Null, &Value::Null), "{moved:#}");
    let other = explain("/").await;
    assert_eq!(other["answer"]["error"], "no-endpoint", "{other:#}");
    let missed = other["missed"][0]["why"].as_str().unwrap();
    assert_eq!(missed, "the path is \"/\" and must begin with \"/old\"");
    for (kind, name) in
        [("virtualservice", "reviews"), ("service", "reviews"), ("authorizationpolicy", "web")]
    {
        server.kubectl(&["delete", "--namespace=shop", kind, name], "").await.unwrap();
    }
}

async fn while_pods_have_sidecars_nothing_is_uninstalled(server: &ApiServer) {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "reviews-1",
            "labels": {"selvedge.io/sidecar": "injected"},
            "annotations": {"selvedge.io/injected": "0.1.0"},
        },
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    server.api().create("/api/v1/namespaces/default/pods", &pod).await.unwrap();

    let output = selvedge(&server.admin_kubeconfig(), &["uninstall"]).await;

    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("1 pods have sidecars") && said.contains("default/reviews-1"), "{said}");
    server.api().delete("/api/v1/namespaces/default/pods/reviews-1").await.unwrap();
}

async fn while_gateways_run_nothing_is_uninstalled(server: &ApiServer) {
    let labels =
        json!({"app.kubernetes.io/managed-by": "selvedge", "app.kubernetes.io/component": "gateway"});
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "edge-selvedge", "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "proxy", "image": "proxy"}]}},
        },
    });
    let place = "/apis/apps/v1/namespaces/default/deployments";
    server.api().create(place, &deployment).await.unwrap();

    let output = selvedge(&server.admin_kubeconfig(), &["uninstall"]).await;

    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("1 gateways run") && said.contains("default/edge-selvedge"), "{said}");
    server.api().delete(&format!("{place}/edge-selvedge")).await.unwrap();
}

async fn nothing_is_left(server: &ApiServer, control_plane: Process) {
    assert!(!ours(server).await.is_empty());

    let output = selvedge(&server.admin_kubeconfig(), &["uninstall"]).await;
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("namespace shop still asks for sidecars"), "{said}");
    let manifests = String::from_utf8(output.stdout).unwrap();
    // The namespace would end with what it holds, but no controller does that here.
    server.kubectl(&["delete", "--wait=false", "-f", "-"], &manifests).await.unwrap();

    assert_eq!(ours(server).await, Vec::<String>::new());
    let namespace = server.api().get("/api/v1/namespaces/selvedge").await.unwrap();
    assert!(namespace.pointer("/metadata/deletionTimestamp").is_some(), "{namespace}");
    // Whoever still runs makes nothing new.
    control_plane.signal(Signal::TERM).unwrap();
    control_plane.wait(SOON).await.unwrap();
    assert_eq!(ours(server).await, Vec::<String>::new());
    let report = check(server, &[]).await;
    assert!(words(&report, "error").join("\n").contains("there is no control plane"), "{report:#}");

    // What one does without a way to the cluster takes the same away, as far as it is there.
    let nowhere = server.directory().join("nowhere.kubeconfig");
    let output = selvedge(&nowhere, &["uninstall", "--offline"]).await;
    assert!(output.status.success(), "{output:?}");
    let manifests = String::from_utf8(output.stdout).unwrap();
    // A kind that 1.20 does not have in this version.
    let known = |document: &&str| !document.contains("kind: PodDisruptionBudget");
    let manifests = manifests.split("---\n").filter(known).collect::<Vec<_>>().join("---\n");
    let delete = ["delete", "--ignore-not-found", "--wait=false", "-f", "-"];
    let said = server.kubectl(&delete, &manifests).await.unwrap();
    assert!(said.is_empty() || said.starts_with("namespace \"selvedge\""), "{said}");
}

/// What has our name, wherever it could be.
async fn ours(server: &ApiServer) -> Vec<String> {
    let mut found = Vec::new();
    for place in PLACES {
        let list = server.api().get(place).await.unwrap();
        let names = list["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]);
        let ours = names.filter_map(Value::as_str).filter(|name| name.starts_with("selvedge"));
        // Tokens of service accounts are the cluster's own.
        let ours = ours.filter(|name| !name.contains("-token-"));
        found.extend(ours.map(|name| format!("{place}/{name}")));
    }
    found
}

/// The report of `selvedge check`, whatever it comes to.
async fn check(server: &ApiServer, flags: &[&str]) -> Value {
    let output = selvedge(&server.admin_kubeconfig(), &[&["check", "--json"], flags].concat()).await;
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// What was found to be so.
fn words(report: &Value, verdict: &str) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let of_verdict = findings.filter(|finding| finding["verdict"] == verdict);
    of_verdict.map(|finding| finding["what"].as_str().unwrap().to_owned()).collect()
}

async fn selvedge(kubeconfig: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(SELVEDGE);
    command.env("KUBECONFIG", kubeconfig).args(arguments).kill_on_drop(true);
    tokio::time::timeout(Duration::from_secs(90), command.output()).await.expect("it ends in time").unwrap()
}
