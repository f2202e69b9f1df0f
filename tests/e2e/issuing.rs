//! What the CA issues: written down first, and not without end to anybody.

use std::{fs, path::PathBuf, time::SystemTime};

use selvedge_api::wire::{SignRequest, SignResponse, certificates_client::CertificatesClient};
use selvedge_certs::csr::KeyAndCsr;
use selvedge_demo::workload::Spec;
use selvedge_model::{SpiffeId, TrustDomain};
use selvedge_tests::{Mesh, SOON, poll};
use serde_json::Value;
use tonic::{Code, Status};

use crate::{SELVEDGE, bootstrap::first_contact};

/// The lines of the audit file.
fn audit(mesh: &Mesh) -> Vec<Value> {
    let text = fs::read_to_string(audit_file(mesh)).expect("an audit file");
    text.lines().map(|line| serde_json::from_str(line).expect("a line is one object")).collect()
}

fn audit_file(mesh: &Mesh) -> PathBuf {
    mesh.data_dir().join("certificates.jsonl")
}

fn account(name: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::default(), "default", name).unwrap()
}

/// Asks the control plane for a certificate of the service account `name`.
async fn ask(mesh: &Mesh, name: &str, token: &str) -> Result<SignResponse, Status> {
    let request = SignRequest {
        csr: KeyAndCsr::generate(&account(name)).unwrap().der.into(),
        workload: format!("default/{name}-1"),
        token: Some(token.to_owned()),
        ttl_seconds: None,
    };
    CertificatesClient::new(first_contact(mesh).await).sign(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn every_certificate_is_written_down_before_it_is_given_away() {
    let mut mesh = Mesh::of(SELVEDGE, [Spec::client("caller").flag("--certificate-ttl", "4s")]).await;
    // One by the token, and then by the certificate before.
    let renewed = poll(SOON, "a renewal is written down", async || {
        let lines = audit(&mesh);
        let of_caller = |proof: &str| {
            lines.iter().find(|line| line["workload"] == "default/caller" && line["proof"] == proof).cloned()
        };
        of_caller("join-token").zip(of_caller("certificate")).ok_or(format!("{lines:?}"))
    });
    let (joined, renewed) = renewed.await;
    assert_eq!(joined["identity"], account("caller").as_str());
    assert_eq!(joined["token"].as_str().map(str::len), Some(32), "{joined}");
    assert_eq!(renewed["token"], Value::Null);
    for name in ["time", "serial", "not_after"] {
        assert!(renewed[name].as_str().is_some_and(|text| !text.is_empty()), "{name} in {renewed}");
    }

    let token = mesh.token("other", "1h").await.unwrap();
    let signed = ask(&mesh, "other", &token).await.unwrap();
    mesh.kill_control_plane().await.unwrap();

    let serial = selvedge_certs::facts::Facts::parse(&signed.chain[0]).unwrap().serial.to_string();
    assert!(audit(&mesh).iter().any(|line| line["serial"] == serial.as_str()), "{serial}");
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_issued() {
    let mesh = Mesh::of(SELVEDGE, []).await;
    let token = mesh.token("reviews", "1h").await.unwrap();
    let (file, moved) = (audit_file(&mesh), mesh.data_dir().join("moved"));
    fs::rename(&file, &moved).unwrap();
    fs::create_dir(&file).unwrap();

    let refused = ask(&mesh, "reviews", &token).await.unwrap_err();

    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("cannot write its audit file"), "{refused}");
    let log = mesh.control_plane_process().unwrap().whole_log().unwrap();
    assert!(log.contains("certificates.jsonl: a certificate cannot be written down"), "{log}");
    fs::remove_dir(&file).unwrap();
    ask(&mesh, "reviews", &token).await.unwrap();
    assert_eq!(audit(&mesh).len(), 1, "and who has moved the file away keeps what is in it");
}

#[tokio::test]
async fn every_answer_says_what_the_control_planes_clock_says() {
    let mesh = Mesh::of(SELVEDGE, []).await;
    let token = mesh.token("reviews", "1h").await.unwrap();

    let signed = ask(&mesh, "reviews", &token).await.unwrap();
    let refused = ask(&mesh, "reviews", &format!("{token}x")).await.unwrap_err();

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let said = refused.metadata().get(selvedge_api::TIME_METADATA).expect("the time");
    for time in [signed.time, said.to_str().unwrap().parse().unwrap()] {
        assert!((now - 60..=now).contains(&time), "{time} at {now}");
    }
}

#[tokio::test]
async fn who_asks_too_often_keeps_nobody_else_from_a_certificate() {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.control_plane_flag("--certificates-per-minute", "5");
    mesh.start_control_plane().await.unwrap();
    let (busy, quiet) = (mesh.token("busy", "1h").await.unwrap(), mesh.token("quiet", "1h").await.unwrap());
    for _ in 0..5 {
        ask(&mesh, "busy", &busy).await.unwrap();
    }

    let refused = ask(&mesh, "busy", &busy).await.unwrap_err();

    assert_eq!(refused.code(), Code::ResourceExhausted);
    let words = "default/sa/busy has asked for more than 5 certificates in a minute; try again in";
    assert!(refused.message().contains(words), "{refused}");
    ask(&mesh, "quiet", &quiet).await.unwrap();
    // Nor does a stranger use up what another may ask for: its token is no proof.
    for _ in 0..10 {
        ask(&mesh, "quiet", &format!("{quiet}x")).await.unwrap_err();
    }
    ask(&mesh, "quiet", &quiet).await.unwrap();
    let metrics = mesh.control_plane_admin("/metrics").await.unwrap().text();
    let counted = "selvedge_control_plane_certificates_refused_total{reason=\"rate-limited\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}
