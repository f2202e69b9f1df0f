//! What a policy asks of a text: a set of patterns, as Istio writes them.
//!
//! Sets may be large (one policy can list a thousand principals), so equal texts are found by hash where there are
//! many. Patterns are kept sorted: two sets that mean the same are equal.

use std::collections::HashSet;

use serde::{Serialize, Serializer};

/// So many texts are compared one after the other sooner than a hash finds one.
const FEW: usize = 8;

/// One pattern.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum TextPattern {
    /// Equal.
    Exact(Box<str>),
    /// It begins so (`abc*`).
    Prefix(Box<str>),
    /// It ends so (`*abc`).
    Suffix(Box<str>),
    /// It begins with the first, ends with the last, and has the others between them in this order (`a*b*c`). There
    /// are at least two.
    Glob(Vec<Box<str>>),
    /// It is there and not empty (`*`).
    Present,
}

impl TextPattern {
    /// The pattern that Istio's policies write as `text`: a `*` counts at its beginning or at its end only.
    pub fn istio(text: &str) -> Self {
        match (text, text.strip_prefix('*'), text.strip_suffix('*')) {
            ("*", ..) => Self::Present,
            (_, Some(suffix), _) => Self::Suffix(suffix.into()),
            (_, _, Some(prefix)) => Self::Prefix(prefix.into()),
            _ => Self::Exact(text.into()),
        }
    }

    /// The pattern in which each `*` stands for any text, as Istio's policies write namespaces.
    pub fn glob(text: &str) -> Self {
        let inner = text.strip_prefix('*').unwrap_or(text);
        let inner = inner.strip_suffix('*').unwrap_or(inner);
        match inner.contains('*') || (text.starts_with('*') && text.ends_with('*') && text.len() > 1) {
            true => Self::Glob(text.split('*').map(Box::from).collect()),
            false => Self::istio(text),
        }
    }

    /// Whether `text` is what is asked for.
    pub fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *text,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Suffix(suffix) => text.ends_with(&**suffix),
            Self::Glob(parts) => glob(parts, text),
            Self::Present => !text.is_empty(),
        }
    }

    /// The same pattern with each of its texts as `change` makes it.
    #[must_use]
    pub fn map(&self, change: impl Fn(&str) -> String) -> Self {
        let changed = |text: &str| change(text).into_boxed_str();
        match self {
            Self::Exact(text) => Self::Exact(changed(text)),
            Self::Prefix(text) => Self::Prefix(changed(text)),
            Self::Suffix(text) => Self::Suffix(changed(text)),
            Self::Glob(parts) => Self::Glob(parts.iter().map(|part| changed(part)).collect()),
            Self::Present => Self::Present,
        }
    }
}

fn glob(parts: &[Box<str>], text: &str) -> bool {
    let [first, between @ .., last] = parts else { return false };
    let Some(rest) = text.strip_prefix(&**first) else { return false };
    let Some(mut rest) = rest.strip_suffix(&**last) else { return false };
    between.iter().all(|part| match rest.split_once(&**part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// A set of texts: those that match any of its patterns.
#[derive(Debug, Clone, Default)]
pub struct TextSet {
    exact: Vec<Box<str>>,
    others: Vec<TextPattern>,
    /// `exact` again, where it is long.
    hashed: Option<HashSet<Box<str>>>,
}

impl TextSet {
    /// The texts that match any of `patterns`.
    pub fn new(patterns: impl IntoIterator<Item = TextPattern>) -> Self {
        let (mut exact, mut others) = (Vec::new(), Vec::new());
        for pattern in patterns {
            match pattern {
                TextPattern::Exact(text) => exact.push(text),
                other => others.push(other),
            }
        }
        exact.sort_unstable();
        exact.dedup();
        others.sort_unstable();
        others.dedup();
        let hashed = (exact.len() > FEW).then(|| exact.iter().cloned().collect());
        Self { exact, others, hashed }
    }

    /// Whether `text` is in it.
    pub fn contains(&self, text: &str) -> bool {
        let listed = match &self.hashed {
            Some(hashed) => hashed.contains(text),
            None => self.exact.iter().any(|exact| **exact == *text),
        };
        listed || self.others.iter().any(|pattern| pattern.is_match(text))
    }

    /// Its patterns: those for equal texts first.
    pub fn patterns(&self) -> impl Iterator<Item = TextPattern> {
        let exact = self.exact.iter().map(|text| TextPattern::Exact(text.clone()));
        exact.chain(self.others.iter().cloned())
    }

    /// The texts that must be equal, and its other patterns.
    pub(super) fn parts(&self) -> (&[Box<str>], &[TextPattern]) {
        (&self.exact, &self.others)
    }

    /// The set of the same patterns with each of their texts as `change` makes it.
    #[must_use]
    pub fn map(&self, change: impl Fn(&str) -> String) -> Self {
        Self::new(self.patterns().map(|pattern| pattern.map(&change)))
    }
}

impl FromIterator<TextPattern> for TextSet {
    fn from_iter<I: IntoIterator<Item = TextPattern>>(patterns: I) -> Self {
        Self::new(patterns)
    }
}

impl PartialEq for TextSet {
    fn eq(&self, other: &Self) -> bool {
        (&self.exact, &self.others) == (&other.exact, &other.others)
    }
}

impl Eq for TextSet {}

impl Serialize for TextSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.patterns())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(patterns: &[&str]) -> TextSet {
        patterns.iter().map(|text| TextPattern::istio(text)).collect()
    }

    #[test]
    fn a_star_counts_at_the_beginning_or_the_end() {
        let texts = ["", "abc", "abcd", "zabc", "a*c", "abc*"];
        let matching = |pattern: &str| -> Vec<&str> {
            texts.into_iter().filter(|text| TextPattern::istio(pattern).is_match(text)).collect()
        };

        assert_eq!(matching("abc"), ["abc"]);
        assert_eq!(matching("abc*"), ["abc", "abcd", "abc*"]);
        assert_eq!(matching("*abc"), ["abc", "zabc"]);
        assert_eq!(matching("*abc*"), ["abc*"]);
        assert_eq!(matching("a*c"), ["a*c"]);
        assert_eq!(matching("*"), ["abc", "abcd", "zabc", "a*c", "abc*"]);
    }

    #[test]
    fn each_star_of_a_namespace_stands_for_any_text() {
        let is_match = |pattern: &str, text| TextPattern::glob(pattern).is_match(text);

        for (pattern, text) in
            [("a*c", "abc"), ("a*c", "ac"), ("*b*", "abc"), ("*b*", "b"), ("a*b*c", "a-b-c"), ("*", "x")]
        {
            assert!(is_match(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a*a", "a"), ("a*c", "abcd"), ("a*b*c", "acb"), ("*b*", "ac"), ("ab", "abc")]
        {
            assert!(!is_match(pattern, text), "{pattern} {text}");
        }
        assert_eq!(TextPattern::glob("a*"), TextPattern::Prefix("a".into()));
    }

    #[test]
    fn a_long_set_holds_the_same_as_a_short_one() {
        let many: Vec<String> = (0..100).map(|number| format!("td/ns/shop/sa/account-{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).chain(["other/*"]).collect();

        let long = set(&many);

        assert!(many.iter().all(|text| long.contains(text)));
        assert!(long.contains("other/x") && !long.contains("td/ns/shop/sa/account-100"));
        let reversed: Vec<&str> = many.iter().rev().copied().collect();
        assert_eq!(long, set(&reversed));
    }
}
