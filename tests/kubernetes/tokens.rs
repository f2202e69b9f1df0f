//! Join tokens for workloads outside a cluster: every replica refuses one from the moment at which it is revoked.

use std::{path::Path, process::Command};

use selvedge_demo::processes::{Process, Processes};
use selvedge_tests::{
    SOON,
    kubernetes::{ApiServer, assets, kinds},
    poll,
};
use serde_json::Value;

use crate::{
    SELVEDGE,
    control_plane::{ControlPlane, processes, rights},
};

/// `selvedge token` for the cluster.
fn token(kubeconfig: &Path, args: &[&str]) -> String {
    let mut command = Command::new(SELVEDGE);
    command.arg("token").args(args).args(["--kubernetes", "--kubeconfig"]).arg(kubeconfig);
    let output = command.output().expect("the binary runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// A sidecar that comes to this replica with the token.
fn join(processes: &Processes, name: &str, replica: &ControlPlane, token: &str) -> Process {
    let arguments = [
        "proxy".to_owned(),
        "--exit-on-stdin-close".to_owned(),
        format!("--workload=default/{name}"),
        format!("--control-plane={}", replica.grpc),
        format!("--token={token}"),
        "--app=127.0.0.1:1".to_owned(),
        "--outbound=127.0.0.1:0".to_owned(),
        "--inbound=127.0.0.1:0".to_owned(),
        "--admin=127.0.0.1:0".to_owned(),
    ];
    processes.start(name, arguments).unwrap()
}

async fn says(sidecar: &Process, words: &str) {
    poll(SOON, &format!("the sidecar says {words:?}"), async || {
        let log = sidecar.whole_log().map_err(|error| error.to_string())?;
        if log.contains(words) { Ok(()) } else { Err(log) }
    })
    .await;
}

#[tokio::test]
async fn a_revoked_token_is_refused_by_every_replica_and_after_a_restart() {
    let Some(assets) = assets() else { return };
    let server = ApiServer::start(assets).await;
    server.serve(kinds::CORE).await;
    let kubeconfig = rights(&server).await;
    let (processes, _exits) = processes(&server);
    let data = server.directory().join("data");
    std::fs::create_dir(&data).unwrap();
    let start = async |name: &str| ControlPlane::start(&processes, name, &kubeconfig, &data).await;
    let (first, second) = (start("replica-1").await, start("replica-2").await);
    let admin = server.admin_kubeconfig();
    let of = |account: &str| token(&admin, &["create", "--namespace=default", "--service-account", account]);
    let (stolen, other) = (of("stolen"), of("other"));
    says(&join(&processes, "before", &second, &stolen), "certificate in use").await;
    let listed: Vec<Value> = serde_json::from_str(&token(&admin, &["list", "--json"])).unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let is_stolen = |token: &&Value| token["identity"] == "spiffe://cluster.local/ns/default/sa/stolen";
    let id = listed.iter().find(is_stolen).and_then(|token| token["id"].as_str()).unwrap();

    token(&admin, &["revoke", id]);

    let words = format!("the join token {id} was revoked");
    for (name, replica) in [("at-the-first", &first), ("at-the-second", &second)] {
        says(&join(&processes, name, replica, &stolen), &words).await;
        says(&join(&processes, &format!("other-{name}"), replica, &other), "certificate in use").await;
    }
    first.lacked_no_right(&server).await;
    drop(first);
    let again = start("replica-1").await;
    says(&join(&processes, "after", &again, &stolen), &words).await;
    assert!(token(&admin, &["list"]).contains("revoked"));
}
