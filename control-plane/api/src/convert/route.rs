//! Routes and what they match.

use std::{str::FromStr, sync::Arc, time::Duration};

use selvedge_model::{
    ClientMatch, FullRegex, GrpcMatch, HeaderField, Match, Order, RouteTable, Rule, StreamTimeouts,
    StringMatch, WeightedBackend,
};

use super::{
    ConvertError, all,
    filter::status,
    invalid, milliseconds, parse, required,
    telemetry::{access_log, log_to},
};
use crate::wire::{self, string_match::Kind};

impl From<&StringMatch> for wire::StringMatch {
    fn from(wanted: &StringMatch) -> Self {
        let kind = match wanted {
            StringMatch::Exact(text) => Kind::Exact(text.clone()),
            StringMatch::Prefix(text) => Kind::Prefix(text.clone()),
            StringMatch::PathPrefix(text) => Kind::PathPrefix(text.clone()),
            StringMatch::Regex(regex) => Kind::Regex(regex.source().to_owned()),
            StringMatch::Present => Kind::Present(true),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::StringMatch> for StringMatch {
    type Error = ConvertError;

    fn try_from(wanted: wire::StringMatch) -> Result<Self, ConvertError> {
        Ok(match required("match kind", wanted.kind)? {
            Kind::Exact(text) => Self::Exact(text),
            Kind::Prefix(text) => Self::Prefix(text),
            Kind::PathPrefix(text) => Self::PathPrefix(text),
            Kind::Regex(source) => {
                let regex = FullRegex::new(&source).and_then(FullRegex::held);
                Self::Regex(regex.map_err(|error| invalid("regular expression", &source, &error))?)
            }
            Kind::Present(true) => Self::Present,
            Kind::Present(false) => {
                return Err(invalid("match kind", "present: false", &"only true is known"));
            }
        })
    }
}

/// Header and query conditions differ only in what their names are.
fn named<N: AsRef<str>>(list: &[(N, StringMatch)]) -> Vec<wire::NamedMatch> {
    list.iter()
        .map(|(name, value)| wire::NamedMatch { name: name.as_ref().to_owned(), value: Some(value.into()) })
        .collect()
}

fn names<N>(field: &'static str, list: Vec<wire::NamedMatch>) -> Result<Vec<(N, StringMatch)>, ConvertError>
where
    N: FromStr<Err: std::fmt::Display>,
{
    list.into_iter()
        .map(|named| Ok((parse(field, &named.name)?, required("match value", named.value)?.try_into()?)))
        .collect()
}

impl From<&Match> for wire::Match {
    fn from(wanted: &Match) -> Self {
        Self {
            path: wanted.path.as_ref().map(Into::into),
            ignore_path_case: wanted.ignore_path_case,
            method: wanted.method.as_ref().map(Into::into),
            authority: wanted.authority.as_ref().map(Into::into),
            headers: named(&wanted.headers),
            without_headers: named(&wanted.without_headers),
            query: named(&wanted.query),
            grpc: wanted.grpc.as_ref().map(Into::into),
            client_labels: wanted.client.labels.clone(),
            client_namespace: wanted.client.namespace.clone(),
        }
    }
}

impl From<&GrpcMatch> for wire::GrpcMatch {
    fn from(wanted: &GrpcMatch) -> Self {
        Self {
            service: wanted.service.as_ref().map(Into::into),
            method: wanted.method.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<wire::GrpcMatch> for GrpcMatch {
    type Error = ConvertError;

    fn try_from(wanted: wire::GrpcMatch) -> Result<Self, ConvertError> {
        Ok(Self {
            service: wanted.service.map(TryInto::try_into).transpose()?,
            method: wanted.method.map(TryInto::try_into).transpose()?,
        })
    }
}

impl TryFrom<wire::Match> for Match {
    type Error = ConvertError;

    fn try_from(wanted: wire::Match) -> Result<Self, ConvertError> {
        Ok(Self {
            path: wanted.path.map(TryInto::try_into).transpose()?,
            ignore_path_case: wanted.ignore_path_case,
            method: wanted.method.map(TryInto::try_into).transpose()?,
            authority: wanted.authority.map(TryInto::try_into).transpose()?,
            headers: names::<HeaderField>("header name", wanted.headers)?,
            without_headers: names::<HeaderField>("header name", wanted.without_headers)?,
            query: names::<String>("query parameter", wanted.query)?,
            grpc: wanted.grpc.map(TryInto::try_into).transpose()?,
            client: ClientMatch { labels: wanted.client_labels, namespace: wanted.client_namespace },
        })
    }
}

impl From<&WeightedBackend> for wire::WeightedBackend {
    fn from(share: &WeightedBackend) -> Self {
        let backend = u32::try_from(share.backend).expect("no service has four billion backends");
        let filters = share.filters.as_deref().map(Into::into);
        Self { backend, weight: share.weight, filters }
    }
}

impl TryFrom<wire::WeightedBackend> for WeightedBackend {
    type Error = ConvertError;

    fn try_from(share: wire::WeightedBackend) -> Result<Self, ConvertError> {
        Ok(Self {
            backend: usize::try_from(share.backend).unwrap_or(usize::MAX),
            weight: share.weight,
            filters: share.filters.map(|filters| filters.try_into().map(Box::new)).transpose()?,
        })
    }
}

impl From<&Rule> for wire::Rule {
    fn from(rule: &Rule) -> Self {
        Self {
            name: rule.name.clone(),
            matches: rule.matches.iter().map(Into::into).collect(),
            backends: rule.backends.iter().map(Into::into).collect(),
            timeout_ms: rule.timeout.map(milliseconds),
            response_timeout_ms: rule.stream.response.map(milliseconds),
            idle_timeout_ms: rule.stream.idle.map(milliseconds),
            retry: Some((&rule.retry).into()),
            filters: (!rule.filters.is_empty()).then(|| (&rule.filters).into()),
            session: rule.session.as_deref().map(Into::into),
            unusable_status: rule.unusable_status.into(),
            access_log: rule.access_log.as_ref().map(|log| wire::RouteLog { access_log: log_to(log) }),
        }
    }
}

impl TryFrom<wire::Rule> for Rule {
    type Error = ConvertError;

    fn try_from(rule: wire::Rule) -> Result<Self, ConvertError> {
        Ok(Self {
            name: rule.name,
            matches: all(rule.matches)?,
            backends: all(rule.backends)?,
            timeout: rule.timeout_ms.map(Duration::from_millis),
            stream: StreamTimeouts {
                response: rule.response_timeout_ms.map(Duration::from_millis),
                idle: rule.idle_timeout_ms.map(Duration::from_millis),
            },
            retry: required("retry policy", rule.retry)?.try_into()?,
            filters: rule.filters.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            session: rule.session.map(TryInto::try_into).transpose()?.map(Box::new),
            unusable_status: unusable_status(rule.unusable_status)?,
            access_log: rule.access_log.map(|log| access_log(log.access_log)),
        })
    }
}

/// The status for requests without a backend that can be used. A control plane from before there was a choice does not
/// send one, and means 503.
fn unusable_status(value: u32) -> Result<u16, ConvertError> {
    if value == 0 { Ok(503) } else { status(value) }
}

impl From<Order> for wire::Order {
    fn from(order: Order) -> Self {
        match order {
            Order::Listed => Self::Listed,
            Order::MostSpecific => Self::MostSpecific,
        }
    }
}

impl From<&RouteTable> for wire::RouteTable {
    fn from(table: &RouteTable) -> Self {
        Self {
            rules: table.rules().iter().map(|rule| (&**rule).into()).collect(),
            order: wire::Order::from(table.order()).into(),
            rule_for_others: table.rule_for_others().map(Into::into),
            tiers: table.tiers().to_vec(),
        }
    }
}

impl TryFrom<wire::RouteTable> for RouteTable {
    type Error = ConvertError;

    fn try_from(table: wire::RouteTable) -> Result<Self, ConvertError> {
        let order = match wire::Order::try_from(table.order) {
            Ok(wire::Order::Listed) => Order::Listed,
            Ok(wire::Order::MostSpecific) => Order::MostSpecific,
            Ok(wire::Order::Unspecified) | Err(_) => {
                return Err(ConvertError::Unknown { field: "route order", value: table.order });
            }
        };
        if !table.tiers.is_empty() && table.tiers.len() != table.rules.len() {
            let text = table.tiers.len().to_string();
            return Err(invalid("number of tiers of rules", &text, &"each rule has one, or none has"));
        }
        let rules: Vec<Rule> = all(table.rules)?;
        let rules = Self::in_tiers(order, rules.into_iter().map(Arc::new).collect(), table.tiers);
        Ok(match table.rule_for_others {
            Some(rule) => rules.with_rule_for_others(rule.try_into()?),
            None => rules,
        })
    }
}
