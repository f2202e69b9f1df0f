//! Network policies to what each workload's sidecar asks, and the sets of workloads that they name.
//!
//! Policies of all kinds become [`Compiled`] ones: rules in an order, and whom they are for. The policies that select a
//! workload are put one after the other, tier by tier. Where none does, there are no rules.

mod calico;
mod candidate;
mod choice;
mod kubernetes;
mod report;
mod sets;
mod tiers;

use std::{
    cell::Cell,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_model::{
    Mesh, SpiffeId,
    policy::{
        MOST_RULES,
        network::{MOST_TIERS, NetworkAsks, NetworkRule, NetworkRules, NetworkTier, PartName, SetPart},
    },
};

pub(super) use self::candidate::Candidate;
pub(super) use self::choice::NamespaceLabels;
use self::{
    candidate::Candidates,
    choice::Choice,
    report::Written,
    sets::{MOST_MEMBERS, SetMaker, Sets},
    tiers::Tier,
};
use super::sharing::{ByNamespace, MadeOnce};
use crate::resources::Resources;

/// Every network policy, compiled once.
#[derive(Debug)]
pub(super) struct Network<'a> {
    candidates: Candidates<'a>,
    namespaces: NamespaceLabels<'a>,
    /// In the order in which they are asked.
    policies: Vec<Compiled<'a>>,
    /// By their places in `policies`.
    by_namespace: ByNamespace<'a>,
    sets: Sets,
    /// What workloads share that are selected by the same policies.
    shared: MadeOnce<Shared, NetworkRules>,
}

/// What makes rules the same: direction, policies by their places, the workload's own identity, the numbers of ports
/// that the rules have by name, and which of the rules that are not for all are for it.
type Shared = (Direction, Vec<usize>, Option<SpiffeId>, Vec<(String, u16)>, Vec<bool>);

/// One policy.
#[derive(Debug)]
struct Compiled<'a> {
    written: Written<'a>,
    name: Arc<str>,
    /// The namespace that it is for; `None`: all.
    namespace: Option<&'a str>,
    /// Which workloads of those; `None`: nobody knows, so that it is for each.
    chosen: Option<Choice>,
    ingress: Option<Vec<Template>>,
    egress: Option<Vec<Template>>,
    /// Its tier; `None`: there is no tier of that name, so that nobody knows what it means.
    tier: Option<Tier<'a>>,
    /// Its place among the policies of the tier: the lowest first.
    order: f64,
    selects_one: Cell<bool>,
    /// Whether there was room for the sets that it names: otherwise nobody knows what it means.
    has_room: bool,
}

/// A rule before it is known which workload it is for.
#[derive(Debug)]
struct Template {
    rule: NetworkRule,
    /// The names of ports of that workload, which belong to the ports that the condition at this place asks for.
    own_ports: Vec<(usize, String)>,
    /// The workloads that it is for, of those that the policy selects: all of these; `true`: all others.
    only: Vec<(Choice, bool)>,
}

/// From where a connection comes to a workload, or to where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl<'a> Network<'a> {
    pub(super) fn new(resources: &'a Resources, candidates: Vec<Candidate<'a>>, previous: &Mesh) -> Self {
        Self::with_room(resources, candidates, previous, MOST_MEMBERS)
    }

    /// The same, where the sets that policies of one namespace name may have `most` members.
    pub(super) fn with_room(
        resources: &'a Resources,
        candidates: Vec<Candidate<'a>>,
        previous: &Mesh,
        most: usize,
    ) -> Self {
        let candidates = Candidates::new(resources, candidates);
        let namespaces = NamespaceLabels::new(resources);
        let addresses = calico::addresses(resources);
        let mut sets = SetMaker::new(addresses, &candidates, &namespaces, &previous.sets, most);
        let mut policies = kubernetes::compiled(resources, &mut sets);
        policies.extend(calico::compiled(resources, &mut sets));
        policies.sort_by(Compiled::cmp);
        let mut by_namespace = ByNamespace::default();
        for (place, policy) in policies.iter().enumerate() {
            by_namespace.add(policy.namespace, place);
        }
        let sets = sets.made();
        Self { candidates, namespaces, policies, by_namespace, sets, shared: MadeOnce::default() }
    }

    /// Who may connect to the workload at `place`; as `previous` says, if that is the same.
    pub(super) fn ingress(
        &self,
        place: usize,
        previous: Option<&Arc<NetworkRules>>,
    ) -> Option<Arc<NetworkRules>> {
        self.rules(place, Direction::Ingress, previous)
    }

    /// Whom it may call.
    pub(super) fn egress(
        &self,
        place: usize,
        previous: Option<&Arc<NetworkRules>>,
    ) -> Option<Arc<NetworkRules>> {
        self.rules(place, Direction::Egress, previous)
    }

    fn rules(
        &self,
        place: usize,
        direction: Direction,
        previous: Option<&Arc<NetworkRules>>,
    ) -> Option<Arc<NetworkRules>> {
        let chosen = self.chosen(place, direction);
        if chosen.is_empty() {
            return None;
        }
        let candidate = self.candidates.at(place);
        let itself = self.candidates.is_alone(place).then(|| candidate.identity.clone());
        let ports = self.own_ports(&chosen, direction, candidate);
        let only = self.only(&chosen, direction, candidate);
        let key = (direction, chosen, itself, ports, only);
        Some(self.shared.get(key, previous, |key| self.made(key)))
    }

    /// The policies for one direction that select the workload at `place`, in the order in which they are asked.
    fn chosen(&self, place: usize, direction: Direction) -> Vec<usize> {
        let candidate = self.candidates.at(place);
        let mut places: Vec<usize> = self.by_namespace.places(candidate.name.namespace()).collect();
        places.sort_unstable();
        places.retain(|place| {
            let policy = &self.policies[*place];
            let is_selected = policy.selects(candidate, &self.namespaces);
            if is_selected {
                policy.selects_one.set(true);
            }
            is_selected && policy.templates(direction).is_some()
        });
        places
    }

    /// The numbers that ports have at the workload itself which rules call by name.
    fn own_ports(
        &self,
        chosen: &[usize],
        direction: Direction,
        candidate: &Candidate<'_>,
    ) -> Vec<(String, u16)> {
        let templates =
            chosen.iter().flat_map(|place| self.policies[*place].templates(direction).into_iter());
        let names: BTreeSet<&str> = templates
            .flatten()
            .flat_map(|template| &template.own_ports)
            .map(|(_, name)| name.as_str())
            .collect();
        let here = candidate.named_ports.iter().filter(|(name, _)| names.contains(name));
        here.map(|(name, port)| ((*name).to_owned(), *port)).collect()
    }

    /// Of each rule that is not for all workloads of its policy, whether it is for `candidate`.
    fn only(&self, chosen: &[usize], direction: Direction, candidate: &Candidate<'_>) -> Vec<bool> {
        let templates =
            chosen.iter().flat_map(|place| self.policies[*place].templates(direction).into_iter());
        let limited = templates.flatten().filter(|template| !template.only.is_empty());
        limited
            .map(|template| {
                let is_meant = |(choice, is_negated): &(Choice, bool)| {
                    choice.contains(candidate, &self.namespaces) != *is_negated
                };
                template.only.iter().all(is_meant)
            })
            .collect()
    }

    fn made(&self, (direction, chosen, itself, ports, only): &Shared) -> NetworkRules {
        let policies = || chosen.iter().map(|place| &self.policies[*place]);
        let refusing = |name: String| {
            let mut refusing = NetworkRules::one_tier(Vec::new(), vec![name.into()]);
            refusing.itself.clone_from(itself);
            refusing
        };
        if let Some(unusable) = policies().find(|policy| policy.written.is_unusable()) {
            return refusing(format!(
                "{} ({}), which cannot be used",
                unusable.name,
                unusable.written.location()
            ));
        }
        if let Some(lost) = policies().find(|policy| policy.tier.is_none()) {
            return refusing(format!("{}, whose tier does not exist", lost.name));
        }
        if let Some(lost) = policies().find(|policy| !policy.has_room) {
            return refusing(format!("{}, which names more workloads than there is room for", lost.name));
        }
        let tiers = || chosen.chunk_by(|one, other| self.policies[*one].tier == self.policies[*other].tier);
        let templates = || policies().flat_map(|policy| policy.templates(*direction).into_iter().flatten());
        let first = || policies().next().map_or("network policies", |one| &*one.name);
        if templates().count() > MOST_RULES || chosen.len() > MOST_RULES {
            return refusing(format!("{} and others with more than {MOST_RULES} rules", first()));
        }
        if tiers().count() > MOST_TIERS {
            return refusing(format!("{} and others of more than {MOST_TIERS} tiers", first()));
        }
        let mut only = only.iter();
        let mut is_for_it = |template: &&Template| template.only.is_empty() || only.next() == Some(&true);
        let mut made = |chosen: &[usize]| {
            let policies = || chosen.iter().map(|place| &self.policies[*place]);
            let templates = policies().flat_map(|policy| policy.templates(*direction).into_iter().flatten());
            NetworkTier {
                rules: templates.filter(&mut is_for_it).map(|template| template.at(ports)).collect(),
                policies: policies().map(|policy| Arc::clone(&policy.name)).collect(),
                otherwise: policies().find_map(|policy| policy.tier).unwrap_or_default().otherwise,
            }
        };
        NetworkRules::new(tiers().map(&mut made).collect(), itself.clone())
    }

    /// The parts of all sets.
    pub(super) fn into_sets(self) -> BTreeMap<PartName, Arc<SetPart>> {
        self.sets.into_parts()
    }
}

impl Compiled<'_> {
    /// Which of both is asked first.
    fn cmp(&self, other: &Self) -> Ordering {
        let (this, that) = (self.tier.unwrap_or_default(), other.tier.unwrap_or_default());
        this.cmp(&that)
            .then_with(|| self.order.total_cmp(&other.order))
            .then_with(|| self.name.cmp(&other.name))
    }

    fn templates(&self, direction: Direction) -> Option<&Vec<Template>> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }

    /// Whether it is for `candidate`. Where nobody knows, it is.
    fn selects(&self, candidate: &Candidate<'_>, namespaces: &NamespaceLabels<'_>) -> bool {
        let is_here = self.namespace.is_none_or(|namespace| namespace == candidate.name.namespace());
        let is_chosen =
            |chosen: &Choice| candidate.labels.is_none() || chosen.contains(candidate, namespaces);
        is_here && self.chosen.as_ref().is_none_or(is_chosen)
    }
}

impl Template {
    /// The rule at a workload whose `ports` have these names.
    fn at(&self, ports: &[(String, u16)]) -> NetworkRule {
        let mut rule = self.rule.clone();
        for (place, asked) in &self.own_ports {
            let numbers = ports.iter().filter(|(name, _)| name == asked).map(|(_, port)| (*port, *port));
            if let Some(NetworkAsks::Port(ports)) =
                rule.conditions.get_mut(*place).map(|condition| &mut condition.asks)
            {
                ports.ranges.extend(numbers);
            }
        }
        rule
    }
}
