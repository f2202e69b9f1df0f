//! A worker's HTTP/2 connections to one target, and which of them has room for a request.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, Shared as SharedFuture},
};
use hyper::client::conn::http2::SendRequest;

use super::{
    super::{Pool, http1::DOUBTFUL, terms::Terms, tls::Lifetime, waiting::Waiting},
    CONNECTION_WINDOW,
};
use crate::{
    balance::Held,
    body::{Body, PoolPlace, Shared},
    budget::Ledger,
    error::Failure,
};

/// With this many bytes that nobody has taken, a connection that we opened gets no more requests: the rest of its
/// window is for those that it has.
const FULL: u64 = CONNECTION_WINDOW as u64 / 8;

/// A worker's connections to one target, for one application protocol.
#[derive(Debug, Default)]
pub(in crate::connect) struct Connections {
    /// The oldest first, which is used as long as it has room: so that the others become idle.
    pub(super) open: RefCell<Vec<Connection>>,
    /// The attempt to open one that everybody waits for.
    opening: RefCell<Option<Opening>>,
    pub(super) waiting: Waiting,
}

#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) sender: SendRequest<Body>,
    pub(super) lifetime: Lifetime,
    pub(super) load: Rc<Load>,
    pub(super) ledger: Rc<Ledger>,
    /// Its place among the connections that the backend's policy allows.
    pub(super) counted: Option<Rc<Held>>,
}

/// What a connection carries.
#[derive(Debug)]
pub(super) struct Load {
    /// Requests in progress.
    pub(super) streams: Cell<usize>,
    /// How many requests the endpoint allows to be in progress.
    pub(super) allowed: Cell<usize>,
    /// Since when there have been none.
    idle_since: Cell<Instant>,
    /// How long there may be none, by the terms of the last one; `None`: for as long as it lasts.
    idle: Cell<Option<Duration>>,
    opened: Instant,
    /// How many requests it has taken.
    taken: Cell<u32>,
    /// Whether it takes no more, by the terms of a request that came after it.
    is_spent: Cell<bool>,
    lifetime: Lifetime,
    ledger: Rc<Ledger>,
    /// Whose it is, and where among them.
    pool: Weak<Pool>,
    place: usize,
}

impl Load {
    /// Of a connection at this `place` of `pool`, which may be without a request for so long.
    pub(super) fn new(
        pool: &Weak<Pool>,
        place: usize,
        allowed: usize,
        idle: Option<Duration>,
        (lifetime, ledger): (Lifetime, Rc<Ledger>),
    ) -> Self {
        let now = Instant::now();
        Self {
            streams: Cell::new(0),
            allowed: Cell::new(allowed),
            idle_since: Cell::new(now),
            idle: Cell::new(idle),
            opened: now,
            taken: Cell::new(0),
            is_spent: Cell::new(false),
            lifetime,
            ledger,
            pool: Weak::clone(pool),
            place,
        }
    }
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

    fn refusal(&self) -> Option<Failure> {
        self.lifetime.refusal().or_else(|| self.ledger.ended())
    }
}

type Opening = SharedFuture<LocalBoxFuture<'static, Result<(), Failure>>>;

impl Connection {
    fn usable(&self, now: Instant) -> bool {
        !self.sender.is_closed() && self.lifetime.lasts(now) && !self.load.is_spent.get()
    }

    /// Whether it is usable on these `terms`, which may have come after it. If not, it takes no more requests.
    fn serves(&self, terms: &Terms<'_>, now: Instant) -> bool {
        let Load { opened, taken, is_spent, .. } = &*self.load;
        if !terms.keep(*opened, taken.get(), now) {
            is_spent.set(true);
        }
        self.usable(now)
    }

    fn has_room(&self, terms: &Terms<'_>) -> bool {
        let most = terms.pool.max_concurrent_streams.and_then(|most| usize::try_from(most).ok());
        let most = self.load.allowed.get().min(most.unwrap_or(usize::MAX));
        // A peer that allows none for the moment is left to hyper, which waits until it does.
        self.load.streams.get() < most.max(1) && self.ledger.held() < FULL
    }

    /// Whether it has been without a request for so long that its other side may have ended it unnoticed.
    pub(super) fn is_doubtful(&self, now: Instant) -> bool {
        self.load.streams.get() == 0 && now.duration_since(self.load.idle_since.get()) >= DOUBTFUL
    }

    fn is_idle(&self, now: Instant) -> bool {
        let since = self.load.idle_since.get();
        let idle = self.load.idle.get();
        self.load.streams.get() == 0 && idle.is_some_and(|idle| now.duration_since(since) >= idle)
    }

    /// Whether there are more connections than the policy in force allows.
    fn is_surplus(&self) -> bool {
        self.counted.as_ref().is_some_and(|counted| counted.is_surplus())
    }

    /// Takes a place on it, on these `terms`.
    pub(super) fn enter(&self, terms: &Terms<'_>) -> PoolPlace {
        let load = &self.load;
        load.streams.set(load.streams.get() + 1);
        load.taken.set(load.taken.get().saturating_add(1));
        load.idle.set(terms.pool.idle_timeout);
        if terms.pool.max_requests_per_connection.is_some_and(|most| load.taken.get() >= most) {
            load.is_spent.set(true);
        }
        PoolPlace::on(Rc::<Load>::clone(load))
    }
}

impl Connections {
    /// Lets go of connections of `pool`, whose these are, that take no more requests or are too many; what is in progress
    /// on them finishes.
    pub(in crate::connect) fn sweep(&self, pool: &Pool, now: Instant) {
        self.open.borrow_mut().retain(|connection| connection.usable(now) && !connection.is_idle(now));
        while pool.open() > 1 && self.is_surplus() && self.yield_idle() {}
        if pool.http1.is_awaited() {
            self.yield_idle();
        }
    }

    /// How many are open.
    pub(in crate::connect) fn open(&self) -> usize {
        self.open.borrow().len()
    }

    fn is_surplus(&self) -> bool {
        self.open.borrow().last().is_some_and(Connection::is_surplus)
    }

    /// Closes one that nothing is in progress on. Whether there was one.
    pub(in crate::connect) fn yield_idle(&self) -> bool {
        let mut open = self.open.borrow_mut();
        let idle = open.iter().rposition(|connection| connection.load.streams.get() == 0);
        idle.map(|idle| open.remove(idle)).is_some()
    }

    /// A connection with room for a request, on these `terms`.
    pub(super) fn find(&self, terms: &Terms<'_>) -> Option<Connection> {
        let mut open = self.open.borrow_mut();
        if terms.limits.max_connections.is_some() {
            // The newest first. What is in progress on them finishes.
            while open.len() > 1 && open.last().is_some_and(Connection::is_surplus) {
                open.pop();
            }
        }
        let now = Instant::now();
        match open.iter().find(|connection| connection.serves(terms, now) && connection.has_room(terms)) {
            Some(found) => Some(found.clone()),
            None => {
                open.retain(|connection| connection.serves(terms, now));
                None
            }
        }
    }

    /// The attempt in progress, or a new one.
    pub(super) fn opening(
        &self,
        start: impl FnOnce() -> LocalBoxFuture<'static, Result<(), Failure>>,
    ) -> Opening {
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

    pub(super) fn is_opening(&self) -> bool {
        self.opening.borrow().as_ref().is_some_and(|opening| opening.peek().is_none())
    }
}
