//! Connections on which something is in progress.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvedge_tests::SOON;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::mesh::Workload;

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Http1,
    Http2,
    Grpc,
    WebSocket,
    Opaque,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::Http1, Self::Http2, Self::Grpc, Self::WebSocket, Self::Opaque];
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// A connection on which something is in progress.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) client: String,
    pub(super) kind: Kind,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    ticks: AtomicUsize,
    ended: Mutex<Option<SystemTime>>,
}

type Wrong = Box<dyn std::error::Error + Send + Sync>;

/// What is read, as it comes.
enum Reading {
    Body(Incoming),
    Bytes(Box<dyn AsyncRead + Send + Unpin>),
}

impl Open {
    /// Opens one, and waits until something comes.
    pub(super) async fn new(client: &Workload, kind: Kind, address: SocketAddr) -> Result<Self, Wrong> {
        let connect = move || async move { TcpStream::connect(address).await?.into_std() };
        let stream = TcpStream::from_std(client.namespace().run(connect).await?)?;
        let reading = async {
            let mut reading = reading(kind, stream, address).await?;
            if reading.next().await { Ok(reading) } else { Err(Wrong::from("it ended at once")) }
        };
        let mut reading = timeout(SOON, reading).await??;
        let seen = Arc::new(Seen::default());
        let watched = Arc::clone(&seen);
        tokio::spawn(async move {
            while reading.next().await {
                watched.ticks.fetch_add(1, Ordering::Relaxed);
            }
            *watched.ended.lock().unwrap() = Some(SystemTime::now());
        });
        Ok(Self { client: client.spec.name.clone(), kind, seen })
    }

    /// How much has come.
    pub(super) fn ticks(&self) -> usize {
        self.seen.ticks.load(Ordering::Relaxed)
    }

    /// When it ended.
    pub(super) fn ended(&self) -> Option<SystemTime> {
        *self.seen.ended.lock().unwrap()
    }
}

impl Reading {
    /// Whether more has come; otherwise it has ended.
    async fn next(&mut self) -> bool {
        match self {
            Self::Body(body) => loop {
                match body.frame().await {
                    Some(Ok(frame)) if frame.is_data() => return true,
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return false,
                }
            },
            Self::Bytes(stream) => stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0),
        }
    }
}

async fn reading(kind: Kind, mut stream: TcpStream, address: SocketAddr) -> Result<Reading, Wrong> {
    match kind {
        Kind::Opaque => {
            stream.write_all(b"\x01\x02hello").await?;
            Ok(Reading::Bytes(Box::new(stream)))
        }
        Kind::Http1 | Kind::WebSocket => {
            let (mut sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection.with_upgrades());
            let mut answer = sender.send_request(request(kind, &address.to_string())?).await?;
            if kind == Kind::WebSocket && answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                let upgraded = hyper::upgrade::on(&mut answer).await?;
                return Ok(Reading::Bytes(Box::new(TokioIo::new(upgraded))));
            }
            body(answer)
        }
        Kind::Http2 | Kind::Grpc => {
            let io = TokioIo::new(stream);
            let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            body(sender.send_request(request(kind, &address.to_string())?).await?)
        }
    }
}

fn body(answer: http::Response<Incoming>) -> Result<Reading, Wrong> {
    if answer.status() == StatusCode::OK {
        Ok(Reading::Body(answer.into_body()))
    } else {
        Err(format!("{answer:?}").into())
    }
}

fn request(kind: Kind, host: &str) -> Result<Request<Empty<Bytes>>, http::Error> {
    let request = match kind {
        Kind::Http1 => Request::get("/watch").header(header::HOST, host),
        Kind::WebSocket => Request::get("/watch")
            .header(header::HOST, host)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        Kind::Grpc => Request::builder()
            .method(Method::POST)
            .uri(format!("http://{host}/selvedge.demo.Echo/ServerStream"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers"),
        Kind::Http2 | Kind::Opaque => Request::get(format!("http://{host}/watch")),
    };
    request.body(Empty::new())
}
