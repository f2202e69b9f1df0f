//! `selvedge status`: green only if everybody is there who should be.

use std::process::Command;

use selvedge_demo::workload::Spec;
use selvedge_tests::{Mesh, SOON, poll};
use serde_json::Value;

use crate::SELVEDGE;

/// Its exit status and what it prints.
async fn status(mesh: &Mesh, flags: &[&str]) -> (Option<i32>, String) {
    let admin = mesh.control_plane_process().unwrap().listener("admin", SOON).await.unwrap().to_string();
    let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(SELVEDGE).args(["status", "--admin", &admin]).args(flags).output().unwrap()
    });
    let output = output.await.unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn a_mesh_of_nobody_is_not_green() {
    let mesh = Mesh::of(SELVEDGE, []).await;

    let (code, said) = status(&mesh, &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("declares a workload with a sidecar"), "{said}");
    assert_eq!(status(&mesh, &["--expect", "0"]).await.0, Some(0));
    assert_eq!(status(&mesh, &["--expect", "1"]).await.0, Some(1));
}

#[tokio::test]
async fn who_should_be_connected_and_is_not_is_named() {
    let specs = [Spec::server("reviews-v1", "reviews", 9080), Spec::server("reviews-v2", "reviews", 9080)];
    let mut mesh = Mesh::of(SELVEDGE, specs).await;
    let (code, said) = status(&mesh, &["--wait", "20s"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("has arrived everywhere: 2 of 2 proxies have it\n"), "{said}");
    assert_eq!(status(&mesh, &["--expect", "3"]).await.0, Some(1), "one more than there are");

    mesh.kill_sidecar("reviews-v2").await.unwrap();

    let said = poll(SOON, "the one that was killed is missed", async || match status(&mesh, &[]).await {
        (Some(1), said) => Ok(said),
        (code, said) => Err(format!("{code:?}: {said}")),
    });
    let said = said.await;
    assert!(said.contains("default/reviews-v2 is not connected"), "{said}");
    assert!(said.ends_with("has not arrived everywhere: 1 of 2 proxies have it\n"), "{said}");
    let json: Value = serde_json::from_str(&status(&mesh, &["--json"]).await.1).unwrap();
    assert_eq!(
        (&json["arrived"], &json["missing"][0]),
        (&false.into(), &"default/reviews-v2".into()),
        "{json}"
    );

    mesh.start_sidecar("reviews-v2").await.unwrap();
    assert_eq!(status(&mesh, &["--wait", "20s"]).await.0, Some(0), "once it is back");
}
