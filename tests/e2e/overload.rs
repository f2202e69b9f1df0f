//! Limits of a `DestinationRule`'s `connectionPool`: what exceeds one is refused at once, counted and named.

mod adaptive;
mod changed;

use selvedge_demo::{
    load::Plan,
    workload::{Spec, Workload},
};
use selvedge_tests::{Mesh, SOON, poll};

use crate::{
    SELVEDGE,
    raw::{APP, Around, CALLERS, Head, Raw},
};

/// The mesh, with these limits on calls to the app in force.
async fn limited(limits: &str) -> Around {
    let around = Around::new().await;
    let rule = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: app}}\n\
         spec:\n  host: app\n  trafficPolicy:\n    connectionPool: {limits}\n"
    );
    let before = configuration(&around).await;
    around.mesh.write("limits.yaml", &rule).expect("the directory is ours");
    // No sidecar has asked for the service yet: what the control plane has is what they get.
    poll(SOON, "the control plane has the limits", async || {
        let now = configuration(&around).await;
        if now > before { Ok(()) } else { Err(now) }
    })
    .await;
    around
}

/// The number of the configuration that the control plane has.
async fn configuration(around: &Around) -> u64 {
    let config = around.mesh.control_plane_admin("/config").await.expect("the control plane's admin port");
    let config: serde_json::Value = config.json().expect("JSON");
    config["configuration_version"].as_u64().expect("a number")
}

/// A new client's request, sent.
async fn asks(around: &Around, caller: &str) -> Raw {
    let mut client = around.client(caller).await;
    client.send(format!("GET /x HTTP/1.1\r\nhost: {APP}\r\n\r\n")).await;
    client
}

fn is_overflow(head: &Head) {
    assert_eq!(head.status(), "503", "{}", head.0);
    assert!(head.header("selvedge-error").is_some_and(|why| why.starts_with("overflow: ")), "{}", head.0);
    assert_eq!(head.header("retry-after"), Some("1"), "{}", head.0);
}

async fn counts(workload: &Workload, limit: &str) {
    let label = format!("limit=\"{limit}\"");
    poll(SOON, "it is counted", async || {
        let metrics = workload.admin("/metrics").await.map_err(|error| error.to_string())?.text();
        let mut counted =
            metrics.lines().filter(|line| line.starts_with("selvedge_outbound_overflows_total"));
        let once = counted.any(|line| line.contains(&label) && line.ends_with(" 1"));
        if once { Ok(()) } else { Err(metrics) }
    })
    .await;
}

/// Writes `route` down, and waits until the control plane has it.
async fn follows(around: &Around, route: &str) {
    let before = configuration(around).await;
    around.mesh.write("route.yaml", route).expect("the directory is ours");
    poll(SOON, "the control plane has the route", async || {
        let now = configuration(around).await;
        if now > before { Ok(()) } else { Err(now) }
    })
    .await;
}

#[tokio::test]
async fn more_requests_than_a_service_may_have_in_progress_are_refused_at_once() {
    let around = limited("{http: {http2MaxRequests: 2}}").await;
    for caller in CALLERS {
        let mut first = asks(&around, caller).await;
        let mut app = around.accept().await;
        app.head().await;
        let mut second = asks(&around, caller).await;
        let mut other = around.accept().await;
        other.head().await;

        let mut third = asks(&around, caller).await;
        is_overflow(&third.head().await);
        counts(around.mesh.workload(caller), "http2MaxRequests").await;

        app.answer("done").await;
        assert_eq!(first.head().await.status(), "200", "{caller}");
        assert_eq!(first.exactly(4).await, "done");
        // The client sees the answer's end a moment before the sidecar counts it.
        let (mut fourth, mut app) = poll(SOON, "there is room again", async || {
            let mut client = asks(&around, caller).await;
            tokio::select! {
                refused = client.head() => Err(refused.0),
                app = around.accept() => Ok((client, app)),
            }
        })
        .await;
        app.head().await;
        app.answer("done").await;
        assert_eq!(fourth.head().await.status(), "200", "{caller}");
        other.answer("late").await;
        assert_eq!(second.head().await.status(), "200", "{caller}");
    }
}

#[tokio::test]
async fn a_client_that_closes_gives_the_place_of_its_request_to_others_and_nothing_is_tried_again_for_it() {
    let around = limited("{http: {http2MaxRequests: 1}}").await;
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: app}\nspec:\n  hosts: [app]\n  \
                 http:\n  - route: [{destination: {host: app}}]\n    \
                 retries: {attempts: 5, perTryTimeout: 400ms, retryOn: '5xx'}\n";
    follows(&around, route).await;

    for caller in CALLERS {
        let first = asks(&around, caller).await;
        let mut app = around.accept().await;
        app.head().await;

        drop(first);

        assert_eq!(app.rest().await, "", "{caller}: its request has ended");
        assert!(around.nobody_connects().await, "{caller}: nothing is tried again");
        let mut second = asks(&around, caller).await;
        let mut app = around.accept().await;
        app.head().await;
        app.answer("done").await;
        assert_eq!(second.head().await.status(), "200", "{caller}");
    }
}

#[tokio::test]
async fn a_request_waits_for_the_one_connection_and_another_one_is_refused() {
    let around = limited("{tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}").await;
    for caller in CALLERS {
        let mut first = asks(&around, caller).await;
        let mut app = around.accept().await;
        app.head().await;

        // Of two more, one waits, whichever is first at its sidecar.
        let (mut second, mut third) = (asks(&around, caller).await, asks(&around, caller).await);
        let (refused, waits) = tokio::select! {
            head = second.head() => (head, &mut third),
            head = third.head() => (head, &mut second),
        };
        is_overflow(&refused);
        counts(around.mesh.workload(caller), "http1MaxPendingRequests").await;
        assert!(around.nobody_connects().await, "{caller}: it waits");

        app.answer("done").await;
        assert_eq!(first.head().await.status(), "200", "{caller}");
        let mut app = around.accept().await;
        app.head().await;
        app.answer("next").await;
        assert_eq!(waits.head().await.status(), "200", "{caller}");
        assert_eq!(waits.exactly(4).await, "next");
    }
}

#[tokio::test]
async fn no_more_attempts_after_the_first_are_in_progress_than_are_allowed() {
    let around = limited("{http: {maxRetries: 1}}").await;
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: app}\nspec:\n  hosts: [app]\n  \
                 http:\n  - route: [{destination: {host: app}}]\n    retries: {attempts: 1, retryOn: '503'}\n";
    follows(&around, route).await;
    let fails = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

    for caller in CALLERS {
        let mut first = asks(&around, caller).await;
        let mut app = around.accept().await;
        app.head().await;
        app.send(fails).await;
        let mut again = around.accept().await;
        again.head().await;

        // That is tried once more. While it is, nothing else is.
        let mut second = asks(&around, caller).await;
        let mut app = around.accept().await;
        app.head().await;
        app.send(fails).await;
        assert_eq!(second.head().await.status(), "503", "{caller}");
        assert!(around.nobody_connects().await, "{caller}");

        again.answer("done").await;
        assert_eq!(first.head().await.status(), "200", "{caller}");
    }
}

/// The rule of Istio's task "Circuit Breaking".
const TASK: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: httpbin}
spec:
  host: httpbin
  trafficPolicy:
    connectionPool:
      tcp: {maxConnections: 1}
      http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}
    outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 3m, maxEjectionPercent: 100}
";

#[tokio::test]
async fn istios_circuit_breaking_task_trips_as_its_page_says_whatever_the_carrier() {
    let carriers = ["http1", "http2"];
    let callers = carriers.map(|carrier| Spec::client(carrier).flag("--carrier", carrier));
    let server = Spec::server("httpbin-1", "httpbin", 8000);
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.service("httpbin", 8000);
    mesh.write("task.yaml", TASK).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add(callers.into_iter().chain([server])).await.unwrap();

    for caller in carriers {
        let outbound = mesh.workload(caller).outbound;
        let run = async |connections: usize, requests| {
            let plan = Plan::new(outbound, "httpbin:8000").path("/?delay=20ms");
            let report = plan.connections(connections).requests(requests).run().await;
            println!("{caller}: {connections} connections: {}", report.summary());
            report.failed()
        };

        assert_eq!(run(1, 20).await, 0, "{caller}: one after the other");
        let (two, three) = (run(2, 40).await, run(3, 60).await);
        assert!(two < 40, "{caller}: some of two get through");
        assert!((1..60).contains(&three), "{caller}: of three, some get through and some do not");
        let refused = mesh.workload(caller).metric("selvedge_outbound_overflows_total").await.unwrap();
        assert!(refused >= Some(three as f64), "{caller}: {refused:?} refused");
        // Refusals of its own say nothing of the endpoint, which is not ejected for them.
        assert_eq!(run(1, 5).await, 0, "{caller}: and one after the other again");
    }
}
