//! The control plane is away: what runs goes on, and what changed meanwhile arrives when it is back.

use selvedge_demo::{
    apps::reviews,
    call,
    load::Plan,
    workload::{Spec, Workload},
};
use selvedge_tests::{Mesh, SOON, poll};

use crate::SELVEDGE;

fn canary_specs() -> [Spec; 3] {
    [Spec::client("frontend"), Spec::reviews("reviews-v1-a", "v1"), Spec::reviews("reviews-v2", "v2")]
}

async fn canary() -> Mesh {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write_canary().unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add(canary_specs()).await.unwrap();
    mesh
}

/// Waits until a request of jason's is answered by `version`.
async fn jason_sees(frontend: &Workload, version: &str) {
    poll(SOON, &format!("jason sees {version}"), async || {
        let answer = frontend.call(call::to("reviews:9080", "/").header("end-user", "jason")).await;
        let answer: reviews::Answer =
            answer.and_then(|answer| answer.json()).map_err(|error| error.to_string())?;
        if answer.version == version { Ok(()) } else { Err(answer.version) }
    })
    .await;
}

#[tokio::test]
async fn traffic_goes_on_without_a_control_plane_and_a_change_arrives_with_it() {
    let mut mesh = canary().await;
    jason_sees(mesh.workload("frontend"), "v2").await;

    mesh.kill_control_plane().await.unwrap();
    mesh.edit("virtualservice.yaml", |text| text.replace("exact: jason", "exact: nobody")).unwrap();
    let frontend = mesh.workload("frontend");
    let plan = Plan::new(frontend.outbound, "reviews:9080").header("end-user", "jason").keys(&["version"]);
    let report = plan.requests(500).run().await;
    assert_eq!(report.failed(), 0, "{}", report.summary());
    assert_eq!(report.count("version", "v2"), 500, "the last good configuration holds");

    mesh.edit("virtualservice.yaml", |text| {
        text.replace("weight: 90", "weight: 100").replace("weight: 10\n", "weight: 0\n")
    })
    .unwrap();
    mesh.start_control_plane().await.unwrap();
    jason_sees(mesh.workload("frontend"), "v1").await;
}

#[tokio::test]
async fn a_restarted_control_plane_has_the_same_ca() {
    let mut mesh = canary().await;
    let token = mesh.token("reviews", "1h").await.unwrap();

    mesh.kill_control_plane().await.unwrap();
    mesh.start_control_plane().await.unwrap();
    // A token from before, whose holder trusts the root from before, and a peer certified before.
    mesh.place(Spec::reviews("reviews-v2-b", "v2")).unwrap();
    mesh.start_app("reviews-v2-b").unwrap();
    mesh.start_sidecar_with("reviews-v2-b", &token).unwrap();
    mesh.sidecar_ready("reviews-v2-b").await.unwrap();
    mesh.kill_app("reviews-v2").await.unwrap();

    jason_sees(mesh.workload("frontend"), "v2").await;
}

#[tokio::test]
async fn a_stopped_control_plane_holds_up_nobody() {
    let mesh = canary().await;
    jason_sees(mesh.workload("frontend"), "v2").await;

    mesh.control_plane_process().unwrap().freeze().await.unwrap();
    let report = Plan::new(mesh.workload("frontend").outbound, "reviews:9080").requests(500).run().await;

    assert_eq!(report.failed(), 0, "{}", report.summary());
}
