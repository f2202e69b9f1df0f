//! How many retries a service may be sent: a share of its requests, and a few per second.
//!
//! Without it, two retries per request triple the load on a service that has just begun to fail. A fixed
//! number of concurrent retries (Envoy's other means) is too much for a small service and too little for
//! a large one; a share of the requests fits both, and the few per second let rare requests be retried.
//! (Finagle, Linkerd and Tower use the same idea.)
//!
//! A ring of ten slots of one second holds what each request paid in and each retry took out. A retry is granted if the
//! sum of the window, with the reserve of the few per second, covers its price. All workers share the ring without a
//! lock. A slot is one atomic word that holds its second and its sum, so the first worker in a new second empties the
//! slot in the same step.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Slots of one second: the window is 10 s.
const SLOTS: u32 = 10;
/// What a retry costs. A request pays the budget's percentage of it.
const PRICE: i32 = 100;
/// Kept in the low half of a slot when its sum is 0, so that sums below 0 do not borrow from the second.
const ZERO: u32 = 1 << 31;

/// The retries that one service may be sent, by all workers together.
#[derive(Debug)]
pub struct RetryBudget {
    start: Instant,
    /// What one request pays in.
    percent: i32,
    /// What may be spent in a window without any request.
    reserve: i64,
    slots: [AtomicU64; SLOTS as usize],
}

impl RetryBudget {
    /// The default: 20 % of the requests and 10 per second, over 10 s.
    pub fn new(now: Instant) -> Self {
        Self::with_limits(20, 10, now)
    }

    /// `percent` of the requests and `per_second` more, over 10 s.
    pub fn with_limits(percent: u8, per_second: u16, now: Instant) -> Self {
        Self {
            start: now,
            percent: i32::from(percent),
            reserve: i64::from(per_second) * i64::from(SLOTS) * i64::from(PRICE),
            slots: Default::default(),
        }
    }

    /// Pays in for one request; its retries pay nothing in.
    pub fn deposit(&self, now: Instant) {
        self.add(self.second(now), self.percent);
    }

    /// Takes out one retry; `false` if the budget is exhausted.
    pub fn withdraw(&self, now: Instant) -> bool {
        let second = self.second(now);
        // Taken first and looked at afterwards: of workers that do so together the last sees what all of
        // them took, so together they never take more than there is.
        self.add(second, -PRICE);
        let granted = self.left(second) >= 0;
        if !granted {
            self.add(second, PRICE);
        }
        granted
    }

    /// Which second of the budget's life this is. The first is 1, so that a new slot's 0 is in the past.
    fn second(&self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.start).as_secs();
        u32::try_from(elapsed).unwrap_or(u32::MAX - 1) + 1
    }

    fn add(&self, second: u32, units: i32) {
        let slot = &self.slots[(second % SLOTS) as usize];
        let added = slot.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |word| {
            let (held, sum) = unpack(word);
            // A clock read just before another worker's may be a slot behind; it adds to what it finds.
            let (second, sum) = if held < second { (second, 0) } else { (held, sum) };
            Some(pack(second, sum.saturating_add(units)))
        });
        debug_assert!(added.is_ok(), "the closure always returns a new word");
    }

    /// What the window that ends with this second has left.
    fn left(&self, second: u32) -> i64 {
        let in_window = |(held, sum): (u32, i32)| (held + SLOTS > second).then_some(i64::from(sum));
        let slots = self.slots.iter().map(|slot| unpack(slot.load(Ordering::SeqCst)));
        self.reserve + slots.filter_map(in_window).sum::<i64>()
    }
}

fn pack(second: u32, sum: i32) -> u64 {
    u64::from(second) << 32 | u64::from(sum.cast_unsigned() ^ ZERO)
}

fn unpack(word: u64) -> (u32, i32) {
    if word == 0 {
        return (0, 0);
    }
    let low = (word & u64::from(u32::MAX)) as u32;
    ((word >> 32) as u32, (low ^ ZERO).cast_signed())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn granted(budget: &RetryBudget, tries: usize, now: Instant) -> usize {
        (0..tries).filter(|_| budget.withdraw(now)).count()
    }

    fn deposit(budget: &RetryBudget, requests: usize, now: Instant) {
        (0..requests).for_each(|_| budget.deposit(now));
    }

    #[test]
    fn without_requests_ten_per_second_are_granted() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);

        assert_eq!(granted(&budget, 1_000, now), 100);
        assert_eq!(granted(&budget, 1_000, now + Duration::from_secs(9)), 0);
        assert_eq!(granted(&budget, 1_000, now + Duration::from_secs(10)), 100);
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_retried() {
        let now = Instant::now();
        let budget = RetryBudget::with_limits(20, 0, now);

        deposit(&budget, 4, now);
        assert_eq!(granted(&budget, 10, now), 0);
        deposit(&budget, 1, now);
        assert_eq!(granted(&budget, 10, now), 1);
        deposit(&budget, 1_000, now + Duration::from_secs(3));
        assert_eq!(granted(&budget, 1_000, now + Duration::from_secs(5)), 200);
    }

    #[test]
    fn what_was_not_used_within_the_window_is_gone() {
        let now = Instant::now();
        let budget = RetryBudget::with_limits(20, 0, now);

        deposit(&budget, 1_000, now);
        assert_eq!(granted(&budget, 1, now + Duration::from_secs(9)), 1);
        assert_eq!(granted(&budget, 1_000, now + Duration::from_secs(10)), 0);
    }

    #[test]
    fn a_refused_retry_costs_nothing() {
        let now = Instant::now();
        let budget = RetryBudget::with_limits(20, 0, now);

        assert_eq!(granted(&budget, 1_000, now), 0);
        deposit(&budget, 5, now);
        assert_eq!(granted(&budget, 1_000, now), 1);
    }

    #[test]
    fn a_slot_holds_every_sum() {
        for sum in [i32::MIN, -100, -1, 0, 1, 20, i32::MAX] {
            assert_eq!(unpack(pack(7, sum)), (7, sum));
        }
    }

    #[test]
    fn workers_together_get_no_more_than_one_would() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);
        deposit(&budget, 1_000, now);

        let total: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| granted(&budget, 1_000, now))).collect();
            workers.into_iter().map(|worker| worker.join().expect("no worker panics")).sum()
        });

        // Those that ask at the same moment may both be refused the last one, but never both get it.
        assert!((297..=300).contains(&total), "{total}");
    }

    proptest! {
        /// Per window that ends at a retry: the share of its requests and the few per second, where the
        /// window of 10 s may have begun up to one slot later. Over all time: the same, per window begun.
        #[test]
        fn retries_never_exceed_the_share_and_the_few_per_second(
            events in proptest::collection::vec((0_u64..900, 0_usize..40, 0_usize..60), 1..200),
        ) {
            let start = Instant::now();
            let budget = RetryBudget::new(start);
            let (mut now, mut requests, mut retries) = (start, Vec::new(), Vec::<Instant>::new());

            for (pause, requested, tried) in events {
                now += Duration::from_millis(pause);
                deposit(&budget, requested, now);
                requests.extend(std::iter::repeat_n(now, requested));
                let granted = granted(&budget, tried, now);
                retries.extend(std::iter::repeat_n(now, granted));
                if granted > 0 {
                    let since = |times: &[Instant], window| {
                        times.iter().filter(|at| now - **at < Duration::from_secs(window)).count()
                    };
                    let (retried, requested) = (since(&retries, 9), since(&requests, 10));
                    prop_assert!(retried * 5 <= requested + 500, "{retried} of {requested}");
                }
            }

            let windows = ((now - start).as_secs() as usize + 1).div_ceil(10);
            prop_assert!(retries.len() * 5 <= requests.len() + 500 * windows);
        }
    }
}
