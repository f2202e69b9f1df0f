//! When the requests of an open loop are due: a kernel timer, since waits of `epoll` end on milliseconds.

use std::io;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// When each request of an open loop is due.
pub(super) struct Schedule {
    start: Instant,
    interval: Duration,
    total: u64,
    due: u64,
}

impl Schedule {
    pub(super) const fn new(start: Instant, interval: Duration, total: u64) -> Self {
        Self { start, interval, total, due: 0 }
    }

    pub(super) const fn is_over(&self) -> bool {
        self.due >= self.total
    }

    /// The moments at which the next `count` requests were due.
    pub(super) fn advance(&mut self, count: u64) -> impl Iterator<Item = Instant> + use<> {
        let (start, interval, from) = (self.start, self.interval, self.due);
        self.due = (self.due + count).min(self.total);
        (from..self.due).map(move |nth| start + interval.mul_f64((nth + 1) as f64))
    }
}

/// Can be read at every interval.
pub(super) fn timer(interval: Duration) -> io::Result<OwnedFd> {
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
    let interval = Timespec {
        tv_sec: interval.as_secs().try_into().map_err(|_| io::ErrorKind::InvalidInput)?,
        tv_nsec: interval.subsec_nanos().into(),
    };
    let every = Itimerspec { it_interval: interval, it_value: interval };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every)?;
    Ok(timer)
}

/// How often the timer went off since this was last asked.
pub(super) fn expirations(timer: &OwnedFd) -> io::Result<u64> {
    let mut count = [0; 8];
    rustix::io::read(timer, &mut count)?;
    Ok(u64::from_ne_bytes(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_fall_due_at_even_intervals_and_stop_at_the_total() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, Duration::from_millis(1), 3);

        let first: Vec<Instant> = schedule.advance(2).collect();
        let rest: Vec<Instant> = schedule.advance(5).collect();

        assert_eq!(first, [1, 2].map(|ms| start + Duration::from_millis(ms)));
        assert_eq!(rest, [start + Duration::from_millis(3)]);
    }
}
