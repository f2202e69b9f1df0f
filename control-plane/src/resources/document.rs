//! What documents of all kinds have in common: a name, metadata, and their place in a file.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use selvedge_model::expression::Expression;
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    lines::Lines,
    typed::{FieldError, Present, UnknownField},
};
use crate::problem::{DocumentName, Fault, Problem, Severity};

/// Annotations of tools that apply documents; they ask nothing of a mesh.
const BOOKKEEPING: [&str; 6] = [
    "kubectl.kubernetes.io/",
    "meta.helm.sh/",
    "helm.sh/",
    "argocd.argoproj.io/",
    "kustomize.toolkit.fluxcd.io/",
    "helm.toolkit.fluxcd.io/",
];

/// One document: its name, where it stands, and what it means.
#[derive(Debug, Clone, PartialEq)]
pub struct Document<T> {
    /// Its kind, namespace and name.
    pub name: DocumentName,
    /// Its labels, annotations and age.
    pub metadata: Metadata,
    /// Where it stands.
    pub location: Location,
    /// What it says.
    pub spec: T,
    /// Whether it cannot be used, and this is what it is [taken for](super::unusable) instead.
    pub unusable: bool,
    /// The regular expressions in what it says.
    pub expressions: Vec<Expression>,
    /// About how much memory what it says takes, in bytes.
    pub size: usize,
}

/// The part of `metadata` that we read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `labels`.
    pub labels: BTreeMap<String, String>,
    /// `annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `creationTimestamp`; files seldom have one.
    pub created: Option<OffsetDateTime>,
    /// `uid`: in a cluster, what tells it from an earlier one of the same name.
    pub uid: Option<String>,
    /// Whether it is being deleted (`deletionTimestamp`).
    pub ending: bool,
}

/// Where a document stands: in a file, or in a cluster, where its name says all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file; `None` = a cluster.
    pub path: Option<Arc<Path>>,
    /// Its place among the file's documents, from 0.
    pub index: usize,
    /// Its first line, from 1; 0 in a cluster.
    pub line: u64,
    pub(super) lines: Option<Arc<Lines>>,
}

impl Location {
    /// In a cluster.
    pub const CLUSTER: Self = Self { path: None, index: 0, line: 0, lines: None };

    /// The line of `field`, or of the nearest field that holds it; `None` in a cluster.
    pub fn line_of(&self, field: &str) -> Option<u64> {
        let lines = self.lines.as_ref()?;
        Some(lines.find(field).unwrap_or(self.line))
    }
}

impl fmt::Display for Location {
    /// `path:line`, or `in the cluster`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}:{}", path.display(), self.line),
            None => f.write_str("in the cluster"),
        }
    }
}

impl<T> Document<T> {
    /// What stands in for one that cannot be used.
    pub(super) fn standing_in(name: DocumentName, metadata: Metadata, location: Location, spec: T) -> Self {
        Self { name, metadata, location, spec, unusable: true, expressions: Vec::new(), size: 0 }
    }

    /// A problem with `field` of this document alone.
    pub fn problem(&self, severity: Severity, field: &str, message: impl Into<String>) -> Problem {
        Problem {
            severity,
            document: Some(self.name.clone()),
            path: self.location.path.clone(),
            line: self.location.line_of(field),
            field: field.to_owned(),
            message: message.into(),
            fault: Fault::Part,
        }
        .short()
    }

    /// Which of two documents came first, of whatever kinds: the older one, and without times the one whose file, or
    /// place in it, comes first.
    pub fn seniority(&self) -> Seniority<'_> {
        let created = self.metadata.created;
        Seniority {
            created: (created.is_none(), created),
            place: (self.location.path.as_deref(), self.location.index),
            name: (&self.name.namespace, &self.name.name, &self.name.kind),
        }
    }
}

/// See [`Document::seniority`]; the first is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seniority<'a> {
    created: (bool, Option<OffsetDateTime>),
    place: (Option<&'a Path>, usize),
    name: (&'a str, &'a str, &'a str),
}

/// What a kind's reading may look at and report besides its own fields.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    /// The document's namespace.
    pub(super) namespace: &'a str,
    pub(super) metadata: &'a Metadata,
    pub(super) unknown: &'a mut Vec<UnknownField>,
    /// Whether there may be more of these than are noted.
    pub(super) is_cut: bool,
    pub(super) remarks: Vec<(Severity, String, String)>,
}

impl Reading<'_> {
    /// Says that `field` is read over.
    pub(super) fn not_acted_on(&mut self, field: impl Into<String>, what: impl Into<String>) {
        self.remarks.push((Severity::NotActedOn, field.into(), what.into()));
    }

    /// Says that part of the document has no effect.
    pub(super) fn error(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.remarks.push((Severity::Error, field.into(), message.into()));
    }

    /// Says that `field` may not do what was meant.
    pub(super) fn warning(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.remarks.push((Severity::Warning, field.into(), message.into()));
    }

    /// Takes out the fields below `field` that nothing reads. If there are more than are noted, there may be one.
    pub(super) fn take_unknown_below(&mut self, field: &str) -> Vec<UnknownField> {
        let below = |unknown: &UnknownField| {
            unknown
                .field
                .strip_prefix(field)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let (mut taken, rest): (Vec<_>, Vec<_>) = std::mem::take(self.unknown).into_iter().partition(below);
        if taken.is_empty() && self.is_cut {
            let line = rest.last().map_or(1, |last| last.line);
            taken.push(UnknownField { field: field.to_owned(), line });
        }
        *self.unknown = rest;
        taken
    }
}

/// `error` at `field`; its line is looked up later.
pub(super) fn wrong(field: impl Into<String>, message: impl Into<String>) -> FieldError {
    FieldError { field: field.into(), line: None, message: message.into(), fault: Fault::Unusable }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct MetadataYaml {
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "namespace")]
    _namespace: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    creation_timestamp: Option<String>,
    // What a cluster adds when a document is read back from it.
    uid: Option<String>,
    deletion_timestamp: Option<Present>,
    #[serde(rename = "resourceVersion")]
    _resource_version: Option<Present>,
    #[serde(rename = "generation")]
    _generation: Option<Present>,
    #[serde(rename = "managedFields")]
    _managed_fields: Option<Present>,
    #[serde(rename = "ownerReferences")]
    _owner_references: Option<Present>,
    #[serde(rename = "finalizers")]
    _finalizers: Option<Present>,
    #[serde(rename = "selfLink")]
    _self_link: Option<Present>,
    #[serde(rename = "generateName")]
    _generate_name: Option<Present>,
}

impl MetadataYaml {
    pub(super) fn read(self) -> Result<Metadata, FieldError> {
        let created = match &self.creation_timestamp {
            None => None,
            Some(text) => Some(OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
                let message =
                    format!("{text:?} is not a time; write it as 2026-01-31T12:00:00Z or remove it");
                wrong("metadata.creationTimestamp", message)
            })?),
        };
        Ok(Metadata {
            labels: self.labels,
            annotations: self.annotations,
            created,
            uid: self.uid,
            ending: self.deletion_timestamp.is_some(),
        })
    }
}

impl Metadata {
    /// The annotations that ask for something and that `acted_on` does not name.
    pub(super) fn annotations_not_acted_on<'a>(
        &'a self,
        acted_on: &'a [&'a [&'a str]],
    ) -> impl Iterator<Item = &'a str> {
        self.annotations.keys().map(String::as_str).filter(move |key| {
            !acted_on.iter().any(|group| group.contains(key))
                && !BOOKKEEPING.iter().any(|prefix| key.starts_with(prefix))
        })
    }
}
