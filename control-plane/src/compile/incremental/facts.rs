//! What compiling everything finds out, and compiling a change needs.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use selvedge_model::{AppConnections, ServiceKey};

use super::super::services::Catalog;

/// What is known of all hosts.
#[derive(Debug)]
pub(in super::super) struct Facts {
    /// The hosts that are not those of one `Service` alone, or that an `ExternalName` stands for.
    pub(super) others: HashSet<Arc<str>>,
    /// The service ports of whose endpoints a rule or a policy is reported to be wrong.
    pub(super) reported: HashSet<ServiceKey>,
    /// The ports at which DNS alone says whom a service calls in plaintext.
    pub(super) unproven: BTreeSet<u16>,
    pub(super) connections: Connections,
}

impl Facts {
    pub(in super::super) fn new(
        catalog: &Catalog<'_>,
        reported: HashSet<ServiceKey>,
        unproven: BTreeSet<u16>,
        connections: Connections,
    ) -> Self {
        let mut others = HashSet::new();
        for host in catalog.hosts() {
            if !host.is_service_alone() {
                others.insert(Arc::clone(&host.host));
                others.extend(host.alias_targets().map(|target| Arc::clone(&target.host)));
            }
        }
        Self { others, reported, unproven, connections }
    }
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

    /// What was found before.
    pub(super) fn known(&self, service: &ServiceKey, namespace: &str) -> Option<AppConnections> {
        let all = self.0.borrow();
        let here = all.get(service)?.iter();
        here.filter(|(own, _)| **own == *namespace).map(|(_, found)| *found).next()
    }
}
