//! Which keys documents want.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    problem::Severity,
    resources::{Document, KeyAddress, KeySource, RequestAuthenticationSpec, Resources},
};

/// The most addresses that the documents of one namespace may name: each costs memory here and a fetch.
pub(super) const MOST_IN_NAMESPACE: usize = 100;

/// One address that documents name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// How long a fetch may take: the longest that a rule allows.
    pub(super) timeout: Duration,
    /// The first namespace that names it; it counts against that one's limits.
    pub(super) namespace: Arc<str>,
    /// Whether the namespace names more than [`MOST_IN_NAMESPACE`] before it.
    pub(super) is_too_many: bool,
}

/// Every address that documents of `resources` name. If those of a namespace name more than [`MOST_IN_NAMESPACE`], the
/// addresses of its oldest documents are fetched and the others are not.
pub(super) fn wanted(resources: &Resources) -> BTreeMap<KeyAddress, Wanted> {
    let mut all = BTreeMap::<KeyAddress, Wanted>::new();
    let mut counts = BTreeMap::<&str, usize>::new();
    for document in resources.request_authentications.iter().filter(|document| !document.unusable) {
        let namespace = &document.name.namespace;
        for rule in &document.spec.rules {
            let KeySource::Fetched { address, timeout } = &rule.keys else { continue };
            if let Some(wanted) = all.get_mut(address).filter(|wanted| !wanted.is_too_many) {
                wanted.timeout = wanted.timeout.max(*timeout);
                continue;
            }
            let count = counts.entry(namespace).or_default();
            *count += 1;
            let is_too_many = *count > MOST_IN_NAMESPACE;
            let wanted = Wanted { timeout: *timeout, namespace: Arc::clone(namespace), is_too_many };
            all.insert(address.clone(), wanted);
        }
    }
    all
}

/// What a command that fetches no keys cannot know: for each rule whose keys are fetched, where it stands and from where.
pub fn left_to_fetch(resources: &Resources) -> Vec<String> {
    let documents = resources.request_authentications.iter().filter(|document| !document.unusable);
    let of_one = |document: &Arc<Document<RequestAuthenticationSpec>>| {
        let rules = document.spec.rules.iter().enumerate();
        let fetched = rules.filter_map(|(number, rule)| match &rule.keys {
            KeySource::Fetched { address, .. } => Some((number, address)),
            KeySource::Inline(_) => None,
        });
        let told = fetched.map(|(number, address)| {
            let field = format!("spec.jwtRules[{number}].{}", address.field());
            let message =
                format!("the control plane fetches the keys of {}; nothing is fetched here", address.url);
            document.problem(Severity::NotActedOn, &field, message).to_string()
        });
        told.collect::<Vec<_>>()
    };
    documents.flat_map(of_one).collect()
}
