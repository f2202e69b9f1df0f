//! The model's types as the wire carries them, and back.
//!
//! Out cannot fail. In trusts nothing: a value that this version does not know, or that makes no sense,
//! is a [`ConvertError`], so that the proxy can refuse the transaction and say why.
//!
//! Times travel as whole milliseconds, rounded up: a time limit must not become zero.

mod authorization;
mod balancing;
mod filter;
mod gateway;
mod health_check;
mod limit;
mod locality;
mod network;
mod outlier;
mod policy;
mod resilience;
mod revocation;
mod route;
mod seen;
mod servers;
mod service;
mod snapshot;
mod tap;
mod tcp;
mod telemetry;
#[cfg(test)]
mod tests;
mod token;
mod traffic;
mod upstream_tls;

use std::{fmt, str::FromStr, time::Duration};

pub use self::{
    service::{added_endpoints, endpoints_delta},
    tap::taps,
    traffic::put as put_traffic,
};

/// Why a message was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A part without which the message means nothing; from a newer sender, perhaps a new variant.
    #[error("{field} is missing, or is of a kind that this version does not know")]
    Missing {
        /// Which field.
        field: &'static str,
    },
    /// A value of an enumeration that this version does not know.
    #[error("{field} is {value}, which this version does not know")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// What was sent.
        value: i32,
    },
    /// A number outside of its range.
    #[error("{field} is {value}; the largest allowed value is {largest}")]
    OutOfRange {
        /// Which field.
        field: &'static str,
        /// What was sent.
        value: u64,
        /// The largest accepted.
        largest: u64,
    },
    /// A text that is not what it should be.
    #[error("{field} is {text:?}: {reason}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What was sent.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// `value`, which the message must have.
fn required<T>(field: &'static str, value: Option<T>) -> Result<T, ConvertError> {
    value.ok_or(ConvertError::Missing { field })
}

/// `text` as a `T`.
fn parse<T>(field: &'static str, text: &str) -> Result<T, ConvertError>
where
    T: FromStr<Err: fmt::Display>,
{
    text.parse().map_err(|error: T::Err| invalid(field, text, &error))
}

fn invalid(field: &'static str, text: &str, reason: &dyn fmt::Display) -> ConvertError {
    ConvertError::Invalid { field, text: text.to_owned(), reason: reason.to_string() }
}

/// A port that something can listen on.
fn port(field: &'static str, value: u32) -> Result<u16, ConvertError> {
    match u16::try_from(value) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(ConvertError::OutOfRange { field, value: value.into(), largest: u16::MAX.into() }),
    }
}

/// Every message of `list` in the model's terms.
fn all<W, M>(list: Vec<W>) -> Result<Vec<M>, ConvertError>
where
    M: TryFrom<W, Error = ConvertError>,
{
    list.into_iter().map(M::try_from).collect()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
