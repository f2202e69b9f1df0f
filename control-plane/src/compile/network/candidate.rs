//! What network policies know workloads by, and who else has the same.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use selvedge_model::{SpiffeId, WorkloadName};

use crate::resources::Resources;

/// One workload.
#[derive(Debug)]
pub(in crate::compile) struct Candidate<'a> {
    pub(in crate::compile) name: &'a WorkloadName,
    pub(in crate::compile) identity: &'a SpiffeId,
    /// `None`: nobody knows them, as its document cannot be used.
    pub(in crate::compile) labels: Option<&'a BTreeMap<String, String>>,
    /// Those of its service account; `None`: it has no document.
    pub(in crate::compile) account_labels: Option<&'a BTreeMap<String, String>>,
    /// Whether it has a sidecar.
    pub(in crate::compile) is_meshed: bool,
    /// Whether its sidecar gets redirected connections.
    pub(in crate::compile) is_redirected: bool,
    /// Whether it can get a certificate of its identity.
    pub(in crate::compile) may_prove_identity: bool,
    /// Whether it has its node's addresses.
    pub(in crate::compile) is_of_node: bool,
    /// Whether it is at a DNS name.
    pub(in crate::compile) is_named: bool,
    pub(in crate::compile) addresses: Cow<'a, BTreeSet<IpAddr>>,
    /// The ports that it serves, at each of its addresses.
    pub(in crate::compile) sockets: Cow<'a, BTreeSet<SocketAddr>>,
    pub(in crate::compile) named_ports: Vec<(&'a str, u16)>,
    /// Its ports that connections reach without its sidecar; first and last of each range.
    pub(in crate::compile) skipped: &'a [(u16, u16)],
}

/// All workloads, and how many have an identity or an address.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    list: Vec<Candidate<'a>>,
    by_namespace: HashMap<&'a str, Vec<usize>>,
    identities: HashMap<&'a SpiffeId, usize>,
    addresses: HashMap<IpAddr, usize>,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(resources: &'a Resources, mut list: Vec<Candidate<'a>>) -> Self {
        let accounts: HashMap<(&str, &str), &BTreeMap<String, String>> = resources
            .service_accounts
            .iter()
            .map(|document| ((&*document.name.namespace, &*document.name.name), &document.metadata.labels))
            .collect();
        for candidate in &mut list {
            let account = (candidate.identity.namespace(), candidate.identity.service_account());
            candidate.account_labels = accounts.get(&account).copied();
        }
        let mut candidates = Self {
            by_namespace: HashMap::new(),
            identities: HashMap::new(),
            addresses: HashMap::new(),
            list: Vec::new(),
        };
        for (place, candidate) in list.iter().enumerate() {
            candidates.by_namespace.entry(candidate.name.namespace()).or_default().push(place);
            if candidate.may_prove_identity {
                *candidates.identities.entry(candidate.identity).or_default() += 1;
            }
            for address in &*candidate.addresses {
                *candidates.addresses.entry(*address).or_default() += 1;
            }
        }
        candidates.list = list;
        candidates
    }

    pub(super) fn at(&self, place: usize) -> &Candidate<'a> {
        &self.list[place]
    }

    /// Those in `namespace`; `None`: all.
    pub(super) fn within(&self, namespace: Option<&str>) -> Vec<&Candidate<'a>> {
        match namespace {
            None => self.list.iter().collect(),
            Some(namespace) => {
                let places = self.by_namespace.get(namespace).into_iter().flatten();
                places.map(|place| &self.list[*place]).collect()
            }
        }
    }

    /// How many workloads can prove to be `identity`.
    pub(super) fn with_identity(&self, identity: &SpiffeId) -> usize {
        self.identities.get(identity).copied().unwrap_or_default()
    }

    /// How many workloads have `address`.
    pub(super) fn with_address(&self, address: IpAddr) -> usize {
        self.addresses.get(&address).copied().unwrap_or_default()
    }

    /// Whether no other workload can prove to be the one at `place`.
    pub(super) fn is_alone(&self, place: usize) -> bool {
        self.with_identity(self.list[place].identity) <= 1
    }
}
