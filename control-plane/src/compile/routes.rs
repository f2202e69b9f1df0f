//! `VirtualService`s, `TCPRoute`s and `TLSRoute`s to each service port's routes, as each namespace's clients
//! see them.

mod backends;
mod claims;
mod delegates;
mod filters;
mod followers;
mod gateways;
mod http;
mod locations;
mod logs;
mod parents;
mod resolve;
mod sessions;
mod tcp;
mod unknown;
mod views;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use selvedge_model::{AppConnections, Endpoints, Protocol, ServiceKey, snapshot::ServiceViews};

pub use locations::{RuleLocations, Written};

pub(super) use backends::{Backends, Share};
use delegates::{Delegates, Effective};
use followers::Followers;
pub(super) use gateways::{Asker, catch_alls_last, takers_of_all_last};
use http::HttpRoutes;
pub(super) use http::report_repeated;
pub(super) use resolve::Reference;
use tcp::TcpRoutes;
use unknown::GatewayPorts;

use super::{
    MeshSettings, Problems, RouteOwnership,
    backend_tls::BackendTls,
    backend_traffic::BackendTraffic,
    clients::{Client, SelectedClients},
    destination_rules::{DestinationRules, RuleSet, report_checks},
    hosts::{matching, resolve, suggestion},
    room::{Reach, Room},
    services::{Below, Catalog, KnownHost},
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
    /// The clients that rules select by their labels.
    clients: SelectedClients<'a>,
    backend_tls: BackendTls<'a>,
    backend_traffic: BackendTraffic<'a>,
    /// The `VirtualService`s of each host or pattern: the first, and others that are for other clients.
    virtual_services: BTreeMap<String, Followers<'a>>,
    /// The HTTP routes of each of them.
    http_routes: BTreeMap<&'a DocumentName, Vec<Effective<'a>>>,
    /// The HTTP routes of each `VirtualService` that gateways follow.
    routes_of_gateways: BTreeMap<&'a DocumentName, Vec<Effective<'a>>>,
    /// About how much memory the routes of delegates take in each of those that have some, in bytes.
    delegated: BTreeMap<&'a DocumentName, usize>,
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
        clients: SelectedClients<'a>,
        problems: &mut Problems,
    ) -> Self {
        let rules = DestinationRules::new(resources, settings, catalog, &clients, problems);
        let gateway_routes = HttpRoutes::new(&resources.http_routes, settings, catalog, problems);
        let tcp_routes = TcpRoutes::new(&resources.tcp_routes, settings, catalog, problems);
        let mut routing = Self {
            settings,
            catalog,
            rules,
            clients,
            backend_tls,
            backend_traffic,
            virtual_services: BTreeMap::new(),
            http_routes: BTreeMap::new(),
            routes_of_gateways: BTreeMap::new(),
            delegated: BTreeMap::new(),
            gateway_routes,
            tcp_routes,
        };
        let (mut delegates, mut room) = (Delegates::new(resources), Room::default());
        let gateway_ports = GatewayPorts::new(resources);
        for document in &resources.virtual_services {
            let document: &VirtualService = document;
            gateway_ports.report(document, problems);
            routing.report_ports(document, &gateway_ports, problems);
            let says_nothing = document.spec.http.is_empty() && document.spec.tcp.is_empty();
            if document.spec.hosts.is_empty() || says_nothing {
                continue;
            }
            let (routes, followed_by) = (delegates.routes(document, problems), &document.spec.followed_by);
            routing.delegated.insert(&document.name, delegates.taken(document));
            if !followed_by.gateways.is_empty() {
                routing.routes_of_gateways.insert(&document.name, routes.clone());
            }
            if followed_by.sidecars {
                let routes = routes.into_iter().map(|route| claims::for_sidecars(document, route, problems));
                routing.http_routes.insert(&document.name, routes.collect());
                routing.add(document, &mut room, problems);
            }
        }
        delegates.report_unused(problems);
        routing
    }

    fn add(&mut self, document: &'a VirtualService, room: &mut Room<'a>, problems: &mut Problems) {
        let domain = &self.settings.cluster_domain;
        for (index, host) in document.spec.hosts.iter().enumerate() {
            let field = format!("spec.hosts[{index}]");
            let host = resolve(host, &document.name.namespace, domain);
            let below = self.catalog.below(&host);
            if below.is_empty() {
                let remedy = suggestion(&host, domain, |name| self.catalog.find(name).is_some());
                problems.warning(document, &field, format!("nothing is called {host}; {remedy}"));
            } else {
                if !document.spec.http.is_empty() && below.all_speak(|spoken| spoken == Protocol::Tcp) {
                    let message = format!(
                        "{host} has no HTTP port, so the http routes have no effect; name a port http"
                    );
                    problems.warning(document, &field, message);
                }
                if !document.spec.tcp.is_empty() && below.all_speak(|spoken| !may_be_opaque(spoken)) {
                    let message = format!(
                        "{host} has HTTP ports only, so the tls and tcp routes have no effect; name a port tcp"
                    );
                    problems.warning(document, &field, message);
                }
            }
            self.report_foreign(document, &field, &below, problems);
            let nobody = Followers::default();
            let others = self.virtual_services.get(&host).unwrap_or(&nobody);
            if others.list.last().is_some_and(|other| std::ptr::eq(*other, document)) {
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
            let known = self.catalog.find_for(&host, &document.name.namespace);
            let reach = self.reach(document, known).into_owned();
            let (own, size) = (&*document.name.namespace, self.size(document));
            let reached =
                Reach { ports: below.ports, namespaces: reach.namespaces(own).count(), clients: None };
            if let Err(why) = room.take(own, size, reached) {
                problems.no_room(document, &field, format!("{host} does not follow it: {why}"));
                continue;
            }
            self.virtual_services.entry(host).or_default().add(document, &reach);
        }
    }

    /// Which of `others`, all before it, decides about the host or pattern `host` where `document` would, and whether
    /// that is so for everybody whom that is for.
    fn overruled(
        &self,
        document: &VirtualService,
        host: &str,
        others: &Followers<'a>,
    ) -> Option<(&'a VirtualService, bool)> {
        let own = &*document.name.namespace;
        let reach = self.reach(document, self.catalog.find_for(host, own));
        let first_for = |client: Option<&str>| others.first_within(client, reach.closeness(own, client)?);
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
    fn report_foreign(&self, document: &VirtualService, field: &str, below: &Below, problems: &mut Problems) {
        let (own, export_to) = (&*document.name.namespace, &document.spec.export_to);
        let foreign = below.first_in(|namespace| self.settings.is_foreign(own, namespace));
        let Some((host, namespace)) = foreign.filter(|_| export_to.leaves(own)) else {
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
        let rules = self
            .catalog
            .find(&service.host)
            .and_then(|host| self.rules.find(Client::server(namespace), host));
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
        let keys = host.ports.keys().map(|port| host.service(*port));
        self.rules.report_subsets(host, keys.filter_map(|key| endpoints(&key)), &mut problems);
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
        let rules = self.rules.find(Client::of(None), host);
        for port in host.ports.keys() {
            let key = host.service(*port);
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

    /// The one that clients in `client` follow for `known`: of the closest pattern, the one that is closest to them.
    fn virtual_service(&self, known: &KnownHost<'_>, client: Option<&str>) -> Option<&'a VirtualService> {
        let matching = matching(&self.virtual_services, &known.host).filter_map(|(closeness, followers)| {
            // Whether a document behind a wildcard is of another namespace depends on the host; and so it does for a name that several
            // namespaces have.
            let is_found = closeness == usize::MAX && known.is_the_only_one()
                || self.settings.route_ownership == RouteOwnership::Exported;
            let found = match is_found {
                true => followers.closest(client),
                false => {
                    let closest = followers.list.iter().filter_map(|document| {
                        let reach = self.reach(document, Some(known));
                        Some((reach.closeness(&document.name.namespace, client)?, *document))
                    });
                    closest.min_by_key(|(closeness, _)| *closeness)
                }
            };
            Some((closeness, found?.1))
        });
        matching.max_by_key(|(closeness, _)| *closeness).map(|(_, found)| found)
    }

    /// The namespaces that some `VirtualService` of `known` is for and not for all.
    fn exported_to(&self, known: &KnownHost<'_>) -> BTreeSet<&'a str> {
        let matching = matching(&self.virtual_services, &known.host);
        let documents = matching.flat_map(|(_, followers)| followers.list.iter().copied());
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

/// A port of a known host.
struct Port<'a> {
    host: &'a KnownHost<'a>,
    key: &'a ServiceKey,
    protocol: Protocol,
}
