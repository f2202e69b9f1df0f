//! The text of `/metrics`, and what bounds it.

use std::{collections::HashSet, time::Duration};

use proptest::prelude::*;
use selvedge_model::{Locality, policy::Says};

use super::{
    super::{
        measured::{Measure, TIMES_MS},
        method::Method,
        registered::TURNED_AWAY,
        series::Ended,
    },
    *,
};
use crate::budget::{Action, Concurrency, Side};

const FIVE_MS: Duration = Duration::from_millis(5);

fn frontend() -> WorkloadName {
    WorkloadName::new("default", "frontend-1").expect("a valid name")
}

fn reviews() -> ServiceKey {
    ServiceKey::new("reviews.default.svc.cluster.local", 9080)
}

fn to_v2() -> Labels {
    Labels {
        route: "canary".into(),
        destination_subset: "v2".into(),
        mtls: true,
        ..Labels::outbound(&frontend(), &reviews())
    }
}

/// The lines that begin so.
fn lines<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(start)).collect()
}

#[test]
fn the_text_is_what_dashboards_rely_on() {
    let metrics = Arc::new(Metrics::of(&frontend(), 2, MetricsCompat::Istio));
    let series = metrics.series(&to_v2());
    let measure = Measure { time: FIVE_MS, received: 20, sent: 3_000, trace: None };
    let method = Some(Method::of(&http::Method::GET));
    series.ended(0, &Ended { status: Some(200), method, measure, ..Ended::default() });
    series.record(1, Some(200), None, None, 3 * FIVE_MS);
    series.record(1, Some(503), None, Some(Reason::NoEndpoint), FIVE_MS);
    series.record(0, Some(200), Some(14), None, Duration::from_secs(60));
    series.record(0, None, None, None, FIVE_MS);
    let peer: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("a valid identity");
    metrics.inbound(&frontend(), 8080, Some(&peer), None).record(0, Some(404), None, None, FIVE_MS);
    let unknown = [metrics.unknown_destination(&frontend()), metrics.unknown_source(&frontend())];
    unknown[0].series().record(0, Some(502), None, Some(Reason::RegistryOnly), FIVE_MS);
    unknown[1].series().record(0, Some(400), None, Some(Reason::BadRequest), FIVE_MS);
    let _open = metrics.connection_opened(Direction::Outbound, true);
    drop(metrics.connection_opened(Direction::Inbound, false));
    metrics.connection_refused(Direction::Inbound, true, Reason::Tls);
    let tcp = metrics.tcp(&to_v2());
    tcp.opened(0);
    tcp.opened(1);
    tcp.closed(0, None);
    tcp.closed(1, Some(Reason::Policy));
    tcp.refused(1, Reason::Overflow);
    tcp.received(0).expect("a worker").store(70_000, Ordering::Relaxed);
    tcp.sent(1).expect("a worker").store(5, Ordering::Relaxed);
    let websockets = metrics.websockets(&series);
    websockets.opened(0);
    websockets.opened(1);
    websockets.closed(1, Some(Reason::Timeout));
    websockets.received(0).expect("a worker").store(4, Ordering::Relaxed);
    metrics.mirrored(&to_v2()).record(1, Some(500), None, None, FIVE_MS);
    let v2 = BackendName { service: reviews(), subset: Some("v2".into()) };
    metrics.mirror_dropped(&v2, Dropped::Behind, 0);
    metrics.connection_cut(Direction::Inbound, Reason::Policy);
    metrics.retries(&reviews(), 0);
    metrics.retries(&reviews(), 1);
    metrics.hedges(&reviews(), 1);
    metrics.retry_budget_exhausted(&reviews(), 0);
    metrics.ejections(&BackendName { service: reviews(), subset: Some("v1".into()) }, 0);
    metrics.overflow(&BackendName { service: reviews(), subset: None }, Limit::Pending, 0);
    metrics.policy_decision(&Arc::from("AuthorizationPolicy shop/web rule 1"), Decision::Deny, 0);
    metrics.policy_decision(&Arc::from("AuthorizationPolicy shop/web rule 1"), Decision::Deny, 1);
    metrics.policy_decision(&Arc::from("AuthorizationPolicy shop/new"), Decision::Note(Says::WouldDeny), 1);
    metrics.egress_denied(&Arc::from("NetworkPolicy shop/web"), 0);
    let budget = Arc::new(Budget::new(1000));
    budget.add(70);
    budget.acted(Action::ForgottenBody);
    budget.flooded(Side::Client);
    metrics.watch(&budget, Some(&Arc::new(Concurrency::new(100, Duration::from_secs(60)))));
    metrics.set_certificate_expiry(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let shown = ("shop/tls".to_owned(), UNIX_EPOCH + Duration::from_secs(1_900_000_000));
    metrics.set_gateway_certificates(std::iter::once(shown));
    metrics.set_configuration_version("3f2a", UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    metrics.control.certificates_obtained.inc();
    metrics.control.certificate_failures.inc_by(2);
    metrics.control.svids_used.inc_by(5);
    metrics.control.workload_api_failures.inc_by(6);
    metrics.control.workload_api_connected.set(1);
    metrics.control.applied.inc_by(3);
    metrics.control.refused.inc_by(4);
    metrics.control.connected.set(1);

    let zone = Some(Locality::of("eu/a"));
    let first = GroupHealth { backend: v2, place: 0, locality: zone, endpoints: 4, healthy: 2, share: 0.7 };
    let other =
        GroupHealth { place: 1, locality: None, endpoints: 1, healthy: 1, share: 0.3, ..first.clone() };
    let text = metrics.render(vec![first, other]).replace(selvedge_ops::build::VERSION, "VERSION");
    assert_eq!(text, include_str!("expected.txt"));
}

#[test]
fn nothing_counted_is_valid_too() {
    let text = Arc::new(Metrics::new(1)).render(Vec::new());

    assert_is_openmetrics(&text);
    let told = lines(&text, "selvedge_").into_iter();
    let always = ["selvedge_series", "selvedge_build_info", "selvedge_event_loop_lag_seconds"];
    let told: Vec<&str> = told.filter(|line| !always.iter().any(|name| line.starts_with(name))).collect();
    assert_eq!(
        told,
        [
            "selvedge_certificates_obtained_total 0",
            "selvedge_certificate_failures_total 0",
            "selvedge_workload_api_svids_total 0",
            "selvedge_workload_api_failures_total 0",
            "selvedge_configuration_transactions_applied_total 0",
            "selvedge_configuration_transactions_refused_total 0",
            "selvedge_dns_lookups_failed_total 0",
            "selvedge_outbound_health_checks_total 0",
            "selvedge_outbound_health_checks_failed_total 0",
            "selvedge_gateway_listen_failures_total 0",
            "selvedge_gateway_client_limit_refusals_total 0",
            "selvedge_gateway_client_rate_refusals_total 0",
            "selvedge_control_plane_connected 0",
            "selvedge_workload_api_connected 0",
            "selvedge_dns_names 0",
            "selvedge_dns_names_failing 0",
            "selvedge_outbound_endpoints_checked 0",
            "selvedge_outbound_endpoints_unhealthy 0",
            "selvedge_outbound_endpoints_out 0",
            "selvedge_inbound_requests_in_progress 0",
            "selvedge_inbound_connections_open 0",
            "selvedge_outbound_requests_in_progress 0",
            "selvedge_outbound_connections_open 0",
            "selvedge_access_log_lines_lost_total 0",
            "selvedge_access_log_lines_sent_total 0",
            "selvedge_trace_spans_sent_total 0",
            "selvedge_trace_spans_lost_total 0",
        ]
    );
}

#[test]
fn equal_labels_are_one_series() {
    let metrics = Metrics::new(1);

    assert!(Arc::ptr_eq(&metrics.series(&to_v2()), &metrics.series(&to_v2())));
    let plain = metrics.series(&Labels { mtls: false, ..to_v2() });
    assert!(!Arc::ptr_eq(&metrics.series(&to_v2()), &plain));
}

#[test]
fn series_beyond_the_limit_are_counted_together() {
    let metrics = Arc::new(Metrics::with_limit(1, 3, MetricsCompat::None));
    let held: Vec<Arc<Series>> = (0..10)
        .map(|route| metrics.series(&Labels { route: format!("route-{route}").into(), ..to_v2() }))
        .collect();
    held.iter().for_each(|series| series.record(0, Some(200), None, None, FIVE_MS));

    let text = metrics.render(Vec::new());
    assert_is_openmetrics(&text);
    let requests = lines(&text, "selvedge_outbound_requests_total");
    assert_eq!(requests.len(), 4);
    let overflow = r#"selvedge_outbound_requests_total{overflow="true",http_response_status_code="200"} 7"#;
    assert!(requests.contains(&overflow), "{requests:?}");
    let durations = lines(&text, "selvedge_outbound_request_duration_seconds_count");
    assert_eq!(durations.len(), 4);
    assert!(durations.iter().any(|line| line.ends_with(r#"{overflow="true"} 7"#)), "{durations:?}");
    let folded = lines(&text, r#"selvedge_series_folded_total{family="requests"}"#);
    assert!(folded[0].ends_with(" 7"), "{folded:?}");
}

#[test]
fn series_that_nobody_holds_make_room() {
    let metrics = Metrics::with_limit(1, 3, MetricsCompat::None);
    let held = metrics.series(&to_v2());

    for route in 0..10 {
        let series = metrics.series(&Labels { route: format!("route-{route}").into(), ..to_v2() });
        assert!(series.labels().is_some(), "route {route}");
    }
    assert!(Arc::ptr_eq(&held, &metrics.series(&to_v2())));
}

#[test]
fn series_that_nobody_uses_and_that_count_nothing_are_forgotten_in_time() {
    let (metrics, start) = (Metrics::new(1), Instant::now());
    let minutes = |count: u64| start + Duration::from_secs(60 * count);
    let held = metrics.series(&to_v2());
    let left = || metrics.series(&Labels { mtls: false, ..to_v2() });
    left().record(0, Some(200), None, None, FIVE_MS);

    metrics.expire(minutes(0));
    metrics.expire(minutes(9));
    assert_eq!(left().total(), 1, "not yet");
    left().record(0, Some(200), None, None, FIVE_MS);
    metrics.expire(minutes(10));
    metrics.expire(minutes(19));
    assert_eq!(left().total(), 2, "it has counted something since");
    metrics.expire(minutes(30));
    assert_eq!(metrics.requests().len(), 1);
    assert!(Arc::ptr_eq(&held, &metrics.series(&to_v2())), "a route that there is stays");
}

#[test]
fn a_search_for_room_in_vain_is_not_repeated_at_once() {
    let metrics = Metrics::with_limit(1, 1, MetricsCompat::None);
    let held = metrics.series(&to_v2());
    let other = || metrics.series(&Labels { mtls: false, ..to_v2() }).labels().is_some();

    assert!(!other());
    drop(held);
    let turned_away = (0..2 * TURNED_AWAY).take_while(|_| !other()).count();
    assert_eq!(turned_away, TURNED_AWAY);
}

#[test]
fn the_longest_durations_are_in_the_bucket_without_a_bound() {
    let metrics = Arc::new(Metrics::new(1));
    metrics.series(&to_v2()).record(0, Some(200), None, None, Duration::from_secs(11));

    let text = metrics.render(Vec::new());
    let buckets = lines(&text, "selvedge_outbound_request_duration_seconds_bucket");
    assert_eq!(buckets.len(), TIMES_MS.len() + 1);
    assert!(buckets[..TIMES_MS.len()].iter().all(|line| line.ends_with(" 0")));
    assert!(buckets[TIMES_MS.len()].contains(r#"le="+Inf""#) && buckets[TIMES_MS.len()].ends_with(" 1"));
}

proptest! {
    #[test]
    fn whatever_names_configuration_uses_the_text_stays_valid(
        routes in proptest::collection::vec(any::<String>(), 1..8),
        subset in any::<String>(),
        version in any::<String>(),
        statuses in proptest::collection::vec((0_u16..1000, 0_usize..Reason::ALL.len()), 1..60),
    ) {
        let metrics = Arc::new(Metrics::with_limit(1, 5, MetricsCompat::None));
        metrics.set_configuration_version(&version, UNIX_EPOCH);
        for route in routes {
            let labels =
                Labels { route: route.into(), destination_subset: subset.as_str().into(), ..to_v2() };
            let series = metrics.series(&labels);
            for (status, reason) in &statuses {
                series.record(0, Some(*status), None, Some(Reason::ALL[*reason]), FIVE_MS);
            }
        }
        assert_is_openmetrics(&metrics.render(Vec::new()));
    }
}

/// Checks the rules of the OpenMetrics text format that a collector could break: each family is declared
/// once, before its samples, which stand together; sample names fit the type; no sample comes twice; the
/// text ends with `# EOF`.
fn assert_is_openmetrics(text: &str) {
    let body = text.strip_suffix("# EOF\n").expect("the text ends with # EOF");
    let (mut families, mut samples) = (HashSet::new(), HashSet::new());
    let (mut family, mut kind) = ("", "");
    for line in body.split_terminator('\n') {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            (family, kind) = declared.split_once(' ').expect("a name and a type");
            assert!(families.insert(family), "{family} is declared twice");
        } else if let Some(comment) = line.strip_prefix("# ") {
            assert!(comment.starts_with("HELP ") || comment.starts_with("UNIT "), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a sample and a value");
            let name = sample.split_once('{').map_or(sample, |(name, _)| name);
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{name} under {family}"));
            let fits = match kind {
                "counter" => suffix == "_total",
                "gauge" => suffix.is_empty(),
                "info" => suffix == "_info",
                "histogram" => ["_bucket", "_count", "_sum"].contains(&suffix),
                other => panic!("{family} has the type {other}"),
            };
            assert!(fits, "{name} is a {kind}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(samples.insert(sample), "{sample} comes twice");
        }
    }
}
