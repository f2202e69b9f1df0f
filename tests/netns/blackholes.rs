//! Endpoints whose packets vanish on the way: nothing refuses a connection, and nothing answers one.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use selvedge_demo::call::{self, Answer};
use selvedge_tests::{SOON, dns::DnsServer, poll};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
};

use crate::{
    mesh::{Mesh, client},
    namespace::Namespace,
    network::{Kind, NetworkPlace},
    rights::netns,
};

/// Where the servers listen.
const PORT: u16 = 7080;
/// Where the app calls them: an address that nobody has.
const ADDRESS: &str = "10.99.0.9:80";
const HOST: &str = "shop.test";

/// Drops whatever comes for the server.
const HOLE: &str =
    "table inet hole { chain in { type filter hook input priority -400; tcp dport 7080 drop; }; }";
const NO_HOLE: &str = "delete table inet hole";

/// Answers each request with `name`, and closes the connection: so each needs a new one.
fn serve(namespace: &Namespace, at: &str, name: &'static str) {
    let listener = namespace.inside(|| std::net::TcpListener::bind((at, PORT))).unwrap();
    listener.set_nonblocking(true).unwrap();
    tokio::spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await? == 0 {
                        return Ok(());
                    }
                }
                let length = name.len();
                let answer =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{name}");
                stream.write_all(answer.as_bytes()).await?;
                stream.shutdown().await
            });
        }
    });
}

/// Writes an entry for `shop.test` with this resolution and these endpoints.
fn entry(mesh: &Mesh, resolution: &str, endpoints: &str) {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: shop}}\nspec:\n  hosts: [{HOST}]\n  \
         addresses: [10.99.0.9]\n  location: MESH_EXTERNAL\n  resolution: {resolution}\n  ports: [{{number: 80, name: http, \
         targetPort: {PORT}}}]\n  endpoints: [{endpoints}]\n"
    );
    mesh.write("entry.yaml", &text);
}

async fn ask(mesh: &Mesh) -> Result<Answer, String> {
    let answer = mesh.workload("client").call(ADDRESS.parse().unwrap(), call::to(HOST, "/")).await;
    answer.map_err(|error| error.to_string())
}

/// Who answers; anything but 200 is a failure.
async fn who(mesh: &Mesh) -> String {
    let answer = ask(mesh).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.summary());
    answer.text()
}

async fn until_answered(mesh: &Mesh, wanted: &str) {
    poll(SOON, &format!("{wanted} answers"), async || match ask(mesh).await? {
        answer if answer.text() == wanted => Ok(()),
        answer => Err(answer.summary()),
    })
    .await;
}

async fn endpoint(mesh: &Mesh, address: IpAddr) -> Value {
    let client = mesh.workload("client");
    let admin = client.loopback(4191);
    let all = client.call(admin, call::to(&admin.to_string(), "/endpoints")).await.unwrap();
    let all: Value = all.json().unwrap();
    let address = SocketAddr::new(address, PORT).to_string();
    let one = all.as_array().unwrap().iter().find(|one| one["address"] == address);
    one.unwrap_or_else(|| panic!("{address} in {all}")).clone()
}

/// Calls until the endpoint is ejected, `times` times as long as at first; every call succeeds. Says the ejection.
async fn until_ejected(mesh: &Mesh, place: &NetworkPlace, times: impl Fn(u64) -> bool) -> Value {
    poll(SOON, "it is ejected", async || {
        who(mesh).await;
        let found = endpoint(mesh, place.address).await;
        let ejection = &found["ejection"];
        if ejection["times"].as_u64().is_some_and(&times) {
            Ok(ejection.clone())
        } else {
            Err(found.to_string())
        }
    })
    .await
}

async fn ejected_and_back() {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    mesh.add([client("client")]).await;
    let [left, right] = ["left", "right"].map(|name| mesh.network.join(name));
    serve(&left.namespace, "0.0.0.0", "left");
    serve(&right.namespace, "0.0.0.0", "right");
    entry(&mesh, "STATIC", &format!("{{address: {}}}, {{address: {}}}", left.address, right.address));
    mesh.write(
        "rule.yaml",
        &format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: shop}}\nspec:\n  host: {HOST}\n  \
             trafficPolicy:\n    loadBalancer: {{simple: ROUND_ROBIN}}\n    connectionPool: {{tcp: {{connectTimeout: \
             300ms}}}}\n    outlierDetection: {{consecutive5xxErrors: 1, interval: 2s, baseEjectionTime: 1s, \
             maxEjectionPercent: 100}}\n"
        ),
    );
    until_answered(&mesh, "left").await;
    until_answered(&mesh, "right").await;

    left.namespace.nft(HOLE);
    let ejection = until_ejected(&mesh, &left, |_| true).await;
    assert_eq!(ejection["reason"], "consecutive-5xx");
    let last = ejection["last_failure"].as_str().unwrap();
    assert!(last.contains("within 300ms"), "{last}");
    // It comes back, and fails again at once: each time it is out for longer.
    until_ejected(&mesh, &left, |times| times >= 3).await;

    // Two intervals without an ejection make it two times shorter.
    left.namespace.nft(NO_HOLE);
    until_answered(&mesh, "left").await;
    let well = Instant::now();
    poll(SOON, "it is well for two intervals", async || {
        who(&mesh).await;
        let time = well.elapsed();
        if time > Duration::from_secs(5) { Ok(()) } else { Err(format!("{time:?}")) }
    })
    .await;
    left.namespace.nft(HOLE);
    let ejection = until_ejected(&mesh, &left, |_| true).await;
    assert!(ejection["times"].as_u64() < Some(3), "{ejection}");
}

/// A name leads to an address from which nothing comes back, and to others, of both families.
async fn other_addresses() {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    mesh.add([client("client")]).await;
    let [left, right] = ["left", "right"].map(|name| mesh.network.join(name));
    mesh.workload("client").namespace().ip("addr add fd00:9::1/64 dev eth0 nodad");
    right.namespace.ip("addr add fd00:9::2/64 dev eth0 nodad");
    serve(&left.namespace, "0.0.0.0", "left");
    serve(&right.namespace, "fd00:9::2", "right, IPv6");
    let client = mesh.workload("client").namespace();
    let socket = client.inside(|| std::net::UdpSocket::bind("127.0.0.1:0")).unwrap();
    socket.set_nonblocking(true).unwrap();
    let dns = DnsServer::on(UdpSocket::from_std(socket).unwrap());
    mesh.resolv_conf(&std::fs::read_to_string(dns.resolv_conf()).unwrap());
    let six: IpAddr = "fd00:9::2".parse().unwrap();
    left.namespace.nft(HOLE);

    for resolution in ["DNS", "DNS_ROUND_ROBIN"] {
        let name = format!("{}.test", resolution.to_ascii_lowercase().replace('_', "-"));
        dns.set(&name, &[left.address, six]);
        entry(&mesh, resolution, &format!("{{address: {name}}}"));
        until_answered(&mesh, "right, IPv6").await;
        let begun = Instant::now();
        for _ in 0..4 {
            assert_eq!(who(&mesh).await, "right, IPv6");
        }
        // Without the others, each would wait for the 10 s that a connection has.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
    left.namespace.nft(NO_HOLE);
    right.namespace.nft(HOLE);
    until_answered(&mesh, "left").await;
}

#[test]
fn an_endpoint_whose_packets_vanish_is_ejected_for_longer_each_time_and_no_request_fails() {
    netns(ejected_and_back);
}

#[test]
fn a_connection_that_is_not_made_in_time_goes_to_another_address_of_the_name() {
    netns(other_addresses);
}
