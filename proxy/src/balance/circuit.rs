//! Circuit breakers: how much one proxy may have in progress with one backend.
//!
//! As in Envoy these are counts, not queues: what would exceed a limit is answered at once, and the caller tries again
//! later. Workers share the counts as atomics. What is in progress without a limit is counted too, so that one that is set
//! under load knows of it.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use selvedge_model::{LoadBalancer, TrafficPolicy};

/// Copies of requests that may be in progress with one backend, of one proxy. Each may hold up to
/// 64 KiB of its request, so this bounds what all of them hold.
pub const MAX_COPIES: u32 = 256;

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

/// What is in progress with one backend, by [`Limit`]. It is counted without limits too, so that a limit that comes later
/// knows of it.
#[derive(Debug, Default)]
pub struct Counts {
    limited: [AtomicU32; 4],
    /// Requests that no [`Held`] counts, because there were no limits when they began.
    unlimited: AtomicU32,
    /// The most connections that the policy in force allows; 0: any number.
    most_connections: AtomicU32,
    copies: AtomicU32,
    /// Attempts in a row that reached no app.
    unreached: AtomicU32,
}

/// After so many attempts in a row that reached no app, there is probably none to reach.
const NOBODY_THERE: u32 = 20;

impl Counts {
    /// One more of `what`, whether there is room or not.
    pub fn enter(self: &Arc<Self>, what: Limit) -> Held {
        self.limited[what as usize].fetch_add(1, Ordering::Relaxed);
        Held { counts: Arc::clone(self), what }
    }

    /// How many of `what` are in progress.
    pub fn of(&self, what: Limit) -> u32 {
        self.limited[what as usize].load(Ordering::Relaxed).saturating_add(self.unlimited(what))
    }

    /// How many of `what` are in progress that began without limits.
    fn unlimited(&self, what: Limit) -> u32 {
        if what == Limit::Requests { self.unlimited.load(Ordering::Relaxed) } else { 0 }
    }

    /// A request begins without limits. [`Self::end_unlimited`] must follow.
    pub fn begin_unlimited(&self) {
        self.unlimited.fetch_add(1, Ordering::Relaxed);
    }

    /// Such a request has ended.
    pub fn end_unlimited(&self) {
        self.unlimited.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes that an attempt reached an app.
    pub fn reached(&self) {
        // Nearly always it is 0, and then workers only share what they read.
        if self.unreached.load(Ordering::Relaxed) != 0 {
            self.unreached.store(0, Ordering::Relaxed);
        }
    }

    /// Notes that an attempt reached no app.
    pub fn not_reached(&self) {
        let more = |unreached: u32| unreached.checked_add(1);
        let _ = self.unreached.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether so many attempts in a row have reached no app that another one is hardly better.
    pub fn nobody_is_there(&self) -> bool {
        self.unreached.load(Ordering::Relaxed) >= NOBODY_THERE
    }

    /// One more copy of a request; `None` if there are [`MAX_COPIES`].
    pub fn copy(self: &Arc<Self>) -> Option<Copying> {
        one_more(&self.copies, MAX_COPIES).then(|| Copying(Arc::clone(self)))
    }
}

/// Counts one more, unless there are `limit`.
fn one_more(count: &AtomicU32, limit: u32) -> bool {
    let more = |count| (count < limit).then_some(count + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

/// A copy in progress, until it is dropped.
#[derive(Debug)]
pub struct Copying(Arc<Counts>);

impl Drop for Copying {
    fn drop(&mut self) {
        self.0.copies.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One thing in progress, until it is dropped.
#[derive(Debug)]
pub struct Held {
    counts: Arc<Counts>,
    what: Limit,
}

impl Held {
    /// Whether there are more connections, of which this is one, than the policy in force allows.
    pub fn is_surplus(&self) -> bool {
        let most = self.counts.most_connections.load(Ordering::Relaxed);
        most > 0 && self.counts.of(Limit::Connections) > most
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counts.limited[self.what as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Circuit {
    /// The limits that `policy` sets on what `counts` says; `None` if it sets none, and does not ask what is in progress.
    /// From now on, it is the policy in force.
    pub fn new(policy: &TrafficPolicy, counts: &Arc<Counts>) -> Option<Self> {
        let pool = &policy.connection_pool;
        // One is always allowed.
        let most_connections = policy.connections.max_connections.map_or(0, |most| most.max(1));
        counts.most_connections.store(most_connections, Ordering::Relaxed);
        let limits = [
            policy.connections.max_connections,
            pool.max_pending_requests,
            pool.max_requests,
            pool.max_retries,
        ];
        let is_bounded =
            matches!(&policy.load_balancer, LoadBalancer::ConsistentHash(hash) if hash.load_bound.is_some());
        let is_shared = policy.retry_budget.is_some_and(|budget| budget.interval.is_none());
        (is_bounded || is_shared || limits.iter().any(Option::is_some))
            .then(|| Self { limits, counts: Arc::clone(counts) })
    }

    /// One more of `what`; `None` if there is no room for it.
    pub fn enter(&self, what: Limit) -> Option<Held> {
        let limit =
            self.limits[what as usize].unwrap_or(u32::MAX).saturating_sub(self.counts.unlimited(what));
        one_more(&self.counts.limited[what as usize], limit)
            .then(|| Held { counts: Arc::clone(&self.counts), what })
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
    fn a_new_limit_counts_the_requests_that_began_without_one() {
        let counts = Arc::<Counts>::default();
        (0..2).for_each(|_| counts.begin_unlimited());
        assert_eq!(counts.of(Limit::Requests), 2);
        let pool = ConnectionPool { max_requests: Some(3), ..ConnectionPool::default() };
        let policy = TrafficPolicy { connection_pool: pool, ..TrafficPolicy::default() };

        let circuit = Circuit::new(&policy, &counts).unwrap();

        let third = circuit.enter(Limit::Requests).unwrap();
        assert!(circuit.enter(Limit::Requests).is_none());
        counts.end_unlimited();
        let _fourth = circuit.enter(Limit::Requests).unwrap();
        drop(third);
        counts.end_unlimited();
        assert_eq!(counts.of(Limit::Requests), 1);
    }

    #[test]
    fn there_is_a_surplus_while_there_are_more_connections_than_the_policy_in_force_allows() {
        let policy = |most| {
            let connections = ConnectionLimits { max_connections: most, ..ConnectionLimits::default() };
            TrafficPolicy { connections, ..TrafficPolicy::default() }
        };
        let counts = Arc::default();
        let [one, another] = [(); 2].map(|()| Counts::enter(&counts, Limit::Connections));
        assert!(!one.is_surplus());

        let _lowered = Circuit::new(&policy(Some(1)), &counts);
        assert!(one.is_surplus());
        drop(another);
        assert!(!one.is_surplus());

        let _another = Counts::enter(&counts, Limit::Connections);
        let _none = Circuit::new(&policy(None), &counts);
        assert!(!one.is_surplus());
    }

    #[test]
    fn there_are_so_many_copies_and_no_more_whatever_the_policy() {
        let counts = Arc::<Counts>::default();
        let mut copies: Vec<_> = (0..MAX_COPIES).map(|_| counts.copy().unwrap()).collect();
        assert!(counts.copy().is_none());

        copies.pop();
        assert!(counts.copy().is_some());
    }

    #[test]
    fn nobody_is_there_after_many_attempts_in_a_row_and_one_that_arrives_is_enough() {
        let counts = Counts::default();
        (1..NOBODY_THERE).for_each(|_| counts.not_reached());
        assert!(!counts.nobody_is_there());

        counts.not_reached();
        assert!(counts.nobody_is_there());

        counts.reached();
        assert!(!counts.nobody_is_there());
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
