//! A limit on the bytes that have arrived and that nobody has taken yet.
//!
//! HTTP/2 lets a peer send ahead: one window for each stream, and one for the connection. The windows of one connection
//! are harmless. Those of hundreds, all filled by peers whose answers nobody reads, are more than a sidecar may have.
//! So every connection keeps a `Ledger` of what it holds. All connections, and the bodies that are kept for another
//! attempt, draw on one `Budget`. While the budget is exhausted
//!
//! - new requests are answered 503 at once;
//! - nothing more is kept for other attempts;
//! - a connection that holds more than its `SHARE` is not read from. If what it holds does not become less
//!   for `PATIENCE`, it is closed: its peer may be waiting for something that stands behind it.
//!
//! So memory is bounded by the budget and a share for each connection, whose number is limited too. HTTP/1 needs no
//! ledger: it is read only when somebody takes the body, so it holds one read buffer. Unfinished heads count too
//! (`HeldBytes`), and so do the first bytes of TLS and unfinished HTTP/2 frames of any kind. The oldest of them is
//! given up first.

mod calm;
mod concurrency;
mod given_up;
mod guarded;
mod held;
mod ledger;
mod retries;
mod unfinished;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use selvedge_ops::http2::frames;

pub use self::{
    concurrency::{Concurrency, Unanswered},
    given_up::GivenUp,
    guarded::Guarded,
    guarded::Side,
    held::{Counted, HeldBytes},
    ledger::Ledger,
    retries::RetryBudget,
};

/// What a connection may hold, in bytes, while the budget is exhausted.
pub const SHARE: u64 = 64 << 10;

/// How long a connection that holds more may stay as it is.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What the proxy does while the budget is exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A request is answered 503.
    RefusedRequest,
    /// A connection is closed that held too much for too long.
    ClosedConnection,
    /// A body is no longer kept for another attempt.
    ForgottenBody,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::RefusedRequest, Self::ClosedConnection, Self::ForgottenBody];

    /// The word for metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::RefusedRequest => "refused-request",
            Self::ClosedConnection => "closed-connection",
            Self::ForgottenBody => "forgotten-body",
        }
    }
}

/// Whether `error` is h2's own answer to a flood, such as rapid resets or heads without end.
pub(crate) fn is_flood(error: &hyper::Error) -> bool {
    let http2 = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    http2.is_some_and(|http2| http2.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) && !http2.is_remote())
}

/// What the process may hold, and what it does. Shared by all threads.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    held: AtomicU64,
    /// Of them, those of frames and heads that have not ended.
    unfinished: AtomicU64,
    actions: [AtomicU64; Action::ALL.len()],
    /// Connections that were ended because of what the other side sent, by which side we are.
    floods: [AtomicU64; 2],
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            held: AtomicU64::new(0),
            unfinished: AtomicU64::new(0),
            actions: Default::default(),
            floods: Default::default(),
        }
    }

    /// Whether more is held than there should be.
    pub fn is_exhausted(&self) -> bool {
        self.held() > self.limit
    }

    /// Bytes that are held.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether the budget is exhausted, and unfinished HTTP/2 frames and heads hold at least half of it.
    fn is_exhausted_by_unfinished(&self) -> bool {
        self.is_exhausted() && self.unfinished.load(Ordering::Relaxed) > self.limit / 2
    }

    /// Notes that the unfinished frames and heads of one connection changed from `before` to `now` bytes.
    fn unfinished(&self, before: u64, now: u64) {
        for count in [&self.held, &self.unfinished] {
            match now.checked_sub(before) {
                Some(more) => count.fetch_add(more, Ordering::Relaxed),
                None => count.fetch_sub(before - now, Ordering::Relaxed),
            };
        }
    }

    /// Notes that the proxy did this.
    pub fn acted(&self, action: Action) {
        self.actions[action as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a connection was ended because the other side flooded it; we are its `side`.
    pub(crate) fn flooded(&self, side: Side) {
        self.floods[side as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections were ended because of a flood: by clients, and by servers.
    pub fn floods(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ["client", "server"].into_iter().zip(&self.floods).map(|(from, n)| (from, n.load(Ordering::Relaxed)))
    }

    /// How often each thing was done.
    pub fn actions(&self) -> impl Iterator<Item = (Action, u64)> {
        Action::ALL.into_iter().zip(&self.actions).map(|(action, n)| (action, n.load(Ordering::Relaxed)))
    }

    /// Adds `bytes` to what is held.
    pub fn add(&self, bytes: u64) {
        // For nothing the line is left to the other workers: every request reads it.
        if bytes > 0 {
            self.held.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Removes `bytes` that were added.
    pub fn remove(&self, bytes: u64) {
        // Likewise: with every read of a client's connection this says that no head waits.
        if bytes > 0 {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}
