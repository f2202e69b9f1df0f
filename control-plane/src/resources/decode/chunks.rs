//! One text is cut into its documents before it is parsed.

use std::sync::Arc;

use super::{
    super::kinds::{self, ResourceKind},
    document_name,
};
use crate::problem::DocumentName;

/// A part of a text between two document markers: one document, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The part itself.
    pub text: Arc<str>,
    /// The number of lines before it.
    pub lines_before: u64,
    /// The number of documents before it.
    pub first: usize,
}

/// The parts of `text` between its document markers, each with the number of lines before it.
pub fn chunks(text: &str) -> Vec<(u64, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut chunks = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 0, 0);
    // Comments and directives above a first `---` belong to the document that it opens.
    let mut opened = false;
    for (number, line) in (0_u64..).zip(text.split_inclusive('\n')) {
        let end = offset + line.len();
        if is_marker(line, "---") {
            if opened {
                chunks.push((start_line, &text[start..offset]));
                (start, start_line) = (offset, number);
            }
            opened = true;
        } else if is_marker(line, "...") {
            if opened {
                chunks.push((start_line, &text[start..offset]));
            }
            (start, start_line) = (end, number + 1);
            opened = false;
        } else {
            let is_content = !line.trim().is_empty() && !line.trim_start().starts_with('#');
            opened |= is_content && !line.starts_with('%');
        }
        offset = end;
    }
    chunks.push((start_line, &text[start..]));
    chunks
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// What a malformed document seems to be called, by its lines `kind:`, `name:` and `namespace:`.
pub(super) fn guessed_name(chunk: &str, default_namespace: &str) -> Option<DocumentName> {
    let value = |line: &str, key: &str| {
        let value = line.strip_prefix(key)?.strip_prefix(':')?;
        let value = value.split(" #").next().unwrap_or(value).trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    };
    let (mut kind, mut name, mut namespace, mut in_metadata) = (None, None, None, false);
    // Labels and annotations may be called the same, but stand further in.
    let (mut depth, mut elsewhere) = (None, false);
    for line in chunk.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
        let inner = line.trim_start();
        if inner.len() == line.len() {
            in_metadata = line.starts_with("metadata:");
            kind = kind.or_else(|| value(line, "kind"));
        } else if in_metadata && *depth.get_or_insert(line.len() - inner.len()) == line.len() - inner.len() {
            name = name.or_else(|| value(inner, "name"));
            namespace = namespace.or_else(|| value(inner, "namespace"));
        } else if in_metadata {
            elsewhere |= value(inner, "namespace").is_some();
        }
    }
    if namespace.is_none() && elsewhere {
        return None;
    }
    let kind = seeming(chunk, &kind?)?;
    Some(document_name(kind.called, namespace.as_deref(), &name?, default_namespace))
}

/// The kind of this name that a malformed text seems to be of; of several, the one whose group the text names.
fn seeming(chunk: &str, kind: &str) -> Option<&'static ResourceKind> {
    let named = |known: &&ResourceKind| chunk.contains(known.group());
    kinds::named(kind).find(|known| known.called != known.kind && named(known)).or_else(|| kinds::find(kind))
}
