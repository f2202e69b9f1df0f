//! Opaque connections between two apps that both know nothing of a mesh: what each end does, and what happens to it,
//! arrives at the other end as what it is.

mod cut_off;
mod many;

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use selvedge_demo::{call, workload::sum_of};
use selvedge_tests::{SOON, poll};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use crate::{
    capture::Capture,
    mesh::{Mesh, Workload, client},
    network::Kind,
    rights::netns,
    scenarios::SECRET,
};

/// Where the server listens.
const PORT: u16 = 7000;

/// More than all buffers on the way hold together.
const LARGE: usize = 8 << 20;

/// A server's app, in the test's hands.
struct App {
    address: SocketAddr,
    accepted: mpsc::UnboundedReceiver<TcpStream>,
    listening: tokio::task::JoinHandle<()>,
}

impl App {
    fn of(workload: &Workload) -> Self {
        let listener = workload.namespace().inside(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&SocketAddr::from(([0, 0, 0, 0], PORT)).into()).unwrap();
            socket.listen(1024).unwrap();
            std::net::TcpListener::from(socket)
        });
        listener.set_nonblocking(true).unwrap();
        let (accept, accepted) = mpsc::unbounded_channel();
        let listening = tokio::spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let _ = accept.send(stream); // the test may be over
            }
        });
        Self { address: SocketAddr::new(workload.place.address, PORT), accepted, listening }
    }

    /// Both ends of a new connection of `from`'s, over which both have spoken.
    async fn pair(&mut self, from: &Workload) -> (TcpStream, TcpStream) {
        let mut client = connect(from, self.address).await.unwrap();
        client.write_all(b"\0hello").await.unwrap();
        let mut server = timeout(SOON, self.accepted.recv()).await.expect("it arrives").unwrap();
        exactly(&mut server, 6).await;
        server.write_all(b"hello!").await.unwrap();
        exactly(&mut client, 6).await;
        (client, server)
    }

    /// The app ends: nobody listens any more.
    async fn stop(self) {
        self.listening.abort();
        let _ = self.listening.await; // it was cancelled
    }
}

async fn connect(from: &Workload, address: SocketAddr) -> std::io::Result<TcpStream> {
    let opened = from.namespace().run(move || async move { TcpStream::connect(address).await?.into_std() });
    TcpStream::from_std(opened.await?)
}

async fn exactly(from: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut read = vec![0; length];
    timeout(SOON, from.read_exact(&mut read)).await.expect("in time").unwrap();
    read
}

/// How a connection ends, and how much came before.
async fn end(of: &mut TcpStream) -> (usize, std::io::Result<()>) {
    let mut read = Vec::new();
    let ended = timeout(SOON, of.read_to_end(&mut read)).await.expect("it ends");
    (read.len(), ended.map(drop))
}

async fn is_reset(whose: &str, stream: &mut TcpStream) {
    let (_, ended) = end(stream).await;
    let error = ended.expect_err(&format!("for the {whose} it looks like an end"));
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{whose}: {error}");
}

async fn mesh() -> Mesh {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    mesh.add([client("client"), client("db")]).await;
    mesh
}

async fn ends_are_told_apart() {
    let mesh = mesh().await;
    let (from, mut app) = (mesh.workload("client"), App::of(mesh.workload("db")));

    // Each side may end first, and hear all that the other has to say.
    for client_first in [true, false] {
        let (client, server) = app.pair(from).await;
        let (mut first, mut last) = if client_first { (client, server) } else { (server, client) };
        first.shutdown().await.unwrap();
        let (heard, ended) = end(&mut last).await;
        assert!(heard == 0 && ended.is_ok(), "{heard} bytes, {ended:?}");
        let saying = tokio::spawn(async move {
            last.write_all(&vec![b'x'; LARGE]).await.unwrap();
            last.shutdown().await.unwrap();
            last
        });
        let (heard, ended) = end(&mut first).await;
        assert!(heard == LARGE && ended.is_ok(), "{heard} bytes, {ended:?}");
        saying.await.unwrap();
    }

    // Whoever breaks off is not taken for one who has ended.
    for client_breaks in [true, false] {
        let (client, server) = app.pair(from).await;
        let (one, mut other) = if client_breaks { (client, server) } else { (server, client) };
        SockRef::from(&one).set_linger(Some(Duration::ZERO)).unwrap();
        drop(one);
        is_reset("other side", &mut other).await;
    }
}

async fn sidecars_that_crash() {
    let mut mesh = mesh().await;
    let mut app = App::of(mesh.workload("db"));
    for crashing in ["client", "db"] {
        let from = mesh.workload("client");
        let capture = Capture::of(from.namespace(), SECRET);
        let (mut clients, mut servers) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let (client, server) = app.pair(from).await;
            clients.push(client);
            servers.push(server);
        }
        // All are in the middle of something, and nobody reads.
        for client in &clients {
            let _ = client.try_write(SECRET.as_bytes()).unwrap();
        }

        mesh.kill_sidecar(crashing).await;

        // Who is behind the other sidecar must not take it for an end; who is beside the dead one must not hang.
        let (far, near) = if crashing == "client" { (servers, clients) } else { (clients, servers) };
        for mut stream in far {
            is_reset("far app", &mut stream).await;
        }
        for mut stream in near {
            let _ = end(&mut stream).await;
        }
        let refused = connect(mesh.workload("client"), app.address).await;
        if let Ok(mut stream) = refused {
            is_reset("new client", &mut stream).await;
        }
        assert_eq!(capture.found(), 0);
        mesh.restart_sidecar(crashing).await;
        let from = mesh.workload("client");
        poll(SOON, "a new connection is carried", async || {
            let mut stream = connect(from, app.address).await.map_err(|error| error.to_string())?;
            stream.write_all(SECRET.as_bytes()).await.map_err(|error| error.to_string())?;
            let mut server =
                timeout(SOON, app.accepted.recv()).await.map_err(|late| late.to_string())?.unwrap();
            exactly(&mut server, SECRET.len()).await;
            Ok::<_, String>(())
        })
        .await;
        assert_eq!(capture.found(), 0);
    }

    // The app itself goes, and comes again.
    let (mut client, server) = app.pair(mesh.workload("client")).await;
    let address = app.address;
    drop(server);
    app.stop().await;
    let (_, ended) = end(&mut client).await;
    assert!(ended.is_ok(), "its last connection has ended well: {ended:?}");
    let mut refused = connect(mesh.workload("client"), address).await.unwrap();
    refused.write_all(b"\0hello").await.unwrap();
    is_reset("client of nobody", &mut refused).await;
    let mut again = App::of(mesh.workload("db"));
    again.pair(mesh.workload("client")).await;
}

/// Certificates that end several times while connections are in use: the one that is open all along, a silent one,
/// and those on mesh connections that were kept from others.
async fn certificates_end() {
    const FLAGS: &[&str] = &["--certificate-ttl", "6s", "--drain-timeout", "1s"];
    let mut mesh = Mesh::on(Kind::Bridge).await;
    mesh.add([client("client").flags(FLAGS), client("db").flags(FLAGS)]).await;
    let (from, mut app) = (mesh.workload("client"), App::of(mesh.workload("db")));
    let (mut client, mut server) = app.pair(from).await;
    let (mut silent, mut its_server) = app.pair(from).await;
    let until = tokio::time::Instant::now() + Duration::from_secs(16);

    let mut rounds = tokio::time::interval(Duration::from_millis(500));
    while tokio::time::Instant::now() < until {
        rounds.tick().await;
        client.write_all(b"ping").await.unwrap();
        assert_eq!(exactly(&mut server, 4).await, b"ping");
        server.write_all(b"pong").await.unwrap();
        assert_eq!(exactly(&mut client, 4).await, b"pong");
        let (mut short, mut its_end) = app.pair(from).await;
        short.shutdown().await.unwrap();
        assert!(end(&mut its_end).await.1.is_ok());
        drop(its_end);
        assert!(end(&mut short).await.1.is_ok());
    }

    silent.write_all(b"still here").await.unwrap();
    assert_eq!(exactly(&mut its_server, 10).await, b"still here");
    let admin = from.loopback(4191);
    let metrics = from.call(admin, call::to(&admin.to_string(), "/metrics")).await.unwrap().text();
    let obtained = sum_of(&metrics, "selvedge_certificates_obtained_total").expect("it is counted");
    assert!(obtained >= 4.0, "only {obtained} certificates");
}

#[test]
fn an_end_arrives_as_an_end_and_a_reset_as_a_reset() {
    netns(ends_are_told_apart);
}

#[test]
fn connections_outlive_certificates() {
    netns(certificates_end);
}

#[test]
fn a_sidecar_that_crashes_hangs_nobody_and_lets_nothing_out() {
    netns(sidecars_that_crash);
}
