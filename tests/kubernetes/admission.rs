//! The webhooks, called by a real API server: what becomes of pods and documents, and what people are told.

use std::{process::Command, time::Instant};

use selvedge_tests::{
    SOON,
    kubernetes::{ApiServer, assets, kinds},
    poll,
};
use serde_json::{Value, json};

use crate::{
    control_plane::{ControlPlane, manifests, of_kinds, processes, rights},
    kubelet::{items, text},
};

const PODS: &str = "/api/v1/namespaces/shop/pods";

/// The chart's configurations, but for the way to the control plane: it runs beside the API server.
async fn configure(server: &ApiServer, port: u16) {
    let documents =
        of_kinds(&manifests(&[]), &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"]);
    for mut document in serde_saphyr::from_multiple::<Value>(&documents).unwrap() {
        let kind = text(&document["kind"]).to_lowercase();
        let path = if kind.starts_with("mutating") { "inject" } else { "validate" };
        for webhook in document["webhooks"].as_array_mut().unwrap() {
            webhook["clientConfig"] = json!({ "url": format!("https://localhost:{port}/{path}") });
        }
        let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}s");
        server.api().create(&path, &document).await.unwrap();
    }
}

/// A port that nobody has, for a moment.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn pod(name: &str, annotations: &Value, host_network: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "annotations": annotations },
        "spec": { "hostNetwork": host_network, "containers": [{ "name": "app", "image": "app" }] },
    })
}

fn containers(pod: &Value) -> Vec<&str> {
    let lists = [&pod["spec"]["initContainers"], &pod["spec"]["containers"]];
    lists.into_iter().flat_map(items).map(|one| text(&one["name"])).collect()
}

#[tokio::test]
async fn what_the_webhooks_say_comes_to_whoever_asks() {
    let Some(assets) = assets() else { return };
    let server = ApiServer::start(assets).await;
    server.serve(kinds::CORE).await;
    server.serve(kinds::ISTIO).await;
    let kubeconfig = rights(&server).await;
    let labels = json!({ "labels": { "selvedge.io/inject": "enabled" } });
    server.namespace("shop", labels).await;
    server.namespace("quiet", json!({})).await;
    let (processes, _exits) = processes(&server);
    let data = server.directory().join("data");
    std::fs::create_dir(&data).unwrap();
    let port = free_port();
    // Before the control plane, which looks for them when it starts.
    configure(&server, port).await;
    let listen = format!("--webhook-listen=127.0.0.1:{port}");
    let flags = [listen.as_str(), "--webhook-name=localhost"];
    let replica = ControlPlane::start_with(&processes, "replica", &kubeconfig, &data, &flags).await;
    assert_eq!(replica.webhook.port(), port);

    a_pod_gets_its_sidecar(&server).await;
    a_rehearsal_leaves_nothing_behind(&server).await;
    a_pod_that_cannot_have_one_says_why(&server).await;
    a_setting_that_cannot_be_meant_is_refused(&server).await;
    documents_are_checked_before_they_are_kept(&server).await;
    replica.lacked_no_right(&server).await;
}

/// As soon as the API server has been told whom to believe.
async fn a_pod_gets_its_sidecar(server: &ApiServer) {
    let created = poll(SOON, "the webhook answers", async || {
        let created = server.api().create(PODS, &pod("web", &json!({}), false)).await;
        created.map_err(|error| error.to_string())
    })
    .await;

    assert_eq!(containers(&created), ["selvedge-init", "selvedge-proxy", "app"]);
    assert_eq!(created["metadata"]["labels"]["selvedge.io/sidecar"], "injected");
    event(server, "Injected", "web").await;
    let elsewhere =
        server.api().create("/api/v1/namespaces/quiet/pods", &pod("web", &json!({}), false)).await;
    assert_eq!(containers(&elsewhere.unwrap()), ["app"]);
    let asked = json!({ "selvedge.io/inject": "enabled" });
    let asked = server.api().create("/api/v1/namespaces/quiet/pods", &pod("asked", &asked, false)).await;
    assert_eq!(containers(&asked.unwrap()).len(), 3, "by annotation alone");
}

async fn event(server: &ApiServer, reason: &str, name: &str) {
    poll(SOON, reason, async || {
        let events = server.api().get("/apis/events.k8s.io/v1/namespaces/shop/events").await.unwrap();
        let found = |event: &&Value| event["reason"] == reason && event["regarding"]["name"] == name;
        items(&events["items"]).find(found).map(|_| ()).ok_or_else(|| events.to_string())
    })
    .await;
}

async fn a_rehearsal_leaves_nothing_behind(server: &ApiServer) {
    let path = format!("{PODS}?dryRun=All");
    let mut times = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        let rehearsed = server.api().create(&path, &pod("rehearsed", &json!({}), false)).await.unwrap();
        times.push(began.elapsed());
        assert_eq!(containers(&rehearsed).len(), 3);
    }
    times.sort();
    println!("a pod's creation with the webhook in it: {:?} in the middle of {}", times[10], times.len());
    // What came after it is told; so it would have been.
    server.api().create(PODS, &pod("after", &json!({}), false)).await.unwrap();
    event(server, "Injected", "after").await;
    let events = server.api().get("/apis/events.k8s.io/v1/namespaces/shop/events").await.unwrap();
    assert!(items(&events["items"]).all(|event| event["regarding"]["name"] != "rehearsed"), "{events}");
}

async fn a_pod_that_cannot_have_one_says_why(server: &ApiServer) {
    let created = server.api().create(PODS, &pod("of-its-node", &json!({}), true)).await.unwrap();

    assert_eq!(containers(&created), ["app"]);
    assert_eq!(created["metadata"]["annotations"]["selvedge.io/inject-skipped"], "host-network");
    event(server, "InjectionSkipped", "of-its-node").await;
}

async fn a_setting_that_cannot_be_meant_is_refused(server: &ApiServer) {
    let wrong = json!({ "config.selvedge.io/worker": "2" });

    let refused = server.api().create(PODS, &pod("wrong", &wrong, false)).await.unwrap_err();

    // Whoever asked for it is told, and nobody else: there is no such pod.
    assert!(refused.to_string().contains("config.selvedge.io/workers is one"), "{refused}");
}

async fn documents_are_checked_before_they_are_kept(server: &ApiServer) {
    let document = |http: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: shop}}\n\
             spec: {{hosts: [reviews], http: [{{{http} route: [{{destination: {{host: reviews, subset: v2}}}}]}}]}}\n"
        )
    };
    let apply = async |document: &str| {
        server.kubectl(&["apply", "--warnings-as-errors", "-f", "-"], document).await.unwrap_err()
    };

    let refused = apply(&document("timeout: five,")).await;
    assert!(refused.contains("spec.http[0].timeout"), "{refused}");
    // Kept, since what it lacks may come next; and said.
    let warned = apply(&document("")).await;
    assert!(warned.contains("Warning: ") && warned.contains("nothing is called"), "{warned}");
    let path = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices/reviews";
    server.api().get(path).await.unwrap();
}

/// What `selvedge inject` prints is what a cluster takes, to the last field.
#[tokio::test]
async fn a_cluster_takes_what_the_command_prints() {
    let Some(assets) = assets() else { return };
    let server = ApiServer::start(assets).await;
    server.serve(kinds::CORE).await;
    let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/e2e/manifests");
    for file in ["istio-httpbin.yaml", "istio-multi-init.yaml", "istio-job.yaml"] {
        let mut command = Command::new(crate::SELVEDGE);
        command.args(["inject", "--native-sidecars=false", "--trust-roots", &"0".repeat(64), "-f"]);
        let output = command.arg(format!("{manifests}/{file}")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        let printed = String::from_utf8(output.stdout).unwrap();
        // With kubectl's own check of every field against what the server publishes.
        let applied = server.kubectl(&["apply", "--validate=true", "-f", "-"], &printed).await;

        applied.unwrap_or_else(|said| panic!("{file}: {said}"));
    }
}
