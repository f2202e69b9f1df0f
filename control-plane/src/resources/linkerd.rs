//! Linkerd's annotations of time limits and retries, on a `Service`, an `HTTPRoute` or a `GRPCRoute`.
//!
//! As Linkerd has it (<https://linkerd.io/2/reference/retries/>, <https://linkerd.io/2/reference/timeouts/>): an
//! annotation of a route goes before what its rules say. If a route says anything of timeouts, nothing that its Service
//! says of timeouts counts for it, and the same is true of retries. What Linkerd passes over in silence is refused here.

use std::{collections::BTreeMap, time::Duration};

use selvedge_model::{RetryOn, RetryPolicy, StreamTimeouts};

use super::{
    annotated::place,
    document::{Reading, wrong},
    typed::FieldError,
};

const RETRY_HTTP: &str = "retry.linkerd.io/http";
const RETRY_GRPC: &str = "retry.linkerd.io/grpc";
const RETRY_LIMIT: &str = "retry.linkerd.io/limit";
const RETRY_TIMEOUT: &str = "retry.linkerd.io/timeout";
const TIMEOUT_REQUEST: &str = "timeout.linkerd.io/request";
const TIMEOUT_RESPONSE: &str = "timeout.linkerd.io/response";
const TIMEOUT_IDLE: &str = "timeout.linkerd.io/idle";

/// All of them.
pub(super) const ANNOTATIONS: &[&str] =
    &[RETRY_HTTP, RETRY_GRPC, RETRY_LIMIT, RETRY_TIMEOUT, TIMEOUT_REQUEST, TIMEOUT_RESPONSE, TIMEOUT_IDLE];

/// How long requests and their answers may take; `None` each: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// The whole request, retries included.
    pub request: Option<Duration>,
    /// The answer, and a pause.
    pub stream: StreamTimeouts,
}

/// What the annotations of a document say; `None` each: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotated {
    /// How long requests may take.
    pub timeouts: Option<Timeouts>,
    /// When a failed attempt is followed by another.
    pub retry: Option<RetryPolicy>,
}

/// What a document is for whose annotations are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    /// Of HTTP: an `HTTPRoute`.
    Http,
    /// Of gRPC: a `GRPCRoute`.
    Grpc,
    /// Of either: a `Service`.
    Any,
}

/// What the annotations of the document that is read say of `calls`.
pub(super) fn read(reading: &mut Reading<'_>, calls: Calls) -> Result<Annotated, FieldError> {
    let annotations = &reading.metadata.annotations;
    Ok(Annotated { timeouts: read_timeouts(annotations)?, retry: read_retry(reading, calls)? })
}

type Annotations = BTreeMap<String, String>;

fn read_timeouts(annotations: &Annotations) -> Result<Option<Timeouts>, FieldError> {
    if ![TIMEOUT_REQUEST, TIMEOUT_RESPONSE, TIMEOUT_IDLE].iter().any(|name| annotations.contains_key(*name)) {
        return Ok(None);
    }
    let (request, response) = (time(annotations, TIMEOUT_REQUEST)?, time(annotations, TIMEOUT_RESPONSE)?);
    Ok(Some(Timeouts {
        request,
        stream: StreamTimeouts { response, idle: time(annotations, TIMEOUT_IDLE)? },
    }))
}

/// The time that the annotation `name` says; `None`: none, or 0.
fn time(annotations: &Annotations, name: &str) -> Result<Option<Duration>, FieldError> {
    let Some(text) = annotations.get(name) else { return Ok(None) };
    let time = parse_time(text).ok_or_else(|| {
        wrong(
            place(name),
            format!("{text:?} is not a duration; write a whole number of ms, s, m, h or d, such as 250ms"),
        )
    })?;
    Ok(Some(time).filter(|time| !time.is_zero()))
}

/// A whole number and its unit, or 0.
fn parse_time(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = digits.parse().ok()?;
    let millis = match unit {
        "" if number == 0 => 0,
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

fn read_retry(reading: &mut Reading<'_>, calls: Calls) -> Result<Option<RetryPolicy>, FieldError> {
    let annotations = &reading.metadata.annotations;
    let other = match calls {
        Calls::Http => Some((RETRY_GRPC, RETRY_HTTP)),
        Calls::Grpc => Some((RETRY_HTTP, RETRY_GRPC)),
        Calls::Any => None,
    };
    let said = [RETRY_HTTP, RETRY_GRPC, RETRY_LIMIT, RETRY_TIMEOUT];
    let said = said.iter().filter(|name| other.is_none_or(|(other, _)| other != **name));
    if let Some((other, own)) = other.filter(|(other, _)| annotations.contains_key(*other)) {
        reading.not_acted_on(place(other), format!("is not acted on for a route of this kind; write {own}"));
    }
    if !said.clone().any(|name| annotations.contains_key(*name)) {
        return Ok(None);
    }
    // Failures that Linkerd tries again whatever the conditions are.
    let mut on = RetryOn { connect_failure: true, refused_stream: true, ..RetryOn::default() };
    if let Some(list) = annotations.get(RETRY_HTTP).filter(|_| calls != Calls::Grpc) {
        read_http(list, &mut on)?;
    }
    if let Some(list) = annotations.get(RETRY_GRPC).filter(|_| calls != Calls::Http) {
        read_grpc(list, &mut on)?;
    }
    let per_try_timeout = time(annotations, RETRY_TIMEOUT)?;
    on.per_try_timeout = per_try_timeout.is_some();
    let attempts = read_limit(reading)?;
    let default = RetryPolicy::default();
    Ok(Some(RetryPolicy { attempts, on, per_try_timeout, last_attempt_unlimited: true, ..default }))
}

/// How many further attempts; 1 if it is not said, or said to be 0.
fn read_limit(reading: &mut Reading<'_>) -> Result<u32, FieldError> {
    let Some(text) = reading.metadata.annotations.get(RETRY_LIMIT) else { return Ok(1) };
    let number: u16 = text.trim().parse().map_err(|_| {
        wrong(place(RETRY_LIMIT), format!("{text:?} is not a number of retries; write 1 to 65535"))
    })?;
    if number == 0 {
        let message = "0 means 1 here, as in Linkerd; to never retry, remove all of retry.linkerd.io";
        reading.warning(place(RETRY_LIMIT), message);
    }
    Ok(u32::from(number).max(1))
}

/// Statuses, ranges of them, `5xx` and `gateway-error`, separated by commas.
fn read_http(list: &str, on: &mut RetryOn) -> Result<(), FieldError> {
    for word in list.split(',').map(str::trim) {
        let (first, last) = match word.to_ascii_lowercase().as_str() {
            "5xx" => (500, 599),
            "gateway-error" => (502, 504),
            range => statuses(range).ok_or_else(|| {
                let message = format!(
                    "{word:?} is not a retry condition; use 5xx, gateway-error, or statuses such as 503 or 500-504"
                );
                wrong(place(RETRY_HTTP), message)
            })?,
        };
        // A broken connection is a 502 to Linkerd, and one that cannot be made in time a 504.
        on.any_5xx |= first <= 500 && last >= 599;
        on.gateway_error |= first <= 502 && last >= 504;
        on.reset |= (first..=last).contains(&502);
        on.status_codes.extend(first..=last);
    }
    on.status_codes.sort_unstable();
    on.status_codes.dedup();
    Ok(())
}

/// A status or a range of them, as first and last.
fn statuses(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (100..600).contains(status));
    status(first).zip(status(last)).filter(|(first, last)| first <= last)
}

/// Names of gRPC's statuses, separated by commas.
fn read_grpc(list: &str, on: &mut RetryOn) -> Result<(), FieldError> {
    for word in list.split(',').map(str::trim) {
        on.grpc_statuses.push(match word.to_ascii_lowercase().as_str() {
            "cancelled" => 1,
            "deadline-exceeded" => 4,
            "resource-exhausted" => 8,
            "internal" => 13,
            "unavailable" => 14,
            _ => {
                let message = format!(
                    "{word:?} is not a retry condition; use cancelled, deadline-exceeded, internal, resource-exhausted or \
                     unavailable"
                );
                return Err(wrong(place(RETRY_GRPC), message));
            }
        });
    }
    on.grpc_statuses.sort_unstable();
    on.grpc_statuses.dedup();
    Ok(())
}

#[cfg(test)]
mod tests;
