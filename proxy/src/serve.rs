//! Serving HTTP on a connection until it ends, is told to end, or has lived long enough.
//!
//! hyper and h2 parse what a client sends, within our limits. HTTP/1 passes a stricter reader of ours first (the module
//! `strict`); h2 is as strict as RFC 9113 by itself. What h2 refuses carries no `selvedge-error` and is not counted as
//! a request. h2 resets a malformed stream, answers a head that is longer than twice our limit with a bare 431 (a
//! shorter one is answered and counted as HTTP/1's is), and ends a connection that floods us with GOAWAY.

mod chunks;
mod head;
mod requests;
mod strict;
mod unfinished;

use std::{
    cell::RefCell,
    future::pending,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use http::{HeaderValue, header::CONNECTION};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::{http1, http2},
    service::Service as HttpService,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use strict::Strict;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::{
    authorize::forbidden_meanwhile,
    body::{Body, Local, Pace},
    budget::{Guarded, Ledger, Side, is_flood},
    clients::{UnderWay, Watch},
    connect::http2::{CONNECTION_WINDOW, MAX_FRAME, STREAM_WINDOW},
    error::{Failure, Reason},
    io::{Abort, Duplex, Liveness, Prefixed},
    lifetime::Until,
    respond,
    settings::RequestLimits,
    step::{Conn, HttpVersion, Request, Step},
    time::when_woken,
    trust::LAST_REQUESTS,
    upgrade::{self, UpgradeRequest},
    worker::Worker,
};

/// Header fields that hyper takes if nobody says how many.
const HYPER_FIELDS: usize = 100;

/// How large hyper's read buffer may grow: its own default.
const HYPER_BUFFER: usize = 8192 + 4096 * 100;

/// The most streams that a client has reset before we took them up (rapid reset, CVE-2023-44487). With more of them
/// waiting, its connection ends.
const MAX_RESET_STREAMS: usize = 20;

/// The most streams that we reset because of a client's errors, before its connection ends.
const MAX_ERROR_STREAMS: usize = 256;

impl Until {
    /// As [`Self::end`], for requests: also when a policy no longer lets the client in. If the peer is not believed
    /// because its root is being replaced, its requests get a moment more.
    async fn requests_end(&self, conn: &Conn, watch: &Watch) -> Failure {
        let forbidden = async {
            match conn.inbound() {
                Some(inbound) if inbound.app.is_ok() => {
                    let in_progress = || watch.in_progress() > 0;
                    forbidden_meanwhile(&self.worker, conn, in_progress).await
                }
                // Nobody asks whether our own app may go out.
                _ => pending().await,
            }
        };
        tokio::select! {
            failure = self.end() => {
                if failure.reason == Reason::Certificate {
                    tokio::time::sleep(LAST_REQUESTS).await;
                }
                failure
            }
            failure = forbidden => failure,
        }
    }

    /// What happens to the connection next.
    async fn turn(&self, retired: bool, conn: &Conn, watch: &Watch) -> Turn {
        let retire = async {
            if retired {
                pending::<()>().await;
            }
            tokio::select! {
                () = self.requests() => {}
                // HTTP/1 ends itself then.
                () = watch.over(), if conn.watch.get().is_none() => {}
            }
        };
        let refused = async {
            if !retired || conn.watch.get().is_some() {
                pending::<()>().await;
            }
            watch.left_unserved().await;
        };
        tokio::select! {
            biased;
            () = retire => Turn::Retire,
            failure = self.requests_end(conn, watch) => Turn::End(failure),
            () = refused => Turn::End(Failure::new(Reason::Policy, "the client was told to close the connection and kept it open")),
        }
    }

    /// Says that requests in progress have been ended.
    fn tell(&self, conn: &Conn, watch: &Watch, failure: &Failure) {
        let requests = watch.in_progress();
        if requests > 0 {
            self.worker.metrics.connection_cut(self.direction, failure.reason);
            let (peer, identity) = (conn.peer, conn.identity().map(tracing::field::display));
            let age = self.began.elapsed();
            tracing::info!(%peer, identity, ?age, requests, %failure, "ended a connection with requests in progress");
        }
    }
}

/// What happens to a connection that has not come to its own end.
enum Turn {
    /// It takes no more requests; those in progress go on.
    Retire,
    /// It ends, and with it what is in progress.
    End(Failure),
}

/// Serves `path` on `io`, which speaks `version`. When `until` says so, no more requests are taken, and those in progress go on.
pub async fn serve<I, S>(version: HttpVersion, io: I, path: S, conn: Rc<Conn>, until: Until)
where
    I: AsyncRead + AsyncWrite + Abort + Unpin + Send + 'static,
    S: Step<Request>,
{
    let limits = until.worker.settings.limits;
    let watch = until.worker.patience.watch();
    let peer = conn.peer;
    if let Some(client) = conn.inbound().and_then(|inbound| inbound.client.as_ref()) {
        client.watch_with(&watch);
    }
    let ledger =
        (version == HttpVersion::Http2).then(|| Ledger::new(&until.worker.budget, CONNECTION_WINDOW));
    let service = Connected {
        path: RefCell::new(path),
        conn: Rc::clone(&conn),
        watch: Arc::clone(&watch),
        worker: Rc::clone(&until.worker),
        ledger: ledger.clone(),
    };
    let ended = match ledger {
        None => {
            // A mesh peer's sidecar closes a connection that it is done with, never a half of one.
            let half_closes = conn.identity().is_none();
            let io = Strict::new(io, limits.head, Arc::clone(&watch), half_closes, &until.worker.budget);
            let offers_tunnels = conn.outbound().is_some_and(|outbound| outbound.offers_tunnels);
            let io = TokioIo::new(io.with_tunnels(offers_tunnels));
            // Set once: the connection is served once.
            let _ = conn.watch.set(Arc::clone(&watch));
            let keeps_case = until.worker.settings.preserve_header_case;
            let serving = http1(limits, keeps_case).serve_connection(io, service).with_upgrades();
            carry(serving, |serving| serving.graceful_shutdown(), &until, &conn, &watch).await
        }
        // Boxed: connections of HTTP/1 would carry its room.
        Some(ledger) => Box::pin(serve_http2(io, service, ledger, &until, &conn, &watch)).await,
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) if is_flood(&error) => {
            until.worker.budget.flooded(Side::Server);
            tracing::info!(%peer, error = &error as &dyn std::error::Error, "ended an HTTP/2 connection that floods this proxy");
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "connection ended"),
        Err(_) => return,
    }
    if let Some(tunnel) = conn.tunnel.take() {
        // Boxed: few connections need it, and all would carry its room.
        Box::pin(upgrade::carry(tunnel, &until.worker, until.end(), bytes_of)).await;
    }
}

/// The same over HTTP/2.
async fn serve_http2<I, S>(
    io: I,
    service: Connected<S>,
    ledger: Rc<Ledger>,
    until: &Until,
    conn: &Conn,
    watch: &Watch,
) -> Result<hyper::Result<()>, Failure>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Step<Request>,
{
    let settings = &until.worker.settings;
    let io = TokioIo::new(Guarded::new(io, ledger, Side::Server, conn.peer));
    let serving = http2(settings.limits, settings.liveness).serve_connection(io, service);
    carry(serving, |serving| serving.graceful_shutdown(), until, conn, watch).await
}

/// Carries a connection to its own end; `retire` tells it to take no more requests. Fails if it was ended.
async fn carry<C: Future>(
    serving: C,
    retire: impl Fn(Pin<&mut C>),
    until: &Until,
    conn: &Conn,
    watch: &Watch,
) -> Result<C::Output, Failure> {
    let mut serving = pin!(serving);
    let mut retired = false;
    loop {
        tokio::select! {
            biased;
            ended = serving.as_mut() => return Ok(ended),
            turn = when_woken(until.turn(retired, conn, watch)) => match turn {
                Turn::Retire => {
                    retire(serving.as_mut());
                    retired = true;
                }
                Turn::End(failure) => {
                    until.tell(conn, watch, &failure);
                    return Err(failure);
                }
            },
        }
    }
}

/// What carries the tunnel that an app's connection has become, with what was read of it already.
fn bytes_of(upgraded: Upgraded) -> Box<dyn Duplex> {
    match upgraded.downcast::<TokioIo<Strict<Prefixed<TcpStream>>>>() {
        Ok(parts) => Box::new(Prefixed::new(parts.read_buf, parts.io.into_inner())),
        Err(upgraded) => Box::new(TokioIo::new(upgraded)),
    }
}

fn http1(limits: RequestLimits, keeps_case: bool) -> http1::Builder {
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

fn http2(limits: RequestLimits, liveness: Liveness) -> http2::Builder<Local> {
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
    /// Used in place: a copy for each request would change reference counts in every step.
    path: RefCell<S>,
    conn: Rc<Conn>,
    watch: Arc<Watch>,
    worker: Rc<Worker>,
    /// `None`: it is HTTP/1.
    ledger: Option<Rc<Ledger>>,
}

impl<S: Step<Request>> HttpService<http::Request<Incoming>> for Connected<S> {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Answer<S::Future>;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        let asked = UpgradeRequest::by(&mut request, &self.conn);
        self.watch.request();
        if self.ledger.is_none() {
            self.watch.awaited.begin(request.version() >= http::Version::HTTP_11);
        }
        let is_web_socket = asked.as_ref().is_some_and(|asked| asked.is_for_web_socket());
        let http = Box::new(request.map(|body| {
            if is_web_socket {
                return Body::web_socket();
            }
            let pace = Pace::of(body.size_hint().exact(), self.worker.settings.pace, &self.worker.deadlines);
            Body::arriving(body, self.ledger.as_ref(), pace)
        }));
        let request = Request { http, conn: Rc::clone(&self.conn), at: Instant::now() };
        let asked = asked.map(|asked| (asked, Rc::clone(&self.worker)));
        let under_way = Some(UnderWay::new(Arc::clone(&self.watch)));
        let version = if self.ledger.is_some() { HttpVersion::Http2 } else { HttpVersion::Http1 };
        let stranger =
            self.conn.inbound().is_some_and(|inbound| inbound.identity.is_none()).then_some(version);
        Answer { stranger, inner: self.path.borrow_mut().call(request), asked, under_way }
    }
}

pin_project_lite::pin_project! {
    /// The answer of a whole path.
    struct Answer<F> {
        #[pin]
        inner: F,
        asked: Option<(Box<UpgradeRequest>, Rc<Worker>)>,
        // What a client speaks that comes in, and of whom nothing is proven.
        stranger: Option<HttpVersion>,
        // Until there is an answer.
        under_way: Option<UnderWay>,
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
            let is_http1 = this.under_way.as_ref().is_some_and(|UnderWay(watch)| watch.awaited.end());
            let reason = result.as_ref().ok().and_then(|answer| answer.facts.reason);
            let dismissed = this.stranger.filter(|_| reason.is_some_and(Reason::dismisses_strangers));
            let mut http = match result {
                Ok(response) => *response.http,
                // `respond` leaves no error; should a path be built without it, the answer is still one.
                Err(error) => respond::answer(&error.failure, false),
            };
            if is_http1 {
                respond::for_http1(&mut http);
            }
            match dismissed {
                None => {}
                Some(HttpVersion::Http1) => {
                    http.headers_mut().insert(CONNECTION, const { HeaderValue::from_static("close") });
                }
                Some(HttpVersion::Http2) => this.under_way.iter().for_each(|UnderWay(watch)| watch.dismiss()),
            }
            if dismissed.is_some() {
                // Nobody waits until it takes that.
                this.under_way.take();
            }
            let Some((asked, worker)) = this.asked.take() else {
                http.body_mut().end().under_way = this.under_way.take();
                return Ok(http);
            };
            let watch = this.under_way.as_ref().map(|UnderWay(watch)| Arc::clone(watch));
            http.body_mut().end().under_way = this.under_way.take();
            let becomes_tunnel = asked.answered(&mut http, &worker);
            if let Some(watch) = watch.filter(|_| becomes_tunnel) {
                // The client sends other than HTTP once it has this, and no sooner.
                watch.become_tunnel();
            }
            Ok(http)
        })
    }
}
