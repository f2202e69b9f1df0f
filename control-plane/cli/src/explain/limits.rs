//! Time limits, retries, balancing and what limits requests to a backend, in words.

use std::time::Duration;

use humantime::format_duration;
use selvedge_model::{
    ConsistentHash, FailurePercentage, HashKey, HashTable, HealthCheck, HealthQuestion, Hedge, LoadBalancer,
    OutlierDetection, ProxyProtocol, RetryBudget, RetryOn, RetryPolicy, Rule, SessionCarrier,
    SessionPersistence, SuccessRate, TcpKeepalive, TrafficPolicy, Warmup,
};

use super::filters::percent;

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
    words.extend(rule.session.as_deref().map(session));
    words
}

fn session(session: &SessionPersistence) -> String {
    let carrier = match session.carrier {
        SessionCarrier::Header => "header",
        SessionCarrier::Cookie { .. } => "cookie",
    };
    format!("sessions: the {carrier} {} names the endpoint, for as long as that is there", session.name)
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
        balancer(&policy.load_balancer),
        format_duration(policy.connect_timeout)
    )];
    words.extend(policy.warmup.map(growing));
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
    words.extend(policy.connections.keepalive.map(keepalive));
    words.extend(policy.retry_budget.map(budget));
    words.extend(policy.hedge.map(hedged));
    words.extend(policy.proxy_protocol.map(|version| {
        let version = if version == ProxyProtocol::V1 { 1 } else { 2 };
        format!("endpoints without a sidecar are told the client by the PROXY protocol, version {version}")
    }));
    words.extend(policy.tunnel.as_ref().map(|tunnel| {
        let method = tunnel.method.word();
        format!("opaque connections go through the endpoint to {}, by {method}", tunnel.target)
    }));
    words.extend(policy.outlier_detection.as_ref().map(ejection));
    words.extend(policy.health_check.as_ref().map(checked));
    words
}

fn keepalive(keepalive: TcpKeepalive) -> String {
    let time = |name: &str, time: Option<Duration>| Some(format!("{name} {}", format_duration(time?)));
    let probes = keepalive.probes.map(|probes| format!("{probes} probes"));
    let said = [probes, time("time", keepalive.time), time("interval", keepalive.interval)];
    let said: Vec<String> = said.into_iter().flatten().collect();
    match said.is_empty() {
        true => "TCP keep-alive as the operating system has it".to_owned(),
        false => format!("TCP keep-alive: {}", said.join(", ")),
    }
}

fn hedged(hedge: Hedge) -> String {
    let after = match hedge {
        Hedge::Percentile(share) => {
            format!("the time of {} % of the route's answers", percent(share))
        }
        Hedge::After(time) => format_duration(time).to_string(),
    };
    format!(
        "hedging: an idempotent request without a body goes to a second endpoint, too, if the first has not answered after \
         {after}, and the retry budget allows it"
    )
}

fn budget(RetryBudget { share, at_once, interval, at_least, refuses }: RetryBudget) -> String {
    let of = interval
        .map_or_else(|| "in progress".to_owned(), |interval| format!("of {}", format_duration(interval)));
    let mut words = format!("retries: at most {} % of the requests {of}", percent(share));
    if at_least > 0 {
        words += &format!(", and {at_least} more");
    }
    if at_once > 0 || at_least == 0 {
        words += &format!(", or {at_once} at the same time");
    }
    words + if refuses { "; a request that would need another one is answered 503" } else { "" }
}

fn balancer(balancer: &LoadBalancer) -> String {
    let simple = match balancer {
        LoadBalancer::LeastRequest => "of two endpoints the one with fewer requests",
        LoadBalancer::RoundRobin => "each endpoint in turn",
        LoadBalancer::Random => "any endpoint",
        LoadBalancer::Passthrough => "the endpoint whose address the client dialled",
        LoadBalancer::PeakEwma => "of two endpoints the one that is expected to answer sooner",
        LoadBalancer::ConsistentHash(hash) => return hashed(hash),
    };
    simple.to_owned()
}

fn hashed(hash: &ConsistentHash) -> String {
    let key = match &hash.key {
        HashKey::Header(name) => format!("the header {name}"),
        HashKey::Cookie(cookie) => format!("the cookie {}", cookie.name),
        HashKey::SourceAddress => "the client's address".to_owned(),
        HashKey::Query(name) => format!("the query parameter {name}"),
    };
    let table = match hash.table {
        HashTable::Ring { minimum } => format!("ring of at least {minimum} points"),
        HashTable::Maglev { size } => format!("Maglev table of {size} places"),
    };
    let bound = hash.load_bound.map(|bound| format!(", none above {bound} % of the average load"));
    format!("the endpoint that {key} belongs to, by a {table}{}", bound.unwrap_or_default())
}

fn growing(warmup: Warmup) -> String {
    let least = percent(warmup.minimum);
    format!("the share of a new endpoint grows from {least} % for {}", format_duration(warmup.duration))
}

fn checked(check: &HealthCheck) -> String {
    let question = match &check.question {
        HealthQuestion::Http { path, .. } => format!("GET {path}"),
        HealthQuestion::Grpc { service, .. } if service.is_empty() => "the gRPC health check".to_owned(),
        HealthQuestion::Grpc { service, .. } => format!("the gRPC health check of {service}"),
        HealthQuestion::Tcp => "a TCP connection".to_owned(),
    };
    let question = match check.port {
        Some(port) => format!("{question} at port {port}"),
        None => question,
    };
    format!(
        "endpoints outside the mesh are checked by {question} every {}, within {}: {} failures in a row take one out, {} \
         successes bring it back",
        format_duration(check.interval),
        format_duration(check.timeout),
        check.unhealthy_threshold,
        check.healthy_threshold
    )
}

fn ejection(ejection: &OutlierDetection) -> String {
    let failures = ejection.consecutive_5xx.map(|most| format!("{most} failures in a row"));
    let gateway = ejection.consecutive_gateway_errors.map(|most| format!("{most} gateway failures in a row"));
    let unanswered = ejection.consecutive_local_origin_failures.filter(|most| *most > 0);
    let unanswered = unanswered.map(|most| format!("{most} attempts in a row without an answer"));
    let interval = format_duration(ejection.interval);
    let rate = ejection.success_rate.map(|SuccessRate { minimum_hosts, request_volume, stdev_factor }| {
        format!(
            "succeeding less often in {interval} than the mean of all endpoints minus {} standard deviations (where at \
             least {minimum_hosts} have {request_volume} requests)",
            f64::from(stdev_factor) / 1000.0
        )
    });
    let share = ejection.failure_percentage;
    let share = share.map(|FailurePercentage { threshold, minimum_hosts, request_volume }| {
        format!(
            "{threshold} % failures in {interval} (where at least {minimum_hosts} endpoints have {request_volume} requests)"
        )
    });
    let after: Vec<String> = [failures, gateway, unanswered, rate, share].into_iter().flatten().collect();
    if after.is_empty() {
        return "no endpoint is ejected: outlierDetection has turned everything off that would do it"
            .to_owned();
    }
    let unless = match ejection.min_health_percent {
        0 => String::new(),
        least => format!(", unless fewer than {least} % of the endpoints are left"),
    };
    let usual = OutlierDetection::default().max_ejection_time.max(ejection.base_ejection_time);
    let longest = (ejection.max_ejection_time != usual)
        .then(|| format!(", for {} at the longest", format_duration(ejection.max_ejection_time)));
    let jitter = match ejection.max_ejection_time_jitter {
        Duration::ZERO => String::new(),
        jitter => format!(", and for up to {} more", format_duration(jitter)),
    };
    format!(
        "an endpoint gets no requests for {} after {}{unless}{}{jitter}",
        format_duration(ejection.base_ejection_time),
        after.join(" or "),
        longest.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ejection_that_nothing_causes_is_none() {
        let off = OutlierDetection {
            consecutive_5xx: None,
            consecutive_gateway_errors: None,
            consecutive_local_origin_failures: None,
            success_rate: None,
            failure_percentage: None,
            ..OutlierDetection::default()
        };
        assert!(ejection(&off).starts_with("no endpoint is ejected"), "{}", ejection(&off));
        let on = OutlierDetection { consecutive_5xx: Some(3), ..off };
        assert!(ejection(&on).contains("after 3 failures in a row"), "{}", ejection(&on));
    }
}
