//! How long an endpoint's answers take: the peak of what was measured lately, which decays.
//!
//! As in Finagle's and Linkerd's Peak EWMA: an answer that takes longer than expected counts at once, one that is faster
//! little by little, and an endpoint that is not asked is slowly forgiven.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// After this time without an answer, what is expected has fallen to 1/e (Linkerd's default).
const DECAY: f64 = 10e9;

/// What is expected of an endpoint that has not answered yet, in nanoseconds: 30 ms (Linkerd's default).
const UNKNOWN: f64 = 30e6;

/// See the module. Shared by all workers; two that note an answer at the same time may lose one of them.
#[derive(Debug)]
pub struct Latency {
    base: Instant,
    /// The bits of an `f64`: nanoseconds.
    expected: AtomicU64,
    /// When that was, in nanoseconds after `base`.
    at: AtomicU64,
}

impl Latency {
    /// Of an endpoint that nothing is known of.
    pub fn new(now: Instant) -> Self {
        Self { base: now, expected: AtomicU64::new(UNKNOWN.to_bits()), at: AtomicU64::new(0) }
    }

    /// How long an answer is expected to take, in nanoseconds.
    pub fn expected(&self, now: Instant) -> f64 {
        let expected = f64::from_bits(self.expected.load(Ordering::Relaxed));
        expected * self.kept(self.since_base(now))
    }

    /// Notes an answer that took `time`.
    pub fn note(&self, time: Duration, now: Instant) {
        let now = self.since_base(now);
        let expected = f64::from_bits(self.expected.load(Ordering::Relaxed));
        let time = time.as_secs_f64() * 1e9;
        let kept = self.kept(now);
        let next = if time > expected { time } else { expected * kept + time * (1.0 - kept) };
        self.expected.store(next.to_bits(), Ordering::Relaxed);
        self.at.store(now, Ordering::Relaxed);
    }

    /// Notes that there was no answer in `time`: one takes at least as long. Sooner than an answer is expected this says nothing.
    pub fn note_unanswered(&self, time: Duration, now: Instant) {
        if time.as_secs_f64() * 1e9 > self.expected(now) {
            self.note(time, now);
        }
    }

    /// What is left at `now` of what was expected last.
    fn kept(&self, now: u64) -> f64 {
        let passed = now.saturating_sub(self.at.load(Ordering::Relaxed));
        (-(passed as f64) / DECAY).exp()
    }

    fn since_base(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.base).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: f64 = 1e6;

    #[test]
    fn what_does_not_answer_counts_as_slow_and_never_as_fast() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let latency = Latency::new(start);
        latency.note(Duration::from_millis(10), at(60));
        let known = latency.expected(at(60));

        latency.note_unanswered(Duration::from_micros(100), at(60));
        assert!((latency.expected(at(60)) - known).abs() < 1.0, "a refused connection is no fast answer");
        latency.note_unanswered(Duration::from_millis(800), at(61));
        assert!(latency.expected(at(61)) >= 800.0 * MS);
        // What is left of it is less than this.
        latency.note_unanswered(Duration::from_millis(800), at(71));
        assert!(latency.expected(at(71)) >= 300.0 * MS, "{}", latency.expected(at(71)));
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgiven_slowly() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let latency = Latency::new(start);
        assert!((latency.expected(start) - UNKNOWN).abs() < 1.0);

        latency.note(Duration::from_millis(500), at(1));
        assert!((latency.expected(at(1)) - 500.0 * MS).abs() < 1.0);

        latency.note(Duration::from_millis(5), at(2));
        let after_one = latency.expected(at(2));
        assert!(after_one > 440.0 * MS && after_one < 480.0 * MS, "{after_one}");
        assert!(latency.expected(at(62)) < 2.0 * MS, "{}", latency.expected(at(62)));
    }
}
