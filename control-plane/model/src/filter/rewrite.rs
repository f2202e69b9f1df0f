//! Changes of a request's path and authority (Gateway API `URLRewrite`; `VirtualService` `rewrite`).

use regex::Regex;
use serde::{Serialize, Serializer};

use crate::StringMatch;

/// What a request's path and authority become. The default changes neither.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rewrite {
    /// The path.
    pub path: Option<PathRewrite>,
    /// The authority: a host, with or without a port.
    pub authority: Option<String>,
}

impl Rewrite {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.path.is_none() && self.authority.is_none()
    }
}

/// What a path becomes. The query stays as it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum PathRewrite {
    /// This, whatever it was (Gateway API `ReplaceFullPath`).
    Full(String),
    /// What the match asked for as its prefix becomes this, by whole segments (Gateway API `ReplacePrefixMatch`).
    PrefixBySegments(String),
    /// What the match asked for as its prefix becomes this, letter by letter; the whole path, if the match asked for no
    /// prefix (`VirtualService` `rewrite.uri`).
    Prefix(String),
    /// Each part that matches becomes something else (`VirtualService` `rewrite.uriRegexRewrite`).
    Regex(RegexRewrite),
}

impl PathRewrite {
    /// What `path` becomes, which has no query: a path that begins with `/`. `matched` is what the match by which the
    /// request came here asks of the path. `*`, which is no path, stays.
    pub fn apply(&self, path: &str, matched: Option<&StringMatch>) -> String {
        let new = match self {
            _ if path == "*" => return path.to_owned(),
            Self::Full(new) => new.clone(),
            Self::PrefixBySegments(new) => {
                let rest = matched.map_or(Some(path), |matched| after_prefix(path, matched));
                let Some(rest) = rest else { return path.to_owned() };
                joined(new, rest)
            }
            Self::Prefix(new) => match matched {
                Some(StringMatch::Prefix(prefix) | StringMatch::PathPrefix(prefix)) => {
                    let Some(rest) = path.get(prefix.len()..) else { return path.to_owned() };
                    joined(new, rest)
                }
                _ => new.clone(),
            },
            Self::Regex(rewrite) => rewrite.replace(path),
        };
        if new.starts_with('/') { new } else { format!("/{new}") }
    }

    /// Whether it matters what the match asked for.
    pub fn asks_for_match(&self) -> bool {
        matches!(self, Self::PrefixBySegments(_) | Self::Prefix(_))
    }
}

/// What of `path` stands after the segments that `matched` asks for: nothing, or it begins with `/`. `None`: `path` does
/// not begin with them, because it has been rewritten before.
fn after_prefix<'a>(path: &'a str, matched: &StringMatch) -> Option<&'a str> {
    let length = match matched {
        StringMatch::PathPrefix(prefix) | StringMatch::Prefix(prefix) => {
            prefix.strip_suffix('/').unwrap_or(prefix).len()
        }
        // Any other asks for the whole path.
        StringMatch::Exact(_) | StringMatch::Regex(_) | StringMatch::Present => path.len(),
    };
    path.get(length..).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `rest` after `new`, with one slash between them where both have one.
fn joined(new: &str, rest: &str) -> String {
    match new.strip_suffix('/') {
        Some(new) if rest.starts_with('/') => format!("{new}{rest}"),
        _ => format!("{new}{rest}"),
    }
}

/// `path` with `query`. What a rewrite has given a query of its own keeps that one.
pub fn with_query(mut path: String, query: &str) -> String {
    if !query.is_empty() && !path.contains('?') {
        path.push('?');
        path.push_str(query);
    }
    path
}

/// A regular expression (RE2 syntax) and what each part of a path that matches it becomes.
#[derive(Debug, Clone)]
pub struct RegexRewrite {
    pattern: String,
    substitution: String,
    regex: Regex,
    /// `substitution` in the words of the crate `regex`.
    template: String,
}

/// Why a rewrite cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegexRewriteError {
    /// The expression is too long, malformed, or too large when compiled.
    #[error(transparent)]
    Pattern(#[from] crate::route::RegexError),
    /// The substitution names a group that the expression does not have.
    #[error("\\{0} names a group that the expression does not have; add it, or write \\0 for all of it")]
    NoGroup(usize),
    /// A backslash before something else.
    #[error("a \\ stands before neither a digit nor another \\")]
    Escape,
}

impl RegexRewrite {
    /// Compiles `pattern`; in `substitution`, `\0` is all that matched, `\1` to `\9` are its groups, and `\\` is a
    /// backslash (RE2 `Rewrite`).
    ///
    /// # Errors
    /// If either cannot be used.
    pub fn new(pattern: &str, substitution: &str) -> Result<Self, RegexRewriteError> {
        let regex = crate::route::compile_part(pattern)?;
        let mut template = String::new();
        let mut letters = substitution.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '$' => template.push_str("$$"),
                '\\' => match letters.next() {
                    Some('\\') => template.push('\\'),
                    Some(digit) => {
                        let group = digit.to_digit(10).ok_or(RegexRewriteError::Escape)? as usize;
                        if group >= regex.captures_len() {
                            return Err(RegexRewriteError::NoGroup(group));
                        }
                        template.push_str(&format!("${{{group}}}"));
                    }
                    None => return Err(RegexRewriteError::Escape),
                },
                letter => template.push(letter),
            }
        }
        Ok(Self { pattern: pattern.to_owned(), substitution: substitution.to_owned(), regex, template })
    }

    /// The expression as it was written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The substitution as it was written.
    pub fn substitution(&self) -> &str {
        &self.substitution
    }

    /// `path` with every part that matches replaced.
    pub fn replace(&self, path: &str) -> String {
        self.regex.replace_all(path, self.template.as_str()).into_owned()
    }
}

impl PartialEq for RegexRewrite {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern && self.substitution == other.substitution
    }
}

impl Serialize for RegexRewrite {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{} -> {}", self.pattern, self.substitution))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn by_segments(path: &str, prefix: &str, new: &str) -> String {
        let matched = StringMatch::PathPrefix(prefix.to_owned());
        PathRewrite::PrefixBySegments(new.to_owned()).apply(path, Some(&matched))
    }

    fn by_letters(path: &str, prefix: &str, new: &str) -> String {
        let matched = StringMatch::Prefix(prefix.to_owned());
        PathRewrite::Prefix(new.to_owned()).apply(path, Some(&matched))
    }

    #[test]
    fn a_prefix_of_segments_is_replaced_as_gateway_apis_table_has_it() {
        for (path, prefix, new, becomes) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/", "/foo/", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
            ("/foo/bar", "", "/xyz", "/xyz/foo/bar"),
        ] {
            assert_eq!(by_segments(path, prefix, new), becomes, "{path} {prefix} {new}");
        }
    }

    #[test]
    fn a_prefix_of_letters_is_replaced_as_it_is() {
        assert_eq!(by_letters("/foobar/x", "/foo", "/xyz"), "/xyzbar/x");
        assert_eq!(by_letters("/foo/bar", "/foo", "/"), "/bar");
        assert_eq!(by_letters("/foo/bar", "/foo/", "/"), "/bar");
        assert_eq!(by_letters("/FOO/bar", "/foo", "/new"), "/new/bar");
        assert_eq!(by_letters("/foo", "/foo", ""), "/");
    }

    #[test]
    fn what_asked_for_no_prefix_is_replaced_as_a_whole() {
        let new = PathRewrite::Prefix("/new".to_owned());
        for matched in [None, Some(StringMatch::Exact("/a/b".to_owned())), Some(StringMatch::Present)] {
            assert_eq!(new.apply("/a/b", matched.as_ref()), "/new");
        }
        assert_eq!(PathRewrite::Full("/new".to_owned()).apply("/a", None), "/new");
        let segments = PathRewrite::PrefixBySegments("/new".to_owned());
        assert_eq!(segments.apply("/a/b", None), "/new/a/b");
        assert_eq!(segments.apply("/a/b", Some(&StringMatch::Exact("/a/b".to_owned()))), "/new");
    }

    #[test]
    fn what_is_no_path_and_what_was_rewritten_before_stay() {
        assert_eq!(PathRewrite::Full("/new".to_owned()).apply("*", None), "*");
        assert_eq!(by_segments("/f", "/foo", "/new"), "/f");
        assert_eq!(by_segments("/other", "/foo", "/new"), "/other");
        assert_eq!(by_letters("/f", "/foo", "/new"), "/f");
    }

    #[test]
    fn the_query_stays_unless_there_is_a_new_one() {
        assert_eq!(with_query("/a".to_owned(), "b=c"), "/a?b=c");
        assert_eq!(with_query("/a".to_owned(), ""), "/a");
        assert_eq!(with_query("/a?d".to_owned(), "b=c"), "/a?d");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn segments_after_the_prefix_stay_and_no_slash_is_doubled(
            prefix in vec("[a-c]{1,2}", 0..3),
            rest in vec("[a-c]{1,2}", 0..3),
            new in vec("[x-z]{1,2}", 0..3),
            ends in any::<[bool; 3]>(),
        ) {
            let path = |segments: &[String], slash: bool| {
                let path: String = segments.iter().map(|segment| format!("/{segment}")).collect();
                if slash { path + "/" } else { path }
            };
            let whole = path(&[prefix.clone(), rest.clone()].concat(), ends[0]);
            let becomes = by_segments(&whole, &path(&prefix, ends[1]), &path(&new, ends[2]));

            prop_assert!(becomes.starts_with('/') && !becomes.contains("//"), "{}", becomes);
            let segments: Vec<_> = becomes.split('/').filter(|segment| !segment.is_empty()).collect();
            prop_assert_eq!(segments, [new, rest].concat());
        }

        #[test]
        fn whatever_is_rewritten_is_a_path(path in "/[ -~é]{0,8}", asked in "[/a-cé]{0,4}", new in "[ -~]{0,4}") {
            for matched in [
                None,
                Some(StringMatch::Prefix(asked.clone())),
                Some(StringMatch::PathPrefix(asked.clone())),
                Some(StringMatch::Exact(asked)),
            ] {
                for rewrite in
                    [PathRewrite::Full, PathRewrite::Prefix, PathRewrite::PrefixBySegments].map(|kind| kind(new.clone()))
                {
                    prop_assert!(rewrite.apply(&path, matched.as_ref()).starts_with('/'));
                }
            }
        }
    }

    #[test]
    fn groups_are_named_by_number() {
        let rewrite = RegexRewrite::new("^/service/([^/]+)(/.*)$", r"\2/instance/\1").unwrap();

        assert_eq!(rewrite.replace("/service/foo/v1/api"), "/v1/api/instance/foo");
        assert_eq!(rewrite.replace("/other"), "/other");
    }

    #[test]
    fn every_part_is_replaced_and_nothing_else_is_special() {
        let one = RegexRewrite::new("one", "two").unwrap();
        assert_eq!(one.replace("/xxx/one/yyy/one/zzz"), "/xxx/two/yyy/two/zzz");
        let dollar = RegexRewrite::new("a", r"$1\\\0").unwrap();
        assert_eq!(dollar.replace("/a"), r"/$1\a");
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        assert!(matches!(RegexRewrite::new("(", ""), Err(RegexRewriteError::Pattern(_))));
        assert!(matches!(RegexRewrite::new("a", r"\1"), Err(RegexRewriteError::NoGroup(1))));
        assert!(matches!(RegexRewrite::new("a", r"\x"), Err(RegexRewriteError::Escape)));
        assert!(matches!(RegexRewrite::new("a", "\\"), Err(RegexRewriteError::Escape)));
    }
}
