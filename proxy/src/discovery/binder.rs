//! Ties configuration to the state that it acts on.
//!
//! State belongs to a name, not to a version of a document: an endpoint's failures and ejection to its
//! backend's name and its address, a retry budget to its service, connections to whom they reach. So a
//! change of weights forgets nothing, and what a change did not touch keeps its very `Arc`.

mod dialled;
mod rules;
mod targets;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use selvedge_model::{
    Backend, BackendName, Endpoint, Lookup, Service, ServiceKey, Workload, WorkloadName, facts,
};

use self::{
    rules::With,
    targets::{Reach, Targets, Tls},
};
use super::held::Held;
use crate::{
    balance::{Balancer, Circuit, Ejection, Health},
    bind::{Bound, BoundBackend, BoundEndpoint, Destination, Table},
    dns::{Names, Origin, Reached},
    settings::Listens,
    telemetry::Metrics,
    trust::outside::Originations,
};

/// How much was bound anew; what is counted here is what a change costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Services.
    pub services: usize,
    /// Endpoints looked at, once for each backend that selects among them.
    pub endpoints: usize,
    /// Targets that did not exist before.
    pub targets: usize,
}

/// What an authority's meaning is known by from one table to the next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Meaning {
    /// A service's port.
    Service(ServiceKey),
    /// A service's port whose requests go wherever they say, and the authority that says where.
    Requested(ServiceKey, Arc<str>),
    /// A workload's own address, by the authority that names it.
    Address(Arc<str>),
    /// An address at which nothing is known to be, by the authority that names it.
    Unknown(Arc<str>),
}

/// What a [`Bound`] is made of.
#[derive(Debug, Clone)]
struct Source {
    service: Arc<Service>,
    /// In the order of the service's backends.
    endpoints: Vec<Option<Arc<Reached>>>,
    /// Our own labels, if some of the service's rules are for certain clients only.
    client: Option<Arc<BTreeMap<String, String>>>,
}

impl Source {
    fn is(&self, other: &Self) -> bool {
        let mut endpoints = self.endpoints.iter().zip(&other.endpoints);
        Arc::ptr_eq(&self.service, &other.service)
            && same(self.client.as_ref(), other.client.as_ref())
            && endpoints.all(|(mine, its)| same(mine.as_ref(), its.as_ref()))
    }
}

/// A [`Bound`], and what it was made of.
#[derive(Debug)]
struct Entry {
    source: Source,
    bound: Arc<Bound>,
}

/// What one authority means, before it is bound.
#[derive(Debug, Default)]
struct Found {
    /// `None`: nothing that is known.
    meaning: Option<Meaning>,
    /// The one service that has the endpoint which `meaning` is.
    service: Option<Meaning>,
    /// The way to what is there, if nothing that is known is.
    through: Option<Meaning>,
    /// Why it is not certain that nothing known is there.
    doubt: Option<Arc<str>>,
}

/// What one pass finds out before anything is bound.
#[derive(Debug, Default)]
struct Meant {
    sources: BTreeMap<Meaning, Source>,
    addresses: BTreeMap<Arc<str>, (Endpoint, Source)>,
    asked: BTreeMap<Arc<str>, Instant>,
}

/// Makes tables.
#[derive(Debug)]
pub struct Binder {
    own: WorkloadName,
    /// Where our own workload is dialled instead of at its own port, if connections are redirected.
    local: Option<u16>,
    /// Where our app listens, if connections are not redirected.
    listens: Option<Listens>,
    metrics: Arc<Metrics>,
    names: Names,
    entries: BTreeMap<Meaning, Entry>,
    addresses: BTreeMap<Arc<str>, (Endpoint, Source)>,
    /// When an address was asked for first at which nothing is known to be, and a name may lead.
    asked: BTreeMap<Arc<str>, Instant>,
    targets: Targets,
    /// Of our own workload; the same `Arc` for as long as they stay the same.
    labels: Arc<BTreeMap<String, String>>,
    table: Arc<Table>,
}

impl Binder {
    /// Nothing bound yet. `own` is the workload that calls.
    pub fn new(own: WorkloadName, metrics: Arc<Metrics>, names: Names) -> Self {
        Self {
            own,
            local: None,
            listens: None,
            metrics,
            names,
            entries: BTreeMap::new(),
            addresses: BTreeMap::new(),
            asked: BTreeMap::new(),
            targets: Targets::default(),
            labels: Arc::default(),
            table: Arc::default(),
        }
    }

    /// The same where connections are redirected to us, and `inbound` is our inbound listener's port.
    #[must_use]
    pub fn redirected(mut self, inbound: u16) -> Self {
        self.local = Some(inbound);
        self
    }

    /// The same for an app that listens where `listens` says; it is told which ports have no app.
    #[must_use]
    pub fn beside(mut self, listens: Option<Listens>) -> Self {
        self.listens = listens;
        self
    }

    /// The ways to do TLS to the outside that tables name.
    pub fn originations(&self) -> Originations {
        self.targets.originations.clone()
    }

    /// Waits until names of endpoints lead elsewhere, so that everything is to be bound again.
    pub async fn names_changed(&mut self) {
        self.names.changed().await;
    }

    /// The table of everything held that is `asked` for.
    pub fn bind(&mut self, held: &Held, asked: impl Fn(&str) -> bool, now: Instant) -> (Arc<Table>, Work) {
        if let Some(own) = held.own()
            && own.labels != self.labels
        {
            self.labels = Arc::clone(&own.labels);
        }
        let mut meant = Meant::default();
        let mut meanings: Vec<(Arc<str>, Found)> = Vec::new();
        self.names.begin();
        for (authority, lookup) in held.lookups().iter().filter(|(authority, _)| asked(authority)) {
            let found = match lookup {
                Lookup::None => Some(Found::default()),
                Lookup::Service(key) => self
                    .service(held, key, authority, &mut meant)
                    .map(|meaning| Found { meaning: Some(meaning), ..Found::default() }),
                Lookup::Address(found) => self.dialled(held, authority, found, &mut meant, now),
            };
            let found = found.map(|found| self.or_through(found, authority, &mut meant));
            // What is not known yet is in no table: whoever asks for it waits.
            meanings.extend(found.map(|found| (Arc::clone(authority), found)));
        }
        self.names.end();
        self.addresses = meant.addresses;
        self.asked = meant.asked;
        let work = self.bind_sources(meant.sources, now);
        let mut destinations = HashMap::with_capacity(meanings.len());
        for (authority, Found { meaning, service, through, doubt }) in meanings {
            let bound = |meaning| Arc::clone(&self.entries[&meaning].bound);
            let (bound, service, through) = (meaning.map(bound), service.map(bound), through.map(bound));
            let used = AtomicBool::default();
            let found =
                Destination { authority: Arc::clone(&authority), bound, service, through, doubt, used };
            let destination = self.destination(found);
            destinations.insert(authority, destination);
        }
        let addresses = destinations
            .iter()
            .filter_map(|(authority, destination)| Some((authority.parse().ok()?, Arc::clone(destination))));
        let addresses = addresses.collect();
        self.look_for_apps(held.own());
        self.table = Arc::new(Table { destinations, addresses, own: held.own().cloned() });
        (Arc::clone(&self.table), work)
    }

    /// Says which ports of ours have no app, whenever they change.
    fn look_for_apps(&self, own: Option<&Arc<Workload>>) {
        let (Some(listens), Some(own)) = (&self.listens, own) else { return };
        if self.table.own.as_ref().is_some_and(|before| before.ports == own.ports) {
            return;
        }
        for port in listens.without(&own.ports) {
            tracing::warn!(
                port,
                "this workload's port has no app, so requests for it are refused: {listens} serves other ports; add --app {port}=IP:PORT"
            );
        }
    }

    /// What a service's port means to who asks for `authority`; `None`: its names are not answered yet.
    fn service(
        &mut self,
        held: &Held,
        key: &ServiceKey,
        authority: &Arc<str>,
        meant: &mut Meant,
    ) -> Option<Meaning> {
        let service = held.service(key)?;
        let meaning = meaning(held, service, authority);
        if !meant.sources.contains_key(&meaning) {
            let mut known = source(held, &mut self.names, service, authority);
            if let Some(known) = known.as_mut().filter(|_| service.routes.asks_for_client()) {
                known.client = Some(Arc::clone(&self.labels));
            }
            // A working service goes on as it was until a new name of its is answered.
            let before = || self.entries.get(&meaning).map(|entry| entry.source.clone());
            meant.sources.insert(meaning.clone(), known.or_else(before)?);
        }
        Some(meaning)
    }

    /// Replaces `entries` by those of `sources`, keeping what has not changed.
    fn bind_sources(&mut self, sources: BTreeMap<Meaning, Source>, now: Instant) -> Work {
        let mut before = std::mem::take(&mut self.entries);
        let mut kept = BTreeMap::new();
        let mut changed = Vec::new();
        for (meaning, source) in sources {
            match before.remove(&meaning) {
                Some(entry) if entry.source.is(&source) => drop(kept.insert(meaning, entry)),
                entry => {
                    before.extend(entry.map(|entry| (meaning.clone(), entry)));
                    changed.push((meaning, source));
                }
            }
        }
        let mut pass = Pass {
            shared: named(kept.values()),
            predecessors: named(before.values()),
            own: &self.own,
            local: self.local,
            targets: &mut self.targets,
            work: Work::default(),
            now,
        };
        let with = With { own: &self.own, metrics: &self.metrics, now };
        let mut made = Vec::new();
        for (meaning, source) in &changed {
            let backends = pass.backends(source);
            let predecessor = before.get(meaning).map(|entry| &*entry.bound);
            made.push(Arc::new(with.bind(meaning, source, backends, predecessor)));
        }
        let work = pass.work;
        let changed = changed.into_iter().zip(made);
        kept.extend(changed.map(|((meaning, source), bound)| (meaning, Entry { source, bound })));
        self.entries = kept;
        self.targets.forget_unused();
        work
    }

    /// `found`, or what was in the table before if that is the same.
    fn destination(&self, mut found: Destination) -> Arc<Destination> {
        let Some(before) = self.table.destinations.get(&found.authority) else { return Arc::new(found) };
        let is_as_before = same(before.bound.as_ref(), found.bound.as_ref())
            && same(before.service.as_ref(), found.service.as_ref())
            && same(before.through.as_ref(), found.through.as_ref())
            && before.doubt == found.doubt;
        if is_as_before {
            return Arc::clone(before);
        }
        found.used = AtomicBool::new(before.used.load(Ordering::Relaxed));
        Arc::new(found)
    }
}

/// A backend, and what it was made of.
#[derive(Clone)]
struct Place<'a> {
    definition: &'a Backend,
    endpoints: Option<&'a Arc<Reached>>,
    bound: Arc<BoundBackend>,
}

/// The first backend of each name.
fn named<'a>(entries: impl Iterator<Item = &'a Entry>) -> HashMap<&'a BackendName, Place<'a>> {
    let mut places = HashMap::new();
    for Entry { source, bound } in entries {
        let sources = source.service.backends.iter().zip(&source.endpoints);
        for ((definition, endpoints), bound) in sources.zip(&bound.backends) {
            places.entry(&definition.name).or_insert_with(|| Place {
                definition,
                endpoints: endpoints.as_ref(),
                bound: Arc::clone(bound),
            });
        }
    }
    places
}

/// One pass over what has changed.
struct Pass<'a> {
    /// Backends that are in use after this pass; whoever names the same one shares it.
    shared: HashMap<&'a BackendName, Place<'a>>,
    /// Backends of what has changed or is gone; their state goes to whoever has their name now.
    predecessors: HashMap<&'a BackendName, Place<'a>>,
    own: &'a WorkloadName,
    local: Option<u16>,
    targets: &'a mut Targets,
    work: Work,
    now: Instant,
}

impl<'a> Pass<'a> {
    fn backends(&mut self, source: &'a Source) -> Vec<Arc<BoundBackend>> {
        self.work.services += 1;
        let backends = source.service.backends.iter().zip(&source.endpoints);
        backends.map(|(definition, endpoints)| self.backend(definition, endpoints.as_ref())).collect()
    }

    fn backend(&mut self, definition: &'a Backend, endpoints: Option<&'a Arc<Reached>>) -> Arc<BoundBackend> {
        let is_for = |place: &Place<'_>| same(place.endpoints, endpoints) && place.definition == definition;
        let bound = match self.shared.get(&definition.name) {
            Some(place) if is_for(place) => return Arc::clone(&place.bound),
            // Two services that see one backend differently cannot share its state.
            Some(_) => return self.bind(definition, endpoints, None),
            None => match self.predecessors.remove(&definition.name) {
                Some(place) if is_for(&place) => place.bound,
                place => self.bind(definition, endpoints, place.map(|place| place.bound).as_deref()),
            },
        };
        let place = Place { definition, endpoints, bound: Arc::clone(&bound) };
        self.shared.insert(&definition.name, place);
        bound
    }

    /// Whom connections to `endpoint` reach. Our own workload is dialled at our own inbound listener: what
    /// this host sends to itself is not redirected, and its app does not speak mesh TLS.
    fn reach(&self, backend: &Backend, endpoint: &Endpoint, origin: Option<&Arc<Origin>>) -> Reach {
        let host = origin.map_or(&backend.name.service.host, |origin| &origin.name);
        let (tls, identity) = Tls::of(backend.policy.tls.as_ref(), endpoint.identity.as_ref(), host);
        let local = endpoint.workload.as_ref() == Some(self.own) && identity.is_some();
        let dial = match self.local {
            Some(inbound) if local => SocketAddr::new(endpoint.address.ip(), inbound),
            _ => endpoint.dial,
        };
        // Where nobody has to prove anything, it does not matter which workload it is.
        let workload = endpoint.workload.clone().filter(|_| identity.is_some());
        (dial, endpoint.address.port(), identity, workload, tls)
    }

    fn bind(
        &mut self,
        definition: &Backend,
        endpoints: Option<&Arc<Reached>>,
        predecessor: Option<&BoundBackend>,
    ) -> Arc<BoundBackend> {
        let ejection = ejection(definition, predecessor, self.now);
        let mut known = endpoints_with_health(predecessor.filter(|_| ejection.is_some()));
        let unresolved = endpoints.and_then(|endpoints| endpoints.unresolved.clone());
        self.work.endpoints += endpoints.map_or(0, |endpoints| endpoints.len());
        let list = endpoints.into_iter().flat_map(|endpoints| endpoints.list());
        let selected: Vec<_> =
            list.filter(|(endpoint, _)| facts::selects(&definition.labels, &endpoint.labels)).collect();
        let endpoints = selected.iter().map(|(endpoint, origin)| {
            Arc::new(BoundEndpoint {
                target: self.targets.reach(self.reach(definition, endpoint, *origin), &mut self.work),
                address: endpoint.address,
                workload: endpoint.workload.clone(),
                origin: origin.cloned(),
                health: known.remove(&(endpoint.address, endpoint.dial)).unwrap_or_default(),
                ejection: ejection.clone(),
            })
        });
        let endpoints: Vec<_> = endpoints.collect();
        let keys = endpoints.iter().map(|endpoint| (endpoint.address, endpoint.target.dial));
        let balancer = Balancer::new(
            definition.policy.load_balancer,
            selected.iter().map(|(endpoint, _)| endpoint.weight),
            keys,
            predecessor.map(|before| &before.balancer),
        );
        if let Some(ejection) = &ejection {
            // They have left: what they were ejected for no longer counts against the cap.
            known.values().for_each(|health| ejection.forget(health));
        }
        let counts = predecessor.map(|before| Arc::clone(&before.counts)).unwrap_or_default();
        Arc::new(BoundBackend {
            name: definition.name.clone(),
            policy: definition.policy.clone(),
            broken: definition.broken.as_deref().map(Arc::from),
            unresolved,
            endpoints,
            balancer,
            ejection,
            circuit: Circuit::new(&definition.policy, &counts),
            counts,
        })
    }
}

/// The backend's ejections: those that it had, under the settings that it has now.
fn ejection(definition: &Backend, predecessor: Option<&BoundBackend>, now: Instant) -> Option<Arc<Ejection>> {
    let settings = definition.policy.outlier_detection.as_ref()?;
    match predecessor.and_then(|before| before.ejection.as_ref()) {
        Some(before) if before.settings() == settings => Some(Arc::clone(before)),
        Some(before) => Some(Arc::new(before.with_settings(settings.clone()))),
        None => Some(Arc::new(Ejection::new(settings.clone(), now))),
    }
}

/// Each endpoint's health, if it belongs to ejections that go on.
fn endpoints_with_health(
    predecessor: Option<&BoundBackend>,
) -> HashMap<(SocketAddr, SocketAddr), Arc<Health>> {
    let before = predecessor.filter(|before| before.ejection.is_some());
    let endpoints = before.map(|before| before.endpoints.as_slice()).unwrap_or_default();
    let health = |endpoint: &Arc<BoundEndpoint>| {
        ((endpoint.address, endpoint.target.dial), Arc::clone(&endpoint.health))
    };
    endpoints.iter().map(health).collect()
}

fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// What `authority` means, if it is a name of `service`.
fn meaning(held: &Held, service: &Service, authority: &Arc<str>) -> Meaning {
    let mut endpoints = service.backends.iter().filter_map(|backend| held.endpoints(&backend.name.service));
    if endpoints.any(|endpoints| endpoints.requested) {
        Meaning::Requested(service.key.clone(), Arc::clone(authority))
    } else {
        Meaning::Service(service.key.clone())
    }
}

/// What `service` is made of for requests for `authority`; `None` while names in it are not answered.
fn source(held: &Held, names: &mut Names, service: &Arc<Service>, authority: &str) -> Option<Source> {
    let reach = |backend: &Backend| match held.endpoints(&backend.name.service) {
        None => Some(None),
        Some(endpoints) => names.reach(endpoints, authority).map(Some),
    };
    // All of them are looked at before one that waits ends it: they are looked up at the same time.
    let endpoints: Vec<Option<_>> = service.backends.iter().map(reach).collect();
    let endpoints = endpoints.into_iter().collect::<Option<Vec<_>>>()?;
    Some(Source { endpoints, service: Arc::clone(service), client: None })
}

#[cfg(test)]
mod tests;
