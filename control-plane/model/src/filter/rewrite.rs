//! Changes of a request's path and authority (Gateway API `URLRewrite`; `VirtualService` `rewrite`).

use regex::Regex;
use serde::{Serialize, Serializer};

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
    #[error("\\{0} names a group that the expression does not have")]
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
    use super::*;

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
