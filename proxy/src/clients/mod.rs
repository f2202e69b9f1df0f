//! The places for clients' connections: how many there are, and which connection is closed when they are all taken.
//!
//! A client's connection may need another one to an endpoint. Without a limit a process would run out of files in the
//! middle of requests, where the failure looks like an endpoint's. Each direction has places of its own: clients from
//! outside cannot keep the app from going out.
//!
//! Anybody can come in, and nothing is known of a *newcomer*. So that strangers keep out nobody who has a certificate,
//!
//! Only plain clients with requests in progress and mesh peers keep their places whatever happens.

mod addresses;
mod awaited;
mod patience;
mod rates;
mod readers;
mod seats;
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
pub use self::{
    addresses::{Addresses, ClientLimits, Reached, Seat, Whose},
    patience::Patience,
    rates::{ClientRates, Rates, TooOften},
    watch::{UnderWay, Watch},
};
use crate::{
    arrival::Direction,
    budget::{Budget, HeldBytes},
};

/// The share of the files that a process may have open, which is for clients' connections of each direction: three of
/// ten. The rest is for connections to endpoints, which idle clients do not need.
const SHARE: (usize, usize) = (3, 10);

/// The most plain clients that are looked at to find one without a request.
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
    /// By the address of a gateway's client.
    addresses: Arc<Addresses>,
    /// How often a gateway's client comes.
    rates: Rates,
}

/// What is known of a client that comes in.
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
    /// The same connection, as its HTTP stream and service see it.
    watch: OnceCell<Arc<Watch>>,
    /// What its hello holds that has not ended.
    hello: RefCell<Option<HeldBytes>>,
    /// Its places among those of its address and its listener, where they are limited.
    seats: RefCell<[Option<Seat>; 2]>,
}

/// The places of one worker's clients: which of them may have to go.
#[derive(Debug)]
pub struct Places {
    clients: Arc<Clients>,
    /// The oldest first.
    newcomers: RefCell<VecDeque<Weak<Client>>>,
    plain: RefCell<VecDeque<Weak<Client>>>,
}

impl Clients {
    /// At most `limit` in each direction; `None`: as many as the limit of open files suggests. `each` is what one address
    /// may have, and `often` how often it may come, where that is asked for.
    pub fn new(limit: Option<u32>, each: ClientLimits, often: ClientRates) -> Self {
        let limit = limit.map_or_else(usual, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let addresses = Addresses::new(each);
        let (open, plain) = (Default::default(), AtomicUsize::new(0));
        Self { limit, open, plain, addresses, rates: Rates::new(often) }
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

    /// How often clients may come.
    pub fn rates(&self) -> &Rates {
        &self.clients.rates
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
            seats: RefCell::default(),
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
        client.finished();
        keep(&self.plain, client);
        true
    }

    /// Closes the connection of the oldest newcomer. `false`: there is none.
    pub fn dismiss_newcomer(&self) -> bool {
        loop {
            let Some(oldest) = self.newcomers.borrow_mut().pop_front() else { return false };
            if let Some(oldest) = oldest.upgrade().filter(|client| client.stage.get() == Stage::New) {
                oldest.dismiss();
                return true;
            }
        }
    }

    /// Closes the connection of a plain client without a request, preferring those that were not looked at last.
    /// `false`: there is none.
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

/// Adds `client` to those that may have to go. Now and then, those that have left are forgotten.
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
            self.finished();
        }
    }

    /// It speaks HTTP, and has requests in progress as `watch` says.
    pub fn watch_with(&self, watch: &Arc<Watch>) {
        // Once: a connection is served once.
        let _ = self.watch.set(Arc::clone(watch));
    }

    /// Notes that `more` bytes of its hello have come.
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
        self.seats.take();
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
