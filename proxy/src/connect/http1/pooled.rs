//! A worker's HTTP/1.1 connections to one target, and which of them a request may have.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use hyper::client::conn::http1::SendRequest;

use super::{
    super::{Pool, interim::Listener, tls::Lifetime, waiting::Waiting},
    driven::Driven,
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
    pub(super) pool: Weak<Pool>,
    pub(super) lifetime: Lifetime,
    /// Whether a request is in progress on it.
    pub(super) in_use: Rc<Cell<bool>>,
    pub(super) idle_since: Instant,
    /// How long it may be idle.
    pub(super) idle: Duration,
    /// How many more requests it may take; `None`: any number.
    pub(super) left: Option<u32>,
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

    fn refusal(&self) -> Option<Failure> {
        self.lifetime.refusal()
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
    /// Closes those that are not usable any more.
    pub(in crate::connect) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|connection| connection.usable(now));
    }

    /// The connection that was used last, if it can be used for a request that is idempotent or not.
    pub(super) async fn take(&self, is_idempotent: bool) -> Option<Box<Connection>> {
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
pub(super) struct Place {
    pool: Weak<Pool>,
    _counted: Option<Held>,
}

impl Place {
    pub(super) fn new(pool: &Rc<Pool>, counted: Option<Held>) -> Self {
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
