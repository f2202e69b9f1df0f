//! `AuthorizationPolicy` to what each workload's sidecar asks: those of its namespace and of the root namespace that
//! select it, as in Istio.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use selvedge_model::{
    Authorization, ServiceKey,
    facts::selects,
    policy::{Action, Asks, Condition, MOST_RULES, Policy, Rule, TextPattern},
};

use super::{MeshSettings, Problems, hosts::service_host};
use crate::resources::{AuthorizationAction, AuthorizationPolicySpec, Document, Resources};

type Written = Document<AuthorizationPolicySpec>;

/// In an identity of a policy, this trust domain stands for the mesh's own, as in Istio.
const LOCAL_TRUST_DOMAIN: &str = "cluster.local";

/// Every policy, compiled once.
#[derive(Debug)]
pub(super) struct Authorizations<'a> {
    all: Vec<Compiled<'a>>,
    /// Those of the root namespace, and those of which it is not known in which one they are, by their places in `all`.
    everywhere: Vec<usize>,
    by_namespace: BTreeMap<&'a str, Vec<usize>>,
    /// What workloads share that are selected by the same policies.
    shared: RefCell<HashMap<Chosen, Arc<Authorization>>>,
}

/// Policies by their places in [`Authorizations::all`], and the ports that each is for.
type Chosen = Vec<(usize, Option<BTreeSet<u16>>)>;

#[derive(Debug)]
struct Compiled<'a> {
    document: &'a Written,
    policy: Policy,
    /// The hosts of the Services that it is for; `None`: it names none.
    hosts: Option<BTreeSet<String>>,
    selects_one: Cell<bool>,
}

impl Compiled<'_> {
    /// Whether it is for some workloads only.
    fn chooses(&self) -> bool {
        let spec = &self.document.spec;
        !spec.selector.is_empty() || self.hosts.is_some()
    }
}

/// What policies select a workload by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selected<'w> {
    pub(super) namespace: &'w str,
    /// `None`: nobody knows them.
    pub(super) labels: Option<&'w BTreeMap<String, String>>,
    /// The services that it is behind, by the ports that they send to.
    pub(super) services: &'w BTreeMap<u16, BTreeSet<ServiceKey>>,
}

impl<'a> Authorizations<'a> {
    pub(super) fn new(resources: &'a Resources, settings: &'a MeshSettings, problems: &mut Problems) -> Self {
        let mut policies = Self {
            all: Vec::with_capacity(resources.authorization_policies.len()),
            everywhere: Vec::new(),
            by_namespace: BTreeMap::new(),
            shared: RefCell::default(),
        };
        let services: BTreeSet<(&str, &str)> = resources
            .services
            .iter()
            .map(|service| (&*service.name.namespace, &*service.name.name))
            .collect();
        for document in &resources.authorization_policies {
            let namespace = &*document.name.namespace;
            let place = policies.all.len();
            match namespace.is_empty() || namespace == settings.root_namespace {
                true => policies.everywhere.push(place),
                false => policies.by_namespace.entry(namespace).or_default().push(place),
            }
            for service in document.spec.services.iter().flatten() {
                if !services.contains(&(namespace, service)) {
                    let message = format!(
                        "there is no Service {service} in namespace {namespace}, so this selects nothing"
                    );
                    problems.error(document, "spec.targetRefs", message);
                }
            }
            let host = |service: &String| service_host(service, namespace, &settings.cluster_domain);
            policies.all.push(Compiled {
                document,
                policy: compiled(document, settings),
                hosts: document.spec.services.as_ref().map(|services| services.iter().map(host).collect()),
                selects_one: Cell::new(false),
            });
        }
        policies
    }

    /// What the sidecar of a workload asks; as `previous` says, if that is the same.
    pub(super) fn find(
        &self,
        workload: Selected<'_>,
        previous: Option<&Arc<Authorization>>,
    ) -> Option<Arc<Authorization>> {
        let own = self.by_namespace.get(workload.namespace).map_or(&[][..], Vec::as_slice);
        let places = self.everywhere.iter().chain(own);
        if workload.labels.is_none()
            && let Some(one) = places.clone().map(|place| &self.all[*place]).find(|one| one.chooses())
        {
            let why = "nobody knows whether it selects this workload, whose document cannot be used";
            return Some(super::keep(Authorization::new(vec![refusing(&one.policy.name, why)]), previous));
        }
        let mut chosen: Chosen =
            places.filter_map(|place| Some((*place, self.ports_of(*place, workload)?))).collect();
        if chosen.is_empty() {
            return None;
        }
        // What is not possible yet (CUSTOM) refuses before all else, as it would decide before all else.
        chosen.sort_by_key(|(place, _)| self.all[*place].document.spec.action != AuthorizationAction::Custom);
        let mut shared = self.shared.borrow_mut();
        if let Some(known) = shared.get(&chosen) {
            return Some(Arc::clone(known));
        }
        let made = super::keep(self.made_of(&chosen), previous);
        shared.insert(chosen, Arc::clone(&made));
        Some(made)
    }

    /// The ports of `workload` that the policy at `place` is for (`None`: all), if it selects it.
    fn ports_of(&self, place: usize, workload: Selected<'_>) -> Option<Option<BTreeSet<u16>>> {
        let one = &self.all[place];
        let spec = &one.document.spec;
        let Some(hosts) = &one.hosts else {
            let is_meant = |labels| spec.any_workload || selects(&spec.selector, labels);
            // Of a workload whose labels nobody knows, only policies for all are asked here.
            let is_selected = workload.labels.is_none_or(is_meant);
            return is_selected.then(|| {
                one.selects_one.set(true);
                None
            });
        };
        if *one.document.name.namespace != *workload.namespace {
            return None;
        }
        let is_named = |key: &ServiceKey| hosts.contains(&*key.host);
        let behind = workload.services.iter().filter(|(_, keys)| keys.iter().any(is_named));
        let ports: BTreeSet<u16> = behind.map(|(port, _)| *port).collect();
        (!ports.is_empty()).then(|| {
            one.selects_one.set(true);
            Some(ports)
        })
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

    /// Reports what selects nothing. Asked when each workload has its policies.
    pub(super) fn report_unused(&self, problems: &mut Problems) {
        for Compiled { document, selects_one, .. } in &self.all {
            let has_selector = !document.spec.selector.is_empty() && !document.unusable;
            if has_selector && !selects_one.get() {
                let message =
                    "selects no workload, so nothing is enforced by this policy; compare the labels";
                problems.warning(document, "spec.selector.matchLabels", message);
            }
        }
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
fn in_trust_domain(pattern: &TextPattern, own: &str) -> TextPattern {
    let (TextPattern::Exact(text) | TextPattern::Prefix(text)) = pattern else { return pattern.clone() };
    match text.split_once('/') {
        Some((LOCAL_TRUST_DOMAIN, rest)) if text.split('/').count() == 5 => {
            pattern.map(|_| format!("{own}/{rest}"))
        }
        _ => pattern.clone(),
    }
}
