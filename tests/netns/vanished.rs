//! Peers that are gone without a word: their kernels answer nothing any more, and nobody has closed anything.

use std::net::SocketAddr;

use selvedge_tests::SOON;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use crate::{
    mesh::{Mesh, Workload, client},
    network::Kind,
    rights::netns,
};

/// Where the server listens.
const PORT: u16 = 7000;

/// Asks silent connections, as soon as the kernel can count: 1 s of silence and 5 probes.
const KEEP_ALIVE: [&str; 2] = ["--tcp-keepalive", "6s"];

/// Asks nobody, and counts the time for which bytes are not acknowledged.
const USER_TIMEOUT: [&str; 4] = ["--tcp-keepalive", "0s", "--tcp-user-timeout", "5s"];

/// What a server tells of its connections.
#[derive(Debug)]
enum Told {
    /// One has been spoken on, both ways: nothing that was said is on its way any more.
    Spoken,
    /// One has ended so.
    Ended(std::io::Result<u64>),
}

/// Answers the first word, hears the second, and waits for the end.
fn serve(workload: &Workload) -> mpsc::UnboundedReceiver<Told> {
    let (told, tells) = mpsc::unbounded_channel();
    let listener = workload.namespace().inside(|| std::net::TcpListener::bind(("0.0.0.0", PORT))).unwrap();
    listener.set_nonblocking(true).unwrap();
    tokio::spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let told = told.clone();
            tokio::spawn(async move {
                let mut word = [0; 6];
                stream.read_exact(&mut word).await?;
                stream.write_all(&word).await?;
                stream.read_exact(&mut word).await?;
                let _ = told.send(Told::Spoken); // the test may be over
                let ended = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                let _ = told.send(Told::Ended(ended));
                Ok::<_, std::io::Error>(())
            });
        }
    });
    tells
}

/// A connection of `from`'s to the server, over which both have spoken.
async fn conversation(from: &Workload, address: SocketAddr) -> TcpStream {
    let opened = from.namespace().run(move || async move {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"\0hello").await?;
        stream.read_exact(&mut [0; 6]).await?;
        stream.write_all(b"thanks").await?;
        stream.into_std()
    });
    TcpStream::from_std(opened.await.unwrap()).unwrap()
}

/// How a connection ends that nobody ends.
async fn end(whose: &str, stream: &mut TcpStream) -> std::io::Result<usize> {
    let ended = timeout(SOON, stream.read(&mut [0; 6])).await;
    ended.unwrap_or_else(|_| panic!("the {whose} client's connection is not cut off within {SOON:?}"))
}

async fn gone() {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    mesh.add([
        client("silent").flags(&KEEP_ALIVE),
        client("sending").flags(&USER_TIMEOUT),
        client("leaving"),
        client("db").flags(&KEEP_ALIVE),
    ])
    .await;
    let db = mesh.workload("db");
    let mut tells = serve(db);
    let address = SocketAddr::new(db.place.address, PORT);
    let mut connections = Vec::new();
    for name in ["silent", "sending", "leaving"] {
        connections.push(conversation(mesh.workload(name), address).await);
        let told = timeout(SOON, tells.recv()).await.expect("the server hears it");
        assert!(matches!(told, Some(Told::Spoken)), "{name}: {told:?}");
    }
    let [silent, sending, _leaving] = &mut connections[..] else { unreachable!("three were made") };

    // Each end is looked at where the link is as it was: a kernel whose own link is down counts no probes.
    mesh.network.cut(&mesh.workload("leaving").place);
    let told = timeout(SOON, tells.recv()).await.expect("the server's connection is cut off");
    let Some(Told::Ended(Err(error))) = told else { panic!("as if it had ended well: {told:?}") };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    mesh.network.cut(&db.place);
    sending.write_all(b"nobody hears this").await.unwrap();
    for ended in [end("silent", silent).await, end("sending", sending).await] {
        assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }

    // What has come back is reached again.
    mesh.network.heal(&db.place);
    let heard = timeout(SOON, conversation(mesh.workload("silent"), address)).await;
    assert!(heard.is_ok(), "no new connection after the network has healed");
}

#[test]
fn opaque_connections_to_and_from_a_host_that_is_gone_are_cut_off() {
    netns(gone);
}
