//! `corsPolicy`: who may call from a page of another origin.

use ::http::Method;
use selvedge_model::{
    StringMatch,
    filter::{Cors, OriginMatch, UnmatchedPreflights},
};
use serde::Deserialize;

use crate::resources::{
    document::{Reading, wrong},
    typed::FieldError,
    values::{GoDuration, StringMatchYaml, header_name, more_than_nothing},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    #[serde(default)]
    allow_origins: Vec<StringMatchYaml>,
    /// The old form: whole origins, or `*`.
    #[serde(default)]
    allow_origin: Vec<String>,
    #[serde(default)]
    allow_methods: Vec<String>,
    #[serde(default)]
    allow_headers: Vec<String>,
    #[serde(default)]
    expose_headers: Vec<String>,
    max_age: Option<GoDuration>,
    #[serde(default)]
    allow_credentials: bool,
    unmatched_preflights: Option<Unmatched>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Unmatched {
    Unspecified,
    Forward,
    Ignore,
}

pub(super) fn read(yaml: Yaml, field: &str, reading: &mut Reading<'_>) -> Result<Cors, FieldError> {
    let remedy = "leave it out for the browser's own";
    let max_age = yaml.max_age.map(|time| more_than_nothing(time, &format!("{field}.maxAge"), remedy));
    let max_age = max_age.transpose()?;
    if max_age.is_some_and(|time| time.subsec_nanos() != 0) {
        return Err(wrong(format!("{field}.maxAge"), "is not in whole seconds; write for example 600s"));
    }
    let allow_origins = read_origins(yaml.allow_origins, yaml.allow_origin, field)?;
    if allow_origins.is_empty() {
        reading.warning(field, "names no origin, so no page may call; add allowOrigins");
    }
    Ok(Cors {
        allow_origins,
        allow_methods: read_methods(yaml.allow_methods, &format!("{field}.allowMethods"))?,
        allow_headers: read_headers(yaml.allow_headers, &format!("{field}.allowHeaders"))?,
        expose_headers: read_headers(yaml.expose_headers, &format!("{field}.exposeHeaders"))?,
        max_age,
        allow_credentials: yaml.allow_credentials,
        unmatched_preflights: match yaml.unmatched_preflights {
            Some(Unmatched::Ignore) => UnmatchedPreflights::Ignore,
            Some(Unmatched::Forward | Unmatched::Unspecified) | None => UnmatchedPreflights::Forward,
        },
    })
}

/// The origins of both forms; as in Istio, the old form does not count if there is the new one.
fn read_origins(
    new: Vec<StringMatchYaml>,
    old: Vec<String>,
    field: &str,
) -> Result<Vec<OriginMatch>, FieldError> {
    if new.is_empty() {
        return Ok(old.into_iter().map(whole_origin).collect());
    }
    let mut origins = Vec::new();
    for (index, yaml) in new.into_iter().enumerate() {
        let field = format!("{field}.allowOrigins[{index}]");
        origins.push(match yaml.read_given(&field)? {
            StringMatch::Exact(origin) if origin.is_empty() => {
                return Err(wrong(
                    format!("{field}.exact"),
                    "is empty; write an origin, such as https://a.example",
                ));
            }
            StringMatch::Exact(origin) => whole_origin(origin),
            StringMatch::Prefix(prefix) | StringMatch::PathPrefix(prefix) => OriginMatch::Prefix(prefix),
            StringMatch::Regex(regex) => OriginMatch::Regex(regex),
            StringMatch::Present => OriginMatch::Any,
        });
    }
    Ok(origins)
}

fn whole_origin(origin: String) -> OriginMatch {
    if origin == "*" { OriginMatch::Any } else { OriginMatch::Exact(origin) }
}

/// The methods that Istio allows here, as they are written.
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
];

fn read_methods(methods: Vec<String>, field: &str) -> Result<Vec<String>, FieldError> {
    let known = |method: &str| method == "*" || METHODS.iter().any(|known| known == method);
    match methods.iter().position(|method| !known(method)) {
        Some(index) => {
            let message = format!("{:?} is not a method; write it as GET, or * for any", methods[index]);
            Err(wrong(format!("{field}[{index}]"), message))
        }
        None => Ok(methods),
    }
}

fn read_headers(headers: Vec<String>, field: &str) -> Result<Vec<String>, FieldError> {
    for (index, name) in headers.iter().enumerate().filter(|(_, name)| *name != "*") {
        header_name(name, &format!("{field}[{index}]"))?;
    }
    Ok(headers)
}
