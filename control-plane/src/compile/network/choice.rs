//! Which workloads are meant: what a set of them is known by.

use std::{collections::BTreeMap, fmt};

use super::candidate::Candidate;
use crate::resources::{LabelSelector, Resources};

/// The label that every namespace has: its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The labels of namespaces, each with that of its name.
#[derive(Debug)]
pub(super) struct NamespaceLabels<'a> {
    known: BTreeMap<&'a str, BTreeMap<String, String>>,
}

impl<'a> NamespaceLabels<'a> {
    pub(super) fn new(resources: &'a Resources) -> Self {
        let labels = |name: &str, labels: &BTreeMap<String, String>| {
            let mut labels = labels.clone();
            labels.insert(NAME_LABEL.to_owned(), name.to_owned());
            labels
        };
        let documents = resources.namespaces.iter();
        let known = documents.map(|document| {
            let name = &*document.name.name;
            (name, labels(name, &document.metadata.labels))
        });
        Self { known: known.collect() }
    }

    /// Whether `selector` selects `namespace`.
    fn are_selected(&self, namespace: &str, selector: &LabelSelector) -> bool {
        match self.known.get(namespace) {
            Some(labels) => selector.selects(labels),
            None => selector.selects(&BTreeMap::from([(NAME_LABEL.to_owned(), namespace.to_owned())])),
        }
    }
}

/// Some workloads. Its text is the same for choices that mean the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Choice {
    /// Those with certain labels in one namespace.
    Pods(String, LabelSelector),
    /// Those with certain labels in namespaces with certain labels.
    InNamespaces(LabelSelector, LabelSelector),
    /// Those that have a port of this name, at that port.
    Port(String),
}

impl Choice {
    /// The only namespace that its workloads are in.
    pub(super) fn namespace(&self) -> Option<&str> {
        match self {
            Self::Pods(namespace, _) => Some(namespace),
            _ => None,
        }
    }

    /// Whether `candidate` is meant. Nobody knows of one without labels, so it is not.
    pub(super) fn contains(&self, candidate: &Candidate<'_>, namespaces: &NamespaceLabels<'_>) -> bool {
        let has = |pods: &LabelSelector| candidate.labels.is_some_and(|labels| pods.selects(labels));
        let namespace = candidate.name.namespace();
        match self {
            Self::Pods(meant, pods) => meant == namespace && has(pods),
            Self::InNamespaces(meant, pods) => namespaces.are_selected(namespace, meant) && has(pods),
            Self::Port(name) => candidate.named_ports.iter().any(|(one, _)| one == name),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(namespace, pods) => write!(f, "pods {namespace}/{pods}"),
            Self::InNamespaces(namespaces, pods) => write!(f, "pods of namespaces [{namespaces}]/{pods}"),
            Self::Port(name) => write!(f, "port {name}"),
        }
    }
}
