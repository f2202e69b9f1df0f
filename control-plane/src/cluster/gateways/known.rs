//! What is known of `Gateway`s and `ListenerSet`s, for their status. Pure.

use std::{collections::HashMap, sync::Arc};

use super::running::Running;
use crate::{
    compile::{Attached, HolderFacts},
    problem::{DocumentName, Problem},
    resources::Resources,
    status::{
        Verdicts, by_document,
        gateways::{GatewayFacts, SetFacts},
    },
};

/// See the [module](self).
pub(super) struct Known<'a> {
    resources: &'a Resources,
    problems: HashMap<&'a DocumentName, Vec<&'a Problem>>,
    attached: &'a Attached,
    running: &'a Running,
}

impl<'a> Known<'a> {
    pub(super) fn new(resources: &'a Resources, verdicts: &'a Verdicts, running: &'a Running) -> Self {
        Self { resources, problems: by_document(&verdicts.problems), attached: &verdicts.attached, running }
    }

    /// Of a `Gateway` of ours, if it is to run.
    pub(super) fn gateway(&self, name: &DocumentName, generation: i64) -> Option<GatewayFacts<'_>> {
        let alone = self.gateway_alone(name, generation)?;
        let accepted = self.attached.holders.iter().filter(|(set, facts)| {
            let is_its = (&facts.gateway.0, &facts.gateway.1) == (&name.namespace, &name.name);
            is_its && *set != name && self.set(set, 0).is_some_and(|set| set.is_accepted())
        });
        Some(GatewayFacts { sets: accepted.count(), ..alone })
    }

    /// Of a `ListenerSet` that asks for a gateway of ours.
    pub(super) fn set(&self, name: &DocumentName, generation: i64) -> Option<SetFacts<'_>> {
        let HolderFacts { gateway: (namespace, gateway), routes, overlaps } =
            self.attached.holders.get(name)?;
        let set = self.resources.listener_sets.iter().find(|set| set.name == *name)?;
        let gateway = DocumentName {
            kind: "Gateway".into(),
            namespace: Arc::clone(namespace),
            name: Arc::clone(gateway),
        };
        Some(SetFacts {
            spec: &set.spec,
            generation,
            problems: self.problems_of(name),
            attached: routes.as_deref(),
            overlaps,
            gateway: self.gateway_alone(&gateway, 0)?,
        })
    }

    /// Without its `ListenerSet`s.
    fn gateway_alone(&self, name: &DocumentName, generation: i64) -> Option<GatewayFacts<'_>> {
        let document = self.resources.gateways.iter().find(|one| one.name == *name)?;
        let facts = self.attached.holders.get(name);
        let attached = facts.and_then(|facts| facts.routes.as_deref());
        Some(GatewayFacts {
            spec: &document.spec,
            generation,
            problems: self.problems_of(name),
            attached: attached.unwrap_or_default(),
            overlaps: facts.map(|facts| facts.overlaps.as_slice()).unwrap_or_default(),
            sets: 0,
            run: self.running.get(&(Arc::clone(&name.namespace), Arc::clone(&name.name)))?,
        })
    }

    fn problems_of(&self, name: &DocumentName) -> &[&'a Problem] {
        self.problems.get(name).map(Vec::as_slice).unwrap_or_default()
    }
}
