//! Documents by their names, for those that name others: looked up, not looked for.

use std::{cell::OnceCell, collections::HashMap, sync::Arc};

use super::MeshSettings;
use crate::{
    problem::DocumentName,
    resources::{Document, GatewaySpec, HttpRouteSpec, ListenerSetSpec, Resources, ServiceSpec},
};

/// Documents of one sort by their kind, namespace and name.
type Index<'a, T> = OnceCell<HashMap<(&'a str, &'a str, &'a str), &'a Document<T>>>;

/// What the gateway of all `Ingress`es is called, in the control plane's own namespace. It has no document.
pub(super) const GATEWAY_OF_INGRESSES: &str = "ingress";

/// The documents that there are. Each sort is indexed when the first is asked for.
#[derive(Debug)]
pub(super) struct There<'a> {
    resources: &'a Resources,
    settings: &'a MeshSettings,
    services: Index<'a, ServiceSpec>,
    gateways: Index<'a, GatewaySpec>,
    listener_sets: Index<'a, ListenerSetSpec>,
    routes: Index<'a, HttpRouteSpec>,
}

impl<'a> There<'a> {
    pub(super) fn new(resources: &'a Resources, settings: &'a MeshSettings) -> Self {
        Self {
            resources,
            settings,
            services: OnceCell::new(),
            gateways: OnceCell::new(),
            listener_sets: OnceCell::new(),
            routes: OnceCell::new(),
        }
    }

    /// The Service `name` of `namespace`.
    pub(super) fn service(&self, namespace: &str, name: &str) -> Option<&'a Document<ServiceSpec>> {
        find(&self.services, &self.resources.services, ("Service", namespace, name))
    }

    /// The Gateway `name` of `namespace`.
    pub(super) fn gateway(&self, namespace: &str, name: &str) -> Option<&'a Document<GatewaySpec>> {
        find(&self.gateways, &self.resources.gateways, ("Gateway", namespace, name))
    }

    /// Whether there is a Gateway `name` in `namespace`, or that is the gateway of all `Ingress`es.
    pub(super) fn has_gateway(&self, namespace: &str, name: &str) -> bool {
        let is_of_ingresses = name == GATEWAY_OF_INGRESSES && namespace == self.settings.own_namespace;
        (is_of_ingresses && !self.resources.ingresses.is_empty()) || self.gateway(namespace, name).is_some()
    }

    /// Whether there is a `ListenerSet` of this `kind`, `namespace` and `name`.
    pub(super) fn has_listener_set(&self, kind: &str, namespace: &str, name: &str) -> bool {
        find(&self.listener_sets, &self.resources.listener_sets, (kind, namespace, name)).is_some()
    }

    /// The route of this `kind`, `namespace` and `name`.
    pub(super) fn route(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Option<&'a Document<HttpRouteSpec>> {
        find(&self.routes, &self.resources.http_routes, (kind, namespace, name))
    }
}

fn find<'a, T>(
    index: &Index<'a, T>,
    all: &'a [Arc<Document<T>>],
    wanted: (&str, &str, &str),
) -> Option<&'a Document<T>> {
    let index = index.get_or_init(|| {
        let named = |one: &'a Arc<Document<T>>| {
            let DocumentName { kind, namespace, name } = &one.name;
            ((&**kind, &**namespace, &**name), &**one)
        };
        // Of two that are called alike the first counts.
        all.iter().rev().map(named).collect()
    });
    index.get(&wanted).copied()
}
