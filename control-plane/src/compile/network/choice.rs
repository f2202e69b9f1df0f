//! Which workloads are meant: what a set of them is known by.

use std::{collections::BTreeMap, fmt};

use super::candidate::Candidate;
use crate::resources::{Expression, LabelSelector, Resources};

/// The label that every namespace has: its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The label that Calico gives each namespace and service account: its name.
const NAME: &str = "projectcalico.org/name";
/// Before the labels that a workload has from its namespace.
const OF_NAMESPACE: &str = "pcns.";
/// Before those that it has from its service account.
const OF_ACCOUNT: &str = "pcsa.";

/// The labels of namespaces, each with that of its name.
#[derive(Debug)]
pub(in super::super) struct NamespaceLabels<'a> {
    known: BTreeMap<&'a str, &'a BTreeMap<String, String>>,
}

impl<'a> NamespaceLabels<'a> {
    pub(in super::super) fn new(resources: &'a Resources) -> Self {
        let documents = resources.namespaces.iter();
        let known = documents.map(|document| (&*document.name.name, &document.metadata.labels));
        Self { known: known.collect() }
    }

    /// The value of the label `label` of `namespace`.
    fn value(&self, namespace: &str, label: &str) -> Option<&str> {
        // The name that is known here: the caller's may live for less long.
        let (name, labels) = self.known.get_key_value(namespace)?;
        if label == NAME_LABEL { Some(name) } else { labels.get(label).map(String::as_str) }
    }

    /// Whether `selector` selects `namespace`.
    pub(in super::super) fn are_selected(&self, namespace: &str, selector: &LabelSelector) -> bool {
        let labels = self.known.get(namespace);
        selector.selects_by(|label| match label {
            NAME_LABEL => Some(namespace),
            label => labels?.get(label).map(String::as_str),
        })
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
    /// As Calico chooses.
    Calico(Box<CalicoChoice>),
}

/// What Calico asks of workloads and of sets of addresses: all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct CalicoChoice {
    /// Their namespace.
    pub(super) namespace: Option<String>,
    /// The labels of their namespace.
    pub(super) namespaces: Option<Expression>,
    /// Their own labels.
    pub(super) selector: Option<Expression>,
    /// The names of service accounts; empty: any.
    pub(super) accounts: Vec<String>,
    /// The labels of their service account.
    pub(super) account_selector: Option<Expression>,
}

impl Choice {
    /// The only namespace that its workloads are in.
    pub(super) fn namespace(&self) -> Option<&str> {
        match self {
            Self::Pods(namespace, _) => Some(namespace),
            Self::Calico(choice) => choice.namespace.as_deref(),
            _ => None,
        }
    }

    /// Whether a set of addresses with `labels` is meant, which is in `namespace` (`None`: in none).
    pub(super) fn contains_addresses(
        &self,
        namespace: Option<&str>,
        labels: &BTreeMap<String, String>,
        namespaces: &NamespaceLabels<'_>,
    ) -> bool {
        match self {
            Self::Calico(choice) => choice.contains(namespace, labels, None, namespaces),
            _ => false,
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
            Self::Calico(choice) => candidate.labels.is_some_and(|labels| {
                let account =
                    Account { name: candidate.identity.service_account(), labels: candidate.account_labels };
                choice.contains(Some(namespace), labels, Some(account), namespaces)
            }),
        }
    }
}

/// A service account, as selectors know it.
#[derive(Debug, Clone, Copy)]
struct Account<'c> {
    name: &'c str,
    labels: Option<&'c BTreeMap<String, String>>,
}

impl<'c> Account<'c> {
    /// Calico gives each its name as a label.
    fn label(self, label: &str) -> Option<&'c str> {
        let is_name = label == NAME;
        if is_name { Some(self.name) } else { self.labels?.get(label).map(String::as_str) }
    }
}

impl CalicoChoice {
    fn contains(
        &self,
        namespace: Option<&str>,
        labels: &BTreeMap<String, String>,
        account: Option<Account<'_>>,
        namespaces: &NamespaceLabels<'_>,
    ) -> bool {
        let is_global = namespace.is_none();
        let of_namespace = |label: &str| {
            let namespace = namespace?;
            if label == NAME { Some(namespace) } else { namespaces.value(namespace, label) }
        };
        let of_account = |label: &str| account?.label(label);
        // Besides their own, they have the labels of what they belong to.
        let value = |label: &str| match label {
            "projectcalico.org/namespace" => namespace,
            "projectcalico.org/serviceaccount" => account.map(|account| account.name),
            "projectcalico.org/orchestrator" => account.map(|_| "k8s"),
            other => match (other.strip_prefix(OF_NAMESPACE), other.strip_prefix(OF_ACCOUNT)) {
                (Some(label), _) if namespace.is_some() => of_namespace(label),
                (_, Some(label)) if account.is_some() => of_account(label),
                _ => labels.get(other).map(String::as_str),
            },
        };
        let is_in = |selector: &Expression| match selector {
            Expression::Global => is_global,
            Expression::All => !is_global,
            selector => selector.selects(&of_namespace, is_global),
        };
        self.namespace.as_deref().is_none_or(|meant| namespace == Some(meant))
            && self.namespaces.as_ref().is_none_or(is_in)
            && self.selector.as_ref().is_none_or(|selector| selector.selects(&value, is_global))
            && (self.accounts.is_empty()
                || account.is_some_and(|account| self.accounts.iter().any(|name| name == account.name)))
            && self
                .account_selector
                .as_ref()
                .is_none_or(|selector| account.is_some() && selector.selects(&of_account, false))
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(namespace, pods) => write!(f, "pods {namespace}/{pods}"),
            Self::InNamespaces(namespaces, pods) => write!(f, "pods of namespaces [{namespaces}]/{pods}"),
            Self::Port(name) => write!(f, "port {name}"),
            Self::Calico(choice) => write!(f, "calico {choice:?}"),
        }
    }
}
