//! Opaque TCP at a sidecar's inbound listener, from a peer on the mesh's own wire.

mod sessions;

use std::time::Duration;

use rustix::process::Signal;
use selvedge_api::{preamble, wire};
use selvedge_demo::workload::{AppKind, Spec};
use selvedge_tests::{Mesh, SOON, policies::peer_authentication, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use crate::{
    SELVEDGE,
    mesh_client::{self, END, frame},
};

/// How long any one exchange may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What the sidecar sends for an app that says `bytes` first.
fn accepted(bytes: &[u8]) -> Vec<u8> {
    [frame(&preamble::ACCEPTED), frame(bytes)].concat()
}

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
        mesh.undeclare("app", 8080, SERVER).await;
        let app = TcpListener::bind(mesh.workload(SERVER).app).await.expect("the app's address is ours");
        Self { mesh, app }
    }

    /// A mesh peer's connection, past its preamble.
    async fn peer(&self) -> TlsStream<TcpStream> {
        let server = self.mesh.workload(SERVER);
        let configuration = mesh_client::configuration(self.mesh.credentials("caller"));
        mesh_client::connect_for(wire::Carrier::Tcp, &configuration, server).await
    }

    /// A peer's connection and what the app has of it, in use.
    async fn in_use(&self) -> (TlsStream<TcpStream>, TcpStream) {
        let mut peer = self.peer().await;
        peer.write_all(&frame(b"hello")).await.expect("it is taken");
        let mut app = self.accept().await;
        assert_eq!(exactly(&mut app, 5).await, b"hello");
        app.write_all(b"welcome").await.expect("it is taken");
        let answer = accepted(b"welcome");
        assert_eq!(exactly(&mut peer, answer.len()).await, answer);
        (peer, app)
    }

    async fn accept(&self) -> TcpStream {
        let accepted = timeout(LIMIT, self.app.accept()).await.expect("a connection of the sidecar's");
        accepted.expect("a connection").0
    }

    /// Waits until a counter of the sidecar's has this value: what a peer sees may be a moment older than the count.
    async fn counts(&self, name: &str, value: f64) {
        poll(SOON, &format!("{name} is {value}"), async || {
            let counted = self.mesh.workload(SERVER).metric(name).await.map_err(|error| error.to_string())?;
            let counted = counted.unwrap_or_default();
            assert!(counted <= value, "{name} is {counted}");
            if counted == value { Ok(()) } else { Err(format!("{counted}")) }
        })
        .await;
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

    peer.write_all(&[frame(b"last question"), END.to_vec()].concat()).await.unwrap();
    assert_eq!(rest(&mut app).await, (b"last question".to_vec(), true), "the app sees the end");
    app.write_all(b"long answer").await.unwrap();
    app.shutdown().await.unwrap();
    let answer = [frame(b"long answer"), END.to_vec()].concat();
    assert_eq!(exactly(&mut peer, answer.len()).await, answer);

    let received = "received_bytes=18";
    around.logged(&["access", "tcp", received, "sent_bytes=18", "sa/caller"]).await;
    around.counts("selvedge_inbound_tcp_connections_opened_total", 1.0).await;
    around.counts("selvedge_inbound_tcp_connections_closed_total", 1.0).await;
    around.counts("selvedge_inbound_tcp_received_bytes_total", 18.0).await;
    around.counts("selvedge_inbound_tcp_sent_bytes_total", 18.0).await;
}

#[tokio::test]
async fn an_app_that_speaks_first_is_heard() {
    let around = Around::new(&[]).await;
    let mut peer = around.peer().await;

    around.accept().await.write_all(b"220 ready").await.unwrap();

    let answer = accepted(b"220 ready");
    assert_eq!(exactly(&mut peer, answer.len()).await, answer);
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

    let refused =
        preamble::decode_answer(answer.get(4 + 2..).unwrap_or_default()).unwrap().unwrap_or_default();
    assert!(refused.starts_with("app-unreachable: "), "{refused:?}");
    around.counts("selvedge_inbound_tcp_connections_refused_total", 1.0).await;
}

#[tokio::test]
async fn a_policy_that_comes_to_forbid_a_connection_ends_it() {
    let around = Around::new(&[]).await;
    let (mut peer, mut app) = around.in_use().await;

    let disable = peer_authentication(Some("app"), "DISABLE");
    around.mesh.write("policy.yaml", &disable).unwrap();

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
    let around = Around::new(&[("--tcp-idle-timeout", "2s")]).await;
    let (mut peer, mut app) = around.in_use().await;

    assert!(!rest(&mut peer).await.1, "cut off");
    assert!(!rest(&mut app).await.1, "cut off");
    around.logged(&["access", "tcp", "reason=\"timeout\""]).await;
}

#[tokio::test]
async fn draining_gives_a_connection_its_time_and_then_ends_it() {
    let around = Around::new(&[("--drain-timeout", "3s")]).await;
    let (mut peer, mut app) = around.in_use().await;

    let sidecar = around.mesh.workload(SERVER).sidecar_process().unwrap();
    sidecar.signal(Signal::TERM).unwrap();
    peer.write_all(&frame(b"still there?")).await.unwrap();
    assert_eq!(exactly(&mut app, 12).await, b"still there?");

    assert!(!rest(&mut peer).await.1, "cut off");
    assert!(sidecar.wait(SOON).await.unwrap().success());
}

#[tokio::test]
async fn a_large_transfer_arrives_whole_both_ways() {
    const LENGTH: usize = 32 << 20;
    let around = Around::new(&[]).await;
    let (peer, app) = around.in_use().await;
    let piece: Vec<u8> =
        (0_u32..1 << 16).map(|place| place.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let framed = frame(&piece);
    let (mut peer_reads, mut peer_writes) = tokio::io::split(peer);
    let (mut app_reads, mut app_writes) = app.into_split();
    let (piece, framed) = (&piece, &framed);
    let at_peer = async move {
        for _ in 0..LENGTH / piece.len() {
            peer_writes.write_all(framed).await.unwrap();
        }
        peer_writes.write_all(&END).await.unwrap();
        // TLS holds back what the socket has not taken.
        peer_writes.flush().await.unwrap();
        // Kept: what is dropped is closed.
        peer_writes
    };
    let at_app = async move {
        for _ in 0..LENGTH / piece.len() {
            app_writes.write_all(piece).await.unwrap();
        }
        app_writes.shutdown().await.unwrap();
    };
    let to_app = async {
        let mut read = vec![0; piece.len()];
        for _ in 0..LENGTH / piece.len() {
            app_reads.read_exact(&mut read).await.unwrap();
            assert!(read == *piece);
        }
        assert_eq!(app_reads.read(&mut read).await.unwrap(), 0);
    };
    let to_peer = async {
        let mut read = Vec::with_capacity(LENGTH);
        loop {
            let length = u64::from(peer_reads.read_u32().await.unwrap());
            if length == 0 {
                break;
            }
            (&mut peer_reads).take(length).read_to_end(&mut read).await.unwrap();
        }
        assert!(read.len() == LENGTH && read.chunks(piece.len()).all(|chunk| chunk == piece));
    };

    let all = async { tokio::join!(at_peer, at_app, to_app, to_peer) };
    timeout(LIMIT * 6, all).await.expect("64 MiB take no minute");
}
