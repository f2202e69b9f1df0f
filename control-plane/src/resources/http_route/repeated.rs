//! Which rules and matches of a route are never reached, because others that go before them ask for the very same.
//!
//! In the Gateway API the most specific match decides, wherever it stands, and of equal ones the first. So two matches are compared
//! only for whether they ask for the same: by a hash of what they ask for, so that many are found as soon as few.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use selvedge_model::{Match, StringMatch};
use serde::Serialize;

use super::HttpRouteRule;
use crate::resources::document::Reading;

/// What a match asks for: the same number for the same, however it is written.
pub type Asks = u64;

/// What `matches` ask for, one by one. None ask for everything.
pub(in crate::resources) fn asks_of(matches: &[Match]) -> Vec<Asks> {
    match matches {
        [] => vec![asks(&Match::default())],
        matches => matches.iter().map(asks).collect(),
    }
}

fn asks(one: &Match) -> Asks {
    let mut one = one.clone();
    if let Some(StringMatch::PathPrefix(prefix)) = &mut one.path
        && prefix.ends_with('/')
    {
        prefix.pop();
    }
    // All of them must hold, in whatever order.
    one.headers.sort_by_cached_key(text);
    one.query.sort_by_cached_key(text);
    let mut hasher = DefaultHasher::new();
    text(&one).hash(&mut hasher);
    hasher.finish()
}

fn text(asked: &impl Serialize) -> String {
    serde_json::to_string(asked).unwrap_or_default()
}

/// Reports those of `rules` and their matches that requests never reach.
pub(in crate::resources) fn report(rules: &[HttpRouteRule], reading: &mut Reading<'_>) {
    let mut first: HashMap<Asks, (usize, usize)> = HashMap::new();
    for rule in rules {
        let mut before = Vec::new();
        for (place, asks) in rule.asks.iter().enumerate() {
            let other = *first.entry(*asks).or_insert((rule.index, place));
            if other != (rule.index, place) {
                before.push((place, other));
            }
        }
        let is_other = |(_, (other, _)): &(usize, (usize, usize))| *other != rule.index;
        let field = format!("spec.rules[{}]", rule.index);
        if let Some((_, (other, _))) = before.iter().find(|one| is_other(one))
            && before.len() == rule.asks.len()
        {
            let message = format!(
                "is never reached: rules[{other}] asks for the same, and comes first; remove one of them"
            );
            reading.warning(field, message);
            continue;
        }
        for (place, (other, at)) in before {
            let message = match other == rule.index {
                true => format!("has no effect beside matches[{at}], which asks for the same; remove it"),
                false => {
                    format!("is never reached: rules[{other}] asks for the same, and comes first; remove it")
                }
            };
            reading.warning(format!("{field}.matches[{place}]"), message);
        }
    }
}
