//! One document of a kind that is acted on, on its way from a tree of YAML to what it means.

use std::{collections::BTreeSet, fmt, sync::Arc};

use selvedge_model::expression::{NAMESPACE_LIMIT, metered};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Resource,
    document::{Document, Location, Metadata, MetadataYaml, Reading, wrong},
    kinds::ResourceKind,
    nearest::nearest,
    node::Node,
    typed::{self, FieldError, MOST_UNKNOWN, Present, UnknownField},
};
use crate::problem::{DocumentName, Severity};

/// What is to be said of single fields of a document that is understood.
pub(super) type Remarks = Vec<(Severity, FieldError)>;

/// What reading a document gives: the document, and what is to be said of its fields.
pub(super) type Read = Result<(Resource, Remarks), FieldError>;

/// A document before it is read.
pub(super) struct Unread<'a> {
    pub(super) kind: &'static ResourceKind,
    pub(super) node: &'a Node,
    pub(super) name: &'a DocumentName,
    pub(super) location: &'a Location,
}

/// A document of a kind that has a `spec`; `Y` is what the `spec` looks like.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Envelope<Y> {
    #[serde(rename = "apiVersion")]
    _api_version: Present,
    #[serde(rename = "kind")]
    _kind: Present,
    #[serde(rename = "metadata")]
    _metadata: Present,
    spec: Option<Y>,
    #[serde(rename = "status")]
    _status: Option<Present>,
}

impl Unread<'_> {
    /// Reads a document that must have a `spec`.
    pub(super) fn with_spec<Y: DeserializeOwned + fmt::Debug, T>(
        &self,
        read: impl Fn(Y, &mut Reading<'_>) -> Result<T, FieldError>,
    ) -> Read
    where
        Arc<Document<T>>: Into<Resource>,
    {
        self.whole(|yaml: Envelope<Y>, reading: &mut Reading<'_>| match yaml.spec {
            Some(spec) => read(spec, reading),
            None => Err(wrong("spec", "is missing")),
        })
    }

    /// Reads a document whose `spec` may be missing: then all of it is as if unset.
    pub(super) fn with_spec_or_default<Y: DeserializeOwned + Default, T>(
        &self,
        read: impl Fn(Y, &mut Reading<'_>) -> Result<T, FieldError>,
    ) -> Read
    where
        Arc<Document<T>>: Into<Resource>,
    {
        self.whole(|yaml: Envelope<Y>, reading: &mut Reading<'_>| {
            read(yaml.spec.unwrap_or_default(), reading)
        })
    }

    /// Reads a document of which more than the `spec` counts.
    pub(super) fn whole<Y: DeserializeOwned, T>(
        &self,
        read: impl Fn(Y, &mut Reading<'_>) -> Result<T, FieldError>,
    ) -> Read
    where
        Arc<Document<T>>: Into<Resource>,
    {
        let (metadata, mut unknown) = self.metadata()?;
        let (yaml, mut fields) = typed::decode(self.node).map_err(|error| match self.kind.is_secret {
            true => self.without_content(&error),
            false => error,
        })?;
        let namespace = &*self.name.namespace;
        let is_cut = fields.len() >= MOST_UNKNOWN;
        let mut reading =
            Reading { namespace, metadata: &metadata, unknown: &mut fields, is_cut, remarks: Vec::new() };
        if let Some(acted_on) = self.kind.annotations {
            for annotation in metadata.annotations_not_acted_on(acted_on) {
                reading.not_acted_on(format!("metadata.annotations[{annotation}]"), "not acted on");
            }
        }
        let (read, expressions) = metered(NAMESPACE_LIMIT, || read(yaml, &mut reading));
        if self.kind.is_policy
            && let Some(UnknownField { field, line }) = unknown.iter().chain(reading.unknown.iter()).next()
        {
            // Read over, the policy may let in what it was to keep out. What is wrong besides may come of it.
            let advice = match self.meant_by(field) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "correct or remove the field".to_owned(),
            };
            let message = format!("is not a field of this policy, so the policy cannot be used; {advice}");
            return Err(FieldError { line: Some(*line), ..wrong(field, message) });
        }
        let spec = read?;
        let noted = reading.remarks;
        unknown.append(&mut fields);
        let remarks = self.remarks(noted, unknown, is_cut);
        let (name, location) = (self.name.clone(), self.location.clone());
        let size = self.node.size();
        let document = Document { name, metadata, location, spec, unusable: false, expressions, size };
        Ok((Arc::new(document).into(), remarks))
    }

    /// `error` without its words and the names of inner fields, which may repeat what a secret holds.
    fn without_content(&self, error: &FieldError) -> FieldError {
        let outermost = error.field.split(['.', '[']).next().unwrap_or_default().to_owned();
        let message = format!("is not what a {} has there", self.kind.kind);
        FieldError { field: outermost, message, ..error.clone() }
    }

    /// What reading has noted and which fields nobody knows, in the order of lines.
    fn remarks(
        &self,
        noted: Vec<(Severity, String, String)>,
        unknown: Vec<UnknownField>,
        is_cut: bool,
    ) -> Remarks {
        let noted = noted.into_iter().map(|(severity, field, message)| {
            let line = self.location.line_of(&field);
            (severity, FieldError { line, ..wrong(field, message) })
        });
        let unknown = unknown.into_iter().map(|UnknownField { field, line }| {
            let message = match self.meant_by(&field) {
                Some(meant) => format!("not acted on; did you mean {meant}?"),
                None => "not acted on".to_owned(),
            };
            (Severity::NotActedOn, FieldError { line: Some(line), ..wrong(field, message) })
        });
        let mut remarks: Remarks = noted.chain(unknown).collect();
        remarks.sort_by_key(|(_, error)| error.line);
        if is_cut {
            let message = "has more fields that are not acted on, and these are not named here";
            let line = Some(self.node.line);
            remarks.push((Severity::NotActedOn, FieldError { line, ..wrong("", message) }));
        }
        remarks
    }

    /// The field that was most likely meant by `unknown`, which stands at the same place.
    fn meant_by(&self, unknown: &str) -> Option<String> {
        let mut path = String::new();
        for part in unknown.split('[') {
            match part.split_once(']') {
                Some((_, rest)) => path.extend(["[]", rest]),
                None => path.push_str(part),
            }
        }
        let known = self.kind.known_fields();
        // The innermost part that is unknown: what is below a misspelt field is unknown, too.
        let parts: Vec<&str> = path.split('.').collect();
        (0..parts.len()).find_map(|depth| {
            let above: String = parts[..depth].iter().map(|part| format!("{part}.")).collect();
            let word = parts[depth].trim_end_matches("[]");
            let here = known.iter().filter_map(|field| field.path.strip_prefix(above.as_str()));
            let names: BTreeSet<&str> = here.filter_map(|rest| rest.split(['.', '[']).next()).collect();
            if names.contains(word) || names.contains("*") {
                return None;
            }
            Some(nearest(word, names)?.to_owned())
        })
    }

    fn metadata(&self) -> Result<(Metadata, Vec<UnknownField>), FieldError> {
        let Some(entry) = self.node.field("metadata") else {
            return Err(wrong("metadata", "is missing"));
        };
        let below = |field: String| {
            if field.is_empty() { "metadata".to_owned() } else { format!("metadata.{field}") }
        };
        let (yaml, mut unknown) = typed::decode::<MetadataYaml>(&entry.node).map_err(|mut error| {
            error.field = below(error.field);
            error
        })?;
        for field in &mut unknown {
            field.field = below(std::mem::take(&mut field.field));
        }
        Ok((yaml.read()?, unknown))
    }
}
