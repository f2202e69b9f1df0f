//! A tier: the policies that decide together before those of the next tier are asked.

use std::sync::Arc;

use serde::Serialize;

use super::{NetworkAction, NetworkRule, Party, Truth};

/// The most tiers that may have policies for one workload.
pub const MOST_TIERS: usize = 1000;

/// The policies of one tier that select a workload, for one direction (Calico's `Tier`). Without tiers there is one,
/// `default`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkTier {
    /// In the order in which they are tried.
    pub rules: Vec<NetworkRule>,
    /// The documents that select the workload, such as `NetworkPolicy shop/deny-all`.
    pub policies: Vec<Arc<str>>,
    /// What becomes of what no rule decides.
    pub otherwise: EndOfTier,
}

/// What a tier does with what no rule of it decides (Calico's `defaultAction`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub enum EndOfTier {
    /// Its policies refuse it.
    #[default]
    Deny,
    /// The next tier decides.
    Pass,
}

/// What a tier says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome<'p> {
    Allow(&'p Arc<str>),
    Deny(&'p Arc<str>, &'static str),
    /// The next tier decides, as this rule or document says.
    Next(Option<&'p Arc<str>>),
}

/// The first rule of which nobody knows whether it matches, and why.
pub(super) type Doubt<'p> = Option<(&'p Arc<str>, &'static str)>;

const NO_RULE: &str = "it selects this workload, and no rule of the policies that do so allows this";
const DENIED: &str = "it denies this";

impl NetworkTier {
    /// What it says of `party`, by the rules at `places`; no other can match. Where nobody knows whether a rule matches, it
    /// is what holds in either case.
    pub(super) fn judge<'p>(
        &'p self,
        places: impl Iterator<Item = usize>,
        party: &Party<'_>,
        doubt: &mut Doubt<'p>,
        log: &mut impl FnMut(&'p Arc<str>),
    ) -> Outcome<'p> {
        // Whether an earlier rule may leave it to the next tier, so that this one alone cannot allow it any more.
        let mut may_have_passed = false;
        for rule in places.filter_map(|place| self.rules.get(place)) {
            match (rule.matches(party), rule.action) {
                (Truth::Yes, NetworkAction::Allow) if !may_have_passed => return Outcome::Allow(&rule.name),
                (Truth::Yes, NetworkAction::Allow | NetworkAction::Pass) => {
                    return Outcome::Next(Some(&rule.name));
                }
                (Truth::Yes, NetworkAction::Deny) => return Outcome::Deny(&rule.name, DENIED),
                (Truth::Unknown(why), NetworkAction::Deny) => return Outcome::Deny(&rule.name, why),
                (Truth::Yes | Truth::Unknown(_), NetworkAction::Log) => log(&rule.name),
                (Truth::Unknown(why), NetworkAction::Allow | NetworkAction::Pass) => {
                    may_have_passed |= rule.action == NetworkAction::Pass;
                    *doubt = doubt.or(Some((&rule.name, why)));
                }
                (Truth::No, _) => {}
            }
        }
        match (self.otherwise, *doubt, self.policies.first()) {
            (EndOfTier::Pass, _, first) => Outcome::Next(first),
            (EndOfTier::Deny, Some((rule, why)), _) => Outcome::Deny(rule, why),
            (EndOfTier::Deny, None, Some(policy)) => Outcome::Deny(policy, NO_RULE),
            (EndOfTier::Deny, None, None) => Outcome::Next(None),
        }
    }
}
