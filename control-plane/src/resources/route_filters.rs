//! `filters` of an `HTTPRoute` or `GRPCRoute`, on a rule or on one of its backends.
//!
//! A filter that cannot be used is never left out: its requests are answered 500 (HTTPRoute `filters`).

mod yaml;

use std::{collections::BTreeSet, time::Duration};

use http::{HeaderName, Method};
use selvedge_model::{
    FullRegex,
    filter::{
        Cors, Filters, Fraction, HeaderChange, HeaderChanges, HeaderText, OriginMatch, OwnAnswer,
        PathRewrite, Redirect, RedirectPort, Rewrite, UnmatchedPreflights,
    },
};

use super::{
    document::wrong,
    references::BackendRef,
    typed::FieldError,
    values::{header_name, is_path_and_query, port_number, redirect_status},
};
use crate::problem::Fault;
pub(super) use yaml::FilterYaml;
use yaml::{
    CorsYaml, ExtensionYaml, FilterType, FractionYaml, HeaderYaml, MirrorYaml, ModifierYaml, PathType,
    PathYaml, RedirectYaml, Scheme,
};

/// HTTPRoute `cors.maxAge`, if it is not said.
const DEFAULT_MAX_AGE: u32 = 5;

/// The filters of a rule, or of one of its backends.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouteFilters {
    /// All but the mirrors.
    pub filters: Filters,
    /// Who gets copies.
    pub mirrors: Vec<RouteMirror>,
    /// Filters that cannot be used: the field, and why.
    pub unusable: Vec<(String, String)>,
}

/// A `RequestMirror`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMirror {
    /// The field of its backend, such as `spec.rules[0].filters[1].requestMirror.backendRef`.
    pub field: String,
    /// Who gets copies.
    pub to: BackendRef,
    /// Of how many requests.
    pub fraction: Fraction,
}

/// The filters of the list `list`; of a `GRPCRoute`, if `for_grpc`.
pub(super) fn read(yaml: Vec<FilterYaml>, list: &str, for_grpc: bool) -> Result<RouteFilters, FieldError> {
    let mut read = RouteFilters::default();
    let mut seen = BTreeSet::new();
    for (index, yaml) in yaml.into_iter().enumerate() {
        let (kind, field) = (yaml.kind, format!("{list}[{index}]"));
        if for_grpc && !kind.is_for_grpc() {
            return Err(wrong(format!("{field}.type"), format!("a GRPCRoute has no {kind}; remove it")));
        }
        if !seen.insert(kind) && !kind.is_repeatable() {
            return Err(wrong(format!("{field}.type"), format!("{kind} is given twice; keep one")));
        }
        if let Some(other) = yaml.given().find(|given| *given != kind) {
            let message = format!("does not belong to the type {kind}; remove it, or write type: {other}");
            return Err(wrong(format!("{field}.{}", other.field()), message));
        }
        read.add(yaml, &field)?;
    }
    if seen.contains(&FilterType::RequestRedirect) && seen.contains(&FilterType::UrlRewrite) {
        let message = "has RequestRedirect and URLRewrite, which exclude each other; keep one of them";
        return Err(FieldError { fault: Fault::IncompatibleFilters, ..wrong(list, message) });
    }
    Ok(read)
}

impl RouteFilters {
    fn add(&mut self, yaml: FilterYaml, field: &str) -> Result<(), FieldError> {
        let kind = yaml.kind;
        let own = format!("{field}.{}", kind.field());
        let missing = || wrong(&own, format!("is missing; the type {kind} needs it"));
        let filters = &mut self.filters;
        match kind {
            FilterType::RequestHeaderModifier => {
                let yaml = yaml.request_header_modifier.ok_or_else(missing)?;
                filters.request_headers = read_modifier(yaml, &own)?;
            }
            FilterType::ResponseHeaderModifier => {
                let yaml = yaml.response_header_modifier.ok_or_else(missing)?;
                filters.response_headers = read_modifier(yaml, &own)?;
            }
            FilterType::RequestRedirect => {
                let yaml = yaml.request_redirect.ok_or_else(missing)?;
                let redirect = OwnAnswer::Redirect(read_redirect(yaml, &own)?);
                // A filter that cannot be used comes first: what it was to do is not done.
                filters.answer.get_or_insert(redirect);
            }
            FilterType::UrlRewrite => {
                let yaml = yaml.url_rewrite.ok_or_else(missing)?;
                let path = yaml.path.map(|path| read_path(path, &format!("{own}.path"))).transpose()?;
                let authority = yaml.hostname.map(|name| hostname(name, &format!("{own}.hostname")));
                filters.rewrite = Rewrite { path, adds_query: false, authority: authority.transpose()? };
            }
            FilterType::RequestMirror => {
                let yaml = yaml.request_mirror.ok_or_else(missing)?;
                self.mirrors.push(read_mirror(yaml, &own)?);
            }
            FilterType::Cors => filters.cors = Some(read_cors(yaml.cors.ok_or_else(missing)?, &own)?),
            FilterType::ExternalAuth => self.cannot_use(&own, "ExternalAuth is not supported"),
            FilterType::ExtensionRef => {
                let ExtensionYaml { group, kind, name } = yaml.extension_ref.ok_or_else(missing)?;
                let group = group.map(|group| format!(" ({group})")).unwrap_or_default();
                self.cannot_use(&own, &format!("no filter {kind}{group} is supported, such as {name}"));
            }
        }
        Ok(())
    }

    fn cannot_use(&mut self, field: &str, why: &str) {
        self.filters.answer = Some(OwnAnswer::Unusable(format!("{field}: {why}")));
        let message = format!("{why}; its requests are answered 500 until the filter is removed");
        self.unusable.push((field.to_owned(), message));
    }

    /// Whether it changes what is sent on, besides its path, or has it sent elsewhere, too.
    pub(super) fn changes_what_is_sent(&self) -> bool {
        self.filters.request_headers != HeaderChanges::default() || !self.mirrors.is_empty()
    }

    /// Whether a path's prefix is replaced, which asks something of the rule's match.
    pub(super) fn replaces_prefix(&self) -> bool {
        self.filters.path_rewrites().any(|path| matches!(path, PathRewrite::PrefixBySegments(_)))
    }
}

fn read_modifier(yaml: ModifierYaml, field: &str) -> Result<HeaderChanges, FieldError> {
    let mut remove = Vec::new();
    for (index, name) in yaml.remove.iter().enumerate() {
        remove.push(changeable(name, &format!("{field}.remove[{index}]"))?);
    }
    let set = read_changes(yaml.set, &format!("{field}.set"))?;
    let add = read_changes(yaml.add, &format!("{field}.add"))?;
    Ok(HeaderChanges { remove, set, add })
}

/// Of several entries of one name, the first counts (Gateway API `HTTPHeader`).
fn read_changes(yaml: Vec<HeaderYaml>, list: &str) -> Result<Vec<HeaderChange>, FieldError> {
    let mut changes: Vec<HeaderChange> = Vec::new();
    for (index, HeaderYaml { name, value }) in yaml.into_iter().enumerate() {
        let field = format!("{list}[{index}]");
        let name = changeable(&name, &format!("{field}.name"))?;
        let value = HeaderText::literal(&value)
            .map_err(|error| wrong(format!("{field}.value"), error.to_string()))?;
        if !changes.iter().any(|change| change.name == name) {
            changes.push(HeaderChange { name, value });
        }
    }
    Ok(changes)
}

/// The header `name`, if a route may change it: none that says where a message goes or where it ends.
fn changeable(name: &str, field: &str) -> Result<HeaderName, FieldError> {
    let header = header_name(name, field)?;
    if header == http::header::HOST {
        return Err(wrong(field, "cannot be changed so; use a URLRewrite with a hostname"));
    }
    let framing = [http::header::CONNECTION, http::header::CONTENT_LENGTH, http::header::TRANSFER_ENCODING];
    if framing.contains(&header) {
        return Err(wrong(field, format!("{header} belongs to the connection, and cannot be changed")));
    }
    Ok(header)
}

fn read_redirect(yaml: RedirectYaml, field: &str) -> Result<Redirect, FieldError> {
    let status = redirect_status(yaml.status_code.unwrap_or(302), &format!("{field}.statusCode"))?;
    let scheme = yaml.scheme.map(|scheme| match scheme {
        Scheme::Http => "http".to_owned(),
        Scheme::Https => "https".to_owned(),
    });
    let port = yaml.port.map(|port| port_number(port, &format!("{field}.port"))).transpose()?;
    Ok(Redirect {
        status,
        scheme,
        host: yaml.hostname.map(|name| hostname(name, &format!("{field}.hostname"))).transpose()?,
        port: port.map_or(RedirectPort::OfScheme, RedirectPort::Explicit),
        path: yaml.path.map(|path| read_path(path, &format!("{field}.path"))).transpose()?,
        pieces: Vec::new(),
    })
}

fn read_path(yaml: PathYaml, field: &str) -> Result<PathRewrite, FieldError> {
    let (own, given, other) = match yaml.kind {
        PathType::ReplaceFullPath => {
            ("replaceFullPath", yaml.replace_full_path, yaml.replace_prefix_match.is_some())
        }
        PathType::ReplacePrefixMatch => {
            ("replacePrefixMatch", yaml.replace_prefix_match, yaml.replace_full_path.is_some())
        }
    };
    if other {
        return Err(wrong(field, format!("gives both replacements; its type needs {own} alone")));
    }
    let own = format!("{field}.{own}");
    let Some(path) = given else { return Err(wrong(own, "is missing; its type needs it")) };
    let is_full = matches!(yaml.kind, PathType::ReplaceFullPath);
    let may_stand = path.is_empty() && !is_full || !path.contains('?') && is_path_and_query(&path);
    if !may_stand {
        let message = format!("{path:?} is not a path; begin it with / and leave out the query");
        return Err(wrong(own, message));
    }
    Ok(if is_full { PathRewrite::Full(path) } else { PathRewrite::PrefixBySegments(path) })
}

/// A host name without a wildcard (Gateway API `PreciseHostname`).
fn hostname(name: String, field: &str) -> Result<String, FieldError> {
    let is_label = |label: &str| {
        let letters = label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        letters && !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        let message = format!("{name:?} is not a host name; use lower-case letters, digits, '-' and '.'");
        return Err(wrong(field, message));
    }
    Ok(name)
}

/// The mirror at `own`.
fn read_mirror(yaml: MirrorYaml, own: &str) -> Result<RouteMirror, FieldError> {
    let field = format!("{own}.backendRef");
    let to = yaml.backend_ref.read(&field)?;
    let fraction = match (yaml.percent, yaml.fraction) {
        (None, None) => Fraction::ALL,
        (Some(percent), None) => Fraction::of(percent, 100).ok_or_else(|| {
            wrong(format!("{own}.percent"), format!("{percent} is more than 100; use 0 to 100"))
        })?,
        (None, Some(yaml)) => read_fraction(&yaml, &format!("{own}.fraction"))?,
        (Some(_), Some(_)) => return Err(wrong(own, "gives percent and fraction; keep one")),
    };
    Ok(RouteMirror { field, to, fraction })
}

fn read_fraction(yaml: &FractionYaml, field: &str) -> Result<Fraction, FieldError> {
    let FractionYaml { numerator, denominator } = *yaml;
    let denominator = denominator.unwrap_or(100);
    if denominator == 0 {
        return Err(wrong(format!("{field}.denominator"), "is 0; use for example 100"));
    }
    Fraction::of(numerator, denominator).ok_or_else(|| {
        let message = format!("{numerator} of {denominator} is more than all; use for example 1 of 100");
        wrong(field, message)
    })
}

fn read_cors(yaml: CorsYaml, field: &str) -> Result<Cors, FieldError> {
    let mut allow_origins = Vec::new();
    for (index, origin) in yaml.allow_origins.iter().enumerate() {
        allow_origins.push(read_origin(origin, &format!("{field}.allowOrigins[{index}]"))?);
    }
    let names = |names: &[String], list: &str| -> Result<(), FieldError> {
        let mut given = names.iter().enumerate().filter(|(_, name)| *name != "*");
        given.try_for_each(|(index, name)| header_name(name, &format!("{field}.{list}[{index}]")).map(|_| ()))
    };
    names(&yaml.allow_headers, "allowHeaders")?;
    names(&yaml.expose_headers, "exposeHeaders")?;
    for (index, method) in yaml.allow_methods.iter().enumerate() {
        if method != "*" && method.parse::<Method>().is_err() {
            let message = format!("{method:?} is not a method");
            return Err(wrong(format!("{field}.allowMethods[{index}]"), message));
        }
    }
    let max_age = yaml.max_age.unwrap_or(DEFAULT_MAX_AGE);
    Ok(Cors {
        allow_origins,
        allow_methods: yaml.allow_methods,
        allow_headers: yaml.allow_headers,
        expose_headers: yaml.expose_headers,
        max_age: Some(Duration::from_secs(max_age.into())),
        allow_credentials: yaml.allow_credentials,
        // The app is never asked for what its route does not allow.
        unmatched_preflights: UnmatchedPreflights::Ignore,
    })
}

/// An origin, in whose host `*` stands for any number of labels, or `*` alone (HTTPRoute `cors.allowOrigins`).
fn read_origin(origin: &str, field: &str) -> Result<OriginMatch, FieldError> {
    if origin == "*" {
        return Ok(OriginMatch::Any);
    }
    let host = origin.split_once("://").map(|(_, host)| host);
    if host.is_none_or(|host| host.is_empty() || host.contains(['/', '?', '#', ' '])) {
        let message = format!("{origin:?} is not an origin; write for example https://example.com or *");
        return Err(wrong(field, message));
    }
    if !origin.contains('*') {
        return Ok(OriginMatch::Exact(origin.to_owned()));
    }
    let parts: Vec<String> = origin.split('*').map(regex::escape).collect();
    let pattern = format!("(?i){}", parts.join("[^/]+"));
    FullRegex::new(&pattern).map(OriginMatch::Regex).map_err(|error| wrong(field, error.to_string()))
}
