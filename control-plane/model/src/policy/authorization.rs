//! All policies of one workload, in the order in which they decide: what is audited, what is denied, what is allowed.
//!
//! As in Istio: a match of a policy that denies refuses. Where no policy allows anything, all else is let in; otherwise
//! only what one of them matches.

use std::{cell::Cell, fmt, sync::Arc};

use serde::{Serialize, Serializer};

use super::{
    By, Verdict,
    condition::{Condition, Stage},
    index::Index,
    rule::{Action, Policy, Rule},
    truth::Truth,
};
use crate::facts;

/// So few rules are tried one after the other sooner than an index finds those that can match.
const FEW: usize = 4;

/// Every policy of a workload, ready to be asked.
#[derive(Clone)]
pub struct Authorization {
    policies: Vec<Policy>,
    denying: Tried,
    allowing: Tried,
    auditing: Tried,
    /// The same of those on a dry run.
    dry_denying: Tried,
    dry_allowing: Tried,
}

/// Rules of policies that do the same, in the order in which they are tried.
#[derive(Debug, Clone)]
struct Tried {
    refuse: bool,
    /// The policies, by their places: of those that allow, also ones without rules count.
    policies: Vec<usize>,
    rules: Vec<Listed>,
    index: Option<Index>,
}

/// One of the rules.
#[derive(Debug, Clone, Copy)]
struct Listed {
    /// The place of its policy.
    policy: usize,
    /// Its place in the policy.
    rule: usize,
    /// Whether nothing but a request can match it.
    needs_request: bool,
}

/// What was decided, by which policy and rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision<'p> {
    /// No policy says anything.
    Open,
    /// By a rule that allows.
    Allowed(&'p Arc<str>),
    /// By a rule that denies.
    Denied(&'p Arc<str>, Option<&'p Arc<str>>),
    /// No rule of the policies that allow matches; the first of these.
    NotAllowed(&'p Arc<str>),
    /// Only a request says; the first document that asks for one.
    Depends(&'p Arc<str>),
}

impl<'p> Decision<'p> {
    /// The verdict, if there is one; if only a request says, the document that asks for one.
    pub(super) fn verdict(self) -> Result<Option<Verdict<'p>>, &'p Arc<str>> {
        let deny = |rule, why| Verdict::Deny { rule, why, by: By::Authorization };
        Ok(Some(match self {
            Self::Open => return Ok(None),
            Self::Allowed(rule) => Verdict::Allow { rule },
            Self::Denied(rule, why) => deny(rule, why.map_or("it denies this", |why| &**why)),
            Self::NotAllowed(rule) => deny(rule, "no rule of the policies that allow something allows this"),
            Self::Depends(rule) => return Err(rule),
        }))
    }
}

/// What is to be counted and logged, whatever is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note<'p> {
    /// The document and its rule.
    pub rule: &'p Arc<str>,
    /// What it says.
    pub says: Says,
}

/// What a policy says that does not decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Says {
    /// Its AUDIT rule matches.
    Audit,
    /// Its rule that logs matches.
    Log,
    /// Without the dry run it would allow this.
    WouldAllow,
    /// Without the dry run it would deny this.
    WouldDeny,
}

impl Says {
    /// For metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Log => "log",
            Self::WouldAllow => "would-allow",
            Self::WouldDeny => "would-deny",
        }
    }
}

impl fmt::Display for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Authorization {
    /// All of `policies`; within an action they are tried as they are listed.
    pub fn new(policies: Vec<Policy>) -> Self {
        let tried = |action, dry_run| Tried::new(&policies, action, dry_run);
        Self {
            denying: tried(Action::Deny, false),
            allowing: tried(Action::Allow, false),
            auditing: Tried::audits(&policies),
            dry_denying: tried(Action::Deny, true),
            dry_allowing: tried(Action::Allow, true),
            policies,
        }
    }

    /// The policies, as they were listed.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// The rules for the workload's own `port` that ask for something of a request's token.
    pub fn about_tokens(&self, port: u16) -> impl Iterator<Item = &Rule> {
        let is_for = move |policy: &&Policy| policy.ports.as_ref().is_none_or(|ports| ports.contains(&port));
        let rules = self.policies.iter().filter(is_for).flat_map(|policy| &policy.rules);
        rules.filter(|rule| rule.conditions().any(Condition::is_about_tokens))
    }

    /// Whether there can be notes.
    pub fn has_notes(&self) -> bool {
        let noting = [&self.auditing, &self.dry_denying, &self.dry_allowing];
        noting.iter().any(|tried| !tried.policies.is_empty())
    }

    pub(super) fn decide(&self, stage: Stage<'_>) -> Decision<'_> {
        let denied = self.denying.first(&self.policies, stage);
        if let Some((policy, rule)) = denied.surely {
            return Decision::Denied(&rule.name, policy.why.as_ref());
        }
        let Some(first) = self.allowing.first_for(&self.policies, stage.connection()) else {
            return match denied.maybe {
                Some(rule) => Decision::Depends(&rule.name),
                None => Decision::Open,
            };
        };
        let allowed = self.allowing.first(&self.policies, stage);
        match (denied.maybe, allowed.surely, allowed.maybe) {
            (Some(rule), Some(_), _) | (Some(rule), None, Some(_)) | (None, None, Some(rule)) => {
                Decision::Depends(&rule.name)
            }
            (None, Some((_, rule)), _) => Decision::Allowed(&rule.name),
            (_, None, None) => Decision::NotAllowed(&first.name),
        }
    }

    /// Calls `note` with what is to be counted and logged.
    pub(super) fn notes<'p>(&'p self, stage: Stage<'_>, note: &mut dyn FnMut(Note<'p>)) {
        if let Some((_, rule)) = self.auditing.first(&self.policies, stage).surely {
            note(Note { rule: &rule.name, says: Says::Audit });
        }
        if let Some((_, rule)) = self.dry_denying.first(&self.policies, stage).surely {
            note(Note { rule: &rule.name, says: Says::WouldDeny });
        }
        let Some(policy) = self.dry_allowing.first_for(&self.policies, stage.connection()) else { return };
        note(match self.dry_allowing.first(&self.policies, stage).surely {
            Some((_, rule)) => Note { rule: &rule.name, says: Says::WouldAllow },
            None => Note { rule: &policy.name, says: Says::WouldDeny },
        });
    }

    /// How many rules are looked at until it is decided.
    #[cfg(test)]
    pub(super) fn looked_at(&self, stage: Stage<'_>) -> usize {
        let count = Cell::new(0);
        for tried in [&self.denying, &self.allowing] {
            tried.search(stage, |_| {
                count.set(count.get() + 1);
                false
            });
        }
        count.get()
    }

    /// The same policies without any index: all rules are tried one after the other.
    #[cfg(test)]
    pub(super) fn scanned(&self) -> Self {
        let mut scanned = self.clone();
        let Self { denying, allowing, auditing, dry_denying, dry_allowing, .. } = &mut scanned;
        for tried in [denying, allowing, auditing, dry_denying, dry_allowing] {
            tried.index = None;
        }
        scanned
    }
}

/// The first rules that match.
struct First<'p> {
    surely: Option<(&'p Policy, &'p Rule)>,
    /// The first that may match, as only a request says.
    maybe: Option<&'p Rule>,
}

impl Tried {
    fn new(policies: &[Policy], action: Action, dry_run: bool) -> Self {
        let is_one = |policy: &Policy| policy.action == action && policy.dry_run == dry_run;
        Self::of(policies, action != Action::Allow, is_one)
    }

    /// Audits change nothing, on a dry run or not.
    fn audits(policies: &[Policy]) -> Self {
        Self::of(policies, true, |policy| policy.action == Action::Audit)
    }

    fn of(policies: &[Policy], refuse: bool, is_one: impl Fn(&Policy) -> bool) -> Self {
        let chosen = policies.iter().enumerate().filter(|(_, policy)| is_one(policy));
        let chosen: Vec<usize> = chosen.map(|(place, _)| place).collect();
        let of_one = |policy: &usize| {
            let policy = *policy;
            let listed = move |(rule, one): (usize, &Rule)| Listed {
                policy,
                rule,
                needs_request: one.needs_request(),
            };
            policies[policy].rules.iter().enumerate().map(listed).collect::<Vec<_>>()
        };
        let rules: Vec<Listed> = chosen.iter().flat_map(of_one).collect();
        let listed = rules.iter().map(|Listed { policy, rule, .. }| &policies[*policy].rules[*rule]);
        let index = (rules.len() > FEW).then(|| Index::over(listed, refuse));
        Self { refuse, policies: chosen, rules, index }
    }

    /// The first of its policies that is for `connection`.
    fn first_for<'p>(
        &self,
        policies: &'p [Policy],
        connection: &facts::Connection<'_>,
    ) -> Option<&'p Policy> {
        self.policies.iter().map(|place| &policies[*place]).find(|policy| policy.is_for(connection))
    }

    fn first<'p>(&self, policies: &'p [Policy], stage: Stage<'_>) -> First<'p> {
        if self.rules.is_empty() {
            return First { surely: None, maybe: None };
        }
        let at = |place: usize| {
            let Listed { policy, rule, .. } = self.rules[place];
            (&policies[policy], &policies[policy].rules[rule])
        };
        // The first of which only a request says whether it matches.
        let maybe = Cell::new(None::<usize>);
        let is_surely = |place: usize| {
            let is_after = maybe.get().is_some_and(|first| first < place);
            if is_after && self.rules[place].needs_request {
                return false;
            }
            let (policy, rule) = at(place);
            if !policy.is_for(stage.connection()) {
                return false;
            }
            match rule.matches(stage, self.refuse) {
                Truth::Yes => true,
                Truth::Unknown(()) if !is_after => {
                    maybe.set(Some(place));
                    false
                }
                Truth::Unknown(()) | Truth::No => false,
            }
        };
        let surely = self.search(stage, is_surely);
        let maybe = maybe.get().filter(|maybe| surely.is_none_or(|surely| *maybe < surely));
        First { surely: surely.map(at), maybe: maybe.map(|place| at(place).1) }
    }

    /// The first rule that `matches`. It may be asked in another order.
    fn search(&self, stage: Stage<'_>, matches: impl Fn(usize) -> bool) -> Option<usize> {
        match &self.index {
            Some(index) => index.first(stage, self.refuse, matches),
            None => (0..self.rules.len()).find(|place| matches(*place)),
        }
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authorization").field(&self.policies).finish()
    }
}

impl PartialEq for Authorization {
    fn eq(&self, other: &Self) -> bool {
        self.policies == other.policies
    }
}

impl Eq for Authorization {}

impl Serialize for Authorization {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.policies.serialize(serializer)
    }
}
