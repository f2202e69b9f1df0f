//! Where the fields of a document stand in its text.
//!
//! Most documents are never asked for it, so they only keep the text, which others keep anyway. The first who asks has it
//! read again, for all documents that stand in the same part: a list may have thousands.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use super::{
    decode::Chunk,
    node::{Node, Pointer, Value},
};
use crate::problem::LONGEST_FIELD;

/// The line of every field of a document.
pub(crate) struct Lines {
    part: Arc<PartLines>,
    /// The document's place in the part of a text that it stands in.
    place: usize,
}

/// The lines of all documents in a part of a text.
pub(super) struct PartLines {
    chunk: Chunk,
    /// Of each document, in their order.
    documents: OnceLock<Vec<ByPointer>>,
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
        self.place == other.place
            && (Arc::ptr_eq(&self.part, &other.part) || self.part.chunk == other.part.chunk)
    }
}

impl Eq for Lines {}

impl Lines {
    /// Those of the document at `place` in `part`, which could be parsed.
    pub(super) fn new(part: Arc<PartLines>, place: usize) -> Self {
        Self { part, place }
    }

    /// The line of `field`, or of the nearest field that holds it.
    pub(crate) fn find(&self, field: &str) -> Option<u64> {
        let documents = self.part.documents.get_or_init(|| self.part.read().unwrap_or_default());
        let lines = documents.get(self.place)?;
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
}

impl PartLines {
    /// Those of all documents in `chunk`, which could be parsed.
    pub(super) fn new(chunk: Chunk) -> Self {
        Self { chunk, documents: OnceLock::new() }
    }

    fn read(&self) -> Option<Vec<ByPointer>> {
        let mut node = Node::parse(&self.chunk.text).ok()??;
        node.shift_lines(self.chunk.lines_before);
        let mut documents = Vec::new();
        for node in node.documents() {
            let mut lines = ByPointer::new();
            add(&mut lines, node, node.line, &Pointer::Root);
            documents.push(lines);
        }
        Some(documents)
    }
}

/// What is deeper inside than a pointer is long has the line of what holds it: keys may be of any length, and each of them stands in
/// the pointers of all that is inside.
fn add(lines: &mut ByPointer, node: &Node, line: u64, pointer: &Pointer<'_>) {
    let written = pointer.to_string();
    if written.len() > LONGEST_FIELD {
        return;
    }
    lines.insert(written, line);
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

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use crate::resources::{DecodeOutcome, Location, decode};

    #[test]
    fn keys_of_any_length_take_no_more_memory_than_they_are_long() {
        let key = "k".repeat(1 << 20);
        let many = (0..20_000).map(|number| format!("f{number}: 1")).collect::<Vec<_>>().join(", ");
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: a}}\nspec:\n  address: 10.0.0.1\n  \
             ? {key}\n  : {{b: {{{many}}}}}\n"
        );
        let decoded = decode(&text, &Arc::from(Path::new("a.yaml")), "default");

        let DecodeOutcome::Understood(resource) = &decoded[0].outcome else { panic!("not understood") };
        assert_eq!(resource.location().line_of("spec.address"), Some(5));
        let problems = &decoded[0].problems;
        assert_eq!(problems.len(), 101);
        assert!(problems.iter().map(|problem| problem.field.len()).sum::<usize>() < 50_000);
        assert!(problems[100].message.contains("has more fields"), "{:?}", problems[100]);
    }

    #[test]
    fn a_list_is_read_once_for_the_lines_of_all_its_documents() {
        let text = "apiVersion: v1\nkind: List\nitems:\n\
                    - apiVersion: networking.istio.io/v1\n  kind: WorkloadEntry\n  metadata: {name: a}\n  \
                    spec: {address: 10.0.0.1}\n\
                    - apiVersion: networking.istio.io/v1\n  kind: WorkloadEntry\n  metadata: {name: b}\n  \
                    spec:\n    address: 10.0.0.2\n";
        let decoded = decode(text, &Arc::from(Path::new("a.yaml")), "default");
        let places: Vec<Location> = decoded
            .iter()
            .map(|document| match &document.outcome {
                DecodeOutcome::Understood(resource) => resource.location().clone(),
                other => panic!("{other:?}"),
            })
            .collect();

        let lines: Vec<_> = places.iter().map(|place| place.line_of("spec.address")).collect();

        assert_eq!(lines, [Some(7), Some(12)]);
        let [one, other] = &places[..] else { panic!("{places:?}") };
        let (one, other) = (one.lines.as_ref().unwrap(), other.lines.as_ref().unwrap());
        assert!(Arc::ptr_eq(&one.part, &other.part));
    }
}
