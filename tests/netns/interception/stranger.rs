//! Somebody on the network who is not of the mesh.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{mesh::Workload, namespace::Namespace, network::NetworkPlace};

/// What a program that is in no configuration answers.
pub(crate) const STRANGER: &str = "a stranger";

/// What a server says to a few bytes that are no HTTP.
pub(super) async fn said(from: &Workload, address: SocketAddr) -> std::io::Result<String> {
    said_in(from.namespace(), address).await
}

/// The same from a namespace.
pub(crate) async fn said_in(from: &Namespace, address: SocketAddr) -> std::io::Result<String> {
    let exchange = move || async move {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"\x00hello\n").await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await?;
        Ok::<_, std::io::Error>(said)
    };
    let said = from.run(exchange).await?;
    Ok(said.split("\r\n\r\n").last().unwrap_or_default().to_owned())
}

/// A program that is in no configuration; it answers every connection with [`STRANGER`].
pub(crate) struct Stranger {
    pub(crate) address: SocketAddr,
    pub(super) accepted: Arc<AtomicUsize>,
}

impl Stranger {
    /// One beside the app of `workload`.
    pub(super) fn at(workload: &Workload, port: u16) -> Self {
        Self::in_place(&workload.place, port)
    }

    /// One there.
    pub(crate) fn in_place(place: &NetworkPlace, port: u16) -> Self {
        let address = SocketAddr::new(place.address, port);
        let listener = place.namespace.inside(|| TcpListener::bind(address)).unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || speak(stream));
            }
        });
        Self { address, accepted }
    }

    /// How many connections came.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// Answers once, whatever comes.
fn speak(mut stream: std::net::TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    if matches!(stream.read(&mut [0; 4096]), Ok(1..)) {
        let length = STRANGER.len();
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{STRANGER}"
        );
    }
}
