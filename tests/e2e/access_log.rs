//! The access log as configuration turns it on, and the log's level as `selvedge logs` changes it.

use std::{process::Command, time::Duration};

use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{Mesh, SOON, collector::Collector, poll};
use serde_json::Value;

use crate::{
    SELVEDGE,
    raw::{APP, Around, CALLERS, SERVER},
    websocket::opened_raw,
};

/// What is written down in the namespace.
fn telemetry(rules: &str) -> String {
    format!(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: log, namespace: default}}\nspec:\n  \
         accessLogging: {rules}\n"
    )
}

async fn get(mesh: &Mesh, path: &str) -> Result<u16, String> {
    let answer = mesh.workload("caller").call(call::to("reviews:9080", path)).await;
    answer.map(|answer| answer.status.as_u16()).map_err(|error| error.to_string())
}

/// The lines that the sidecar of `name` has written about `path`.
fn lines(mesh: &Mesh, name: &str, path: &str) -> Vec<String> {
    let lines = mesh.workload(name).sidecar_process().expect("it runs").lines();
    lines.into_iter().filter(|line| line.contains(path)).collect()
}

/// Sends requests until one is a line at the sidecar of `name`, or until one is none although a later one was sent. Returns the
/// line.
async fn until_written(mesh: &Mesh, name: &str, path: &str, is_meant: impl Fn(&str) -> bool) -> String {
    poll(SOON, &format!("{path} is written down"), async || {
        get(mesh, path).await?;
        let (written, _) = path.split_once('?').unwrap_or((path, ""));
        lines(mesh, name, written)
            .into_iter()
            .rfind(|line| is_meant(line))
            .ok_or_else(|| "no line".to_owned())
    })
    .await
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[tokio::test]
async fn an_access_log_is_turned_on_and_off_while_sidecars_run() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::reviews("reviews-v1", "v1")]).await;
    for _ in 0..3 {
        get(&mesh, "/before").await.unwrap();
    }

    mesh.write("log.yaml", &telemetry("[{providers: [{name: json}]}]")).unwrap();
    let line = json(&until_written(&mesh, "caller", "/one", |_| true).await);
    for (name, value) in [
        ("direction", Value::from("outbound")),
        ("method", "GET".into()),
        ("path", "/one".into()),
        ("response_code", 200.into()),
        ("response_flags", "-".into()),
        ("authority", "reviews:9080".into()),
        ("upstream_cluster", "outbound|9080||reviews.default.svc.cluster.local".into()),
        ("upstream_identity", "spiffe://cluster.local/ns/default/sa/reviews".into()),
        ("mtls", true.into()),
    ] {
        assert_eq!(line[name], value, "{name}: {line:#}");
    }
    let line = json(&until_written(&mesh, "reviews-v1", "/one", |_| true).await);
    assert_eq!(line["downstream_identity"], "spiffe://cluster.local/ns/default/sa/caller", "{line:#}");
    assert!(lines(&mesh, "caller", "/before").is_empty());

    // Istio's text, of what comes in and fails.
    let server = "[{match: {mode: SERVER}, providers: [{name: text}], filter: {expression: \"response.code >= 400 && connection.mtls\"}}]";
    mesh.write("log.yaml", &telemetry(server)).unwrap();
    let text = poll(SOON, "a failure is written down", async || {
        get(&mesh, "/two?status=404").await?;
        let is_text = |line: &String| line.starts_with('[');
        lines(&mesh, "reviews-v1", "/two").into_iter().rfind(is_text).ok_or_else(|| "no line".to_owned())
    })
    .await;
    assert!(
        text.starts_with('[') && text.contains("] \"GET /two HTTP/1.1\" 404 - via_upstream - \"-\" 0 "),
        "{text}"
    );
    assert!(text.contains(" \"reviews:9080\" ") && !text.contains("status="), "{text}");
    get(&mesh, "/succeeds").await.unwrap();
    until_written_again(&mesh, "/two").await;
    assert!(lines(&mesh, "reviews-v1", "/succeeds").is_empty());

    let client =
        "[{match: {mode: CLIENT}, providers: [{name: json}]}, {match: {mode: SERVER}, disabled: true}]";
    mesh.write("log.yaml", &telemetry(client)).unwrap();
    let mut number = 0;
    poll(SOON, "the server writes nothing down", async || {
        number += 1;
        let path = format!("/three-{number}");
        until_written(&mesh, "caller", &format!("{path}?status=404"), |_| true).await;
        let written = lines(&mesh, "reviews-v1", &path);
        if written.is_empty() { Ok(()) } else { Err(format!("{written:?}")) }
    })
    .await;
}

/// Sends a failing request, and waits until it is a line.
async fn until_written_again(mesh: &Mesh, path: &str) {
    let before = lines(mesh, "reviews-v1", path).len();
    get(mesh, &format!("{path}?status=404")).await.unwrap();
    poll(SOON, "it is written down", async || {
        if lines(mesh, "reviews-v1", path).len() > before { Ok(()) } else { Err("no line") }
    })
    .await;
}

#[tokio::test]
async fn a_namespace_and_a_route_have_an_access_log_by_annotation() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::reviews("reviews-v1", "v1")]).await;
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews, annotations: \
                 {config.selvedge.io/access-log: json, config.selvedge.io/access-log-filter: request.method == 'GET'}}\nspec:\n  \
                 hosts: [reviews]\n  http: [{route: [{destination: {host: reviews}}]}]\n";
    mesh.write("route.yaml", route).unwrap();
    let line = json(&until_written(&mesh, "caller", "/by-route", |_| true).await);
    assert_eq!(line["route_name"], "VirtualService default/reviews http[0]", "{line:#}");
    assert!(lines(&mesh, "reviews-v1", "/by-route").is_empty());

    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, annotations: {config.selvedge.io/access-log: text}}\n";
    mesh.write("namespace.yaml", namespace).unwrap();
    let line = until_written(&mesh, "reviews-v1", "/by-namespace", |_| true).await;
    assert!(line.starts_with('['), "{line}");
    // The route goes on saying it for its own requests.
    let line = until_written(&mesh, "caller", "/by-namespace", |_| true).await;
    assert!(line.starts_with('{'), "{line}");
}

#[tokio::test]
async fn a_line_about_a_request_whose_client_has_left_says_where_it_had_gone() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::reviews("reviews-v1", "v1")]).await;
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews, annotations: \
                 {config.selvedge.io/access-log: json}}\nspec:\n  hosts: [reviews]\n  http: [{route: [{destination: {host: reviews}}]}]\n";
    mesh.write("route.yaml", route).unwrap();
    until_written(&mesh, "caller", "/before", |_| true).await;

    for (version, path) in [(http::Version::HTTP_11, "/left-1"), (http::Version::HTTP_2, "/left-2")] {
        let line = poll(SOON, "a line", async || {
            let call = call::to("reviews:9080", &format!("{path}?delay=30s")).version(version);
            let call = call.timeout(Duration::from_millis(200));
            let left = mesh.workload("caller").call(call).await;
            assert!(left.is_err(), "{left:?}");
            lines(&mesh, "caller", path).into_iter().find(|line| line.starts_with('{')).ok_or("no line")
        })
        .await;

        let line = json(&line);
        assert_eq!(line["reason"], "canceled", "{line:#}");
        assert_eq!(line["route_name"], "VirtualService default/reviews http[0]", "{line:#}");
        assert_eq!(line["upstream_host"], mesh.workload("reviews-v1").app.to_string(), "{line:#}");
        assert_eq!(line["upstream_identity"], "spiffe://cluster.local/ns/default/sa/reviews", "{line:#}");
    }
}

#[tokio::test]
async fn a_websocket_is_a_line_when_it_is_over_with_all_its_bytes() {
    let around = Around::new().await;
    around.mesh.write("log.yaml", &telemetry("[{providers: [{name: json}]}]")).unwrap();
    for caller in CALLERS {
        poll(SOON, "the log is on", async || {
            let mut client = around.client(caller).await;
            client.send(format!("GET /before HTTP/1.1\r\nhost: {APP}\r\nconnection: close\r\n\r\n")).await;
            let mut app = around.accept().await;
            app.head().await;
            app.answer("hello").await;
            client.rest().await;
            let is_on = |name| !lines(&around.mesh, name, "/before").is_empty();
            if is_on(caller) && is_on(SERVER) { Ok(()) } else { Err("no line") }
        })
        .await;
        let (mut client, mut app) = opened_raw(&around, caller).await;
        client.send("four").await;
        assert_eq!(app.exactly(4).await, "four");
        app.send("seventh").await;
        assert_eq!(client.exactly(7).await, "seventh");
        let of_101 = |name: &str| {
            let lines = lines(&around.mesh, name, "\"response_code\":101").into_iter();
            lines.map(|line| json(&line)).collect::<Vec<_>>()
        };
        let before = [caller, SERVER].map(|name| of_101(name).len());

        drop((client.finish().await, app.finish().await));
        client.rest().await;

        for (name, before) in [caller, SERVER].into_iter().zip(before) {
            let line = poll(SOON, &format!("{name} writes it down"), async || {
                let all = of_101(name);
                if all.len() > before { Ok(all.last().cloned()) } else { Err(format!("{all:?}")) }
            })
            .await;
            let line = line.unwrap();
            assert_eq!(
                (&line["bytes_received"], &line["bytes_sent"]),
                (&4.into(), &7.into()),
                "{name}: {line:#}"
            );
        }
        assert_eq!(before[0], 0, "nothing is written before its end");
    }
}

#[tokio::test]
async fn a_collector_is_sent_the_access_log() {
    let collector = Collector::start().await;
    let caller = Spec::client("caller").flag("--otlp-endpoint", &format!("http://{}", collector.grpc));
    let mesh = Mesh::of(SELVEDGE, [caller, Spec::reviews("reviews-v1", "v1")]).await;
    mesh.write("log.yaml", &telemetry("[{match: {mode: CLIENT}, providers: [{name: otel}]}]")).unwrap();

    let line = poll(SOON, "a line", async || {
        get(&mesh, "/told?status=404").await?;
        collector.lines().pop().ok_or_else(|| "no line".to_owned())
    })
    .await;

    assert_eq!(line.body, "GET reviews:9080 /told 404");
    assert_eq!(line.attributes["http.response.status_code"], "404", "{line:#?}");
    assert_eq!(line.attributes["selvedge.direction"], "outbound");
    assert_eq!(line.resource["service.name"], "caller");
    assert!(lines(&mesh, "caller", "/told").is_empty());
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_costs_lines_that_are_counted_and_no_request() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::reviews("reviews-v1", "v1")]).await;
    mesh.write("log.yaml", &telemetry("[{match: {mode: CLIENT}, providers: [{name: json}]}]")).unwrap();
    until_written(&mesh, "caller", "/on", |_| true).await;
    mesh.workload("caller").sidecar_process().expect("it runs").read_stdout(false);

    // Long paths fill the pipe, and then the buffer, sooner.
    let path = format!("/{}", "x".repeat(20_000));
    poll(SOON * 3, "lines are lost, and counted", async || {
        for _ in 0..20 {
            assert_eq!(get(&mesh, &path).await?, 200);
        }
        let lost = mesh.workload("caller").metric("selvedge_access_log_lines_lost_total").await;
        let lost = lost.map_err(|error| error.to_string())?;
        if lost >= Some(1.0) { Ok(()) } else { Err(format!("{lost:?}")) }
    })
    .await;
    assert_eq!(get(&mesh, "/after").await, Ok(200));

    // Read again, it goes on with whole lines.
    mesh.workload("caller").sidecar_process().expect("it runs").read_stdout(true);
    let line = until_written(&mesh, "caller", "/again", |_| true).await;
    assert_eq!(json(&line)["path"], "/again");
}

#[tokio::test]
async fn the_log_level_of_a_sidecar_and_of_the_control_plane_is_changed_for_a_while() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::reviews("reviews-v1", "v1")]).await;
    let logs = |words: &[&str]| {
        let admin = mesh.control_plane_admin_address().to_string();
        let output =
            Command::new(SELVEDGE).arg("logs").args(words).args(["-o", "json", "--admin", &admin]).output();
        let output = output.expect("the command runs");
        (json(&String::from_utf8_lossy(&output.stdout)), output.status.code())
    };
    let level = async |name: &str| {
        let said = mesh.workload(name).admin("/log-level").await.map_err(|error| error.to_string())?;
        Ok::<_, String>(said.text().trim().to_owned())
    };
    let until = async |name: &str, expected: &str| {
        poll(SOON, &format!("{name} logs {expected}"), async || {
            let level = level(name).await?;
            if level == expected { Ok(()) } else { Err(level) }
        })
        .await;
    };
    let own = level("caller").await.unwrap();

    let (said, status) = logs(&["trace", "default/caller"]);
    assert_eq!((&said["told"], status), (&serde_json::json!(["default/caller"]), Some(0)), "{said:#}");
    until("caller", "trace").await;
    assert_eq!(level("reviews-v1").await.unwrap(), own);
    logs(&["configured", "default/caller"]);
    until("caller", &own).await;

    let (said, _) = logs(&["debug", "default/*", "--for", "1s"]);
    assert_eq!(said["told"].as_array().map(Vec::len), Some(2), "{said:#}");
    until("reviews-v1", &own).await;
    until("caller", &own).await;

    // What holds for all holds again for one when its own time is over.
    logs(&["debug", "default/*", "--for", "300s"]);
    until("caller", "debug").await;
    logs(&["trace", "default/caller", "--for", "3s"]);
    until("caller", "trace").await;
    until("caller", "debug").await;
    logs(&["configured", "default/*"]);
    until("caller", &own).await;

    let (said, status) = logs(&["debug", "default/nobody"]);
    assert_eq!((said["told"].as_array().map(Vec::len), status), (Some(0), Some(1)), "{said:#}");
    let control_plane = async || {
        let said = mesh.control_plane_admin("/log-level").await.map_err(|error| error.to_string())?;
        Ok::<_, String>(said.text().trim().to_owned())
    };
    let own = control_plane().await.unwrap();
    assert_eq!(logs(&["warn", "--control-plane", "--for", "1s"]).0["control_planes"], 1);
    poll(SOON, "the control plane logs as before", async || {
        let level = control_plane().await?;
        if level == own { Ok(()) } else { Err(level) }
    })
    .await;
}
