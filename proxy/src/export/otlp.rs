//! Requests in the words of OpenTelemetry's conventions.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use selvedge_api::otlp::{
    logs::v1::LogRecord,
    trace::v1::{
        AnyValue, KeyValue, Scope, Span, Status, any_value::Value, span::SpanKind, status::StatusCode,
    },
};
use selvedge_model::{SpiffeId, Workload, WorkloadName, traffic};

use crate::{
    arrival::Direction,
    error::Reason,
    telemetry::{Finished, trace::AttemptSpan},
};

pub(super) use selvedge_api::otlp::trace::v1::Resource;

/// The version of the conventions.
pub(super) const SCHEMA: &str = "https://opentelemetry.io/schemas/1.34.0";

/// Labels that name a service, the first that is there; Istio's `canonical-name` among them.
const NAMES: [&str; 4] =
    ["service.istio.io/canonical-name", "app.kubernetes.io/instance", "app.kubernetes.io/name", "app"];
/// Labels that name its version.
const VERSIONS: [&str; 3] = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];

/// The methods that the conventions know; others are `_OTHER`.
const METHODS: [&str; 10] =
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"];

/// How a call ends whose method its server does not have (gRPC, status codes).
const UNIMPLEMENTED: u8 = 12;

/// How calls ended that count as errors of the server (OpenTelemetry, gRPC conventions).
const SERVER_ERRORS: [u8; 6] = [2, 4, 12, 13, 14, 15];

/// Who says it.
pub(super) fn scope() -> Scope {
    Scope { name: "selvedge-proxy".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}

/// Whom it is said of. `own`: what is known of the workload.
pub(super) fn resource(workload: &WorkloadName, own: Option<&Workload>) -> Resource {
    let label = |names: &[&str]| {
        let labels = &own?.labels;
        names.iter().find_map(|name| labels.get(*name)).cloned()
    };
    let mut attributes = Attributes::default();
    attributes.text("service.name", &label(&NAMES).unwrap_or_else(|| workload.name().to_owned()));
    attributes.text("service.namespace", workload.namespace());
    attributes.text("service.instance.id", &workload.to_string());
    if let Some(version) = label(&VERSIONS) {
        attributes.text("service.version", &version);
    }
    attributes.text("k8s.namespace.name", workload.namespace());
    attributes.text("selvedge.workload", &workload.to_string());
    Resource { attributes: attributes.0 }
}

/// The spans of a request: its own, and one for each attempt. None if it is not sampled.
pub(super) fn spans(finished: &Finished) -> Vec<Span> {
    let Some(trace) = finished.trace() else { return Vec::new() };
    let began = nanos(finished.began);
    let ended = began.saturating_add(u64::try_from(finished.duration.as_nanos()).unwrap_or(u64::MAX));
    let blank = Span {
        trace_id: trace.id.to_vec(),
        trace_state: trace.state.clone().unwrap_or_default(),
        flags: 1,
        ..Span::default()
    };
    let kind = match finished.direction {
        Direction::Inbound => SpanKind::Server,
        // A gateway is a server to those who are outside; a sidecar only stands in the way of its app's call.
        Direction::Outbound if finished.at_gateway => SpanKind::Server,
        Direction::Outbound => SpanKind::Internal,
    };
    let own = Span {
        span_id: trace.span.to_vec(),
        parent_span_id: trace.parent.map(Vec::from).unwrap_or_default(),
        name: name(finished),
        kind: kind.into(),
        start_time_unix_nano: began,
        end_time_unix_nano: ended,
        attributes: of_request(finished, kind),
        status: status(
            finished.status,
            finished.grpc_status,
            finished.reason,
            kind,
            finished.error.as_deref(),
        ),
        ..blank.clone()
    };
    let mut spans = vec![own];
    let attempts = trace.attempts();
    // The one whose answer the client was given; if there is none, the one that was over last.
    let lasts = attempts.iter().map(|attempt| (attempt.ended.is_none(), attempt.answered.or(attempt.ended)));
    let last = lasts.enumerate().max_by_key(|(_, until)| *until).map(|(number, _)| number);
    for (number, attempt) in attempts.iter().enumerate() {
        let is_last = Some(number) == last;
        let at = |moment: Instant| {
            let since = moment.saturating_duration_since(finished.came);
            began.saturating_add(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)).min(ended)
        };
        let begin = at(attempt.began);
        // What the call as a whole came to is also what its last attempt came to.
        let grpc_status = finished.grpc_status.filter(|_| is_last && attempt.status.is_some());
        let reason = attempt.reason.or(finished.reason.filter(|_| is_last));
        spans.push(Span {
            span_id: attempt.id.to_vec(),
            parent_span_id: trace.span.to_vec(),
            name: name(finished),
            kind: SpanKind::Client.into(),
            start_time_unix_nano: begin,
            end_time_unix_nano: attempt.ended.map_or(ended, at).max(begin),
            attributes: of_attempt(finished, attempt, number, grpc_status, reason),
            status: status(attempt.status, grpc_status, reason, SpanKind::Client, None),
            ..blank.clone()
        });
    }
    spans
}

/// The line of the access log about a request.
pub(super) fn line(finished: &Finished) -> LogRecord {
    let began = nanos(finished.began);
    let mut attributes = Attributes(of_request(finished, SpanKind::Server));
    attributes.text("selvedge.direction", finished.direction.word());
    attributes
        .number("selvedge.duration_us", u64::try_from(finished.duration.as_micros()).unwrap_or(u64::MAX));
    attributes.number("http.response.body.size", finished.sent);
    if let Some(id) = finished.request_id() {
        attributes.text("http.request.header.x-request-id", id);
    }
    if let Some(error) = &finished.error {
        attributes.text("error.message", error);
    }
    let status = finished.status.unwrap_or_default();
    let body = format!("{} {} {} {status}", finished.method(), finished.authority(), finished.path());
    let is_failed = finished.reason.is_some() || status >= 500;
    let trace = finished.trace();
    LogRecord {
        time_unix_nano: began,
        observed_time_unix_nano: nanos(SystemTime::now()),
        severity_number: if is_failed { 17 } else { 9 },
        severity_text: if is_failed { "ERROR" } else { "INFO" }.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(body)) }),
        attributes: attributes.0,
        flags: trace.is_some().into(),
        trace_id: trace
            .map(|trace| trace.id.to_vec())
            .or_else(|| bytes(finished.trace_id()?))
            .unwrap_or_default(),
        span_id: trace.map(|trace| trace.span.to_vec()).unwrap_or_default(),
    }
}

/// `text`, which is hexadecimal, as bytes.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let byte = |place: usize| u8::from_str_radix(text.get(place..place + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What a span is called: nothing that a client can make up any number of. So a method of gRPC names it only if a server that knows
/// the method has answered.
fn name(finished: &Finished) -> String {
    let is_known =
        finished.reason.is_none() && finished.grpc_status.is_some_and(|status| status != UNIMPLEMENTED);
    if finished.is_grpc() && is_known {
        return finished.path().trim_start_matches('/').to_owned();
    }
    let method = method(finished).unwrap_or("HTTP");
    match finished.service() {
        Some((host, port)) => format!("{method} {host}:{port}"),
        None => method.to_owned(),
    }
}

fn method(finished: &Finished) -> Option<&'static str> {
    METHODS.iter().find(|known| **known == finished.method()).copied()
}

#[derive(Debug, Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn put(&mut self, key: &str, value: Value) {
        self.0.push(KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) });
    }

    fn text(&mut self, key: &str, text: &str) {
        self.put(key, Value::StringValue(text.to_owned()));
    }

    fn number(&mut self, key: &str, number: u64) {
        self.put(key, Value::IntValue(i64::try_from(number).unwrap_or(i64::MAX)));
    }
}

/// What a request and each of its attempts have in common.
fn of_both(finished: &Finished) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.text("http.request.method", method(finished).unwrap_or("_OTHER"));
    if method(finished).is_none() && !finished.method().is_empty() {
        attributes.text("http.request.method_original", finished.method());
    }
    let (host, port) = match finished.authority().rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => (host, port.parse().ok()),
        _ => (finished.authority(), None),
    };
    attributes.text("server.address", host.trim_start_matches('[').trim_end_matches(']'));
    if let Some(port) = port {
        attributes.number("server.port", port);
    }
    if finished.is_grpc() {
        attributes.text("rpc.system", "grpc");
        if let Some((service, method)) = finished.path().trim_start_matches('/').rsplit_once('/') {
            attributes.text("rpc.service", service);
            attributes.text("rpc.method", method);
        }
    }
    if let Some(route) = finished.place().and_then(|place| place.route.as_deref()) {
        attributes.text("selvedge.route", route);
    }
    attributes
}

fn of_request(finished: &Finished, kind: SpanKind) -> Vec<KeyValue> {
    let mut attributes = of_both(finished);
    attributes.text("url.path", finished.path());
    attributes.text("url.scheme", if finished.at_gateway && finished.is_tls { "https" } else { "http" });
    attributes.text("network.protocol.name", "http");
    attributes.text("network.protocol.version", if finished.is_http2 { "2" } else { "1.1" });
    attributes.text("client.address", &finished.peer.ip().to_string());
    attributes.number("client.port", finished.peer.port().into());
    if let Some(agent) = finished.user_agent() {
        attributes.text("user_agent.original", agent);
    }
    if let Some(identity) = finished.identity.as_ref().map(SpiffeId::as_str) {
        attributes.text("selvedge.client.identity", identity);
    }
    if finished.retries > 0 {
        attributes.number("selvedge.retries", finished.retries.into());
    }
    outcome(&mut attributes, finished.status, finished.grpc_status, finished.reason, kind);
    for (name, value) in finished.tags() {
        attributes.text(name, value);
    }
    attributes.0
}

fn of_attempt(
    finished: &Finished,
    attempt: &AttemptSpan,
    number: usize,
    grpc_status: Option<u8>,
    reason: Option<Reason>,
) -> Vec<KeyValue> {
    let mut attributes = of_both(finished);
    let (authority, path) = (finished.authority(), finished.path());
    attributes.text("url.full", &format!("http://{authority}{path}"));
    attributes.text("network.peer.address", &attempt.endpoint.ip().to_string());
    attributes.number("network.peer.port", attempt.endpoint.port().into());
    if let Some(workload) = &attempt.workload {
        attributes.text("selvedge.server.workload", &workload.to_string());
    }
    if number > 0 {
        attributes.number("http.request.resend_count", number as u64);
    }
    outcome(&mut attributes, attempt.status, grpc_status, reason, SpanKind::Client);
    for (name, value) in finished.tags() {
        attributes.text(name, value);
    }
    attributes.0
}

fn outcome(
    attributes: &mut Attributes,
    status: Option<u16>,
    grpc_status: Option<u8>,
    reason: Option<Reason>,
    kind: SpanKind,
) {
    if let Some(status) = status {
        attributes.number("http.response.status_code", status.into());
    }
    if let Some(status) = grpc_status {
        attributes.number("rpc.grpc.status_code", status.into());
    }
    if let Some(reason) = reason {
        attributes.text("selvedge.reason", reason.word());
    }
    if is_error(status, grpc_status, reason, kind) {
        let of_status = || status.filter(|status| *status >= 400).map(|status| status.to_string());
        let of_grpc = || grpc_status.map(|status| status.to_string());
        let kind = reason.map(|reason| reason.word().to_owned()).or_else(of_status).or_else(of_grpc);
        attributes.text("error.type", &kind.unwrap_or_else(|| "_OTHER".to_owned()));
    }
}

/// Whether the conventions call it an error.
fn is_error(status: Option<u16>, grpc_status: Option<u8>, reason: Option<Reason>, kind: SpanKind) -> bool {
    let is_client = kind == SpanKind::Client;
    let by_status = match status {
        None => true,
        Some(status) => status >= if is_client { 400 } else { 500 },
    };
    let by_grpc = grpc_status
        .is_some_and(|status| if is_client { status != 0 } else { SERVER_ERRORS.contains(&status) });
    // An answer of the mesh's own that blames the client is no error of the server's.
    let is_cut_off = reason
        .is_some_and(|reason| reason == Reason::Canceled || traffic::BROKEN_OFF.contains(&reason.word()));
    by_status || by_grpc || is_cut_off
}

fn status(
    status: Option<u16>,
    grpc_status: Option<u8>,
    reason: Option<Reason>,
    kind: SpanKind,
    error: Option<&str>,
) -> Option<Status> {
    if !is_error(status, grpc_status, reason, kind) {
        return None;
    }
    let words = error.map(str::to_owned).or_else(|| reason.map(|reason| reason.word().to_owned()));
    Some(Status { code: StatusCode::Error.into(), message: words.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_called_after_a_method_of_grpc_only_if_a_server_knows_it() {
        let request = http::Request::post("/shop.Cart/Add").header("content-type", "application/grpc");
        let request = request.body(()).expect("a request");
        let named = |grpc_status: Option<u8>, reason: Option<Reason>| {
            let mut finished = Finished::of(&request);
            (finished.grpc_status, finished.reason) = (grpc_status, reason);
            name(&finished)
        };

        assert_eq!(named(Some(0), None), "shop.Cart/Add");
        assert_eq!(named(Some(13), None), "shop.Cart/Add");
        assert_eq!(named(Some(UNIMPLEMENTED), None), "POST");
        assert_eq!(named(Some(14), Some(Reason::NoEndpoint)), "POST");
        assert_eq!(named(None, None), "POST");
    }
}
