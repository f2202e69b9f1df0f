//! The rules of one namespace for one host or pattern, and which of them a client follows.

use std::collections::HashMap;

use super::{
    super::{
        Problems,
        clients::{Client, Labels, SelectorTree},
    },
    Rule, RuleSet,
};
use crate::resources::export_to::ExportTo;

/// All rules of one namespace for one host or pattern. There may be a set for each namespace: none is looked for through all.
#[derive(Debug, Default)]
pub(super) struct HostRules<'a> {
    pub(super) sets: Vec<RuleSet<'a>>,
    /// The places of those that are for everybody.
    for_all: Vec<usize>,
    /// The places of those that are for all clients of some namespaces, by these.
    by_client: HashMap<&'a str, Vec<usize>>,
    /// The places of those that select clients by their labels.
    pub(super) selecting: SelectorTree<'a>,
    /// The place of the first of those that are for the same clients.
    by_clients: HashMap<(&'a ExportTo, Option<&'a Labels>), usize>,
    /// The first place with a subset of each name, and the first of those that select clients.
    by_subset: HashMap<&'a str, (usize, Option<usize>)>,
    /// The places of those with a rule that cannot be used and that select no clients.
    unusable: Vec<usize>,
    /// The places of those with a rule that cannot be used and that select clients.
    unusable_selecting: SelectorTree<'a>,
}

impl<'a> HostRules<'a> {
    pub(super) fn push(&mut self, set: RuleSet<'a>) {
        let (place, rule) = (self.sets.len(), set.policy.0);
        let export_to = &rule.spec.export_to;
        if let Some(selector) = set.selector() {
            self.selecting.insert(selector, place);
        } else {
            if export_to.is_everywhere() {
                self.for_all.push(place);
            }
            for client in export_to.namespaces(&rule.name.namespace) {
                self.by_client.entry(client).or_default().push(place);
            }
        }
        self.by_clients.entry((export_to, set.selector())).or_insert(place);
        self.defines_subsets(rule, place);
        if set.unusable.is_some() {
            self.cannot_be_used(set.selector(), place);
        }
        self.sets.push(set);
    }

    /// Adds a later rule to the first set that is for the same clients; whether there is one.
    pub(super) fn join(&mut self, rule: &'a Rule, problems: &mut Problems) -> bool {
        let clients = (&rule.spec.export_to, rule.spec.selector.as_ref());
        let Some(place) = self.by_clients.get(&clients).copied() else { return false };
        let set = &mut self.sets[place];
        let was_usable = set.unusable.is_none();
        set.join(rule, problems);
        if set.unusable.is_some() && was_usable {
            self.cannot_be_used(rule.spec.selector.as_ref(), place);
        }
        self.defines_subsets(rule, place);
        true
    }

    /// The set at `place`, which selects its clients by `selector` if it does, has a rule that cannot be used.
    fn cannot_be_used(&mut self, selector: Option<&'a Labels>, place: usize) {
        match selector {
            Some(selector) => self.unusable_selecting.insert(selector, place),
            None => {
                let after = self.unusable.partition_point(|before| *before < place);
                self.unusable.insert(after, place);
            }
        }
    }

    /// The set at `place` has the subsets of `rule`.
    fn defines_subsets(&mut self, rule: &'a Rule, place: usize) {
        let of_selecting = rule.spec.selector.is_some().then_some(place);
        for subset in &rule.spec.subsets {
            let (first, selecting) = self.by_subset.entry(&subset.name).or_insert((place, of_selecting));
            *first = place.min(*first);
            *selecting = (*selecting).into_iter().chain(of_selecting).min();
        }
    }

    /// The first with a subset of that name, of those that select clients or of all.
    pub(super) fn with_subset(&self, name: &str, is_selecting: bool) -> Option<&RuleSet<'a>> {
        let (first, selecting) = *self.by_subset.get(name)?;
        let place = if is_selecting { selecting? } else { first };
        Some(&self.sets[place])
    }

    /// The first that `client` follows, of those that `counts`: those that select it come before those for all.
    pub(super) fn find(
        &self,
        client: Client<'_>,
        counts: &dyn Fn(&RuleSet<'_>) -> bool,
    ) -> Option<&RuleSet<'a>> {
        let seen = |place: usize| counts(&self.sets[place]) && self.sets[place].is_for(client);
        let selecting = client.labels.and_then(|labels| self.selecting.first(labels, seen));
        let named = client.namespace.and_then(|namespace| self.by_client.get(namespace));
        let first = |places: &Vec<usize>| places.iter().copied().find(|place| seen(*place));
        let for_all = || [first(&self.for_all), named.and_then(first)].into_iter().flatten().min();
        Some(&self.sets[selecting.or_else(for_all)?])
    }

    /// The first that cannot be used, of those that `counts` and that may be for `client`.
    pub(super) fn unusable(
        &self,
        client: Client<'_>,
        counts: &dyn Fn(&RuleSet<'_>) -> bool,
    ) -> Option<&RuleSet<'a>> {
        let for_all = self.unusable.iter().copied().find(|place| counts(&self.sets[*place]));
        let seen = |place: usize| counts(&self.sets[place]) && self.sets[place].is_for(client);
        let selecting = client.labels.and_then(|labels| self.unusable_selecting.first(labels, seen));
        Some(&self.sets[for_all.into_iter().chain(selecting).min()?])
    }
}
