//! `AuthorizationPolicy` to what each workload's sidecar asks: those of its namespace and of the root namespace that
//! select it, as in Istio.

use std::sync::Arc;

use selvedge_model::{
    Authorization,
    policy::{Action, Asks, Condition, MOST_RULES, Policy, Rule, TextPattern},
};

use super::{
    MeshSettings, Problems,
    sharing::{ByNamespace, MadeOnce},
    targets::{self, ByGateway, MAY_SELECT, Ports, Selected, Targets},
    there::There,
};
use crate::resources::{AuthorizationAction, AuthorizationPolicySpec, Document, Resources};

type Written = Document<AuthorizationPolicySpec>;

/// In an identity of a policy, this trust domain stands for the mesh's own, as in Istio.
const LOCAL_TRUST_DOMAIN: &str = "cluster.local";

/// Every policy, compiled once.
#[derive(Debug)]
pub(super) struct Authorizations<'a> {
    all: Vec<Compiled<'a>>,
    /// By their places in `all`.
    by_namespace: ByNamespace<'a>,
    /// Likewise.
    by_gateway: ByGateway<'a>,
    /// What workloads share that are selected by the same policies.
    shared: MadeOnce<Chosen, Authorization>,
}

/// Policies by their places in [`Authorizations::all`], and the ports that each is for.
type Chosen = Vec<(usize, Ports)>;

#[derive(Debug)]
struct Compiled<'a> {
    document: &'a Written,
    policy: Policy,
    targets: Targets<'a>,
}

impl<'a> Authorizations<'a> {
    pub(super) fn new(resources: &'a Resources, settings: &'a MeshSettings, problems: &mut Problems) -> Self {
        let mut policies = Self {
            all: Vec::with_capacity(resources.authorization_policies.len()),
            by_namespace: ByNamespace::default(),
            by_gateway: ByGateway::default(),
            shared: MadeOnce::default(),
        };
        let there = There::new(resources, settings);
        for document in &resources.authorization_policies {
            let namespace = &*document.name.namespace;
            policies.by_namespace.add(targets::only_namespace(namespace, settings), policies.all.len());
            let targets = Targets::of_authorization(document, settings);
            policies.by_gateway.add(&targets, policies.all.len());
            targets.report_missing(document, &there, problems);
            policies.all.push(Compiled { document, policy: compiled(document, settings), targets });
        }
        policies
    }

    /// What the sidecar of a workload asks; as `previous` says, if that is the same.
    pub(super) fn find(
        &self,
        workload: Selected<'_>,
        previous: Option<&Arc<Authorization>>,
    ) -> Option<Arc<Authorization>> {
        let places = self.by_namespace.places(workload.namespace);
        if workload.labels.is_none()
            && let Some(one) = places.clone().map(|place| &self.all[place]).find(|one| one.targets.chooses())
        {
            return Some(super::keep(
                Authorization::new(vec![refusing(&one.policy.name, MAY_SELECT)]),
                previous,
            ));
        }
        let places = self.by_gateway.with(places, workload);
        let mut chosen: Chosen =
            places.filter_map(|place| Some((place, self.all[place].targets.ports(workload)?))).collect();
        if chosen.is_empty() {
            return None;
        }
        // What is not possible yet (CUSTOM) refuses before all else, as it would decide before all else.
        chosen.sort_by_key(|(place, _)| self.all[*place].document.spec.action != AuthorizationAction::Custom);
        Some(self.shared.get(chosen, previous, |chosen| self.made_of(chosen)))
    }

    fn made_of(&self, chosen: &Chosen) -> Authorization {
        let policies = chosen
            .iter()
            .map(|(place, ports)| Policy { ports: ports.clone(), ..self.all[*place].policy.clone() });
        let policies: Vec<Policy> = policies.collect();
        if policies.iter().map(|policy| policy.rules.len()).sum::<usize>() > MOST_RULES {
            let name = &policies[0].name;
            let why =
                format!("its policies have more than {MOST_RULES} rules together, so everything is denied");
            return Authorization::new(vec![refusing(name, why)]);
        }
        Authorization::new(policies)
    }
}

/// A policy that refuses everything.
fn refusing(name: &Arc<str>, why: impl Into<Arc<str>>) -> Policy {
    Policy {
        name: Arc::clone(name),
        action: Action::Deny,
        dry_run: false,
        ports: None,
        rules: vec![Rule::everything(Arc::clone(name))],
        why: Some(why.into()),
    }
}

fn compiled(document: &Written, settings: &MeshSettings) -> Policy {
    let spec = &document.spec;
    let name: Arc<str> = document.name.to_string().into();
    if document.unusable {
        let name = format!("{name} ({}), which cannot be used", document.location).into();
        return refusing(&name, "it denies everything until it is repaired");
    }
    let action = match spec.action {
        AuthorizationAction::Allow => Action::Allow,
        AuthorizationAction::Deny => Action::Deny,
        AuthorizationAction::Audit => Action::Audit,
        AuthorizationAction::Custom => {
            let why = "it asks for an external authorizer (CUSTOM), which this version cannot ask";
            return Policy { dry_run: spec.dry_run, ..refusing(&name, why) };
        }
    };
    let named = |(number, rule): (usize, &Rule)| {
        let all =
            |list: &[Condition]| list.iter().map(|one| resolved(one, document, settings)).collect::<Vec<_>>();
        Rule {
            name: format!("{name} rule {}", number + 1).into(),
            from: rule.from.iter().map(|list| all(list)).collect(),
            to: rule.to.clone(),
            when: all(&rule.when),
        }
    };
    let rules = spec.rules.iter().enumerate().map(named).collect();
    Policy { name: Arc::clone(&name), action, dry_run: spec.dry_run, ports: None, rules, why: None }
}

/// `condition` with whole identities: what it says of the mesh's own trust domain and of the policy's own namespace.
fn resolved(condition: &Condition, document: &Written, settings: &MeshSettings) -> Condition {
    let asks = match &condition.asks {
        Asks::Principal(set) => {
            let own = settings.trust_domain.as_str();
            Asks::Principal(set.patterns().map(|pattern| in_trust_domain(&pattern, own)).collect())
        }
        Asks::ServiceAccount(set) => {
            Asks::ServiceAccount(set.map(|account| match account.strip_prefix('/') {
                Some(account) => format!("{}/{account}", document.name.namespace),
                None => account.to_owned(),
            }))
        }
        other => other.clone(),
    };
    Condition { asks, negated: condition.negated }
}

/// A pattern of identities with `own` in the place of the trust domain that stands for it. As in Istio, only a pattern of
/// all five parts of an identity has a trust domain.
pub(super) fn in_trust_domain(pattern: &TextPattern, own: &str) -> TextPattern {
    let (TextPattern::Exact(text) | TextPattern::Prefix(text)) = pattern else { return pattern.clone() };
    match text.split_once('/') {
        Some((LOCAL_TRUST_DOMAIN, rest)) if text.split('/').count() == 5 => {
            pattern.map(|_| format!("{own}/{rest}"))
        }
        _ => pattern.clone(),
    }
}
