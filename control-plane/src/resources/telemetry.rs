//! `Telemetry`: what is written down of requests, which of them are traced, and which metrics are told.

mod metrics;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_model::{
    filter::Fraction,
    telemetry::{LogFilter, LogSink, MOST_SINKS, MOST_TAGS, SpanTag, TagValue, is_readable},
};
use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    kinds::{Feedback, ISTIO_TELEMETRY, ResourceKind},
    selector::SelectorYaml,
    targets::{self, Named, TargetYaml},
    typed::FieldError,
    values::header_name,
};

use self::metrics::MetricsYaml;
pub use self::metrics::{MetricOverride, MetricRule};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("Telemetry", ISTIO_TELEMETRY, "telemetries", Feedback::Conditions)
        .read_as_spec::<Yaml>(|document| document.with_spec_or_default(read));

/// What a `Telemetry` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TelemetrySpec {
    /// The labels of the workloads that it is for; empty = all of its namespace (or of the mesh).
    pub selector: BTreeMap<String, String>,
    /// The Services of its namespace that it is for; `None` = it names neither those nor Gateways.
    pub services: Option<Vec<String>>,
    /// The Gateways of its namespace that it is for, besides.
    pub gateways: Vec<String>,
    /// What it says of access logs, in order.
    pub logging: Vec<LogRule>,
    /// What it says of traces, in order.
    pub tracing: Vec<TraceRule>,
    /// What it says of metrics, in order.
    pub metrics: Vec<MetricRule>,
}

/// Which directions something is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ways {
    /// What comes to a workload.
    pub inbound: bool,
    /// What it sends.
    pub outbound: bool,
}

/// One of `accessLogging`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRule {
    /// What it is for.
    pub ways: Ways,
    /// Where lines go; empty = it is about wherever they go already.
    pub sinks: Vec<LogSink>,
    /// Whether none is written.
    pub disabled: Option<bool>,
    /// Which requests.
    pub filter: Option<Arc<LogFilter>>,
}

/// One of `tracing`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceRule {
    /// What it is for.
    pub ways: Ways,
    /// How many of a million.
    pub sampling: Option<u32>,
    /// Whether no span is reported.
    pub disabled: Option<bool>,
    /// What is added to spans.
    pub tags: Option<Vec<SpanTag>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Yaml {
    selector: SelectorYaml,
    target_ref: Option<TargetYaml>,
    target_refs: Vec<TargetYaml>,
    access_logging: Vec<LoggingYaml>,
    tracing: Vec<TracingYaml>,
    metrics: Vec<MetricsYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LoggingYaml {
    r#match: MatchYaml,
    providers: Vec<ProviderYaml>,
    disabled: Option<bool>,
    filter: Option<FilterYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MatchYaml {
    mode: Mode,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Mode {
    #[default]
    ClientAndServer,
    Client,
    Server,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ProviderYaml {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FilterYaml {
    expression: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TracingYaml {
    r#match: MatchYaml,
    providers: Vec<ProviderYaml>,
    random_sampling_percentage: Option<f64>,
    disable_span_reporting: Option<bool>,
    custom_tags: Option<BTreeMap<String, TagYaml>>,
    use_request_id_for_trace_sampling: Option<bool>,
    enable_istio_tags: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TagYaml {
    literal: Option<LiteralYaml>,
    environment: Option<FromYaml>,
    header: Option<FromYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LiteralYaml {
    value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FromYaml {
    name: String,
    default_value: String,
}

impl From<Mode> for Ways {
    fn from(mode: Mode) -> Self {
        Self {
            inbound: matches!(mode, Mode::ClientAndServer | Mode::Server),
            outbound: matches!(mode, Mode::ClientAndServer | Mode::Client),
        }
    }
}

fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<TelemetrySpec, FieldError> {
    let Yaml { selector, target_ref, target_refs, access_logging, tracing, metrics } = yaml;
    let selector = selector.read(reading)?;
    let named = targets::named(target_ref.as_ref(), &target_refs, !selector.is_empty())?;
    let (services, gateways) = match named {
        None => (None, Vec::new()),
        Some(Named { services, gateways }) => (Some(services), gateways),
    };
    let mut logging = Vec::new();
    for (number, rule) in access_logging.into_iter().enumerate() {
        logging.push(rule.read(&format!("spec.accessLogging[{number}]"), reading)?);
    }
    let mut traced = Vec::new();
    for (number, rule) in tracing.into_iter().enumerate() {
        traced.push(rule.read(&format!("spec.tracing[{number}]"), reading)?);
    }
    let metrics = metrics::read(metrics, reading)?;
    Ok(TelemetrySpec { selector, services, gateways, logging, tracing: traced, metrics })
}

impl LoggingYaml {
    fn read(self, field: &str, reading: &mut Reading<'_>) -> Result<LogRule, FieldError> {
        let mut sinks = BTreeSet::new();
        for (number, ProviderYaml { name }) in self.providers.iter().enumerate() {
            let field = format!("{field}.providers[{number}].name");
            let sink = sink(name).ok_or_else(|| {
                let message = format!(
                    "{name:?} is no provider of an access log here: no MeshConfig is read; write envoy or stdout (standard \
                     output), text, json, or otel (to the proxy's --otlp-endpoint)"
                );
                wrong(field, message)
            })?;
            sinks.insert(sink);
        }
        let filter = self.filter.map(|filter| {
            let field = format!("{field}.filter.expression");
            let read = filter.expression.parse::<LogFilter>();
            read.map(Arc::new).map_err(|error| wrong(field, error.to_string()))
        });
        if self.disabled == Some(true) && filter.is_some() {
            let message = "has no effect, because the entry is disabled; remove one of the two";
            reading.warning(format!("{field}.filter"), message);
        }
        Ok(LogRule {
            ways: self.r#match.mode.into(),
            sinks: sinks.into_iter().take(MOST_SINKS).collect(),
            disabled: self.disabled,
            filter: filter.transpose()?,
        })
    }
}

/// The place that a provider of an access log is; Istio's own is called `envoy`.
fn sink(name: &str) -> Option<LogSink> {
    match name {
        "envoy" | "stdout" => Some(LogSink::Stdout),
        "text" | "envoy-text" => Some(LogSink::Text),
        "json" | "envoy-json" => Some(LogSink::Json),
        name if is_otlp(name) => Some(LogSink::Otlp),
        _ => None,
    }
}

fn is_otlp(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("otel") || name.contains("otlp") || name.contains("opentelemetry")
}

impl TracingYaml {
    fn read(self, field: &str, reading: &mut Reading<'_>) -> Result<TraceRule, FieldError> {
        if self.providers.len() > 1 {
            let message = "names more than one provider, and spans go to one; keep one";
            return Err(wrong(format!("{field}.providers"), message));
        }
        if let Some(ProviderYaml { name }) = self.providers.first().filter(|one| !is_otlp(&one.name)) {
            let message = format!(
                "{name:?} is defined nowhere, because no MeshConfig is read: spans go by OTLP to the proxy's --otlp-endpoint, \
                 whatever the provider is called; name it otel"
            );
            reading.warning(format!("{field}.providers[0].name"), message);
        }
        let sampling = self.random_sampling_percentage.map(|percent| {
            Fraction::of_percent(percent).map(Fraction::parts).ok_or_else(|| {
                let message = format!("{percent} is not a share of requests; write percent from 0 to 100");
                wrong(format!("{field}.randomSamplingPercentage"), message)
            })
        });
        if self.use_request_id_for_trace_sampling == Some(true) {
            let message = "requests are sampled by their trace headers, and never by x-request-id";
            reading.not_acted_on(format!("{field}.useRequestIdForTraceSampling"), message);
        }
        if self.enable_istio_tags == Some(true) {
            let message = "spans have the attributes of OpenTelemetry's conventions, and not Istio's";
            reading.not_acted_on(format!("{field}.enableIstioTags"), message);
        }
        let tags = self.custom_tags.map(|tags| read_tags(tags, &format!("{field}.customTags")));
        Ok(TraceRule {
            ways: self.r#match.mode.into(),
            sampling: sampling.transpose()?,
            disabled: self.disable_span_reporting,
            tags: tags.transpose()?,
        })
    }
}

fn read_tags(tags: BTreeMap<String, TagYaml>, field: &str) -> Result<Vec<SpanTag>, FieldError> {
    if tags.len() > MOST_TAGS {
        return Err(wrong(field, format!("has {} tags, and may have {MOST_TAGS}", tags.len())));
    }
    let tag = |(name, tag): (String, TagYaml)| {
        let field = format!("{field}.{name}");
        let default = |text: String| (!text.is_empty()).then_some(text);
        let value = match (tag.literal, tag.environment, tag.header) {
            (Some(LiteralYaml { value }), None, None) => TagValue::Literal(value),
            (None, Some(FromYaml { name, default_value }), None) => {
                if !is_readable(&name) {
                    let message = format!(
                        "{name:?} cannot be read: a tag has a name of a variable, and never a setting of the proxy's own"
                    );
                    return Err(wrong(format!("{field}.environment.name"), message));
                }
                TagValue::Environment { name, default: default(default_value) }
            }
            (None, None, Some(FromYaml { name, default_value })) => {
                let name = header_name(&name, &format!("{field}.header.name"))?.to_string();
                TagValue::Header { name, default: default(default_value) }
            }
            _ => {
                let message = "needs exactly one of literal, environment and header";
                return Err(wrong(field, message));
            }
        };
        Ok(SpanTag { name, value })
    };
    tags.into_iter().map(tag).collect()
}
