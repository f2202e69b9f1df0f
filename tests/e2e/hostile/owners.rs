//! Addresses and names belong to their owners: what another namespace writes of them changes nothing and is reported.

use std::process::Command;

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
    let answer = mesh.workload("caller").call(call::to(authority, "/")).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let found: reviews::Answer = answer.json().map_err(|_| answer.summary())?;
    found.client_identity.ok_or_else(|| "called in plaintext".to_owned())
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
        let problem = poll(SOON, &format!("the problem with {name}"), async || {
            let problems = mesh.control_plane_admin("/problems").await;
            let problems: Vec<Value> =
                problems.and_then(|answer| answer.json()).map_err(|error| error.to_string())?;
            let found = problems.iter().find(|problem| {
                problem["document"]["namespace"] == "thief" && problem["document"]["name"] == name
            });
            found.cloned().ok_or_else(|| format!("{problems:?}"))
        })
        .await;
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
