//! Series that are found by their labels and shared. Their number is bounded.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// After a search for room that found none, this many new series are turned away before the next search.
pub(super) const TURNED_AWAY: usize = 1_000;

/// What is shared by its key: found, or made if there is room.
#[derive(Debug)]
pub(super) struct Registered<K, V> {
    limit: usize,
    entries: Mutex<Entries<K, V>>,
}

#[derive(Debug)]
struct Entries<K, V> {
    by_key: BTreeMap<K, Arc<V>>,
    /// How many more are turned away before room is searched for.
    turned_away: usize,
}

impl<K: Ord + Clone, V> Registered<K, V> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, entries: Mutex::new(Entries { by_key: BTreeMap::new(), turned_away: 0 }) }
    }

    /// `None`: there is no room.
    pub(super) fn find_or_make(&self, key: &K, make: impl FnOnce() -> Option<Arc<V>>) -> Option<Arc<V>> {
        let mut entries = lock(&self.entries);
        if let Some(found) = entries.by_key.get(key) {
            return Some(Arc::clone(found));
        }
        if !entries.make_room(self.limit) {
            return None;
        }
        let made = make()?;
        entries.by_key.insert(key.clone(), Arc::clone(&made));
        Some(made)
    }

    pub(super) fn all(&self) -> Vec<Arc<V>> {
        lock(&self.entries).by_key.values().cloned().collect()
    }
}

impl<K: Ord, V> Entries<K, V> {
    fn make_room(&mut self, limit: usize) -> bool {
        if self.by_key.len() < limit {
            return true;
        }
        // Looking through all of them for each new client would be a way to keep us busy.
        if self.turned_away > 0 {
            self.turned_away -= 1;
            return false;
        }
        self.by_key.retain(|_, value| Arc::strong_count(value) > 1);
        let found = self.by_key.len() < limit;
        if !found {
            self.turned_away = TURNED_AWAY;
        }
        found
    }
}

/// A panic with the lock held leaves no half-done change that matters to a count.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
