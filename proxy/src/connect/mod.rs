//! Pools of connections to endpoints and to the app, by where they go and how.
//!
//! Every worker has pools of its own, found by a target's slot in an array: no lock, no hashing. HTTP/1
//! connections serve one request at a time and come back when its answer has ended; an HTTP/2
//! connection is shared by all requests to a target.

pub mod tls;

mod answered;
mod apps;
mod ask_proxy;
mod carry;
mod eyeballs;
mod hops;
mod http1;
pub mod http2;
mod interim;
mod named;
mod open;
mod rewrite;
mod settings;
mod terms;
#[cfg(test)]
mod tests;
mod tunnels;
mod waiting;

use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
    sync::{Arc, Weak},
    time::Instant,
};

pub use self::{
    answered::SendError,
    apps::Apps,
    hops::Instance,
    settings::PoolSettings,
    terms::{Named, Opening, Terms},
    tunnels::{Hold, Tunnel},
};

use http::{HeaderMap, HeaderValue};
use selvedge_model::{Http2Upgrade, HttpTunnel};
use selvedge_ops::here;

use crate::{
    arrival::OriginalDestination,
    bind::{Slot, Target},
    body::{Body, body_too_long},
    error::{Failure, Reason},
    fields::reserved::FRESH_CONNECTION,
    settings::Carrier,
    step::{Conn, HttpVersion},
};

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
    /// Weak, so that a target lives only as long as a table or a request names it. The pointer stays its own as long as
    /// this exists.
    target: Weak<Target>,
    http1: http1::Connections,
    /// One for requests of HTTP/1 clients, one for those of HTTP/2 clients: the app is spoken to as its client speaks.
    http2: [http2::Connections; 2],
    /// For opaque TCP.
    tunnels: tunnels::Connections,
    /// Whose connections they are. Of a target that is told of it, no two clients share one.
    named: Option<Named>,
    /// Whether the target is on this host. Looked up once: it only decides how soon a loop is noticed.
    is_local: OnceCell<bool>,
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
            let version = terms.version(conn, &request);
            let (pace, limit) = (request.body().pace(), request.body().size_limit());
            let pool = match target.proxy_protocol {
                None => self.pool(target),
                Some(_) => Rc::new(Pool::named(target, conn)),
            };
            let meshed = target.identity.is_some();
            if meshed && terms.fresh {
                request.headers_mut().insert(FRESH_CONNECTION, const { HeaderValue::from_static("1") });
            }
            if !meshed && !target.is_app() {
                pool.mark(&self.settings, target, conn, request.headers_mut())?;
            }
            // What is to become a WebSocket needs a connection that can become one.
            let over_http2 = !request.body().is_web_socket()
                && (version == HttpVersion::Http2 || self.upgrades(meshed, terms));
            let sent = if over_http2 {
                http2::send(&pool, target, &self.settings, version, request, terms).await
            } else {
                let client = interim::Client::on(conn);
                http1::send(&pool, target, &self.settings, request, client, terms).await
            };
            match sent {
                // Whatever the endpoint made of it.
                Err(_) if pace.is_some_and(|pace| pace.was_slow()) => Err(Failure::new(
                    Reason::RequestTimeout,
                    "the request's body arrived too slowly (--body-timeout, --min-body-rate)",
                )
                .into()),
                Err(_) if let Some(most) = limit.and_then(|limit| limit.exceeded()) => {
                    Err(body_too_long(most).into())
                }
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
            Http2Upgrade::Default | Http2Upgrade::AsClient => {
                meshed && self.settings.carrier == Carrier::Http2 && !terms.limits_connections()
            }
        }
    }

    /// A connection to `target` for an opaque connection: one that waits for its next session, or one that is opened
    /// as `opening` says; from there on it leads `through` an HTTP proxy, if there is one.
    ///
    /// # Errors
    /// If there is no connection, or the peer is not the expected one. Nothing was sent to an app.
    pub async fn opaque(
        &self,
        target: &Arc<Target>,
        opening: Opening,
        through: Option<&HttpTunnel>,
    ) -> Result<Tunnel, Failure> {
        if let Some(through) = through {
            return ask_proxy::open(target, &self.settings, opening, through).await;
        }
        // Only a sidecar can tell one session from the next.
        let pool = target.identity.is_some().then(|| self.pool(target));
        match pool.as_ref().and_then(|pool| pool.tunnels.take(Instant::now(), self.settings.liveness)) {
            Some(tunnel) => Ok(tunnel),
            None => tunnels::open(pool.as_ref(), target, &self.settings, opening).await,
        }
    }

    /// Closes connections that have been idle for long, and forgets targets that are no longer configured.
    pub fn sweep(&self, now: Instant) {
        let (mut endpoints, mut apps) = (self.endpoints.borrow_mut(), self.apps.borrow_mut());
        for place in endpoints.iter_mut().chain(apps.iter_mut()) {
            if let Some(pool) = place {
                pool.http1.sweep(pool, now);
                pool.http2.iter().for_each(|connections| connections.sweep(pool, now));
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
            named: None,
            is_local: OnceCell::new(),
        }
    }

    /// How many connections for requests are open.
    fn open(&self) -> usize {
        self.http1.open() + self.http2.iter().map(http2::Connections::open).sum::<usize>()
    }

    /// Closes an HTTP/2 connection that nothing is in progress on. Whether there was one.
    fn yield_idle(&self) -> bool {
        self.http2.iter().any(http2::Connections::yield_idle)
    }

    /// For the one request that comes on `conn`.
    fn named(target: &Arc<Target>, conn: &Conn) -> Self {
        let called = conn.original.and_then(OriginalDestination::dialled).unwrap_or(target.dial);
        Self { named: Some(Named { client: conn.peer, called }), ..Self::new(target) }
    }

    /// Marks a plaintext request to `target` that may come back, or removes what looks like a mark.
    ///
    /// # Errors
    /// [`Reason::Loop`] if it has come back.
    fn mark(
        &self,
        settings: &PoolSettings,
        target: &Target,
        conn: &Conn,
        headers: &mut HeaderMap,
    ) -> Result<(), Failure> {
        let is_local = || *self.is_local.get_or_init(|| here::has(target.dial.ip()));
        if !settings.own.redirected && (!conn.peer.ip().is_loopback() || is_local()) {
            return settings.instance.mark(headers);
        }
        hops::forget(headers);
        Ok(())
    }
}
