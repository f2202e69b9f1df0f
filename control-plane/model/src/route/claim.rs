//! A match on a claim of a request's token (Istio: "JWT claim based routing").
//!
//! The token is the one that the proxy has verified for this request. Without one there are no claims.

use std::borrow::Cow;

use serde_json::Value;

use super::StringMatch;
use crate::token::Token;

/// What the name of every claim begins with, in any case.
const PREFIX: &str = "@request.auth.claims";
/// The most names that lead to one claim.
const LONGEST_PATH: usize = 16;

/// The names that lead from claim to claim, such as `[realm][roles]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath {
    names: Box<[Box<str>]>,
    /// With each name in brackets, so that one path has one text.
    text: Box<str>,
}

impl AsRef<str> for ClaimPath {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl ClaimPath {
    /// The path that `text` is, as `@request.auth.claims.a.b` or `@request.auth.claims[a][b]`. `None`: it is no claim's name
    /// at all; `Some(None)`: it begins like one, and names none.
    pub(super) fn parse(text: &str) -> Option<Option<Self>> {
        let start = text.get(..PREFIX.len()).filter(|start| start.eq_ignore_ascii_case(PREFIX))?;
        Some(Self::names(&text[start.len()..]).filter(|names| names.len() <= LONGEST_PATH).map(Self::new))
    }

    fn names(rest: &str) -> Option<Vec<&str>> {
        let names: Vec<&str> = match rest.strip_prefix('.') {
            // A bracket in such a name is more likely a slip of the pen.
            Some(rest) if rest.contains(['[', ']']) => return None,
            Some(rest) => rest.split('.').collect(),
            None => rest.strip_prefix('[')?.strip_suffix(']')?.split("][").collect(),
        };
        names.iter().all(|name| !name.is_empty()).then_some(names)
    }

    fn new(names: Vec<&str>) -> Self {
        let text = format!("{PREFIX}[{}]", names.join("][")).into();
        Self { names: names.into_iter().map(Box::from).collect(), text }
    }

    /// Whether the claim of `token` is what is `wanted`: a text, or a list with such a text. As in Istio, numbers and the
    /// like are none; but they are there. `None`: there is no such claim.
    pub(super) fn is_match(&self, wanted: &StringMatch, token: Option<&Token>) -> Option<bool> {
        let token = token?;
        token.claim(&self.names)?;
        Some(*wanted == StringMatch::Present || token.has_claim(&self.names, |text| wanted.is_match(text)))
    }

    /// The claim of `token`, as JSON if it is no text.
    pub(super) fn shown<'a>(&self, token: Option<&'a Token>) -> Option<Cow<'a, str>> {
        Some(match token?.claim(&self.names)? {
            Value::String(text) => Cow::Borrowed(text.as_str()),
            other => Cow::Owned(other.to_string()),
        })
    }
}

#[cfg(test)]
mod tests;
