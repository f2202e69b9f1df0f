//! `retryBudget` of a `DestinationRule`, and `retryConstraint` of an `XBackendTrafficPolicy`: how many retries there may be.

use std::time::Duration;

use selvedge_model::{RetryBudget, filter::Fraction};
use serde::Deserialize;

use super::{
    document::wrong,
    typed::FieldError,
    values::{GatewayDuration, GoDuration},
};

/// The times that a budget can be counted over.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
/// The largest `minRetryRate.count`.
const MOST_RETRIES: u32 = 1_000_000;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RetryBudgetYaml {
    percent: Option<f64>,
    min_retry_concurrency: Option<u32>,
    budget_interval: Option<GoDuration>,
}

impl RetryBudgetYaml {
    /// `field` is where the block stands.
    pub(super) fn read(&self, field: &str) -> Result<RetryBudget, FieldError> {
        let mut budget = RetryBudget::default();
        if let Some(percent) = self.percent {
            budget.share = Fraction::of_percent(percent).ok_or_else(|| {
                wrong(format!("{field}.percent"), format!("{percent} is not a percentage; use 0 to 100"))
            })?;
        }
        if let Some(at_once) = self.min_retry_concurrency {
            budget.at_once = at_once;
        }
        // As in Istio, 0 is none.
        if let Some(GoDuration(interval)) = self.budget_interval.filter(|GoDuration(time)| !time.is_zero()) {
            if !(SHORTEST..=LONGEST).contains(&interval) {
                let message = "is out of range; use 100ms to 1h, or 0s to count what is in progress";
                return Err(wrong(format!("{field}.budgetInterval"), message));
            }
            budget.interval = Some(interval);
        }
        Ok(budget)
    }
}

/// `retryConstraint` of an `XBackendTrafficPolicy`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ConstraintYaml {
    budget: BudgetYaml,
    min_retry_rate: RateYaml,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BudgetYaml {
    percent: Option<u32>,
    interval: Option<GatewayDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RateYaml {
    count: Option<u32>,
    interval: Option<GatewayDuration>,
}

impl ConstraintYaml {
    /// `field` is where the block stands. Defaults and ranges are those that an API server has for it.
    pub(super) fn read(&self, field: &str) -> Result<RetryBudget, FieldError> {
        let percent = self.budget.percent.unwrap_or(20);
        let share = Fraction::of_percent(percent.into()).ok_or_else(|| {
            let message = format!("{percent} is not a percentage; use 0 to 100");
            wrong(format!("{field}.budget.percent"), message)
        })?;
        let interval = self.budget.interval.map_or(RetryBudget::USUAL_INTERVAL, |GatewayDuration(time)| time);
        if !(SECOND..=LONGEST).contains(&interval) {
            return Err(wrong(format!("{field}.budget.interval"), "is out of range; use 1s to 1h"));
        }
        let count = self.min_retry_rate.count.unwrap_or(10);
        if !(1..=MOST_RETRIES).contains(&count) {
            let message = format!("{count} is out of range; use 1 to {MOST_RETRIES}");
            return Err(wrong(format!("{field}.minRetryRate.count"), message));
        }
        let per = self.min_retry_rate.interval.map_or(SECOND, |GatewayDuration(time)| time);
        if per.is_zero() || per > LONGEST {
            return Err(wrong(format!("{field}.minRetryRate.interval"), "is out of range; use 1ms to 1h"));
        }
        // As many as the rate comes to in one interval of the budget, where all is counted.
        let at_least = (u128::from(count) * interval.as_millis()).div_ceil(per.as_millis().max(1));
        let at_least = u32::try_from(at_least).unwrap_or(u32::MAX);
        Ok(RetryBudget { share, at_once: 0, interval: Some(interval), at_least, refuses: true })
    }
}
