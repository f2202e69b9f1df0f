//! Which namespace owns an address.
//!
//! Documents of any namespace may name any address, and only one namespace may say what it is. A pod's address is that
//! pod's alone, at every port, and a service's clusterIP is that service's. A cluster gives out both, so they come first
//! there; everything else, and all that is in files, is had by who declares it first. Bare hosts carry several workloads:
//! what is declared for some ports leaves the others free for other namespaces.
//!
//! One table, made before anything is made of addresses, and asked by everything that is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::SocketAddr,
};

use selvedge_model::{Host, Place};

use super::{
    Problems,
    endpoints::{Candidate, Candidates},
    services::Catalog,
    workloads::Workloads,
};
use crate::{
    problem::DocumentName,
    resources::{Document, Origin, Resources, Seniority, ServiceEntrySpec, ServiceSpec},
};

/// A document, as problems of others point at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Described<'a> {
    name: &'a DocumentName,
    origin: &'a Origin,
}

impl<'a, T> From<&'a Document<T>> for Described<'a> {
    fn from(document: &'a Document<T>) -> Self {
        Self { name: &document.name, origin: &document.origin }
    }
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.origin)
    }
}

/// The ports of an address that a document claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ports {
    /// All, declared or not.
    All,
    /// These.
    These(BTreeSet<u16>),
}

impl Ports {
    fn contain(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::These(ports) => ports.contains(&port),
        }
    }
}

/// What kind of thing has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// A pod with its own address: no other workload shares it, not even in its namespace.
    Pod,
    /// A pod in its node's network: its ports are its own, and the node's others are not.
    PodOfNode,
    /// A service: connections to it are carried on by the cluster's network.
    Service,
    /// Anything else.
    Other,
}

impl What {
    /// Whether no other workload shares its ports, not even in its namespace.
    pub(super) fn is_a_pod(self) -> bool {
        matches!(self, Self::Pod | Self::PodOfNode)
    }
}

/// Who has some ports of an address.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    pub(super) namespace: &'a str,
    pub(super) by: Described<'a>,
    pub(super) what: What,
    ports: Ports,
}

/// What a claim does not get, and who has it.
#[derive(Debug)]
pub(super) struct Lost<'a> {
    /// Everything at the address.
    pub(super) all: bool,
    /// These ports of it.
    pub(super) ports: BTreeSet<u16>,
    to: Described<'a>,
}

impl Lost<'_> {
    /// What is wrong, for who wrote the claim on `host`.
    pub(super) fn message(&self, host: &Host) -> String {
        let what = match (self.all, self.ports.iter().next()) {
            (false, Some(port)) => Place::new(host.clone(), *port).to_string(),
            _ => host.to_string(),
        };
        format!(
            "{what} belongs to {}, so this declaration has no effect; use another address or port here",
            self.to
        )
    }
}

/// The owner of every address that a document claims.
#[derive(Debug, Default)]
pub(super) struct Owners<'a> {
    claims: HashMap<Host, Vec<Claim<'a>>>,
}

impl<'a> Owners<'a> {
    /// Settles all claims, takes from workloads what is not theirs, and reports it.
    pub(super) fn new(
        resources: &'a Resources,
        catalog: &Catalog<'a>,
        candidates: &Candidates<'a>,
        workloads: &mut Workloads<'a>,
        problems: &mut Problems,
    ) -> Self {
        let mut owners = Self::default();
        for (host, claim) in workloads.pod_claims(What::Pod) {
            owners.claims.insert(host.clone(), vec![claim]);
        }
        for (host, claim) in workloads.pod_claims(What::PodOfNode) {
            owners.claims.entry(host.clone()).or_default().push(claim);
        }
        owners.claim_cluster_ips(resources, problems);
        owners.claim_others(resources, catalog, candidates, workloads, problems);
        owners
    }

    /// Who has `port` of `host`.
    pub(super) fn of(&self, host: &Host, port: u16) -> Option<&Claim<'a>> {
        self.claims.get(host)?.iter().find(|claim| claim.ports.contain(port))
    }

    /// Whether a service in `namespace` may be what `address` is.
    pub(super) fn may_serve(&self, address: SocketAddr, namespace: &str) -> bool {
        let owner = self.of(&Host::Ip(address.ip()), address.port());
        owner.is_none_or(|owner| !owner.what.is_a_pod() && owner.namespace == namespace)
    }

    /// Notes a claim, for the ports that nobody owns yet.
    fn claim(&mut self, host: &Host, mut claim: Claim<'a>) -> Option<Lost<'a>> {
        let here = self.claims.entry(host.clone()).or_default();
        let rivals =
            || here.iter().filter(|other| other.what.is_a_pod() || other.namespace != claim.namespace);
        let lost = match &claim.ports {
            Ports::All => {
                rivals().next().map(|first| Lost { all: true, ports: BTreeSet::new(), to: first.by })
            }
            Ports::These(ports) => match rivals().find(|rival| rival.ports == Ports::All) {
                Some(first) => Some(Lost { all: true, ports: BTreeSet::new(), to: first.by }),
                None => rivals().find_map(|rival| {
                    let taken: BTreeSet<u16> = ports
                        .iter()
                        .copied()
                        .filter(|port| rivals().any(|one| one.ports.contain(*port)))
                        .collect();
                    let is_first = taken.iter().any(|port| rival.ports.contain(*port));
                    is_first.then_some(Lost { all: false, ports: taken, to: rival.by })
                }),
            },
        };
        if lost.as_ref().is_some_and(|lost| lost.all) {
            return lost;
        }
        if let (Some(lost), Ports::These(ports)) = (&lost, &mut claim.ports) {
            ports.retain(|port| !lost.ports.contains(port));
        }
        here.push(claim);
        lost
    }

    fn claim_cluster_ips(&mut self, resources: &'a Resources, problems: &mut Problems) {
        let mut services: Vec<&'a Document<ServiceSpec>> = Vec::with_capacity(resources.services.len());
        services.extend(resources.services.iter().map(|document| &**document).filter(in_cluster));
        services.sort_by_key(|document| document.seniority());
        services.into_iter().for_each(|document| self.claim_cluster_ip(document, problems));
    }

    fn claim_cluster_ip(&mut self, document: &'a Document<ServiceSpec>, problems: &mut Problems) {
        for ip in &document.spec.addresses {
            let host = Host::Ip(*ip);
            let claim = claim(document, What::Service, Ports::All);
            if let Some(lost) = self.claim(&host, claim) {
                problems.error(document, "spec.clusterIP", lost.message(&host));
            }
        }
    }

    /// What `WorkloadEntry`s, `ServiceEntry`s, `EndpointSlice`s and whatever is in files claim, the first of it first.
    fn claim_others(
        &mut self,
        resources: &'a Resources,
        catalog: &Catalog<'a>,
        candidates: &Candidates<'a>,
        workloads: &mut Workloads<'a>,
        problems: &mut Problems,
    ) {
        let mut claims: Vec<(Seniority<'a>, Claimant<'a>)> = Vec::new();
        claims.extend(workloads.other_claims());
        for document in resources.services.iter().filter(|document| !in_cluster(&&***document)) {
            claims.push((document.seniority(), Claimant::ClusterIp(document)));
        }
        for document in &resources.service_entries {
            claims.push((document.seniority(), Claimant::Addresses(document)));
        }
        claims.extend(self.candidate_claims(catalog, candidates));
        claims.sort_by_key(|(seniority, _)| *seniority);
        for (_, claimant) in claims {
            match claimant {
                Claimant::Workload(index, host, claim) => {
                    if let Some(lost) = self.claim(&host, claim) {
                        workloads.lose(index, &host, &lost, problems);
                    }
                }
                Claimant::ClusterIp(document) => self.claim_cluster_ip(document, problems),
                Claimant::Addresses(document) => self.claim_addresses(document, problems),
                // Whether it matters that it is somebody else's is found out when the endpoint is made.
                Claimant::Endpoint(host, claim) => drop(self.claim(&host, claim)),
            }
        }
    }

    fn claim_addresses(&mut self, document: &'a Document<ServiceEntrySpec>, problems: &mut Problems) {
        let ports: BTreeSet<u16> = document.spec.ports.iter().map(|port| port.number).collect();
        for (index, ip) in document.spec.addresses.iter().enumerate() {
            let host = Host::Ip(*ip);
            let claim = claim(document, What::Other, Ports::These(ports.clone()));
            if let Some(lost) = self.claim(&host, claim) {
                problems.error(document, &format!("spec.addresses[{index}]"), lost.message(&host));
            }
        }
    }

    /// The places that services list which do not belong to a pod, each with the document that lists it.
    fn candidate_claims(
        &self,
        catalog: &Catalog<'a>,
        candidates: &Candidates<'a>,
    ) -> Vec<(Seniority<'a>, Claimant<'a>)> {
        let is_a_pods = |host: &Host| self.claims.get(host).is_some_and(|claims| claims[0].what == What::Pod);
        let mut claims: BTreeMap<(Seniority<'a>, Host), (Described<'a>, &'a str, BTreeSet<u16>)> =
            BTreeMap::new();
        for (key, list) in candidates {
            if catalog.find(&key.host).is_none() {
                continue;
            }
            for candidate in list {
                let (seniority, by, place) = match candidate {
                    Candidate::Workload(..) => continue,
                    Candidate::Sliced { slice, place, .. } => {
                        (slice.seniority(), Described::from(*slice), place)
                    }
                    Candidate::Inline(document, _, place) => {
                        (document.seniority(), Described::from(*document), place)
                    }
                    // It says nothing of what is there.
                    Candidate::Name(..) => continue,
                };
                if is_a_pods(&place.host) {
                    continue;
                }
                let namespace = &*by.name.namespace;
                let entry = claims.entry((seniority, place.host.clone()));
                entry.or_insert_with(|| (by, namespace, BTreeSet::new())).2.insert(place.port);
            }
        }
        let claims = claims.into_iter().map(|((seniority, host), (by, namespace, ports))| {
            let claim = Claim { namespace, by, what: What::Other, ports: Ports::These(ports) };
            (seniority, Claimant::Endpoint(host, claim))
        });
        claims.collect()
    }
}

/// Who claims something.
pub(super) enum Claimant<'a> {
    /// The workload of this number.
    Workload(usize, Host, Claim<'a>),
    /// A `Service` in a file, by its clusterIPs.
    ClusterIp(&'a Document<ServiceSpec>),
    /// A `ServiceEntry`, by its `addresses`.
    Addresses(&'a Document<ServiceEntrySpec>),
    /// The document that lists an endpoint.
    Endpoint(Host, Claim<'a>),
}

/// Whether the addresses in `document` were given out by a cluster, so that nobody wrote them.
pub(super) fn in_cluster<T>(document: &&Document<T>) -> bool {
    document.origin.path.is_none()
}

/// A claim that `document` makes.
pub(super) fn claim<'a, T>(document: &'a Document<T>, what: What, ports: Ports) -> Claim<'a> {
    Claim { namespace: &document.name.namespace, by: document.into(), what, ports }
}
