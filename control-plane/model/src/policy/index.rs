//! Which of many rules can match a request at all: those that ask for its peer, or for its path.
//!
//! A rule that can match only listed peers (principals, service accounts, namespaces) is found by a hash of the peer's.
//! One that can match only certain paths is found by how the path begins. All others are tried one after the other.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap},
};

use super::{
    condition::{Asks, Condition, account, principal},
    path::loosen,
    reading::Readings,
    rule::Rule,
    text::TextPattern,
};
use crate::{SpiffeId, route::index::Index as Paths};

/// See the module. Rules are named by their place in the order in which they are tried.
#[derive(Debug, Clone)]
pub(super) struct Index {
    peers: HashMap<Box<str>, Vec<usize>>,
    paths: Paths,
}

impl Index {
    /// Over `rules` in the order in which they are tried. `refuse`: they refuse what they match.
    pub(super) fn over<'a>(rules: impl Iterator<Item = &'a Rule>, refuse: bool) -> Self {
        let mut peers: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let mut paths: Vec<(String, usize)> = Vec::new();
        for (place, rule) in rules.enumerate() {
            match of_alternatives(&rule.from, &rule.when, peers_of) {
                Some(keys) => {
                    for key in keys {
                        peers.entry(key.into()).or_default().push(place);
                    }
                }
                None => {
                    let beginnings = of_alternatives(&rule.to, &rule.when, |one| beginnings_of(one, refuse));
                    let beginnings = beginnings.unwrap_or_else(|| BTreeSet::from([String::new()]));
                    paths.extend(beginnings.into_iter().map(|beginning| (beginning, place)));
                }
            }
        }
        let paths = Paths::over(paths.iter().map(|(beginning, place)| (beginning.as_str(), *place)));
        Self { peers, paths }
    }

    /// The first of the rules that `matches`, in the order in which they are tried. `refuse`: as in [`Self::over`].
    pub(super) fn first(
        &self,
        readings: &Readings<'_>,
        refuse: bool,
        matches: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let earliest = Cell::new(None::<usize>);
        let note = |found: Option<usize>| {
            if let Some(place) = found.filter(|place| earliest.get().is_none_or(|first| *place < first)) {
                earliest.set(Some(place));
            }
        };
        if let Some(identity) = readings.request.connection.source.identity.filter(|_| !self.peers.is_empty())
        {
            for key in [principal(identity), account(identity), SpiffeId::namespace(identity)] {
                let filed = self.peers.get(key).map_or(&[][..], Vec::as_slice);
                let mut earlier =
                    filed.iter().take_while(|place| earliest.get().is_none_or(|first| **place < first));
                note(earlier.find(|place| matches(**place)).copied());
            }
        }
        let path = readings.request.path;
        note(self.paths.first(path, &matches));
        if refuse {
            let loose = &*readings.loose_path().path;
            if loose != path {
                note(self.paths.first(loose, &matches));
            }
        }
        earliest.get()
    }
}

/// All keys under which a rule is to be found: what each of its `alternatives`, or one of the conditions in `when`, says
/// by `keys`. `None`: none of them says it.
fn of_alternatives(
    alternatives: &[Vec<Condition>],
    when: &[Condition],
    keys: impl Fn(&Condition) -> Option<Vec<String>>,
) -> Option<BTreeSet<String>> {
    let first = |conditions: &[Condition]| {
        let mut positive = conditions.iter().filter(|condition| !condition.negated);
        positive.find_map(&keys)
    };
    if let Some(found) = first(when) {
        return Some(found.into_iter().collect());
    }
    if alternatives.is_empty() {
        return None;
    }
    let found: Option<Vec<Vec<String>>> = alternatives.iter().map(|conditions| first(conditions)).collect();
    Some(found?.into_iter().flatten().collect())
}

fn peers_of(condition: &Condition) -> Option<Vec<String>> {
    let (Asks::Principal(set) | Asks::Namespace(set) | Asks::ServiceAccount(set)) = &condition.asks else {
        return None;
    };
    Some(set.exact_only()?.iter().map(|text| text.to_string()).collect())
}

fn beginnings_of(condition: &Condition, refuses: bool) -> Option<Vec<String>> {
    let Asks::Path(set) = &condition.asks else { return None };
    let mut beginnings = Vec::new();
    for pattern in set.texts().patterns() {
        match pattern {
            TextPattern::Exact(text) => {
                if refuses {
                    beginnings.push(loosen(&text).without_slash().to_owned());
                }
                beginnings.push(text.into());
            }
            TextPattern::Prefix(text) => beginnings.push(text.into()),
            TextPattern::Suffix(_) | TextPattern::Glob(_) | TextPattern::Present => {
                beginnings.push(String::new())
            }
        }
    }
    let literal = |source: &str| source.split_once('{').map_or(source, |(literal, _)| literal).to_owned();
    beginnings.extend(set.templates().iter().map(|template| literal(template.source())));
    if refuses {
        let lower: Vec<_> = beginnings.iter().map(|beginning| beginning.to_ascii_lowercase()).collect();
        beginnings.extend(lower);
    }
    Some(beginnings)
}
