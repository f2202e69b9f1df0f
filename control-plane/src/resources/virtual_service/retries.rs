//! `retries`: how often, and on which of Envoy's conditions.

use ::http::StatusCode;
use selvedge_model::{RetryOn, RetryPolicy};
use serde::Deserialize;

use super::super::{
    document::{Reading, wrong},
    typed::FieldError,
    values::{GoDuration, more_than_nothing},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    attempts: Option<u32>,
    per_try_timeout: Option<GoDuration>,
    retry_on: Option<String>,
    backoff: Option<GoDuration>,
}

pub(super) fn read(yaml: &Yaml, field: &str, reading: &mut Reading<'_>) -> Result<RetryPolicy, FieldError> {
    let default = RetryPolicy::default();
    let remote = format!("{field}.retryRemoteLocalities");
    let says_how = yaml.retry_on.as_deref().is_some_and(|on| !on.is_empty())
        || yaml.per_try_timeout.is_some()
        || reading.unknown.iter().any(|unknown| unknown.field == remote);
    match yaml.attempts {
        Some(0) | None if says_how => {
            return Err(wrong(field, "says how to retry, and no attempts; add attempts, or remove the rest"));
        }
        None => reading.warning(field, "gives no attempts, which means 0; add attempts to retry"),
        Some(_) => {}
    }
    let on = match yaml.retry_on.as_deref().filter(|conditions| !conditions.is_empty()) {
        None => default.on.clone(),
        Some(conditions) => read_conditions(conditions, &format!("{field}.retryOn"), reading)?,
    };
    let backoff = match yaml.backoff {
        Some(GoDuration(backoff)) if backoff.is_zero() => {
            return Err(wrong(format!("{field}.backoff"), "is 0; write for example 25ms"));
        }
        Some(GoDuration(backoff)) => backoff,
        None => default.backoff,
    };
    let per_try = |time| {
        more_than_nothing(
            time,
            &format!("{field}.perTryTimeout"),
            "leave it out for the timeout of the route alone",
        )
    };
    let per_try_timeout = yaml.per_try_timeout.map(per_try).transpose()?;
    Ok(RetryPolicy { attempts: yaml.attempts.unwrap_or(0), on, per_try_timeout, backoff, ..default })
}

/// Whether `code` is a status that HTTP has a name for.
fn is_known(code: u16) -> bool {
    StatusCode::from_u16(code).is_ok_and(|status| status.canonical_reason().is_some())
}

fn read_conditions(conditions: &str, field: &str, reading: &mut Reading<'_>) -> Result<RetryOn, FieldError> {
    let mut on = RetryOn::default();
    for word in conditions.split(',') {
        match word {
            "5xx" => on.any_5xx = true,
            "gateway-error" => on.gateway_error = true,
            "reset" => on.reset = true,
            "connect-failure" => on.connect_failure = true,
            "retriable-4xx" => on.retriable_4xx = true,
            "refused-stream" => on.refused_stream = true,
            // The plain numbers beside it are its list.
            "retriable-status-codes" => {}
            "cancelled" => on.grpc_statuses.push(1),
            "deadline-exceeded" => on.grpc_statuses.push(4),
            "resource-exhausted" => on.grpc_statuses.push(8),
            "internal" => on.grpc_statuses.push(13),
            "unavailable" => on.grpc_statuses.push(14),
            "reset-before-request" => on.reset_before_request = true,
            "retriable-headers" | "envoy-ratelimited" | "http3-post-connect-failure" => {
                reading.not_acted_on(field, format!("{word} is not acted on"));
            }
            code => match code.parse::<u16>() {
                Ok(status) if is_known(status) => on.status_codes.push(status),
                _ => {
                    let message = format!(
                        "{code:?} is not a retry condition; use for example connect-failure, reset, gateway-error, 5xx or 503, \
                         with commas and no spaces between them"
                    );
                    return Err(wrong(field, message));
                }
            },
        }
    }
    on.status_codes.sort_unstable();
    on.status_codes.dedup();
    on.grpc_statuses.sort_unstable();
    on.grpc_statuses.dedup();
    Ok(on)
}
