//! Clients that `DestinationRule`s select by their labels: who they are, and which of their labels count.
//!
//! Of a workload's labels those count by which any rule of its namespace selects it: whoever has these together is selected by
//! the very same rules, and sees the same. Workloads with the same of them are the same clients. Those whom each rule alone
//! selects are there even if no workload is one of them: so what is wrong with a rule is told at once, and the first
//! workload that it selects is no news to any service.

mod tree;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use selvedge_model::{WorkloadName, snapshot::Clients};

pub(super) use self::tree::SelectorTree;
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
pub(super) struct Selectors<'a>(BTreeMap<&'a str, Asked<'a>>);

/// What the rules of one namespace ask for.
#[derive(Debug)]
struct Asked<'a> {
    /// Each once.
    all: Vec<&'a Labels>,
    /// The places in there.
    by_labels: SelectorTree<'a>,
}

impl<'a> Asked<'a> {
    fn new(asked: BTreeSet<&'a Labels>) -> Self {
        let all: Vec<&Labels> = asked.into_iter().collect();
        let mut by_labels = SelectorTree::default();
        for (place, selector) in all.iter().copied().enumerate() {
            by_labels.insert(selector, place);
        }
        Self { all, by_labels }
    }
}

impl<'a> Selectors<'a> {
    pub(super) fn new(resources: &'a Resources) -> Self {
        let mut all: BTreeMap<&str, BTreeSet<&Labels>> = BTreeMap::new();
        for rule in &resources.destination_rules {
            if let Some(selector) = rule.spec.selector.as_ref().filter(|selector| !selector.is_empty()) {
                all.entry(&*rule.name.namespace).or_default().insert(selector);
            }
        }
        Self(all.into_iter().map(|(namespace, asked)| (namespace, Asked::new(asked))).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of `labels` that count in `namespace`; `None`: none does.
    pub(super) fn counting(&self, namespace: &str, labels: &Labels) -> Option<Labels> {
        let asked = self.0.get(namespace)?;
        let selecting = asked.by_labels.each(labels).into_iter().map(|place| asked.all[place]);
        let all: BTreeMap<&String, &String> = selecting.flatten().collect();
        let copied = all.into_iter().map(|(name, value)| (name.clone(), value.clone()));
        Some(copied.collect::<Labels>()).filter(|counting| !counting.is_empty())
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
    /// Whom each of the selectors selects that ask for something.
    by_selector: BTreeMap<&'a str, HashMap<&'a Labels, Selection>>,
}

/// How many clients a selector selects.
#[derive(Debug, Clone, Copy, Default)]
struct Selection {
    /// Of those who are there.
    there: usize,
    /// Of all.
    all: usize,
}

impl<'a> SelectedClients<'a> {
    /// `there`: what [`there`] gives.
    pub(super) fn new(selectors: &Selectors<'a>, there: &There) -> Self {
        let (mut all, mut by_selector) = (ByLabels::new(), BTreeMap::new());
        for (namespace, asked) in &selectors.0 {
            let mut here: BTreeSet<Arc<Labels>> = there.get(*namespace).cloned().unwrap_or_default();
            let mut selections = vec![Selection::default(); asked.all.len()];
            for place in here.iter().flat_map(|labels| asked.by_labels.each(labels)) {
                selections[place].there += 1;
                selections[place].all += 1;
            }
            // All labels that a selector asks for count: it selects whoever has them.
            for alone in asked.all.iter().copied() {
                if here.contains(alone) {
                    continue;
                }
                for place in asked.by_labels.each(alone) {
                    selections[place].all += 1;
                }
                here.insert(Arc::new(alone.clone()));
            }
            all.insert(*namespace, here);
            by_selector.insert(*namespace, asked.all.iter().copied().zip(selections).collect());
        }
        Self { all, by_selector }
    }

    /// Each namespace that has some, with the labels of each of these that count.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'a str, &BTreeSet<Arc<Labels>>)> {
        self.all.iter().map(|(namespace, clients)| (*namespace, clients))
    }

    /// How many of those in `namespace` have the labels `selector`, which some rule there asks for.
    pub(super) fn count(&self, namespace: &str, selector: &Labels) -> usize {
        match selector.is_empty() {
            true => self.all.get(namespace).map_or(0, BTreeSet::len),
            false => self.selection(namespace, selector).all,
        }
    }

    /// Whether some workload in `namespace` has the labels `selector`, which some rule there asks for.
    pub(super) fn is_somebody(&self, namespace: &str, selector: &Labels) -> bool {
        self.selection(namespace, selector).there > 0
    }

    fn selection(&self, namespace: &str, selector: &Labels) -> Selection {
        let here = self.by_selector.get(namespace);
        here.and_then(|here| here.get(selector)).copied().unwrap_or_default()
    }
}
