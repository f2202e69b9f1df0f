//! What is written down and traced. What this version does not know is left out: a line less is no reason to refuse a whole
//! configuration.

use std::sync::Arc;

use selvedge_model::{
    AccessLog, Telemetry,
    telemetry::{
        ALL, LabelChange, LabelValue, LogSink, LogTo, MOST_SINKS, MOST_TAGS, MetricChange, MetricChanges,
        OneWay, SpanTag, StandardMetric, TagValue, Tracing,
    },
};

use crate::wire::{self, label_change::Change, span_tag::Value};

/// The most labels of one metric that are changed: those of a document for the mesh, one for a namespace, and one for a
/// workload.
const MOST_LABELS: usize = 3 * MOST_TAGS;

impl From<&Telemetry> for wire::Telemetry {
    fn from(telemetry: &Telemetry) -> Self {
        Self { inbound: Some((&telemetry.inbound).into()), outbound: Some((&telemetry.outbound).into()) }
    }
}

impl From<wire::Telemetry> for Telemetry {
    fn from(telemetry: wire::Telemetry) -> Self {
        let one_way = |told: Option<wire::OneWayTelemetry>| told.map(Into::into).unwrap_or_default();
        Self { inbound: one_way(telemetry.inbound), outbound: one_way(telemetry.outbound) }
    }
}

impl From<&OneWay> for wire::OneWayTelemetry {
    fn from(one_way: &OneWay) -> Self {
        Self {
            access_log: log_to(&one_way.access_log),
            tracing: one_way.tracing.as_ref().map(Into::into),
            metrics: one_way.metrics.iter().map(metric_change).collect(),
        }
    }
}

impl From<wire::OneWayTelemetry> for OneWay {
    fn from(one_way: wire::OneWayTelemetry) -> Self {
        Self {
            access_log: access_log(one_way.access_log),
            tracing: one_way.tracing.map(Into::into),
            metrics: metric_changes(one_way.metrics),
        }
    }
}

/// Where lines go.
pub(super) fn log_to(log: &AccessLog) -> Vec<wire::LogTo> {
    let one = |to: &LogTo| {
        let sink = match to.sink {
            LogSink::Stdout => wire::LogSink::Stdout,
            LogSink::Text => wire::LogSink::Text,
            LogSink::Json => wire::LogSink::Json,
            LogSink::Otlp => wire::LogSink::Otlp,
        };
        let filter = to.filter.as_ref().map(ToString::to_string).unwrap_or_default();
        wire::LogTo { sink: sink.into(), filter }
    };
    log.0.iter().map(one).collect()
}

/// The same, back. A filter that is not understood admits nothing, because all would be more than was asked for.
pub(super) fn access_log(told: Vec<wire::LogTo>) -> AccessLog {
    let one = |to: wire::LogTo| {
        let sink = match to.sink() {
            wire::LogSink::Unspecified => return None,
            wire::LogSink::Stdout => LogSink::Stdout,
            wire::LogSink::Text => LogSink::Text,
            wire::LogSink::Json => LogSink::Json,
            wire::LogSink::Otlp => LogSink::Otlp,
        };
        let filter = (!to.filter.is_empty()).then(|| to.filter.parse().ok().map(Arc::new));
        Some(LogTo { sink, filter: filter.map_or(Some(None), |read| read.map(Some))? })
    };
    AccessLog(told.into_iter().filter_map(one).take(MOST_SINKS).collect())
}

/// What is changed of one metric.
fn metric_change((metric, change): (&StandardMetric, &MetricChange)) -> wire::MetricChange {
    let metric = match metric {
        StandardMetric::RequestCount => wire::StandardMetric::RequestCount,
        StandardMetric::RequestDuration => wire::StandardMetric::RequestDuration,
        StandardMetric::RequestSize => wire::StandardMetric::RequestSize,
        StandardMetric::ResponseSize => wire::StandardMetric::ResponseSize,
        StandardMetric::TcpOpenedConnections => wire::StandardMetric::TcpOpenedConnections,
        StandardMetric::TcpClosedConnections => wire::StandardMetric::TcpClosedConnections,
        StandardMetric::TcpSentBytes => wire::StandardMetric::TcpSentBytes,
        StandardMetric::TcpReceivedBytes => wire::StandardMetric::TcpReceivedBytes,
    };
    let label = |(name, change): (&String, &LabelChange)| {
        let change = match change {
            LabelChange::Removed => Change::Removed(true),
            LabelChange::Set(LabelValue::Literal(text)) => Change::Literal(text.clone()),
            LabelChange::Set(LabelValue::Fact(fact)) => Change::Attribute(fact.attribute().to_owned()),
        };
        (name.clone(), wire::LabelChange { change: Some(change) })
    };
    wire::MetricChange {
        metric: metric.into(),
        disabled: change.disabled,
        labels: change.labels.iter().map(label).collect(),
    }
}

/// The same of all, back. A label that is not understood stays as it is.
fn metric_changes(told: Vec<wire::MetricChange>) -> MetricChanges {
    let label = |(name, told): (String, wire::LabelChange)| {
        let change = match told.change? {
            Change::Removed(_) => LabelChange::Removed,
            Change::Literal(text) => LabelChange::Set(LabelValue::Literal(text)),
            Change::Attribute(name) => LabelChange::Set(name.parse().ok()?),
        };
        Some((name, change))
    };
    let one = |told: wire::MetricChange| {
        let metric = match told.metric() {
            wire::StandardMetric::Unspecified => return None,
            wire::StandardMetric::RequestCount => StandardMetric::RequestCount,
            wire::StandardMetric::RequestDuration => StandardMetric::RequestDuration,
            wire::StandardMetric::RequestSize => StandardMetric::RequestSize,
            wire::StandardMetric::ResponseSize => StandardMetric::ResponseSize,
            wire::StandardMetric::TcpOpenedConnections => StandardMetric::TcpOpenedConnections,
            wire::StandardMetric::TcpClosedConnections => StandardMetric::TcpClosedConnections,
            wire::StandardMetric::TcpSentBytes => StandardMetric::TcpSentBytes,
            wire::StandardMetric::TcpReceivedBytes => StandardMetric::TcpReceivedBytes,
        };
        let labels = told.labels.into_iter().filter_map(label).take(MOST_LABELS).collect();
        Some((metric, MetricChange { disabled: told.disabled, labels }))
    };
    told.into_iter().filter_map(one).collect()
}

impl From<&Tracing> for wire::Tracing {
    fn from(tracing: &Tracing) -> Self {
        Self { sampling: tracing.sampling, tags: tracing.tags.iter().map(Into::into).collect() }
    }
}

impl From<wire::Tracing> for Tracing {
    fn from(tracing: wire::Tracing) -> Self {
        let tags = tracing.tags.into_iter().filter_map(tag).take(MOST_TAGS);
        Self { sampling: tracing.sampling.min(ALL), tags: tags.collect() }
    }
}

impl From<&SpanTag> for wire::SpanTag {
    fn from(tag: &SpanTag) -> Self {
        let (value, default) = match &tag.value {
            TagValue::Literal(text) => (Value::Literal(text.clone()), None),
            TagValue::Header { name, default } => (Value::Header(name.clone()), default.clone()),
            TagValue::Environment { name, default } => (Value::Environment(name.clone()), default.clone()),
        };
        Self { name: tag.name.clone(), value: Some(value), default }
    }
}

fn tag(tag: wire::SpanTag) -> Option<SpanTag> {
    let wire::SpanTag { name, value, default } = tag;
    let value = match value? {
        Value::Literal(text) => TagValue::Literal(text),
        Value::Header(name) => TagValue::Header { name, default },
        Value::Environment(name) => TagValue::Environment { name, default },
    };
    Some(SpanTag { name, value })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use selvedge_model::telemetry::LabelFact;

    use super::*;

    #[test]
    fn what_is_written_down_and_traced_comes_back_as_it_was_told() {
        let filter = Some(Arc::new("response.code >= 400".parse().unwrap()));
        let sinks = [LogSink::Stdout, LogSink::Text, LogSink::Json];
        let mut log: Vec<LogTo> = sinks.map(|sink| LogTo { sink, filter: None }).into();
        log.push(LogTo { sink: LogSink::Otlp, filter });
        let default = || Some("none".to_owned());
        let tags = [
            ("a", TagValue::Literal("b".to_owned())),
            ("c", TagValue::Header { name: "x-tenant".to_owned(), default: default() }),
            ("d", TagValue::Environment { name: "ZONE".to_owned(), default: None }),
        ];
        let tags = tags.map(|(name, value)| SpanTag { name: name.to_owned(), value }).into();
        let tracing = Some(Tracing { sampling: 10_000, tags });
        let inbound = OneWay { access_log: AccessLog(log), tracing, metrics: changes() };
        let telemetry = Telemetry { inbound, outbound: OneWay::default() };

        assert_eq!(Telemetry::from(wire::Telemetry::from(&telemetry)), telemetry);
    }

    /// Something of every metric.
    fn changes() -> MetricChanges {
        let labels = [
            ("destination_port", LabelChange::Set(LabelValue::Fact(LabelFact::Port))),
            ("source_principal", LabelChange::Removed),
            ("team", LabelChange::Set(LabelValue::Literal("shop".to_owned()))),
        ];
        let labels: BTreeMap<_, _> = labels.map(|(name, change)| (name.to_owned(), change)).into();
        let change = |disabled| MetricChange { disabled, labels: labels.clone() };
        StandardMetric::ALL
            .into_iter()
            .map(|metric| (metric, change(metric > StandardMetric::ResponseSize)))
            .collect()
    }

    #[test]
    fn what_a_newer_control_plane_changes_of_metrics_and_is_not_understood_stays_as_it_is() {
        let mut told: Vec<wire::MetricChange> = changes().iter().map(metric_change).collect();
        told.truncate(1);
        let attribute = Some(Change::Attribute("request.from_the_future".to_owned()));
        told[0].labels.insert("new".to_owned(), wire::LabelChange { change: attribute });
        told[0].labels.insert("none".to_owned(), wire::LabelChange { change: None });
        told.push(wire::MetricChange { metric: 99, ..told[0].clone() });

        let mut expected = changes();
        expected.retain(|metric, _| *metric == StandardMetric::RequestCount);
        assert_eq!(metric_changes(told), expected);
    }

    #[test]
    fn a_line_whose_filter_is_not_understood_is_not_written() {
        let of = |sink: i32, filter: &str| access_log(vec![wire::LogTo { sink, filter: filter.to_owned() }]);

        assert!(of(wire::LogSink::Json.into(), "from.the.future > 1").is_off());
        assert!(of(99, "").is_off() && !of(wire::LogSink::Json.into(), "").is_off());
    }
}
