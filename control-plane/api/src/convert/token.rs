//! Whose tokens a workload accepts.
//!
//! What comes in has limits: each request with a token is compared with it.

use std::{collections::BTreeSet, sync::Arc};

use http::HeaderName;
use selvedge_model::token::{
    Authentication, ClaimHeader, HeaderPlace, Keys, LONGEST_KEY_SET, MOST_LISTED, MOST_TOKEN_RULES, Places,
    TokenRule,
};

use super::{
    ConvertError, all,
    authorization::{at_most, text},
    parse, required,
};
use crate::wire::{self, token_rule::Keys as Wire};

impl From<&Authentication> for wire::Authentication {
    fn from(authentication: &Authentication) -> Self {
        Self { rules: authentication.rules.iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::Authentication> for Authentication {
    type Error = ConvertError;

    fn try_from(authentication: wire::Authentication) -> Result<Self, ConvertError> {
        at_most("number of a workload's rules about tokens", authentication.rules.len(), MOST_TOKEN_RULES)?;
        Ok(Self { rules: all(authentication.rules)? })
    }
}

fn texts(list: &[Box<str>]) -> Vec<String> {
    list.iter().map(|text| text.to_string()).collect()
}

impl From<&TokenRule> for wire::TokenRule {
    fn from(rule: &TokenRule) -> Self {
        let Places { headers, params, cookies } = &rule.places;
        Self {
            name: rule.name.to_string(),
            issuer: rule.issuer.as_deref().map(str::to_owned),
            audiences: texts(&rule.audiences),
            keys: Some(match &rule.keys {
                Keys::Known(set) => Wire::Known(set.to_string()),
                Keys::Missing(why) => Wire::Missing(why.to_string()),
            }),
            keys_from: rule.keys_from.as_ref().map(ToString::to_string),
            headers: headers.iter().map(Into::into).collect(),
            params: texts(params),
            cookies: texts(cookies),
            forward: rule.forward,
            payload_header: rule.payload_header.as_ref().map(ToString::to_string),
            claim_headers: rule.claim_headers.iter().map(Into::into).collect(),
            lists: texts(&rule.lists),
            ports: rule.ports.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<wire::TokenRule> for TokenRule {
    type Error = ConvertError;

    fn try_from(rule: wire::TokenRule) -> Result<Self, ConvertError> {
        let keys = match required("keys of a rule about tokens", rule.keys)? {
            Wire::Known(set) => {
                at_most("length of a key set", set.len(), LONGEST_KEY_SET)?;
                Keys::Known(Arc::from(set))
            }
            Wire::Missing(why) => Keys::Missing(Arc::from(why)),
        };
        at_most("number of a rule's headers with tokens", rule.headers.len(), MOST_LISTED)?;
        at_most("number of a rule's headers with claims", rule.claim_headers.len(), MOST_LISTED)?;
        Ok(Self {
            name: Arc::from(rule.name),
            issuer: rule.issuer.map(text).transpose()?,
            audiences: list(rule.audiences)?,
            keys,
            keys_from: rule.keys_from.map(text).transpose()?.map(Arc::<str>::from),
            places: Places {
                headers: all(rule.headers)?,
                params: list(rule.params)?,
                cookies: list(rule.cookies)?,
            },
            forward: rule.forward,
            payload_header: rule.payload_header.map(|name| header(&name)).transpose()?,
            claim_headers: all(rule.claim_headers)?,
            lists: list(rule.lists)?,
            ports: rule.ports.map(BTreeSet::try_from).transpose()?,
        })
    }
}

fn list(texts: Vec<String>) -> Result<Vec<Box<str>>, ConvertError> {
    at_most("number of what a rule about tokens lists", texts.len(), MOST_LISTED)?;
    texts.into_iter().map(text).collect()
}

fn header(name: &str) -> Result<HeaderName, ConvertError> {
    parse("header of a rule about tokens", name)
}

impl From<&HeaderPlace> for wire::TokenHeader {
    fn from(place: &HeaderPlace) -> Self {
        Self { name: place.name.to_string(), prefix: place.prefix.to_string() }
    }
}

impl TryFrom<wire::TokenHeader> for HeaderPlace {
    type Error = ConvertError;

    fn try_from(place: wire::TokenHeader) -> Result<Self, ConvertError> {
        Ok(Self { name: header(&place.name)?, prefix: text(place.prefix)? })
    }
}

impl From<&ClaimHeader> for wire::ClaimHeader {
    fn from(header: &ClaimHeader) -> Self {
        Self { name: header.name.to_string(), claim: texts(&header.claim) }
    }
}

impl TryFrom<wire::ClaimHeader> for ClaimHeader {
    type Error = ConvertError;

    fn try_from(wire: wire::ClaimHeader) -> Result<Self, ConvertError> {
        Ok(Self { name: header(&wire.name)?, claim: list(wire.claim)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn name() -> impl Strategy<Value = Box<str>> {
        "[a-z]{1,6}".prop_map(Box::from)
    }

    fn header_name() -> impl Strategy<Value = HeaderName> {
        "[a-z]{1,6}".prop_map(|name| name.parse().unwrap())
    }

    fn names() -> impl Strategy<Value = Vec<Box<str>>> {
        vec(name(), 0..3)
    }

    fn places() -> impl Strategy<Value = Places> {
        let header = (header_name(), name()).prop_map(|(name, prefix)| HeaderPlace { name, prefix });
        (vec(header, 0..3), names(), names()).prop_map(|(headers, params, cookies)| Places {
            headers,
            params,
            cookies,
        })
    }

    fn rule() -> impl Strategy<Value = TokenRule> {
        let keys = prop_oneof![
            name().prop_map(|set| Keys::Known(Arc::from(set))),
            name().prop_map(|why| Keys::Missing(Arc::from(why))),
        ];
        let claim = (header_name(), names()).prop_map(|(name, claim)| ClaimHeader { name, claim });
        let ports = option::of(proptest::collection::btree_set(1..=u16::MAX, 0..4));
        let who = (name(), option::of(name()), names(), keys, option::of(name().prop_map(Arc::<str>::from)));
        let told = (option::of(header_name()), vec(claim, 0..3), names());
        (who, places(), any::<bool>(), told, ports).prop_map(|(who, places, forward, told, ports)| {
            let ((name, issuer, audiences, keys, keys_from), (payload_header, claim_headers, lists)) =
                (who, told);
            let name = Arc::from(name);
            TokenRule {
                name,
                issuer,
                audiences,
                keys,
                keys_from,
                places,
                forward,
                payload_header,
                claim_headers,
                lists,
                ports,
            }
        })
    }

    proptest! {
        #[test]
        fn rules_are_read_as_they_were_written(rules in vec(rule(), 0..4)) {
            let authentication = Authentication { rules };

            let read = Authentication::try_from(wire::Authentication::from(&authentication)).unwrap();

            prop_assert_eq!(read, authentication);
        }
    }

    #[test]
    fn a_rule_that_says_nothing_of_keys_or_too_much_is_refused() {
        let read = |keys| TokenRule::try_from(wire::TokenRule { keys, ..wire::TokenRule::default() });

        assert!(read(None).is_err());
        assert!(read(Some(Wire::Known("a".repeat(LONGEST_KEY_SET)))).is_ok());
        assert!(read(Some(Wire::Known("a".repeat(LONGEST_KEY_SET + 1)))).is_err());
        let rules = vec![wire::TokenRule::default(); MOST_TOKEN_RULES + 1];
        assert!(Authentication::try_from(wire::Authentication { rules }).is_err());
    }
}
