//! A change of network policies, of Kubernetes and of Calico, and what becomes of them if workloads change.
//!
//! What such a policy lets a workload do depends on all workloads: it names sets of them, and tells apart who shares an address or
//! an identity. What it knows them by is kept ([`Networked`](super::super::workloads::Networked)). So, if policies or workloads
//! change, the rules of all workloads, the sets and what is to be said of policies are made anew, and nothing else for it: no
//! service, endpoint or route reads them.

use std::{collections::BTreeMap, sync::Arc};

use selvedge_model::{Mesh, Workload, WorkloadName};

use super::{
    super::{Problems, are_same, keep, network::Network},
    Last,
    edits::Edits,
    index::Everything,
    local::Local,
    splice::splice,
};
use crate::resources::{CalicoPolicySpec, NetworkPolicySpec, Resources};

/// Policies of both kinds.
#[derive(Debug)]
pub(super) struct ChangedNetwork {
    pub(super) kubernetes: Edits<NetworkPolicySpec>,
    pub(super) calico: Edits<CalicoPolicySpec>,
}

impl ChangedNetwork {
    pub(super) fn is_empty(&self) -> bool {
        self.kubernetes.changed.is_empty() && self.calico.changed.is_empty()
    }

    /// Makes `all` what they are now.
    fn apply(self, all: &mut Resources) {
        self.kubernetes.apply(&mut all.network_policies);
        self.calico.apply(&mut all.calico_policies);
    }
}

/// Whether there is a network policy of any kind.
pub(in super::super) fn has_network_policies(all: &Resources) -> bool {
    !all.network_policies.is_empty() || !all.calico_policies.is_empty()
}

/// Gives those of `finished`, which were made without network policies, what these make of them in `mesh`. What is new is under none
/// yet.
pub(super) fn with_rules_of(mesh: &Mesh, finished: &mut BTreeMap<WorkloadName, Arc<Workload>>) {
    for (name, workload) in finished {
        let Some(before) = mesh.workloads.get(name) else { continue };
        let (ingress, egress) = (before.policy.network.as_ref(), before.egress.as_ref());
        let (own_ingress, own_egress) = (workload.policy.network.as_ref(), workload.egress.as_ref());
        if !(are_same(ingress, own_ingress) && are_same(egress, own_egress)) {
            let mut with = Workload::clone(workload);
            with.policy.network = ingress.cloned();
            with.egress = egress.cloned();
            *workload = keep(with, Some(before));
        }
    }
}

impl Last {
    /// Takes over what network policies know of the workloads of `old`, which are those of `new` now.
    ///
    /// # Errors
    /// It was something else.
    pub(super) fn take_over_networked(&mut self, old: &Local<'_>, new: &Local<'_>) -> Result<(), Everything> {
        let Some(networked) = &mut self.facts.networked else { return Ok(()) };
        let (before, after) = (old.networked(), new.networked());
        if before != after {
            splice(networked, &before, after)?;
            self.is_network_anew = true;
        }
        Ok(())
    }

    /// Makes anew what network policies make of all workloads, after all other changes.
    ///
    /// # Errors
    /// Everything must be compiled.
    pub(super) fn follow_network(&mut self, changed: ChangedNetwork) -> Result<(), Everything> {
        changed.apply(&mut self.resources);
        let networked = self.facts.networked.as_ref().ok_or(Everything)?;
        let candidates = networked.iter().map(|(name, one)| one.candidate(name)).collect();
        let network = Network::new(&self.resources, candidates, &self.mesh);
        let mut others = Vec::new();
        for (place, name) in networked.keys().enumerate() {
            let workload = self.mesh.workloads.get(name).ok_or(Everything)?;
            let (own_ingress, own_egress) = (workload.policy.network.as_ref(), workload.egress.as_ref());
            let ingress = network.ingress(place, own_ingress);
            let egress = network.egress(place, own_egress);
            if !(are_same(ingress.as_ref(), own_ingress) && are_same(egress.as_ref(), own_egress)) {
                let mut other = Workload::clone(workload);
                (other.policy.network, other.egress) = (ingress, egress);
                others.push(Arc::new(other));
            }
        }
        let mut problems = Problems::default();
        network.report(&mut problems);
        let sets = network.into_sets();
        if sets != *self.mesh.sets {
            self.mesh.sets = sets.into();
        }
        self.facts.found.network = problems;
        self.put_workloads(others);
        self.is_said_anew = true;
        Ok(())
    }
}
