//! grpcio as client and as server, and with our own failures.

use selvedge_demo::workload::AppKind;

use super::{APP, Ways, passes, script};

const CLIENT: &str = "grpc_client.py";

#[tokio::test]
async fn its_client_and_our_server_understand_each_other() {
    let Some(_) = script(CLIENT) else { return };
    let ways = Ways::to(AppKind::Grpc).await;
    for (way, at) in ways.each() {
        passes(&mut script(CLIENT).expect("as above"), way, at, APP, &[], 11).await;
    }
}

#[tokio::test]
async fn its_client_and_its_server_understand_each_other() {
    let Some((ways, _server)) = Ways::to_script("grpc_server.py").await else { return };
    for (way, at) in ways.each() {
        passes(&mut script(CLIENT).expect("as above"), way, at, APP, &["--full"], 15).await;
    }
}

#[tokio::test]
async fn our_own_failures_are_statuses_that_it_reads() {
    let Some(_) = script(CLIENT) else { return };
    let ways = Ways::to(AppKind::None).await;
    for (way, at) in ways.each() {
        let mut error = vec!["--error", "app-unreachable"];
        if way == "past-the-clients-sidecar" {
            // It has no certificate then.
            error.push("--stranger");
        }
        passes(&mut script(CLIENT).expect("as above"), way, at, APP, &error, 1).await;
    }
}
