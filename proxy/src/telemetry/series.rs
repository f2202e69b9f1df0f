//! The numbers of one stream of requests: so many by how they ended, so many by how long they took.
//!
//! Counting must cost next to nothing, so each worker has numbers of its own, on cache lines of their
//! own, and only they are ever written by it: one load and one store, with no locked instruction. Reading
//! adds them up, at each scrape. How requests end (status, gRPC status, reason) is a small set in
//! practice, so each worker notes the ends that it has met in a short list, most recent services having
//! one or two; that is far smaller than a table of all there could be.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use selvedge_model::{ServiceKey, SpiffeId, WorkloadName};

use super::Record;
use crate::{arrival::Direction, error::Reason};

/// Upper bounds of the duration histogram's buckets, in milliseconds; the last bucket has none.
pub(super) const BUCKETS_MS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

/// How many different ends one worker notes in one series; further ones are counted without labels.
const ENDS: usize = 24;

/// What tells one series from another. An empty label is left out, and so is port 0.
///
/// Everything here must come from configuration or from a proven identity, or be bounded otherwise: a
/// client must not be able to make series at will.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels {
    /// Which way.
    pub direction: Direction,
    /// Outbound: the service's host. Inbound: this workload, as `<namespace>/<name>`.
    pub server_address: Arc<str>,
    /// The service's port; inbound, the workload's.
    pub server_port: u16,
    /// The route's name.
    pub route: Arc<str>,
    /// The `DestinationRule` subset that the route names.
    pub destination_subset: Arc<str>,
    /// Whether mutual TLS carries the requests.
    pub mtls: bool,
    /// The calling workload. Inbound this is what the peer says; it proves nothing.
    pub source_workload: Arc<str>,
    /// The calling workload's namespace; inbound from its proven identity.
    pub source_namespace: Arc<str>,
    /// The caller's proven identity.
    pub source_principal: Arc<str>,
}

impl Labels {
    /// Requests of our app to a service; the route, the subset and `mtls` are to be filled in.
    pub fn outbound(own: &WorkloadName, service: &ServiceKey) -> Self {
        Self {
            server_address: Arc::clone(&service.host),
            server_port: service.port,
            source_workload: Arc::from(own.name()),
            source_namespace: Arc::from(own.namespace()),
            ..Self::empty(Direction::Outbound)
        }
    }

    /// Requests of our app to what is in no configuration. Its authority is not a label: the app could ask for any
    /// number of them.
    pub fn unknown_destination(own: &WorkloadName) -> Self {
        Self::outbound(own, &ServiceKey::new("unknown", 0))
    }

    /// Requests to our own port. `source` is who the client has proven to be; `None`: plaintext.
    pub fn inbound(own: &WorkloadName, port: u16, source: Option<&SpiffeId>) -> Self {
        Self {
            server_address: Arc::from(own.to_string()),
            server_port: port,
            mtls: source.is_some(),
            source_namespace: source.map(|source| Arc::from(source.namespace())).unwrap_or_default(),
            source_principal: source.map(|source| Arc::from(source.as_str())).unwrap_or_default(),
            ..Self::empty(Direction::Inbound)
        }
    }

    fn empty(direction: Direction) -> Self {
        Self {
            direction,
            server_address: Arc::default(),
            server_port: 0,
            route: Arc::default(),
            destination_subset: Arc::default(),
            mtls: false,
            source_workload: Arc::default(),
            source_namespace: Arc::default(),
            source_principal: Arc::default(),
        }
    }
}

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
    }

    /// Counts the request that `record` tells of, now that it is over.
    pub(super) fn count(&self, record: &Record) {
        let Record { status, grpc_status, reason, duration, .. } = *record;
        self.record(record.worker(), status, grpc_status, reason, duration);
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
                // After the count, so that whoever sees the one sees the other.
                return slot.end.store(end, Ordering::Release);
            }
        }
        add(&self.others, 1);
    }
}

/// How long requests took. Shared by the series that differ only in labels which the histogram lacks.
#[derive(Debug)]
pub(super) struct Durations {
    /// `None`: what there was no room for.
    labels: Option<DurationLabels>,
    shards: Box<[DurationShard]>,
}

/// The few labels of the duration histogram: it has many numbers per set of labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DurationLabels {
    pub(super) direction: Direction,
    pub(super) server_address: Arc<str>,
    pub(super) server_port: u16,
    pub(super) mtls: bool,
}

impl DurationLabels {
    pub(super) fn of(labels: &Labels) -> Self {
        Self {
            direction: labels.direction,
            server_address: Arc::clone(&labels.server_address),
            server_port: labels.server_port,
            mtls: labels.mtls,
        }
    }
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct DurationShard {
    buckets: [AtomicU64; BUCKETS_MS.len() + 1],
    nanos: AtomicU64,
}

/// A histogram, added up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Histogram {
    pub(super) buckets: [u64; BUCKETS_MS.len() + 1],
    pub(super) count: u64,
    pub(super) sum: Duration,
}

impl Durations {
    pub(super) fn new(labels: Option<DurationLabels>, workers: usize) -> Self {
        Self { labels, shards: std::iter::repeat_with(DurationShard::default).take(workers).collect() }
    }

    pub(super) fn labels(&self) -> Option<&DurationLabels> {
        self.labels.as_ref()
    }

    pub(super) fn is_of(&self, direction: Direction) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.direction == direction)
    }

    fn record(&self, worker: usize, duration: Duration) {
        let Some(shard) = self.shards.get(worker) else { return };
        let bucket = BUCKETS_MS.partition_point(|bound| Duration::from_millis(*bound) < duration);
        add(&shard.buckets[bucket], 1);
        add(&shard.nanos, u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn histogram(&self) -> Histogram {
        let mut sum = Histogram::default();
        for shard in &self.shards {
            for (total, bucket) in sum.buckets.iter_mut().zip(&shard.buckets) {
                *total += bucket.load(Ordering::Relaxed);
            }
            sum.sum += Duration::from_nanos(shard.nanos.load(Ordering::Relaxed));
        }
        sum.count = sum.buckets.iter().sum();
        sum
    }
}

/// Adds to a number that only this thread writes.
pub(super) fn add(number: &AtomicU64, by: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(workers: usize) -> Series {
        Series::new(None, workers, Arc::new(Durations::new(None, workers)))
    }

    #[test]
    fn counts_of_all_workers_are_added_up() {
        let series = series(2);
        let millisecond = Duration::from_millis(1);
        series.record(0, Some(200), None, None, millisecond);
        series.record(1, Some(200), None, None, millisecond);
        series.record(1, Some(503), None, Some(Reason::NoEndpoint), millisecond);
        series.record(1, Some(200), Some(14), None, millisecond);
        series.record(0, None, None, None, millisecond);

        let end = |status, grpc_status, reason| Some(End::new(status, grpc_status, reason));
        let expected = BTreeMap::from([
            (end(Some(200), None, None), 2),
            (end(Some(503), None, Some(Reason::NoEndpoint)), 1),
            (end(Some(200), Some(14), None), 1),
            (end(None, None, None), 1),
        ]);
        assert_eq!(series.counts(), expected);
    }

    #[test]
    fn more_ends_than_there_is_room_for_are_counted_together() {
        let series = series(1);
        for status in 200..200 + 2 * ENDS as u16 {
            series.record(0, Some(status), None, None, Duration::ZERO);
        }

        let counts = series.counts();
        assert_eq!(counts.len(), ENDS + 1);
        assert_eq!(counts[&None], ENDS as u64);
    }

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_that_it_does_not_exceed() {
        let durations = Durations::new(None, 1);
        let (first, last) = (Duration::from_millis(1), Duration::from_secs(10));
        let just = Duration::from_nanos(1);
        for duration in [Duration::ZERO, first, first + just, last, last + just] {
            durations.record(0, duration);
        }

        let histogram = durations.histogram();
        assert_eq!(histogram.count, 5);
        assert_eq!(histogram.sum, 2 * (first + last) + 2 * just);
        assert_eq!(histogram.buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn every_reason_can_be_told() {
        for reason in Reason::ALL {
            let end = End::unpack(End::new(Some(503), None, Some(reason)).pack());
            assert_eq!(end.error_type(), Some(reason.word()));
        }
    }

    #[test]
    fn a_grpc_status_that_does_not_exist_is_unknown() {
        assert_eq!(End::new(Some(200), Some(99), None).grpc_status, Some(2));
    }

    proptest! {
        #[test]
        fn an_end_survives_packing(
            status in proptest::option::of(0_u16..1024),
            grpc_status in proptest::option::of(0_u8..=16),
            reason in proptest::option::of(0..Reason::ALL.len()),
        ) {
            let end = End::new(status, grpc_status, reason.map(|index| Reason::ALL[index]));
            prop_assert_ne!(end.pack(), 0);
            prop_assert_eq!(End::unpack(end.pack()), end);
        }
    }
}
