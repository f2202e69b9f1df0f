//! The authorities that requests asked for, and when each was last used.
//!
//! Every subscription costs the control plane work for as long as it lasts, and an app may name any
//! number of authorities. So the unused ones age out, and their number is bounded.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::bind::Table;

/// How long a subscription lives without use.
pub const UNUSED_FOR: Duration = Duration::from_secs(600);

/// How often use is looked at.
pub const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How many authorities are subscribed to at most; beyond, the one longest unused makes room. The control
/// plane refuses streams with more than 10,000.
const MAX_AUTHORITIES: usize = 8_192;

/// What one more request for an authority changes.
#[derive(Debug, PartialEq, Eq)]
pub enum Noted {
    /// It is subscribed to already.
    Known,
    /// It is new, and another may have had to make room for it.
    New {
        /// The one that made room.
        dropped: Option<Arc<str>>,
    },
}

/// The authorities subscribed to.
#[derive(Debug, Default)]
pub struct Subscriptions {
    last_used: HashMap<Arc<str>, Instant>,
}

impl Subscriptions {
    /// Notes that a request asked for `authority`.
    pub fn note(&mut self, authority: Arc<str>, now: Instant) -> Noted {
        if let Some(last_used) = self.last_used.get_mut(&authority) {
            *last_used = now;
            return Noted::Known;
        }
        let dropped = if self.last_used.len() >= MAX_AUTHORITIES { self.drop_oldest() } else { None };
        self.last_used.insert(authority, now);
        Noted::New { dropped }
    }

    /// Drops the ones longest unused, as far as all of them together have more than `bytes` bytes; returns them.
    pub fn keep_within(&mut self, bytes: usize) -> Vec<Arc<str>> {
        // What surrounds each in a message.
        const AROUND: usize = 4;
        let mut total: usize = self.last_used.keys().map(|authority| authority.len() + AROUND).sum();
        let mut dropped = Vec::new();
        while total > bytes
            && let Some(oldest) = self.drop_oldest()
        {
            total -= oldest.len() + AROUND;
            dropped.push(oldest);
        }
        dropped
    }

    /// All of them.
    pub fn authorities(&self) -> impl Iterator<Item = &Arc<str>> {
        self.last_used.keys()
    }

    /// Whether `authority` is one of them.
    pub fn contains(&self, authority: &str) -> bool {
        self.last_used.contains_key(authority)
    }

    /// Collects the marks of use that workers left on `table`.
    pub fn note_use(&mut self, table: &Table, now: Instant) {
        for (authority, last_used) in &mut self.last_used {
            let destination = table.destinations.get(authority);
            if destination.is_some_and(|destination| destination.used.swap(false, Ordering::Relaxed)) {
                *last_used = now;
            }
        }
    }

    /// Drops and returns what nobody has used for [`UNUSED_FOR`]. Not while there is no control plane: what is known of them could
    /// not be had again.
    pub fn drop_unused(&mut self, now: Instant) -> Vec<Arc<str>> {
        let is_unused = |last_used: &Instant| now.saturating_duration_since(*last_used) >= UNUSED_FOR;
        self.last_used
            .extract_if(|_, last_used| is_unused(last_used))
            .map(|(authority, _)| authority)
            .collect()
    }

    fn drop_oldest(&mut self) -> Option<Arc<str>> {
        let oldest = self.last_used.iter().min_by_key(|(_, last_used)| **last_used)?;
        let oldest = Arc::clone(oldest.0);
        self.last_used.remove(&oldest);
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::bind::Destination;

    fn table(authority: &str) -> Table {
        let authority: Arc<str> = Arc::from(authority);
        let destination = Destination {
            authority: Arc::clone(&authority),
            bound: None,
            service: None,
            through: None,
            doubt: None,
            used: AtomicBool::new(false),
        };
        Table { destinations: HashMap::from([(authority, Arc::new(destination))]), ..Table::default() }
    }

    #[test]
    fn what_nobody_uses_ages_out() {
        let start = Instant::now();
        let mut subscriptions = Subscriptions::default();
        subscriptions.note(Arc::from("a"), start);
        let table = table("a");

        let mut sweep = |at| {
            subscriptions.note_use(&table, at);
            subscriptions.drop_unused(at)
        };
        assert!(sweep(start + UNUSED_FOR / 2).is_empty());
        let unused = sweep(start + UNUSED_FOR);

        assert_eq!(unused, [Arc::from("a")]);
        assert!(!subscriptions.contains("a"));
    }

    #[test]
    fn use_keeps_a_subscription() {
        let start = Instant::now();
        let mut subscriptions = Subscriptions::default();
        subscriptions.note(Arc::from("a"), start);
        let table = table("a");

        table.destinations["a"].touch();
        subscriptions.note_use(&table, start + UNUSED_FOR);
        assert!(subscriptions.drop_unused(start + UNUSED_FOR).is_empty());

        assert!(!table.destinations["a"].used.load(Ordering::Relaxed), "the mark is collected");
        subscriptions.note_use(&table, start + UNUSED_FOR + SWEEP_EVERY);
        assert!(subscriptions.drop_unused(start + UNUSED_FOR + SWEEP_EVERY).is_empty());
        assert_eq!(subscriptions.drop_unused(start + UNUSED_FOR * 2).len(), 1);
    }

    #[test]
    fn the_number_of_subscriptions_is_bounded() {
        let start = Instant::now();
        let mut subscriptions = Subscriptions::default();
        for place in 0..MAX_AUTHORITIES {
            let at = start + Duration::from_millis(u64::try_from(place).unwrap());
            subscriptions.note(Arc::from(format!("host-{place}")), at);
        }
        subscriptions.note(Arc::from("host-0"), start + UNUSED_FOR);

        let noted = subscriptions.note(Arc::from("one-more"), start + UNUSED_FOR);

        assert_eq!(noted, Noted::New { dropped: Some(Arc::from("host-1")) });
        assert_eq!(subscriptions.authorities().count(), MAX_AUTHORITIES);
    }
}
