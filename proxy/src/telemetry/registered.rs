//! Series that are found by their labels and shared. Their number is bounded.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// After a search for room that found none, this many new series are turned away before the next search.
pub(super) const TURNED_AWAY: usize = 1_000;

/// What nobody uses, and what has counted nothing for so long, is forgotten.
pub(super) const IDLE: Duration = Duration::from_secs(600);

/// What is shared by its key: found, or made if there is room.
#[derive(Debug)]
pub(super) struct Registered<K, V> {
    limit: usize,
    entries: Mutex<Entries<K, V>>,
}

#[derive(Debug)]
struct Entries<K, V> {
    by_key: BTreeMap<K, Entry<V>>,
    /// How many more are turned away before room is searched for.
    turned_away: usize,
    /// How often there was no room.
    folded: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: Arc<V>,
    /// How much it had counted when it was last seen to count, and when that was.
    seen: Option<(u64, Instant)>,
}

impl<K: Ord + Clone, V> Registered<K, V> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, entries: Mutex::new(Entries { by_key: BTreeMap::new(), turned_away: 0, folded: 0 }) }
    }

    /// `None`: there is no room.
    pub(super) fn find_or_make(&self, key: &K, make: impl FnOnce() -> Option<Arc<V>>) -> Option<Arc<V>> {
        let mut entries = lock(&self.entries);
        if let Some(found) = entries.by_key.get(key) {
            return Some(Arc::clone(&found.value));
        }
        let made = if entries.make_room(self.limit) { make() } else { None };
        match &made {
            Some(made) => {
                let entry = Entry { value: Arc::clone(made), seen: None };
                entries.by_key.insert(key.clone(), entry);
            }
            None => entries.folded += 1,
        }
        made
    }

    pub(super) fn all(&self) -> Vec<Arc<V>> {
        lock(&self.entries).by_key.values().map(|entry| Arc::clone(&entry.value)).collect()
    }

    /// How many there are, and how often there was no room for one.
    pub(super) fn room(&self) -> (usize, u64) {
        let entries = lock(&self.entries);
        (entries.by_key.len(), entries.folded)
    }

    /// Forgets those that nobody uses and whose `count` has stayed the same for [`IDLE`]. To be called now and then.
    pub(super) fn expire(&self, now: Instant, count: impl Fn(&V) -> u64) {
        lock(&self.entries).by_key.retain(|_, entry| {
            let count = count(&entry.value);
            let seen = entry.seen.get_or_insert((count, now));
            if seen.0 != count || Arc::strong_count(&entry.value) > 1 {
                *seen = (count, now);
            }
            now.duration_since(seen.1) < IDLE
        });
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
        self.by_key.retain(|_, entry| Arc::strong_count(&entry.value) > 1);
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
