//! What is wrong with a field, and on which line.

use std::fmt;

use serde::de::{self, Unexpected};

use crate::problem::Fault;

/// Why a document is not what its kind asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub(crate) struct FieldError {
    /// Empty until the innermost node that failed has named itself.
    pub(crate) field: String,
    pub(crate) line: Option<u64>,
    pub(crate) message: String,
    /// What kind of fault it is where it keeps the whole document from being used.
    pub(crate) fault: Fault,
}

/// What is wrong with a value that is `found`, and what to write.
fn not_expected(found: Unexpected<'_>, expected: &dyn de::Expected) -> String {
    let number = match found {
        Unexpected::Signed(number) => Some(number.to_string()),
        Unexpected::Unsigned(number) => Some(number.to_string()),
        Unexpected::Float(number) => Some(number.to_string()),
        _ => None,
    };
    let range = match expected.to_string().as_str() {
        "u8" => Some("from 0 to 255"),
        "u16" => Some("from 0 to 65535"),
        "u32" => Some("from 0 to 4294967295"),
        "u64" | "usize" => Some("that is not negative"),
        _ => None,
    };
    match number.zip(range) {
        Some((number, range)) => format!("{number} cannot be used here; write a whole number {range}"),
        None => format!("is {found}, and {expected} is expected"),
    }
}

impl de::Error for FieldError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { field: String::new(), line: None, message: message.to_string(), fault: Fault::Unusable }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(not_expected(found, expected))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(not_expected(found, expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("{field} is missing; add it"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::custom(format!("{field} is given twice; keep one of them"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format!("{variant:?} is not known here; use one of {}", expected.join(", ")))
    }
}
