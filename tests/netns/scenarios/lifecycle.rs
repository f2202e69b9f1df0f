//! What must hold when something fails or goes away.

use std::time::Duration;

use selvedge_demo::{
    call::{self, CallError},
    load::Plan,
};
use selvedge_tests::poll;

use super::{SECRET, answers, for_v2, secret, told, way};
use crate::{
    capture::Capture,
    mesh::{Mesh, server},
};

/// Longer than a sidecar takes to find out that a peer is gone which said nothing: a ping every 10 s, answered
/// within 5.
pub(super) const FOUND_OUT: Duration = Duration::from_secs(40);

/// Packets vanish: who waits for an answer gets none, others are served, and when packets pass again so is he.
pub(super) async fn a_partition_heals(mesh: &Mesh) {
    let address = way(mesh);
    answers(mesh, for_v2()).await;

    mesh.network.cut(&mesh.workload("reviews-v2").place);
    let cut_off = mesh.workload("client").call(address, for_v2()).await;
    assert!(cut_off.as_ref().map_or(true, |answer| answer.status.is_server_error()), "{}", told(&cut_off));
    let mut served = 0;
    while served < 20 {
        let call = call::to("reviews:9080", "/").timeout(Duration::from_secs(2));
        match mesh.workload("client").call(address, call).await {
            Ok(answer) if answer.status == 200 => served += 1,
            other => println!("to v2, presumably: {}", told(&other)),
        }
    }

    mesh.network.heal(&mesh.workload("reviews-v2").place);
    let began = std::time::Instant::now();
    answers(mesh, for_v2()).await;
    println!("served again after {:?}", began.elapsed());
}

/// A node is gone without a word, while the mesh's documents still name its workload: soon nobody is sent there.
pub(super) async fn a_lost_node_is_left_out(mesh: &mut Mesh) {
    let address = way(mesh);
    mesh.network.cut(&mesh.workload("reviews-v1-b").place);
    mesh.lose("reviews-v1-b").await;

    let began = std::time::Instant::now();
    let plan = Plan { timeout: Duration::from_secs(2), ..Plan::new(address, "reviews:9080").requests(100) };
    poll(FOUND_OUT, "no request fails any more", async || {
        let report = mesh.workload("client").load(plan.clone()).await;
        println!("{:?}: {}", began.elapsed(), report.summary());
        if report.failed() == 0 { Ok(()) } else { Err(report.summary()) }
    })
    .await;
}

/// Its new owner has a certificate of the mesh, but of another identity: it gets no request.
pub(super) async fn an_address_that_another_workload_got_is_refused(mesh: &mut Mesh) {
    let address = mesh.workload("reviews-v2").place.address;
    mesh.lose("reviews-v2").await;
    let place = mesh.network.join_as("squatter", address);
    mesh.add_in([(server("squatter", "squatter", "v9"), place)]).await;

    let client = mesh.workload("client");
    let outcome = poll(FOUND_OUT, "a refusal by identity", async || {
        let outcome = client.call(way(mesh), for_v2()).await;
        match &outcome {
            Ok(answer) if answer.proxy_error().is_some_and(|error| error.starts_with("identity")) => {
                Ok(told(&outcome))
            }
            _ => Err(told(&outcome)),
        }
    })
    .await;
    println!("{outcome}");
}

/// The rules stay when the sidecar dies, so that nothing leaves in plaintext; with the sidecar all comes back.
pub(super) async fn without_its_own_sidecar_an_app_reaches_nobody(mesh: &mut Mesh) {
    let address = way(mesh);
    mesh.kill_sidecar("client").await;

    let client = mesh.workload("client");
    let capture = Capture::of(client.namespace(), SECRET);
    for _ in 0..5 {
        let refused = client.call(address, secret("/echo")).await;
        assert!(matches!(refused, Err(CallError::Connect { .. })), "{}", told(&refused));
    }
    assert_eq!(capture.found(), 0);

    mesh.restart_sidecar("client").await;
    answers(mesh, secret("/echo")).await;
    assert_eq!(capture.found(), 0);
}

/// Its peers are told so at once, and do not try without mutual TLS.
pub(super) async fn without_its_sidecar_an_app_is_reached_by_nobody(mesh: &mut Mesh) {
    let address = way(mesh);
    answers(mesh, for_v2()).await;
    mesh.kill_sidecar("reviews-v2").await;

    let client = mesh.workload("client");
    let capture = Capture::of(client.namespace(), SECRET);
    let call = secret("/echo").header("end-user", "jason");
    let refused = client.call(address, call.clone()).await;
    let reason = refused.as_ref().ok().and_then(|answer| answer.proxy_error()).unwrap_or_default();
    assert!(["connect-failure", "reset"].iter().any(|word| reason.starts_with(word)), "{}", told(&refused));
    // Nor does somebody who is not of the mesh get past the rules.
    let outsider = mesh.workload("outsider");
    let refused = outsider.call(mesh.workload("reviews-v2").address(), call::to("reviews:9080", "/")).await;
    assert!(matches!(refused, Err(CallError::Connect { .. })), "{}", told(&refused));

    mesh.restart_sidecar("reviews-v2").await;
    answers(mesh, call).await;
    assert_eq!(capture.found(), 0);
}
