//! The configuration in force, as workers see it: one table, swapped whole.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

use crate::bind::{Destination, Table};

/// How long a request waits for the control plane to say what its authority means.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// How many authorities may wait to be asked for.
const MAX_WANTED: usize = 1024;

/// What a worker asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// What this authority means.
    Destination(Arc<str>),
    /// Newer keys of an issuer, from this URL.
    Keys(Arc<str>),
}

/// Where the control thread publishes tables, and workers ask for what is missing.
#[derive(Debug)]
pub struct Store {
    table: ArcSwap<Table>,
    generation: AtomicU64,
    changed: watch::Sender<u64>,
    wanted: mpsc::Sender<Wanted>,
}

impl Store {
    /// An empty store, and what workers ask for.
    pub fn new() -> (Arc<Self>, mpsc::Receiver<Wanted>) {
        let (wanted, asked) = mpsc::channel(MAX_WANTED);
        let store = Self {
            table: ArcSwap::default(),
            generation: AtomicU64::new(0),
            changed: watch::Sender::new(0),
            wanted,
        };
        (Arc::new(store), asked)
    }

    /// Puts a table in force. Called by the control thread alone.
    pub fn publish(&self, table: Arc<Table>) {
        self.table.store(table);
        let generation = self.generation.fetch_add(1, Ordering::Release) + 1;
        self.changed.send_replace(generation);
    }

    /// The table in force.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// How many tables have been published.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Wakes whenever a table is published.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Asks for newer keys from `url`, and does not wait.
    pub fn want_keys(&self, url: &Arc<str>) {
        // Without room the next request with such a token asks again.
        let _ = self.wanted.try_send(Wanted::Keys(Arc::clone(url)));
    }

    /// Asks for `authority` and waits until it is known, or [`LOOKUP_TIMEOUT`] has passed (`None`).
    pub async fn destination(&self, authority: &str) -> Option<Arc<Destination>> {
        let mut changed = self.subscribe();
        let asked: Arc<str> = Arc::from(authority);
        let found = async {
            self.wanted.send(Wanted::Destination(asked)).await.ok()?;
            loop {
                if let Some(destination) = self.table.load().destinations.get(authority) {
                    return Some(Arc::clone(destination));
                }
                changed.changed().await.ok()?;
            }
        };
        tokio::time::timeout(LOOKUP_TIMEOUT, found).await.ok().flatten()
    }
}

/// A worker's own view of the table in force. A look costs one atomic load, and counts no references.
#[derive(Debug)]
pub struct View {
    store: Arc<Store>,
    held: RefCell<(u64, Arc<Table>)>,
}

impl View {
    /// A view of `store`.
    pub fn new(store: Arc<Store>) -> Self {
        Self { held: RefCell::new((store.generation(), store.table())), store }
    }

    /// The store behind it.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Takes up a newer table if there is one. Returns the generation held.
    pub fn refresh(&self) -> u64 {
        let generation = self.store.generation();
        let mut held = self.held.borrow_mut();
        if held.0 != generation {
            *held = (generation, self.store.table());
        }
        generation
    }

    /// Runs `look` on the table held.
    pub fn with<T>(&self, look: impl FnOnce(&Table) -> T) -> T {
        look(&self.held.borrow().1)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::atomic::AtomicBool};

    use tokio::time::Instant;

    use super::*;

    fn table(authority: &str) -> Arc<Table> {
        let authority: Arc<str> = Arc::from(authority);
        let destination = Destination {
            authority: Arc::clone(&authority),
            bound: None,
            service: None,
            through: None,
            doubt: None,
            used: AtomicBool::new(false),
        };
        Arc::new(Table {
            destinations: HashMap::from([(authority, Arc::new(destination))]),
            ..Table::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_is_asked_for_and_waits_for_its_answer() {
        let (store, mut asked) = Store::new();
        let waiting = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.destination("reviews:9080").await }
        });

        assert_eq!(asked.recv().await, Some(Wanted::Destination("reviews:9080".into())));
        store.publish(table("elsewhere:80"));
        assert!(!waiting.is_finished());
        store.publish(table("reviews:9080"));

        assert_eq!(&*waiting.await.unwrap().unwrap().authority, "reviews:9080");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_without_an_answer_ends_after_its_time() {
        let (store, _asked) = Store::new();
        let start = Instant::now();

        assert!(store.destination("reviews:9080").await.is_none());

        assert_eq!(start.elapsed(), LOOKUP_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_ends_after_its_time_even_if_nobody_listens() {
        let (store, _asked) = Store::new();
        let lookups = (0..=MAX_WANTED).map(|place| {
            let store = Arc::clone(&store);
            async move { store.destination(&format!("host-{place}")).await }
        });
        let start = Instant::now();

        let found = futures_util::future::join_all(lookups).await;

        assert!(found.iter().all(Option::is_none));
        assert_eq!(start.elapsed(), LOOKUP_TIMEOUT);
    }

    #[test]
    fn a_view_holds_a_table_until_it_is_refreshed() {
        let (store, _asked) = Store::new();
        let view = View::new(Arc::clone(&store));

        store.publish(table("a:80"));
        assert!(view.with(|table| table.destinations.is_empty()));

        assert_eq!(view.refresh(), 1);
        assert!(view.with(|table| table.destinations.contains_key("a:80")));
    }
}
