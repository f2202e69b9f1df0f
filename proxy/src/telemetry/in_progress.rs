//! How many requests are in progress. Each worker counts by itself, as all counts of requests are.

use std::sync::atomic::{AtomicU64, Ordering};

use super::counter::add;

/// Those of one direction.
#[derive(Debug)]
pub struct InProgress {
    shards: Box<[Shard]>,
}

/// One worker's numbers.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl InProgress {
    /// None yet; there are so many workers.
    pub(super) fn new(workers: usize) -> Self {
        Self { shards: std::iter::repeat_with(Shard::default).take(workers).collect() }
    }

    /// One has begun. As what follows, to be called by the worker with this index and nobody else.
    pub(super) fn begin(&self, worker: usize) {
        if let Some(shard) = self.shards.get(worker) {
            add(&shard.begun, 1);
        }
    }

    /// One has ended.
    pub(super) fn end(&self, worker: usize) {
        if let Some(shard) = self.shards.get(worker) {
            add(&shard.ended, 1);
        }
    }

    /// How many are in progress now.
    pub(super) fn count(&self) -> u64 {
        // Ends first: what begins and ends meanwhile is not counted as ended alone.
        let ended: u64 = self.shards.iter().map(|shard| shard.ended.load(Ordering::Acquire)).sum();
        let begun: u64 = self.shards.iter().map(|shard| shard.begun.load(Ordering::Acquire)).sum();
        begun.saturating_sub(ended)
    }
}
