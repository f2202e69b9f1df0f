//! `selvedge authz try` says first of all who talks now and would be refused: what sidecars have really seen.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{Mesh, SOON, poll};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

use crate::SELVEDGE;

/// A sidecar tells what is new every 15 seconds.
const TOLD: Duration = Duration::from_secs(60);

/// Nobody may call the vault any more.
const NOTHING: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nothing, namespace: default}
spec: {selector: {matchLabels: {app: vault}}}
";

/// What the answer says of a change, by the control plane's own port; and its exit status.
fn tried(mesh: &Mesh, words: &[&str]) -> (Value, Option<i32>) {
    let mut command = Command::new(SELVEDGE);
    command.args(["authz", "try", "-o", "json"]).args(words).arg("--config-dir").arg(mesh.config_dir());
    let output = command.output().expect("the command runs");
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (said, output.status.code())
}

/// Who calls whom, in the list `list` of those who talk now.
fn talking(said: &Value, list: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let all = said["seen"][list].as_array().unwrap_or_else(|| panic!("{said:#}"));
    all.iter().map(|one| (text(&one["from"]), text(&one["to"]))).collect()
}

fn pair(from: &str) -> (String, String) {
    (from.to_owned(), "default/vault".to_owned())
}

async fn mesh() -> Mesh {
    Mesh::of(SELVEDGE, [Spec::client("web"), Spec::client("other"), Spec::server("vault", "vault", 9080)])
        .await
}

/// A GET from the address `from` to the vault's sidecar, in plaintext.
async fn plaintext(mesh: &Mesh, from: Ipv4Addr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(from.into(), 0)).expect("all of 127.0.0.0/8 is this host's");
    let mut stream = socket.connect(mesh.workload("vault").inbound).await.expect("a connection");
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: vault\r\nConnection: close\r\n\r\n")
        .await
        .expect("it is taken");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

async fn call_vault(mesh: &Mesh, from: &str) {
    poll(SOON, "the vault answers", async || {
        let answer =
            mesh.workload(from).call(call::to("vault:9080", "/")).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
}

/// Waits until `words` are answered with who talks now and is refused.
async fn refused(mesh: &Mesh, words: &[&str], expected: &[(String, String)]) -> Value {
    let admin = mesh.control_plane_admin_address().to_string();
    poll(TOLD, &format!("{words:?}: {expected:?}"), async || {
        let (said, status) = tried(mesh, &[words, &["--admin", &admin]].concat());
        assert_eq!(status, Some(1), "{said:#}");
        let refused = talking(&said, "refused");
        // Each sidecar tells something, if only that it watches.
        let all_told = said["seen"]["silent"] == serde_json::json!([]);
        if refused == expected && all_told { Ok(said) } else { Err(format!("{said:#}")) }
    })
    .await
}

#[tokio::test]
async fn who_talks_now_and_would_be_refused_comes_first_and_is_known_again_after_a_restart() {
    let mut mesh = mesh().await;
    let change = mesh.directory().join("change.yaml");
    std::fs::write(&change, NOTHING).expect("a writable directory");
    let file = ["-f", change.to_str().expect("a path")];
    call_vault(&mesh, "web").await;
    plaintext(&mesh, Ipv4Addr::new(127, 99, 0, 1)).await;
    let stranger = || pair("127.99.0.1 in plaintext");

    let said = refused(&mesh, &file, &[pair("default/web"), stranger()]).await;
    let could = said["refused"].as_array().expect("a list");
    assert!(could.iter().any(|one| one["from"] == "default/other"), "it could call, and never has: {said:#}");
    refused(&mesh, &["--strict"], &[stranger()]).await;

    // What was told is gone with the control plane; the sidecars tell it again.
    mesh.kill_control_plane().await.expect("it ends");
    mesh.start_control_plane().await.expect("a control plane");
    refused(&mesh, &file, &[pair("default/web"), stranger()]).await;

    // Of a control plane that cannot be asked nothing is known.
    for more in [&[][..], &["--admin", "127.0.0.1:1"]] {
        let (said, status) = tried(&mesh, &[&file, more].concat());
        assert!(said["not_seen"].is_string() && said.get("seen").is_none(), "{said:#}");
        assert_eq!(status, Some(1), "{said:#}");
    }
}

#[tokio::test]
async fn strangers_with_many_addresses_hide_nobody_and_are_counted() {
    let mesh = mesh().await;
    call_vault(&mesh, "web").await;
    for number in 0..600_u16 {
        let [high, low] = number.to_be_bytes();
        plaintext(&mesh, Ipv4Addr::new(127, 98, high, low)).await;
    }
    call_vault(&mesh, "other").await;

    let admin = mesh.control_plane_admin_address().to_string();
    let said = poll(TOLD, "what is left out has been told", async || {
        let (said, _) = tried(&mesh, &["--strict", "--admin", &admin]);
        let left_out = said["seen"]["left_out"]["default/vault"].as_u64();
        if left_out == Some(600 - 512) { Ok(said) } else { Err(format!("{said:#}")) }
    })
    .await;
    assert_eq!(talking(&said, "refused").len(), 512);
    let change = mesh.directory().join("change.yaml");
    std::fs::write(&change, NOTHING).expect("a writable directory");
    let (said, _) = tried(&mesh, &["-f", change.to_str().expect("a path"), "--admin", &admin]);
    let refused = talking(&said, "refused");
    assert!(["default/web", "default/other"].iter().all(|from| refused.contains(&pair(from))), "{said:#}");
}

#[tokio::test]
async fn calls_that_the_callers_own_sidecar_refuses_are_shown_with_what_a_change_does_to_them() {
    let mesh = mesh().await;
    let only = |label: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: out, namespace: default}}\n\
             spec: {{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Egress], egress: [{{to: [{{podSelector: \
             {{matchLabels: {{app: {label}}}}}}}]}}]}}\n"
        )
    };
    mesh.write("out.yaml", &only("other")).expect("a writable directory");
    poll(SOON, "the call is refused", async || {
        let answer = mesh.workload("web").call(call::to("vault:9080", "/")).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status == 403 { Ok(()) } else { Err(answer.summary()) }
    })
    .await;

    let change = mesh.directory().join("change.yaml");
    std::fs::write(&change, only("vault")).expect("a writable directory");
    let admin = mesh.control_plane_admin_address().to_string();
    let words = ["-f", change.to_str().expect("a path"), "--admin", &admin];
    poll(TOLD, "the refused call has been told", async || {
        // One that was under way when the policy came was cut off, not refused.
        let again = mesh.workload("web").call(call::to("vault:9080", "/")).await;
        let (said, _) = tried(&mesh, &words);
        if said["seen"]["refused_calls"] == serde_json::json!([]) {
            return Err(format!("{:?}: {said:#}", again.map(|answer| answer.summary())));
        }
        assert_eq!(talking(&said, "refused_calls"), [pair("default/web")]);
        let call = &said["seen"]["refused_calls"][0];
        let outcome = |when: &str| call[when].to_string();
        assert!(
            outcome("before").contains("denied") && outcome("before").contains("default/out"),
            "{said:#}"
        );
        assert!(outcome("after").contains("allowed"), "{said:#}");
        Ok(())
    })
    .await;
}
