//! HTTP/1.1 connections: one request at a time, idle ones kept in a stack.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, StatusCode};
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use selvedge_api::wire;

use super::{
    Failure, Pool, PoolSettings, Reason, SendError, Terms, answer, failed, rewrite, tls::Lifetime,
    waiting::Waiting,
};
use crate::{
    balance::Held,
    bind::Target,
    body::{Body, Lease, Whole},
    fields::{Framing, WebSocket, get_rare},
    io::LastAnswer,
};

/// How long an idle connection to an app or an endpoint without a sidecar is kept, unless the
/// backend's policy says. Shorter than the keep-alive of common servers (Node.js closes after 5 s), so that it is this side that lets go.
const IDLE_PLAIN: Duration = Duration::from_secs(4);

/// How long a connection to an app or an endpoint without a sidecar may have been idle for a request that must not be
/// sent twice (RFC 9110, section 9.2.2): what a server closes meanwhile nobody could try again. Shorter than any usual
/// keep-alive (gunicorn closes after 2 s).
const IDLE_UNSAFE: Duration = Duration::from_secs(1);

/// After so long a silence, it is looked whether the other side has closed the connection before it is used again.
pub(super) const DOUBTFUL: Duration = Duration::from_millis(50);

/// How long an idle connection between sidecars is kept, unless the backend's policy says.
pub(super) const IDLE_MESH: Duration = Duration::from_secs(60);

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// How often a connection that is coming back is looked at again before it is given up.
const READY_LOOKS: usize = 4;

/// A worker's connections to one target.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// Those that no answer arrives on, the one used last on top.
    #[expect(
        clippy::vec_box,
        reason = "a connection keeps its box when it moves between the pool and an answer"
    )]
    idle: RefCell<Vec<Box<Connection>>>,
    /// All that are open or being opened.
    open: Cell<usize>,
    waiting: Waiting,
}

/// Boxed wherever it is: it moves from the pool to a request, and with the answer back.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Body>,
    pool: Weak<Pool>,
    lifetime: Lifetime,
    /// Whether a request is in progress on it.
    in_use: Rc<Cell<bool>>,
    idle_since: Instant,
    /// How long it may be idle.
    idle: Duration,
    /// How many more requests it may take; `None`: any number.
    left: Option<u32>,
}

impl Whole for Connection {
    fn give_back(mut self: Box<Self>, now: Instant) {
        if let Some(pool) = self.pool.upgrade()
            && !self.sender.is_closed()
            && self.left != Some(0)
        {
            self.idle_since = now;
            self.in_use.set(false);
            pool.http1.idle.borrow_mut().push(self);
            pool.http1.waiting.wake_one();
        }
    }
}

impl Connection {
    fn usable(&self, now: Instant) -> bool {
        !self.sender.is_closed()
            && now.duration_since(self.idle_since) < self.idle
            && self.lifetime.lasts(now)
    }

    /// Whether it has been idle for no longer than a request allows.
    fn suits(&self, is_idempotent: bool, now: Instant) -> bool {
        is_idempotent
            || self.lifetime.standing().is_some()
            || now.duration_since(self.idle_since) < IDLE_UNSAFE
    }

    /// Whether it can take a request, after giving its task a few chances to finish with the last one.
    async fn ready(&mut self, now: Instant) -> bool {
        if now.duration_since(self.idle_since) >= DOUBTFUL {
            // The runtime asks the kernel what has happened before we go on: its task has seen an end by then.
            tokio::task::yield_now().await;
        }
        for _ in 0..READY_LOOKS {
            if self.sender.is_ready() {
                return true;
            }
            if self.sender.is_closed() {
                return false;
            }
            tokio::task::yield_now().await;
        }
        self.sender.is_ready()
    }
}

impl Connections {
    pub(super) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|connection| connection.usable(now));
    }

    /// One that is not needed longest, for a request that may be sent again or not.
    async fn take(&self, is_idempotent: bool) -> Option<Box<Connection>> {
        let now = Instant::now();
        loop {
            let mut connection = self.idle.borrow_mut().pop()?;
            if connection.usable(now) && connection.suits(is_idempotent, now) && connection.ready(now).await {
                connection.in_use.set(true);
                return Some(connection);
            }
        }
    }
}

/// A connection that counts as open; when it is dropped there is room for another.
struct Place {
    pool: Weak<Pool>,
    _counted: Option<Held>,
}

impl Place {
    fn new(pool: &Rc<Pool>, counted: Option<Held>) -> Self {
        pool.http1.open.set(pool.http1.open.get() + 1);
        Self { pool: Rc::downgrade(pool), _counted: counted }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.http1.open.set(pool.http1.open.get() - 1);
            pool.http1.waiting.wake_one();
        }
    }
}

/// Sends one request. A pooled connection that turns out to have died is replaced, as long as hyper hands
/// the request back unsent: that is never the caller's concern.
#[expect(clippy::manual_async_fn, reason = "an async fn would hold its arguments twice")]
pub(super) fn send(
    pool: &Rc<Pool>,
    target: &Target,
    settings: &PoolSettings,
    mut request: Box<http::Request<Body>>,
    terms: &Terms<'_>,
) -> impl Future<Output = Result<Box<http::Response<Body>>, SendError>> {
    async move {
        rewrite::for_http1(&mut request, target.identity.is_some())?;
        let asked = request.body().is_web_socket();
        let idempotent = request.method().is_idempotent();
        let fresh = target.identity.is_none() && terms.fresh;
        loop {
            let in_turn = fresh || (terms.circuit.is_some() && pool.http1.waiting.is_busy());
            let kept = if in_turn { None } else { pool.http1.take(idempotent).await };
            let (mut connection, reused) = match kept {
                Some(connection) => (connection, true),
                // Boxed: a handshake is seldom, and its future is much larger than a request's.
                None => match Box::pin(open_or_wait(pool, target, settings, terms, idempotent)).await {
                    Ok(connection) => connection,
                    Err(failure) => {
                        rewrite::take_back(&mut request);
                        return Err(SendError { failure, request: Some(request) });
                    }
                },
            };
            match connection.sender.try_send_request(*request).await {
                Ok(response) => return received(target, connection, response, asked),
                Err(mut error) => {
                    let failure = failed(target, error.error());
                    match error.take_message() {
                        Some(unsent) if reused => *request = unsent,
                        Some(unsent) => {
                            let mut unsent = Box::new(unsent);
                            rewrite::take_back(&mut unsent);
                            let failure = failure.never_delivered();
                            return Err(SendError { failure, request: Some(unsent) });
                        }
                        None => return Err(failure.into()),
                    }
                }
            }
        }
    }
}

/// A new connection; where there may be no more of them, one that comes back. Also whether it was used
/// before.
///
/// There is always one to wait for: the first of each target is never refused.
async fn open_or_wait(
    pool: &Rc<Pool>,
    target: &Target,
    settings: &PoolSettings,
    terms: &Terms<'_>,
    idempotent: bool,
) -> Result<(Box<Connection>, bool), Failure> {
    let connections = &pool.http1;
    let _pending = terms.pending(target)?;
    loop {
        if let Some(counted) = terms.connection(connections.open.get() == 0) {
            let place = Place::new(pool, counted);
            let opened = open(pool, target, settings, terms, place).await?;
            return Ok((Box::new(opened), false));
        }
        connections.waiting.wait().await;
        if let Some(kept) = connections.take(idempotent).await {
            return Ok((kept, true));
        }
    }
}

/// An answer; its connection comes back when it has been read, if it is HTTP still.
fn received(
    target: &Target,
    mut connection: Box<Connection>,
    response: http::Response<Incoming>,
    asked: bool,
) -> Result<Box<http::Response<Body>>, SendError> {
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switched && !(asked && WebSocket::is_named_in(response.headers())) {
        let what = format!("{} switched to a protocol that the request did not ask for", target.dial);
        return Err(Failure::new(Reason::Protocol, what).into());
    }
    if let Some(said) = keep_alive(response.headers()).filter(|_| target.identity.is_none()) {
        connection.idle = connection.idle.min(said);
    }
    let (mut response, framing) = answer(target, response, None)?;
    if switched {
        WebSocket::announce(response.headers_mut());
        if let Some(standing) = connection.lifetime.standing() {
            response.body_mut().end().standing = Some(Arc::clone(standing));
        }
    } else {
        connection.left = match framing {
            Framing::Sound => connection.left.map(|left| left.saturating_sub(1)),
            Framing::Doubtful => Some(0),
        };
        response.body_mut().end().lease = Some(Lease::Whole(connection));
    }
    Ok(response)
}

/// How long a server says that it keeps the connection (`Keep-Alive: timeout=5`, RFC 2068, section 19.7.1.1), less
/// what a request may take to get there.
fn keep_alive(headers: &HeaderMap) -> Option<Duration> {
    let parameters = get_rare(headers, &KEEP_ALIVE)?.to_str().ok()?;
    let seconds = parameters.split(',').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| value.trim().parse::<u32>().ok())?
    })?;
    let promised = Duration::from_secs(seconds.into());
    Some(promised.saturating_sub(Duration::from_secs(1)).max(promised / 2))
}

async fn open(
    pool: &Rc<Pool>,
    target: &Target,
    settings: &PoolSettings,
    terms: &Terms<'_>,
    place: Place,
) -> Result<Connection, Failure> {
    let (carrier, app) = (wire::Carrier::Http1, wire::AppProtocol::Http1);
    let opened = super::open(target, settings, carrier, app, terms.connect_timeout, terms.max_age()).await?;
    let dial = target.dial;
    let (sender, connection) = Builder::new()
        .preserve_header_case(settings.preserve_header_case)
        // RFC 9112, section 5.1: whoever passes an answer on takes such spaces away.
        .allow_spaces_after_header_name_in_responses(true)
        .handshake(TokioIo::new(LastAnswer::new(opened.stream)))
        .await
        .map_err(|error| Failure::new(Reason::ConnectFailure, format!("no HTTP/1.1 with {dial}: {error}")))?;
    let open = super::opened(target, settings);
    let standing = opened.lifetime.standing().cloned();
    let counted = (Arc::clone(&settings.metrics), Arc::clone(&settings.budget));
    let in_use = Rc::new(Cell::new(true));
    let is_used = Rc::clone(&in_use);
    tokio::task::spawn_local(async move {
        let _open = (open, place);
        let in_progress = || usize::from(is_used.get());
        // Dropped either way, and with it what is in progress.
        let _ = super::carry(connection.with_upgrades(), dial, standing, counted, in_progress).await;
    });
    let usual = if target.identity.is_some() { IDLE_MESH } else { IDLE_PLAIN };
    Ok(Connection {
        sender,
        pool: Rc::downgrade(pool),
        lifetime: opened.lifetime,
        in_use,
        idle_since: Instant::now(),
        idle: terms.pool.idle_timeout.unwrap_or(usual),
        left: terms.pool.max_requests_per_connection,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_connection_is_let_go_before_its_server_closes_it() {
        for (said, kept) in [
            ("timeout=5", Some(4_000)),
            ("max=100, Timeout = 2", Some(1_000)),
            ("timeout=1", Some(500)),
            ("timeout=0", Some(0)),
            ("max=100", None),
            ("timeout=soon", None),
        ] {
            let headers = HeaderMap::from_iter([(KEEP_ALIVE, HeaderValue::from_static(said))]);
            assert_eq!(keep_alive(&headers), kept.map(Duration::from_millis), "{said}");
        }
    }
}
