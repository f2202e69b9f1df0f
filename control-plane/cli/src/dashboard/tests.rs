//! Pages of facts that are made up: hostile names, and a mesh of a hundred services.
//!
//! To look at them: `SELVEDGE_PAGES=DIR cargo nextest run -p selvedge-cli dashboard::tests` writes each into that directory.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use selvedge_control_plane::status::{
    AbsentShown, Config, EdgeTraffic, EndpointShown, HistoryKey, HistoryLine, HistoryPoint, HistorySeen,
    Life, OutShown, PieceOfTime, Purpose, RouteShown, SeenTraffic, ServiceShown, ServicesShown, ShareShown,
    TrafficSeen, WorkloadTraffic,
};
use selvedge_model::{
    WorkloadName,
    traffic::{Carried, Counts, Edge, Outcome, Way, bucket_of},
};
use serde_json::json;

use super::{
    assets,
    facts::Facts,
    frame,
    page::{Asked, Page, service_named},
    told::{Bad, Found, Told, Wanted},
};

/// Text that would do something if it were not escaped.
const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>";

const NAMESPACES: [&str; 8] = ["edge", "shop", "cart", "billing", "search", "identity", "data", "ops"];

fn wanted() -> Wanted {
    Wanted { since: 60, matrix: true, often: false }
}

fn asked() -> Asked {
    Asked { since: 60, namespace: None, focus: None, other_time: None }
}

fn host(service: usize) -> String {
    format!("svc-{service:02}.{}.svc.cluster.local", NAMESPACES[service % NAMESPACES.len()])
}

fn workload(service: usize) -> WorkloadName {
    WorkloadName::new(NAMESPACES[service % NAMESPACES.len()], &format!("svc-{service:02}-7f9c4")).unwrap()
}

fn edge(host: &str, subset: &str, mtls: bool) -> Edge {
    Edge {
        way: Way::Outbound,
        carried: Carried::Http,
        host: host.into(),
        port: 8080,
        route: "".into(),
        subset: subset.into(),
        backend: "".into(),
        mtls,
        client: None,
    }
}

fn counts(ok: u64, failed: u64, millis: u64) -> Counts {
    let mut counts = Counts::default();
    for (status, count) in [(200, ok), (503, failed)] {
        if count > 0 {
            counts.ended(&Outcome { status: Some(status), ..Outcome::default() }, count);
        }
        counts.latencies.note(bucket_of(Duration::from_millis(millis)), count);
    }
    counts
}

/// Whom each service calls: a tree of a kind, with some calls across and one back.
fn callees(service: usize, count: usize) -> Vec<usize> {
    let mut callees: Vec<usize> =
        [service * 3 + 1, service * 3 + 2, service * 2 + 7].into_iter().filter(|one| *one < count).collect();
    if service % 11 == 5 {
        callees.push((service + 40) % count);
    }
    callees.retain(|one| *one != service);
    callees.sort_unstable();
    callees.dedup();
    callees
}

fn history(hosts: impl Iterator<Item = String>) -> HistorySeen {
    let coarse = (0..58).map(|minute| PieceOfTime { began: 3_600 - minute * 60, seconds: 60 });
    let fine = (0..4).map(|half| PieceOfTime { began: 120 - half * 30, seconds: 30 });
    let pieces: Vec<PieceOfTime> = coarse.chain(fine).collect();
    let mut lines = Vec::new();
    for (number, host) in hosts.enumerate() {
        for (subset, share) in [("v1", 8), ("v2", 2)] {
            let point = |place: usize, piece: &PieceOfTime| {
                let wave = (((place + number * 7) as f64 / 9.0).sin() + 1.6) * 20.0 * piece.seconds as f64;
                let count = wave as u64 * share / 10;
                let failures = if number == 3 && place > 45 { count / 3 } else { 0 };
                let mut latencies = selvedge_model::traffic::Latencies::default();
                latencies.note(bucket_of(Duration::from_millis(8 + place as u64 % 7)), count * 9 / 10);
                latencies.note(bucket_of(Duration::from_millis(60 + 5 * (place as u64 % 11))), count / 10);
                (place, HistoryPoint { count, ended: count, failures, latencies })
            };
            let to = HistoryKey {
                host: host.as_str().into(),
                port: 8080,
                carried: Carried::Http,
                backend: "".into(),
                subset: subset.into(),
            };
            let points = pieces.iter().enumerate().map(|(place, piece)| point(place, piece)).collect();
            lines.push(HistoryLine { to, points });
        }
    }
    HistorySeen { known_seconds: 3_600, pieces, lines, left_out: 0 }
}

fn service_shown(service: usize) -> ServiceShown {
    let host: Arc<str> = host(service).into();
    let share = |subset: &str, percent| ShareShown {
        host: Arc::clone(&host),
        port: 8080,
        subset: Some(subset.into()),
        percent,
        broken: None,
    };
    let name = workload(service);
    ServiceShown {
        port: 8080,
        routes: vec![RouteShown {
            name: format!("VirtualService {}/svc-{service:02} http[0]", name.namespace()),
            is_tcp: false,
            clients: None,
            labels: None,
            backends: vec![share("v1", 80), share("v2", 20)],
        }],
        endpoints: vec![EndpointShown {
            address: ([10, 0, 0, u8::try_from(service).unwrap()], 8080).into(),
            workload: Some(name.clone()),
            identity: Some(
                format!("spiffe://cluster.local/ns/{}/sa/svc-{service:02}", name.namespace())
                    .parse()
                    .unwrap(),
            ),
        }],
        host,
    }
}

/// A mesh of so many services, some of which do not do well.
fn large(count: usize) -> Told {
    let mut workloads = BTreeMap::new();
    for service in 0..count {
        let mut edges = Vec::new();
        for callee in callees(service, count) {
            let (ok, failed) = match callee % 17 {
                3 => (700, 300),
                9 => (980, 20),
                _ => (1_000 + 900 * (callee as u64 % 5), 0),
            };
            let all = counts(ok, failed, 5 + callee as u64);
            edges.push(EdgeTraffic { edge: edge(&host(callee), "", callee % 13 != 4), counts: all });
        }
        let name = workload(service);
        let identity = format!("spiffe://cluster.local/ns/{}/sa/svc-{service:02}", name.namespace());
        let one = WorkloadTraffic {
            identity: identity.parse().unwrap(),
            seconds: 60,
            edges,
            left_out: 0,
            endpoints: Vec::new(),
            endpoints_left_out: 0,
        };
        workloads.insert(name, one);
    }
    let proxy = |service: usize| {
        json!({
            "workload": workload(service).to_string(),
            "identity": format!("spiffe://cluster.local/ns/shop/sa/svc-{service:02}"),
            "proof": "proven",
            "certificate_serial": format!("{:02x}", service + 1),
            "address": "10.0.0.1:40000",
            "proxy_version": "0.1.0",
            "connected_at": "2026-11-28T10:00:00Z",
            "certificate_expires_at": "2036-11-28T12:00:00Z",
            "authorities": [],
            "holds": {},
            "acknowledged": 1,
            "under_way": null,
            "configuration_version": if service == 4 { 6 } else { 7 },
            "configuration_at": "2026-11-28T11:00:00Z",
            "memory_bytes": (9 << 20) + (service << 16),
            "refused": null,
        })
    };
    let proxies: Vec<_> = (0..count).map(proxy).collect();
    let config: Config = serde_json::from_value(json!({
        "configuration_version": 7,
        "proxies": proxies,
        "expected": (0..=count).map(|one| workload(one).to_string()).collect::<Vec<_>>(),
        "trust_roots": ["ab12"],
        "certificates": {"root": {"not_before": "2026-01-01T00:00:00Z", "not_after": "2036-01-01T00:00:00Z"}},
    }))
    .unwrap();
    let out = OutShown {
        by: workload(0),
        host: host(3).into(),
        port: 8080,
        subset: None,
        address: "10.0.0.3:8080".parse().unwrap(),
        seconds_left: Some(12),
        why: "consecutive-5xx".into(),
        last_failure: "503".into(),
    };
    let problem = |severity, line, message: &str| Found {
        severity,
        document: Some("VirtualService shop/reviews".to_owned()),
        path: Some("/etc/mesh/routes.yaml".to_owned()),
        line: Some(line),
        field: "spec.http[0].route".to_owned(),
        message: message.to_owned(),
    };
    Told {
        replica: "selvedge-control-plane-0".to_owned(),
        is_in_cluster: true,
        version: "0.1.0".to_owned(),
        memory_bytes: Some(48 << 20),
        traffic: TrafficSeen { since_seconds: 60, kept_seconds: 3_600, dropped: 0, workloads },
        history: history((0..count).map(host)),
        services: ServicesShown {
            services: (0..count).map(service_shown).collect(),
            out: vec![out],
            absent: vec![AbsentShown { workload: workload(count), since: None }],
            ..ServicesShown::default()
        },
        config,
        problems: vec![
            problem(Bad::Error, 12, "names the subset v3, which no DestinationRule defines"),
            problem(Bad::NotActedOn, 30, "is read over"),
        ],
        problems_left_out: 0,
        seen: SeenTraffic::default(),
        matrix: None,
        left_out: Vec::new(),
    }
}

/// The same with hostile text wherever somebody else may write it.
fn hostile() -> Told {
    let mut told = large(3);
    told.replica = HOSTILE.to_owned();
    told.version = HOSTILE.to_owned();
    for problem in &mut told.problems {
        (problem.document, problem.path) = (Some(HOSTILE.to_owned()), Some(HOSTILE.to_owned()));
        (problem.field, problem.message) = (HOSTILE.to_owned(), HOSTILE.to_owned());
    }
    for proxy in &mut told.config.proxies {
        proxy.proxy_version = HOSTILE.to_owned();
    }
    for (name, one) in &mut told.traffic.workloads {
        let mut edge = edge(HOSTILE, HOSTILE, name.namespace() == "edge");
        (edge.route, edge.backend) = (HOSTILE.into(), HOSTILE.into());
        let mut counts = counts(1, 0, 1);
        counts.ended(&Outcome { status: None, grpc_status: None, reason: Some(HOSTILE.into()) }, 5);
        one.edges.push(EdgeTraffic { edge, counts });
    }
    let mut line = told.history.lines[0].clone();
    (line.to.host, line.to.backend, line.to.subset) = (HOSTILE.into(), HOSTILE.into(), HOSTILE.into());
    told.history.lines.push(line);
    let mut service = service_shown(0);
    service.host = HOSTILE.into();
    for route in &mut service.routes {
        route.name = HOSTILE.to_owned();
        for share in &mut route.backends {
            (share.host, share.subset) = (HOSTILE.into(), Some(HOSTILE.into()));
            share.broken = Some(HOSTILE.to_owned());
        }
    }
    told.services.services.push(service);
    for out in &mut told.services.out {
        (out.host, out.why, out.last_failure) = (HOSTILE.into(), HOSTILE.into(), HOSTILE.into());
    }
    told
}

fn facts(told: Told) -> Facts {
    Facts::of(wanted(), vec![(told.replica.clone(), told)], BTreeMap::new(), false)
}

fn all_pages(service: &str) -> Vec<Page> {
    Page::MENU.into_iter().chain([service_named(service).unwrap()]).collect()
}

/// Each page, written into the directory of somebody who wants to look at it.
fn drawn(name: &str, page: &Page, asked: &Asked, facts: &Facts) -> String {
    let text = frame::whole(page, asked, facts).0;
    if let Some(directory) = std::env::var_os("SELVEDGE_PAGES").map(PathBuf::from) {
        fs::create_dir_all(&directory).unwrap();
        let style = assets::url("style.css");
        let local = text.replace(&style, "style.css");
        fs::write(directory.join(format!("{name}-{}.html", page.word())), local).unwrap();
    }
    text
}

#[test]
fn what_others_write_is_text_wherever_it_is_shown() {
    let facts = facts(hostile());
    for page in all_pages(&format!("{HOSTILE}:8080")) {
        let text = drawn("hostile", &page, &asked(), &facts);
        for tag in ["<script>", "<img", "onerror=alert(2)>", "\"'>"] {
            assert!(!text.contains(tag), "{tag} on {page:?}");
        }
        let names = text.matches("alert(1)").count();
        assert!(names > 0 || page == Page::Policies, "{page:?} shows none of it");
        // Nor is there any script or style in the page itself, which the policy would refuse.
        assert_eq!((text.matches("<script").count(), text.matches("style=").count()), (1, 0), "{page:?}");
        assert!(!text.contains("javascript:") && !text.contains(" onload"), "{page:?}");
    }
    let plain = frame::plain(HOSTILE, HOSTILE).0;
    assert!(!plain.contains("<img"), "{plain}");
}

#[test]
fn a_mesh_of_a_hundred_services_is_drawn_in_bounded_size() {
    let facts = facts(large(100));
    for page in all_pages(&format!("{}:8080", host(3))) {
        let text = drawn("large", &page, &asked(), &facts);
        assert!(text.len() < 1_500_000, "{page:?} has {} bytes", text.len());
    }
    let map = drawn("large", &Page::Topology, &asked(), &facts);
    let edges: usize = (0..100).map(|one| callees(one, 100).len()).sum();
    let flows = |text: &str| text.matches("class=\"hit\"").count();
    assert_eq!(flows(&map), edges);
    let talks = |one: &usize| {
        !callees(*one, 100).is_empty() || (0..100).any(|other| callees(other, 100).contains(one))
    };
    let nodes = (0..100).filter(talks).count();
    assert_eq!(map.matches("data-node=").count(), nodes);
    assert!(nodes > 90);
    // Who only calls others is called by nobody.
    let is_silent = |one: &usize| !(0..100).any(|other| callees(other, 100).contains(one));
    let told = |silent: usize| {
        let services = if silent == 1 { "service" } else { "services" };
        format!(">{silent} {services} that nobody has called")
    };
    assert!(map.contains(&told((0..100).filter(is_silent).count())));
    let namespace = Asked { namespace: Some("cart".to_owned()), ..asked() };
    let part = frame::whole(&Page::Topology, &namespace, &facts).0;
    assert!((1..edges).contains(&flows(&part)));
    let of_cart = |one: &usize| NAMESPACES[*one % NAMESPACES.len()] == "cart";
    assert!(part.contains(&told((0..100).filter(of_cart).filter(is_silent).count())));
    let focus = Asked { focus: Some(host(3)), ..asked() };
    let part = drawn("focus", &Page::Topology, &focus, &facts);
    let beside = callees(3, 100).len() + (0..100).filter(|one| callees(*one, 100).contains(&3)).count();
    assert_eq!(flows(&part), beside);
}

#[test]
fn what_is_not_known_is_said_and_not_shown_as_if_it_were_empty() {
    let facts = facts(large(10));
    let said = |page: &Page, asked: &Asked| {
        let text = frame::whole(page, asked, &facts).0;
        let note = text.split_once("<p class=\"note warn\">").map(|(_, rest)| rest);
        note.map(|rest| rest.split_once("</p>").unwrap().0.to_owned())
    };
    let of = |namespace: &str| Asked { namespace: Some(namespace.to_owned()), ..asked() };

    for page in [Page::Topology, Page::Policies] {
        assert_eq!(said(&page, &of("cart")), None);
        let unknown = said(&page, &of("carts"));
        assert_eq!(unknown.as_deref(), Some("No namespace <b>carts</b> is known. Near: cart."), "{page:?}");
        assert_eq!(said(&page, &of("zzz")).as_deref(), Some("No namespace <b>zzz</b> is known."));
    }
    let whole = said(&Page::Overview, &of("cart")).unwrap();
    assert!(whole.starts_with("This page is of all namespaces, and not of <b>cart</b>"), "{whole}");
    let focus = |host: String| Asked { focus: Some(host), ..asked() };
    assert_eq!(said(&Page::Topology, &focus(host(3))), None);
    let unknown = said(&Page::Topology, &focus("nobody".to_owned())).unwrap();
    assert!(unknown.starts_with("No document declares a service <b>nobody</b>"), "{unknown}");
    let time = Asked { other_time: Some("7m".to_owned()), ..asked() };
    let said = said(&Page::Overview, &time).unwrap();
    assert!(said.ends_with("can be chosen are 1m, 5m, 15m, 1h."), "{said}");
}

#[test]
fn what_fails_stands_first_and_says_so_without_its_colour() {
    let facts = facts(large(100));
    let text = drawn("large", &Page::Overview, &asked(), &facts);

    let (attention, rest) = text.split_once("</section>").unwrap();
    assert!(attention.contains("Needs attention") && attention.contains("70.00 %"), "{attention}");
    assert!(attention.contains("✕") && attention.contains(">failing<"));
    let table = rest.split_once("<tbody>").unwrap().1;
    assert!(table.starts_with("<tr class=\"bad\">"), "{}", &table[..200]);
}

#[test]
fn a_root_needs_attention_long_before_it_ends_and_an_issuer_that_ends_with_it_does_not() {
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let root = Life { not_before: now - 3_000 * day, not_after: now + 30 * day };
    let mut told = large(3);
    told.config.certificates = BTreeMap::from([(Purpose::Root, root), (Purpose::Issuer, root)]);

    let text = frame::whole(&Page::Overview, &asked(), &facts(told)).0;
    let attention = text.split_once("</section>").unwrap().0;
    assert!(attention.contains("(root) ends in") && !attention.contains("(issuer)"), "{attention}");
}

/// What comes to a service's workload, as its own sidecar tells it.
fn serve(told: &mut Told, service: usize, mtls: bool, counts: Counts) {
    let client = mtls.then(|| "spiffe://cluster.local/ns/edge/sa/svc-00".parse().unwrap());
    let edge = Edge { way: Way::Inbound, client, ..edge("", "", mtls) };
    told.traffic.workloads.get_mut(&workload(service)).unwrap().edges.push(EdgeTraffic { edge, counts });
}

#[test]
fn an_endpoint_that_fails_is_named_at_once_even_if_retries_hide_it_and_is_not_called_healthy() {
    let mut told = large(3);
    told.is_in_cluster = false;
    told.services.out.clear();
    serve(&mut told, 1, true, counts(0, 40, 5));
    serve(&mut told, 2, true, counts(40, 0, 5));
    let proxies = &mut told.config.proxies;
    proxies.retain(|proxy| proxy.workload != workload(2));
    let since = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_046_046));
    told.services.absent.push(AbsentShown { workload: workload(2), since });
    let facts = facts(told);

    let text = frame::whole(&Page::Overview, &asked(), &facts).0;
    let attention = text.split_once("</section>").unwrap().0;
    assert!(attention.contains("svc-01-7f9c4 fails: 40 of 40 requests"), "{attention}");
    assert!(!attention.contains("svc-02-7f9c4 fails"), "{attention}");
    let named = "are not connected: billing/svc-03-7f9c4, cart/svc-02-7f9c4 (since 2026-11-30T13:40:46Z)";
    assert!(attention.contains(named), "{attention}");
    let endpoints = |service: usize| {
        let page = service_named(&format!("{}:8080", host(service))).unwrap();
        let text = frame::whole(&page, &asked(), &facts).0;
        let from = text.find("id=\"endpoints\"").unwrap();
        text[from..].split_once("</section>").unwrap().0.to_owned()
    };
    let (failing, gone) = (endpoints(1), endpoints(2));
    assert!(failing.contains("tr class=\"bad\"") && failing.contains("</span> failing"), "{failing}");
    assert!(gone.contains("its sidecar is not connected"), "{gone}");
    assert!(gone.contains("no sidecar that is connected, since 2026-11-30T13:40:46Z"), "{gone}");
    assert!(!(failing + &gone).contains("healthy"));
}

#[test]
fn an_endpoint_that_gets_no_requests_is_named_with_what_has_failed_of_it() {
    let mut told = large(3);
    let out = &mut told.services.out[0];
    (out.host, out.address) = (host(1).into(), "10.0.0.1:8080".parse().unwrap());
    serve(&mut told, 1, true, counts(60, 40, 5));

    let text = frame::whole(&Page::Overview, &asked(), &facts(told)).0;
    let attention = text.split_once("</section>").unwrap().0;
    let words = "svc-01-7f9c4 gets no requests, from 1 client, and fails: 40 of 100 requests";
    assert!(attention.contains(words), "{attention}");
    assert!(attention.contains("<li class=\"bad\">"), "{attention}");
}

#[test]
fn an_endpoint_that_is_far_slower_than_its_siblings_is_named_and_is_not_called_healthy() {
    let mut told = large(3);
    told.services.out.clear();
    let sibling = told.services.services[2].endpoints[0].clone();
    told.services.services[1].endpoints.push(sibling);
    serve(&mut told, 1, true, counts(8, 0, 2_000));
    serve(&mut told, 2, true, counts(900, 0, 5));
    let facts = facts(told);

    let text = frame::whole(&Page::Overview, &asked(), &facts).0;
    let attention = text.split_once("</section>").unwrap().0;
    let words = "the endpoint shop/svc-01-7f9c4 is slow: 50 % of its requests take up to <b>";
    assert!(attention.contains(words), "{attention}");
    assert!(!attention.contains("svc-02-7f9c4 is slow"), "{attention}");
    let page = service_named(&format!("{}:8080", host(1))).unwrap();
    let text = drawn("slow", &page, &asked(), &facts);
    assert!(text.contains("</span> slow<ul class=\"why\"><li>is slow: 50 %"), "{text}");
}

#[test]
fn endpoints_that_all_fail_are_not_named_beside_their_service() {
    let mut told = large(3);
    told.services.out.clear();
    let failing = edge(&host(1), "", true);
    let caller = told.traffic.workloads.get_mut(&workload(0)).unwrap();
    caller.edges.push(EdgeTraffic { edge: failing, counts: counts(0, 900, 5) });
    serve(&mut told, 1, true, counts(0, 900, 5));

    let text = frame::whole(&Page::Overview, &asked(), &facts(told)).0;
    let attention = text.split_once("</section>").unwrap().0;
    assert!(attention.contains("svc-01") && !attention.contains("svc-01-7f9c4 fails"), "{attention}");
}

#[test]
fn endpoints_that_do_worse_than_their_service_because_of_retries_are_named() {
    let mut told = large(3);
    told.services.out.clear();
    told.traffic.workloads.values_mut().for_each(|workload| workload.edges.clear());
    let called = EdgeTraffic { edge: edge(&host(1), "", true), counts: counts(98, 2, 5) };
    told.traffic.workloads.get_mut(&workload(0)).unwrap().edges.push(called);
    serve(&mut told, 1, true, counts(98, 30, 5));

    let text = frame::whole(&Page::Overview, &asked(), &facts(told)).0;
    let attention = text.split_once("</section>").unwrap().0;
    assert!(attention.contains("98.00 %") && attention.contains("<li class=\"warn\">"), "{attention}");
    assert!(attention.contains("svc-01-7f9c4 fails: 30 of 128 requests"), "{attention}");
}

#[test]
fn why_requests_fail_is_said_with_what_to_do() {
    let mut told = large(3);
    let mut failed = Counts::default();
    let reason = Some("connect-failure".into());
    failed.ended(&Outcome { status: Some(503), grpc_status: None, reason }, 7);
    failed.ended(&Outcome { status: Some(500), ..Outcome::default() }, 3);
    let caller = told.traffic.workloads.get_mut(&workload(0)).unwrap();
    caller.edges.push(EdgeTraffic { edge: edge(&host(1), "", true), counts: failed });

    let page = service_named(&format!("{}:8080", host(1))).unwrap();
    let text = drawn("reason", &page, &asked(), &facts(told));

    assert!(text.contains("503 · connect-failure"), "{text}");
    assert!(text.contains("no proxy made this answer: the app did"), "{text}");
    assert!(
        text.contains(
            "could not connect to the endpoint. What to do: check that the endpoint's sidecar runs"
        )
    );
}

#[test]
fn plaintext_of_clients_without_a_sidecar_is_plaintext() {
    let mtls = |told: Told| {
        let text = frame::whole(&Page::Overview, &asked(), &facts(told)).0;
        text.contains("nothing goes in plaintext")
    };
    assert!(mtls(large(3)));
    let mut told = large(3);
    serve(&mut told, 1, false, counts(1, 0, 5));
    assert!(!mtls(told));
}

#[test]
fn sidecars_of_other_replicas_are_no_alarm() {
    let mut told = large(1);
    (told.services.out, told.problems) = (Vec::new(), Vec::new());
    let text = frame::whole(&Page::Overview, &asked(), &facts(told)).0;
    assert!(text.contains("Nothing needs attention"), "{text}");
    assert!(text.contains("is not connected to this replica"), "{text}");
}

#[test]
fn a_replica_says_that_it_knows_of_its_own_sidecars_alone_and_all_replicas_are_added_up() {
    let one = frame::whole(&Page::Overview, &asked(), &facts(large(3))).0;
    assert!(one.contains("what one replica of the control plane knows"));

    let (first, mut second) = (large(3), large(3));
    second.replica = "selvedge-control-plane-1".to_owned();
    let single = facts(first.clone());
    let told = vec![("a".to_owned(), first), ("b".to_owned(), second)];
    let both = Facts::of(wanted(), told, [("c".to_owned(), "gone".to_owned())].into(), true);
    let text = frame::whole(&Page::Overview, &asked(), &both).0;
    assert!(!text.contains("what one replica") && text.contains("replica c does not answer: gone"));
    let sum = |facts: &Facts| facts.history.sum(|_| true).iter().map(|point| point.count).sum::<u64>();
    assert_eq!(sum(&both), 2 * sum(&single));
    assert_eq!(both.problems.len(), single.problems.len());
}

#[test]
fn a_page_of_what_is_the_same_differs_in_its_footer_alone() {
    let told = large(5);
    let (first, mut second) = (facts(told.clone()), facts(told));
    second.at = first.at + Duration::from_secs(2);
    for page in [Page::Overview, Page::Policies, Page::Problems] {
        let (content, footer) = frame::content(&page, &asked(), &first);
        let (again, later) = frame::content(&page, &asked(), &second);
        assert!(content.0 == again.0, "{page:?}");
        assert_ne!(footer.0, later.0, "{page:?}");
    }
}

#[test]
fn the_page_of_certificates_says_of_whom_nothing_is_known() {
    let text = drawn("certificates", &Page::Certificates, &asked(), &facts(large(3)));
    let told =
        format!("Of 1 workload nothing is known: no proxy is connected to this replica. {}", workload(3));
    assert!(text.contains(&told), "{text}");
    assert!(text.contains("Not shown: what a gateway shows to clients from outside"));
}

#[test]
fn what_a_replica_tells_is_read_again() {
    let told = large(5);
    let text = serde_json::to_string(&told).unwrap();
    let again: Told = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), text);
}

#[test]
fn an_answer_that_would_be_too_long_is_cut_and_says_so() {
    let told = large(30);
    let whole = told.clone().into_json(usize::MAX).unwrap();
    let read = |text: &[u8]| serde_json::from_slice::<Told>(text).unwrap();
    assert!(read(&whole).left_out.is_empty());

    let text = told.clone().into_json(whole.len() - 1).unwrap();
    assert!(text.len() < whole.len());
    let cut = read(&text);
    assert!(cut.history.lines.is_empty() && cut.services.services.len() == 30, "no more than needed");
    let page = drawn("cut", &Page::Overview, &asked(), &facts(cut));
    assert!(
        page.contains("leaves a part of it out of its answer: ") && page.contains("who may call whom"),
        "{page}"
    );

    let text = told.into_json(100_000).unwrap();
    assert!(text.len() <= 100_000, "{}", text.len());
    assert_eq!(read(&text).config.proxies.len(), 30, "nobody is missing because of it");
    assert!(!drawn("whole", &Page::Overview, &asked(), &facts(large(3))).contains("out of its answer"));
}

/// The page of a service with these routes, all of them to two subsets.
fn with_routes(names: &[&str]) -> String {
    let mut told = large(3);
    let route = told.services.services[0].routes[0].clone();
    let named = |name: &&str| RouteShown { name: (*name).to_owned(), ..route.clone() };
    told.services.services[0].routes = names.iter().map(named).collect();
    let page = service_named(&format!("{}:8080", host(0))).unwrap();
    drawn(&format!("routes-{}", names.len()), &page, &asked(), &facts(told))
}

#[test]
fn shares_of_backends_that_several_routes_lead_to_are_said_to_be_of_all_of_them() {
    let (one, two) = (with_routes(&["a"]), with_routes(&["a", "b"]));

    let count = |page: &str, words: &str| page.matches(words).count();
    let (title, told) =
        ("Share of requests as seen", "Share of requests as seen, by all routes to these together");
    assert!(count(&one, title) > 0 && count(&one, told) == 0, "{one}");
    assert_eq!(count(&two, told), 2 * count(&one, title), "one plot for each route: {two}");
}
