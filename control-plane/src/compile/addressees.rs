//! Whom documents are for: namespaces that `exportTo` names, and clients for whose labels routes ask. Where that is nobody, it is
//! told.
//!
//! What is asked for is kept, with how many workloads are that: so a change of one of these says by itself whether something
//! else is to be told.

use std::collections::{BTreeSet, HashMap, HashSet};

use selvedge_model::facts::selects;

use super::{MeshSettings, Problems, clients::Labels, some_of};
use crate::resources::{Document, Resources, VirtualServiceSpec, export_to::ExportTo};

type VirtualService = Document<VirtualServiceSpec>;

/// How many labels of clients may be asked for of the workloads of one namespace, or of all, that it is known whether there are
/// such: each is compared with workloads that have one of them.
const MOST_ASKED: usize = 1_000;

/// How many of these may begin with the same label: each workload that has it is compared with all of them.
const MOST_ALIKE: usize = 32;

/// To how many namespaces a document may be exported that it is told by these whether it asks for somebody, and not by all.
const MOST_NAMESPACES: usize = 16;

/// Whom documents are for.
#[derive(Debug, Default)]
pub(super) struct Addressees {
    /// The namespaces that `exportTo` names and of which there is no `Namespace`.
    undeclared: BTreeSet<String>,
    /// Whether documents tell which namespaces there are.
    are_known: bool,
    /// What is asked of clients wherever they are.
    everywhere: Asked,
    /// What is asked of clients in a namespace.
    in_namespace: HashMap<String, Asked>,
}

/// What is asked of the labels of some workloads.
#[derive(Debug, Default)]
struct Asked {
    /// How many workloads there are.
    workloads: usize,
    /// Each once, with how many workloads have them.
    all: Vec<(Labels, usize)>,
    /// Their places in there.
    places: HashMap<Labels, usize>,
    /// The same by the first of each, its name and its value.
    by_first: HashMap<String, HashMap<String, Vec<usize>>>,
}

impl Asked {
    fn ask(&mut self, labels: &Labels) {
        let Some((name, value)) = labels.first_key_value() else { return };
        if self.places.contains_key(labels) || self.all.len() == MOST_ASKED {
            return;
        }
        let alike = self.by_first.entry(name.clone()).or_default().entry(value.clone()).or_default();
        if alike.len() == MOST_ALIKE {
            return;
        }
        let place = self.all.len();
        alike.push(place);
        self.all.push((labels.clone(), 0));
        self.places.insert(labels.clone(), place);
    }

    /// Notes that a workload with these `labels` is there, or no longer. Whether it is the first or was the last of a sort.
    fn note(&mut self, labels: &Labels, is_there: bool) -> bool {
        let count = |count: &mut usize| match is_there {
            true => {
                *count += 1;
                *count == 1
            }
            false => {
                *count = count.saturating_sub(1);
                *count == 0
            }
        };
        let mut is_news = count(&mut self.workloads);
        for (name, value) in labels {
            let places = self.by_first.get(name).and_then(|values| values.get(value));
            for place in places.into_iter().flatten() {
                let (asked, known) = &mut self.all[*place];
                if selects(asked, labels) {
                    is_news |= count(known);
                }
            }
        }
        is_news
    }

    /// How many workloads have these `labels`; `None`: it is not known.
    fn count(&self, labels: &Labels) -> Option<usize> {
        self.places.get(labels).map(|place| self.all[*place].1)
    }
}

impl Addressees {
    pub(super) fn new(resources: &Resources, settings: &MeshSettings) -> Self {
        let mut addressees = Self {
            undeclared: undeclared(resources, settings),
            are_known: are_known(resources),
            ..Self::default()
        };
        for document in &resources.virtual_services {
            for (_, labels, namespace) in asking(document) {
                for namespace in whom(document, namespace) {
                    match namespace {
                        None => addressees.everywhere.ask(labels),
                        Some(namespace) => {
                            addressees.in_namespace.entry(namespace.to_owned()).or_default().ask(labels);
                        }
                    }
                }
            }
        }
        if addressees.ask_for_labels() {
            for entry in &resources.workload_entries {
                addressees.note(&entry.name.namespace, &entry.spec.labels, true);
            }
            for pod in &resources.pods {
                addressees.note(&pod.name.namespace, &pod.metadata.labels, true);
            }
        }
        addressees
    }

    /// Whether routes ask for labels of clients.
    pub(super) fn ask_for_labels(&self) -> bool {
        !self.everywhere.all.is_empty() || !self.in_namespace.is_empty()
    }

    /// Whether there are namespaces of which it matters whether anything is in them.
    pub(super) fn ask_for_namespaces(&self) -> bool {
        !self.undeclared.is_empty()
    }

    /// Whether `namespace` is one of these.
    pub(super) fn ask_for(&self, namespace: &str) -> bool {
        self.undeclared.contains(namespace)
    }

    /// Finds out anew which namespaces `exportTo` names of which there is no `Namespace`.
    pub(super) fn look_for_namespaces(&mut self, resources: &Resources, settings: &MeshSettings) {
        self.undeclared = undeclared(resources, settings);
    }

    /// Notes whether documents tell which namespaces there are, now that they are `resources`. Whether that is news.
    pub(super) fn note_known(&mut self, resources: &Resources) -> bool {
        let are_known = are_known(resources);
        std::mem::replace(&mut self.are_known, are_known) != are_known
    }

    /// Notes that a workload in `namespace` with these `labels` is there, or no longer. Whether something else may be to be told.
    pub(super) fn note(&mut self, namespace: &str, labels: &Labels, is_there: bool) -> bool {
        let here = self.in_namespace.get_mut(namespace);
        let is_news = here.is_some_and(|here| here.note(labels, is_there));
        self.everywhere.note(labels, is_there) || is_news
    }

    /// Reports the documents of `resources`, of which this is, that are for nobody.
    pub(super) fn report(&self, resources: &Resources, settings: &MeshSettings, problems: &mut Problems) {
        if self.are_known && !self.undeclared.is_empty() {
            let mut there = resources.inhabited();
            there.extend(declared(resources, settings));
            for document in &resources.virtual_services {
                report_exports(document, &document.spec.export_to, &there, problems);
            }
            for document in &resources.destination_rules {
                report_exports(document, &document.spec.export_to, &there, problems);
            }
            for document in &resources.service_entries {
                report_exports(document, &document.spec.export_to, &there, problems);
            }
        }
        if self.ask_for_labels() {
            resources.virtual_services.iter().for_each(|document| self.report_labels(document, problems));
        }
    }

    /// Reports the matches of `document` that ask for labels which no client has.
    fn report_labels(&self, document: &VirtualService, problems: &mut Problems) {
        for (field, labels, namespace) in asking(document) {
            let whom = whom(document, namespace);
            let asked: Vec<_> = whom.iter().filter_map(|namespace| self.asked(*namespace)).collect();
            let has_nobody = |asked: &&Asked| asked.count(labels) == Some(0);
            if asked.iter().all(|asked| asked.workloads == 0) || !asked.iter().all(has_nobody) {
                continue;
            }
            let namespaces = some_of(whom.into_iter().flatten());
            let of_whom = namespaces.map_or_else(String::new, |namespaces| format!(" of {namespaces}"));
            let message = format!(
                "no workload{of_whom} has these labels now, so this match is for nobody; compare them with those of the clients that are meant"
            );
            problems.warning(document, &field, message);
        }
    }

    fn asked(&self, namespace: Option<&str>) -> Option<&Asked> {
        match namespace {
            None => Some(&self.everywhere),
            Some(namespace) => self.in_namespace.get(namespace),
        }
    }
}

/// Whether documents tell which namespaces there are: a cluster does, and workloads in files are all that there are.
fn are_known(resources: &Resources) -> bool {
    let is_in_cluster = resources.namespaces.iter().any(|document| document.location.path.is_none());
    is_in_cluster || !resources.workload_entries.is_empty()
}

/// The namespaces that are there whether anything is in them or not.
fn declared<'r>(resources: &'r Resources, settings: &'r MeshSettings) -> impl Iterator<Item = &'r str> {
    let declared = resources.namespaces.iter().map(|document| &*document.name.name);
    declared.chain([&*settings.root_namespace, &settings.own_namespace, &settings.default_namespace])
}

/// The namespaces that `exportTo` names and that are not [`declared`].
fn undeclared(resources: &Resources, settings: &MeshSettings) -> BTreeSet<String> {
    let mut named: BTreeSet<&str> = BTreeSet::new();
    for document in &resources.virtual_services {
        named.extend(document.spec.export_to.namespaces(&document.name.namespace));
    }
    for document in &resources.destination_rules {
        named.extend(document.spec.export_to.namespaces(&document.name.namespace));
    }
    for document in &resources.service_entries {
        named.extend(document.spec.export_to.namespaces(&document.name.namespace));
    }
    for declared in declared(resources, settings) {
        named.remove(declared);
    }
    named.into_iter().map(str::to_owned).collect()
}

fn report_exports<T>(
    document: &Document<T>,
    export_to: &ExportTo,
    there: &HashSet<&str>,
    problems: &mut Problems,
) {
    let named = export_to.namespaces(&document.name.namespace);
    if let Some(nowhere) = some_of(named.filter(|namespace| !there.contains(namespace))) {
        let message = format!(
            "names {nowhere}, and there is no such namespace, nor anything in it, so this is exported to nobody there; correct the name"
        );
        problems.warning(document, "spec.exportTo", message);
    }
}

/// Each match of `document` that asks for labels of clients: its field, the labels, and the namespace for which it asks.
fn asking(document: &VirtualService) -> impl Iterator<Item = (String, &Labels, Option<&str>)> {
    let of_requests = document.spec.http.iter().flat_map(|route| {
        let asking = route.matches.iter().flatten().filter(|one| !one.condition.client.labels.is_empty());
        asking.map(move |one| {
            let client = &one.condition.client;
            let field = format!("spec.http[{}].match[{}].sourceLabels", route.index, one.index);
            (field, &client.labels, client.namespace.as_deref())
        })
    });
    let of_connections = document.spec.tcp.iter().flat_map(|route| {
        let asking = route.matches.iter().flatten().filter(|one| !one.condition.source_labels.is_empty());
        asking.map(move |one| {
            let field = format!("{}.match[{}].sourceLabels", route.field(), one.index);
            (field, &one.condition.source_labels, one.condition.source_namespace.as_deref())
        })
    });
    of_requests.chain(of_connections)
}

/// Whether a match of `document` asks for labels of clients.
pub(super) fn asks_for_labels(document: &VirtualService) -> bool {
    asking(document).next().is_some()
}

/// In which namespaces the clients are of whom a match of `document` asks something that may be for `namespace` alone; `None`: in
/// any.
fn whom<'d>(document: &'d VirtualService, namespace: Option<&'d str>) -> Vec<Option<&'d str>> {
    let export_to = &document.spec.export_to;
    // Who follows a document without hosts is said where others delegate to it.
    let is_for_any =
        export_to.is_everywhere() || document.spec.hosts.is_empty() || export_to.named() > MOST_NAMESPACES;
    match namespace {
        Some(namespace) => vec![Some(namespace)],
        None if is_for_any => vec![None],
        None => export_to.namespaces(&document.name.namespace).map(Some).collect(),
    }
}
