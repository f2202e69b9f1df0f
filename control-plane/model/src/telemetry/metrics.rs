//! What configuration changes of Istio's standard metrics: which of them a proxy tells, and with which labels.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::Serialize;

/// What is changed of each metric. None: the proxy tells it as Istio does.
pub type MetricChanges = BTreeMap<StandardMetric, MetricChange>;

/// One of Istio's standard metrics, by the word that `Telemetry` has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StandardMetric {
    /// `istio_requests_total`.
    RequestCount,
    /// `istio_request_duration_milliseconds`.
    RequestDuration,
    /// `istio_request_bytes`.
    RequestSize,
    /// `istio_response_bytes`.
    ResponseSize,
    /// `istio_tcp_connections_opened_total`.
    TcpOpenedConnections,
    /// `istio_tcp_connections_closed_total`.
    TcpClosedConnections,
    /// `istio_tcp_sent_bytes_total`.
    TcpSentBytes,
    /// `istio_tcp_received_bytes_total`.
    TcpReceivedBytes,
}

impl StandardMetric {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::RequestCount,
        Self::RequestDuration,
        Self::RequestSize,
        Self::ResponseSize,
        Self::TcpOpenedConnections,
        Self::TcpClosedConnections,
        Self::TcpSentBytes,
        Self::TcpReceivedBytes,
    ];
}

/// What is changed of one metric.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct MetricChange {
    /// It is not told.
    pub disabled: bool,
    /// Labels that it does not have, or that have another value than usual.
    pub labels: BTreeMap<String, LabelChange>,
}

/// What becomes of one label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LabelChange {
    /// It is left out.
    Removed,
    /// It is added, or has this instead.
    Set(LabelValue),
}

/// The value of a label that is added. Whatever it is, it has few values: a client must not be able to make any number of
/// series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LabelValue {
    /// It is this.
    Literal(String),
    /// It is this of what is counted.
    Fact(LabelFact),
}

/// What is known of all that one series counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LabelFact {
    /// The port that was called.
    Port,
    /// The request's method, `_OTHER` if HTTP does not know it.
    Method,
    /// The answer's status.
    Status,
    /// The status of gRPC.
    GrpcStatus,
    /// The route's name.
    Route,
    /// Whether mutual TLS carried it.
    Mtls,
    /// Who the caller has proven to be.
    Caller,
}

/// The names that an expression can have, as users of Istio know them from Envoy's attributes.
const FACTS: [(&str, LabelFact); 8] = [
    ("destination.port", LabelFact::Port),
    ("request.method", LabelFact::Method),
    ("response.code", LabelFact::Status),
    ("response.grpc_status", LabelFact::GrpcStatus),
    ("xds.route_name", LabelFact::Route),
    ("connection.mtls", LabelFact::Mtls),
    ("connection.uri_san_peer_certificate", LabelFact::Caller),
    ("source.principal", LabelFact::Caller),
];

impl LabelFact {
    /// The attribute that asks for it.
    pub fn attribute(self) -> &'static str {
        FACTS.iter().find(|(_, fact)| *fact == self).map_or("", |(name, _)| name)
    }
}

/// An expression that is not one of those that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotALabel;

impl fmt::Display for NotALabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a label can be a text in quotes, a whole number, or one of ")?;
        for (place, (name, _)) in FACTS.iter().enumerate() {
            write!(f, "{}{name}", if place == 0 { "" } else { ", " })?;
        }
        f.write_str(", which all have few values")
    }
}

impl std::error::Error for NotALabel {}

impl FromStr for LabelValue {
    type Err = NotALabel;

    /// Reads a part of CEL: a literal, or the name of an attribute, or `string(…)` of either.
    fn from_str(text: &str) -> Result<Self, NotALabel> {
        let text = text.trim();
        let within = text.strip_prefix("string").map(str::trim_start).and_then(|rest| {
            let rest = rest.strip_prefix('(')?;
            rest.strip_suffix(')')
        });
        let text = within.map_or(text, str::trim);
        if let Some((_, fact)) = FACTS.iter().find(|(name, _)| *name == text) {
            return Ok(Self::Fact(*fact));
        }
        let is_whole = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if matches!(text, "true" | "false") || is_whole(text.strip_prefix('-').unwrap_or(text)) {
            return Ok(Self::Literal(text.to_owned()));
        }
        let quoted = ['\'', '"'].into_iter().find_map(|quote| {
            let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
            // What is escaped is not read, and a second quote ends the text.
            (!inner.contains([quote, '\\', '\n'])).then_some(inner)
        });
        quoted.map(|text| Self::Literal(text.to_owned())).ok_or(NotALabel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_literal_or_something_that_has_few_values() {
        let literal = |text: &str| Ok(LabelValue::Literal(text.to_owned()));
        for (text, value) in [
            ("'gold'", "gold"),
            ("\"it's\"", "it's"),
            ("''", ""),
            ("7", "7"),
            ("-7", "-7"),
            ("true", "true"),
            (" string( 'a' ) ", "a"),
        ] {
            assert_eq!(text.parse(), literal(value), "{text}");
        }
        for (name, fact) in FACTS {
            assert_eq!(name.parse(), Ok(LabelValue::Fact(fact)));
            assert_eq!(format!("string({name})").parse(), Ok(LabelValue::Fact(fact)));
            assert_eq!(fact.attribute().parse(), Ok(LabelValue::Fact(fact)));
        }
        for text in [
            "",
            "'",
            "'a",
            "'a' + 'b'",
            "'a\\n'",
            "request.host",
            "request.headers['x-user']",
            "destination.port + 1",
            "string(request.path)",
            "string()",
            "-",
        ] {
            assert_eq!(text.parse::<LabelValue>(), Err(NotALabel), "{text}");
        }
    }
}
