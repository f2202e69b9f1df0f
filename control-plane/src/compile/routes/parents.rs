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
    parent_field,
    services::{Catalog, KnownHost},
};
use crate::{
    problem::{Detached, Fault},
    resources::{Document, HttpRouteSpec, TcpRouteSpec, references::Parent},
};

/// What all routes of the Gateway API have in common.
pub(super) trait GatewayRoute {
    /// The services that it is about.
    fn parents(&self) -> &[Parent];

    /// Its kind.
    fn rank(&self) -> Rank;

    /// Whether it has an effect on a port that speaks `protocol`.
    fn suits(&self, protocol: Protocol) -> bool;

    /// What its author is told where it has none.
    fn has_no_effect(&self, host: &str) -> String;
}

/// The kinds of routes. Where several are for one port of a service, the first decides
/// (<https://gateway-api.sigs.k8s.io/geps/gep-1294/#route-types>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// `GRPCRoute`.
    Grpc,
    /// `HTTPRoute`.
    Http,
    /// `TLSRoute`.
    Tls,
    /// `TCPRoute`.
    Tcp,
}

impl Rank {
    fn name(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
        }
    }
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

impl<T: GatewayRoute> Attached<'_, T> {
    /// Whether only clients in `client` follow it.
    fn is_own(&self, client: Option<&str>) -> bool {
        self.for_own_namespace && client.is_some_and(|client| client == &*self.route.name.namespace)
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
                    let fault = Fault::Parent { index: parent.index, why: Detached::GivenTwice };
                    problems.fault(route, &parent_field(parent.index), "is given twice; keep one", fault);
                } else if let Some(known) = catalog.find(&host) {
                    attachments.attach(route, parent, known, problems);
                } else {
                    let message = format!(
                        "there is no Service {namespace}/{}; add it or correct the name",
                        parent.name
                    );
                    let fault = Fault::Parent { index: parent.index, why: Detached::NoSuchParent };
                    problems.fault(route, &parent_field(parent.index), message, fault);
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
        let field = parent_field(parent.index);
        let fault = |why| Fault::Parent { index: parent.index, why };
        let host = &known.host;
        if let Some(why) = known.why_no_parent() {
            return problems.fault(route, &field, format!("{host} {why}"), fault(Detached::NoSuchParent));
        }
        if parent.port.is_some_and(|port| !known.ports.contains_key(&port)) {
            let message = format!("{host} has no such port; {}", known.port_remedy());
            return problems.fault(route, &format!("{field}.port"), message, fault(Detached::NoSuchParent));
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
            let field = format!("{field}.sectionName");
            return problems.fault(route, &field, message, fault(Detached::NoSuchParent));
        }
        if !ports.iter().any(|port| route.spec.suits(known.ports[port])) {
            problems.fault(route, &field, route.spec.has_no_effect(host), fault(Detached::OtherProtocol));
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

    /// Those that have an effect on a service's port, which speaks `protocol`.
    fn at(&self, key: &ServiceKey, protocol: Protocol) -> impl Iterator<Item = &Attached<'a, T>> + Clone {
        let attached = self.by_host.get(&*key.host).into_iter().flatten();
        attached.filter(move |one| one.ports.contains(&key.port) && one.route.spec.suits(protocol))
    }
}

/// The routes of the Gateway API that some clients follow for one port of a service: all of one kind, oldest first.
#[derive(Debug, Default)]
pub(super) struct Followed<'r, 'a> {
    pub(super) http: Vec<&'r Attached<'a, HttpRouteSpec>>,
    pub(super) tcp: Vec<&'r Attached<'a, TcpRouteSpec>>,
}

impl<'r, 'a> Followed<'r, 'a> {
    /// What clients in `client` follow for the port `key`, which speaks `protocol`. Routes of their own namespace beat those
    /// of the service's; of several kinds one decides, and the others are told.
    pub(super) fn new(
        client: Option<&str>,
        key: &ServiceKey,
        protocol: Protocol,
        (http, tcp): (&'r Attachments<'a, HttpRouteSpec>, &'r Attachments<'a, TcpRouteSpec>),
        problems: &mut Problems,
    ) -> Self {
        let (http, tcp) = (http.at(key, protocol), tcp.at(key, protocol));
        let any_own = http.clone().any(|one| one.is_own(client)) || tcp.clone().any(|one| one.is_own(client));
        let (http, tcp) = (in_group(http, client, any_own), in_group(tcp, client, any_own));
        let places = http.iter().map(|one| (one.route.spec.rank(), &one.route.name, &one.route.location));
        let places =
            places.chain(tcp.iter().map(|one| (one.route.spec.rank(), &one.route.name, &one.route.location)));
        let Some((rank, name, location)) = places.min_by_key(|(rank, ..)| *rank) else {
            return Self::default();
        };
        let words = format!(
            "has no effect on {key}: {name} ({location}) decides there, because a {} goes before it; remove one of them",
            rank.name()
        );
        Self { http: of_rank(http, rank, &words, problems), tcp: of_rank(tcp, rank, &words, problems) }
    }
}

/// Of `attached`, those of the client's own namespace, or else those that are for everybody.
fn in_group<'r, 'a: 'r, T: GatewayRoute + 'r>(
    attached: impl Iterator<Item = &'r Attached<'a, T>>,
    client: Option<&str>,
    own: bool,
) -> Vec<&'r Attached<'a, T>> {
    attached.filter(|one| if own { one.is_own(client) } else { !one.for_own_namespace }).collect()
}

/// Of `attached`, those of the kind that decides; the others are told why they do not.
fn of_rank<'r, 'a, T: GatewayRoute>(
    attached: Vec<&'r Attached<'a, T>>,
    rank: Rank,
    why: &str,
    problems: &mut Problems,
) -> Vec<&'r Attached<'a, T>> {
    let (deciding, losing): (Vec<_>, Vec<_>) =
        attached.into_iter().partition(|one| one.route.spec.rank() == rank);
    for loser in losing {
        problems.overruled_at(loser.route, loser.parent.index, why.to_owned());
    }
    deciding
}
