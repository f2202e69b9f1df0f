//! `rewrite`: what a request's path and authority become.

use ::http::uri::Authority;
use selvedge_model::filter::{PathRewrite, RegexRewrite, RegexRewriteError, Rewrite};
use serde::Deserialize;

use crate::resources::{
    document::wrong,
    typed::FieldError,
    values::{LONGEST_REGEX, is_path_and_query, wrong_regex},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    uri: Option<String>,
    authority: Option<String>,
    uri_regex_rewrite: Option<RegexYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RegexYaml {
    #[serde(rename = "match")]
    pattern: String,
    rewrite: String,
}

pub(super) fn read(yaml: Yaml, field: &str) -> Result<Rewrite, FieldError> {
    let uri = yaml.uri.filter(|uri| !uri.is_empty());
    let path = match (uri, yaml.uri_regex_rewrite) {
        (Some(_), Some(_)) => {
            return Err(wrong(field, "gives both uri and uriRegexRewrite; keep one"));
        }
        (Some(uri), None) => Some(PathRewrite::Prefix(path(uri, &format!("{field}.uri"))?)),
        (None, Some(yaml)) => Some(read_regex(&yaml, &format!("{field}.uriRegexRewrite"))?),
        (None, None) => None,
    };
    let given = yaml.authority.filter(|authority| !authority.is_empty());
    let authority = given.map(|given| authority(&given, &format!("{field}.authority"))).transpose()?;
    let rewrite = Rewrite { path, adds_query: false, authority };
    if rewrite.is_empty() {
        return Err(wrong(field, "is empty; give uri, uriRegexRewrite or authority"));
    }
    Ok(rewrite)
}

fn read_regex(yaml: &RegexYaml, field: &str) -> Result<PathRewrite, FieldError> {
    if yaml.pattern.is_empty() || yaml.rewrite.is_empty() {
        return Err(wrong(field, "needs both match and rewrite"));
    }
    if yaml.pattern.len() > LONGEST_REGEX {
        let message = format!("is longer than {LONGEST_REGEX} bytes; make it shorter");
        return Err(wrong(format!("{field}.match"), message));
    }
    RegexRewrite::new(&yaml.pattern, &yaml.rewrite).map(PathRewrite::Regex).map_err(|error| match error {
        RegexRewriteError::Pattern(error) => wrong_regex(format!("{field}.match"), &yaml.pattern, error),
        error => wrong(format!("{field}.rewrite"), error.to_string()),
    })
}

/// A path that a request may have, or the beginning of one, without a query.
pub(super) fn path(text: String, field: &str) -> Result<String, FieldError> {
    if text.contains('?') {
        return Err(wrong(field, format!("{text:?} has a query; write the path alone")));
    }
    path_and_query(text, field)
}

/// A path, with or without a query.
pub(super) fn path_and_query(text: String, field: &str) -> Result<String, FieldError> {
    if !is_path_and_query(&text) {
        return Err(wrong(field, format!("{text:?} is not a path; write it as /path")));
    }
    Ok(text)
}

/// A host, with or without a port.
pub(super) fn authority(text: &str, field: &str) -> Result<String, FieldError> {
    match text.parse::<Authority>() {
        Ok(authority) if !authority.host().is_empty() && !text.contains('@') => Ok(text.to_owned()),
        _ => Err(wrong(field, format!("{text:?} is not a host, with or without a port; correct it"))),
    }
}
