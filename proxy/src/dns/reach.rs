//! Resolves endpoints with names to endpoints with addresses.
//!
//! What has not changed keeps its `Arc`, so that binding compares pointers.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use selvedge_model::{Endpoint, Host, HostPort, NamedEndpoint, ServiceKey};
use selvedge_ops::Resolver;
use tokio::sync::Notify;

use super::{
    families::endpoints,
    listed::Listed,
    watch::{Heard, State, Watches},
};
use crate::telemetry::Metrics;

/// How many names that do not resolve are listed in an answer.
const NAMED_IN_ANSWERS: usize = 3;

/// The endpoints of a service's port, all with addresses.
#[derive(Debug)]
pub struct Reached {
    endpoints: Arc<Listed>,
    /// Those that the names in `endpoints` resolved to.
    resolved: Vec<(Endpoint, Found)>,
    /// Which names have no address, and why; for answers.
    pub unresolved: Option<Arc<str>>,
    stamp: u64,
    /// The workloads that were looked for among them.
    workloads: Vec<Arc<Self>>,
}

/// How an endpoint with a name was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The name.
    pub dns_name: Arc<DnsName>,
    /// Where else its connections may go, if none is made in time to where it is.
    pub others: Arc<[SocketAddr]>,
}

/// The name that an endpoint's address was found by.
#[derive(Debug)]
pub struct DnsName {
    /// The name.
    pub name: Arc<str>,
    /// Why it does not resolve now. The address is from an earlier look-up.
    pub failing: Option<Arc<str>>,
    doubt: Arc<Notify>,
}

impl DnsName {
    /// Has the name looked up again soon, whatever is left of its TTL: nobody answers at an address of it.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }
}

impl Reached {
    /// Whose they are.
    pub fn key(&self) -> &ServiceKey {
        &self.endpoints.key
    }

    /// The endpoint at this address.
    pub fn at(&self, address: SocketAddr) -> Option<&Endpoint> {
        let resolved = || self.resolved.iter().map(|(endpoint, _)| endpoint);
        self.endpoints.at(address).or_else(|| resolved().find(|endpoint| endpoint.address == address))
    }

    /// Endpoints without names.
    pub fn fixed(endpoints: Arc<Listed>) -> Self {
        Self { endpoints, resolved: Vec::new(), unresolved: None, stamp: 0, workloads: Vec::new() }
    }

    /// The endpoint whose app is at this address, whichever of its name's addresses that is.
    fn app_at(&self, address: SocketAddr) -> Option<Endpoint> {
        let other = |(endpoint, found): &(Endpoint, Found)| {
            let dial = found.others.iter().find(|other| other.ip() == address.ip())?;
            let is_port = endpoint.address.port() == address.port();
            is_port.then(|| Endpoint { address, dial: *dial, ..endpoint.clone() })
        };
        self.at(address).cloned().or_else(|| self.resolved.iter().find_map(other))
    }

    /// Those that have addresses of their own.
    pub fn with_addresses(&self) -> &[Arc<Endpoint>] {
        self.endpoints.list()
    }

    /// Whether all of them are in the order of their addresses, as far as is known.
    pub fn are_sorted(&self) -> bool {
        self.endpoints.is_sorted() && self.resolved.is_empty()
    }

    /// Those that were found by names.
    pub fn resolved(&self) -> &[(Endpoint, Found)] {
        &self.resolved
    }

    /// All of them, each with the name that its address was found by, if any.
    #[cfg(test)]
    fn list(&self) -> impl Iterator<Item = (&Endpoint, Option<&Found>)> {
        let fixed = self.endpoints.list().iter().map(|endpoint| (&**endpoint, None));
        fixed.chain(self.resolved.iter().map(|(endpoint, found)| (endpoint, Some(found))))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.endpoints.list().len() + self.resolved.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether an address may belong to a name, as far as DNS has told us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// It belongs to none.
    None,
    /// It may be a workload's. Says which name it may belong to, and why that is not known.
    Silence(Arc<str>),
    /// Not all names are answered yet; [`Names::changed`] soon.
    Waiting,
}

/// A service's port; with the host that was asked for, if requests go wherever that is.
type Key = (ServiceKey, Option<Host>);

/// Every name in the configuration in force, and what it leads to.
#[derive(Debug)]
pub struct Names {
    watches: Watches,
    reached: HashMap<Key, Arc<Reached>>,
    /// What this pass has looked at.
    seen: HashSet<Key>,
}

impl Names {
    /// No name yet.
    pub fn new(resolver: Arc<Resolver>, metrics: Arc<Metrics>) -> Self {
        Self { watches: Watches::new(resolver, metrics), reached: HashMap::new(), seen: HashSet::new() }
    }

    /// Begins a pass over everything in force.
    pub fn begin(&mut self) {
        self.watches.begin();
        self.seen.clear();
    }

    /// Ends it: what was not looked at is forgotten, and its names are looked up no longer.
    pub fn end(&mut self) {
        let seen = &self.seen;
        self.reached.retain(|key, _| seen.contains(key));
        self.watches.end();
    }

    /// Waits until names have other addresses, or their first ones.
    pub async fn changed(&mut self) {
        self.watches.changed().await;
    }

    /// Where `endpoints` are for a request for `authority`. If one that would be called in plaintext is where one of the
    /// `workloads` is, it is called as that workload. `None`: not known yet; [`Self::changed`] soon.
    pub fn reach(
        &mut self,
        endpoints: &Arc<Listed>,
        authority: &str,
        workloads: &[Option<Arc<Reached>>],
    ) -> Option<Arc<Reached>> {
        // A name below a wildcard is where it says, whatever authority it is asked for by.
        let port = endpoints.requested.filter(|_| endpoints.named.is_empty());
        let requested = port.and_then(|port| Some((host_of(authority)?, port)));
        let key = (endpoints.key.clone(), requested.as_ref().map(|(host, _)| host.clone()));
        self.seen.insert(key.clone());
        let on_request = requested.map(|(host, port)| whatever_is_at(HostPort::new(host, port)));
        let named = || endpoints.named.iter().chain(&on_request);
        let stamp = self.look_at_all(named())?;
        let workloads = workloads.iter().cloned().collect::<Option<Vec<_>>>()?;
        if let Some(known) = self.reached.get(&key)
            && Arc::ptr_eq(&known.endpoints, endpoints)
            && known.stamp == stamp
            && known.workloads.len() == workloads.len()
            && known.workloads.iter().zip(&workloads).all(|(known, now)| Arc::ptr_eq(known, now))
        {
            return Some(Arc::clone(known));
        }
        let mut reached = Reached { stamp, ..Reached::fixed(Arc::clone(endpoints)) };
        let mut unresolved = Vec::new();
        let mut taken = HashSet::new();
        if named().next().is_some() {
            taken.extend(endpoints.list().iter().map(|fixed| (fixed.address, fixed.dial)));
        }
        for endpoint in named() {
            let (found, failed) = self.resolve(endpoint);
            unresolved.extend(failed.filter(|failed| !unresolved.contains(failed)));
            let found = found.into_iter().map(|found| as_workload(found, &workloads));
            let is_new = |(endpoint, _): &(Endpoint, Found)| taken.insert((endpoint.address, endpoint.dial));
            reached.resolved.extend(found.filter(is_new));
        }
        (reached.unresolved, reached.workloads) = (words(&unresolved), workloads);
        let reached = Arc::new(reached);
        self.reached.insert(key, Arc::clone(&reached));
        Some(reached)
    }

    /// Whether an address may be one of `endpoints` that DNS has not told us of since then. Their names are looked up
    /// at once.
    ///
    /// Only workloads count: an endpoint without a sidecar is spoken to in plaintext anyway.
    pub fn may_have_since(&mut self, endpoints: &Listed, since: Instant) -> Doubt {
        let mut doubt = Doubt::None;
        for endpoint in &endpoints.named {
            for name in names(endpoint) {
                match (self.watches.heard_since(name, since), &doubt) {
                    (Heard::Waiting, _) => doubt = Doubt::Waiting,
                    (Heard::Silence(reason), Doubt::None) if endpoint.identity.is_some() => {
                        doubt = Doubt::Silence(format!("{name} {reason}").into());
                    }
                    (Heard::Silence(_) | Heard::Placed, _) => {}
                }
            }
        }
        doubt
    }

    /// Begins to look up every name in `named`. Returns the stamp of the last change, if all are answered.
    fn look_at_all<'a>(&mut self, named: impl Iterator<Item = &'a NamedEndpoint>) -> Option<u64> {
        let (mut last, mut waiting) = (0, false);
        for name in named.flat_map(names) {
            match self.watches.look(name) {
                Some((_, stamp)) => last = last.max(stamp),
                None => waiting = true,
            }
        }
        (!waiting).then_some(last)
    }

    /// The endpoints that `endpoint` leads to, or which name has no address and why.
    fn resolve(&mut self, endpoint: &NamedEndpoint) -> (Vec<(Endpoint, Found)>, Option<String>) {
        let one = endpoint.one_address;
        let (dials, dns_name) = self.addresses(&endpoint.dial.host, one);
        let apps: Vec<IpAddr> = if endpoint.address.host == endpoint.dial.host {
            Vec::new()
        } else {
            self.addresses(&endpoint.address.host, true).0.into_iter().map(|(app, _)| app).collect()
        };
        if dials.is_empty() {
            let reason = dns_name.failing.as_deref().unwrap_or("has no address");
            return (Vec::new(), Some(format!("{} {reason}", dns_name.name)));
        }
        let found = dials.into_iter().map(|(dial, others)| {
            // The app's address matters only for its port. If it is not known, the app must stay reachable.
            let app = apps.first().copied().unwrap_or(dial);
            let endpoint = Endpoint {
                address: SocketAddr::new(app, endpoint.address.port),
                dial: SocketAddr::new(dial, endpoint.dial.port),
                identity: endpoint.identity.clone(),
                workload: endpoint.workload.clone(),
                labels: endpoint.labels.clone(),
                weight: endpoint.weight,
                place: endpoint.place.clone(),
            };
            let others = others.into_iter().map(|other| SocketAddr::new(other, endpoint.dial.port()));
            let found = Found { dns_name: Arc::clone(&dns_name), others: others.collect() };
            (endpoint, found)
        });
        (found.collect(), None)
    }

    /// The addresses of `host` that are endpoints, each with those that are tried beside it.
    fn addresses(&mut self, host: &Host, one: bool) -> (Vec<(IpAddr, Vec<IpAddr>)>, Arc<DnsName>) {
        match host {
            Host::Ip(ip) => {
                let (name, doubt) = (ip.to_string().into(), Arc::default());
                (vec![(*ip, Vec::new())], Arc::new(DnsName { name, failing: None, doubt }))
            }
            Host::Name(name) => {
                let State { addresses, one: chosen, failing } =
                    self.watches.look(name).map(|(state, _)| state.clone()).unwrap_or_default();
                let dns_name = DnsName { name: Arc::clone(name), failing, doubt: self.watches.doubt(name) };
                (endpoints(&addresses, one.then_some(chosen)), Arc::new(dns_name))
            }
        }
    }
}

/// What DNS has found, called as whichever of the `workloads` is there: a name that somebody declares does not say who is at its
/// addresses, and plaintext would pass that workload's sidecar by. Nothing else of it is tried then, and of what is no
/// workload's no address that is one.
fn as_workload((endpoint, found): (Endpoint, Found), workloads: &[Arc<Reached>]) -> (Endpoint, Found) {
    let at = |address: SocketAddr| {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        workloads.iter().find_map(|workloads| workloads.app_at(address))
    };
    if endpoint.identity.is_some() {
        return (endpoint, found);
    }
    match at(endpoint.dial) {
        Some(workload) => {
            let labels = if endpoint.labels.is_empty() { workload.labels } else { endpoint.labels };
            let place = endpoint.place.or(workload.place);
            let Endpoint { weight, .. } = endpoint;
            (Endpoint { labels, place, weight, ..workload }, Found { others: Arc::default(), ..found })
        }
        None => {
            let others = found.others.iter().filter(|other| at(**other).is_none()).copied().collect();
            (endpoint, Found { others, ..found })
        }
    }
}

/// The names in `endpoint`.
fn names(endpoint: &NamedEndpoint) -> impl Iterator<Item = &Arc<str>> {
    [&endpoint.address.host, &endpoint.dial.host].into_iter().filter_map(Host::name)
}

/// The host that `authority` (`HOST` or `HOST:PORT`) names.
fn host_of(authority: &str) -> Option<Host> {
    if let Ok(place) = authority.parse::<HostPort>() {
        return Some(place.host);
    }
    let bare = authority.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(authority);
    bare.parse().ok()
}

/// A server outside the mesh, of which only the address is known.
fn whatever_is_at(place: HostPort) -> NamedEndpoint {
    NamedEndpoint {
        dial: place.clone(),
        address: place,
        one_address: false,
        identity: None,
        workload: None,
        labels: std::sync::Arc::default(),
        weight: 1,
        place: None,
    }
}

fn words(unresolved: &[String]) -> Option<Arc<str>> {
    let (named, more) = unresolved.split_at(unresolved.len().min(NAMED_IN_ANSWERS));
    if named.is_empty() {
        return None;
    }
    let mut words = named.join("; ");
    if !more.is_empty() {
        words.push_str(&format!("; and {} more names", more.len()));
    }
    Some(words.into())
}

#[cfg(test)]
mod tests;
