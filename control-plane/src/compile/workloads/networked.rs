//! What network policies know workloads by: kept, so that a change of a policy or of some workloads need not find it out again.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use selvedge_model::{SpiffeId, WorkloadName};

use super::{KnownWorkload, Workloads};
use crate::compile::network::Candidate;

/// What is to be known of one workload: a [`Candidate`] that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Networked {
    identity: SpiffeId,
    labels: Option<Arc<BTreeMap<String, String>>>,
    is_meshed: bool,
    is_redirected: bool,
    may_prove_identity: bool,
    is_of_node: bool,
    is_named: bool,
    addresses: BTreeSet<IpAddr>,
    sockets: BTreeSet<SocketAddr>,
    named_ports: Box<[(String, u16)]>,
    skipped: Box<[(u16, u16)]>,
}

impl Networked {
    fn new(known: &KnownWorkload<'_>) -> Self {
        let candidate = known.candidate();
        let named_ports = candidate.named_ports.iter().map(|(name, port)| ((*name).to_owned(), *port));
        Self {
            identity: candidate.identity.clone(),
            labels: candidate.labels.map(|_| Arc::clone(&known.labels)),
            is_meshed: candidate.is_meshed,
            is_redirected: candidate.is_redirected,
            may_prove_identity: candidate.may_prove_identity,
            is_of_node: candidate.is_of_node,
            is_named: candidate.is_named,
            named_ports: named_ports.collect(),
            skipped: candidate.skipped.into(),
            addresses: candidate.addresses.into_owned(),
            sockets: candidate.sockets.into_owned(),
        }
    }

    /// The workload called `name`.
    pub(in super::super) fn candidate<'n>(&'n self, name: &'n WorkloadName) -> Candidate<'n> {
        Candidate {
            name,
            identity: &self.identity,
            labels: self.labels.as_deref(),
            account_labels: None,
            is_meshed: self.is_meshed,
            is_redirected: self.is_redirected,
            may_prove_identity: self.may_prove_identity,
            is_of_node: self.is_of_node,
            is_named: self.is_named,
            addresses: Cow::Borrowed(&self.addresses),
            sockets: Cow::Borrowed(&self.sockets),
            named_ports: self.named_ports.iter().map(|(name, port)| (name.as_str(), *port)).collect(),
            skipped: &self.skipped,
        }
    }
}

impl Workloads<'_> {
    /// What is to be known of each.
    pub(in super::super) fn networked(&self) -> BTreeMap<WorkloadName, Networked> {
        self.list.iter().map(|known| (known.name.clone(), Networked::new(known))).collect()
    }
}
