//! Rate limits.

mod global;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use selvedge_model::limit::{
    By, Exception, LONGEST_TIME, Limit, MOST_IDENTITIES, MOST_LIMITS, MOST_REQUESTS, Quota, RateLimit,
};

use super::{ConvertError, all, authorization::at_most, invalid, milliseconds, parse, port, required};
use crate::wire::{self, limit::By as Wire};

impl From<&RateLimit> for wire::RateLimit {
    fn from(limit: &RateLimit) -> Self {
        let numbers = |ports: &BTreeSet<u16>| ports.iter().copied().map(u32::from).collect();
        Self {
            name: limit.name.to_string(),
            ports: limit.ports.as_ref().map(|ports| wire::LimitedPorts { numbers: numbers(ports) }),
            dry_run: limit.dry_run,
            tells_all: limit.tells_all,
            limits: limit.limits.iter().map(Into::into).collect(),
            global: limit.global.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<wire::RateLimit> for RateLimit {
    type Error = ConvertError;

    fn try_from(limit: wire::RateLimit) -> Result<Self, ConvertError> {
        at_most("number of a document's limits", limit.limits.len(), MOST_LIMITS)?;
        let ports = |ports: wire::LimitedPorts| {
            let numbers = ports.numbers.into_iter().map(|number| port("port of a limit", number));
            numbers.collect::<Result<BTreeSet<u16>, _>>()
        };
        let ports = limit.ports.map(ports).transpose()?;
        let global = limit.global.map(TryInto::try_into).transpose()?;
        let read = Self::new(Arc::from(limit.name), ports, limit.dry_run, all(limit.limits)?);
        Ok(read.with_global(global).telling(limit.tells_all))
    }
}

impl From<&Limit> for wire::Limit {
    fn from(limit: &Limit) -> Self {
        let by = match &limit.by {
            By::Everyone => Wire::Everyone(true),
            By::ClientAddress => Wire::ClientAddress(true),
            By::ClientIdentity => Wire::ClientIdentity(true),
            By::ExceptionAlone => Wire::ExceptionAlone(true),
            By::Header(name) => Wire::Header(name.to_string()),
        };
        Self {
            by: Some(by),
            quota: Some(limit.quota.into()),
            exceptions: limit.exceptions.iter().map(Into::into).collect(),
            exempt: Some((&limit.exempt).into()),
        }
    }
}

impl TryFrom<wire::Limit> for Limit {
    type Error = ConvertError;

    fn try_from(limit: wire::Limit) -> Result<Self, ConvertError> {
        at_most("number of a limit's exceptions", limit.exceptions.len(), MOST_LIMITS)?;
        let by = match required("who has a bucket", limit.by)? {
            Wire::Everyone(true) => By::Everyone,
            Wire::ClientAddress(true) => By::ClientAddress,
            Wire::ClientIdentity(true) => By::ClientIdentity,
            Wire::ExceptionAlone(true) => By::ExceptionAlone,
            Wire::Header(name) => By::Header(parse("header name", &name)?),
            Wire::Everyone(false)
            | Wire::ClientAddress(false)
            | Wire::ClientIdentity(false)
            | Wire::ExceptionAlone(false) => {
                return Err(invalid("who has a bucket", "false", &"only true is known"));
            }
        };
        Ok(Self {
            by,
            quota: required("quota", limit.quota)?.try_into()?,
            exceptions: all(limit.exceptions)?,
            exempt: limit.exempt.map(TryInto::try_into).transpose()?.unwrap_or_default(),
        })
    }
}

impl From<Quota> for wire::Quota {
    fn from(quota: Quota) -> Self {
        Self { requests: quota.requests, per_ms: milliseconds(quota.per), burst: quota.burst }
    }
}

impl TryFrom<wire::Quota> for Quota {
    type Error = ConvertError;

    fn try_from(quota: wire::Quota) -> Result<Self, ConvertError> {
        let within = |field, value: u64, largest: u64| match (1..=largest).contains(&value) {
            true => Ok(()),
            false => Err(ConvertError::OutOfRange { field, value, largest }),
        };
        within("requests of a limit", quota.requests.into(), MOST_REQUESTS.into())?;
        within("burst of a limit", quota.burst.into(), MOST_REQUESTS.into())?;
        within("time of a limit", quota.per_ms, milliseconds(LONGEST_TIME))?;
        let per = Duration::from_millis(quota.per_ms);
        Ok(Self { requests: quota.requests, per, burst: quota.burst })
    }
}

impl From<&Exception> for wire::LimitException {
    fn from(exception: &Exception) -> Self {
        let identities = exception.identities.iter().map(ToString::to_string).collect();
        Self { identities, quota: Some(exception.quota.into()) }
    }
}

impl TryFrom<wire::LimitException> for Exception {
    type Error = ConvertError;

    fn try_from(exception: wire::LimitException) -> Result<Self, ConvertError> {
        at_most("number of an exception's identities", exception.identities.len(), MOST_IDENTITIES)?;
        let identities = exception.identities.iter().map(|text| parse("identity of a limit", text));
        let identities = identities.collect::<Result<_, _>>()?;
        Ok(Self { identities, quota: required("quota", exception.quota)?.try_into()? })
    }
}
