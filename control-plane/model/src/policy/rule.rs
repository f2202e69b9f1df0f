//! Policies as data: what each does with what its rules match.

use std::{collections::BTreeSet, sync::Arc};

use serde::Serialize;

use super::{
    condition::{Condition, Stage},
    truth::Truth,
};
use crate::facts;

/// What a policy does with what one of its rules matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Action {
    /// It is counted and logged; nothing else.
    Audit,
    /// It is refused.
    Deny,
    /// It may come in; once a port has such a policy, nothing else may.
    Allow,
}

/// One policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Its document, such as `AuthorizationPolicy shop/allow-web`.
    pub name: Arc<str>,
    /// What it does.
    pub action: Action,
    /// Whether what it does is only counted and logged.
    pub dry_run: bool,
    /// The workload's own ports that it is for; `None`: all.
    pub ports: Option<BTreeSet<u16>>,
    /// Any of these must match. None: nothing matches.
    pub rules: Vec<Rule>,
    /// What is said to whom it refuses, if there is more to say than that it does.
    pub why: Option<Arc<str>>,
}

/// One rule: it matches if any of `from`, any of `to` and all of `when` hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Document and rule, such as `AuthorizationPolicy shop/allow-web rule 2` (counted from 1).
    pub name: Arc<str>,
    /// Whose requests; each is a list of conditions that must all hold. None: everybody's.
    pub from: Vec<Vec<Condition>>,
    /// Which requests, in the same way. None: all.
    pub to: Vec<Vec<Condition>>,
    /// What must hold besides.
    pub when: Vec<Condition>,
}

impl Rule {
    /// A rule that matches everything.
    pub fn everything(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), from: Vec::new(), to: Vec::new(), when: Vec::new() }
    }

    /// All its conditions.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.from.iter().chain(&self.to).flatten().chain(&self.when)
    }

    /// Whether it asks anything that only requests say.
    pub fn is_about_requests(&self) -> bool {
        self.conditions().any(Condition::is_about_requests)
    }

    /// Whether nothing can match it of which only the connection is known.
    pub(super) fn needs_request(&self) -> bool {
        let any = |conditions: &[Condition]| conditions.iter().any(Condition::is_about_requests);
        let each = |alternatives: &[Vec<Condition>]| {
            !alternatives.is_empty() && alternatives.iter().all(|conditions| any(conditions))
        };
        any(&self.when) || each(&self.from) || each(&self.to)
    }

    /// Whether it matches what is known at `stage`. `refuses`: it refuses what it matches.
    pub(super) fn matches(&self, stage: Stage<'_>, refuses: bool) -> Truth {
        if matches!(stage, Stage::Opaque(_)) && !refuses && self.is_about_requests() {
            // As in Istio: such a rule lets in nothing that carries no requests, whatever else it says.
            return Truth::No;
        }
        let all = |conditions: &[Condition]| {
            let mut held = Truth::Yes;
            for condition in conditions {
                held = held & condition.holds(stage, refuses);
                if held == Truth::No {
                    break;
                }
            }
            held
        };
        let any = |alternatives: &[Vec<Condition>]| {
            let held = alternatives.iter().map(|conditions| all(conditions)).max();
            held.unwrap_or(Truth::Yes)
        };
        match any(&self.from) {
            Truth::No => Truth::No,
            from => from & any(&self.to) & all(&self.when),
        }
    }
}

impl Policy {
    /// Whether it is for `connection`.
    pub(super) fn is_for(&self, connection: &facts::Connection<'_>) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&connection.port))
    }
}
