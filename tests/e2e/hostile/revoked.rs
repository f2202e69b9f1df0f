//! Who is revoked: refused although its certificate is still valid, in both directions, and cut off from what it has.

mod connections;

use std::{process::Stdio, time::Duration};

use selvedge_certs::tls::Current;
use selvedge_demo::{cluster::Cluster, workload::Spec};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::{
    SELVEDGE, mesh_client,
    raw::{Around, CALLERS, SERVER, within},
    websocket::{self, SWITCHED},
};
use connections::Connections;

/// The head of an answer that goes on for good.
const STREAM: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n";

/// Runs `selvedge revoke` on the mesh's directory.
pub(super) async fn revoke(cluster: &Cluster, whom: &[&str]) {
    let mut command = cluster.processes().command();
    command.arg("revoke").args(whom).args(["--reason", "stolen", "--config-dir"]).arg(cluster.config_dir());
    let output = command.stdin(Stdio::null()).output().await.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

type Peer = TlsStream<TcpStream>;

/// Waits until the other end closes the connection.
async fn is_closed(what: &str, peer: &mut (impl AsyncReadExt + Unpin)) {
    within(what, async {
        let mut bytes = [0; 1024];
        while matches!(peer.read(&mut bytes).await, Ok(1..)) {}
    })
    .await;
}

async fn read_until(peer: &mut Peer, end: &[u8]) {
    let mut read = Vec::new();
    within("an answer", async {
        while !read.windows(end.len()).any(|window| window == end) {
            let more = peer.read_buf(&mut read).await.expect("an answer");
            assert!(more > 0, "{:?}", String::from_utf8_lossy(&read));
        }
    })
    .await;
}

/// Whether a new connection with these credentials is answered.
async fn is_served(around: &Around, caller: &Current) -> bool {
    let server = around.mesh.workload(SERVER);
    let mut peer = mesh_client::connect(caller, server).await;
    // What is refused may be closed before it is written to.
    let _ = peer.write_all(b"GET / HTTP/1.1\r\nhost: app:8080\r\nconnection: close\r\n\r\n").await;
    let mut read = Vec::new();
    tokio::select! {
        () = answer_all(around) => {}
        _ = peer.read_to_end(&mut read) => {}
    }
    read.ends_with(b"here")
}

/// Answers every request, one after the other. What is broken off before it is read is no request.
async fn answer_all(around: &Around) {
    loop {
        let mut end = around.accept_unhurried().await;
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") && end.read_buf(&mut read).await.is_ok_and(|more| more > 0) {}
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nhere";
        let _ = end.write_all(answer).await;
    }
}

#[tokio::test]
async fn a_client_that_is_revoked_loses_every_connection_and_gets_no_new_one() {
    let around = Around::new().await;
    let [thief, honest] =
        ["thief", "honest"].map(|account| mesh_client::configuration(around.mesh.credentials(account)));
    let mut stolen = Connections::open(&around, &thief).await;
    let server = around.mesh.workload(SERVER);
    let mut other = mesh_client::connect(&honest, server).await;

    revoke(&around.mesh, &["--service-account", "default/thief"]).await;

    stolen.are_closed().await;
    assert!(!is_served(&around, &thief).await);
    poll(SOON, "its log says why", async || {
        let log = server.sidecar_process().unwrap().whole_log().map_err(|error| error.to_string())?;
        let says = log.contains("is revoked by Revocation selvedge/account.default.thief (stolen)");
        if says { Ok(()) } else { Err(log) }
    })
    .await;
    // Nobody else has noticed anything.
    other.write_all(b"GET / HTTP/1.1\r\nhost: app:8080\r\n\r\n").await.unwrap();
    let mut end = around.accept().await;
    end.head().await;
    end.answer("honest").await;
    read_until(&mut other, b"honest").await;

    around.mesh.remove("revocation-account.default.thief.yaml").unwrap();
    poll(
        SOON,
        "it is let in again",
        async || {
            if is_served(&around, &thief).await { Ok(()) } else { Err("not yet") }
        },
    )
    .await;
}

#[tokio::test]
async fn a_certificate_that_is_revoked_by_its_number_shuts_nobody_else_out() {
    let around = Around::new().await;
    let [first, second] = [(); 2].map(|()| around.mesh.credentials("twin"));
    let serial = selvedge_certs::facts::Facts::parse(&first.leaf.chain[0]).unwrap().serial;
    let [first, second] = [first, second].map(mesh_client::configuration);
    assert!(is_served(&around, &first).await);

    revoke(&around.mesh, &["--serial", &serial.to_string()]).await;

    poll(
        SOON,
        "the one is refused",
        async || {
            if is_served(&around, &first).await { Err("not yet") } else { Ok(()) }
        },
    )
    .await;
    assert!(is_served(&around, &second).await);
}

/// What the client sees of a server that is revoked while it answers, and afterwards.
#[tokio::test]
async fn a_server_that_is_revoked_is_cut_off_and_not_called_any_more() {
    let around = Around::new().await;
    let mut open = Vec::new();
    for caller in CALLERS {
        let mut answering = around.client(caller).await;
        answering.send("GET / HTTP/1.1\r\nhost: app:8080\r\n\r\n").await;
        let mut end = around.accept().await;
        end.head().await;
        end.send(STREAM).await;
        answering.until("one").await;
        let mut websocket = around.client(caller).await;
        websocket.send(websocket::request()).await;
        let mut chat = around.accept().await;
        chat.head().await;
        chat.send(SWITCHED).await;
        websocket.head().await;
        open.push((format!("an answer {caller}"), answering, end));
        open.push((format!("a WebSocket {caller}"), websocket, chat));
    }
    let opened = around.mesh.workload(SERVER).metric("selvedge_inbound_connections_total").await.unwrap();

    revoke(&around.mesh, &["--identity", "spiffe://cluster.local/ns/default/sa/app"]).await;

    for (what, client, app) in &mut open {
        is_closed(&format!("the client's end of {what}"), &mut client.stream).await;
        // At the latest when it has more to say.
        poll(SOON, &format!("the app's end of {what} is closed"), async || {
            let written = app.stream.write_all(b"3\r\ntwo\r\n").await;
            match (written, app.stream.try_read(&mut [0; 64])) {
                (Ok(()), Ok(1..)) => Err("more was read".to_owned()),
                (Ok(()), Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    Err("it is open".to_owned())
                }
                _ => Ok(()),
            }
        })
        .await;
    }
    for caller in CALLERS {
        let mut client = around.client(caller).await;
        client.send("GET / HTTP/1.1\r\nhost: app:8080\r\nconnection: close\r\n\r\n").await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(
            answer.contains("selvedge-error: identity: ") && answer.contains("is revoked by"),
            "{answer}"
        );
    }
    let dialled = around.mesh.workload(SERVER).metric("selvedge_inbound_connections_total").await.unwrap();
    assert_eq!(dialled, opened, "it is not even connected to");
}

/// The workload's own name, for which its sidecar has a certificate.
#[tokio::test]
async fn a_workload_is_revoked_by_its_name_without_its_service_account() {
    let around = Around::new().await;
    let [caller, other] = CALLERS;
    let ask = async |caller: &str| {
        let mut client = around.client(caller).await;
        client.send("GET / HTTP/1.1\r\nhost: app:8080\r\nconnection: close\r\n\r\n").await;
        tokio::select! { answer = client.rest() => answer, () = answer_all(&around) => unreachable!() }
    };
    assert!(ask(caller).await.ends_with("here"));

    revoke(&around.mesh, &["--workload", &format!("default/{caller}")]).await;

    poll(SOON, "it is refused", async || {
        let answer = ask(caller).await;
        if answer.starts_with("HTTP/1.1 5") { Ok(()) } else { Err(answer) }
    })
    .await;
    assert!(ask(other).await.ends_with("here"));
}

#[tokio::test]
async fn a_sidecar_that_is_revoked_gets_no_certificate_and_no_configuration_and_its_log_says_why() {
    let client = Spec::client("caller").flag("--certificate-ttl", "5s");
    let mesh = Mesh::of(SELVEDGE, [client, Spec::server("reviews-a", "reviews", 9080)]).await;

    revoke(&mesh, &["--service-account", "default/caller"]).await;

    let sidecar = mesh.workload("caller").sidecar_process().unwrap();
    for words in ["the control plane does not sign", "the control plane refuses the stream"] {
        poll(SOON, &format!("its log says {words:?}"), async || {
            let log = sidecar.whole_log().map_err(|error| error.to_string())?;
            let says = |line: &&str| {
                line.contains(words)
                    && line.contains("revoked by Revocation selvedge/account.default.caller (stolen)")
            };
            if log.lines().any(|line| says(&line)) { Ok(()) } else { Err(log) }
        })
        .await;
    }
    poll(SOON, "it is not ready", async || {
        let answer = mesh.workload("caller").admin("/ready").await.map_err(|error| error.to_string())?;
        if answer.status == 503 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    let answer = mesh.workload("reviews-a").admin("/ready").await.unwrap();
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn another_namespaces_revocation_reaches_nobody_and_says_so() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::server("reviews-a", "reviews", 9080)]).await;
    let ask = async || {
        let answer =
            mesh.workload("caller").call(selvedge_demo::call::to("reviews:9080", "/")).await.unwrap();
        answer.status
    };
    assert_eq!(ask().await, 200);

    revoke(
        &mesh,
        &[
            "--namespace=elsewhere",
            "--service-account=default/reviews",
            "--workload=default/caller",
            "--name=all",
        ],
    )
    .await;

    let problems = poll(SOON, "it is reported", async || {
        let problems = mesh.control_plane_admin("/problems").await.map_err(|error| error.to_string())?.text();
        if problems.contains("revokes nobody in namespace default") { Ok(problems) } else { Err(problems) }
    })
    .await;
    assert!(problems.contains("spec.identities[0]") && problems.contains("spec.workloads[0]"), "{problems}");
    assert_eq!(ask().await, 200);
    let check = mesh.processes().command().arg("check").arg("--config-dir").arg(mesh.config_dir()).output();
    let check = tokio::time::timeout(Duration::from_secs(20), check).await.unwrap().unwrap();
    assert!(!check.status.success());
    assert!(String::from_utf8_lossy(&check.stdout).contains("revokes nobody in namespace default"));
}
