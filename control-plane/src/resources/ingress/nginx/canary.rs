//! `canary` and its options: an `Ingress` that takes a part of another's requests.

use http::HeaderName;
use selvedge_model::{FullRegex, HeaderField, StringMatch};

use super::Annotations;

/// Which requests a canary takes. Its options are asked in this order: the header, the cookie, the weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Canary {
    /// Those with this header.
    pub header: Option<CanaryHeader>,
    /// Those whose cookies say so.
    pub cookie: Option<CanaryHeader>,
    /// So many of `total` of the others.
    pub weight: u32,
    /// At least `weight`, and not 0.
    pub total: u32,
}

/// A header that says whether the canary takes a request.
#[derive(Debug, Clone, PartialEq)]
pub struct CanaryHeader {
    /// Which.
    pub name: HeaderField,
    /// What it says of those that the canary takes, and of those that it never takes.
    pub wanted: Wanted,
}

/// What a header says.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The canary takes the request.
    pub always: StringMatch,
    /// It does not, whatever comes after. `None`: what comes after decides.
    pub never: Option<StringMatch>,
}

/// What the annotations say; `None`: it is not a canary.
pub(super) fn read(annotations: &mut Annotations<'_>) -> Option<Canary> {
    if !annotations.flag("canary", false) {
        for name in ["canary-weight", "canary-by-header", "canary-by-cookie"] {
            if annotations.text(name).is_some() {
                annotations
                    .notes
                    .warning(super::annotation(name), "has no effect without canary: \"true\"; add it");
            }
        }
        return None;
    }
    // nginx counts a smaller total as 100.
    let total =
        annotations.number("canary-weight-total", "a number of shares", 1, u32::MAX).unwrap_or(100).max(100);
    let weight = annotations.number("canary-weight", "a weight", 0, total).unwrap_or(0);
    Some(Canary { header: header(annotations), cookie: cookie(annotations), weight, total })
}

fn header(annotations: &mut Annotations<'_>) -> Option<CanaryHeader> {
    const NAME: &str = "canary-by-header";
    const PATTERN: &str = "canary-by-header-pattern";
    let (value, pattern) = (annotations.text("canary-by-header-value"), annotations.text(PATTERN));
    let Some(name) = annotations.text(NAME) else {
        for (option, _) in
            [("canary-by-header-value", value), (PATTERN, pattern)].iter().filter(|(_, said)| said.is_some())
        {
            annotations.wrong(option, format!("needs {NAME}, which names the header; add it"));
        }
        return None;
    };
    let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
        annotations.wrong(NAME, format!("{name:?} is not the name of a header; correct it"));
        return None;
    };
    let wanted = match (value, pattern) {
        (Some(value), _) => Wanted { always: StringMatch::Exact(value.to_owned()), never: None },
        // It matches anywhere in the value.
        (None, Some(pattern)) => {
            match FullRegex::new(pattern).and_then(|_| FullRegex::new(&format!(".*(?:{pattern}).*"))) {
                Ok(regex) => Wanted { always: StringMatch::Regex(regex), never: None },
                Err(error) => {
                    let message =
                        format!("{pattern:?} is not an RE2 regular expression that can be used: {error}");
                    annotations.wrong(PATTERN, message);
                    return None;
                }
            }
        }
        (None, None) => Wanted {
            always: StringMatch::Exact("always".to_owned()),
            never: Some(StringMatch::Exact("never".to_owned())),
        },
    };
    Some(CanaryHeader { name: HeaderField::Header(header), wanted })
}

fn cookie(annotations: &mut Annotations<'_>) -> Option<CanaryHeader> {
    const NAME: &str = "canary-by-cookie";
    let name = annotations.text(NAME)?;
    let is_name = HeaderName::from_bytes(name.as_bytes()).is_ok();
    let crumb = |value: &str| {
        let pattern = format!("(?:.*;)?[ \\t]*(?i:{})={value}[ \\t]*(?:;.*)?", regex::escape(name));
        FullRegex::new(&pattern).ok().map(StringMatch::Regex)
    };
    let (Some(always), never @ Some(_)) = (crumb("always").filter(|_| is_name), crumb("never")) else {
        annotations.wrong(NAME, format!("{name:?} is not the name of a cookie; correct it"));
        return None;
    };
    Some(CanaryHeader { name: HeaderField::Header(http::header::COOKIE), wanted: Wanted { always, never } })
}
