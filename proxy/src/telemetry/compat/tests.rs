use std::{sync::Arc, time::Duration};

use selvedge_model::{
    InboundPolicy, ServiceKey, SpiffeId, Telemetry, Workload, WorkloadName,
    naming::Naming,
    telemetry::{LabelChange, LabelFact, LabelValue, MetricChange, MetricChanges, OneWay},
};

use super::{
    super::{
        Metrics, MetricsCompat, Unknown, measured::Measure, method::Method, series::Ended, trace_id::TraceId,
    },
    *,
};

fn own() -> WorkloadName {
    WorkloadName::new("shop", "web-7d9c5b-x2x4z").expect("a valid name")
}

fn peer(owner: &str, identity: &str) -> Option<Arc<Peer>> {
    let naming = Naming {
        owner: owner.into(),
        app: "reviews".into(),
        service: "reviews".into(),
        revision: "latest".into(),
        ..Naming::default()
    };
    Some(Arc::new(Peer { namespace: "books".into(), naming, principal: identity.into() }))
}

fn compat() -> Arc<Metrics> {
    Arc::new(Metrics::of(&own(), 1, MetricsCompat::Istio))
}

fn ended(method: &http::Method, status: u16, reason: Option<Reason>) -> Ended {
    let time = Duration::from_millis(4);
    let measure = Measure { time, received: 20, sent: 3_000, trace: Some(TraceId(7)) };
    Ended { status: Some(status), grpc_status: None, reason, method: Some(Method::of(method)), measure }
}

/// The value of the sample whose line has all of `parts`; there is one.
fn value(text: &str, parts: &[&str]) -> String {
    let mut lines = text.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
    let line = lines.next().unwrap_or_else(|| panic!("{parts:?} in {text}"));
    assert_eq!(lines.next(), None, "{parts:?}");
    let sample = line.split(" # ").next().expect("a sample");
    sample.rsplit_once(' ').expect("a value").1.to_owned()
}

#[test]
fn requests_of_ours_are_told_by_who_has_answered_them_whatever_their_route_and_method() {
    let metrics = compat();
    let reviews = ServiceKey::new("reviews.books.svc.cluster.local", 9080);
    let identity = "spiffe://cluster.local/ns/books/sa/reviews";
    for route in ["a", "b"] {
        let labels = Labels {
            route: route.into(),
            mtls: true,
            peer: peer("reviews-v1", identity),
            ..Labels::outbound(&own(), &reviews)
        };
        let series = metrics.series(&labels);
        series.ended(0, &ended(&http::Method::GET, 200, None));
        series.ended(0, &ended(&http::Method::POST, 200, None));
    }
    let nowhere = Labels { route: "a".into(), ..Labels::outbound(&own(), &reviews) };
    metrics.series(&nowhere).ended(0, &ended(&http::Method::GET, 503, Some(Reason::NoEndpoint)));

    let text = metrics.render(Vec::new());
    let answered = [
        r#"reporter="source",source_workload="web-7d9c5b-x2x4z",source_workload_namespace="shop""#,
        r#"destination_workload="reviews-v1",destination_workload_namespace="books",destination_principal="spiffe://cluster.local/ns/books/sa/reviews",destination_app="reviews",destination_version="unknown",destination_canonical_service="reviews",destination_canonical_revision="latest",destination_cluster="Kubernetes""#,
        r#"destination_service="reviews.books.svc.cluster.local",destination_service_name="reviews",destination_service_namespace="books""#,
        r#"connection_security_policy="unknown",request_protocol="http",response_code="200",response_flags="-""#,
    ];
    let of = |name: &'static str| [&[name][..], &answered[..]].concat();
    assert_eq!(value(&text, &of("istio_requests_total{")), "4");
    assert_eq!(value(&text, &of("istio_request_duration_milliseconds_sum{")), "16");
    assert_eq!(value(&text, &of("istio_request_bytes_sum{")), "80");
    assert_eq!(value(&text, &of("istio_response_bytes_sum{")), "12000");
    let bucket = [&of("istio_request_duration_milliseconds_bucket{")[..], &[r#"le="5.0""#]].concat();
    assert_eq!(value(&text, &bucket), "4");
    let failed = [
        "istio_requests_total{",
        r#"destination_workload="unknown""#,
        r#"response_code="503",response_flags="UH""#,
    ];
    assert_eq!(value(&text, &failed), "1");
}

#[test]
fn requests_to_us_are_told_by_who_has_called_and_for_which_service() {
    let metrics = compat();
    let labels = [("pod-template-hash", "7d9c5b"), ("app", "web"), ("version", "v2")];
    let unknown = [metrics.unknown_destination(&own()), metrics.unknown_source(&own())];
    let owner = |unknown: &Unknown| unknown.series().labels().map(|labels| labels.owner.to_string());
    assert_eq!(owner(&unknown[0]), Some(own().name().to_owned()), "until it is told");
    metrics.set_own(&Workload {
        name: own(),
        identity: "spiffe://cluster.local/ns/shop/sa/web".parse().expect("an identity"),
        meshed: true,
        inbound: None,
        ports: vec![8080],
        protocols: BTreeMap::new(),
        app_connections: BTreeMap::new(),
        labels: Arc::new(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        services: [(8080, Arc::from("web.shop.svc.cluster.local"))].into(),
        place: None,
        telemetry: None,
        policy: InboundPolicy::default(),
        egress: None,
        gateway: None,
    });
    assert_eq!(unknown.each_ref().map(owner), [Some("web".to_owned()), Some("web".to_owned())]);
    let identity: SpiffeId = "spiffe://cluster.local/ns/books/sa/reviews".parse().expect("an identity");
    let naming = Naming { owner: "reviews-v1".into(), ..Naming::default() };
    let caller = metrics.caller(&identity, || Some(naming));
    let end = Ended { grpc_status: Some(0), ..ended(&http::Method::POST, 200, None) };
    metrics.inbound(&own(), 8080, Some(&identity), caller).ended(0, &end);
    metrics.inbound(&own(), 9, None, None).ended(0, &ended(&http::Method::GET, 403, Some(Reason::Policy)));

    let text = metrics.render(Vec::new());
    let called = [
        "istio_requests_total{",
        r#"reporter="destination",source_workload="reviews-v1",source_workload_namespace="books",source_principal="spiffe://cluster.local/ns/books/sa/reviews""#,
        r#"destination_workload="web",destination_workload_namespace="shop""#,
        r#"destination_app="web",destination_version="v2",destination_canonical_service="web",destination_canonical_revision="v2""#,
        r#"destination_service="web.shop.svc.cluster.local",destination_service_name="web",destination_service_namespace="shop",connection_security_policy="mutual_tls""#,
        r#"request_protocol="grpc",response_code="200",grpc_response_status="0",response_flags="-""#,
    ];
    assert_eq!(value(&text, &called), "1");
    let stranger = [
        "istio_requests_total{",
        r#"source_workload="unknown",source_workload_namespace="unknown",source_principal="unknown""#,
        r#"destination_service="unknown",destination_service_name="InboundPassthroughCluster""#,
        r#"connection_security_policy="none""#,
        r#"response_code="403""#,
    ];
    assert_eq!(value(&text, &stranger), "1");
    // Our own metrics tell the controllers, too.
    let ours = r#"selvedge_inbound_requests_total{server_address="shop/web-7d9c5b-x2x4z",server_port="8080",mtls="true",source_namespace="books",source_principal="spiffe://cluster.local/ns/books/sa/reviews",source_owner="reviews-v1",destination_owner="web",http_request_method="POST""#;
    assert_eq!(value(&text, &[ours]), "1");
}

#[test]
fn opaque_connections_are_told_by_how_they_ended_and_refused_ones_as_come_and_gone() {
    let metrics = compat();
    let redis = ServiceKey::new("redis.shop.svc.cluster.local", 6379);
    let series = metrics.tcp(&Labels::outbound(&own(), &redis));
    series.opened(0);
    series.closed(0, Some(Reason::Timeout));
    series.refused(0, Reason::NoEndpoint);
    series.sent(0).expect("a worker").store(7, std::sync::atomic::Ordering::Relaxed);

    let text = metrics.render(Vec::new());
    let of = |name, flags| value(&text, &[name, r#"destination_service_name="redis""#, flags]);
    assert_eq!(of("istio_tcp_sent_bytes_total{", r#"response_flags="-""#), "7");
    assert_eq!(of("istio_tcp_received_bytes_total{", r#"response_flags="-""#), "0");
    assert_eq!(of("istio_tcp_connections_opened_total{", r#"response_flags="-""#), "1");
    assert_eq!(of("istio_tcp_connections_opened_total{", r#"response_flags="UH""#), "1");
    assert_eq!(of("istio_tcp_connections_closed_total{", r#"response_flags="UT""#), "1");
    assert_eq!(of("istio_tcp_connections_closed_total{", r#"response_flags="UH""#), "1");
}

#[test]
fn what_is_not_let_out_goes_into_the_black_hole_and_not_through() {
    let metrics = compat();
    let unknown = metrics.unknown_destination(&own());
    unknown.series().ended(0, &ended(&http::Method::GET, 200, None));
    unknown.series().ended(0, &ended(&http::Method::GET, 502, Some(Reason::RegistryOnly)));
    let tcp = metrics.tcp(&Labels::unknown_destination(&own()));
    tcp.opened(0);
    tcp.refused(0, Reason::RegistryOnly);

    let text = metrics.render(Vec::new());
    for name in
        ["istio_requests_total{", "istio_response_bytes_count{", "istio_tcp_connections_opened_total{"]
    {
        for (cluster, flags) in [("PassthroughCluster", "-"), ("BlackHoleCluster", "NR")] {
            let cluster = format!(r#"destination_service_name="{cluster}""#);
            let flags = format!(r#"response_flags="{flags}""#);
            assert_eq!(value(&text, &[name, &cluster, &flags]), "1", "{name}");
        }
    }
}

#[test]
fn nothing_of_it_is_told_where_nobody_asked_for_it() {
    let metrics = Arc::new(Metrics::of(&own(), 1, MetricsCompat::None));
    let identity: SpiffeId = "spiffe://cluster.local/ns/books/sa/reviews".parse().expect("an identity");
    metrics.inbound(&own(), 8080, Some(&identity), None).ended(0, &ended(&http::Method::GET, 200, None));

    assert!(metrics.caller(&identity, || unreachable!("nobody asks")).is_none());
    assert!(!metrics.render(Vec::new()).contains("istio_"));
}

#[test]
fn the_host_of_a_service_says_its_name_and_namespace() {
    assert_eq!(parts("reviews.books.svc.cluster.local"), ("reviews", "books"));
    assert_eq!(parts("reviews.books.svc"), ("reviews", "books"));
    for host in ["api.example.com", "reviews", "reviews.books"] {
        assert_eq!(parts(host), (host, UNKNOWN));
    }
}

/// A `Telemetry` that changes metrics so, in both directions.
fn changing(changes: impl IntoIterator<Item = (StandardMetric, MetricChange)>) -> Arc<Telemetry> {
    let metrics: MetricChanges = changes.into_iter().collect();
    let one_way = || OneWay { metrics: metrics.clone(), ..OneWay::default() };
    Arc::new(Telemetry { inbound: one_way(), outbound: one_way() })
}

fn set(fact: LabelFact) -> LabelChange {
    LabelChange::Set(LabelValue::Fact(fact))
}

fn labels(changes: &[(&str, LabelChange)]) -> MetricChange {
    let labels = changes.iter().map(|(name, change)| ((*name).to_owned(), change.clone()));
    MetricChange { disabled: false, labels: labels.collect() }
}

#[test]
fn configuration_disables_metrics_and_removes_adds_and_replaces_labels_of_those_that_it_names() {
    let metrics = compat();
    let reviews = ServiceKey::new("reviews.books.svc.cluster.local", 9080);
    for (route, status) in [("a", 200), ("b", 404)] {
        let labels = Labels { route: route.into(), mtls: true, ..Labels::outbound(&own(), &reviews) };
        metrics.series(&labels).ended(0, &ended(&http::Method::GET, status, None));
    }
    let tcp = metrics.tcp(&Labels::outbound(&own(), &reviews));
    tcp.opened(0);
    metrics.unknown_source(&own()).series().ended(0, &ended(&http::Method::GET, 200, None));
    let off = MetricChange { disabled: true, ..MetricChange::default() };
    let counted = labels(&[
        ("destination_port", set(LabelFact::Port)),
        ("method", set(LabelFact::Method)),
        ("route", set(LabelFact::Route)),
        ("mtls", set(LabelFact::Mtls)),
        ("source_app", LabelChange::Set(LabelValue::Literal("it \"is\"".to_owned()))),
        ("destination_principal", LabelChange::Removed),
    ]);
    let opened = labels(&[
        ("status", set(LabelFact::Status)),
        ("caller", set(LabelFact::Caller)),
        ("p", set(LabelFact::Port)),
    ]);
    // All that tells requests apart: those of both directions are one.
    let names = metrics.render(Vec::new());
    let sizes = names.lines().find(|line| line.starts_with("istio_request_bytes_count{")).expect("one");
    let (_, sizes) = sizes.split_once('{').expect("labels");
    let names = sizes.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name);
    let none: Vec<_> = names.map(|name| (name, LabelChange::Removed)).collect();
    let telemetry = changing([
        (StandardMetric::RequestCount, counted),
        (StandardMetric::RequestDuration, off),
        (StandardMetric::RequestSize, labels(&none)),
        (StandardMetric::TcpOpenedConnections, opened),
    ]);
    metrics.set_telemetry(Some(&telemetry));

    let text = metrics.render(Vec::new());
    for (route, code) in [("a", "200"), ("b", "404")] {
        let added = format!(
            r#"destination_port="9080",method="GET",mtls="true",route="{route}",source_app="it \"is\"""#
        );
        let code = format!(r#"response_code="{code}""#);
        let parts = ["istio_requests_total{", r#"reporter="source""#, &added, &code];
        assert_eq!(value(&text, &parts), "1");
    }
    let counted = text.lines().filter(|line| line.starts_with("istio_requests_total{"));
    for line in counted {
        assert!(
            !line.contains("destination_principal") && line.matches("source_app=").count() == 1,
            "{line}"
        );
    }
    assert!(!text.contains("istio_request_duration_milliseconds_"), "it is disabled");
    assert_eq!(value(&text, &["istio_request_bytes_count "]), "3", "two directions are one series");
    assert_eq!(value(&text, &["istio_request_bytes_bucket{le=\"+Inf\"}"]), "3");
    assert_eq!(value(&text, &["istio_response_bytes_count{", r#"reporter="destination""#]), "1");
    let opened = ["istio_tcp_connections_opened_total{", r#"caller="unknown",p="9080",status="unknown""#];
    assert_eq!(value(&text, &opened), "1");

    metrics.set_telemetry(None);
    let text = metrics.render(Vec::new());
    assert!(
        text.contains("istio_request_duration_milliseconds_sum{") && !text.contains("caller="),
        "as before"
    );
}

#[test]
fn what_is_disabled_of_one_direction_is_told_of_the_other() {
    let metrics = compat();
    let tell = |unknown: Unknown| unknown.series().ended(0, &ended(&http::Method::GET, 200, None));
    tell(metrics.unknown_source(&own()));
    tell(metrics.unknown_destination(&own()));
    let off = MetricChange { disabled: true, ..MetricChange::default() };
    let mut telemetry = Arc::unwrap_or_clone(changing([(StandardMetric::RequestCount, off)]));
    telemetry.outbound = OneWay::default();
    metrics.set_telemetry(Some(&Arc::new(telemetry)));

    let text = metrics.render(Vec::new());
    assert_eq!(value(&text, &["istio_requests_total{"]).as_str(), "1");
    assert!(value(&text, &["istio_requests_total{", r#"reporter="source""#]) == "1");
    assert_eq!(value(&text, &["istio_request_bytes_count{", r#"reporter="destination""#]), "1");
}
