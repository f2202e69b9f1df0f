//! How long requests took: a histogram for each set of a few labels.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use super::{
    counter::add,
    labels::{DurationLabels, LabelWriter},
};
use crate::arrival::Direction;

/// Upper bounds of the histogram's buckets, in milliseconds. The last bucket has none.
pub(super) const BUCKETS_MS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

/// How long requests took. Shared by the series that differ only in labels which the histogram lacks.
#[derive(Debug)]
pub(super) struct Durations {
    /// `None`: what there was no room for.
    labels: Option<DurationLabels>,
    shards: Box<[DurationShard]>,
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

    pub(super) fn record(&self, worker: usize, duration: Duration) {
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

/// Writes the histograms of one direction, or of copies.
pub(super) fn encode<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    direction: &str,
    help: &str,
    durations: impl Iterator<Item = &'a Arc<Durations>>,
) -> fmt::Result {
    let name = format!("selvedge_{direction}_request_duration");
    let mut metric = encoder.encode_descriptor(&name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    let bounds = BUCKETS_MS.map(|bound| bound as f64 / 1_000.0).into_iter().chain([f64::INFINITY]);
    for durations in durations {
        let histogram = durations.histogram();
        if histogram.count > 0 {
            let labels = FewLabels(durations.labels());
            let buckets: Vec<(f64, u64)> = bounds.clone().zip(histogram.buckets).collect();
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                histogram.sum.as_secs_f64(),
                histogram.count,
                &buckets,
                None,
            )?;
        }
    }
    Ok(())
}

#[derive(Debug)]
struct FewLabels<'a>(Option<&'a DurationLabels>);

impl EncodeLabelSet for FewLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut writer = LabelWriter(encoder);
        let Some(labels) = self.0 else { return writer.label("overflow", true) };
        writer.server(&labels.server_address, labels.server_port)?;
        writer.label("mtls", labels.mtls)
    }
}
