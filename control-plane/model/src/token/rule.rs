//! Whose tokens a workload accepts, and the verdict on a request.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use http::{HeaderMap, HeaderName};
use serde::{Serialize, Serializer};

use super::{ClaimHeader, LONGEST_TOKEN, MOST_TOKENS, Places, Token, TokenError, output::reads_as};

/// One rule: the tokens of one issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenRule {
    /// Document and rule, such as `RequestAuthentication shop/jwt rule 1` (counted from 1).
    pub name: Arc<str>,
    /// Who issues them; `None`: nobody knows, and each token is refused because there are no keys.
    pub issuer: Option<Box<str>>,
    /// For whom they must be, any of these; none: for anybody.
    pub audiences: Vec<Box<str>>,
    /// What they are signed with.
    pub keys: Keys,
    /// The URL at which the control plane fetches the keys; `None`: the document has them.
    pub keys_from: Option<Arc<str>>,
    /// Where they are.
    pub places: Places,
    /// Whether the app gets them.
    pub forward: bool,
    /// The header that tells the app all claims, in Base64 for URLs.
    #[serde(serialize_with = "names")]
    pub payload_header: Option<HeaderName>,
    /// The headers that tell the app a claim each.
    pub claim_headers: Vec<ClaimHeader>,
    /// The claims whose texts are lists with spaces between their items.
    pub lists: Vec<Box<str>>,
    /// The workload's own ports that it is for; `None`: all.
    pub ports: Option<BTreeSet<u16>>,
}

/// The keys of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// A JSON Web Key Set (RFC 7517).
    Known(Arc<str>),
    /// None; why not, for operators.
    Missing(Arc<str>),
}

impl Serialize for Keys {
    /// Public keys are long and say nothing to anybody.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(set) => serializer.collect_str(&format_args!("known, {} bytes", set.len())),
            Self::Missing(why) => serializer.collect_str(&format_args!("missing: {why}")),
        }
    }
}

fn names<S: Serializer>(name: &Option<HeaderName>, serializer: S) -> Result<S::Ok, S::Error> {
    name.as_ref().map(HeaderName::as_str).serialize(serializer)
}

/// All rules about tokens that a workload has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Authentication {
    /// The rules, each tried in this order.
    pub rules: Vec<TokenRule>,
}

/// A request with a token that is accepted.
#[derive(Debug, Clone)]
pub struct Accepted<'a> {
    /// The rule that accepts it.
    pub rule: &'a TokenRule,
    /// What it says.
    pub token: Arc<Token>,
}

/// A request whose token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused<'a> {
    /// The rule that says so.
    pub rule: &'a TokenRule,
    /// Why.
    pub error: TokenError,
}

/// The lists that every rule has, as in Istio.
const USUAL_LISTS: [&str; 2] = ["scope", "permission"];

impl TokenRule {
    /// [`Self::lists`] of a rule that names `more`.
    pub fn lists_with(more: impl IntoIterator<Item = String>) -> Vec<Box<str>> {
        USUAL_LISTS.into_iter().map(Box::from).chain(more.into_iter().map(String::into_boxed_str)).collect()
    }

    /// Whether it is for the workload's own `port`.
    pub fn is_for(&self, port: u16) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }

    /// Whether it accepts what `token` says, now (in seconds since 1970), if that is signed.
    ///
    /// # Errors
    /// If it does not.
    pub fn check(&self, token: &Token, now: u64) -> Result<(), TokenError> {
        if self.issuer.as_deref().is_some_and(|issuer| issuer != token.issuer()) {
            return Err(TokenError::Issuer);
        }
        let is_meant =
            |audience: &str| self.audiences.iter().any(|own| plain_audience(own) == plain_audience(audience));
        if !self.audiences.is_empty() && !token.audiences().any(is_meant) {
            return Err(TokenError::Audience);
        }
        token.check_time(now)?;
        match &self.keys {
            Keys::Known(_) if self.issuer.is_some() => Ok(()),
            Keys::Known(_) => Err(TokenError::NoKeys(Arc::from("the issuer is not known"))),
            Keys::Missing(why) => Err(TokenError::NoKeys(Arc::clone(why))),
        }
    }

    /// The last of a request's tokens, of which all must be accepted: an app may read any. `None`: there is none.
    fn tokens(
        &self,
        headers: &HeaderMap,
        query: &str,
        mut verify: impl FnMut(&str) -> Result<Arc<Token>, TokenError>,
    ) -> Result<Option<Arc<Token>>, TokenError> {
        let (mut last, mut count) = (None, 0);
        self.places.each(headers, query, |token: Cow<'_, str>| {
            count += 1;
            if count > MOST_TOKENS {
                return Err(TokenError::TooMany);
            }
            if token.len() > LONGEST_TOKEN {
                return Err(TokenError::TooLong);
            }
            last = Some(verify(&token)?);
            Ok(())
        })?;
        Ok(last)
    }
}

/// An audience as Envoy compares them: without the scheme of a URL and the slash at its end.
fn plain_audience(audience: &str) -> &str {
    let rest = audience.strip_prefix("https://").or_else(|| audience.strip_prefix("http://"));
    let rest = rest.unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

impl Authentication {
    /// Whether some rule is for the workload's own `port`.
    pub fn is_for(&self, port: u16) -> bool {
        self.rules.iter().any(|rule| rule.is_for(port))
    }

    /// What a request to `port` with these `headers` and this `query` has for a token; `None`: it has none, and policies
    /// decide. `verify` checks a token's signature and what it [says](TokenRule::check), for the rule of that place.
    ///
    /// As in Istio, one rule that accepts what it finds is enough, because several rules may look in one place. Where
    /// none does, each must find nothing.
    ///
    /// # Errors
    /// If there is a token, and no rule accepts what it finds.
    pub fn authenticate(
        &self,
        port: u16,
        headers: &HeaderMap,
        query: &str,
        mut verify: impl FnMut(usize, &str) -> Result<Arc<Token>, TokenError>,
    ) -> Result<Option<Accepted<'_>>, Refused<'_>> {
        let mut refused: Option<Refused<'_>> = None;
        for (place, rule) in self.rules.iter().enumerate().filter(|(_, rule)| rule.is_for(port)) {
            match rule.tokens(headers, query, |token| verify(place, token)) {
                Ok(Some(token)) => return Ok(Some(Accepted { rule, token })),
                Ok(None) => {}
                Err(error) if refused.as_ref().is_none_or(|one| one.error.rank() < error.rank()) => {
                    refused = Some(Refused { rule, error });
                }
                Err(_) => {}
            }
        }
        refused.map_or(Ok(None), Err)
    }

    /// Removes from a request to `port` the headers that only rules write, in every spelling that apps take for them.
    pub fn strip(&self, port: u16, headers: &mut HeaderMap) {
        let rules = || self.rules.iter().filter(|rule| rule.is_for(port));
        let is_ours = |name: &HeaderName| rules().flat_map(TokenRule::outputs).any(|own| reads_as(name, own));
        let forged: Vec<_> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
        for name in forged {
            headers.remove(name);
        }
    }
}

impl Accepted<'_> {
    /// Changes the request's `headers` as its rule asks: the app gets the claims, and the token only if it is to.
    /// Returns the query without the token, if that is another.
    pub fn apply(&self, headers: &mut HeaderMap, query: &str) -> Option<String> {
        let mut without = None;
        if !self.rule.forward {
            self.rule.places.remove_from(headers);
            without = self.rule.places.query_without(query);
        }
        self.rule.write(&self.token, headers);
        without
    }
}
