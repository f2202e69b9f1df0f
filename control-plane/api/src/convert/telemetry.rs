//! What is written down and traced. What this version does not know is left out: a line less is no reason to refuse a whole
//! configuration.

use std::sync::Arc;

use selvedge_model::{
    AccessLog, Telemetry,
    telemetry::{ALL, LogSink, LogTo, MOST_SINKS, MOST_TAGS, OneWay, SpanTag, TagValue, Tracing},
};

use crate::wire::{self, span_tag::Value};

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
        Self { access_log: log_to(&one_way.access_log), tracing: one_way.tracing.as_ref().map(Into::into) }
    }
}

impl From<wire::OneWayTelemetry> for OneWay {
    fn from(one_way: wire::OneWayTelemetry) -> Self {
        Self { access_log: access_log(one_way.access_log), tracing: one_way.tracing.map(Into::into) }
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
        let inbound = OneWay { access_log: AccessLog(log), tracing };
        let telemetry = Telemetry { inbound, outbound: OneWay::default() };

        assert_eq!(Telemetry::from(wire::Telemetry::from(&telemetry)), telemetry);
    }

    #[test]
    fn a_line_whose_filter_is_not_understood_is_not_written() {
        let of = |sink: i32, filter: &str| access_log(vec![wire::LogTo { sink, filter: filter.to_owned() }]);

        assert!(of(wire::LogSink::Json.into(), "from.the.future > 1").is_off());
        assert!(of(99, "").is_off() && !of(wire::LogSink::Json.into(), "").is_off());
    }
}
