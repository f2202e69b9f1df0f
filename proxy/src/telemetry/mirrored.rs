//! What is counted of copies: by names of their own, so that nobody takes them for requests of the app's.

use std::{fmt, sync::Arc, time::Instant};

use prometheus_client::encoding::DescriptorEncoder;
use selvedge_model::BackendName;

use super::{
    durations,
    events::{self, Dropped, KeyedCounts, Of},
    labels::Labels,
    page::Page,
    series::{self, Requests, Series},
};

/// What their metrics' names have.
const WORD: &str = "outbound_mirrored";

/// Copies that were sent, and those that were not.
#[derive(Debug)]
pub(super) struct Mirrored {
    requests: Requests,
    overflow: Arc<Series>,
    dropped: KeyedCounts<(BackendName, Dropped)>,
}

impl Mirrored {
    pub(super) fn new(limit: usize, workers: usize) -> Self {
        Self {
            requests: Requests::new(limit, false),
            overflow: series::overflow(workers),
            dropped: KeyedCounts::new(workers),
        }
    }

    /// Those with these labels.
    pub(super) fn find(&self, labels: &Labels, workers: usize) -> Arc<Series> {
        let found = self.requests.find(labels, workers);
        found.unwrap_or_else(|| Arc::clone(&self.overflow))
    }

    pub(super) fn dropped(&self, backend: &BackendName, why: Dropped, worker: usize) {
        self.dropped.count(&(backend.clone(), why), worker);
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.requests.all();
        let help = "Finished copies of requests, by how they ended.";
        series::encode(encoder, WORD, help, all.iter().chain([&self.overflow]))?;
        let name = "selvedge_outbound_mirrored_requests_dropped";
        let help = "Copies of requests that were not sent, or not to their end, by reason.";
        let of = |(backend, why)| Of::Dropped(backend, why);
        events::encode(encoder, name, help, self.dropped.totals(), of)
    }

    pub(super) fn write(&self, page: &mut Page) {
        let durations = self.requests.durations();
        let help = "Time from the first byte of a request to the last byte of the answer to its copy";
        durations::write(page, WORD, help, durations.iter().chain([self.overflow.durations()]));
    }

    /// How many sets of labels there are, and how often there was no room for one.
    pub(super) fn room(&self) -> (usize, u64) {
        self.requests.room()
    }

    /// Forgets what nobody uses and has counted nothing for a while.
    pub(super) fn expire(&self, now: Instant) {
        self.requests.expire(now);
    }
}
