//! The account of one HTTP/2 connection: the bytes that have arrived on it and that nobody has taken.
//!
//! hyper and h2 do not tell, so the account is kept here. The frames show what arrives, and the bodies what is taken.
//! Data that h2 throws away (for a stream that was reset) would stay in this account for ever. So it is corrected by
//! h2's own account, the connection window, whenever h2 gives the peer more of it, and by the end of the last body.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    task::Waker,
};

use hyper::body::Incoming;
use tokio::sync::Notify;

use super::{Budget, unfinished};
use crate::error::{Failure, Reason};

/// The default connection window (RFC 9113, section 6.9.2): what the first update does not have to add.
const DEFAULT_WINDOW: i64 = 65_535;

/// See the module. All of a connection's parts are on one thread.
#[derive(Debug)]
pub struct Ledger {
    budget: Arc<Budget>,
    /// Bytes that have arrived, and that nobody has taken.
    held: Cell<u64>,
    /// Bytes of the connection's window that the peer has used and not been given back.
    unreturned: Cell<i64>,
    /// Bodies that are arriving.
    bodies: Cell<usize>,
    /// Whether nothing is to be read any more.
    cut: Cell<bool>,
    /// Why we have ended it ourselves, if that is because of what came on it.
    ended: Cell<Option<Reason>>,
    /// The task that waits for more bytes.
    reader: RefCell<Option<Waker>>,
    /// The bodies themselves, each at its place, so that they can be dropped while others hold them to read from.
    kept: RefCell<Vec<Option<Incoming>>>,
    /// Places that are free.
    free: RefCell<Vec<usize>>,
    /// Bytes of a frame or a head that has not come to its end; there is one at the most.
    unfinished: Cell<u64>,
    /// What they take in the budget.
    room: Cell<u64>,
    /// How many such there have been.
    begun: Cell<u32>,
    /// Its bytes' stream has gone.
    closed: Notify,
}

impl Ledger {
    /// Of a connection whose window is `window` bytes.
    pub fn new(budget: &Arc<Budget>, window: u32) -> Rc<Self> {
        Rc::new(Self {
            budget: Arc::clone(budget),
            held: Cell::new(0),
            unreturned: Cell::new(i64::from(window) - DEFAULT_WINDOW),
            bodies: Cell::new(0),
            cut: Cell::new(false),
            ended: Cell::new(None),
            reader: RefCell::default(),
            kept: RefCell::default(),
            free: RefCell::default(),
            unfinished: Cell::new(0),
            room: Cell::new(0),
            begun: Cell::new(0),
            closed: Notify::new(),
        })
    }

    /// Breaks the connection off, with all that is in progress on it. hyper's client offers no other way: it keeps an
    /// HTTP/2 connection until its last stream has ended, even if everything that it gave out is dropped.
    pub fn cut(&self) {
        self.cut.set(true);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Whether the connection has been broken off; if not, `reader` is woken when it is.
    pub(super) fn is_cut(&self, reader: &Waker) -> bool {
        if self.cut.get() {
            return true;
        }
        let mut waiting = self.reader.borrow_mut();
        if !waiting.as_ref().is_some_and(|waiting| waiting.will_wake(reader)) {
            *waiting = Some(reader.clone());
        }
        false
    }

    /// Why we have ended the connection because of what came on it; `None`: we have not.
    pub fn ended(&self) -> Option<Failure> {
        self.ended.get().map(|reason| {
            let what = match reason {
                Reason::Overflow => "too much of the connection's answers was not read",
                _ => "the server sent too many frames without content",
            };
            Failure::new(reason, what)
        })
    }

    /// The other side sends more than it may.
    pub(super) fn flooded(&self) {
        self.ended.set(Some(Reason::Protocol));
    }

    /// Bytes that it holds.
    pub fn held(&self) -> u64 {
        self.held.get() + self.unfinished.get()
    }

    /// Completes when the connection has been closed. For one waiter, once.
    pub(crate) async fn closed(&self) {
        self.closed.notified().await;
    }

    /// The connection is closed.
    pub(super) fn close(&self) {
        self.closed.notify_one();
    }

    /// Notes that `bytes` of an unfinished frame or head have come, which take this much `room`. 0: there is none.
    pub(super) fn unfinished(self: &Rc<Self>, bytes: u64, room: u64) {
        if bytes == self.unfinished.get() {
            return;
        }
        if self.unfinished.replace(bytes) == 0 {
            self.begun.set(self.begun.get().wrapping_add(1));
            unfinished::list(self);
        }
        let before = self.room.replace(room);
        self.budget.unfinished(before, room);
        if room > before {
            unfinished::make_room(&self.budget);
        }
    }

    /// The number of the unfinished frame or head. `None`: there is none.
    pub(super) fn begun(&self) -> Option<u32> {
        (self.unfinished.get() > 0).then_some(self.begun.get())
    }

    /// Gives up the unfinished frame or head, and the connection with it.
    pub(super) fn give_up(&self) {
        self.unfinished.set(0);
        self.budget.unfinished(self.room.take(), 0);
        self.ended.set(Some(Reason::Overflow));
        self.cut();
    }

    /// What it draws on.
    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Data has arrived. `ignored`: for a stream that has been given up; it is not kept.
    pub(super) fn received(&self, bytes: usize, ignored: bool) {
        let bytes = bytes as u64;
        self.unreturned.set(self.unreturned.get().saturating_add_unsigned(bytes));
        if !ignored {
            self.held.set(self.held.get() + bytes);
            self.budget.add(bytes);
        }
    }

    /// Data has been taken.
    pub(crate) fn taken(&self, bytes: usize) {
        self.set(self.held.get().saturating_sub(bytes as u64));
    }

    /// The peer was told that it may send so much more.
    pub(super) fn returned(&self, bytes: u32) {
        self.unreturned.set(self.unreturned.get() - i64::from(bytes));
        let most = u64::try_from(self.unreturned.get()).unwrap_or(0);
        self.set(self.held.get().min(most));
    }

    /// One more body is arriving. Returns its place.
    pub(crate) fn keep(&self, body: Incoming) -> usize {
        self.body_begins();
        let mut kept = self.kept.borrow_mut();
        match self.free.borrow_mut().pop() {
            Some(place) => {
                kept[place] = Some(body);
                place
            }
            None => {
                kept.push(Some(body));
                kept.len() - 1
            }
        }
    }

    /// Runs `act` on the body at `place`. `None`: the body has been dropped.
    pub(crate) fn with<T>(&self, place: usize, act: impl FnOnce(&mut Incoming) -> T) -> Option<T> {
        self.kept.borrow_mut()[place].as_mut().map(act)
    }

    /// The body at `place` has ended or was given up.
    pub(crate) fn take(&self, place: usize) {
        let body = self.kept.borrow_mut()[place].take();
        self.free.borrow_mut().push(place);
        drop(body);
        self.body_ends();
    }

    /// Drops everything that is held. The connection ends, and its bodies break off.
    pub(super) fn let_go(&self) {
        self.ended.set(Some(Reason::Overflow));
        let bodies: Vec<Incoming> = self.kept.borrow_mut().iter_mut().filter_map(Option::take).collect();
        drop(bodies);
        self.set(0);
    }

    pub(super) fn body_begins(&self) {
        self.bodies.set(self.bodies.get() + 1);
    }

    /// A body has ended or was given up. Without any, there is nothing to hold data for.
    fn body_ends(&self) {
        self.bodies.set(self.bodies.get() - 1);
        if self.bodies.get() == 0 {
            self.set(0);
        }
    }

    /// Notes that less is held.
    fn set(&self, held: u64) {
        self.budget.remove(self.held.get() - held);
        self.held.set(held);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.budget.remove(self.held.get());
        self.budget.unfinished(self.room.get(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u32 = 1 << 20;

    fn ledger() -> (Arc<Budget>, Rc<Ledger>) {
        let budget = Arc::new(Budget::new(1000));
        let ledger = Ledger::new(&budget, WINDOW);
        ledger.returned(WINDOW - 65_535);
        (budget, ledger)
    }

    #[test]
    fn what_arrives_is_held_until_it_is_taken() {
        let (budget, ledger) = ledger();
        ledger.body_begins();

        ledger.received(900, false);
        ledger.received(200, false);
        assert!(budget.is_exhausted());
        ledger.taken(300);

        assert_eq!((ledger.held(), budget.held(), budget.is_exhausted()), (800, 800, false));
        drop(ledger);
        assert_eq!(budget.held(), 0, "a connection's end ends all that");
    }

    #[test]
    fn what_was_thrown_away_is_forgotten_when_the_window_is_given_back_or_the_last_body_ends() {
        let (budget, ledger) = ledger();
        ledger.body_begins();
        ledger.body_begins();
        ledger.received(600, false);
        ledger.received(100, false);
        ledger.received(50, true);

        // h2 has thrown the 600 away, and the ignored 50 with them.
        ledger.returned(650);
        assert_eq!((ledger.held(), budget.held()), (100, 100));

        ledger.body_ends();
        assert_eq!(ledger.held(), 100);
        ledger.body_ends();
        assert_eq!((ledger.held(), budget.held()), (0, 0));
    }
}
