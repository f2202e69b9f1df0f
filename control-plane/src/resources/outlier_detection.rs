//! `DestinationRule` `outlierDetection`: when an endpoint is ejected.
//!
//! What is refused is what Istio's validation refuses. What Envoy can do and Istio has no field for is asked for by
//! annotations of the `DestinationRule`, which have Envoy's names and are for each of its blocks.

use std::time::Duration;

use selvedge_model::{FailurePercentage, OutlierDetection, SuccessRate};
use serde::Deserialize;

use super::{
    annotated::{duration, number, place},
    document::{Reading, wrong},
    typed::FieldError,
    values::{GoDuration, more_than_nothing},
};

/// No ejection lasts longer (Envoy's `max_ejection_time`).
pub(super) const MAX_TIME: &str = "config.selvedge.io/max-ejection-time";
/// Up to so much is added to each ejection (Envoy's `max_ejection_time_jitter`).
pub(super) const JITTER: &str = "config.selvedge.io/max-ejection-time-jitter";
/// Envoy's `success_rate_minimum_hosts`.
pub(super) const SUCCESS_RATE_HOSTS: &str = "config.selvedge.io/success-rate-minimum-hosts";
/// Envoy's `success_rate_request_volume`.
pub(super) const SUCCESS_RATE_VOLUME: &str = "config.selvedge.io/success-rate-request-volume";
/// Envoy's `success_rate_stdev_factor`.
pub(super) const SUCCESS_RATE_FACTOR: &str = "config.selvedge.io/success-rate-stdev-factor";
/// Envoy's `failure_percentage_threshold`.
pub(super) const FAILURE_THRESHOLD: &str = "config.selvedge.io/failure-percentage-threshold";
/// Envoy's `failure_percentage_minimum_hosts`.
pub(super) const FAILURE_HOSTS: &str = "config.selvedge.io/failure-percentage-minimum-hosts";
/// Envoy's `failure_percentage_request_volume`.
pub(super) const FAILURE_VOLUME: &str = "config.selvedge.io/failure-percentage-request-volume";

/// All of them.
pub(super) const ANNOTATIONS: [&str; 8] = [
    MAX_TIME,
    JITTER,
    SUCCESS_RATE_HOSTS,
    SUCCESS_RATE_VOLUME,
    SUCCESS_RATE_FACTOR,
    FAILURE_THRESHOLD,
    FAILURE_HOSTS,
    FAILURE_VOLUME,
];

/// Ejections never last longer than this, or than the base ejection time if that is longer (Envoy's rule).
const MAX_EJECTION_TIME: Duration = Duration::from_secs(300);
/// The longest time that an annotation may ask for.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Attempts without an answer that eject where they are counted apart (Istio's `consecutiveLocalOriginFailures`).
const LOCAL_ORIGIN_FAILURES: u32 = 5;

/// What the annotations of a document ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Annotated {
    max_ejection_time: Option<Duration>,
    max_ejection_time_jitter: Duration,
    success_rate: Option<SuccessRate>,
    failure_percentage: Option<FailurePercentage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct OutlierYaml {
    #[serde(rename = "consecutive5xxErrors")]
    consecutive_5xx_errors: Option<u32>,
    consecutive_gateway_errors: Option<u32>,
    consecutive_errors: Option<u32>,
    interval: Option<GoDuration>,
    base_ejection_time: Option<GoDuration>,
    max_ejection_percent: Option<u32>,
    split_external_local_origin_errors: bool,
    consecutive_local_origin_failures: Option<u32>,
    min_health_percent: Option<u32>,
}

impl Annotated {
    /// What the annotations of the document that is read say. One of a group turns the group on; the others have Envoy's
    /// defaults then.
    pub(super) fn read(reading: &Reading<'_>) -> Result<Self, FieldError> {
        let count = |name| number(reading, name, 1..=1_000_000_000);
        let millisecond = Duration::from_millis(1);
        let rate = SuccessRate::default();
        let hosts = count(SUCCESS_RATE_HOSTS)?;
        let volume = count(SUCCESS_RATE_VOLUME)?;
        let factor = number(reading, SUCCESS_RATE_FACTOR, 0..=1_000_000)?;
        let is_given = [hosts, volume, factor].iter().any(Option::is_some);
        let success_rate = is_given.then(|| SuccessRate {
            minimum_hosts: hosts.unwrap_or(rate.minimum_hosts),
            request_volume: volume.unwrap_or(rate.request_volume),
            stdev_factor: factor.unwrap_or(rate.stdev_factor),
        });
        let percentage = FailurePercentage::default();
        let threshold = number(reading, FAILURE_THRESHOLD, 0..=100)?;
        let hosts = count(FAILURE_HOSTS)?;
        let volume = count(FAILURE_VOLUME)?;
        let is_given = [threshold, hosts, volume].iter().any(Option::is_some);
        let failure_percentage = is_given.then(|| FailurePercentage {
            threshold: threshold
                .and_then(|percent| u8::try_from(percent).ok())
                .unwrap_or(percentage.threshold),
            minimum_hosts: hosts.unwrap_or(percentage.minimum_hosts),
            request_volume: volume.unwrap_or(percentage.request_volume),
        });
        Ok(Self {
            max_ejection_time: duration(reading, MAX_TIME, millisecond..=DAY)?,
            max_ejection_time_jitter: duration(reading, JITTER, Duration::ZERO..=DAY)?.unwrap_or_default(),
            success_rate,
            failure_percentage,
        })
    }

    /// Reports the annotations of a document that has no block which they are for.
    pub(super) fn report_unused(reading: &mut Reading<'_>) {
        for name in ANNOTATIONS {
            if reading.metadata.annotations.contains_key(name) {
                let message = "has no effect without outlierDetection; add outlierDetection: {}";
                reading.not_acted_on(place(name), message);
            }
        }
    }

    /// The longest ejection of a block with this base time.
    fn longest(self, base: Duration, reading: &mut Reading<'_>) -> Duration {
        if self.max_ejection_time.is_some_and(|longest| longest < base) {
            reading.warning(place(MAX_TIME), "is shorter than a baseEjectionTime, which is used instead");
        }
        self.max_ejection_time.unwrap_or(MAX_EJECTION_TIME).max(base)
    }
}

impl OutlierYaml {
    /// The block at `field`, in a document whose annotations say this.
    pub(super) fn read(
        self,
        field: &str,
        annotated: Annotated,
        reading: &mut Reading<'_>,
    ) -> Result<OutlierDetection, FieldError> {
        let default = OutlierDetection::default();
        let time = |given: Option<GoDuration>, name: &str, default: Duration| {
            let read = |time| more_than_nothing(time, &format!("{field}.{name}"), "write for example 10s");
            given.map_or(Ok(default), read)
        };
        let interval = time(self.interval, "interval", default.interval)?;
        let base_ejection_time =
            time(self.base_ejection_time, "baseEjectionTime", default.base_ejection_time)?;
        let percent = |percent: u32, name: &str, least: u8| {
            let percentage = u8::try_from(percent).ok().filter(|percent| *percent <= 100);
            let message = || format!("{percent} is not a percentage; use {least} to 100");
            percentage.ok_or_else(|| wrong(format!("{field}.{name}"), message()))
        };
        let max_ejection_percent = match self.max_ejection_percent {
            None | Some(0) => default.max_ejection_percent,
            Some(most) => percent(most, "maxEjectionPercent", 1)?,
        };
        let min_health_percent = percent(self.min_health_percent.unwrap_or(0), "minHealthPercent", 0)?;
        let counted_apart = self.consecutive_local_origin_failures.is_some_and(|count| count > 0);
        if counted_apart && !self.split_external_local_origin_errors {
            let message = "has no effect without splitExternalLocalOriginErrors: true, because attempts without an answer \
                           count as gateway errors; add that, or remove it";
            return Err(wrong(format!("{field}.consecutiveLocalOriginFailures"), message));
        }
        let consecutive_local_origin_failures = self
            .split_external_local_origin_errors
            .then(|| self.consecutive_local_origin_failures.unwrap_or(LOCAL_ORIGIN_FAILURES));
        let gateway_errors = self.gateway_errors(field, reading);
        let consecutive_5xx = match self.consecutive_5xx_errors {
            None => default.consecutive_5xx,
            Some(count) => Some(count).filter(|count| *count > 0),
        };
        Ok(OutlierDetection {
            consecutive_5xx,
            consecutive_gateway_errors: gateway_errors.filter(|count| *count > 0),
            interval,
            base_ejection_time,
            max_ejection_time: annotated.longest(base_ejection_time, reading),
            max_ejection_time_jitter: annotated.max_ejection_time_jitter,
            max_ejection_percent,
            consecutive_local_origin_failures,
            min_health_percent,
            success_rate: annotated.success_rate,
            failure_percentage: annotated.failure_percentage,
        })
    }

    /// The limit of gateway errors, by its new name or its old one.
    fn gateway_errors(&self, field: &str, reading: &mut Reading<'_>) -> Option<u32> {
        let Some(count) = self.consecutive_errors else { return self.consecutive_gateway_errors };
        let old = format!("{field}.consecutiveErrors");
        if self.consecutive_gateway_errors.is_some() {
            reading.warning(
                old,
                "is an old name of consecutiveGatewayErrors, which is also given; that one is used",
            );
            return self.consecutive_gateway_errors;
        }
        reading.warning(
            old,
            "is an old name of consecutiveGatewayErrors and is used as that; write the new name",
        );
        Some(count)
    }
}
