//! The numbers of requests with one set of labels: how they ended, and how long they took.
//!
//! Counting must cost next to nothing. So each worker has numbers of its own, on cache lines of their own, and only
//! that worker writes them: one load and one store, without a locked instruction. Each scrape adds them up. In practice
//! requests end in few ways (status, gRPC status, reason), so each worker notes the ends that it has met in a short
//! list. Most services have one or two, and the list is far smaller than a table of all possible ends.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, NoLabelSet},
    metrics::MetricType,
};
use selvedge_model::traffic::Outcome;

use super::{
    counter::add,
    durations::Durations,
    labels::{DurationLabels, LabelWriter, Labels},
    latencies::Latencies,
    registered::Registered,
};
use crate::{arrival::Direction, error::Reason};

/// How many different ends one worker notes in one series; further ones are counted without labels.
const ENDS: usize = 24;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    /// The answer's status; `None`: no answer was sent.
    pub(super) status: Option<u16>,
    /// The gRPC status, where one was seen.
    pub(super) grpc_status: Option<u8>,
    /// The index of the reason why the proxy made the answer.
    reason: Option<u8>,
}

impl End {
    fn new(status: Option<u16>, grpc_status: Option<u8>, reason: Option<Reason>) -> Self {
        Self {
            status: status.map(|status| status & 0x3ff),
            // A status that gRPC does not know counts as UNKNOWN, as gRPC itself says.
            grpc_status: grpc_status.map(|status| if status > 16 { 2 } else { status }),
            reason: reason.and_then(|reason| u8::try_from(reason.index()).ok()),
        }
    }

    /// The same in the words of what the control plane is told.
    pub(super) fn outcome(self) -> Outcome {
        let reason = self.error_type().map(Arc::from);
        Outcome { status: self.status, grpc_status: self.grpc_status, reason }
    }

    /// The reason, as it is written.
    pub(super) fn error_type(self) -> Option<&'static str> {
        self.reason.and_then(|index| Reason::ALL.get(usize::from(index))).map(|reason| reason.word())
    }

    /// Everything in one word that is never 0: each field plus one, above a bit that is always set.
    fn pack(self) -> u32 {
        let status = self.status.map_or(0, |status| u32::from(status) + 1);
        let grpc_status = self.grpc_status.map_or(0, |status| u32::from(status) + 1);
        let reason = self.reason.map_or(0, |reason| u32::from(reason) + 1);
        1 | status << 1 | grpc_status << 12 | reason << 20
    }

    fn unpack(word: u32) -> Self {
        let field = |shift: u32, bits: u32| ((word >> shift) & ((1 << bits) - 1)).checked_sub(1);
        Self {
            status: field(1, 11).and_then(|status| u16::try_from(status).ok()),
            grpc_status: field(12, 8).and_then(|status| u8::try_from(status).ok()),
            reason: field(20, 8).and_then(|reason| u8::try_from(reason).ok()),
        }
    }
}

/// The numbers of the requests with one set of labels.
#[derive(Debug)]
pub struct Series {
    /// `None`: what there was no room for.
    labels: Option<Labels>,
    shards: Box<[Shard]>,
    durations: Arc<Durations>,
}

/// One worker's numbers. 128 bytes, because processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    ends: [Slot; ENDS],
    others: AtomicU64,
    /// Bytes of answers' bodies.
    sent: AtomicU64,
    /// How long its requests took, for the control plane. Made by the first: most routes of a large mesh have none.
    latencies: OnceLock<Box<Latencies>>,
}

#[derive(Debug, Default)]
struct Slot {
    /// A packed [`End`]; 0 = free. Written once.
    end: AtomicU32,
    count: AtomicU64,
}

impl Series {
    pub(super) fn new(labels: Option<Labels>, workers: usize, durations: Arc<Durations>) -> Self {
        Self { labels, shards: std::iter::repeat_with(Shard::default).take(workers).collect(), durations }
    }

    /// What tells it from others; `None`: it counts all that there was no room for.
    pub fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()
    }

    /// Counts a request that is over.
    ///
    /// To be called by the worker with this index and nobody else, or counts are lost. `status` is `None`
    /// if no answer was sent; `reason` says why a proxy made the answer, or why it broke off.
    pub fn record(
        &self,
        worker: usize,
        status: Option<u16>,
        grpc_status: Option<u8>,
        reason: Option<Reason>,
        duration: Duration,
    ) {
        let Some(shard) = self.shards.get(worker) else {
            debug_assert!(false, "worker {worker} of {}", self.shards.len());
            return;
        };
        shard.count(End::new(status, grpc_status, reason).pack());
        self.durations.record(worker, duration);
        shard.latencies.get_or_init(Box::default).record(duration);
    }

    /// Counts so many bytes of an answer's body. To be called by the worker with this index and nobody else.
    pub(super) fn sent(&self, worker: usize, bytes: u64) {
        if let Some(shard) = self.shards.get(worker) {
            add(&shard.sent, bytes);
        }
    }

    /// Bytes of answers' bodies.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.shards.iter().map(|shard| shard.sent.load(Ordering::Relaxed)).sum()
    }

    /// How many requests are over.
    pub(super) fn total(&self) -> u64 {
        let of_shard = |shard: &Shard| {
            let ends: u64 = shard.ends.iter().map(|slot| slot.count.load(Ordering::Relaxed)).sum();
            ends + shard.others.load(Ordering::Relaxed)
        };
        self.shards.iter().map(of_shard).sum()
    }

    /// How long each worker's requests took, of workers that had any.
    pub(super) fn latencies(&self) -> impl Iterator<Item = &Latencies> {
        self.shards.iter().filter_map(|shard| shard.latencies.get().map(|latencies| &**latencies))
    }

    pub(super) fn is_of(&self, direction: Direction) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.direction == direction)
    }

    pub(super) fn durations(&self) -> &Arc<Durations> {
        &self.durations
    }

    /// How many requests ended how; those under `None` ended in too many ways to tell apart.
    pub(super) fn counts(&self) -> BTreeMap<Option<End>, u64> {
        let mut counts = BTreeMap::new();
        for shard in &self.shards {
            for slot in &shard.ends {
                let end = slot.end.load(Ordering::Acquire);
                if end != 0 {
                    *counts.entry(Some(End::unpack(end))).or_default() += slot.count.load(Ordering::Relaxed);
                }
            }
            let others = shard.others.load(Ordering::Relaxed);
            if others > 0 {
                *counts.entry(None).or_default() += others;
            }
        }
        counts
    }
}

impl Shard {
    fn count(&self, end: u32) {
        for slot in &self.ends {
            let held = slot.end.load(Ordering::Relaxed);
            if held == end {
                return add(&slot.count, 1);
            }
            if held == 0 {
                slot.count.store(1, Ordering::Relaxed);
                // After the count, so that a reader that sees the end also sees its count.
                return slot.end.store(end, Ordering::Release);
            }
        }
        add(&self.others, 1);
    }
}

/// The series with these `labels`, made if need be; `None`: there is no room.
pub(super) fn find(
    all: &Registered<Labels, Series>,
    durations: &Registered<DurationLabels, Durations>,
    labels: &Labels,
    workers: usize,
) -> Option<Arc<Series>> {
    all.find_or_make(labels, || {
        let few = DurationLabels::of(labels);
        let make = || Some(Arc::new(Durations::new(Some(few.clone()), workers)));
        let durations = durations.find_or_make(&few, make)?;
        Some(Arc::new(Series::new(Some(labels.clone()), workers, durations)))
    })
}

/// What counts all that there is no room for.
pub(super) fn overflow(workers: usize) -> Arc<Series> {
    let durations = Arc::new(Durations::new(None, workers));
    Arc::new(Series::new(None, workers, durations))
}

/// Writes the requests of one direction.
pub(super) fn encode<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    direction: &str,
    help: &str,
    series: impl Iterator<Item = &'a Arc<Series>>,
) -> fmt::Result {
    let name = format!("selvedge_{direction}_requests");
    let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
    for series in series {
        for (end, count) in series.counts() {
            let labels = RequestLabels { labels: series.labels(), end };
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
    }
    Ok(())
}

#[derive(Debug)]
struct RequestLabels<'a> {
    labels: Option<&'a Labels>,
    end: Option<End>,
}

impl EncodeLabelSet for RequestLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut writer = LabelWriter(encoder);
        writer.labels(self.labels)?;
        let Some(end) = self.end else { return writer.text("error_type", "_OTHER") };
        if let Some(status) = end.status {
            writer.label("http_response_status_code", status)?;
        }
        if let Some(status) = end.grpc_status {
            writer.label("rpc_grpc_status_code", status)?;
        }
        writer.text("error_type", end.error_type().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
