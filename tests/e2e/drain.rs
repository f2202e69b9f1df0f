//! SIGTERM: what is under way is finished, then the process leaves.

use std::time::Duration;

use rustix::process::Signal;
use selvedge_demo::{
    call::{self, Answer, CallError},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, poll};

use crate::SELVEDGE;

/// A request that takes long enough to be met by a signal.
const SLOW: &str = "/?delay=2s";

async fn pair() -> Mesh {
    let specs = [Spec::client("caller"), Spec::server("reviews-v1-a", "reviews", 9080)];
    let mesh = Mesh::of(SELVEDGE, specs).await;
    let answer = mesh.workload("caller").call(call::to("reviews:9080", "/")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.summary());
    mesh
}

/// Sends a slow request, and SIGTERM to `workload`'s sidecar while it is under way.
async fn terminated_during_a_request(mesh: &Mesh, workload: &str) -> Result<Answer, CallError> {
    let caller = mesh.workload("caller");
    let sidecar = mesh.workload(workload).sidecar_process().unwrap();
    let (answer, ()) = tokio::join!(caller.call(call::to("reviews:9080", SLOW)), async {
        // The request is under way once the sidecar that it leaves by counts it.
        poll(SOON, "the slow request is under way", async || {
            let endpoints = caller.admin_json("/endpoints").await.map_err(|error| error.to_string())?;
            let busy = endpoints.as_array().into_iter().flatten().any(|endpoint| endpoint["in_flight"] == 1);
            if busy { Ok(()) } else { Err(endpoints.to_string()) }
        })
        .await;
        sidecar.signal(Signal::TERM).unwrap();
    });
    answer
}

#[tokio::test]
async fn a_slow_request_is_finished_when_the_servers_sidecar_is_terminated() {
    let mesh = pair().await;

    let answer = terminated_during_a_request(&mesh, "reviews-v1-a").await.unwrap();

    assert_eq!(answer.status, 200, "{}", answer.summary());
    let status = mesh.workload("reviews-v1-a").sidecar_process().unwrap().wait(SOON).await.unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_slow_request_is_finished_when_the_clients_sidecar_is_terminated() {
    let mesh = pair().await;

    let answer = terminated_during_a_request(&mesh, "caller").await.unwrap();

    assert_eq!(answer.status, 200, "{}", answer.summary());
    let caller = mesh.workload("caller");
    let status = caller.sidecar_process().unwrap().wait(SOON).await.unwrap();
    assert!(status.success(), "{status}");
    assert!(caller.call(call::to("reviews:9080", "/")).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn an_idle_sidecar_leaves_at_once() {
    let mesh = pair().await;
    let sidecar = mesh.workload("reviews-v1-a").sidecar_process().unwrap();

    let status = sidecar.terminate(Duration::from_secs(5)).await.unwrap();

    assert!(status.success(), "{status}");
}
