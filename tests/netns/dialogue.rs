//! Servers that speak no HTTP: one that repeats what it hears, and one that speaks first, at a port of which nobody told
//! the mesh what is spoken there.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use selvedge_tests::SOON;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::{
    capture::Capture,
    mesh::{Mesh, Mode, Workload},
    scenarios::SECRET,
};

/// An app of `workload` at `port` that repeats what it hears.
pub(crate) fn echo(workload: &Workload, port: u16) {
    let listener =
        workload.namespace().inside(|| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).unwrap();
    listener.set_nonblocking(true).unwrap();
    tokio::spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
}

/// Nobody told the mesh what is spoken at this port of `server`'s; the client waits to be greeted, then both speak,
/// and each ends its own half.
pub(crate) async fn a_server_may_speak_first(mesh: &Mesh, client: &str, server: &str, port: u16) {
    let (client, server) = (mesh.workload(client), mesh.workload(server));
    let address = SocketAddr::new(server.place.address, port);
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let listener = server.namespace().inside(|| std::net::TcpListener::bind(any)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = greet(stream.unwrap()); // whom the policy refuses breaks off
        }
    });
    let captures = [client, server].map(|workload| Capture::of(workload.namespace(), SECRET));

    let said = client.namespace().run(move || dialogue(address)).await.unwrap();
    assert_eq!(said, format!("{SECRET}\nyou said {SECRET}"));
    assert_eq!(captures.each_ref().map(Capture::found), [0, 0]);

    // Where nobody redirects, the app itself is open to everybody who reaches its host.
    if server.spec.mode == Mode::Redirected {
        let refused = mesh.workload("outsider").namespace().run(move || dialogue(address)).await;
        assert!(!refused.as_ref().is_ok_and(|said| said.contains(SECRET)), "{refused:?}");
    }
}

fn greet(mut stream: std::net::TcpStream) -> io::Result<()> {
    writeln!(stream, "{SECRET}")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    write!(stream, "you said {said}")
}

/// Waits for a line, answers, ends its own half, and returns all that was heard.
async fn dialogue(address: SocketAddr) -> io::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let mut stream = BufReader::new(stream);
    let mut heard = String::new();
    let dialogue = async {
        stream.read_line(&mut heard).await?;
        stream.write_all(SECRET.as_bytes()).await?;
        stream.shutdown().await?;
        stream.read_to_string(&mut heard).await
    };
    tokio::time::timeout(SOON, dialogue).await??;
    Ok(heard)
}
