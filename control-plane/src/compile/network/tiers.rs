//! Calico's tiers: in which order they are asked, and what becomes of what their policies do not decide.

use std::{cmp::Ordering, collections::HashMap};

use selvedge_model::policy::network::EndOfTier;

use crate::resources::{DEFAULT_TIER, DEFAULT_TIER_ORDER, Resources};

/// The tiers that there are.
#[derive(Debug)]
pub(super) struct Tiers<'a> {
    known: HashMap<&'a str, Tier<'a>>,
}

/// One tier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tier<'a> {
    name: &'a str,
    order: f64,
    pub(super) otherwise: EndOfTier,
}

impl<'a> Tiers<'a> {
    pub(super) fn new(resources: &'a Resources) -> Self {
        let mut known = HashMap::from([(DEFAULT_TIER, Tier::default())]);
        // The oldest document of a name counts: a cluster may tell of each in both groups.
        for document in resources.tiers.iter().rev().filter(|document| &*document.name.name != DEFAULT_TIER) {
            let name = &*document.name.name;
            let order = document.spec.order.unwrap_or(f64::INFINITY);
            known.insert(name, Tier { name, order, otherwise: document.spec.otherwise });
        }
        Self { known }
    }

    /// The tier `name`; `None`: there is none.
    pub(super) fn find(&self, name: &str) -> Option<Tier<'a>> {
        self.known.get(name).copied()
    }
}

impl Default for Tier<'_> {
    /// The one that is always there.
    fn default() -> Self {
        Self { name: DEFAULT_TIER, order: DEFAULT_TIER_ORDER, otherwise: EndOfTier::Deny }
    }
}

impl Tier<'_> {
    /// Which of both is asked first.
    pub(super) fn cmp(&self, other: &Self) -> Ordering {
        self.order.total_cmp(&other.order).then_with(|| self.name.cmp(other.name))
    }
}
