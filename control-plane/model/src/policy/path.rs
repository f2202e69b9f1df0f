//! What a policy asks of a path: texts and templates, and how else an app may read the path.
//!
//! The proxy brings paths into one normal form, and passes on what apps read in different ways: `%2F`, several slashes,
//! `;parameters`, the case of letters, a slash at the end. A request may use that to name a resource in a way that a
//! policy does not see. So where a match refuses, one reading of the path that matches is enough. Where a match
//! permits, the path itself must match, and also the resource that an app gets which decodes `%2F` or drops
//! parameters, if dot segments appear by that (`/public/..%2Fadmin`, `/public/..;/admin`).

use std::borrow::Cow;

use serde::Serialize;

use super::text::{TextPattern, TextSet};

/// A path template: each segment is a text, `{*}` (one segment that is not empty) or `{**}` (any rest).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PathTemplate {
    source: Box<str>,
    /// The segments up to `{**}`, or all; `None`: `{*}`.
    segments: Vec<Option<Box<str>>>,
    /// What the path ends with after `{**}`, if there is one; with its slash, or empty.
    rest: Option<Box<str>>,
}

/// Why a text is not a path template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Such as `admin/{*}`.
    #[error("a path template begins with /")]
    NotAbsolute,
    /// Such as `/a{*}` or `/{name}/{*}`.
    #[error("each segment of a path template is {{*}}, {{**}} or a text without braces and stars")]
    Segment,
    /// After `{**}` nothing says where it ends.
    #[error("in a path template, neither {{*}} nor {{**}} may follow {{**}}")]
    AfterRest,
}

/// Whether Istio reads `text` as a template.
pub fn is_template(text: &str) -> bool {
    text.contains("{*}") || text.contains("{**}")
}

impl PathTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// If it is none.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        let path = source.strip_prefix('/').ok_or(TemplateError::NotAbsolute)?;
        let (mut segments, mut rest) = (Vec::new(), None::<String>);
        for segment in path.split('/') {
            match (segment, &mut rest) {
                ("{*}" | "{**}", Some(_)) => return Err(TemplateError::AfterRest),
                ("{*}", None) => segments.push(None),
                ("{**}", None) => rest = Some(String::new()),
                (text, _) if text.contains(['{', '}', '*']) => return Err(TemplateError::Segment),
                (text, None) => segments.push(Some(text.into())),
                (text, Some(rest)) => *rest = format!("{rest}/{text}"),
            }
        }
        Ok(Self { source: source.into(), segments, rest: rest.map(Into::into) })
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether `path` fits.
    pub fn is_match(&self, path: &str) -> bool {
        let mut left = path;
        for wanted in &self.segments {
            let Some(after) = left.strip_prefix('/') else { return false };
            let end = after.find('/').unwrap_or(after.len());
            let is_it = match wanted {
                Some(text) => after[..end] == **text,
                None => end > 0,
            };
            if !is_it {
                return false;
            }
            left = &after[end..];
        }
        match &self.rest {
            None => left.is_empty(),
            Some(rest) => left.strip_prefix('/').is_some_and(|left| left.ends_with(&**rest)),
        }
    }

    fn lower_case(&self) -> Self {
        let lower = |text: &str| text.to_ascii_lowercase().into_boxed_str();
        Self {
            source: lower(&self.source),
            segments: self.segments.iter().map(|one| one.as_deref().map(lower)).collect(),
            rest: self.rest.as_deref().map(lower),
        }
    }
}

/// A set of paths: those that match any of its texts or templates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PathSet {
    texts: TextSet,
    templates: Vec<PathTemplate>,
    /// The same for [loose](loosen) paths.
    #[serde(skip)]
    loose: Box<(TextSet, Vec<PathTemplate>)>,
}

impl PathSet {
    /// The paths that match any of `texts` or `templates`.
    pub fn new(texts: TextSet, mut templates: Vec<PathTemplate>) -> Self {
        templates.sort_unstable();
        templates.dedup();
        let loose_texts = texts.patterns().map(|pattern| match &pattern {
            TextPattern::Exact(path) => TextPattern::Exact(loosen(path).without_slash().into()),
            other => other.map(str::to_ascii_lowercase),
        });
        let loose = (loose_texts.collect(), templates.iter().map(PathTemplate::lower_case).collect());
        Self { texts, templates, loose: Box::new(loose) }
    }

    /// Its texts.
    pub fn texts(&self) -> &TextSet {
        &self.texts
    }

    /// Its templates.
    pub fn templates(&self) -> &[PathTemplate] {
        &self.templates
    }

    /// Whether `path` is in it.
    pub fn contains(&self, path: &str) -> bool {
        self.texts.contains(path) || self.templates.iter().any(|template| template.is_match(path))
    }

    /// Whether a path whose [loose](loosen) form is `path` is in it, with the slash at its end or without it.
    pub fn contains_loosely(&self, path: &Loose<'_>) -> bool {
        let (texts, templates) = &*self.loose;
        let is_in = |path: &str| texts.contains(path) || templates.iter().any(|one| one.is_match(path));
        path.readings().any(is_in)
    }
}

/// How the most lenient app reads a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loose<'a> {
    /// Percent-decoded, in lower case, without `;parameters` and repeated slashes.
    pub path: Cow<'a, str>,
    /// The same in its own letters and without a slash at its end, if dot segments appeared by that: another resource than
    /// the one named.
    pub elsewhere: Option<String>,
}

impl Loose<'_> {
    /// The path without a slash at its end.
    pub fn without_slash(&self) -> &str {
        without_slash(&self.path)
    }

    /// The path as it is, and if it ends with a slash, without it: `/admin/*` is for the first, `/admin` for the second.
    pub(super) fn readings(&self) -> impl Iterator<Item = &str> {
        let bare = self.without_slash();
        std::iter::once(&*self.path).chain((bare.len() != self.path.len()).then_some(bare))
    }
}

fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path)
}

/// The loose form of `path`, which is in [normal form](crate::normalize::path). Allocates only where that differs.
pub fn loosen(path: &str) -> Loose<'_> {
    let is_special = |byte: u8| matches!(byte, b'%' | b';' | b'\\');
    let bytes = path.as_bytes();
    let doubled = bytes.windows(2).any(|two| two == b"//");
    if !doubled && !bytes.iter().any(|byte| is_special(*byte)) {
        let path = match bytes.iter().any(u8::is_ascii_uppercase) {
            true => Cow::Owned(path.to_ascii_lowercase()),
            false => Cow::Borrowed(path),
        };
        return Loose { path, elsewhere: None };
    }
    let (plain, moved) = plain(&decoded(bytes));
    let lower = plain.to_ascii_lowercase();
    Loose { path: Cow::Owned(lower), elsewhere: moved.then(|| without_slash(&plain).to_owned()) }
}

/// `path` with each `%XX` decoded, and again until nothing changes: some apps, and what stands before them, decode twice.
fn decoded(path: &[u8]) -> Vec<u8> {
    const MOST_TIMES: usize = 3;
    let mut bytes = path.to_vec();
    for _ in 0..MOST_TIMES {
        let mut next = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let hex = |place: usize| bytes.get(place).and_then(|digit| char::from(*digit).to_digit(16));
            match (*byte, hex(at + 1), hex(at + 2)) {
                (b'%', Some(high), Some(low)) => {
                    next.push(u8::try_from(high * 16 + low).unwrap_or(b'%'));
                    at += 3;
                }
                (byte, ..) => {
                    next.push(byte);
                    at += 1;
                }
            }
        }
        if next.len() == bytes.len() {
            break;
        }
        bytes = next;
    }
    bytes
}

/// A decoded path without parameters, empty segments and dot segments; and whether there were dot segments.
fn plain(path: &[u8]) -> (String, bool) {
    let text = String::from_utf8_lossy(path).replace('\\', "/");
    let (mut kept, mut moved, mut slash) = (Vec::new(), false, "");
    for segment in text.split('/') {
        let name = segment.split(';').next().unwrap_or_default();
        slash = "/";
        match name {
            "" => {}
            "." => moved = true,
            ".." => {
                moved = true;
                kept.pop();
            }
            name => {
                kept.push(name);
                slash = "";
            }
        }
    }
    let slash = if kept.is_empty() { "" } else { slash };
    (format!("/{}{slash}", kept.join("/")), moved)
}

#[cfg(test)]
mod tests;
