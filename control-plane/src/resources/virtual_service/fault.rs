//! `fault`: delays and failures that are made on purpose.

use std::fmt;

use selvedge_model::filter::{Abort, Delay, Fault, Fraction};
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

use super::answers;
use crate::resources::{
    document::{Reading, wrong},
    typed::{FieldError, Present},
    values::{GoDuration, more_than_nothing},
};

#[derive(Debug, Deserialize)]
pub(super) struct Yaml {
    delay: Option<DelayYaml>,
    abort: Option<AbortYaml>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DelayYaml {
    fixed_delay: Option<GoDuration>,
    exponential_delay: Option<Present>,
    percentage: Option<PercentYaml>,
    percent: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AbortYaml {
    http_status: Option<u32>,
    grpc_status: Option<GrpcStatus>,
    http2_error: Option<Present>,
    percentage: Option<PercentYaml>,
    percent: Option<u32>,
}

/// A share in percent, with a fraction.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
pub(super) struct PercentYaml {
    value: f64,
}

/// A gRPC status by its name or its number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GrpcStatus(String);

impl<'de> Deserialize<'de> for GrpcStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrNumber;
        impl Visitor<'_> for NameOrNumber {
            type Value = GrpcStatus;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a gRPC status, such as UNAVAILABLE")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<GrpcStatus, E> {
                Ok(GrpcStatus(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<GrpcStatus, E> {
                Ok(GrpcStatus(number.to_string()))
            }
        }
        deserializer.deserialize_any(NameOrNumber)
    }
}

/// The gRPC statuses by number, each with the HTTP status that a client which is not gRPC gets for it (as Envoy
/// translates them).
const GRPC_STATUSES: [(&str, u16); 17] = [
    ("OK", 200),
    ("CANCELLED", 499),
    ("UNKNOWN", 500),
    ("INVALID_ARGUMENT", 400),
    ("DEADLINE_EXCEEDED", 504),
    ("NOT_FOUND", 404),
    ("ALREADY_EXISTS", 409),
    ("PERMISSION_DENIED", 403),
    ("RESOURCE_EXHAUSTED", 429),
    ("FAILED_PRECONDITION", 400),
    ("ABORTED", 409),
    ("OUT_OF_RANGE", 400),
    ("UNIMPLEMENTED", 501),
    ("INTERNAL", 500),
    ("UNAVAILABLE", 503),
    ("DATA_LOSS", 500),
    ("UNAUTHENTICATED", 401),
];

/// The least share of requests that a fault may have, in percent.
const LEAST_PERCENT: f64 = 0.0001;

pub(super) fn read(yaml: Yaml, field: &str, reading: &mut Reading<'_>) -> Result<Fault, FieldError> {
    if yaml.delay.is_none() && yaml.abort.is_none() {
        return Err(wrong(field, "is empty; give delay or abort"));
    }
    let delay = match yaml.delay {
        Some(yaml) => read_delay(&yaml, &format!("{field}.delay"), reading)?,
        None => None,
    };
    let abort = match yaml.abort {
        Some(yaml) => read_abort(&yaml, &format!("{field}.abort"), reading)?,
        None => None,
    };
    Ok(Fault { delay, abort })
}

fn read_delay(yaml: &DelayYaml, field: &str, reading: &mut Reading<'_>) -> Result<Option<Delay>, FieldError> {
    if yaml.exponential_delay.is_some() {
        return Err(wrong(format!("{field}.exponentialDelay"), "is not acted on; write fixedDelay"));
    }
    let fraction = read_share(yaml.percentage, yaml.percent, field, reading)?;
    let Some(time) = yaml.fixed_delay else {
        reading.warning(field, "says no fixedDelay, so nothing is delayed");
        return Ok(None);
    };
    let time = more_than_nothing(time, &format!("{field}.fixedDelay"), "remove the delay")?;
    Ok(Some(Delay { time, fraction }))
}

fn read_abort(yaml: &AbortYaml, field: &str, reading: &mut Reading<'_>) -> Result<Option<Abort>, FieldError> {
    if yaml.http2_error.is_some() {
        let message = "is not acted on; write httpStatus or grpcStatus";
        return Err(wrong(format!("{field}.http2Error"), message));
    }
    let fraction = read_share(yaml.percentage, yaml.percent, field, reading)?;
    match (yaml.http_status, &yaml.grpc_status) {
        (Some(_), Some(_)) => Err(wrong(field, "gives both httpStatus and grpcStatus; keep one")),
        (Some(status), None) => {
            let status = answers::status(status, &format!("{field}.httpStatus"))?;
            Ok(Some(Abort { status, grpc: None, fraction }))
        }
        (None, Some(GrpcStatus(name))) => {
            let (grpc, status) = grpc_status(name).ok_or_else(|| {
                let message =
                    format!("{name:?} is not the name of a gRPC status; write for example UNAVAILABLE");
                wrong(format!("{field}.grpcStatus"), message)
            })?;
            Ok(Some(Abort { status, grpc: Some(grpc), fraction }))
        }
        (None, None) => {
            reading.warning(field, "says no httpStatus or grpcStatus, so nothing is aborted");
            Ok(None)
        }
    }
}

/// The number of the gRPC status `text`, and the HTTP status that stands for it.
fn grpc_status(text: &str) -> Option<(u8, u16)> {
    let number = GRPC_STATUSES.iter().position(|(name, _)| *name == text)?;
    let (_, status) = GRPC_STATUSES.get(number)?;
    Some((u8::try_from(number).ok()?, *status))
}

/// How many requests a fault is for. Neither field given = none.
fn read_share(
    percentage: Option<PercentYaml>,
    percent: Option<u32>,
    field: &str,
    reading: &mut Reading<'_>,
) -> Result<Fraction, FieldError> {
    let share = read_percent(percentage, percent, field, "percentage", "percent")?;
    if let Some(PercentYaml { value }) =
        percentage.filter(|yaml| yaml.value > 0.0 && yaml.value < LEAST_PERCENT)
    {
        let message = format!("{value} is less than {LEAST_PERCENT}, one in a million; write 0, or more");
        return Err(wrong(format!("{field}.percentage.value"), message));
    }
    Ok(share.unwrap_or_else(|| {
        reading.warning(field, "says no percentage, which means no request at all; add percentage.value");
        Fraction::NONE
    }))
}

/// The share that the fields `new` and `old` of `field` say, the new one if both do.
pub(super) fn read_percent(
    percentage: Option<PercentYaml>,
    percent: Option<u32>,
    field: &str,
    new: &str,
    old: &str,
) -> Result<Option<Fraction>, FieldError> {
    let (value, field) = match (percentage, percent) {
        (Some(yaml), _) => (yaml.value, format!("{field}.{new}.value")),
        (None, Some(percent)) => (f64::from(percent), format!("{field}.{old}")),
        (None, None) => return Ok(None),
    };
    match Fraction::of_percent(value) {
        Some(fraction) => Ok(Some(fraction)),
        None => Err(wrong(field, format!("{value} is not a percentage; use 0 to 100"))),
    }
}
