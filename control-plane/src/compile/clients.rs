//! Clients that `DestinationRule`s select by their labels: who they are, and which of their labels count.
//!
//! Of a workload's labels those count by which any rule of its namespace selects it: whoever has these together is selected by
//! the very same rules, and sees the same. Workloads with the same of them are the same clients. Those whom each rule alone
//! selects are there even if no workload is one of them: so what is wrong with a rule is told at once, and the first
//! workload that it selects is no news to any service.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_model::{WorkloadName, facts::selects, snapshot::Clients};

use crate::resources::Resources;

/// Labels of workloads, or what a rule asks of them.
pub(super) type Labels = BTreeMap<String, String>;

/// Of workloads that rules select, the labels by which they do.
pub(super) type Selected = BTreeMap<WorkloadName, Arc<Labels>>;

/// Clients by their namespace, each by those of their labels that count.
type ByLabels<'a> = BTreeMap<&'a str, BTreeSet<Arc<Labels>>>;

/// The same of those who are there.
pub(super) type There = BTreeMap<String, BTreeSet<Arc<Labels>>>;

/// The labels of clients that no rule selects.
pub(super) static NO_LABELS: Labels = BTreeMap::new();

/// Whose rules are looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client<'c> {
    /// Its namespace; `None`: one without rules.
    pub(super) namespace: Option<&'c str>,
    /// Those of its labels that count. `None`: rules that select clients are not for it, whatever they ask for.
    pub(super) labels: Option<&'c Labels>,
}

impl<'c> Client<'c> {
    /// One in `namespace` that no rule selects; `None`: in a namespace without rules.
    pub(super) fn of(namespace: Option<&'c str>) -> Self {
        Self { namespace, labels: Some(&NO_LABELS) }
    }

    /// One in `namespace` that rules select by these of its labels.
    pub(super) fn selected(namespace: &'c str, labels: &'c Labels) -> Self {
        Self { namespace: Some(namespace), labels: Some(labels) }
    }

    /// The sidecar of a server in `namespace`. As in Istio, rules that select clients say nothing of servers.
    pub(super) fn server(namespace: &'c str) -> Self {
        Self { namespace: Some(namespace), labels: None }
    }
}

/// What rules ask of the labels of clients, by namespace. One that asks for nothing selects all, and tells nobody apart.
#[derive(Debug)]
pub(super) struct Selectors<'a>(BTreeMap<&'a str, BTreeSet<&'a Labels>>);

impl<'a> Selectors<'a> {
    pub(super) fn new(resources: &'a Resources) -> Self {
        let mut all: BTreeMap<&str, BTreeSet<&Labels>> = BTreeMap::new();
        for rule in &resources.destination_rules {
            if let Some(selector) = rule.spec.selector.as_ref().filter(|selector| !selector.is_empty()) {
                all.entry(&*rule.name.namespace).or_default().insert(selector);
            }
        }
        Self(all)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of `labels` that count in `namespace`; `None`: none does.
    pub(super) fn counting(&self, namespace: &str, labels: &Labels) -> Option<Labels> {
        let selecting = self.0.get(namespace)?.iter().filter(|selector| selects(selector, labels));
        let all: Labels = selecting
            .flat_map(|selector| selector.iter().map(|(name, value)| (name.clone(), value.clone())))
            .collect();
        (!all.is_empty()).then_some(all)
    }

    /// Those of the labels of each of `workloads` that count. What is as in `previous` is the same `Arc`.
    pub(super) fn of_workloads<'w>(
        &self,
        workloads: impl Iterator<Item = (&'w WorkloadName, &'w Labels)>,
        previous: &Selected,
    ) -> Selected {
        let mut known: BTreeSet<Arc<Labels>> = BTreeSet::new();
        let mut all = Selected::new();
        if self.is_empty() {
            return all;
        }
        for (name, labels) in workloads {
            let Some(counting) = self.counting(name.namespace(), labels) else { continue };
            let before = previous.get(name).filter(|before| ***before == counting).map(Arc::clone);
            let shared = before.or_else(|| known.get(&counting).map(Arc::clone));
            let shared = shared.unwrap_or_else(|| Arc::new(counting));
            known.insert(Arc::clone(&shared));
            all.insert(name.clone(), shared);
        }
        all
    }
}

/// Those clients to whom a workload in `namespace` with these `labels` would belong.
pub fn clients_with(resources: &Resources, namespace: &str, labels: &BTreeMap<String, String>) -> Clients {
    let selected = Selectors::new(resources).counting(namespace, labels).map(Arc::new);
    Clients { namespace: namespace.into(), selected }
}

/// Those who are there.
pub(super) fn there(selected: &Selected) -> There {
    let mut there = There::new();
    for (name, labels) in selected {
        match there.get_mut(name.namespace()) {
            Some(here) => drop(here.insert(Arc::clone(labels))),
            None => drop(there.insert(name.namespace().to_owned(), BTreeSet::from([Arc::clone(labels)]))),
        }
    }
    there
}

/// All clients that rules select.
#[derive(Debug)]
pub(super) struct SelectedClients<'a> {
    /// Those who are there, and those whom each rule alone selects.
    all: ByLabels<'a>,
    /// What those ask for who select somebody that is there.
    selecting: BTreeMap<&'a str, BTreeSet<&'a Labels>>,
}

impl<'a> SelectedClients<'a> {
    /// `selected`: what [`Selectors::of_workloads`] gives.
    pub(super) fn new(selectors: &Selectors<'a>, selected: &Selected) -> Self {
        let there = there(selected);
        let (mut all, mut selecting) = (ByLabels::new(), BTreeMap::new());
        for (namespace, asked) in &selectors.0 {
            let mut here: BTreeSet<Arc<Labels>> = there.get(*namespace).cloned().unwrap_or_default();
            let is_met = |selector: &&&Labels| here.iter().any(|labels| selects(selector, labels));
            selecting.insert(*namespace, asked.iter().filter(is_met).copied().collect());
            for alone in asked.iter().filter_map(|selector| selectors.counting(namespace, selector)) {
                if !here.contains(&alone) {
                    here.insert(Arc::new(alone));
                }
            }
            all.insert(*namespace, here);
        }
        Self { all, selecting }
    }

    /// Each namespace that has some, with the labels of each of these that count.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'a str, &BTreeSet<Arc<Labels>>)> {
        self.all.iter().map(|(namespace, clients)| (*namespace, clients))
    }

    /// How many of those in `namespace` have the labels `selector`.
    pub(super) fn count(&self, namespace: &str, selector: &Labels) -> usize {
        let here = self.all.get(namespace).into_iter().flatten();
        here.filter(|labels| selects(selector, labels)).count()
    }

    /// Whether some workload in `namespace` has the labels `selector`, which some rule there asks for.
    pub(super) fn is_somebody(&self, namespace: &str, selector: &Labels) -> bool {
        self.selecting.get(namespace).is_some_and(|selecting| selecting.contains(selector))
    }
}
