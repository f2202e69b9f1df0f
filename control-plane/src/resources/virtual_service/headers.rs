//! `headers`: what changes in the headers of requests and answers, for a whole route or for one destination.

use std::collections::BTreeMap;

use ::http::HeaderName;
use selvedge_model::filter::{HeaderChange, HeaderChanges, HeaderText, HeaderTextError, Piece, may_change};
use serde::Deserialize;

use super::rewrite::authority;
use crate::resources::{
    document::{Reading, wrong},
    typed::FieldError,
    values::header_name,
};

/// What changes in the headers of requests and answers. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// What changes in a request's.
    pub request: HeaderChanges,
    /// What becomes of its authority, if `host` or `:authority` is set.
    pub authority: Option<String>,
    /// What changes in an answer's.
    pub response: HeaderChanges,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Yaml {
    request: ChangesYaml,
    response: ChangesYaml,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChangesYaml {
    set: BTreeMap<String, String>,
    add: BTreeMap<String, String>,
    remove: Vec<String>,
}

pub(super) fn read(yaml: Yaml, field: &str, reading: &mut Reading<'_>) -> Result<Headers, FieldError> {
    let mut request = yaml.request;
    let authority = take_authority(&mut request, &format!("{field}.request"), reading)?;
    Ok(Headers {
        request: read_changes(request, &format!("{field}.request"), reading)?,
        authority,
        response: read_changes(yaml.response, &format!("{field}.response"), reading)?,
    })
}

/// What `host` or `:authority` is set to. It is no header, whatever Istio's field says.
fn take_authority(
    yaml: &mut ChangesYaml,
    field: &str,
    reading: &mut Reading<'_>,
) -> Result<Option<String>, FieldError> {
    let mut found = None;
    for (list, map) in [("set", &mut yaml.set), ("add", &mut yaml.add)] {
        for (name, value) in map.extract_if(.., |name, _| is_authority(name)) {
            let field = format!("{field}.{list}.{name}");
            if found.is_some() {
                return Err(wrong(field, "sets the authority a second time; keep one of them"));
            }
            found = Some((field, value));
        }
    }
    let Some((field, value)) = found else { return Ok(None) };
    let Some(text) = read_text(&value, &field, reading)? else { return Ok(None) };
    match text.pieces() {
        [Piece::Text(text)] => authority(text.to_str().unwrap_or_default(), &field).map(Some),
        _ => {
            reading.not_acted_on(field, "commands are not acted on in an authority, so it is not changed");
            Ok(None)
        }
    }
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

fn read_changes(
    yaml: ChangesYaml,
    field: &str,
    reading: &mut Reading<'_>,
) -> Result<HeaderChanges, FieldError> {
    let mut remove = Vec::new();
    for (index, name) in yaml.remove.iter().enumerate() {
        remove.extend(read_name(name, &format!("{field}.remove[{index}]"), reading)?);
    }
    Ok(HeaderChanges {
        remove,
        set: read_values(yaml.set, &format!("{field}.set"), reading)?,
        add: read_values(yaml.add, &format!("{field}.add"), reading)?,
    })
}

fn read_values(
    yaml: BTreeMap<String, String>,
    field: &str,
    reading: &mut Reading<'_>,
) -> Result<Vec<HeaderChange>, FieldError> {
    let mut changes = Vec::new();
    for (name, value) in yaml {
        let field = format!("{field}.{name}");
        let name = read_name(&name, &field, reading)?;
        let value = read_text(&value, &field, reading)?;
        changes.extend(name.zip(value).map(|(name, value)| HeaderChange { name, value }));
    }
    Ok(changes)
}

/// The header called `name`; `None` if it is one that nobody may change, which is reported.
fn read_name(name: &str, field: &str, reading: &mut Reading<'_>) -> Result<Option<HeaderName>, FieldError> {
    if name.starts_with(':') || is_authority(name) {
        let message = format!(
            "{name:?} cannot be changed here; a request's authority can be set, and its path by rewrite.uri"
        );
        return Err(wrong(field, message));
    }
    let name = header_name(name, field)?;
    if !may_change(&name) {
        reading.not_acted_on(field, format!("{name} is not acted on: the proxy writes it itself; remove it"));
        return Ok(None);
    }
    Ok(Some(name))
}

/// The value `text`; `None` if it has a command that is not known, which is reported.
fn read_text(text: &str, field: &str, reading: &mut Reading<'_>) -> Result<Option<HeaderText>, FieldError> {
    match text.parse() {
        Ok(text) => Ok(Some(text)),
        Err(error @ HeaderTextError::UnknownCommand(_)) => {
            reading.not_acted_on(field, format!("the header is left out: {error}"));
            Ok(None)
        }
        Err(error) => Err(wrong(field, error.to_string())),
    }
}
