//! A rolling restart under load from outside: every sidecar and every app, one workload after the other.

use std::time::Duration;

use selvedge_demo::{load::Plan, workload::Spec};
use selvedge_tests::{Mesh, SOON, poll};

use crate::SELVEDGE;

const WORKLOADS: [&str; 4] = ["frontend-a", "frontend-b", "reviews-a", "reviews-b"];

/// Whoever comes in from outside, by way of a sidecar that stays; and two of each.
async fn mesh() -> Mesh {
    let delay = |spec: Spec| spec.flag("--drain-delay", "300ms");
    let specs = [
        Spec::client("outside"),
        delay(Spec::frontend("frontend-a")),
        delay(Spec::frontend("frontend-b")),
        delay(Spec::server("reviews-a", "reviews", 9080)),
        delay(Spec::server("reviews-b", "reviews", 9080)),
    ];
    Mesh::of(SELVEDGE, specs).await
}

/// Load that goes through every hop.
fn load(mesh: &Mesh) -> Plan {
    Plan::new(mesh.workload("outside").outbound, "frontend:8080").connections(8).pace(200.0)
}

/// Waits until both frontends have been asked since now.
async fn both_serve(mesh: &Mesh) {
    for name in WORKLOADS {
        let served = async || {
            let count = mesh.workload(name).metric("selvedge_inbound_requests_total").await;
            count.map(Option::unwrap_or_default).map_err(|error| error.to_string())
        };
        let before = served().await.unwrap();
        poll(SOON, &format!("{name} serves"), async || {
            let now = served().await?;
            if now > before { Ok(()) } else { Err(format!("{now} requests")) }
        })
        .await;
    }
}

async fn started_again(mesh: &mut Mesh, name: &str) {
    mesh.start_app(name).unwrap();
    mesh.app_listens(name).await.unwrap();
    mesh.start_sidecar(name).await.unwrap();
    mesh.sidecar_ready(name).await.unwrap();
}

async fn no_request_fails(restart: impl AsyncFn(&mut Mesh, &str)) {
    let mut mesh = mesh().await;
    let load = load(&mesh).start();
    both_serve(&mesh).await;

    for name in WORKLOADS {
        restart(&mut mesh, name).await;
        both_serve(&mesh).await;
    }

    let report = load.stop().await;
    assert_eq!(report.failed(), 0, "of {}: {:#?}", report.requests, report.failures);
}

#[tokio::test]
async fn no_request_fails_when_one_pod_after_the_other_is_replaced() {
    no_request_fails(async |mesh, name| {
        // As a node does it: both are told at once, and neither waits for the other.
        for process in [mesh.workload(name).app_process(), mesh.workload(name).sidecar_process()] {
            process.unwrap().signal(rustix::process::Signal::TERM).unwrap();
        }
        mesh.stop_app(name).await.unwrap();
        mesh.stop_sidecar(name).await.unwrap();
        started_again(mesh, name).await;
    })
    .await;
}

#[tokio::test]
async fn no_request_fails_when_one_sidecar_after_the_other_is_restarted_alone() {
    no_request_fails(async |mesh, name| {
        mesh.stop_sidecar(name).await.unwrap();
        mesh.start_sidecar(name).await.unwrap();
        mesh.sidecar_ready(name).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn no_request_fails_when_one_app_after_the_other_is_restarted_alone() {
    no_request_fails(async |mesh, name| {
        mesh.stop_app(name).await.unwrap();
        mesh.start_app(name).unwrap();
        mesh.app_listens(name).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_sidecar_that_crashes_is_told_of_clearly_and_soon_replaced() {
    let mut mesh =
        Mesh::of(SELVEDGE, [Spec::client("outside"), Spec::server("reviews-a", "reviews", 9080)]).await;
    let plan = Plan::new(mesh.workload("outside").outbound, "reviews:9080");
    let load = plan.connections(4).pace(100.0).keys(&["client_identity"]).start();
    let answered = async || {
        let ok = load.look(|report| report.ok);
        poll(SOON, "requests are answered", async || {
            let now = load.look(|report| report.ok);
            if now > ok + 20 { Ok(()) } else { Err(format!("{} more", now - ok)) }
        })
        .await;
    };
    answered().await;

    mesh.kill_sidecar("reviews-a").await.unwrap();
    poll(SOON, "requests fail", async || {
        let failed = load.look(|report| report.failed());
        if failed > 20 { Ok(()) } else { Err(format!("{failed}")) }
    })
    .await;
    mesh.start_sidecar("reviews-a").await.unwrap();
    mesh.sidecar_ready("reviews-a").await.unwrap();
    answered().await;

    let report = load.stop().await;
    // No hang, no broken connection, no answer that says nothing; and none of the app's but by mutual TLS.
    for failure in &report.failures {
        assert!(
            failure.contains("selvedge-error: connect-failure") || failure.contains("selvedge-error: reset"),
            "{failure}"
        );
    }
    let identity = "spiffe://cluster.local/ns/default/sa/outside";
    assert_eq!(report.count("client_identity", identity), report.ok, "{:?}", report.by_key);
    assert!(report.quantile(1.0) < Duration::from_secs(5), "{:?}", report.quantile(1.0));
}

#[tokio::test]
async fn an_app_whose_own_sidecar_crashes_is_refused_and_goes_on_with_the_next() {
    let mut mesh =
        Mesh::of(SELVEDGE, [Spec::client("outside"), Spec::server("reviews-a", "reviews", 9080)]).await;

    mesh.kill_sidecar("outside").await.unwrap();
    let refused = mesh.workload("outside").call(selvedge_demo::call::to("reviews:9080", "/")).await;
    assert!(matches!(refused, Err(selvedge_demo::call::CallError::Connect { .. })), "{refused:?}");
    mesh.start_sidecar("outside").await.unwrap();
    mesh.sidecar_ready("outside").await.unwrap();

    let answer = mesh.workload("outside").call(selvedge_demo::call::to("reviews:9080", "/")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.summary());
}
