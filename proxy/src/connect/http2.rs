//! HTTP/2 connections: one per target and application protocol, shared by all requests.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, Shared as SharedFuture},
};
use http::uri::Scheme;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use selvedge_api::wire;

use super::{Failure, Pool, Reason, SendError, Settings, answer, failed, rewrite, tls::Lifetime};
use crate::{
    bind::Target,
    body::{Body, Local},
    step::HttpVersion,
};

/// Flow-control windows: 64 KiB, the protocol's default, halves bulk throughput.
pub const STREAM_WINDOW: u32 = 1 << 20;
/// As [`STREAM_WINDOW`], for all streams of a connection together. An answer that its client does not read
/// keeps up to a stream's window from all others, so this has room for many of those: with 4 MiB, five
/// clients that read nothing would stop every other request to the same endpoint.
pub const CONNECTION_WINDOW: u32 = 64 << 20;
/// The largest frame that we accept, in bytes.
pub const MAX_FRAME: u32 = 256 << 10;
/// The most that an answer's headers may have, in bytes, and its trailers. Of trailers, h2 drops what is beyond
/// without a word, so this is far above what a server sends; hyper's own 16 KiB cut off gRPC's large metadata.
const MAX_ANSWER_HEAD: u32 = 256 << 10;
/// How often a silent connection is asked whether it still lives.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);
/// How long the answer to a ping may take.
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a request moves on to a newer connection because the one it had did not take it.
const MOVES: usize = 3;

#[derive(Debug, Clone)]
struct Connection {
    sender: SendRequest<Body>,
    lifetime: Option<Lifetime>,
}

type Opening = SharedFuture<LocalBoxFuture<'static, Result<Connection, Failure>>>;

/// The one connection, or the attempt to open it that everybody waits for.
#[derive(Debug, Default)]
pub(super) struct Shared(RefCell<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    None,
    Opening(Opening),
    Open(Connection),
}

impl Connection {
    fn usable(&self, now: Instant) -> bool {
        !self.sender.is_closed() && self.lifetime.as_ref().is_none_or(|lifetime| lifetime.lasts(now))
    }
}

impl Shared {
    /// Lets go of a connection that takes no more requests; those in progress finish.
    pub(super) fn sweep(&self, now: Instant) {
        let mut state = self.0.borrow_mut();
        if matches!(&*state, State::Open(connection) if !connection.usable(now)) {
            *state = State::None;
        }
    }

    fn open_connection(&self) -> Option<Connection> {
        match &*self.0.borrow() {
            State::Open(connection) if connection.usable(Instant::now()) => Some(connection.clone()),
            _ => None,
        }
    }

    /// The attempt in progress, or a new one.
    fn opening(
        &self,
        start: impl FnOnce() -> LocalBoxFuture<'static, Result<Connection, Failure>>,
    ) -> Opening {
        let mut state = self.0.borrow_mut();
        if let State::Opening(opening) = &*state
            && opening.peek().is_none()
        {
            return opening.clone();
        }
        let opening = start().shared();
        *state = State::Opening(opening.clone());
        opening
    }
}

/// Sends one request on the shared connection, opening it if need be.
pub(super) async fn send(
    pool: &Rc<Pool>,
    target: &Arc<Target>,
    settings: &Settings,
    version: HttpVersion,
    mut request: Box<http::Request<Body>>,
    limit: Duration,
) -> Result<Box<http::Response<Body>>, SendError> {
    let scheme = if target.is_tls_outside() { Scheme::HTTPS } else { Scheme::HTTP };
    rewrite::for_http2(&mut request, scheme)?;
    let mut moves = 0;
    loop {
        let mut connection = match connection(pool, target, settings, version, limit).await {
            Ok(connection) => connection,
            Err(failure) => return Err(SendError { failure, request: Some(request) }),
        };
        match connection.sender.try_send_request(*request).await {
            Ok(response) => return Ok(answer(response)),
            Err(mut error) => {
                let failure = failed(target, error.error());
                match error.take_message() {
                    Some(unsent) if moves < MOVES => {
                        moves += 1;
                        request = Box::new(unsent);
                    }
                    Some(unsent) => {
                        let failure = failure.never_delivered();
                        return Err(SendError { failure, request: Some(Box::new(unsent)) });
                    }
                    None => return Err(failure.into()),
                }
            }
        }
    }
}

async fn connection(
    pool: &Rc<Pool>,
    target: &Arc<Target>,
    settings: &Settings,
    version: HttpVersion,
    limit: Duration,
) -> Result<Connection, Failure> {
    let (shared, app) = match version {
        HttpVersion::Http1 => (&pool.http2[0], wire::AppProtocol::Http1),
        HttpVersion::Http2 => (&pool.http2[1], wire::AppProtocol::Http2),
    };
    if let Some(connection) = shared.open_connection() {
        return Ok(connection);
    }
    let opening = shared.opening(|| {
        let target = Arc::clone(target);
        let settings = settings.clone();
        async move { open(&target, &settings, app, limit).await }.boxed_local()
    });
    let opened = opening.await;
    let mut state = shared.0.borrow_mut();
    if let State::Opening(opening) = &*state
        && opening.peek().is_some()
    {
        *state = opened.as_ref().map_or(State::None, |connection| State::Open(connection.clone()));
    }
    opened
}

async fn open(
    target: &Target,
    settings: &Settings,
    app: wire::AppProtocol,
    limit: Duration,
) -> Result<Connection, Failure> {
    let opened = super::open(target, settings, wire::Carrier::Http2, app, limit).await?;
    let dial = target.dial;
    let (sender, connection) = Builder::new(Local)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_ANSWER_HEAD)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(opened.stream))
        .await
        .map_err(|error| Failure::new(Reason::ConnectFailure, format!("no HTTP/2 with {dial}: {error}")))?;
    let open = super::opened(target, settings);
    tokio::task::spawn_local(async move {
        let _open = open;
        if let Err(error) = connection.await {
            tracing::debug!(%dial, %error, "HTTP/2 connection ended");
        }
    });
    Ok(Connection { sender, lifetime: opened.lifetime })
}
