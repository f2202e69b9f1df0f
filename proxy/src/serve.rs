//! Serving HTTP on a connection until it ends, is told to end, or has lived long enough.
//!
//! What a client sends is taken apart by hyper and h2, within our limits. HTTP/1 is read through
//! a stricter reader of ours first (the module `strict`); h2 is as strict as RFC 9113 by itself. What h2
//! refuses carries no `selvedge-error`, and is not counted as a request: a malformed stream is reset, one
//! whose head is longer than twice our limit is answered with a bare 431 (up to that, it is answered and counted
//! as HTTP/1's is), a flood ends its connection with GOAWAY.

mod awaited;
mod chunks;
mod head;
mod pace;
mod strict;
mod watch;

use std::{
    cell::RefCell,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

pub use head::Refusal;
use hyper::{
    body::{Body as _, Incoming},
    server::conn::{http1, http2},
    service::Service as HttpService,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioIo, TokioTimer};
pub use pace::{Pace, PaceLimits};
use selvedge_certs::{tls::Current, verify::Peer};
use strict::Strict;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
pub use watch::{Patience, Watch};

use crate::{
    accept::Direction,
    authorize::{Part, no_longer_allowed},
    body::{Body, Local},
    budget::{Action, Guarded, Ledger, Side},
    connect::{
        Liveness,
        http2::{CONNECTION_WINDOW, MAX_FRAME, STREAM_WINDOW},
        stream::Prefixed,
    },
    error::{Failure, Reason},
    opaque::{Abort, way_out},
    rarely::rarely,
    respond,
    step::{Conn, Request, Step},
    upgrade::Asked,
    worker::Worker,
};

/// Header fields that hyper takes if nobody says how many.
const HYPER_FIELDS: usize = 100;

/// How large hyper's read buffer may grow: its own default.
const HYPER_BUFFER: usize = 8192 + 4096 * 100;

/// Streams that a client has reset before we took them up (rapid reset, CVE-2023-44487): with more of
/// them waiting, its connection ends.
const MAX_RESET_STREAMS: usize = 20;

/// Streams that we reset because of a client's errors, before its connection ends.
const MAX_ERROR_STREAMS: usize = 256;

/// How long requests in progress may go on when an HTTP/2 connection has had no new one for long: for
/// good. They are what it was kept for.
const FOR_GOOD: Duration = Duration::from_secs(365 * 24 * 3600);

/// The refusal of a request while too many bytes are held.
const OVERLOADED: Refusal = Refusal {
    reason: Reason::Overflow,
    what: "this proxy holds as many bytes as --buffer-budget allows, which nobody takes",
};

/// What clients may ask of us, on one connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A request's head.
    pub head: HeadLimits,
    /// Requests in progress on an HTTP/2 connection.
    pub streams: u32,
}

/// How large a request's head may be.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes: of an HTTP/1 head as it is written, of an HTTP/2 head as RFC 9113 counts (section 6.5.2).
    pub bytes: usize,
    /// Header fields.
    pub count: usize,
}

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
    /// The peer.
    pub peer: Arc<Peer>,
}

/// Until when a connection is served: its direction is closed, or its lifetime is over.
#[derive(Debug)]
pub struct Until {
    worker: Rc<Worker>,
    direction: Direction,
    lifetime: Option<Lifetime>,
}

/// A connection of `worker`'s is served until its `direction` is closed, because the proxy leaves, or until
/// its `lifetime` is over.
pub fn until(worker: Rc<Worker>, direction: Direction, lifetime: Option<Lifetime>) -> Until {
    Until { worker, direction, lifetime }
}

impl Until {
    /// Completes when the connection must take no more requests. Then gives the time that requests in
    /// progress still have.
    pub(crate) async fn requests(&self) -> Duration {
        self.over(|lifetime| lifetime.retire_at).await;
        self.worker.leave.rest(self.worker.settings.drain_timeout)
    }

    /// Completes when the mesh peer at the other end is no longer allowed, and says why: then nothing in progress on
    /// the connection goes on.
    pub(crate) async fn no_longer_allowed(&self) -> Failure {
        let Some(lifetime) = &self.lifetime else { return std::future::pending().await };
        let part = match self.direction {
            Direction::Inbound => Part::Client,
            Direction::Outbound => Part::Server,
        };
        no_longer_allowed(&self.worker.live, &lifetime.peer, part).await
    }

    /// Completes when a tunnel must end, and says why. Its connection's age alone is no reason: a tunnel
    /// cannot move to a younger one.
    pub(crate) async fn tunnel(&self) -> Reason {
        let why = self.over(|lifetime| lifetime.ends_at).await;
        tokio::time::sleep(self.worker.leave.rest(self.worker.settings.drain_timeout)).await;
        why
    }

    async fn over(&self, end: impl Fn(&Lifetime) -> Instant) -> Reason {
        let over = async {
            match &self.lifetime {
                Some(lifetime) => over(&self.worker, lifetime, end(lifetime)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.worker.leave.closed(self.direction) => Reason::Draining,
            () = over => Reason::Certificate,
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

/// Serves `path` on `io`. When `until` completes, requests in progress finish, and no more are taken. When its peer is
/// no longer allowed, the connection is closed at once.
pub async fn serve<I, S>(protocol: Protocol, io: I, path: S, conn: Rc<Conn>, until: Until)
where
    I: AsyncRead + AsyncWrite + Abort + Unpin + Send + 'static,
    S: Step<Request>,
{
    if until.lifetime.is_none() {
        return carry(protocol, io, path, conn, &until).await;
    }
    let watched = Rc::clone(&conn);
    tokio::select! {
        biased;
        () = carry(protocol, io, path, conn, &until) => {}
        failure = rarely(until.no_longer_allowed()) => {
            tracing::info!(peer = %watched.peer, identity = ?watched.identity, %failure, "connection closed");
            // It holds the connection, and nobody else will take it.
            drop(watched.tunnel.take());
        }
    }
}

async fn carry<I, S>(protocol: Protocol, io: I, path: S, conn: Rc<Conn>, until: &Until)
where
    I: AsyncRead + AsyncWrite + Abort + Unpin + Send + 'static,
    S: Step<Request>,
{
    let limits = until.worker.settings.limits;
    let watch = until.worker.patience.watch();
    let peer = conn.peer;
    let ledger = (protocol == Protocol::Http2).then(|| Ledger::new(&until.worker.budget, CONNECTION_WINDOW));
    let service = Connected {
        path: RefCell::new(path),
        conn: Rc::clone(&conn),
        watch: Arc::clone(&watch),
        worker: Rc::clone(&until.worker),
        ledger: ledger.clone(),
        most: limits.head,
    };
    // When what is in progress is cut off, once draining has begun.
    let mut cut_at = None;
    let ended = match ledger {
        None => {
            // A mesh peer's sidecar closes a connection that it is done with, never a half of one.
            let half_closes = conn.identity.is_none();
            let io = Strict::new(io, limits.head, Arc::clone(&watch), half_closes);
            let io = TokioIo::new(io.with_tunnels(conn.offers_tunnels));
            // Set once: the connection is served once.
            let _ = conn.watch.set(watch);
            let keeps_case = until.worker.settings.preserve_header_case;
            let serving = http1(limits, keeps_case).serve_connection(io, service).with_upgrades();
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
        // Boxed: connections of HTTP/1 would carry its room.
        Some(ledger) => Box::pin(serve_http2(io, service, ledger, until, &watch)).await,
    };
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%peer, %error, "connection ended"),
        None => tracing::warn!(%peer, "requests were still in progress at the end of the drain timeout"),
    }
    if let Some(tunnel) = conn.tunnel.take() {
        // Boxed: few connections need it, and all would carry its room.
        let carried = tunnel.carry(&until.worker, async {
            match cut_at {
                Some(at) => {
                    tokio::time::sleep_until(at).await;
                    Reason::Draining
                }
                None => until.tunnel().await,
            }
        });
        Box::pin(carried).await;
    }
}

/// The same over HTTP/2. `None`: requests were still in progress when time was up.
async fn serve_http2<I, S>(
    io: I,
    service: Connected<S>,
    ledger: Rc<Ledger>,
    until: &Until,
    watch: &Watch,
) -> Option<hyper::Result<()>>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Step<Request>,
{
    let settings = &until.worker.settings;
    let io = TokioIo::new(Guarded::new(io, ledger, Side::Server));
    let serving = http2(settings.limits, settings.liveness).serve_connection(io, service);
    let over = async {
        tokio::select! {
            rest = until.requests() => rest,
            () = watch.over() => FOR_GOOD,
        }
    };
    let mut serving = pin!(serving);
    tokio::select! {
        biased;
        ended = serving.as_mut() => Some(ended),
        rest = rarely(over) => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(rest, serving).await.ok()
        }
    }
}

/// What carries the tunnel that an app's connection has become, with what was read of it already; as it was if that is
/// not a connection of HTTP/1.
pub(crate) fn tunnel_of(upgraded: Upgraded) -> Result<impl way_out::Client, TokioIo<Upgraded>> {
    let parts = upgraded.downcast::<TokioIo<Strict<Prefixed<TcpStream>>>>().map_err(TokioIo::new)?;
    Ok(Prefixed::new(parts.read_buf, parts.io.into_inner()))
}

fn http1(limits: Limits, keeps_case: bool) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.preserve_header_case(keeps_case);
    // Not `pipeline_flush`: with it hyper takes in answers without end for a client that does not read.
    builder.half_close(true);
    // Without a word, hyper has room for its default without allocating.
    if limits.head.count > HYPER_FIELDS {
        builder.max_headers(limits.head.count);
    }
    // So that it is never hyper that refuses a head for its size.
    builder.max_buf_size(HYPER_BUFFER.max(2 * limits.head.bytes));
    builder
}

fn http2(limits: Limits, liveness: Liveness) -> http2::Builder<Local> {
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head.bytes.saturating_mul(2)).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_ERROR_STREAMS)
        .keep_alive_interval(liveness.pings())
        .keep_alive_timeout(liveness.ping_timeout);
    builder
}

/// A path, on one connection.
#[derive(Debug)]
struct Connected<S> {
    /// Used in place: a copy for each request would count references up and down in every step.
    path: RefCell<S>,
    conn: Rc<Conn>,
    watch: Arc<Watch>,
    worker: Rc<Worker>,
    /// `None`: it is HTTP/1.
    ledger: Option<Rc<Ledger>>,
    most: HeadLimits,
}

impl<S> Connected<S> {
    /// What is wrong with a request, as far as its stream or its size tells.
    fn refusal<B>(&self, request: &http::Request<B>) -> Option<Refusal> {
        if request.method().as_str() == head::REFUSED {
            return Some(self.watch.refusal());
        }
        if self.worker.budget.is_exhausted() {
            self.worker.budget.acted(Action::RefusedRequest);
            return Some(OVERLOADED);
        }
        if request.headers().len() > self.most.count {
            return Some(head::TOO_MANY_FIELDS);
        }
        // Of HTTP/1 every byte has been counted.
        let is_too_long = self.ledger.is_some() && head::list_size(request) > self.most.bytes;
        is_too_long.then_some(head::TOO_LONG)
    }
}

impl<S: Step<Request>> HttpService<http::Request<Incoming>> for Connected<S> {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Answer<S::Future>;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        let asked = Asked::by(&mut request, &self.conn);
        self.watch.request();
        if self.ledger.is_none() {
            self.watch.awaited.begin(request.version() >= http::Version::HTTP_11);
        }
        if let Some(refusal) = self.refusal(&request) {
            request.extensions_mut().insert(refusal);
        }
        let http = Box::new(request.map(|body| {
            let pace = Pace::of(body.size_hint().exact(), self.worker.settings.pace, &self.worker.deadlines);
            Body::arriving(body, self.ledger.as_ref(), pace)
        }));
        let request = Request { http, conn: Rc::clone(&self.conn), at: Instant::now() };
        let asked = asked.map(|asked| (asked, Rc::clone(&self.worker)));
        Answer { inner: self.path.borrow_mut().call(request), asked, watch: Arc::clone(&self.watch) }
    }
}

pin_project_lite::pin_project! {
    /// The answer of a whole path.
    struct Answer<F> {
        #[pin]
        inner: F,
        asked: Option<(Box<Asked>, Rc<Worker>)>,
        watch: Arc<Watch>,
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
            let is_http1 = this.watch.awaited.end();
            let mut http = match result {
                Ok(response) => *response.http,
                // `respond` leaves no error; should a path be built without it, the answer is still one.
                Err(error) => respond::answer(&error.failure, false),
            };
            if is_http1 {
                respond::for_http1(&mut http);
            }
            if let Some((asked, worker)) = this.asked.take() {
                if asked.answered(&mut http, &worker) {
                    // The client sends other than HTTP once it has this, and no sooner.
                    this.watch.become_tunnel();
                }
            }
            Ok(http)
        })
    }
}
