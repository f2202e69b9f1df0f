//! An index over many matches: which of them can match a request's path at all. Policies use it, too.
//!
//! A match on an exact path or a prefix is stored under that text, every other match under the empty text. One binary
//! search over the sorted texts finds the last one that is not greater than the request's path. Every text that the path
//! begins with is also a beginning of that one, and each text knows the longest other text that it begins with.

use super::{Match, StringMatch};

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Index {
    /// Sorted by text.
    texts: Vec<IndexedRule>,
}

#[derive(Debug, Clone, PartialEq)]
struct IndexedRule {
    text: String,
    /// The longest other text that this one begins with.
    begins_with: Option<usize>,
    /// The matches under this text, by their places in the order in which they are tried.
    tried: Vec<usize>,
}

impl Index {
    /// Over matches by their places in the order in which they are tried, each with what every path begins with for
    /// which it can hold.
    pub(crate) fn over<'a>(filed: impl Iterator<Item = (&'a str, usize)>) -> Self {
        let mut filed: Vec<(&str, usize)> = filed.collect();
        filed.sort_unstable();
        filed.dedup();
        let mut texts: Vec<IndexedRule> = Vec::new();
        for (text, place) in filed {
            match texts.last_mut() {
                Some(last) if last.text == text => last.tried.push(place),
                last => {
                    let mut begins_with = last.is_some().then(|| texts.len() - 1);
                    while let Some(shorter) = begins_with.filter(|at| !text.starts_with(&texts[*at].text)) {
                        begins_with = texts[shorter].begins_with;
                    }
                    texts.push(IndexedRule { text: text.to_owned(), begins_with, tried: vec![place] });
                }
            }
        }
        Self { texts }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The first place, in the order in which they are tried, of a match that `holds` for a request with this path.
    pub(crate) fn first(&self, path: &str, holds: impl Fn(usize) -> bool) -> Option<usize> {
        let mut next = self.texts.partition_point(|filed| filed.text.as_str() <= path).checked_sub(1);
        let mut first: Option<usize> = None;
        while let Some(filed) = next.map(|at| &self.texts[at]) {
            if path.starts_with(&filed.text) {
                let mut earlier =
                    filed.tried.iter().take_while(|place| first.is_none_or(|first| **place < first));
                first = earlier.find(|place| holds(**place)).copied().or(first);
            }
            next = filed.begins_with;
        }
        first
    }
}

/// What every path begins with for which `one` can hold.
pub(super) fn beginning(one: &Match) -> &str {
    match &one.path {
        Some(StringMatch::Exact(text) | StringMatch::Prefix(text)) if !one.ignore_path_case => text,
        Some(StringMatch::PathPrefix(text)) => text.strip_suffix('/').unwrap_or(text),
        _ => "",
    }
}
