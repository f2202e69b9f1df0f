//! One host that can be called: its ports, what defines each of them, and where their endpoints come from.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use selvedge_model::{HealthCheck, Hedge, Host, Protocol, ServiceKey, snapshot::Declared};

use super::super::{Problems, some_of};
use crate::{
    problem::DocumentName,
    resources::{
        Document, ServiceEntrySpec, ServiceSpec,
        linkerd::Annotated,
        load_balancer::BalancerBlock,
        locality_setting::TrafficDistribution,
        service::{ServicePort, TargetPort},
        service_entry::{EntryEndpoints, EntryPort, Resolution},
    },
};

/// One host that can be called.
#[derive(Debug)]
pub(in super::super) struct KnownHost<'a> {
    /// What it is called.
    pub(in super::super) host: Arc<str>,
    /// The host of its services: what it is called, or where others have that, too, what it is called [for its own
    /// namespace](ServiceKey::own_host).
    pub(in super::super) key: Arc<str>,
    pub(in super::super) namespace: &'a str,
    /// The namespaces that have one of this name for their own clients, who do not mean this one.
    pub(in super::super) apart: BTreeSet<&'a str>,
    pub(in super::super) ports: BTreeMap<u16, Protocol>,
    /// What defines each of the ports.
    pub(super) sources: BTreeMap<u16, PortDocument<'a>>,
    /// What defined it first.
    pub(super) first: HostDocument<'a>,
}

/// What defines a port of a host.
#[derive(Debug, Clone)]
pub(super) struct PortDocument<'a> {
    pub(super) source: HostDocument<'a>,
    /// Whether it is said for a wildcard that the host is below.
    pub(super) below_wildcard: bool,
    /// The service's port that this is another name of (`ExternalName`).
    pub(super) alias_of: Option<ServiceKey>,
}

impl<'a> KnownHost<'a> {
    pub(super) fn new(host: Arc<str>, namespace: &'a str, first: HostDocument<'a>) -> Self {
        let (key, apart) = (Arc::clone(&host), BTreeSet::new());
        Self { host, key, namespace, apart, ports: BTreeMap::new(), sources: BTreeMap::new(), first }
    }

    /// One that is for the clients of `namespace` alone, and that others have, too.
    pub(super) fn apart(host: Arc<str>, namespace: &'a str, first: HostDocument<'a>) -> Self {
        let key = Arc::from(ServiceKey::own_host(&host, namespace));
        Self { key, ..Self::new(host, namespace, first) }
    }

    /// One of its services, whether it has that port or not.
    pub(in super::super) fn service(&self, port: u16) -> ServiceKey {
        ServiceKey { host: Arc::clone(&self.key), port }
    }

    /// Whether no namespace has another one of this name.
    pub(in super::super) fn is_the_only_one(&self) -> bool {
        self.key == self.host && self.apart.is_empty()
    }

    /// Whether documents in `namespace` that name it mean this one, and no other of the name.
    pub(in super::super) fn is_meant_in(&self, namespace: &str) -> bool {
        match self.key == self.host {
            true => !self.apart.contains(namespace),
            false => self.namespace == namespace,
        }
    }

    pub(super) fn add(&mut self, port: u16, protocol: Protocol, source: PortDocument<'a>) {
        self.ports.insert(port, protocol);
        self.sources.insert(port, source);
    }

    /// The addresses by which alone it is called. A `ServiceEntry`'s HTTP is found by its name, as Istio
    /// does; its addresses are for what has no name.
    pub(in super::super) fn own_addresses(&self) -> Vec<IpAddr> {
        match self.first {
            HostDocument::Service(document) => document.spec.addresses.clone(),
            HostDocument::Entry(_) => Vec::new(),
        }
    }

    /// Whether whoever dials one of the endpoints of a port may mean all of it: it has no address of its own, and does
    /// not say that its endpoints are called one by one (a headless `Service`).
    pub(in super::super) fn is_called_by_endpoints(&self, port: u16) -> bool {
        let Some(PortDocument { source, below_wildcard, alias_of }) = self.sources.get(&port) else {
            return false;
        };
        match source {
            HostDocument::Service(document) => {
                document.spec.addresses.is_empty() && !document.spec.headless && alias_of.is_none()
            }
            HostDocument::Entry(document) => {
                let requested = document.spec.resolution == Resolution::Requested;
                let has_none = document.spec.addresses.is_empty() && document.spec.ranges.is_empty();
                has_none && !(requested && *below_wildcard)
            }
        }
    }

    /// Why no route of the Gateway API can have it as its parent (GEP-1294, "Allowed service types"), and what to do.
    pub(in super::super) fn why_no_parent(&self) -> Option<&'static str> {
        let HostDocument::Service(document) = self.first else { return None };
        match &document.spec {
            ServiceSpec { external_name: Some(_), .. } => Some(
                "is of the type ExternalName, which cannot be a parent; name the Service that it stands for, or write a \
                 VirtualService",
            ),
            ServiceSpec { headless: true, .. } => Some(
                "is headless (clusterIP: None): clients call its endpoints one by one, so it cannot be a parent; give it a \
                 clusterIP, or name a Service that has one",
            ),
            _ => None,
        }
    }

    /// What the annotations of its `Service` say of requests.
    pub(in super::super) fn annotated(&self) -> Option<&'a Annotated> {
        match self.first {
            HostDocument::Service(document) => Some(&document.spec.annotated),
            HostDocument::Entry(_) => None,
        }
    }

    /// How its endpoints are chosen where no `DestinationRule` says it; `None`: as usual.
    pub(in super::super) fn balancer(&self) -> Option<&'a BalancerBlock> {
        match self.first {
            HostDocument::Service(document) => document.spec.balancer.as_ref(),
            HostDocument::Entry(_) => None,
        }
    }

    /// How the endpoints of a port are asked whether they are well where no `DestinationRule` says it, and which document
    /// says that.
    pub(in super::super) fn health_check(
        &self,
        port: u16,
    ) -> Option<(&'a Document<ServiceEntrySpec>, &'a HealthCheck)> {
        match self.sources.get(&port).map(|port| port.source) {
            Some(HostDocument::Entry(document)) => Some((document, document.spec.health_check.as_ref()?)),
            _ => None,
        }
    }

    /// When requests to it go to a second endpoint, too, where no `DestinationRule` says it.
    pub(in super::super) fn hedge(&self) -> Option<Hedge> {
        match self.first {
            HostDocument::Service(document) => document.spec.hedge,
            HostDocument::Entry(_) => None,
        }
    }

    /// Which of its endpoints come first where no `DestinationRule` says it; `None`: all are alike.
    pub(in super::super) fn distribution(&self) -> Option<TrafficDistribution> {
        match self.first {
            HostDocument::Service(document) => document.spec.distribution,
            HostDocument::Entry(document) => document.spec.distribution,
        }
    }

    /// Whether clients call only endpoints on their own nodes.
    pub(in super::super) fn is_node_local(&self) -> bool {
        match self.first {
            HostDocument::Service(document) => document.spec.node_local,
            HostDocument::Entry(_) => false,
        }
    }

    /// Reports something about where its endpoints are, at the `field` of what defined it first.
    pub(in super::super) fn report_places(&self, field: &str, message: String, problems: &mut Problems) {
        match self.first {
            HostDocument::Service(document) => problems.warning(document, field, message),
            HostDocument::Entry(document) => {
                problems.warning(document, "metadata.annotations", message);
            }
        }
    }

    /// What certificates of its servers may say instead of its name.
    pub(in super::super) fn subject_alt_names(&self, port: u16) -> &'a [String] {
        match self.sources.get(&port).map(|port| port.source) {
            Some(HostDocument::Entry(document)) => &document.spec.subject_alt_names,
            _ => &[],
        }
    }

    /// The name that its servers go by outside of the mesh; `None` if any below a wildcard is one.
    pub(in super::super) fn server_name(&self) -> Option<&str> {
        match self.first {
            HostDocument::Service(document) => match document.spec.external_name.as_ref() {
                Some(name) => name.name().map(|name| &**name),
                None => Some(&self.host),
            },
            HostDocument::Entry(_) => Some(&*self.host).filter(|host| !host.starts_with('*')),
        }
    }

    /// What `port` is called; `None` if there is no such port, or it has no name.
    pub(in super::super) fn port_name(&self, port: u16) -> Option<&str> {
        let name = match self.sources.get(&port)?.source {
            HostDocument::Service(document) => {
                &document.spec.ports.iter().find(|declared| declared.port == port)?.name
            }
            HostDocument::Entry(document) => {
                &document.spec.ports.iter().find(|declared| declared.number == port)?.name
            }
        };
        Some(name.as_str()).filter(|name| !name.is_empty())
    }

    /// What to do about a port that the host does not have.
    pub(in super::super) fn port_remedy(&self) -> String {
        if let Some(ports) = some_of(self.ports.keys()) {
            return format!("use one of {ports}");
        }
        match self.first {
            HostDocument::Service(document) if document.spec.external_name.is_some() => {
                "it is of the type ExternalName and declares no ports: add spec.ports to it, or name a port in the route's \
                 destination"
                    .to_owned()
            }
            _ => "it declares no ports; add spec.ports to it".to_owned(),
        }
    }

    /// How endpoints of `port` are found.
    pub(in super::super) fn resolution(&self, port: u16) -> Resolution {
        match self.sources.get(&port).map(|port| port.source) {
            Some(HostDocument::Entry(document)) => document.spec.resolution,
            _ => Resolution::Static,
        }
    }

    /// If requests to `port` go wherever they say: to which port there.
    pub(in super::super) fn requested(&self, port: u16) -> Option<u16> {
        let Some(HostDocument::Entry(document)) = self.sources.get(&port).map(|port| port.source) else {
            return None;
        };
        let ServiceEntrySpec { resolution, ports, .. } = &document.spec;
        let declared = ports.iter().find(|declared| declared.number == port);
        (*resolution == Resolution::Requested).then(|| declared.map_or(port, |declared| declared.target))
    }

    /// Whether endpoints of `port` are outside the mesh, and never called with mutual TLS.
    pub(in super::super) fn is_external(&self, port: u16) -> bool {
        match self.sources.get(&port).map(|port| port.source) {
            Some(HostDocument::Entry(document)) => !document.spec.internal,
            _ => false,
        }
    }

    /// Whether a `Service` defines it, and its endpoints are those that are behind this `Service`.
    pub(in super::super) fn is_service_alone(&self) -> bool {
        let is_own = |port: &PortDocument<'_>| port.source.is(&self.first) && port.alias_of.is_none();
        matches!(self.first, HostDocument::Service(document) if document.spec.external_name.is_none())
            && self.sources.values().all(is_own)
    }

    /// The service ports that it is another name of.
    pub(in super::super) fn alias_targets(&self) -> impl Iterator<Item = &ServiceKey> {
        self.sources.values().filter_map(|port| port.alias_of.as_ref())
    }

    /// Reports something about the endpoints of `port` at the document that says where they are.
    pub(in super::super) fn report_endpoints(&self, port: u16, message: String, problems: &mut Problems) {
        match self.sources.get(&port).map(|port| port.source) {
            Some(HostDocument::Service(document)) => {
                problems.warning(document, "spec.externalName", message);
            }
            Some(HostDocument::Entry(document)) => problems.warning(document, "spec", message),
            None => {}
        }
    }

    /// Says that who dials an address of the endpoints of `port` does not find it, because `most` others of its namespace are there.
    pub(in super::super) fn report_callers(&self, port: u16, most: usize, problems: &mut Problems) {
        let message = format!(
            "is not found by who dials the addresses of its endpoints: {most} services of the namespace {} that come before are at \
             the same address, or at names at the same port; give it an address of its own",
            self.namespace
        );
        match self.sources.get(&port).map(|port| port.source) {
            Some(HostDocument::Service(document)) => problems.warning(document, "spec.ports", message),
            Some(HostDocument::Entry(document)) => problems.warning(document, "spec.addresses", message),
            None => {}
        }
    }

    /// Says that `port` has no endpoints, because those of its namespace have all the room there is: the same words for each port of
    /// a document.
    pub(in super::super) fn report_no_room(&self, port: u16, most: usize, problems: &mut Problems) {
        let message = format!(
            "has ports that are left without endpoints: those of the services of the namespace {} may have {most} endpoints \
             together, each at each port; have it select fewer workloads, or give it fewer ports",
            self.namespace
        );
        match self.sources.get(&port).map(|port| port.source) {
            Some(HostDocument::Service(document)) => problems.no_room(document, "spec.ports", message),
            Some(HostDocument::Entry(document)) => problems.no_room(document, "spec.ports", message),
            None => {}
        }
    }

    /// Where the endpoints of `port` come from.
    pub(in super::super) fn backing(&self, port: u16) -> Option<Backing<'a>> {
        let PortDocument { source, below_wildcard, alias_of } = self.sources.get(&port)?;
        if let Some(key) = alias_of {
            return Some(Backing::Alias(key.clone()));
        }
        match source {
            HostDocument::Service(document) => {
                let declared = document.spec.ports.iter().find(|declared| declared.port == port);
                if let Some(name) = &document.spec.external_name {
                    let target = declared.map_or(port, |declared| target_number(&declared.target, port));
                    return Some(Backing::Name(name.clone(), target));
                }
                Some(Backing::Service(document, declared?))
            }
            HostDocument::Entry(document) => {
                let declared = document.spec.ports.iter().find(|declared| declared.number == port)?;
                let requested = document.spec.resolution == Resolution::Requested;
                let by_name =
                    *below_wildcard && requested || document.spec.endpoints == EntryEndpoints::Hosts;
                match self.host.parse::<Host>().ok().filter(|_| by_name) {
                    Some(name) => Some(Backing::Name(name, declared.target)),
                    None => Some(Backing::Entry(document, declared)),
                }
            }
        }
    }
}

impl KnownHost<'_> {
    /// The document that defined it first.
    pub(in super::super) fn document(&self) -> &DocumentName {
        match self.first {
            HostDocument::Service(document) => &document.name,
            HostDocument::Entry(document) => &document.name,
        }
    }

    /// A port of it, and the namespace that owns it.
    pub(in super::super) fn declared(&self, port: u16) -> Declared {
        let key = self.service(port);
        Declared { namespace: Arc::from(self.namespace), key }
    }

    /// Whether documents and clients in `namespace` know of its `port`, or of it if it has no such port; `None`: those in a namespace
    /// that no document names.
    pub(in super::super) fn is_known_at(&self, port: u16, namespace: Option<&str>) -> bool {
        match self.source_of(port) {
            HostDocument::Service(_) => true,
            HostDocument::Entry(document) => document.spec.export_to.includes(self.namespace, namespace),
        }
    }

    /// Who knows of its `port`, for messages.
    pub(in super::super) fn known_to(&self, port: u16) -> String {
        let source = self.source_of(port);
        let namespaces = match source {
            HostDocument::Service(_) => None,
            HostDocument::Entry(document) => some_of(document.spec.export_to.namespaces(self.namespace)),
        };
        format!("{} exports it to {} alone", source.describe(), namespaces.as_deref().unwrap_or("nobody"))
    }

    fn source_of(&self, port: u16) -> HostDocument<'_> {
        self.sources.get(&port).map_or(self.first, |port| port.source)
    }

    /// Whether documents in `namespace` may name it.
    pub(super) fn is_known_in(&self, namespace: &str) -> bool {
        match self.first {
            HostDocument::Service(_) => true,
            HostDocument::Entry(document) => {
                document.spec.export_to.includes(self.namespace, Some(namespace))
            }
        }
    }
}

pub(super) fn target_number(target: &TargetPort, port: u16) -> u16 {
    match target {
        TargetPort::Number(number) => *number,
        TargetPort::Same | TargetPort::Named(_) => port,
    }
}

/// Where a port's endpoints come from.
pub(in super::super) enum Backing<'a> {
    /// The workloads that a `Service` selects, and its `EndpointSlice`s.
    Service(&'a Document<ServiceSpec>, &'a ServicePort),
    /// What a `ServiceEntry` lists or selects.
    Entry(&'a Document<ServiceEntrySpec>, &'a EntryPort),
    /// Wherever DNS says that this name is, at this port.
    Name(Host, u16),
    /// The same as this service's port.
    Alias(ServiceKey),
}

/// The document that defines a host.
#[derive(Debug, Clone, Copy)]
pub(super) enum HostDocument<'a> {
    Service(&'a Document<ServiceSpec>),
    Entry(&'a Document<ServiceEntrySpec>),
}

impl HostDocument<'_> {
    /// The addresses of its own that it says it has.
    pub(super) fn addresses(&self) -> &[IpAddr] {
        match self {
            Self::Service(document) => &document.spec.addresses,
            Self::Entry(document) => &document.spec.addresses,
        }
    }

    /// How many endpoints and addresses it lists for each port.
    pub(super) fn listed(&self) -> usize {
        match self {
            Self::Service(_) => 0,
            Self::Entry(document) => super::listed(&document.spec),
        }
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Service(this), Self::Service(other)) => std::ptr::eq(*this, *other),
            (Self::Entry(this), Self::Entry(other)) => std::ptr::eq(*this, *other),
            _ => false,
        }
    }

    pub(super) fn error(&self, problems: &mut Problems, message: String) {
        match self {
            Self::Service(document) => problems.error(document, "spec.clusterIP", message),
            Self::Entry(document) => problems.error(document, "spec.addresses", message),
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Service(document) => format!("{} ({})", document.name, document.location),
            Self::Entry(document) => format!("{} ({})", document.name, document.location),
        }
    }
}
