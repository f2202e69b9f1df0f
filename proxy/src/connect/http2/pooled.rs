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
    super::{Pool, http1::DOUBTFUL, tls::Lifetime, waiting::Waiting},
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
    /// How long it may be without a request; `None`: for as long as it lasts.
    pub(super) idle: Option<Duration>,
    /// The most requests that it may have in progress, if the endpoint allows more.
    pub(super) most_streams: usize,
    /// Its place among the connections that the backend's policy allows.
    pub(super) _counted: Option<Rc<Held>>,
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
    /// How many more requests it may take; `None`: any number.
    left: Cell<Option<u32>>,
    lifetime: Lifetime,
    ledger: Rc<Ledger>,
    /// Whose it is, and where among them.
    pool: Weak<Pool>,
    place: usize,
}

impl Load {
    /// Of a connection at this `place` of `pool`, which may take `left` requests.
    pub(super) fn new(
        pool: &Weak<Pool>,
        place: usize,
        allowed: usize,
        left: Option<u32>,
        (lifetime, ledger): (Lifetime, Rc<Ledger>),
    ) -> Self {
        Self {
            streams: Cell::new(0),
            allowed: Cell::new(allowed),
            idle_since: Cell::new(Instant::now()),
            left: Cell::new(left),
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
        !self.sender.is_closed() && self.lifetime.lasts(now) && self.load.left.get() != Some(0)
    }

    fn has_room(&self) -> bool {
        let most = self.load.allowed.get().min(self.most_streams);
        // A peer that allows none for the moment is left to hyper, which waits until it does.
        self.load.streams.get() < most.max(1) && self.ledger.held() < FULL
    }

    /// Whether it has been without a request for so long that its other side may have ended it unnoticed.
    pub(super) fn is_doubtful(&self, now: Instant) -> bool {
        self.load.streams.get() == 0 && now.duration_since(self.load.idle_since.get()) >= DOUBTFUL
    }

    fn is_idle(&self, now: Instant) -> bool {
        let since = self.load.idle_since.get();
        self.load.streams.get() == 0 && self.idle.is_some_and(|idle| now.duration_since(since) >= idle)
    }

    /// Takes a place on it.
    pub(super) fn enter(&self) -> PoolPlace {
        self.load.streams.set(self.load.streams.get() + 1);
        self.load.left.set(self.load.left.get().map(|left| left.saturating_sub(1)));
        PoolPlace::on(Rc::<Load>::clone(&self.load))
    }
}

impl Connections {
    /// Lets go of connections that take no more requests; those in progress finish.
    pub(in crate::connect) fn sweep(&self, now: Instant) {
        self.open.borrow_mut().retain(|connection| connection.usable(now) && !connection.is_idle(now));
    }

    /// A connection with room for a request.
    pub(super) fn find(&self) -> Option<Connection> {
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
