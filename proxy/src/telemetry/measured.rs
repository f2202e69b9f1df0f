//! What is measured of requests: how long they took, and how many bytes their bodies and those of their answers had.
//!
//! Only one worker writes to one of these, and each scrape adds them up.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering, fence},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    counter::add,
    page::{Exemplar, Histogram, Page, Written},
    trace_id::TraceId,
};

/// How many buckets of times have an upper bound. One more has none.
const TIMES: usize = 13;
/// How many buckets of sizes have.
const SIZES: usize = 8;

/// Upper bounds of the buckets of times, in milliseconds.
pub(super) const TIMES_MS: [u64; TIMES] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];
/// The same in seconds.
const TIMES_SECONDS: [f64; TIMES] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// The same as the field's older metrics have them.
const TIMES_MILLISECONDS: [f64; TIMES] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0];
/// Upper bounds of the buckets of sizes, in bytes.
const SIZES_BYTES: [u64; SIZES] = [0, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
/// The same as numbers of a text.
const SIZES_TOLD: [f64; SIZES] = [0.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8];

/// What is measured of one request.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Measure {
    /// From its first byte to the last of its answer.
    pub(super) time: Duration,
    /// Bytes of its body.
    pub(super) received: u64,
    /// Bytes of the answer's body.
    pub(super) sent: u64,
    /// The trace that it is part of, if that is kept.
    pub(super) trace: Option<TraceId>,
}

/// What one worker has measured.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Measured {
    times: Buckets<{ TIMES + 1 }>,
    received: Buckets<{ SIZES + 1 }>,
    sent: Buckets<{ SIZES + 1 }>,
    /// Made by the first request whose trace is kept.
    traced: OnceLock<Box<[Traced; TIMES + 1]>>,
}

/// How many had at most so much, and how much all had together.
#[derive(Debug)]
struct Buckets<const N: usize> {
    counts: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

impl<const N: usize> Buckets<N> {
    fn add(&self, bucket: usize, value: u64) {
        if let Some(count) = self.counts.get(bucket) {
            add(count, 1);
        }
        add(&self.sum, value);
    }

    fn add_to(&self, total: &mut Total<N>) {
        for (total, count) in total.counts.iter_mut().zip(&self.counts) {
            *total += count.load(Ordering::Relaxed);
        }
        total.sum = total.sum.wrapping_add(self.sum.load(Ordering::Relaxed));
    }
}

/// The last request of a bucket whose trace is kept. Its worker writes it while others read: a reader that sees an odd
/// `round`, or another one afterwards, has not read one request.
#[derive(Debug, Default)]
struct Traced {
    round: AtomicU64,
    /// The higher and the lower half of the trace's id, the time in nanoseconds, and when, in milliseconds since 1970.
    fields: [AtomicU64; 4],
}

impl Traced {
    fn write(&self, fields: [u64; 4]) {
        let round = self.round.load(Ordering::Relaxed);
        self.round.store(round.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (field, value) in self.fields.iter().zip(fields) {
            field.store(value, Ordering::Relaxed);
        }
        self.round.store(round.wrapping_add(2), Ordering::Release);
    }

    /// `None`: there is none, or it is just written.
    fn read(&self) -> Option<[u64; 4]> {
        let round = self.round.load(Ordering::Acquire);
        let fields = std::array::from_fn(|place| self.fields[place].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        (round != 0 && round.is_multiple_of(2) && self.round.load(Ordering::Relaxed) == round)
            .then_some(fields)
    }
}

impl Measured {
    pub(super) fn record(&self, measure: &Measure) {
        let nanos = u64::try_from(measure.time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = TIMES_MS.partition_point(|bound| bound * 1_000_000 < nanos);
        self.times.add(bucket, nanos);
        let of_size = |bytes: u64| SIZES_BYTES.partition_point(|bound| *bound < bytes);
        self.received.add(of_size(measure.received), measure.received);
        self.sent.add(of_size(measure.sent), measure.sent);
        if let Some(trace) = measure.trace {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let traced = self.traced.get_or_init(Box::default);
            traced[bucket].write([
                (trace.0 >> 64) as u64,
                trace.0 as u64,
                nanos,
                u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            ]);
        }
    }
}

/// Numbers of several workers, added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Total<const N: usize> {
    counts: [u64; N],
    sum: u64,
}

/// What all workers have measured.
#[derive(Debug)]
pub(super) struct Sum {
    times: Total<{ TIMES + 1 }>,
    received: Total<{ SIZES + 1 }>,
    sent: Total<{ SIZES + 1 }>,
    exemplars: [Option<Exemplar>; TIMES + 1],
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            times: Total { counts: [0; TIMES + 1], sum: 0 },
            received: Total { counts: [0; SIZES + 1], sum: 0 },
            sent: Total { counts: [0; SIZES + 1], sum: 0 },
            exemplars: [None; TIMES + 1],
        }
    }
}

impl<'a> FromIterator<&'a Measured> for Sum {
    fn from_iter<T: IntoIterator<Item = &'a Measured>>(all: T) -> Self {
        let mut sum = Self::default();
        for one in all {
            one.times.add_to(&mut sum.times);
            one.received.add_to(&mut sum.received);
            one.sent.add_to(&mut sum.sent);
            let Some(traced) = one.traced.get() else { continue };
            for (newest, one) in sum.exemplars.iter_mut().zip(traced.iter()) {
                let Some([high, low, nanos, at]) = one.read() else { continue };
                let trace = TraceId(u128::from(high) << 64 | u128::from(low));
                let one = Exemplar { trace, value: nanos as f64 / 1e9, at: at as f64 / 1e3 };
                *newest = later(*newest, Some(one));
            }
        }
        sum
    }
}

/// The later of the two.
fn later(one: Option<Exemplar>, other: Option<Exemplar>) -> Option<Exemplar> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if one.at < other.at { other } else { one }),
        (one, other) => one.or(other),
    }
}

impl<const N: usize> Total<N> {
    fn add(&mut self, other: &Self) {
        for (total, count) in self.counts.iter_mut().zip(&other.counts) {
            *total += count;
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

impl Sum {
    /// Adds what others have measured.
    pub(super) fn add(&mut self, other: &Self) {
        self.times.add(&other.times);
        self.received.add(&other.received);
        self.sent.add(&other.sent);
        for (newest, other) in self.exemplars.iter_mut().zip(&other.exemplars) {
            *newest = later(*newest, *other);
        }
    }

    /// How many requests were measured.
    pub(super) fn count(&self) -> u64 {
        self.times.counts.iter().sum()
    }

    /// Adds how long they took, in seconds.
    pub(super) fn write_seconds(&self, page: &mut Page, name: &str, labels: &Written) {
        let histogram = Histogram {
            bounds: &TIMES_SECONDS,
            counts: &self.times.counts,
            sum: self.times.sum as f64 / 1e9,
            exemplars: &self.exemplars,
        };
        page.histogram(name, labels, &histogram);
    }

    /// Adds how long they took, in milliseconds.
    pub(super) fn write_milliseconds(&self, page: &mut Page, name: &str, labels: &Written) {
        let in_milliseconds = |exemplar: Exemplar| Exemplar { value: exemplar.value * 1e3, ..exemplar };
        let exemplars = self.exemplars.map(|exemplar| exemplar.map(in_milliseconds));
        let histogram = Histogram {
            bounds: &TIMES_MILLISECONDS,
            counts: &self.times.counts,
            sum: self.times.sum as f64 / 1e6,
            exemplars: &exemplars,
        };
        page.histogram(name, labels, &histogram);
    }

    /// Adds how many bytes their bodies had.
    pub(super) fn write_received(&self, page: &mut Page, name: &str, labels: &Written) {
        write_sizes(&self.received, page, name, labels);
    }

    /// Adds how many bytes the bodies of their answers had.
    pub(super) fn write_sent(&self, page: &mut Page, name: &str, labels: &Written) {
        write_sizes(&self.sent, page, name, labels);
    }
}

fn write_sizes(sizes: &Total<{ SIZES + 1 }>, page: &mut Page, name: &str, labels: &Written) {
    let histogram =
        Histogram { bounds: &SIZES_TOLD, counts: &sizes.counts, sum: sizes.sum as f64, exemplars: &[] };
    page.histogram(name, labels, &histogram);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_first_bucket_that_it_does_not_exceed() {
        let measured = Measured::default();
        let (first, last) = (Duration::from_millis(1), Duration::from_secs(10));
        let just = Duration::from_nanos(1);
        for time in [Duration::ZERO, first, first + just, last, last + just] {
            measured.record(&Measure { time, ..Measure::default() });
        }

        let sum: Sum = [&measured].into_iter().collect();
        assert_eq!(sum.count(), 5);
        assert_eq!(sum.times.sum, u64::try_from((2 * (first + last) + 2 * just).as_nanos()).unwrap());
        assert_eq!(sum.times.counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn sizes_are_counted_and_the_newest_trace_of_a_bucket_is_named() {
        let (one, other) = (Measured::default(), Measured::default());
        let time = Duration::from_millis(3);
        one.record(&Measure { time, received: 5, sent: 101, trace: Some(TraceId(1)) });
        one.record(&Measure { time, received: 0, sent: u64::MAX / 2, trace: Some(TraceId(2)) });
        other.record(&Measure { time, ..Measure::default() });

        let sum: Sum = [&one, &other].into_iter().collect();
        assert_eq!(sum.received.counts, [2, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(sum.sent.counts, [1, 0, 1, 0, 0, 0, 0, 0, 1]);
        let exemplar = sum.exemplars[2].expect("one of this bucket");
        assert_eq!((exemplar.trace, exemplar.value), (TraceId(2), 0.003));
        let mut page = Page::default();
        sum.write_milliseconds(&mut page, "a", &Written::default().with("b", "\"c\""));
        let text = page.into_text();
        let line = text.lines().find(|line| line.contains("trace_id")).expect("an exemplar");
        let start = r#"a_bucket{b="\"c\"",le="5.0"} 3 # {trace_id="00000000000000000000000000000002"} 3 "#;
        assert!(line.starts_with(start), "{line}");
    }
}
