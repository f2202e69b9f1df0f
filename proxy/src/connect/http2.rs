//! HTTP/2 connections: shared by all requests to a target for one application protocol. There is one of
//! them, and another only when all are full: when their endpoint allows no more requests on them.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::{Rc, Weak},
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

use super::{
    Failure, Pool, PoolSettings, Reason, SendError, Terms, answer, failed, http1::DOUBTFUL, rewrite,
    tls::Lifetime, waiting::Waiting,
};
use crate::{
    balance::Held,
    bind::Target,
    body::{Body, Lease, Local, PoolPlace, Shared},
    budget::{Guarded, Ledger, Side},
    step::HttpVersion,
};

/// Flow-control windows: 64 KiB, the protocol's default, halves bulk throughput.
pub const STREAM_WINDOW: u32 = 1 << 20;
/// As [`STREAM_WINDOW`], for all streams of a connection together. An answer that its client does not read
/// keeps up to a stream's window from all others, so this has room for some of those; with more of them
/// the connection is full ([`FULL`]).
pub const CONNECTION_WINDOW: u32 = 32 << 20;
/// Bytes that nobody has taken, for which a connection that we opened gets no more requests: the rest of its
/// window is for those that it has.
const FULL: u64 = CONNECTION_WINDOW as u64 / 8;
/// The largest frame that we accept, in bytes.
pub const MAX_FRAME: u32 = 256 << 10;
/// The most that an answer's headers may have, in bytes, and its trailers. Of trailers, h2 drops what is beyond
/// without a word, so this is far above what a server sends; hyper's own 16 KiB cut off gRPC's large metadata.
const MAX_ANSWER_HEAD: u32 = 256 << 10;

/// How often a request moves on to a newer connection because the one it had did not take it.
const MOVES: usize = 3;

/// Requests that a mesh peer is taken to allow before it has said how many: what sidecars allow by default.
const USUAL_STREAMS: usize = 1024;

/// Connections of one worker to one target, at the most, where no policy limits them. What finds none of
/// them free waits.
const MAX_CONNECTIONS: usize = 32;

/// A worker's connections to one target, for one application protocol.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// The oldest first, which is used as long as it has room: so that the others become idle.
    open: RefCell<Vec<Connection>>,
    /// The attempt to open one that everybody waits for.
    opening: RefCell<Option<Opening>>,
    waiting: Waiting,
}

#[derive(Debug, Clone)]
struct Connection {
    sender: SendRequest<Body>,
    lifetime: Lifetime,
    load: Rc<Load>,
    ledger: Rc<Ledger>,
    /// How long it may be without a request; `None`: for as long as it lasts.
    idle: Option<Duration>,
    /// The most requests that it may have in progress, if the endpoint allows more.
    most_streams: usize,
    /// Its place among the connections that the backend's policy allows.
    _counted: Option<Rc<Held>>,
}

/// What a connection carries.
#[derive(Debug)]
struct Load {
    /// Requests in progress.
    streams: Cell<usize>,
    /// How many requests the endpoint allows to be in progress.
    allowed: Cell<usize>,
    /// Since when there is none.
    idle_since: Cell<Instant>,
    /// How many more requests it may take; `None`: any number.
    left: Cell<Option<u32>>,
    /// Whose it is, and where among them.
    pool: Weak<Pool>,
    place: usize,
}

impl Shared for Load {
    fn leave(&self) {
        let streams = self.streams.get() - 1;
        self.streams.set(streams);
        if streams == 0 {
            self.idle_since.set(Instant::now());
        }
        if let Some(pool) = self.pool.upgrade() {
            pool.http2[self.place].waiting.wake_one();
        }
    }
}

type Opening = SharedFuture<LocalBoxFuture<'static, Result<(), Failure>>>;

impl Connection {
    fn usable(&self, now: Instant) -> bool {
        !self.sender.is_closed() && self.lifetime.lasts(now) && self.load.left.get() != Some(0)
    }

    fn has_room(&self) -> bool {
        let most = self.load.allowed.get().min(self.most_streams);
        // A peer that allows none for the moment is left to hyper, which waits until it does.
        self.load.streams.get() < most.max(1) && self.ledger.held() < FULL
    }

    /// Whether it has been without a request for so long that its other side may have ended it unnoticed.
    fn is_doubtful(&self, now: Instant) -> bool {
        self.load.streams.get() == 0 && now.duration_since(self.load.idle_since.get()) >= DOUBTFUL
    }

    fn is_idle(&self, now: Instant) -> bool {
        let since = self.load.idle_since.get();
        self.load.streams.get() == 0 && self.idle.is_some_and(|idle| now.duration_since(since) >= idle)
    }

    /// Takes a place on it.
    fn enter(&self) -> PoolPlace {
        self.load.streams.set(self.load.streams.get() + 1);
        self.load.left.set(self.load.left.get().map(|left| left.saturating_sub(1)));
        PoolPlace::on(Rc::<Load>::clone(&self.load))
    }
}

impl Connections {
    /// Lets go of connections that take no more requests; those in progress finish.
    pub(super) fn sweep(&self, now: Instant) {
        self.open.borrow_mut().retain(|connection| connection.usable(now) && !connection.is_idle(now));
    }

    /// A connection with room for a request.
    fn find(&self) -> Option<Connection> {
        let mut open = self.open.borrow_mut();
        let now = Instant::now();
        match open.iter().find(|connection| connection.usable(now) && connection.has_room()) {
            Some(found) => Some(found.clone()),
            None => {
                open.retain(|connection| connection.usable(now));
                None
            }
        }
    }

    /// The attempt in progress, or a new one.
    fn opening(&self, start: impl FnOnce() -> LocalBoxFuture<'static, Result<(), Failure>>) -> Opening {
        let mut opening = self.opening.borrow_mut();
        if let Some(opening) = &*opening
            && opening.peek().is_none()
        {
            return opening.clone();
        }
        let new = start().shared();
        *opening = Some(new.clone());
        new
    }

    fn is_opening(&self) -> bool {
        self.opening.borrow().as_ref().is_some_and(|opening| opening.peek().is_none())
    }
}

/// Sends one request on a shared connection, opening one if need be.
#[expect(clippy::manual_async_fn, reason = "an async fn would hold its arguments twice")]
pub(super) fn send(
    pool: &Rc<Pool>,
    target: &Arc<Target>,
    settings: &PoolSettings,
    version: HttpVersion,
    mut request: Box<http::Request<Body>>,
    terms: &Terms<'_>,
) -> impl Future<Output = Result<Box<http::Response<Body>>, SendError>> {
    async move {
        let scheme = if target.is_tls_outside() { Scheme::HTTPS } else { Scheme::HTTP };
        rewrite::for_http2(&mut request, scheme)?;
        let place = usize::from(version == HttpVersion::Http2);
        let mut moves = 0;
        loop {
            let connections = &pool.http2[place];
            let in_turn = terms.circuit.is_some() && connections.waiting.is_busy();
            let found = if in_turn { None } else { connections.find() };
            let mut connection = match found {
                Some(connection) if connection.is_doubtful(Instant::now()) => {
                    // As with HTTP/1.1: its task has seen an end when we go on.
                    tokio::task::yield_now().await;
                    if connection.sender.is_closed() {
                        continue;
                    }
                    connection
                }
                Some(connection) => connection,
                // Boxed: seldom, and larger than a request's future.
                None => match Box::pin(open_or_wait(pool, place, target, settings, terms)).await {
                    Ok(connection) => connection,
                    Err(failure) => return Err(SendError { failure, request: Some(request) }),
                },
            };
            let stream = connection.enter();
            match connection.sender.try_send_request(*request).await {
                Ok(response) => {
                    let (mut response, _) = answer(target, response, Some(&connection.ledger))?;
                    response.body_mut().end().lease = Some(Lease::PoolPlace(stream));
                    return Ok(response);
                }
                Err(mut error) => {
                    let failure = failed(target, error.error());
                    match error.take_message() {
                        Some(unsent) if moves < MOVES => {
                            moves += 1;
                            *request = unsent;
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
}

/// A connection with room: a new one; where there may be no more of them, one of those that there are, when
/// a request on it has ended.
async fn open_or_wait(
    pool: &Rc<Pool>,
    place: usize,
    target: &Arc<Target>,
    settings: &PoolSettings,
    terms: &Terms<'_>,
) -> Result<Connection, Failure> {
    let connections = &pool.http2[place];
    let _pending = terms.pending(target)?;
    loop {
        let open = connections.open.borrow().len();
        let counted = match connections.is_opening() {
            true => Some(None),
            false if open >= MAX_CONNECTIONS => None,
            false => terms.connection(open == 0),
        };
        match counted {
            None => connections.waiting.wait().await,
            Some(counted) => {
                let opening = connections.opening(|| {
                    let (pool, target, settings) =
                        (Rc::downgrade(pool), Arc::clone(target), settings.clone());
                    let wanted = Wanted::new(terms, place, counted);
                    async move { open_for(&pool, &target, &settings, wanted).await }.boxed_local()
                });
                opening.await?;
            }
        }
        if let Some(connection) = connections.find() {
            return Ok(connection);
        }
    }
}

/// What a new connection is to be like.
struct Wanted {
    place: usize,
    connect_timeout: Duration,
    max_age: Duration,
    idle: Option<Duration>,
    most_streams: usize,
    most_requests: Option<u32>,
    counted: Option<Held>,
}

impl Wanted {
    fn new(terms: &Terms<'_>, place: usize, counted: Option<Held>) -> Self {
        let most_streams = terms.pool.max_concurrent_streams.map(usize::try_from);
        Self {
            place,
            connect_timeout: terms.connect_timeout,
            max_age: terms.max_age(),
            idle: terms.pool.idle_timeout,
            most_streams: most_streams.and_then(Result::ok).unwrap_or(usize::MAX),
            most_requests: terms.pool.max_requests_per_connection,
            counted,
        }
    }
}

/// How a connection to `target` is spoken on.
fn builder(target: &Target, settings: &PoolSettings) -> Builder<Local> {
    let mut builder = Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_ANSWER_HEAD)
        .keep_alive_interval(settings.liveness.pings())
        .keep_alive_timeout(settings.liveness.ping_timeout);
    if target.identity.is_some() {
        builder.initial_max_send_streams(USUAL_STREAMS);
    }
    builder
}

/// Opens a connection and adds it to the pool's.
async fn open_for(
    pool: &Weak<Pool>,
    target: &Target,
    settings: &PoolSettings,
    wanted: Wanted,
) -> Result<(), Failure> {
    let app = if wanted.place == 0 { wire::AppProtocol::Http1 } else { wire::AppProtocol::Http2 };
    let (limit, max_age) = (wanted.connect_timeout, wanted.max_age);
    let opened = super::open(target, settings, wire::Carrier::Http2, app, limit, max_age).await?;
    let dial = target.dial;
    let ledger = Ledger::new(&settings.budget, CONNECTION_WINDOW);
    let (sender, connection) = builder(target, settings)
        .handshake(TokioIo::new(Guarded::new(opened.stream, Rc::clone(&ledger), Side::Client, dial)))
        .await
        .map_err(|error| Failure::new(Reason::ConnectFailure, format!("no HTTP/2 with {dial}: {error}")))?;
    let open = super::opened(target, settings);
    let load = Rc::new(Load {
        streams: Cell::new(0),
        allowed: Cell::new(connection.current_max_send_streams()),
        idle_since: Cell::new(Instant::now()),
        left: Cell::new(wanted.most_requests),
        pool: Weak::clone(pool),
        place: wanted.place,
    });
    let (noted, account) = (Rc::clone(&load), Rc::clone(&ledger));
    let standing = opened.lifetime.standing().cloned();
    let counted = (Arc::clone(&settings.metrics), Arc::clone(&settings.budget));
    tokio::task::spawn_local(async move {
        let _open = open;
        let mut connection = pin!(connection);
        let carried = poll_fn(|cx| {
            let ended = connection.as_mut().poll(cx);
            noted.allowed.set(connection.current_max_send_streams());
            ended
        });
        // hyper is done when nothing new can be sent; what is in progress goes on until the connection is closed.
        let carried = async {
            carried.await?;
            account.closed().await;
            Ok(())
        };
        if super::carry(carried, dial, standing, counted, || noted.streams.get()).await.is_err() {
            account.cut();
        }
    });
    let connection = Connection {
        sender,
        lifetime: opened.lifetime,
        load,
        ledger,
        idle: wanted.idle,
        most_streams: wanted.most_streams,
        _counted: wanted.counted.map(Rc::new),
    };
    // Without a pool there is nobody left who waits for it.
    if let Some(pool) = pool.upgrade() {
        pool.http2[wanted.place].open.borrow_mut().push(connection);
    }
    Ok(())
}
