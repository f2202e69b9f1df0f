//! What Istio's `Telemetry` changes of Istio's metrics, while sidecars run.

use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{Mesh, SOON, poll};

use crate::SELVEDGE;

/// What the whole mesh tells.
fn telemetry(overrides: &str) -> String {
    format!(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: metrics, namespace: istio-system}}\nspec:\n  \
         metrics: [{{providers: [{{name: prometheus}}], overrides: {overrides}}}]\n"
    )
}

/// What the sidecar of `name` tells of Istio's metrics.
async fn told(mesh: &Mesh, name: &str) -> Result<Vec<String>, String> {
    let admin = mesh.workload(name).admin;
    let answer = call::send(admin, call::to(&admin.to_string(), "/metrics")).await;
    let answer = answer.map_err(|error| error.to_string())?;
    Ok(answer.text().lines().filter(|line| line.starts_with("istio_")).map(str::to_owned).collect())
}

/// Waits until what the sidecar tells is as it is meant.
async fn until_told(mesh: &Mesh, name: &str, is_meant: impl Fn(&[String]) -> bool) -> Vec<String> {
    poll(SOON, &format!("{name} tells what is meant"), async || {
        let lines = told(mesh, name).await?;
        if is_meant(&lines) { Ok(lines) } else { Err(lines.join("\n")) }
    })
    .await
}

#[tokio::test]
async fn istios_metrics_lose_and_gain_labels_and_disappear_while_sidecars_run() {
    let told = |spec: Spec| spec.flag("--metrics-compat", "istio");
    let specs = [Spec::client("caller"), Spec::reviews("reviews-v1", "v1")];
    let mesh = Mesh::of(SELVEDGE, specs.map(told)).await;
    let called = mesh.workload("caller").call(call::to("reviews:9080", "/")).await.unwrap();
    assert_eq!(called.status, 200);
    let of = |lines: &[String], name: &str| -> Vec<String> {
        lines.iter().filter(|line| line.starts_with(name)).cloned().collect()
    };
    let counted = |lines: &[String]| of(lines, "istio_requests_total{");
    let usual = until_told(&mesh, "reviews-v1", |lines| counted(lines).len() == 1).await;
    assert!(counted(&usual)[0].contains("source_principal=\"spiffe://"), "{usual:?}");

    let changes = "[{match: {metric: REQUEST_COUNT, mode: SERVER}, tagOverrides: {source_principal: {operation: REMOVE}, \
                   destination_port: {value: string(destination.port)}, team: {value: \"'books'\"}}}, {match: {metric: \
                   REQUEST_DURATION}, disabled: true}]";
    mesh.write("metrics.yaml", &telemetry(changes)).unwrap();
    let is_changed = |lines: &[String]| counted(lines).iter().any(|line| line.contains("team=\"books\""));
    let lines = until_told(&mesh, "reviews-v1", is_changed).await;
    let [line] = &counted(&lines)[..] else { panic!("{lines:?}") };
    assert!(line.contains("destination_port=\"9080\"") && line.ends_with(" 1"), "{line}");
    assert!(!line.contains("source_principal="), "{line}");
    assert!(of(&lines, "istio_request_duration_milliseconds").is_empty(), "{lines:?}");
    assert!(
        of(&lines, "istio_request_bytes_count{")[0].contains("source_principal=\"spiffe://"),
        "{lines:?}"
    );
    // The client's side counts as usual, and measures no times, either.
    let is_off = |lines: &[String]| of(lines, "istio_request_duration_milliseconds").is_empty();
    let lines = until_told(&mesh, "caller", is_off).await;
    assert!(counted(&lines)[0].contains("source_principal=\"spiffe://"), "{lines:?}");

    mesh.write("metrics.yaml", &telemetry("[{disabled: true}]")).unwrap();
    until_told(&mesh, "reviews-v1", <[String]>::is_empty).await;
    mesh.remove("metrics.yaml").unwrap();
    let lines = until_told(&mesh, "reviews-v1", |lines| counted(lines).len() == 1).await;
    assert_eq!(counted(&lines), counted(&usual));
}
