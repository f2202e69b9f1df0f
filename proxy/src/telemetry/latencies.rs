//! How long the requests of one series took on one worker, as finely as the control plane is told it.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use selvedge_model::traffic::{BUCKETS, bucket_of};

use super::counter::add;

/// Only its worker writes them. They wrap around: whoever reads looks at differences.
#[derive(Debug)]
pub(super) struct Latencies {
    buckets: [AtomicU32; BUCKETS],
    micros: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU32::new(0)), micros: AtomicU64::new(0) }
    }
}

/// Those of all workers, added up.
#[derive(Debug, Clone)]
pub(super) struct Sum {
    pub(super) buckets: [u32; BUCKETS],
    pub(super) micros: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], micros: 0 }
    }
}

impl Latencies {
    pub(super) fn record(&self, time: Duration) {
        let bucket = &self.buckets[usize::from(bucket_of(time))];
        bucket.store(bucket.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        add(&self.micros, u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

impl<'a> FromIterator<&'a Latencies> for Sum {
    fn from_iter<T: IntoIterator<Item = &'a Latencies>>(all: T) -> Self {
        let mut sum = Self::default();
        for one in all {
            for (total, bucket) in sum.buckets.iter_mut().zip(&one.buckets) {
                *total = total.wrapping_add(bucket.load(Ordering::Relaxed));
            }
            sum.micros = sum.micros.wrapping_add(one.micros.load(Ordering::Relaxed));
        }
        sum
    }
}
