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
    rarely::rarely,
    step::{Conn, Request, Step},
    upgrade::Asked,
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
    /// When the peer's certificate ends, and with it what is no longer HTTP.
    pub ends_at: Instant,
    /// What its handshake was made with.
    pub current: Arc<Current>,
}

/// Until when a connection is served: the proxy drains, or the connection's lifetime is over.
#[derive(Debug)]
pub struct Until {
    worker: Rc<Worker>,
    lifetime: Option<Lifetime>,
}

/// A connection of `worker`'s is served until the proxy drains, or until its `lifetime` is over.
pub fn until(worker: Rc<Worker>, lifetime: Option<Lifetime>) -> Until {
    Until { worker, lifetime }
}

impl Until {
    /// Completes when the connection must take no more requests. Then gives the time that requests in
    /// progress still have.
    async fn requests(&self) -> Duration {
        self.over(|lifetime| lifetime.retire_at).await;
        self.worker.settings.drain_timeout
    }

    /// Completes when a tunnel must end. Its connection's age alone is no reason: a tunnel cannot move to
    /// a younger one.
    async fn tunnel(&self) {
        self.over(|lifetime| lifetime.ends_at).await;
        tokio::time::sleep(self.worker.settings.drain_timeout).await;
    }

    async fn over(&self, end: impl Fn(&Lifetime) -> Instant) {
        let over = async {
            match &self.lifetime {
                Some(lifetime) => over(&self.worker, lifetime, end(lifetime)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.worker.drain.drained() => {}
            () = over => {}
        }
    }
}

async fn over(worker: &Worker, lifetime: &Lifetime, end: Instant) {
    let mut changed = worker.live.subscribe();
    let withdrawn = async {
        while !lifetime.current.is_retired() {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = tokio::time::sleep_until(end.into()) => {}
        () = withdrawn => {}
    }
}

/// Serves `path` on `io`. When `until` completes, requests in progress finish, and no more are taken.
pub async fn serve<I, S>(protocol: Protocol, io: I, path: S, conn: Rc<Conn>, until: Until)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Step<Request>,
{
    let io = TokioIo::new(io);
    let peer = conn.peer;
    let service = Connected { path, conn: Rc::clone(&conn) };
    // When what is in progress is cut off, once draining has begun.
    let mut cut_at = None;
    let ended = match protocol {
        Protocol::Http1 => {
            // Not `pipeline_flush`: with it hyper takes in answers without end for a client that does not read.
            let serving =
                http1::Builder::new().half_close(true).serve_connection(io, service).with_upgrades();
            let mut serving = pin!(serving);
            tokio::select! {
                biased;
                ended = serving.as_mut() => Some(ended),
                rest = rarely(until.requests()) => {
                    cut_at = Some(tokio::time::Instant::now() + rest);
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
                rest = rarely(until.requests()) => {
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
    if let Some(tunnel) = conn.tunnel.take() {
        // Boxed: few connections need it, and all would carry its room.
        let carried = tunnel.carry(async {
            match cut_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => until.tunnel().await,
            }
        });
        if let Err(error) = Box::pin(carried).await {
            tracing::debug!(%peer, %error, "WebSocket ended");
        }
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

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        let asked = Asked::by(&mut request, &self.conn);
        let request = Request { http: Box::new(request.map(Body::incoming)), conn: Rc::clone(&self.conn) };
        Answer { inner: self.path.clone().call(request), asked }
    }
}

pin_project_lite::pin_project! {
    /// The answer of a whole path.
    struct Answer<F> {
        #[pin]
        inner: F,
        asked: Option<Box<Asked>>,
    }
}

impl<F: Future<Output = Result<crate::step::Response, crate::step::Error>>> Future for Answer<F> {
    type Output = Result<http::Response<Body>, std::convert::Infallible>;

    fn poll(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        let this = self.project();
        this.inner.poll(cx).map(|result| {
            let mut http = match result {
                Ok(response) => response.http,
                // `respond` leaves no error; should a path be built without it, the answer is still one.
                Err(error) => crate::respond::answer(&error.failure, false),
            };
            if let Some(asked) = this.asked.take() {
                asked.answered(&mut http);
            }
            Ok(http)
        })
    }
}
