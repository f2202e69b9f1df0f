//! `selvedge certs rotate-root --kubernetes`: the Secret goes through the steps, and every replica and sidecar follows.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use selvedge_tests::{
    kubernetes::{ApiServer, assets, kinds},
    poll,
};
use serde_json::Value;

use crate::{
    SELVEDGE,
    control_plane::{ControlPlane, rights},
    world::World,
};

const SECRET: &str = "/api/v1/namespaces/selvedge/secrets/selvedge-ca";
/// Replicas look at the Secret every 10 s, in each step.
const STEPS: Duration = Duration::from_secs(180);

/// The command for two replicas, which are no pods here.
fn rotate(kubeconfig: &Path, replicas: [&ControlPlane; 2], flags: &[&str]) -> Command {
    let mut command = Command::new(SELVEDGE);
    command.args(["certs", "rotate-root", "--kubernetes", "--kubeconfig"]).arg(kubeconfig).args(flags);
    command.args(replicas.map(|replica| format!("--admin={}", replica.admin)));
    command
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

async fn data(server: &ApiServer) -> Value {
    server.api().get(SECRET).await.unwrap()["data"].clone()
}

fn names(data: &Value) -> Vec<&str> {
    data.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn a_clusters_root_is_replaced_and_a_change_is_taken_back() {
    let Some(assets) = assets() else { return };
    let server = ApiServer::start(assets).await;
    server.serve(kinds::CORE).await;
    let kubeconfig = rights(&server).await;
    let world = World::new(server).await;
    let start =
        async |name: &str| ControlPlane::start(&world.processes, name, &kubeconfig, &world.data).await;
    let (first, second) = (start("replica-1").await, start("replica-2").await);
    let (one, other) = (world.caller("one", 21, &first).await, world.caller("other", 22, &second).await);
    for caller in [&one, &other] {
        caller.reaches("reviews-a", STEPS).await;
    }
    let admin: PathBuf = world.server.admin_kubeconfig();
    let before = data(&world.server).await;

    // It is ended in the second step, and taken back.
    let mut begun = rotate(&admin, [&first, &second], &[]).spawn().unwrap();
    poll(STEPS, "the new root signs", async || {
        let data = data(&world.server).await;
        if data["previous.crt"].is_string() { Ok(()) } else { Err(format!("{:?}", names(&data))) }
    })
    .await;
    begun.kill().unwrap();
    begun.wait().unwrap();
    let back = rotate(&admin, [&first, &second], &["--abort"]).output().unwrap();
    assert!(back.status.success(), "{}", said(&back));
    assert_eq!(data(&world.server).await, before);

    let done = rotate(&admin, [&first, &second], &[]).output().unwrap();

    assert!(done.status.success(), "{}", said(&done));
    let after = data(&world.server).await;
    assert_eq!(names(&after).len(), 3, "{:?}", names(&after));
    assert_eq!(after["tls.crt"], after["ca.crt"]);
    assert_ne!(after["tls.crt"], before["tls.crt"]);
    for (caller, replica) in [(&one, &first), (&other, &second)] {
        caller.reaches("reviews-a", STEPS).await;
        let config = replica.admin("/config").await;
        assert_eq!(config["trust_roots"].as_array().map(Vec::len), Some(1), "{config}");
        assert_eq!(config["proxies"][0]["certificate_root"], config["trust_roots"][0]);
    }
    // A replica that starts now, and who joins at it, knows nothing else.
    let third = start("replica-3").await;
    world.caller("newcomer", 23, &third).await.reaches("reviews-a", STEPS).await;
}
