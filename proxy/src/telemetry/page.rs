//! Text of `/metrics` that prometheus-client's encoder does not write: histograms with exemplars, and families whose
//! labels are made once.

use std::fmt::{Display, Write as _};

use super::trace_id::TraceId;

/// Text of OpenMetrics to which families are added.
#[derive(Debug, Default)]
pub(super) struct Page(String);

/// The labels of a series, as text: `a="b",c="d"`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Written(String);

/// One request that a bucket has counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Exemplar {
    /// The trace that tells more of it.
    pub(super) trace: TraceId,
    /// What was measured, in the unit of the histogram.
    pub(super) value: f64,
    /// When, in seconds since 1970.
    pub(super) at: f64,
}

/// A histogram, added up. Each bucket has its upper bound and how many it has counted, those of smaller ones left out; the
/// last has no bound.
#[derive(Debug)]
pub(super) struct Histogram<'a> {
    pub(super) bounds: &'a [f64],
    pub(super) counts: &'a [u64],
    pub(super) sum: f64,
    pub(super) exemplars: &'a [Option<Exemplar>],
}

impl Written {
    /// Adds a label. One without a value is left out.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.add(name, value);
        self
    }

    /// Adds a label. One without a value is left out.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(name);
        self.0.push_str("=\"");
        for letter in value.chars() {
            match letter {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
        self.0.push('"');
    }
}

impl Page {
    /// To add families to what is there already.
    pub(super) fn after(text: String) -> Self {
        Self(text)
    }

    /// Begins a family. `name` ends with its unit, if it has one.
    pub(super) fn family(&mut self, name: &str, kind: &str, unit: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}.");
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
        if !unit.is_empty() {
            let _ = writeln!(self.0, "# UNIT {name} {unit}");
        }
    }

    /// Adds a sample, whose `name` is the whole one.
    pub(super) fn sample(&mut self, name: &str, labels: &Written, value: impl Display) {
        let _ = if labels.0.is_empty() {
            writeln!(self.0, "{name} {value}")
        } else {
            writeln!(self.0, "{name}{{{}}} {value}", labels.0)
        };
    }

    /// Adds the samples of a histogram.
    pub(super) fn histogram(&mut self, name: &str, labels: &Written, histogram: &Histogram<'_>) {
        let comma = if labels.0.is_empty() { "" } else { "," };
        let mut count = 0;
        for (place, counted) in histogram.counts.iter().enumerate() {
            count += counted;
            let _ = write!(self.0, "{name}_bucket{{{}{comma}le=\"", labels.0);
            let _ = match histogram.bounds.get(place) {
                Some(bound) => write!(self.0, "{bound:?}"),
                None => write!(self.0, "+Inf"),
            };
            let _ = write!(self.0, "\"}} {count}");
            if let Some(Some(Exemplar { trace, value, at })) = histogram.exemplars.get(place) {
                let _ = write!(self.0, " # {{trace_id=\"{trace}\"}} {value} {at:.3}");
            }
            self.0.push('\n');
        }
        self.sample(&format!("{name}_sum"), labels, histogram.sum);
        self.sample(&format!("{name}_count"), labels, count);
    }

    /// All of it.
    pub(super) fn into_text(self) -> String {
        self.0
    }
}
