//! Tunnels by CONNECT.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Method, Version};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, pki_types::ServerName};

use super::{GREETING, LIMIT, POSTGRES, database, echo, is_echo, upstream};
use crate::{BOTH_VERSIONS, SELVEDGE, mesh_client};

/// The head of the answer to a CONNECT, and the stream after it.
pub(super) async fn connect(proxy: SocketAddr, head: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let head = timeout(LIMIT, async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { break };
            head.push(byte);
        }
        String::from_utf8(head).unwrap()
    });
    (head.await.expect("an answer in time"), stream)
}

fn head_for(target: &str) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
}

#[tokio::test]
async fn a_tunnel_is_one_line_when_it_is_over_with_its_bytes_and_where_it_went() {
    let mesh = database(&[]).await;
    let log = "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: log, namespace: default}\nspec:\n  \
               accessLogging: [{providers: [{name: json}]}]\n";
    mesh.write("log.yaml", log).unwrap();
    let proxy = mesh.workload("caller").outbound;
    let sidecar = mesh.workload("caller").sidecar_process().unwrap();
    let written = || -> Vec<serde_json::Value> {
        let lines = sidecar.lines().into_iter().filter(|line| line.contains("\"start_time\""));
        lines.map(|line| serde_json::from_str(&line).unwrap()).collect()
    };
    poll(SOON, "the log is on", async || {
        let (answer, mut tunnel) = connect(proxy, &head_for("db:5432")).await;
        assert!(answer.split(' ').nth(1) == Some("200"), "{answer}");
        is_echo(&mut tunnel).await;
        written().last().cloned().ok_or("no line")
    })
    .await;

    let (answer, mut tunnel) = connect(proxy, &head_for("db:5432")).await;
    assert!(answer.split(' ').nth(1) == Some("200"), "{answer}");
    let client = tunnel.local_addr().unwrap().to_string();
    let its_own = || -> Vec<serde_json::Value> {
        written().into_iter().filter(|line| line["downstream_remote_address"] == client).collect()
    };
    is_echo(&mut tunnel).await;
    drop(tunnel);
    let line = poll(SOON, "its line", async || its_own().first().cloned().ok_or("no line")).await;

    assert_eq!((&line["method"], &line["response_code"]), (&"CONNECT".into(), &200.into()), "{line:#}");
    assert_eq!(line["bytes_received"], POSTGRES.len(), "{line:#}");
    assert_eq!(line["bytes_sent"], GREETING.len() + POSTGRES.len(), "{line:#}");
    assert_eq!(line["upstream_host"], mesh.workload("db-1").app.to_string(), "{line:#}");
    assert_eq!(line["mtls"], true, "{line:#}");
    assert_eq!(its_own().len(), 1, "{:#?}", its_own());

    let (answer, refused) = connect(proxy, &head_for("127.0.0.1:1")).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let client = refused.local_addr().unwrap().to_string();
    let its_own = || -> Vec<serde_json::Value> {
        written().into_iter().filter(|line| line["downstream_remote_address"] == client).collect()
    };
    let line =
        poll(SOON, "the line of one that is refused", async || its_own().first().cloned().ok_or("no line"))
            .await;
    assert_eq!(
        (&line["method"], &line["reason"]),
        (&"CONNECT".into(), &"connect-failure".into()),
        "{line:#}"
    );
    assert_eq!(its_own().len(), 1, "{:#?}", its_own());
}

#[tokio::test]
async fn connect_opens_a_tunnel_to_a_service() {
    let mesh = database(&[]).await;
    let proxy = mesh.workload("caller").outbound;

    for head in [
        head_for("db:5432"),
        // As Python's http.client asked for long.
        "CONNECT db:5432 HTTP/1.0\r\n\r\n".to_owned(),
        "CONNECT db.default.svc.cluster.local:5432 HTTP/1.1\r\nHost: db\r\nProxy-Connection: Keep-Alive\r\n\r\n"
            .to_owned(),
    ] {
        let (answer, mut tunnel) = connect(proxy, &head).await;
        assert!(answer.split(' ').nth(1) == Some("200"), "{head}: {answer}");
        let lower = answer.to_ascii_lowercase();
        assert!(!lower.contains("content-length") && !lower.contains("transfer-encoding"), "{answer}");
        is_echo(&mut tunnel).await;
    }
}

#[tokio::test]
async fn a_line_about_a_tunnel_is_known_to_be_about_mutual_tls() {
    let mesh = database(&[]).await;
    let telemetry = "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: log, namespace: default}\nspec:\n  \
                     accessLogging: [{match: {mode: CLIENT}, providers: [{name: json}], filter: {expression: connection.mtls}}]\n";
    mesh.write("log.yaml", telemetry).unwrap();
    let caller = mesh.workload("caller");

    let line = poll(SOON, "a line about the tunnel", async || {
        let (_, mut tunnel) = connect(caller.outbound, &head_for("db:5432")).await;
        is_echo(&mut tunnel).await;
        drop(tunnel);
        let lines = caller.sidecar_process().expect("it runs").lines();
        let line = lines.into_iter().rfind(|line| line.starts_with('{') && line.contains("\"CONNECT\""));
        line.ok_or("no line")
    })
    .await;

    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["mtls"], true, "{line:#}");
    assert_eq!(line["direction"], "outbound", "{line:#}");
}

#[tokio::test]
async fn what_a_client_sends_before_its_tunnel_is_open_is_the_tunnels() {
    let mesh = database(&[]).await;
    let mut stream = TcpStream::connect(mesh.workload("caller").outbound).await.unwrap();
    let early = [head_for("db:5432").as_bytes(), b"\x16\x03\x01 GET / HTTP/1.1\r\n\r\n"].concat();

    stream.write_all(&early).await.unwrap();
    stream.shutdown().await.unwrap();

    let mut all = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut all)).await.expect("in time").unwrap();
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer") + 4;
    assert_eq!(&all[end..], [GREETING, b"\x16\x03\x01 GET / HTTP/1.1\r\n\r\n"].concat());
}

/// How a client begins whose TLS asks for `name`.
fn hello(mesh: &Mesh, name: &str) -> Vec<u8> {
    let configuration = mesh_client::configuration(mesh.credentials("caller"));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut asking = ClientConfig::clone(&configuration.client);
    asking.enable_sni = true;
    // Not as sidecars do.
    asking.alpn_protocols.clear();
    let mut connection = ClientConnection::new(Arc::new(asking), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn a_tunnel_follows_the_name_that_its_own_tls_asks_for() {
    let mesh = database(&[("--upstream", "0=db:5432")]).await;
    mesh.edit("db.yaml", |text| text.replace("tcp-pg", "tls-pg")).unwrap();
    mesh.write(
        "route.yaml",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: db}\nspec:\n  hosts: [db]\n  tls:\n  \
         - match: [{sniHosts: [db]}]\n    route: [{destination: {host: db}}]\n",
    )
    .unwrap();
    let proxy = mesh.workload("caller").outbound;
    let (known, unknown) = (hello(&mesh, "db"), hello(&mesh, "other.example"));
    let through = async |mut stream: TcpStream, hello: &[u8]| {
        let mut answer = vec![0; GREETING.len() + hello.len()];
        stream.write_all(hello).await.map_err(|error| error.to_string())?;
        let read = timeout(LIMIT, stream.read_exact(&mut answer)).await.expect("in time");
        read.map_err(|error| error.to_string())?;
        Ok::<_, String>(answer == [GREETING, hello].concat())
    };

    poll(SOON, "the route is in force", async || {
        let (answer, tunnel) = connect(proxy, &head_for("db:5432")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        if through(tunnel, &unknown).await.is_err() { Ok(()) } else { Err("whoever is asked for") }
    })
    .await;

    let (_, tunnel) = connect(proxy, &head_for("db:5432")).await;
    assert_eq!(through(tunnel, &known).await, Ok(true));
    let direct = TcpStream::connect(upstream(&mesh, "db:5432").await).await.unwrap();
    assert_eq!(through(direct, &known).await, Ok(true));
}

#[tokio::test]
async fn connect_over_http2_opens_a_tunnel_beside_other_streams() {
    let mesh = database(&[]).await;
    let tcp = TcpStream::connect(mesh.workload("caller").outbound).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let connect = |target: &str| {
        http::Request::builder().method(Method::CONNECT).uri(target).body(Empty::<Bytes>::new()).unwrap()
    };

    let first = sender.send_request(connect("db:5432")).await.unwrap();
    let refused = sender.send_request(connect("127.0.0.1:1")).await.unwrap();
    let second = sender.send_request(connect("db:5432")).await.unwrap();

    assert_eq!((first.status(), second.status()), (http::StatusCode::OK, http::StatusCode::OK));
    assert_eq!(refused.status(), 503);
    assert!(refused.headers()["selvedge-error"].to_str().unwrap().starts_with("connect-failure: "));
    for tunnel in [first, second] {
        is_echo(&mut TokioIo::new(hyper::upgrade::on(tunnel).await.unwrap())).await;
    }
}

#[tokio::test]
async fn connect_goes_outside_by_the_outbound_traffic_policy() {
    let outside = echo("127.0.0.1:0".parse().unwrap()).await;
    let mut mesh = database(&[]).await;
    let (answer, mut tunnel) =
        connect(mesh.workload("caller").outbound, &head_for(&outside.to_string())).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    is_echo(&mut tunnel).await;

    mesh.restart_sidecar("caller", &[("--outbound-traffic-policy", "registry-only")]).await.unwrap();
    let (answer, _) = connect(mesh.workload("caller").outbound, &head_for(&outside.to_string())).await;

    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("selvedge-error: registry-only: "),
        "{answer}"
    );
}

#[tokio::test]
async fn a_refused_tunnel_is_an_answer_and_the_next_request_is_served() {
    let specs = [Spec::client("caller"), Spec::server("web-1", "web", 8080)];
    let mesh = Mesh::of(SELVEDGE, specs).await;
    let caller = mesh.workload("caller");
    let own = [caller.outbound, caller.inbound].map(|own| (own.to_string(), "508", "loop: "));
    let others = [
        ("127.0.0.1:1".to_owned(), "503", "connect-failure: "),
        ("nowhere.invalid:443".to_owned(), "503", "connect-failure: "),
        ("db:5432".to_owned(), "503", "connect-failure: "),
        ("web:8080".to_owned(), "400", "bad-request: "),
        ("web".to_owned(), "400", "bad-request: "),
        ("web:0".to_owned(), "400", "bad-request: "),
    ];
    for (target, status, why) in own.into_iter().chain(others) {
        let (answer, mut stream) = connect(caller.outbound, &head_for(&target)).await;
        let (said, rest) = (format!("HTTP/1.1 {status}"), format!("selvedge-error: {why}"));
        assert!(answer.starts_with(&said) && answer.contains(&rest), "{target}: {answer}");
        if status == "400" {
            continue;
        }
        let length = answer.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.trim().parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: web:8080\r\n\r\n").await.unwrap();
        let mut next = [0; 15];
        timeout(LIMIT, stream.read_exact(&mut next)).await.expect("in time").unwrap();
        assert_eq!(&next, b"HTTP/1.1 200 OK", "{target}");
    }

    // Nobody comes in this way.
    for version in BOTH_VERSIONS {
        let call = call::to("web:8080", "web:8080").method(Method::CONNECT).version(version);
        if version == Version::HTTP_11 {
            let answer = call::send(mesh.workload("web-1").inbound, call).await.unwrap();
            assert_eq!(answer.status, 400);
        }
    }
}
