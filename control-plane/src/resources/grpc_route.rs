//! `GRPCRoute` (Gateway API) whose parents are `Service`s or `Gateway`s: which calls to them go where.
//!
//! What it means is the same as for an [`HTTPRoute`](super::http_route).

use selvedge_model::{GrpcMatch, Match};
use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    http_route::{
        HttpRouteRule, HttpRouteSpec, NamedYaml, TextType, read_backends, read_headers, read_hostnames,
        read_session, read_text, repeated,
    },
    kinds::{Feedback, GATEWAY, ResourceKind},
    linkerd::{self, Annotated, Calls},
    references::{ParentYaml, RoutedBackendYaml, read_http_parents},
    route_filters::{self, FilterYaml},
    session_persistence::SessionYaml,
    telemetry_annotations,
    typed::FieldError,
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("GRPCRoute", GATEWAY, "grpcroutes", Feedback::Parents)
        .with_annotations(&[linkerd::ANNOTATIONS, telemetry_annotations::OF_ROUTES])
        .read_as_spec::<Yaml>(|document| document.with_spec(read));

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    #[serde(default)]
    parent_refs: Vec<ParentYaml>,
    #[serde(default)]
    hostnames: Vec<String>,
    #[serde(default)]
    rules: Vec<RuleYaml>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleYaml {
    name: Option<String>,
    #[serde(default)]
    matches: Vec<MatchYaml>,
    #[serde(default)]
    filters: Vec<FilterYaml>,
    #[serde(default)]
    backend_refs: Vec<RoutedBackendYaml>,
    session_persistence: Option<SessionYaml>,
}

#[derive(Debug, Deserialize)]
struct MatchYaml {
    method: Option<MethodYaml>,
    #[serde(default)]
    headers: Vec<NamedYaml>,
}

#[derive(Debug, Deserialize)]
struct MethodYaml {
    #[serde(rename = "type", default)]
    kind: TextType,
    service: Option<String>,
    method: Option<String>,
}

fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<HttpRouteSpec, FieldError> {
    telemetry_annotations::check(reading, yaml.rules.len())?;
    let parents = read_http_parents(yaml.parent_refs, reading)?;
    let hostnames = read_hostnames(&yaml.hostnames, &parents, reading)?;
    let annotated = linkerd::read(reading, Calls::Grpc)?;
    let rules = yaml.rules.into_iter().enumerate();
    let rules = rules.map(|(index, rule)| read_rule(rule, index, &annotated));
    let rules: Vec<HttpRouteRule> = rules.collect::<Result<_, _>>()?;
    repeated::report(&rules, reading);
    Ok(HttpRouteSpec { is_grpc: true, parents, hostnames, rules })
}

fn read_rule(yaml: RuleYaml, index: usize, annotated: &Annotated) -> Result<HttpRouteRule, FieldError> {
    let field = format!("spec.rules[{index}]");
    let matches = yaml.matches.into_iter().enumerate();
    let matches = matches.map(|(place, yaml)| read_match(yaml, &format!("{field}.matches[{place}]")));
    let matches: Vec<Match> = matches.collect::<Result<_, _>>()?;
    Ok(HttpRouteRule {
        index,
        name: yaml.name,
        asks: repeated::asks_of(&matches),
        matches,
        filters: route_filters::read(yaml.filters, &format!("{field}.filters"), true)?,
        backends: read_backends(yaml.backend_refs, &format!("{field}.backendRefs"), true)?,
        timeouts: annotated.timeouts,
        retry: annotated.retry.clone(),
        session: read_session(yaml.session_persistence, &field)?,
    })
}

fn read_match(yaml: MatchYaml, field: &str) -> Result<Match, FieldError> {
    let grpc = yaml.method.map(|method| read_method(method, &format!("{field}.method"))).transpose()?;
    Ok(Match { grpc, headers: read_headers(yaml.headers, &format!("{field}.headers"))?, ..Match::default() })
}

fn read_method(yaml: MethodYaml, field: &str) -> Result<GrpcMatch, FieldError> {
    let asked = |value: Option<String>, part: &str| {
        let field = format!("{field}.{part}");
        value
            .map(|value| {
                match value.is_empty() || value.contains('/') && matches!(yaml.kind, TextType::Exact) {
                    true => Err(wrong(&field, format!("{value:?} is not the name of a {part}; correct it"))),
                    false => read_text(yaml.kind, value, &field),
                }
            })
            .transpose()
    };
    let grpc = GrpcMatch { service: asked(yaml.service, "service")?, method: asked(yaml.method, "method")? };
    if grpc == GrpcMatch::default() {
        return Err(wrong(field, "is empty; give service, method or both"));
    }
    Ok(grpc)
}
