//! The numbers of requests with one set of labels: how they ended, and how long they took.
//!
//! Counting must cost next to nothing. So each worker has numbers of its own, on cache lines of their own, and only
//! that worker writes them: one load and one store, without a locked instruction. Each scrape adds them up. In practice
//! requests end in few ways (status, gRPC status, reason), so each worker notes the ends that it has met in a short
//! list. Most services have one or two, and the list is far smaller than a table of all possible ends.

use std::{
    array,
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, NoLabelSet},
    metrics::MetricType,
};
use selvedge_model::traffic::Outcome;

use super::{
    counter::add,
    durations::Durations,
    labels::{LabelWriter, Labels},
    latencies::Latencies,
    measured::{Measure, Measured, Sum},
    method::Method,
    registered::Registered,
};
use crate::{arrival::Direction, error::Reason};

/// How many different ends one worker notes in one series; further ones are counted without labels. An interface with five
/// methods and a dozen statuses has room.
const ENDS: usize = 64;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    /// The answer's status; `None`: no answer was sent.
    pub(super) status: Option<u16>,
    /// The gRPC status, where one was seen.
    pub(super) grpc_status: Option<u8>,
    /// The index of the reason why the proxy made the answer.
    reason: Option<u8>,
    /// The request's method; `None`: it is not known.
    pub(super) method: Option<Method>,
}

/// How a request ended, and what was measured of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ended {
    /// `None`: no answer was sent.
    pub(super) status: Option<u16>,
    pub(super) grpc_status: Option<u8>,
    /// Why a proxy made the answer, or why it broke off.
    pub(super) reason: Option<Reason>,
    pub(super) method: Option<Method>,
    pub(super) measure: Measure,
}

impl End {
    fn new(ended: &Ended) -> Self {
        let Ended { status, grpc_status, reason, method, .. } = *ended;
        Self {
            method,
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

    /// Why a proxy made the answer, or why it broke off.
    pub(super) fn reason(self) -> Option<Reason> {
        self.reason.and_then(|index| Reason::ALL.get(usize::from(index))).copied()
    }

    /// The reason, as it is written.
    pub(super) fn error_type(self) -> Option<&'static str> {
        self.reason().map(Reason::word)
    }

    /// Everything in one word that is never 0: each field plus one, above a bit that is always set.
    fn pack(self) -> u32 {
        let status = self.status.map_or(0, |status| u32::from(status) + 1);
        let grpc_status = self.grpc_status.map_or(0, |status| u32::from(status) + 1);
        let reason = self.reason.map_or(0, |reason| u32::from(reason) + 1);
        let method = self.method.map_or(0, |method| u32::from(method.number()) + 1);
        1 | status << 1 | grpc_status << 12 | reason << 20 | method << 28
    }

    fn unpack(word: u32) -> Self {
        let field = |shift: u32, bits: u32| ((word >> shift) & ((1 << bits) - 1)).checked_sub(1);
        Self {
            status: field(1, 11).and_then(|status| u16::try_from(status).ok()),
            grpc_status: field(12, 8).and_then(|status| u8::try_from(status).ok()),
            reason: field(20, 8).and_then(|reason| u8::try_from(reason).ok()),
            method: field(28, 4).and_then(|number| u8::try_from(number).ok()).map(Method::numbered),
        }
    }
}

/// The numbers of the requests with one set of labels.
#[derive(Debug)]
pub struct Series {
    /// `None`: what there was no room for.
    labels: Option<Labels>,
    /// By worker. Made by its first request: most routes of a large mesh have none.
    shards: Box<[OnceLock<Box<Shard>>]>,
    durations: Arc<Durations>,
    /// Whether it is measured for each end, too, as the metrics of `--metrics-compat` tell it.
    by_end: bool,
}

/// One worker's numbers. 128 bytes, because processors fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    ends: [Slot; ENDS],
    others: AtomicU64,
    /// Bytes of answers' bodies.
    sent: AtomicU64,
    /// How long its requests took, for the control plane.
    latencies: Latencies,
    /// What is measured of each end, where that is told.
    measured: OnceLock<Box<[OnceLock<Box<Measured>>; ENDS]>>,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            ends: array::from_fn(|_| Slot::default()),
            others: AtomicU64::default(),
            sent: AtomicU64::default(),
            latencies: Latencies::default(),
            measured: OnceLock::default(),
        }
    }
}

#[derive(Debug, Default)]
struct Slot {
    /// A packed [`End`]; 0 = free. Written once.
    end: AtomicU32,
    count: AtomicU64,
}

impl Series {
    pub(super) fn new(labels: Option<Labels>, workers: usize, durations: Arc<Durations>) -> Self {
        let shards = std::iter::repeat_with(OnceLock::new).take(workers).collect();
        Self { labels, shards, durations, by_end: false }
    }

    /// One that is measured for each end, too.
    pub(super) fn by_end(self) -> Self {
        Self { by_end: true, ..self }
    }

    /// What tells it from others; `None`: it counts all that there was no room for.
    pub fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()
    }

    /// Counts a request that is over, and of which no more is known than this: see [`Self::ended`].
    pub fn record(
        &self,
        worker: usize,
        status: Option<u16>,
        grpc_status: Option<u8>,
        reason: Option<Reason>,
        duration: Duration,
    ) {
        let measure = Measure { time: duration, ..Measure::default() };
        self.ended(worker, &Ended { status, grpc_status, reason, method: None, measure });
    }

    /// Counts a request that is over.
    ///
    /// To be called by the worker with this index and nobody else, or counts are lost.
    pub(super) fn ended(&self, worker: usize, ended: &Ended) {
        let Some(shard) = self.shards.get(worker) else {
            debug_assert!(false, "worker {worker} of {}", self.shards.len());
            return;
        };
        let shard = shard.get_or_init(Box::default);
        let slot = shard.count(End::new(ended).pack());
        self.durations.record(worker, &ended.measure);
        shard.latencies.record(ended.measure.time);
        if ended.measure.sent > 0 {
            add(&shard.sent, ended.measure.sent);
        }
        if self.by_end
            && let Some(slot) = slot
        {
            let none = || Box::new(array::from_fn(|_| OnceLock::new()));
            shard.measured.get_or_init(none)[slot].get_or_init(Box::default).record(&ended.measure);
        }
    }

    /// Of workers that have counted something.
    fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().filter_map(|shard| shard.get().map(|shard| &**shard))
    }

    /// Bytes of answers' bodies.
    pub(super) fn bytes_sent(&self) -> u64 {
        self.shards().map(|shard| shard.sent.load(Ordering::Relaxed)).sum()
    }

    /// How many requests are over.
    pub(super) fn total(&self) -> u64 {
        let of_shard = |shard: &Shard| {
            let ends: u64 = shard.ends.iter().map(|slot| slot.count.load(Ordering::Relaxed)).sum();
            ends + shard.others.load(Ordering::Relaxed)
        };
        self.shards().map(of_shard).sum()
    }

    /// How long each worker's requests took, of workers that had any.
    pub(super) fn latencies(&self) -> impl Iterator<Item = &Latencies> {
        self.shards().map(|shard| &shard.latencies)
    }

    /// What is measured of each end, if it is.
    pub(super) fn measured(&self) -> BTreeMap<End, Sum> {
        let mut all: BTreeMap<End, Vec<&Measured>> = BTreeMap::new();
        for shard in self.shards() {
            let Some(measured) = shard.measured.get() else { continue };
            for (slot, measured) in shard.ends.iter().zip(measured.iter()) {
                let end = slot.end.load(Ordering::Acquire);
                if let Some(measured) = measured.get().filter(|_| end != 0) {
                    all.entry(End::unpack(end)).or_default().push(measured);
                }
            }
        }
        all.into_iter().map(|(end, measured)| (end, measured.into_iter().collect())).collect()
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
        for shard in self.shards() {
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
    /// Counts one more that ended so. Returns its place; `None`: there is none for it.
    fn count(&self, end: u32) -> Option<usize> {
        for (place, slot) in self.ends.iter().enumerate() {
            let held = slot.end.load(Ordering::Relaxed);
            if held == end {
                add(&slot.count, 1);
                return Some(place);
            }
            if held == 0 {
                slot.count.store(1, Ordering::Relaxed);
                // After the count, so that a reader that sees the end also sees its count.
                slot.end.store(end, Ordering::Release);
                return Some(place);
            }
        }
        add(&self.others, 1);
        None
    }
}

/// Where series are found.
#[derive(Debug)]
pub(super) struct Requests {
    series: Registered<Labels, Series>,
    durations: Registered<Labels, Durations>,
    /// Whether they are measured for each end.
    by_end: bool,
}

impl Requests {
    /// None yet; there may be `limit` of each kind.
    pub(super) fn new(limit: usize, by_end: bool) -> Self {
        Self { series: Registered::new(limit), durations: Registered::new(limit), by_end }
    }

    /// The series with these `labels`, made if need be; `None`: there is no room.
    pub(super) fn find(&self, labels: &Labels, workers: usize) -> Option<Arc<Series>> {
        self.series.find_or_make(labels, || {
            let few = labels.few();
            let make = || Some(Arc::new(Durations::new(Some(few.clone()), workers)));
            let durations = self.durations.find_or_make(&few, make)?;
            let series = Series::new(Some(labels.clone()), workers, durations);
            Some(Arc::new(if self.by_end { series.by_end() } else { series }))
        })
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<Series>> {
        self.series.all()
    }

    /// What they have in common.
    pub(super) fn durations(&self) -> Vec<Arc<Durations>> {
        self.durations.all()
    }

    /// How many there are, and how often there was no room for one.
    pub(super) fn room(&self) -> (usize, u64) {
        self.series.room()
    }

    /// Forgets those that nobody uses and that have counted nothing for a while.
    pub(super) fn expire(&self, now: Instant) {
        self.series.expire(now, Series::total);
        self.durations.expire(now, |_| 0);
    }
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
        writer.text("http_request_method", end.method.map(Method::word).unwrap_or_default())?;
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
