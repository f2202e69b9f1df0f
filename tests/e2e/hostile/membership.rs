//! Who belongs to the mesh, and as whom: only whom a document names, and only as the workload that its proof was for.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use selvedge_certs::{leaf::Leaf, tls::Credentials};
use selvedge_demo::workload::Spec;
use selvedge_tests::{Mesh, SOON, poll};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::{SELVEDGE, mesh_client};

/// Waits until the log of `name`'s sidecar has a line with all of `words`.
async fn logged(mesh: &Mesh, name: &str, words: &[&str]) {
    let sidecar = mesh.workload(name).sidecar_process().expect("it runs");
    poll(SOON, &format!("{name}'s log says {words:?}"), async || {
        let log = sidecar.whole_log().map_err(|error| error.to_string())?;
        let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        if found { Ok(()) } else { Err(log) }
    })
    .await;
}

#[tokio::test]
async fn who_is_in_no_document_any_more_gets_no_certificate_after_the_grace_by_whatever_proof() {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.control_plane_flag("--membership-grace", "2s");
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller").flag("--certificate-ttl", "4s")]).await.unwrap();
    let entry = fs::read_to_string(mesh.config_dir().join("workload-caller.yaml")).unwrap();

    mesh.remove("workload-caller.yaml").unwrap();

    // By its certificate first, and when that has ended by its token, which is still good.
    let words = ["the control plane does not sign", "caller any more, so it is no longer a member"];
    logged(&mesh, "caller", &words).await;
    poll(SOON, "its certificate has ended", async || {
        let answer = mesh.workload("caller").admin("/ready").await.map_err(|error| error.to_string())?;
        if answer.status == 503 { Ok(()) } else { Err(answer.text()) }
    })
    .await;

    mesh.write("workload-caller.yaml", &entry).unwrap();
    mesh.sidecar_ready("caller").await.unwrap();
}

#[tokio::test]
async fn what_is_only_claimed_is_shown_as_such_and_what_is_proven_too() {
    let mut mesh = Mesh::of(SELVEDGE, [Spec::client("claims")]).await;
    mesh.place(Spec::client("proves")).unwrap();
    let token = mesh.token_with("proves", &["--workload", "default/proves"]).await.unwrap();
    mesh.start_sidecar_with("proves", &token).unwrap();
    mesh.sidecar_ready("proves").await.unwrap();

    let config: Value = mesh.control_plane_admin("/config").await.unwrap().json().unwrap();
    let status: Value = mesh.control_plane_admin("/status").await.unwrap().json().unwrap();

    let proof = |name: &str| {
        let mut proxies = config["proxies"].as_array().unwrap().iter();
        proxies.find(|proxy| proxy["workload"] == name).map(|proxy| proxy["proof"].clone())
    };
    assert_eq!(proof("default/claims"), Some("claimed".into()));
    assert_eq!(proof("default/proves"), Some("proven".into()));
    assert_eq!(status["proxies"]["unproven"], serde_json::json!(["default/claims"]));
}

/// A leaf of the mesh's own issuer, as nobody but a thief of its key would make it.
fn forged(mesh: &Mesh, purposes: Vec<ExtendedKeyUsagePurpose>) -> Credentials {
    let good = mesh.credentials("caller");
    let key = fs::read_to_string(mesh.data_dir().join("issuer-key.pem")).unwrap();
    let key = KeyPair::from_pem(&key).unwrap();
    let issuer = Issuer::from_ca_cert_der(&good.leaf.chain[1], key).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = good.leaf.not_before.into();
    params.not_after = good.leaf.not_after.into();
    params.subject_alt_names = vec![SanType::URI(good.leaf.identity.as_str().try_into().unwrap())];
    params.extended_key_usages = purposes;
    let own = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&own, &issuer).unwrap();
    let chain = vec![leaf.into(), good.leaf.chain[1].clone()];
    Credentials { leaf: Leaf::new(chain, own.into()).unwrap(), bundle: good.bundle }
}

#[tokio::test]
async fn a_certificate_that_was_not_made_for_a_client_opens_nothing() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let mesh = Mesh::of(SELVEDGE, [Spec::server("reviews-a", "reviews", 9080)]).await;
    let server = mesh.workload("reviews-a");

    for (purposes, served) in
        [(vec![ServerAuth, ClientAuth], true), (vec![], false), (vec![ServerAuth], false)]
    {
        let credentials = forged(&mesh, purposes.clone());
        let mut peer = mesh_client::connect(&mesh_client::configuration(credentials.clone()), server).await;
        let request = b"GET / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n";
        let _ = tokio::io::AsyncWriteExt::write_all(&mut peer, request).await;
        let mut answer = Vec::new();
        let limit = Duration::from_secs(10);
        let read = tokio::time::timeout(limit, peer.read_to_end(&mut answer)).await.expect("in time");
        assert_eq!(answer.starts_with(b"HTTP/1.1 200"), served, "{purposes:?}: {read:?}");
        assert_eq!(crate::bootstrap::renews(&mesh, &credentials).await, served, "{purposes:?}");
    }
    logged(&mesh, "reviews-a", &["is not for a TLS client"]).await;
}

#[tokio::test]
async fn a_data_directory_that_others_may_write_to_is_not_used() {
    for (what, wanted) in [
        ("directory", "chmod go-w"),
        ("key", "chmod 600"),
        ("owner", "chown"),
        ("certificate", "chmod go-w"),
        ("last-good", "chmod go-w"),
    ] {
        let mesh = Mesh::of(SELVEDGE, []).await;
        let data = mesh.data_dir();
        let key = data.join("ca-key.pem");
        let (path, mode) = match what {
            "directory" => (data.clone(), 0o777),
            "certificate" => (data.join("ca.pem"), 0o666),
            "last-good" => (data.join("last-good"), 0o777),
            _ => (key.clone(), 0o644),
        };
        if what == "last-good" {
            fs::create_dir_all(&path).unwrap();
        }
        if what == "owner" {
            // Nobody but root can give a file away.
            if std::os::unix::fs::chown(&key, Some(2102), None).is_err() {
                continue;
            }
        } else {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }

        let second = mesh.processes().start(
            "second control plane",
            [
                "control-plane",
                "--exit-on-stdin-close",
                "--listen=127.0.0.1:0",
                "--admin=127.0.0.1:0",
                &format!("--config-dir={}", mesh.config_dir().display()),
                &format!("--data-dir={}", copy(&data).display()),
            ],
        );
        let second = second.unwrap();
        let status = second.wait(SOON).await.unwrap();

        let log = second.whole_log().unwrap();
        assert!(!status.success() && log.contains(wanted), "{what}: {log}");
        assert_eq!(log.lines().count(), 1, "one error and nothing else:\n{log}");
    }
}

/// A copy of a directory with modes and owners, which nobody uses yet.
fn copy(directory: &std::path::Path) -> std::path::PathBuf {
    let copied = directory.with_file_name("copy");
    let status = std::process::Command::new("cp").arg("-a").arg(directory).arg(&copied).status();
    assert!(status.is_ok_and(|status| status.success()));
    copied
}
