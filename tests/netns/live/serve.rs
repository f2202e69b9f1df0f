//! Servers whose answers do not end: a word again and again.

use std::{convert::Infallible, net::Ipv4Addr, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::StreamBody;
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::interval,
};

use crate::mesh::Workload;

/// A message of gRPC's, which will do for the others, too.
const WORD: &[u8] = b"\0\0\0\0\x04tick";

const PAUSE: Duration = Duration::from_millis(20);

/// What RFC 6455, section 1.3, has as the answer to its example.
const ACCEPT: HeaderValue = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

/// Serves HTTP/1.1, HTTP/2, gRPC and WebSockets.
pub(super) fn http(workload: &Workload, port: u16) {
    accept(workload, port, |stream| async {
        let server = auto::Builder::new(TokioExecutor::new());
        let serving = server.serve_connection_with_upgrades(TokioIo::new(stream), service_fn(answer));
        let _ = serving.await; // whoever leaves in the middle is what the test is about
    });
}

/// Serves whoever says something first.
pub(super) fn opaque(workload: &Workload, port: u16) {
    accept(workload, port, |mut stream| async move {
        if stream.read(&mut [0; 16]).await.is_ok_and(|read| read > 0) {
            speak(stream).await;
        }
    });
}

fn accept<F>(workload: &Workload, port: u16, serve: impl Fn(TcpStream) -> F + Send + Sync + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener =
        workload.namespace().inside(|| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).unwrap();
    listener.set_nonblocking(true).unwrap();
    tokio::spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            tokio::spawn(serve(listener.accept().await.unwrap().0));
        }
    });
}

fn words() -> impl Stream<Item = Bytes> + Send {
    stream::unfold(interval(PAUSE), |mut rounds| async move {
        rounds.tick().await;
        Some((Bytes::from_static(WORD), rounds))
    })
}

async fn speak(mut stream: impl AsyncWrite + Unpin) {
    let mut words = std::pin::pin!(words());
    while let Some(word) = words.next().await {
        if stream.write_all(&word).await.is_err() {
            return;
        }
    }
}

type Body = StreamBody<stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

async fn answer(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let has = |name| request.headers().contains_key(name);
    if has(header::UPGRADE) {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                speak(TokioIo::new(upgraded)).await;
            }
        });
        let mut answer = Response::new(StreamBody::new(stream::empty().boxed()));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let fields = [
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::CONNECTION, HeaderValue::from_static("Upgrade")),
            (header::SEC_WEBSOCKET_ACCEPT, ACCEPT),
        ];
        answer.headers_mut().extend(fields);
        return Ok(answer);
    }
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let mut answer = Response::new(StreamBody::new(words().map(|word| Ok(Frame::data(word))).boxed()));
    answer.headers_mut().extend(content_type.map(|value| (header::CONTENT_TYPE, value)));
    Ok(answer)
}
