//! Where the fields of a document stand in its text.
//!
//! Most documents are never asked for it, so they only keep the text, which others keep anyway. The first who asks has it
//! read again.

use std::{collections::BTreeMap, fmt, sync::OnceLock};

use super::{
    decode::Chunk,
    node::{Node, Pointer, Value},
};

/// The line of every field of a document.
pub(crate) struct Lines {
    chunk: Chunk,
    /// The document's place in the part of a text that it stands in.
    place: usize,
    by_pointer: OnceLock<ByPointer>,
}

/// By pointers, as errors name fields.
type ByPointer = BTreeMap<String, u64>;

impl fmt::Debug for Lines {
    /// Without the text, which may be of a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines(..)")
    }
}

impl PartialEq for Lines {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place && self.chunk == other.chunk
    }
}

impl Eq for Lines {}

impl Lines {
    /// Those of the document at `place` in `chunk`, which could be parsed.
    pub(super) fn new(chunk: Chunk, place: usize) -> Self {
        Self { chunk, place, by_pointer: OnceLock::new() }
    }

    /// The line of `field`, or of the nearest field that holds it.
    pub(crate) fn find(&self, field: &str) -> Option<u64> {
        let lines = self.by_pointer.get_or_init(|| self.read().unwrap_or_default());
        let mut field = field;
        loop {
            if let Some(line) = lines.get(field) {
                return Some(*line);
            }
            if field.is_empty() {
                return None;
            }
            field = &field[..field.rfind(['.', '[']).unwrap_or(0)];
        }
    }

    fn read(&self) -> Option<ByPointer> {
        let mut node = Node::parse(&self.chunk.text).ok()??;
        node.shift_lines(self.chunk.lines_before);
        let documents = node.documents();
        let node = documents.get(self.place)?;
        let mut lines = ByPointer::new();
        add(&mut lines, node, node.line, &Pointer::Root);
        Some(lines)
    }
}

fn add(lines: &mut ByPointer, node: &Node, line: u64, pointer: &Pointer<'_>) {
    lines.insert(pointer.to_string(), line);
    match &node.value {
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                add(lines, item, item.line, &Pointer::Index(pointer, index));
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                add(lines, &entry.node, entry.line, &Pointer::Key(pointer, &entry.key));
            }
        }
        _ => {}
    }
}
