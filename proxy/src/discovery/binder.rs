//! Ties configuration to the state that it acts on.
//!
//! State belongs to a name, not to a version of a document: an endpoint's failures and ejection belong to its backend's
//! name and its address, a retry budget to its service, connections to the target that they reach. So a change of
//! weights loses nothing, and what a change does not touch keeps its `Arc`.

mod backends;
mod dialled;
mod gateway;
mod inputs;
mod rules;
mod tables;
mod targets;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use selvedge_model::{
    Endpoint, Lookup, ServiceKey, Workload, WorkloadName, limit::RateLimits, policy::NetworkRules,
};

pub use self::targets::Work;
use self::{
    backends::{BackendBinder, Place, named},
    gateway::KeptGateway,
    inputs::{BoundKey, Collected, Entry, Here, Inputs, Resolution, bound_key, inputs, same},
    rules::RuleBinder,
    tables::TableMaker,
    targets::Targets,
};
use super::held::Resources;
use crate::{
    bind::{BoundBackend, BoundLimits, Destination, Limiters, Ruling, Table},
    dns::Names,
    settings::Listens,
    telemetry::Metrics,
    trust::outside::Originations,
};

/// To drop a backend with more endpoints takes a worker's time.
const MANY: usize = 256;

/// Makes tables.
#[derive(Debug)]
pub struct Binder {
    own: WorkloadName,
    /// The port at which our own workload is dialled instead of its own, if connections are redirected.
    local: Option<u16>,
    /// Where our app listens, if connections are not redirected.
    listens: Option<Listens>,
    metrics: Arc<Metrics>,
    names: Names,
    entries: BTreeMap<BoundKey, Entry>,
    addresses: BTreeMap<Arc<str>, (Endpoint, Inputs)>,
    /// When an address was first asked for at which nothing is known to be, but to which a name may lead.
    asked: BTreeMap<Arc<str>, Instant>,
    targets: Targets,
    tables: TableMaker,
    /// Large backends that are in use no more, but for requests that have begun: what is dropped last is dropped here, where
    /// nobody waits meanwhile.
    retired: Vec<Arc<BoundBackend>>,
    /// Whom our workload may call; `None`: everybody.
    egress: Ruling,
    /// Whether that is other than when backends were bound.
    egress_changed: bool,
    /// Where we are.
    here: Here,
    /// The labels of our own workload; the same `Arc` as long as they stay the same.
    labels: Arc<BTreeMap<String, String>>,
    /// What holds the buckets of rate limits.
    limiters: Limiters,
    /// The limits of our own workload, as it is told of and bound.
    limits: Option<(Arc<RateLimits>, Arc<BoundLimits>)>,
    /// `None`: we are a sidecar.
    gateway: Option<KeptGateway>,
    table: Arc<Table>,
}

impl Binder {
    /// Nothing bound yet. `own` is the workload that calls.
    pub fn new(own: WorkloadName, metrics: Arc<Metrics>, names: Names) -> Self {
        let egress = Ruling::new(Some(Arc::new(nobody())));
        let targets = Targets::new(egress.egress());
        Self {
            own,
            local: None,
            listens: None,
            metrics,
            names,
            entries: BTreeMap::new(),
            addresses: BTreeMap::new(),
            asked: BTreeMap::new(),
            targets,
            tables: TableMaker::default(),
            retired: Vec::new(),
            egress,
            egress_changed: false,
            here: Here::default(),
            labels: Arc::default(),
            limiters: Limiters::default(),
            limits: None,
            gateway: None,
            table: Arc::default(),
        }
    }

    /// Says that connections are redirected to us, and that `inbound` is our inbound listener's port.
    #[must_use]
    pub fn redirected(mut self, inbound: u16) -> Self {
        self.local = Some(inbound);
        self
    }

    /// Says where the app listens. The binder then warns about ports that have no app.
    #[must_use]
    pub fn beside(mut self, listens: Option<Listens>) -> Self {
        self.listens = listens;
        self
    }

    /// The ways to do TLS to the outside that tables name.
    pub fn originations(&self) -> Originations {
        self.targets.originations.clone()
    }

    /// The authorities that are in use whether an app asks for them or not: those of the servers that rate limits ask.
    pub fn asked_for_ourselves(&self) -> Vec<Arc<str>> {
        self.limiters.servers()
    }

    /// Waits until names of endpoints have other addresses, so that everything must be bound again.
    pub async fn names_changed(&mut self) {
        self.names.changed().await;
    }

    /// The table in force, with the policies that are `held` of what we let in. Nothing is bound for it, so it costs little,
    /// however much else has changed. `None`: they are those in force, or there were none before.
    pub fn policies(&mut self, held: &Resources) -> Option<Arc<Table>> {
        self.table.own.as_ref()?;
        self.tell_metrics(held);
        self.egress_changed |= self.take_egress(held.own());
        let own = self.own(held);
        if same(own.as_ref(), self.table.own.as_ref()) {
            return None;
        }
        self.look_for_apps(held.own());
        let limits = self.limits(held.own());
        self.limiters.lead(&self.table.destinations);
        self.table = Arc::new(Table { own, limits, ..Table::clone(&self.table) });
        Some(Arc::clone(&self.table))
    }

    /// The table of everything held that is `asked` for.
    pub fn bind(
        &mut self,
        held: &Resources,
        asked: impl Fn(&str) -> bool,
        now: Instant,
    ) -> (Arc<Table>, Work) {
        self.tell_metrics(held);
        if let Some(own) = held.own()
            && own.labels != self.labels
        {
            self.labels = Arc::clone(&own.labels);
        }
        let mut collected = Collected::default();
        let resolutions = self.resolve(held, asked, &mut collected, now);
        self.addresses = collected.addresses;
        self.asked = collected.asked;
        let changed = std::mem::take(&mut self.egress_changed)
            | self.take_egress(held.own())
            | self.take_here(held.own())
            | self.take_shown(held);
        let work = self.bind_inputs(collected.inputs, changed, now);
        let destinations: HashMap<_, _> = resolutions
            .into_iter()
            .map(|(authority, resolution)| (Arc::clone(&authority), self.destination(&authority, resolution)))
            .collect();
        let addresses = destinations
            .iter()
            .filter_map(|(authority, destination)| Some((authority.parse().ok()?, Arc::clone(destination))));
        let addresses = addresses.collect();
        self.look_for_apps(held.own());
        let (own, gateway) = (self.own(held), self.ports(held));
        let (egress, limits) = (self.targets.egress.clone(), self.limits(held.own()));
        self.limiters.lead(&destinations);
        let looked_after = self.looked_after();
        self.table = Arc::new(Table { destinations, addresses, own, egress, gateway, limits, looked_after });
        (Arc::clone(&self.table), work)
    }

    /// Metrics name us as configuration does.
    fn tell_metrics(&self, held: &Resources) {
        if let Some(own) = held.own() {
            self.metrics.set_own(own);
        }
    }

    /// Resolves each authority that is `asked` for, and collects in `collected` what must be bound for them. An
    /// authority whose meaning is not known yet is left out: requests for it wait.
    fn resolve(
        &mut self,
        held: &Resources,
        asked: impl Fn(&str) -> bool,
        collected: &mut Collected,
        now: Instant,
    ) -> Vec<(Arc<str>, Resolution)> {
        let mut resolutions = Vec::new();
        self.names.begin();
        for (authority, lookup) in held.lookups().iter().filter(|(authority, _)| asked(authority)) {
            let found = match lookup {
                Lookup::None => Some(Resolution::default()),
                Lookup::Service(key) => self
                    .service(held, key, authority, collected)
                    .map(|bound| Resolution { bound: Some(bound), ..Resolution::default() }),
                Lookup::Address(found) => self.dialled(held, authority, found, collected, now),
            };
            let found = found.map(|found| self.or_through(found, authority, collected));
            resolutions.extend(found.map(|found| (Arc::clone(authority), found)));
        }
        self.virtual_hosts(held, collected);
        self.names.end();
        resolutions
    }

    /// The rate limits of our own workload, as they are if they are those from before.
    fn limits(&mut self, own: Option<&Arc<Workload>>) -> Option<Arc<BoundLimits>> {
        let told = own.and_then(|own| own.policy.limits.as_ref());
        let is_as_before = |(before, _): &&(Arc<RateLimits>, _)| told.is_some_and(|told| before == told);
        let before = self.limits.as_ref().filter(is_as_before).map(|(_, bound)| Arc::clone(bound));
        // Those from before live until these are bound, and with them their buckets.
        let bind = |told: &Arc<RateLimits>| self.limiters.bind(&told.all).map(Arc::new);
        let bound = before.or_else(|| told.and_then(bind));
        self.limits = told.cloned().zip(bound.clone());
        bound
    }

    /// Warns about ports of this workload that have no app, whenever they change.
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

    /// What a service's port means in a request for `authority`. `None`: its names are not answered yet.
    fn service(
        &mut self,
        held: &Resources,
        key: &ServiceKey,
        authority: &Arc<str>,
        collected: &mut Collected,
    ) -> Option<BoundKey> {
        let service = held.service(key)?;
        let bound_key = bound_key(held, service, authority);
        if !collected.inputs.contains_key(&bound_key) {
            let mut known = inputs(held, &mut self.names, service, authority);
            if let Some(known) = known.as_mut().filter(|_| service.routes.asks_for_client()) {
                known.client = Some(Arc::clone(&self.labels));
            }
            if let Some(known) = known.as_mut().filter(|_| self.gateway.is_some()) {
                let named = service.user_lists().into_iter();
                known.users = named.filter_map(|name| held.users(name).cloned()).collect();
            }
            // A service stays as it was until its new names are answered.
            let before = || self.entries.get(&bound_key).map(|entry| entry.inputs.clone());
            collected.inputs.insert(bound_key.clone(), known.or_else(before)?);
        }
        Some(bound_key)
    }

    /// Takes over whom our workload may call. Returns whether that is not as before.
    fn take_egress(&self, own: Option<&Arc<Workload>>) -> bool {
        let rules = match own {
            Some(own) => own.egress.clone(),
            None => Some(Arc::new(nobody())),
        };
        self.egress.widen(rules)
    }

    /// Ends connections to whom our workload may not call any more, now that workers have a table without them.
    pub fn end_forbidden(&self) {
        self.egress.narrow();
    }

    /// Takes over where we are. Returns whether that is not as before.
    fn take_here(&mut self, own: Option<&Arc<Workload>>) -> bool {
        let here = Here::of(own);
        let is_other = self.here != here;
        self.here = here;
        is_other
    }

    /// Replaces `entries` by those of `inputs`, keeping what has not changed, unless everything has.
    fn bind_inputs(
        &mut self,
        inputs: BTreeMap<BoundKey, Inputs>,
        everything_changed: bool,
        now: Instant,
    ) -> Work {
        let mut before = std::mem::take(&mut self.entries);
        let mut kept = BTreeMap::new();
        let mut changed = Vec::new();
        for (bound_key, inputs) in inputs {
            match before.remove(&bound_key) {
                Some(entry) if entry.inputs.is(&inputs) && !everything_changed => {
                    drop(kept.insert(bound_key, entry))
                }
                entry => {
                    before.extend(entry.map(|entry| (bound_key.clone(), entry)));
                    changed.push((bound_key, inputs));
                }
            }
        }
        let rules = self.egress.rules();
        let mut pass = BackendBinder {
            rules: &rules,
            shared: named(kept.values()),
            predecessors: named(before.values()),
            own: &self.own,
            metrics: &self.metrics,
            local: self.local,
            targets: &mut self.targets,
            work: Work::default(),
            unmade: Vec::new(),
            here: &self.here,
            everything_changed,
            now,
        };
        let with = RuleBinder { own: &self.own, metrics: &self.metrics, limiters: &self.limiters, now };
        let mut made = Vec::new();
        for (bound_key, inputs) in &changed {
            let backends = pass.backends(inputs);
            let predecessor = before.get(bound_key).map(|entry| &*entry.bound);
            made.push(Arc::new(with.bind(bound_key, inputs, backends, predecessor)));
        }
        let BackendBinder { work, unmade, predecessors, .. } = pass;
        let gone: usize = predecessors.values().flatten().map(Place::endpoints).sum();
        self.targets.left(work.endpoints + gone);
        unmade.into_iter().for_each(|table| self.tables.make(table));
        let changed = changed.into_iter().zip(made);
        kept.extend(changed.map(|((bound_key, inputs), bound)| (bound_key, Entry { inputs, bound })));
        self.entries = kept;
        let replaced = before.into_values().flat_map(|entry| entry.bound.backends.clone());
        self.retire(replaced.filter(|backend| backend.endpoints.len() > MANY));
        self.targets.forget_unused();
        work
    }

    /// Keeps these backends until nobody else does.
    fn retire(&mut self, backends: impl Iterator<Item = Arc<BoundBackend>>) {
        for backend in backends {
            if !self.retired.iter().any(|retired| Arc::ptr_eq(retired, &backend)) {
                self.retired.push(backend);
            }
        }
        self.retired.retain(|backend| Arc::strong_count(backend) > 1);
    }

    /// Lets go of what tables before have left behind.
    pub fn tidy(&mut self) {
        self.retire(std::iter::empty());
        self.targets.forget_all_unused();
    }

    /// The backends that are [looked after](BoundBackend::is_looked_after): the list that was in the table before if it is the
    /// same.
    fn looked_after(&self) -> Arc<[Arc<BoundBackend>]> {
        let backends = self.entries.values().flat_map(|entry| &entry.bound.backends);
        let mut seen = HashSet::new();
        let found = backends.filter(|one| one.is_looked_after() && seen.insert(Arc::as_ptr(one)));
        let found: Vec<_> = found.cloned().collect();
        let before = &self.table.looked_after;
        let is_same = found.len() == before.len()
            && found.iter().zip(before.iter()).all(|(one, before)| Arc::ptr_eq(one, before));
        if is_same { Arc::clone(before) } else { found.into() }
    }

    /// What `resolution` says of `authority`, bound; the very destination that was in the table before if that is the
    /// same.
    fn destination(&self, authority: &Arc<str>, resolution: Resolution) -> Arc<Destination> {
        let before = self.table.destinations.get(authority);
        self.bound_as(before, || Arc::clone(authority), resolution)
    }

    /// The same of what was bound `before`, whatever table that was in.
    fn bound_as(
        &self,
        before: Option<&Arc<Destination>>,
        authority: impl FnOnce() -> Arc<str>,
        resolution: Resolution,
    ) -> Arc<Destination> {
        let bound = |key: Option<BoundKey>| key.map(|key| Arc::clone(&self.entries[&key].bound));
        let Resolution { bound: itself, service, through, doubt } = resolution;
        let (itself, service, through) = (bound(itself), bound(service), bound(through));
        let is_as_before = |before: &Destination| {
            same(before.bound.as_ref(), itself.as_ref())
                && same(before.service.as_ref(), service.as_ref())
                && same(before.through.as_ref(), through.as_ref())
                && before.doubt == doubt
        };
        if let Some(before) = before.filter(|before| is_as_before(before)) {
            return Arc::clone(before);
        }
        let used = AtomicBool::new(before.is_some_and(|before| before.used.load(Ordering::Relaxed)));
        Arc::new(Destination { authority: authority(), bound: itself, service, through, doubt, used })
    }
}

/// What holds before our own policy has arrived.
fn nobody() -> NetworkRules {
    let policies = vec!["this workload's own policy is not known yet".into()];
    NetworkRules::one_tier(Vec::new(), policies)
}

#[cfg(test)]
mod tests;
