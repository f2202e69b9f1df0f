//! Limits that a server counts.

use std::{sync::Arc, time::Duration};

use selvedge_model::limit::{
    Descriptor, Entry, Global, LONGEST_WAIT, LONGEST_WORD, MOST_DESCRIPTORS, OnFailure, Value,
};

use super::super::{ConvertError, all, authorization::at_most, invalid, milliseconds, parse, required};
use crate::wire::{self, limit_entry::Value as Wire};

impl From<&Global> for wire::GlobalLimit {
    fn from(global: &Global) -> Self {
        Self {
            server: global.server.as_deref().unwrap_or_default().to_owned(),
            domain: global.domain.to_string(),
            timeout_ms: milliseconds(global.timeout),
            closed: global.on_failure == OnFailure::Closed,
            descriptors: global.descriptors.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::GlobalLimit> for Global {
    type Error = ConvertError;

    fn try_from(global: wire::GlobalLimit) -> Result<Self, ConvertError> {
        let wire::GlobalLimit { server, domain, timeout_ms, closed, descriptors } = global;
        at_most("number of a limit's descriptors", descriptors.len(), MOST_DESCRIPTORS)?;
        at_most("length of a limit's domain", domain.len(), LONGEST_WORD)?;
        let (field, largest) = ("time of a limit's server", milliseconds(LONGEST_WAIT));
        if !(1..=largest).contains(&timeout_ms) {
            return Err(ConvertError::OutOfRange { field, value: timeout_ms, largest });
        }
        Ok(Self {
            server: (!server.is_empty()).then(|| Arc::from(server)),
            domain: Arc::from(domain),
            timeout: Duration::from_millis(timeout_ms),
            on_failure: if closed { OnFailure::Closed } else { OnFailure::Open },
            descriptors: all(descriptors)?,
        })
    }
}

impl From<&Descriptor> for wire::LimitDescriptor {
    fn from(descriptor: &Descriptor) -> Self {
        Self { entries: descriptor.entries.iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::LimitDescriptor> for Descriptor {
    type Error = ConvertError;

    fn try_from(descriptor: wire::LimitDescriptor) -> Result<Self, ConvertError> {
        at_most("number of a descriptor's entries", descriptor.entries.len(), MOST_DESCRIPTORS)?;
        Ok(Self { entries: all(descriptor.entries)? })
    }
}

impl From<&Entry> for wire::LimitEntry {
    fn from(entry: &Entry) -> Self {
        let value = match &entry.value {
            Value::Fixed(value) => Wire::Fixed(value.to_string()),
            Value::Header(name) => Wire::Header(name.to_string()),
            Value::ClientAddress => Wire::ClientAddress(true),
            Value::ClientIdentity => Wire::ClientIdentity(true),
            Value::Route => Wire::Route(true),
        };
        Self { key: entry.key.to_string(), value: Some(value) }
    }
}

impl TryFrom<wire::LimitEntry> for Entry {
    type Error = ConvertError;

    fn try_from(entry: wire::LimitEntry) -> Result<Self, ConvertError> {
        const FIELD: &str = "value of a limit's entry";
        at_most("length of a limit's key", entry.key.len(), LONGEST_WORD)?;
        let value = match required(FIELD, entry.value)? {
            Wire::Fixed(value) => Value::Fixed(Arc::from(value)),
            Wire::Header(name) => Value::Header(parse("header name", &name)?),
            Wire::ClientAddress(true) => Value::ClientAddress,
            Wire::ClientIdentity(true) => Value::ClientIdentity,
            Wire::Route(true) => Value::Route,
            Wire::ClientAddress(false) | Wire::ClientIdentity(false) | Wire::Route(false) => {
                return Err(invalid(FIELD, "false", &"only true is known"));
            }
        };
        Ok(Self { key: Arc::from(entry.key), value })
    }
}
