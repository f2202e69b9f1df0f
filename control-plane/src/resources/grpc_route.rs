//! `GRPCRoute` (Gateway API) whose parent is a `Service`: which calls to it go where.
//!
//! What it means is the same as for an [`HTTPRoute`](super::http_route).

use selvedge_model::{GrpcMatch, Match, RetryPolicy};
use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    http_route::{
        HttpRouteRule, HttpRouteSpec, NamedWords, TextType, read_backends, read_headers, read_text,
        report_hostnames,
    },
    kinds::{Feedback, GATEWAY, ResourceKind},
    references::{ParentWords, RoutedBackendWords, read_parents},
    route_filters::{self, FilterWords},
    typed::{FieldError, Seen},
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("GRPCRoute", GATEWAY, "grpcroutes", Feedback::Parents)
        .read_as_spec::<Words>(|document| document.with_spec(read));

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Words {
    #[serde(default)]
    parent_refs: Vec<ParentWords>,
    hostnames: Option<Seen>,
    #[serde(default)]
    rules: Vec<RuleWords>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleWords {
    name: Option<String>,
    #[serde(default)]
    matches: Vec<MatchWords>,
    #[serde(default)]
    filters: Vec<FilterWords>,
    #[serde(default)]
    backend_refs: Vec<RoutedBackendWords>,
}

#[derive(Debug, Deserialize)]
struct MatchWords {
    method: Option<MethodWords>,
    #[serde(default)]
    headers: Vec<NamedWords>,
}

#[derive(Debug, Deserialize)]
struct MethodWords {
    #[serde(rename = "type", default)]
    kind: TextType,
    service: Option<String>,
    method: Option<String>,
}

fn read(words: Words, reading: &mut Reading<'_>) -> Result<HttpRouteSpec, FieldError> {
    let parents = read_parents(words.parent_refs, reading)?;
    report_hostnames(words.hostnames, &parents, reading);
    let rules = words.rules.into_iter().enumerate().map(|(index, rule)| read_rule(rule, index, reading));
    Ok(HttpRouteSpec { is_grpc: true, parents, rules: rules.collect::<Result<_, _>>()? })
}

fn read_rule(words: RuleWords, index: usize, reading: &mut Reading<'_>) -> Result<HttpRouteRule, FieldError> {
    let field = format!("spec.rules[{index}]");
    let matches = words.matches.into_iter().enumerate();
    let matches = matches.map(|(place, words)| read_match(words, &format!("{field}.matches[{place}]")));
    Ok(HttpRouteRule {
        index,
        name: words.name,
        matches: matches.collect::<Result<_, _>>()?,
        filters: route_filters::read(words.filters, &format!("{field}.filters"), true, reading)?,
        backends: read_backends(words.backend_refs, &format!("{field}.backendRefs"), true, reading)?,
        timeout: None,
        retry: RetryPolicy::default(),
    })
}

fn read_match(words: MatchWords, field: &str) -> Result<Match, FieldError> {
    let grpc = words.method.map(|method| read_method(method, &format!("{field}.method"))).transpose()?;
    Ok(Match { grpc, headers: read_headers(words.headers, &format!("{field}.headers"))?, ..Match::default() })
}

fn read_method(words: MethodWords, field: &str) -> Result<GrpcMatch, FieldError> {
    let asked = |value: Option<String>, part: &str| {
        let field = format!("{field}.{part}");
        value
            .map(|value| {
                match value.is_empty() || value.contains('/') && matches!(words.kind, TextType::Exact) {
                    true => Err(wrong(&field, format!("{value:?} is not the name of a {part}"))),
                    false => read_text(words.kind, value, &field),
                }
            })
            .transpose()
    };
    let grpc =
        GrpcMatch { service: asked(words.service, "service")?, method: asked(words.method, "method")? };
    if grpc == GrpcMatch::default() {
        return Err(wrong(field, "is empty; give service, method or both"));
    }
    Ok(grpc)
}
