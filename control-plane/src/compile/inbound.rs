//! `PeerAuthentication` to each workload's inbound policy: workload beats namespace beats mesh.

use std::collections::BTreeMap;

use selvedge_model::{InboundPolicy, MtlsRule, WorkloadName, facts::selects};

use super::{MeshSettings, Problems};
use crate::resources::{Document, PeerAuthenticationSpec, Resources};

type Policy = Document<PeerAuthenticationSpec>;

/// Every `PeerAuthentication` by what it is for; the oldest at each level.
#[derive(Debug)]
pub(super) struct Policies<'a> {
    mesh: Option<&'a Policy>,
    namespaces: BTreeMap<&'a str, &'a Policy>,
    /// Those with a selector, oldest first; before them those that cannot be used.
    selecting: Vec<&'a Policy>,
}

impl<'a> Policies<'a> {
    pub(super) fn new(resources: &'a Resources, settings: &MeshSettings, problems: &mut Problems) -> Self {
        let mut policies = Self { mesh: None, namespaces: BTreeMap::new(), selecting: Vec::new() };
        // What cannot be used is first at its level: nobody knows what it says, so nobody else can overrule it.
        let all = || resources.peer_authentications.iter().map(|policy| -> &'a Policy { policy });
        for policy in all().filter(|policy| policy.unusable).chain(all().filter(|policy| !policy.unusable)) {
            policies.add(policy, settings, problems);
        }
        policies
    }

    fn add(&mut self, policy: &'a Policy, settings: &MeshSettings, problems: &mut Problems) {
        let namespace = &*policy.name.namespace;
        let in_root = namespace == settings.root_namespace;
        if namespace.is_empty() || (policy.spec.any_workload && !in_root) {
            self.selecting.push(policy);
            return;
        }
        if !policy.spec.selector.is_empty() {
            if in_root {
                let message = "has no effect in the root namespace; move it to its workloads' namespace";
                problems.error_alone(policy, "spec.selector", message);
            } else {
                self.selecting.push(policy);
            }
            return;
        }
        let level = if in_root { "the mesh" } else { "this namespace" };
        let winner = match in_root {
            true => *self.mesh.get_or_insert(policy),
            false => *self.namespaces.entry(namespace).or_insert(policy),
        };
        if !std::ptr::eq(winner, policy) {
            let message = format!(
                "has no effect: {} ({}) comes first for {level}; remove one of them",
                winner.name, winner.location
            );
            problems.overruled(policy, "", message);
        }
    }

    /// What a workload with `labels` in `namespace` lets in.
    pub(super) fn find(&self, namespace: &str, labels: &BTreeMap<String, String>) -> InboundPolicy {
        let mut default = MtlsRule::default();
        let wider = [self.mesh, self.namespaces.get(namespace).copied()];
        for policy in wider.into_iter().flatten() {
            default = rule(policy, policy.spec.mode).unwrap_or(default);
        }
        let Some(policy) = self.selecting(namespace, labels).next() else {
            return InboundPolicy { default, ..InboundPolicy::default() };
        };
        default = rule(policy, policy.spec.mode).unwrap_or(default);
        let ports = policy
            .spec
            .ports
            .iter()
            .map(|(port, mode)| (*port, rule(policy, *mode).unwrap_or_else(|| default.clone())))
            .collect();
        InboundPolicy { default, ports, ..InboundPolicy::default() }
    }

    /// Reports every policy that selects the workload besides the one that it follows.
    pub(super) fn report_losers(
        &self,
        workload: &WorkloadName,
        labels: &BTreeMap<String, String>,
        problems: &mut Problems,
    ) {
        let mut selecting = self.selecting(workload.namespace(), labels);
        let Some(winner) = selecting.next() else { return };
        for loser in selecting {
            let message = format!(
                "has no effect on workload {workload}: {} ({}) comes first; let only one of them select it",
                winner.name, winner.location
            );
            problems.overruled(loser, "spec.selector", message);
        }
    }

    fn selecting(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Policy> {
        self.selecting.iter().copied().filter(move |policy| {
            let here = policy.name.namespace.is_empty() || &*policy.name.namespace == namespace;
            here && (policy.spec.any_workload || selects(&policy.spec.selector, labels))
        })
    }
}

fn rule(policy: &Policy, mode: Option<selvedge_model::MtlsMode>) -> Option<MtlsRule> {
    let name = match policy.unusable {
        true => format!("{} ({}), which cannot be used", policy.name, policy.location),
        false => policy.name.to_string(),
    };
    Some(MtlsRule { mode: mode?, name: name.into() })
}
