//! What must hold on every network: one list, run on each.

mod lifecycle;

use std::{net::SocketAddr, time::Duration};

use selvedge_demo::{
    apps::reviews,
    call::{self, Answer, Call, CallError},
    load::Plan,
};
use selvedge_tests::{SOON, poll};

use crate::{
    capture::Capture,
    dialogue::a_server_may_speak_first,
    mesh::{Mesh, Mode, OTHER_PORT, client, server},
    network::Kind,
    rights::netns,
};
use lifecycle::{
    FOUND_OUT, a_lost_node_is_left_out, a_partition_heals, an_address_that_another_workload_got_is_refused,
    without_its_own_sidecar_an_app_reaches_nobody, without_its_sidecar_an_app_is_reached_by_nobody,
};

/// A text that no packet between sidecars may have in it.
pub(crate) const SECRET: &str = "nobody-on-the-wire-reads-this";

/// Where the client and the first server of the canary are. Everybody else is always in a namespace of his own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Home {
    /// Each in a namespace of its own, where connections are redirected.
    Pod,
    /// Both in the host's: connections cannot be redirected there, as there would be two sidecars for one namespace.
    /// They name their sidecars, and speak with redirected ones as with each other.
    Host,
}

/// One test for each network and list below.
macro_rules! networks {
    ($($name:ident: $kind:ident $home:ident,)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn carries_the_mesh() {
                netns(async || traffic(Kind::$kind, Home::$home).await);
            }

            #[test]
            fn may_fail() {
                netns(async || failures(Kind::$kind, Home::$home).await);
            }

            #[test]
            fn may_lose_sidecars() {
                netns(async || lifecycle(Kind::$kind, Home::$home).await);
            }
        }
    )*};
}

networks! {
    bridge: Bridge Pod,
    small_mtu: SmallMtu Pod,
    ipv6: Ipv6 Pod,
    overlay: Overlay Pod,
    macvlan: Macvlan Pod,
    host_network: Bridge Host,
}

/// A client, two versions of `reviews`, and somebody who is not of the mesh.
async fn canary(kind: Kind, home: Home) -> Mesh {
    let mut mesh = Mesh::on(kind).await;
    let first = [client("client"), server("reviews-v1-a", "reviews", "v1")];
    match home {
        Home::Pod => mesh.add(first).await,
        Home::Host => {
            let host = mesh.network.on_host();
            let [client, server] = first;
            let explicit = [client, server.shift(100)].map(|spec| spec.mode(Mode::Explicit));
            mesh.add_in(explicit.map(|spec| (spec, host.clone()))).await;
        }
    }
    mesh.add([
        server("reviews-v1-b", "reviews", "v1"),
        server("reviews-v2", "reviews", "v2"),
        client("outsider").mode(Mode::NoSidecar),
    ])
    .await;
    // Documents are taken up in no order: the routes must have arrived.
    answers_by(&mesh, for_v2(), "v2").await;
    mesh
}

/// Where the client's app sends what is for `reviews`.
fn way(mesh: &Mesh) -> SocketAddr {
    let client = mesh.workload("client");
    match client.spec.mode {
        Mode::Explicit => client.outbound(),
        Mode::Redirected | Mode::NoSidecar => mesh.workload("reviews-v1-a").address(),
    }
}

async fn traffic(kind: Kind, home: Home) {
    let mut mesh = canary(kind, home).await;
    an_unaware_app_is_carried_over_mutual_tls(&mesh).await;
    the_canary_splits(&mesh, "client", way(&mesh)).await;
    bodies_larger_than_any_packet_arrive(&mesh).await;
    match home {
        Home::Pod => {
            what_stays_inside_is_left_alone(&mesh).await;
            a_server_may_speak_first(&mesh, "client", "reviews-v1-a", OTHER_PORT).await;
        }
        Home::Host => {
            let mail = client("mail").mode(Mode::Explicit).shift(200);
            mesh.add_in([(mail, mesh.network.on_host())]).await;
            mesh.add([client("pod")]).await;
            the_canary_splits(&mesh, "pod", mesh.workload("reviews-v1-a").address()).await;
            let port = mesh.workload("mail").address().port();
            a_server_may_speak_first(&mesh, "pod", "mail", port).await;
        }
    }
}

async fn failures(kind: Kind, home: Home) {
    let mut mesh = canary(kind, home).await;
    a_partition_heals(&mesh).await;
    a_lost_node_is_left_out(&mut mesh).await;
    an_address_that_another_workload_got_is_refused(&mut mesh).await;
}

async fn lifecycle(kind: Kind, home: Home) {
    let mut mesh = canary(kind, home).await;
    without_its_own_sidecar_an_app_reaches_nobody(&mut mesh).await;
    without_its_sidecar_an_app_is_reached_by_nobody(&mut mesh).await;
}

fn secret(path: &str) -> Call {
    call::to("reviews:9080", path).body(SECRET.repeat(100))
}

/// The app dials one instance's address and says nothing of a sidecar; packets are looked at on both sides and
/// between.
async fn an_unaware_app_is_carried_over_mutual_tls(mesh: &Mesh) {
    let (client, reviews) = (mesh.workload("client"), mesh.workload("reviews-v1-a"));
    let captures = [client, reviews].map(|workload| Capture::of(workload.namespace(), SECRET));
    let between: Vec<Capture> = mesh.network.hosts().iter().map(|host| Capture::of(host, SECRET)).collect();

    let get = call::to("reviews:9080", &format!("/?{SECRET}"));
    let answer: reviews::Answer = client.call(way(mesh), get).await.unwrap().json().unwrap();
    assert_eq!(answer.client_identity.as_deref(), Some("spiffe://cluster.local/ns/default/sa/client"));
    let echoed = client.call(way(mesh), secret("/echo")).await.unwrap();
    assert_eq!(echoed.text(), SECRET.repeat(100));
    let found = captures.iter().chain(&between).map(Capture::found).sum::<u64>();
    assert_eq!(found, 0);

    // The same from somebody who is not of the mesh: refused, and to be read by everybody.
    for workload in [client, reviews] {
        let refused = mesh.workload("outsider").call(workload.door(), secret("/echo")).await.unwrap();
        assert_eq!(refused.status, 403, "{}", refused.summary());
        assert!(refused.proxy_error().unwrap().starts_with("policy"));
    }
    for capture in &captures {
        poll(SOON, "the outsider's packets are seen", async || match capture.found() {
            0 => Err(format!("{} packets without the text", capture.frames())),
            _ => Ok(()),
        })
        .await;
    }
}

/// 90 to 10 within 4.5 standard deviations of 2,000 requests, and by header always.
async fn the_canary_splits(mesh: &Mesh, caller: &str, address: SocketAddr) {
    let plan = Plan::new(address, "reviews:9080").keys(&["version"]);

    let report = mesh.workload(caller).load(plan.clone().requests(2000)).await;
    assert_eq!(report.failed(), 0, "{}", report.summary());
    let off = (report.count("version", "v2") as f64 - 200.0) / (2000.0_f64 * 0.9 * 0.1).sqrt();
    assert!(off.abs() < 4.5, "v2 had {} of 2000: {off:.1} σ off", report.count("version", "v2"));

    let jason = plan.header("end-user", "jason").requests(50);
    let report = mesh.workload(caller).load(jason).await;
    assert_eq!(report.count("version", "v2"), 50, "{}", report.summary());
}

/// Segments as large as the link takes, both ways.
async fn bodies_larger_than_any_packet_arrive(mesh: &Mesh) {
    let body = vec![b'x'; 1 << 20];
    let call = call::to("reviews:9080", "/echo").header("end-user", "jason").body(body.clone());

    let echoed = mesh.workload("client").call(way(mesh), call).await.unwrap();

    assert_eq!(echoed.status, 200, "{}", echoed.summary());
    assert!(echoed.body == body, "{} bytes came back", echoed.body.len());
}

/// An app that calls itself, by `lo` or by its own address, meets no sidecar.
async fn what_stays_inside_is_left_alone(mesh: &Mesh) {
    let reviews = mesh.workload("reviews-v1-a");
    for address in [reviews.address(), reviews.loopback(reviews.address().port())] {
        let answer = reviews.call(address, call::to("reviews:9080", "/")).await.unwrap();
        let answer: reviews::Answer = answer.json().unwrap();
        assert_eq!((answer.pod.as_str(), answer.client_identity), ("reviews-v1-a", None));
    }
}

/// A request that only `reviews-v2` may answer.
fn for_v2() -> Call {
    call::to("reviews:9080", "/").header("end-user", "jason").timeout(Duration::from_secs(3))
}

/// What a call came to, in few words.
fn told(outcome: &Result<Answer, CallError>) -> String {
    match outcome {
        Ok(answer) => answer.summary(),
        Err(error) => error.to_string(),
    }
}

async fn answers(mesh: &Mesh, call: Call) {
    poll(FOUND_OUT, "an answer", async || {
        let outcome = mesh.workload("client").call(way(mesh), call.clone()).await;
        if outcome.as_ref().is_ok_and(|answer| answer.status == 200) { Ok(()) } else { Err(told(&outcome)) }
    })
    .await;
}

async fn answers_by(mesh: &Mesh, call: Call, version: &str) {
    poll(SOON, &format!("{version} answers"), async || {
        let outcome = mesh.workload("client").call(way(mesh), call.clone()).await;
        let answer = outcome.map_err(|error| error.to_string())?;
        let found: reviews::Answer = answer.json().map_err(|_| answer.summary())?;
        if found.version == version { Ok(()) } else { Err(found.version) }
    })
    .await;
}
