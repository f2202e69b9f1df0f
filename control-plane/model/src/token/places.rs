//! Where a request may carry a token.

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, COOKIE},
};
use serde::{Serialize, Serializer};

use super::TokenError;

/// The places where a rule looks for tokens. With none of them, it looks in [the usual ones](Self::usual).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Places {
    /// Headers.
    pub headers: Vec<HeaderPlace>,
    /// Parameters of the query.
    pub params: Vec<Box<str>>,
    /// Cookies.
    pub cookies: Vec<Box<str>>,
}

/// A header that may hold a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderPlace {
    /// Its name.
    pub name: HeaderName,
    /// What stands before the token, whatever its case; empty: nothing.
    pub prefix: Box<str>,
}

impl Serialize for HeaderPlace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}: {}", self.name, self.prefix))
    }
}

impl Places {
    /// `Authorization: Bearer TOKEN` and the parameter `access_token`, as in Istio.
    pub fn usual() -> Self {
        let bearer = HeaderPlace { name: AUTHORIZATION, prefix: "Bearer ".into() };
        Self { headers: vec![bearer], params: vec!["access_token".into()], cookies: Vec::new() }
    }

    /// These places, or the usual ones if there are none.
    #[must_use]
    pub fn or_usual(self) -> Self {
        let is_empty = self.headers.is_empty() && self.params.is_empty() && self.cookies.is_empty();
        if is_empty { Self::usual() } else { self }
    }

    /// Calls `each` with every token, until one fails. Returns whether there was one.
    ///
    /// # Errors
    /// The first that `each` returns; or if a token is no text.
    pub(super) fn each<'r>(
        &self,
        headers: &'r HeaderMap,
        query: &'r str,
        mut each: impl FnMut(Cow<'r, str>) -> Result<(), TokenError>,
    ) -> Result<bool, TokenError> {
        let mut found = false;
        let mut one = |token: Cow<'r, str>| {
            found = true;
            each(token)
        };
        for place in &self.headers {
            for value in headers.get_all(&place.name) {
                if let Some(token) = place.token(value)? {
                    one(token.into())?;
                }
            }
        }
        if !self.params.is_empty() && !query.is_empty() {
            for (name, value) in query.split('&').map(name_and_value) {
                if self.params.iter().any(|param| **param == *decoded(name)) {
                    one(decoded(value))?;
                }
            }
        }
        if !self.cookies.is_empty() {
            for line in headers.get_all(COOKIE) {
                for (name, value) in text(line)?.split(';').map(|cookie| name_and_value(cookie.trim())) {
                    if self.cookies.iter().any(|cookie| **cookie == *name) {
                        one(value.trim_matches('"').into())?;
                    }
                }
            }
        }
        Ok(found)
    }

    /// Removes from `headers` what [`Self::each`] finds in them.
    pub(super) fn remove_from(&self, headers: &mut HeaderMap) {
        for place in &self.headers {
            let is_token = |value: &HeaderValue| !matches!(place.token(value), Ok(None));
            if headers.get_all(&place.name).iter().any(is_token) {
                headers.remove(&place.name);
            }
        }
        let is_ours =
            |cookie: &str| self.cookies.iter().any(|name| **name == *name_and_value(cookie.trim()).0);
        let lines: Vec<_> = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok()).collect();
        if self.cookies.is_empty() || !lines.iter().any(|line| line.split(';').any(is_ours)) {
            return;
        }
        let left: Vec<_> =
            lines.iter().flat_map(|line| line.split(';')).filter(|one| !is_ours(one)).collect();
        let left = left.join(";").trim().to_owned();
        headers.remove(COOKIE);
        if let Ok(left) = HeaderValue::try_from(left)
            && !left.is_empty()
        {
            headers.insert(COOKIE, left);
        }
    }

    /// `query` without what [`Self::each`] finds in it; `None`: it is the same.
    pub(super) fn query_without(&self, query: &str) -> Option<String> {
        let is_ours = |part: &&str| {
            let name = decoded(name_and_value(part).0);
            self.params.iter().any(|param| **param == *name)
        };
        if self.params.is_empty() || !query.split('&').any(|part| is_ours(&part)) {
            return None;
        }
        Some(query.split('&').filter(|part| !is_ours(part)).collect::<Vec<_>>().join("&"))
    }
}

impl HeaderPlace {
    /// The token in `value`; `None`: there is none.
    fn token<'v>(&self, value: &'v HeaderValue) -> Result<Option<&'v str>, TokenError> {
        let prefix = self.prefix.as_bytes();
        match value.as_bytes().get(..prefix.len()) {
            Some(start) if start.eq_ignore_ascii_case(prefix) => {}
            _ => return Ok(None),
        }
        Ok(Some(text(value)?[prefix.len()..].trim()))
    }
}

fn text(value: &HeaderValue) -> Result<&str, TokenError> {
    value.to_str().map_err(|_| TokenError::Malformed("it has characters that none has"))
}

fn name_and_value(text: &str) -> (&str, &str) {
    text.split_once('=').unwrap_or((text, ""))
}

/// A part of a query as apps read it. What is no text stays as it is.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return text.into();
    }
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut read, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                read.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            (b'+', ..) => {
                read.push(b' ');
                at += 1;
            }
            (other, ..) => {
                read.push(other);
                at += 1;
            }
        }
    }
    String::from_utf8(read).map_or(text.into(), Cow::Owned)
}
