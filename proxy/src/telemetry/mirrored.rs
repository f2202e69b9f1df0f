//! What is counted of copies: by names of their own, so that nobody takes them for requests of the app's.

use std::{fmt, sync::Arc};

use prometheus_client::encoding::DescriptorEncoder;
use selvedge_model::BackendName;

use super::{
    durations::{self, Durations},
    events::{self, Dropped, KeyedCounts, Of},
    labels::{DurationLabels, Labels},
    registered::Registered,
    series::{self, Series},
};

/// Copies that were sent, and those that were not.
#[derive(Debug)]
pub(super) struct Mirrored {
    series: Registered<Labels, Series>,
    durations: Registered<DurationLabels, Durations>,
    overflow: Arc<Series>,
    dropped: KeyedCounts<(BackendName, Dropped)>,
}

impl Mirrored {
    pub(super) fn new(limit: usize, workers: usize) -> Self {
        Self {
            series: Registered::new(limit),
            durations: Registered::new(limit),
            overflow: series::overflow(workers),
            dropped: KeyedCounts::new(workers),
        }
    }

    /// Those with these labels.
    pub(super) fn find(&self, labels: &Labels, workers: usize) -> Arc<Series> {
        let found = series::find(&self.series, &self.durations, labels, workers);
        found.unwrap_or_else(|| Arc::clone(&self.overflow))
    }

    pub(super) fn dropped(&self, backend: &BackendName, why: Dropped, worker: usize) {
        self.dropped.count(&(backend.clone(), why), worker);
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let word = "outbound_mirrored";
        let (all, durations) = (self.series.all(), self.durations.all());
        let help = "Finished copies of requests, by how they ended.";
        series::encode(encoder, word, help, all.iter().chain([&self.overflow]))?;
        let help = "Time from the first byte of a request to the last byte of the answer to its copy.";
        durations::encode(encoder, word, help, durations.iter().chain([self.overflow.durations()]))?;
        let name = "selvedge_outbound_mirrored_requests_dropped";
        let help = "Copies of requests that were not sent, or not to their end, by reason.";
        let of = |(backend, why)| Of::Dropped(backend, why);
        events::encode(encoder, name, help, self.dropped.totals(), of)
    }
}
