//! How often, and when, requests are sent again: budgets, and what servers say of it.

mod hedges;
mod hops;
pub(crate) mod server;
mod unbegun;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, header::RETRY_AFTER};
use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{
    net::TcpListener,
    sync::{Barrier, watch},
    task::JoinSet,
};

use self::server::{Asked, answer, serve};
use crate::SELVEDGE;

/// `host` (`NAME.test`) is at `address`, outside the mesh, with these settings of its `trafficPolicy` and `retries`.
fn outside(name: &str, address: SocketAddr, policy: &str, retries: &str) -> String {
    // One that says nothing is refused.
    let policy = if policy.is_empty() { "loadBalancer: {simple: LEAST_REQUEST}" } else { policy };
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec:\n  \
         hosts: [{name}.test]\n  resolution: STATIC\n  ports: [{{number: 80, name: http, targetPort: {}}}]\n  \
         endpoints: [{{address: {}}}]\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\n\
         spec: {{host: {name}.test, trafficPolicy: {{{policy}}}}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec:\n  \
         hosts: [{name}.test]\n  http: [{{route: [{{destination: {{host: {name}.test}}}}], retries: {{{retries}}}}}]\n",
        address.port(),
        address.ip()
    )
}

/// Sends `requests` to `host`, one after the other; each is answered 503.
async fn fails(mesh: &Mesh, host: &str, requests: usize) {
    for _ in 0..requests {
        let answer = mesh.workload("caller").call(call::to(host, "/")).await.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.summary());
    }
}

#[tokio::test]
async fn no_more_retries_are_made_than_the_budget_allows() {
    let mut mesh = Mesh::empty(SELVEDGE);
    let budgets = [
        ("half", "percent: 50, minRetryConcurrency: 0, budgetInterval: 10m", 150),
        ("one", "percent: 0, minRetryConcurrency: 1", 200),
        ("none", "percent: 0, minRetryConcurrency: 0", 100),
    ];
    let mut servers: Vec<Asked> = Vec::new();
    for (place, (name, budget, _)) in (201..).zip(budgets) {
        let address = mesh.ground().socket(place, 9003).unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        servers.push(serve(listener, |_, _| async { answer(503, "") }));
        let policy = format!("retryBudget: {{{budget}}}");
        mesh.write(&format!("{name}.yaml"), &outside(name, address, &policy, "attempts: 1, retryOn: 5xx"))
            .unwrap();
    }
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller")]).await.unwrap();

    for ((name, _, attempts), asked) in budgets.into_iter().zip(&servers) {
        fails(&mesh, &format!("{name}.test"), 100).await;
        assert_eq!(asked.count(), attempts, "{name}");
    }

    // What was counted goes on when another budget comes.
    let address = mesh.ground().socket(201, 9003).unwrap();
    let other = "retryBudget: {percent: 100, minRetryConcurrency: 0, budgetInterval: 10m}";
    mesh.write("half.yaml", &outside("half", address, other, "attempts: 1, retryOn: 5xx")).unwrap();
    poll(SOON, "each request is sent again", async || {
        let before = servers[0].count();
        fails(&mesh, "half.test", 1).await;
        match servers[0].count() - before {
            2 => Ok(()),
            attempts => Err(attempts),
        }
    })
    .await;
}

#[tokio::test]
async fn without_an_interval_a_budget_is_a_share_of_the_requests_in_progress() {
    const AT_ONCE: usize = 8;
    let mut mesh = Mesh::empty(SELVEDGE);
    let address = mesh.ground().socket(201, 9003).unwrap();
    let all_are_there = Arc::new(Barrier::new(AT_ONCE));
    let (release, released) = watch::channel(false);
    let asked = serve(TcpListener::bind(address).await.unwrap(), move |number, _| {
        let (all_are_there, mut released) = (Arc::clone(&all_are_there), released.clone());
        async move {
            if number < AT_ONCE {
                all_are_there.wait().await;
                return answer(503, "");
            }
            released.wait_for(|released| *released).await.unwrap();
            answer(200, "")
        }
    });
    let policy = "retryBudget: {percent: 50, minRetryConcurrency: 0}";
    mesh.write("shared.yaml", &outside("shared", address, policy, "attempts: 1, retryOn: 5xx")).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller")]).await.unwrap();

    let outbound = mesh.workload("caller").outbound;
    let mut calls = JoinSet::new();
    for _ in 0..AT_ONCE {
        calls.spawn(async move { call::send(outbound, call::to("shared.test", "/")).await.unwrap().status });
    }
    // Those that are not sent again end; the others wait for the server.
    let mut ended = 0;
    while ended < AT_ONCE / 2 {
        assert_eq!(calls.join_next().await.unwrap().unwrap(), 503);
        ended += 1;
    }
    release.send(true).unwrap();
    let rest = calls.join_all().await;
    let retried = rest.iter().filter(|status| **status == 200).count();
    assert!((1..=AT_ONCE / 2).contains(&retried), "{rest:?}");
    assert_eq!(asked.count(), AT_ONCE + retried);
}

#[tokio::test]
async fn a_server_is_asked_again_no_earlier_than_its_answer_says() {
    let mut mesh = Mesh::empty(SELVEDGE);
    let policies = [
        ("soon", "1", "attempts: 1, retryOn: 5xx"),
        ("late", "60", "attempts: 1, retryOn: 5xx"),
        // Nobody would wait for the answer any longer.
        ("timed", "3", "attempts: 1, retryOn: 5xx"),
    ];
    let mut servers: Vec<Asked> = Vec::new();
    for (place, (name, after, retries)) in (201..).zip(policies) {
        let address = mesh.ground().socket(place, 9003).unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        servers.push(serve(listener, move |number, _| async move {
            let mut busy = answer(503, "busy");
            busy.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(after));
            if number == 0 { busy } else { answer(200, "") }
        }));
        let documents = outside(name, address, "", retries);
        let documents =
            if name == "timed" { documents.replace("retries:", "timeout: 2s, retries:") } else { documents };
        mesh.write(&format!("{name}.yaml"), &documents).unwrap();
    }
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller")]).await.unwrap();
    let caller = mesh.workload("caller");

    let start = Instant::now();
    let soon = caller.call(call::to("soon.test", "/")).await.unwrap();
    assert_eq!((soon.status.as_u16(), servers[0].count()), (200, 2), "{}", soon.summary());
    assert!(start.elapsed() >= Duration::from_secs(1));

    for (host, asked, after) in [("late.test", &servers[1], "60"), ("timed.test", &servers[2], "3")] {
        let last = caller.call(call::to(host, "/")).await.unwrap();
        assert_eq!((last.status.as_u16(), last.text().as_str()), (503, "busy"), "{}", last.summary());
        assert_eq!(last.headers[RETRY_AFTER], after, "the client is told");
        assert_eq!(asked.count(), 1);
    }
}
