//! Outlier ejection: stop sending to an endpoint that keeps failing, then let it back in.
//!
//! Envoy's algorithm, with two differences. Only comparing endpoints runs on a timer: the first caller after an ejection's
//! time ends it, and the multiplier's decay is worked out when it is next needed. And the share ejected at once never exceeds
//! `max_ejection_percent`, except that one endpoint may always be ejected: a fault in *our* network looks like every
//! endpoint failing together, and then it is better to go on trying.
//!
//! All state is atomics, because workers share it. Each step that must happen once (ejecting, ending an
//! ejection) is one compare-and-exchange on the end of the ejection.

mod checked;
mod compare;
mod health;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use selvedge_model::OutlierDetection;

use self::compare::outliers;
pub use self::{
    checked::Checked,
    compare::{Outlier, Requests},
    health::{Ejected, FailureCounts, Health, Outcome, Why},
};

/// `Health::ejected_until` of an endpoint that is not ejected.
const NOT_EJECTED: u64 = 0;
/// `Health::ejected_until` of an endpoint that has left its backend.
const FORGOTTEN: u64 = u64::MAX;

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
    /// Endpoints that fail their health checks.
    failing: AtomicUsize,
    /// Endpoints that are picked among; those that are left out do not count.
    endpoints: AtomicUsize,
    /// Ejections that have begun and ended, and checks that began to fail or to pass.
    changes: AtomicU64,
}

impl Ejection {
    /// Nothing ejected yet. `now` is what later times are counted from.
    pub fn new(settings: OutlierDetection, now: Instant) -> Self {
        Self {
            settings,
            shared: Arc::new(Shared {
                base: now,
                ejected: AtomicUsize::new(0),
                failing: AtomicUsize::new(0),
                endpoints: AtomicUsize::new(0),
                changes: AtomicU64::new(0),
            }),
        }
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

    /// What stands for these ejections for as long as they are held, whatever the settings.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    /// This many endpoints are picked among now, ejected ones included; those that are left out do not count.
    pub fn set_endpoints(&self, endpoints: usize) {
        self.shared.endpoints.store(endpoints, Ordering::Relaxed);
    }

    /// How many ejections have begun and ended, and how often checks began to fail or to pass, those of endpoints that have
    /// left included: as long as it is the same, the same endpoints are out.
    pub(super) fn changes(&self) -> u64 {
        self.shared.changes.load(Ordering::Acquire)
    }

    /// Whether no endpoint of this backend is ejected, without asking each.
    pub fn none_ejected(&self) -> bool {
        self.ejected() == 0
    }

    /// Whether each endpoint of this backend may be called, without asking it: none is ejected, and none fails its health
    /// checks. One whose ejection is over counts as ejected until somebody asks for it.
    pub fn none_out(&self) -> bool {
        self.none_ejected() && self.failing() == 0
    }

    /// How many endpoints are ejected, counting those whose time is over but which nobody has asked for.
    pub fn ejected(&self) -> usize {
        self.shared.ejected.load(Ordering::Relaxed)
    }

    /// Notes a success. As [`Self::record`], but no clock is read for it.
    pub fn succeeded(&self, health: &Health) {
        self.tally(health, Outcome::Success);
        health.forgive();
    }

    fn tally(&self, health: &Health, outcome: Outcome) {
        if self.settings.compares() {
            health.tallies.note(outcome, self.settings.consecutive_local_origin_failures.is_some());
        }
    }

    /// Notes how an attempt ended, and ejects the endpoint if that was one failure too many.
    ///
    /// A failure counts on while the cap forbids ejecting, so
    /// that an endpoint that goes on failing is ejected as soon as there is room.
    pub fn record(
        &self,
        health: &Health,
        outcome: Outcome,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Ejected> {
        if outcome == Outcome::Success {
            self.succeeded(health);
            return None;
        }
        self.tally(health, outcome);
        // The late answer to a request that was sent before the ejection says nothing new. Nor does a failure of an endpoint
        // that gets no requests until its checks pass.
        if health.fails_checks() || self.is_ejected(health, now) {
            return None;
        }
        let reached = health.count(outcome, &self.settings)?;
        self.eject(health, reached, now, rng)
    }

    /// Whether the endpoint is ejected now. Ends an ejection whose time is over.
    pub fn is_ejected(&self, health: &Health, now: Instant) -> bool {
        self.remaining(health, now).is_some()
    }

    /// How much longer the endpoint must not be called; `None` if it may be. Ends an ejection whose time
    /// is over.
    pub fn remaining(&self, health: &Health, now: Instant) -> Option<Duration> {
        let until = self.ejected_until(health, now)?;
        Some(Duration::from_nanos(until.saturating_sub(self.since_base(now))))
    }

    /// When the endpoint may be called again, in nanoseconds as [`Self::since_base`] counts them; `None` if it may be now.
    /// Ends an ejection whose time is over.
    pub fn ejected_until(&self, health: &Health, now: Instant) -> Option<u64> {
        let until = health.ejection_end()?;
        if self.since_base(now) < until {
            return Some(until);
        }
        self.end(health, until);
        None
    }

    /// The same for an endpoint that is ejected or fails its health checks. Checks have no time of their own, so theirs is
    /// the last that there is.
    pub fn out_until(&self, health: &Health, now: Instant) -> Option<u64> {
        if health.fails_checks() { Some(u64::MAX) } else { self.ejected_until(health, now) }
    }

    /// The endpoint has left the backend: it no longer counts, and can no longer be ejected. If it comes
    /// back it starts with new [`Health`].
    pub fn forget(&self, health: &Health) {
        let until = health.ejected_until.swap(FORGOTTEN, Ordering::AcqRel);
        if until != NOT_EJECTED && until != FORGOTTEN {
            self.note_change();
            self.give_place_back();
        }
        self.checked(health, None, None);
    }

    /// Compares `healths`, which are those of all endpoints, at the end of an interval, and ejects those that stand out. Returns
    /// whom, and why.
    pub fn compare(
        &self,
        healths: &[&Health],
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Vec<(Outlier, Ejected)> {
        let taken: Vec<_> = healths.iter().map(|health| health.tallies.take()).collect();
        let mut ejected = Vec::new();
        for (which, local) in [false, true].into_iter().enumerate() {
            let compared = healths.iter().zip(&taken);
            let is_out = |health: &Health| health.fails_checks() || self.is_ejected(health, now);
            let compared = compared.map(|(health, taken)| (!is_out(health)).then_some(taken[which]));
            for outlier in outliers(&compared.collect::<Vec<_>>(), &self.settings, local) {
                let reached = (outlier.why, outlier.requests.failed);
                let begun = self.eject(healths[outlier.place], reached, now, rng);
                ejected.extend(begun.map(|begun| (outlier, begun)));
            }
        }
        ejected
    }

    fn eject(
        &self,
        health: &Health,
        (why, failures): (Why, u32),
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Ejected> {
        if !self.take_place() {
            return None;
        }
        let now = self.since_base(now);
        let (times, time) = self.next_time(health, now);
        let jitter = nanos(self.settings.max_ejection_time_jitter);
        let time = time.saturating_add(Duration::from_nanos(rng.u64(..=jitter)));
        let until = now.saturating_add(nanos(time)).clamp(NOT_EJECTED + 1, FORGOTTEN - 1);
        let first =
            health.ejected_until.compare_exchange(NOT_EJECTED, until, Ordering::AcqRel, Ordering::Relaxed);
        if first.is_err() {
            // Another worker was faster, or the endpoint has left.
            self.give_place_back();
            return None;
        }
        self.note_change();
        health.last_end.store(until, Ordering::Relaxed);
        health.times.store(times, Ordering::Relaxed);
        Some(Ejected { time, times, why, failures })
    }

    /// Ends the ejection that was to last until `until`; only one caller's exchange succeeds.
    fn end(&self, health: &Health, until: u64) {
        let ended =
            health.ejected_until.compare_exchange(until, NOT_EJECTED, Ordering::AcqRel, Ordering::Relaxed);
        if ended.is_ok() {
            self.note_change();
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
    fn take_place(&self) -> bool {
        let endpoints = self.shared.endpoints.load(Ordering::Relaxed);
        let percent = usize::from(self.settings.max_ejection_percent);
        let one_more = |ejected: usize| {
            let within_cap = ejected == 0 || (ejected + 1) * 100 <= endpoints * percent;
            within_cap.then_some(ejected + 1)
        };
        self.shared.ejected.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more).is_ok()
    }

    fn note_change(&self) {
        self.shared.changes.fetch_add(1, Ordering::Release);
    }

    fn give_place_back(&self) {
        let one_less = |ejected: usize| ejected.checked_sub(1);
        let given_back = self.shared.ejected.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_less);
        debug_assert!(given_back.is_ok(), "an ejection was ended that this backend did not begin");
    }

    /// The time `now` as ends of ejections are counted.
    pub(super) fn since_base(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.shared.base))
    }
}

/// Nanoseconds: 584 years of them fit.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
