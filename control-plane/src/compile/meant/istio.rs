//! Istio's policies, and our `RateLimit`.

use std::collections::BTreeSet;

use selvedge_model::policy::{Asks, Condition, Rule, TextPattern};

use super::{
    super::{MeshSettings, Problems, targets::Targets},
    Asked, Chosen, account_of, nobody_has, only_opaque, opaque_port, report_ports, report_unenforced,
};
use crate::resources::{
    AuthorizationAction, AuthorizationPolicySpec, Document, PeerAuthenticationSpec, RateLimitSpec, Resources,
};

impl Asked<'_, '_> {
    pub(super) fn peer_authentications(&self, resources: &Resources, problems: &mut Problems) {
        let in_root = |policy: &Document<PeerAuthenticationSpec>| {
            *policy.name.namespace == *self.settings.root_namespace
        };
        for policy in &resources.peer_authentications {
            // One without a selector is for whatever comes, and in the root namespace a selector is an error.
            if policy.unusable || policy.spec.selector.is_empty() || in_root(policy) {
                continue;
            }
            let namespace = &*policy.name.namespace;
            let targets = Targets::new(namespace, &policy.spec.selector, None, self.settings);
            let chosen = self.chosen(namespace, &targets);
            if chosen.is_empty() {
                let message =
                    "selects no workload, so nothing is enforced by this policy; compare the labels";
                problems.warning(policy, "spec.selector.matchLabels", message);
            }
            report_unenforced(policy, "spec.selector", &chosen, problems);
            for port in policy.spec.ports.keys() {
                report_ports(policy, &format!("spec.portLevelMtls.{port}"), [*port], &chosen, problems);
            }
        }
    }

    pub(super) fn authorizations(&self, resources: &Resources, problems: &mut Problems) {
        for policy in resources.authorization_policies.iter().filter(|policy| !policy.unusable) {
            let (namespace, spec) = (&*policy.name.namespace, &policy.spec);
            let targets = Targets::of_authorization(policy, self.settings);
            let chosen = self.chosen(namespace, &targets);
            report_unused(policy, &chosen, problems);
            if spec.action == AuthorizationAction::Custom {
                continue;
            }
            // One for the whole mesh is for those that have a sidecar.
            if targets.chooses() || namespace != self.settings.root_namespace {
                let field = if spec.services.is_some() { "spec.targetRefs" } else { "spec.selector" };
                report_unenforced(policy, field, &chosen, problems);
            }
            for (number, rule) in spec.rules.iter().enumerate() {
                self.rule(policy, &format!("spec.rules[{number}]"), rule, &chosen, problems);
            }
        }
    }

    fn rule(
        &self,
        policy: &Document<AuthorizationPolicySpec>,
        field: &str,
        rule: &Rule,
        chosen: &[Chosen<'_, '_>],
        problems: &mut Problems,
    ) {
        let from = rule.from.iter().enumerate();
        let from = from.map(|(number, all)| (format!("{field}.from[{number}].source"), all));
        let to = rule.to.iter().enumerate();
        let to = to.map(|(number, all)| (format!("{field}.to[{number}].operation"), all));
        for (field, conditions) in from.chain(to).chain([(format!("{field}.when"), &rule.when)]) {
            self.accounts(policy, &field, conditions, problems);
            report_ports(policy, &field, ports(conditions).unwrap_or_default(), chosen, problems);
        }
        report_opaque(policy, field, rule, chosen, problems);
    }

    /// Reports service accounts that nobody has.
    fn accounts(
        &self,
        policy: &Document<AuthorizationPolicySpec>,
        field: &str,
        conditions: &[Condition],
        problems: &mut Problems,
    ) {
        if policy.location.path.is_none() {
            return;
        }
        for named in conditions.iter().flat_map(|condition| named_by(condition, policy)) {
            let missing = match &named {
                Named::Principal(text) => self.missing_account(text),
                Named::Account(namespace, name) => {
                    (!self.is_account(namespace, name)).then_some((&**namespace, &**name))
                }
            };
            if let Some(missing) = missing {
                problems.warning(policy, field, nobody_has(missing));
            }
        }
    }

    pub(super) fn authentications(&self, resources: &Resources, problems: &mut Problems) {
        for document in resources.request_authentications.iter().filter(|document| !document.unusable) {
            let (namespace, spec) = (&*document.name.namespace, &document.spec);
            let targets = Targets::new(namespace, &spec.selector, spec.services.as_deref(), self.settings)
                .with_gateways(&spec.gateways);
            let chosen = self.chosen(namespace, &targets);
            if targets.chooses() {
                let field = if spec.services.is_some() { "spec.targetRefs" } else { "spec.selector" };
                report_unenforced(document, field, &chosen, problems);
                if let Some((name, port)) = only_opaque(&chosen) {
                    let message = format!(
                        "port {port} of {name} carries no HTTP, and it has no other port with requests, so no token is checked \
                         there; call the Service's port http if it does speak HTTP"
                    );
                    problems.warning(document, field, message);
                }
            }
        }
    }

    pub(super) fn rate_limits(&self, resources: &Resources, problems: &mut Problems) {
        // What one says of Services is told where they are looked for.
        let selecting = |document: &&Document<RateLimitSpec>| document.spec.targets.is_empty();
        let all = resources.rate_limits.iter().map(|document| &**document);
        for document in all.filter(selecting) {
            let namespace = &*document.name.namespace;
            let targets = Targets::new(namespace, &document.spec.selector, None, self.settings);
            if !targets.chooses() {
                continue;
            }
            let chosen = self.chosen(namespace, &targets);
            report_unenforced(document, "spec.selector", &chosen, problems);
            if let Some((name, port)) = only_opaque(&chosen) {
                let message = format!(
                    "port {port} of {name} carries no HTTP, and it has no other port with requests, so nothing is limited \
                     there; call the Service's port http if it does speak HTTP"
                );
                problems.warning(document, "spec.selector", message);
            }
        }
    }
}

/// A service account that a condition asks for.
enum Named {
    /// By the identity that it has.
    Principal(Box<str>),
    /// By its namespace and name.
    Account(String, String),
}

/// The service accounts that `condition` of `policy` asks for by their whole names.
fn named_by(condition: &Condition, policy: &Document<AuthorizationPolicySpec>) -> Vec<Named> {
    let (Asks::Principal(set) | Asks::ServiceAccount(set)) = &condition.asks else { return Vec::new() };
    let is_principal = matches!(condition.asks, Asks::Principal(_));
    let named = set.patterns().filter(|_| !condition.negated).filter_map(|pattern| {
        let TextPattern::Exact(text) = pattern else { return None };
        if is_principal {
            return Some(Named::Principal(text));
        }
        let (namespace, name) = text.split_once("/sa/")?;
        let namespace = if namespace.is_empty() { &*policy.name.namespace } else { namespace };
        Some(Named::Account(namespace.to_owned(), name.to_owned()))
    });
    named.collect()
}

/// The namespaces and names of the service accounts of this mesh of which it is said if nobody has them, if `policy` names them. In a
/// cluster that is not said.
pub(in super::super) fn accounts_named<'p>(
    policy: &'p Document<AuthorizationPolicySpec>,
    settings: &'p MeshSettings,
) -> impl Iterator<Item = (String, String)> + 'p {
    let rules = policy.spec.rules.iter().filter(|_| policy.location.path.is_some() && !policy.unusable);
    let named = rules.flat_map(Rule::conditions).flat_map(|condition| named_by(condition, policy));
    named.filter_map(|named| match named {
        Named::Account(namespace, name) => Some((namespace, name)),
        Named::Principal(text) => {
            let (namespace, name) = account_of(&text, settings)?;
            Some((namespace.to_owned(), name.to_owned()))
        }
    })
}

/// Reports a policy that selects nothing, or asks for tokens where none are accepted.
fn report_unused(
    policy: &Document<AuthorizationPolicySpec>,
    chosen: &[Chosen<'_, '_>],
    problems: &mut Problems,
) {
    let of_tokens =
        |condition: &Condition| matches!(condition.asks, Asks::RequestPrincipal(_) | Asks::Claim(..));
    let known = || chosen.iter().map(|(one, _)| one).filter(|one| one.selected.labels.is_some());
    let asks = policy.spec.action != AuthorizationAction::Custom
        && policy.spec.rules.iter().any(|rule| rule.conditions().any(of_tokens));
    if asks && known().any(|one| one.workload.policy.authentication.is_none()) {
        let message = "asks for what a token says, and a workload that it selects accepts no tokens, so no request \
                       there has it; add a RequestAuthentication for that workload";
        problems.warning(policy, "spec.rules", message);
    }
    if !policy.spec.selector.is_empty() && known().next().is_none() {
        let message = "selects no workload, so nothing is enforced by this policy; compare the labels";
        problems.warning(policy, "spec.selector.matchLabels", message);
    }
}

/// The ports that conditions, which must all hold, ask for; `None`: they ask for none.
fn ports(conditions: &[Condition]) -> Option<BTreeSet<u16>> {
    let asked = conditions.iter().filter(|condition| !condition.negated);
    let asked = asked.filter_map(|condition| match &condition.asks {
        Asks::Port(ports) => Some(ports.clone()),
        _ => None,
    });
    asked.reduce(|one, other| &one & &other)
}

/// Reports a rule that asks for what only requests say, where a port that it is for has none.
fn report_opaque(
    policy: &Document<AuthorizationPolicySpec>,
    field: &str,
    rule: &Rule,
    chosen: &[Chosen<'_, '_>],
    problems: &mut Problems,
) {
    let asks_requests = |conditions: &[Condition]| conditions.iter().any(Condition::is_about_requests);
    let always = asks_requests(&rule.when)
        || !rule.from.is_empty() && rule.from.iter().all(|conditions| asks_requests(conditions));
    let everywhere = [Vec::new()];
    let to = if rule.to.is_empty() { &everywhere[..] } else { &rule.to[..] };
    for (number, conditions) in to.iter().enumerate() {
        if !always && !asks_requests(conditions) {
            continue;
        }
        let asked = [ports(conditions), ports(&rule.when)];
        let is_asked = |port: u16| asked.iter().flatten().all(|ports| ports.contains(&port));
        let Some((name, port)) = opaque_port(chosen, is_asked) else { continue };
        let field = match rule.to.is_empty() {
            true => field.to_owned(),
            false => format!("{field}.to[{number}].operation"),
        };
        let here = format!(
            "asks for what only HTTP requests say, and port {port} of {name} carries no HTTP, so there it"
        );
        let message = match policy.spec.action {
            AuthorizationAction::Allow => {
                format!("{here} allows nothing; allow what may come there in a rule without these fields")
            }
            AuthorizationAction::Deny => format!(
                "{here} denies whatever the rest of the rule is for; leave the port out with operation.ports if that is not meant"
            ),
            AuthorizationAction::Audit | AuthorizationAction::Custom => {
                format!("{here} takes note of whatever the rest of the rule is for")
            }
        };
        problems.warning(policy, &field, message);
    }
}
