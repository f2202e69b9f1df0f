//! The paths of an `Ingress`, and what `rewrite-target` makes of them.

use selvedge_model::{
    FullRegex, StringMatch,
    filter::{PathRewrite, RegexRewrite},
};
use serde::Deserialize;

use super::{
    super::{
        document::wrong,
        typed::FieldError,
        values::{normalize_path, wrong_regex},
    },
    IngressBackend, IngressPath,
    nginx::{Nginx, Notes, REWRITE_TARGET, annotation},
};

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum PathType {
    Exact,
    Prefix,
    ImplementationSpecific,
}

/// What makes a path one that only a regular expression can mean. A point stands in many plain paths (`/v1.2`).
const OF_REGEX: &[char] = &['(', ')', '[', ']', '{', '}', '*', '+', '?', '|', '^', '$', '\\'];

/// The path at `field`, checked as the API server does.
pub(super) fn read_path(
    path: Option<String>,
    kind: Option<PathType>,
    field: String,
    backend: IngressBackend,
    nginx: &Nginx,
    notes: &mut Notes,
) -> Result<IngressPath, FieldError> {
    let Some(kind) = kind else {
        let message = "is missing; write Exact, Prefix or ImplementationSpecific";
        return Err(wrong(format!("{field}.pathType"), message));
    };
    let own = format!("{field}.path");
    let is_given = path.as_ref().is_some_and(|path| !path.is_empty());
    let written = path.filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
    if !written.starts_with('/') || !is_given && kind != PathType::ImplementationSpecific {
        return Err(wrong(
            own,
            format!("{:?} is not a path; begin it with /", if is_given { &written } else { "" }),
        ));
    }
    let is_regex = kind != PathType::Exact && nginx.reads_as_regex(written.contains(OF_REGEX));
    if kind != PathType::ImplementationSpecific {
        let never = ["//", "/./", "/../", "%2f", "%2F"].into_iter().find(|part| written.contains(part));
        let at_the_end = || ["/.", "/.."].into_iter().find(|end| written.ends_with(end));
        if let Some(part) = never.or_else(at_the_end) {
            return Err(wrong(own, format!("{written:?} holds {part:?}, which no path has; remove it")));
        }
    }
    let mut asks = match kind {
        PathType::Exact => StringMatch::Exact(written.clone()),
        _ if is_regex => match beginning_with(&written) {
            Ok(regex) => StringMatch::Regex(regex),
            Err(error) => {
                let FieldError { field, message, .. } = wrong_regex(own, &written, error);
                notes.error(field, message);
                StringMatch::PathPrefix(written.clone())
            }
        },
        // As nginx's locations are: letter by letter. What ends in a slash is for the path without it, too.
        PathType::ImplementationSpecific if !written.ends_with('/') => StringMatch::Prefix(written.clone()),
        _ => StringMatch::PathPrefix(written.clone()),
    };
    if let Err(why) = normalize_path(&mut asks) {
        notes.warning(format!("{field}.path"), format!("{written:?} matches no request: {why}"));
    }
    let pattern = is_regex.then_some(written.as_str());
    if let Some(group) = nginx.redirect_group().filter(|group| usize::from(*group) > groups_of(pattern)) {
        let message =
            format!("has no group for ${group} of the redirect, which becomes nothing, as in nginx");
        notes.warning(format!("{field}.path"), message);
    }
    // What becomes itself is not rewritten, nor is what is below it.
    let target = nginx.rewrite_target.as_deref().filter(|target| *target != written);
    let rewrite = target.and_then(|target| {
        let rewrite = rewritten(pattern, target, &field, notes);
        rewrite.map_err(|message| notes.error(annotation(REWRITE_TARGET), message)).ok()
    });
    Ok(IngressPath { field, written, asks, rewrite, backend })
}

/// What begins as `path` says, as nginx reads it: whatever the case, and whatever follows.
fn beginning_with(path: &str) -> Result<FullRegex, selvedge_model::RegexError> {
    FullRegex::new(path)?;
    FullRegex::new(&format!("(?i:{path}).*"))
}

/// How many groups `pattern` has.
fn groups_of(pattern: Option<&str>) -> usize {
    pattern.and_then(|pattern| regex::Regex::new(pattern).ok()).map_or(0, |one| one.captures_len() - 1)
}

/// What `target` makes of a path that begins as `pattern` says: all of it is replaced, as by nginx.
fn rewritten(
    pattern: Option<&str>,
    target: &str,
    field: &str,
    notes: &mut Notes,
) -> Result<PathRewrite, String> {
    let groups = groups_of(pattern);
    // A question mark at the end keeps the request's own query away. It is needed for that only if it is the only one.
    let bare = target.strip_suffix('?').filter(|bare| bare.contains('?'));
    let target = bare.unwrap_or(target);
    let (mut substitution, mut missing) = (String::new(), None);
    let mut letters = target.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, letters.peek().and_then(|next| next.to_digit(10))) {
            ('$', Some(group @ 1..)) => {
                letters.next();
                if group as usize > groups {
                    missing = Some(group);
                } else {
                    substitution.push_str(&format!("\\{group}"));
                }
            }
            ('$', _) => {
                return Err(format!(
                    "{target:?} has a variable of nginx, which has no value here; write $1 to $9 for groups of the path"
                ));
            }
            ('\\', _) if pattern.is_some() => substitution.push_str("\\\\"),
            (letter, _) => substitution.push(letter),
        }
    }
    if let Some(group) = missing {
        let message =
            format!("has no group for ${group} of {REWRITE_TARGET}, which becomes nothing, as in nginx");
        notes.warning(format!("{field}.path"), message);
    }
    match pattern {
        None => Ok(PathRewrite::Full(substitution)),
        // The groups keep their numbers.
        Some(pattern) => RegexRewrite::new(&format!("^(?i:{pattern}).*"), &substitution)
            .map(PathRewrite::Regex)
            .map_err(|error| format!("cannot be used: {error}")),
    }
}
