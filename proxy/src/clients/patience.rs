//! Notices clients that keep the proxy waiting: one sweep over all connections instead of a timer for each request.
//!
//! A connection notes the tick at which it began to wait, which is one store. At every tick, connections that have
//! waited for too long are woken and end themselves. Limits are kept to within one tick.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{
    readers::Pace,
    watch::{Clock, Watch},
};
use crate::settings::PaceLimits;

/// The longest tick: how long an idle worker sleeps.
const MAX_TICK: Duration = Duration::from_secs(5);

/// The shortest tick, for short limits.
const MIN_TICK: Duration = Duration::from_millis(50);

/// A worker's connections from clients.
#[derive(Debug)]
pub struct Patience {
    tick: Duration,
    clock: Arc<Clock>,
    /// How slowly clients may read.
    pace: Pace,
    connections: RefCell<Vec<Weak<Watch>>>,
}

impl Patience {
    /// Waits for the rest of a head for `head`, and for another request for `idle`.
    #[cfg(test)]
    pub fn new(head: Duration, idle: Duration) -> Rc<Self> {
        Self::limited(head, idle, PaceLimits { patience: Duration::ZERO, rate: 0 })
    }

    /// The same; clients have to read as `read` says.
    pub fn limited(head: Duration, idle: Duration, read: PaceLimits) -> Rc<Self> {
        let limits = [Some(head), Some(idle), Some(read.patience).filter(|patience| !patience.is_zero())];
        let shortest = limits.into_iter().flatten().min().unwrap_or(MAX_TICK);
        let tick = (shortest / 4).clamp(MIN_TICK, MAX_TICK);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 4);
        let rate = if read.patience.is_zero() { 0 } else { read.rate };
        let pace = Pace { patience: millis(read.patience), rate: rate.into(), tick: millis(tick) };
        let ticks = |limit: Duration| {
            let ticks = limit.as_millis().div_ceil(tick.as_millis());
            u32::try_from(ticks).unwrap_or(u32::MAX / 2)
        };
        let clock = Clock { head: ticks(head), idle: ticks(idle), now: AtomicU32::new(0) };
        Rc::new(Self { tick, clock: Arc::new(clock), pace, connections: RefCell::default() })
    }

    /// How often to call [`Self::advance`].
    pub fn tick(&self) -> Duration {
        self.tick
    }

    /// One tick later: wakes connections that have waited for too long, and forgets those that have ended.
    pub fn advance(&self) {
        self.clock.now.fetch_add(1, Ordering::Relaxed);
        self.connections.borrow_mut().retain(|connection| {
            let connection = connection.upgrade();
            if let Some(watch) = &connection {
                if watch.is_over() {
                    watch.wake();
                }
                if watch.readers.is_limited() {
                    watch.readers.look(self.pace);
                }
            }
            connection.is_some()
        });
    }

    /// Watches one more connection, as long as the result lives.
    pub fn watch(&self) -> Arc<Watch> {
        let watch = Arc::new(Watch::new(Arc::clone(&self.clock)));
        self.connections.borrow_mut().push(Arc::downgrade(&watch));
        watch
    }
}

#[cfg(test)]
mod tests;
