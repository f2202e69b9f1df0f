//! What documents of one namespace may name in another (`ReferenceGrant`).
//!
//! Only gateways ask, and those who name Secrets of a gateway: routes of a mesh need no permit
//! (<https://gateway-api.sigs.k8s.io/geps/gep-1294/#namespace-boundaries>).

use std::{collections::HashMap, sync::Arc};

use crate::{
    problem::DocumentName,
    resources::{Document, ReferenceGrantSpec, Resources, gateway::GATEWAY_GROUP, listener_set},
};

/// The group of the kind that refers: a route, one that has listeners, or one of ours.
fn group_of(kind: &str) -> &'static str {
    match kind {
        "RateLimit" => "selvedge.io",
        "DestinationRule" => "networking.istio.io",
        _ => listener_set::group_of(kind).unwrap_or(GATEWAY_GROUP),
    }
}

/// Every grant.
#[derive(Debug)]
pub(super) struct Grants<'a> {
    /// By the namespace whose objects may be named.
    by_namespace: HashMap<&'a str, Vec<&'a ReferenceGrantSpec>>,
}

/// An object that a document names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'n> {
    pub(super) group: &'n str,
    pub(super) kind: &'n str,
    pub(super) namespace: &'n str,
    pub(super) name: &'n str,
}

impl<'a> Grants<'a> {
    pub(super) fn new(resources: &'a Resources) -> Self {
        let mut by_namespace: HashMap<&str, Vec<&ReferenceGrantSpec>> = HashMap::new();
        for document in &resources.reference_grants {
            let document: &Arc<Document<ReferenceGrantSpec>> = document;
            by_namespace.entry(&document.name.namespace).or_default().push(&document.spec);
        }
        Self { by_namespace }
    }

    /// Whether `from`, which is of a kind of the Gateway API or a `RateLimit`, may name `named`.
    pub(super) fn permit(&self, from: &DocumentName, named: Named<'_>) -> bool {
        self.permit_kind((&from.kind, &from.namespace), named)
    }

    /// Whether documents of the kind and in the namespace `from` may name `named`.
    pub(super) fn permit_kind(&self, (from_kind, from): (&str, &str), named: Named<'_>) -> bool {
        if *named.namespace == *from {
            return true;
        }
        let grants = self.by_namespace.get(named.namespace).into_iter().flatten();
        let mut grants = grants.filter(|grant| {
            grant.to.iter().any(|to| {
                to.group == named.group
                    && to.kind == named.kind
                    && to.name.as_deref().is_none_or(|name| name == named.name)
            })
        });
        grants.any(|grant| {
            grant.from.iter().any(|allowed| {
                allowed.group == group_of(from_kind)
                    && allowed.kind == *from_kind
                    && allowed.namespace == *from
            })
        })
    }

    /// What is wrong where `from` may not name `named`, and the remedy.
    pub(super) fn advice(from: &DocumentName, named: Named<'_>) -> String {
        Self::advice_for((&from.kind, &from.namespace), named)
    }

    /// The same for documents of the kind and in the namespace `from`.
    pub(super) fn advice_for((from_kind, from): (&str, &str), named: Named<'_>) -> String {
        let Named { kind, namespace, name, .. } = named;
        format!(
            "no ReferenceGrant in {namespace} lets a {} of {} name {kind} {name}; add one there, or keep both in one \
             namespace",
            from_kind, from
        )
    }
}
