//! What a token says.

use serde_json::{Map, Value};

use super::{CLOCK_SKEW, TokenError};

/// What a token says, as one rule reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    claims: Map<String, Value>,
    /// The claims whose texts are lists with spaces between their items.
    lists: Vec<Box<str>>,
    /// The claims as the token has them, in Base64 for URLs.
    payload: Box<str>,
    /// `ISSUER/SUBJECT`.
    principal: Option<Box<str>>,
    /// Seconds since 1970.
    expires: Option<u64>,
    not_before: Option<u64>,
}

impl Token {
    /// One that says `claims`, which is `payload` in the token.
    ///
    /// # Errors
    /// If a claim that RFC 7519 defines is not what it says.
    pub fn new(claims: Map<String, Value>, payload: impl Into<Box<str>>) -> Result<Self, TokenError> {
        let issuer = text(&claims, "iss", "its iss is no text")?;
        let subject = text(&claims, "sub", "its sub is no text")?;
        let principal = match (issuer, subject) {
            (Some(issuer), Some(subject)) if !issuer.is_empty() && !subject.is_empty() => {
                Some(format!("{issuer}/{subject}").into())
            }
            _ => None,
        };
        let is_list = |items: &Vec<Value>| items.iter().all(Value::is_string);
        match claims.get("aud") {
            None | Some(Value::String(_)) => {}
            Some(Value::Array(items)) if is_list(items) => {}
            Some(_) => return Err(TokenError::Malformed("its aud is no text and no list of texts")),
        }
        let expires = time(&claims, "exp", f64::floor, "its exp is no time")?;
        let not_before = time(&claims, "nbf", f64::ceil, "its nbf is no time")?;
        Ok(Self { principal, expires, not_before, claims, lists: Vec::new(), payload: payload.into() })
    }

    /// The same token, read by a rule that takes the texts of `lists` for lists.
    #[must_use]
    pub fn with_lists(self, lists: &[Box<str>]) -> Self {
        Self { lists: lists.to_vec(), ..self }
    }

    /// Who issued it; empty: it does not say.
    pub fn issuer(&self) -> &str {
        self.claims.get("iss").and_then(Value::as_str).unwrap_or_default()
    }

    /// `ISSUER/SUBJECT`; `None`: it does not say both.
    pub fn principal(&self) -> Option<&str> {
        self.principal.as_deref()
    }

    /// Its claims, in Base64 for URLs, without padding.
    pub fn payload(&self) -> &str {
        &self.payload
    }

    /// For whom it is.
    pub fn audiences(&self) -> impl Iterator<Item = &str> {
        self.claims.get("aud").into_iter().flat_map(items)
    }

    /// The claim to which the names of `path` lead.
    pub fn claim<S: AsRef<str>>(&self, path: &[S]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        let mut value = self.claims.get(first.as_ref())?;
        for name in rest {
            value = value.as_object()?.get(name.as_ref())?;
        }
        Some(value)
    }

    /// Whether the claim at `path` is a text, or a list with a text, for which `is_it` holds. As in Istio, numbers and
    /// the like are none.
    pub fn has_claim<S: AsRef<str>>(&self, path: &[S], is_it: impl FnMut(&str) -> bool) -> bool {
        let Some(value) = self.claim(path) else { return false };
        let is_list = || matches!(path, [only] if self.lists.iter().any(|list| **list == *only.as_ref()));
        match value {
            Value::String(text) if is_list() => text.split(' ').filter(|item| !item.is_empty()).any(is_it),
            value => items(value).any(is_it),
        }
    }

    /// Whether its time is now, in seconds since 1970.
    ///
    /// # Errors
    /// If it is over, or has not come.
    pub fn check_time(&self, now: u64) -> Result<(), TokenError> {
        if self.expires.is_some_and(|expires| now >= expires.saturating_add(CLOCK_SKEW)) {
            return Err(TokenError::Expired);
        }
        if self.not_before.is_some_and(|from| now.saturating_add(CLOCK_SKEW) < from) {
            return Err(TokenError::NotYet);
        }
        Ok(())
    }
}

/// The texts in a text or a list.
fn items(value: &Value) -> impl Iterator<Item = &str> {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter().filter_map(Value::as_str)
}

fn text<'c>(
    claims: &'c Map<String, Value>,
    name: &str,
    why: &'static str,
) -> Result<Option<&'c str>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(TokenError::Malformed(why)),
    }
}

/// A time in seconds since 1970 (NumericDate of RFC 7519), in whole seconds as `round` makes it.
fn time(
    claims: &Map<String, Value>,
    name: &str,
    round: fn(f64) -> f64,
    why: &'static str,
) -> Result<Option<u64>, TokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(seconds) = value.as_u64() {
        return Ok(Some(seconds));
    }
    match value.as_f64() {
        // More than a float holds exactly is no time that anybody means.
        Some(seconds) if (0.0..9e15).contains(&seconds) => Ok(Some(round(seconds) as u64)),
        _ => Err(TokenError::Malformed(why)),
    }
}
