//! Opaque TCP at a sidecar's inbound listener, from a peer on the mesh's own wire.

use std::time::Duration;

use rustix::process::Signal;
use selvedge_api::{preamble, wire};
use selvedge_certs::tls::session_name;
use selvedge_demo::workload::{AppKind, Spec};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{SELVEDGE, mesh_client};

/// How long any one exchange may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The workload whose app the test is.
const SERVER: &str = "app-1";

/// A workload with a sidecar, and the test as its app.
struct Around {
    mesh: Mesh,
    app: TcpListener,
}

impl Around {
    async fn new(flags: &[(&str, &str)]) -> Self {
        let mut server = Spec::server(SERVER, "app", 8080).flag("--log", "info,access=debug");
        server.app = AppKind::None;
        let server = flags.iter().fold(server, |server, (name, value)| server.flag(name, value));
        let mesh = Mesh::of(SELVEDGE, [server]).await;
        let app = TcpListener::bind(mesh.workload(SERVER).app).await.expect("the app's address is ours");
        Self { mesh, app }
    }

    /// A mesh peer's connection, past its preamble.
    async fn peer(&self) -> TlsStream<TcpStream> {
        let server = self.mesh.workload(SERVER);
        let configuration = mesh_client::configuration(self.mesh.credentials("caller"));
        let tcp = TcpStream::connect(server.inbound).await.expect("the sidecar listens");
        let connector = TlsConnector::from(std::sync::Arc::clone(&configuration.client));
        let mut peer = connector.connect(session_name(server.inbound), tcp).await.expect("a handshake");
        let preamble = preamble::encode(&wire::Preamble {
            carrier: wire::Carrier::Tcp.into(),
            port: server.app.port().into(),
            source: "default/caller".to_owned(),
            app: wire::AppProtocol::Unspecified.into(),
        });
        peer.write_all(&preamble).await.expect("it is taken");
        peer
    }

    /// A peer's connection and what the app has of it, in use.
    async fn in_use(&self) -> (TlsStream<TcpStream>, TcpStream) {
        let mut peer = self.peer().await;
        peer.write_all(b"hello").await.expect("it is taken");
        let mut app = self.accept().await;
        assert_eq!(exactly(&mut app, 5).await, b"hello");
        app.write_all(b"welcome").await.expect("it is taken");
        assert_eq!(exactly(&mut peer, 2 + 7).await, [&preamble::ACCEPTED[..], b"welcome"].concat());
        (peer, app)
    }

    async fn accept(&self) -> TcpStream {
        let accepted = timeout(LIMIT, self.app.accept()).await.expect("a connection of the sidecar's");
        accepted.expect("a connection").0
    }

    async fn metric(&self, name: &str) -> f64 {
        self.mesh.workload(SERVER).metric(name).await.expect("an admin port").unwrap_or_default()
    }

    /// Waits until a line of the access log holds all of `words`.
    async fn logged(&self, words: &[&str]) {
        let sidecar = self.mesh.workload(SERVER).sidecar_process().expect("it runs");
        poll(SOON, &format!("a line of the access log with {words:?}"), async || {
            let log = sidecar.whole_log().map_err(|error| error.to_string())?;
            let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
            if found { Ok(()) } else { Err(log) }
        })
        .await;
    }
}

async fn exactly(from: &mut (impl AsyncReadExt + Unpin), length: usize) -> Vec<u8> {
    let mut read = vec![0; length];
    timeout(LIMIT, from.read_exact(&mut read)).await.expect("in time").expect("so many bytes");
    read
}

/// What comes until the end, and whether that was a clean one.
async fn rest(from: &mut (impl AsyncReadExt + Unpin)) -> (Vec<u8>, bool) {
    let mut read = Vec::new();
    let ended = timeout(LIMIT, from.read_to_end(&mut read)).await.expect("in time");
    (read, ended.is_ok())
}

#[tokio::test]
async fn each_side_may_end_before_the_other_and_all_is_counted() {
    let around = Around::new(&[]).await;
    let (mut peer, mut app) = around.in_use().await;

    peer.write_all(b"last question").await.unwrap();
    peer.shutdown().await.unwrap();
    assert_eq!(rest(&mut app).await, (b"last question".to_vec(), true), "the app sees the end");
    app.write_all(b"long answer").await.unwrap();
    app.shutdown().await.unwrap();
    assert_eq!(rest(&mut peer).await, (b"long answer".to_vec(), true));

    let received = "received_bytes=18";
    around.logged(&["access", "tcp", received, "sent_bytes=18", "sa/caller"]).await;
    assert_eq!(around.metric("selvedge_inbound_tcp_connections_opened_total").await, 1.0);
    assert_eq!(around.metric("selvedge_inbound_tcp_connections_closed_total").await, 1.0);
    assert_eq!(around.metric("selvedge_inbound_tcp_received_bytes_total").await, 18.0);
    assert_eq!(around.metric("selvedge_inbound_tcp_sent_bytes_total").await, 18.0);
}

#[tokio::test]
async fn an_app_that_speaks_first_is_heard() {
    let around = Around::new(&[]).await;
    let mut peer = around.peer().await;

    around.accept().await.write_all(b"220 ready").await.unwrap();

    assert_eq!(exactly(&mut peer, 2 + 9).await, [&preamble::ACCEPTED[..], b"220 ready"].concat());
}

#[tokio::test]
async fn what_breaks_off_does_not_look_like_an_end() {
    let around = Around::new(&[]).await;
    let (mut peer, app) = around.in_use().await;
    app.set_zero_linger().unwrap();
    drop(app);
    assert!(!rest(&mut peer).await.1, "the app's reset is no end of its answer");

    let (peer, mut app) = around.in_use().await;
    drop(peer.into_inner().0);
    assert!(!rest(&mut app).await.1, "a peer that left without close_notify has not ended");
    around.logged(&["access", "tcp", "reason=\"reset\""]).await;
}

#[tokio::test]
async fn an_app_that_is_not_there_is_named_to_the_peer() {
    let Around { mesh, app } = Around::new(&[]).await;
    drop(app);
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let around = Around { mesh, app };

    let mut peer = around.peer().await;
    let (answer, _) = rest(&mut peer).await;

    let refused = preamble::decode_answer(answer.get(2..).unwrap_or_default()).unwrap().unwrap_or_default();
    assert!(refused.starts_with("app-unreachable: "), "{refused:?}");
    assert_eq!(around.metric("selvedge_inbound_tcp_connections_refused_total").await, 1.0);
}

#[tokio::test]
async fn a_policy_that_comes_to_forbid_a_connection_ends_it() {
    let around = Around::new(&[]).await;
    let (mut peer, mut app) = around.in_use().await;

    let disable = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: own, namespace: default}\n\
                   spec: {selector: {matchLabels: {app: app}}, mtls: {mode: DISABLE}}\n";
    around.mesh.write("policy.yaml", disable).unwrap();

    assert!(!timeout(SOON, rest(&mut peer)).await.unwrap().1, "cut off");
    assert!(!rest(&mut app).await.1, "cut off");
    around.logged(&["access", "tcp", "reason=\"policy\""]).await;
    let mut refused = around.peer().await;
    let (answer, _) = rest(&mut refused).await;
    assert!(
        String::from_utf8_lossy(&answer).contains("policy: PeerAuthentication default/own"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_silent_connection_ends_after_its_limit() {
    let around = Around::new(&[("--tcp-idle-timeout", "200ms")]).await;
    let (mut peer, mut app) = around.in_use().await;

    assert!(!rest(&mut peer).await.1, "cut off");
    assert!(!rest(&mut app).await.1, "cut off");
    around.logged(&["access", "tcp", "reason=\"timeout\""]).await;
}

#[tokio::test]
async fn draining_gives_a_connection_its_time_and_then_ends_it() {
    let around = Around::new(&[("--drain-timeout", "1s")]).await;
    let (mut peer, mut app) = around.in_use().await;

    let sidecar = around.mesh.workload(SERVER).sidecar_process().unwrap();
    sidecar.signal(Signal::TERM).unwrap();
    peer.write_all(b"still there?").await.unwrap();
    assert_eq!(exactly(&mut app, 12).await, b"still there?");

    assert!(!rest(&mut peer).await.1, "cut off");
    assert!(sidecar.wait(SOON).await.unwrap().success());
}

#[tokio::test]
async fn a_large_transfer_arrives_whole_both_ways() {
    const LENGTH: usize = 32 << 20;
    let around = Around::new(&[]).await;
    let (peer, app) = around.in_use().await;
    let pattern = |start: usize| (start..).map(|place| place.wrapping_mul(2_654_435_761).to_le_bytes()[3]);
    let exchange =
        async |stream: (Box<dyn tokio::io::AsyncRead + Unpin>, Box<dyn tokio::io::AsyncWrite + Unpin>)| {
            let (mut reader, mut writer) = stream;
            let writing = async {
                let sent: Vec<u8> = pattern(0).take(1 << 16).collect();
                for _ in 0..LENGTH / sent.len() {
                    writer.write_all(&sent).await.unwrap();
                }
                writer.shutdown().await.unwrap();
            };
            let reading = async {
                let expected: Vec<u8> = pattern(0).take(1 << 16).collect();
                let mut piece = vec![0; 1 << 16];
                for _ in 0..LENGTH / piece.len() {
                    reader.read_exact(&mut piece).await.unwrap();
                    assert!(piece == expected);
                }
                assert_eq!(reader.read(&mut piece).await.unwrap(), 0);
            };
            tokio::join!(writing, reading);
        };
    let (peer, app) = (tokio::io::split(peer), app.into_split());

    let both = async {
        tokio::join!(
            exchange((Box::new(peer.0), Box::new(peer.1))),
            exchange((Box::new(app.0), Box::new(app.1)))
        )
    };

    timeout(LIMIT * 6, both).await.expect("64 MiB take no minute");
}
