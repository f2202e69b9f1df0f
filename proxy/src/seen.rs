//! Who has called our workload lately: noted once per connection, and told to the control plane now and then.
//!
//! Each worker notes for itself, behind a lock that only the control thread takes besides, for a moment every 15 seconds. A
//! request costs nothing. What is kept is bounded for callers with a certificate and for those without one separately, so
//! that strangers with many addresses push out nobody. Whoever is known stays known until an hour after its last connection
//! has ended; whoever comes when there is no room is counted, and not kept.
//!
//! The same of calls that our workload may not make: what it was to call, and the rule that refuses it.

mod told;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use selvedge_model::seen::{Called, Caller, LATELY, MOST_CALLERS, MOST_PORTS, MOST_REFUSED};

pub use self::told::{REPORT_EVERY, Told};

/// How long at least is between two looks for who has not called for long, in seconds: each goes through everybody.
const SWEEP_EVERY: u64 = 10;

/// See the module.
#[derive(Debug)]
pub struct Seen {
    /// One of each worker.
    shards: Box<[Mutex<Shard>]>,
    /// What all times count from, in seconds.
    since: Instant,
}

/// What one worker has seen.
#[derive(Debug, Default)]
struct Shard {
    known: HashMap<Caller, Vec<(u16, Arc<Edge>)>>,
    /// How many of `known` have a certificate, and how many do not.
    proven: usize,
    plain: usize,
    /// When what may not be called was last to be called, and the rule that refuses it.
    refused: HashMap<(SocketAddr, Arc<str>), u64>,
    /// Connections that are not kept.
    left_out: u64,
    swept_at: u64,
}

/// One caller, and one port.
#[derive(Debug, Default)]
struct Edge {
    open: AtomicU32,
    /// When the last connection has begun or ended.
    last: AtomicU64,
}

impl Edge {
    fn is_over(&self, now: u64) -> bool {
        self.open.load(Ordering::Relaxed) == 0
            && now.saturating_sub(self.last.load(Ordering::Relaxed)) > LATELY
    }
}

/// A connection that counts as open until this is dropped.
#[derive(Debug)]
pub struct Open {
    edge: Arc<Edge>,
    since: Instant,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.edge.last.store(self.since.elapsed().as_secs(), Ordering::Relaxed);
        self.edge.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seen {
    /// For this number of workers. Nobody has called yet.
    pub fn new(workers: usize) -> Self {
        let shards = (0..workers).map(|_| Mutex::default()).collect();
        Self { shards, since: Instant::now() }
    }

    /// Notes that `caller` has connected to our workload's `port`, which the worker of the number `worker` carries.
    pub fn note(&self, worker: usize, caller: Caller, port: u16) -> Option<Open> {
        let now = self.now();
        let edge = lock(self.shards.get(worker)?).edge(caller, port, now)?;
        edge.open.fetch_add(1, Ordering::Relaxed);
        edge.last.store(now, Ordering::Relaxed);
        Some(Open { edge, since: self.since })
    }

    /// Notes that `rule` has refused a call to `target`, on the worker of the number `worker`.
    pub fn note_refused(&self, worker: usize, target: SocketAddr, rule: &Arc<str>) {
        let now = self.now();
        let Some(shard) = self.shards.get(worker) else { return };
        let mut shard = lock(shard);
        let key = (target, Arc::clone(rule));
        if shard.refused.len() < MOST_REFUSED || shard.refused.contains_key(&key) {
            shard.refused.insert(key, now);
        }
    }

    /// Every call that was refused, and when last.
    fn refused(&self, now: u64) -> BTreeMap<(SocketAddr, Arc<str>), u64> {
        let mut refused = BTreeMap::new();
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.refused.retain(|_, last| now.saturating_sub(*last) <= LATELY);
            for (key, last) in &shard.refused {
                let known = refused.entry(key.clone()).or_insert(*last);
                *known = (*known).max(*last);
            }
        }
        refused
    }

    /// For how long it has been watching, in seconds.
    fn now(&self) -> u64 {
        self.since.elapsed().as_secs()
    }

    /// Everybody who is known, at `now`; and how many connections are not kept since this was last asked.
    fn take(&self, now: u64) -> (BTreeMap<Caller, Vec<Called>>, u64) {
        let (mut known, mut left_out) = (BTreeMap::<Caller, Vec<Called>>::new(), 0);
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.sweep(now);
            left_out += std::mem::take(&mut shard.left_out);
            for (caller, edges) in &shard.known {
                let all = known.entry(caller.clone()).or_default();
                all.extend(edges.iter().map(|(port, edge)| called(*port, edge, now)));
            }
        }
        for all in known.values_mut() {
            // Of several workers: the one that has seen it last.
            all.sort_unstable();
            all.dedup_by_key(|one| one.port);
        }
        (known, left_out)
    }
}

fn called(port: u16, edge: &Edge, now: u64) -> Called {
    let seconds_ago = match edge.open.load(Ordering::Relaxed) {
        0 => now.saturating_sub(edge.last.load(Ordering::Relaxed)).max(1),
        _ => 0,
    };
    Called { port, seconds_ago }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    /// What is kept of `caller` and `port`; `None`: nothing, because too much is.
    fn edge(&mut self, caller: Caller, port: u16, now: u64) -> Option<Arc<Edge>> {
        if let Some(edge) = self.find(&caller, port) {
            return Some(edge);
        }
        if !self.has_room(&caller) && now >= self.swept_at + SWEEP_EVERY {
            self.sweep(now);
        }
        if !self.has_room(&caller) {
            self.left_out += 1;
            return None;
        }
        let edge = Arc::new(Edge::default());
        let (proven, edges) = (matches!(caller, Caller::Identity(_)), self.known.entry(caller).or_default());
        if edges.is_empty() {
            *(if proven { &mut self.proven } else { &mut self.plain }) += 1;
        }
        edges.push((port, Arc::clone(&edge)));
        Some(edge)
    }

    fn find(&self, caller: &Caller, port: u16) -> Option<Arc<Edge>> {
        let edges = self.known.get(caller)?;
        edges.iter().find(|(known, _)| *known == port).map(|(_, edge)| Arc::clone(edge))
    }

    fn has_room(&self, caller: &Caller) -> bool {
        match (self.known.get(caller), caller) {
            (Some(edges), _) => edges.len() < MOST_PORTS,
            (None, Caller::Identity(_)) => self.proven < MOST_CALLERS,
            (None, Caller::Address(_)) => self.plain < MOST_CALLERS,
        }
    }

    /// Forgets who has not called for long.
    fn sweep(&mut self, now: u64) {
        self.swept_at = now;
        self.known.retain(|_, edges| {
            edges.retain(|(_, edge)| !edge.is_over(now));
            !edges.is_empty()
        });
        self.proven = self.known.keys().filter(|caller| matches!(caller, Caller::Identity(_))).count();
        self.plain = self.known.len() - self.proven;
    }
}

#[cfg(test)]
mod tests;
