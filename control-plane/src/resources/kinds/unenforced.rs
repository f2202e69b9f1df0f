//! Policies that nothing here acts on, so that somebody else must enforce them.

use super::named;

/// Who could enforce a policy that Selvedge does not act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Enforcer {
    /// A service mesh.
    Mesh,
    /// The network of a cluster: where there is one, it does so without us.
    Network,
}

/// Policies that nothing here acts on: their group, their kinds (none listed: all of the group), and who could.
const UNENFORCED: &[(&str, &[&str], Enforcer)] = &[
    ("policy.linkerd.io", &[], Enforcer::Mesh),
    ("policy.networking.k8s.io", &[], Enforcer::Network),
    ("projectcalico.org", CALICO, Enforcer::Network),
    ("crd.projectcalico.org", CALICO, Enforcer::Network),
    ("cilium.io", &["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"], Enforcer::Network),
];

const CALICO: &[&str] = &[
    "StagedNetworkPolicy",
    "StagedGlobalNetworkPolicy",
    "StagedKubernetesNetworkPolicy",
    "Tier",
    "HostEndpoint",
    "Profile",
];

/// If a document of `kind` and `version` is a policy that nothing here acts on, who could.
pub(in super::super) fn unenforced(kind: &str, version: &str) -> Option<Enforcer> {
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    if named(kind).any(|known| known.group() == group) {
        return None;
    }
    let mut known = UNENFORCED.iter();
    let (.., enforcer) = known.find(|(of, kinds, _)| {
        let is_one = kinds.is_empty() || kinds.iter().any(|one| one.eq_ignore_ascii_case(kind));
        of.eq_ignore_ascii_case(group) && is_one
    })?;
    Some(*enforcer)
}
