//! The numbers of connections: open, made or accepted, failed, and cut.

use std::{
    fmt,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::labels::LabelWriter;
use crate::error::Reason;

/// The connections of one direction. Rare enough for shared atomics.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: AtomicI64,
    /// By mutual TLS (no, yes), then by result: made, or the reason why not.
    total: [[AtomicU64; Reason::ALL.len() + 1]; 2],
    /// Ended by us with something in progress, by why.
    cut: [AtomicU64; Reason::ALL.len()],
}

impl Connections {
    /// Counts a connection that is open from now on.
    pub(super) fn opened(&self, mtls: bool) {
        self.count(mtls, None);
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// An open one has been closed.
    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a connection that was not made.
    pub(super) fn refused(&self, mtls: bool, reason: Reason) {
        self.count(mtls, Some(reason));
    }

    /// Counts a connection that we ended with something in progress.
    pub(super) fn cut(&self, reason: Reason) {
        self.cut[reason.index()].fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self, mtls: bool, refused: Option<Reason>) {
        let result = refused.map_or(0, |reason| reason.index() + 1);
        self.total[usize::from(mtls)][result].fetch_add(1, Ordering::Relaxed);
    }

    /// Mutual TLS or not, the result, and how many; only what has happened.
    fn totals(&self) -> impl Iterator<Item = (bool, &'static str, u64)> {
        let results = || std::iter::once("ok").chain(Reason::ALL.into_iter().map(Reason::word));
        [false, true]
            .into_iter()
            .zip(&self.total)
            .flat_map(move |(mtls, totals)| results().zip(totals).map(move |(result, n)| (mtls, result, n)))
            .map(|(mtls, result, total)| (mtls, result, total.load(Ordering::Relaxed)))
            .filter(|(_, _, total)| *total > 0)
    }
}

/// Writes the connections of one direction.
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    direction: &str,
    connections: &Connections,
) -> fmt::Result {
    let name = format!("selvedge_{direction}_connections_open");
    encoder
        .encode_descriptor(&name, "Open connections.", None, MetricType::Gauge)?
        .encode_gauge(&connections.open.load(Ordering::Relaxed))?;
    let name = format!("selvedge_{direction}_connections");
    let help = "Connections made or accepted (result ok), and failed ones, by reason.";
    let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
    for (mtls, result, total) in connections.totals() {
        let labels = ConnectionLabels { mtls, result };
        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&total, None)?;
    }
    let name = format!("selvedge_{direction}_connections_cut");
    let help = "Connections that this proxy closed with something in progress, by reason.";
    let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
    for (reason, total) in Reason::ALL.into_iter().zip(&connections.cut) {
        let total = total.load(Ordering::Relaxed);
        if total > 0 {
            let labels = [("reason", reason.word())];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&total, None)?;
        }
    }
    Ok(())
}

#[derive(Debug)]
struct ConnectionLabels {
    mtls: bool,
    result: &'static str,
}

impl EncodeLabelSet for ConnectionLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut writer = LabelWriter(encoder);
        writer.label("mtls", self.mtls)?;
        writer.text("result", self.result)
    }
}
