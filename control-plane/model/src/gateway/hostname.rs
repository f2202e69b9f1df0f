//! Which host names a listener or a route is for.

use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
};

use serde::{Serialize, Serializer};

use crate::{FullRegex, RegexError, host::is_name};

/// A set of host names, as a listener or a route writes it. Names are in lower case, without a dot at their end.
///
/// The greater of two sets that have a name in common is the more specific one (Gateway API, `HTTPRoute`
/// `spec.hostnames`): an exact name, then the wildcard with the longer suffix; at last, what an expression finds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Hostname {
    /// Every name, and requests without one.
    #[default]
    Any,
    /// `*.example.com`, as Gateway API and Istio mean it: every name that ends with `.example.com`. The text is
    /// `example.com`.
    Below(Arc<str>),
    /// `*.example.com`, as `Ingress` means it: one label and then `.example.com`. The text is `example.com`.
    OneBelow(Arc<str>),
    /// This name.
    Exact(Arc<str>),
    /// The names in which a regular expression is found, as nginx has them (`~…`).
    Like(HostPattern),
}

/// A regular expression that host names are found by.
#[derive(Debug, Clone)]
pub struct HostPattern {
    written: Arc<str>,
    regex: FullRegex,
}

impl HostPattern {
    /// Reads `pattern`, which is found anywhere in a name unless it says otherwise.
    ///
    /// # Errors
    /// If it is not a regular expression that can be used.
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        // By itself first: with what stands around it, it could be another.
        FullRegex::new(pattern)?;
        Ok(Self { written: pattern.into(), regex: FullRegex::new(&format!(".*(?:{pattern}).*"))? })
    }

    /// The same, ready for requests.
    ///
    /// # Errors
    /// If this process holds as many expressions as it may.
    pub fn held(self) -> Result<Self, RegexError> {
        Ok(Self { regex: self.regex.held()?, ..self })
    }

    /// Whether it is found in `name`.
    pub fn is_in(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }
}

impl PartialEq for HostPattern {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for HostPattern {}

impl Hash for HostPattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.written.hash(state);
    }
}

/// A text is no host name that a listener or a route may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no host name; write a DNS name such as shop.example.com, or *.example.com for all names below it")]
pub struct HostnameError;

impl Hostname {
    /// Whether `name`, which is in lower case and has no port and no dot at its end, is in the set.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Below(suffix) => label_before(name, suffix).is_some(),
            Self::OneBelow(suffix) => label_before(name, suffix).is_some_and(|label| !label.contains('.')),
            Self::Exact(exact) => **exact == *name,
            Self::Like(pattern) => pattern.is_in(name),
        }
    }

    /// The names that are in both sets. `None`: there are none. Of an expression and a wildcard nobody can say it: they have
    /// none.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let (less, more) = if self.rank() <= other.rank() { (self, other) } else { (other, self) };
        let is_within = match (less, more) {
            (Self::Any, _) => true,
            (_, Self::Any) => false,
            (_, Self::Exact(name)) => less.contains(name),
            (Self::Below(suffix), Self::Below(longer) | Self::OneBelow(longer)) => {
                suffix == longer || label_before(longer, suffix).is_some()
            }
            (Self::OneBelow(suffix), Self::OneBelow(other)) => suffix == other,
            (Self::Like(one), Self::Like(other)) => one == other,
            // Every name below a longer suffix has more labels.
            (Self::OneBelow(_), Self::Below(_)) | (Self::Exact(_), Self::Below(_) | Self::OneBelow(_)) => {
                false
            }
            (Self::Like(_), _) | (_, Self::Like(_)) => false,
        };
        is_within.then(|| more.clone())
    }

    /// How specific it is: the greater decides of two that a name is in.
    pub fn rank(&self) -> impl Ord + use<> {
        match self {
            Self::Any => (0, 0, 0),
            Self::Like(_) => (1, 0, 0),
            Self::Below(suffix) => (2, suffix.len(), 0),
            Self::OneBelow(suffix) => (2, suffix.len(), 1),
            Self::Exact(name) => (3, name.len(), 0),
        }
    }

    /// The set of `Ingress`, whose wildcard stands for one label.
    ///
    /// # Errors
    /// If `text` is no host name.
    pub fn of_ingress(text: &str) -> Result<Self, HostnameError> {
        Ok(match text.parse()? {
            Self::Below(suffix) => Self::OneBelow(suffix),
            other => other,
        })
    }
}

/// What stands before `.suffix` in `name`, if it ends with that.
fn label_before<'n>(name: &'n str, suffix: &str) -> Option<&'n str> {
    name.strip_suffix(suffix)?.strip_suffix('.').filter(|before| !before.is_empty())
}

impl FromStr for Hostname {
    type Err = HostnameError;

    /// An empty text and `*` are every name; `*.` before a name is [`Below`](Self::Below).
    fn from_str(text: &str) -> Result<Self, HostnameError> {
        if matches!(text, "" | "*") {
            return Ok(Self::Any);
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let (below, name) = match name.strip_prefix("*.") {
            Some(suffix) => (true, suffix),
            None => (false, name.as_str()),
        };
        if !is_name(name, |byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(HostnameError);
        }
        Ok(if below { Self::Below(name.into()) } else { Self::Exact(name.into()) })
    }
}

/// As documents write it; `?.example.com` for one label, and `~` before an expression.
impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
            Self::OneBelow(suffix) => write!(f, "?.{suffix}"),
            Self::Exact(name) => f.write_str(name),
            Self::Like(pattern) => write!(f, "~{}", pattern.written),
        }
    }
}

impl Serialize for Hostname {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostname(text: &str) -> Hostname {
        match text.strip_prefix('?') {
            Some(rest) => Hostname::of_ingress(&format!("*{rest}")).unwrap(),
            None => text.parse().unwrap(),
        }
    }

    #[test]
    fn a_set_contains_the_names_that_its_writer_means() {
        for (set, name, contains) in [
            ("", "anything.example", true),
            ("*", "anything.example", true),
            ("shop.example.com", "shop.example.com", true),
            ("Shop.Example.com.", "shop.example.com", true),
            ("shop.example.com", "a.shop.example.com", false),
            ("*.example.com", "shop.example.com", true),
            ("*.example.com", "a.shop.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "shopexample.com", false),
            ("?.example.com", "shop.example.com", true),
            ("?.example.com", "a.shop.example.com", false),
            ("?.example.com", "example.com", false),
        ] {
            assert_eq!(hostname(set).contains(name), contains, "{set} {name}");
        }
    }

    #[test]
    fn an_intersection_is_the_more_specific_set_or_nothing() {
        for (one, other, both) in [
            ("", "", Some("*")),
            ("", "*.example.com", Some("*.example.com")),
            ("", "shop.example.com", Some("shop.example.com")),
            ("*.example.com", "shop.example.com", Some("shop.example.com")),
            ("*.example.com", "*.shop.example.com", Some("*.shop.example.com")),
            ("*.example.com", "*.example.com", Some("*.example.com")),
            ("*.example.com", "?.example.com", Some("?.example.com")),
            ("*.example.com", "?.shop.example.com", Some("?.shop.example.com")),
            ("?.example.com", "*.shop.example.com", None),
            ("?.example.com", "?.example.com", Some("?.example.com")),
            ("?.example.com", "a.shop.example.com", None),
            ("*.example.com", "example.com", None),
            ("*.example.com", "*.example.org", None),
            ("*.example.com", "*.myexample.com", None),
            ("shop.example.com", "shop.example.org", None),
        ] {
            let both = both.map(hostname);
            assert_eq!(hostname(one).intersection(&hostname(other)), both, "{one} {other}");
            assert_eq!(hostname(other).intersection(&hostname(one)), both, "{other} {one}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            ".",
            "*.",
            "a..b",
            "-a.b",
            "a-.b",
            "a_b.c",
            "1.2.3.4",
            "*.1.2.3.4",
            "a b",
            "*a.b",
            "a.*.b",
            "a:80",
            "**",
        ] {
            assert_eq!(text.parse::<Hostname>(), Err(HostnameError), "{text}");
        }
        let long = format!("{}.com", ["a"; 130].join("."));
        assert_eq!(long.parse::<Hostname>(), Err(HostnameError));
    }

    #[test]
    fn an_exact_name_ranks_before_a_longer_wildcard() {
        let ranks = ["", "*.com", "*.example.com", "?.example.com", "a.b", "shop.example.com"];
        assert!(ranks.windows(2).all(|pair| hostname(pair[0]).rank() < hostname(pair[1]).rank()));
    }
}
