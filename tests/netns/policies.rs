//! `NetworkPolicy` where connections are redirected: addresses tell workloads apart, and whatever an app dials is judged.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use selvedge_demo::call;
use selvedge_tests::{SOON, policies::peer_authentication, poll};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    dialogue::echo,
    mesh::{APP_PORT, Mesh, Mode, OTHER_PORT, client, server},
    network::Kind,
    rights::netns,
};

/// Where clouds answer anybody who asks with the credentials of the host.
const METADATA: &str = "169.254.169.254";

/// A policy called `own`, in namespace `default`.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: own, namespace: default}}\nspec: {spec}\n"
    )
}

/// What the app of `from` hears back from the port at `address` that repeats everything.
async fn repeated(mesh: &Mesh, from: &str, address: SocketAddr) -> io::Result<String> {
    let asking = move || async move {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"\x01\x02hello").await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await??;
        if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
    };
    mesh.workload(from).namespace().run(asking).await
}

async fn until_heard(mesh: &Mesh, from: &str, address: SocketAddr, is_heard: bool) {
    poll(SOON, &format!("{from} is heard at {address}: {is_heard}"), async || {
        let heard = repeated(mesh, from, address).await;
        if heard.is_ok() == is_heard { Ok(()) } else { Err(format!("{heard:?}")) }
    })
    .await;
}

/// The status that the app of `from` gets from `address`, which it calls as `authority`.
async fn status(mesh: &Mesh, from: &str, address: SocketAddr, authority: &str) -> Result<u16, String> {
    let answer = mesh.workload(from).call(address, call::to(authority, "/")).await;
    answer.map(|answer| answer.status.as_u16()).map_err(|error| error.to_string())
}

async fn until_status(mesh: &Mesh, from: &str, address: SocketAddr, authority: &str, expected: u16) {
    poll(SOON, &format!("{from} gets {expected} from {authority}"), async || {
        let status = status(mesh, from, address, authority).await;
        if status == Ok(expected) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

/// Two clients share one service account, a third has its own, and one has no sidecar. Only `v1` may connect.
async fn one_of_two() {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    let clients = [server("web-1", "web", "v1"), server("web-2", "web", "v2"), client("other")];
    mesh.add(clients).await;
    mesh.add([client("legacy").mode(Mode::NoSidecar), client("db")]).await;
    mesh.write("plaintext.yaml", &peer_authentication(Some("db"), "PERMISSIVE"));
    echo(mesh.workload("db"), OTHER_PORT);
    let opaque = SocketAddr::new(mesh.workload("db").place.address, OTHER_PORT);
    for from in ["web-1", "web-2", "other", "legacy"] {
        until_heard(&mesh, from, opaque, true).await;
    }
    let mut open = held_open(&mesh, "web-2", opaque).await;

    let from = "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {version: v1}}}]}]}";
    mesh.write("policy.yaml", &policy(from));

    let mut rest = Vec::new();
    let ended = timeout(SOON, open.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "what is forbidden ends");
    for (from, lets_in) in [("web-1", true), ("web-2", false), ("other", false), ("legacy", false)] {
        until_heard(&mesh, from, opaque, lets_in).await;
    }
    let log = mesh.sidecar_log("db");
    assert!(log.contains("NetworkPolicy default/own") && log.contains("refused by policy"), "{log}");

    // A client without a sidecar is known by its address alone.
    let legacy = "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: legacy}}}]}]}";
    mesh.write("policy.yaml", &policy(legacy));
    for (from, lets_in) in [("legacy", true), ("web-1", false)] {
        until_heard(&mesh, from, opaque, lets_in).await;
    }
}

/// Where connections are redirected, whoever calls in plaintext is known by its address, whatever it sends.
async fn seen_by_address() {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    mesh.add([client("web"), client("legacy").mode(Mode::NoSidecar), client("quiet"), client("db")]).await;
    mesh.write("plaintext.yaml", &peer_authentication(Some("db"), "PERMISSIVE"));
    echo(mesh.workload("db"), OTHER_PORT);
    let opaque = SocketAddr::new(mesh.workload("db").place.address, OTHER_PORT);
    for from in ["web", "legacy"] {
        until_heard(&mesh, from, opaque, true).await;
    }
    let nobody = "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}";
    let change = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(change.path(), policy(nobody)).expect("a file");
    let file = change.path().to_str().expect("a path");

    poll(3 * SOON, "who talks now and would be refused is known", async || {
        let output = mesh.selvedge(&["authz", "try", "-o", "json", "-f", file, "--admin", "127.0.0.1:9990"]);
        let said: serde_json::Value =
            serde_json::from_slice(&output.stdout).map_err(|_| format!("{output:?}"))?;
        let refused = said["seen"]["refused"].as_array().cloned().unwrap_or_default();
        let mut from: Vec<_> =
            refused.iter().map(|one| (one["from"].as_str(), one["port"].as_u64())).collect();
        from.sort_unstable();
        let port = Some(u64::from(OTHER_PORT));
        match from == [(Some("default/legacy"), port), (Some("default/web"), port)] {
            true => Ok(()),
            false => Err(format!("{said:#}")),
        }
    })
    .await;
}

/// A connection of the app of `from` that was repeated something.
async fn held_open(mesh: &Mesh, from: &str, address: SocketAddr) -> TcpStream {
    let opening = move || async move {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"\x01\x02hello").await?;
        let mut heard = [0; 7];
        timeout(SOON, stream.read_exact(&mut heard)).await??;
        stream.into_std()
    };
    let stream: io::Result<std::net::TcpStream> = mesh.workload(from).namespace().run(opening).await;
    TcpStream::from_std(stream.expect("an open connection")).expect("a socket")
}

/// A server outside the mesh is at the address of the metadata server, too.
async fn metadata(mesh: &mut Mesh) -> IpAddr {
    mesh.add([client("app"), server("outside", "outside", "v1").mode(Mode::NoSidecar)]).await;
    let (app, outside) = (mesh.workload("app"), mesh.workload("outside"));
    outside.namespace().ip(&format!("address add {METADATA}/32 dev lo"));
    app.namespace().ip(&format!("route add {METADATA}/32 via {}", outside.place.address));
    mesh.hosts(&format!("{METADATA} metadata.example.test\n"));
    echo(mesh.workload("outside"), OTHER_PORT);
    METADATA.parse().expect("an address")
}

/// Nobody may call the metadata server: not by address, not by name, with HTTP or without. Everything else goes on.
pub(crate) async fn without_metadata(document: &str) {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    let metadata = metadata(&mut mesh).await;
    let (http, opaque) = (SocketAddr::new(metadata, APP_PORT), SocketAddr::new(metadata, OTHER_PORT));
    let elsewhere = mesh.workload("outside").address();
    let names = [http.to_string(), format!("metadata.example.test:{APP_PORT}")];
    for name in &names {
        until_status(&mesh, "app", http, name, 200).await;
    }
    until_heard(&mesh, "app", opaque, true).await;
    let mut open = held_open(&mesh, "app", opaque).await;

    mesh.write("policy.yaml", document);

    let ended = timeout(SOON, open.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "what is forbidden ends");
    for name in &names {
        until_status(&mesh, "app", http, name, 403).await;
    }
    until_heard(&mesh, "app", opaque, false).await;
    until_status(&mesh, "app", elsewhere, &elsewhere.to_string(), 200).await;
}

#[test]
fn workloads_of_one_account_are_told_apart_by_their_addresses() {
    netns(one_of_two);
}

#[test]
fn who_talks_now_is_known_by_its_identity_or_its_address() {
    netns(seen_by_address);
}

#[test]
fn the_lessons_policy_of_calico_keeps_everybody_from_the_metadata_server() {
    netns(async || without_metadata(include_str!("../../examples/policies/calico-deny-metadata.yaml")).await);
}

#[test]
fn nobody_gets_at_an_address_that_egress_leaves_out_by_whatever_name() {
    netns(async || {
        let spec = "{podSelector: {matchLabels: {app: app}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, \
                    except: [169.254.169.254/32]}}]}]}";
        without_metadata(&policy(spec)).await;
    });
}
