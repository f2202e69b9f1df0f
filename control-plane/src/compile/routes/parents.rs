//! Which services the routes of the Gateway API are attached to, and who follows them there.
//!
//! As GAMMA says (<https://gateway-api.sigs.k8s.io/geps/gep-1294/>): a route in its service's namespace is for every
//! client, one in another namespace for the clients there, who follow no other then.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_model::{Protocol, ServiceKey};

use super::super::{
    MeshSettings, Problems,
    hosts::service_host,
    services::{Catalog, KnownHost},
};
use crate::resources::{Document, references::Parent};

/// What all routes of the Gateway API have in common.
pub(super) trait GatewayRoute {
    /// The services that it is about.
    fn parents(&self) -> &[Parent];

    /// Whether it has an effect on a port that speaks `protocol`.
    fn suits(&self, protocol: Protocol) -> bool;

    /// What its author is told where it has none.
    fn has_no_effect(&self, host: &str) -> String;
}

/// A route at one of its parents.
#[derive(Debug)]
pub(super) struct Attached<'a, T> {
    pub(super) route: &'a Document<T>,
    pub(super) parent: &'a Parent,
    /// Whether only clients in the route's own namespace follow it.
    pub(super) for_own_namespace: bool,
    ports: BTreeSet<u16>,
}

impl<T> Attached<'_, T> {
    /// The field of its parent.
    pub(super) fn field(&self) -> String {
        format!("spec.parentRefs[{}]", self.parent.index)
    }
}

/// Every route of some kinds, by the host that it is for; oldest first.
#[derive(Debug)]
pub(super) struct Attachments<'a, T> {
    by_host: BTreeMap<Arc<str>, Vec<Attached<'a, T>>>,
}

impl<'a, T: GatewayRoute> Attachments<'a, T> {
    pub(super) fn new(
        routes: &'a [Arc<Document<T>>],
        settings: &MeshSettings,
        catalog: &Catalog<'_>,
        problems: &mut Problems,
    ) -> Self {
        let mut attachments = Self { by_host: BTreeMap::new() };
        for route in routes {
            let mut named = BTreeSet::new();
            for parent in route.spec.parents() {
                let namespace = parent.namespace.as_deref().unwrap_or(&route.name.namespace);
                let host = service_host(&parent.name, namespace, &settings.cluster_domain);
                if !named.insert((host.clone(), parent.port, parent.section.as_deref())) {
                    let field = format!("spec.parentRefs[{}]", parent.index);
                    problems.error_alone(route, &field, "is given twice; keep one");
                } else if let Some(known) = catalog.find(&host) {
                    attachments.attach(route, parent, known, problems);
                } else {
                    let message = format!(
                        "there is no Service {namespace}/{}; add it or correct the name",
                        parent.name
                    );
                    problems.error(route, &format!("spec.parentRefs[{}]", parent.index), message);
                }
            }
        }
        attachments
    }

    fn attach(
        &mut self,
        route: &'a Document<T>,
        parent: &'a Parent,
        known: &KnownHost<'_>,
        problems: &mut Problems,
    ) {
        let field = format!("spec.parentRefs[{}]", parent.index);
        let host = &known.host;
        if parent.port.is_some_and(|port| !known.ports.contains_key(&port)) {
            let message = format!("{host} has no such port; {}", known.port_remedy());
            return problems.error(route, &format!("{field}.port"), message);
        }
        let is_meant = |port: u16| {
            parent.port.is_none_or(|one| one == port)
                && parent.section.as_deref().is_none_or(|name| known.port_name(port) == Some(name))
        };
        let ports: BTreeSet<u16> = known.ports.keys().copied().filter(|port| is_meant(*port)).collect();
        if ports.is_empty() {
            let message = format!(
                "{host} has no port of this name there; correct it, or leave it out to mean every port"
            );
            return problems.error(route, &format!("{field}.sectionName"), message);
        }
        if !ports.iter().any(|port| route.spec.suits(known.ports[port])) {
            problems.error(route, &field, route.spec.has_no_effect(host));
        }
        let for_own_namespace = known.namespace != &*route.name.namespace;
        let attached = Attached { route, parent, for_own_namespace, ports };
        self.by_host.entry(Arc::clone(host)).or_default().push(attached);
    }

    /// The namespaces whose clients follow routes of their own for `host`.
    pub(super) fn namespaces(&self, host: &str) -> impl Iterator<Item = &'a str> + use<'_, 'a, T> {
        let attached = self.by_host.get(host).into_iter().flatten();
        attached.filter(|one| one.for_own_namespace).map(|one| &*one.route.name.namespace)
    }

    /// Those of the routes that `wanted` says which clients in `client` follow for a service's port, oldest first. Those of
    /// their own namespace beat those of the service's.
    pub(super) fn find(
        &self,
        client: Option<&str>,
        key: &ServiceKey,
        wanted: impl Fn(&T) -> bool,
    ) -> Vec<&Attached<'a, T>> {
        let attached = self.by_host.get(&*key.host).into_iter().flatten();
        let here: Vec<_> =
            attached.filter(|one| one.ports.contains(&key.port) && wanted(&one.route.spec)).collect();
        let is_own = |one: &Attached<'_, T>| {
            one.for_own_namespace && client.is_some_and(|client| client == &*one.route.name.namespace)
        };
        let any_own = here.iter().any(|one| is_own(one));
        here.into_iter().filter(|one| if any_own { is_own(one) } else { !one.for_own_namespace }).collect()
    }
}
