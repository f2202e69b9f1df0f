//! `XBackendTrafficPolicy`: how many retries a service may be sent, and whether sessions stay at its endpoints, for gateways
//! and sidecars alike. It counts before a `DestinationRule`: it is the word of those who run the service.
//!
//! One that cannot be used is left out, which forbids and opens nothing.

use std::collections::HashMap;

use super::{
    Problems,
    policy_targets::{Target, Targets, key, target},
    services::{Catalog, KnownHost},
};
use crate::{
    problem::{Fault, PolicyFault},
    resources::{BackendTrafficPolicySpec, Document, Resources},
};

type Policy = Document<BackendTrafficPolicySpec>;

/// Every policy, by what it is for; of each the oldest.
#[derive(Debug, Default)]
pub(super) struct BackendTraffic<'a>(HashMap<Target<'a>, &'a Policy>);

impl<'a> BackendTraffic<'a> {
    pub(super) fn new(resources: &'a Resources, catalog: &Catalog<'_>, problems: &mut Problems) -> Self {
        let mut all = Self::default();
        if resources.backend_traffic_policies.is_empty() {
            return all;
        }
        let known = Targets::new(catalog);
        for policy in &resources.backend_traffic_policies {
            let policy: &Policy = policy;
            for wanted in &policy.spec.targets {
                let (namespace, field) =
                    (&policy.name.namespace, format!("spec.targetRefs[{}]", wanted.index));
                if let Some(message) = known.missing(namespace, wanted) {
                    problems.fault(policy, &field, message, Fault::Policy(PolicyFault::NoTarget));
                    continue;
                }
                let first = *all.0.entry(key(namespace, wanted)).or_insert(policy);
                if !std::ptr::eq(first, policy) {
                    let message = format!(
                        "has no effect: {} ({}) is older and is for the same; merge them",
                        first.name, first.location
                    );
                    problems.overruled(policy, &field, message);
                }
            }
        }
        all
    }

    /// The policy for `known`.
    pub(super) fn find<'s>(&'s self, known: &'s KnownHost<'_>) -> Option<&'s Policy> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&target(known.document())).copied()
    }
}
