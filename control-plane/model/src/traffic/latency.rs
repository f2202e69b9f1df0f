//! How long requests took: four buckets for each doubling, so that what is read from them is at most a quarter off.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many buckets there are. The first has what took less than 64 µs, the last what took 134 s or more.
pub const BUCKETS: usize = 86;
/// The first doubling: 2 to the power of this, in microseconds.
const FIRST: u32 = 6;
/// Buckets for each doubling: 2 to the power of this.
const FINE: u32 = 2;

/// The bucket of what took this long.
pub fn bucket_of(time: Duration) -> u8 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let Some(power) = micros.checked_ilog2().filter(|power| *power >= FIRST) else { return 0 };
    let within = (micros >> (power - FINE)) & ((1 << FINE) - 1);
    let bucket = 1 + (u64::from(power - FIRST) << FINE) + within;
    u8::try_from(bucket.min(BUCKETS as u64 - 1)).unwrap_or(u8::MAX)
}

/// The least that a bucket has, in microseconds.
fn least_of(bucket: u8) -> u64 {
    let Some(place) = u32::from(bucket).checked_sub(1) else { return 0 };
    let (power, within) = (FIRST + (place >> FINE), u64::from(place & ((1 << FINE) - 1)));
    ((1 << FINE) + within) << (power - FINE)
}

/// Those buckets that have something, and how much.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latencies {
    /// Each bucket once, in their order.
    buckets: Vec<(u8, u64)>,
    /// All times together, in microseconds.
    micros: u64,
}

impl Latencies {
    /// So many more are in this bucket.
    pub fn note(&mut self, bucket: u8, count: u64) {
        let bucket = bucket.min(BUCKETS as u8 - 1);
        if count == 0 {
            return;
        }
        match self.buckets.binary_search_by_key(&bucket, |(known, _)| *known) {
            Ok(place) => self.buckets[place].1 = self.buckets[place].1.saturating_add(count),
            Err(place) => self.buckets.insert(place, (bucket, count)),
        }
    }

    /// They took so much longer, in microseconds.
    pub fn took(&mut self, micros: u64) {
        self.micros = self.micros.saturating_add(micros);
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            self.note(*bucket, *count);
        }
        self.took(other.micros);
    }

    /// Each bucket that has something, and how much.
    pub fn buckets(&self) -> &[(u8, u64)] {
        &self.buckets
    }

    /// All times together, in microseconds.
    pub fn micros(&self) -> u64 {
        self.micros
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// What `share` of them (0 to 1) took at most, in milliseconds; `None`: there are none.
    ///
    /// As if what is in a bucket were spread evenly over it.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (share.clamp(0.0, 1.0) * count as f64).max(1.0);
        let mut before = 0.0;
        for (bucket, within) in &self.buckets {
            let within = *within as f64;
            if before + within >= rank {
                let (least, most) = (least_of(*bucket) as f64, least_of(bucket + 1) as f64);
                return Some((least + (most - least) * (rank - before) / within) / 1_000.0);
            }
            before += within;
        }
        self.buckets.last().map(|(bucket, _)| least_of(bucket + 1) as f64 / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_begins_where_the_one_before_ends() {
        assert_eq!(bucket_of(Duration::ZERO), 0);
        assert_eq!(bucket_of(Duration::MAX), BUCKETS as u8 - 1);
        for bucket in 1..BUCKETS as u8 {
            let least = Duration::from_micros(least_of(bucket));
            assert_eq!(bucket_of(least), bucket, "{least:?}");
            assert_eq!(bucket_of(least - Duration::from_nanos(1)), bucket - 1, "just below {least:?}");
        }
        assert!(least_of(BUCKETS as u8 - 1) > 110_000_000, "nothing that is waited for is beyond");
    }

    #[test]
    fn a_quantile_is_at_most_a_quarter_off() {
        let mut latencies = Latencies::default();
        for micros in 1..=10_000 {
            latencies.note(bucket_of(Duration::from_micros(micros)), 1);
            latencies.took(micros);
        }

        for (share, expected) in [(0.5, 5.0), (0.95, 9.5), (0.99, 9.9)] {
            let found = latencies.quantile(share).expect("there are some");
            assert!((found / expected - 1.0).abs() < 0.25, "{share}: {found} ms, not {expected} ms");
        }
        assert_eq!((latencies.count(), latencies.micros()), (10_000, 50_005_000));
        assert_eq!(Latencies::default().quantile(0.5), None);
    }
}
