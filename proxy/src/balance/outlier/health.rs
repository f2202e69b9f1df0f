//! One endpoint's recent failures, and why it was ejected.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use selvedge_model::OutlierDetection;

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

/// One endpoint's recent failures, and whether it is ejected. Belongs to one [`Ejection`](super::Ejection) for life.
#[derive(Debug, Default)]
pub struct Health {
    /// 5xx and unanswered attempts since the last success.
    consecutive_5xx: AtomicU32,
    /// Gateway failures since the last other answer.
    consecutive_gateway_errors: AtomicU32,
    /// When the ejection ends, in nanoseconds since the `base` of its ejections.
    pub(super) ejected_until: AtomicU64,
    /// When the last ejection ended or will end, from which healthy intervals are counted.
    pub(super) last_end: AtomicU64,
    /// What the last ejection's base time was multiplied by.
    pub(super) times: AtomicU32,
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

    /// Keeps why it was `ejected`, and its `last` failure in words.
    pub fn explain(&self, ejected: &Ejected, last: String) {
        let Ejected { why, failures, .. } = *ejected;
        self.cause.store(Some(Arc::new(Cause { why, failures, last })));
    }

    /// Notes a success. As [`Ejection::record`](super::Ejection::record), but no clock is read for it.
    pub fn forgive(&self) {
        // Looked at before it is written: on the usual path nobody writes to memory that workers share.
        for failures in [&self.consecutive_5xx, &self.consecutive_gateway_errors] {
            if failures.load(Ordering::Relaxed) != 0 {
                failures.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Counts one failure and names the limit that it reaches, if any, and the failures that it took.
    pub(super) fn count(&self, outcome: Outcome, settings: &OutlierDetection) -> Option<(Why, u32)> {
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
