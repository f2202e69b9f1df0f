//! Changes of a request's path and authority (Gateway API `URLRewrite`; `VirtualService` `rewrite`).

use serde::{Serialize, Serializer};

use crate::{
    StringMatch,
    expression::{self, Expression, RegexError},
    normalize::path::Spellings,
};

/// What a request's path and authority become. The default changes neither.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rewrite {
    /// The path.
    pub path: Option<PathRewrite>,
    /// Whether a query that the new path has stands before the request's own, as in nginx; otherwise in its place.
    pub adds_query: bool,
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

/// `path` with `query`, behind a query that a rewrite may have given it.
pub(super) fn with_both_queries(mut path: String, query: &str) -> String {
    if !query.is_empty() {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(query);
    }
    path
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
    pattern: Expression,
    substitution: String,
    /// `substitution` in the words of the crate `regex_automata`.
    template: String,
}

/// Why a rewrite cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegexRewriteError {
    /// The expression is too long, malformed, or too large when compiled.
    #[error(transparent)]
    Pattern(#[from] RegexError),
    /// The substitution names a group that the expression does not have.
    #[error("\\{0} names a group that the expression does not have; add it, or write \\0 for all of it")]
    NoGroup(usize),
    /// A backslash before something else.
    #[error("a \\ stands before neither a digit nor another \\")]
    Escape,
}

impl RegexRewrite {
    /// Reads `pattern`; in `substitution`, `\0` is all that matched, `\1` to `\9` are its groups, and `\\` is a
    /// backslash (RE2 `Rewrite`).
    ///
    /// # Errors
    /// If either cannot be used.
    pub fn new(pattern: &str, substitution: &str) -> Result<Self, RegexRewriteError> {
        let groups = expression::groups(pattern)?;
        let pattern = Expression::new(pattern)?;
        let mut template = String::new();
        let mut letters = substitution.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '$' => template.push_str("$$"),
                '\\' => match letters.next() {
                    Some('\\') => template.push('\\'),
                    Some(digit) => {
                        let group = digit.to_digit(10).ok_or(RegexRewriteError::Escape)? as usize;
                        if group >= groups {
                            return Err(RegexRewriteError::NoGroup(group));
                        }
                        template.push_str(&format!("${{{group}}}"));
                    }
                    None => return Err(RegexRewriteError::Escape),
                },
                letter => template.push(letter),
            }
        }
        Ok(Self { pattern, substitution: substitution.to_owned(), template })
    }

    /// The same, ready for requests.
    ///
    /// # Errors
    /// If this process holds [as much as it may](expression::PROCESS_LIMIT).
    pub fn held(self) -> Result<Self, RegexRewriteError> {
        self.pattern.hold()?;
        Ok(self)
    }

    /// The expression as it was written.
    pub fn pattern(&self) -> &str {
        self.pattern.text()
    }

    /// The substitution as it was written.
    pub fn substitution(&self) -> &str {
        &self.substitution
    }

    /// `path` with every part that matches replaced: in the first of its spellings in which some does. All others of its parts stay as
    /// they came.
    pub fn replace(&self, path: &str) -> String {
        let pattern = self.pattern.compiled();
        let spellings = Spellings::of(path);
        let text = match spellings.are_several() {
            true => spellings.each().find(|text| pattern.is_match(*text)).unwrap_or(path),
            false => path,
        };
        let mut replaced = String::new();
        let mut rest = 0;
        // What is found in one spelling stands in the same place of any other.
        for groups in pattern.captures_iter(text) {
            let Some(found) = groups.get_match() else { continue };
            replaced.push_str(&path[rest..found.start()]);
            groups.interpolate_string_into(path, &self.template, &mut replaced);
            rest = found.end();
        }
        replaced.push_str(&path[rest..]);
        replaced
    }
}

impl PartialEq for RegexRewrite {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern && self.substitution == other.substitution
    }
}

impl Serialize for RegexRewrite {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{} -> {}", self.pattern(), self.substitution))
    }
}

#[cfg(test)]
mod tests;
