//! Which backend a route means, whatever kind of route asks, and why one cannot be used.

use std::sync::Arc;

use selvedge_model::{BackendName, ServiceKey};

use super::{
    super::{
        grants::{Grants, Named},
        hosts::{resolve, service_host, suggestion},
        services::KnownHost,
    },
    Routing,
};
use crate::{
    problem::{DocumentName, Unresolved},
    resources::{references::BackendRef, virtual_service::Destination},
};

/// A reference to a backend, as a route writes it.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Reference<'r> {
    /// Istio's: a host, with a port and a subset if it says so.
    Destination(&'r Destination),
    /// The Gateway API's: an object of some kind, with a port.
    Object(&'r BackendRef),
    /// As a destination, by itself and in no list.
    Mirror(&'r Destination),
    /// As an object, by itself and in no list.
    MirrorObject(&'r BackendRef),
}

/// Why a reference names nothing that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BrokenReference {
    pub(super) reason: Unresolved,
    /// What is wrong, and the remedy.
    pub(super) why: String,
}

/// The backend that a reference means.
pub(super) struct Resolved<'a> {
    /// What it is called. One that cannot be used has a name too: it keeps its share, which fails under this name.
    pub(super) name: BackendName,
    /// Its host, if that is known and has the port.
    pub(super) host: Result<&'a KnownHost<'a>, BrokenReference>,
}

impl BrokenReference {
    pub(super) fn new(reason: Unresolved, why: impl Into<String>) -> Self {
        Self { reason, why: why.into() }
    }

    /// In a few words, for the proxy's answer: which part of `reference` is wrong, and what is.
    pub(super) fn words(&self, reference: Option<Reference<'_>>) -> String {
        let part = reference.map_or("host", |reference| reference.part(self.reason));
        format!("{part}: {}", self.why)
    }
}

impl Reference<'_> {
    /// Its field that is wrong if it is broken for `reason`.
    pub(super) fn part(self, reason: Unresolved) -> &'static str {
        match (self, reason) {
            (_, Unresolved::NoSuchPort) => "port",
            (_, Unresolved::NoSuchSubset) => "subset",
            (_, Unresolved::UnsupportedKind) => "kind",
            (_, Unresolved::NotPermitted) => "namespace",
            (Self::Destination(_) | Self::Mirror(_), Unresolved::NoSuchHost | Unresolved::Refused) => "host",
            (Self::Object(_) | Self::MirrorObject(_), Unresolved::NoSuchHost | Unresolved::Refused) => "name",
        }
    }

    /// Where it is, if it is in the list `list` of its document, or is `list` itself.
    fn place(self, list: &str) -> String {
        match self {
            Self::Destination(destination) => format!("{list}[{}]", destination.index),
            Self::Object(backend) => format!("{list}[{}]", backend.index),
            Self::Mirror(_) | Self::MirrorObject(_) => list.to_owned(),
        }
    }

    /// Whether it says no port.
    pub(super) fn names_no_port(self) -> bool {
        match self {
            Self::Destination(destination) | Self::Mirror(destination) => destination.port.is_none(),
            Self::Object(backend) | Self::MirrorObject(backend) => backend.port.is_none(),
        }
    }

    /// Where that field is, if the reference is in the list `list` of its document, or is `list` itself.
    pub(super) fn field(self, list: &str, reason: Unresolved) -> String {
        let part = self.part(reason);
        match self {
            Self::Destination(destination) => format!("{list}[{}].destination.{part}", destination.index),
            Self::Object(backend) => format!("{list}[{}].{part}", backend.index),
            Self::Mirror(_) | Self::MirrorObject(_) => format!("{list}.{part}"),
        }
    }
}

impl<'a> Routing<'a> {
    /// The backend that `reference` means, which stands in the list `list` of the route `route` for the port `own` of the host `here`,
    /// where `grants` say what it may name. By its own name, each host means itself.
    pub(super) fn resolve(
        &'a self,
        route: &DocumentName,
        list: &str,
        reference: Reference<'_>,
        (own, grants, here): (u16, Option<&Grants<'_>>, Option<&'a KnownHost<'a>>),
    ) -> Resolved<'a> {
        let resolved = match reference {
            Reference::Destination(destination) | Reference::Mirror(destination) => {
                self.destination(route, destination, (own, here))
            }
            Reference::Object(backend) | Reference::MirrorObject(backend) => {
                self.object(route, list, backend, (own, grants))
            }
        };
        let key = &resolved.name.service;
        let Some(unknown) = self.catalog.find(&key.host) else { return resolved };
        let is_here = here.is_some_and(|here| here.key == key.host);
        if is_here || unknown.is_known_at(key.port, Some(&*route.namespace)) {
            return resolved;
        }
        // Whose it is, which ports it has, and who may know of it, is not theirs to know.
        let why = format!(
            "{} is not exported to {} by the exportTo of its ServiceEntry; have it exported, or name another host",
            unknown.host, route.namespace
        );
        // Called by its place: others may name the same host, and may be let.
        let host = format!("{route}/{}", reference.place(list));
        let name = BackendName { service: ServiceKey::new(&host, own), subset: None };
        Resolved { name, host: Err(BrokenReference::new(Unresolved::NoSuchHost, why)) }
    }

    fn destination(
        &'a self,
        route: &DocumentName,
        destination: &Destination,
        (own, here): (u16, Option<&'a KnownHost<'a>>),
    ) -> Resolved<'a> {
        let host = resolve(&destination.host, &route.namespace, &self.settings.cluster_domain);
        let here = here.filter(|here| *here.host == *host);
        let known = here.or_else(|| self.catalog.find_for(&host, &route.namespace));
        let ports = known.map(|known| &known.ports);
        let only = ports.filter(|ports| ports.len() == 1).and_then(|ports| ports.keys().next());
        let port = destination.port.or(only.copied()).unwrap_or(own);
        let subset = destination.subset.as_deref().map(Arc::from);
        let key = known.map_or_else(|| Arc::from(host.as_str()), |known| Arc::clone(&known.key));
        let name = BackendName { service: ServiceKey { host: key, port }, subset };
        Resolved { name, host: self.with_port((&host, known), port) }
    }

    fn object(
        &'a self,
        route: &DocumentName,
        list: &str,
        backend: &BackendRef,
        (own, grants): (u16, Option<&Grants<'_>>),
    ) -> Resolved<'a> {
        let namespace = backend.namespace.as_deref().unwrap_or(&route.namespace);
        let named = Named { group: "", kind: "Service", namespace, name: &backend.name };
        let broken = match (backend.is_service(), backend.port) {
            (true, _) if grants.is_some_and(|grants| !grants.permit(route, named)) => {
                BrokenReference::new(Unresolved::NotPermitted, Grants::advice(route, named))
            }
            (true, Some(port)) => {
                let host = service_host(&backend.name, namespace, &self.settings.cluster_domain);
                let name = BackendName { service: ServiceKey::new(&host, port), subset: None };
                return Resolved { name, host: self.with_port((&host, self.catalog.find(&host)), port) };
            }
            (true, None) => BrokenReference::new(Unresolved::NoSuchPort, "is missing; a Service needs one"),
            (false, _) => BrokenReference::new(
                Unresolved::UnsupportedKind,
                format!("{} is not acted on; name a Service", backend.kind),
            ),
        };
        // Called by its place: it has no name of its own.
        let host = format!("{route}/{list}[{}]", backend.index);
        let name = BackendName { service: ServiceKey::new(&host, own), subset: None };
        Resolved { name, host: Err(broken) }
    }

    /// What is `known` by the name `host`, if it has `port`.
    fn with_port(
        &'a self,
        (host, known): (&str, Option<&'a KnownHost<'a>>),
        port: u16,
    ) -> Result<&'a KnownHost<'a>, BrokenReference> {
        let Some(known) = known else {
            let is_known = |name: &str| self.catalog.find(name).is_some();
            let remedy = suggestion(host, &self.settings.cluster_domain, is_known);
            return Err(BrokenReference::new(
                Unresolved::NoSuchHost,
                format!("nothing is called {host}; {remedy}"),
            ));
        };
        if !known.ports.contains_key(&port) {
            let why = format!("{host} has no port {port}; {}", known.port_remedy());
            return Err(BrokenReference::new(Unresolved::NoSuchPort, why));
        }
        Ok(known)
    }
}
