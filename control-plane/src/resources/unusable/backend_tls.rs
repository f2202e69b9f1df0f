//! A `BackendTLSPolicy` that cannot be used. Left out, what it has encrypted would be sent in plaintext.

use std::sync::Arc;

use super::{StandIn, Unusable};
use crate::{
    problem::DocumentName,
    resources::{
        BackendTlsPolicySpec, Document, Location, Metadata, Resource,
        backend_tls_policy::{AuthoritiesSpec, TargetYaml},
        policy_target::PolicyTarget,
        typed,
    },
};

/// The kind.
pub(super) const KIND: &str = "BackendTLSPolicy";

/// Has nothing sent to `targets`; to none: to any Service of the namespace.
pub(super) fn refused(name: DocumentName, location: &Location, targets: Vec<PolicyTarget>) -> StandIn {
    let whom = match targets.as_slice() {
        [] => format!("any Service of namespace {}", name.namespace),
        targets => {
            let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
            format!("Service {}", names.join(", "))
        }
    };
    let (authorities, hostname, names) = (AuthoritiesSpec::System, String::new(), Vec::new());
    let spec = BackendTlsPolicySpec { targets, authorities, hostname, names };
    let document = Document::standing_in(name, Metadata::default(), location.clone(), spec);
    StandIn {
        resource: Resource::BackendTlsPolicy(Arc::new(document)),
        words: format!("until it is repaired, nothing is sent to {whom}"),
    }
}

impl Unusable<'_> {
    pub(super) fn backend_tls(self) -> StandIn {
        let list = self.node.field("spec").and_then(|spec| spec.node.field("targetRefs"));
        let read = list.and_then(|list| typed::decode::<Vec<TargetYaml>>(&list.node).ok());
        let targets = read.into_iter().flat_map(|(targets, _)| targets).enumerate();
        let targets = targets.map(|(index, target)| target.read(index)).collect();
        refused(self.name, self.location, targets)
    }
}
