//! The tokens that a worker has verified, and the keys that it verifies with.
//!
//! A signature is verified once: a worker remembers what it has accepted, by the bytes of the token. When other rules or
//! keys come into force, all of it is forgotten, so a token of a key that is gone is refused at its next request. What
//! is remembered is bounded, and no other worker's.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use http::HeaderMap;
use selvedge_certs::token::{KeySet, Unverified};
use selvedge_model::token::{Accepted, Authentication, Keys, Refused, Token, TokenError, TokenRule};

/// The most tokens that a worker remembers.
const MOST_TOKENS: usize = 1024;
/// The most bytes of tokens that a worker remembers.
const MOST_BYTES: usize = 2 << 20;
/// How long a worker asks for no newer keys of a rule after it has done so, in seconds. Anybody can make a token of a key
/// that nobody knows.
const KEYS_WANTED_EVERY: u64 = 5;

/// See the module.
#[derive(Debug, Default)]
pub struct Tokens(RefCell<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The rules that all this is of.
    rules: Option<Arc<Authentication>>,
    /// Their keys, by the place of the rule. `None`: there are none that can be used.
    keys: Vec<Option<KeySet>>,
    /// What was accepted, and by which rule.
    accepted: HashMap<Box<str>, (usize, Arc<Token>)>,
    bytes: usize,
    /// When newer keys were last wanted, by the place of the rule, in seconds since 1970; 0: never.
    wanted_at: Vec<u64>,
    /// Where newer keys are wanted from.
    wanted: Vec<Arc<str>>,
}

impl Tokens {
    /// Where newer keys are wanted from, because tokens name keys that are not known; each URL once in a while.
    pub fn wanted(&self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.0.borrow_mut().wanted)
    }

    /// What a request to `port` has for a token, by `rules`, at `now` (in seconds since 1970). `None`: none.
    ///
    /// # Errors
    /// If there is one, and no rule accepts it.
    pub fn authenticate<'a>(
        &self,
        rules: &'a Arc<Authentication>,
        (port, headers, query): (u16, &HeaderMap, &str),
        now: u64,
    ) -> Result<Option<Accepted<'a>>, Refused<'a>> {
        let mut known = self.0.borrow_mut();
        known.follow(rules);
        rules.authenticate(port, headers, query, |place, text| {
            known.verify(place, &rules.rules[place], text, now)
        })
    }
}

impl Known {
    /// Forgets all that is not of `rules`.
    fn follow(&mut self, rules: &Arc<Authentication>) {
        if self.rules.as_ref().is_some_and(|known| Arc::ptr_eq(known, rules)) {
            return;
        }
        let keys = |rule: &TokenRule| match &rule.keys {
            Keys::Known(set) => KeySet::read(set)
                .inspect_err(
                    |error| tracing::warn!(rule = %rule.name, %error, "keys of tokens cannot be used"),
                )
                .ok(),
            Keys::Missing(_) => None,
        };
        let keys = rules.rules.iter().map(keys).collect();
        let wanted_at = vec![0; rules.rules.len()];
        *self = Self { rules: Some(Arc::clone(rules)), keys, wanted_at, ..Self::default() };
    }

    fn verify(
        &mut self,
        place: usize,
        rule: &TokenRule,
        text: &str,
        now: u64,
    ) -> Result<Arc<Token>, TokenError> {
        if let Some((by, token)) = self.accepted.get(text) {
            // Of another issuer, or out of time: that needs no signature.
            rule.check(token, now)?;
            if *by == place {
                return Ok(Arc::clone(token));
            }
        }
        let unverified = Unverified::read(text)?;
        rule.check(&unverified.token, now)?;
        let Some(Some(keys)) = self.keys.get(place) else {
            return Err(TokenError::NoKeys(Arc::from("they cannot be read")));
        };
        let signed = unverified.signed_by(keys);
        if signed.as_ref().is_err_and(TokenError::asks_for_newer_keys) {
            self.want_newer(place, rule, now);
        }
        let token = Arc::new(signed?.with_lists(&rule.lists));
        self.remember(text, place, &token);
        Ok(token)
    }

    /// Notes that keys of `rule` are missing, if they are fetched and this was not noted lately.
    fn want_newer(&mut self, place: usize, rule: &TokenRule, now: u64) {
        let (Some(url), Some(at)) = (&rule.keys_from, self.wanted_at.get_mut(place)) else { return };
        if now.abs_diff(*at) >= KEYS_WANTED_EVERY {
            *at = now;
            self.wanted.push(Arc::clone(url));
        }
    }

    fn remember(&mut self, text: &str, place: usize, token: &Arc<Token>) {
        if self.accepted.len() >= MOST_TOKENS || self.bytes + text.len() > MOST_BYTES {
            self.accepted.clear();
            self.bytes = 0;
        }
        self.bytes += text.len();
        self.accepted.insert(text.into(), (place, Arc::clone(token)));
    }
}
