//! Connections that are tried, and the servers that answer them in HTTP or repeat what is none.

use std::net::{Ipv4Addr, SocketAddr};

use futures_util::future::join_all;
use selvedge_tests::SOON;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::namespace::Namespace;

/// What a server answers to HTTP.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// What is no HTTP.
const OPAQUE: &[u8] = b"\x01\x02hello";

/// What is said on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Get,
    Delete,
    Opaque,
}

impl Kind {
    pub(crate) fn method(self) -> Option<&'static str> {
        match self {
            Self::Get => Some("GET"),
            Self::Delete => Some("DELETE"),
            Self::Opaque => None,
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// The server answered.
    Served,
    /// Somebody else answered, with this status.
    Status(u16),
    /// Nobody did.
    Ended,
}

/// A connection that is tried.
#[derive(Debug, Clone)]
pub(crate) struct Tried {
    pub(crate) kind: Kind,
    to: SocketAddr,
    host: String,
}

impl Tried {
    /// To an address, which is also the host of a request.
    pub(crate) fn to(kind: Kind, to: SocketAddr) -> Self {
        Self { kind, to, host: to.to_string() }
    }

    /// With requests to another host.
    pub(crate) fn for_host(self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self }
    }

    fn said(&self) -> Vec<u8> {
        match self.kind.method() {
            Some(method) => {
                format!("{method} / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.host).into()
            }
            None => OPAQUE.to_vec(),
        }
    }

    async fn done(&self) -> Done {
        said(self.to, &self.said(), self.kind == Kind::Opaque).await
    }
}

/// What becomes of a connection to `to` on which this is said.
async fn said(to: SocketAddr, words: &[u8], ends: bool) -> Done {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await.ok()?;
        stream.write_all(words).await.ok()?;
        if ends {
            stream.shutdown().await.ok()?;
        }
        let mut answer = Vec::new();
        let is_head = |answer: &[u8]| answer.starts_with(b"HTTP/") && answer.ends_with(b"\r\n\r\n");
        while !is_head(&answer) {
            // A reset after an answer is none of our business.
            match stream.read_u8().await {
                Ok(byte) => answer.push(byte),
                Err(_) => break,
            }
        }
        Some(answer)
    };
    let answer = timeout(SOON, exchange).await.expect("an answer or an end").unwrap_or_default();
    if answer == OPAQUE {
        return Done::Served;
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    match status {
        Some(200) => Done::Served,
        Some(status) => Done::Status(status),
        None if answer.is_empty() => Done::Ended,
        None => panic!("{:?}: {text:?}", String::from_utf8_lossy(words)),
    }
}

/// What becomes of each request, which is sent to `to` from the namespace of a client; the head of the answer says it.
pub(crate) async fn requested(client: &Namespace, to: SocketAddr, requests: &[String]) -> Vec<Done> {
    let all = requests.to_vec();
    let work = move || async move { join_all(all.iter().map(|one| said(to, one.as_bytes(), false))).await };
    client.run(work).await
}

/// Tries all of them from the namespace of a client, at once.
pub(crate) async fn tried(client: &Namespace, all: &[Tried]) -> Vec<(Tried, Done)> {
    let all = all.to_vec();
    let work = move || async move {
        let done = join_all(all.iter().map(Tried::done)).await;
        all.into_iter().zip(done).collect()
    };
    client.run(work).await
}

/// An app in `namespace` at `port` that answers in HTTP whoever speaks that, and repeats everything else.
pub(crate) fn serve(namespace: &Namespace, port: u16) {
    let listener = namespace.inside(|| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).unwrap();
    listener.set_nonblocking(true).unwrap();
    tokio::spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(stream));
        }
    });
}

/// Answers one connection.
async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut read = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") && !head.starts_with(&OPAQUE[..1]) {
        let count = stream.read(&mut read).await?;
        if count == 0 {
            return Ok(());
        }
        head.extend_from_slice(&read[..count]);
    }
    if head.starts_with(&OPAQUE[..1]) {
        while head.len() < OPAQUE.len() {
            head.push(stream.read_u8().await?);
        }
        stream.write_all(&head).await
    } else {
        // Sidecars keep connections to their apps; this one says that it does not.
        stream.write_all(ANSWER).await
    }
}
