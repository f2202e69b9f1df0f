//! Time limits, retries, balancing and what limits requests to a backend, in words.

use std::time::Duration;

use humantime::format_duration;
use selvedge_model::{LoadBalancer, OutlierDetection, RetryOn, RetryPolicy, Rule, TrafficPolicy};

/// The time limits and retries of `rule`.
pub(super) fn of_rule(rule: &Rule) -> Vec<String> {
    let limit =
        |time: Option<Duration>, what: &str| time.map(|time| format!("{what}: {}", format_duration(time)));
    let mut words = Vec::new();
    words.push(
        limit(rule.timeout, "timeout, all attempts together").unwrap_or_else(|| "no timeout".to_owned()),
    );
    words.extend(limit(rule.stream.response, "timeout of the answer, from the end of the request"));
    words.extend(limit(rule.stream.idle, "timeout without a byte"));
    words.push(retries(&rule.retry));
    words
}

fn retries(policy: &RetryPolicy) -> String {
    let always = "what certainly never reached an app is tried again up to 2 times";
    if policy.attempts == 0 {
        return format!("no retries; {always}");
    }
    let each = policy.per_try_timeout.map(|time| format!(", {} for each attempt", format_duration(time)));
    format!(
        "retries: {}, on {}; pauses grow from {}{}; {always}",
        policy.attempts,
        conditions(&policy.on),
        format_duration(policy.backoff),
        each.unwrap_or_default()
    )
}

fn conditions(on: &RetryOn) -> String {
    let named = [
        (on.any_5xx, "5xx"),
        (on.gateway_error, "gateway-error"),
        (on.reset, "reset"),
        (on.reset_before_request, "reset-before-request"),
        (on.connect_failure, "connect-failure"),
        (on.retriable_4xx, "retriable-4xx"),
        (on.refused_stream, "refused-stream"),
        (on.per_try_timeout, "the time of an attempt running out"),
    ];
    let named = named.into_iter().filter(|(is_on, _)| *is_on).map(|(_, word)| word.to_owned());
    let codes = on.status_codes.iter().map(ToString::to_string);
    let grpc = on.grpc_statuses.iter().map(|status| format!("grpc-status {status}"));
    named.chain(codes).chain(grpc).collect::<Vec<_>>().join(", ")
}

/// How endpoints are picked by `policy`, and what limits requests to them.
pub(super) fn of_backend(policy: &TrafficPolicy) -> Vec<String> {
    let mut words = vec![format!(
        "balancer: {}; connect timeout {}",
        balancer(policy.load_balancer),
        format_duration(policy.connect_timeout)
    )];
    let pool = &policy.connection_pool;
    let refusing = [
        (policy.connections.max_connections, "connections; further requests wait for one of them"),
        (pool.max_pending_requests, "requests that wait for a connection; more are answered 503"),
        (pool.max_requests, "requests in progress; more are answered 503"),
        (pool.max_retries, "retries in progress; more are not made"),
        (pool.max_requests_per_connection, "requests on one connection"),
        (pool.max_concurrent_streams, "requests at the same time on one HTTP/2 connection"),
    ];
    words.extend(refusing.into_iter().filter_map(|(most, what)| Some(format!("at most {} {what}", most?))));
    words.extend(policy.outlier_detection.as_ref().map(ejection));
    words
}

fn balancer(balancer: LoadBalancer) -> &'static str {
    match balancer {
        LoadBalancer::LeastRequest => "of two endpoints the one with fewer requests",
        LoadBalancer::RoundRobin => "each endpoint in turn",
        LoadBalancer::Random => "any endpoint",
    }
}

fn ejection(ejection: &OutlierDetection) -> String {
    let failures = ejection.consecutive_5xx.map(|most| format!("{most} failures in a row"));
    let gateway = ejection.consecutive_gateway_errors.map(|most| format!("{most} gateway failures in a row"));
    let after: Vec<String> = failures.into_iter().chain(gateway).collect();
    format!(
        "an endpoint gets no requests for {} after {}",
        format_duration(ejection.base_ejection_time),
        after.join(" or ")
    )
}
