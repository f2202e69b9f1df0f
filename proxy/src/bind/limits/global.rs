//! Servers that count for all proxies together, bound to where they are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use arc_swap::ArcSwapOption;
use selvedge_model::limit::{Global, RateLimit};

use crate::bind::Destination;

/// The most servers that a proxy asks. The documents of each namespace name one of them in turn, by the order of their names,
/// so that one namespace cannot take the places of another. What documents say of further ones holds as if they did not answer.
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
    /// Whether every answer says how much is left.
    pub tells_all: bool,
    /// What is asked.
    pub global: Global,
    /// Who is asked. `None`: nobody may be.
    pub server: Option<Arc<LimitServer>>,
}

impl BoundGlobal {
    /// What `limit` asks, if it asks anybody.
    pub(super) fn bind(limit: &RateLimit, servers: &Servers) -> Option<Self> {
        let global = limit.global.clone()?;
        let server = global.server.as_ref().map(|authority| servers.find(authority, &limit.name));
        let (document, ports, dry_run) = (Arc::clone(&limit.name), limit.ports.clone(), limit.dry_run);
        let tells_all = limit.tells_all && !dry_run;
        Some(Self { document, ports, dry_run, tells_all, global, server })
    }

    /// Whether it is for requests to `port`.
    pub fn is_for(&self, port: u16) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }
}

/// The servers that something bound names.
#[derive(Debug, Default)]
pub(super) struct Servers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    servers: HashMap<Arc<str>, Named>,
    /// How many had no place when it was looked last.
    left_out: usize,
}

#[derive(Debug)]
struct Named {
    server: Weak<LimitServer>,
    /// Whose documents name it, such as `RateLimit shop`.
    by: BTreeSet<Box<str>>,
}

impl Known {
    /// Those that are asked.
    fn with_places(&self) -> Vec<Arc<LimitServer>> {
        let mut of_owners: BTreeMap<&str, Vec<Arc<LimitServer>>> = BTreeMap::new();
        for named in self.servers.values() {
            let Some(server) = named.server.upgrade() else { continue };
            for owner in &named.by {
                of_owners.entry(owner).or_default().push(Arc::clone(&server));
            }
        }
        // The last is taken first.
        for servers in of_owners.values_mut() {
            servers.sort_unstable_by(|one, other| other.authority.cmp(&one.authority));
        }
        let (mut found, mut have) = (Vec::new(), HashSet::new());
        while found.len() < MOST_SERVERS && !of_owners.is_empty() {
            for servers in of_owners.values_mut() {
                while let Some(server) = servers.pop() {
                    if found.len() < MOST_SERVERS && have.insert(Arc::clone(&server.authority)) {
                        found.push(server);
                        break;
                    }
                }
            }
            of_owners.retain(|_, servers| !servers.is_empty());
        }
        found
    }
}

impl Servers {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server at `authority`, which `document` names.
    fn find(&self, authority: &Arc<str>, document: &str) -> Arc<LimitServer> {
        let owner = document.rsplit_once('/').map_or(document, |(owner, _)| owner);
        let servers = &mut self.known().servers;
        if let Some(named) = servers.get_mut(authority)
            && let Some(server) = named.server.upgrade()
        {
            if !named.by.contains(owner) {
                named.by.insert(owner.into());
            }
            return server;
        }
        servers.retain(|_, named| named.server.strong_count() > 0);
        let (authority, destination) = (Arc::clone(authority), ArcSwapOption::empty());
        let server = Arc::new(LimitServer { authority, destination });
        let named = Named { server: Arc::downgrade(&server), by: BTreeSet::from([owner.into()]) };
        servers.insert(Arc::clone(&server.authority), named);
        server
    }

    /// Says where each of them is.
    pub(super) fn lead(&self, destinations: &HashMap<Arc<str>, Arc<Destination>>) {
        for server in self.known().servers.values().filter_map(|named| named.server.upgrade()) {
            server.destination.store(destinations.get(&server.authority).cloned());
        }
    }

    /// The authorities of those that are asked.
    pub(super) fn authorities(&self) -> Vec<Arc<str>> {
        let mut known = self.known();
        let found = known.with_places();
        let all = known.servers.values().filter(|named| named.server.strong_count() > 0).count();
        let left_out = all.saturating_sub(found.len());
        if left_out > known.left_out {
            tracing::warn!(
                left_out,
                "rate limits name more servers than the {MOST_SERVERS} that a proxy asks; what failureMode says holds for those \
                 that are left out"
            );
        }
        known.left_out = left_out;
        found.into_iter().map(|server| Arc::clone(&server.authority)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The servers `a0` to `aN` of a namespace, as something bound holds them.
    fn named(servers: &Servers, namespace: &str, count: usize) -> Vec<Arc<LimitServer>> {
        let document = format!("RateLimit {namespace}/limit");
        let find = |number| servers.find(&Arc::from(format!("{namespace}-{number:03}:1")), &document);
        (0..count).map(find).collect()
    }

    fn of(servers: &Servers, namespace: &str) -> usize {
        servers.authorities().iter().filter(|authority| authority.starts_with(namespace)).count()
    }

    #[test]
    fn one_namespace_does_not_take_the_places_of_another() {
        let servers = Servers::default();
        let greedy = named(&servers, "greedy", 3 * MOST_SERVERS);
        assert_eq!(of(&servers, "greedy"), MOST_SERVERS);

        let _late = named(&servers, "late", 2);

        assert_eq!((of(&servers, "late"), of(&servers, "greedy")), (2, MOST_SERVERS - 2));
        assert_eq!(servers.authorities(), servers.authorities(), "the same each time");
        let _shared = servers.find(&greedy[0].authority, "RateLimit late/limit");
        assert_eq!(servers.authorities().len(), MOST_SERVERS, "each once");
    }

    #[test]
    fn a_place_that_is_free_again_goes_to_one_that_had_none() {
        let servers = Servers::default();
        let mut all = named(&servers, "one", MOST_SERVERS + 1);
        let last = all.pop().unwrap();
        assert!(!servers.authorities().contains(&last.authority));

        drop(all);

        assert_eq!(servers.authorities(), [Arc::clone(&last.authority)]);
    }
}
