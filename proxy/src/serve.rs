//! Serving HTTP on a connection until it ends, is told to end, or has lived long enough.

use std::{
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::Service as HttpService,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use selvedge_certs::tls::Current;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    body::{Body, Local},
    connect::http2::{CONNECTION_WINDOW, MAX_FRAME, PING_INTERVAL, PING_TIMEOUT, STREAM_WINDOW},
    step::{Conn, Request, Step},
    worker::Worker,
};

/// Requests that one HTTP/2 connection may have in progress.
const MAX_STREAMS: u32 = 1024;

/// What a connection speaks from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Until when a mesh peer's connection is served.
#[derive(Debug)]
pub struct Lifetime {
    /// When it takes no more requests.
    pub retire_at: Instant,
    /// What its handshake was made with.
    pub current: Arc<Current>,
}

/// Completes when a connection must take no more requests: the proxy drains, or the connection's lifetime
/// is over. Then gives the time that requests in progress still have.
pub async fn until(worker: Rc<Worker>, lifetime: Option<Lifetime>) -> Duration {
    let over = async {
        match lifetime {
            Some(lifetime) => over(&worker, lifetime).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = worker.drain.drained() => {}
        () = over => {}
    }
    worker.settings.drain_timeout
}

async fn over(worker: &Worker, lifetime: Lifetime) {
    let mut changed = worker.live.subscribe();
    let withdrawn = async {
        while !lifetime.current.is_retired() {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = tokio::time::sleep_until(lifetime.retire_at.into()) => {}
        () = withdrawn => {}
    }
}

/// Serves `path` on `io`. When `until` completes, requests in progress finish, and no more are taken.
pub async fn serve<I, S>(
    protocol: Protocol,
    io: I,
    path: S,
    conn: Rc<Conn>,
    until: impl Future<Output = Duration>,
) where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Step<Request>,
{
    let io = TokioIo::new(io);
    let peer = conn.peer;
    let service = Connected { path, conn };
    let ended = match protocol {
        Protocol::Http1 => {
            let serving =
                http1::Builder::new().half_close(true).pipeline_flush(true).serve_connection(io, service);
            let mut serving = pin!(serving);
            tokio::select! {
                biased;
                ended = serving.as_mut() => Some(ended),
                rest = until => {
                    serving.as_mut().graceful_shutdown();
                    tokio::time::timeout(rest, serving).await.ok()
                }
            }
        }
        Protocol::Http2 => {
            let serving = http2::Builder::new(Local)
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_frame_size(MAX_FRAME)
                .max_concurrent_streams(MAX_STREAMS)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .serve_connection(io, service);
            let mut serving = pin!(serving);
            tokio::select! {
                biased;
                ended = serving.as_mut() => Some(ended),
                rest = until => {
                    serving.as_mut().graceful_shutdown();
                    tokio::time::timeout(rest, serving).await.ok()
                }
            }
        }
    };
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%peer, %error, "connection ended"),
        None => tracing::warn!(%peer, "requests were still in progress at the end of the drain timeout"),
    }
}

/// A path, on one connection.
#[derive(Debug)]
struct Connected<S> {
    path: S,
    conn: Rc<Conn>,
}

impl<S: Step<Request>> HttpService<http::Request<Incoming>> for Connected<S> {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Answer<S::Future>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let request = Request { http: Box::new(request.map(Body::incoming)), conn: Rc::clone(&self.conn) };
        Answer { inner: self.path.clone().call(request) }
    }
}

pin_project_lite::pin_project! {
    /// The answer of a whole path.
    struct Answer<F> {
        #[pin]
        inner: F,
    }
}

impl<F: Future<Output = Result<crate::step::Response, crate::step::Error>>> Future for Answer<F> {
    type Output = Result<http::Response<Body>, std::convert::Infallible>;

    fn poll(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        self.project().inner.poll(cx).map(|result| {
            Ok(match result {
                Ok(response) => response.http,
                // `respond` leaves no error; should a path be built without it, the answer is still one.
                Err(error) => crate::respond::answer(&error.failure, false),
            })
        })
    }
}
