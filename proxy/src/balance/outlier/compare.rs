//! Endpoints that stand out among the others of an interval: Envoy's ejection by success rate and by failure percentage.
//!
//! Counting costs one addition to one number for each request, and only where endpoints are compared. The numbers of all
//! endpoints are taken at the end of each interval, by the control thread.

use std::sync::atomic::{AtomicU64, Ordering};

use selvedge_model::{FailurePercentage, OutlierDetection, SuccessRate};

use super::{Outcome, Why};

/// What stands for one failure in [`Tally`]: the higher half counts failures, the lower one requests.
const FAILURE: u64 = 1 << 32;

/// What rounding may make of equal shares, in percent.
const ROUNDING: f64 = 1e-6;

/// The requests of the interval that goes on, in one number, so that they are taken at one moment.
#[derive(Debug, Default)]
pub(super) struct Tally(AtomicU64);

impl Tally {
    fn note(&self, failed: bool) {
        self.0.fetch_add(if failed { FAILURE + 1 } else { 1 }, Ordering::Relaxed);
    }

    /// Takes what was counted; the next interval begins.
    fn take(&self) -> Requests {
        let both = self.0.swap(0, Ordering::Relaxed);
        let half = |number: u64| u32::try_from(number & (FAILURE - 1)).unwrap_or(u32::MAX);
        Requests { total: half(both), failed: half(both >> 32) }
    }
}

/// What is counted of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    /// Those that count as answered or not; all of them, unless what was not answered is counted apart.
    answers: Tally,
    /// All of them, where what was not answered is counted apart; that is what failed here.
    attempts: Tally,
}

impl Tallies {
    /// Counts how one attempt ended. `split`: whether those without an answer are counted apart.
    pub(super) fn note(&self, outcome: Outcome, split: bool) {
        if split {
            self.attempts.note(outcome == Outcome::NoAnswer);
            if outcome == Outcome::NoAnswer {
                return;
            }
        }
        self.answers.note(outcome != Outcome::Success);
    }

    /// Takes what was counted: answers, then attempts.
    pub(super) fn take(&self) -> [Requests; 2] {
        [self.answers.take(), self.attempts.take()]
    }
}

/// The requests of one endpoint in an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requests {
    /// All of them.
    pub total: u32,
    /// Those that failed.
    pub failed: u32,
}

impl Requests {
    /// The share that succeeded, in percent.
    fn success(self) -> f64 {
        100.0 - self.failure()
    }

    fn failure(self) -> f64 {
        100.0 * f64::from(self.failed) / f64::from(self.total.max(1))
    }
}

/// An endpoint that stands out.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlier {
    /// Its place among those that were compared.
    pub place: usize,
    /// Which rule says so.
    pub why: Why,
    /// What it has done.
    pub requests: Requests,
    /// The share of successes, in percent, that would have been enough.
    pub enough: f64,
}

/// The endpoints that stand out by `settings`, each once. `requests` has those of each endpoint, `None` where it is ejected
/// already. `local`: whether what failed has had no answer, and that is counted apart.
pub(super) fn outliers(
    requests: &[Option<Requests>],
    settings: &OutlierDetection,
    local: bool,
) -> Vec<Outlier> {
    let mut found = Vec::new();
    if let Some(rule) = &settings.success_rate {
        let why = if local { Why::LocalOriginSuccessRate } else { Why::SuccessRate };
        found.extend(by_success_rate(requests, rule, why));
    }
    if let Some(rule) = &settings.failure_percentage {
        let why = if local { Why::LocalOriginFailurePercentage } else { Why::FailurePercentage };
        let is_new = |outlier: &Outlier| !found.iter().any(|known| known.place == outlier.place);
        let more: Vec<_> = by_failure_percentage(requests, rule, why).into_iter().filter(is_new).collect();
        found.extend(more);
    }
    found
}

/// Those with at least `volume` requests, if there are at least `hosts` of them.
fn compared(requests: &[Option<Requests>], hosts: u32, volume: u32) -> Vec<(usize, Requests)> {
    let with_place = requests.iter().enumerate();
    let busy = with_place.filter_map(|(place, requests)| Some((place, (*requests)?)));
    let busy: Vec<_> = busy.filter(|(_, requests)| requests.total >= volume.max(1)).collect();
    let are_enough = busy.len() >= usize::try_from(hosts).unwrap_or(usize::MAX);
    if are_enough { busy } else { Vec::new() }
}

fn by_success_rate(requests: &[Option<Requests>], rule: &SuccessRate, why: Why) -> Vec<Outlier> {
    let busy = compared(requests, rule.minimum_hosts, rule.request_volume);
    let count = busy.len() as f64;
    let mean = busy.iter().map(|(_, requests)| requests.success()).sum::<f64>() / count;
    let variance = busy.iter().map(|(_, requests)| (requests.success() - mean).powi(2)).sum::<f64>() / count;
    let enough = mean - f64::from(rule.stdev_factor) / 1000.0 * variance.sqrt();
    let outlier = |(place, requests): (usize, Requests)| {
        (requests.success() < enough - ROUNDING).then_some(Outlier { place, why, requests, enough })
    };
    busy.into_iter().filter_map(outlier).collect()
}

fn by_failure_percentage(requests: &[Option<Requests>], rule: &FailurePercentage, why: Why) -> Vec<Outlier> {
    let busy = compared(requests, rule.minimum_hosts, rule.request_volume);
    let threshold = f64::from(rule.threshold);
    let outlier = |(place, requests): (usize, Requests)| {
        let fails = requests.failure() >= threshold;
        fails.then_some(Outlier { place, why, requests, enough: 100.0 - threshold })
    };
    busy.into_iter().filter_map(outlier).collect()
}

#[cfg(test)]
mod tests;
