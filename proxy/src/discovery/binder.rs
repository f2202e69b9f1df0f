//! Ties configuration to the state that it acts on.
//!
//! State belongs to a name, not to a version of a document: an endpoint's failures and ejection belong to its backend's
//! name and its address, a retry budget to its service, connections to the target that they reach. So a change of
//! weights loses nothing, and what a change does not touch keeps its `Arc`.

mod backends;
mod dialled;
mod inputs;
mod rules;
mod targets;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use selvedge_model::{Endpoint, Lookup, ServiceKey, Workload, WorkloadName, policy::NetworkRules};
use tokio::sync::watch;

pub use self::targets::Work;
use self::{
    backends::{BackendBinder, named},
    inputs::{BoundKey, Collected, Entry, Inputs, Resolution, bound_key, inputs, same},
    rules::RuleBinder,
    targets::Targets,
};
use super::held::Resources;
use crate::{
    bind::{Destination, Egress, Table},
    dns::Names,
    settings::Listens,
    telemetry::Metrics,
    trust::outside::Originations,
};

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
    /// Whom our workload may call; `None`: everybody.
    egress: watch::Sender<Option<Arc<NetworkRules>>>,
    /// The labels of our own workload; the same `Arc` as long as they stay the same.
    labels: Arc<BTreeMap<String, String>>,
    table: Arc<Table>,
}

impl Binder {
    /// Nothing bound yet. `own` is the workload that calls.
    pub fn new(own: WorkloadName, metrics: Arc<Metrics>, names: Names) -> Self {
        let egress = watch::Sender::new(Some(Arc::new(nobody())));
        let targets = Targets::new(Egress::new(egress.subscribe()));
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
            egress,
            labels: Arc::default(),
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

    /// Waits until names of endpoints have other addresses, so that everything must be bound again.
    pub async fn names_changed(&mut self) {
        self.names.changed().await;
    }

    /// The table of everything held that is `asked` for.
    pub fn bind(
        &mut self,
        held: &Resources,
        asked: impl Fn(&str) -> bool,
        now: Instant,
    ) -> (Arc<Table>, Work) {
        if let Some(own) = held.own()
            && own.labels != self.labels
        {
            self.labels = Arc::clone(&own.labels);
        }
        let mut collected = Collected::default();
        let resolutions = self.resolve(held, asked, &mut collected, now);
        self.addresses = collected.addresses;
        self.asked = collected.asked;
        let egress_changed = self.take_egress(held.own());
        let work = self.bind_inputs(collected.inputs, egress_changed, now);
        let destinations: HashMap<_, _> = resolutions
            .into_iter()
            .map(|(authority, resolution)| (Arc::clone(&authority), self.destination(authority, resolution)))
            .collect();
        let addresses = destinations
            .iter()
            .filter_map(|(authority, destination)| Some((authority.parse().ok()?, Arc::clone(destination))));
        let addresses = addresses.collect();
        self.look_for_apps(held.own());
        self.table = Arc::new(Table {
            destinations,
            addresses,
            own: held.own().cloned(),
            egress: self.targets.egress.clone(),
        });
        (Arc::clone(&self.table), work)
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
        self.names.end();
        resolutions
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
        self.egress.send_if_modified(|before| {
            let is_other = *before != rules;
            if is_other {
                *before = rules;
            }
            is_other
        })
    }

    /// Replaces `entries` by those of `inputs`, keeping what has not changed. All has, if we may call others than before.
    fn bind_inputs(
        &mut self,
        inputs: BTreeMap<BoundKey, Inputs>,
        egress_changed: bool,
        now: Instant,
    ) -> Work {
        let mut before = std::mem::take(&mut self.entries);
        let mut kept = BTreeMap::new();
        let mut changed = Vec::new();
        for (bound_key, inputs) in inputs {
            match before.remove(&bound_key) {
                Some(entry) if entry.inputs.is(&inputs) && !egress_changed => {
                    drop(kept.insert(bound_key, entry))
                }
                entry => {
                    before.extend(entry.map(|entry| (bound_key.clone(), entry)));
                    changed.push((bound_key, inputs));
                }
            }
        }
        let mut pass = BackendBinder {
            shared: named(kept.values()),
            predecessors: named(before.values()),
            own: &self.own,
            local: self.local,
            targets: &mut self.targets,
            work: Work::default(),
            egress_changed,
            now,
        };
        let with = RuleBinder { own: &self.own, metrics: &self.metrics, now };
        let mut made = Vec::new();
        for (bound_key, inputs) in &changed {
            let backends = pass.backends(inputs);
            let predecessor = before.get(bound_key).map(|entry| &*entry.bound);
            made.push(Arc::new(with.bind(bound_key, inputs, backends, predecessor)));
        }
        let work = pass.work;
        let changed = changed.into_iter().zip(made);
        kept.extend(changed.map(|((bound_key, inputs), bound)| (bound_key, Entry { inputs, bound })));
        self.entries = kept;
        self.targets.forget_unused();
        work
    }

    /// What `resolution` says of `authority`, bound; the very destination that was in the table before if that is the
    /// same.
    fn destination(&self, authority: Arc<str>, resolution: Resolution) -> Arc<Destination> {
        let bound = |key: Option<BoundKey>| key.map(|key| Arc::clone(&self.entries[&key].bound));
        let Resolution { bound: itself, service, through, doubt } = resolution;
        let (itself, service, through) = (bound(itself), bound(service), bound(through));
        let before = self.table.destinations.get(&authority);
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
        Arc::new(Destination { authority, bound: itself, service, through, doubt, used })
    }
}

/// What holds before our own policy has arrived.
fn nobody() -> NetworkRules {
    let policies = vec!["this workload's own policy is not known yet".into()];
    NetworkRules { policies, ..NetworkRules::default() }
}

#[cfg(test)]
mod tests;
