//! Our annotations of namespaces, workloads and routes: what is written down of requests, and how many are traced.

use std::{collections::BTreeMap, sync::Arc};

use selvedge_model::{
    AccessLog,
    filter::Fraction,
    telemetry::{LogFilter, LogSink, LogTo, MOST_SINKS},
};

use super::{
    annotated::place,
    document::{Reading, wrong},
    typed::FieldError,
};

/// Where lines of the access log go.
pub(super) const ACCESS_LOG_ANNOTATION: &str = "config.selvedge.io/access-log";
/// Which requests are lines of it.
pub(super) const ACCESS_LOG_FILTER_ANNOTATION: &str = "config.selvedge.io/access-log-filter";
/// How many percent of requests are traced.
pub(super) const TRACE_SAMPLING_ANNOTATION: &str = "config.selvedge.io/trace-sampling";

/// Those of a route.
pub(super) const OF_ROUTES: &[&str] = &[ACCESS_LOG_ANNOTATION, ACCESS_LOG_FILTER_ANNOTATION];

/// What annotations say; what they do not say is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TelemetryAnnotations {
    /// Where lines go; none: nowhere.
    pub sinks: Option<Vec<LogSink>>,
    /// Which requests.
    pub filter: Option<Arc<LogFilter>>,
    /// How many of a million are traced; `Some(None)`: tracing is off.
    pub sampling: Option<Option<u32>>,
}

impl TelemetryAnnotations {
    /// What `annotations` say.
    ///
    /// # Errors
    /// The name of the first that cannot be used, and why.
    pub fn read(annotations: &BTreeMap<String, String>) -> Result<Self, (&'static str, String)> {
        let text = |name: &'static str| Some((name, annotations.get(name)?.as_str()));
        let sinks = text(ACCESS_LOG_ANNOTATION);
        let sinks = sinks.map(|(name, text)| sinks_of(text).map_err(|why| (name, why))).transpose()?;
        let filter = text(ACCESS_LOG_FILTER_ANNOTATION);
        let filter = filter.map(|(name, text)| filter_of(text).map_err(|why| (name, why))).transpose()?;
        let sampling = text(TRACE_SAMPLING_ANNOTATION);
        let sampling =
            sampling.map(|(name, text)| sampling_of(text).map_err(|why| (name, why))).transpose()?;
        Ok(Self { sinks, filter: filter.map(Arc::new), sampling })
    }

    /// Whether they say nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The access log of a route that has them; `None`: as its client's proxy does.
    pub fn of_route(&self) -> Option<AccessLog> {
        let sinks = match (&self.sinks, &self.filter) {
            (None, None) => return None,
            (None, Some(_)) => &vec![LogSink::Stdout],
            (Some(sinks), _) => sinks,
        };
        let log_to = |sink: &LogSink| LogTo { sink: *sink, filter: self.filter.clone() };
        Some(AccessLog(sinks.iter().map(log_to).collect()))
    }
}

/// The most that the filter of a route may take at all of its rules together, in bytes. It is written once, and sent with
/// each of them.
const MOST_OF_ROUTE: usize = 32 * 1024;

/// Refuses a route of so many `rules` whose annotations cannot be used. What they say is asked of its metadata.
pub(super) fn check(reading: &Reading<'_>, rules: usize) -> Result<(), FieldError> {
    let read = TelemetryAnnotations::read(&reading.metadata.annotations);
    let read = read.map_err(|(name, why)| wrong(place(name), why))?;
    let bytes = read.filter.as_ref().map_or(0, |filter| filter.text().len());
    if bytes.saturating_mul(rules) > MOST_OF_ROUTE {
        let message = format!(
            "has {bytes} bytes, and each of the {rules} rules has it; together they may have {MOST_OF_ROUTE}: write a shorter \
             one, or split the document"
        );
        return Err(wrong(place(ACCESS_LOG_FILTER_ANNOTATION), message));
    }
    Ok(())
}

/// Where lines go: `off`, or places with commas between them.
///
/// # Errors
/// What to write.
pub fn sinks_of(text: &str) -> Result<Vec<LogSink>, String> {
    let text = text.trim();
    if matches!(text, "off" | "disabled") {
        return Ok(Vec::new());
    }
    let sink = |word: &str| match word.trim() {
        "stdout" => Some(LogSink::Stdout),
        "text" => Some(LogSink::Text),
        "json" => Some(LogSink::Json),
        "otlp" => Some(LogSink::Otlp),
        _ => None,
    };
    let mut sinks: Vec<LogSink> = text.split(',').map(sink).collect::<Option<_>>().ok_or_else(|| {
        format!("{text:?} is not where an access log goes; write off, stdout, text, json or otlp, or several with commas")
    })?;
    sinks.sort_unstable();
    sinks.dedup();
    sinks.truncate(MOST_SINKS);
    Ok(sinks)
}

/// Which requests are lines.
///
/// # Errors
/// What is not understood.
pub fn filter_of(text: &str) -> Result<LogFilter, String> {
    text.parse().map_err(|error| format!("{text:?} is not an expression that can be used: {error}"))
}

/// How many of a million requests are traced, of a text in percent; `None`: tracing is off.
///
/// # Errors
/// What to write.
pub fn sampling_of(text: &str) -> Result<Option<u32>, String> {
    let text = text.trim();
    if matches!(text, "off" | "disabled") {
        return Ok(None);
    }
    let percent = text.strip_suffix('%').unwrap_or(text).parse().ok().and_then(Fraction::of_percent);
    percent.map(|share| Some(share.parts())).ok_or_else(|| {
        format!("{text:?} is not a share of requests; write off, or percent from 0 to 100, such as 1.5")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &[(&str, &str)]) -> Result<TelemetryAnnotations, (&'static str, String)> {
        let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        TelemetryAnnotations::read(&annotations.collect())
    }

    #[test]
    fn annotations_say_where_lines_go_which_ones_and_how_many_requests_are_traced() {
        let all = read(&[
            (ACCESS_LOG_ANNOTATION, "otlp, json"),
            (ACCESS_LOG_FILTER_ANNOTATION, "response.code >= 500"),
            (TRACE_SAMPLING_ANNOTATION, "1.5"),
        ])
        .unwrap();

        assert_eq!(all.sinks, Some(vec![LogSink::Json, LogSink::Otlp]));
        assert_eq!(all.filter.as_ref().map(|filter| filter.text()), Some("response.code >= 500"));
        assert_eq!(all.sampling, Some(Some(15_000)));
        assert_eq!(all.of_route().map(|log| log.0.len()), Some(2));
        assert_eq!(read(&[(TRACE_SAMPLING_ANNOTATION, "off")]).unwrap().sampling, Some(None));
        assert_eq!(read(&[(ACCESS_LOG_ANNOTATION, "off")]).unwrap().of_route(), Some(AccessLog::default()));
        assert!(read(&[]).unwrap().is_nothing() && read(&[]).unwrap().of_route().is_none());
    }

    #[test]
    fn an_annotation_that_cannot_be_used_says_what_to_write() {
        for (name, value, words) in [
            (ACCESS_LOG_ANNOTATION, "file", "stdout, text, json or otlp"),
            (ACCESS_LOG_ANNOTATION, "", "stdout, text, json or otlp"),
            (ACCESS_LOG_FILTER_ANNOTATION, "code > 1", "response.code"),
            (TRACE_SAMPLING_ANNOTATION, "101", "0 to 100"),
            (TRACE_SAMPLING_ANNOTATION, "all", "0 to 100"),
        ] {
            let (wrong, why) = read(&[(name, value)]).unwrap_err();
            assert!(wrong == name && why.contains(words), "{value}: {why}");
        }
    }
}
