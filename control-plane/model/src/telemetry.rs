//! What is written down of a workload's requests, and what is traced: Istio's `Telemetry`, and our annotations.

pub mod filter;
pub mod metrics;

use std::sync::Arc;

use serde::Serialize;

pub use self::{
    filter::{FilterError, LogFilter, Logged},
    metrics::{LabelChange, LabelFact, LabelValue, MetricChange, MetricChanges, NotALabel, StandardMetric},
};

/// All of a million: every request.
pub const ALL: u32 = 1_000_000;
/// The most places that one access log goes to.
pub const MOST_SINKS: usize = 4;
/// The most tags of a span that configuration adds, and the most labels of metrics that one document changes.
pub const MOST_TAGS: usize = 32;
/// The longest text of a tag, in bytes; a longer value is cut off.
pub const LONGEST_TAG: usize = 1_024;

/// What is written down, traced and told of a workload's traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Telemetry {
    /// Of what comes to it (Istio: `SERVER`).
    pub inbound: OneWay,
    /// Of what it sends (Istio: `CLIENT`); of a gateway, all that it carries.
    pub outbound: OneWay,
}

/// The same, of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct OneWay {
    /// Where lines of the access log go. None: none is written.
    pub access_log: AccessLog,
    /// Which requests are traced. `None`: trace headers pass through, and no span is made.
    pub tracing: Option<Tracing>,
    /// What is changed of Istio's metrics, where a proxy tells those.
    pub metrics: MetricChanges,
}

/// Where lines of an access log go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct AccessLog(pub Vec<LogTo>);

/// One place where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct LogTo {
    /// Which place.
    pub sink: LogSink,
    /// Which requests; `None`: all.
    pub filter: Option<Arc<LogFilter>>,
}

/// A place where lines of the access log go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogSink {
    /// Standard output, in the format that the proxy's setting says.
    Stdout,
    /// Standard output, in Istio's text format.
    Text,
    /// Standard output, one JSON object for each line.
    Json,
    /// The collector that the proxy's setting names.
    Otlp,
}

/// Which requests are traced.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Tracing {
    /// How many of a million requests that nobody has decided about; who was before may have decided.
    pub sampling: u32,
    /// What is added to every span.
    pub tags: Vec<SpanTag>,
}

/// What is added to every span.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct SpanTag {
    /// The attribute's name.
    pub name: String,
    /// Its value.
    pub value: TagValue,
}

/// Where a tag's value is from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TagValue {
    /// It is this.
    Literal(String),
    /// A request's header field.
    Header {
        /// Its name, in lower case.
        name: String,
        /// For requests without it; `None`: they have no such tag.
        default: Option<String>,
    },
    /// A variable of the proxy's environment.
    Environment {
        /// Its name.
        name: String,
        /// For a proxy without it; `None`: there is no such tag.
        default: Option<String>,
    },
}

impl Telemetry {
    /// Whether nothing is written down and nothing is traced.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl AccessLog {
    /// Whether no line is written.
    pub fn is_off(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a tag may have the value of this variable of the proxy's environment. The proxy's own settings hold its token.
pub fn is_readable(variable: &str) -> bool {
    !variable.is_empty() && !variable.to_ascii_uppercase().starts_with("SELVEDGE_")
}
