//! Addresses and names belong to their owners: what another namespace writes of them changes nothing and is reported.

use std::{fs, process::Command};

use selvedge_demo::{apps::reviews, call, workload::Spec};
use selvedge_tests::{Mesh, SOON, poll};
use serde_json::Value;

use crate::SELVEDGE;

const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\n\
                      spec: {mtls: {mode: STRICT}}\n";

/// What `thief` says of the workload of `reviews` at `ip`, whose app has `port`; each a document of its own.
fn claims(ip: &str, port: u16) -> Vec<(&'static str, String)> {
    let document = |kind: &str, name: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: thief}}\nspec: {{{spec}}}\n"
        )
    };
    let entry = |name: &'static str, spec: &str| (name, document("WorkloadEntry", name, spec));
    let service = |name: &'static str, spec: &str| {
        (
            name,
            document(
                "ServiceEntry",
                name,
                &format!("{spec}, resolution: STATIC, ports: [{{number: {port}, name: http}}]"),
            ),
        )
    };
    vec![
        entry("plain", &format!("address: {ip}, ports: {{http: {port}}}")),
        entry("as-ipv6", &format!("address: '::ffff:{ip}', ports: {{http: {port}}}")),
        entry(
            "other-identity",
            &format!(
                "address: {ip}, ports: {{http: {port}}}, serviceAccount: thief, labels: {{security.istio.io/tlsMode: istio}}"
            ),
        ),
        entry("all-ports", &format!("address: {ip}, labels: {{security.istio.io/tlsMode: istio}}")),
        service("endpoint", &format!("hosts: [a.thief.test], endpoints: [{{address: {ip}}}]")),
        service(
            "address",
            &format!("hosts: [a.thief.test], addresses: ['{ip}'], endpoints: [{{address: 192.0.2.1}}]"),
        ),
        service("name", "hosts: [reviews.default.svc.cluster.local], endpoints: [{address: 192.0.2.1}]"),
        service(
            "name-of-pod",
            "hosts: [reviews-a.reviews.default.svc.cluster.local], endpoints: [{address: 192.0.2.1}]",
        ),
        service("short-name", "hosts: [reviews.default], endpoints: [{address: 192.0.2.1}]"),
        service("every-name", "hosts: ['*.default.svc.cluster.local'], endpoints: [{address: 192.0.2.1}]"),
    ]
}

/// Whom the server was told that the caller is, at `authority`.
async fn caller_at(mesh: &Mesh, authority: &str) -> Result<String, String> {
    asked_by(mesh, "caller", authority).await
}

/// The same for any caller.
async fn asked_by(mesh: &Mesh, caller: &str, authority: &str) -> Result<String, String> {
    let answer = mesh.workload(caller).call(call::to(authority, "/")).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let found: reviews::Answer = answer.json().map_err(|_| answer.summary())?;
    found.client_identity.ok_or_else(|| "called in plaintext".to_owned())
}

/// Waits until the control plane reports a problem with this document.
async fn told(mesh: &Mesh, namespace: &str, name: &str) -> Value {
    poll(SOON, &format!("the problem with {namespace}/{name}"), async || {
        let problems = mesh.control_plane_admin("/problems").await;
        let problems: Vec<Value> =
            problems.and_then(|answer| answer.json()).map_err(|error| error.to_string())?;
        let found = problems.iter().find(|problem| {
            problem["document"]["namespace"] == namespace && problem["document"]["name"] == name
        });
        found.cloned().ok_or_else(|| format!("{problems:?}"))
    })
    .await
}

#[tokio::test]
async fn a_document_of_another_namespace_takes_no_workload_out_of_mutual_tls() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::server("reviews-a", "reviews", 9080)]).await;
    mesh.write("strict.yaml", STRICT).unwrap();
    let app = mesh.workload("reviews-a").app;
    let authorities = [
        app.to_string(),
        format!("[::ffff:{}]:{}", app.ip(), app.port()),
        "reviews:9080".to_owned(),
        "reviews.default:9080".to_owned(),
    ];
    for authority in &authorities {
        poll(SOON, authority, async || caller_at(&mesh, authority).await).await;
    }

    for (name, claim) in claims(&app.ip().to_string(), app.port()) {
        mesh.write("zz-thief.yaml", &claim).unwrap();
        let problem = told(&mesh, "thief", name).await;
        assert_eq!(problem["severity"], "error", "{problem}");

        for authority in &authorities {
            let found = caller_at(&mesh, authority).await;
            assert_eq!(
                found.as_deref(),
                Ok("spiffe://cluster.local/ns/default/sa/caller"),
                "{authority}, {name}"
            );
        }
    }

    // And whoever checks the documents before they are applied is told the same.
    let output =
        Command::new(SELVEDGE).args(["check", "--config-dir"]).arg(mesh.config_dir()).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("ServiceEntry thief/every-name") && said.contains("name of the namespace default"),
        "{said}"
    );
}

/// Waits until `file` says who has `what`, an address or a name, and returns what it says of it.
async fn kept(mesh: &Mesh, file: &str, what: &str) -> Value {
    let path = mesh.data_dir().join(file);
    poll(SOON, file, async || {
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let kept: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        kept.get(what).cloned().ok_or(text)
    })
    .await
}

/// Who has which address, in the control plane's data directory.
const KEPT: &str = "address-owners.json";

#[tokio::test]
async fn a_file_that_sorts_before_the_owners_takes_no_address_over_a_restart_either() {
    let mut mesh =
        Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::server("reviews-a", "reviews", 9080)]).await;
    mesh.write("strict.yaml", STRICT).unwrap();
    let app = mesh.workload("reviews-a").app;
    let (ip, authority) = (app.ip().to_string(), app.to_string());
    poll(SOON, &authority, async || caller_at(&mesh, &authority).await).await;
    assert_eq!(kept(&mesh, KEPT, &ip).await[0]["namespace"], "default");

    let (name, claim) = claims(&ip, app.port()).swap_remove(0);
    mesh.write("aaa-thief.yaml", &claim).unwrap();
    assert_eq!(told(&mesh, "thief", name).await["severity"], "error");
    let caller = caller_at(&mesh, &authority).await;
    assert_eq!(caller.as_deref(), Ok("spiffe://cluster.local/ns/default/sa/caller"));

    mesh.kill_control_plane().await.unwrap();
    mesh.start_control_plane().await.unwrap();
    assert_eq!(told(&mesh, "thief", name).await["severity"], "error");
    // It knows nothing of before the restart.
    mesh.add([Spec::client("late")]).await.unwrap();
    let late = asked_by(&mesh, "late", &authority).await;
    assert_eq!(late.as_deref(), Ok("spiffe://cluster.local/ns/default/sa/late"));
}

/// Who has which name, there too.
const KEPT_NAMES: &str = "name-owners.json";

#[tokio::test]
async fn a_file_that_sorts_before_the_owners_takes_no_name_over_a_restart_either() {
    let mut mesh = Mesh::of(SELVEDGE, [Spec::client("caller")]).await;
    let entry = |namespace: &str, ip: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: named, namespace: {namespace}}}\n\
             spec: {{hosts: [api.example.test], resolution: STATIC, ports: [{{number: 80, name: http}}], endpoints: [{{address: {ip}}}]}}\n"
        )
    };
    mesh.write("own.yaml", &entry("default", "192.0.2.1")).unwrap();
    assert_eq!(kept(&mesh, KEPT_NAMES, "api.example.test").await, "default");

    mesh.write("aaa-thief.yaml", &entry("thief", "192.0.2.2")).unwrap();
    let says = |problem: &Value| problem["message"].as_str().unwrap_or_default().to_owned();
    let problem = told(&mesh, "thief", "named").await;
    assert_eq!(problem["severity"], "error", "{problem}");
    assert!(says(&problem).contains("api.example.test belongs to ServiceEntry default/named"), "{problem}");

    mesh.kill_control_plane().await.unwrap();
    mesh.start_control_plane().await.unwrap();
    let problem = told(&mesh, "thief", "named").await;
    assert!(says(&problem).contains("belongs to ServiceEntry default/named"), "{problem}");
    assert_eq!(kept(&mesh, KEPT_NAMES, "api.example.test").await, "default");
}

#[tokio::test]
async fn a_damaged_file_of_owners_is_reported_and_stops_no_start() {
    let mut mesh =
        Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::server("reviews-a", "reviews", 9080)]).await;
    let app = mesh.workload("reviews-a").app;
    let (ip, authority) = (app.ip().to_string(), app.to_string());
    let before = kept(&mesh, KEPT, &ip).await;

    mesh.kill_control_plane().await.unwrap();
    fs::write(mesh.data_dir().join(KEPT), "{\"10.0.0.1\": [").unwrap();
    mesh.start_control_plane().await.unwrap();

    assert_eq!(kept(&mesh, KEPT, &ip).await, before, "it is written again");
    mesh.add([Spec::client("late")]).await.unwrap();
    let late = poll(SOON, &authority, async || asked_by(&mesh, "late", &authority).await).await;
    assert_eq!(late, "spiffe://cluster.local/ns/default/sa/late");
    let log = mesh.control_plane_process().unwrap().whole_log().unwrap();
    let said: Vec<&str> = log.lines().filter(|line| line.contains(KEPT)).collect();
    assert!(
        said.len() == 1 && said[0].contains("the first by file has it"),
        "one warning with its consequence: {said:?}"
    );
}
