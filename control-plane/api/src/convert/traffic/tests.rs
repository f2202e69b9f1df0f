use prost::Message as _;
use selvedge_model::traffic::bucket_of;

use super::*;

/// A busy edge: two outcomes, and latencies over four doublings.
fn busy(edge: u32) -> (u32, Counts) {
    let mut counts = Counts { sent: 12_345_678, ..Counts::default() };
    counts.ended(&Outcome { status: Some(200), ..Outcome::default() }, 11_200);
    let reason = Some("no-endpoint".into());
    counts.ended(&Outcome { status: Some(503), grpc_status: None, reason }, 120);
    for place in 0..16 {
        counts.latencies.note(20 + place, 700);
    }
    counts.latencies.took(40_000_000);
    (edge, counts)
}

fn edge(client: Option<&str>) -> Edge {
    Edge {
        way: if client.is_some() { Way::Inbound } else { Way::Outbound },
        carried: Carried::Http,
        host: "reviews.default.svc.cluster.local".into(),
        port: 9080,
        route: "VirtualService default/reviews http[1]".into(),
        subset: "v2".into(),
        backend: "other.default.svc.cluster.local:80".into(),
        mtls: true,
        client: client.map(|client| client.parse().unwrap()),
    }
}

fn out() -> Out {
    Out {
        backend: BackendName { service: ServiceKey::new("reviews", 80), subset: Some("v1".into()) },
        address: "10.0.0.1:8080".parse().unwrap(),
        left: Some(Duration::from_millis(1500)),
        why: "consecutive-5xx".into(),
        last_failure: "503".into(),
    }
}

fn failing() -> AtEndpoint {
    AtEndpoint {
        backend: BackendName { service: ServiceKey::new("reviews", 80), subset: Some("v1".into()) },
        address: "10.0.0.1:8080".parse().unwrap(),
        attempts: 40,
        failures: vec![(FailureKind::ConnectRefused, 3), (FailureKind::Status5xx, 4)],
    }
}

#[test]
fn a_kind_of_failure_that_only_a_newer_version_knows_is_another_one() {
    let told = Told { at_endpoints: vec![failing()], ..Told::default() };
    let mut report = wire::Report::default();
    put(&told, &mut report);
    report.attempts[0].kinds = vec![99, -1];
    report.attempts[0].attempts = 5;

    let read = take(&mut report).unwrap().at_endpoints.remove(0);

    assert_eq!(
        (read.failures, read.attempts),
        (vec![(FailureKind::Other, 7)], 7),
        "what has failed has begun"
    );
}

#[test]
fn each_kind_of_failure_has_the_number_that_the_protocol_gives_it() {
    for kind in FailureKind::ALL {
        let word = kind.word().to_uppercase().replace('-', "_");
        let word = if kind == FailureKind::Status5xx { "STATUS_5XX" } else { &word };
        let wired = wire::FailureKind::try_from(kind as i32).unwrap();
        assert_eq!(wired.as_str_name(), format!("FAILURE_KIND_{word}"));
    }
}

#[test]
fn of_endpoints_with_failures_only_so_many_are_read_and_none_without_an_address() {
    let of = |change: &dyn Fn(&mut wire::Report)| {
        let mut report = wire::Report::default();
        put(&Told { at_endpoints: vec![failing()], ..Told::default() }, &mut report);
        change(&mut report);
        take(&mut report)
    };
    assert!(of(&|_| {}).is_ok());
    assert!(of(&|report| report.attempts = vec![report.attempts[0].clone(); MOST_FAILING + 1]).is_err());
    assert!(of(&|report| report.attempts[0].address = "reviews".into()).is_err());
    assert!(of(&|report| report.attempts[0].kinds = vec![1; 100]).is_err());
    let many = of(&|report| report.attempts[0].failures = vec![u64::MAX, u64::MAX]).unwrap();
    assert_eq!(many.at_endpoints[0].failed(), 2 * MOST_AT_ONCE);
}

fn read(told: &Told) -> Result<Told, ConvertError> {
    let mut report = wire::Report::default();
    put(told, &mut report);
    take(&mut report)
}

#[test]
fn what_is_told_is_read_as_it_was_written() {
    let names = vec![(0, edge(None)), (7, edge(Some("spiffe://cluster.local/ns/shop/sa/web")))];
    let told = Told {
        named: names,
        not_understood: Vec::new(),
        counts: vec![busy(0), (7, Counts { connections: 3, received: 9, ..Counts::default() })],
        left_out: 5,
        out: Some(vec![out(), Out { left: None, ..out() }]),
        at_endpoints: vec![failing()],
        endpoints_left_out: 3,
    };

    assert_eq!(read(&told).unwrap(), told);
    assert_eq!(read(&Told::default()).unwrap(), Told::default());
}

#[test]
fn ten_busy_edges_are_told_in_a_kibibyte() {
    let told = Told { counts: (0..10).map(busy).collect(), ..Told::default() };
    let mut report = wire::Report::default();
    put(&told, &mut report);

    assert!(report.encoded_len() <= 1024, "{} bytes", report.encoded_len());
}

#[test]
fn a_name_that_is_too_long_is_cut_and_what_is_no_count_is_refused() {
    let long = Edge { route: "é".repeat(LONGEST_NAME).into(), ..edge(None) };
    let told = read(&Told { named: vec![(1, long)], ..Told::default() }).unwrap();
    assert_eq!(told.named[0].1.route.len(), LONGEST_NAME);

    let of = |edges, edge_names| take(&mut wire::Report { edges, edge_names, ..wire::Report::default() });
    let counts = |steps: &[u32]| wire::EdgeCounts {
        latency_steps: steps.to_vec(),
        latency_counts: vec![1; steps.len()],
        ..wire::EdgeCounts::default()
    };
    assert!(of(vec![counts(&[80, 5])], vec![]).is_ok());
    assert!(of(vec![counts(&[80, 6])], vec![]).is_err(), "there is no such bucket");
    assert!(of(vec![counts(&[u32::MAX, 6])], vec![]).is_err());
    let numbered = |edge| wire::EdgeCounts { edge, ..wire::EdgeCounts::default() };
    assert!(of(vec![numbered(999)], vec![]).is_ok());
    assert!(of(vec![numbered(1000)], vec![]).is_err(), "a number too high");
    let outcome = wire::EdgeOutcome { status: 9999, ..wire::EdgeOutcome::default() };
    let counts = wire::EdgeCounts { outcomes: vec![outcome], ..wire::EdgeCounts::default() };
    assert!(of(vec![counts], vec![]).is_err(), "no such status");
    let name = |client: &str| wire::EdgeName { client: client.into(), ..wire::EdgeName::default() };
    assert!(of(vec![], vec![name("nobody")]).is_err());
    assert!(of(vec![], vec![name(""); 1001]).is_err());
    assert!(u32::from(bucket_of(Duration::MAX)) < 86);
}

#[test]
fn what_only_a_newer_version_knows_is_left_out_and_nothing_else() {
    let told = Told { named: vec![(0, edge(None)), (1, edge(None))], ..Told::default() };
    let mut report = wire::Report::default();
    put(&told, &mut report);
    report.edge_names[1].carried = 99;

    let read = take(&mut report).unwrap();
    assert_eq!((read.named.len(), read.not_understood), (1, vec![1]));
}

#[test]
fn counts_are_no_more_than_can_be() {
    let told = Told { left_out: u64::MAX, ..Told::default() };
    let most = (0, Counts { connections: u64::MAX, sent: u64::MAX, ..Counts::default() });
    let read = read(&Told { counts: vec![most], ..told }).unwrap();

    let counts = &read.counts[0].1;
    assert_eq!((read.left_out, counts.connections), (MOST_AT_ONCE, MOST_AT_ONCE));
    assert_eq!(counts.sent, MOST_AT_ONCE << 12);
}

#[test]
fn nobody_is_a_client_without_mutual_tls_nor_out_for_longer_than_a_day() {
    let web = edge(Some("spiffe://cluster.local/ns/shop/sa/web"));
    let told = |edge: Edge| {
        let told = Told { named: vec![(0, edge)], ..Told::default() };
        let (_, read) = read(&told).unwrap().named.remove(0);
        (read.mtls, read.client)
    };
    assert_eq!(told(web.clone()), (true, web.client.clone()));
    assert_eq!(told(Edge { client: None, ..web.clone() }), (false, None));
    assert_eq!(told(Edge { mtls: false, ..web }), (false, None));
    assert_eq!(told(edge(None)), (true, None), "an outbound edge has no client");

    let forever = Out { left: Some(Duration::MAX), ..out() };
    let told = Told { out: Some(vec![forever]), ..Told::default() };
    assert_eq!(read(&told).unwrap().out.unwrap()[0].left, Some(LONGEST_OUT));
}
