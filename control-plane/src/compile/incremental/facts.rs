//! What compiling everything finds out, and compiling a change needs.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use selvedge_model::{AppConnections, ServiceKey, WorkloadName, snapshot::ServiceViews};

use super::super::{
    Problems,
    addressees::Addressees,
    candidates,
    clients::There,
    gateways::LedTo,
    routes::OfHost,
    services::{Catalog, EntryRoom},
    sort,
    workloads::{Faced, Networked},
};
use crate::problem::{Detached, DocumentName, Fault, Problem, some_of_each};

/// What is known of all hosts.
#[derive(Debug)]
pub(in super::super) struct Facts {
    /// The hosts that are not those of one `Service` alone, or that an `ExternalName` stands for.
    pub(super) others: HashSet<Arc<str>>,
    /// How many endpoints the services of each namespace have.
    pub(in super::super) behind: candidates::Behind,
    /// How much room hosts of `ServiceEntry`s take.
    pub(super) entry_room: EntryRoom,
    pub(in super::super) found: Found,
    /// The hosts to which documents for gateways lead.
    pub(super) led_to: LedTo,
    /// What policies ask of workloads, if there are policies of which something is reported by it.
    pub(super) faced: Option<BTreeMap<WorkloadName, Faced>>,
    /// What network policies know workloads by, if there are such policies.
    pub(super) networked: Option<BTreeMap<WorkloadName, Networked>>,
    /// The ports at which DNS alone says whom a service calls in plaintext.
    pub(super) unproven: BTreeSet<u16>,
    pub(super) connections: Connections,
    /// The clients that rules select by their labels and that are there.
    pub(super) selected: Arc<There>,
    /// Whom documents are for.
    pub(in super::super) addressees: Addressees,
}

/// What is known of workloads: in the order of the fields of [`Facts`].
type OfWorkloads = (
    Option<BTreeMap<WorkloadName, Faced>>,
    Option<BTreeMap<WorkloadName, Networked>>,
    BTreeSet<u16>,
    Arc<There>,
);

impl Facts {
    pub(in super::super) fn new(
        catalog: &Catalog<'_>,
        found: Found,
        led_to: LedTo,
        (faced, networked, unproven, selected): OfWorkloads,
        connections: Connections,
    ) -> Self {
        let mut hosts = HashSet::new();
        for host in catalog.hosts() {
            if !host.is_service_alone() {
                hosts.insert(Arc::clone(&host.key));
                hosts.extend(host.alias_targets().map(|target| Arc::clone(&target.host)));
            }
        }
        let (behind, addressees) = (candidates::Behind::default(), Addressees::default());
        let entry_room = catalog.entry_room();
        Self {
            others: hosts,
            behind,
            entry_room,
            found,
            led_to,
            faced,
            networked,
            unproven,
            connections,
            selected,
            addressees,
        }
    }
}

/// What is wrong, by what found it.
#[derive(Debug)]
pub(in super::super) struct Found {
    /// All else.
    pub(in super::super) others: Problems,
    /// Policies of workloads, whichever workloads they are for.
    pub(in super::super) policies: Problems,
    /// Each `AuthorizationPolicy` and `PeerAuthentication`, by the workloads that it is for.
    pub(in super::super) of_each_policy: Reports,
    /// `RequestAuthentication`s, by the workloads that they are for.
    pub(in super::super) tokens: Problems,
    /// `RateLimit`s, by the workloads that they are for and the servers that they ask.
    pub(in super::super) limits: Problems,
    /// Network policies.
    pub(in super::super) network: Problems,
    /// What gateways serve.
    pub(in super::super) gateways: Problems,
    /// Documents that are for nobody.
    pub(in super::super) addressees: Problems,
    pub(in super::super) routed: Routed,
}

/// What is wrong, by the documents that it is told of.
#[derive(Debug, Default)]
pub(in super::super) struct Reports(HashMap<Option<DocumentName>, HashSet<Problem>>);

impl From<Problems> for Reports {
    fn from(problems: Problems) -> Self {
        let mut reports = Self::default();
        reports.add(problems);
        reports
    }
}

impl Reports {
    fn add(&mut self, problems: Problems) {
        for problem in problems.found {
            self.0.entry(problem.document.clone()).or_default().insert(problem);
        }
    }

    /// Puts `problems`, which are all that is wrong with the documents `of`, into the place of what was.
    pub(super) fn replace(&mut self, of: &BTreeSet<DocumentName>, problems: Problems) {
        for name in of {
            self.0.remove(&Some(name.clone()));
        }
        self.add(problems);
    }
}

/// What routes and rules come to.
#[derive(Debug)]
pub(in super::super) struct Routed {
    /// What is wrong with them, whichever hosts they are for.
    pub(super) of_all: Problems,
    /// What is wrong with them as they are for each host, where that is anything.
    of_hosts: HashMap<Arc<str>, Problems>,
    /// The service ports of whose endpoints a rule or a policy is reported to be wrong.
    pub(super) reported: HashSet<ServiceKey>,
    /// Each service port that was added.
    pub(in super::super) views: BTreeMap<ServiceKey, ServiceViews>,
}

impl Found {
    /// All of it, in the order of files and lines.
    pub(in super::super) fn sorted(&self) -> Vec<Problem> {
        let Self { others, policies, of_each_policy, tokens, limits, network, gateways, addressees, routed } =
            self;
        let Routed { of_all, of_hosts, .. } = routed;
        let found = [others, policies, tokens, limits, network, gateways, addressees, of_all];
        let parts = || found.into_iter().chain(of_hosts.values());
        let of_parts = parts().flat_map(|part| &part.found);
        let all: HashSet<&Problem> = of_parts.chain(of_each_policy.0.values().flatten()).collect();
        let deciding: HashSet<&(DocumentName, usize)> = parts().flat_map(|part| &part.deciding).collect();
        let is_deciding = |route: &(DocumentName, usize)| deciding.contains(route);
        let mut problems: Vec<Problem> =
            all.into_iter().map(|problem| weighed(problem.clone(), is_deciding)).collect();
        sort(&mut problems);
        some_of_each(problems)
    }
}

impl Routed {
    pub(in super::super) fn new(of_all: Problems) -> Self {
        Self { of_all, of_hosts: HashMap::new(), reported: HashSet::new(), views: BTreeMap::new() }
    }

    /// Adds what `host` is, in the place of what was added before of it.
    pub(in super::super) fn add(&mut self, host: &Arc<str>, OfHost { views, reported, problems }: OfHost) {
        for (key, _) in &views {
            self.reported.remove(key);
        }
        self.reported.extend(reported);
        match problems.found.is_empty() && problems.deciding.is_empty() {
            true => self.of_hosts.remove(host),
            false => self.of_hosts.insert(Arc::clone(host), problems),
        };
        self.views.extend(views);
    }

    /// Forgets what was found of `hosts`, which are nothing any more, or are [added](Self::add) again.
    pub(super) fn forget(&mut self, hosts: &BTreeSet<Arc<str>>) {
        for host in hosts {
            self.of_hosts.remove(host);
        }
        self.reported.retain(|key| !hosts.contains(&key.host));
    }
}

/// `problem`, which is a smaller one if it is that of a route which decides elsewhere.
fn weighed(mut problem: Problem, is_deciding: impl Fn(&(DocumentName, usize)) -> bool) -> Problem {
    if let (Fault::Parent { index, why: Detached::Overruled }, Some(document)) =
        (problem.fault, &problem.document)
        && is_deciding(&(document.clone(), index))
    {
        problem.fault = Fault::Parent { index, why: Detached::OverruledInPart };
    }
    problem
}

/// How apps are connected to, by service port and namespace: found once for all workloads behind it.
#[derive(Debug, Default)]
pub(in super::super) struct Connections(RefCell<HashMap<ServiceKey, Vec<InNamespace>>>);

/// How apps in a namespace are connected to.
type InNamespace = (Arc<str>, AppConnections);

impl Connections {
    /// What `find` gives, or has given before.
    pub(in super::super) fn get(
        &self,
        service: &ServiceKey,
        namespace: &str,
        find: impl FnOnce() -> AppConnections,
    ) -> AppConnections {
        if let Some(known) = self.known(service, namespace) {
            return known;
        }
        let found = find();
        let mut all = self.0.borrow_mut();
        all.entry(service.clone()).or_default().push((Arc::from(namespace), found));
        found
    }

    /// Those of `hosts` of which something else was found than what `find` gives now.
    pub(super) fn differing(
        &self,
        hosts: &HashSet<Arc<str>>,
        find: impl Fn(&ServiceKey, &str) -> AppConnections,
    ) -> HashSet<Arc<str>> {
        let all = self.0.borrow();
        let concerned = all.iter().filter(|(service, _)| hosts.contains(&service.host));
        let differing = concerned
            .filter(|(service, found)| found.iter().any(|(own, found)| find(service, own) != *found));
        differing.map(|(service, _)| Arc::clone(&service.host)).collect()
    }

    /// Forgets what was found of `hosts`.
    pub(super) fn forget(&self, hosts: &HashSet<Arc<str>>) {
        self.0.borrow_mut().retain(|service, _| !hosts.contains(&service.host));
    }

    /// What was found before.
    pub(super) fn known(&self, service: &ServiceKey, namespace: &str) -> Option<AppConnections> {
        let all = self.0.borrow();
        let here = all.get(service)?.iter();
        here.filter(|(own, _)| **own == *namespace).map(|(_, found)| *found).next()
    }
}
