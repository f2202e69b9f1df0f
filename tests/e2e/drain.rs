//! SIGTERM: what is under way is finished, then the process leaves.

use rustix::process::Signal;
use selvedge_demo::{
    call::{self, Answer, CallError},
    workload::{Spec, Workload},
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

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
async fn an_idle_sidecar_whose_app_is_gone_leaves_at_once() {
    let patient = Spec::server("reviews-v1-a", "reviews", 9080).flag("--drain-delay", "1h");
    let mut mesh = Mesh::of(SELVEDGE, [patient.flag("--drain-timeout", "1h")]).await;
    mesh.stop_app("reviews-v1-a").await.unwrap();
    let sidecar = mesh.workload("reviews-v1-a").sidecar_process().unwrap();

    let status = sidecar.terminate(SOON).await.unwrap();

    assert!(status.success(), "{status}");
}

/// A workload with an app that this test plays itself, and a caller.
async fn played() -> (Mesh, TcpListener) {
    let worker = Spec::client("worker").flag("--drain-delay", "1h").flag("--drain-timeout", "1h");
    let specs = [Spec::client("caller"), worker, Spec::server("reviews-v1-a", "reviews", 9080)];
    let mesh = Mesh::of(SELVEDGE, specs).await;
    let app = TcpListener::bind(mesh.workload("worker").app).await.unwrap();
    (mesh, app)
}

/// Sends SIGTERM to a sidecar, which says from then on that it drains.
async fn told(workload: &Workload) {
    workload.sidecar_process().unwrap().signal(Signal::TERM).unwrap();
    poll(SOON, "/ready says that it drains", async || {
        let answer = workload.admin("/ready").await.map_err(|error| error.to_string())?;
        if answer.status == 503 && answer.text().contains("draining") { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}

async fn refused(workload: &Workload) -> bool {
    matches!(workload.call(call::to("reviews:9080", "/")).await, Err(CallError::Connect { .. }))
}

#[tokio::test]
async fn the_way_out_stays_open_until_what_came_in_is_finished_and_the_app_is_gone() {
    let (mesh, app) = played().await;
    let (caller, worker) = (mesh.workload("caller"), mesh.workload("worker"));
    let playing = async {
        let (mut asked, _) = app.accept().await.unwrap();
        let mut head = [0; 4096];
        assert!(asked.read(&mut head).await.unwrap() > 0);
        told(worker).await;
        // Both ways, as if nothing were the matter.
        let needed = worker.call(call::to("reviews:9080", "/")).await.unwrap();
        assert_eq!(needed.status, 200, "{}", needed.summary());
        drop(app);
        poll(SOON, "the way in is closed", async || {
            match tokio::net::TcpStream::connect(worker.inbound).await {
                Ok(_) => Err("it takes connections"),
                Err(_) => Ok(()),
            }
        })
        .await;
        // What the request under way still needs.
        let needed = worker.call(call::to("reviews:9080", "/")).await.unwrap();
        assert_eq!(needed.status, 200, "{}", needed.summary());
        asked.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await.unwrap();
    };

    let (answer, ()) = tokio::join!(caller.call(call::to("worker:8080", "/")), playing);

    assert_eq!(answer.unwrap().text(), "done");
    let status = worker.sidecar_process().unwrap().wait(SOON).await.unwrap();
    assert!(status.success(), "{status}");
    assert!(refused(worker).await);
}

#[tokio::test]
async fn the_way_out_is_closed_at_the_limit_whatever_the_app_does() {
    let mut mesh = pair().await;
    mesh.restart_sidecar("reviews-v1-a", &[("--drain-delay", "1h"), ("--drain-timeout", "1s")])
        .await
        .unwrap();
    let workload = mesh.workload("reviews-v1-a");

    told(workload).await;

    let status = workload.sidecar_process().unwrap().wait(SOON).await.unwrap();
    assert!(status.success(), "{status}");
    assert!(refused(workload).await);
}

#[tokio::test]
async fn a_pod_that_leaves_costs_no_request_because_another_endpoint_is_tried() {
    let flags = |spec: Spec| spec.flag("--drain-delay", "1h").flag("--drain-timeout", "1h");
    let specs = [
        Spec::client("caller"),
        flags(Spec::server("reviews-v1-a", "reviews", 9080)),
        Spec::server("reviews-v1-b", "reviews", 9080),
    ];
    let mut mesh = Mesh::of(SELVEDGE, specs).await;
    let leaving = mesh.workload("reviews-v1-a");
    told(leaving).await;
    mesh.stop_app("reviews-v1-a").await.unwrap();

    for _ in 0..20 {
        let answer = mesh.workload("caller").call(call::to("reviews:9080", "/").body("once")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.summary());
    }
}
