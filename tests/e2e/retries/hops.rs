//! Hops that all try again, and what that makes of the load on the last one.

use std::time::Duration;

use http::StatusCode;
use selvedge_demo::{
    call,
    load::Plan,
    workload::{AppKind, Spec},
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::net::TcpListener;

use super::server::{answer, serve};
use crate::SELVEDGE;

/// The requests that the first hop is sent.
const OFFERED: u64 = 600;

/// Every hop tries again what fails, within a budget of a fifth.
fn retried(service: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {service}}}\nspec:\n  \
         hosts: [{service}]\n  http: [{{route: [{{destination: {{host: {service}}}}}], \
         retries: {{attempts: 3, retryOn: 5xx}}}}]\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {service}}}\nspec:\n  \
         host: {service}\n  trafficPolicy: {{retryBudget: {{percent: 20, minRetryConcurrency: 0, budgetInterval: 10s}}}}\n"
    )
}

/// A workload whose app is this test.
fn app(service: &str) -> Spec {
    let mut spec = Spec::server(&format!("{service}-1"), service, 9080);
    spec.app = AppKind::None;
    spec
}

/// How long an app works on a failed call before it answers, where it is slow. Meanwhile others begin, and end before it.
const WORK: Duration = Duration::from_millis(10);

/// The app of `service` asks `next` for each request, and answers after `work`.
async fn asks(mesh: &Mesh, service: &str, next: &'static str, work: Duration) {
    let workload = mesh.workload(&format!("{service}-1"));
    let (listener, outbound) = (TcpListener::bind(workload.app).await.unwrap(), workload.outbound);
    serve(listener, move |_, _| async move {
        match call::send(outbound, call::to(next, "/")).await {
            Ok(said) if said.status == StatusCode::OK => answer(200, ""),
            _ => {
                tokio::time::sleep(work).await;
                answer(502, "")
            }
        }
    });
}

/// Waits until one request has been tried again by the last sidecar: then all of them know all rules.
async fn all_know_all_rules(mesh: &Mesh) {
    poll(SOON, "the last hop tries again", async || {
        mesh.workload("caller").call(call::to("one:9080", "/")).await.map_err(|error| error.to_string())?;
        let retries = mesh.workload("two-1").metric("selvedge_outbound_retries_total").await;
        match retries.map_err(|error| error.to_string())? {
            Some(retries) if retries >= 1.0 => Ok(()),
            retries => Err(format!("{retries:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn three_hops_that_try_again_load_the_last_one_no_more_than_one_does() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), app("one"), app("two"), app("three")]).await;
    for service in ["one", "two", "three"] {
        mesh.write(&format!("{service}.yaml"), &retried(service)).unwrap();
    }
    asks(&mesh, "one", "two:9080", Duration::ZERO).await;
    asks(&mesh, "two", "three:9080", Duration::ZERO).await;
    let app = mesh.workload("three-1").app;
    let failing = TcpListener::bind(app).await.unwrap();
    let asked = serve(failing, |_, _| async { answer(503, "") });
    let caller = mesh.workload("caller");
    all_know_all_rules(&mesh).await;

    let before = asked.count();
    let report = Plan::new(caller.outbound, "one:9080").connections(8).requests(OFFERED).run().await;

    assert_eq!(report.failed(), OFFERED, "{}", report.summary());
    let load = (asked.count() - before) as f64 / OFFERED as f64;
    assert!((1.1..=1.25).contains(&load), "{load}");

    // What sidecars tell each other of it is for them alone, also where nothing is tried again.
    mesh.write("one.yaml", &retried("one").replace("attempts: 3, retryOn: 5xx", "attempts: 0")).unwrap();
    poll(SOON, "the first hop is no longer tried again", async || {
        let before =
            caller.metric("selvedge_outbound_retries_total").await.map_err(|error| error.to_string())?;
        for _ in 0..30 {
            let said = caller.call(call::to("one:9080", "/")).await.map_err(|error| error.to_string())?;
            assert!(!said.headers.contains_key("selvedge-retried"), "{}", said.summary());
        }
        let after =
            caller.metric("selvedge_outbound_retries_total").await.map_err(|error| error.to_string())?;
        if after == before { Ok(()) } else { Err(format!("{before:?}, then {after:?}")) }
    })
    .await;
}

#[tokio::test]
async fn three_hops_whose_apps_take_their_time_load_the_last_one_no_more_with_many_clients_than_with_one() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), app("one"), app("two"), app("three")]).await;
    for service in ["one", "two", "three"] {
        mesh.write(&format!("{service}.yaml"), &retried(service)).unwrap();
    }
    asks(&mesh, "one", "two:9080", WORK).await;
    asks(&mesh, "two", "three:9080", WORK).await;
    let asked = serve(TcpListener::bind(mesh.workload("three-1").app).await.unwrap(), |_, _| async {
        answer(503, "")
    });
    let caller = mesh.workload("caller");
    all_know_all_rules(&mesh).await;

    for (connections, offered) in [(1, 100), (2, 200), (4, 300), (16, OFFERED)] {
        let before = asked.count();
        let plan = Plan::new(caller.outbound, "one:9080").connections(connections).requests(offered);
        let report = plan.run().await;

        assert_eq!(report.failed(), offered, "{}", report.summary());
        let load = (asked.count() - before) as f64 / offered as f64;
        assert!(load <= 1.25, "{connections} connections: {load}");
    }
}
