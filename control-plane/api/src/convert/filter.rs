//! What happens to requests and answers on their way.

mod path;

use std::{str::FromStr, time::Duration};

use selvedge_model::{
    Filters, FullRegex,
    filter::{
        Abort, BasicAuth, Cors, Delay, DirectResponse, Fault, Fraction, HeaderChange, HeaderChanges, Mirror,
        OriginMatch, OwnAnswer, Sources, UnmatchedPreflights,
    },
};

use super::{ConvertError, all, invalid, milliseconds, parse, required};
use crate::wire::{self, filters::Answer, origin_match};
use path::checked;

/// A status that an answer may have.
pub(super) fn status(value: u32) -> Result<u16, ConvertError> {
    let within = u16::try_from(value).ok().filter(|status| (200..=599).contains(status));
    within.ok_or_else(|| invalid("status", &value.to_string(), &"it is not 200 to 599"))
}

/// A status of gRPC (<https://grpc.io/docs/guides/status-codes/>).
fn grpc_status(value: u32) -> Result<u8, ConvertError> {
    let within = u8::try_from(value).ok().filter(|status| *status <= 16);
    within.ok_or(ConvertError::OutOfRange { field: "gRPC status", value: value.into(), largest: 16 })
}

fn fraction(parts: u32) -> Result<Fraction, ConvertError> {
    let largest = Fraction::ALL.parts().into();
    Fraction::of_million(parts).ok_or(ConvertError::OutOfRange {
        field: "fraction",
        value: parts.into(),
        largest,
    })
}

/// One of the kinds that are `true` or not there.
fn only_true(field: &'static str, value: bool) -> Result<(), ConvertError> {
    if value { Ok(()) } else { Err(invalid(field, "false", &"only true is known")) }
}

impl From<&Filters> for wire::Filters {
    fn from(filters: &Filters) -> Self {
        Self {
            sources: filters.sources.as_ref().map(Into::into),
            limits: filters.limits.iter().map(Into::into).collect(),
            cors: filters.cors.as_ref().map(Into::into),
            basic: filters
                .basic
                .as_ref()
                .map(|basic| wire::BasicAuth { realm: basic.realm.clone(), users: basic.users.to_string() }),
            max_body_bytes: filters.max_body,
            fault: filters.fault.as_ref().map(Into::into),
            answer: filters.answer.as_ref().map(Into::into),
            request_headers: changes(&filters.request_headers),
            rewrite: (!filters.rewrite.is_empty()).then(|| (&filters.rewrite).into()),
            mirrors: filters.mirrors.iter().map(Into::into).collect(),
            response_headers: changes(&filters.response_headers),
        }
    }
}

impl TryFrom<wire::Filters> for Filters {
    type Error = ConvertError;

    fn try_from(filters: wire::Filters) -> Result<Self, ConvertError> {
        Ok(Self {
            sources: filters.sources.map(TryInto::try_into).transpose()?,
            limits: all(filters.limits)?,
            cors: filters.cors.map(TryInto::try_into).transpose()?,
            basic: filters.basic.map(TryInto::try_into).transpose()?,
            max_body: filters.max_body_bytes,
            fault: filters.fault.map(TryInto::try_into).transpose()?,
            answer: filters.answer.map(TryInto::try_into).transpose()?,
            request_headers: filters.request_headers.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            rewrite: filters.rewrite.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            mirrors: all(filters.mirrors)?,
            response_headers: filters
                .response_headers
                .map(TryInto::try_into)
                .transpose()?
                .unwrap_or_default(),
        })
    }
}

impl From<&Sources> for wire::Sources {
    fn from(sources: &Sources) -> Self {
        let allowed = sources.allowed.as_ref().map(Into::into);
        Self { allowed, denied: Some((&sources.denied).into()) }
    }
}

impl TryFrom<wire::Sources> for Sources {
    type Error = ConvertError;

    fn try_from(sources: wire::Sources) -> Result<Self, ConvertError> {
        let allowed = sources.allowed.map(TryInto::try_into).transpose()?;
        Ok(Self { allowed, denied: sources.denied.map(TryInto::try_into).transpose()?.unwrap_or_default() })
    }
}

impl TryFrom<wire::BasicAuth> for BasicAuth {
    type Error = ConvertError;

    fn try_from(basic: wire::BasicAuth) -> Result<Self, ConvertError> {
        Ok(Self { realm: basic.realm, users: parse("name of users", &basic.users)? })
    }
}

impl From<&OwnAnswer> for Answer {
    fn from(answer: &OwnAnswer) -> Self {
        match answer {
            OwnAnswer::Redirect(redirect) => Self::Redirect(redirect.into()),
            OwnAnswer::Direct(DirectResponse { status, body }) => {
                Self::Direct(wire::DirectResponse { status: (*status).into(), body: body.clone() })
            }
            OwnAnswer::Unusable(why) => Self::Unusable(why.clone()),
        }
    }
}

impl TryFrom<Answer> for OwnAnswer {
    type Error = ConvertError;

    fn try_from(answer: Answer) -> Result<Self, ConvertError> {
        Ok(match answer {
            Answer::Redirect(redirect) => Self::Redirect(redirect.try_into()?),
            Answer::Direct(direct) => {
                Self::Direct(DirectResponse { status: status(direct.status)?, body: direct.body })
            }
            Answer::Unusable(why) => Self::Unusable(why),
        })
    }
}

fn changes(changes: &HeaderChanges) -> Option<wire::HeaderChanges> {
    let list = |list: &[HeaderChange]| {
        let wire = |change: &HeaderChange| wire::HeaderChange {
            name: change.name.to_string(),
            value: change.value.to_string(),
        };
        list.iter().map(wire).collect()
    };
    (!changes.is_empty()).then(|| wire::HeaderChanges {
        remove: changes.remove.iter().map(ToString::to_string).collect(),
        set: list(&changes.set),
        add: list(&changes.add),
    })
}

impl TryFrom<wire::HeaderChanges> for HeaderChanges {
    type Error = ConvertError;

    fn try_from(changes: wire::HeaderChanges) -> Result<Self, ConvertError> {
        let remove =
            changes.remove.iter().map(|name| parse("header name", name)).collect::<Result<_, _>>()?;
        Ok(Self { remove, set: all(changes.set)?, add: all(changes.add)? })
    }
}

impl TryFrom<wire::HeaderChange> for HeaderChange {
    type Error = ConvertError;

    fn try_from(change: wire::HeaderChange) -> Result<Self, ConvertError> {
        Ok(Self { name: parse("header name", &change.name)?, value: parse("header value", &change.value)? })
    }
}

impl From<&Fault> for wire::Fault {
    fn from(fault: &Fault) -> Self {
        let delay = fault
            .delay
            .as_ref()
            .map(|delay| wire::Delay { time_ms: milliseconds(delay.time), fraction: delay.fraction.parts() });
        let abort = fault.abort.as_ref().map(|abort| wire::Abort {
            status: abort.status.into(),
            grpc: abort.grpc.map(Into::into),
            fraction: abort.fraction.parts(),
        });
        Self { delay, abort }
    }
}

impl TryFrom<wire::Fault> for Fault {
    type Error = ConvertError;

    fn try_from(fault: wire::Fault) -> Result<Self, ConvertError> {
        let delay = |delay: wire::Delay| {
            let time = Duration::from_millis(delay.time_ms);
            Ok::<_, ConvertError>(Delay { time, fraction: fraction(delay.fraction)? })
        };
        let abort = |abort: wire::Abort| {
            Ok::<_, ConvertError>(Abort {
                status: status(abort.status)?,
                grpc: abort.grpc.map(grpc_status).transpose()?,
                fraction: fraction(abort.fraction)?,
            })
        };
        Ok(Self { delay: fault.delay.map(delay).transpose()?, abort: fault.abort.map(abort).transpose()? })
    }
}

impl From<&Mirror> for wire::Mirror {
    fn from(mirror: &Mirror) -> Self {
        let backend = u32::try_from(mirror.backend).expect("no service has four billion backends");
        Self { backend, fraction: mirror.fraction.parts() }
    }
}

impl TryFrom<wire::Mirror> for Mirror {
    type Error = ConvertError;

    fn try_from(mirror: wire::Mirror) -> Result<Self, ConvertError> {
        let backend = usize::try_from(mirror.backend).unwrap_or(usize::MAX);
        Ok(Self { backend, fraction: fraction(mirror.fraction)? })
    }
}

impl From<&Cors> for wire::Cors {
    fn from(cors: &Cors) -> Self {
        Self {
            allow_origins: cors.allow_origins.iter().map(Into::into).collect(),
            allow_methods: cors.allow_methods.clone(),
            allow_headers: cors.allow_headers.clone(),
            expose_headers: cors.expose_headers.clone(),
            max_age_seconds: cors.max_age.map(|age| age.as_secs()),
            allow_credentials: cors.allow_credentials,
            ignores_unmatched_preflights: cors.unmatched_preflights == UnmatchedPreflights::Ignore,
        }
    }
}

impl TryFrom<wire::Cors> for Cors {
    type Error = ConvertError;

    fn try_from(cors: wire::Cors) -> Result<Self, ConvertError> {
        let unmatched_preflights = match cors.ignores_unmatched_preflights {
            true => UnmatchedPreflights::Ignore,
            false => UnmatchedPreflights::Forward,
        };
        let field = checked::<HeaderValueText>("CORS header");
        let list = |list: Vec<String>| list.into_iter().map(&field).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            allow_origins: all(cors.allow_origins)?,
            allow_methods: list(cors.allow_methods)?,
            allow_headers: list(cors.allow_headers)?,
            expose_headers: list(cors.expose_headers)?,
            max_age: cors.max_age_seconds.map(Duration::from_secs),
            allow_credentials: cors.allow_credentials,
            unmatched_preflights,
        })
    }
}

/// What a header can hold.
struct HeaderValueText;

impl FromStr for HeaderValueText {
    type Err = http::header::InvalidHeaderValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        http::HeaderValue::from_str(text).map(|_| Self)
    }
}

impl From<&OriginMatch> for wire::OriginMatch {
    fn from(origin: &OriginMatch) -> Self {
        use origin_match::Kind;
        let kind = match origin {
            OriginMatch::Any => Kind::Any(true),
            OriginMatch::Exact(text) => Kind::Exact(text.clone()),
            OriginMatch::Prefix(text) => Kind::Prefix(text.clone()),
            OriginMatch::Regex(regex) => Kind::Regex(regex.source().to_owned()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::OriginMatch> for OriginMatch {
    type Error = ConvertError;

    fn try_from(origin: wire::OriginMatch) -> Result<Self, ConvertError> {
        use origin_match::Kind;
        Ok(match required("origin match", origin.kind)? {
            Kind::Any(value) => only_true("origin match", value).map(|()| Self::Any)?,
            Kind::Exact(text) => Self::Exact(text),
            Kind::Prefix(text) => Self::Prefix(text),
            Kind::Regex(source) => {
                let regex = FullRegex::new(&source).and_then(FullRegex::held);
                Self::Regex(regex.map_err(|error| invalid("regular expression", &source, &error))?)
            }
        })
    }
}
