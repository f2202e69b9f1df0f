//! Limits of `connectionPool` that are set or lowered under load, as people do in an outage: they act on what is there.

use std::time::Duration;

use selvedge_demo::{
    load::Plan,
    workload::{AppKind, Spec},
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::net::TcpListener;

use super::{asks, is_overflow};
use crate::{
    SELVEDGE,
    raw::{APP, Around, CALLERS},
    retries::server,
};

/// How long the app works on a request.
const WORK: Duration = Duration::from_millis(20);

fn rule(limits: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: app}}\n\
         spec: {{host: app, trafficPolicy: {{connectionPool: {limits}}}}}\n"
    )
}

/// How many connections the caller's sidecar has open, and how many it has made.
async fn connections(mesh: &Mesh) -> Result<(f64, f64), String> {
    let metrics = mesh.workload("caller").admin("/metrics").await.map_err(|error| error.to_string())?.text();
    let sum = |name: &str| -> f64 {
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    Ok((sum("selvedge_outbound_connections_open"), sum("selvedge_outbound_connections_total")))
}

/// An app that works a moment on each request, and a caller whose sidecar calls it like that.
async fn mesh(flags: &[&str]) -> Mesh {
    let mut server = Spec::server("app-1", "app", 8080);
    server.app = AppKind::None;
    let mut caller = Spec::client("caller");
    caller.flags.extend(flags.iter().copied().map(str::to_owned));
    let mesh = Mesh::of(SELVEDGE, [caller, server]).await;
    let listener = TcpListener::bind(mesh.workload("app-1").app).await.expect("the app's address is ours");
    server::serve(listener, |_, _| async {
        tokio::time::sleep(WORK).await;
        server::answer(200, "done")
    });
    mesh
}

#[tokio::test]
async fn a_limit_on_connections_that_is_set_or_lowered_under_load_closes_those_that_are_too_many() {
    for carrier in ["http1", "http2"] {
        let mesh = mesh(&["--carrier", carrier]).await;
        let load = Plan::new(mesh.workload("caller").outbound, APP).connections(16).start();
        if carrier == "http1" {
            poll(SOON, "there are many connections", async || match connections(&mesh).await? {
                (open, _) if open >= 8.0 => Ok(()),
                (open, _) => Err(format!("{open} open")),
            })
            .await;
        }

        for most in [6, 3] {
            mesh.write("limits.yaml", &rule(&format!("{{tcp: {{maxConnections: {most}}}}}"))).unwrap();
            poll(SOON, &format!("{carrier}: there are {most}"), async || {
                let limits =
                    mesh.workload("caller").admin("/config").await.map_err(|error| error.to_string())?;
                let (open, _) = connections(&mesh).await?;
                let in_force =
                    limits.text().replace(' ', "").contains(&format!("\"max_connections\":{most}"));
                if in_force && open <= f64::from(most) {
                    Ok(())
                } else {
                    Err(format!("{open} open, {in_force}"))
                }
            })
            .await;
        }
        let report = load.stop().await;

        assert_eq!(report.failed(), 0, "{carrier}: {}", report.summary());
    }
}

#[tokio::test]
async fn how_long_a_connection_is_kept_is_as_the_policy_says_now() {
    for limits in ["{http: {maxRequestsPerConnection: 1}}", "{tcp: {maxConnectionDuration: 100ms}}"] {
        for carrier in ["http1", "http2"] {
            let mesh = mesh(&["--carrier", carrier]).await;
            let load = Plan::new(mesh.workload("caller").outbound, APP).connections(2).start();
            poll(SOON, "there is one", async || match connections(&mesh).await? {
                (_, made) if made > 0.0 => Ok(()),
                (_, made) => Err(format!("{made} made")),
            })
            .await;
            let (_, before) = connections(&mesh).await.unwrap();

            mesh.write("limits.yaml", &rule(limits)).unwrap();

            poll(SOON, &format!("{carrier}: {limits} acts"), async || match connections(&mesh).await? {
                (_, made) if made >= before + 20.0 => Ok(()),
                (_, made) => Err(format!("{before} made before, now {made}")),
            })
            .await;
            let report = load.stop().await;
            assert_eq!(report.failed(), 0, "{carrier}: {limits}: {}", report.summary());
        }
    }
}

#[tokio::test]
async fn a_limit_on_requests_counts_those_that_began_before_it() {
    let around = Around::new().await;
    for caller in CALLERS {
        around.mesh.write("limits.yaml", "").expect("the directory is ours");
        let mut before = Vec::new();
        // Until the limit of the caller before is gone.
        for _ in 0..2 {
            let asked = poll(SOON, "there is no limit", async || {
                let mut client = asks(&around, caller).await;
                tokio::select! {
                    refused = client.head() => Err(refused.0),
                    app = around.accept() => Ok((client, app)),
                }
            });
            let (client, mut app) = asked.await;
            app.head().await;
            before.push((client, app));
        }

        around
            .mesh
            .write("limits.yaml", &rule("{http: {http2MaxRequests: 2}}"))
            .expect("the directory is ours");

        // Two are in progress: nothing else is let in.
        poll(SOON, "it is in force", async || {
            let mut client = asks(&around, caller).await;
            tokio::select! {
                head = client.head() => {
                    is_overflow(&head);
                    Ok(())
                }
                mut app = around.accept() => {
                    app.head().await;
                    app.answer("done").await;
                    Err(client.head().await.0)
                }
            }
        })
        .await;
        for (mut client, mut app) in before {
            app.answer("done").await;
            assert_eq!(client.head().await.status(), "200", "{caller}");
        }
        poll(SOON, "there is room again", async || {
            let mut client = asks(&around, caller).await;
            tokio::select! {
                refused = client.head() => Err(refused.0),
                mut app = around.accept() => {
                    app.head().await;
                    app.answer("done").await;
                    client.head().await;
                    Ok(())
                }
            }
        })
        .await;
    }
}
