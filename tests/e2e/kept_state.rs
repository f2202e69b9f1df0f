//! A change of one field of one rule resets nothing that it does not name: connections, ejections, which key belongs to which
//! endpoint.

use selvedge_demo::{call, load::Plan, workload::Spec};
use selvedge_tests::{Mesh, SOON, poll};
use serde_json::Value;

use crate::SELVEDGE;

/// As many edits as people make in a year.
const EDITS: u64 = 1_000;
/// After so many edits, the last one must be in force: what is written sooner after each other may come as one change.
const TOGETHER: u64 = 20;

/// The rules of the service after so many edits, each of which has changed one number.
fn rules(edits: u64) -> String {
    let turn = |which: u64| 1 + (edits + 4 - which) / 5;
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\nspec: {{hosts: [reviews], \
         http: [{{timeout: {}s, retries: {{attempts: {}}}, route: [{{destination: {{host: reviews}}}}]}}]}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews}}\nspec:\n  host: reviews\n  \
         trafficPolicy:\n    loadBalancer: {{consistentHash: {{httpHeaderName: x-user, maglev: {{tableSize: 65537}}}}}}\n    \
         connectionPool: {{tcp: {{connectTimeout: {}s}}, http: {{http2MaxRequests: {}}}}}\n    outlierDetection: \
         {{consecutive5xxErrors: 1, baseEjectionTime: 600s, interval: {}s, maxEjectionPercent: 100}}\n",
        1_000 + turn(0),
        2 + turn(1),
        10 + turn(2),
        1_000 + turn(3),
        10 + turn(4),
    )
}

/// Waits until the caller follows the rules after so many edits.
async fn in_force(mesh: &Mesh, edits: u64) {
    let wanted = format!("\"secs\":{}", 1_000 + 1 + edits.div_ceil(5));
    poll(SOON, "the last edit is in force", async || {
        users(mesh).await?;
        let config = mesh.workload("caller").admin("/config").await.map_err(|error| error.to_string())?;
        let text = config.text();
        if text.contains(&wanted) { Ok(()) } else { Err(text) }
    })
    .await;
}

/// The server of each user.
async fn users(mesh: &Mesh) -> Result<Vec<String>, String> {
    let mut servers = Vec::new();
    for user in 0..16 {
        let call = call::to("reviews:9080", "/").header("x-user", &format!("user-{user}"));
        let answer = mesh.workload("caller").call(call).await.map_err(|error| error.to_string())?;
        let body: Value = answer.json().map_err(|_| answer.summary())?;
        servers.push(body["pod"].as_str().unwrap_or_default().to_owned());
    }
    Ok(servers)
}

async fn ejected(mesh: &Mesh) -> Vec<String> {
    let all = mesh.workload("caller").admin_json("/endpoints").await.unwrap();
    let ejected = all.as_array().unwrap().iter().filter(|one| one["ejected"] == true);
    ejected.map(|one| one["address"].as_str().unwrap().to_owned()).collect()
}

/// How many connections the caller's sidecar has made, and how many of them it has no longer.
async fn connections(mesh: &Mesh) -> (f64, f64) {
    let caller = mesh.workload("caller");
    let metrics = caller.admin("/metrics").await.unwrap().text();
    let sum = |name: &str| -> f64 {
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    let made: f64 = metrics
        .lines()
        .filter(|line| {
            line.starts_with("selvedge_outbound_connections_total") && line.contains("result=\"ok\"")
        })
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    (made, made - sum("selvedge_outbound_connections_open "))
}

#[tokio::test]
async fn a_thousand_edits_under_load_close_no_connection_and_forget_no_ejection() {
    let servers = ["reviews-a", "reviews-b", "reviews-c"].map(|name| Spec::server(name, "reviews", 9080));
    let mut mesh = Mesh::of(SELVEDGE, [Spec::client("caller")].into_iter().chain(servers)).await;
    mesh.write("rules.yaml", &rules(0)).unwrap();
    in_force(&mesh, 0).await;
    mesh.kill_app("reviews-b").await.unwrap();
    let dead = mesh.workload("reviews-b").app.to_string();
    poll(SOON, "the dead one is ejected", async || {
        users(&mesh).await?;
        let ejected = ejected(&mesh).await;
        if ejected == [dead.clone()] { Ok(()) } else { Err(format!("{ejected:?}")) }
    })
    .await;
    let assigned = users(&mesh).await.unwrap();
    let (made, closed) = connections(&mesh).await;
    let applied = async || {
        let applied = "selvedge_configuration_transactions_applied_total";
        mesh.workload("caller").metric(applied).await.unwrap().unwrap_or_default()
    };
    let before = applied().await;

    let load = Plan::new(mesh.workload("caller").outbound, "reviews:9080").connections(4).pace(200.0).start();
    for edit in 1..=EDITS {
        mesh.write("rules.yaml", &rules(edit)).unwrap();
        if edit % TOGETHER == 0 {
            in_force(&mesh, edit).await;
            assert_eq!(users(&mesh).await.unwrap(), assigned, "after {edit} edits");
            assert_eq!(ejected(&mesh).await, std::slice::from_ref(&dead), "after {edit} edits");
        }
    }
    let report = load.stop().await;

    assert_eq!(report.failed(), 0, "{}", report.summary());
    let after = connections(&mesh).await;
    assert_eq!(after.1, closed, "no connection was closed");
    // More requests at once may need more connections, and nothing else does.
    assert!(after.0 - made <= 8.0, "{} connections were made", after.0 - made);
    // What is written while the control plane waits for more comes as one change.
    let changes = applied().await - before;
    assert!(changes >= (EDITS / TOGETHER) as f64, "{changes} changes were taken into use");
    let closed = mesh.workload("caller").metric("selvedge_outbound_connections_cut_total").await.unwrap();
    assert_eq!(closed.unwrap_or_default(), 0.0);
}
