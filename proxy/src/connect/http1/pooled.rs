//! A worker's HTTP/1.1 connections to one target, and which of them a request may have.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use hyper::client::conn::http1::SendRequest;

use super::{
    super::{Pool, interim::Listener, terms::Terms, tls::Lifetime, waiting::Waiting},
    driven::Driven,
    open::{IDLE_MESH, IDLE_PLAIN},
};
use crate::{
    balance::Held,
    body::{Body, Whole},
    error::Failure,
};

/// How long a connection to an app, or to an endpoint without a sidecar, may have been idle before a request that must
/// not be sent twice (RFC 9110, section 9.2.2). If the server closed it meanwhile, nobody could send the request again.
/// Shorter than any usual keep-alive (gunicorn closes after 2 s).
const IDLE_UNSAFE: Duration = Duration::from_secs(1);

/// After this time without use, the proxy checks whether the other side has closed a connection before it uses it
/// again.
pub(in crate::connect) const DOUBTFUL: Duration = Duration::from_millis(50);

/// How often the proxy checks a connection that is coming back before it gives it up.
const READY_LOOKS: usize = 4;

/// A worker's connections to one target.
#[derive(Debug, Default)]
pub(in crate::connect) struct Connections {
    /// Those that no answer arrives on, the one used last on top.
    #[expect(
        clippy::vec_box,
        reason = "a connection keeps its box when it moves between the pool and an answer"
    )]
    idle: RefCell<Vec<Box<Connection>>>,
    /// All that are open or being opened.
    pub(super) open: Cell<usize>,
    pub(super) waiting: Waiting,
}

/// One connection. Always boxed: it moves from the pool to a request, and back with the answer.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: SendRequest<Body>,
    pub(super) driven: Rc<Driven>,
    /// Listens for interim answers.
    pub(super) listener: Listener,
    pub(super) taken: Rc<Taken>,
    pub(super) lifetime: Lifetime,
    /// Whether a request is in progress on it.
    pub(super) in_use: Rc<Cell<bool>>,
    pub(super) opened: Instant,
    pub(super) idle_since: Instant,
    /// How long its server says that it keeps it idle.
    pub(super) promised: Duration,
    /// How many requests it has taken.
    pub(super) requests: u32,
    /// By the terms of the request that has it, or had it last.
    pub(super) kept: Keeping,
}

/// How long a connection is kept, by the terms of one request. Those of the next may differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keeping {
    /// How long it may be idle.
    idle: Duration,
    /// How many requests it may take; `None`: any number.
    requests: Option<u32>,
}

impl Keeping {
    /// By `terms`; `meshed`: a sidecar is on its other side.
    pub(super) fn by(terms: &Terms<'_>, meshed: bool) -> Self {
        let usual = if meshed { IDLE_MESH } else { IDLE_PLAIN };
        Self {
            idle: terms.pool.idle_timeout.unwrap_or(usual),
            requests: terms.pool.max_requests_per_connection,
        }
    }

    /// The same, but it takes no more requests.
    pub(super) fn no_longer(self) -> Self {
        Self { requests: Some(0), ..self }
    }
}

impl Whole for Connection {
    fn give_back(mut self: Box<Self>, now: Instant) {
        if let Some(pool) = self.taken.pool.upgrade()
            && !self.sender.is_closed()
            && self.kept.requests.is_none_or(|most| self.requests < most)
            && !self.taken.yields(&pool)
        {
            self.idle_since = now;
            self.in_use.set(false);
            pool.http1.idle.borrow_mut().push(self);
            pool.http1.waiting.wake_one();
        }
    }

    fn refusal(&self) -> Option<Failure> {
        self.lifetime.refusal()
    }
}

impl Connection {
    fn usable(&self, now: Instant) -> bool {
        !self.sender.is_closed()
            && now.duration_since(self.idle_since) < self.kept.idle.min(self.promised)
            && self.lifetime.lasts(now)
    }

    /// Whether it is kept by `terms` as well, which may have come after it; from now on it is kept by them.
    fn adopt(&mut self, terms: &Terms<'_>, now: Instant) -> bool {
        self.kept = Keeping::by(terms, self.lifetime.standing().is_some());
        now.duration_since(self.idle_since) < self.kept.idle && terms.keep(self.opened, self.requests, now)
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
    /// Closes those of `pool`, whose connections these are, that are not usable any more, and those that are too many.
    pub(in crate::connect) fn sweep(&self, pool: &Pool, now: Instant) {
        self.idle.borrow_mut().retain(|connection| connection.usable(now) && !connection.taken.yields(pool));
    }

    /// How many are open or being opened.
    pub(in crate::connect) fn open(&self) -> usize {
        self.open.get()
    }

    /// Whether a request waits for one.
    pub(in crate::connect) fn is_awaited(&self) -> bool {
        self.waiting.is_busy()
    }

    /// The connection that was used last, if it can be used on these `terms` for a request that is idempotent or not.
    pub(super) async fn take(&self, is_idempotent: bool, terms: &Terms<'_>) -> Option<Box<Connection>> {
        let now = Instant::now();
        loop {
            let mut connection = self.idle.borrow_mut().pop()?;
            if connection.usable(now)
                && connection.adopt(terms, now)
                && connection.suits(is_idempotent, now)
                && connection.ready(now).await
            {
                connection.in_use.set(true);
                return Some(connection);
            }
        }
    }
}

/// That a connection counts as open; when it is dropped there is room for another.
pub(super) struct Place(Rc<Taken>);

/// The same, for the connection itself.
#[derive(Debug)]
pub(super) struct Taken {
    pool: Weak<Pool>,
    /// Its place among the connections that the backend's policy allows.
    counted: RefCell<Option<Held>>,
    has_left: Cell<bool>,
}

impl Place {
    pub(super) fn new(pool: &Rc<Pool>, counted: Option<Held>) -> Self {
        pool.http1.open.set(pool.http1.open.get() + 1);
        let (pool, counted) = (Rc::downgrade(pool), RefCell::new(counted));
        Self(Rc::new(Taken { pool, counted, has_left: Cell::new(false) }))
    }

    pub(super) fn taken(&self) -> Rc<Taken> {
        Rc::clone(&self.0)
    }
}

impl Taken {
    /// Gives its place up, if the policy in force allows fewer connections than there are, and others of `pool` are left:
    /// a worker may always have one to each target. It is then to be closed.
    fn yields(&self, pool: &Pool) -> bool {
        let is_surplus = || self.counted.borrow().as_ref().is_some_and(Held::is_surplus);
        let yields = pool.http1.open.get() > 1 && is_surplus();
        if yields {
            self.leave(pool);
        }
        yields
    }

    fn leave(&self, pool: &Pool) {
        if !self.has_left.replace(true) {
            self.counted.take();
            pool.http1.open.set(pool.http1.open.get() - 1);
            pool.http1.waiting.wake_one();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = self.0.pool.upgrade() {
            self.0.leave(&pool);
        }
        // Also if there is no pool any more.
        self.0.counted.take();
    }
}
