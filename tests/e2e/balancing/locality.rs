//! Endpoints near the client come first: by outlier detection alone, by rules, by services, and by hints.

use std::{collections::BTreeSet, time::Duration};

use selvedge_demo::{
    call::{self, Call},
    cluster::entry_file,
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, poll};
use serde_json::Value;

use super::{ask, pod, pods, rule};
use crate::SELVEDGE;

fn to_reviews() -> Call {
    call::to("reviews:9080", "/")
}

/// A server of `reviews:9080` on the node that has this name.
fn server(name: &str, node: &str) -> Spec {
    Spec::server(name, "reviews", 9080).label("kubernetes.io/hostname", node)
}

/// A mesh with a caller in `us/a/1` on the node `n1`, and these servers, each in its place.
async fn mesh(servers: &[(&str, &str, &str)]) -> Mesh {
    let caller =
        Spec::client("caller").label("istio-locality", "us.a.1").label("kubernetes.io/hostname", "n1");
    let specs = servers.iter().map(|(name, node, _)| server(name, node));
    let mesh = Mesh::of(SELVEDGE, std::iter::once(caller).chain(specs)).await;
    servers.iter().for_each(|(name, _, locality)| put(&mesh, name, locality));
    mesh
}

/// Says where a workload is.
fn put(mesh: &Mesh, workload: &str, locality: &str) {
    let placed = |text: &str| text.replacen("spec:\n", &format!("spec:\n  locality: {locality}\n"), 1);
    mesh.edit(&entry_file(workload), placed).unwrap();
}

/// Waits until exactly these servers answer.
async fn only(mesh: &Mesh, servers: &[&str]) {
    let servers: BTreeSet<String> = servers.iter().map(|&name| name.to_owned()).collect();
    poll(Duration::from_secs(30), &format!("{servers:?} alone answer"), async || {
        let found = pods(mesh.workload("caller"), 12 * servers.len(), to_reviews).await;
        let found: BTreeSet<String> = found.into_keys().collect();
        if found == servers { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

/// What the caller's sidecar knows of the endpoint that is this workload.
async fn state(mesh: &Mesh, workload: &str) -> Value {
    let answer = mesh.workload("caller").admin("/endpoints").await.unwrap();
    let states: Vec<Value> = answer.json().unwrap();
    let name = format!("default/{workload}");
    states.into_iter().find(|state| state["workload"] == name.as_str()).unwrap_or(Value::Null)
}

/// What `selvedge explain` says of the caller's requests.
fn explained(mesh: &Mesh) -> String {
    let directory = mesh.config_dir();
    let output = std::process::Command::new(SELVEDGE)
        .args(["explain", "request", "--from", "default/caller", "--to", "http://reviews:9080/"])
        .arg("--config-dir")
        .arg(&directory)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn the_nearest_are_called_and_when_they_fail_the_next_ones_until_they_come_home() {
    let servers = [
        ("near", "n1", "us/a/1"),
        ("subzone", "n2", "us/a/2"),
        ("region", "n3", "us/b/1"),
        ("far", "n4", "eu/x/1"),
    ];
    let mut mesh = mesh(&servers).await;
    only(&mesh, &["near", "subzone", "region", "far"]).await;
    // Outlier detection alone turns failover on.
    let detection = |time: &str| {
        rule(&format!(
            "{{outlierDetection: {{consecutive5xxErrors: 1, baseEjectionTime: {time}, maxEjectionPercent: 100}}}}"
        ))
    };

    mesh.write("rule.yaml", &detection("3s")).unwrap();

    only(&mesh, &["near"]).await;
    let near = state(&mesh, "near").await;
    assert_eq!((&near["priority"], &near["priority_percent"]), (&0.into(), &100.0.into()), "{near}");
    assert_eq!((&near["locality"], &near["node"]), (&"us/a/1".into(), &"n1".into()), "{near}");
    let far = state(&mesh, "far").await;
    assert_eq!((&far["priority"], &far["priority_percent"]), (&3.into(), &0.0.into()), "{far}");
    let explained = explained(&mesh);
    for words in [
        "the caller is in us/a/1 on n1",
        "group 0, called first: 1 endpoint, the same region, zone and subzone",
        "group 3, called as far as those before it are ejected: 1 endpoint, another region",
    ] {
        assert!(explained.contains(words), "{words} is not in\n{explained}");
    }

    // A rule that says so makes all alike.
    let off = "{loadBalancer: {localityLbSetting: {enabled: false}}, outlierDetection: {}}";
    mesh.write("rule.yaml", &rule(off)).unwrap();
    only(&mesh, &["near", "subzone", "region", "far"]).await;
    mesh.write("rule.yaml", &detection("3s")).unwrap();
    only(&mesh, &["near"]).await;

    mesh.kill_app("near").await.unwrap();
    // Every request is answered: one that fails is sent again, elsewhere.
    only(&mesh, &["subzone"]).await;
    mesh.start_app("near").unwrap();
    mesh.app_listens("near").await.unwrap();
    only(&mesh, &["near"]).await;

    mesh.write("rule.yaml", &detection("600s")).unwrap();
    poll(SOON, "the new time is in force", async || {
        let config = mesh.workload("caller").admin("/config").await.unwrap().text();
        if config.contains("600") { Ok(()) } else { Err(config) }
    })
    .await;
    for (failing, next) in [("near", "subzone"), ("subzone", "region"), ("region", "far")] {
        mesh.kill_app(failing).await.unwrap();
        only(&mesh, &[next]).await;
    }
    // Endpoints that come do not change who is ejected.
    mesh.start_app("near").unwrap();
    mesh.app_listens("near").await.unwrap();
    mesh.add([server("more", "n5")]).await.unwrap();
    put(&mesh, "more", "us/b/1");
    // It is half of its priority, whose other half is ejected, and the priority can take 70 % of all.
    only(&mesh, &["more", "far"]).await;
    let of = async |name: &str| state(&mesh, name).await["priority_percent"].as_f64().map(f64::round);
    // Until its place has arrived, it is one more of those far away, and the same two answer.
    poll(SOON, "the new endpoint is in its priority", async || {
        let shares = (of("more").await, of("far").await);
        if shares == (Some(70.0), Some(30.0)) { Ok(()) } else { Err(format!("{shares:?}")) }
    })
    .await;
    only(&mesh, &["more", "far"]).await;
    assert_eq!(state(&mesh, "near").await["ejected"], true);
    let metrics = mesh.workload("caller").admin("/metrics").await.unwrap().text();
    for (name, group, value) in [
        ("endpoints", "priority=\"2\",locality=\"us/b/1\"", "2.0"),
        ("endpoints_healthy", "priority=\"2\",locality=\"us/b/1\"", "1.0"),
        ("share", "priority=\"2\",locality=\"us/b/1\"", "0.7"),
        ("share", "priority=\"3\",locality=\"eu/x/1\"", "0.3"),
        ("endpoints_healthy", "priority=\"0\",locality=\"us/a/1\"", "0.0"),
    ] {
        let labels =
            format!("server_address=\"reviews.default.svc.cluster.local\",server_port=\"9080\",{group}");
        let line = format!("selvedge_outbound_priority_{name}{{{labels}}} {value}");
        assert!(metrics.lines().any(|one| one == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn failover_leads_to_the_region_that_it_names_and_labels_go_before_places() {
    let servers = [("near", "n1", "us/a/1"), ("asia", "n2", "asia/a/1"), ("eu", "n3", "eu/a/1")];
    let mut mesh = mesh(&servers).await;
    let with = |setting: &str| {
        rule(&format!(
            "{{loadBalancer: {{localityLbSetting: {setting}}}, outlierDetection: {{consecutive5xxErrors: 1, \
             baseEjectionTime: 600s, maxEjectionPercent: 100}}}}"
        ))
    };
    mesh.write("rule.yaml", &with("{failover: [{from: us, to: eu}]}")).unwrap();
    only(&mesh, &["near"]).await;

    mesh.kill_app("near").await.unwrap();
    only(&mesh, &["eu"]).await;

    // By a label, whose value is the client's or the one that is written.
    mesh.write("rule.yaml", &with("{failoverPriority: [\"kubernetes.io/hostname=n2\"]}")).unwrap();
    only(&mesh, &["asia"]).await;
    mesh.kill_app("asia").await.unwrap();
    only(&mesh, &["eu"]).await;
}

#[tokio::test]
async fn each_place_gets_the_share_that_distribute_gives_it() {
    let servers = [
        ("near", "n1", "us/a/1"),
        ("subzone", "n2", "us/a/2"),
        ("region", "n3", "us/b/1"),
        ("far", "n4", "eu/x/1"),
    ];
    let mesh = mesh(&servers).await;
    let distribute =
        "{distribute: [{from: asia, to: {asia: 100}}, {from: us/*, to: {\"us/a/*\": 70, us/b: 30}}]}";
    mesh.write("rule.yaml", &rule(&format!("{{loadBalancer: {{localityLbSetting: {distribute}}}}}")))
        .unwrap();
    only(&mesh, &["near", "subzone", "region"]).await;

    let counts = pods(mesh.workload("caller"), 600, to_reviews).await;

    let region = counts.get("region").copied().unwrap_or(0) as f64;
    let (expected, whole) = (0.3 * 600.0, 600.0);
    let chi = (region - expected).powi(2) / expected + (region - expected).powi(2) / (whole - expected);
    // One degree of freedom: above 24 once in a million runs.
    assert!(chi < 24.0 && !counts.contains_key("far"), "{chi}: {counts:?}");
    let explained = explained(&mesh);
    assert!(explained.contains("70 % of requests, to 2 endpoints"), "{explained}");
    assert!(
        explained.contains(
            "never called: 1 endpoint, because distribute of localityLbSetting sends requests from us/* only"
        ),
        "{explained}"
    );
}

#[tokio::test]
async fn a_service_prefers_the_zone_or_the_node_or_calls_its_node_alone() {
    let servers = [("near", "n1", "us/a/1"), ("zone", "n2", "us/a/1"), ("region", "n3", "us/b/1")];
    let mut mesh = mesh(&servers).await;
    let service = |metadata: &str, spec: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: reviews{metadata}}}\nspec:\n  selector: {{app: reviews}}\n  \
             ports: [{{name: http, port: 9080}}]\n  {spec}\n"
        )
    };
    let annotated = ", annotations: {networking.istio.io/traffic-distribution: PreferClose}";
    for (metadata, spec, expected) in [
        ("", "trafficDistribution: PreferSameZone", &["near", "zone"][..]),
        ("", "trafficDistribution: PreferSameNode", &["near"]),
        (annotated, "", &["near", "zone"]),
        ("", "internalTrafficPolicy: Local", &["near"]),
        ("", "", &["near", "zone", "region"]),
    ] {
        mesh.write("service-reviews.yaml", &service(metadata, spec)).unwrap();
        only(&mesh, expected).await;
    }

    // What a DestinationRule says of places goes before it.
    mesh.write("service-reviews.yaml", &service("", "trafficDistribution: PreferSameNode")).unwrap();
    only(&mesh, &["near"]).await;
    mesh.write("rule.yaml", &rule("{loadBalancer: {localityLbSetting: {enabled: false}}}")).unwrap();
    only(&mesh, &["near", "zone", "region"]).await;
    mesh.remove("rule.yaml").unwrap();

    // Nobody on its node: no endpoint, and it is said why.
    mesh.write("service-reviews.yaml", &service("", "internalTrafficPolicy: Local")).unwrap();
    only(&mesh, &["near"]).await;
    mesh.stop_app("near").await.unwrap();
    mesh.remove(&entry_file("near")).unwrap();
    let caller = mesh.workload("caller");
    let why = poll(SOON, "no endpoint is local", async || {
        let answer = caller.call(to_reviews()).await.map_err(|error| error.to_string())?;
        let error = answer.headers.get("selvedge-error").and_then(|error| error.to_str().ok());
        match error.filter(|error| answer.status == 503 && error.starts_with("no-endpoint")) {
            Some(error) => Ok(error.to_owned()),
            None => Err(answer.summary()),
        }
    })
    .await;
    assert!(why.contains("internalTrafficPolicy: Local"), "{why}");
    let explained = explained(&mesh);
    assert!(explained.contains("outcome: the mesh answers 503, selvedge-error: no-endpoint"), "{explained}");
}

#[tokio::test]
async fn hints_of_slices_are_followed_as_kube_proxy_follows_them() {
    let servers = [("one", "n1", "us/a/1"), ("two", "n2", "us/b/1"), ("three", "n3", "us/c/1")];
    let mesh = mesh(&servers).await;
    mesh.write(
        "service-reviews.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\nspec:\n  ports: [{name: http, port: 9080}]\n",
    )
    .unwrap();
    let port = mesh.workload("one").app.port();
    let slice = |hints: [&str; 3]| {
        let endpoints = ["one", "two", "three"].iter().zip(hints).map(|(name, hints)| {
            let ip = mesh.workload(name).app.ip();
            format!(
                "  - addresses: [\"{ip}\"]\n    zone: nowhere\n    nodeName: nobody\n    hints: {{{hints}}}\n"
            )
        });
        let endpoints: String = endpoints.collect();
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: reviews, labels: \
             {{kubernetes.io/service-name: reviews}}}}\naddressType: IPv4\nports: [{{name: http, port: \
             {port}}}]\nendpoints:\n{endpoints}"
        )
    };
    let zones = |zone: &str| format!("forZones: [{{name: {zone}}}]");
    let (a, b, c) = (zones("a"), zones("b"), zones("c"));

    for (hints, expected) in [
        // The caller's zone is a.
        ([&*b, &a, &a], &["two", "three"][..]),
        ([&*c, &b, &b], &["one", "two", "three"]),
        ([&*a, "", &b], &["one", "two", "three"]),
        (["forNodes: [{name: n9}]", "forNodes: [{name: n8}]", "forNodes: [{name: n1}]"], &["three"]),
        ([&*b, &a, &b], &["two"]),
    ] {
        mesh.write("slice.yaml", &slice(hints)).unwrap();
        only(&mesh, expected).await;
    }
    ask(mesh.workload("caller"), to_reviews()).await;
    assert_eq!(pod(mesh.workload("caller"), to_reviews()).await, "two");
    // What the workloads say of their places goes before what the slice says.
    assert_eq!(state(&mesh, "two").await["locality"], "us/b/1");
}
