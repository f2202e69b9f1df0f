//! The port as a proxy meets it: real sockets, real TLS, real gRPC.

mod certificates;
mod harness;

use std::collections::BTreeSet;

use selvedge_api::wire::{
    self, certificates_client::CertificatesClient, client_message::Message, resource::Body,
};
use selvedge_certs::{csr::KeyAndCsr, tls::bootstrap_client};
use selvedge_model::{Mesh, Revocation, Revocations, Revoked, ServiceKey, TrustDomain};
use tokio::{net::TcpStream, time::timeout};
use tonic::Code;

use super::*;
use crate::{
    status::Proof,
    testing::{add_route, add_service, add_workload, identity},
};
use harness::{
    LIMIT, ProxyStream, REVIEWS, TestMesh, changed, endpoints, eventually, hello, mesh, names, versions,
};

#[tokio::test]
async fn a_stream_is_for_the_workload_of_its_certificate_alone() {
    let world = TestMesh::start(mesh());

    let other = world.talk("frontend", hello("shop/reviews-1")).await.status().await;
    assert_eq!(other.code(), Code::PermissionDenied, "{other}");

    let unknown = world.talk("frontend", hello("shop/frontend-2")).await.status().await;
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    assert!(unknown.message().contains("add a WorkloadEntry"), "{unknown}");

    let nameless = world.talk("frontend", hello("frontend")).await.status().await;
    assert_eq!(nameless.code(), Code::InvalidArgument, "{nameless}");

    let tls = bootstrap_client(&[world.authority.root_sha256()], &TrustDomain::default());
    let anonymous = ProxyStream::try_open(world.connect(tls).await, hello("shop/frontend")).await;
    assert_eq!(anonymous.err().map(|status| status.code()), Some(Code::Unauthenticated));
    assert!(world.proxies.connected().is_empty());
}

#[tokio::test]
async fn a_stream_and_a_renewal_are_for_the_workload_that_the_first_token_was_for() {
    let mut mesh = mesh();
    add_workload(&mut mesh, "shop/frontend-2", "frontend");
    let world = TestMesh::start(mesh);
    for (proves, proof) in [(true, Proof::Proven), (false, Proof::Claimed)] {
        let channel = world.joined("frontend", "shop/frontend", proves).await;

        let other = ProxyStream::open(channel.clone(), hello("shop/frontend-2")).await.status().await;
        assert_eq!(other.code(), Code::PermissionDenied, "{other}");
        assert!(other.message().contains("for workload shop/frontend,"), "{other}");
        let renewal = wire::SignRequest {
            csr: KeyAndCsr::generate(&identity("shop", "frontend")).unwrap().der.into(),
            workload: "shop/frontend-2".into(),
            token: None,
            ttl_seconds: None,
        };
        let renewed = CertificatesClient::new(channel.clone()).sign(renewal).await.unwrap_err();
        assert_eq!(renewed.code(), Code::PermissionDenied, "{renewed}");

        let mut talk = ProxyStream::open(channel, hello("shop/frontend")).await;
        talk.apply().await;
        assert_eq!(world.proxies.connected()[0].proof, proof);
        drop(talk);
        eventually("it is gone", || world.proxies.connected().is_empty()).await;
    }
}

#[tokio::test]
async fn who_is_revoked_loses_its_stream_whatever_is_under_way_on_it() {
    let mesh = mesh();
    let world = TestMesh::start(mesh.clone());
    let mut talk = world.talk("frontend", hello("shop/frontend")).await;
    let _unanswered = talk.next().await;

    let revoked = Revoked::Identity(identity("shop", "frontend"));
    let entry = Revocation { revoked, document: "Revocation a/b".into(), reason: None, until: None };
    let list = Revocations::new(vec![entry]);
    world.store.publish(Mesh { revocations: Arc::new(list), ..mesh });

    let status = talk.status().await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("revoked by Revocation a/b"), "{status}");
    let again = world.talk("frontend", hello("shop/frontend")).await.status().await;
    assert_eq!(again.code(), Code::PermissionDenied, "{again}");
}

#[tokio::test]
async fn an_answer_comes_with_its_service_and_endpoints_in_one_transaction() {
    let world = TestMesh::start(mesh());
    let mut talk = world.talk("frontend", hello("shop/frontend")).await;
    talk.apply().await;

    talk.subscribe("reviews").await;
    let answer = talk.apply().await;

    let service = format!("service/{REVIEWS}:80");
    let list = format!("endpoints/{REVIEWS}:80");
    assert_eq!(names(&answer), ["lookup/reviews", &service, &list]);
    assert_eq!(endpoints(&answer), ["127.0.0.2:80"]);
    talk.subscribe("elsewhere.example").await;
    let none = talk.apply().await;
    let Some(Body::Lookup(lookup)) = &none.upserts[0].body else { panic!("{none:?}") };
    assert_eq!(lookup.answer, Some(wire::lookup::Answer::None(true)));
}

/// With an endpoint at each of these ports.
fn with_endpoints(mesh: &Mesh, ports: std::ops::Range<u16>) -> Mesh {
    let (mut mesh, mut other) = (mesh.clone(), crate::testing::mesh());
    let addresses: Vec<String> = ports.map(|port| format!("127.0.0.2:{port}")).collect();
    add_service(&mut other, REVIEWS, &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    mesh.endpoints.extend(other.endpoints);
    mesh
}

#[tokio::test]
async fn whoever_takes_deltas_is_told_what_has_changed_in_a_large_list_and_all_of_it_if_that_is_refused() {
    let mesh = mesh();
    let world = TestMesh::start(with_endpoints(&mesh, 1000..1100));
    let asks = |takes_endpoint_deltas| wire::Hello { takes_endpoint_deltas, ..hello("shop/frontend") };
    let (mut new, mut old) =
        (world.talk("frontend", asks(true)).await, world.talk("frontend", asks(false)).await);
    let mut lists = Vec::new();
    for talk in [&mut new, &mut old] {
        talk.apply().await;
        talk.subscribe("reviews").await;
        lists.push(versions(&talk.apply().await));
    }
    let name = format!("endpoints/{REVIEWS}:80");
    assert_eq!(lists[0][&name], lists[1][&name]);

    world.store.publish(with_endpoints(&mesh, 1000..1101));

    let whole = old.apply().await;
    assert_eq!((names(&whole), endpoints(&whole).len()), (vec![name.as_str()], 101));
    let delta = new.next().await;
    let Some(Body::EndpointsDelta(changes)) = &delta.upserts[0].body else { panic!("{delta:?}") };
    assert_eq!((&changes.base, versions(&delta)), (&lists[0][&name], versions(&whole)));
    let added: Vec<_> = changes.added.iter().map(|endpoint| endpoint.address.as_str()).collect();
    assert_eq!((added, &changes.added_at, changes.removed.len()), (vec!["127.0.0.2:1100"], &vec![100], 0));

    new.answer(&delta, Some("another list is held")).await;
    let again = new.apply().await;
    assert_eq!((versions(&again), endpoints(&again).len()), (versions(&whole), 101));
    world.store.publish(with_endpoints(&mesh, 1000..1102));
    assert_eq!(endpoints(&new.apply().await).len(), 102, "and whole ever after");
}

#[tokio::test]
async fn a_proxy_tells_who_has_called_its_own_workload_and_is_refused_what_nobody_can_be() {
    let world = TestMesh::start(mesh());
    let mut talk = world.talk("frontend", hello("shop/frontend")).await;
    talk.apply().await;
    let report = |address: &str| {
        let port = wire::CalledPort { port: 80, seconds_ago: 0 };
        let caller = Some(wire::caller::Caller::Address(address.into()));
        let callers = vec![wire::Caller { caller, ports: vec![port] }];
        Message::Report(wire::Report { callers, ..wire::Report::default() }.into())
    };

    talk.say(report("10.0.0.1")).await;
    eventually("it is known", || world.seen.now().workloads.len() == 1).await;
    let seen = world.seen.now();
    assert_eq!(seen.workloads[&"shop/frontend".parse().unwrap()].callers.len(), 1);
    talk.say(report("nobody")).await;
    assert_eq!(talk.status().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_proxy_tells_what_it_has_carried_by_numbers_that_it_has_named() {
    let world = TestMesh::start(mesh());
    let mut talk = world.talk("frontend", hello("shop/frontend")).await;
    talk.apply().await;
    let report = |names: &[(u32, &str)], told: &[u32]| {
        let name = |&(edge, host): &(u32, &str)| {
            let host = host.to_owned();
            wire::EdgeName { edge, host, ..wire::EdgeName::default() }
        };
        let counts = |&edge: &u32| {
            let outcomes = vec![wire::EdgeOutcome { status: 200, count: 5, ..wire::EdgeOutcome::default() }];
            wire::EdgeCounts { edge, outcomes, ..wire::EdgeCounts::default() }
        };
        let (edge_names, edges) = (names.iter().map(name).collect(), told.iter().map(counts).collect());
        Message::Report(wire::Report { edge_names, edges, ..wire::Report::default() }.into())
    };
    let told = || {
        let seen = world.traffic.seen(60);
        let mut told: Vec<(String, u64)> = Vec::new();
        for one in
            seen.workloads.get(&"shop/frontend".parse().unwrap()).into_iter().flat_map(|one| &one.edges)
        {
            told.push((one.edge.host.to_string(), one.counts.ends()));
        }
        told
    };

    talk.say(report(&[(3, "reviews"), (4, "ratings")], &[3, 4])).await;
    talk.say(report(&[], &[3])).await;
    talk.say(report(&[(4, "details\u{1b}\n")], &[4])).await;
    let expected = [("details??".to_owned(), 5), ("ratings".to_owned(), 5), ("reviews".to_owned(), 10)];
    eventually("all is known", || told() == expected).await;
    let seen = world.traffic.seen(60);
    assert_eq!(seen.workloads[&"shop/frontend".parse().unwrap()].identity, identity("shop", "frontend"));

    talk.say(report(&[], &[5])).await;
    let status = talk.status().await;
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "a report: edge 5 has no name"));
}

#[tokio::test]
async fn a_proxy_is_asked_for_live_requests_while_somebody_asks_and_shows_its_own_alone() {
    let world = TestMesh::start(mesh());
    let greeting = wire::Hello { takes_taps: true, ..hello("shop/frontend") };
    let mut talk = world.talk("frontend", greeting).await;
    talk.apply().await;
    let ask = async || {
        let question =
            serde_json::json!({"session": "a", "of": "shop/frontend", "wanted": "{\"path\":\"/a\"}"});
        let question = serde_json::from_value(question).unwrap();
        world.taps.ask(question, || vec!["shop/frontend".parse().unwrap()]).await.unwrap()
    };

    assert_eq!(ask().await.proxies, 1);
    let asked = talk.next().await.taps.expect("it is asked");
    assert_eq!(asked.list[0].path.as_deref(), Some("/a"));
    let sample =
        wire::TapSample { path: "/a/b".into(), client_address: "a".into(), ..wire::TapSample::default() };
    let shown = wire::TapShown { tap: asked.list[0].tap, sample: Some(sample) };
    let missed = vec![wire::TapMissed { tap: asked.list[0].tap, count: 3 }];
    talk.say(Message::TapSamples(wire::TapSamples { list: vec![shown], missed })).await;
    let answer = ask().await;
    assert_eq!((answer.samples.len(), answer.limited), (1, 3));
    assert_eq!((&*answer.samples[0].sample.path, answer.samples[0].by.name()), ("/a/b", "frontend"));

    let over = talk.next().await.taps.expect("nobody asks any more");
    assert!(over.list.is_empty());
}

#[tokio::test]
async fn an_older_proxy_is_asked_for_nothing_that_it_would_take_for_a_transaction() {
    let world = TestMesh::start(mesh());
    let question = serde_json::json!({"session": "a", "wanted": "{}"});
    let question = serde_json::from_value(question).unwrap();
    world.taps.ask(question, Vec::new).await.unwrap();
    let mut talk = world.talk("frontend", hello("shop/frontend")).await;

    let first = talk.next().await;
    assert!(first.taps.is_none() && !first.upserts.is_empty(), "{first:?}");
}

#[tokio::test]
async fn a_new_route_arrives_together_with_its_backends_endpoints() {
    let mesh = mesh();
    let world = TestMesh::start(mesh.clone());
    let greeting = wire::Hello { authorities: vec!["reviews".into()], ..hello("shop/frontend") };
    let mut talk = world.talk("frontend", greeting).await;
    talk.apply().await;

    let mut next = mesh.clone();
    add_service(&mut next, "ratings.shop.svc.cluster.local", &["127.0.0.9:80"]);
    let ratings = ServiceKey::new("ratings.shop.svc.cluster.local", 80);
    add_route(&mut next, &ServiceKey::new(REVIEWS, 80), None, &[&ratings]);
    world.store.publish(next);
    let change = talk.apply().await;

    let service = format!("service/{REVIEWS}:80");
    assert_eq!(names(&change), [&service, "endpoints/ratings.shop.svc.cluster.local:80"]);
    assert_eq!(change.removals, [format!("endpoints/{REVIEWS}:80")], "nothing names them any more");

    world.store.publish(mesh);
    let back = talk.apply().await;
    assert_eq!(names(&back), [service, format!("endpoints/{REVIEWS}:80")]);
    assert_eq!(back.removals, ["endpoints/ratings.shop.svc.cluster.local:80"]);
}

#[tokio::test]
async fn a_proxy_that_comes_back_gets_only_the_difference() {
    let mesh = mesh();
    let world = TestMesh::start(mesh.clone());
    let greeting = wire::Hello { authorities: vec!["reviews".into()], ..hello("shop/frontend") };
    let mut talk = world.talk("frontend", greeting.clone()).await;
    let held = versions(&talk.apply().await);
    drop(talk);

    let back = wire::Hello { held: held.clone(), ..greeting };
    let unchanged = world.talk("frontend", back.clone()).await.apply().await;
    assert!(unchanged.upserts.is_empty() && unchanged.removals.is_empty(), "{unchanged:?}");

    world.store.publish(changed(&mesh, "127.0.0.3:80"));
    let mut stale = held;
    stale.insert("lookup/forgotten".into(), "1".into());
    let difference = world.talk("frontend", wire::Hello { held: stale, ..back }).await.apply().await;
    assert_eq!(names(&difference), [format!("endpoints/{REVIEWS}:80")]);
    assert_eq!(difference.removals, ["lookup/forgotten"]);
}

#[tokio::test]
async fn a_slow_proxy_has_one_transaction_under_way_and_then_gets_the_newest() {
    let mesh = mesh();
    let world = TestMesh::start(mesh.clone());
    let greeting = wire::Hello { authorities: vec!["reviews".into()], ..hello("shop/frontend") };
    let mut talk = world.talk("frontend", greeting).await;
    let first = talk.next().await;

    for n in 3..20 {
        world.store.publish(changed(&mesh, &format!("127.0.0.{n}:80")));
    }
    talk.answer(&first, None).await;
    let second = talk.apply().await;

    assert_eq!(endpoints(&second), ["127.0.0.19:80"]);
    let newest = world.store.current().unwrap().version();
    eventually("the proxy is up to date", || {
        world.proxies.connected().first().and_then(|proxy| proxy.configuration_version) == Some(newest)
    })
    .await;
}

#[tokio::test]
async fn what_is_asked_for_again_is_answered_again_and_what_is_not_is_removed() {
    let world = TestMesh::start(mesh());
    let mut talk = world.talk("frontend", hello("shop/frontend")).await;
    talk.apply().await;
    talk.subscribe("reviews").await;
    talk.apply().await;

    talk.subscribe("reviews").await;
    assert_eq!(names(&talk.apply().await), ["lookup/reviews"]);

    talk.say(Message::Unsubscribe(wire::Unsubscribe { authority: "reviews".into() })).await;
    let removed: BTreeSet<String> = talk.apply().await.removals.into_iter().collect();
    let all = [format!("endpoints/{REVIEWS}:80"), "lookup/reviews".into(), format!("service/{REVIEWS}:80")];
    assert_eq!(removed, BTreeSet::from(all));
}

#[tokio::test]
async fn a_proxy_that_leaves_what_it_never_asked_for_without_a_pause_holds_up_nobody() {
    let world = TestMesh::start(mesh());
    let authorities = (0..5_000).map(|number| format!("reviews-{number}.example.com:80")).collect();
    let mut loud = world.talk("frontend", wire::Hello { authorities, ..hello("shop/frontend") }).await;
    let mut last = loud.apply().await;
    while last.more {
        last = loud.apply().await;
    }
    let leave = || Message::Unsubscribe(wire::Unsubscribe { authority: "z".into() });
    let noise = {
        let outgoing = loud.outgoing.clone();
        tokio::spawn(async move {
            while outgoing.send(wire::ClientMessage { message: Some(leave()) }).await.is_ok() {}
        })
    };

    for _ in 0..3 {
        let mut other = world.talk("reviews", hello("shop/reviews-1")).await;
        other.apply().await;
        other.subscribe("reviews").await;
        assert!(names(&other.apply().await).contains(&"lookup/reviews"));
    }
    noise.abort();
}

#[tokio::test]
async fn a_part_that_a_proxy_refuses_holds_up_no_other() {
    let mut mesh = mesh();
    add_service(&mut mesh, "ratings.shop.svc.cluster.local", &["127.0.0.9:80"]);
    let world = TestMesh::start(mesh.clone());
    let authorities = vec!["ratings".into(), "reviews".into()];
    let mut talk = world.talk("frontend", wire::Hello { authorities, ..hello("shop/frontend") }).await;

    let whole = talk.next().await;
    talk.answer(&whole, Some("lookup/ratings: a kind that this version does not know")).await;
    assert_eq!(names(&talk.apply().await), ["self", "bundle"]);
    let bad = talk.next().await;
    assert_eq!(names(&bad)[0], "lookup/ratings");
    talk.answer(&bad, Some("a kind that this version does not know")).await;
    assert_eq!(names(&talk.apply().await)[0], "lookup/reviews");

    let refused = || world.proxies.connected()[0].refused.clone();
    assert_eq!(refused().map(|refused| refused.nonce), Some(bad.nonce));
    // What was refused is not sent again; the next to come is the next change.
    world.store.publish(changed(&mesh, "127.0.0.3:80"));
    assert_eq!(names(&talk.apply().await), [format!("endpoints/{REVIEWS}:80")]);
}

#[tokio::test]
async fn a_workload_that_is_removed_loses_its_stream() {
    let mesh = mesh();
    let world = TestMesh::start(mesh.clone());
    let mut talk = world.talk("frontend", hello("shop/frontend")).await;
    talk.apply().await;

    let mut without = mesh;
    without.workloads.remove(&"shop/frontend".parse().unwrap());
    world.store.publish(without);

    assert_eq!(talk.status().await.code(), Code::NotFound);
}

#[tokio::test]
async fn a_stream_ends_with_the_certificate_that_opened_it() {
    let world = TestMesh::start(mesh());
    let channel = world.member(&identity("shop", "frontend"), Duration::from_secs(2)).await;
    let mut talk = ProxyStream::open(channel, hello("shop/frontend")).await;
    talk.apply().await;

    let ended = talk.status().await;

    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    assert!(ended.message().contains("expired"), "{ended}");
}

#[tokio::test]
async fn a_client_that_says_nothing_holds_up_nobody() {
    let world = TestMesh::start(mesh());
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(world.address).await.unwrap());
    }

    let mut talk = world.talk("frontend", hello("shop/frontend")).await;

    assert_eq!(names(&talk.apply().await), ["self", "bundle"]);
}

#[tokio::test]
async fn the_drain_tells_every_stream_and_ends_the_server() {
    let world = TestMesh::start(mesh());
    let mut talk = world.talk("frontend", hello("shop/frontend")).await;
    talk.apply().await;

    world.drain.begin(selvedge_ops::Reason::Signal);

    let status = talk.status().await;
    assert_eq!(status.code(), Code::Unavailable);
    let later =
        status.metadata().get(selvedge_api::PUSHBACK).map(|pause| pause.to_str().unwrap().parse::<u64>());
    assert_eq!(later, Some(Ok(0)), "a single proxy may come back at once");
    drop(talk);
    timeout(LIMIT, world.server).await.expect("in time").unwrap().unwrap();
    assert!(TcpStream::connect(world.address).await.is_err(), "the port is closed");
}
