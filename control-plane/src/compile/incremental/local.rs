//! What some documents come to that have nothing to do with others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use selvedge_model::{
    AppConnections, Endpoint, Endpoints, Host, Mesh, ServiceKey, Workload, WorkloadName,
    snapshot::{Declared, Occupant, OwnedPorts},
};

use super::super::{
    MeshSettings, Problems, asked, candidates, dialled, endpoints, inbound, meant, network, owners, places,
    servers, services,
    workloads::{self, Faced, KnownWorkload, Networked},
};
use crate::{problem::Problem, resources::Resources};

/// What documents of workloads, endpoints and services come to, but for what policies make of workloads.
pub(super) struct Local<'a> {
    part: &'a Resources,
    workloads: workloads::Workloads<'a>,
    catalog: services::Catalog<'a>,
    pub(super) endpoints: BTreeMap<ServiceKey, Endpoints>,
    pub(super) addresses: BTreeMap<SocketAddr, Endpoint>,
    pub(super) service_addresses: BTreeMap<SocketAddr, Declared>,
    pub(super) callers: BTreeMap<SocketAddr, Vec<Declared>>,
    pub(super) owners: BTreeMap<Host, Vec<OwnedPorts>>,
    pub(super) names: BTreeMap<Arc<str>, Arc<str>>,
    pub(super) exported: BTreeMap<ServiceKey, BTreeSet<String>>,
    pub(super) behind: candidates::Behind,
    pub(super) entry_room: services::EntryRoom,
    pub(super) problems: Problems,
}

impl<'a> Local<'a> {
    /// `None`: something in it is known by name, which has a rank among all that is.
    pub(super) fn new(
        part: &'a Resources,
        settings: &'a MeshSettings,
        policies: &inbound::Policies<'_>,
        previous: &Mesh,
    ) -> Option<Self> {
        let mut problems = Problems::default();
        let mut workloads =
            workloads::Workloads::new(part, settings, policies, &previous.workloads, &mut problems);
        let catalog = services::Catalog::new(part, settings, &previous.owners, &mut problems);
        let candidates = candidates::candidates(part, settings, &catalog, &mut workloads, &mut problems);
        let owners =
            owners::Owners::new(part, &catalog, &candidates, &mut workloads, &previous.owners, &mut problems);
        let endpoints = endpoints::endpoints(
            settings,
            &catalog,
            policies,
            &candidates,
            &owners,
            &mut workloads,
            &mut problems,
        );
        if endpoints.values().any(|one| !one.named.is_empty()) || workloads.named().next().is_some() {
            return None;
        }
        places::report(&catalog, &endpoints, &mut problems);
        servers::report_annotations(part, &mut problems);
        let mut addresses = workloads.addresses();
        endpoints::addresses(&catalog, &owners, &endpoints, &mut addresses);
        let callers = dialled::callers(&catalog, &endpoints, &owners, &mut problems);
        let may_serve = |address, namespace: &str| owners.may_serve(address, namespace);
        let service_addresses = catalog.addresses(may_serve, &mut problems);
        let owners = owners.in_files();
        let (names, exported) = (catalog.names(&previous.owners), catalog.exported());
        let entry_room = catalog.entry_room();
        Some(Self {
            part,
            workloads,
            catalog,
            names,
            exported,
            entry_room,
            endpoints,
            addresses,
            service_addresses,
            callers,
            owners,
            behind: candidates.behind.clone(),
            problems,
        })
    }

    fn list(&self) -> impl Iterator<Item = &KnownWorkload<'a>> {
        (0..self.workloads.len()).map(|index| self.workloads.at(index))
    }

    /// The names of its workloads.
    pub(super) fn names(&self) -> impl Iterator<Item = &WorkloadName> {
        self.list().map(|known| &known.name)
    }

    /// The same, each with whether it is a pod: these are counted before `WorkloadEntry`s, of which one may have its name.
    pub(super) fn ranked(&self) -> impl Iterator<Item = (&WorkloadName, bool)> {
        self.list().map(|known| (&known.name, known.entry().is_none()))
    }

    /// The names of its workloads, each with its labels.
    pub(super) fn labels(&self) -> impl Iterator<Item = (&WorkloadName, &BTreeMap<String, String>)> {
        self.workloads.labels()
    }

    /// What policies ask of its workloads.
    pub(super) fn faced(&self) -> BTreeMap<WorkloadName, Faced> {
        self.workloads.faced()
    }

    /// What network policies know its workloads by.
    pub(super) fn networked(&self) -> BTreeMap<WorkloadName, Networked> {
        self.workloads.networked()
    }

    /// The namespaces and names of the service accounts of its workloads.
    pub(super) fn accounts(&self) -> BTreeSet<(&str, &str)> {
        self.list().map(KnownWorkload::account).collect()
    }

    /// Those of its workloads at `ports` that are dialled elsewhere than where their apps listen.
    pub(super) fn beside_sidecars(&self, ports: &BTreeSet<u16>) -> Vec<&Endpoint> {
        let here = self.addresses.values().filter(|one| ports.contains(&one.address.port()));
        here.filter(|one| dialled::is_beside_its_sidecar(one)).collect()
    }

    /// Those of `finished` that have all of their address.
    pub(super) fn occupants(
        &self,
        finished: &BTreeMap<WorkloadName, Arc<Workload>>,
    ) -> BTreeMap<IpAddr, Occupant> {
        let all = self.workloads.occupants(finished).into_iter();
        all.filter_map(|(host, (_, here))| Some((host.ip()?, here))).collect()
    }

    /// The places of the workloads that are not in `other`, or otherwise.
    fn differing(&self, other: &Self) -> Vec<usize> {
        let theirs: HashMap<&WorkloadName, &KnownWorkload<'_>> =
            other.list().map(|known| (&known.name, known)).collect();
        let is_same = |known: &KnownWorkload<'_>| {
            theirs.get(&known.name).is_some_and(|theirs| known.is_same_but_weight(theirs))
        };
        (0..self.workloads.len()).filter(|place| !is_same(self.workloads.at(*place))).collect()
    }

    /// Whether it has a workload like `one` that is none of `differing`, so that what is true of `one` is true without it.
    pub(super) fn has_one_like(&self, one: &KnownWorkload<'_>, differing: &[&KnownWorkload<'_>]) -> bool {
        let mut others =
            self.list().filter(|other| differing.iter().all(|differing| differing.name != other.name));
        others.any(|other| other.is_alike(one))
    }

    /// What policies make of its workloads, and what is wrong with these policies if there are no others: first with all but
    /// `RateLimit`s, and then with these. `all`: the documents of policies, with what they name.
    pub(super) fn finish(
        &mut self,
        all: &Resources,
        settings: &MeshSettings,
        previous: &Mesh,
        connections: impl Fn(&ServiceKey, &str) -> AppConnections,
    ) -> (BTreeMap<WorkloadName, Arc<Workload>>, [HashSet<Problem>; 2]) {
        let nowhere = &mut Problems::default();
        let of_workloads = asked::Policies::new(all, settings, nowhere);
        let network = network::Network::new(self.part, self.workloads.candidates(), previous);
        let asked = of_workloads.asked(&network);
        let finished = self.workloads.finish(&previous.workloads, asked, connections, &mut self.problems);
        let [mut problems, mut of_limits] = std::array::from_fn(|_| Problems::default());
        of_workloads.report(&mut problems);
        of_workloads.report_limits(&self.catalog, &mut of_limits);
        meant::report(all, settings, self.workloads.facing(&finished), &mut problems);
        meant::report_limits(all, settings, self.workloads.facing(&finished), &mut of_limits);
        (finished, [problems.found, of_limits.found])
    }
}

/// The workloads that are not the same, but for their weights, in what was and in what is: by their places in each.
#[derive(Debug)]
pub(super) struct Differing {
    old: Vec<usize>,
    new: Vec<usize>,
}

impl Differing {
    pub(super) fn new(old: &Local<'_>, new: &Local<'_>) -> Self {
        Self { old: old.differing(new), new: new.differing(old) }
    }

    /// Each of them, of the very same `old` and `new`.
    pub(super) fn of<'s>(&self, old: &'s Local<'_>, new: &'s Local<'_>) -> Vec<&'s KnownWorkload<'s>> {
        let before = self.old.iter().map(|place| old.workloads.at(*place));
        let after = self.new.iter().map(|place| new.workloads.at(*place));
        before.chain(after).collect()
    }
}

/// Whether rules and policies for `one` may find other faults with `other`. What they ask of endpoints is whether there is one
/// of a sort, or whether all are; how many, where exactly, and of which weight does not matter.
pub(super) fn differ_for_rules(one: &Endpoints, other: &Endpoints) -> bool {
    let sorts = |endpoints: &'_ Endpoints| -> BTreeSet<_> {
        let sort = |one: &Endpoint| (Arc::clone(&one.labels), one.identity.is_some(), one.place.clone());
        endpoints.list.iter().map(sort).collect()
    };
    sorts(one) != sorts(other)
}

/// Whether nothing but weights differs.
pub(super) fn are_same_but_weights(one: &Endpoints, other: &Endpoints) -> bool {
    let is_same =
        |(one, other): (&Endpoint, &Endpoint)| *one == Endpoint { weight: one.weight, ..other.clone() };
    one.list.len() == other.list.len() && one.list.iter().zip(&other.list).all(is_same)
}
