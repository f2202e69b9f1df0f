//! `metrics` of a `Telemetry`: which of Istio's standard metrics proxies tell, and with which labels.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_model::telemetry::{LONGEST_TAG, LabelChange, LabelValue, MOST_TAGS, NotALabel, StandardMetric};
use serde::Deserialize;

use super::{
    super::{
        document::{Reading, wrong},
        typed::{FieldError, Present},
    },
    Mode, ProviderYaml, Ways,
};

/// Labels that a proxy's page gives meaning to.
const RESERVED: [&str; 3] = ["le", "quantile", "overflow"];

/// One of `metrics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricRule {
    /// Whether it is about what is told to Prometheus, and not to others only; `None`: about what is told anyway.
    pub is_of_prometheus: Option<bool>,
    /// What it changes, in order.
    pub overrides: Vec<MetricOverride>,
}

/// One of `overrides`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricOverride {
    /// What it is for.
    pub ways: Ways,
    /// Which metrics: those that proxies tell of those that are meant.
    pub metrics: Vec<StandardMetric>,
    /// Whether they are not told.
    pub disabled: Option<bool>,
    /// What becomes of labels, by name.
    pub labels: BTreeMap<String, LabelChange>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct MetricsYaml {
    providers: Vec<ProviderYaml>,
    overrides: Vec<OverrideYaml>,
    reporting_interval: Option<Present>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OverrideYaml {
    r#match: SelectorYaml,
    disabled: Option<bool>,
    tag_overrides: BTreeMap<String, LabelYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SelectorYaml {
    metric: Option<Metric>,
    custom_metric: Option<String>,
    mode: Mode,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Metric {
    AllMetrics,
    RequestCount,
    RequestDuration,
    RequestSize,
    ResponseSize,
    TcpOpenedConnections,
    TcpClosedConnections,
    TcpSentBytes,
    TcpReceivedBytes,
    GrpcRequestMessages,
    GrpcResponseMessages,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LabelYaml {
    operation: Operation,
    value: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Operation {
    #[default]
    Upsert,
    Remove,
}

impl Metric {
    /// The one that proxies tell; `None`: they do not tell it, or all are meant.
    fn told(self) -> Option<StandardMetric> {
        Some(match self {
            Self::AllMetrics | Self::GrpcRequestMessages | Self::GrpcResponseMessages => return None,
            Self::RequestCount => StandardMetric::RequestCount,
            Self::RequestDuration => StandardMetric::RequestDuration,
            Self::RequestSize => StandardMetric::RequestSize,
            Self::ResponseSize => StandardMetric::ResponseSize,
            Self::TcpOpenedConnections => StandardMetric::TcpOpenedConnections,
            Self::TcpClosedConnections => StandardMetric::TcpClosedConnections,
            Self::TcpSentBytes => StandardMetric::TcpSentBytes,
            Self::TcpReceivedBytes => StandardMetric::TcpReceivedBytes,
        })
    }
}

/// All of `metrics`.
pub(super) fn read(yaml: Vec<MetricsYaml>, reading: &mut Reading<'_>) -> Result<Vec<MetricRule>, FieldError> {
    let mut rules = Vec::with_capacity(yaml.len());
    for (number, rule) in yaml.into_iter().enumerate() {
        rules.push(rule.read(&format!("spec.metrics[{number}]"), reading)?);
    }
    let labels = rules.iter().flat_map(|rule| &rule.overrides).flat_map(|change| change.labels.keys());
    let count = labels.collect::<BTreeSet<_>>().len();
    if count > MOST_TAGS {
        return Err(wrong("spec.metrics", format!("changes {count} tags, and may change {MOST_TAGS}")));
    }
    Ok(rules)
}

impl MetricsYaml {
    fn read(self, field: &str, reading: &mut Reading<'_>) -> Result<MetricRule, FieldError> {
        for (number, ProviderYaml { name }) in self.providers.iter().enumerate() {
            if !is_prometheus(name) {
                let message = format!(
                    "{name:?} gets no metrics: proxies send them nowhere, and tell them to whoever scrapes /metrics of their admin \
                     port, such as Prometheus; MeshConfig is not read, so if that is what it is, name it prometheus, or have an \
                     OpenTelemetry Collector scrape them"
                );
                reading.not_acted_on(format!("{field}.providers[{number}].name"), message);
            }
        }
        let is_of_prometheus = (!self.providers.is_empty())
            .then(|| self.providers.iter().any(|provider| is_prometheus(&provider.name)));
        if is_of_prometheus == Some(false) {
            let message = "names no Prometheus, so proxies tell nobody Istio's metrics where this is in force, as in Istio; add \
                           prometheus if they should";
            reading.warning(format!("{field}.providers"), message);
        }
        if self.reporting_interval.is_some() {
            let message = "changes nothing: bytes of a connection are counted as they pass, and told whenever they are asked for";
            reading.not_acted_on(format!("{field}.reportingInterval"), message);
            reading.take_unknown_below(&format!("{field}.reportingInterval"));
        }
        let mut overrides = Vec::with_capacity(self.overrides.len());
        for (number, one) in self.overrides.into_iter().enumerate() {
            overrides.push(one.read(&format!("{field}.overrides[{number}]"), reading)?);
        }
        Ok(MetricRule { is_of_prometheus, overrides })
    }
}

impl OverrideYaml {
    fn read(self, field: &str, reading: &mut Reading<'_>) -> Result<MetricOverride, FieldError> {
        let SelectorYaml { metric, custom_metric, mode } = self.r#match;
        let is_off = self.disabled == Some(true);
        let metrics = match (metric, custom_metric) {
            (Some(_), Some(_)) => {
                let message = "stands beside metric, and one of them is meant; remove the other";
                return Err(wrong(format!("{field}.match.customMetric"), message));
            }
            (None, Some(name)) => {
                let message = format!(
                    "{name:?} is no metric that proxies tell; only Istio's standard metrics can be changed"
                );
                reading.not_acted_on(format!("{field}.match.customMetric"), message);
                Vec::new()
            }
            (None | Some(Metric::AllMetrics), None) => StandardMetric::ALL.to_vec(),
            (Some(metric), None) => {
                let told = metric.told();
                if told.is_none() && !is_off {
                    let message = "proxies do not count messages of gRPC, so there is nothing to change";
                    reading.not_acted_on(format!("{field}.match.metric"), message);
                }
                told.into_iter().collect()
            }
        };
        if is_off && !self.tag_overrides.is_empty() {
            let message = "has no effect, because the metric is disabled; remove one of the two";
            reading.warning(format!("{field}.tagOverrides"), message);
        }
        let mut labels = BTreeMap::new();
        for (name, label) in self.tag_overrides {
            if let Some(change) = label.read(&name, &format!("{field}.tagOverrides.{name}"), reading)? {
                labels.insert(name, change);
            }
        }
        Ok(MetricOverride { ways: mode.into(), metrics, disabled: self.disabled, labels })
    }
}

impl LabelYaml {
    /// `None`: it stays as it is, which is reported.
    fn read(
        self,
        name: &str,
        field: &str,
        reading: &mut Reading<'_>,
    ) -> Result<Option<LabelChange>, FieldError> {
        if !is_label(name) {
            let message = format!(
                "{name:?} is no label of a metric; write letters, digits and _, no digit first, and none of {}",
                RESERVED.join(", ")
            );
            return Err(wrong(field, message));
        }
        let at_value = format!("{field}.value");
        match (self.operation, self.value) {
            (Operation::Remove, None) => Ok(Some(LabelChange::Removed)),
            (Operation::Remove, Some(_)) => {
                Err(wrong(at_value, "is for UPSERT, and what is removed has no value; remove one of the two"))
            }
            (Operation::Upsert, None) => {
                let message =
                    "needs a value, unless its operation is REMOVE; write for example value: \"'gold'\"";
                Err(wrong(field, message))
            }
            (Operation::Upsert, Some(text)) => match text.parse() {
                Ok(LabelValue::Literal(text)) if text.len() > LONGEST_TAG => {
                    let message = format!("has {} bytes, and may have {LONGEST_TAG}", text.len());
                    Err(wrong(at_value, message))
                }
                Ok(value) => Ok(Some(LabelChange::Set(value))),
                Err(NotALabel) => {
                    let message = format!(
                        "{text:?} is not understood, so the tag stays as it is: {NotALabel}; what clients choose, such as a path, \
                         a host or a header, could make any number of series"
                    );
                    reading.not_acted_on(at_value, message);
                    Ok(None)
                }
            },
        }
    }
}

/// Whether a provider is what scrapes proxies. Only of the one that Istio itself defines is that known: what others are,
/// `MeshConfig` would say, and none is read. As in Istio, upper and lower case are the same.
fn is_prometheus(name: &str) -> bool {
    name.eq_ignore_ascii_case("prometheus")
}

fn is_label(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let mut bytes = name.bytes();
    bytes.next().is_some_and(is_letter)
        && bytes.all(|byte| is_letter(byte) || byte.is_ascii_digit())
        && !name.starts_with("__")
        && !RESERVED.contains(&name)
}
