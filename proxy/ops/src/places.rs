//! Which connections keep their place on a port that strangers can reach, when there are more connections than places.
//!
//! No connection waits: a newcomer takes the place of another connection. The address decides first which one loses its
//! place (IPv6: the /64 network, which one host may fill): many connections from few addresses replace each other and
//! nobody else's. Then the state decides: a silent connection goes before one that sends. Then age decides. Clients that
//! are known (they have proven an identity, or are on this host) have their own places, which strangers never take.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

/// A connection may be silent for this long before it counts as such: its first bytes may be on their way.
const GRACE: Duration = Duration::from_millis(250);

/// How many connections a port carries at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Strangers.
    pub strangers: usize,
    /// Of them, those from one address.
    pub per_address: usize,
    /// Those who are known.
    pub known: usize,
    /// Whether one of these that is busy keeps its place when there is no other; then the newcomer has none.
    pub busy_stay: bool,
}

/// What a connection does, in the order in which connections make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Doing {
    /// It has said nothing yet.
    Silent,
    /// It has been served, and says nothing now.
    Idle,
    /// It has begun to say something.
    Speaking,
    /// It is being served.
    Busy,
}

/// All places of one port.
#[derive(Debug)]
pub struct Places {
    limits: Limits,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    strangers: Seats,
    known: Seats,
}

/// Seats in the order in which they were taken.
#[derive(Debug, Default)]
struct Seats {
    all: BTreeMap<u64, Seat>,
    of_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Seat {
    address: IpAddr,
    since: Instant,
    activity: Activity,
    /// Dropped to tell the connection that it must go.
    _stay: oneshot::Sender<()>,
}

/// What a connection does now, as it says itself. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Activity(Arc<AtomicU8>);

impl Activity {
    fn new(doing: Doing) -> Self {
        Self(Arc::new(AtomicU8::new(doing as u8)))
    }

    /// Says that the connection does this from now on.
    pub fn set(&self, doing: Doing) {
        self.0.store(doing as u8, Ordering::Relaxed);
    }

    /// What it does.
    pub fn now(&self) -> Doing {
        match self.0.load(Ordering::Relaxed) {
            0 => Doing::Silent,
            1 => Doing::Idle,
            2 => Doing::Speaking,
            _ => Doing::Busy,
        }
    }
}

/// The place of one connection, for as long as this lives, or until another connection takes it.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    id: u64,
    address: IpAddr,
    activity: Activity,
    /// `None`: another has been given the place.
    stay: Option<oneshot::Receiver<()>>,
}

impl Places {
    /// Places that nobody has yet.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, inner: Mutex::default() })
    }

    /// A place for a connection from `address`. It may be taken from another connection. `None`: the client is known,
    /// and all places for known clients are busy.
    pub fn enter(self: &Arc<Self>, address: IpAddr, known: bool) -> Option<Place> {
        let address = group(address);
        let (told, stay) = oneshot::channel();
        let activity = Activity::new(Doing::Silent);
        let seat = Seat { address, since: Instant::now(), activity: activity.clone(), _stay: told };
        let mut inner = self.lock();
        inner.next += 1;
        let id = inner.next;
        inner.seat(id, seat, known, &self.limits)?;
        drop(inner);
        Some(Place { places: Arc::clone(self), id, address, activity, stay: Some(stay) })
    }

    /// How many strangers and how many others there are.
    pub fn taken(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.strangers.all.len(), inner.known.all.len())
    }

    /// How many strangers there are from the address of `address`, or its network.
    pub fn strangers_from(&self, address: IpAddr) -> usize {
        self.lock().strangers.of_address.get(&group(address)).copied().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn seat(&mut self, id: u64, seat: Seat, known: bool, limits: &Limits) -> Option<()> {
        let now = seat.since;
        if known {
            if self.known.all.len() >= limits.known {
                let goes = self.known.first_to_go(None, now)?;
                if limits.busy_stay && self.known.all.get(&goes)?.activity.now() == Doing::Busy {
                    return None;
                }
                self.known.remove(goes);
            }
            self.known.insert(id, seat);
            return Some(());
        }
        let strangers = &mut self.strangers;
        let goes = if strangers.of_address.get(&seat.address).is_some_and(|same| *same >= limits.per_address)
        {
            strangers.first_to_go(Some(seat.address), now)
        } else if strangers.all.len() >= limits.strangers {
            strangers.first_to_go(None, now)
        } else {
            None
        };
        if let Some(goes) = goes {
            strangers.remove(goes);
        }
        strangers.insert(id, seat);
        Some(())
    }
}

impl Seats {
    fn insert(&mut self, id: u64, seat: Seat) {
        *self.of_address.entry(seat.address).or_default() += 1;
        self.all.insert(id, seat);
    }

    fn remove(&mut self, id: u64) {
        let Some(seat) = self.all.remove(&id) else { return };
        if let Some(same) = self.of_address.get_mut(&seat.address) {
            *same -= 1;
            if *same == 0 {
                self.of_address.remove(&seat.address);
            }
        }
    }

    /// Whose seat is given away; `only`: of one address.
    fn first_to_go(&self, only: Option<IpAddr>, now: Instant) -> Option<u64> {
        // Counts tell them apart only if they differ; to look them up costs most of a flood's work.
        let differ = only.is_none() && self.of_address.len() > 1 && self.of_address.len() < self.all.len();
        let count = |seat: &Seat| if differ { self.of_address.get(&seat.address).copied() } else { None };
        let candidates = self.all.iter().filter(|(_, seat)| only.is_none_or(|only| seat.address == only));
        let order = |(id, seat): &(&u64, &Seat)| (Reverse(count(seat)), seat.rank(now), **id);
        candidates.min_by_key(order).map(|(id, _)| *id)
    }
}

impl Seat {
    fn rank(&self, now: Instant) -> Doing {
        match self.activity.now() {
            Doing::Silent if now.saturating_duration_since(self.since) < GRACE => Doing::Speaking,
            doing => doing,
        }
    }
}

/// Addresses that count as one: IPv6 those of a /64 network.
pub(crate) fn group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

impl Place {
    /// Where the connection says what it does.
    pub fn activity(&self) -> Activity {
        self.activity.clone()
    }

    /// The same connection in a place of those who are known. `None`: all of them are busy.
    pub fn known(self) -> Option<Self> {
        let place = self.places.enter(self.address, true)?;
        place.activity.set(self.activity.now());
        Some(place)
    }

    /// Ready once the place has been given to another connection, however often it is asked from then on.
    pub fn poll_taken(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(stay) = &mut self.stay {
            // The sender never sends.
            let _ = ready!(std::pin::Pin::new(stay).poll(context));
            self.stay = None;
        }
        Poll::Ready(())
    }

    /// Returns once the place has been given to another connection.
    pub async fn taken(&mut self) {
        std::future::poll_fn(|context| self.poll_taken(context)).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.places.lock();
        inner.strangers.remove(self.id);
        inner.known.remove(self.id);
    }
}

#[cfg(test)]
mod tests;
