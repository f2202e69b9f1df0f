//! How long requests took, and how large they were: histograms for each set of a few labels.

use std::sync::{Arc, OnceLock};

use super::{
    labels::Labels,
    measured::{Measure, Measured, Sum},
    page::{Page, Written},
};
use crate::arrival::Direction;

/// What was measured of requests. Shared by the series that differ only in labels which the histograms lack.
#[derive(Debug)]
pub(super) struct Durations {
    /// `None`: what there was no room for.
    labels: Option<Labels>,
    /// By worker. Made by its first request: most routes of a large mesh have none.
    shards: Box<[OnceLock<Box<Measured>>]>,
}

impl Durations {
    pub(super) fn new(labels: Option<Labels>, workers: usize) -> Self {
        Self { labels, shards: std::iter::repeat_with(OnceLock::new).take(workers).collect() }
    }

    pub(super) fn is_of(&self, direction: Direction) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.direction == direction)
    }

    pub(super) fn record(&self, worker: usize, measure: &Measure) {
        if let Some(shard) = self.shards.get(worker) {
            shard.get_or_init(Box::default).record(measure);
        }
    }

    pub(super) fn sum(&self) -> Sum {
        self.shards.iter().filter_map(|shard| shard.get().map(|measured| &**measured)).collect()
    }
}

/// Writes the histograms of one direction, or of copies.
pub(super) fn write<'a>(
    page: &mut Page,
    direction: &str,
    help: &str,
    durations: impl Iterator<Item = &'a Arc<Durations>>,
) {
    let all: Vec<(Written, Sum)> = durations
        .map(|durations| (written(durations.labels.as_ref()), durations.sum()))
        .filter(|(_, sum)| sum.count() > 0)
        .collect();
    let name = format!("selvedge_{direction}_request_duration_seconds");
    page.family(&name, "histogram", "seconds", help);
    all.iter().for_each(|(labels, sum)| sum.write_seconds(page, &name, labels));
    let name = format!("selvedge_{direction}_request_size_bytes");
    page.family(&name, "histogram", "bytes", "Bytes of the bodies of finished requests");
    all.iter().for_each(|(labels, sum)| sum.write_received(page, &name, labels));
    let name = format!("selvedge_{direction}_response_size_bytes");
    page.family(&name, "histogram", "bytes", "Bytes of the bodies of answers to finished requests");
    all.iter().for_each(|(labels, sum)| sum.write_sent(page, &name, labels));
}

/// The labels as text.
pub(super) fn written(labels: Option<&Labels>) -> Written {
    let mut written = Written::default();
    let Some(labels) = labels else { return written.with("overflow", "true") };
    // A String takes whatever is written to it.
    let _ = labels.each(|name, value| {
        written.add(name, value);
        Ok(())
    });
    written
}
