//! A change of routes and `DestinationRule`s, compiled for the hosts that these have to do with.
//!
//! What a host is to its clients reads the routes that are for it, by their hosts or parents, and the rules of itself and of
//! every host to which its routes send. So a route touches the hosts that it is for, and a rule the hosts that it is for and
//! those whose backends these are. What a route is by itself, and whether its hosts exist, is looked at for all routes,
//! which is little.
//!
//! Everything is compiled where more reads them: gateways their routes and all rules, policies the routes that they name, and
//! `VirtualService`s the one to which they delegate; and if other hosts can be called because documents speak of them, apps are
//! connected to otherwise, or rules select other clients by their labels.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::SystemTime,
};

use selvedge_model::{ServiceKey, snapshot::ServiceViews};

use super::{
    super::{
        MeshSettings, Problems, backend_tls, backend_traffic,
        certificates::Certificates,
        clients::{SelectedClients, Selectors},
        hosts::{resolve, service_host},
        routes,
        services::{self, Catalog},
    },
    Last,
    edits::{Edits, Pair},
    index::Everything,
};
use crate::resources::{
    DestinationRuleSpec, Document, HttpRouteSpec, Resources, TcpRouteSpec, VirtualServiceSpec,
    references::HttpParents,
};

/// What makes the routes and rules others.
#[derive(Debug)]
pub(super) struct ChangedRoutes {
    virtual_services: Edits<VirtualServiceSpec>,
    http_routes: Edits<HttpRouteSpec>,
    tcp_routes: Edits<TcpRouteSpec>,
    destination_rules: Edits<DestinationRuleSpec>,
}

impl ChangedRoutes {
    pub(super) fn new(old: &mut Resources, new: &Resources) -> Self {
        Self {
            virtual_services: Edits::new(&mut old.virtual_services, &new.virtual_services, |_| {}),
            http_routes: Edits::new(&mut old.http_routes, &new.http_routes, |_| {}),
            tcp_routes: Edits::new(&mut old.tcp_routes, &new.tcp_routes, |_| {}),
            destination_rules: Edits::new(&mut old.destination_rules, &new.destination_rules, |_| {}),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.virtual_services.changed.is_empty()
            && self.http_routes.changed.is_empty()
            && self.tcp_routes.changed.is_empty()
            && self.destination_rules.changed.is_empty()
    }

    /// # Errors
    /// One of them is read by more than the hosts that it is for, among `all` that there is besides.
    fn are_for_hosts_alone(&self, all: &Resources) -> Result<(), Everything> {
        let is_for_hosts = |spec: &VirtualServiceSpec| {
            let is_delegate = spec.hosts.is_empty();
            !is_delegate && spec.followed_by.gateways.is_empty()
        };
        let is_for_services =
            |parents: &HttpParents| parents.gateways.is_empty() && parents.servers.is_empty();
        let any_names_routes = !all.rate_limits.is_empty() || !all.server_policies.is_empty();
        let may_be_named = any_names_routes && !self.http_routes.changed.is_empty();
        let selector =
            |rule: &Option<Arc<Document<DestinationRuleSpec>>>| rule.as_ref()?.spec.selector.clone();
        let mut rules = self.destination_rules.changed.iter();
        let selects_others = rules.any(|(old, new)| selector(old) != selector(new));
        let is_alone = all_of(&self.virtual_services.changed).all(|one| is_for_hosts(&one.spec))
            && all_of(&self.http_routes.changed).all(|one| is_for_services(&one.spec.parents))
            && all_of(&self.tcp_routes.changed).all(|one| is_for_services(&one.spec.parents));
        if is_alone && !may_be_named && !selects_others { Ok(()) } else { Err(Everything) }
    }

    fn apply(self, all: &mut Resources) -> ChangedPairs {
        ChangedPairs {
            virtual_services: self.virtual_services.apply(&mut all.virtual_services),
            http_routes: self.http_routes.apply(&mut all.http_routes),
            tcp_routes: self.tcp_routes.apply(&mut all.tcp_routes),
            destination_rules: self.destination_rules.apply(&mut all.destination_rules),
        }
    }
}

/// The routes and rules that say something else, each before and after; or whose place among the others is another.
struct ChangedPairs {
    virtual_services: Vec<Pair<VirtualServiceSpec>>,
    http_routes: Vec<Pair<HttpRouteSpec>>,
    tcp_routes: Vec<Pair<TcpRouteSpec>>,
    destination_rules: Vec<Pair<DestinationRuleSpec>>,
}

/// Each document of `changed`, before and after.
fn all_of<T>(changed: &[Pair<T>]) -> impl Iterator<Item = &Document<T>> {
    changed.iter().flat_map(|(old, new)| [old, new]).flatten().map(|document| &**document)
}

/// The hosts that routes and rules have to do with.
struct Touched<'c, 'a> {
    catalog: &'c Catalog<'a>,
    settings: &'c MeshSettings,
    hosts: BTreeSet<Arc<str>>,
    /// Those of them that rules are for.
    with_rules: HashSet<Arc<str>>,
    /// The names and wildcards that were met, each with whether it was in a rule: many documents may name the same one.
    met: HashSet<(String, bool)>,
}

impl Touched<'_, '_> {
    fn by_name(&mut self, host: &str, namespace: &str, is_rule: bool) {
        let host = resolve(host, namespace, &self.settings.cluster_domain);
        if !self.met.insert((host.clone(), is_rule)) {
            return;
        }
        for known in self.catalog.matching(&host) {
            self.hosts.insert(Arc::clone(&known.host));
            if is_rule {
                self.with_rules.insert(Arc::clone(&known.host));
            }
        }
    }

    fn by_parents<T>(&mut self, document: &Document<T>, parents: &HttpParents) {
        for parent in &parents.services {
            let namespace = parent.namespace.as_deref().unwrap_or(&document.name.namespace);
            let host = service_host(&parent.name, namespace, &self.settings.cluster_domain);
            self.hosts.extend(self.catalog.find(&host).map(|known| Arc::clone(&known.host)));
        }
    }

    fn by(&mut self, changed: &ChangedPairs) {
        for document in all_of(&changed.virtual_services) {
            let hosts = document.spec.hosts.iter();
            hosts.for_each(|host| self.by_name(host, &document.name.namespace, false));
        }
        for document in all_of(&changed.http_routes) {
            self.by_parents(document, &document.spec.parents);
        }
        for document in all_of(&changed.tcp_routes) {
            self.by_parents(document, &document.spec.parents);
        }
        for document in all_of(&changed.destination_rules) {
            self.by_name(&document.spec.host, &document.name.namespace, true);
        }
    }

    /// Adds the hosts of `services` that send to one which rules are for.
    fn through_backends<'s>(&mut self, services: impl Iterator<Item = (&'s ServiceKey, &'s ServiceViews)>) {
        if self.with_rules.is_empty() {
            return;
        }
        for (key, views) in services {
            let mut backends = views.each().flat_map(|view| &view.backends);
            if backends.any(|backend| self.with_rules.contains(&backend.name.service.host)) {
                self.hosts.insert(Arc::clone(&key.host));
            }
        }
    }
}

impl Last {
    /// Takes over what has become of the hosts that `changed` has to do with.
    ///
    /// # Errors
    /// Everything must be compiled.
    pub(super) fn follow_routes(&mut self, changed: ChangedRoutes) -> Result<(), Everything> {
        if !changed.destination_rules.changed.is_empty() {
            self.has_no_gateways()?;
        }
        changed.are_for_hosts_alone(&self.resources)?;
        let spoken_of = services::spoken_of_if_it_matters(&self.resources, &self.settings);
        let changed = changed.apply(&mut self.resources);
        let Self { resources, settings, mesh, facts, .. } = self;
        if services::spoken_of_if_it_matters(resources, settings) != spoken_of {
            return Err(Everything);
        }
        let nowhere = &mut Problems::default();
        let catalog = Catalog::new(resources, settings, nowhere);
        let mut touched = Touched {
            catalog: &catalog,
            settings,
            hosts: BTreeSet::new(),
            with_rules: HashSet::new(),
            met: HashSet::new(),
        };
        touched.by(&changed);
        touched.through_backends(mesh.services.iter());
        let certificates = Certificates::new(resources, SystemTime::now(), &settings.own_namespace);
        let of_backends = (
            backend_tls::BackendTls::new(resources, &catalog, &certificates, nowhere),
            backend_traffic::BackendTraffic::new(resources, &catalog, nowhere),
        );
        let mut of_all = Problems::default();
        let clients = SelectedClients::new(&Selectors::new(resources), &mesh.selected);
        let routing = routes::Routing::new(resources, settings, &catalog, of_backends, clients, &mut of_all);
        let connections = |service: &ServiceKey, namespace: &str| routing.app_connections(service, namespace);
        // Who has room depends on all that came before.
        if of_all.is_crowded {
            return Err(Everything);
        }
        if !facts.connections.are_still(|host| touched.with_rules.contains(host), connections) {
            return Err(Everything);
        }
        let routed = &mut facts.found.routed;
        routed.of_all = of_all;
        for known in touched.hosts.iter().filter_map(|host| catalog.find(host)) {
            let endpoints = |key: &ServiceKey| mesh.endpoints.get(key).map(|endpoints| &**endpoints);
            routed.add(&known.host, routing.of_host(known, endpoints, &mesh.services));
        }
        let views = std::mem::take(&mut routed.views);
        mesh.services.extend(views);
        self.problems = self.facts.found.sorted();
        Ok(())
    }

    /// # Errors
    /// There is something that gateways serve, to whose backends any rule may apply. Routes that are not theirs are nothing to
    /// them.
    fn has_no_gateways(&self) -> Result<(), Everything> {
        let all = &self.resources;
        let there_are_none = self.mesh.gateways.is_empty()
            && all.gateways.is_empty()
            && all.istio_gateways.is_empty()
            && all.listener_sets.is_empty()
            && all.ingresses.is_empty();
        if there_are_none { Ok(()) } else { Err(Everything) }
    }
}
