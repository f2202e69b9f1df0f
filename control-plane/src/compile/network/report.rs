//! What policies do not do, for those who wrote them.

use std::net::SocketAddr;

use selvedge_model::policy::network::{NetworkAsks, NetworkRule, Peers};

use super::{Compiled, Direction, MOST_MEMBERS, Network, candidate::Candidate};
use crate::{
    compile::{Problems, meant::Unenforced, some},
    resources::{CalicoPolicySpec, Document, Location, NetworkPolicySpec},
};

/// The document of a policy.
#[derive(Debug, Clone, Copy)]
pub(super) enum Written<'a> {
    Kubernetes(&'a Document<NetworkPolicySpec>),
    Calico(&'a Document<CalicoPolicySpec>),
}

impl<'a> Written<'a> {
    pub(super) fn location(self) -> &'a Location {
        match self {
            Self::Kubernetes(document) => &document.location,
            Self::Calico(document) => &document.location,
        }
    }

    pub(super) fn is_unusable(self) -> bool {
        match self {
            Self::Kubernetes(document) => document.unusable,
            Self::Calico(document) => document.unusable,
        }
    }

    /// The field that says whom it is for.
    fn selector(self) -> &'static str {
        match self {
            Self::Kubernetes(_) => "spec.podSelector",
            Self::Calico(_) => "spec.selector",
        }
    }

    fn error(self, problems: &mut Problems, field: &str, message: impl Into<String>) {
        match self {
            Self::Kubernetes(document) => problems.error(document, field, message),
            Self::Calico(document) => problems.error(document, field, message),
        }
    }

    fn warning(self, problems: &mut Problems, field: &str, message: impl Into<String>) {
        match self {
            Self::Kubernetes(document) => problems.warning(document, field, message),
            Self::Calico(document) => problems.warning(document, field, message),
        }
    }
}

impl Network<'_> {
    /// Reports what is without effect and what cannot be enforced. Asked when each workload has its rules.
    pub(in crate::compile) fn report(&self, problems: &mut Problems) {
        for policy in self.policies.iter().filter(|policy| !policy.written.is_unusable()) {
            if let (None, Written::Calico(document)) = (policy.tier, policy.written) {
                let tier = &document.spec.tier;
                let message = format!(
                    "there is no Tier {tier}, so the workloads that the policy selects refuse everything in its directions; \
                     create the tier, or remove this for the tier default"
                );
                problems.error(document, "spec.tier", message);
            }
            if !policy.has_room {
                let message = format!(
                    "names more workloads than there is room for: the sets that the policies of the namespace {} select may have \
                     {MOST_MEMBERS} members together, each selector that is written otherwise is a set, and others that come before \
                     have theirs; so the workloads that the policy selects refuse everything in its directions; name fewer, or the \
                     same in several policies",
                    policy.namespace.unwrap_or_default()
                );
                policy.written.error(problems, "spec", message);
                continue;
            }
            if !policy.selects_one.get() {
                let message =
                    "selects no workload, so nothing is enforced by this policy; compare the labels";
                policy.written.warning(problems, policy.written.selector(), message);
                continue;
            }
            let selected: Vec<_> = self
                .candidates
                .within(policy.namespace)
                .into_iter()
                .filter(|candidate| policy.selects(candidate, &self.namespaces))
                .collect();
            report_unenforced(policy, &selected, problems);
            for direction in [Direction::Ingress, Direction::Egress] {
                self.report_rules(policy, direction, &selected, problems);
            }
        }
    }

    /// Reports rules that select nobody, and what sidecars cannot tell apart.
    fn report_rules(
        &self,
        policy: &Compiled<'_>,
        direction: Direction,
        selected: &[&Candidate<'_>],
        problems: &mut Problems,
    ) {
        let is_explicit = selected.iter().any(|one| one.is_meshed && !one.is_redirected);
        for (number, template) in policy.templates(direction).into_iter().flatten().enumerate() {
            let field = format!("spec.{}[{number}]", direction.word());
            for peers in template.rule.conditions.iter().filter_map(|condition| match &condition.asks {
                NetworkAsks::Peer(peers) => Some(peers),
                _ => None,
            }) {
                self.report_peers(policy, (&field, direction), peers, is_explicit, problems);
            }
            for (_, name) in &template.own_ports {
                let has = |one: &&Candidate<'_>| one.named_ports.iter().any(|(port, _)| port == name);
                if !selected.iter().any(has) {
                    let message = format!(
                        "no workload that the policy selects has a port called {name}, so this allows none"
                    );
                    policy.written.warning(problems, &format!("{field}.ports"), message);
                }
            }
            if direction == Direction::Ingress && policy.written.location().path.is_some() {
                report_ports(policy, &template.rule, &field, selected, problems);
            }
        }
    }

    fn report_peers(
        &self,
        policy: &Compiled<'_>,
        (field, direction): (&str, Direction),
        peers: &[Peers],
        is_explicit: bool,
        problems: &mut Problems,
    ) {
        let list = if direction == Direction::Ingress { "from" } else { "to" };
        for (number, peer) in peers.iter().enumerate() {
            let Peers::Set(set) = peer else { continue };
            let at = match policy.written {
                Written::Kubernetes(_) => format!("{field}.{list}[{number}]"),
                Written::Calico(_) => field.to_owned(),
            };
            if self.sets.is_empty(&set.name) && policy.written.location().path.is_some() {
                policy.written.warning(problems, &at, "selects no workload, so it is about nobody");
            }
            if let Some(shared) = self.sets.shared_account(&set.name).filter(|_| is_explicit) {
                let message = format!(
                    "{} and {}, of which only the first is selected, share the service account {}; where connections are \
                     not redirected nothing tells them apart, so both are refused; give {} a service account of its own",
                    shared.inside, shared.outside, shared.account, shared.inside
                );
                policy.written.warning(problems, &at, message);
            }
        }
    }
}

/// Reports the ports of a rule for incoming connections of which no document says that a workload has them. In a cluster
/// pods need not declare theirs.
fn report_ports(
    policy: &Compiled<'_>,
    rule: &NetworkRule,
    field: &str,
    selected: &[&Candidate<'_>],
    problems: &mut Problems,
) {
    let ranges = rule.conditions.iter().filter(|condition| !condition.negated);
    let ranges = ranges.filter_map(|condition| match &condition.asks {
        NetworkAsks::Port(ports) => Some(&ports.ranges),
        _ => None,
    });
    for (first, last) in ranges.flatten() {
        let is_one = |socket: &SocketAddr| (*first..=*last).contains(&socket.port());
        if !selected.iter().any(|one| one.is_named || one.sockets.iter().any(is_one)) {
            let port = if first == last { first.to_string() } else { format!("of {first} to {last}") };
            let message = format!(
                "no document says that a workload which the policy selects has port {port}, so this is about no connection that \
                 is known; compare the numbers: they are those of the workload, and not those of a Service"
            );
            let at = match policy.written {
                Written::Kubernetes(_) => format!("{field}.ports"),
                Written::Calico(_) => format!("{field}.destination.ports"),
            };
            policy.written.warning(problems, &at, message);
        }
    }
}

/// Reports the workloads of a policy at which nothing enforces it, or not at all ports.
fn report_unenforced(policy: &Compiled<'_>, selected: &[&Candidate<'_>], problems: &mut Problems) {
    let mut report = |why: Unenforced, names: &str| {
        policy.written.warning(problems, policy.written.selector(), why.at(names));
    };
    let is_file = policy.written.location().path.is_some();
    let any_sidecar = selected.iter().any(|one| one.is_meshed);
    // In a cluster, the network may enforce it; what a sidecar enforces in part is worth a word everywhere.
    if is_file || any_sidecar {
        let without = selected.iter().filter(|one| !one.is_meshed && !one.is_of_node);
        if let Some(names) = some(without.map(|one| one.name)) {
            report(Unenforced::NoSidecar, &names);
        }
        if let Some(names) = some(selected.iter().filter(|one| one.is_of_node).map(|one| one.name)) {
            report(Unenforced::HostNetwork, &names);
        }
    }
    if policy.ingress.is_some()
        && let Some(names) = some(selected.iter().filter(|one| !one.skipped.is_empty()).map(|one| one.name))
    {
        report(Unenforced::SkippedPorts, &names);
    }
}
