//! What can be called: every host of a `Service` or `ServiceEntry`, its ports, and whose it is.
//!
//! A host belongs to one namespace: the names of Kubernetes services to that which is in them, any other to the
//! namespace whose `ServiceEntry` came first ([`names`]). Its other entries in that namespace add ports. Names below a wildcard
//! become hosts of their own where a document speaks of them, so that it has its effect.

mod entries;
mod host;
mod names;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry, hash_map},
    net::SocketAddr,
    ops::Bound,
    rc::Rc,
    sync::Arc,
};

use ipnet::IpNet;
use selvedge_model::{
    Protocol, ServiceKey,
    snapshot::{Declared, Owners as Before},
};

pub(super) use entries::EntryRoom;
pub(super) use host::{Backing, KnownHost};
use host::{HostDocument, PortDocument, target_number};

use super::{
    MeshSettings, Problems,
    hosts::{matching, namespace_of, resolve, service_host},
    some_of,
};
use crate::resources::{
    Document, Resources, ServiceEntrySpec, ServiceSpec, service::protocol_of, service_entry::EntryEndpoints,
};

/// How many ports of hosts the `ServiceEntry`s of one namespace may have together. Each is a service of its own, and a document of
/// a few thousand hosts and ports would be millions.
const MOST_PORTS: usize = 100_000;

/// How many endpoints and addresses these ports may have together, as far as documents list them, and namespaces to which they are
/// exported. Each port has all of its document, and each takes more than a kilobyte, so that many small documents would be as
/// many as their machine has no memory for. Those that are selected count [on their own](super::candidates::MOST_BEHIND).
const MOST_ENDPOINTS: usize = 250_000;

/// How many numbers of ports are known of what a pattern names: so many documents may name so many wildcards.
const MOST_NUMBERS: usize = 1_000;

/// How many Services of the type `ExternalName` may follow each other.
const LONGEST_CHAIN: usize = 8;

/// Every host that can be called, by its full name.
#[derive(Debug)]
pub(super) struct Catalog<'a> {
    hosts: BTreeMap<Arc<str>, KnownHost<'a>>,
    /// Services first, then entries; the first of each first.
    order: Vec<Arc<str>>,
    /// Who has the hosts of entries.
    owners: names::Owners<'a>,
    /// Every host by its name from the end to the begin: so those below a wildcard stand together.
    from_the_end: BTreeMap<String, Arc<str>>,
    /// How many ports the hosts of the entries of each namespace have, and how many endpoints and addresses these list.
    entry_ports: BTreeMap<&'a str, (usize, usize)>,
    /// The namespaces of which some such host has no room.
    crowded: BTreeSet<&'a str>,
    /// The same of the names below wildcards, by the namespaces whose routes and rules speak of them.
    spoken_ports: BTreeMap<Arc<str>, (usize, usize)>,
    /// What has been asked for of wildcards, once all hosts are there: many documents may name the same one.
    below: RefCell<HashMap<String, Rc<Below>>>,
}

/// What is known of all hosts together that a pattern names.
#[derive(Debug, Default)]
pub(super) struct Below {
    /// How many ports they have.
    pub(super) ports: usize,
    /// What is spoken at any of these.
    spoken: Vec<Protocol>,
    /// The same of each number, of which [`MOST_NUMBERS`] are known.
    at: BTreeMap<u16, Vec<Protocol>>,
    /// Whether there are more of them.
    has_more: bool,
    /// The first of them in each namespace.
    first: BTreeMap<String, Arc<str>>,
}

impl Below {
    fn add(&mut self, host: &KnownHost<'_>) {
        self.ports += host.ports.len();
        for spoken in host.ports.values() {
            if !self.spoken.contains(spoken) {
                self.spoken.push(*spoken);
            }
        }
        for (port, spoken) in &host.ports {
            if !self.add_port(*port, *spoken) {
                break;
            }
        }
        match self.first.get_mut(host.namespace) {
            Some(first) if *first <= host.host => {}
            Some(first) => *first = Arc::clone(&host.host),
            None => drop(self.first.insert(host.namespace.to_owned(), Arc::clone(&host.host))),
        }
    }

    /// Notes what is `spoken` at `port` of one of them; whether there is room for that.
    fn add_port(&mut self, port: u16, spoken: Protocol) -> bool {
        if self.at.len() == MOST_NUMBERS && !self.at.contains_key(&port) {
            self.has_more = true;
            return false;
        }
        let here = self.at.entry(port).or_default();
        if !here.contains(&spoken) {
            here.push(spoken);
        }
        true
    }

    /// Notes the ports that `other` ones have, too, and nothing else of them.
    pub(super) fn add_ports(&mut self, other: &Self) {
        self.has_more |= other.has_more;
        for (port, spoken) in &other.at {
            if !spoken.iter().all(|spoken| self.add_port(*port, *spoken)) {
                break;
            }
        }
    }

    /// Whether it is not known which ports they have.
    pub(super) fn has_unknown_ports(&self) -> bool {
        self.at.is_empty() || self.has_more
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Whether that is spoken at all of their ports.
    pub(super) fn all_speak(&self, wanted: impl Fn(Protocol) -> bool) -> bool {
        self.spoken.iter().all(|spoken| wanted(*spoken))
    }

    /// Whether there are ports, and `port` is known to be none of them.
    pub(super) fn lacks(&self, port: u16) -> bool {
        !self.at.is_empty() && !self.has_more && !self.at.contains_key(&port)
    }

    /// Whether some have `port`, and nothing that is `wanted` is spoken there.
    pub(super) fn speaks_none_at(&self, port: u16, wanted: impl Fn(Protocol) -> bool) -> bool {
        let here = self.at.get(&port).filter(|_| !self.has_more);
        here.is_some_and(|here| !here.iter().any(|spoken| wanted(*spoken)))
    }

    /// What to write instead of a port that none of them has.
    pub(super) fn port_remedy(&self) -> String {
        some_of(self.at.keys()).map_or_else(String::new, |ports| format!("use one of {ports}"))
    }

    /// The first of them in a namespace that `is_meant`, and that namespace.
    pub(super) fn first_in(&self, is_meant: impl Fn(&str) -> bool) -> Option<(&Arc<str>, &str)> {
        let meant = self.first.iter().filter(|(namespace, _)| is_meant(namespace));
        meant.map(|(namespace, host)| (host, &**namespace)).min()
    }
}

/// What documents speak of a host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Spoken {
    /// The ports that routes name there.
    ports: BTreeSet<u16>,
    /// The namespaces of all of them.
    by: BTreeSet<Arc<str>>,
}

impl<'a> Catalog<'a> {
    /// `before`: who had what.
    pub(super) fn new(
        resources: &'a Resources,
        settings: &MeshSettings,
        before: &Before,
        problems: &mut Problems,
    ) -> Self {
        let mut catalog = Self {
            hosts: BTreeMap::new(),
            order: Vec::new(),
            owners: names::Owners::default(),
            from_the_end: BTreeMap::new(),
            entry_ports: BTreeMap::new(),
            crowded: BTreeSet::new(),
            spoken_ports: BTreeMap::new(),
            below: RefCell::default(),
        };
        for document in &resources.services {
            catalog.add_service(document, settings);
        }
        catalog.add_entries(resources, settings, before, problems);
        let spoken_of = spoken_of(resources, settings);
        catalog.add_external_names(resources, settings, &spoken_of, problems);
        for (host, spoken) in &spoken_of {
            catalog.add_below_wildcards(host, &spoken.by, settings, problems);
        }
        catalog
    }

    fn insert(&mut self, known: KnownHost<'a>) {
        self.order.push(Arc::clone(&known.key));
        let mut reversed = from_the_end(&known.host);
        if known.key != known.host {
            // Beside the other ones of its name.
            reversed.push('@');
            reversed.push_str(known.namespace);
        }
        self.from_the_end.insert(reversed, Arc::clone(&known.key));
        self.hosts.insert(Arc::clone(&known.key), known);
    }

    fn add_service(&mut self, document: &'a Document<ServiceSpec>, settings: &MeshSettings) {
        let name = &document.name;
        let host = service_host(&name.name, &name.namespace, &settings.cluster_domain).to_ascii_lowercase();
        let source = HostDocument::Service(document);
        let mut known = KnownHost::new(host.into(), &name.namespace, source);
        if document.spec.external_name.is_none() {
            for port in &document.spec.ports {
                let source = PortDocument { source, below_wildcard: false, alias_of: None };
                known.add(port.port, port.protocol, source);
            }
        }
        self.insert(known);
    }

    /// Gives services of the type ExternalName their ports: those that they say, or else those of the service that they
    /// stand for, or else those that routes name.
    fn add_external_names(
        &mut self,
        resources: &'a Resources,
        settings: &MeshSettings,
        spoken_of: &BTreeMap<String, Spoken>,
        problems: &mut Problems,
    ) {
        let of_type = |document: &&Arc<Document<ServiceSpec>>| document.spec.external_name.is_some();
        for document in resources.services.iter().filter(of_type) {
            let name = &document.name;
            let host =
                service_host(&name.name, &name.namespace, &settings.cluster_domain).to_ascii_lowercase();
            let source = HostDocument::Service(document);
            let Some(target) = self.stands_for(document) else {
                let message = "leads back to itself through other Services of this type; name another host";
                problems.error(document, "spec.externalName", message);
                continue;
            };
            let target = self.find_for(&target, &name.namespace);
            let target = target.filter(|target| target.is_known_in(&name.namespace));
            let mut ports: BTreeMap<u16, (Protocol, Option<ServiceKey>)> = BTreeMap::new();
            for port in &document.spec.ports {
                let number = target_number(&port.target, port.port);
                let alias = target.map(|target| target.service(number));
                if let Some(target) = target.filter(|target| !target.ports.contains_key(&number)) {
                    let message = format!("{} has no port {number}; {}", target.host, target.port_remedy());
                    problems.error(document, "spec.ports", message);
                    continue;
                }
                ports.insert(port.port, (port.protocol, alias));
            }
            if document.spec.ports.is_empty() {
                match target {
                    Some(target) => ports.extend(
                        target
                            .ports
                            .iter()
                            .map(|(port, protocol)| (*port, (*protocol, Some(target.service(*port))))),
                    ),
                    None => ports.extend(
                        spoken_of
                            .get(&host)
                            .into_iter()
                            .flat_map(|spoken| &spoken.ports)
                            .map(|port| (*port, (protocol_of(None, "", *port), None))),
                    ),
                }
            }
            let known = self.hosts.get_mut(&*host).expect("every service is there");
            for (port, (protocol, alias_of)) in ports {
                known.add(port, protocol, PortDocument { source, below_wildcard: false, alias_of });
            }
        }
    }

    /// The host that an `ExternalName` stands for in the end; `None`: for itself.
    fn stands_for(&self, document: &Document<ServiceSpec>) -> Option<String> {
        let mut name = document.spec.external_name.as_ref()?.to_string();
        for _ in 0..LONGEST_CHAIN {
            match self.hosts.get(&*name).map(|known| known.first) {
                Some(HostDocument::Service(Document {
                    spec: ServiceSpec { external_name: Some(next), .. },
                    ..
                })) => {
                    name = next.to_string();
                }
                _ => return Some(name),
            }
        }
        None
    }

    /// Makes `host`, which documents of the namespaces `by` speak of, a host of its own if it is below wildcards, at the ports
    /// that it has by them alone. It takes room of one of these namespaces: each name has all ports of the wildcard again.
    fn add_below_wildcards(
        &mut self,
        host: &str,
        by: &BTreeSet<Arc<str>>,
        settings: &MeshSettings,
        problems: &mut Problems,
    ) {
        let namespace = namespace_of(host, &settings.cluster_domain);
        let before = self.hosts.get(host);
        if before.is_some_and(|known| matches!(known.first, HostDocument::Service(_))) {
            return;
        }
        let mut above: Vec<(usize, &KnownHost<'a>)> = matching(&self.hosts, host)
            .filter(|(_, known)| *known.host != *host)
            // Names of services belong to their namespaces, whatever a wider wildcard says.
            .filter(|(_, known)| {
                namespace.is_none() || namespace_of(&known.host, &settings.cluster_domain) == namespace
            })
            .filter(|(_, known)| before.is_none_or(|before| before.namespace == known.namespace))
            .collect();
        above.sort_by_key(|(closeness, _)| std::cmp::Reverse(*closeness));
        let mut ports: BTreeMap<u16, (Protocol, PortDocument<'a>)> = BTreeMap::new();
        let Some(&(_, closest)) = above.first() else { return };
        let (namespace, first) = (closest.namespace, closest.first);
        above.retain(|(_, known)| known.namespace == namespace);
        let sources = || above.iter().flat_map(|(_, known)| known.sources.values());
        let needed = (sources().count(), sources().map(|port| port.source.listed()).sum());
        if !take_room(&mut self.spoken_ports, by, needed) {
            if let HostDocument::Entry(document) = first {
                let whose: Vec<&str> = by.iter().map(|one| &**one).collect();
                let message = format!(
                    "routes and rules of the namespace {} speak of more names below {} than there is room for ({MOST_PORTS} ports, \
                     and {MOST_ENDPOINTS} endpoints and addresses): those that come last by the alphabet have no effect; name \
                     fewer, or give it fewer ports",
                    whose.join(", "),
                    closest.host
                );
                problems.no_room(document, "spec.hosts", message);
            }
            return;
        }
        for (_, known) in &above {
            for (port, source) in &known.sources {
                let source = PortDocument { below_wildcard: true, ..source.clone() };
                ports.entry(*port).or_insert((known.ports[port], source));
            }
        }
        if !self.hosts.contains_key(host) {
            self.insert(KnownHost::new(Arc::from(host), namespace, first));
        }
        let known = self.hosts.get_mut(host).expect("it was put there");
        for (port, (protocol, source)) in ports {
            if !known.ports.contains_key(&port) {
                known.add(port, protocol, source);
            }
        }
    }

    /// The namespaces whose clients know of a service's port, where that is not all.
    pub(super) fn exported(&self) -> BTreeMap<ServiceKey, BTreeSet<String>> {
        let mut exported = BTreeMap::new();
        for host in self.hosts() {
            for (port, PortDocument { source, .. }) in &host.sources {
                let HostDocument::Entry(document) = source else { continue };
                let to = &document.spec.export_to;
                if !to.is_everywhere() {
                    let namespaces = to.namespaces(host.namespace).map(str::to_owned).collect();
                    exported.insert(host.service(*port), namespaces);
                }
            }
        }
        exported
    }

    /// Each range of addresses that is a service's own, by its ports; the smallest first, and of equal ones the
    /// first.
    pub(super) fn ranges(&self, problems: &mut Problems) -> BTreeMap<u16, Vec<(IpNet, Declared)>> {
        let mut ranges: BTreeMap<u16, Vec<(IpNet, Declared)>> = BTreeMap::new();
        let mut taken: HashMap<(u16, IpNet), HostDocument<'_>> = HashMap::new();
        for (declared, source) in self.own_ports() {
            let HostDocument::Entry(document) = source else { continue };
            for range in &document.spec.ranges {
                let here = ranges.entry(declared.key.port).or_default();
                match taken.entry((declared.key.port, *range)) {
                    hash_map::Entry::Vacant(new) => {
                        new.insert(source);
                        here.push((*range, declared.clone()));
                    }
                    hash_map::Entry::Occupied(first) if source.is(first.get()) => {}
                    hash_map::Entry::Occupied(first) => {
                        let first = first.get();
                        let message = format!(
                            "{range} at port {} is already the range of {}; give each its own",
                            declared.key.port,
                            first.describe()
                        );
                        source.error(problems, message);
                    }
                }
            }
        }
        let sorted = ranges.into_iter().map(|(port, mut ranges)| {
            ranges.sort_by_key(|(range, _)| std::cmp::Reverse(range.prefix_len()));
            (port, ranges)
        });
        sorted.collect()
    }

    /// Each address and port that is a service's own, and whose. The first claim counts, of those that may be made:
    /// `may_serve` says whether a service in a namespace may be what an address is.
    pub(super) fn addresses(
        &self,
        may_serve: impl Fn(SocketAddr, &str) -> bool,
        problems: &mut Problems,
    ) -> BTreeMap<SocketAddr, Declared> {
        let mut taken: BTreeMap<SocketAddr, (Declared, HostDocument<'_>)> = BTreeMap::new();
        for (declared, source) in self.own_ports() {
            let port = declared.key.port;
            let addresses = source.addresses().iter().map(|ip| SocketAddr::new(*ip, port));
            for address in addresses.filter(|address| may_serve(*address, &declared.namespace)) {
                match taken.entry(address) {
                    Entry::Vacant(vacant) => {
                        vacant.insert((declared.clone(), source));
                    }
                    Entry::Occupied(first) if first.get().1.is(&source) => {}
                    Entry::Occupied(first) => {
                        let first = first.get().1.describe();
                        let message =
                            format!("{address} is already the address of {first}; give each its own");
                        source.error(problems, message);
                    }
                }
            }
        }
        taken.into_iter().map(|(address, (declared, _))| (address, declared)).collect()
    }

    /// Every port of every host but those that are only below a wildcard; the first that was defined first.
    fn own_ports(&self) -> impl Iterator<Item = (Declared, HostDocument<'a>)> {
        self.in_order().flat_map(|host| {
            let own = host.sources.iter().filter(|(_, source)| !source.below_wildcard);
            own.map(|(port, source)| (host.declared(*port), source.source))
        })
    }

    /// The host of services whose keys have `host`. By what documents and clients call it: the one that is meant where nobody has one
    /// of his own.
    pub(super) fn find(&self, host: &str) -> Option<&KnownHost<'a>> {
        self.hosts.get(host)
    }

    /// What documents in `namespace` mean that name `host`.
    pub(super) fn find_for(&self, host: &str, namespace: &str) -> Option<&KnownHost<'a>> {
        let known = self.find(host)?;
        match known.apart.contains(namespace) {
            true => self.find(&ServiceKey::own_host(host, namespace)),
            false => Some(known),
        }
    }

    /// All that are called `host`.
    fn all_called(&self, host: &str) -> impl Iterator<Item = &KnownHost<'a>> {
        let known = self.find(host);
        let apart = known.into_iter().flat_map(move |known| {
            known
                .apart
                .iter()
                .filter_map(move |namespace| self.find(&ServiceKey::own_host(&known.host, namespace)))
        });
        known.into_iter().chain(apart)
    }

    /// The hosts that `pattern` (a name, or `*` and a suffix) names, in no order. Each call looks at all of them: ask
    /// [`Self::below`] what they are together.
    pub(super) fn matching(&self, pattern: &str) -> impl Iterator<Item = &KnownHost<'a>> {
        let suffix = pattern.strip_prefix('*');
        let below = suffix.into_iter().flat_map(move |suffix| {
            let begin = from_the_end(suffix);
            let hosts = self.from_the_end.range::<str, _>((Bound::Included(&*begin), Bound::Unbounded));
            let hosts = hosts.take_while(move |(reversed, _)| reversed.starts_with(&begin));
            let hosts = hosts.map(|(_, host)| host).filter(move |host| host.len() > suffix.len());
            hosts.filter_map(move |host| self.hosts.get(host))
        });
        let exactly = suffix.is_none().then(|| self.all_called(pattern));
        below.chain(exactly.into_iter().flatten())
    }

    /// What the hosts that `pattern` names are together.
    pub(super) fn below(&self, pattern: &str) -> Rc<Below> {
        if let Some(known) = self.below.borrow().get(pattern) {
            return Rc::clone(known);
        }
        let mut below = Below::default();
        self.matching(pattern).for_each(|host| below.add(host));
        let below = Rc::new(below);
        if pattern.starts_with('*') {
            self.below.borrow_mut().insert(pattern.to_owned(), Rc::clone(&below));
        }
        below
    }

    /// What is said to be spoken on a service's port.
    pub(super) fn spoken(&self, key: &ServiceKey) -> Protocol {
        let port = self.find(&key.host).and_then(|host| host.ports.get(&key.port));
        port.copied().unwrap_or_default()
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &KnownHost<'a>> {
        self.hosts.values()
    }

    /// Every host; services first, then entries, the first of each first.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &KnownHost<'a>> {
        self.order.iter().map(|host| &self.hosts[host])
    }
}

/// Takes room for a name with so many ports, and so many endpoints at all of them, of the first of the namespaces `by` that has
/// as much left; whether there is one.
fn take_room(
    taken: &mut BTreeMap<Arc<str>, (usize, usize)>,
    by: &BTreeSet<Arc<str>>,
    (ports, endpoints): (usize, usize),
) -> bool {
    for namespace in by {
        let (own_ports, own_endpoints) = taken.entry(Arc::clone(namespace)).or_default();
        if ports <= MOST_PORTS - *own_ports && endpoints <= MOST_ENDPOINTS - *own_endpoints {
            *own_ports += ports;
            *own_endpoints += endpoints;
            return true;
        }
    }
    false
}

/// What the hosts that can be called depend on besides `Service`s and `ServiceEntry`s: names below wildcards, and the ports of
/// names elsewhere, are those that routes and rules speak of. `None`: on nothing.
pub(super) fn spoken_of_if_it_matters(
    resources: &Resources,
    settings: &MeshSettings,
) -> Option<BTreeMap<String, Spoken>> {
    let is_wild =
        |entry: &Arc<Document<ServiceEntrySpec>>| entry.spec.hosts.iter().any(|host| host.starts_with('*'));
    let is_name = |service: &Arc<Document<ServiceSpec>>| service.spec.external_name.is_some();
    let matters = resources.service_entries.iter().any(is_wild) || resources.services.iter().any(is_name);
    matters.then(|| spoken_of(resources, settings))
}

/// How many endpoints and addresses a host of `spec` has at each of its ports, as far as it lists them.
fn listed(spec: &ServiceEntrySpec) -> usize {
    let endpoints = if let EntryEndpoints::Inline(list) = &spec.endpoints { list.len() } else { 0 };
    endpoints + spec.addresses.len() + spec.ranges.len() + spec.export_to.named()
}

/// `host` from its end to its begin.
fn from_the_end(host: &str) -> String {
    host.chars().rev().collect()
}

/// Every host that a route or rule speaks of, with what they say.
fn spoken_of(resources: &Resources, settings: &MeshSettings) -> BTreeMap<String, Spoken> {
    let mut spoken_of: BTreeMap<String, Spoken> = BTreeMap::new();
    let mut add = |host: &str, namespace: &str, by: &Arc<str>, port: Option<u16>| {
        let host = resolve(host, namespace, &settings.cluster_domain);
        let spoken = spoken_of.entry(host).or_default();
        spoken.ports.extend(port);
        if !spoken.by.contains(by) {
            spoken.by.insert(Arc::clone(by));
        }
    };
    for document in &resources.virtual_services {
        let own = &document.name.namespace;
        document.spec.hosts.iter().for_each(|host| add(host, own, own, None));
        let http = document.spec.http.iter().flat_map(|route| &route.destinations);
        let opaque = document.spec.tcp.iter().flat_map(|route| &route.destinations);
        http.chain(opaque).for_each(|to| add(&to.host, own, own, to.port));
    }
    let of_requests = resources.http_routes.iter().flat_map(|route| {
        let backends = route.spec.rules.iter().flat_map(|rule| &rule.backends);
        backends.map(|backend| (&route.name, &backend.to))
    });
    let of_connections = resources.tcp_routes.iter();
    let of_connections =
        of_connections.flat_map(|route| route.spec.backends.iter().map(|backend| (&route.name, backend)));
    let backends = of_requests.chain(of_connections);
    for (route, to) in backends.filter(|(_, backend)| backend.is_service() && backend.port.is_some()) {
        add(&to.name, to.namespace.as_deref().unwrap_or(&route.namespace), &route.namespace, to.port);
    }
    for document in &resources.destination_rules {
        let own = &document.name.namespace;
        add(&document.spec.host, own, own, None);
    }
    spoken_of
}
