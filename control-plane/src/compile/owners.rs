//! Which namespace owns an address.
//!
//! Documents of any namespace may name any address, and only one namespace may say what it is. A pod's address is that
//! pod's alone, at every port, and a service's clusterIP is that service's. A cluster gives out both, so they come first
//! there; everything else, and all that is in files, is had by who declares it first, or had it before (see `reserved`). Bare hosts carry several workloads:
//! what is declared for some ports leaves the others free for other namespaces.
//!
//! One table, made before anything is made of addresses, and asked by everything that is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
};

use selvedge_model::{
    Host, HostPort,
    snapshot::{OwnedPorts, Owners as Before},
};

use super::{
    Problems,
    candidates::{Candidate, Candidates},
    claims::{Claim, Claimant, ClaimedBy, Described, Held, LostClaim, Ports, claim, in_cluster},
    reserved::{Reserved, owned},
    services::Catalog,
    workloads::Workloads,
};
use crate::resources::{Document, Resources, Seniority, ServiceEntrySpec, ServiceSpec};

/// The owner of every address that a document claims.
#[derive(Debug, Default)]
pub(super) struct Owners<'a> {
    claims: HashMap<Host, Held<'a>>,
    reserved: Reserved<'a>,
}

impl<'a> Owners<'a> {
    /// Settles all claims, takes from workloads what is not theirs, and reports it.
    pub(super) fn new(
        resources: &'a Resources,
        catalog: &Catalog<'a>,
        candidates: &Candidates<'a>,
        workloads: &mut Workloads<'a>,
        before: &Before,
        problems: &mut Problems,
    ) -> Self {
        let mut owners = Self::default();
        for (host, claim) in workloads.pod_claims(ClaimedBy::Pod) {
            owners.claims.insert(host.clone(), Held::from_iter([claim]));
        }
        for (host, claim) in workloads.pod_claims(ClaimedBy::PodOfNode) {
            owners.claims.entry(host.clone()).or_default().add(claim);
        }
        owners.claim_cluster_ips(resources, problems);
        owners.claim_others(resources, catalog, candidates, workloads, before, problems);
        owners
    }

    /// Who has `port` of `host`.
    pub(super) fn of(&self, host: &Host, port: u16) -> Option<&Claim<'a>> {
        self.claims.get(host)?.of(port)
    }

    /// Whether a service in `namespace` may be what `address` is.
    pub(super) fn may_serve(&self, address: SocketAddr, namespace: &str) -> bool {
        let owner = self.of(&Host::Ip(address.ip()), address.port());
        owner.is_none_or(|owner| !owner.what.is_a_pod() && owner.namespace == namespace)
    }

    /// Who has what by documents in files.
    pub(super) fn in_files(&self) -> BTreeMap<Host, Vec<OwnedPorts>> {
        owned(self.claims.iter())
    }

    /// Notes a claim, for the ports that nobody owns yet.
    fn claim(&mut self, host: &Host, claim: Claim<'a>) -> Option<LostClaim<'a>> {
        let here = self.claims.entry(host.clone()).or_default();
        match self.reserved.of(host) {
            Some(reserved) => here.settle(reserved, claim),
            None => here.settle(&Held::default(), claim),
        }
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
            let claim = claim(document, ClaimedBy::Service, Ports::All);
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
        before: &Before,
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
        self.reserved = Reserved::new(&claims.iter().map(|(_, claimant)| claimant), before, &self.claims);
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
            let claim = claim(document, ClaimedBy::Other, Ports::These(ports.clone()));
            if let Some(lost) = self.claim(&host, claim) {
                problems.error(document, &format!("spec.addresses[{index}]"), lost.message(&host));
            }
        }
    }

    /// The hosts and ports that services list and that belong to no pod, each with the document that lists it.
    fn candidate_claims(
        &self,
        catalog: &Catalog<'a>,
        candidates: &Candidates<'a>,
    ) -> Vec<(Seniority<'a>, Claimant<'a>)> {
        let is_a_pods = |host: &Host| {
            let first = self.claims.get(host).and_then(|held| held.claims().first());
            first.is_some_and(|first| first.what == ClaimedBy::Pod)
        };
        let is_of_one = |one: &Candidate<'a>, other: &Candidate<'a>| {
            let both = listed(one).zip(listed(other));
            both.is_some_and(|((_, one, _), (_, other, _))| one.is(other))
        };
        let mut claims: BTreeMap<Seniority<'a>, (Described<'a>, BTreeMap<Host, BTreeSet<u16>>)> =
            BTreeMap::new();
        for (key, list) in candidates {
            if catalog.find(&key.host).is_none() {
                continue;
            }
            // There may be thousands of each document, of which the places take longest to compare.
            for of_one in list.chunk_by(is_of_one) {
                let Some((seniority, by, _)) = of_one.first().and_then(listed) else { continue };
                let (_, here) = claims.entry(seniority).or_insert_with(|| (by, BTreeMap::new()));
                let places = of_one.iter().filter_map(listed).map(|(.., place)| place);
                for place in places.filter(|place| !is_a_pods(&place.host)) {
                    here.entry(place.host.clone()).or_default().insert(place.port);
                }
            }
        }
        let claims = claims.into_iter().flat_map(|(seniority, (by, here))| {
            here.into_iter().map(move |(host, ports)| {
                let ports = Ports::These(ports);
                let claim = Claim { namespace: by.namespace(), by, what: ClaimedBy::Other, ports };
                (seniority, Claimant::Endpoint(host, claim))
            })
        });
        claims.collect()
    }
}

/// The document that lists `candidate`, and where that is; `None`: it says nothing of what is there.
fn listed<'c, 'a>(candidate: &'c Candidate<'a>) -> Option<(Seniority<'a>, Described<'a>, &'c HostPort)> {
    match candidate {
        Candidate::Sliced { slice, host_port, .. } => {
            Some((slice.seniority(), Described::from(*slice), host_port))
        }
        Candidate::Inline(document, _, host_port) => {
            Some((document.seniority(), Described::from(*document), host_port))
        }
        Candidate::Workload(..) | Candidate::Name(..) => None,
    }
}
