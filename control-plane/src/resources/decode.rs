//! One text to documents: YAML or JSON, any number of documents, `kind: List` opened.
//!
//! The text is cut at its `---` lines before it is parsed, so that one malformed document leaves its
//! neighbours readable. That is exact: YAML forbids such a line anywhere inside a document.

mod chunks;

use std::{path::Path, sync::Arc};

use selvedge_model::WorkloadName;

use super::{
    Object, Resource,
    document::{Location, wrong},
    kinds::{self, Enforcer, ResourceKind},
    lines::{Lines, PartLines},
    nearest::nearest,
    node::{Node, Value, is_list},
    typed::FieldError,
    unread::{Read, Unread},
    unusable::{self, StandIn},
};
use crate::problem::{DocumentName, Fault, Problem, Severity};
use chunks::guessed_name;
pub use chunks::{Chunk, chunks};

/// One document of a text, and what became of it.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// Its place among the text's documents, from 0.
    pub index: usize,
    /// Its first line, from 1.
    pub line: u64,
    /// Its name, as far as one can be read; in a malformed document, as it looks.
    pub name: Option<DocumentName>,
    /// What became of it.
    pub outcome: DecodeOutcome,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// If it failed, what counts in its place as long as there is no good version.
    pub stand_in: Option<StandIn>,
    /// What it takes to write about it.
    pub object: Option<Object>,
    /// The part of the text that it stands in.
    pub chunk: Chunk,
}

/// What became of one document.
#[derive(Debug, Clone)]
pub enum DecodeOutcome {
    /// It is understood.
    Understood(Resource),
    /// It is of a kind that nothing here acts on.
    NotActedOn,
    /// It is not understood: see its problems.
    Failed,
}

/// Every document of `text`, which stands in the file `path`.
pub fn decode(text: &str, path: &Arc<Path>, default_namespace: &str) -> Vec<Decoded> {
    decode_again(text, path, default_namespace, Vec::new())
}

/// The same, where `before` is what the file's text was decoded to before: parts of it that have not changed are not read again.
pub(crate) fn decode_again(
    text: &str,
    path: &Arc<Path>,
    default_namespace: &str,
    before: Vec<Decoded>,
) -> Vec<Decoded> {
    let mut before = before.into_iter().peekable();
    let mut documents = Vec::new();
    for (lines_before, text) in chunks(text) {
        let first = documents.len();
        let is_same = |known: &Decoded| {
            let chunk = &known.chunk;
            chunk.first == first && chunk.lines_before == lines_before && *chunk.text == *text
        };
        // Both are in the order of the text.
        while before.next_if(|known| known.chunk.first < first).is_some() {}
        if let Some(known) = before.next_if(is_same) {
            // A list may have thousands: those of one are told by where its text is.
            let part = Arc::clone(&known.chunk.text);
            let is_of_it =
                |known: &Decoded| known.chunk.first == first && Arc::ptr_eq(&known.chunk.text, &part);
            documents.push(known);
            while let Some(known) = before.next_if(is_of_it) {
                documents.push(known);
            }
            continue;
        }
        let chunk = Chunk { text: Arc::from(text), lines_before, first };
        documents.extend(decode_chunk(&chunk, path, default_namespace));
    }
    documents
}

/// Every document of one part of a text.
pub(crate) fn decode_chunk(chunk: &Chunk, path: &Arc<Path>, default_namespace: &str) -> Vec<Decoded> {
    let lines = Arc::new(PartLines::new(chunk.clone()));
    let place = DocumentReader { chunk, lines, path: Some(path), default_namespace };
    match Node::parse(&chunk.text) {
        Ok(None) => Vec::new(),
        Ok(Some(mut node)) => {
            node.shift_lines(chunk.lines_before);
            let documents = node.documents().into_iter();
            documents.zip(chunk.first..).map(|(node, index)| place.read(node, index)).collect()
        }
        Err(mut error) => {
            error.line = Some(chunk.lines_before + error.line.unwrap_or(1));
            if may_hold_secret(&chunk.text) {
                // Its words may repeat a part of the text.
                "not valid YAML; what is wrong is not repeated, because it may be of a Secret"
                    .clone_into(&mut error.message);
            }
            let name = guessed_name(&chunk.text, default_namespace);
            let problem = place.problem(name.as_ref(), Severity::Error, Fault::Unusable, error);
            let line = chunk.lines_before + 1;
            let stand_in = unusable::of_text(&chunk.text, name.as_ref(), path, line, default_namespace);
            let failed = place.decoded(chunk.first, line, name, DecodeOutcome::Failed, vec![problem]);
            vec![Decoded { stand_in, ..failed }]
        }
    }
}

/// One document that is not text (any more), such as the API server's JSON: its problems name fields and no
/// lines.
pub fn decode_value(document: serde_json::Value, default_namespace: &str) -> Decoded {
    let nowhere = Chunk { text: Arc::default(), lines_before: 0, first: 0 };
    let lines = Arc::new(PartLines::new(nowhere.clone()));
    let place = DocumentReader { chunk: &nowhere, lines, path: None, default_namespace };
    place.read(&Node::without_lines(document), 0)
}

fn document_name(kind: &str, namespace: Option<&str>, name: &str, default_namespace: &str) -> DocumentName {
    let namespace = match namespace {
        _ if kinds::is_cluster_wide(kind) => "",
        // As to an API server, an empty text says nothing.
        None | Some("") => default_namespace,
        Some(namespace) => namespace,
    };
    DocumentName { kind: kind.into(), namespace: namespace.into(), name: name.into() }
}

/// The kind that is acted on and was meant by `kind` of `version`, whatever the case of its letters and the version's number.
pub(super) fn meant(kind: &str, version: &str) -> Option<&'static ResourceKind> {
    let group = |version: &str| version.rsplit_once('/').map_or("", |(group, _)| group).to_ascii_lowercase();
    let mut known = kinds::acted_on().iter();
    known.find(|known| known.kind.eq_ignore_ascii_case(kind) && known.group() == group(version))
}

/// Whether a text that is not YAML looks as if it holds a `Secret`.
fn may_hold_secret(text: &str) -> bool {
    text.contains("Secret") && (text.contains("data") || text.contains("Data"))
}

/// Where documents are being read from.
struct DocumentReader<'a> {
    chunk: &'a Chunk,
    lines: Arc<PartLines>,
    /// `None` = in a cluster.
    path: Option<&'a Arc<Path>>,
    default_namespace: &'a str,
}

impl DocumentReader<'_> {
    fn read(&self, node: &Node, index: usize) -> Decoded {
        let mut decoded = self.read_as_written(node, index);
        decoded.object = decoded.name.as_ref().and_then(|name| Object::of(node, name));
        if matches!(decoded.outcome, DecodeOutcome::Failed) {
            let (name, location) = (decoded.name.as_ref(), self.location(node, index));
            decoded.stand_in = unusable::of_document(node, name, &location, self.default_namespace);
        }
        decoded
    }

    fn location(&self, node: &Node, index: usize) -> Location {
        match self.path {
            None => Location::CLUSTER,
            Some(path) => Location {
                path: Some(Arc::clone(path)),
                index,
                line: node.line,
                lines: Some(Arc::new(Lines::new(Arc::clone(&self.lines), index - self.chunk.first))),
            },
        }
    }

    /// What `node`, of a kind that is `called` this, says that its name is.
    fn name_of(&self, node: &Node, called: &str) -> Option<DocumentName> {
        let metadata = &node.field("metadata")?.node;
        let name = metadata.text("name")?;
        Some(document_name(called, metadata.text("namespace"), name, self.default_namespace))
    }

    fn read_as_written(&self, node: &Node, index: usize) -> Decoded {
        let failed = |name: Option<DocumentName>, error: FieldError| {
            let problem = self.problem(name.as_ref(), Severity::Error, error.fault, error);
            self.decoded(index, node.line, name, DecodeOutcome::Failed, vec![problem])
        };
        let at = |line: u64, field: &str, message: String| FieldError {
            field: field.to_owned(),
            line: Some(line),
            message,
            fault: Fault::Unusable,
        };
        let Value::Map(_) = node.value else {
            let message = format!("expected a document, found {}", node.describe());
            return failed(None, at(node.line, "", message));
        };
        let (Some(kind), Some(version)) = (node.text("kind"), node.text("apiVersion")) else {
            return failed(None, at(node.line, "", NO_KIND.to_owned()));
        };
        let metadata = node.field("metadata");
        let meant = meant(kind, version);
        let name = self.name_of(node, meant.map_or(kind, |known| known.called));
        let line = node.field("kind").map_or(node.line, |entry| entry.line);
        if let Some(enforcer) = kinds::unenforced(kind, version) {
            let problem =
                self.unenforced(name.as_ref(), at(line, "", String::new()), (kind, version), enforcer);
            return self.decoded(index, node.line, name, DecodeOutcome::NotActedOn, vec![problem]);
        }
        if kinds::of(kind, version).is_none() {
            let message = not_acted_on(kind, version, meant);
            let hides_policy = || is_list(kind) && unusable::holds_policy(node);
            if meant.is_some() || may_be_a_policy(kind, version) || hides_policy() {
                return failed(name, at(line, "", message));
            }
            let problem =
                self.problem(name.as_ref(), Severity::NotActedOn, Fault::Unusable, at(line, "", message));
            return self.decoded(index, node.line, name, DecodeOutcome::NotActedOn, vec![problem]);
        }
        let Some(name) = name else {
            return failed(None, at(node.line, "metadata.name", format!("is missing in this {kind}")));
        };
        let namespace = if name.namespace.is_empty() { "default" } else { &name.namespace };
        if WorkloadName::new(namespace, &name.name).is_err() {
            let line = metadata.map_or(node.line, |entry| entry.line);
            return failed(Some(name), at(line, "metadata", WRONG_NAME.to_owned()));
        }
        let location = self.location(node, index);
        match read_kind(node, &name, &location) {
            Ok((resource, remarks)) => {
                let problems = remarks
                    .into_iter()
                    .map(|(severity, error)| self.problem(Some(&name), severity, Fault::Part, error))
                    .collect();
                self.decoded(index, node.line, Some(name), DecodeOutcome::Understood(resource), problems)
            }
            Err(mut error) => {
                error.line = error.line.or_else(|| location.line_of(&error.field));
                failed(Some(name), error)
            }
        }
    }

    fn decoded(
        &self,
        index: usize,
        line: u64,
        name: Option<DocumentName>,
        outcome: DecodeOutcome,
        problems: Vec<Problem>,
    ) -> Decoded {
        Decoded {
            index,
            line,
            name,
            outcome,
            problems,
            stand_in: None,
            object: None,
            chunk: self.chunk.clone(),
        }
    }

    /// That a policy is not enforced, which its author may not take for granted. In a cluster the network can do it.
    fn unenforced(
        &self,
        name: Option<&DocumentName>,
        error: FieldError,
        (kind, version): (&str, &str),
        enforcer: Enforcer,
    ) -> Problem {
        let by_others = enforcer == Enforcer::Network && self.path.is_none();
        let (severity, message) = match by_others {
            true => (
                Severity::NotActedOn,
                format!("{kind} ({version}) is not acted on: it is for the cluster's network"),
            ),
            false => (
                Severity::Error,
                format!(
                    "{kind} ({version}) is not enforced: nothing here refuses what it refuses; write an \
                     AuthorizationPolicy (security.istio.io), or accept this with --allow-unenforced"
                ),
            ),
        };
        self.problem(name, severity, Fault::Unenforced, FieldError { message, ..error })
    }

    fn problem(
        &self,
        name: Option<&DocumentName>,
        severity: Severity,
        fault: Fault,
        error: FieldError,
    ) -> Problem {
        Problem {
            severity,
            document: name.cloned(),
            path: self.path.cloned(),
            line: error.line.filter(|_| self.path.is_some()),
            field: error.field,
            message: error.message,
            fault,
        }
        .short()
    }
}

/// The policy that a document of the unknown `kind` most likely was to be.
pub(super) fn nearest_policy(kind: &str, version: &str) -> Option<&'static str> {
    unusable::is_of_policies(version).then(|| nearest(kind, kinds::policies())).flatten()
}

/// Whether a document of `kind` of `version`, which nothing acts on, was to be a policy.
fn may_be_a_policy(kind: &str, version: &str) -> bool {
    kinds::policies().any(|policy| policy.eq_ignore_ascii_case(kind)) || unusable::is_of_policies(version)
}

/// Reads the document `node` of the kind that `name` says.
pub(super) fn read_kind(node: &Node, name: &DocumentName, location: &Location) -> Read {
    match kinds::find(&name.kind) {
        Some(kind) => (kind.read)(&Unread { kind, node, name, location }),
        None => Err(wrong("kind", format!("{} is not acted on", name.kind))),
    }
}

const NO_KIND: &str = "is not a document: it needs apiVersion and kind";
const WRONG_NAME: &str = "name and namespace are lower-case letters, digits, '-' and '.'";

/// That no document of this kind and version is acted on, and which it may have meant to be.
fn not_acted_on(kind: &str, version: &str, meant: Option<&ResourceKind>) -> String {
    let versions: Vec<&str> = kinds::named(kind).flat_map(|known| known.api_versions).copied().collect();
    match (versions.as_slice(), meant) {
        ([_, ..], _) => format!("{kind} of {version} is not acted on; {} is", versions.join(" or ")),
        ([], Some(ResourceKind { kind: known, api_versions, .. })) => {
            format!("{kind} ({version}) is not acted on; {known} of {} is", api_versions.join(" or "))
        }
        ([], None) => match nearest_policy(kind, version) {
            Some(meant) => format!("{kind} ({version}) is not acted on; did you mean {meant}?"),
            None => format!("{kind} ({version}) is not acted on"),
        },
    }
}
