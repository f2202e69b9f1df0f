//! Ways out of explicit mode for what is not HTTP: ports of their own (`--upstream`), and CONNECT.

mod connect;
mod told;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use selvedge_demo::{
    call,
    workload::{AppKind, Spec},
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{BOTH_VERSIONS, SELVEDGE};
use connect::connect;

/// How long any one exchange may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What a database says before its client does.
const GREETING: &[u8] = b"\x4a\0\0\0welcome";

/// How a client of Postgres begins.
const POSTGRES: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";

const DATABASE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec:\n  selector: {app: db}\n  \
                        ports: [{name: tcp-pg, port: 5432, targetPort: 8080}]\n";

/// A server that greets, and then sends everything back until its client has closed its half.
async fn echo(at: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(at).await.expect("the address is ours");
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                client.write_all(GREETING).await?;
                let (mut reader, mut writer) = client.split();
                tokio::io::copy(&mut reader, &mut writer).await?;
                writer.shutdown().await
            });
        }
    });
    address
}

/// A caller with these flags, and a database behind its own sidecar, which the test serves.
async fn database(flags: &[(&str, &str)]) -> Mesh {
    let mut server = Spec::server("db-1", "db", 8080);
    server.app = AppKind::None;
    let caller = flags.iter().fold(Spec::client("caller"), |caller, (flag, value)| caller.flag(flag, value));
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write("db.yaml", DATABASE).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([caller, server]).await.unwrap();
    echo(mesh.workload("db-1").app).await;
    mesh
}

async fn upstream(mesh: &Mesh, authority: &str) -> SocketAddr {
    let process = mesh.workload("caller").sidecar_process().unwrap();
    process.listener(&format!("upstream {authority}"), SOON).await.unwrap()
}

/// That `stream` leads to a server that greets and sends everything back, ends included.
async fn is_echo(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let exchange = async {
        let mut greeting = vec![0; GREETING.len()];
        stream.read_exact(&mut greeting).await.expect("the server speaks first");
        assert_eq!(greeting, GREETING);
        stream.write_all(POSTGRES).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("an end of its own");
        assert_eq!(rest, POSTGRES);
    };
    timeout(LIMIT, exchange).await.expect("in time");
}

/// What a server says that gives up in the middle of what it is sent, as databases do.
const GIVING_UP: &[u8] = b"ERROR: no room";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_servers_last_words_arrive_when_it_closes_over_what_it_has_not_read() {
    let mut server = Spec::server("db-1", "db", 8080);
    server.app = AppKind::None;
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write("db.yaml", DATABASE).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller").flag("--upstream", "0=db.default:5432"), server]).await.unwrap();
    let listener = TcpListener::bind(mesh.workload("db-1").app).await.unwrap();
    let address = upstream(&mesh, "db.default:5432").await;
    let much: Arc<[u8]> = vec![b'x'; 64 << 20].into();

    for round in 0..30 {
        let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
        let much = Arc::clone(&much);
        // Who is answered so is cut off.
        let pushing = tokio::spawn(async move { writer.write_all(&much).await });
        let (mut server, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
        server.peek(&mut [0]).await.unwrap();
        server.write_all(GIVING_UP).await.unwrap();
        drop(server);

        let mut words = vec![0; GIVING_UP.len()];
        timeout(LIMIT, reader.read_exact(&mut words)).await.unwrap().expect("its last words");
        pushing.abort();
        assert_eq!(words, GIVING_UP, "round {round}");
    }
}

#[tokio::test]
async fn a_port_of_its_own_leads_to_its_service_over_mutual_tls() {
    let mesh = database(&[("--upstream", "0=db.default:5432")]).await;
    let listener = upstream(&mesh, "db.default:5432").await;
    assert!(listener.ip().is_loopback());

    for _ in 0..3 {
        is_echo(&mut TcpStream::connect(listener).await.unwrap()).await;
    }

    let metrics = mesh.workload("caller").admin("/metrics").await.unwrap().text();
    let counted = metrics.lines().any(|line| {
        line.starts_with("selvedge_outbound_tcp_connections_opened_total{")
            && line.contains("db.default")
            && line.contains("mtls=\"true\"")
            && line.ends_with(" 3")
    });
    assert!(counted, "{metrics}");
}

#[tokio::test]
async fn an_upstream_that_the_mesh_does_not_know_goes_by_the_outbound_traffic_policy() {
    let outside = echo("127.0.0.1:0".parse().unwrap()).await;
    let flag = format!("0={outside}");
    let mut mesh = database(&[("--upstream", &flag)]).await;
    is_echo(&mut TcpStream::connect(upstream(&mesh, &outside.to_string()).await).await.unwrap()).await;

    let flags = [("--upstream", flag.as_str()), ("--outbound-traffic-policy", "registry-only")];
    mesh.restart_sidecar("caller", &flags).await.unwrap();
    let mut refused = TcpStream::connect(upstream(&mesh, &outside.to_string()).await).await.unwrap();

    let error = timeout(LIMIT, refused.read_u8()).await.expect("in time").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn http_at_an_upstream_is_for_its_service_whatever_its_host() {
    let specs = [Spec::client("caller").flag("--upstream", "0=web:8080"), Spec::server("web-1", "web", 8080)];
    let mesh = Mesh::of(SELVEDGE, specs).await;
    let listener = upstream(&mesh, "web:8080").await;

    for version in BOTH_VERSIONS {
        let authority = listener.to_string();
        let call = call::to(&authority, "/echo").version(version).body("hello");
        let answer = call::send(listener, call).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "hello"), "{}", answer.summary());
    }
}

#[tokio::test]
async fn what_is_not_http_is_told_of_the_ways_that_there_are() {
    let mesh = database(&[]).await;
    let caller = mesh.workload("caller");
    let mut postgres = TcpStream::connect(caller.outbound).await.unwrap();
    postgres.write_all(POSTGRES).await.unwrap();
    let error = timeout(LIMIT, postgres.read_u8()).await.expect("in time").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let (answer, _) = connect(caller.outbound, "EHLO there\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");

    poll(SOON, "the log says what to do", async || {
        let log = caller.sidecar_process().unwrap().whole_log().map_err(|error| error.to_string())?;
        let told = log.lines().filter(|line| line.contains("--upstream PORT=HOST:PORT")).count();
        if told == 2 { Ok(()) } else { Err(log) }
    })
    .await;
}

#[tokio::test]
async fn an_app_that_is_told_of_an_http_proxy_reaches_services_through_it() {
    let specs = [Spec::client("caller"), Spec::server("web-1", "web", 8080)];
    let mesh = Mesh::of(SELVEDGE, specs).await;

    let (answer, _) = connect(
        mesh.workload("caller").outbound,
        "GET http://web:8080/ HTTP/1.1\r\nHost: web:8080\r\nProxy-Connection: keep-alive\r\nConnection: close\r\n\r\n",
    )
    .await;

    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
