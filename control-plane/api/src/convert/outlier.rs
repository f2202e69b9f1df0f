//! When an endpoint is ejected.

use std::time::Duration;

use selvedge_model::{FailurePercentage, OutlierDetection, SuccessRate};

use super::{ConvertError, milliseconds};
use crate::wire;

impl From<&OutlierDetection> for wire::OutlierDetection {
    fn from(detection: &OutlierDetection) -> Self {
        Self {
            consecutive_5xx: detection.consecutive_5xx,
            consecutive_gateway_errors: detection.consecutive_gateway_errors,
            interval_ms: milliseconds(detection.interval),
            base_ejection_time_ms: milliseconds(detection.base_ejection_time),
            max_ejection_time_ms: milliseconds(detection.max_ejection_time),
            max_ejection_time_jitter_ms: milliseconds(detection.max_ejection_time_jitter),
            max_ejection_percent: detection.max_ejection_percent.into(),
            consecutive_local_origin_failures: detection.consecutive_local_origin_failures,
            min_health_percent: detection.min_health_percent.into(),
            success_rate: detection.success_rate.map(Into::into),
            failure_percentage: detection.failure_percentage.map(Into::into),
        }
    }
}

impl TryFrom<wire::OutlierDetection> for OutlierDetection {
    type Error = ConvertError;

    fn try_from(detection: wire::OutlierDetection) -> Result<Self, ConvertError> {
        Ok(Self {
            consecutive_5xx: detection.consecutive_5xx,
            consecutive_gateway_errors: detection.consecutive_gateway_errors,
            interval: Duration::from_millis(detection.interval_ms),
            base_ejection_time: Duration::from_millis(detection.base_ejection_time_ms),
            max_ejection_time: Duration::from_millis(detection.max_ejection_time_ms),
            max_ejection_time_jitter: Duration::from_millis(detection.max_ejection_time_jitter_ms),
            max_ejection_percent: percent("max ejection percent", detection.max_ejection_percent)?,
            consecutive_local_origin_failures: detection.consecutive_local_origin_failures,
            min_health_percent: percent("min health percent", detection.min_health_percent)?,
            success_rate: detection.success_rate.map(Into::into),
            failure_percentage: detection.failure_percentage.map(TryInto::try_into).transpose()?,
        })
    }
}

fn percent(field: &'static str, percent: u32) -> Result<u8, ConvertError> {
    let out_of_range = ConvertError::OutOfRange { field, value: percent.into(), largest: 100 };
    u8::try_from(percent).ok().filter(|percent| *percent <= 100).ok_or(out_of_range)
}

impl From<SuccessRate> for wire::SuccessRate {
    fn from(rate: SuccessRate) -> Self {
        let SuccessRate { minimum_hosts, request_volume, stdev_factor } = rate;
        Self { minimum_hosts, request_volume, stdev_factor }
    }
}

impl From<wire::SuccessRate> for SuccessRate {
    fn from(rate: wire::SuccessRate) -> Self {
        let wire::SuccessRate { minimum_hosts, request_volume, stdev_factor } = rate;
        Self { minimum_hosts, request_volume, stdev_factor }
    }
}

impl From<FailurePercentage> for wire::FailurePercentage {
    fn from(percentage: FailurePercentage) -> Self {
        let FailurePercentage { threshold, minimum_hosts, request_volume } = percentage;
        Self { threshold: threshold.into(), minimum_hosts, request_volume }
    }
}

impl TryFrom<wire::FailurePercentage> for FailurePercentage {
    type Error = ConvertError;

    fn try_from(percentage: wire::FailurePercentage) -> Result<Self, ConvertError> {
        let wire::FailurePercentage { threshold, minimum_hosts, request_volume } = percentage;
        Ok(Self { threshold: percent("failure percentage", threshold)?, minimum_hosts, request_volume })
    }
}
