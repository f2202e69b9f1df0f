//! What a cluster holds and nobody can use opens nothing, however long a replica has been there.

use std::net::SocketAddr;

use selvedge_demo::call;
use selvedge_tests::{
    SOON,
    kubernetes::{ApiServer, assets, kinds},
    poll,
};
use serde_json::{Value, json};

use crate::{
    control_plane::{ControlPlane, rights},
    world::{Caller, World},
};

const POLICIES: &str = "/apis/security.istio.io/v1/namespaces/default/peerauthentications";

fn policy(mode: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "default"},
        "spec": {"mtls": {"mode": mode}},
    })
}

async fn inbound(caller: &Caller) -> SocketAddr {
    caller.process.listener("inbound", SOON).await.unwrap()
}

/// Waits until a policy refuses plaintext there, or none does.
async fn refuses(inbound: SocketAddr, refuses: bool, when: &str) {
    poll(SOON, when, async || {
        let answer = call::send(inbound, call::to("caller:9080", "/")).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let refused = answer.proxy_error().is_some_and(|why| why.starts_with("policy"));
        if refused == refuses { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_used_is_strict_unless_this_replica_knows_a_good_version() {
    let Some(assets) = assets() else { return };
    let server = ApiServer::start(assets).await;
    server.serve(kinds::CORE).await;
    server.serve(kinds::ISTIO).await;
    let kubeconfig = rights(&server).await;
    let world = World::new(server).await;
    let first = ControlPlane::start(&world.processes, "replica-1", &kubeconfig, &world.data).await;
    let caller = world.caller("caller", 21, &first).await;
    let here = inbound(&caller).await;
    refuses(here, false, "nothing is asked for").await;

    world.create(POLICIES, &policy("OPEN")).await;
    refuses(here, true, "it was never good").await;
    first.problems("that is told", |problems| problems.contains("mutual TLS only")).await;

    let path = format!("{POLICIES}/default");
    world.server.api().merge(&path, &policy("PERMISSIVE")).await.unwrap();
    refuses(here, false, "it is good").await;
    world.server.api().merge(&path, &policy("OPEN")).await.unwrap();
    first.problems("its good version is known", |problems| problems.contains("last good version")).await;
    refuses(here, false, "its good version stays").await;

    // A newcomer knows of none.
    first.process.kill().await.unwrap();
    let second = ControlPlane::start(&world.processes, "replica-2", &kubeconfig, &world.data).await;
    let newcomer = world.caller("newcomer", 22, &second).await;
    refuses(inbound(&newcomer).await, true, "a replica that has begun later").await;
}
