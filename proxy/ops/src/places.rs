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

    /// A place for a connection from `address`, which may have to be another's. `None`: it is one of those who
    /// are known, and all of their places are busy.
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

/// Addresses that count as one.
fn group(address: IpAddr) -> IpAddr {
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
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { strangers: 4, per_address: 3, known: 2, busy_stay: true };

    fn from(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    /// Whether another has the place now.
    fn gone(place: &mut Place) -> bool {
        place.poll_taken(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn the_silent_one_goes_before_one_that_speaks() {
        let places = Places::new(LIMITS);
        let mut speaks = places.enter(from("192.0.2.1"), false).unwrap();
        speaks.activity().set(Doing::Speaking);
        let mut silent = places.enter(from("192.0.2.2"), false).unwrap();
        let _others = [3, 4].map(|n| {
            let other = places.enter(from(&format!("192.0.2.{n}")), false).unwrap();
            other.activity().set(Doing::Busy);
            other
        });
        tokio::time::advance(GRACE).await;

        let _newcomer = places.enter(from("192.0.2.9"), false).unwrap();

        assert!(gone(&mut silent) && !gone(&mut speaks));
        assert_eq!(places.taken(), (4, 0));
    }

    #[tokio::test]
    async fn one_address_pushes_out_itself_and_nobody_else() {
        let places = Places::new(LIMITS);
        let mut other = places.enter(from("192.0.2.9"), false).unwrap();

        let mut many: Vec<Place> = (0..50).map(|_| places.enter(from("192.0.2.1"), false).unwrap()).collect();

        assert!(!gone(&mut other));
        let left = many.iter_mut().filter_map(|place| (!gone(place)).then_some(())).count();
        assert_eq!(left, LIMITS.per_address);
        // A newcomer from elsewhere finds its place at the expense of who has most.
        let mut third = places.enter(from("192.0.2.3"), false).unwrap();
        let _fourth = places.enter(from("192.0.2.4"), false).unwrap();
        assert!(!gone(&mut other) && !gone(&mut third));
    }

    #[tokio::test]
    async fn the_hosts_of_one_ipv6_network_are_one_address() {
        let places = Places::new(LIMITS);
        let mut first = places.enter(from("2001:db8::1"), false).unwrap();

        let _rest: Vec<Place> =
            (2..5).map(|n| places.enter(from(&format!("2001:db8::{n}")), false).unwrap()).collect();

        assert!(gone(&mut first));
    }

    #[tokio::test]
    async fn those_who_are_known_are_touched_by_no_stranger() {
        let places = Places::new(LIMITS);
        let mut known = places.enter(from("192.0.2.1"), false).unwrap().known().unwrap();

        let _strangers: Vec<Place> =
            (0..50).map(|n| places.enter(from(&format!("192.0.2.{n}")), false).unwrap()).collect();

        assert!(!gone(&mut known));
    }

    #[tokio::test]
    async fn a_busy_one_that_is_known_stays() {
        let places = Places::new(LIMITS);
        let known = [1, 2].map(|_| places.enter(from("127.0.0.1"), true).unwrap());
        known.iter().for_each(|place| place.activity().set(Doing::Busy));
        assert!(places.enter(from("127.0.0.1"), true).is_none());

        let others = Places::new(Limits { busy_stay: false, ..LIMITS });
        let mut held: Vec<Place> = (0..3).map(|_| others.enter(from("127.0.0.1"), true).unwrap()).collect();
        assert!(gone(&mut held[0]) && !gone(&mut held[2]), "unless there is nobody who must stay");

        known[1].activity().set(Doing::Idle);
        assert!(places.enter(from("127.0.0.1"), true).is_some());
    }

    #[tokio::test]
    async fn a_place_that_is_gone_is_gone_whoever_asks_again() {
        let places = Places::new(Limits { known: 1, busy_stay: false, ..LIMITS });
        let mut first = places.enter(from("127.0.0.1"), true).unwrap();
        let _second = places.enter(from("127.0.0.1"), true).unwrap();

        // HTTP's own code flushes what it could not read.
        assert!(gone(&mut first) && gone(&mut first));
    }

    #[tokio::test]
    async fn who_leaves_makes_room() {
        let places = Places::new(LIMITS);
        drop(places.enter(from("192.0.2.1"), false));

        assert_eq!(places.taken(), (0, 0));
    }
}
