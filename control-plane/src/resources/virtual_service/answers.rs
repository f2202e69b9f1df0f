//! `redirect` and `directResponse`: answers that need no destination.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use selvedge_model::filter::{DirectResponse, PathRewrite, Redirect, RedirectPort};
use serde::Deserialize;

use super::rewrite;
use crate::resources::{
    document::wrong,
    typed::FieldError,
    values::{port_number, redirect_status},
};

/// The longest body of a direct response, in bytes (Istio's own limit).
const MAX_BODY: usize = 1 << 20;

/// How protobuf's JSON writes bytes: base64 with or without padding.
const BYTES: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RedirectYaml {
    uri: Option<String>,
    prefix_rewrite: Option<String>,
    authority: Option<String>,
    port: Option<u32>,
    derive_port: Option<DerivePort>,
    scheme: Option<String>,
    redirect_code: Option<u32>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum DerivePort {
    FromProtocolDefault,
    FromRequestPort,
}

pub(super) fn read_redirect(yaml: RedirectYaml, field: &str) -> Result<Redirect, FieldError> {
    let path = read_path(yaml.uri, yaml.prefix_rewrite, field)?;
    let given = yaml.authority.filter(|authority| !authority.is_empty());
    let host = given.map(|given| rewrite::authority(&given, &format!("{field}.authority"))).transpose()?;
    let port = match (yaml.port.filter(|port| *port != 0), yaml.derive_port) {
        (Some(_), Some(_)) => return Err(wrong(field, "gives both port and derivePort; keep one")),
        (Some(port), None) => RedirectPort::Explicit(port_number(port, &format!("{field}.port"))?),
        (None, Some(DerivePort::FromProtocolDefault)) => RedirectPort::Default,
        (None, Some(DerivePort::FromRequestPort)) => RedirectPort::OfRequest,
        (None, None) => RedirectPort::OfAuthority,
    };
    let scheme = yaml.scheme.filter(|scheme| !scheme.is_empty());
    if let Some(scheme) = scheme.as_deref().filter(|scheme| !["http", "https"].contains(scheme)) {
        return Err(wrong(
            format!("{field}.scheme"),
            format!("{scheme:?} is not a scheme; use http or https"),
        ));
    }
    let code = yaml.redirect_code.filter(|code| *code != 0).unwrap_or(301);
    let status = redirect_status(code, &format!("{field}.redirectCode"))?;
    if path.is_none() && host.is_none() && scheme.is_none() && port == RedirectPort::OfAuthority {
        return Err(wrong(field, "leads nowhere else; give uri, authority, scheme, port or derivePort"));
    }
    Ok(Redirect { status, scheme, host, port, path, pieces: Vec::new() })
}

fn read_path(
    uri: Option<String>,
    prefix: Option<String>,
    field: &str,
) -> Result<Option<PathRewrite>, FieldError> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(match (given(uri), given(prefix)) {
        (Some(_), Some(_)) => return Err(wrong(field, "gives both uri and prefixRewrite; keep one")),
        (Some(uri), None) => Some(PathRewrite::Full(rewrite::path_and_query(uri, &format!("{field}.uri"))?)),
        (None, Some(prefix)) => {
            Some(PathRewrite::Prefix(rewrite::path(prefix, &format!("{field}.prefixRewrite"))?))
        }
        (None, None) => None,
    })
}

#[derive(Debug, Deserialize)]
pub(super) struct DirectYaml {
    status: u32,
    body: Option<BodyYaml>,
}

#[derive(Debug, Deserialize)]
struct BodyYaml {
    string: Option<String>,
    bytes: Option<String>,
}

pub(super) fn read_direct(yaml: DirectYaml, field: &str) -> Result<DirectResponse, FieldError> {
    let status = status(yaml.status, &format!("{field}.status"))?;
    let body = yaml.body.map(|yaml| read_body(yaml, &format!("{field}.body"))).transpose()?;
    Ok(DirectResponse { status, body: body.unwrap_or_default() })
}

fn read_body(yaml: BodyYaml, field: &str) -> Result<Bytes, FieldError> {
    let body = match (yaml.string, yaml.bytes) {
        (Some(_), Some(_)) => return Err(wrong(field, "gives both string and bytes; keep one")),
        (Some(text), None) => Bytes::from(text),
        (None, Some(text)) => {
            let standard = text.replace('-', "+").replace('_', "/");
            let bytes = BYTES.decode(standard).map_err(|error| {
                wrong(format!("{field}.bytes"), format!("is not base64: {error}; write string for a text"))
            })?;
            Bytes::from(bytes)
        }
        (None, None) => Bytes::new(),
    };
    if body.len() > MAX_BODY {
        return Err(wrong(field, format!("is {} bytes long; {MAX_BODY} (1 MiB) are allowed", body.len())));
    }
    Ok(body)
}

/// The status of an answer that a proxy makes itself.
pub(super) fn status(status: u32, field: &str) -> Result<u16, FieldError> {
    u16::try_from(status)
        .ok()
        .filter(|status| (200..600).contains(status))
        .ok_or_else(|| wrong(field, format!("{status} is not the status of an answer; use 200 to 599")))
}
