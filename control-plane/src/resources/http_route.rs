//! `HTTPRoute` (Gateway API) whose parents are `Service`s or `Gateway`s: which requests to them go where.
//!
//! As GAMMA says (<https://gateway-api.sigs.k8s.io/mesh/>): a route in its service's namespace is for every
//! client, one in another namespace for the clients there. `GRPCRoute` means the same, and has [fields of
//! its own](super::grpc_route).

pub(super) mod repeated;

use selvedge_model::{
    HeaderField, Match, RetryOn, RetryPolicy, SessionPersistence, StringMatch, filter::OwnAnswer,
    gateway::Hostname,
};
use serde::Deserialize;

pub use self::repeated::Asks;
use super::{
    document::{Reading, wrong},
    kinds::{Feedback, GATEWAY, ResourceKind},
    linkerd::{self, Annotated, Calls, Timeouts},
    references::{BackendRef, HttpParents, ParentYaml, RoutedBackendYaml, read_http_parents},
    route_filters::{self, FilterYaml, RouteFilters},
    session_persistence::SessionYaml,
    telemetry_annotations,
    typed::FieldError,
    values::{GatewayDuration, full_regex, header_field, header_name, normalize_path},
};
use crate::problem::Fault;

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("HTTPRoute", GATEWAY, "httproutes", Feedback::Parents)
        .with_annotations(&[linkerd::ANNOTATIONS, telemetry_annotations::OF_ROUTES])
        .read_as_spec::<Yaml>(|document| document.with_spec(read));

/// What Linkerd's own `HTTPRoute` is called.
pub const LINKERDS: &str = "HTTPRoute.policy.linkerd.io";

/// Linkerd's own `HTTPRoute`, which is older than that of the Gateway API and means the same.
pub(super) const LINKERD: ResourceKind = ResourceKind::new(
    "HTTPRoute",
    &[
        "policy.linkerd.io/v1beta3",
        "policy.linkerd.io/v1beta2",
        "policy.linkerd.io/v1beta1",
        "policy.linkerd.io/v1alpha1",
    ],
    "httproutes",
    Feedback::Events,
)
.called(LINKERDS)
.with_annotations(&[linkerd::ANNOTATIONS, telemetry_annotations::OF_ROUTES])
.read_as_spec::<Yaml>(|document| document.with_spec(read));

/// What an `HTTPRoute` or `GRPCRoute` says.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRouteSpec {
    /// Whether it is a `GRPCRoute`.
    pub is_grpc: bool,
    /// Whose requests it is about.
    pub parents: HttpParents,
    /// The host names of requests to its gateways; empty: all that a listener is for.
    pub hostnames: Vec<Hostname>,
    /// Its rules, in order.
    pub rules: Vec<HttpRouteRule>,
}

/// One of `rules`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRouteRule {
    /// Its place in the document.
    pub index: usize,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Which requests; any of these.
    pub matches: Vec<Match>,
    /// What these ask for, one by one.
    pub asks: Vec<Asks>,
    /// Where they go.
    pub backends: Vec<HttpBackend>,
    /// What happens to them before a backend is drawn.
    pub filters: RouteFilters,
    /// How long requests may take; `None` = nothing is said of that.
    pub timeouts: Option<Timeouts>,
    /// When a failed attempt is followed by another; `None` = nothing is said of that.
    pub retry: Option<RetryPolicy>,
    /// What keeps sessions at their endpoints, without its key.
    pub session: Option<Box<SessionPersistence>>,
}

/// One of `backendRefs`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpBackend {
    /// The backend, and its weight.
    pub to: BackendRef,
    /// What happens to its share alone.
    pub filters: RouteFilters,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    #[serde(default)]
    parent_refs: Vec<ParentYaml>,
    #[serde(default)]
    hostnames: Vec<String>,
    rules: Option<Vec<RuleYaml>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleYaml {
    name: Option<String>,
    #[serde(default)]
    matches: Vec<MatchYaml>,
    #[serde(default)]
    filters: Vec<FilterYaml>,
    #[serde(default)]
    backend_refs: Vec<RoutedBackendYaml>,
    timeouts: Option<TimeoutYaml>,
    retry: Option<RetryYaml>,
    session_persistence: Option<SessionYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MatchYaml {
    path: Option<PathYaml>,
    #[serde(default)]
    headers: Vec<NamedYaml>,
    #[serde(default)]
    query_params: Vec<NamedYaml>,
    method: Option<MethodWord>,
}

#[derive(Debug, Deserialize)]
struct PathYaml {
    #[serde(rename = "type", default)]
    kind: PathType,
    value: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum PathType {
    Exact,
    #[default]
    PathPrefix,
    RegularExpression,
}

/// A match on a header or a query parameter.
#[derive(Debug, Deserialize)]
pub(super) struct NamedYaml {
    #[serde(rename = "type", default)]
    kind: TextType,
    name: String,
    value: String,
}

/// How a text is compared.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) enum TextType {
    #[default]
    Exact,
    RegularExpression,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum MethodWord {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TimeoutYaml {
    request: Option<GatewayDuration>,
    backend_request: Option<GatewayDuration>,
}

#[derive(Debug, Deserialize)]
struct RetryYaml {
    #[serde(default)]
    codes: Vec<u16>,
    attempts: Option<u32>,
    backoff: Option<GatewayDuration>,
}

fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<HttpRouteSpec, FieldError> {
    telemetry_annotations::check(reading, yaml.rules.as_ref().map_or(1, Vec::len))?;
    let parents = read_http_parents(yaml.parent_refs, reading)?;
    let hostnames = read_hostnames(&yaml.hostnames, &parents, reading)?;
    let annotated = linkerd::read(reading, Calls::Http)?;
    let rules = yaml.rules.unwrap_or_else(|| vec![RuleYaml::default()]);
    let rules =
        rules.into_iter().enumerate().map(|(index, rule)| read_rule(rule, index, &annotated, reading));
    let rules: Vec<HttpRouteRule> = rules.collect::<Result<_, _>>()?;
    repeated::report(&rules, reading);
    Ok(HttpRouteSpec { is_grpc: false, parents, hostnames, rules })
}

/// The host names of a route. For a service they say nothing, whatever the host that a client names: it is told by the
/// address that is called (GEP-1294).
pub(super) fn read_hostnames(
    hostnames: &[String],
    parents: &HttpParents,
    reading: &mut Reading<'_>,
) -> Result<Vec<Hostname>, FieldError> {
    if parents.gateways.is_empty() {
        if !hostnames.is_empty() && !parents.services.is_empty() {
            let message = "is not acted on: for a Service, its address decides, not the host; remove it";
            reading.not_acted_on("spec.hostnames", message);
        }
        return Ok(Vec::new());
    }
    let read = |(index, text): (usize, &String)| match text.parse() {
        Ok(Hostname::Any) | Err(_) => {
            let message = format!(
                "{text:?} is no host name; write a DNS name such as shop.example.com, or *.example.com for all names \
                 below it"
            );
            Err(wrong(format!("spec.hostnames[{index}]"), message))
        }
        Ok(hostname) => Ok(hostname),
    };
    hostnames.iter().enumerate().map(read).collect()
}

fn read_rule(
    yaml: RuleYaml,
    index: usize,
    annotated: &Annotated,
    reading: &mut Reading<'_>,
) -> Result<HttpRouteRule, FieldError> {
    let field = format!("spec.rules[{index}]");
    let mut asked = yaml.matches;
    if asked.is_empty() {
        asked.push(MatchYaml::default());
    }
    let matches = asked.into_iter().enumerate();
    let matches = matches.map(|(place, yaml)| read_match(yaml, &format!("{field}.matches[{place}]")));
    let matches: Vec<Match> = matches.collect::<Result<_, _>>()?;
    let filters = route_filters::read(yaml.filters, &format!("{field}.filters"), false)?;
    let backends = read_backends(yaml.backend_refs, &format!("{field}.backendRefs"), false)?;
    let mut all_filters = std::iter::once(&filters).chain(backends.iter().map(|backend| &backend.filters));
    if all_filters.any(RouteFilters::replaces_prefix)
        && !matches!(matches.as_slice(), [Match { path: Some(StringMatch::PathPrefix(_)), .. }])
    {
        let message =
            "has a filter with replacePrefixMatch, which needs exactly one match, of type PathPrefix";
        return Err(wrong(format!("{field}.matches"), message));
    }
    if let Some(OwnAnswer::Redirect(_)) = filters.filters.answer {
        if !backends.is_empty() {
            let message = "stands beside backendRefs, and nothing is sent on where requests are redirected; remove one of them";
            let beside = wrong(format!("{field}.filters"), format!("has RequestRedirect, which {message}"));
            return Err(FieldError { fault: Fault::IncompatibleFilters, ..beside });
        }
        for (name, is_given) in [
            ("filters", filters.changes_what_is_sent()),
            ("timeouts", yaml.timeouts.is_some()),
            ("retry", yaml.retry.is_some()),
            ("sessionPersistence", yaml.session_persistence.is_some()),
        ] {
            if is_given {
                let what = match name {
                    "filters" => "has RequestHeaderModifier or RequestMirror, which have no effect",
                    _ => "has no effect",
                };
                let message =
                    format!("{what} beside RequestRedirect, because nothing is sent on; remove one of them");
                reading.warning(format!("{field}.{name}"), message);
            }
        }
    }
    let (timeouts, retry) = read_times(yaml.timeouts, yaml.retry, annotated, &field)?;
    let session = read_session(yaml.session_persistence, &field)?;
    let asks = repeated::asks_of(&matches);
    Ok(HttpRouteRule { index, name: yaml.name, matches, asks, backends, filters, timeouts, retry, session })
}

/// The sessions of the rule at `field`.
pub(super) fn read_session(
    yaml: Option<SessionYaml>,
    field: &str,
) -> Result<Option<Box<SessionPersistence>>, FieldError> {
    let read = |yaml: SessionYaml| yaml.read(&format!("{field}.sessionPersistence")).map(Box::new);
    yaml.map(read).transpose()
}

/// The backends of a rule; `list` is their field.
pub(super) fn read_backends(
    yaml: Vec<RoutedBackendYaml>,
    list: &str,
    for_grpc: bool,
) -> Result<Vec<HttpBackend>, FieldError> {
    let read = |(index, yaml): (usize, RoutedBackendYaml)| {
        let field = format!("{list}[{index}]");
        let (to, filters) = yaml.read(&field, index)?;
        let filters = route_filters::read(filters, &format!("{field}.filters"), for_grpc)?;
        Ok(HttpBackend { to, filters })
    };
    yaml.into_iter().enumerate().map(read).collect()
}

fn read_match(yaml: MatchYaml, field: &str) -> Result<Match, FieldError> {
    Ok(Match {
        path: Some(read_path(yaml.path, &format!("{field}.path"))?),
        method: yaml.method.map(|method| StringMatch::Exact(format!("{method:?}").to_ascii_uppercase())),
        headers: read_headers(yaml.headers, &format!("{field}.headers"))?,
        query: read_query(yaml.query_params, &format!("{field}.queryParams"))?,
        ..Match::default()
    })
}

fn read_path(yaml: Option<PathYaml>, field: &str) -> Result<StringMatch, FieldError> {
    let (kind, value) = yaml.map_or((PathType::PathPrefix, None), |yaml| (yaml.kind, yaml.value));
    let value = value.unwrap_or_else(|| "/".to_owned());
    let field = format!("{field}.value");
    if kind == PathType::RegularExpression {
        return full_regex(&value, &field).map(StringMatch::Regex);
    }
    if !value.starts_with('/') {
        return Err(wrong(field, format!("{value:?} is not a path; begin it with /")));
    }
    let never = ["//", "/./", "/../", "%2f", "%2F", "#"].into_iter().find(|part| value.contains(part));
    let at_the_end = || ["/.", "/.."].into_iter().find(|end| value.ends_with(end));
    if let Some(part) = never.or_else(at_the_end) {
        return Err(wrong(field, format!("{value:?} holds {part:?}, which no path has; remove it")));
    }
    let exact = kind == PathType::Exact;
    let mut asks =
        if exact { StringMatch::Exact(value.clone()) } else { StringMatch::PathPrefix(value.clone()) };
    let normalized = normalize_path(&mut asks);
    normalized
        .map_err(|why| wrong(field, format!("{value:?} matches no request: {why}; write it otherwise")))?;
    Ok(asks)
}

/// Of several entries of one name, the first counts (HTTPRoute `matches.headers`).
pub(super) fn read_headers(
    yaml: Vec<NamedYaml>,
    list: &str,
) -> Result<Vec<(HeaderField, StringMatch)>, FieldError> {
    let mut headers: Vec<(HeaderField, StringMatch)> = Vec::new();
    for (index, yaml) in yaml.into_iter().enumerate() {
        let field = format!("{list}[{index}]");
        header_name(&yaml.name, &format!("{field}.name"))?;
        let name = header_field(&yaml.name, &format!("{field}.name"))?;
        let wanted = read_text(yaml.kind, yaml.value, &format!("{field}.value"))?;
        if !headers.iter().any(|(other, _)| *other == name) {
            headers.push((name, wanted));
        }
    }
    Ok(headers)
}

/// Of several entries of one name, the first counts (HTTPRoute `matches.queryParams`).
fn read_query(yaml: Vec<NamedYaml>, list: &str) -> Result<Vec<(String, StringMatch)>, FieldError> {
    let mut query: Vec<(String, StringMatch)> = Vec::new();
    for (index, yaml) in yaml.into_iter().enumerate() {
        let field = format!("{list}[{index}]");
        if yaml.name.is_empty() {
            return Err(wrong(format!("{field}.name"), "is empty; name a query parameter"));
        }
        let wanted = read_text(yaml.kind, yaml.value, &format!("{field}.value"))?;
        if !query.iter().any(|(other, _)| *other == yaml.name) {
            query.push((yaml.name, wanted));
        }
    }
    Ok(query)
}

/// What is asked of a text.
pub(super) fn read_text(kind: TextType, value: String, field: &str) -> Result<StringMatch, FieldError> {
    match kind {
        TextType::Exact => Ok(StringMatch::Exact(value)),
        TextType::RegularExpression => full_regex(&value, field).map(StringMatch::Regex),
    }
}

/// `timeouts` and `retry`, and the annotations that go before them. As in Istio, `backendRequest` is the time of each
/// attempt if the rule says how to try again, and otherwise of the whole request. An attempt that takes longer is tried again
/// (GEP-1731).
fn read_times(
    timeouts: Option<TimeoutYaml>,
    retry: Option<RetryYaml>,
    annotated: &Annotated,
    field: &str,
) -> Result<(Option<Timeouts>, Option<RetryPolicy>), FieldError> {
    let given = |time: Option<GatewayDuration>| time.map(|time| time.0).filter(|time| !time.is_zero());
    let any_said = timeouts.is_some() || annotated.timeouts.is_some();
    let (request, backend_request) =
        timeouts.map_or((None, None), |yaml| (given(yaml.request), given(yaml.backend_request)));
    if let (Some(request), Some(attempt)) = (request, backend_request)
        && attempt > request
    {
        let message = format!("is longer than the {request:?} of timeouts.request; make it shorter");
        return Err(wrong(format!("{field}.timeouts.backendRequest"), message));
    }
    let retry = retry.map(|retry| read_retry(retry, &format!("{field}.retry"))).transpose()?;
    let mut retry = annotated.retry.clone().or(retry);
    let request = match &mut retry {
        None => backend_request.or(request),
        Some(retry) => {
            if let (None, Some(attempt)) = (retry.per_try_timeout, backend_request) {
                retry.per_try_timeout = Some(attempt);
                retry.on.per_try_timeout = true;
            }
            request
        }
    };
    let timeouts = annotated.timeouts.unwrap_or_default();
    let timeouts = Timeouts { request: timeouts.request.or(request), ..timeouts };
    Ok((any_said.then_some(timeouts), retry))
}

/// HTTPRoute `retry`: besides its `codes`, failures of the connection are tried again, as Istio does.
fn read_retry(yaml: RetryYaml, field: &str) -> Result<RetryPolicy, FieldError> {
    let mut codes = yaml.codes;
    if let Some(code) = codes.iter().find(|code| !(400..=599).contains(*code)) {
        let message = format!("{code} is not the status of a failure; use 400 to 599");
        return Err(wrong(format!("{field}.codes"), message));
    }
    codes.sort_unstable();
    codes.dedup();
    let default = RetryPolicy::default();
    let backoff = yaml.backoff.map_or(default.backoff, |backoff| backoff.0);
    if backoff.is_zero() {
        return Err(wrong(format!("{field}.backoff"), "is 0; write for example 25ms"));
    }
    let attempts = yaml.attempts.unwrap_or(default.attempts);
    let on = RetryOn { status_codes: codes, ..RetryOn::istio_default() };
    Ok(RetryPolicy { attempts, on, backoff, ..default })
}

#[cfg(test)]
mod tests;
