use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use selvedge_control_plane::status::{
    AbsentShown, EdgeTraffic, EndpointShown, EndpointTraffic, OutShown, RouteShown, ServiceShown,
    ServicesShown, ShareShown, Starting, TrafficSeen, WorkloadTraffic,
};
use selvedge_model::traffic::{Carried, Counts, Edge, Outcome, Way, bucket_of};

use super::{
    ask::{Traffic, all_services},
    edges::{self, Secured, SeenBy},
    endpoints,
    filter::{FilterArgs, Party},
    known::{Kinds, Known},
    routes,
    stat::{self, By},
};
use crate::documented::is_documented;

const HOST: &str = "reviews.shop.svc.cluster.local";
const ROUTE: &str = "VirtualService shop/reviews http[0]";

fn edge(subset: &str, mtls: bool) -> Edge {
    Edge {
        way: Way::Outbound,
        carried: Carried::Http,
        host: HOST.into(),
        port: 80,
        route: ROUTE.into(),
        subset: subset.into(),
        backend: "".into(),
        mtls,
        client: None,
    }
}

fn inbound(account: Option<&str>) -> Edge {
    let client =
        account.map(|account| format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap());
    Edge {
        way: Way::Inbound,
        host: "".into(),
        port: 8080,
        route: "".into(),
        mtls: client.is_some(),
        client,
        ..edge("", true)
    }
}

fn counts(ok: u64, failed: u64) -> Counts {
    let mut counts = Counts::default();
    for (status, count) in [(200, ok), (503, failed)] {
        counts.ended(&Outcome { status: Some(status), ..Outcome::default() }, count);
        counts.latencies.note(bucket_of(Duration::from_millis(8)), count);
    }
    counts
}

fn workload(account: &str, edges: Vec<(Edge, Counts)>) -> WorkloadTraffic {
    WorkloadTraffic {
        identity: format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap(),
        seconds: 30,
        edges: edges.into_iter().map(|(edge, counts)| EdgeTraffic { edge, counts }).collect(),
        left_out: 0,
        endpoints: Vec::new(),
        endpoints_left_out: 0,
    }
}

/// What two replicas say: the client's sidecar was connected to one after the other.
fn traffic() -> Traffic {
    let of = |workloads: Vec<(&str, WorkloadTraffic)>| TrafficSeen {
        since_seconds: 60,
        kept_seconds: 3600,
        dropped: 1,
        workloads: workloads.into_iter().map(|(name, one)| (name.parse().unwrap(), one)).collect(),
    };
    let edges = vec![(edge("v1", true), counts(60, 0)), (edge("v2", true), counts(10, 10))];
    let first = of(vec![("shop/web", workload("web", edges))]);
    let served = vec![(inbound(Some("web")), counts(80, 10)), (inbound(None), counts(5, 0))];
    let second = of(vec![
        ("shop/web", workload("web", vec![(edge("v1", true), counts(10, 0))])),
        ("shop/reviews-1", workload("reviews", served)),
    ]);
    Traffic::of(60, vec![first, second], BTreeMap::new())
}

fn services() -> ServicesShown {
    let share = |subset: &str, percent| ShareShown {
        host: HOST.into(),
        port: 80,
        subset: Some(subset.into()),
        percent,
        broken: None,
    };
    let endpoint = |address: &str, name: &str| EndpointShown {
        address: address.parse().unwrap(),
        workload: Some(name.parse().unwrap()),
        identity: Some("spiffe://cluster.local/ns/shop/sa/reviews".parse().unwrap()),
    };
    ServicesShown {
        services: vec![ServiceShown {
            host: HOST.into(),
            port: 80,
            routes: vec![RouteShown {
                name: ROUTE.to_owned(),
                is_tcp: false,
                clients: None,
                labels: None,
                backends: vec![share("v1", 80), share("v2", 20)],
            }],
            endpoints: vec![
                endpoint("10.0.0.1:8080", "shop/reviews-1"),
                endpoint("10.0.0.2:8080", "shop/reviews-2"),
            ],
        }],
        out: vec![OutShown {
            by: "shop/web".parse().unwrap(),
            host: HOST.into(),
            port: 80,
            subset: Some("v2".into()),
            address: "10.0.0.2:8080".parse().unwrap(),
            seconds_left: Some(12),
            why: "consecutive-5xx".into(),
            last_failure: "503".into(),
        }],
        ..ServicesShown::default()
    }
}

fn filter(words: &[&str]) -> FilterArgs {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        filter: FilterArgs,
    }
    <Line as clap::Parser>::parse_from([&["a"], words].concat()).filter
}

#[test]
fn rows_add_up_what_all_replicas_know() {
    let of = |by, words: &[&str]| stat::Report::of(&traffic(), by, &filter(words));
    let counted = |report: &stat::Report| -> Vec<(String, u64, u64)> {
        let row = |row: &stat::Row| {
            let requests = row.requests.as_ref().unwrap();
            (row.name.clone(), requests.count, requests.failures)
        };
        report.rows.iter().map(row).collect()
    };

    let service = format!("{HOST}:80");
    assert_eq!(counted(&of(By::Service, &[])), [(service.clone(), 90, 10)]);
    let subsets = [(format!("{service} v1"), 70, 0), (format!("{service} v2"), 20, 10)];
    assert_eq!(counted(&of(By::Subset, &["--to", "reviews"])), subsets);
    assert_eq!(counted(&of(By::Route, &[])), [(format!("{service} {ROUTE}"), 90, 10)]);
    assert_eq!(counted(&of(By::Client, &["--from", "shop/*"])), [("shop/web".to_owned(), 90, 10)]);
    assert_eq!(counted(&of(By::Workload, &[])), [("shop/reviews-1".to_owned(), 95, 10)]);
    assert_eq!(counted(&of(By::Workload, &["--from", "shop/web"])), [("shop/reviews-1".to_owned(), 90, 10)]);
    assert!(of(By::Service, &["--to", "ratings"]).rows.is_empty());

    let report = of(By::Subset, &[]);
    let requests = report.rows[0].requests.as_ref().unwrap();
    assert!((requests.per_second - 70.0 / 30.0).abs() < 0.001 && (7.0..9.0).contains(&requests.p50_ms));
    assert!(report.succeeds(50.0) && !report.succeeds(50.1));
    assert!(!of(By::Service, &["--to", "ratings"]).succeeds(0.0), "nothing is not enough");
    let text = report.to_text();
    assert!(text.contains("100 %") && text.contains("50.00 %") && text.contains("not shown: 2 "), "{text}");
}

#[test]
fn a_control_plane_that_has_just_started_does_not_say_that_nothing_happens() {
    let said = |seconds, workloads| {
        let traffic = Traffic { seconds, workloads, ..Traffic::default() };
        stat::Report::of(&traffic, By::Service, &filter(&[])).to_text()
    };
    let quiet = || BTreeMap::from([("shop/web".parse().unwrap(), workload("web", Vec::new()))]);
    let busy = || workload("web", vec![(edge("v1", true), counts(9, 0))]);
    let busy = || BTreeMap::from([("shop/web".parse().unwrap(), busy())]);

    assert_eq!(said(60, BTreeMap::new()), "no sidecar has told of traffic since the control plane started\n");
    assert!(said(60, quiet()).starts_with("nothing was seen in the last 30 s\n"));
    assert!(said(60, busy()).ends_with("this is of the last 30 s: before, nothing is known\n"));
    assert!(!said(40, busy()).contains("nothing is known"), "pieces of time are never quite as long");
}

#[test]
fn one_failure_in_a_million_is_one_too_many_where_all_must_succeed() {
    let workloads =
        [("shop/web".parse().unwrap(), workload("web", vec![(edge("v1", true), counts(999_999, 1))]))].into();
    let traffic = Traffic { seconds: 60, workloads, ..Traffic::default() };
    let report = stat::Report::of(&traffic, By::Service, &filter(&[]));

    assert!(report.succeeds(99.9999) && !report.succeeds(99.999_901) && !report.succeeds(100.0));
    let text = report.to_text();
    assert!(text.contains("99.99 %"), "{text}");
    assert!(report.rows[0].requests.as_ref().unwrap().success_percent < 100.0, "{report:?}");
}

#[test]
fn an_endpoint_with_older_connections_alone_does_not_fail() {
    let carried = |counts: Counts| {
        let edge = Edge { carried: Carried::Tcp, ..inbound(Some("web")) };
        let counts = Counts { sent: 9, ..counts };
        let workloads =
            [("shop/reviews-1".parse().unwrap(), workload("reviews", vec![(edge, counts)]))].into();
        let traffic = Traffic { seconds: 60, workloads, ..Traffic::default() };
        endpoints::Report::of(&traffic, &services(), None).to_text()
    };
    let row = |text: String| text.lines().find(|line| line.contains("10.0.0.1")).unwrap().to_owned();

    let open = row(carried(Counts::default()));
    assert!(!open.contains('%'), "{open}");
    let mut ended = Counts::default();
    ended.ended(&Outcome::default(), 1);
    let ended = row(carried(ended));
    assert!(ended.contains("100 %"), "{ended}");
}

#[test]
fn an_edge_is_shown_once_and_with_both_identities() {
    let report = edges::Report::of(&traffic(), &services(), &filter(&[]), false);

    let [sent, plain] = &report.edges[..] else { panic!("{:?}", report.edges) };
    assert_eq!((sent.seen_by, sent.from.as_deref(), sent.mtls), (SeenBy::Client, Some("shop/web"), true));
    assert_eq!(sent.client_identity.as_ref().unwrap().service_account(), "web");
    assert_eq!(sent.server_identities.first().unwrap().service_account(), "reviews");
    assert_eq!(sent.requests.as_ref().unwrap().count, 90);
    assert_eq!((plain.seen_by, plain.from.as_deref(), plain.mtls), (SeenBy::Server, None, false));
    assert_eq!((&*plain.to, plain.requests.as_ref().unwrap().count), ("shop/reviews-1:8080", 5));
    assert!(plain.client_identity.is_none() && plain.server_identities.is_empty());

    assert_eq!(edges::Report::of(&traffic(), &services(), &filter(&[]), true).edges.len(), 3);
}

#[test]
fn a_route_is_shown_as_it_is_configured_and_as_it_was_followed() {
    let report = routes::Report::of(&traffic(), &services(), None);

    let [v1, v2] = &report.routes[..] else { panic!("{:?}", report.routes) };
    assert_eq!((v1.configured_percent, v2.configured_percent), (80, 20));
    assert_eq!((v1.seen_percent, v2.seen_percent), (Some(77.778), Some(22.222)));
    assert_eq!(v2.requests.as_ref().unwrap().failures, 10);
    let only = "ratings".parse().unwrap();
    assert!(routes::Report::of(&traffic(), &services(), Some(&only)).routes.is_empty());
}

#[test]
fn who_mistypes_a_service_is_told_which_is_near() {
    let (only, near) = ("reveiws".parse().unwrap(), format!("{HOST}:80"));
    let routes = routes::Report::of(&traffic(), &services(), Some(&only));
    let endpoints = endpoints::Report::of(&traffic(), &services(), Some(&only));

    let said = format!("no service is known as reveiws; near: {near}\n");
    assert!(routes.to_text().ends_with(&said) && endpoints.to_text().ends_with(&said));
    assert!(!routes.to_text().contains("there is no"), "that is not all");
    let json = serde_json::to_value(&routes).unwrap();
    assert_eq!(json["not_known"], serde_json::json!([{"name": "reveiws", "near": [near]}]));
    let all = serde_json::to_value(routes::Report::of(&traffic(), &services(), None)).unwrap();
    assert_eq!(all.get("not_known"), None, "as if nobody had thought of it");

    // Who has sent nothing is known all the same, by the documents and by who is connected.
    let filter = filter(&["--from", "shop/wbe", "--to", "shop/reviews-2"]);
    let mut known = Known::of(&services());
    known.add_traffic(&traffic());
    let not_known = filter.not_known(&known, Kinds::Workloads);
    let [from] = &not_known[..] else { panic!("{not_known:?}") };
    assert_eq!(from.to_string(), "no workload is known as shop/wbe; near: shop/web");
}

#[test]
fn an_endpoint_is_shown_with_its_load_and_with_who_ejects_it() {
    let report = endpoints::Report::of(&traffic(), &services(), None);

    let [one, two] = &report.endpoints[..] else { panic!("{:?}", report.endpoints) };
    assert_eq!((one.out.len(), one.requests.as_ref().unwrap().count), (0, 95));
    assert_eq!((two.out[0].why.as_str(), two.out[0].seconds_left), ("consecutive-5xx", Some(12)));
    assert!(two.requests.is_none());
}

#[test]
fn the_guide_for_programs_names_all_that_is_said() {
    let mut traffic = traffic();
    traffic.missing.unknown.insert("control-plane-1".to_owned(), "no answer in 30 s".to_owned());
    let well = workload("reviews", vec![(inbound(Some("web")), counts(90, 0))]);
    traffic.workloads.insert("shop/reviews-1".parse().unwrap(), well);
    let mut stream = (Edge { carried: Carried::Tcp, ..inbound(Some("web")) }, Counts::default());
    stream.1.connections = 1;
    let slow = workload("reviews", vec![stream, (inbound(None), slow_counts())]);
    traffic.workloads.insert("shop/reviews-2".parse().unwrap(), slow);
    let mut services = services();
    let only: Party = "nobody".parse().unwrap();
    services.out[0].address = "10.0.0.9:8080".parse().unwrap();

    let stat = stat::Report::of(&traffic, By::Workload, &filter(&[]));
    is_documented("stat", &stat);
    is_documented("top", &stat);
    is_documented("edges", &edges::Report::of(&traffic, &services, &filter(&[]), true));
    let edges = edges::Report::of(&of_reasons(), &services, &filter(&[]), true);
    is_documented("edges", &edges);
    services.services[0].routes[0].clients = Some("shop".into());
    services.services[0].routes[0].backends[0].broken = Some("nobody".to_owned());
    is_documented("routes", &routes::Report::of(&traffic, &services, None));
    is_documented("routes", &routes::Report::of(&traffic, &services, Some(&only)));
    let report = endpoints::Report::of(&traffic, &services, None);
    assert!(report.endpoints.iter().any(|row| row.slow.is_some()), "{report:?}");
    is_documented("endpoints", &report);
    let since = Some(SystemTime::UNIX_EPOCH);
    services.absent = vec![AbsentShown { workload: "shop/reviews-1".parse().unwrap(), since }];
    is_documented("endpoints", &endpoints::Report::of(&of_reasons(), &services, None));
}

/// A few requests that take long.
fn slow_counts() -> Counts {
    let mut counts = Counts::default();
    counts.ended(&Outcome { status: Some(200), ..Outcome::default() }, 8);
    counts.latencies.note(bucket_of(Duration::from_secs(2)), 8);
    counts
}

/// What a client's sidecar could not deliver.
fn of_reasons() -> Traffic {
    let mut counts = Counts::default();
    let reason = Some("connect-failure".into());
    counts.ended(&Outcome { status: Some(503), grpc_status: None, reason }, 3);
    let workloads = [("shop/web".parse().unwrap(), workload("web", vec![(edge("v1", true), counts)]))];
    Traffic { seconds: 60, workloads: workloads.into(), ..Traffic::default() }
}

#[test]
fn an_endpoint_is_healthy_only_if_what_comes_to_it_succeeds() {
    let state = |ok: u64, failed: u64, is_out: bool| {
        let edges =
            if ok + failed > 0 { vec![(inbound(Some("web")), counts(ok, failed))] } else { Vec::new() };
        let workloads = [("shop/reviews-1".parse().unwrap(), workload("reviews", edges))].into();
        let traffic = Traffic { seconds: 60, workloads, ..Traffic::default() };
        let mut services = services();
        let out = services.out.pop().unwrap();
        services.out.extend(is_out.then(|| OutShown { address: "10.0.0.1:8080".parse().unwrap(), ..out }));
        services.services[0].endpoints[1].identity = None;
        let report = endpoints::Report::of(&traffic, &services, None);
        assert_eq!(report.endpoints[1].state, endpoints::State::Unknown, "nobody counts what it gets");
        let text = report.to_text();
        let state = report.endpoints[0].state;
        assert!(state == endpoints::State::Out || text.contains(state.word()), "{text}");
        assert!(ok + failed == 0 || failed == 0 || !text.contains("healthy"), "{text}");
        state
    };

    assert_eq!(state(0, 0, false), endpoints::State::Idle);
    assert_eq!(state(100, 0, false), endpoints::State::Healthy);
    assert_eq!(state(98, 2, false), endpoints::State::SomeFailures);
    assert_eq!(state(0, 5, false), endpoints::State::Failing);
    assert_eq!(state(0, 5, true), endpoints::State::Out);
}

#[test]
fn an_endpoint_whose_sidecar_is_gone_is_not_healthy_whatever_that_has_told_before() {
    let edges = vec![(inbound(Some("web")), counts(100, 0))];
    let mut unreached = Counts::default();
    for (reason, count) in [("connect-failure", 28), ("reset", 2)] {
        let status = Some(if reason == "reset" { 502 } else { 503 });
        unreached.ended(&Outcome { status, grpc_status: None, reason: Some(reason.into()) }, count);
    }
    unreached.ended(&Outcome { status: Some(500), ..Outcome::default() }, 10);
    let workloads = [
        ("shop/reviews-1".parse().unwrap(), workload("reviews", edges)),
        ("shop/web".parse().unwrap(), workload("web", vec![(edge("v1", true), unreached)])),
    ];
    let traffic = Traffic { seconds: 60, workloads: workloads.into(), ..Traffic::default() };
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_046_046);
    let absent = |since| vec![AbsentShown { workload: "shop/reviews-1".parse().unwrap(), since }];
    let services = |since| ServicesShown { out: Vec::new(), absent: absent(since), ..services() };
    let report = endpoints::Report::of(&traffic, &services(Some(since)), None);

    assert_eq!(report.endpoints[0].state, endpoints::State::NotConnected);
    assert!(!report.is_well());
    let text = report.to_text();
    for words in [
        "its sidecar is not connected",
        "10.0.0.1:8080 has no sidecar that is connected, since 2026-11-30T13:40:46Z: if it has ended, nobody answers there",
        "reviews.shop.svc.cluster.local:80: 30 of 40 requests got no whole answer from an app: connect-failure 28, reset 2",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("healthy"), "{text}");
    let mut services = services(None);
    let out = OutShown {
        by: "shop/web".parse().unwrap(),
        host: HOST.into(),
        port: 80,
        subset: None,
        address: "10.0.0.1:8080".parse().unwrap(),
        seconds_left: Some(12),
        why: "consecutive-5xx".into(),
        last_failure: "connect-failure".into(),
    };
    services.out = vec![out];
    let text = endpoints::Report::of(&traffic, &services, None).to_text();
    for words in ["out for 1 client", "since the control plane started"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn names_that_a_sidecar_may_have_made_up_are_one_beyond_its_busiest() {
    let to = |host: &str, count| (Edge { host: host.into(), ..edge("", true) }, counts(count, 0));
    let mut edges: Vec<_> = (1..=80_u64).map(|number| to(&format!("made-up-{number}"), number)).collect();
    edges.extend([to(HOST, 1), to("a.example.com", 1)]);
    let mut services = services();
    let wildcard = ServiceShown { host: "*.example.com".into(), ..services.services[0].clone() };
    services.services.push(wildcard);
    let workloads = [
        ("shop/loud".parse().unwrap(), workload("web", edges)),
        ("shop/web".parse().unwrap(), workload("web", vec![to("gone", 1)])),
    ];
    let mut traffic = Traffic { seconds: 60, workloads: workloads.into(), ..Traffic::default() };

    let folded = traffic.fold_undeclared(&services);

    assert_eq!(folded, [("shop/loud".parse().unwrap(), 30)]);
    let loud = &traffic.workloads[&"shop/loud".parse().unwrap()].edges;
    let count = |host: &str| loud.iter().find(|one| &*one.edge.host == host).map(|one| one.counts.ends());
    assert_eq!((loud.len(), count("unknown")), (53, Some((1..=30).sum())), "the busiest stay");
    assert_eq!((count(HOST), count("a.example.com"), count("made-up-31")), (Some(1), Some(1), Some(31)));
    assert_eq!((count("made-up-30"), traffic.fold_undeclared(&services).len()), (None, 0));
    assert_eq!(&*traffic.workloads[&"shop/web".parse().unwrap()].edges[0].edge.host, "gone");
}

/// What the sidecar of a client tells of one endpoint: so many attempts were refused of so many.
fn refused(address: &str, refused: u64, attempts: u64) -> EndpointTraffic {
    EndpointTraffic {
        host: HOST.into(),
        port: 80,
        subset: None,
        address: address.parse().unwrap(),
        attempts,
        failures: BTreeMap::from([("connect-refused".into(), refused)]),
        failing_seconds: 90,
    }
}

/// The traffic of clients, each with what it tells of endpoints.
fn failing(clients: &[(&str, Vec<EndpointTraffic>)]) -> Traffic {
    let of = |(name, endpoints): &(&str, Vec<EndpointTraffic>)| {
        let endpoints = endpoints.clone();
        (name.parse().unwrap(), WorkloadTraffic { endpoints, ..workload("web", Vec::new()) })
    };
    let seen = TrafficSeen {
        kept_seconds: 3600,
        workloads: clients.iter().map(of).collect(),
        ..TrafficSeen::default()
    };
    Traffic::of(60, vec![seen], BTreeMap::new())
}

#[test]
fn the_one_endpoint_is_found_that_fails_for_its_clients() {
    let (bad, subset) = (refused("10.0.0.1:8080", 6, 10), Some("v1".into()));
    let clients = [
        ("shop/web", vec![bad.clone(), EndpointTraffic { subset, ..refused("10.0.0.1:8080", 1, 10) }]),
        ("shop/cart", vec![refused("10.0.0.1:8080", 1, 10), refused("10.9.9.9:1", 2, 2)]),
    ];
    let services = ServicesShown { out: Vec::new(), ..services() };

    let report = endpoints::Report::of(&failing(&clients), &services, None);

    let [one, other] = &report.endpoints[..] else { panic!("{:?}", report.endpoints) };
    assert_eq!((one.state, other.state), (endpoints::State::Failing, endpoints::State::Idle));
    let seen = one.failing.as_ref().expect("it fails");
    assert_eq!((seen.attempts, seen.failures, seen.clients), (20, 8, 2), "subsets are of the same attempts");
    assert_eq!((seen.reasons["connect-refused"], seen.most_by[0].failures), (8, 7));
    let text = report.to_text();
    for words in [
        "10.0.0.1:8080 fails for 2 clients since ",
        ": 8 of their 20 attempts: connect-refused 8 (shop/web, shop/cart)",
        "reviews.shop.svc.cluster.local:80: 2 more attempts failed at 1 addresses",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    is_documented("endpoints", &report);
}

#[test]
fn a_name_whose_addresses_only_sidecars_know_shows_those_at_which_something_fails() {
    let mut services = ServicesShown { out: Vec::new(), ..services() };
    services.services[0].endpoints.clear();
    let traffic =
        failing(&[("shop/web", vec![refused("10.0.0.1:8080", 1, 9), refused("10.0.0.2:8080", 5, 9)])]);

    let report = endpoints::Report::of(&traffic, &services, None);

    let addresses: Vec<String> = report.endpoints.iter().map(|row| row.address.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.2:8080", "10.0.0.1:8080"], "the worst first");
    assert!(report.elsewhere.is_empty());
}

#[test]
fn what_two_replicas_were_told_of_an_endpoint_is_added_up() {
    let told = || TrafficSeen {
        kept_seconds: 3600,
        workloads: failing(&[("shop/web", vec![refused("10.0.0.1:8080", 2, 10)])]).workloads,
        ..TrafficSeen::default()
    };
    let all = Traffic::of(60, vec![told(), told()], BTreeMap::new());

    let one = &all.workloads[&"shop/web".parse().unwrap()].endpoints;
    assert_eq!((one.len(), one[0].attempts, one[0].failed(), one[0].failing_seconds), (1, 20, 4, 90));
}

#[test]
fn a_control_plane_that_has_just_started_waits_for_sidecars_and_says_so() {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_046_046);
    let absent = |since| vec![AbsentShown { workload: "shop/reviews-1".parse().unwrap(), since }];
    let of = |since, starting| {
        let services = ServicesShown { out: Vec::new(), absent: absent(since), starting, ..services() };
        endpoints::Report::of(&Traffic::default(), &services, None)
    };
    let starting = Some(Starting { at, seconds_left: 24 });

    let early = of(None, starting);
    assert_eq!(early.endpoints[0].state, endpoints::State::Awaited);
    assert!(!early.is_well() && early.is_early());
    let text = early.to_text();
    assert!(
        text.contains("the sidecars of 1 of 2 endpoints may still be coming back, for 24 s at most"),
        "{text}"
    );
    is_documented("endpoints", &early);

    for late in [of(None, None), of(Some(at + Duration::from_secs(5)), starting)] {
        assert_eq!(late.endpoints[0].state, endpoints::State::NotConnected);
        assert!(!late.is_well() && !late.is_early());
    }
    let empty = ServicesShown { starting, ..ServicesShown::default() };
    let empty = endpoints::Report::of(&Traffic::default(), &empty, None);
    assert!(empty.is_early() && empty.to_text().contains("no service yet"), "{}", empty.to_text());
}

#[test]
fn who_is_connected_to_another_replica_or_may_be_is_not_absent() {
    let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let told = |names: &[(&str, Option<SystemTime>)]| ServicesShown {
        absent: names
            .iter()
            .map(|(name, since)| AbsentShown { workload: name.parse().unwrap(), since: *since })
            .collect(),
        is_in_cluster: true,
        ..ServicesShown::default()
    };
    let one = told(&[("shop/a", at(5)), ("shop/b", None), ("shop/c", at(9))]);
    let other = told(&[("shop/a", at(7)), ("shop/c", None)]);

    let all = all_services([one.clone(), other.clone()].into_iter(), true);
    assert_eq!(all.absent, told(&[("shop/a", at(7)), ("shop/c", at(9))]).absent);
    assert!(all_services([one.clone(), other].into_iter(), false).surely_absent().is_empty());
    let alone = ServicesShown { is_in_cluster: false, ..one };
    assert_eq!(
        all_services([alone].into_iter(), false).surely_absent().len(),
        3,
        "there is no other replica"
    );
}

#[test]
fn what_was_sent_nowhere_is_no_plaintext() {
    let unsent = |count| {
        let mut counts = Counts::default();
        let reason = Some("no-endpoint".into());
        counts.ended(&Outcome { status: Some(503), grpc_status: None, reason }, count);
        counts
    };
    let of = |edges| {
        let workloads = [("shop/web".parse().unwrap(), workload("web", edges))].into();
        Traffic { seconds: 60, workloads, ..Traffic::default() }
    };
    let report = |edges| edges::Report::of(&of(edges), &services(), &filter(&[]), false);

    let together = report(vec![(edge("v1", true), counts(5, 0)), (edge("", false), unsent(2))]);
    let [row] = &together.edges[..] else { panic!("{:?}", together.edges) };
    assert_eq!((row.secured, row.requests.as_ref().unwrap().count), (Secured::MutualTls, 7));
    assert_eq!(row.requests.as_ref().unwrap().mtls_percent, Some(100.0));
    let alone = report(vec![(edge("", false), unsent(2))]);
    // Nobody knows how they would have gone: no number, for programs neither.
    let said = serde_json::to_value(&alone.edges[0].requests).unwrap();
    assert_eq!((&said["count"], said.get("mtls_percent")), (&2.into(), None), "{said}");
    assert_eq!((alone.edges[0].secured, alone.edges[0].mtls), (Secured::NotSent, false));
    let plain = report(vec![(edge("", false), counts(1, 0)), (edge("", true), counts(3, 0))]);
    assert_eq!(
        plain.edges.iter().map(|row| row.secured).collect::<Vec<_>>(),
        [Secured::MutualTls, Secured::Plaintext]
    );
}

#[test]
fn a_servers_row_is_shown_where_the_clients_is_not() {
    let seen = |traffic: Traffic, words: &[&str]| {
        let report = edges::Report::of(&traffic, &services(), &filter(words), false);
        report.edges.iter().map(|row| (row.seen_by, row.requests.as_ref().unwrap().count)).collect::<Vec<_>>()
    };
    assert_eq!(seen(traffic(), &[]), [(SeenBy::Client, 90), (SeenBy::Server, 5)]);
    assert_eq!(
        seen(traffic(), &["--to", "shop/reviews-1"]),
        [(SeenBy::Server, 5), (SeenBy::Server, 90)],
        "the filter hides what the client says"
    );

    let mut silent = traffic();
    silent.workloads.get_mut(&"shop/web".parse().unwrap()).unwrap().edges.clear();
    assert_eq!(
        seen(silent, &[]),
        [(SeenBy::Server, 5), (SeenBy::Server, 90)],
        "an older sidecar tells of nothing"
    );
}

#[test]
fn a_filter_finds_where_routes_lead_and_an_edge_names_all_who_may_answer() {
    let mut services = services();
    let mut other = services.services[0].clone();
    other.host = "ratings.shop.svc.cluster.local".into();
    other.endpoints[0].identity = Some("spiffe://cluster.local/ns/shop/sa/ratings".parse().unwrap());
    other.endpoints.truncate(1);
    services.services.push(other);
    let elsewhere = Edge { backend: "ratings.shop.svc.cluster.local:80".into(), ..edge("", true) };
    let edges = vec![(edge("v1", true), counts(1, 0)), (elsewhere, counts(2, 0))];
    let workloads: BTreeMap<_, _> = [("shop/web".parse().unwrap(), workload("web", edges))].into();
    let of = |words: &[&str]| {
        let traffic = Traffic { seconds: 60, workloads: workloads.clone(), ..Traffic::default() };
        edges::Report::of(&traffic, &services, &filter(words), false).edges
    };

    let all = of(&[]);
    assert_eq!((all.len(), all[0].server_identities.len()), (1, 2));
    assert_eq!(of(&["--to", "ratings"])[0].requests.as_ref().unwrap().count, 2);
}

#[test]
fn no_sum_of_what_sidecars_say_overflows() {
    let most = || {
        let mut counts = Counts { connections: u64::MAX, ..Counts::default() };
        counts.ended(&Outcome { status: Some(200), ..Outcome::default() }, u64::MAX);
        counts
    };
    let edges = ["v1", "v2"].map(|subset| (edge(subset, true), most()));
    let mut one = workload("web", edges.into());
    one.left_out = 7;
    let workloads = [("shop/web".parse().unwrap(), one)].into();
    let seen = TrafficSeen { workloads, ..TrafficSeen::default() };
    let traffic = || Traffic::of(60, vec![seen.clone(), seen.clone()], BTreeMap::new());

    assert_eq!(routes::Report::of(&traffic(), &services(), None).routes.len(), 2);
    let text = stat::Report::of(&traffic(), By::Service, &filter(&[])).to_text();
    assert!(text.contains("shop/web says 7 of them"), "{text}");
}

#[test]
fn no_gate_passes_by_what_a_replica_does_not_tell() {
    let mut traffic = traffic();
    // Who is called in plaintext.
    traffic.workloads.retain(|name, _| name.name() != "reviews-1");
    let pass = |traffic: &Traffic| {
        let stat = stat::Report::of(traffic, By::Service, &filter(&[]));
        let edges = edges::Report::of(traffic, &services(), &filter(&[]), false);
        let mut services = services();
        services.out.clear();
        let endpoints = endpoints::Report::of(traffic, &services, None);
        (stat.succeeds(0.0), edges.is_secured(), endpoints.is_well())
    };
    assert_eq!(pass(&traffic), (true, true, true));

    traffic.missing.unknown.insert("control-plane-1".to_owned(), "no answer in 30 s".to_owned());

    assert_eq!(pass(&traffic), (false, false, false));
}
