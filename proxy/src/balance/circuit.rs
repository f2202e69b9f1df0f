//! Circuit breakers: how much one proxy may have in progress with one backend.
//!
//! As in Envoy these are counts, not queues: what would exceed a limit is answered at once, and the caller tries again
//! later. Workers share the counts as atomics. A backend without limits has none, and pays nothing.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use selvedge_model::TrafficPolicy;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// Open connections.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests in progress.
    Requests,
    /// Attempts in progress after a request's first.
    Retries,
}

impl Limit {
    /// The field of `DestinationRule` `connectionPool` that sets it; also its word in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Connections => "maxConnections",
            Self::Pending => "http1MaxPendingRequests",
            Self::Requests => "http2MaxRequests",
            Self::Retries => "maxRetries",
        }
    }
}

/// The limits of one backend, and what is in progress.
#[derive(Debug)]
pub struct Circuit {
    limits: [Option<u32>; 4],
    counts: Arc<Counts>,
}

/// What is in progress with one backend, by [`Limit`]. Opaque connections are counted without limits too, so
/// that a limit that comes later knows of them.
#[derive(Debug, Default)]
pub struct Counts([AtomicU32; 4]);

impl Counts {
    /// One more of `what`, whether there is room or not.
    pub fn enter(self: &Arc<Self>, what: Limit) -> Held {
        self.0[what as usize].fetch_add(1, Ordering::Relaxed);
        Held { counts: Arc::clone(self), what }
    }
}

/// One thing in progress, until it is dropped.
#[derive(Debug)]
pub struct Held {
    counts: Arc<Counts>,
    what: Limit,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counts.0[self.what as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Circuit {
    /// The limits that `policy` sets on what `counts` says; `None` if it sets none.
    pub fn new(policy: &TrafficPolicy, counts: &Arc<Counts>) -> Option<Self> {
        let pool = &policy.connection_pool;
        let limits = [
            policy.connections.max_connections,
            pool.max_pending_requests,
            pool.max_requests,
            pool.max_retries,
        ];
        limits.iter().any(Option::is_some).then(|| Self { limits, counts: Arc::clone(counts) })
    }

    /// One more of `what`; `None` if there is no room for it.
    pub fn enter(&self, what: Limit) -> Option<Held> {
        let limit = self.limits[what as usize].unwrap_or(u32::MAX);
        let one_more = |count| (count < limit).then_some(count + 1);
        let count = &self.counts.0[what as usize];
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Held { counts: Arc::clone(&self.counts), what })
    }

    /// One more of `what`, whether there is room or not.
    pub fn enter_anyway(&self, what: Limit) -> Held {
        self.counts.enter(what)
    }
}

#[cfg(test)]
mod tests {
    use selvedge_model::{ConnectionLimits, ConnectionPool};

    use super::*;

    #[test]
    fn there_is_room_again_when_something_has_ended() {
        let pool = ConnectionPool { max_requests: Some(2), ..ConnectionPool::default() };
        let policy = TrafficPolicy { connection_pool: pool, ..TrafficPolicy::default() };
        let circuit = Circuit::new(&policy, &Arc::default()).unwrap();
        let first = circuit.enter(Limit::Requests).unwrap();
        let _second = circuit.enter(Limit::Requests).unwrap();

        assert!(circuit.enter(Limit::Requests).is_none());
        assert!(circuit.enter(Limit::Pending).is_some(), "that has no limit");

        drop(first);
        assert!(circuit.enter(Limit::Requests).is_some());
    }

    #[test]
    fn new_limits_count_what_was_in_progress_before() {
        let limit = |limit| {
            let connections =
                ConnectionLimits { max_connections: Some(limit), ..ConnectionLimits::default() };
            TrafficPolicy { connections, ..TrafficPolicy::default() }
        };
        let counts = Arc::default();
        let before = Circuit::new(&limit(5), &counts).unwrap();
        let _held = before.enter(Limit::Connections).unwrap();
        let another = counts.enter(Limit::Connections);

        let after = Circuit::new(&limit(2), &counts).unwrap();

        assert!(after.enter(Limit::Connections).is_none());
        drop(another);
        assert!(after.enter(Limit::Connections).is_some());
        assert!(Circuit::new(&TrafficPolicy::default(), &counts).is_none());
    }
}
