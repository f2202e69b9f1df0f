//! `VirtualService`s, `TCPRoute`s and `TLSRoute`s to each service port's routes, as each namespace's clients
//! see them.

mod tcp;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_model::{
    AppConnections, Backend, BackendName, Endpoints, Match, Order, Protocol, RetryPolicy, RouteTable, Rule,
    Service, ServiceKey, TcpTable, TrafficPolicy, WeightedBackend, snapshot::ServiceViews,
};

use tcp::TcpRoutes;

use super::{
    Problems, RouteOwnership, Settings,
    destination_rules::DestinationRules,
    hosts::{closeness, resolve, suggestion},
    keep,
    services::{Catalog, KnownHost},
};
use crate::resources::{
    Document, Resources, VirtualServiceSpec,
    export_to::ExportTo,
    virtual_service::{Destination, HttpRoute},
};

type VirtualService = Document<VirtualServiceSpec>;

/// Everything that decides where a request goes.
#[derive(Debug)]
pub(super) struct Routing<'a> {
    settings: &'a Settings,
    catalog: &'a Catalog<'a>,
    rules: DestinationRules<'a>,
    /// The `VirtualService`s of each host or pattern: the first, and others that are for other clients.
    virtual_services: BTreeMap<String, Vec<&'a VirtualService>>,
    tcp_routes: TcpRoutes<'a>,
}

impl<'a> Routing<'a> {
    pub(super) fn new(
        resources: &'a Resources,
        settings: &'a Settings,
        catalog: &'a Catalog<'a>,
        problems: &mut Problems,
    ) -> Self {
        let rules = DestinationRules::new(resources, settings, catalog, problems);
        let tcp_routes = TcpRoutes::new(resources, settings, catalog, problems);
        let mut routing = Self { settings, catalog, rules, virtual_services: BTreeMap::new(), tcp_routes };
        for document in &resources.virtual_services {
            let says_nothing = document.spec.http.is_empty() && document.spec.tcp.is_empty();
            if document.spec.for_sidecars && !says_nothing {
                routing.add(document, problems);
            }
        }
        routing
    }

    fn add(&mut self, document: &'a VirtualService, problems: &mut Problems) {
        let domain = &self.settings.cluster_domain;
        for (index, host) in document.spec.hosts.iter().enumerate() {
            let field = format!("spec.hosts[{index}]");
            let host = resolve(host, &document.name.namespace, domain);
            let known: Vec<_> =
                self.catalog.hosts().filter(|known| closeness(&host, &known.host).is_some()).collect();
            if known.is_empty() {
                let remedy = suggestion(&host, domain, |name| self.catalog.find(name).is_some());
                problems.warning(document, &field, format!("nothing is called {host}; {remedy}"));
            } else {
                let all = |wanted: fn(&Protocol) -> bool| {
                    known.iter().all(|known| known.ports.values().all(wanted))
                };
                if !document.spec.http.is_empty() && all(|spoken| *spoken == Protocol::Tcp) {
                    let message = format!(
                        "{host} has no HTTP port, so the http routes have no effect; name a port http"
                    );
                    problems.warning(document, &field, message);
                }
                if !document.spec.tcp.is_empty() && all(|spoken| !may_be_opaque(*spoken)) {
                    let message = format!(
                        "{host} has HTTP ports only, so the tls and tcp routes have no effect; name a port tcp"
                    );
                    problems.warning(document, &field, message);
                }
            }
            self.report_foreign(document, &field, &known, problems);
            let others = self.virtual_services.get(&host).map(Vec::as_slice).unwrap_or_default();
            if others.iter().any(|other| std::ptr::eq(*other, document)) {
                continue;
            }
            match self.overruled(document, &host, others) {
                Some((first, true)) => {
                    let message = format!(
                        "{host} already follows {} ({}), so this document has no effect on it; merge them, or write \
                         exportTo so that nobody follows both",
                        first.name,
                        first.place()
                    );
                    problems.error(document, &field, message);
                    continue;
                }
                Some((first, false)) => {
                    let message = format!(
                        "some of its clients already follow {} ({}) for {host}; merge them, or write exportTo so that \
                         nobody follows both",
                        first.name,
                        first.place()
                    );
                    problems.warning(document, &field, message);
                }
                None => {}
            }
            self.virtual_services.entry(host).or_default().push(document);
        }
    }

    /// Which of `others`, all before it, decides about the host or pattern `host` where `document` would, and whether
    /// that is so for everybody whom that is for.
    fn overruled(
        &self,
        document: &VirtualService,
        host: &str,
        others: &[&'a VirtualService],
    ) -> Option<(&'a VirtualService, bool)> {
        let reach = self.reach(document, self.catalog.find(host));
        let own = &*document.name.namespace;
        let first_for = |client: Option<&str>| {
            let closeness = reach.closeness(own, client)?;
            others.iter().copied().find(|other| {
                let theirs = self.reach(other, self.catalog.find(host));
                theirs.closeness(&other.name.namespace, client).is_some_and(|theirs| theirs <= closeness)
            })
        };
        if reach.is_everywhere() {
            return first_for(None).map(|first| (first, true));
        }
        let firsts: Vec<_> = reach.namespaces(own).map(|client| first_for(Some(client))).collect();
        let first = firsts.iter().copied().flatten().next()?;
        Some((first, firsts.iter().all(Option::is_some)))
    }

    /// Whose clients `document` is for where it speaks of `known`.
    fn reach<'d>(&self, document: &'d VirtualService, known: Option<&KnownHost<'_>>) -> Cow<'d, ExportTo> {
        let (own, export_to) = (&*document.name.namespace, &document.spec.export_to);
        let restricted = self.settings.route_ownership == RouteOwnership::Namespace;
        match known {
            Some(known) if restricted && self.settings.is_foreign(own, known.namespace) => {
                Cow::Owned(export_to.own_alone(own))
            }
            _ => Cow::Borrowed(export_to),
        }
    }

    /// Says that a document of one namespace speaks of another's host.
    fn report_foreign(
        &self,
        document: &VirtualService,
        field: &str,
        known: &[&KnownHost<'_>],
        problems: &mut Problems,
    ) {
        let (own, export_to) = (&*document.name.namespace, &document.spec.export_to);
        let foreign = known.iter().find(|known| self.settings.is_foreign(own, known.namespace));
        let Some(KnownHost { host, namespace, .. }) = foreign.filter(|_| export_to.leaves(own)) else {
            return;
        };
        let whose = format!("{host} is of namespace {namespace}, and this document of namespace {own}");
        match self.settings.route_ownership {
            RouteOwnership::Exported => {
                let message = format!(
                    "{whose}: it decides for clients in other namespaces too, as Istio allows; write exportTo: [\".\"] \
                     if its own clients are meant, or forbid it by --route-ownership namespace"
                );
                problems.warning(document, field, message);
            }
            RouteOwnership::Namespace if export_to.includes(own, Some(own)) => {
                let message = format!(
                    "{whose}: by --route-ownership namespace it counts for clients in {own} alone; move it to \
                     {namespace}, or write exportTo: [\".\"]"
                );
                problems.warning(document, field, message);
            }
            RouteOwnership::Namespace => {
                let message = format!(
                    "{whose}: by --route-ownership namespace it has no effect, because it is not for clients in {own}; \
                     move it to {namespace}"
                );
                problems.error(document, field, message);
            }
        }
    }

    /// How the sidecars of servers in `namespace` connect to their apps for `service`.
    pub(super) fn app_connections(&self, service: &ServiceKey, namespace: &str) -> AppConnections {
        let rules = self.catalog.find(&service.host).and_then(|host| self.rules.find(Some(namespace), host));
        rules.map(|rules| rules.app_connections(service.port)).unwrap_or_default()
    }

    /// Reports `DestinationRule`s whose TLS does not fit the endpoints of their hosts.
    pub(super) fn report_tls(&self, endpoints: &BTreeMap<ServiceKey, Endpoints>, problems: &mut Problems) {
        for host in self.catalog.hosts() {
            let Some(rules) = self.rules.find(None, host) else { continue };
            for port in host.ports.keys() {
                let key = ServiceKey { host: Arc::clone(&host.host), port: *port };
                if let Some(endpoints) = endpoints.get(&key) {
                    rules.report_tls(host, endpoints, problems);
                }
            }
        }
    }

    /// Every service port, as every namespace's clients see it.
    pub(super) fn views(
        &self,
        previous: &BTreeMap<ServiceKey, ServiceViews>,
        problems: &mut Problems,
    ) -> BTreeMap<ServiceKey, ServiceViews> {
        let mut views = BTreeMap::new();
        for host in self.catalog.hosts() {
            for (port, protocol) in &host.ports {
                let key = ServiceKey { host: Arc::clone(&host.host), port: *port };
                let port = Port { host, key: &key, protocol: *protocol };
                let before = previous.get(&key);
                let default = self.view(None, &port, problems);
                let mut by_namespace = BTreeMap::new();
                let involved = involved_hosts(&default);
                let namespaces: BTreeSet<&str> = self
                    .rules
                    .namespaces_with_rules(&involved)
                    .chain(self.tcp_routes.namespaces(&host.host))
                    .chain(self.exported_to(host))
                    .collect();
                for namespace in namespaces {
                    let own = self.view(Some(namespace), &port, problems);
                    if own != default {
                        let before = before.and_then(|views| views.by_namespace.get(namespace));
                        by_namespace.insert(Arc::from(namespace), keep(own, before));
                    }
                }
                let default = keep(default, before.map(|views| &views.default));
                views.insert(key, ServiceViews { default, by_namespace });
            }
        }
        views
    }

    /// The service port as clients in `client` see it.
    fn view(&self, client: Option<&str>, port: &Port<'_>, problems: &mut Problems) -> Service {
        let mut backends = Backends { routing: self, client, port, list: Vec::new() };
        let document = self.virtual_service(port.host, client);
        let for_http =
            document.filter(|document| port.protocol != Protocol::Tcp && !document.spec.http.is_empty());
        let routes = for_http.and_then(|document| backends.routes(document, problems));
        let routes = routes.unwrap_or_else(|| backends.default_route());
        let tcp = match may_be_opaque(port.protocol) {
            true => backends.tcp_table(document, problems),
            false => TcpTable::default(),
        };
        Service {
            key: port.key.clone(),
            addresses: port.host.own_addresses(),
            protocol: port.protocol,
            routes,
            tcp,
            backends: backends.list,
        }
    }

    /// The one that clients in `client` follow for `known`: of the closest pattern, the one that is closest to them.
    fn virtual_service(&self, known: &KnownHost<'_>, client: Option<&str>) -> Option<&'a VirtualService> {
        let seen = |list: &[&'a VirtualService]| {
            let closest = list.iter().copied().filter_map(|document| {
                let closeness =
                    self.reach(document, Some(known)).closeness(&document.name.namespace, client)?;
                Some((closeness, document))
            });
            closest.min_by_key(|(closeness, _)| *closeness).map(|(_, document)| document)
        };
        let matching = self
            .virtual_services
            .iter()
            .filter_map(|(pattern, list)| Some((closeness(pattern, &known.host)?, seen(list)?)));
        matching.max_by_key(|(closeness, _)| *closeness).map(|(_, found)| found)
    }

    /// The namespaces that some `VirtualService` of `known` is for and not for all.
    fn exported_to(&self, known: &KnownHost<'_>) -> BTreeSet<&'a str> {
        let matching =
            self.virtual_services.iter().filter(|(pattern, _)| closeness(pattern, &known.host).is_some());
        let documents = matching.flat_map(|(_, list)| list.iter().copied());
        let namespaces = documents.flat_map(|document| {
            let own = &*document.name.namespace;
            match self.reach(document, Some(known)) {
                Cow::Borrowed(reach) => reach.namespaces(own).collect::<Vec<_>>(),
                Cow::Owned(reach) => reach.includes(own, Some(own)).then_some(own).into_iter().collect(),
            }
        });
        namespaces.collect()
    }
}

/// Whether connections to a port that speaks `protocol` may be opaque.
fn may_be_opaque(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Unspecified | Protocol::Tcp)
}

/// The hosts that a service's backends name.
fn involved_hosts(service: &Service) -> Vec<&str> {
    service.backends.iter().map(|backend| &*backend.name.service.host).collect()
}

/// A port of a known host.
struct Port<'a> {
    host: &'a KnownHost<'a>,
    key: &'a ServiceKey,
    protocol: Protocol,
}

/// The backends of one view, as its routes come to name them.
struct Backends<'a> {
    routing: &'a Routing<'a>,
    client: Option<&'a str>,
    port: &'a Port<'a>,
    list: Vec<Backend>,
}

impl Backends<'_> {
    /// Everything to the whole service.
    fn default_route(&mut self) -> RouteTable {
        let whole = BackendName { service: self.port.key.clone(), subset: None };
        let backend = self.index(whole, |backends, name| backends.whole(backends.port.host, name));
        let rule = Rule {
            name: "default".to_owned(),
            matches: Vec::new(),
            backends: vec![WeightedBackend { backend, weight: 1 }],
            timeout: None,
            retry: RetryPolicy::default(),
        };
        RouteTable::new(Order::Listed, vec![rule])
    }

    /// The routes of `document` for this port; `None` if all of them are for other ports.
    fn routes(&mut self, document: &VirtualService, problems: &mut Problems) -> Option<RouteTable> {
        let mut rules = Vec::new();
        let mut all_for_other_ports = true;
        for route in &document.spec.http {
            let Some(matches) = matches_for(route, self.port.key.port) else {
                all_for_other_ports &= !route.left_out;
                continue;
            };
            all_for_other_ports = false;
            let field = format!("spec.http[{}].route", route.index);
            let backends = route
                .destinations
                .iter()
                .map(|destination| WeightedBackend {
                    backend: self.backend(document, &field, destination, problems),
                    weight: destination.weight,
                })
                .collect();
            rules.push(Rule {
                name: rule_name(document, route),
                matches,
                backends,
                timeout: route.timeout,
                retry: route.retry.clone(),
            });
        }
        (!all_for_other_ports).then(|| RouteTable::new(Order::Listed, rules))
    }

    /// The index of the backend that `destination`, in the list `field`, names; it may be broken.
    fn backend(
        &mut self,
        document: &VirtualService,
        field: &str,
        destination: &Destination,
        problems: &mut Problems,
    ) -> usize {
        let settings = self.routing.settings;
        let host = resolve(&destination.host, &document.name.namespace, &settings.cluster_domain);
        let known = self.routing.catalog.find(&host);
        let only_port =
            known.filter(|known| known.ports.len() == 1).and_then(|known| known.ports.keys().next());
        let port = destination.port.or(only_port.copied()).unwrap_or(self.port.key.port);
        let subset = destination.subset.as_deref().map(Arc::from);
        let name = BackendName { service: ServiceKey::new(&host, port), subset };
        let index = self.index(name, |backends, name| match known {
            None => {
                let catalog = backends.routing.catalog;
                let remedy = suggestion(&host, &settings.cluster_domain, |name| catalog.find(name).is_some());
                broken(name, "host", &format!("nothing is called {host}; {remedy}"))
            }
            Some(known) if !known.ports.contains_key(&port) => {
                let message = format!("{host} has no port {port}; {}", known.port_remedy());
                broken(name, "port", &message)
            }
            Some(known) => backends.whole_or_subset(known, name),
        });
        if let Some((part, why)) = self.list[index].broken.as_deref().and_then(|words| words.split_once(": "))
        {
            let place = format!("{field}[{}].destination.{part}", destination.index);
            let share = if field.starts_with("spec.http") {
                "its share of requests is answered 503"
            } else {
                "its share of connections is refused"
            };
            problems.error(document, &place, format!("{why} ({share})"));
        }
        index
    }

    fn index(&mut self, name: BackendName, make: impl FnOnce(&Self, BackendName) -> Backend) -> usize {
        if let Some(index) = self.list.iter().position(|backend| backend.name == name) {
            return index;
        }
        let backend = make(self, name);
        self.list.push(backend);
        self.list.len() - 1
    }

    fn whole_or_subset(&self, known: &KnownHost<'_>, name: BackendName) -> Backend {
        let Some(subset) = name.subset.clone() else {
            return self.whole(known, name);
        };
        let rules = self.routing.rules.find(self.client, known);
        if let Some(why) = rules.and_then(|rules| rules.refusal(&known.host)) {
            return broken(name, "host", &why);
        }
        if let Some((labels, policy)) =
            rules.and_then(|rules| rules.subset(&subset, known, name.service.port))
        {
            return Backend { name, labels, policy, broken: None };
        }
        let defined = rules.map(|rules| rules.subset_names()).unwrap_or_default();
        let remedy = match (rules, defined.is_empty()) {
            (None, _) => "add a DestinationRule with this subset".to_owned(),
            (Some(_), true) => "add it to the host's DestinationRule".to_owned(),
            (Some(_), false) => format!("add it, or use one of {}", defined.join(", ")),
        };
        let message =
            format!("no DestinationRule for {} defines the subset {subset:?}; {remedy}", known.host);
        broken(name, "subset", &message)
    }

    fn whole(&self, known: &KnownHost<'_>, name: BackendName) -> Backend {
        let rules = self.routing.rules.find(self.client, known);
        if let Some(why) = rules.and_then(|rules| rules.refusal(&known.host)) {
            return broken(name, "host", &why);
        }
        let policy = rules.map(|rules| rules.policy(known, name.service.port));
        Backend { name, labels: BTreeMap::new(), policy: policy.unwrap_or_default(), broken: None }
    }
}

/// A backend that cannot be used, because the `part` of a destination is `why`.
fn broken(name: BackendName, part: &str, why: &str) -> Backend {
    let policy = TrafficPolicy::default();
    Backend { name, labels: BTreeMap::new(), policy, broken: Some(format!("{part}: {why}")) }
}

/// The matches of `route` on `port` (none = every request); `None` if it is not for this port.
fn matches_for(route: &HttpRoute, port: u16) -> Option<Vec<Match>> {
    let Some(matches) = &route.matches else {
        return Some(Vec::new());
    };
    let here = matches.iter().filter(|one| one.port.is_none_or(|own| own == port));
    let here: Vec<_> = here.map(|one| one.condition.clone()).collect();
    (!here.is_empty()).then_some(here)
}

fn rule_name(document: &VirtualService, route: &HttpRoute) -> String {
    match &route.name {
        Some(name) => format!("{} http[{}] {name}", document.name, route.index),
        None => format!("{} http[{}]", document.name, route.index),
    }
}
