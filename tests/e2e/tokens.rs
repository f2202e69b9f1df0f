//! Join tokens are listed, and refused from the moment at which they are revoked.

use std::process::{Command, Output};

use selvedge_api::wire::{SignRequest, certificates_client::CertificatesClient};
use selvedge_certs::csr::KeyAndCsr;
use selvedge_model::{SpiffeId, TrustDomain};
use selvedge_tests::Mesh;
use serde_json::Value;
use tonic::{Code, Status};

use crate::{SELVEDGE, bootstrap::first_contact};

fn token(mesh: &Mesh, args: &[&str]) -> Output {
    let mut command = Command::new(SELVEDGE);
    command.arg("token").args(args).arg("--data-dir").arg(mesh.data_dir());
    command.output().expect("the binary runs")
}

fn list(mesh: &Mesh) -> Vec<Value> {
    let output = token(mesh, &["list", "--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("a JSON array")
}

/// The id of the token for the service account `account`.
fn id(mesh: &Mesh, account: &str) -> String {
    let identity = format!("spiffe://cluster.local/ns/default/sa/{account}");
    let listed = list(mesh).into_iter().find(|token| token["identity"] == identity.as_str());
    listed.expect("it is listed")["id"].as_str().expect("an id").to_owned()
}

/// What the control plane says to the token.
async fn join(mesh: &Mesh, account: &str, token: &str) -> Result<(), Status> {
    join_as(mesh, account, &format!("default/{account}-1"), token).await
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_once_and_after_a_restart() {
    let mut mesh = Mesh::of(SELVEDGE, []).await;
    let stolen = mesh.token_with("reviews", &["--workload", "default/reviews-1"]).await.unwrap();
    let other = mesh.token("ledger", "1h").await.unwrap();
    join(&mesh, "reviews", &stolen).await.unwrap();
    let stolen_id = id(&mesh, "reviews");

    let revoked = token(&mesh, &["revoke", &stolen_id[..8]]);

    let said = String::from_utf8_lossy(&revoked.stdout).into_owned();
    assert!(
        revoked.status.success() && said.starts_with(&format!("revoked {stolen_id} of spiffe://")),
        "{said}"
    );
    let refused = join(&mesh, "reviews", &stolen).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(
        refused.message().contains(&format!("the join token {stolen_id} was revoked at 20")),
        "{refused}"
    );
    join(&mesh, "ledger", &other).await.unwrap();
    mesh.kill_control_plane().await.unwrap();
    mesh.start_control_plane().await.unwrap();
    join(&mesh, "reviews", &stolen).await.unwrap_err();
    // The token itself is as good as its id.
    assert!(token(&mesh, &["revoke", &other]).status.success());
    join(&mesh, "ledger", &other).await.unwrap_err();
    let metrics = mesh.control_plane_admin("/metrics").await.unwrap().text();
    assert!(metrics.contains("certificates_refused_total{reason=\"token-revoked\"} 2"), "{metrics}");
}

#[tokio::test]
async fn tokens_are_listed_with_what_became_of_them() {
    let mesh = Mesh::of(SELVEDGE, []).await;
    let once = mesh.token_with("once", &["--once"]).await.unwrap();
    for (account, flags) in [
        ("plain", &[][..]),
        ("bound", &["--workload", "default/bound-1"]),
        ("gone", &[]),
        ("short", &["--ttl", "1s"]),
    ] {
        mesh.token_with(account, flags).await.unwrap();
    }
    join(&mesh, "once", &once).await.unwrap();
    token(&mesh, &["revoke", &id(&mesh, "gone")]);
    // Not a state to poll for: the token's own second must pass.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;

    let listed = list(&mesh);

    let state = |account: &str| {
        let suffix = format!("/sa/{account}");
        let of =
            listed.iter().find(|token| token["identity"].as_str().is_some_and(|id| id.ends_with(&suffix)));
        of.map(|token| (token["state"].as_str().unwrap().to_owned(), token["workload"].clone()))
    };
    assert_eq!(state("once"), Some(("used".into(), Value::Null)));
    assert_eq!(state("plain"), Some(("valid".into(), Value::Null)));
    assert_eq!(state("bound"), Some(("valid".into(), "default/bound-1".into())));
    assert_eq!(state("gone"), Some(("revoked".into(), Value::Null)));
    assert_eq!(state("short"), None, "it has expired");
    let table = String::from_utf8(token(&mesh, &["list"]).stdout).unwrap();
    assert!(table.starts_with("ID") && table.contains("default/bound-1"), "{table}");
    for text in [&table, &serde_json::to_string(&listed).unwrap()] {
        assert!(!text.contains("eyJ"), "no token is shown: {text}");
    }
}

/// What the control plane says to the token from a workload that asks for a certificate of `account`.
async fn join_as(mesh: &Mesh, account: &str, workload: &str, token: &str) -> Result<(), Status> {
    let identity = SpiffeId::new(&TrustDomain::default(), "default", account).unwrap();
    let request = SignRequest {
        csr: KeyAndCsr::generate(&identity).unwrap().der.into(),
        workload: workload.to_owned(),
        token: Some(token.to_owned()),
        ttl_seconds: None,
    };
    CertificatesClient::new(first_contact(mesh).await).sign(request).await.map(drop)
}

#[tokio::test]
async fn a_token_is_good_for_nobody_else_and_not_again() {
    let mut mesh = Mesh::of(SELVEDGE, []).await;
    let bound = mesh.token_with("reviews", &["--workload", "default/reviews-1"]).await.unwrap();
    let once = mesh.token_with("reviews", &["--once"]).await.unwrap();

    for (account, workload) in [
        ("reviews", "default/reviews-2"),
        ("reviews", "other/reviews-1"),
        ("ledger", "default/reviews-1"),
        ("ledger", "default/ledger-1"),
    ] {
        let refused = join_as(&mesh, account, workload, &bound).await;
        assert!(refused.is_err(), "{account} {workload}");
        // An attempt that is refused uses nothing up.
        let elsewhere = account != "reviews" || !workload.starts_with("default/");
        assert!(
            !elsewhere || join_as(&mesh, account, workload, &once).await.is_err(),
            "{account} {workload}"
        );
    }
    join_as(&mesh, "reviews", "default/reviews-1", &bound).await.unwrap();
    // Many at once: one of them gets a certificate.
    let attempts = (0..8).map(|_| join_as(&mesh, "reviews", "default/reviews-1", &once));
    let joined = futures_util::future::join_all(attempts).await;
    assert_eq!(joined.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{joined:?}");
    mesh.kill_control_plane().await.unwrap();
    mesh.start_control_plane().await.unwrap();
    let again = join_as(&mesh, "reviews", "default/reviews-1", &once).await.unwrap_err();
    assert!(again.message().contains("has been used"), "{again}");
}

#[tokio::test]
async fn what_is_no_token_is_not_revoked() {
    let mesh = Mesh::of(SELVEDGE, []).await;
    let other = Mesh::of(SELVEDGE, []).await;
    let theirs = other.token("reviews", "1h").await.unwrap();

    for (asked, words) in [
        ("0123456789abcdef", "no join token that is still valid has the id 0123456789abcdef"),
        ("0123", "too short"),
        ("../token-key", "not a join token"),
        (theirs.as_str(), "another control plane"),
    ] {
        let refused = token(&mesh, &["revoke", asked]);

        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && said.contains(words), "{asked}: {said}");
    }
}
