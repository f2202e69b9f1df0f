//! `retryBudget` of a `DestinationRule`: how many retries there may be.

use std::time::Duration;

use selvedge_model::{RetryBudget, filter::Fraction};
use serde::Deserialize;

use super::{document::wrong, typed::FieldError, values::GoDuration};

/// The times that a budget can be counted over.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3600);

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
        // As in Istio, 0 is the default.
        if let Some(GoDuration(interval)) = self.budget_interval.filter(|GoDuration(time)| !time.is_zero()) {
            if !(SHORTEST..=LONGEST).contains(&interval) {
                let message = "is out of range; use 100ms to 1h, or 0s for the default of 10s";
                return Err(wrong(format!("{field}.budgetInterval"), message));
            }
            budget.interval = interval;
        }
        Ok(budget)
    }
}
