//! One token bucket.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How often something may happen, and how often at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The time in which one token comes back, in nanoseconds; at least 1.
    interval: u64,
    /// How many tokens a full bucket has; at least 1.
    burst: u32,
}

/// A token was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// How many are left.
    pub remaining: u32,
    /// In what time the bucket is full again.
    pub full_after: Duration,
}

/// There was no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// In what time there is one.
    pub retry_after: Duration,
    /// In what time the bucket is full again.
    pub full_after: Duration,
}

impl Rate {
    /// `requests` in each `per`, evenly; and `burst` at once. All count as at least 1, and `per` as at most a year. What
    /// does not divide evenly is rounded so that never more is let in. A burst that takes more than 73 years to come back is
    /// cut to what takes so long: more nanoseconds than that have no room in a bucket.
    pub fn new(requests: u32, per: Duration, burst: u32) -> Self {
        const YEAR: u64 = 366 * 24 * 60 * 60 * 1_000_000_000;
        const LONGEST: u64 = 1 << 61;
        let per = u64::try_from(per.as_nanos()).unwrap_or(YEAR).min(YEAR);
        let interval = per.div_ceil(requests.max(1).into()).max(1);
        let most = u32::try_from(LONGEST / interval).unwrap_or(u32::MAX);
        Self { interval, burst: burst.min(most).max(1) }
    }

    /// How many tokens a full bucket has.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// How far ahead of now a bucket may be that still has a token, in nanoseconds.
    fn tolerance(&self) -> u64 {
        self.interval.saturating_mul(u64::from(self.burst - 1))
    }

    /// How many tokens there are in a bucket that is full again in `ahead` nanoseconds.
    fn remaining(&self, ahead: u64) -> u32 {
        let missing = ahead.div_ceil(self.interval);
        u64::from(self.burst).saturating_sub(missing).try_into().unwrap_or(u32::MAX)
    }

    /// What becomes of a bucket that is full again at `full_at` if a token is taken at `now`, both in nanoseconds. The first of
    /// the answer is when it is full again then.
    pub(super) fn take(&self, full_at: u64, now: u64) -> Result<(u64, Taken), Refused> {
        let tolerance = self.tolerance();
        // A bucket from before a change of the rate is never emptier than empty.
        let ahead = full_at.saturating_sub(now).min(tolerance.saturating_add(self.interval));
        if ahead > tolerance {
            let (retry_after, full_after) =
                (Duration::from_nanos(ahead - tolerance), Duration::from_nanos(ahead));
            return Err(Refused { retry_after, full_after });
        }
        let ahead = ahead.saturating_add(self.interval);
        let taken = Taken { remaining: self.remaining(ahead), full_after: Duration::from_nanos(ahead) };
        Ok((now.saturating_add(ahead), taken))
    }

    /// When a bucket is full again to which a token is given back.
    pub(super) fn give_back(&self, full_at: u64) -> u64 {
        full_at.saturating_sub(self.interval)
    }
}

/// The bucket of everybody together. Full at first.
#[derive(Debug, Default)]
pub struct Bucket {
    /// When it is full, in nanoseconds of its table's clock.
    full_at: AtomicU64,
}

impl Bucket {
    /// Takes a token at `now`, in nanoseconds of [`super::Buckets::clock`].
    ///
    /// # Errors
    /// If there is none.
    pub fn take(&self, rate: &Rate, now: u64) -> Result<Taken, Refused> {
        spend(&self.full_at, |full_at| rate.take(full_at, now))
    }

    /// Gives back a token that was taken for nothing.
    pub fn give_back(&self, rate: &Rate) {
        let _ = spend(&self.full_at, |full_at| Ok::<_, ()>((rate.give_back(full_at), ())));
    }
}

/// Changes `word` as `change` says, as if nobody else did at the same time.
pub(super) fn spend<T, E>(word: &AtomicU64, change: impl Fn(u64) -> Result<(u64, T), E>) -> Result<T, E> {
    let mut seen = word.load(Ordering::Relaxed);
    loop {
        let (next, result) = change(seen)?;
        match word.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Ok(result),
            Err(other) => seen = other,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A token bucket as books have it: a level that rises with time. In parts of a token, `interval` to each.
    struct Naive {
        level: u64,
        at: u64,
    }

    impl Naive {
        fn take(&mut self, rate: &Rate, now: u64) -> bool {
            let most = rate.interval * u64::from(rate.burst);
            self.level = (self.level + now - self.at).min(most);
            self.at = now;
            let has_one = self.level >= rate.interval;
            self.level -= if has_one { rate.interval } else { 0 };
            has_one
        }
    }

    proptest! {
        #[test]
        fn a_bucket_lets_in_what_a_level_that_rises_lets_in(
            requests in 1..50_u32,
            burst in 1..20_u32,
            gaps in prop::collection::vec(0..300_000_000_u64, 1..100),
        ) {
            let rate = Rate::new(requests, Duration::from_secs(1), burst);
            let mut naive = Naive { level: rate.interval * u64::from(burst), at: 0 };
            let (bucket, mut now) = (Bucket::default(), 1);
            naive.at = now;
            for gap in gaps {
                now += gap;
                let expected = naive.take(&rate, now);
                match bucket.take(&rate, now) {
                    Ok(taken) => {
                        prop_assert!(expected);
                        prop_assert_eq!(u64::from(taken.remaining), naive.level / rate.interval);
                    }
                    Err(refused) => {
                        prop_assert!(!expected);
                        let missing = u128::from(rate.interval - naive.level);
                        prop_assert_eq!(refused.retry_after.as_nanos(), missing);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_refused_is_let_in_after_the_time_that_was_told() {
        let rate = Rate::new(3, Duration::from_secs(1), 2);
        let bucket = Bucket::default();
        assert_eq!(bucket.take(&rate, 5).map(|taken| taken.remaining), Ok(1));
        assert_eq!(bucket.take(&rate, 5).map(|taken| taken.remaining), Ok(0));
        let after = bucket.take(&rate, 5).unwrap_err().retry_after.as_nanos() as u64;

        assert!(bucket.take(&rate, 5 + after - 1).is_err());
        assert!(bucket.take(&rate, 5 + after).is_ok());
    }

    #[test]
    fn a_burst_that_takes_centuries_to_come_back_lets_in_no_more_than_it_says() {
        let rate = Rate::new(1, Duration::from_secs(24 * 60 * 60), 1_000_000);
        let bucket = Bucket::default();
        let taken = (0..1_000_000).take_while(|_| bucket.take(&rate, u64::MAX >> 2).is_ok()).count();
        assert_eq!(taken, rate.burst() as usize);
        assert!((26_000..27_000).contains(&taken), "{taken}");
        let year = Duration::from_secs(366 * 24 * 60 * 60);
        for (requests, per) in [(1, year), (1, Duration::MAX), (u32::MAX, Duration::ZERO)] {
            let rate = Rate::new(requests, per, u32::MAX);
            assert!(rate.interval.checked_mul(rate.burst.into()).is_some_and(|whole| whole <= 1 << 61));
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let rate = Rate::new(1, Duration::from_secs(1), 1);
        let bucket = Bucket::default();
        assert!(bucket.take(&rate, 5).is_ok());
        bucket.give_back(&rate);
        assert!(bucket.take(&rate, 5).is_ok());
        assert!(bucket.take(&rate, 5).is_err());
    }

    #[test]
    fn a_lower_rate_does_not_make_a_bucket_emptier_than_empty() {
        let (slow, fast) =
            (Rate::new(1, Duration::from_secs(3600), 5), Rate::new(10, Duration::from_secs(1), 1));
        let bucket = Bucket::default();
        assert!((0..5).all(|_| bucket.take(&slow, 5).is_ok()));

        let refused = bucket.take(&fast, 5).unwrap_err();

        assert_eq!(refused.retry_after, Duration::from_millis(100));
    }

    #[test]
    fn all_workers_together_take_no_more_than_there_is() {
        let rate = Rate::new(1, Duration::from_secs(3600), 1_000);
        let bucket = Bucket::default();
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..1_000).filter(|_| bucket.take(&rate, 5).is_ok()).count();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(taken, 1_000);
    }
}
