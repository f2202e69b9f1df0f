//! The matrix against what connections really do: random policies, and every cell of the matrix tried.

use std::{
    env,
    net::{IpAddr, SocketAddr},
    process::Command,
    time::Duration,
};

use fastrand::Rng;
use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{
    Mesh, SOON,
    policies::drawn::{Draw, Party},
    poll,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::timeout,
};

use super::said;
use crate::SELVEDGE;

/// How often policies are drawn at least; and at most, until everything was drawn that can become of a connection.
const ROUNDS: std::ops::Range<usize> = 4..12;

/// Names the seed of what is drawn, so that a failure can be had again.
const SEED_VARIABLE: &str = "SELVEDGE_TEST_AUTHZ_SEED";

/// Workloads with a sidecar that serve HTTP, one that serves opaque bytes, and one without a sidecar.
const HTTP: [&str; 4] = ["one", "two", "three", "four"];
const OPAQUE: &str = "five";
const BARE: &str = "six";

const PORT: u16 = 8080;

/// What becomes of a GET and of a DELETE: the status, or nothing if the connection is reset.
type Done = [Option<u16>; 2];

#[tokio::test]
async fn every_cell_is_what_a_connection_really_comes_to() {
    let seed =
        env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let mut rng = Rng::with_seed(seed);
    let mesh = mesh().await;
    let mut outcomes = std::collections::BTreeMap::<String, usize>::new();
    for round in 0..ROUNDS.end {
        if round >= ROUNDS.start && outcomes.len() == 3 {
            break;
        }
        let policies = policies(&mut rng);
        mesh.write("policies.yaml", &policies).expect("a writable directory");
        let matrix = said(&mesh, &["matrix", "-o", "json"], 0);
        let cells = matrix["pairs"].as_array().expect("a list");
        assert_eq!(cells.len(), 30, "{matrix:#}");
        for cell in cells {
            let what = format!("{SEED_VARIABLE}={seed}, round {round}: {cell}\n{policies}");
            agrees(&mesh, cell, &what).await;
            *outcomes.entry(cell["outcome"].to_string()).or_default() += 1;
        }
    }
    assert!(outcomes.len() == 3, "not everything was drawn: {outcomes:?}; {SEED_VARIABLE}={seed}");
}

async fn mesh() -> Mesh {
    let server = |name: &str| Spec::server(name, name, PORT);
    let all = HTTP.iter().map(|name| server(name)).chain([server(OPAQUE), server(BARE).without_sidecar()]);
    let mesh = Mesh::of(SELVEDGE, all).await;
    mesh.edit(&format!("service-{OPAQUE}.yaml"), |text| text.replace("name: http", "name: tcp"))
        .expect("a writable directory");
    mesh
}

/// Waits until the connections of `cell` come to what it says.
async fn agrees(mesh: &Mesh, cell: &Value, what: &str) {
    let name = |field: &str| cell[field].as_str().and_then(|text| text.rsplit('/').next()).expect("a name");
    let (from, to) = (name("from"), name("to"));
    let is_opaque = to == OPAQUE;
    let denied = if is_opaque { None } else { Some(403) };
    let expected: Done = match cell["outcome"].as_str() {
        Some("allowed") => [Some(200), Some(200)],
        // A client's own sidecar answers for it what it does not let out.
        Some("denied") => [denied, denied],
        _ => ["GET", "DELETE"].map(|method| Some(explained(mesh, from, to, method))),
    };
    poll(SOON, what, async || {
        let done = done(mesh, from, to).await;
        if done == expected { Ok(()) } else { Err(format!("{done:?} instead of {expected:?}")) }
    })
    .await;
}

/// The status of a request that only the request decides, by `selvedge explain connection`.
fn explained(mesh: &Mesh, from: &str, to: &str, method: &str) -> u16 {
    let mut command = Command::new(SELVEDGE);
    command.args(["explain", "connection", "-X", method, "--from", &format!("default/{from}")]);
    command.args(["--to", &format!("default/{to}:{PORT}"), "--config-dir"]).arg(mesh.config_dir());
    let output = command.output().expect("the command runs");
    match output.status.code() {
        Some(0) => 200,
        Some(1) => 403,
        _ => panic!("{output:?}"),
    }
}

/// What becomes of a GET and of a DELETE of `from` to `to`.
async fn done(mesh: &Mesh, from: &str, to: &str) -> Done {
    let mut done = [None; 2];
    for (method, done) in ["GET", "DELETE"].into_iter().zip(&mut done) {
        *done = match from == BARE {
            true => plaintext(mesh, mesh.workload(from).app.ip(), mesh.workload(to).inbound, method).await,
            false if to == OPAQUE => tunnelled(mesh, from, to, method).await,
            false => {
                let call = call::to(&format!("{to}:{PORT}"), "/").method(method.parse().expect("a method"));
                mesh.workload(from).call(call).await.ok().map(|answer| answer.status.as_u16())
            }
        };
    }
    done
}

/// By a client without a sidecar, at `address`.
async fn plaintext(_: &Mesh, address: IpAddr, to: SocketAddr, method: &str) -> Option<u16> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.bind(SocketAddr::new(address, 0)).ok()?;
    exchange(socket.connect(to).await.ok()?, method, "").await
}

/// Opaque bytes through the sidecar of `from`, by a tunnel.
async fn tunnelled(mesh: &Mesh, from: &str, to: &str, method: &str) -> Option<u16> {
    let stream = tokio::net::TcpStream::connect(mesh.workload(from).outbound).await.ok()?;
    exchange(stream, method, &format!("CONNECT {to}:{PORT} HTTP/1.1\r\nHost: {to}:{PORT}\r\n\r\n")).await
}

/// The status of the answer to a request on `stream`, after `before`; `None`: there is none.
async fn exchange(mut stream: tokio::net::TcpStream, method: &str, before: &str) -> Option<u16> {
    let exchange = async {
        let mut answer = Vec::new();
        if !before.is_empty() {
            stream.write_all(before.as_bytes()).await.ok()?;
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(stream.read_u8().await.ok()?);
            }
            if status(&answer) != Some(200) {
                // The client's own sidecar refuses the tunnel.
                return None;
            }
            answer.clear();
        }
        let request = format!("{method} / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        // A reset after the answer is none of our business.
        let _ = stream.read_to_end(&mut answer).await;
        status(&answer)
    };
    timeout(Duration::from_secs(10), exchange).await.expect("an answer or an end")
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(answer.get(..12)?).ok()?;
    line.strip_prefix("HTTP/1.1 ")?.parse().ok()
}

/// Policies of Istio's and of Kubernetes' kinds.
fn policies(rng: &mut Rng) -> String {
    let party = |name: &str| Party {
        own: format!("app: {name}"),
        shared: format!("app: {name}"),
        account: name.to_owned(),
        // On loopback, all that sidecars send comes from one address.
        address: None,
    };
    let parties: Vec<Party> = HTTP.iter().chain(&[OPAQUE, BARE]).map(|name| party(name)).collect();
    let ports = &[(PORT, "http")];
    Draw { parties: &parties, ports, below: &mut |below| rng.usize(..below) }.istio_and_kubernetes()
}
