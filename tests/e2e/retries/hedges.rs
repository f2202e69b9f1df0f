//! Requests that go to a second endpoint because the first has not answered: `config.selvedge.io/hedge`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Method;
use selvedge_demo::{
    call::{self, Call},
    workload::{Spec, Workload},
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::net::TcpListener;

use super::server::{answer, serve};
use crate::SELVEDGE;

/// How long a test waits for what does not come.
const SHORT: Duration = Duration::from_millis(700);

/// `host` is at all of `addresses`, outside the mesh. Requests to it are hedged as `hedge` says, within this budget.
fn hedged(host: &str, addresses: &[SocketAddr], hedge: &str, budget: &str) -> String {
    let endpoints: Vec<String> = addresses.iter().map(|at| format!("{{address: {}}}", at.ip())).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {host}}}\nspec:\n  hosts: [{host}]\n  \
         resolution: STATIC\n  ports: [{{number: 80, name: http, targetPort: {}}}]\n  endpoints: [{}]\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: {host}, annotations: {{config.selvedge.io/hedge: {hedge}}}}}\n\
         spec: {{host: {host}, trafficPolicy: {{retryBudget: {{{budget}}}}}}}\n",
        addresses[0].port(),
        endpoints.join(", ")
    )
}

/// What two servers have seen together of requests for `/slow`.
#[derive(Debug, Clone, Default)]
struct Seen {
    asked: Arc<AtomicUsize>,
    cancelled: Arc<AtomicUsize>,
}

/// A request that is in progress. Dropped before its end: it was cancelled.
struct InProgress(Arc<AtomicUsize>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A server that never answers every other request for `/slow` that it and its like get, and any other at once.
async fn slow(address: SocketAddr, seen: &Seen) {
    let (listener, seen) = (TcpListener::bind(address).await.unwrap(), seen.clone());
    serve(listener, move |_, request| {
        let seen = seen.clone();
        async move {
            if request.uri().path() == "/slow" && seen.asked.fetch_add(1, Ordering::Relaxed) % 2 == 0 {
                let _in_progress = InProgress(Arc::clone(&seen.cancelled));
                std::future::pending::<()>().await;
            }
            answer(200, address.to_string())
        }
    });
}

/// `call` for `/slow` is answered, because a second endpoint is asked.
async fn is_hedged(caller: &Workload, seen: &Seen, call: Call) {
    // The next one is the first of two.
    seen.asked.store(0, Ordering::Relaxed);
    let answer = caller.call(call.timeout(SOON)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.summary());
    assert_eq!(seen.asked.load(Ordering::Relaxed), 2);
}

/// `call` for `/slow` is not answered, and one endpoint is asked.
async fn is_not_hedged(caller: &Workload, seen: &Seen, call: Call) {
    seen.asked.store(0, Ordering::Relaxed);
    caller.call(call.timeout(SHORT)).await.unwrap_err();
    assert_eq!(seen.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_request_that_takes_long_goes_to_a_second_endpoint_and_the_first_good_answer_counts() {
    let mut mesh = Mesh::empty(SELVEDGE);
    let addresses = [201, 202].map(|host| mesh.ground().socket(host, 9007).unwrap());
    let seen = Seen::default();
    for address in addresses {
        slow(address, &seen).await;
    }
    let plenty = "percent: 100, minRetryConcurrency: 3";
    let documents = [
        hedged("time.test", &addresses, "100ms", plenty),
        hedged("percentile.test", &addresses, "p95", plenty),
        hedged("single.test", &addresses[..1], "100ms", plenty),
        hedged("broke.test", &addresses, "100ms", "percent: 0, minRetryConcurrency: 0"),
    ];
    mesh.write("hosts.yaml", &documents.join("---\n")).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller")]).await.unwrap();
    let caller = mesh.workload("caller");

    is_hedged(caller, &seen, call::to("time.test", "/slow")).await;
    poll(SOON, "the other attempt is cancelled", async || match seen.cancelled.load(Ordering::Relaxed) {
        1 => Ok(()),
        cancelled => Err(cancelled),
    })
    .await;
    let hedges = caller.metric("selvedge_outbound_hedges_total").await.unwrap();
    assert_eq!(hedges, Some(1.0));

    // What may not be carried out twice, or has a body, is asked for once.
    let post = call::to("time.test", "/slow").method(Method::POST);
    is_not_hedged(caller, &seen, post).await;
    let put = call::to("time.test", "/slow").method(Method::PUT).body("a body");
    is_not_hedged(caller, &seen, put).await;
    // And where there is no second endpoint, or no budget.
    is_not_hedged(caller, &seen, call::to("single.test", "/slow")).await;
    is_not_hedged(caller, &seen, call::to("broke.test", "/slow")).await;

    // A percentile must be known first.
    is_not_hedged(caller, &seen, call::to("percentile.test", "/slow")).await;
    for _ in 0..30 {
        assert_eq!(caller.call(call::to("percentile.test", "/")).await.unwrap().status, 200);
    }
    is_hedged(caller, &seen, call::to("percentile.test", "/slow")).await;
}
