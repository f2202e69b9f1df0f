//! One endpoint's recent failures, and why it was ejected.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use selvedge_model::{OutlierDetection, traffic::FailureKind};

use super::{checked::Checked, compare::Tallies};

/// How an attempt ended, as far as ejection is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer below 500.
    Success,
    /// A 5xx other than 502, 503 and 504.
    Failure5xx,
    /// 502, 503, 504.
    GatewayFailure,
    /// No answer: not connected, reset, timed out. A gateway failure too, unless these are counted apart.
    NoAnswer,
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

    /// The outcome that a gRPC status means: that of the HTTP status which Envoy takes it for. UNIMPLEMENTED is left out,
    /// because it speaks of what was called.
    pub const fn of_grpc_status(status: u8) -> Self {
        match status {
            // DEADLINE_EXCEEDED and UNAVAILABLE.
            4 | 14 => Self::GatewayFailure,
            // UNKNOWN, INTERNAL and DATA_LOSS.
            2 | 13 | 15 => Self::Failure5xx,
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
    /// `consecutiveLocalOriginFailures`.
    ConsecutiveLocalOriginFailures,
    /// Envoy's `success_rate`.
    SuccessRate,
    /// Envoy's `failure_percentage`.
    FailurePercentage,
    /// The success rate of attempts, which succeed if there is an answer.
    LocalOriginSuccessRate,
    /// The same by failure percentage.
    LocalOriginFailurePercentage,
}

impl Why {
    /// The word for logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive-5xx",
            Self::ConsecutiveGatewayErrors => "consecutive-gateway-errors",
            Self::ConsecutiveLocalOriginFailures => "consecutive-local-origin-failures",
            Self::SuccessRate => "success-rate",
            Self::FailurePercentage => "failure-percentage",
            Self::LocalOriginSuccessRate => "local-origin-success-rate",
            Self::LocalOriginFailurePercentage => "local-origin-failure-percentage",
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
    /// The failures that reached it: in a row, or in the interval that has ended.
    pub failures: u32,
}

/// Why an endpoint was ejected last, for people who ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Which limit was reached.
    pub why: Why,
    /// The failures that reached it: in a row, or in the interval that had ended.
    pub failures: u32,
    /// What the base ejection time was multiplied by.
    pub times: u32,
    /// The last of them, or what was compared, in words.
    pub last: String,
}

/// One endpoint's recent failures, and whether it is ejected. Belongs to one [`Ejection`](super::Ejection) for life.
#[derive(Debug, Default)]
pub struct Health {
    /// 5xx and unanswered attempts since the last success.
    consecutive_5xx: AtomicU32,
    /// Gateway failures since the last other answer.
    consecutive_gateway_errors: AtomicU32,
    /// Attempts without an answer since the last answer, where they are counted apart.
    consecutive_local_origin_failures: AtomicU32,
    /// When the ejection ends, in nanoseconds since the `base` of its ejections.
    pub(super) ejected_until: AtomicU64,
    /// When the last ejection ended or will end, from which healthy intervals are counted.
    pub(super) last_end: AtomicU64,
    /// What the last ejection's base time was multiplied by.
    pub(super) times: AtomicU32,
    /// Why it was ejected last.
    cause: ArcSwapOption<Cause>,
    /// Whether it fails its health checks.
    pub(super) fails_checks: AtomicBool,
    /// What its last health check said, for people who ask.
    pub(super) checked: ArcSwapOption<Checked>,
    /// What is compared with other endpoints.
    pub(super) tallies: Tallies,
    /// How attempts have failed, whether that ejects it or not. Nothing of an endpoint that has never failed.
    failures: OnceLock<Box<[AtomicU32; FailureKind::ALL.len()]>>,
    /// How many attempts had begun at its target when what they came to was last told.
    told: AtomicU32,
}

/// How many attempts at an endpoint have failed in each way; each number begins anew after the largest.
pub type FailureCounts = [u32; FailureKind::ALL.len()];

impl Health {
    /// A new endpoint: no failures.
    pub fn new() -> Self {
        Self::default()
    }

    /// 5xx and unanswered attempts since the last success, or, if there are more, unanswered ones that are counted apart.
    pub fn consecutive_failures(&self) -> u32 {
        let apart = self.consecutive_local_origin_failures.load(Ordering::Relaxed);
        self.consecutive_5xx.load(Ordering::Relaxed).max(apart)
    }

    /// Notes that an attempt has failed.
    pub fn failed(&self, kind: FailureKind) {
        self.failures.get_or_init(Box::default)[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How attempts have failed; `None`: none has.
    pub fn failures(&self) -> Option<FailureCounts> {
        let counts = self.failures.get()?;
        Some(std::array::from_fn(|place| counts[place].load(Ordering::Relaxed)))
    }

    /// How many attempts there are since what they came to was last told, if so many have `begun` now.
    pub fn untold(&self, begun: u32) -> u32 {
        begun.wrapping_sub(self.told.load(Ordering::Relaxed))
    }

    /// What came of those that have `begun` is told, or nobody asks for it.
    pub fn tell(&self, begun: u32) {
        // Looks before it writes: workers read what lies beside it.
        if self.untold(begun) != 0 {
            self.told.store(begun, Ordering::Relaxed);
        }
    }

    /// Why it was ejected last; `None`: it never was.
    pub fn cause(&self) -> Option<Arc<Cause>> {
        self.cause.load_full()
    }

    /// Keeps why it was `ejected`, and its `last` failure in words.
    pub fn explain(&self, ejected: &Ejected, last: String) {
        let Ejected { why, failures, times, .. } = *ejected;
        self.cause.store(Some(Arc::new(Cause { why, failures, times, last })));
    }

    /// When its ejection ends, whether that is over or not; `None`: it is not ejected.
    pub(super) fn ejection_end(&self) -> Option<u64> {
        let until = self.ejected_until.load(Ordering::Acquire);
        (until != super::NOT_EJECTED && until != super::FORGOTTEN).then_some(until)
    }

    /// Forgets failures in a row.
    pub(super) fn forgive(&self) {
        let Self { consecutive_5xx, consecutive_gateway_errors, consecutive_local_origin_failures, .. } =
            self;
        for failures in [consecutive_5xx, consecutive_gateway_errors, consecutive_local_origin_failures] {
            reset(failures);
        }
    }

    /// Counts one failure and names the limit that it reaches, if any, and the failures that it took.
    pub(super) fn count(&self, outcome: Outcome, settings: &OutlierDetection) -> Option<(Why, u32)> {
        let reached = |limit: Option<u32>, count| limit.is_some_and(|limit| limit > 0 && count >= limit);
        if settings.consecutive_local_origin_failures.is_some() {
            if outcome == Outcome::NoAnswer {
                let failures = &self.consecutive_local_origin_failures;
                let failures = failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                return reached(settings.consecutive_local_origin_failures, failures)
                    .then_some((Why::ConsecutiveLocalOriginFailures, failures));
            }
            reset(&self.consecutive_local_origin_failures);
        }
        let gateway_errors = if matches!(outcome, Outcome::GatewayFailure | Outcome::NoAnswer) {
            self.consecutive_gateway_errors.fetch_add(1, Ordering::Relaxed).saturating_add(1)
        } else {
            self.consecutive_gateway_errors.store(0, Ordering::Relaxed);
            0
        };
        let any_5xx = self.consecutive_5xx.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if reached(settings.consecutive_gateway_errors, gateway_errors) {
            Some((Why::ConsecutiveGatewayErrors, gateway_errors))
        } else if reached(settings.consecutive_5xx, any_5xx) {
            Some((Why::Consecutive5xx, any_5xx))
        } else {
            None
        }
    }
}

/// Looks before it writes: on the usual path nobody writes to memory that workers share.
fn reset(failures: &AtomicU32) {
    if failures.load(Ordering::Relaxed) != 0 {
        failures.store(0, Ordering::Relaxed);
    }
}
