//! Servers that count for all proxies together, bound to where they are.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use arc_swap::ArcSwapOption;
use selvedge_model::limit::{Global, RateLimit};

use crate::bind::Destination;

/// The most servers that a proxy asks. What documents say of further ones holds as if they did not answer.
const MOST_SERVERS: usize = 64;

/// A server that documents name, wherever it is now.
#[derive(Debug)]
pub struct LimitServer {
    /// Its host and port, by which the control plane is asked for it.
    pub authority: Arc<str>,
    destination: ArcSwapOption<Destination>,
}

impl LimitServer {
    /// What its authority means; `None`: the control plane has not said it yet.
    pub fn destination(&self) -> Option<Arc<Destination>> {
        self.destination.load_full()
    }
}

/// What one document asks a server.
#[derive(Debug)]
pub struct BoundGlobal {
    /// The document.
    pub document: Arc<str>,
    /// The ports that it is for; `None`: all.
    pub ports: Option<BTreeSet<u16>>,
    /// Whether it refuses nothing.
    pub dry_run: bool,
    /// What is asked.
    pub global: Global,
    /// Who is asked. `None`: nobody may be.
    pub server: Option<Arc<LimitServer>>,
}

impl BoundGlobal {
    /// What `limit` asks, if it asks anybody.
    pub(super) fn bind(limit: &RateLimit, servers: &Servers) -> Option<Self> {
        let global = limit.global.clone()?;
        let server = global.server.as_ref().and_then(|authority| servers.find(authority));
        let (document, ports, dry_run) = (Arc::clone(&limit.name), limit.ports.clone(), limit.dry_run);
        Some(Self { document, ports, dry_run, global, server })
    }

    /// Whether it is for requests to `port`.
    pub fn is_for(&self, port: u16) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }
}

/// The servers that something bound names.
#[derive(Debug, Default)]
pub(super) struct Servers(Mutex<HashMap<Arc<str>, Weak<LimitServer>>>);

impl Servers {
    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, Weak<LimitServer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, authority: &Arc<str>) -> Option<Arc<LimitServer>> {
        let mut known = self.known();
        if let Some(server) = known.get(authority).and_then(Weak::upgrade) {
            return Some(server);
        }
        known.retain(|_, server| server.strong_count() > 0);
        if known.len() >= MOST_SERVERS {
            tracing::warn!(
                server = %authority,
                "rate limits name more servers than the {MOST_SERVERS} that a proxy asks; what failureMode says holds for this one"
            );
            return None;
        }
        let (authority, destination) = (Arc::clone(authority), ArcSwapOption::empty());
        let server = Arc::new(LimitServer { authority, destination });
        known.insert(Arc::clone(&server.authority), Arc::downgrade(&server));
        Some(server)
    }

    /// Says where each of them is.
    pub(super) fn lead(&self, destinations: &HashMap<Arc<str>, Arc<Destination>>) {
        for server in self.known().values().filter_map(Weak::upgrade) {
            server.destination.store(destinations.get(&server.authority).cloned());
        }
    }

    /// Their authorities.
    pub(super) fn authorities(&self) -> Vec<Arc<str>> {
        let known = self.known();
        known.values().filter_map(Weak::upgrade).map(|server| Arc::clone(&server.authority)).collect()
    }
}
