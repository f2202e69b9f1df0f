//! What compiling everything finds out, and compiling a change needs.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use selvedge_model::{AppConnections, ServiceKey, snapshot::ServiceViews};

use super::super::{Problems, clients::There, routes::OfHost, services::Catalog, sort};
use crate::problem::{Detached, DocumentName, Fault, Problem};

/// What is known of all hosts.
#[derive(Debug)]
pub(in super::super) struct Facts {
    /// The hosts that are not those of one `Service` alone, or that an `ExternalName` stands for.
    pub(super) others: HashSet<Arc<str>>,
    pub(in super::super) found: Found,
    /// The ports at which DNS alone says whom a service calls in plaintext.
    pub(super) unproven: BTreeSet<u16>,
    pub(super) connections: Connections,
    /// The clients that rules select by their labels and that are there.
    pub(super) selected: There,
}

impl Facts {
    pub(in super::super) fn new(
        catalog: &Catalog<'_>,
        (others, routed): (Problems, Routed),
        unproven: BTreeSet<u16>,
        connections: Connections,
        selected: There,
    ) -> Self {
        let mut hosts = HashSet::new();
        for host in catalog.hosts() {
            if !host.is_service_alone() {
                hosts.insert(Arc::clone(&host.host));
                hosts.extend(host.alias_targets().map(|target| Arc::clone(&target.host)));
            }
        }
        Self { others: hosts, found: Found { others, routed }, unproven, connections, selected }
    }
}

/// What is wrong, by what found it.
#[derive(Debug)]
pub(in super::super) struct Found {
    /// All else than routes.
    pub(super) others: Problems,
    pub(super) routed: Routed,
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
    /// Whether a document has no room because of others: then each may have a part in what any other is.
    pub(super) fn is_crowded(&self) -> bool {
        self.others.is_crowded || self.routed.of_all.is_crowded
    }

    /// All of it, in the order of files and lines.
    pub(in super::super) fn sorted(&self) -> Vec<Problem> {
        let Routed { of_all, of_hosts, .. } = &self.routed;
        let parts = || [&self.others, of_all].into_iter().chain(of_hosts.values());
        let all: HashSet<&Problem> = parts().flat_map(|part| &part.found).collect();
        let deciding: HashSet<&(DocumentName, usize)> = parts().flat_map(|part| &part.deciding).collect();
        let is_deciding = |route: &(DocumentName, usize)| deciding.contains(route);
        let mut problems: Vec<Problem> =
            all.into_iter().map(|problem| weighed(problem.clone(), is_deciding)).collect();
        sort(&mut problems);
        problems
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

    /// Whether all that was found of hosts that `concerns` is what `find` gives now.
    pub(super) fn are_still(
        &self,
        concerns: impl Fn(&str) -> bool,
        find: impl Fn(&ServiceKey, &str) -> AppConnections,
    ) -> bool {
        let all = self.0.borrow();
        let mut concerned = all.iter().filter(|(service, _)| concerns(&service.host));
        concerned.all(|(service, found)| found.iter().all(|(own, found)| find(service, own) == *found))
    }

    /// What was found before.
    pub(super) fn known(&self, service: &ServiceKey, namespace: &str) -> Option<AppConnections> {
        let all = self.0.borrow();
        let here = all.get(service)?.iter();
        here.filter(|(own, _)| **own == *namespace).map(|(_, found)| *found).next()
    }
}
