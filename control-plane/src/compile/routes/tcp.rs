//! Which opaque connections to a service go where: `TCPRoute`s and `TLSRoute`s, or else the `tls` and `tcp` of
//! its `VirtualService`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_model::{Layer, ServiceKey, TcpMatch, TcpRule, TcpTable, WeightedBackend};

use super::{
    super::{MeshSettings, Problems, hosts::service_host, services::Catalog},
    backends::{Backends, Share},
    may_be_opaque,
    resolve::Reference,
};
use crate::resources::{
    Document, Resources, TcpRouteSpec,
    references::Parent,
    virtual_service::{VirtualServiceSpec, on_port},
};

type Route = Document<TcpRouteSpec>;

/// Every route, by the host that it is for; oldest first.
#[derive(Debug, Default)]
pub(super) struct TcpRoutes<'a> {
    by_host: BTreeMap<Arc<str>, Vec<Attached<'a>>>,
}

/// A route at one of its parents.
#[derive(Debug, Clone, Copy)]
struct Attached<'a> {
    route: &'a Route,
    parent: &'a Parent,
    /// Whether only clients in the route's own namespace follow it.
    for_own_namespace: bool,
}

impl<'a> TcpRoutes<'a> {
    pub(super) fn new(
        resources: &'a Resources,
        settings: &MeshSettings,
        catalog: &Catalog<'_>,
        problems: &mut Problems,
    ) -> Self {
        let mut routes = Self::default();
        for route in &resources.tcp_routes {
            let route: &Route = route;
            let mut named = BTreeSet::new();
            for parent in &route.spec.parents {
                let own = &*route.name.namespace;
                let namespace = parent.namespace.as_deref().unwrap_or(own);
                let host = service_host(&parent.name, namespace, &settings.cluster_domain);
                let field = format!("spec.parentRefs[{}]", parent.index);
                if !named.insert((host.clone(), parent.port)) {
                    problems.error_alone(route, &field, "is given twice; keep one");
                    continue;
                }
                match catalog.find(&host) {
                    None => {
                        let message = format!(
                            "there is no Service {namespace}/{}; add it or correct the name",
                            parent.name
                        );
                        problems.error(route, &field, message);
                    }
                    Some(known) if parent.port.is_some_and(|port| !known.ports.contains_key(&port)) => {
                        let message = format!("{host} has no such port; {}", known.port_remedy());
                        problems.error(route, &format!("{field}.port"), message);
                    }
                    Some(known) => {
                        let meant = known
                            .ports
                            .iter()
                            .filter(|(port, _)| parent.port.is_none_or(|one| one == **port));
                        if !meant.map(|(_, protocol)| *protocol).any(may_be_opaque) {
                            let message = format!(
                                "has no effect: {host} speaks HTTP there; name its port tcp, or use an HTTPRoute"
                            );
                            problems.error(route, &field, message);
                        }
                        let attached = Attached { route, parent, for_own_namespace: namespace != own };
                        routes.by_host.entry(Arc::clone(&known.host)).or_default().push(attached);
                    }
                }
            }
        }
        routes
    }

    /// The namespaces whose clients follow routes of their own for `host`.
    pub(super) fn namespaces(&self, host: &str) -> impl Iterator<Item = &'a str> + use<'_, 'a> {
        let attached = self.by_host.get(host).into_iter().flatten();
        attached.filter(|one| one.for_own_namespace).map(|one| &*one.route.name.namespace)
    }

    /// The routes that clients in `client` follow for a service's port. Those of their own namespace beat
    /// those of the service's.
    fn find(&self, client: Option<&str>, key: &ServiceKey, layer: Layer) -> Vec<Attached<'a>> {
        let here = |one: &&Attached<'_>| {
            one.route.spec.layer == layer && one.parent.port.is_none_or(|port| port == key.port)
        };
        let attached = || self.by_host.get(&*key.host).into_iter().flatten().filter(here);
        let own = |one: &&Attached<'_>| {
            one.for_own_namespace && client.is_some_and(|client| client == &*one.route.name.namespace)
        };
        let consumers: Vec<_> = attached().filter(own).copied().collect();
        if !consumers.is_empty() {
            return consumers;
        }
        attached().filter(|one| !one.for_own_namespace).copied().collect()
    }
}

impl Backends<'_> {
    /// The rules for opaque connections to this port. What no document speaks of goes to the whole service.
    pub(super) fn tcp_table(
        &mut self,
        document: Option<&Document<VirtualServiceSpec>>,
        problems: &mut Problems,
    ) -> TcpTable {
        let mut rules = Vec::new();
        for layer in [Layer::Tls, Layer::Tcp] {
            let routes = self.routing.tcp_routes.find(self.client, self.port.key, layer);
            if routes.is_empty() {
                rules.extend(document.into_iter().flat_map(|document| self.istio(document, layer, problems)));
            } else {
                self.report_passed_over(document, layer, routes[0].route, problems);
                rules.extend(self.gateway(&routes, layer, problems));
            }
        }
        if !rules.iter().any(|rule: &TcpRule| rule.layer == Layer::Tcp) {
            let backend = self.own();
            rules.push(TcpRule {
                name: TcpRule::DEFAULT.to_owned(),
                layer: Layer::Tcp,
                matches: Vec::new(),
                backends: vec![WeightedBackend::new(backend, 1)],
            });
        }
        TcpTable { rules }
    }

    /// The rules of a `VirtualService`'s `tls` or `tcp` for this port.
    fn istio(
        &mut self,
        document: &Document<VirtualServiceSpec>,
        layer: Layer,
        problems: &mut Problems,
    ) -> Vec<TcpRule> {
        let mut rules = Vec::new();
        for route in document.spec.opaque(layer) {
            let Some(matches) = on_port(route.matches.as_deref(), self.port.key.port) else { continue };
            let field = format!("{}.route", route.field());
            let backends = route.destinations.iter().map(|destination| {
                let reference = Reference::Destination(destination);
                let backend = self.backend(document, &field, reference, Share::Connections, problems);
                WeightedBackend::new(backend, destination.weight)
            });
            let backends = backends.collect();
            let name = format!("{} {}[{}]", document.name, route.list(), route.index);
            rules.push(TcpRule { name, layer, matches, backends });
        }
        rules
    }

    /// A `VirtualService`'s routes that a Gateway API route replaces.
    fn report_passed_over(
        &self,
        document: Option<&Document<VirtualServiceSpec>>,
        layer: Layer,
        winner: &Route,
        problems: &mut Problems,
    ) {
        let Some(document) = document else { return };
        if let Some(route) = document.spec.opaque(layer).next() {
            let message = format!(
                "has no effect on {}: {} ({}) decides there; remove one of them",
                self.port.key,
                winner.name,
                winner.place()
            );
            problems.error(document, &format!("spec.{}", route.list()), message);
        }
    }

    fn gateway(&mut self, routes: &[Attached<'_>], layer: Layer, problems: &mut Problems) -> Vec<TcpRule> {
        let mut rules = Vec::new();
        let mut taken: BTreeMap<&str, &Route> = BTreeMap::new();
        for Attached { route, parent, .. } in routes {
            let names = match route.spec.hostnames.as_slice() {
                [] => vec![""],
                names => names.iter().map(String::as_str).collect(),
            };
            let mut matches = Vec::new();
            for name in names {
                if let Some(first) = taken.get(name) {
                    let message = format!(
                        "{} already follows {} ({}), so this route has no effect there; merge them",
                        self.port.key,
                        first.name,
                        first.place()
                    );
                    problems.error(route, &format!("spec.parentRefs[{}]", parent.index), message);
                    continue;
                }
                taken.insert(name, route);
                let server_names = if name.is_empty() { Vec::new() } else { vec![name.to_owned()] };
                matches.push(TcpMatch { server_names, ..TcpMatch::default() });
            }
            if matches.is_empty() {
                continue;
            }
            let backends = route.spec.backends.iter().map(|backend| {
                let (list, reference) = ("spec.rules[0].backendRefs", Reference::Object(backend));
                let index = self.backend(route, list, reference, Share::Connections, problems);
                WeightedBackend::new(index, backend.weight)
            });
            let backends = backends.collect();
            rules.push(TcpRule { name: route.name.to_string(), layer, matches, backends });
        }
        rules
    }
}
