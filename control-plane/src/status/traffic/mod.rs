//! What sidecars carry, as they tell it: for an hour, in bounded memory.
//!
//! A sidecar speaks of what its own workload sends and gets. What it says is as true as it is. If one sidecar's takes too much
//! memory, less than an hour is kept of that one. If all of it together does, less is kept of those that have far more than
//! others, and then of all alike; and those that have little are not refused what others have used up.

mod answer;
mod failing;
mod history;
mod slots;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use selvedge_model::{
    SpiffeId, WorkloadName,
    traffic::{AtEndpoint, Counts, Edge, MOST_EDGES, Out},
};

pub use self::{
    answer::{EdgeTraffic, TrafficSeen, WorkloadTraffic},
    failing::EndpointTraffic,
    history::{HistoryKey, HistoryLine, HistoryPoint, HistorySeen, PieceOfTime},
};
use self::{
    failing::Failing,
    slots::{FINE, FINE_KEPT, Slots},
};
use crate::metrics::Metrics;

/// How long it is kept, in seconds.
pub(crate) const KEPT: u64 = 3_600;
/// The least that is kept, in seconds. What is more than there is room for then is not kept at all.
const KEPT_AT_LEAST: u64 = 300;
/// The most edges that are kept of one workload.
const MOST_OF_ONE: usize = 2 * MOST_EDGES;
/// What may be kept of one workload, and of all together, in bytes.
/// Those that have little may have half as much again when that is used up.
const BYTES: Bytes = Bytes { of_one: 4 << 20, of_all: 85 << 20 };
/// How much is kept of a workload's endpoints that get nothing, in bytes.
const BYTES_OF_OUT: usize = 64 << 10;
/// Between two looks through all workloads for what is over, in seconds.
const SWEEP_EVERY: u64 = 60;
/// Between two lines in the log about what is not kept, in seconds.
const COMPLAIN_EVERY: u64 = 60;

/// What a sidecar has told at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TrafficReport {
    /// What has happened since the last time.
    pub(crate) edges: Vec<(Arc<Edge>, Counts)>,
    /// What is in none of it.
    pub(crate) left_out: u64,
    /// All endpoints that get no requests. `None`: the same as last time.
    pub(crate) out: Option<Vec<Out>>,
    /// What attempts at endpoints with failures have come to.
    pub(crate) at_endpoints: Vec<AtEndpoint>,
    /// How many more endpoints have failures.
    pub(crate) endpoints_left_out: u32,
    /// For how long the sidecar has been watching, in seconds.
    pub(crate) watched: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bytes {
    of_one: usize,
    of_all: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Traffic {
    inner: Mutex<Inner>,
    /// What times count from, an hour before the first.
    begin: Instant,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Inner {
    workloads: BTreeMap<WorkloadName, OfOne>,
    most: Bytes,
    bytes: usize,
    /// How long it is kept now, in seconds.
    kept: u64,
    /// Requests and connections that are not kept.
    dropped: u64,
    swept_at: u64,
    complained_at: u64,
}

/// What is known of one workload.
#[derive(Debug)]
struct OfOne {
    identity: SpiffeId,
    edges: BTreeMap<Arc<Edge>, Slots>,
    /// Those endpoints at which its attempts fail.
    failing: Failing,
    /// All of these together.
    bytes: usize,
    kept: u64,
    left_out: u64,
    /// Since when it is known what its sidecar carries: what that did before, another control plane was told.
    known_since: u64,
    told_at: u64,
    /// When it told something last in each of the newest fine pieces of time in which it did.
    told_in: VecDeque<u64>,
    /// Which of its endpoints get nothing, and until when; the first so many.
    out: Vec<(Out, Option<u64>)>,
}

impl Traffic {
    /// Nothing has been told. What is dropped is counted in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { inner: Mutex::new(Inner::new(BYTES)), begin: Instant::now(), metrics }
    }

    /// The sidecar of `workload`, which has proven to be `identity`, tells something.
    pub(crate) fn tell(&self, workload: &WorkloadName, identity: &SpiffeId, report: TrafficReport) {
        let now = self.now();
        let mut inner = self.lock();
        let dropped = inner.tell(workload, identity, report, now);
        if dropped == 0 {
            return;
        }
        self.metrics.traffic_dropped(dropped);
        if now >= inner.complained_at + COMPLAIN_EVERY {
            inner.complained_at = now;
            tracing::warn!(
                %workload,
                dropped = inner.dropped,
                "there are more edges of traffic than are kept; `selvedge stat` does not show all of them"
            );
        }
    }

    /// What has happened in the last `since` seconds.
    pub(crate) fn seen(&self, since: u64) -> TrafficSeen {
        let now = self.now();
        let unread = self.lock().since(since, now);
        unread.read()
    }

    /// What has happened piece by piece in the last hour, as clients tell it.
    pub(crate) fn history(&self) -> HistorySeen {
        let now = self.now();
        let unread = self.lock().history(now);
        unread.read()
    }

    /// The endpoints that get no requests from a workload, and how much longer, in seconds.
    pub(crate) fn out(&self) -> Vec<(WorkloadName, Out)> {
        let now = self.now();
        let inner = self.lock();
        let all =
            inner.workloads.iter().flat_map(|(name, known)| known.out.iter().map(move |out| (name, out)));
        let still = all.filter(|(_, (_, until))| until.is_none_or(|until| until > now));
        let left = |(name, (out, until)): (&WorkloadName, &(Out, Option<u64>))| {
            let left = until.map(|until| Duration::from_secs(until - now));
            (name.clone(), Out { left, ..out.clone() })
        };
        still.map(left).collect()
    }

    /// In seconds; begins with an hour, so that there is one before it.
    fn now(&self) -> u64 {
        KEPT + self.begin.elapsed().as_secs()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn new(most: Bytes) -> Self {
        let workloads = BTreeMap::new();
        Self { workloads, most, bytes: 0, kept: KEPT, dropped: 0, swept_at: 0, complained_at: 0 }
    }

    /// Returns how much of it is not kept.
    fn tell(&mut self, workload: &WorkloadName, identity: &SpiffeId, report: TrafficReport, now: u64) -> u64 {
        self.sweep_if_due(now);
        let since = now.saturating_sub(report.watched.min(FINE));
        let known = self.workloads.entry(workload.clone()).or_insert_with(|| OfOne::new(identity, since));
        known.heard(identity, &report, now);
        let (mut dropped, mut can_shorten) = (0_u64, true);
        let little = self.most.of_all / 2 / self.workloads.len().max(1);
        for one in &report.at_endpoints {
            let Some(known) = self.workloads.get_mut(workload) else { break };
            let has_room = self.bytes <= self.most.of_all || known.bytes <= little;
            let more = known.failing.add(one, has_room, now);
            known.bytes += more;
            self.bytes += more;
        }
        for (edge, counts) in report.edges {
            if self.bytes > self.most.of_all && can_shorten {
                self.shorten(now);
                can_shorten = self.bytes <= self.most.of_all;
            }
            let Some(known) = self.workloads.get_mut(workload) else { break };
            let (before, came) = (known.bytes, counts.came(edge.carried));
            let has_room = self.bytes <= self.most.of_all || before <= little;
            if !has_room || !known.add(edge, &counts, self.most.of_one, now) {
                dropped = dropped.saturating_add(came);
            }
            self.bytes = (self.bytes + known.bytes).saturating_sub(before);
        }
        self.dropped = self.dropped.saturating_add(dropped);
        dropped
    }

    fn sweep_if_due(&mut self, now: u64) {
        if now >= self.swept_at + SWEEP_EVERY {
            self.sweep(now);
        }
    }

    /// Forgets what is over.
    fn sweep(&mut self, now: u64) {
        self.swept_at = now;
        if self.bytes < self.most.of_all / 2 {
            self.kept = (self.kept + SWEEP_EVERY).min(KEPT);
        }
        for known in self.workloads.values_mut().filter(|known| known.bytes < self.most.of_one / 2) {
            known.kept = (known.kept + SWEEP_EVERY).min(KEPT);
        }
        self.forget(now);
    }

    fn forget(&mut self, now: u64) {
        let kept = self.kept;
        self.workloads.retain(|_, known| {
            known.forget(now.saturating_sub(kept.min(known.kept)));
            !known.edges.is_empty() || !known.failing.is_empty() || now < known.told_at + KEPT
        });
        self.bytes = self.workloads.values().map(|known| known.bytes).sum();
    }

    /// Keeps less: of those that have more than twice as much as others on average, and only if there are none, of all.
    fn shorten(&mut self, now: u64) {
        while self.bytes > self.most.of_all {
            let much = 2 * self.bytes / self.workloads.len().max(1);
            let mut have_much = self.workloads.values_mut().filter(|known| known.bytes > much).peekable();
            if have_much.peek().is_some() {
                let mut is_less = false;
                for known in have_much.filter(|known| known.kept > KEPT_AT_LEAST) {
                    known.kept = (known.kept * 3 / 4).max(KEPT_AT_LEAST);
                    is_less = true;
                }
                if !is_less {
                    return;
                }
            } else if self.kept > KEPT_AT_LEAST {
                self.kept = (self.kept * 3 / 4).max(KEPT_AT_LEAST);
            } else {
                return;
            }
            self.forget(now);
        }
    }
}

impl OfOne {
    fn new(identity: &SpiffeId, known_since: u64) -> Self {
        Self {
            identity: identity.clone(),
            edges: BTreeMap::new(),
            failing: Failing::default(),
            bytes: 0,
            kept: KEPT,
            left_out: 0,
            known_since,
            told_at: known_since,
            told_in: VecDeque::new(),
            out: Vec::new(),
        }
    }

    fn heard(&mut self, identity: &SpiffeId, report: &TrafficReport, now: u64) {
        self.identity = identity.clone();
        self.told_at = now;
        let is_same_piece = |told: &mut u64| *told / FINE == now / FINE;
        self.told_in.pop_back_if(is_same_piece);
        self.told_in.push_back(now);
        // One more than there are fine pieces: what was told before the oldest of them.
        while self.told_in.len() as u64 > FINE_KEPT + 1 {
            self.told_in.pop_front();
        }
        self.left_out = self.left_out.saturating_add(report.left_out);
        self.failing.more = report.endpoints_left_out;
        if let Some(out) = &report.out {
            let until = |out: &Out| out.left.map(|left| now.saturating_add(left.as_secs().max(1)));
            let mut bytes = 0;
            let has_room = |out: &&Out| {
                let texts = [&out.backend.service.host, &out.why, &out.last_failure];
                bytes += size_of::<(Out, Option<u64>)>() + texts.iter().map(|text| text.len()).sum::<usize>();
                bytes += out.backend.subset.as_ref().map_or(0, |subset| subset.len());
                bytes <= BYTES_OF_OUT
            };
            self.out = out.iter().take_while(has_room).map(|out| (out.clone(), until(out))).collect();
        }
    }

    /// Whether there is room for it.
    fn add(&mut self, edge: Arc<Edge>, counts: &Counts, most: usize, now: u64) -> bool {
        while self.bytes > most && self.kept > KEPT_AT_LEAST {
            self.kept = (self.kept * 3 / 4).max(KEPT_AT_LEAST);
            self.forget(now.saturating_sub(self.kept));
        }
        let is_new = !self.edges.contains_key(&edge);
        if self.bytes > most || (is_new && self.edges.len() >= MOST_OF_ONE) {
            return false;
        }
        if is_new {
            self.bytes += name_bytes(&edge);
        }
        let slots = self.edges.entry(edge).or_default();
        let before = slots.bytes();
        slots.add(counts, now);
        self.bytes = (self.bytes + slots.bytes()).saturating_sub(before);
        true
    }

    fn forget(&mut self, from: u64) {
        self.edges.retain(|_, slots| {
            slots.forget(from);
            !slots.is_empty()
        });
        self.failing.forget(from);
        let edges = self.edges.iter().map(|(edge, slots)| name_bytes(edge) + slots.bytes());
        self.bytes = self.failing.bytes() + edges.sum::<usize>();
    }
}

/// What an edge takes in memory besides what has happened on it, nearly.
fn name_bytes(edge: &Edge) -> usize {
    let client = edge.client.as_ref().map_or(0, |client| client.as_str().len());
    let names = [&edge.host, &edge.route, &edge.subset, &edge.backend];
    let names: usize = names.iter().map(|name| name.len()).sum();
    size_of::<Edge>() + size_of::<Slots>() + 64 + names + client
}

#[cfg(test)]
mod tests;
