//! A change of routes and `DestinationRule`s, compiled for the hosts and gateways that these have to do with.
//!
//! What a host is to its clients reads the routes that are for it, by their hosts or parents, those to which these delegate, and the
//! rules of itself and of every host to which its routes send. So a route touches the hosts that it is for, and a rule the hosts
//! that it is for and those whose backends these are. What a route is by itself, and whether its hosts exist, is looked at for
//! all routes, which is little. If documents of a namespace have no room because of others, a change of one of these touches
//! what all of them are for.
//!
//! What gateways serve reads the routes that name gateways, and the rules of all hosts to which these lead: where such a thing
//! changes, the gateways are compiled, and nothing else for it.
//!
//! Everything is compiled where more reads them: policies the routes that they name; and if other hosts can be called because
//! documents speak of them, apps are connected to otherwise, or rules select other clients by their labels.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::SystemTime,
};

use selvedge_model::{
    ServiceKey,
    snapshot::{self, ServiceViews},
};

use super::{
    super::{
        MeshSettings, Problems,
        backend_tls::BackendTls,
        backend_traffic::BackendTraffic,
        candidates::candidates,
        certificates::Certificates,
        clients::{SelectedClients, Selectors, There},
        gateways,
        hosts::{resolve, service_host},
        inbound,
        owners::Owners,
        rate_limits::RateLimits,
        routes::Routing,
        services::Catalog,
        workloads::Workloads,
    },
    Last,
    changes::{ChangedRoutes, ChangedWorkloads},
    index::{Everything, both},
    workloads::{Hosts, other_hosts_of},
};
use crate::resources::{
    DestinationRuleSpec, Document, Resources, VirtualServiceSpec, references::HttpParents,
};

/// Where requests go, by all documents.
struct Decided<'d> {
    catalog: &'d Catalog<'d>,
    certificates: &'d Certificates<'d>,
    routing: &'d Routing<'d>,
    /// What is wrong with routes and rules, whichever hosts they are for.
    problems: Problems,
}

/// What `then` makes of where requests go.
/// `owners`: who has which hosts. `there`: the clients whom rules select by their labels and that are there.
fn decided<R>(
    resources: &Resources,
    settings: &MeshSettings,
    owners: &snapshot::Owners,
    there: &There,
    then: impl FnOnce(Decided<'_>) -> R,
) -> R {
    // What is wrong with hosts themselves is known: it is none of those that have changed.
    let (nowhere, mut problems) = (&mut Problems::default(), Problems::default());
    let catalog = Catalog::new(resources, settings, owners, nowhere);
    let certificates = Certificates::new(resources, SystemTime::now(), &settings.own_namespace);
    let of_backends = (
        BackendTls::new(resources, &catalog, &certificates, &mut problems),
        BackendTraffic::new(resources, &catalog, &mut problems),
    );
    let clients = SelectedClients::new(&Selectors::new(resources), there);
    let routing = Routing::new(resources, settings, &catalog, of_backends, clients, &mut problems);
    then(Decided { catalog: &catalog, certificates: &certificates, routing: &routing, problems })
}

/// What routes, rules and services have to do with.
struct Touched<'c, 'a> {
    catalog: &'c Catalog<'a>,
    settings: &'c MeshSettings,
    hosts: BTreeSet<Arc<str>>,
    /// Those of them that are something else for whoever sends to them; and names by which such a one may be meant.
    different: HashSet<Arc<str>>,
    /// The names and wildcards that were met, each with whether it was in a rule: many documents may name the same one.
    met: HashSet<(String, bool)>,
    /// Those of which the `Service`s or `ServiceEntry`s have changed.
    of_services: BTreeSet<Arc<str>>,
    /// The namespaces of these `VirtualService`s and rules.
    namespaces: BTreeSet<Arc<str>>,
    /// Whether gateways follow one of them.
    gateways: bool,
}

impl<'c, 'a> Touched<'c, 'a> {
    fn new(catalog: &'c Catalog<'a>, settings: &'c MeshSettings) -> Self {
        Self {
            catalog,
            settings,
            hosts: BTreeSet::new(),
            different: HashSet::new(),
            met: HashSet::new(),
            of_services: BTreeSet::new(),
            namespaces: BTreeSet::new(),
            gateways: false,
        }
    }

    fn by_name(&mut self, host: &str, namespace: &str, is_rule: bool) {
        let host = resolve(host, namespace, &self.settings.cluster_domain);
        if !self.met.insert((host.clone(), is_rule)) {
            return;
        }
        for known in self.catalog.matching(&host) {
            self.hosts.insert(Arc::clone(&known.key));
            if is_rule {
                self.different.insert(Arc::clone(&known.key));
            }
        }
    }

    fn by_parents<T>(&mut self, document: &Document<T>, parents: &HttpParents) {
        self.gateways |= !parents.gateways.is_empty();
        for parent in &parents.services {
            let namespace = parent.namespace.as_deref().unwrap_or(&document.name.namespace);
            let host = service_host(&parent.name, namespace, &self.settings.cluster_domain);
            self.hosts.extend(self.catalog.find(&host).map(|known| Arc::clone(&known.key)));
        }
    }

    fn by_virtual_service(&mut self, document: &Document<VirtualServiceSpec>) {
        self.namespaces.insert(Arc::clone(&document.name.namespace));
        self.gateways |= !document.spec.followed_by.gateways.is_empty();
        document.spec.hosts.iter().for_each(|host| self.by_name(host, &document.name.namespace, false));
    }

    fn by_rule(&mut self, rule: &Document<DestinationRuleSpec>) {
        self.namespaces.insert(Arc::clone(&rule.name.namespace));
        self.gateways |= gateways::names_secrets(rule);
        self.by_name(&rule.spec.host, &rule.name.namespace, true);
    }

    /// A `Service` that is there, or was.
    fn by_service(&mut self, host: Arc<str>) {
        // Who means it by too short a name is told how it is called.
        let short =
            host.strip_suffix(&self.settings.cluster_domain).and_then(|host| host.strip_suffix(".svc."));
        self.different.extend(short.map(Arc::from));
        self.different.insert(Arc::clone(&host));
        self.hosts.insert(Arc::clone(&host));
        self.of_services.insert(host);
    }

    /// A host of a `ServiceEntry` that is there, or was.
    fn by_service_entry(&mut self, host: Arc<str>) {
        self.different.insert(Arc::clone(&host));
        self.hosts.insert(Arc::clone(&host));
        self.of_services.insert(host);
    }

    /// What `changed` are for, of which `all` are the newest.
    fn by_routes(&mut self, changed: &ChangedRoutes, all: &Resources) {
        let documents = || both(&changed.virtual_services.changed);
        documents().for_each(|document| self.by_virtual_service(document));
        let names: BTreeSet<_> = documents().map(|one| (&*one.name.namespace, &*one.name.name)).collect();
        let is_delegating = |root: &&Arc<Document<VirtualServiceSpec>>| {
            let delegates = root.spec.http.iter().filter_map(|route| route.delegate.as_ref());
            let mut named =
                delegates.map(|to| (to.namespace.as_deref().unwrap_or(&root.name.namespace), &*to.name));
            !names.is_empty() && named.any(|name| names.contains(&name))
        };
        all.virtual_services.iter().filter(is_delegating).for_each(|root| self.by_virtual_service(root));
        for document in both(&changed.http_routes.changed) {
            self.by_parents(document, &document.spec.parents);
        }
        for document in both(&changed.tcp_routes.changed) {
            self.by_parents(document, &document.spec.parents);
        }
        both(&changed.destination_rules.changed).for_each(|rule| self.by_rule(rule));
    }

    /// Adds what the others of their namespaces are for, as far as these are `crowded`: which of a namespace's documents have no
    /// room depends on all of them and on the ports of their hosts, and on nobody else's.
    fn by_room(&mut self, crowded: &BTreeSet<Arc<str>>, all: &Resources) {
        for namespace in crowded {
            let documents = all.virtual_services.iter().filter(|one| one.name.namespace == *namespace);
            let rules = all.destination_rules.iter().filter(|one| one.name.namespace == *namespace);
            let of_documents = documents.clone().flat_map(|one| &one.spec.hosts);
            let mut hosts = of_documents.chain(rules.clone().map(|rule| &rule.spec.host));
            if self.namespaces.contains(namespace) || hosts.any(|host| self.is_of_service(host, namespace)) {
                documents.for_each(|document| self.by_virtual_service(document));
                rules.for_each(|rule| self.by_rule(rule));
            }
        }
    }

    /// Whether a document in `namespace` means by `host` one of the `Service`s or `ServiceEntry`s that have changed.
    fn is_of_service(&self, host: &str, namespace: &str) -> bool {
        let host = resolve(host, namespace, &self.settings.cluster_domain);
        match host.strip_prefix('*') {
            Some(suffix) => self.of_services.iter().any(|service| service.ends_with(suffix)),
            None => self.of_services.contains(&*host),
        }
    }

    /// Adds the hosts of `services` that send to one which is different.
    fn through_backends<'s>(&mut self, services: impl Iterator<Item = (&'s ServiceKey, &'s ServiceViews)>) {
        if self.different.is_empty() {
            return;
        }
        for (key, views) in services {
            let mut backends = views.each().flat_map(|view| &view.backends);
            if backends.any(|backend| self.different.contains(&backend.name.service.host)) {
                self.hosts.insert(Arc::clone(&key.host));
            }
        }
    }
}

impl Last {
    /// Takes over what has become of all that `workloads` and `routes` have to do with, which make the documents `resources`, and of
    /// `gateways`, if something else that they read has changed.
    ///
    /// # Errors
    /// Everything must be compiled.
    pub(super) fn follow_routes(
        &mut self,
        resources: &Resources,
        workloads: ChangedWorkloads,
        routes: ChangedRoutes,
        gateways: bool,
    ) -> Result<(), Everything> {
        let (settings, owners) = (Arc::clone(&self.settings), Arc::clone(&self.mesh.owners));
        let there = Arc::clone(&self.facts.selected);
        decided(resources, &settings, &owners, &there, |decided| {
            let mut touched = Touched { gateways, ..Touched::new(decided.catalog, &settings) };
            touched.by_routes(&routes, resources);
            both(&workloads.services.changed)
                .for_each(|service| touched.by_service(self.index.host(service)));
            other_hosts_of(&workloads.service_entries).for_each(|host| touched.by_service_entry(host));
            touched
                .by_room(&(&self.facts.found.routed.of_all.crowded | &decided.problems.crowded), resources);
            if !touched.of_services.is_empty() {
                touched.gateways |= has_gateways(resources);
            }
            let find =
                |service: &ServiceKey, namespace: &str| decided.routing.app_connections(service, namespace);
            let connected = self.facts.connections.differing(&touched.different, find);
            let hosts = Hosts { routing: Some(decided.routing), connected };
            touched.hosts.extend(self.follow_workloads(workloads, &hosts)?);
            routes.apply(&mut self.resources);
            touched.through_backends(self.mesh.services.iter());
            self.compile_touched(resources, &touched, decided);
            Ok(())
        })
    }

    /// Looks again at `hosts`, whose endpoints are others.
    pub(super) fn look_again(&mut self, resources: &Resources, hosts: BTreeSet<Arc<str>>) {
        let (settings, owners) = (Arc::clone(&self.settings), Arc::clone(&self.mesh.owners));
        let there = Arc::clone(&self.facts.selected);
        decided(resources, &settings, &owners, &there, |decided| {
            let touched = Touched { hosts, ..Touched::new(decided.catalog, &settings) };
            self.compile_touched(resources, &touched, decided);
        });
    }

    /// Compiles the hosts and the gateways that are `touched`.
    fn compile_touched(&mut self, resources: &Resources, touched: &Touched<'_, '_>, decided: Decided<'_>) {
        let Self { mesh, facts, settings, .. } = self;
        let Decided { catalog, certificates, routing, problems } = decided;
        let routed = &mut facts.found.routed;
        routed.of_all = problems;
        let mut gone = Vec::new();
        routed.forget(&touched.hosts);
        for host in &touched.hosts {
            let first = ServiceKey { host: Arc::clone(host), port: 0 };
            let before = mesh.services.range(first..).map(|(key, _)| key);
            gone.extend(before.take_while(|key| key.host == *host).cloned());
            if let Some(known) = catalog.find(host) {
                let endpoints = |key: &ServiceKey| mesh.endpoints.get(key).map(|endpoints| &**endpoints);
                routed.add(host, routing.of_host(known, endpoints, &mesh.services));
            }
        }
        let views = std::mem::take(&mut routed.views);
        for key in gone.iter().filter(|key| !views.contains_key(*key)) {
            mesh.services.remove(key);
        }
        mesh.services.extend(views);
        if touched.gateways || touched.different.iter().any(|host| facts.led_to.contains(host)) {
            let limits = RateLimits::new(resources, settings, &mut Problems::default());
            // Which documents say where backends are: they are told if a gateway should not be led there.
            let nowhere = &mut Problems::default();
            let policies = inbound::Policies::new(resources, settings, nowhere);
            let mut workloads = Workloads::new(resources, settings, &policies, &mesh.workloads, nowhere);
            let candidates = candidates(resources, settings, catalog, &mut workloads, nowhere);
            Owners::new(resources, catalog, &candidates, &mut workloads, &mesh.owners, nowhere);
            let mut problems = Problems::default();
            let (gateways, led_to) = gateways::gateways(
                resources,
                settings,
                (routing, certificates, &limits),
                (&workloads, &mesh.selected, &candidates),
                &mesh.gateways,
                &mut problems,
            );
            mesh.gateways = gateways.into();
            (facts.found.gateways, facts.led_to) = (problems, led_to);
        }
        self.is_said_anew = true;
    }
}

/// Whether anything says what gateways serve.
pub(super) fn has_gateways(all: &Resources) -> bool {
    !all.gateways.is_empty()
        || !all.istio_gateways.is_empty()
        || !all.listener_sets.is_empty()
        || !all.ingresses.is_empty()
}
