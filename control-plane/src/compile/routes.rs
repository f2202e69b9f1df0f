//! `VirtualService`s, `TCPRoute`s and `TLSRoute`s to each service port's routes, as each namespace's clients
//! see them.

mod backends;
mod claims;
mod delegates;
mod filters;
mod gateways;
mod http;
mod locations;
mod logs;
mod parents;
mod resolve;
mod sessions;
mod tcp;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_model::{
    AppConnections, Endpoints, Protocol, Service, ServiceKey, TcpTable, snapshot::ServiceViews,
};

pub use locations::{RuleLocations, Written};

pub(super) use backends::{Backends, Share};
use delegates::{Delegates, Effective};
pub(super) use gateways::{Asker, catch_alls_last};
use http::HttpRoutes;
use parents::Followed;
pub(super) use resolve::Reference;
use tcp::TcpRoutes;

use super::{
    MeshSettings, Problems, RouteOwnership,
    backend_tls::BackendTls,
    backend_traffic::BackendTraffic,
    destination_rules::{DestinationRules, RuleSet, report_checks},
    hosts::{matching, resolve, suggestion},
    keep,
    services::{Catalog, KnownHost},
};
use crate::{
    problem::DocumentName,
    resources::{DestinationRuleSpec, Document, Resources, VirtualServiceSpec, export_to::ExportTo},
};

type VirtualService = Document<VirtualServiceSpec>;

/// Everything that decides where a request goes.
#[derive(Debug)]
pub(super) struct Routing<'a> {
    settings: &'a MeshSettings,
    catalog: &'a Catalog<'a>,
    rules: DestinationRules<'a>,
    backend_tls: BackendTls<'a>,
    backend_traffic: BackendTraffic<'a>,
    /// The `VirtualService`s of each host or pattern: the first, and others that are for other clients.
    virtual_services: BTreeMap<String, Vec<&'a VirtualService>>,
    /// The HTTP routes of each of them.
    http_routes: BTreeMap<&'a DocumentName, Vec<Effective<'a>>>,
    /// The HTTP routes of each `VirtualService` that gateways follow.
    routes_of_gateways: BTreeMap<&'a DocumentName, Vec<Effective<'a>>>,
    gateway_routes: HttpRoutes<'a>,
    tcp_routes: TcpRoutes<'a>,
}

impl<'a> Routing<'a> {
    /// Every `DestinationRule`, as it is written.
    pub(super) fn destination_rules(&self) -> impl Iterator<Item = &'a Document<DestinationRuleSpec>> {
        self.rules.documents()
    }

    pub(super) fn new(
        resources: &'a Resources,
        settings: &'a MeshSettings,
        catalog: &'a Catalog<'a>,
        (backend_tls, backend_traffic): (BackendTls<'a>, BackendTraffic<'a>),
        problems: &mut Problems,
    ) -> Self {
        let rules = DestinationRules::new(resources, settings, catalog, problems);
        let gateway_routes = HttpRoutes::new(&resources.http_routes, settings, catalog, problems);
        let tcp_routes = TcpRoutes::new(&resources.tcp_routes, settings, catalog, problems);
        let mut routing = Self {
            settings,
            catalog,
            rules,
            backend_tls,
            backend_traffic,
            virtual_services: BTreeMap::new(),
            http_routes: BTreeMap::new(),
            routes_of_gateways: BTreeMap::new(),
            gateway_routes,
            tcp_routes,
        };
        let mut delegates = Delegates::new(resources);
        for document in &resources.virtual_services {
            let document: &VirtualService = document;
            let says_nothing = document.spec.http.is_empty() && document.spec.tcp.is_empty();
            if document.spec.hosts.is_empty() || says_nothing {
                continue;
            }
            let (routes, followed_by) = (delegates.routes(document, problems), &document.spec.followed_by);
            if !followed_by.gateways.is_empty() {
                routing.routes_of_gateways.insert(&document.name, routes.clone());
            }
            if followed_by.sidecars {
                let routes = routes.into_iter().map(|route| claims::for_sidecars(document, route, problems));
                routing.http_routes.insert(&document.name, routes.collect());
                routing.add(document, problems);
            }
        }
        delegates.report_unused(problems);
        routing
    }

    fn add(&mut self, document: &'a VirtualService, problems: &mut Problems) {
        let domain = &self.settings.cluster_domain;
        for (index, host) in document.spec.hosts.iter().enumerate() {
            let field = format!("spec.hosts[{index}]");
            let host = resolve(host, &document.name.namespace, domain);
            let known: Vec<_> = self.catalog.matching(&host).collect();
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
                        first.name, first.location
                    );
                    problems.overruled(document, &field, message);
                    continue;
                }
                Some((first, false)) => {
                    let message = format!(
                        "some of its clients already follow {} ({}) for {host}; merge them, or write exportTo so that \
                         nobody follows both",
                        first.name, first.location
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

    /// The HTTP routes of `document`, those of its delegates in their places.
    fn http_routes(&self, document: &VirtualService) -> &[Effective<'a>] {
        self.http_routes.get(&document.name).map(Vec::as_slice).unwrap_or_default()
    }

    /// What is called `host`.
    pub(super) fn known(&self, host: &str) -> Option<&KnownHost<'a>> {
        self.catalog.find(host)
    }

    /// The namespace whose documents are for the whole mesh.
    pub(super) fn root_namespace(&self) -> &'a str {
        &self.settings.root_namespace
    }

    /// The full name of `host`, as a document in `namespace` writes it.
    pub(super) fn full_name(&self, host: &str, namespace: &str) -> String {
        resolve(host, namespace, &self.settings.cluster_domain)
    }

    /// How the sidecars of servers in `namespace` connect to their apps for `service`.
    pub(super) fn app_connections(&self, service: &ServiceKey, namespace: &str) -> AppConnections {
        let rules = self.catalog.find(&service.host).and_then(|host| self.rules.find(Some(namespace), host));
        rules.map(|rules| rules.app_connections(service.port)).unwrap_or_default()
    }

    /// What `host`, whose ports have these `endpoints`, is to its clients. Nothing else than its routes, and the rules and policies
    /// of it and of the hosts that those name, has a part in it.
    pub(super) fn of_host<'e>(
        &self,
        host: &KnownHost<'_>,
        endpoints: impl Fn(&ServiceKey) -> Option<&'e Endpoints>,
        previous: &BTreeMap<ServiceKey, ServiceViews>,
    ) -> OfHost {
        let mut problems = Problems::default();
        let reported = self.report_tls(host, endpoints, &mut problems);
        OfHost { reported, views: self.views(host, previous, &mut problems), problems }
    }

    /// Reports `DestinationRule`s and `BackendTLSPolicy`s that do not fit the endpoints of `host`, or each other: in TLS,
    /// health checks, the PROXY protocol, tunnels, places and budgets. Gives the ports of which something is reported.
    fn report_tls<'e>(
        &self,
        host: &KnownHost<'_>,
        endpoints: impl Fn(&ServiceKey) -> Option<&'e Endpoints>,
        problems: &mut Problems,
    ) -> Vec<ServiceKey> {
        let mut reported = Vec::new();
        let rules = self.rules.find(None, host);
        for port in host.ports.keys() {
            let key = ServiceKey { host: Arc::clone(&host.host), port: *port };
            let Some(endpoints) = endpoints(&key) else { continue };
            let before = problems.times;
            self.report_tls_of(host, endpoints, rules, problems);
            if problems.times > before {
                reported.push(key);
            }
        }
        reported
    }

    fn report_tls_of(
        &self,
        host: &KnownHost<'_>,
        endpoints: &Endpoints,
        rules: Option<&RuleSet<'a>>,
        problems: &mut Problems,
    ) {
        self.backend_tls.report(host, endpoints, problems);
        report_checks(host, endpoints, problems);
        let Some(rules) = rules else { return };
        rules.report_checks(endpoints, problems);
        rules.report_passed_over(host, endpoints, problems);
        rules.report_places(host, endpoints, problems);
        if let Some(traffic) = self.backend_traffic.find(host).filter(|one| one.spec.retry.is_some()) {
            rules.report_replaced_budget(host, &traffic.name, problems);
        }
        let port = endpoints.key.port;
        match self.backend_tls.find(host, port) {
            None => rules.report_tls(host, endpoints, problems),
            Some(_) => rules.report_replaced_tls(host, port, problems),
        }
    }

    /// Each port of `host`, as every namespace's clients see it.
    fn views(
        &self,
        host: &KnownHost<'_>,
        previous: &BTreeMap<ServiceKey, ServiceViews>,
        problems: &mut Problems,
    ) -> Vec<(ServiceKey, ServiceViews)> {
        let mut views = Vec::new();
        for (port, protocol) in &host.ports {
            let key = ServiceKey { host: Arc::clone(&host.host), port: *port };
            let port = Port { host, key: &key, protocol: *protocol };
            let before = previous.get(&key);
            let default = self.view(None, &port, problems);
            let mut by_namespace: BTreeMap<Arc<str>, Arc<Service>> = BTreeMap::new();
            let involved = involved_hosts(&default);
            let namespaces: BTreeSet<&str> = self
                .rules
                .namespaces_with_rules(&involved)
                .chain(self.gateway_routes.namespaces(&host.host))
                .chain(self.tcp_routes.namespaces(&host.host))
                .chain(self.exported_to(host))
                .collect();
            for namespace in namespaces {
                let own = self.view(Some(namespace), &port, problems);
                if own != default {
                    let before = before.and_then(|views| views.by_namespace.get(namespace));
                    // A document may be for very many namespaces: those that see the same share it.
                    let same = by_namespace.values().next_back().filter(|last| ***last == own).cloned();
                    let own = same.unwrap_or_else(|| keep(own, before));
                    by_namespace.insert(Arc::from(namespace), own);
                }
            }
            let default = keep(default, before.map(|views| &views.default));
            views.push((key, ServiceViews { default, by_namespace }));
        }
        views
    }

    /// The service port as clients in `client` see it.
    fn view(&self, client: Option<&str>, port: &Port<'_>, problems: &mut Problems) -> Service {
        let mut backends = Backends::new(self, client, port);
        let routes = (&self.gateway_routes, &self.tcp_routes);
        let followed = Followed::new(client, port.key, port.protocol, routes, problems);
        let document = self.virtual_service(port.host, client);
        let for_http =
            document.filter(|document| port.protocol != Protocol::Tcp && !document.spec.http.is_empty());
        let routes = backends
            .gateway_http(&followed.http, for_http, problems)
            .or_else(|| for_http.and_then(|document| backends.routes(document, problems)));
        let routes = routes.unwrap_or_else(|| backends.default_route(problems));
        let tcp = match may_be_opaque(port.protocol) {
            true => backends.tcp_table(&followed.tcp, document, problems),
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
        let matching = matching(&self.virtual_services, &known.host)
            .filter_map(|(closeness, list)| Some((closeness, seen(list)?)));
        matching.max_by_key(|(closeness, _)| *closeness).map(|(_, found)| found)
    }

    /// The namespaces that some `VirtualService` of `known` is for and not for all.
    fn exported_to(&self, known: &KnownHost<'_>) -> BTreeSet<&'a str> {
        let matching = matching(&self.virtual_services, &known.host);
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

/// What one host is to its clients.
#[derive(Debug)]
pub(super) struct OfHost {
    /// Each of its ports, as each class of clients sees it.
    pub(super) views: Vec<(ServiceKey, ServiceViews)>,
    /// The ports whose endpoints do not fit a rule or a policy.
    pub(super) reported: Vec<ServiceKey>,
    /// What is wrong with the documents that have a part in it.
    pub(super) problems: Problems,
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
