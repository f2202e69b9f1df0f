//! How many retries a service may be sent: a share of its requests, and a few more.
//!
//! Without it, two retries per request triple the load on a service that has just begun to fail. A fixed
//! number of concurrent retries (Envoy's other means) is too much for a small service and too little for
//! a large one; a share of the requests fits both, and the few more let rare requests be retried.
//! (Finagle, Linkerd and Tower use the same idea.)
//!
//! A ring of ten slots, each a tenth of the budget's interval, holds what each request paid in and each retry took out. A
//! retry is granted if the sum of the window, with the reserve of the few per second, covers its price; or if so few are
//! in progress that the policy allows another in any case. All workers share the ring without a lock. A slot is one
//! atomic word that holds its number and its sum, so the first worker in a new slot's time empties the slot in the same
//! step.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use selvedge_model::filter::Fraction;

/// Slots of one window.
const SLOTS: u32 = 10;
/// What a retry costs. A request pays the budget's share of it.
const PRICE: i32 = 10_000;
/// Kept in the low half of a slot when its sum is 0, so that sums below 0 do not borrow from the number.
const ZERO: u32 = 1 << 31;

/// The retries that one service, or one backend, may be sent, by all workers together.
#[derive(Debug)]
pub struct RetryBudget {
    start: Instant,
    limits: Limits,
    slots: [AtomicU64; SLOTS as usize],
}

/// How many retries a [`RetryBudget`] grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    /// What one request pays in.
    deposit: i32,
    /// What may be spent in a window without any request.
    reserve: i64,
    /// Of how many retries in progress one more is granted in any case, if there are fewer.
    at_once: u32,
    /// The time of a slot, in milliseconds; not 0.
    slot: u64,
    /// How many retries may be in progress, as a share of the requests in progress; `None`: they are counted in slots.
    in_progress: Option<Fraction>,
}

impl Limits {
    /// Those that a policy sets.
    fn of(policy: &selvedge_model::RetryBudget) -> Self {
        let interval = policy.interval.unwrap_or(selvedge_model::RetryBudget::USUAL_INTERVAL);
        let interval = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let whole = Fraction::ALL.parts() / PRICE.unsigned_abs();
        Self {
            deposit: i32::try_from(policy.share.parts() / whole).unwrap_or(PRICE),
            reserve: i64::from(policy.at_least) * i64::from(PRICE),
            at_once: policy.at_once,
            slot: (interval / u64::from(SLOTS)).max(1),
            in_progress: policy.interval.is_none().then_some(policy.share),
        }
    }
}

impl RetryBudget {
    /// The default: 20 % of the requests and 10 per second, over 10 s.
    pub fn new(now: Instant) -> Self {
        Self::with_limits(20, 10, now)
    }

    /// `percent` of the requests and `per_second` more, over 10 s.
    pub fn with_limits(percent: u8, per_second: u16, now: Instant) -> Self {
        let interval = selvedge_model::RetryBudget::USUAL_INTERVAL;
        let policy = selvedge_model::RetryBudget {
            share: Fraction::of_percent(percent.into()).unwrap_or(Fraction::ALL),
            at_once: 0,
            interval: Some(interval),
            at_least: u32::from(per_second) * u32::try_from(interval.as_secs()).unwrap_or(u32::MAX),
            refuses: false,
        };
        Self::empty(Limits::of(&policy), now)
    }

    /// As `policy` says. What was paid in and taken out `before` counts, if it was counted over the same time.
    pub fn of_policy(policy: &selvedge_model::RetryBudget, before: Option<&Self>, now: Instant) -> Self {
        let limits = Limits::of(policy);
        match before.filter(|before| before.limits.slot == limits.slot) {
            None => Self::empty(limits, now),
            Some(before) => {
                let slot = |place: usize| AtomicU64::new(before.slots[place].load(Ordering::SeqCst));
                Self { start: before.start, limits, slots: std::array::from_fn(slot) }
            }
        }
    }

    /// Whether it grants what `policy` says.
    pub fn is_of(&self, policy: &selvedge_model::RetryBudget) -> bool {
        self.limits == Limits::of(policy)
    }

    fn empty(limits: Limits, now: Instant) -> Self {
        Self { start: now, limits, slots: Default::default() }
    }

    /// Pays in for one request; its retries pay nothing in.
    pub fn deposit(&self, now: Instant) {
        if self.limits.in_progress.is_some() {
            return;
        }
        self.add(self.number(now), self.limits.deposit);
    }

    /// Takes out one retry, while this many `others` are in progress, and so many `requests`; `false` if the budget is
    /// exhausted.
    pub fn withdraw(&self, now: Instant, others: u32, requests: u32) -> bool {
        if let Some(share) = self.limits.in_progress {
            let allowed = u64::from(share.parts()) * u64::from(requests) / u64::from(Fraction::ALL.parts());
            return u64::from(others) < allowed.max(self.limits.at_once.into());
        }
        let number = self.number(now);
        // Taken first and looked at afterwards: of workers that do so together the last sees what all of
        // them took, so together they never take more than there is.
        self.add(number, -PRICE);
        let granted = others < self.limits.at_once || self.left(number) >= 0;
        if !granted {
            self.add(number, PRICE);
        }
        granted
    }

    /// Which slot of the budget's life this is. The first is 1, so that a new slot's 0 is in the past.
    fn number(&self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.start);
        let milliseconds = elapsed.as_secs().saturating_mul(1000) + u64::from(elapsed.subsec_millis());
        u32::try_from(milliseconds / self.limits.slot).unwrap_or(u32::MAX - 1).saturating_add(1)
    }

    fn add(&self, number: u32, units: i32) {
        let slot = &self.slots[(number % SLOTS) as usize];
        let added = slot.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |word| {
            let (held, sum) = unpack(word);
            // A clock read just before another worker's may be a slot behind; it adds to what it finds.
            let (number, sum) = if held < number { (number, 0) } else { (held, sum) };
            Some(pack(number, sum.saturating_add(units)))
        });
        debug_assert!(added.is_ok(), "the closure always returns a new word");
    }

    /// What the window that ends with this slot has left.
    fn left(&self, number: u32) -> i64 {
        let in_window = |(held, sum): (u32, i32)| {
            (u64::from(held) + u64::from(SLOTS) > u64::from(number)).then_some(i64::from(sum))
        };
        let slots = self.slots.iter().map(|slot| unpack(slot.load(Ordering::SeqCst)));
        self.limits.reserve.saturating_add(slots.filter_map(in_window).sum::<i64>())
    }
}

fn pack(number: u32, sum: i32) -> u64 {
    u64::from(number) << 32 | u64::from(sum.cast_unsigned() ^ ZERO)
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
        (0..tries).filter(|_| budget.withdraw(now, u32::MAX, 0)).count()
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
    fn a_policys_budget_is_counted_over_its_interval_and_its_changes_forget_nothing() {
        let policy = |percent: f64, at_once, seconds| selvedge_model::RetryBudget {
            share: Fraction::of_percent(percent).unwrap(),
            at_once,
            interval: Some(Duration::from_secs(seconds)),
            ..selvedge_model::RetryBudget::default()
        };
        let now = Instant::now();
        let budget = RetryBudget::of_policy(&policy(25.0, 0, 60), None, now);
        assert!(budget.is_of(&policy(25.0, 0, 60)) && !budget.is_of(&policy(25.0, 1, 60)));

        deposit(&budget, 100, now);
        assert_eq!(granted(&budget, 100, now + Duration::from_secs(50)), 25);

        deposit(&budget, 100, now + Duration::from_secs(50));
        let other = RetryBudget::of_policy(&policy(50.0, 2, 60), Some(&budget), now);
        assert_eq!(granted(&other, 100, now + Duration::from_secs(50)), 25, "as it was paid in");
        deposit(&other, 10, now + Duration::from_secs(51));
        assert_eq!(granted(&other, 100, now + Duration::from_secs(51)), 5);

        let other = RetryBudget::of_policy(&policy(50.0, 2, 10), Some(&other), now);
        assert_eq!(granted(&other, 100, now), 0, "what was counted over another time is not counted");
    }

    #[test]
    fn besides_its_share_a_policy_may_let_so_many_more_be_made() {
        let policy = selvedge_model::RetryBudget {
            share: Fraction::of_percent(50.0).unwrap(),
            at_once: 0,
            at_least: 3,
            interval: Some(Duration::from_secs(10)),
            ..selvedge_model::RetryBudget::default()
        };
        let now = Instant::now();
        let budget = RetryBudget::of_policy(&policy, None, now);

        assert_eq!(granted(&budget, 100, now), 3);
        deposit(&budget, 10, now);
        assert_eq!(granted(&budget, 100, now), 5);
        assert_eq!(granted(&budget, 100, now + Duration::from_secs(10)), 3);
    }

    #[test]
    fn few_retries_in_progress_are_granted_in_any_case() {
        let policy = selvedge_model::RetryBudget {
            share: Fraction::NONE,
            at_once: 2,
            interval: Some(Duration::from_secs(10)),
            ..selvedge_model::RetryBudget::default()
        };
        let now = Instant::now();
        let budget = RetryBudget::of_policy(&policy, None, now);

        deposit(&budget, 100, now);

        let granted: Vec<_> = (0..4).map(|others| budget.withdraw(now, others, 100)).collect();
        assert_eq!(granted, [true, true, false, false]);
    }

    #[test]
    fn without_an_interval_retries_in_progress_are_a_share_of_the_requests_in_progress() {
        let policy = selvedge_model::RetryBudget {
            share: Fraction::of_percent(25.0).unwrap(),
            ..selvedge_model::RetryBudget::default()
        };
        let now = Instant::now();
        let budget = RetryBudget::of_policy(&policy, None, now);
        let allowed = |requests| (0..).take_while(|others| budget.withdraw(now, *others, requests)).count();

        // Istio's own example; and 3 by default, however few requests there are.
        assert_eq!([100, 99, 16, 15, 1].map(allowed), [25, 24, 4, 3, 3]);
        deposit(&budget, 1_000, now);
        assert_eq!(allowed(20), 5, "what was before does not count");
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
