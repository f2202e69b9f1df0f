//! What becomes of a connection, and who says so.

use selvedge_model::Verdict;
use serde::{Deserialize, Serialize};

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// It is let in, with all its requests.
    Allowed,
    /// It is refused.
    Denied,
    /// Only its requests say.
    DependsOnTheRequest,
}

impl Outcome {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::DependsOnTheRequest => "depends on the request",
        }
    }
}

/// What becomes of a connection, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Judgement {
    /// What becomes of it.
    pub(crate) outcome: Outcome,
    /// The document, and its rule.
    pub(crate) rule: String,
    /// Why it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

impl Judgement {
    pub(in crate::explain) fn denied(rule: &str, why: &str) -> Self {
        Self { outcome: Outcome::Denied, rule: rule.to_owned(), why: Some(why.to_owned()) }
    }

    pub(in crate::explain) fn by(outcome: Outcome, rule: &str) -> Self {
        Self { outcome, rule: rule.to_owned(), why: None }
    }

    pub(in crate::explain) fn of(verdict: Verdict<'_>) -> Self {
        match verdict {
            Verdict::Allow { rule } => Self::by(Outcome::Allowed, rule),
            Verdict::Deny { rule, why, .. } => Self::denied(rule, why),
        }
    }

    /// The rule, and why it refuses.
    pub(crate) fn reason(&self) -> String {
        match &self.why {
            Some(why) => format!("{}: {why}", self.rule),
            None => self.rule.clone(),
        }
    }
}
