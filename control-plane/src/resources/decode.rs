//! One text to documents: YAML or JSON, any number of documents, `kind: List` opened.
//!
//! The text is cut at its `---` lines before it is parsed, so that one malformed document leaves its
//! neighbours readable. That is exact: YAML forbids such a line anywhere inside a document.

use std::{fmt, path::Path, sync::Arc};

use selvedge_model::{Layer, WorkloadName};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Resource, destination_rule,
    document::{Document, Metadata, MetadataWords, Origin, Reading, wrong},
    endpoint_slice,
    fields::{self, KnownField},
    gateway_tcp, namespace,
    node::{Lines, Node, Value},
    peer_authentication, pod, revocation, service, service_entry,
    typed::{self, FieldError, Seen, UnknownField},
    unusable::{self, StandIn},
    virtual_service, words, workload_entry,
};
use crate::problem::{DocumentName, Problem, Severity};

const NETWORKING: &[&str] =
    &["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"];
const SECURITY: &[&str] = &["security.istio.io/v1", "security.istio.io/v1beta1"];

/// `v1alpha3` is of `TLSRoute` alone; its fields have stayed the same from one version to the next.
const GATEWAY: &[&str] = &[
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1beta1",
    "gateway.networking.k8s.io/v1alpha3",
    "gateway.networking.k8s.io/v1alpha2",
];

const OURS: &[&str] = &["selvedge.io/v1alpha1"];

/// The kinds that are acted on, and the versions of each that mean the same.
pub(crate) const KINDS: &[(&str, &[&str])] = &[
    ("Namespace", &["v1"]),
    ("Pod", &["v1"]),
    ("Service", &["v1"]),
    ("EndpointSlice", &["discovery.k8s.io/v1"]),
    ("WorkloadEntry", NETWORKING),
    ("ServiceEntry", NETWORKING),
    ("VirtualService", NETWORKING),
    ("DestinationRule", NETWORKING),
    ("PeerAuthentication", SECURITY),
    ("TCPRoute", GATEWAY),
    ("TLSRoute", GATEWAY),
    ("Revocation", OURS),
];

/// The kinds that say who may do what. One that cannot be used, or has a field that nobody understands, is read as
/// [strictly as it may be meant](super::unusable).
pub(super) const POLICIES: &[&str] = &["PeerAuthentication"];

/// The groups that have policies only.
pub(super) const GROUPS_OF_POLICIES: &[&str] = &["security.istio.io"];

/// Kinds of those groups that nothing acts on yet.
const POLICIES_TO_COME: &[&str] = &["AuthorizationPolicy", "RequestAuthentication"];

/// Kinds whose objects live in no namespace.
const CLUSTER_WIDE: &[&str] = &["Namespace", "GatewayClass"];

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
    pub outcome: Outcome,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// If it failed, what counts in its place as long as there is no good version.
    pub stand_in: Option<StandIn>,
    /// The part of the text that it stands in.
    pub chunk: Chunk,
}

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

/// What became of one document.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is understood.
    Understood(Resource),
    /// It is of a kind that nothing here acts on.
    NotActedOn,
    /// It is not understood: see its problems.
    Failed,
}

/// Every document of `text`, which stands in the file `path`.
pub fn decode(text: &str, path: &Arc<Path>, default_namespace: &str) -> Vec<Decoded> {
    let mut documents = Vec::new();
    for (lines_before, text) in chunks(text) {
        let chunk = Chunk { text: Arc::from(text), lines_before, first: documents.len() };
        documents.extend(decode_chunk(&chunk, path, default_namespace));
    }
    documents
}

/// Every document of one part of a text.
pub(crate) fn decode_chunk(chunk: &Chunk, path: &Arc<Path>, default_namespace: &str) -> Vec<Decoded> {
    let place = Place { chunk, path: Some(path), default_namespace };
    match Node::parse(&chunk.text) {
        Ok(None) => Vec::new(),
        Ok(Some(mut node)) => {
            node.shift_lines(chunk.lines_before);
            let mut documents = Vec::new();
            place.open(&node, &mut documents);
            documents
        }
        Err(mut error) => {
            error.line = Some(chunk.lines_before + error.line.unwrap_or(1));
            let name = guessed_name(&chunk.text, default_namespace);
            let problem = place.problem(name.as_ref(), Severity::Error, error);
            let line = chunk.lines_before + 1;
            let stand_in = unusable::of_text(&chunk.text, name.as_ref(), path, line, default_namespace);
            let failed = place.decoded(chunk.first, line, name, Outcome::Failed, vec![problem]);
            vec![Decoded { stand_in, ..failed }]
        }
    }
}

/// One document that is no text (any more), such as the API server's JSON: its problems name fields and no
/// lines.
pub fn decode_value(document: serde_json::Value, default_namespace: &str) -> Decoded {
    let nowhere = Chunk { text: Arc::default(), lines_before: 0, first: 0 };
    let place = Place { chunk: &nowhere, path: None, default_namespace };
    place.read(&Node::without_lines(document), 0)
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
fn guessed_name(chunk: &str, default_namespace: &str) -> Option<DocumentName> {
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
    let kind = kind.filter(|kind| KINDS.iter().any(|(known, _)| known == kind))?;
    Some(document_name(&kind, namespace.as_deref(), &name?, default_namespace))
}

fn document_name(kind: &str, namespace: Option<&str>, name: &str, default_namespace: &str) -> DocumentName {
    let namespace = match namespace {
        _ if CLUSTER_WIDE.contains(&kind) => "",
        // As to an API server, an empty text says nothing.
        None | Some("") => default_namespace,
        Some(namespace) => namespace,
    };
    DocumentName { kind: kind.into(), namespace: namespace.into(), name: name.into() }
}

/// The kind that is acted on and was meant by `kind` of `version`, whatever the case of its letters and the version's number.
fn meant(kind: &str, version: &str) -> Option<&'static (&'static str, &'static [&'static str])> {
    let group = |version: &str| version.rsplit_once('/').map_or("", |(group, _)| group).to_ascii_lowercase();
    let is_of = |versions: &[&str]| versions.iter().any(|known| group(known) == group(version));
    KINDS.iter().find(|(known, versions)| known.eq_ignore_ascii_case(kind) && is_of(versions))
}

/// Whether `kind` is that of a list of documents.
fn is_list(kind: &str) -> bool {
    kind.to_ascii_lowercase().ends_with("list")
}

/// Where documents are being read from.
struct Place<'a> {
    chunk: &'a Chunk,
    /// `None` = in a cluster.
    path: Option<&'a Arc<Path>>,
    default_namespace: &'a str,
}

impl Place<'_> {
    /// Adds the document `node`, or those of the list that it is.
    fn open(&self, node: &Node, documents: &mut Vec<Decoded>) {
        match node.field("items").map(|items| &items.node.value) {
            Some(Value::List(items)) if node.text("kind").is_some_and(is_list) => {
                for item in items {
                    self.open(item, documents);
                }
            }
            _ => {
                let index = self.chunk.first + documents.len();
                documents.push(self.read(node, index));
            }
        }
    }

    fn read(&self, node: &Node, index: usize) -> Decoded {
        let mut decoded = self.read_as_written(node, index);
        if matches!(decoded.outcome, Outcome::Failed) {
            let (name, origin) = (decoded.name.as_ref(), self.origin(node, index));
            decoded.stand_in = unusable::of_document(node, name, &origin, self.default_namespace);
        }
        decoded
    }

    fn origin(&self, node: &Node, index: usize) -> Origin {
        match self.path {
            None => Origin::CLUSTER,
            Some(path) => Origin {
                path: Some(Arc::clone(path)),
                index,
                line: node.line,
                lines: Some(Arc::new(Lines::of(node))),
            },
        }
    }

    fn read_as_written(&self, node: &Node, index: usize) -> Decoded {
        let failed = |name: Option<DocumentName>, error: FieldError| {
            let problem = self.problem(name.as_ref(), Severity::Error, error);
            self.decoded(index, node.line, name, Outcome::Failed, vec![problem])
        };
        let at = |line: u64, field: &str, message: String| FieldError {
            field: field.to_owned(),
            line: Some(line),
            message,
        };
        let Value::Map(_) = node.value else {
            let message = format!("expected a document, found {}", node.describe());
            return failed(None, at(node.line, "", message));
        };
        let (Some(kind), Some(version)) = (node.text("kind"), node.text("apiVersion")) else {
            let message = "is not a document: it needs apiVersion and kind".to_owned();
            return failed(None, at(node.line, "", message));
        };
        let metadata = node.field("metadata");
        let name = metadata.and_then(|metadata| metadata.node.text("name"));
        let namespace = metadata.and_then(|metadata| metadata.node.text("namespace"));
        let meant = meant(kind, version);
        let called = meant.map_or(kind, |(known, _)| known);
        let name = name.map(|name| document_name(called, namespace, name, self.default_namespace));
        let versions = KINDS.iter().find(|(known, _)| *known == kind).map(|(_, versions)| *versions);
        if !versions.is_some_and(|versions| versions.contains(&version)) {
            let message = match (versions, meant) {
                (Some(versions), _) => {
                    format!("{kind} of {version} is not acted on; {} is", versions.join(" or "))
                }
                (None, Some((known, versions))) => {
                    format!("{kind} ({version}) is not acted on; {known} of {} is", versions.join(" or "))
                }
                (None, None) => format!("{kind} ({version}) is not acted on"),
            };
            let line = node.field("kind").map_or(node.line, |entry| entry.line);
            let hides_policy = || is_list(kind) && unusable::holds_policy(node);
            if meant.is_some() || may_be_a_policy(kind, version) || hides_policy() {
                return failed(name, at(line, "", message));
            }
            let problem = self.problem(name.as_ref(), Severity::NotActedOn, at(line, "", message));
            return self.decoded(index, node.line, name, Outcome::NotActedOn, vec![problem]);
        }
        let Some(name) = name else {
            return failed(None, at(node.line, "metadata.name", format!("is missing in this {kind}")));
        };
        let namespace = if name.namespace.is_empty() { "default" } else { &name.namespace };
        if WorkloadName::new(namespace, &name.name).is_err() {
            let message = "name and namespace are lower-case letters, digits, '-' and '.'".to_owned();
            let line = metadata.map_or(node.line, |entry| entry.line);
            return failed(Some(name), at(line, "metadata", message));
        }
        let origin = self.origin(node, index);
        match read_kind(node, &name, &origin) {
            Ok((resource, remarks)) => {
                let problems = remarks
                    .into_iter()
                    .map(|(severity, error)| self.problem(Some(&name), severity, error))
                    .collect();
                self.decoded(index, node.line, Some(name), Outcome::Understood(resource), problems)
            }
            Err(mut error) => {
                error.line = error.line.or_else(|| origin.line_of(&error.field));
                failed(Some(name), error)
            }
        }
    }

    fn decoded(
        &self,
        index: usize,
        line: u64,
        name: Option<DocumentName>,
        outcome: Outcome,
        problems: Vec<Problem>,
    ) -> Decoded {
        Decoded { index, line, name, outcome, problems, stand_in: None, chunk: self.chunk.clone() }
    }

    fn problem(&self, name: Option<&DocumentName>, severity: Severity, error: FieldError) -> Problem {
        Problem {
            severity,
            document: name.cloned(),
            path: self.path.cloned(),
            line: error.line.filter(|_| self.path.is_some()),
            field: error.field,
            message: error.message,
            alone: true,
        }
    }
}

/// Whether a document of `kind` of `version`, which nothing acts on, was to be a policy.
fn may_be_a_policy(kind: &str, version: &str) -> bool {
    let of_policies = unusable::is_of_policies(version);
    let known = POLICIES_TO_COME.contains(&kind);
    POLICIES.iter().any(|policy| policy.eq_ignore_ascii_case(kind)) || (of_policies && !known)
}

type Remarks = Vec<(Severity, FieldError)>;

pub(super) fn read_kind(
    node: &Node,
    name: &DocumentName,
    origin: &Origin,
) -> Result<(Resource, Remarks), FieldError> {
    let document = Source { node, name, origin };
    match &*name.kind {
        "Namespace" => document.whole(|words, reading| namespace::read(&words, reading), Resource::Namespace),
        "Pod" => document.whole(pod::read, Resource::Pod),
        "Service" => document.with_spec(service::read, Resource::Service),
        "EndpointSlice" => document.whole(endpoint_slice::read, Resource::EndpointSlice),
        "WorkloadEntry" => document.with_spec(
            |words, reading| workload_entry::read(words, "spec", reading.metadata, reading),
            Resource::WorkloadEntry,
        ),
        "ServiceEntry" => document.with_spec(service_entry::read, Resource::ServiceEntry),
        "VirtualService" => document.with_spec(virtual_service::read, Resource::VirtualService),
        "DestinationRule" => document.with_spec(destination_rule::read, Resource::DestinationRule),
        "PeerAuthentication" => document.whole(
            |words: Envelope<peer_authentication::Words>, reading: &mut Reading<'_>| {
                peer_authentication::read(words.spec.unwrap_or_default(), reading)
            },
            Resource::PeerAuthentication,
        ),
        "TCPRoute" => document
            .with_spec(|words, reading| gateway_tcp::read(words, Layer::Tcp, reading), Resource::TcpRoute),
        "TLSRoute" => document
            .with_spec(|words, reading| gateway_tcp::read(words, Layer::Tls, reading), Resource::TcpRoute),
        "Revocation" => document.with_spec(revocation::read, Resource::Revocation),
        kind => Err(wrong("kind", format!("{kind} is not acted on"))),
    }
}

/// Every field that the decoder of `kind` knows, but for what all kinds have in common.
///
/// # Panics
/// If nothing acts on `kind`.
pub fn known_fields(kind: &str) -> Vec<KnownField> {
    let mut fields = match kind {
        "Namespace" => fields::of::<namespace::Words>(),
        "Pod" => fields::of::<pod::Words>(),
        "Service" => fields::of::<Envelope<service::Words>>(),
        "EndpointSlice" => fields::of::<endpoint_slice::Words>(),
        "WorkloadEntry" => fields::of::<Envelope<workload_entry::Words>>(),
        "ServiceEntry" => fields::of::<Envelope<service_entry::Words>>(),
        "VirtualService" => fields::of::<Envelope<virtual_service::Words>>(),
        "DestinationRule" => fields::of::<Envelope<destination_rule::Words>>(),
        "PeerAuthentication" => fields::of::<Envelope<peer_authentication::Words>>(),
        "Revocation" => fields::of::<Envelope<revocation::Words>>(),
        "TCPRoute" | "TLSRoute" => fields::of::<Envelope<gateway_tcp::Words>>(),
        kind => panic!("nothing acts on {kind}"),
    };
    fields.retain(|field| !["apiVersion", "kind", "metadata", "status"].contains(&field.path.as_str()));
    fields
}

/// The kinds that are acted on.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(kind, _)| *kind)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<W> {
    #[serde(rename = "apiVersion")]
    _api_version: Seen,
    #[serde(rename = "kind")]
    _kind: Seen,
    #[serde(rename = "metadata")]
    _metadata: Seen,
    spec: Option<W>,
    #[serde(rename = "status")]
    _status: Option<Seen>,
}

/// A document of a kind that is acted on, before it is read.
struct Source<'a> {
    node: &'a Node,
    name: &'a DocumentName,
    origin: &'a Origin,
}

impl Source<'_> {
    fn with_spec<W: DeserializeOwned + fmt::Debug, T>(
        &self,
        read: impl Fn(W, &mut Reading<'_>) -> Result<T, FieldError>,
        wrap: impl Fn(Arc<Document<T>>) -> Resource,
    ) -> Result<(Resource, Remarks), FieldError> {
        let with_spec = |words: Envelope<W>, reading: &mut Reading<'_>| match words.spec {
            Some(spec) => read(spec, reading),
            None => Err(wrong("spec", "is missing")),
        };
        self.whole(with_spec, wrap)
    }

    fn whole<W: DeserializeOwned, T>(
        &self,
        read: impl Fn(W, &mut Reading<'_>) -> Result<T, FieldError>,
        wrap: impl Fn(Arc<Document<T>>) -> Resource,
    ) -> Result<(Resource, Remarks), FieldError> {
        let (metadata, mut unknown) = self.metadata()?;
        let (words, mut fields) = typed::decode(self.node)?;
        let mut reading = Reading { metadata: &metadata, unknown: &mut fields, remarks: Vec::new() };
        let acted_on: &[&str] = match &*self.name.kind {
            "WorkloadEntry" => &[workload_entry::INBOUND_ANNOTATION, words::OPAQUE_PORTS_ANNOTATION],
            "Service" => &[words::OPAQUE_PORTS_ANNOTATION],
            _ => &[],
        };
        // Whoever runs pods has many annotations of his own there.
        let is_runners = matches!(&*self.name.kind, "Namespace" | "Pod");
        for annotation in metadata.annotations_not_acted_on(acted_on).filter(|_| !is_runners) {
            reading.not_acted_on(format!("metadata.annotations[{annotation}]"), "not acted on");
        }
        let spec = read(words, &mut reading)?;
        if POLICIES.contains(&&*self.name.kind)
            && let Some(UnknownField { field, line }) = unknown.iter().chain(reading.unknown.iter()).next()
        {
            // Read over, the policy may let in what it was to keep out.
            let message =
                "is not a field of this policy, so nobody knows what is meant; correct or remove it";
            return Err(FieldError { line: Some(*line), ..wrong(field, message) });
        }
        let noted = reading.remarks;
        let mut remarks: Remarks = Vec::new();
        for (severity, field, message) in noted {
            let line = self.origin.line_of(&field);
            remarks.push((severity, FieldError { field, line, message }));
        }
        unknown.append(&mut fields);
        for UnknownField { field, line } in unknown {
            let message = "not acted on".to_owned();
            remarks.push((Severity::NotActedOn, FieldError { field, line: Some(line), message }));
        }
        remarks.sort_by_key(|(_, error)| error.line);
        let (name, origin) = (self.name.clone(), self.origin.clone());
        Ok((wrap(Arc::new(Document { name, metadata, origin, spec, unusable: false })), remarks))
    }

    fn metadata(&self) -> Result<(Metadata, Vec<UnknownField>), FieldError> {
        let Some(entry) = self.node.field("metadata") else {
            return Err(wrong("metadata", "is missing"));
        };
        let below = |field: String| {
            if field.is_empty() { "metadata".to_owned() } else { format!("metadata.{field}") }
        };
        let (words, mut unknown) = typed::decode::<MetadataWords>(&entry.node).map_err(|mut error| {
            error.field = below(error.field);
            error
        })?;
        for field in &mut unknown {
            field.field = below(std::mem::take(&mut field.field));
        }
        Ok((words.read()?, unknown))
    }
}
