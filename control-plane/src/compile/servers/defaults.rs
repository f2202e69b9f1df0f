//! The annotation `config.linkerd.io/default-inbound-policy`: who may come in at ports that no `Server` selects. That of a
//! workload goes before that of its namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_model::policy::{Action, Asks, Condition, Policy, Rule};

use super::{Selected, clients::rule_of_access};
use crate::{
    compile::Problems,
    resources::{
        Document, Resources,
        linkerd_policy::access::{ANNOTATION, Access},
    },
};

/// What namespaces say.
#[derive(Debug)]
pub(super) struct Defaults<'a> {
    namespaces: BTreeMap<&'a str, (Access, Arc<str>)>,
}

impl<'a> Defaults<'a> {
    pub(super) fn new(resources: &'a Resources, problems: &mut Problems) -> Self {
        let mut namespaces = BTreeMap::new();
        for document in &resources.namespaces {
            if let Some(access) = said(document, problems) {
                let name = format!("{} default-inbound-policy {}", document.name, access.word());
                namespaces.insert(&*document.name.name, (access, name.into()));
            }
        }
        Self { namespaces }
    }

    /// What counts for a workload, and what says it. What everybody may do needs no policy.
    pub(super) fn of(&self, workload: Selected<'_>) -> Option<(Access, Arc<str>)> {
        let own = Access::annotated(workload.annotations).map(|access| {
            let access = access.unwrap_or(Access::Deny);
            (access, format!("default-inbound-policy {} of the workload", access.word()).into())
        });
        let said = own.or_else(|| self.namespaces.get(workload.namespace).cloned());
        said.filter(|(access, _)| *access != Access::AllUnauthenticated)
    }
}

/// Reports the annotations of workloads that cannot be read.
pub(in super::super) fn report_annotations(resources: &Resources, problems: &mut Problems) {
    for document in &resources.pods {
        said(document, problems);
    }
    for document in &resources.workload_entries {
        said(document, problems);
    }
}

/// What the annotation of `document` says; what cannot be read lets nobody in.
fn said<T>(document: &Document<T>, problems: &mut Problems) -> Option<Access> {
    Some(Access::annotated(&document.metadata.annotations)?.unwrap_or_else(|message| {
        let message = format!("{message}; until then nobody is let in at ports without a Server");
        problems.error_alone(document, &format!("metadata.annotations[{ANNOTATION}]"), message);
        Access::Deny
    }))
}

/// What is asked at all ports but `others`.
pub(super) fn policies(access: Access, name: &Arc<str>, others: &BTreeSet<u16>) -> Vec<Policy> {
    let elsewhere = |rule: Rule| Rule {
        when: vec![Condition { asks: Asks::Port(others.clone()), negated: true }],
        ..rule
    };
    let policy = |action, rules| Policy {
        name: Arc::clone(name),
        action,
        dry_run: false,
        ports: None,
        rules,
        why: None,
    };
    if access == Access::Audit {
        let all = || vec![elsewhere(Rule::everything(Arc::clone(name)))];
        return vec![policy(Action::Audit, all())];
    }
    let rules = rule_of_access(access, name).map(elsewhere);
    vec![policy(Action::Allow, rules.into_iter().collect())]
}
