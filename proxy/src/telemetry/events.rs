//! Counts of rare events: retries, ejections, limits that were reached, what policies refuse.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound,
    sync::{Arc, Mutex},
};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, NoLabelSet},
    metrics::MetricType,
};
use selvedge_model::{BackendName, ServiceKey, policy::Says};

use super::{labels::LabelWriter, registered::lock};
use crate::balance::Limit;

/// How many keys one worker counts by. Further ones are counted together.
const KEYS: usize = 10_000;

/// Counts by a key that is looked up each time. Each worker has its own map; only a scrape takes its lock, too.
#[derive(Debug)]
pub(super) struct KeyedCounts<K> {
    shards: Box<[Mutex<Counts<K>>]>,
}

#[derive(Debug)]
struct Counts<K> {
    by_key: BTreeMap<K, u64>,
    /// What there was no room for.
    others: u64,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), others: 0 }
    }
}

impl<K: Ord + Clone> KeyedCounts<K> {
    pub(super) fn new(workers: usize) -> Self {
        Self { shards: std::iter::repeat_with(Mutex::default).take(workers).collect() }
    }

    pub(super) fn count(&self, key: &K, worker: usize) {
        let Some(shard) = self.shards.get(worker) else { return };
        let mut counts = lock(shard);
        if let Some(count) = counts.by_key.get_mut(key) {
            *count += 1;
        } else if counts.by_key.len() < KEYS {
            counts.by_key.insert(key.clone(), 1);
        } else {
            counts.others += 1;
        }
    }

    /// How many keys there are, and how much was counted of which there was no room for.
    pub(super) fn room(&self) -> (usize, u64) {
        let rooms = self.shards.iter().map(|shard| {
            let counts = lock(shard);
            (counts.by_key.len(), counts.others)
        });
        rooms.fold((0, 0), |(keys, others), (more, left)| (keys.max(more), others + left))
    }

    pub(super) fn totals(&self) -> BTreeMap<K, u64> {
        let mut totals = BTreeMap::new();
        for shard in &self.shards {
            let mut last = None;
            loop {
                let some = some_after(&lock(shard).by_key, last.as_ref());
                for (key, count) in &some {
                    *totals.entry(key.clone()).or_default() += count;
                }
                match some.into_iter().next_back() {
                    Some((key, _)) => last = Some(key),
                    None => break,
                }
            }
        }
        totals
    }
}

/// So many counts are copied at once at most, for which a worker may have to wait.
const AT_ONCE: usize = 128;

/// The counts that come after `last`, [`AT_ONCE`] of them at most.
fn some_after<K: Ord + Clone>(counts: &BTreeMap<K, u64>, last: Option<&K>) -> Vec<(K, u64)> {
    let from = last.map_or(Bound::Unbounded, Bound::Excluded);
    let after = counts.range((from, Bound::Unbounded));
    after.take(AT_ONCE).map(|(key, count)| (key.clone(), *count)).collect()
}

/// Writes one family.
pub(super) fn encode<K>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    counts: BTreeMap<K, u64>,
    labels: impl Fn(K) -> Of,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (key, count) in counts {
        metric.encode_family(&labels(key))?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
    }
    Ok(())
}

/// What an event is counted by.
#[derive(Debug)]
pub(super) enum Of {
    Service(ServiceKey),
    Backend(BackendName),
    Limit(BackendName, Limit),
    Policy(Arc<str>, Decision),
    Dropped(BackendName, Dropped),
}

/// What a policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// It refuses.
    Deny,
    /// Whoever it asks has not answered.
    Error,
    /// It only takes note.
    Note(Says),
}

impl From<Says> for Decision {
    fn from(says: Says) -> Self {
        Self::Note(says)
    }
}

impl Decision {
    fn word(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Error => "error",
            Self::Note(says) => says.word(),
        }
    }
}

/// Why a copy was not sent, or not to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// As many copies are in progress with its backend as there may be.
    TooMany,
    /// It was taken too slowly, or nobody took it.
    Behind,
    /// More is buffered than `--buffer-budget` allows.
    BufferBudget,
    /// Its backend cannot be used.
    Unusable,
}

impl Dropped {
    /// The word in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::TooMany => "too-many",
            Self::Behind => "behind",
            Self::BufferBudget => "buffer-budget",
            Self::Unusable => "unusable",
        }
    }
}

impl EncodeLabelSet for Of {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut writer = LabelWriter(encoder);
        match self {
            Self::Service(service) => writer.server(&service.host, service.port),
            Self::Backend(backend) => writer.backend(backend),
            Self::Limit(backend, limit) => {
                writer.backend(backend)?;
                writer.text("limit", limit.word())
            }
            Self::Policy(rule, decision) => {
                writer.text("policy", rule)?;
                writer.text("decision", decision.word())
            }
            Self::Dropped(backend, why) => {
                writer.backend(backend)?;
                writer.text("reason", why.word())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_copies_a_few_at_a_time_and_misses_none() {
        let counts = KeyedCounts::new(2);
        let keys = 3 * AT_ONCE + 1;
        for key in 0..keys {
            counts.count(&key, 0);
            counts.count(&key, key % 2);
        }

        let some = some_after(&lock(&counts.shards[0]).by_key, Some(&10));
        assert_eq!((some.len(), some[0].0), (AT_ONCE, 11));
        let totals = counts.totals();
        assert_eq!((totals.len(), totals.values().sum::<u64>()), (keys, 2 * keys as u64));
    }
}
