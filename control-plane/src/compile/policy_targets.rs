//! What the Gateway API's policies are for: which document defines a host that they name.

use std::collections::HashMap;

use super::services::{Catalog, KnownHost};
use crate::{problem::DocumentName, resources::policy_target::PolicyTarget};

/// A kind, a namespace and a name.
pub(super) type Target<'a> = (&'a str, &'a str, &'a str);

/// Every host, by the document that defines it.
pub(super) struct Targets<'s, 'c>(HashMap<Target<'s>, &'s KnownHost<'c>>);

impl<'s, 'c> Targets<'s, 'c> {
    pub(super) fn new(catalog: &'s Catalog<'c>) -> Self {
        Self(catalog.hosts().map(|host| (target(host.document()), host)).collect())
    }

    /// Why a policy in `namespace` is for nothing at `wanted`, and the remedy; `None`: it is for something.
    pub(super) fn missing(&self, namespace: &str, wanted: &PolicyTarget) -> Option<String> {
        if !wanted.is_service() {
            return Some(format!("{} cannot be a target; name a Service", wanted.kind));
        }
        let Some(host) = self.0.get(&key(namespace, wanted)) else {
            return Some(format!(
                "there is no Service {namespace}/{}; add it, or correct the name (a policy is in the namespace of its Service)",
                wanted.name
            ));
        };
        let section = wanted.section.as_deref()?;
        let mut names = host.ports.keys().filter_map(|port| host.port_name(*port));
        if names.clone().any(|name| name == section) {
            return None;
        }
        let first = names.next().map_or_else(
            || "give its ports names".to_owned(),
            |name| format!("use one of its ports' names, such as {name}"),
        );
        Some(format!("Service {namespace}/{} has no port called {section:?}; {first}", wanted.name))
    }
}

/// What `wanted` of a policy in `namespace` is known by.
pub(super) fn key<'k>(namespace: &'k str, wanted: &'k PolicyTarget) -> Target<'k> {
    (wanted.kind.as_str(), namespace, wanted.name.as_str())
}

/// What a document that defines a host is known by.
pub(super) fn target(document: &DocumentName) -> Target<'_> {
    (&document.kind, &document.namespace, &document.name)
}
