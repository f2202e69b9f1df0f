//! Connections to endpoints and to the app: opened when needed, pooled by whom they reach and how.
//!
//! Every worker has pools of its own, found by a target's slot in an array: no lock, no hashing. HTTP/1
//! connections serve one request at a time and come back when its answer has ended; an HTTP/2
//! connection is shared by all requests to a target.

pub mod tls;

mod apps;
mod hops;
mod http1;
pub mod http2;
mod interim;
mod rewrite;
#[cfg(test)]
mod tests;
mod tunnels;
mod waiting;

use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

pub use self::{
    apps::Apps,
    hops::Instance,
    tunnels::{Hold, Tunnel},
};

use http::{HeaderMap, HeaderValue};
use hyper::body::Incoming;
use selvedge_api::wire;
use selvedge_certs::tls::Live;
use selvedge_model::{ConnectionLimits, ConnectionPool, Http2Upgrade};
use selvedge_ops::here;

use crate::{
    arrival::Direction,
    balance::{Circuit, Held, Limit},
    bind::{Slot, Target},
    body::Body,
    budget::{Budget, Ledger, Side, is_flood},
    error::{Failure, Reason},
    fields::{Framing, reserved::FRESH_CONNECTION},
    io::Liveness,
    settings::{Carrier, OwnListeners},
    step::{Conn, HttpVersion},
    telemetry::{Metrics, OpenConnection},
    time::when_woken,
    trust::{LAST_REQUESTS, Standing},
};

/// How requests to one backend are sent, and over what connections.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Time for TCP and TLS together.
    pub connect_timeout: Duration,
    /// Limits on connections.
    pub limits: &'a ConnectionLimits,
    /// Limits on requests, and how connections are kept.
    pub pool: &'a ConnectionPool,
    /// What counts against those limits; `None`: there are none.
    pub circuit: Option<&'a Circuit>,
    /// Whether the request is sent again because the connection that it was on broke. It is sent on a new connection to
    /// the app, since others from that time may be as dead. Without that, a server that closes many connections at
    /// once could use up all attempts.
    pub fresh: bool,
}

impl Terms<'static> {
    /// Those of a destination without a policy: nothing is limited but the time to connect.
    pub const fn unlimited(connect_timeout: Duration) -> Self {
        Self {
            connect_timeout,
            limits: &ConnectionLimits::NONE,
            pool: &ConnectionPool::UNLIMITED,
            circuit: None,
            fresh: false,
        }
    }
}

impl Terms<'_> {
    /// The longest that a connection is used.
    fn max_age(&self) -> Duration {
        self.limits.max_duration.unwrap_or(tls::MAX_AGE)
    }

    /// Whether connections are counted, or requests on one: such limits are meant for HTTP/1.1, where a
    /// connection carries one request at a time.
    fn limits_connections(&self) -> bool {
        self.limits.max_connections.is_some() || self.pool.max_requests_per_connection.is_some()
    }

    /// Counts one more request that waits for a connection.
    ///
    /// # Errors
    /// [`Reason::Overflow`]: there are too many.
    fn pending(&self, target: &Target) -> Result<Option<Held>, Failure> {
        let Some(circuit) = self.circuit else { return Ok(None) };
        circuit.enter(Limit::Pending).map(Some).ok_or_else(|| {
            let what = format!(
                "no connection to {} is free, and as many requests wait for one as {} allows",
                target.dial,
                Limit::Pending.word()
            );
            Failure::new(Reason::Overflow, what)
        })
    }

    /// Counts one more connection, the `first` of a worker to a target in any case; `None`: there is no room.
    fn connection(&self, first: bool) -> Option<Option<Held>> {
        let Some(circuit) = self.circuit else { return Some(None) };
        if first {
            return Some(Some(circuit.enter_anyway(Limit::Connections)));
        }
        circuit.enter(Limit::Connections).map(Some)
    }
}

/// What is the same for every connection that a worker opens.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// Our certificate and the trust roots.
    pub live: Live,
    /// What carries HTTP/1.1 requests between sidecars.
    pub carrier: Carrier,
    /// Whether header names keep their case where HTTP/1.1 goes on as HTTP/1.1.
    pub preserve_header_case: bool,
    /// Our workload's name, for display in peers' logs.
    pub source: String,
    /// What the bytes draw on that have arrived and nobody has taken.
    pub budget: Arc<Budget>,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
    /// How soon a peer is noticed that is gone.
    pub liveness: Liveness,
    /// Our own listeners, to which nothing is connected.
    pub own: Arc<OwnListeners>,
    /// Our name in the mark of what may come back.
    pub instance: Instance,
    /// The oldest that a connection may be, whatever is in progress; `None`: for good.
    pub max_connection_age: Option<Duration>,
}

impl PoolSettings {
    /// Marks a request that goes to `target` in plaintext and may come back, or takes away what looks like a mark.
    ///
    /// # Errors
    /// [`Reason::Loop`] if it has come back.
    fn mark(
        &self,
        pool: &Pool,
        target: &Target,
        conn: &Conn,
        headers: &mut HeaderMap,
    ) -> Result<(), Failure> {
        let is_local = |pool: &Pool| *pool.is_local.get_or_init(|| here::has(target.dial.ip()));
        if !self.own.redirected && (!conn.peer.ip().is_loopback() || is_local(pool)) {
            return self.instance.mark(headers);
        }
        hops::forget(headers);
        Ok(())
    }
}

/// A worker's connections.
#[derive(Debug)]
pub struct Pools {
    settings: PoolSettings,
    endpoints: RefCell<Vec<Option<Rc<Pool>>>>,
    apps: RefCell<Vec<Option<Rc<Pool>>>>,
}

/// The connections to one target.
#[derive(Debug)]
struct Pool {
    /// Weak, so that a target lives only as long as a table or a request names it; the pointer is its
    /// own as long as this is there.
    target: Weak<Target>,
    http1: http1::Connections,
    /// For requests of HTTP/1 clients, and of HTTP/2 clients: the app is spoken to as its client speaks.
    http2: [http2::Connections; 2],
    /// For opaque TCP.
    tunnels: tunnels::Connections,
    /// Whether the target is on this host. Asked for once: all that hangs on it is when a loop is noticed.
    is_local: OnceCell<bool>,
}

/// Why a request was not answered.
#[derive(Debug)]
pub struct SendError {
    /// What failed.
    pub failure: Failure,
    /// The request, if no byte of it was sent.
    pub request: Option<Box<http::Request<Body>>>,
}

impl From<Failure> for SendError {
    fn from(failure: Failure) -> Self {
        Self { failure, request: None }
    }
}

impl Pools {
    /// No connections yet.
    pub fn new(settings: PoolSettings) -> Self {
        Self { settings, endpoints: RefCell::default(), apps: RefCell::default() }
    }

    /// Sends `request`, which came on `conn`, to `target` as its client would, on the terms of its backend, and
    /// waits for the answer's headers.
    ///
    /// # Errors
    /// A failure says whether the app can have seen the request.
    #[expect(clippy::manual_async_fn, reason = "an async fn would hold its arguments twice")]
    pub fn send(
        &self,
        target: &Arc<Target>,
        conn: &Conn,
        mut request: Box<http::Request<Body>>,
        terms: &Terms<'_>,
    ) -> impl Future<Output = Result<Box<http::Response<Body>>, SendError>> {
        async move {
            let version = conn.version;
            let pace = request.body().pace();
            let pool = self.pool(target);
            let meshed = target.identity.is_some();
            if meshed && terms.fresh {
                request.headers_mut().insert(FRESH_CONNECTION, const { HeaderValue::from_static("1") });
            }
            if !meshed && !target.is_app() {
                self.settings.mark(&pool, target, conn, request.headers_mut())?;
            }
            // What is to become a WebSocket needs a connection that can become one.
            let over_http2 = !request.body().is_web_socket()
                && (version == HttpVersion::Http2 || self.upgrades(meshed, terms));
            let sent = if over_http2 {
                http2::send(&pool, target, &self.settings, version, request, terms).await
            } else {
                interim::pass_on(&mut request, conn);
                http1::send(&pool, target, &self.settings, request, terms).await
            };
            match sent {
                // Whatever the endpoint made of it.
                Err(_) if pace.is_some_and(|pace| pace.was_slow()) => Err(Failure::new(
                    Reason::RequestTimeout,
                    "the request's body arrived too slowly (--body-timeout, --min-body-rate)",
                )
                .into()),
                // It is sent again, and has not come back.
                Err(SendError { failure, request: Some(mut request) }) => {
                    self.settings.instance.unmark(request.headers_mut());
                    Err(SendError { failure, request: Some(request) })
                }
                sent => sent,
            }
        }
    }

    /// Whether HTTP/1.1 requests travel as HTTP/2.
    fn upgrades(&self, meshed: bool, terms: &Terms<'_>) -> bool {
        match terms.pool.http2_upgrade {
            Http2Upgrade::Always => true,
            Http2Upgrade::Never => false,
            Http2Upgrade::Default => {
                meshed && self.settings.carrier == Carrier::Http2 && !terms.limits_connections()
            }
        }
    }

    /// A connection to `target` for one of opaque TCP: one that waits for its next, or one that is opened within
    /// `limit`.
    ///
    /// # Errors
    /// If there is no connection, or not to whom it should be; nothing was sent to an app.
    pub async fn opaque(&self, target: &Arc<Target>, limit: Duration) -> Result<Tunnel, Failure> {
        // Only a sidecar can tell one session from the next.
        let pool = target.identity.is_some().then(|| self.pool(target));
        match pool.as_ref().and_then(|pool| pool.tunnels.take(Instant::now(), self.settings.liveness)) {
            Some(tunnel) => Ok(tunnel),
            None => tunnels::open(pool.as_ref(), target, &self.settings, limit).await,
        }
    }

    /// Closes connections that have been idle for long, and forgets targets that are no longer configured.
    pub fn sweep(&self, now: Instant) {
        let (mut endpoints, mut apps) = (self.endpoints.borrow_mut(), self.apps.borrow_mut());
        for place in endpoints.iter_mut().chain(apps.iter_mut()) {
            if let Some(pool) = place {
                pool.http1.sweep(now);
                pool.http2.iter().for_each(|connections| connections.sweep(now));
                pool.tunnels.sweep(now);
                if pool.target.strong_count() == 0 {
                    *place = None;
                }
            }
        }
    }

    fn pool(&self, target: &Arc<Target>) -> Rc<Pool> {
        let (pools, slot) = match target.slot {
            Slot::Endpoint(slot) => (&self.endpoints, slot),
            Slot::App(slot) => (&self.apps, slot),
            Slot::None => return Rc::new(Pool::new(target)),
        };
        let mut pools = pools.borrow_mut();
        if pools.len() <= slot {
            pools.resize_with(slot + 1, || None);
        }
        match &pools[slot] {
            Some(pool) if pool.target.as_ptr() == Arc::as_ptr(target) => Rc::clone(pool),
            _ => {
                let pool = Rc::new(Pool::new(target));
                pools[slot] = Some(Rc::clone(&pool));
                pool
            }
        }
    }
}

impl Pool {
    fn new(target: &Arc<Target>) -> Self {
        Self {
            target: Arc::downgrade(target),
            http1: Default::default(),
            http2: Default::default(),
            tunnels: Default::default(),
            is_local: OnceCell::new(),
        }
    }
}

async fn open(
    target: &Target,
    settings: &PoolSettings,
    carrier: wire::Carrier,
    app: wire::AppProtocol,
    limit: Duration,
    max_age: Duration,
) -> Result<tls::Opened, Failure> {
    let preamble = wire::Preamble {
        carrier: carrier.into(),
        port: target.port.into(),
        source: settings.source.clone(),
        app: app.into(),
    };
    let max_age = settings.max_connection_age.map_or(max_age, |oldest| oldest.min(max_age));
    let opened = tls::open(target, &preamble, settings, limit, max_age).await;
    if let (Err(failure), false) = (&opened, target.is_app()) {
        settings.metrics.connection_refused(Direction::Outbound, target.identity.is_some(), failure.reason);
    }
    opened
}

/// Carries an HTTP connection to its end, or until its peer is no longer allowed; where that is because of a root that
/// is being replaced, a moment more for requests in progress. `in_progress` says how many there are.
///
/// # Errors
/// Why it was ended.
async fn carry(
    connection: impl Future<Output = hyper::Result<()>>,
    dial: std::net::SocketAddr,
    standing: Option<Arc<Standing>>,
    (metrics, budget): (Arc<Metrics>, Arc<Budget>),
    in_progress: impl Fn() -> usize,
) -> Result<(), Failure> {
    let Some(standing) = standing else {
        ended(dial, connection.await, &budget);
        return Ok(());
    };
    let lost = async {
        let failure = standing.lost().await;
        if failure.reason == Reason::Certificate {
            tokio::time::sleep(LAST_REQUESTS).await;
        }
        failure
    };
    tokio::select! {
        biased;
        end = connection => {
            ended(dial, end, &budget);
            Ok(())
        }
        failure = when_woken(lost) => {
            let (identity, age, requests) = (&standing.peer.identity, standing.since.elapsed(), in_progress());
            if requests > 0 {
                metrics.connection_cut(Direction::Outbound, failure.reason);
                tracing::info!(%dial, %identity, ?age, requests, %failure, "ended a connection with requests in progress");
            }
            Err(failure)
        }
    }
}

fn ended(dial: std::net::SocketAddr, end: hyper::Result<()>, budget: &Budget) {
    match end {
        Ok(()) => {}
        Err(error) if is_flood(&error) => {
            budget.flooded(Side::Client);
            tracing::info!(%dial, error = &error as &dyn std::error::Error, "ended an HTTP/2 connection that floods this proxy");
        }
        Err(error) => tracing::debug!(%dial, %error, "HTTP connection ended"),
    }
}

/// Counts a connection as open until what is returned is dropped. The app's own are not counted: they
/// go nowhere.
fn opened(target: &Target, settings: &PoolSettings) -> Option<OpenConnection> {
    let counted = || settings.metrics.connection_opened(Direction::Outbound, target.identity.is_some());
    (!target.is_app()).then(counted)
}

/// What an error of hyper's means for the request that it came to.
fn failed(target: &Target, error: &hyper::Error) -> Failure {
    let dial = target.dial;
    let http2 = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    if let Some(http2) = http2 {
        if http2.is_go_away() && http2.is_remote() {
            // RFC 9113, section 6.8: streams above the last one that GOAWAY names were not processed.
            return Failure::new(
                Reason::Reset,
                format!("{dial} is shutting down and did not take the request"),
            )
            .never_delivered();
        }
        if http2.reason() == Some(h2::Reason::REFUSED_STREAM) {
            // RFC 9113, section 8.7: a refused stream was not processed.
            return Failure::new(Reason::Reset, format!("{dial} refused the stream")).never_delivered();
        }
        if let Some(code) = http2.reason().filter(|_| http2.is_reset() && http2.is_remote()) {
            let what = format!("{dial} reset the stream before its answer: {code}");
            return Failure::new(Reason::Reset, what).of_reset(code);
        }
        if http2.is_reset() && !http2.is_remote() && !http2.is_library() {
            // hyper itself gave the stream up, which it does where it cannot read what it is to send.
            return Failure::new(
                Reason::BadRequest,
                format!("the request's body ended early on its way to {dial}"),
            );
        }
    }
    if let Some(alert) = alert(error) {
        // In TLS 1.3 a client learns only now that the server did not accept its certificate; the server
        // has looked at nothing that came after it.
        let what = format!("{dial} ended the TLS handshake: {}", selvedge_certs::tls::explain(alert));
        return Failure::new(Reason::Tls, what).never_delivered();
    }
    if error.is_parse() {
        return Failure::new(Reason::Protocol, format!("{dial} did not answer as HTTP requires: {error}"));
    }
    if error.is_user() || error.is_body_write_aborted() {
        return Failure::new(Reason::BadRequest, format!("the request could not be sent to {dial}: {error}"));
    }
    Failure::new(Reason::Reset, format!("the connection to {dial} broke before its answer: {error}"))
}

/// The TLS alert that ended the connection, if one did.
fn alert(error: &hyper::Error) -> Option<&std::io::Error> {
    let mut causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let io = causes.find_map(|cause| match cause.downcast_ref::<h2::Error>() {
        Some(http2) => http2.get_io(),
        None => cause.downcast_ref::<std::io::Error>(),
    })?;
    let tls = io.get_ref()?.downcast_ref::<tokio_rustls::rustls::Error>()?;
    matches!(tls, tokio_rustls::rustls::Error::AlertReceived(_)).then_some(io)
}

/// Turns what hyper gives into an answer of ours, and says whether its end is beyond doubt.
///
/// # Errors
/// [`Reason::Protocol`]: it cannot be passed on.
fn answer(
    target: &Target,
    response: http::Response<Incoming>,
    ledger: Option<&Rc<Ledger>>,
) -> Result<(Box<http::Response<Body>>, Framing), Failure> {
    let mut response = Box::new(response.map(|body| Body::arriving(body, ledger, None)));
    let framing = rewrite::answer(&mut response, target.identity.is_some())
        .map_err(|what| Failure::new(Reason::Protocol, format!("{} answered with {what}", target.dial)))?;
    Ok((response, framing))
}
