//! How many connections clients may have open, and whose is closed where there are too many.
//!
//! Each connection of a client's may need another one to an endpoint. Without a limit a process would run out
//! of files in the middle of requests, where the failure looks like an endpoint's. So each direction has places of its
//! own: whoever comes in, the app's way out stays open.
//!
//! Anybody can come in, and of a *newcomer* nothing is known. So that strangers keep nobody out who has a certificate,
//! - a quarter of the places is for newcomers and mesh peers alone: a plain client that would take one is turned away;
//! - where all are taken, the newcomer is let in that comes last: the oldest other newcomer goes, who has had the most
//!   time to say who it is, or a plain client without a request in progress.
//!
//! Only plain clients with requests in progress and mesh peers keep their places whatever happens.

mod awaited;
mod watch;

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use selvedge_ops::files;
use tokio::sync::Notify;

pub(crate) use self::watch::WaitingFor;
pub use self::watch::{Patience, UnderWay, Watch};
use crate::{
    arrival::Direction,
    budget::{Budget, HeldBytes},
};

/// The share of the files that a process may have open, which is for clients' connections of each direction: three of
/// ten. The rest is for connections to endpoints, which idle clients do not need.
const SHARE: (usize, usize) = (3, 10);

/// How many plain clients are looked at for one without a request, at the most.
const LOOKS: usize = 64;

/// Connections of clients, of all workers.
#[derive(Debug)]
pub struct Clients {
    /// In each direction.
    limit: usize,
    /// By direction.
    open: [AtomicUsize; 2],
    /// Plain clients' that have come in.
    plain: AtomicUsize,
}

/// How far a client that comes in has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing is known of it.
    New,
    /// Without a certificate.
    Plain,
    /// A mesh peer's; or our own app's, which goes out.
    Known,
    /// Its place is another's.
    Gone,
}

/// One connection of a client's, as long as this lives.
#[derive(Debug)]
pub struct Client {
    clients: Arc<Clients>,
    direction: Direction,
    stage: Cell<Stage>,
    told: Notify,
    /// What it is to whoever serves HTTP on it.
    watch: OnceCell<Arc<Watch>>,
    /// What its hello holds that has not ended.
    hello: RefCell<Option<HeldBytes>>,
}

/// The clients of one worker that may have to go.
#[derive(Debug)]
pub struct Places {
    clients: Arc<Clients>,
    /// The oldest first.
    newcomers: RefCell<VecDeque<Weak<Client>>>,
    plain: RefCell<VecDeque<Weak<Client>>>,
}

impl Clients {
    /// At most `limit` in each direction; `None`: as many as the limit of open files suggests.
    pub fn new(limit: Option<u32>) -> Self {
        let limit = limit.map_or_else(usual, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Self { limit, open: Default::default(), plain: AtomicUsize::new(0) }
    }

    /// How many plain clients may come in.
    fn most_plain(&self) -> usize {
        (self.limit - self.limit / 4).max(1)
    }
}

/// Counts one more, if there is room.
fn enter(open: &AtomicUsize, limit: usize) -> bool {
    let one_more = |open| (open < limit).then_some(open + 1);
    open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
}

impl Places {
    /// Nobody's yet.
    pub fn new(clients: Arc<Clients>) -> Self {
        Self { clients, newcomers: RefCell::default(), plain: RefCell::default() }
    }

    /// One more; `None`: there are too many.
    pub fn enter(&self, direction: Direction) -> Option<Rc<Client>> {
        let (open, limit) = (&self.clients.open[direction as usize], self.clients.limit);
        while !enter(open, limit) {
            if direction == Direction::Outbound || !(self.dismiss_newcomer() || self.dismiss_plain()) {
                return None;
            }
        }
        let stage = if direction == Direction::Inbound { Stage::New } else { Stage::Known };
        let (clients, stage) = (Arc::clone(&self.clients), Cell::new(stage));
        let client = Rc::new(Client {
            clients,
            direction,
            stage,
            told: Notify::new(),
            watch: OnceCell::new(),
            hello: RefCell::default(),
        });
        if direction == Direction::Inbound {
            keep(&self.newcomers, &client);
        }
        Some(client)
    }

    /// A newcomer turns out to be a plain client. `false`: there is no place for one, and it must go.
    pub fn admit_plain(&self, client: &Rc<Client>) -> bool {
        if client.stage.get() != Stage::New {
            return true;
        }
        while !enter(&self.clients.plain, self.clients.most_plain()) {
            if !self.dismiss_plain() {
                return false;
            }
        }
        client.stage.set(Stage::Plain);
        keep(&self.plain, client);
        true
    }

    /// Has the oldest newcomer go. `false`: there is none.
    pub fn dismiss_newcomer(&self) -> bool {
        loop {
            let Some(oldest) = self.newcomers.borrow_mut().pop_front() else { return false };
            if let Some(oldest) = oldest.upgrade().filter(|client| client.stage.get() == Stage::New) {
                oldest.dismiss();
                return true;
            }
        }
    }

    /// Has a plain client without a request go, of those that were not looked at last. `false`: there is none.
    fn dismiss_plain(&self) -> bool {
        let mut plain = self.plain.borrow_mut();
        for _ in 0..LOOKS.min(plain.len()) {
            let Some(next) = plain.pop_front() else { return false };
            let Some(client) = next.upgrade().filter(|client| client.stage.get() == Stage::Plain) else {
                continue;
            };
            if client.is_idle() {
                client.dismiss();
                return true;
            }
            plain.push_back(next);
        }
        false
    }
}

/// Adds `client` to those that may have to go. Those that have gone by themselves are forgotten now and then.
fn keep(among: &RefCell<VecDeque<Weak<Client>>>, client: &Rc<Client>) {
    let mut among = among.borrow_mut();
    if among.len() == among.capacity() {
        among.retain(|client| client.strong_count() > 0);
    }
    among.push_back(Rc::downgrade(client));
}

impl Client {
    /// It has proven who it is.
    pub fn mark_known(&self) {
        if self.stage.get() == Stage::New {
            self.stage.set(Stage::Known);
        }
    }

    /// It speaks HTTP, and has requests in progress as `watch` says.
    pub fn watch_with(&self, watch: &Arc<Watch>) {
        // Once: a connection is served once.
        let _ = self.watch.set(Arc::clone(watch));
    }

    /// So many bytes more of its hello have come.
    pub fn holds_hello(&self, budget: &Arc<Budget>, more: usize) {
        let mut hello = self.hello.borrow_mut();
        let held = hello.get_or_insert_with(|| HeldBytes::new(budget));
        held.set(held.bytes() + more);
    }

    /// Its hello is over.
    pub fn hello_ended(&self) {
        self.hello.take();
    }

    /// Completes when it has to go, because others need its place.
    pub async fn dismissed(&self) {
        self.told.notified().await;
    }

    fn is_idle(&self) -> bool {
        self.watch.get().is_some_and(|watch| watch.in_progress() == 0)
    }

    fn dismiss(&self) {
        self.leave();
        self.told.notify_one();
    }

    /// Gives its places back.
    fn leave(&self) {
        self.hello_ended();
        let stage = self.stage.replace(Stage::Gone);
        if stage == Stage::Plain {
            self.clients.plain.fetch_sub(1, Ordering::Relaxed);
        }
        if stage != Stage::Gone {
            self.clients.open[self.direction as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.leave();
    }
}

fn usual() -> usize {
    (files::allowed() / SHARE.1 * SHARE.0).max(1)
}

#[cfg(test)]
mod tests;
