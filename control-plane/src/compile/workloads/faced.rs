//! What policies ask of a workload besides what its sidecar is told: kept, so that a change of a policy or of other workloads need
//! not find it out again.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_model::{ServiceKey, Workload, WorkloadName};

use super::{
    super::{meant::Facing, targets::Selected},
    KnownWorkload, Workloads,
};

/// What is to be known of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Faced {
    services: BTreeMap<u16, BTreeSet<ServiceKey>>,
    is_unusable: bool,
    is_of_node: bool,
    skipped: Box<[(u16, u16)]>,
}

impl Faced {
    fn new(known: &KnownWorkload<'_>) -> Self {
        Self {
            services: known.services.clone(),
            is_unusable: known.source.is_unusable(),
            is_of_node: known.source.shares_address(),
            skipped: known.source.skipped().into(),
        }
    }

    /// The same `workload` as policies ask for it.
    pub(in super::super) fn facing<'f>(&'f self, workload: &'f Workload) -> Facing<'f> {
        Facing {
            selected: self.selected(workload),
            workload,
            is_of_node: self.is_of_node,
            skipped: &self.skipped,
        }
    }

    /// What policies select it by.
    pub(in super::super) fn selected<'f>(&'f self, workload: &'f Workload) -> Selected<'f> {
        Selected {
            namespace: workload.name.namespace(),
            labels: (!self.is_unusable).then_some(&*workload.labels),
            services: &self.services,
            gateway: workload.gateway.as_ref().map(|role| &*role.name),
        }
    }
}

impl Workloads<'_> {
    /// What is to be known of each.
    pub(in super::super) fn faced(&self) -> BTreeMap<WorkloadName, Faced> {
        self.list.iter().map(|known| (known.name.clone(), Faced::new(known))).collect()
    }
}
