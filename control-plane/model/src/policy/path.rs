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
use crate::normalize::path::{NeverAsked, Part, comparable, normalize_text};

/// A path template: each segment is a text, `{*}` (one segment that is not empty) or `{**}` (any rest). Texts are in normal
/// form.
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
        let path = source.strip_prefix('/').ok_or(TemplateError::NotAbsolute)?.replace('\\', "/");
        let (mut segments, mut rest) = (Vec::new(), None::<String>);
        for segment in path.split('/') {
            match (segment, &mut rest) {
                ("{*}" | "{**}", Some(_)) => return Err(TemplateError::AfterRest),
                ("{*}", None) => segments.push(None),
                ("{**}", None) => rest = Some(String::new()),
                (text, _) if text.contains(['{', '}', '*']) => return Err(TemplateError::Segment),
                (text, None) => segments.push(Some(normal(text, Part::End).into())),
                (text, Some(rest)) => *rest = format!("{rest}/{}", normal(text, Part::End)),
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

    /// How every path begins that fits.
    pub(super) fn beginning(&self) -> String {
        let mut beginning = String::new();
        for segment in &self.segments {
            beginning.push('/');
            match segment {
                Some(text) => beginning.push_str(text),
                None => return beginning,
            }
        }
        if self.rest.is_some() {
            beginning.push('/');
        }
        beginning
    }

    /// The same with each of its texts in lower case.
    fn lower_case(&self) -> Self {
        let lower = |text: &str| lower(text).into_boxed_str();
        Self {
            source: self.source.clone(),
            segments: self.segments.iter().map(|one| one.as_deref().map(lower)).collect(),
            rest: self.rest.as_deref().map(lower),
        }
    }

    /// The same for [loose](loosen) paths. What is one segment as it is written may be several.
    fn loosened(&self) -> Self {
        let mut segments: Vec<Option<Box<str>>> = Vec::new();
        for (number, segment) in self.segments.iter().enumerate() {
            match segment.as_deref() {
                None => segments.push(None),
                // The slash at the end.
                Some("") if number + 1 == self.segments.len() => segments.push(Some("".into())),
                Some(text) => {
                    for name in readable(text).split('/').map(without_parameters) {
                        match name {
                            "" | "." => {}
                            ".." => drop(segments.pop_if(|last| last.is_some())),
                            name => segments.push(Some(lower(name).into())),
                        }
                    }
                }
            }
        }
        let rest = self.rest.as_deref().map(|rest| loosen_end(rest).into());
        Self { source: self.source.clone(), segments, rest }
    }
}

/// `text` as paths are [compared](comparable), or as it is if no path has it.
fn normal(text: &str, part: Part) -> String {
    comparable(text, part).unwrap_or_else(|_| text.to_owned())
}

/// Checks that a path can match `text`, which is a pattern or a template as Istio writes them.
///
/// # Errors
/// Why none can.
pub fn check(text: &str) -> Result<(), NeverAsked> {
    if is_template(text) {
        let texts = text.split('/').filter(|segment| !matches!(*segment, "{*}" | "{**}"));
        let mut ends = texts.map(|segment| format!("/{segment}"));
        return ends.try_for_each(|end| normalize_text(&end, Part::End).map(drop));
    }
    let normalized = match TextPattern::istio(text) {
        TextPattern::Exact(text) => normalize_text(&text, Part::Whole),
        TextPattern::Prefix(text) => normalize_text(&text, Part::Beginning),
        TextPattern::Suffix(text) => normalize_text(&text, Part::End),
        TextPattern::Glob(_) | TextPattern::Present => return Ok(()),
    };
    normalized.map(drop)
}

/// What a pattern asks of paths in normal form.
fn normal_pattern(pattern: &TextPattern) -> TextPattern {
    match pattern {
        TextPattern::Exact(text) => TextPattern::Exact(normal(text, Part::Whole).into()),
        TextPattern::Prefix(text) => TextPattern::Prefix(normal(text, Part::Beginning).into()),
        TextPattern::Suffix(text) => TextPattern::Suffix(normal(text, Part::End).into()),
        TextPattern::Glob(_) | TextPattern::Present => pattern.clone(),
    }
}

/// What a pattern in normal form asks of [loose](loosen) paths.
fn loose_pattern(pattern: &TextPattern) -> TextPattern {
    match pattern {
        TextPattern::Exact(text) => TextPattern::Exact(loosen(text).without_slash().into()),
        TextPattern::Prefix(text) => TextPattern::Prefix(loosen_beginning(text).into()),
        TextPattern::Suffix(text) => TextPattern::Suffix(loosen_end(text).into()),
        TextPattern::Glob(_) | TextPattern::Present => pattern.map(|text| lower(&readable(text))),
    }
}

/// What a pattern for paths with their queries asks. `of_path` says what becomes of a pattern for the path, and `of_query` of
/// a query.
fn with_query(
    pattern: &TextPattern,
    of_path: fn(&TextPattern) -> TextPattern,
    of_query: fn(&str) -> String,
) -> TextPattern {
    let changed = |asks: fn(Box<str>) -> TextPattern, text: &str| {
        let (path, query) = text.split_once('?')?;
        match of_path(&asks(path.into())) {
            TextPattern::Exact(path) | TextPattern::Suffix(path) => {
                Some(format!("{path}?{}", of_query(query)).into_boxed_str())
            }
            _ => None,
        }
    };
    let changed = match pattern {
        TextPattern::Exact(text) => changed(TextPattern::Exact, text).map(TextPattern::Exact),
        TextPattern::Prefix(text) => changed(TextPattern::Exact, text).map(TextPattern::Prefix),
        TextPattern::Suffix(text) => changed(TextPattern::Suffix, text).map(TextPattern::Suffix),
        TextPattern::Glob(_) | TextPattern::Present => None,
    };
    changed.unwrap_or_else(|| of_path(pattern))
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
    /// The paths that match any of `texts` or `templates`. What they write in other ways than requests have it when they are
    /// compared (`%7E`, `/a b`, `%c3`) means what it means in a request.
    pub fn new(texts: &TextSet, mut templates: Vec<PathTemplate>) -> Self {
        templates.sort_unstable();
        templates.dedup();
        let texts: TextSet = texts.patterns().map(|pattern| normal_pattern(&pattern)).collect();
        // How an app reads it, and as it is written, for what can be read only with what follows it (`/a%2*`).
        let loose_texts = texts.patterns().flat_map(|one| [loose_pattern(&one), one.map(lower)]);
        let loose_templates = templates.iter().flat_map(|one| [one.loosened(), one.lower_case()]);
        let mut loose_templates: Vec<PathTemplate> = loose_templates.collect();
        loose_templates.dedup();
        let loose = (loose_texts.collect(), loose_templates);
        Self { texts, templates, loose: Box::new(loose) }
    }

    /// The paths with their queries, as `:path` of HTTP/2 has them, that match any of `texts`.
    pub fn with_queries(texts: &TextSet) -> Self {
        let written = |pattern: TextPattern| {
            let normal = with_query(&pattern, normal_pattern, str::to_owned);
            // Only a request tells whether it is the end of a path or of a query.
            let is_either = matches!(&pattern, TextPattern::Suffix(text) if !text.contains('?'));
            [Some(normal), is_either.then_some(pattern)].into_iter().flatten()
        };
        let texts: TextSet = texts.patterns().flat_map(written).collect();
        let read = |one: TextPattern| [with_query(&one, loose_pattern, lower), one.map(lower)];
        let loose = (texts.patterns().flat_map(read).collect(), Vec::new());
        Self { texts, templates: Vec::new(), loose: Box::new(loose) }
    }

    /// Its texts.
    pub fn texts(&self) -> &TextSet {
        &self.texts
    }

    /// Its templates.
    pub fn templates(&self) -> &[PathTemplate] {
        &self.templates
    }

    /// Whether `path` is in it, which is in normal form with [capital](crate::normalize::path::in_capitals) hex digits.
    pub fn contains(&self, path: &str) -> bool {
        self.texts.contains(path) || self.templates.iter().any(|template| template.is_match(path))
    }

    /// Whether a path whose [loose](loosen) form is `path` is in it, with the slash at its end or without it.
    pub fn contains_loosely(&self, path: &Loose<'_>) -> bool {
        path.readings().any(|path| self.contains_read(path))
    }

    /// The same of a path with a `query`.
    pub(super) fn contains_target_loosely(&self, path: &Loose<'_>, query: &str) -> bool {
        let query = lower(query);
        path.readings().any(|path| self.contains_read(&format!("{path}?{query}")))
    }

    fn contains_read(&self, path: &str) -> bool {
        let (texts, templates) = &*self.loose;
        texts.contains(path) || templates.iter().any(|one| one.is_match(path))
    }

    /// The texts and templates with which [loose](loosen) paths are compared.
    pub(super) fn loose(&self) -> (&TextSet, &[PathTemplate]) {
        (&self.loose.0, &self.loose.1)
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
    /// As it is written, in lower case, if that is not `path`.
    written: Option<String>,
}

impl Loose<'_> {
    /// The path without a slash at its end.
    pub fn without_slash(&self) -> &str {
        without_slash(&self.path)
    }

    /// The path as it is, and if it ends with a slash, without it: `/admin/*` is for the first, `/admin` for the second. And as
    /// it is written.
    pub(super) fn readings(&self) -> impl Iterator<Item = &str> {
        let bare = self.without_slash();
        let bare = (bare.len() != self.path.len()).then_some(bare);
        std::iter::once(&*self.path).chain(bare).chain(self.written.as_deref())
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
        return Loose { path, elsewhere: None, written: None };
    }
    let (plain, moved) = plain(&readable(path));
    Loose {
        path: Cow::Owned(lower(&plain)),
        elsewhere: moved.then(|| without_slash(&plain).to_owned()),
        written: Some(lower(path)),
    }
}

/// How the [loose](loosen) form of a path begins that begins with `text`. What follows the last slash may go on in the path.
pub(super) fn loosen_beginning(text: &str) -> String {
    let readable = readable(text);
    let whole = readable.rfind('/').map_or(0, |slash| slash + 1);
    let directory = if whole == 0 { String::new() } else { plain(&readable[..whole]).0 };
    lower(&directory) + &lower(&readable[whole..])
}

/// How the [loose](loosen) form of a path ends that ends with `text`. What stands before the first slash may have begun in
/// the path.
fn loosen_end(text: &str) -> String {
    let readable = readable(text);
    match readable.find('/') {
        Some(slash) => lower(&readable[..slash]) + &lower(&plain(&readable[slash..]).0),
        None => lower(&readable),
    }
}

/// In lower case, letter by letter: what begins a text begins its lower case.
fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// `text` as [`decoded`] makes it, with `\` as `/`.
fn readable(text: &str) -> String {
    String::from_utf8_lossy(&decoded(text.as_bytes())).replace('\\', "/")
}

fn without_parameters(segment: &str) -> &str {
    segment.split(';').next().unwrap_or_default()
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
fn plain(path: &str) -> (String, bool) {
    let (mut kept, mut moved, mut slash) = (Vec::new(), false, "");
    for segment in path.split('/') {
        let name = without_parameters(segment);
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
