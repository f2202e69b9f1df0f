//! The numbers of opaque connections and of WebSockets: opened, closed and refused by why, and bytes each way.
//!
//! As for requests, each worker has numbers of its own, and a connection finds its series once. Bytes are counted as
//! they pass, so that a connection of days does not appear all at once at its end.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{
    counter::add,
    labels::{LabelWriter, Labels},
    registered::Registered,
};
use crate::{arrival::Direction, error::Reason};

/// What is carried as a stream of bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Opaque connections.
    Tcp,
    /// What HTTP requests have become.
    WebSocket,
}

impl Kind {
    /// The word in metrics' names, and what their help calls it.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Tcp => ("tcp", "opaque TCP connections"),
            Self::WebSocket => ("websocket", "WebSockets"),
        }
    }
}

/// The numbers of the streams with one set of labels.
#[derive(Debug)]
pub struct TcpSeries {
    /// `None`: what there was no room for.
    labels: Option<Labels>,
    /// By worker. Made by its first connection.
    shards: Box<[OnceLock<Box<Shard>>]>,
}

/// One worker's numbers.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    opened: AtomicU64,
    /// By why: its own end, or a reason.
    closed: [AtomicU64; Reason::ALL.len() + 1],
    /// Never carried, by reason.
    refused: [AtomicU64; Reason::ALL.len()],
    /// From the client.
    received: AtomicU64,
    /// To the client.
    sent: AtomicU64,
}

impl TcpSeries {
    pub(super) fn new(labels: Option<Labels>, workers: usize) -> Self {
        Self { labels, shards: std::iter::repeat_with(OnceLock::new).take(workers).collect() }
    }

    pub(super) fn is_of(&self, direction: Direction) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.direction == direction)
    }

    /// Counts a connection that is carried from now on. As all that follow, to be called by the worker with
    /// this index and nobody else.
    pub fn opened(&self, worker: usize) {
        self.count(worker, |shard| &shard.opened);
    }

    /// Counts a connection that is over; `reason`: why it did not come to its own end.
    pub fn closed(&self, worker: usize, reason: Option<Reason>) {
        self.count(worker, |shard| &shard.closed[reason.map_or(0, |reason| reason.index() + 1)]);
    }

    /// Counts a connection that was not carried at all.
    pub fn refused(&self, worker: usize, reason: Reason) {
        self.count(worker, |shard| &shard.refused[reason.index()]);
    }

    /// Where bytes from the client are counted.
    pub fn received(&self, worker: usize) -> Option<&AtomicU64> {
        self.shard(worker).map(|shard| &shard.received)
    }

    /// Where bytes to the client are counted.
    pub fn sent(&self, worker: usize) -> Option<&AtomicU64> {
        self.shard(worker).map(|shard| &shard.sent)
    }

    fn count(&self, worker: usize, number: impl FnOnce(&Shard) -> &AtomicU64) {
        if let Some(shard) = self.shard(worker) {
            add(number(shard), 1);
        }
    }

    fn shard(&self, worker: usize) -> Option<&Shard> {
        self.shards.get(worker).map(|shard| &**shard.get_or_init(Box::default))
    }

    fn sum(&self, number: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        let shards = self.shards.iter().filter_map(OnceLock::get);
        shards.map(|shard| number(shard).load(Ordering::Relaxed)).sum()
    }

    /// What tells it from others; `None`: it counts all that there was no room for.
    pub(super) fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()
    }

    /// How many were carried, and the bytes from and to their clients.
    pub(super) fn carried(&self) -> [u64; 3] {
        [self.sum(|shard| &shard.opened), self.sum(|shard| &shard.received), self.sum(|shard| &shard.sent)]
    }

    /// A number that changes whenever something is counted.
    pub(super) fn activity(&self) -> u64 {
        let ends = self.ends().map(|(_, count)| count).chain(self.refusals().map(|(_, count)| count));
        ends.chain(self.carried()).fold(0, u64::wrapping_add)
    }

    /// How many are open; `None`: there never was one.
    fn open(&self) -> Option<u64> {
        let opened = self.sum(|shard| &shard.opened);
        let closed: u64 = self.ends().map(|(_, count)| count).sum();
        (opened > 0).then(|| opened.saturating_sub(closed))
    }

    /// How many were closed, by why, and how many refused; only what has happened.
    pub(super) fn ends(&self) -> impl Iterator<Item = (Option<Reason>, u64)> {
        let reasons = std::iter::once(None).chain(Reason::ALL.into_iter().map(Some));
        let closed =
            reasons.enumerate().map(|(place, reason)| (reason, self.sum(|shard| &shard.closed[place])));
        closed.filter(|(_, count)| *count > 0)
    }

    pub(super) fn refusals(&self) -> impl Iterator<Item = (Reason, u64)> {
        let refused = Reason::ALL.into_iter().map(|reason| {
            let count = self.sum(|shard| &shard.refused[reason.index()]);
            (reason, count)
        });
        refused.filter(|(_, count)| *count > 0)
    }
}

/// The series of one kind of byte streams.
#[derive(Debug)]
pub(super) struct Streams {
    series: Registered<Labels, TcpSeries>,
    overflow: [Arc<TcpSeries>; Direction::ALL.len()],
}

impl Streams {
    pub(super) fn new(limit: usize, workers: usize) -> Self {
        let overflow = || Arc::new(TcpSeries::new(None, workers));
        Self { series: Registered::new(limit), overflow: [overflow(), overflow()] }
    }

    pub(super) fn find(&self, labels: &Labels, workers: usize) -> Arc<TcpSeries> {
        let make = || Some(Arc::new(TcpSeries::new(Some(labels.clone()), workers)));
        let found = self.series.find_or_make(labels, make);
        found.unwrap_or_else(|| self.overflow(labels.direction))
    }

    /// The series that counts what there was no room for.
    pub(super) fn overflow(&self, direction: Direction) -> Arc<TcpSeries> {
        Arc::clone(&self.overflow[direction as usize])
    }

    /// All but those that count what there was no room for.
    pub(super) fn told_apart(&self) -> Vec<Arc<TcpSeries>> {
        self.series.all()
    }

    /// How many there are, and how often there was no room for one.
    pub(super) fn room(&self) -> (usize, u64) {
        self.series.room()
    }

    /// Forgets those that nobody uses and that have counted nothing for a while.
    pub(super) fn expire(&self, now: Instant) {
        self.series.expire(now, TcpSeries::activity);
    }

    pub(super) fn of(&self, direction: Direction) -> Vec<Arc<TcpSeries>> {
        let mut all = self.series.all();
        all.retain(|series| series.is_of(direction));
        all.push(self.overflow(direction));
        all
    }
}

/// Writes the families of one direction.
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    kind: Kind,
    direction: Direction,
    series: &[Arc<TcpSeries>],
) -> fmt::Result {
    let (word, streams) = kind.words();
    let prefix = format!("selvedge_{}_{word}", direction.word());
    let name = format!("{prefix}_connections_open");
    let help = format!("Open {streams}.");
    let mut metric = encoder.encode_descriptor(&name, &help, None, MetricType::Gauge)?;
    for one in series {
        if let Some(open) = one.open() {
            let labels = TcpLabels { labels: one.labels.as_ref(), reason: None };
            metric.encode_family(&labels)?.encode_gauge(&open)?;
        }
    }
    let name = format!("{prefix}_connections_opened");
    let help = format!("Carried {streams}.");
    let mut metric = encoder.encode_descriptor(&name, &help, None, MetricType::Counter)?;
    for one in series {
        let opened = one.sum(|shard| &shard.opened);
        if opened > 0 {
            let labels = TcpLabels { labels: one.labels.as_ref(), reason: None };
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&opened, None)?;
        }
    }
    let name = format!("{prefix}_connections_closed");
    let help =
        format!("Finished {streams}; error_type gives the reason, unless client or server ended them.");
    let mut metric = encoder.encode_descriptor(&name, &help, None, MetricType::Counter)?;
    for one in series {
        for (reason, count) in one.ends() {
            let labels = TcpLabels { labels: one.labels.as_ref(), reason };
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
    }
    if matches!(kind, Kind::Tcp) {
        encode_refusals(encoder, &prefix, streams, series)?;
    }
    let received = format!("Bytes of {streams} received from clients.");
    encode_bytes(encoder, &format!("{prefix}_received_bytes"), &received, series, |shard| &shard.received)?;
    let sent = format!("Bytes of {streams} sent to clients.");
    encode_bytes(encoder, &format!("{prefix}_sent_bytes"), &sent, series, |shard| &shard.sent)
}

/// Writes the connections that were never carried. A WebSocket that was refused is counted as a request.
fn encode_refusals(
    encoder: &mut DescriptorEncoder<'_>,
    prefix: &str,
    streams: &str,
    series: &[Arc<TcpSeries>],
) -> fmt::Result {
    let name = format!("{prefix}_connections_refused");
    let help = format!("Refused {streams}, by reason.");
    let mut metric = encoder.encode_descriptor(&name, &help, None, MetricType::Counter)?;
    for one in series {
        for (reason, count) in one.refusals() {
            let labels = TcpLabels { labels: one.labels.as_ref(), reason: Some(reason) };
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
    }
    Ok(())
}

fn encode_bytes(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: &[Arc<TcpSeries>],
    number: impl Fn(&Shard) -> &AtomicU64,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for one in series {
        let bytes = one.sum(&number);
        if bytes > 0 {
            let labels = TcpLabels { labels: one.labels.as_ref(), reason: None };
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&bytes, None)?;
        }
    }
    Ok(())
}

#[derive(Debug)]
struct TcpLabels<'a> {
    labels: Option<&'a Labels>,
    reason: Option<Reason>,
}

impl EncodeLabelSet for TcpLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut writer = LabelWriter(encoder);
        writer.labels(self.labels)?;
        writer.text("error_type", self.reason.map(Reason::word).unwrap_or_default())
    }
}
