//! What each endpoint of a group has in flight, and all of them together, where a balancer compares the two.
//!
//! Both are counted when a request begins and when it ends, so that a pick adds nothing up, however many endpoints there are.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
};

/// How many requests and connections an endpoint has in flight, and how many have begun, in one number: whoever begins one adds
/// once for both.
#[derive(Debug, Default)]
pub struct Flight(AtomicU64);

/// What stands for one that has begun: the higher half counts those, the lower one those in flight.
const BEGUN: u64 = 1 << 32;

impl Flight {
    /// One more.
    pub fn begin(&self) {
        self.0.fetch_add(BEGUN + 1, Ordering::Relaxed);
    }

    /// One less. It was begun.
    pub fn end(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many are in flight.
    pub fn now(&self) -> u32 {
        u32::try_from(self.0.load(Ordering::Relaxed) & (BEGUN - 1)).unwrap_or(u32::MAX)
    }

    /// How many have begun; it begins anew after the largest number.
    pub fn begun(&self) -> u32 {
        u32::try_from(self.0.load(Ordering::Relaxed) >> 32).unwrap_or(u32::MAX)
    }
}

/// What all endpoints of a group have in flight. Shared by all workers.
#[derive(Debug, Default)]
pub struct Total(AtomicI64);

impl Total {
    /// How many requests and connections.
    pub fn all(&self) -> u64 {
        // Whoever begins one while the endpoint leaves may be seen to end it first.
        u64::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// What one endpoint of a group has in flight. Shared by all workers, and by the same endpoint in the table before.
#[derive(Debug)]
pub struct Load {
    /// The number, and [`LEFT`].
    own: AtomicU32,
    total: Arc<Total>,
}

/// The endpoint has left its group, and no longer counts there.
const LEFT: u32 = 1 << 31;

impl Load {
    /// Nothing yet of a member of the group of this `total`.
    pub fn new(total: &Arc<Total>) -> Self {
        Self { own: AtomicU32::new(0), total: Arc::clone(total) }
    }

    /// Whether it counts in `total`.
    pub fn is_of(&self, total: &Arc<Total>) -> bool {
        Arc::ptr_eq(&self.total, total)
    }

    /// How many requests and connections.
    pub fn own(&self) -> u32 {
        self.own.load(Ordering::Relaxed) & !LEFT
    }

    /// Counts one more, until what is returned is dropped.
    pub fn begin(self: &Arc<Self>) -> Begun {
        if self.own.fetch_add(1, Ordering::Relaxed) & LEFT == 0 {
            self.total.0.fetch_add(1, Ordering::Relaxed);
        }
        Begun(Arc::clone(self))
    }

    /// The endpoint leaves its group: what it has in flight is no longer a part of what all have.
    pub fn leave(&self) {
        let before = self.own.fetch_or(LEFT, Ordering::Relaxed);
        if before & LEFT == 0 {
            self.total.0.fetch_sub(before.into(), Ordering::Relaxed);
        }
    }
}

/// One request or connection in flight.
#[derive(Debug)]
pub struct Begun(Arc<Load>);

impl Drop for Begun {
    fn drop(&mut self) {
        let Self(load) = self;
        if load.own.fetch_sub(1, Ordering::Relaxed) & LEFT == 0 {
            load.total.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_begun_is_counted_apart_from_what_is_in_flight() {
        let flight = Flight::default();
        for _ in 0..3 {
            flight.begin();
        }
        flight.end();
        assert_eq!((flight.now(), flight.begun()), (2, 3));

        let long = Flight(AtomicU64::new((u64::from(u32::MAX) << 32) + 1));
        long.begin();
        assert_eq!((long.now(), long.begun()), (2, 0), "it begins anew, and what is in flight stays");
    }

    #[test]
    fn all_have_what_each_has_that_has_not_left() {
        let total = Arc::<Total>::default();
        let [one, other] = [(); 2].map(|()| Arc::new(Load::new(&total)));
        let mut begun: Vec<Begun> =
            (0..5).map(|number| if number < 2 { &one } else { &other }.begin()).collect();
        assert_eq!((one.own(), other.own(), total.all()), (2, 3, 5));

        begun.pop();
        other.leave();
        other.leave();
        assert_eq!((other.own(), total.all()), (2, 2));
        begun.push(other.begin());
        assert_eq!((other.own(), total.all()), (3, 2), "what has left counts for itself alone");

        drop(begun);
        assert_eq!((one.own(), other.own(), total.all()), (0, 0, 0));
    }
}
