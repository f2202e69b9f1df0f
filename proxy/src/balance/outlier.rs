//! Outlier ejection: stop sending to an endpoint that keeps failing, then let it back in.
//!
//! Envoy's algorithm, with two differences. Nothing runs on a timer: whoever asks first after an
//! ejection's time ends it, and the multiplier's decay is worked out when it is next needed. And the
//! share ejected at once never passes `max_ejection_percent` (but for one endpoint, which may always be
//! ejected): a fault in *our* network looks like every endpoint failing together, and then it is better
//! to go on trying than to have nobody to call.
//!
//! All state is atomics, because workers share it. Each step that must happen once (ejecting, ending an
//! ejection) is one compare-and-exchange on the end of the ejection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use selvedge_model::OutlierDetection;

/// [`Health::ejected_until`] of an endpoint that is not ejected.
const NOT_EJECTED: u64 = 0;
/// [`Health::ejected_until`] of an endpoint that has left its backend.
const FORGOTTEN: u64 = u64::MAX;

/// How an attempt ended, as far as ejection is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer below 500.
    Success,
    /// A 5xx other than 502, 503 and 504.
    Failure5xx,
    /// 502, 503, 504, or no answer: not connected, reset, timed out.
    GatewayFailure,
}

impl Outcome {
    /// The outcome that an answer's status means.
    pub const fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayFailure,
            500..=599 => Self::Failure5xx,
            _ => Self::Success,
        }
    }
}

/// Which limit an endpoint reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// `consecutive5xxErrors`.
    Consecutive5xx,
    /// `consecutiveGatewayErrors`.
    ConsecutiveGatewayErrors,
}

impl Why {
    /// The word for logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive-5xx",
            Self::ConsecutiveGatewayErrors => "consecutive-gateway-errors",
        }
    }
}

/// An ejection that has just begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejected {
    /// How long it lasts.
    pub time: Duration,
    /// What the base time was multiplied by: 1 at first, one more with each ejection, one less with each
    /// healthy interval.
    pub times: u32,
    /// Which limit was reached.
    pub why: Why,
    /// The failures in a row that reached it.
    pub failures: u32,
}

/// Why an endpoint was ejected last, for people who ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Which limit was reached.
    pub why: Why,
    /// The failures in a row that reached it.
    pub failures: u32,
    /// The last of them, in words.
    pub last: String,
}

/// One endpoint's recent failures, and whether it is ejected. Belongs to one [`Ejection`] for life.
#[derive(Debug, Default)]
pub struct Health {
    /// 5xx and unanswered attempts since the last success.
    consecutive_5xx: AtomicU32,
    /// Gateway failures since the last other answer.
    consecutive_gateway_errors: AtomicU32,
    /// When the ejection ends, in nanoseconds since [`Shared::base`].
    ejected_until: AtomicU64,
    /// When the last ejection ended or will end, from which healthy intervals are counted.
    last_end: AtomicU64,
    /// What the last ejection's base time was multiplied by.
    times: AtomicU32,
    /// Why it was ejected last.
    cause: ArcSwapOption<Cause>,
}

impl Health {
    /// A new endpoint: no failures.
    pub fn new() -> Self {
        Self::default()
    }

    /// 5xx and unanswered attempts since the last success.
    pub fn consecutive_failures(&self) -> u32 {
        self.consecutive_5xx.load(Ordering::Relaxed)
    }

    /// Why it was ejected last; `None`: it never was.
    pub fn cause(&self) -> Option<Arc<Cause>> {
        self.cause.load_full()
    }

    /// Keeps why it was `ejected`, with its `last` failure in words.
    pub fn explain(&self, ejected: &Ejected, last: String) {
        let Ejected { why, failures, .. } = *ejected;
        self.cause.store(Some(Arc::new(Cause { why, failures, last })));
    }

    /// Notes a success. As [`Ejection::record`], but no clock is read for it.
    pub fn forgive(&self) {
        // Looked at before it is written: on the usual path nobody writes to memory that workers share.
        for failures in [&self.consecutive_5xx, &self.consecutive_gateway_errors] {
            if failures.load(Ordering::Relaxed) != 0 {
                failures.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Counts one failure and names the limit that it reaches, if any, and the failures that it took.
    fn count(&self, outcome: Outcome, settings: &OutlierDetection) -> Option<(Why, u32)> {
        let gateway_errors = if outcome == Outcome::GatewayFailure {
            self.consecutive_gateway_errors.fetch_add(1, Ordering::Relaxed).saturating_add(1)
        } else {
            self.consecutive_gateway_errors.store(0, Ordering::Relaxed);
            0
        };
        let any_5xx = self.consecutive_5xx.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let reached = |limit: Option<u32>, count| limit.is_some_and(|limit| limit > 0 && count >= limit);
        if reached(settings.consecutive_gateway_errors, gateway_errors) {
            Some((Why::ConsecutiveGatewayErrors, gateway_errors))
        } else if reached(settings.consecutive_5xx, any_5xx) {
            Some((Why::Consecutive5xx, any_5xx))
        } else {
            None
        }
    }
}

/// The ejections of one backend's endpoints.
///
/// Survives a change of configuration: [`Self::with_settings`] gives the same ejections under new
/// settings. If a backend gets a *new* `Ejection`, its endpoints must get new [`Health`] too.
#[derive(Debug)]
pub struct Ejection {
    settings: OutlierDetection,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// What times are counted from.
    base: Instant,
    /// Endpoints whose ejection has not been ended yet.
    ejected: AtomicUsize,
}

impl Ejection {
    /// Nothing ejected yet. `now` is what later times are counted from.
    pub fn new(settings: OutlierDetection, now: Instant) -> Self {
        Self { settings, shared: Arc::new(Shared { base: now, ejected: AtomicUsize::new(0) }) }
    }

    /// The same ejections, under settings that hold from now on; those in progress keep their end.
    #[must_use]
    pub fn with_settings(&self, settings: OutlierDetection) -> Self {
        Self { settings, shared: Arc::clone(&self.shared) }
    }

    /// The settings in force.
    pub fn settings(&self) -> &OutlierDetection {
        &self.settings
    }

    /// Whether no endpoint of this backend is ejected, without asking each.
    pub fn none_ejected(&self) -> bool {
        self.ejected() == 0
    }

    /// How many endpoints are ejected, counting those whose time is over but which nobody has asked for.
    pub fn ejected(&self) -> usize {
        self.shared.ejected.load(Ordering::Relaxed)
    }

    /// Notes how an attempt ended, and ejects the endpoint if that was one failure too many.
    ///
    /// `endpoints` is how many the backend has now. A failure counts on while the cap forbids ejecting, so
    /// that an endpoint that goes on failing is ejected as soon as there is room.
    pub fn record(
        &self,
        health: &Health,
        outcome: Outcome,
        endpoints: usize,
        now: Instant,
    ) -> Option<Ejected> {
        if outcome == Outcome::Success {
            health.forgive();
            return None;
        }
        // The late answer to a request that was sent before the ejection says nothing new.
        if self.is_ejected(health, now) {
            return None;
        }
        let reached = health.count(outcome, &self.settings)?;
        self.eject(health, reached, endpoints, now)
    }

    /// Whether the endpoint must not be called now. Ends an ejection whose time is over.
    pub fn is_ejected(&self, health: &Health, now: Instant) -> bool {
        self.remaining(health, now).is_some()
    }

    /// How much longer the endpoint must not be called; `None` if it may be. Ends an ejection whose time
    /// is over.
    pub fn remaining(&self, health: &Health, now: Instant) -> Option<Duration> {
        let until = health.ejected_until.load(Ordering::Acquire);
        if until == NOT_EJECTED || until == FORGOTTEN {
            return None;
        }
        let now = self.since_base(now);
        if now < until {
            return Some(Duration::from_nanos(until - now));
        }
        self.end(health, until);
        None
    }

    /// The endpoint has left the backend: it no longer counts, and can no longer be ejected. If it comes
    /// back it starts with new [`Health`].
    pub fn forget(&self, health: &Health) {
        let until = health.ejected_until.swap(FORGOTTEN, Ordering::AcqRel);
        if until != NOT_EJECTED && until != FORGOTTEN {
            self.give_place_back();
        }
    }

    fn eject(
        &self,
        health: &Health,
        (why, failures): (Why, u32),
        endpoints: usize,
        now: Instant,
    ) -> Option<Ejected> {
        if !self.take_place(endpoints) {
            return None;
        }
        let now = self.since_base(now);
        let (times, time) = self.next_time(health, now);
        let until = now.saturating_add(nanos(time)).clamp(NOT_EJECTED + 1, FORGOTTEN - 1);
        let first =
            health.ejected_until.compare_exchange(NOT_EJECTED, until, Ordering::AcqRel, Ordering::Relaxed);
        if first.is_err() {
            // Another worker was faster, or the endpoint has left.
            self.give_place_back();
            return None;
        }
        health.last_end.store(until, Ordering::Relaxed);
        health.times.store(times, Ordering::Relaxed);
        Some(Ejected { time, times, why, failures })
    }

    /// Ends the ejection that was to last until `until`; only one caller's exchange succeeds.
    fn end(&self, health: &Health, until: u64) {
        let ended =
            health.ejected_until.compare_exchange(until, NOT_EJECTED, Ordering::AcqRel, Ordering::Relaxed);
        if ended.is_ok() {
            health.forgive();
            self.give_place_back();
        }
    }

    /// The multiplier and length of an ejection that begins now.
    fn next_time(&self, health: &Health, now: u64) -> (u32, Duration) {
        let OutlierDetection { interval, base_ejection_time, max_ejection_time, .. } = self.settings;
        let healthy = now.saturating_sub(health.last_end.load(Ordering::Relaxed));
        let healthy_intervals = healthy.checked_div(nanos(interval)).unwrap_or(u64::MAX);
        let decayed = u64::from(health.times.load(Ordering::Relaxed)).saturating_sub(healthy_intervals);
        // As in Envoy the multiplier stops at the longest ejection, so that it decays from there and not
        // from a number that grew on unseen.
        let most = nanos(max_ejection_time).div_ceil(nanos(base_ejection_time).max(1)).max(1);
        let times = u32::try_from((decayed + 1).min(most)).unwrap_or(u32::MAX);
        (times, base_ejection_time.saturating_mul(times).min(max_ejection_time))
    }

    /// Counts one more ejected endpoint, if the cap allows it.
    fn take_place(&self, endpoints: usize) -> bool {
        let percent = usize::from(self.settings.max_ejection_percent);
        let one_more = |ejected: usize| {
            let within_cap = ejected == 0 || (ejected + 1) * 100 <= endpoints * percent;
            within_cap.then_some(ejected + 1)
        };
        self.shared.ejected.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more).is_ok()
    }

    fn give_place_back(&self) {
        let one_less = |ejected: usize| ejected.checked_sub(1);
        let given_back = self.shared.ejected.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_less);
        debug_assert!(given_back.is_ok(), "an ejection was ended that this backend did not begin");
    }

    fn since_base(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.shared.base))
    }
}

/// Nanoseconds: 584 years of them fit.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Three failures eject, for 2 s at first; no cap.
    fn settings() -> OutlierDetection {
        OutlierDetection {
            consecutive_5xx: Some(3),
            consecutive_gateway_errors: None,
            interval: SECOND,
            base_ejection_time: 2 * SECOND,
            max_ejection_time: 300 * SECOND,
            max_ejection_percent: 100,
        }
    }

    fn fail(ejection: &Ejection, health: &Health, times: usize, now: Instant) -> Option<Ejected> {
        (0..times).filter_map(|_| ejection.record(health, Outcome::Failure5xx, 2, now)).next()
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_starts_again() {
        let now = Instant::now();
        let (ejection, health) = (Ejection::new(settings(), now), Health::new());

        assert_eq!(fail(&ejection, &health, 2, now), None);
        assert_eq!(ejection.record(&health, Outcome::Success, 2, now), None);
        assert_eq!(fail(&ejection, &health, 2, now), None);
        assert!(!ejection.is_ejected(&health, now));

        let third = ejection.record(&health, Outcome::GatewayFailure, 2, now);
        assert_eq!(
            third,
            Some(Ejected { time: 2 * SECOND, times: 1, why: Why::Consecutive5xx, failures: 3 })
        );
        assert!(ejection.is_ejected(&health, now));
        assert!(!ejection.none_ejected());
    }

    #[test]
    fn an_ejected_endpoint_returns_after_its_time_and_not_before() {
        let now = Instant::now();
        let (ejection, health) = (Ejection::new(settings(), now), Health::new());
        fail(&ejection, &health, 3, now);

        assert!(ejection.is_ejected(&health, now + 2 * SECOND - Duration::from_nanos(1)));
        assert_eq!(ejection.remaining(&health, now + SECOND), Some(SECOND));
        assert!(!ejection.is_ejected(&health, now + 2 * SECOND));
        assert!(ejection.none_ejected());
        assert_eq!(fail(&ejection, &health, 2, now + 2 * SECOND), None, "it starts without failures");
    }

    #[test]
    fn answers_that_come_while_ejected_are_not_counted() {
        let now = Instant::now();
        let (ejection, health) = (Ejection::new(settings(), now), Health::new());
        fail(&ejection, &health, 3, now);

        assert_eq!(fail(&ejection, &health, 10, now + SECOND), None);
        assert!(!ejection.is_ejected(&health, now + 2 * SECOND));
        assert_eq!(fail(&ejection, &health, 2, now + 2 * SECOND), None);
    }

    #[test]
    fn each_ejection_is_longer_and_each_healthy_interval_forgives_one() {
        let start = Instant::now();
        let (ejection, health) = (Ejection::new(settings(), start), Health::new());

        let first = fail(&ejection, &health, 3, start).expect("ejected");
        let second = fail(&ejection, &health, 3, start + 2 * SECOND).expect("ejected");
        let third = fail(&ejection, &health, 3, start + 6 * SECOND).expect("ejected");
        assert_eq!([first.times, second.times, third.times], [1, 2, 3]);
        assert_eq!([first.time, second.time, third.time], [2 * SECOND, 4 * SECOND, 6 * SECOND]);

        // Ends at 12 s; healthy for two intervals of 1 s.
        let fourth = fail(&ejection, &health, 3, start + 14 * SECOND).expect("ejected");
        assert_eq!(fourth.times, 2);
        // Ends at 18 s; healthy for long enough to have no record.
        let fifth = fail(&ejection, &health, 3, start + 60 * SECOND).expect("ejected");
        assert_eq!(fifth.times, 1);
    }

    #[test]
    fn no_ejection_is_longer_than_the_longest() {
        let mut now = Instant::now();
        let longest = OutlierDetection { max_ejection_time: 5 * SECOND, ..settings() };
        let (ejection, health) = (Ejection::new(longest, now), Health::new());

        let times: Vec<Duration> = (0..5)
            .map(|_| {
                let time = fail(&ejection, &health, 3, now).expect("ejected").time;
                now += time;
                time
            })
            .collect();

        assert_eq!(times, [2 * SECOND, 4 * SECOND, 5 * SECOND, 5 * SECOND, 5 * SECOND]);
        // The multiplier stopped at 3: after two healthy intervals it is back at 1, then one more.
        assert_eq!(fail(&ejection, &health, 3, now + 2 * SECOND).expect("ejected").times, 2);
    }

    #[test]
    fn gateway_errors_have_a_limit_of_their_own_which_other_failures_reset() {
        let now = Instant::now();
        let two =
            OutlierDetection { consecutive_5xx: None, consecutive_gateway_errors: Some(2), ..settings() };
        let (ejection, health) = (Ejection::new(two, now), Health::new());
        let record = |outcome| ejection.record(&health, outcome, 2, now);

        assert_eq!(record(Outcome::GatewayFailure), None);
        assert_eq!(record(Outcome::Failure5xx), None);
        assert_eq!(record(Outcome::GatewayFailure), None);
        let ejected = record(Outcome::GatewayFailure).expect("two in a row");
        assert_eq!(ejected.why, Why::ConsecutiveGatewayErrors);
    }

    #[test]
    fn a_limit_of_zero_or_none_never_ejects() {
        let now = Instant::now();
        let off =
            OutlierDetection { consecutive_5xx: Some(0), consecutive_gateway_errors: None, ..settings() };
        let (ejection, health) = (Ejection::new(off, now), Health::new());

        assert_eq!(fail(&ejection, &health, 100, now), None);
    }

    #[test]
    fn one_endpoint_may_always_be_ejected_and_the_next_only_within_the_cap() {
        let now = Instant::now();
        let ten_percent = OutlierDetection { max_ejection_percent: 10, ..settings() };
        let ejection = Ejection::new(ten_percent, now);
        let (first, second) = (Health::new(), Health::new());

        assert!(fail(&ejection, &first, 3, now).is_some());
        assert_eq!(fail(&ejection, &second, 3, now), None);

        // The first comes back: the second, which failed all the while, goes at its next failure.
        let later = now + 2 * SECOND;
        assert!(!ejection.is_ejected(&first, later));
        assert!(fail(&ejection, &second, 1, later).is_some());
    }

    #[test]
    fn a_forgotten_endpoint_gives_its_place_back_and_cannot_take_another() {
        let now = Instant::now();
        let (ejection, gone) = (Ejection::new(settings(), now), Health::new());
        fail(&ejection, &gone, 3, now);

        ejection.forget(&gone);
        ejection.forget(&gone);
        assert!(ejection.none_ejected());
        assert_eq!(fail(&ejection, &gone, 10, now), None);
        assert!(ejection.none_ejected());
        assert!(!ejection.is_ejected(&gone, now));
    }

    #[test]
    fn ejections_survive_new_settings() {
        let now = Instant::now();
        let (before, health) = (Ejection::new(settings(), now), Health::new());
        fail(&before, &health, 3, now);

        let after = before.with_settings(OutlierDetection { base_ejection_time: 60 * SECOND, ..settings() });
        drop(before);
        assert!(after.is_ejected(&health, now + SECOND));
        assert!(!after.is_ejected(&health, now + 2 * SECOND));
        assert_eq!(fail(&after, &health, 3, now + 2 * SECOND).expect("ejected").time, 120 * SECOND);
    }

    #[test]
    fn statuses_mean_what_envoy_says() {
        let outcomes = [200, 404, 499, 500, 501, 502, 503, 504, 505, 599].map(Outcome::of_status);
        use Outcome::{Failure5xx as F, GatewayFailure as G, Success as S};
        assert_eq!(outcomes, [S, S, S, F, F, G, G, G, F, F]);
    }

    #[test]
    fn workers_that_fail_together_never_pass_the_cap() {
        let now = Instant::now();
        let third = OutlierDetection { max_ejection_percent: 30, ..settings() };
        let ejection = Ejection::new(third, now);
        let endpoints: Vec<Health> = (0..10).map(|_| Health::new()).collect();

        let ejected: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let failures = endpoints.iter().cycle().take(1_000);
                        failures.filter_map(|h| ejection.record(h, Outcome::GatewayFailure, 10, now)).count()
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("no worker panics")).sum()
        });

        assert_eq!(ejected, 3);
        assert_eq!(endpoints.iter().filter(|health| ejection.is_ejected(health, now)).count(), 3);

        // However many notice the end of an ejection, it is uncounted once.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| endpoints.iter().all(|h| !ejection.is_ejected(h, now + 2 * SECOND)));
            }
        });
        assert_eq!(ejection.ejected(), 0);
    }

    proptest! {
        #[test]
        fn the_cap_holds_and_every_ejection_lasts_exactly_its_time(
            endpoints in 1_usize..8,
            percent in 0_u8..=100,
            events in proptest::collection::vec((0_usize..8, 0_u8..4, 0_u64..3_000), 1..300),
        ) {
            let mut now = Instant::now();
            let ejection =
                Ejection::new(OutlierDetection { max_ejection_percent: percent, ..settings() }, now);
            let healths: Vec<Health> = (0..endpoints).map(|_| Health::new()).collect();
            let mut ends: Vec<Option<Instant>> = vec![None; endpoints];
            let cap = (endpoints * usize::from(percent) / 100).max(1);

            for (endpoint, kind, pause) in events {
                now += Duration::from_millis(pause);
                let endpoint = endpoint % endpoints;
                let outcome = match kind {
                    0 => Outcome::Success,
                    1 => Outcome::Failure5xx,
                    _ => Outcome::GatewayFailure,
                };
                for (health, end) in healths.iter().zip(&ends) {
                    prop_assert_eq!(ejection.is_ejected(health, now), end.is_some_and(|end| now < end));
                }
                if let Some(ejected) = ejection.record(&healths[endpoint], outcome, endpoints, now) {
                    prop_assert!(ejected.time >= 2 * SECOND);
                    ends[endpoint] = Some(now + ejected.time);
                }
                let ejected = ends.iter().flatten().filter(|end| now < **end).count();
                prop_assert!(ejected <= cap, "{} of {} ejected, cap {} %", ejected, endpoints, percent);
                prop_assert_eq!(ejection.ejected(), ejected);
            }
        }
    }
}
