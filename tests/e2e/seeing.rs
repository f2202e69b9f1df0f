//! `selvedge stat`, `edges`, `routes` and `endpoints` against what was really sent.

use std::{collections::BTreeMap, process::Command, time::Duration};

use selvedge_api::{preamble, wire};
use selvedge_demo::{
    apps::reviews,
    call,
    workload::{AppKind, Spec},
};
use selvedge_tests::{Mesh, SOON, poll};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    SELVEDGE,
    mesh_client::{self, END, frame},
};

/// A sidecar tells what is new every 15 seconds.
const TOLD: Duration = Duration::from_secs(60);

const SERVICE: &str = "reviews.default.svc.cluster.local:9080";

/// Half to each version, without retries.
const ROUTES: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 0, baseEjectionTime: 300s}}
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - retries: {attempts: 0}
    route:
    - {destination: {host: reviews, subset: v1}, weight: 50}
    - {destination: {host: reviews, subset: v2}, weight: 50}
";

/// What a command says of the mesh, as JSON, and its exit status.
fn asked(mesh: &Mesh, words: &[&str]) -> (Value, Option<i32>) {
    let mut command = Command::new(SELVEDGE);
    let admin = mesh.control_plane_admin_address().to_string();
    command.args(words).args(["--since", "1h", "-o", "json", "--admin", &admin]);
    let output = command.output().expect("the command runs");
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (said, output.status.code())
}

/// Asks until what is said of `list` is as `expected`.
async fn until(
    mesh: &Mesh,
    words: &[&str],
    expected: &Value,
    of: impl Fn(&Value) -> Value,
) -> (Value, Option<i32>) {
    poll(TOLD, &format!("{words:?}: {expected}"), async || {
        let (said, status) = asked(mesh, words);
        if of(&said) == *expected { Ok((said, status)) } else { Err(format!("{said:#}")) }
    })
    .await
}

/// By their names, how many requests there were and how many have failed.
fn counted(said: &Value) -> Value {
    let rows = said["rows"].as_array().unwrap_or_else(|| panic!("{said:#}")).iter();
    let row = |row: &Value| {
        let counts = [&row["requests"]["count"], &row["requests"]["failures"]];
        (row["name"].as_str().unwrap_or_default().to_owned(), counts.map(Value::clone))
    };
    serde_json::to_value(rows.map(row).collect::<BTreeMap<_, _>>()).expect("a map")
}

async fn mesh() -> Mesh {
    let servers = [Spec::reviews("reviews-v1", "v1"), Spec::reviews("reviews-v2", "v2")];
    Mesh::of(SELVEDGE, [Spec::client("caller")].into_iter().chain(servers)).await
}

/// Who answers a request that orders this status.
async fn answering(mesh: &Mesh, status: u16) -> Result<String, String> {
    let call = call::to("reviews:9080", &format!("/?status={status}"));
    let answer = mesh.workload("caller").call(call).await.map_err(|error| error.to_string())?;
    if answer.status != status {
        return Err(answer.summary());
    }
    answer.json::<reviews::Answer>().map(|seen| seen.pod).map_err(|error| error.to_string())
}

/// Writes `routes`, and waits until the caller follows them. Returns by whom requests were answered before.
async fn in_force(mesh: &Mesh, routes: &str) -> BTreeMap<String, u64> {
    let versions = async || {
        let config =
            mesh.workload("caller").admin_json("/config").await.map_err(|error| error.to_string())?;
        Ok::<_, String>(config["versions"].to_string())
    };
    let mut answered = BTreeMap::new();
    poll(SOON, "somebody answers", async || {
        *answered.entry(answering(mesh, 200).await?).or_default() += 1;
        Ok::<_, String>(())
    })
    .await;
    let before = versions().await.expect("its configuration");
    mesh.write("routes.yaml", routes).expect("a writable directory");
    poll(SOON, "the routes are in force", async || {
        let after = versions().await?;
        if after != before && after.contains("reviews.default") { Ok(()) } else { Err(after) }
    })
    .await;
    answered
}

#[tokio::test]
async fn what_is_shown_is_what_was_sent() {
    let mesh = mesh().await;
    let before = in_force(&mesh, ROUTES).await;
    let mut sent = BTreeMap::<String, [u64; 2]>::new();
    for number in 0..40 {
        let status = if number % 4 == 0 { 500 } else { 200 };
        let pod = answering(&mesh, status).await.expect("an answer");
        let [all, failed] = sent.entry(pod).or_default();
        *all += 1;
        *failed += u64::from(status == 500);
    }
    let plain = call::send(mesh.workload("reviews-v1").inbound, call::to("reviews:9080", "/")).await;
    assert_eq!(plain.expect("an answer").status, 200);

    // By what the routes lead to.
    let by_route = ["stat", "--by", "route", "--to", "reviews"];
    let route = format!("{SERVICE} VirtualService default/reviews http[0]");
    let of_route = |said: &Value| counted(said)[&route].clone();
    let (said, status) = until(&mesh, &by_route, &serde_json::json!([40, 10]), of_route).await;
    assert_eq!(status, Some(0));
    let row = said["rows"].as_array().expect("a list").iter().find(|row| row["name"] == route.as_str());
    let requests = &row.expect("it is there")["requests"];
    assert_eq!((&requests["mtls_percent"], &requests["success_percent"]), (&100.0.into(), &75.0.into()));
    assert!(
        requests["p50_ms"].as_f64() > Some(0.0) && requests["p50_ms"].as_f64() <= requests["p99_ms"].as_f64()
    );
    assert_eq!(asked(&mesh, &[&by_route[..], &["--min-success", "75"]].concat()).1, Some(0));
    assert_eq!(asked(&mesh, &[&by_route[..], &["--min-success", "75.1"]].concat()).1, Some(1));

    let subset = |version: &str| sent[&format!("reviews-{version}")];
    let expected = serde_json::json!([subset("v1"), subset("v2")]);
    let of_subsets = |said: &Value| {
        let all = counted(said);
        serde_json::json!([all[format!("{SERVICE} v1")], all[format!("{SERVICE} v2")]])
    };
    until(&mesh, &["stat", "--by", "subset", "--from", "default/caller"], &expected, of_subsets).await;

    // By who has answered, as their own sidecars say; one has answered in plaintext, too.
    let served = |pod: &str| {
        let [all, failed] = sent[pod];
        let earlier = before.get(pod).copied().unwrap_or_default();
        [all + earlier + u64::from(pod == "reviews-v1"), failed]
    };
    let expected = serde_json::json!({
        "default/reviews-v1": served("reviews-v1"),
        "default/reviews-v2": served("reviews-v2"),
    });
    until(&mesh, &["stat", "--by", "workload"], &expected, counted).await;

    the_edges_have_identities(&mesh);
    the_routes_are_followed(&mesh, &sent);
}

fn the_edges_have_identities(mesh: &Mesh) {
    let (said, status) = asked(mesh, &["edges", "--require-mtls"]);
    assert_eq!(status, Some(1), "one request came in plaintext: {said:#}");
    // A request from before the service was known may have been sent nowhere.
    let edges = said["edges"].as_array().expect("a list").iter();
    let edges: Vec<&Value> = edges.filter(|edge| edge["secured"] != "not-sent").collect();
    let [sent, plain] = edges[..] else { panic!("{said:#}") };
    assert_eq!((&sent["from"], &sent["to"]), (&"default/caller".into(), &SERVICE.into()), "{said:#}");
    assert_eq!(sent["client_identity"], "spiffe://cluster.local/ns/default/sa/caller", "{said:#}");
    assert_eq!(sent["server_identities"][0], "spiffe://cluster.local/ns/default/sa/reviews", "{said:#}");
    assert_eq!((&plain["seen_by"], &plain["mtls"]), (&"server".into(), &false.into()), "{said:#}");
    assert_eq!((&plain["requests"]["count"], plain.get("from")), (&1.into(), None), "{said:#}");

    assert_eq!(asked(mesh, &["edges", "--require-mtls", "--from", "default/caller"]).1, Some(0));
    let (said, _) = asked(mesh, &["edges", "--to", "default/reviews-v2"]);
    let edges = said["edges"].as_array().expect("a list").iter();
    assert!(edges.clone().all(|edge| edge["seen_by"] == "server" && edge["mtls"] == true), "{said:#}");
}

fn the_routes_are_followed(mesh: &Mesh, sent: &BTreeMap<String, [u64; 2]>) {
    let (said, status) = asked(mesh, &["routes", "reviews"]);
    assert_eq!(status, Some(0), "{said:#}");
    let rows = said["routes"].as_array().expect("a list");
    assert_eq!(rows.len(), 2, "{said:#}");
    for (row, version) in rows.iter().zip(["v1", "v2"]) {
        let [count, _] = sent[&format!("reviews-{version}")];
        assert_eq!(row["backend"], format!("{SERVICE}/{version}"), "{said:#}");
        assert_eq!((&row["configured_percent"], &row["requests"]["count"]), (&50.into(), &count.into()));
        assert_eq!(row["seen_percent"], count as f64 * 100.0 / 40.0, "{said:#}");
    }
    assert_eq!(asked(mesh, &["routes", "nobody"]).1, Some(1));
}

#[tokio::test]
async fn an_endpoint_that_is_ejected_is_shown_with_who_ejects_it_and_why() {
    let mesh = mesh().await;
    in_force(&mesh, &ROUTES.replace("consecutive5xxErrors: 0", "consecutive5xxErrors: 1")).await;
    let address = mesh.workload("reviews-v2").app.to_string();
    poll(SOON, "it is ejected", async || {
        let pod = answering(&mesh, 200).await;
        if pod.as_deref() == Ok("reviews-v2") {
            answering(&mesh, 500).await?;
        }
        let endpoints =
            mesh.workload("caller").admin_json("/endpoints").await.map_err(|error| error.to_string())?;
        let is_out = |one: &Value| one["address"] == address.as_str() && one["ejected"] == true;
        if endpoints.as_array().is_some_and(|all| all.iter().any(is_out)) {
            Ok(())
        } else {
            Err(format!("{pod:?}"))
        }
    })
    .await;

    let words = ["endpoints", "reviews"];
    let of = |said: &Value| {
        let all = said["endpoints"].as_array().expect("a list").iter();
        let one = all.clone().find(|one| one["address"] == address.as_str()).expect("it is there");
        one["out"][0]["client"].clone()
    };
    let (said, status) = until(&mesh, &words, &"default/caller".into(), of).await;
    assert_eq!(status, Some(1), "{said:#}");
    let endpoints = said["endpoints"].as_array().expect("a list");
    assert_eq!(endpoints.len(), 2, "{said:#}");
    let out = endpoints.iter().find(|one| one["address"] == address.as_str()).expect("it is there");
    assert_eq!(
        (&out["workload"], &out["out"][0]["why"]),
        (&"default/reviews-v2".into(), &"consecutive-5xx".into())
    );
    assert!(out["out"][0]["seconds_left"].as_u64() > Some(200), "{said:#}");
}

#[tokio::test]
async fn the_endpoint_is_found_that_fails_for_its_clients_and_how_and_since_when() {
    let mut mesh = mesh().await;
    in_force(&mesh, ROUTES).await;
    let address = mesh.workload("reviews-v2").app.to_string();
    let (mut failed, mut well) = (0, 0);
    while failed < 4 || well < 4 {
        // Those of the first version do well, and every other one of the second does not.
        match answering(&mesh, 200).await.expect("an answer").as_str() {
            "reviews-v2" => well += 1,
            _ => continue,
        }
        if let Ok(pod) = answering(&mesh, 500).await {
            failed += u64::from(pod == "reviews-v2");
        }
    }
    let words = ["endpoints", "reviews"];
    let failing = |said: &Value, of: &str| {
        let all = said["endpoints"].as_array().expect("a list").iter();
        let one = all.clone().find(|one| (one["address"] == address.as_str()) == (of == "v2"));
        one.expect("it is there")["failing"].clone()
    };
    // One whose answer did not come to us may have failed, too.
    let in_5xx = |said: &Value| (failing(said, "v2")["reasons"]["5xx"].as_u64() >= Some(failed)).into();
    let (said, _) = until(&mesh, &words, &true.into(), in_5xx).await;
    let seen = failing(&said, "v2");
    assert_eq!((&seen["clients"], &seen["most_by"][0]["client"]), (&1.into(), &"default/caller".into()));
    assert!(seen["attempts"].as_u64() >= Some(failed + well), "{said:#}");
    assert!(seen["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{said:#}");
    let all = said["endpoints"].as_array().expect("a list").iter();
    let bad = all.clone().find(|one| one["address"] == address.as_str()).expect("it is there");
    assert_eq!(bad["state"], "failing", "{said:#}");

    // What its own sidecar cannot tell.
    mesh.kill_sidecar("reviews-v2").await.expect("it dies");
    let sending = async {
        loop {
            drop(answering(&mesh, 200).await);
            tokio::task::yield_now().await;
        }
    };
    let refused =
        |said: &Value| (failing(said, "v2")["reasons"]["connect-refused"].as_u64() > Some(0)).into();
    let is_so = true.into();
    let (said, _) = tokio::select! {
        said = until(&mesh, &words, &is_so, refused) => said,
        () = sending => unreachable!(),
    };
    assert!(failing(&said, "v1")["reasons"]["connect-refused"].is_null(), "{said:#}");
    let page = mesh.control_plane_admin(&format!("/dashboard/service/{SERVICE}?since=1h")).await;
    let page = page.expect("an answer").text();
    for words in ["fails for 1 client since ", "connect-refused ", "(default/caller)"] {
        assert!(page.contains(words), "{words}: {page}");
    }
}

#[tokio::test]
async fn a_control_plane_that_has_just_started_waits_for_sidecars_before_it_calls_one_gone() {
    let mut mesh = mesh().await;
    in_force(&mesh, ROUTES).await;
    let address = mesh.workload("reviews-v2").app.to_string();
    mesh.kill_control_plane().await.expect("it dies");
    mesh.kill_sidecar("reviews-v2").await.expect("it dies");
    mesh.start_control_plane().await.expect("it starts");

    let words = ["endpoints", "reviews"];
    let state = |said: &Value| {
        let all = said["endpoints"].as_array().into_iter().flatten();
        all.clone()
            .find(|one| one["address"] == address.as_str())
            .map_or(Value::Null, |one| one["state"].clone())
    };
    let (said, status) = until(&mesh, &words, &"awaited".into(), state).await;
    assert_eq!(status, Some(3), "{said:#}");
    assert!(said["starting_seconds"].as_u64() > Some(0), "{said:#}");
    let page = async |path: &str| mesh.control_plane_admin(path).await.expect("an answer").text();
    let proxies = page("/dashboard/proxies").await;
    assert!(proxies.contains("may still be coming back, for "), "{proxies}");

    let (said, status) = until(&mesh, &words, &"not-connected".into(), state).await;
    assert_eq!((status, &said["starting_seconds"]), (Some(1), &Value::Null), "{said:#}");
    let proxies = page("/dashboard/proxies").await;
    assert!(
        !proxies.contains("may still be coming back") && proxies.contains("default/reviews-v2"),
        "{proxies}"
    );
}

#[tokio::test]
async fn what_is_to_end_by_itself_does_not_wait_for_good_for_a_control_plane_that_is_gone() {
    let mut mesh = Mesh::of(SELVEDGE, [Spec::client("caller")]).await;
    let admin = mesh.control_plane_admin_address().to_string();
    let start = |words: &[&str]| {
        let mut command = tokio::process::Command::new(SELVEDGE);
        command.args(words).args(["-o", "json", "--admin", &admin]).kill_on_drop(true);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().expect("it runs")
    };
    let mut top = start(&["top", "--max", "1000", "--every", "1s"]);
    let mut tap = start(&["tap", "--max", "1000"]);
    let mut line = String::new();
    let mut shown = tokio::io::BufReader::new(top.stdout.take().expect("a pipe"));
    shown.read_line(&mut line).await.expect("a line");
    let mut said = tokio::io::BufReader::new(tap.stderr.take().expect("a pipe"));
    said.read_line(&mut line).await.expect("a line");
    assert!(line.contains("showing requests"), "{line}");

    mesh.kill_control_plane().await.expect("it dies");

    let rest = async { said.read_to_string(&mut line).await.expect("text") };
    let (top, tap, _) = tokio::join!(top.wait_with_output(), tap.wait(), rest);
    let top = top.expect("it ends");
    assert_eq!((top.status.code(), tap.expect("it ends").code()), (Some(2), Some(2)));
    for said in [&*String::from_utf8_lossy(&top.stderr), &line] {
        let words = "the control plane has not answered for 45 s: look whether it runs";
        assert!(said.contains("trying again for 45 s at most") && said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn an_endpoint_whose_sidecar_was_killed_is_not_called_healthy() {
    let mut mesh = mesh().await;
    in_force(&mesh, ROUTES).await;
    let address = mesh.workload("reviews-v2").app.to_string();
    let state = |said: &Value| {
        let all = said["endpoints"].as_array().expect("a list").iter();
        all.clone().find(|one| one["address"] == address.as_str()).expect("it is there")["state"].clone()
    };
    poll(SOON, "it has answered", async || match answering(&mesh, 200).await?.as_str() {
        "reviews-v2" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    until(&mesh, &["endpoints", "reviews"], &"healthy".into(), state).await;

    mesh.kill_sidecar("reviews-v2").await.expect("it dies");
    let (said, status) = until(&mesh, &["endpoints", "reviews"], &"not-connected".into(), state).await;
    assert_eq!(status, Some(1), "{said:#}");
    let all = said["endpoints"].as_array().expect("a list").iter();
    let gone = all.clone().find(|one| one["address"] == address.as_str()).expect("it is there");
    let since = gone["not_connected_since"].as_str().expect("it was connected");
    assert!(since.ends_with('Z') && gone["requests"]["count"].as_u64() > Some(0), "{said:#}");

    // What its client could not deliver is said, too.
    let undelivered = |said: &Value| {
        let reasons = &said["undelivered"][0]["reasons"];
        (reasons["connect-failure"].as_u64() > Some(0)).into()
    };
    let failing = async {
        loop {
            drop(answering(&mesh, 200).await);
            // One after the other: the rest of this test has its turn.
            tokio::task::yield_now().await;
        }
    };
    let is_so = true.into();
    let (said, _) = tokio::select! {
        said = until(&mesh, &["endpoints", "reviews"], &is_so, undelivered) => said,
        () = failing => unreachable!(),
    };
    assert_eq!(said["undelivered"][0]["service"], SERVICE, "{said:#}");
    let page = mesh.control_plane_admin(&format!("/dashboard/service/{SERVICE}?since=1h")).await;
    let page = page.expect("an answer").text();
    assert!(page.contains("its sidecar is not connected") && page.contains("connect-failure"), "{page}");

    mesh.start_sidecar("reviews-v2").await.expect("it starts");
    until(&mesh, &["endpoints", "reviews"], &true.into(), |said| (state(said) != "not-connected").into())
        .await;
}

/// A route for one path alone.
const ONE_PATH: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews, namespace: default}
spec:
  parentRefs: [{group: '', kind: Service, name: reviews}]
  rules:
  - matches: [{path: {type: Exact, value: /known}}]
    backendRefs: [{name: reviews, port: 9080}]
";

/// How often each is sent.
const TIMES: u64 = 10;

#[tokio::test]
async fn what_the_mesh_answers_itself_because_it_knows_no_way_is_no_success() {
    let mesh = mesh().await;
    in_force(&mesh, ONE_PATH).await;
    let caller = mesh.workload("caller");
    for _ in 0..TIMES {
        let answer = caller.call(call::to("reviews:9080", "/other")).await.expect("an answer");
        let error = answer.proxy_error().unwrap_or_default();
        assert!(answer.status == 404 && error.starts_with("no-route"), "{}", answer.summary());
        let own = caller.call(call::to("reviews:9080", "/known?status=404")).await.expect("an answer");
        assert!(own.status == 404 && own.proxy_error().is_none(), "the app's own answer");
        let nowhere = caller.call(call::to("nobody.test:80", "/")).await.expect("an answer");
        assert!(nowhere.status.is_server_error(), "{}", nowhere.summary());
    }

    // A request from before the service was known may have failed, too.
    let failed = |said: &Value| {
        let rows = said["rows"].as_array().into_iter().flatten();
        let failures = |row: &Value| row["requests"]["failures"].as_u64().unwrap_or_default();
        let by_name = rows.map(|row| (row["name"].as_str().unwrap_or_default().to_owned(), failures(row)));
        let by_name: BTreeMap<String, u64> = by_name.collect();
        let of = |name: &str| by_name.get(name).is_some_and(|failures| *failures >= TIMES);
        serde_json::json!([of(&format!("{SERVICE} (no route)")), of("unknown (no route)")])
    };
    let words = ["stat", "--by", "route", "--from", "default/caller"];
    until(&mesh, &words, &serde_json::json!([true, true]), failed).await;
    let known = asked(&mesh, &["stat", "--by", "route", "--from", "default/caller", "--to", "reviews"]).0;
    let rows = known["rows"].as_array().expect("a list").iter();
    let of_route =
        rows.clone().find(|row| row["name"].as_str().is_some_and(|name| name.contains("HTTPRoute")));
    assert_eq!(of_route.expect("it was followed")["requests"]["failures"], 0, "{known:#}");
}

/// A command that looks on, and what it says on both its outputs.
struct Lookout {
    _child: tokio::process::Child,
    out: tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStdout>>,
    error: tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStderr>>,
}

impl Lookout {
    fn start(words: &[&str]) -> Self {
        let mut command = tokio::process::Command::new(SELVEDGE);
        let command = command.args(words).kill_on_drop(true);
        let command = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let out = tokio::io::BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let error = tokio::io::BufReader::new(child.stderr.take().expect("a pipe")).lines();
        Self { _child: child, out, error }
    }

    /// Reads until it says something with these words on standard error.
    async fn says(&mut self, words: &str) {
        let heard = async {
            while let Some(line) = self.error.next_line().await.expect("text") {
                if line.contains(words) {
                    return;
                }
            }
            panic!("it has ended without {words:?}");
        };
        tokio::time::timeout(TOLD, heard).await.unwrap_or_else(|_| panic!("it never says {words:?}"));
    }

    async fn shows(&mut self) {
        let line = tokio::time::timeout(TOLD, self.out.next_line()).await.expect("in time").expect("text");
        assert!(line.is_some(), "it has ended");
    }
}

#[tokio::test]
async fn who_looks_on_goes_on_after_the_control_plane_has_restarted() {
    let mut mesh = mesh().await;
    in_force(&mesh, ROUTES).await;
    let admin = mesh.control_plane_admin_address().to_string();
    let mut tap = Lookout::start(&["tap", "default/caller", "--admin", &admin, "-o", "json"]);
    let mut top = Lookout::start(&["top", "--admin", &admin, "-o", "json"]);
    tap.says("showing requests of 1 connected proxy").await;
    top.shows().await;

    mesh.kill_control_plane().await.expect("it dies");
    tap.says("trying again until it answers").await;
    top.says("trying again until it answers").await;
    mesh.start_control_plane().await.expect("it starts");
    tap.says("the control plane answers again").await;
    top.says("the control plane answers again").await;
    top.shows().await;
    let sending = async {
        loop {
            drop(answering(&mesh, 200).await);
        }
    };
    tokio::select! {
        () = tap.shows() => {}
        () = sending => unreachable!(),
    }
}

#[tokio::test]
async fn nothing_is_told_of_a_mesh_that_is_silent_and_a_control_plane_that_is_not_there_is_named() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller")]).await;
    let (said, status) = asked(&mesh, &["stat"]);
    assert_eq!((status, &said["rows"]), (Some(0), &serde_json::json!([])));
    assert_eq!(asked(&mesh, &["stat", "--min-success", "0"]).1, Some(1), "nothing is not enough");

    assert_eq!(asked(&mesh, &["stat", "--from", "default/caller"]).1, Some(0), "it is silent, but there");
    let (said, status) = asked(&mesh, &["stat", "--from", "default/calelr"]);
    let not_known = serde_json::json!([{"name": "default/calelr", "near": ["default/caller"]}]);
    assert_eq!((status, &said["not_known"]), (Some(1), &not_known), "{said:#}");
    let (said, status) = asked(&mesh, &["edges", "--require-mtls", "--to", "nobody"]);
    assert_eq!((status, &said["not_known"][0]["name"]), (Some(1), &"nobody".into()), "{said:#}");

    for command in ["stat", "edges", "routes", "endpoints"] {
        let output =
            Command::new(SELVEDGE).args([command, "--admin", "127.0.0.1:1"]).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(said.contains("the control plane's admin port 127.0.0.1:1"), "{said}");
    }
}

#[tokio::test]
async fn live_requests_are_shown_while_somebody_asks_and_their_secrets_to_nobody_who_has_not() {
    let mesh = mesh().await;
    in_force(&mesh, ROUTES).await;
    let admin = mesh.control_plane_admin_address().to_string();
    let tap = |words: &[&str]| {
        let mut command = Command::new(SELVEDGE);
        command.args(["tap", "--admin", &admin, "-o", "json", "--for", "60s"]).args(words);
        command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("it runs")
    };
    let failed = ["default/caller", "--max", "1", "--status", "5xx", "--path", "/secret"];
    let plain = tap(&failed);
    let revealed = tap(&[&failed[..], &["--query", "--headers", "--reveal", "X-Colour"]].concat());
    let served =
        tap(&["default/*", "--way", "inbound", "--max", "1", "--path", "/secret", "--status", "500"]);

    let sending = async {
        loop {
            for path in ["/?status=500", "/secret?status=200", "/secret?status=500"] {
                let call =
                    call::to("reviews:9080", path).header("x-colour", "red").header("authorization", "mine");
                drop(mesh.workload("caller").call(call).await);
            }
        }
    };
    let outputs = tokio::task::spawn_blocking(|| {
        [plain, revealed, served].map(|tap| tap.wait_with_output().expect("it ends"))
    });
    let outputs = tokio::select! {
        outputs = outputs => outputs.expect("nothing panics"),
        _ = sending => unreachable!(),
    };
    let [plain, revealed, served] = outputs.map(|output| {
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    });

    for sample in [&plain, &revealed] {
        assert_eq!(
            (&sample["by"], &sample["way"]),
            (&"default/caller".into(), &"outbound".into()),
            "{sample:#}"
        );
        assert_eq!((&sample["path"], &sample["status"]), (&"/secret".into(), &500.into()), "{sample:#}");
        assert_eq!(sample["endpoint_identity"], "spiffe://cluster.local/ns/default/sa/reviews", "{sample:#}");
        assert_eq!(
            (&sample["attempts"], &sample["route"]),
            (&1.into(), &"VirtualService default/reviews http[0]".into())
        );
        let endpoint = sample["endpoint"].as_str().expect("an endpoint");
        let is_there =
            ["reviews-v1", "reviews-v2"].iter().any(|name| mesh.workload(name).app.to_string() == endpoint);
        assert!(is_there && sample["micros"].as_u64() > Some(0), "{sample:#}");
    }
    assert!(plain.get("query").is_none() && plain.get("headers").is_none(), "{plain:#}");
    assert_eq!(revealed["query"], "status=500");
    let value = |name: &str| {
        let all = revealed["headers"].as_array().expect("a list").iter();
        all.filter(|one| one[0] == name).map(|one| one[1].clone()).next().expect("it was sent")
    };
    assert_eq!(
        (value("x-colour"), value("authorization")),
        ("red".into(), "(redacted)".into()),
        "{revealed:#}"
    );
    assert_eq!(served["client_identity"], "spiffe://cluster.local/ns/default/sa/caller", "{served:#}");
}

#[tokio::test]
async fn a_tap_under_load_shows_a_part_says_how_much_it_does_not_and_slows_nobody() {
    let mesh = mesh().await;
    in_force(&mesh, ROUTES).await;
    let admin = mesh.control_plane_admin_address().to_string();
    let words = ["tap", "default/caller", "--admin", &admin, "-o", "json", "--for", "60s", "--max", "300"];
    let mut command = Command::new(SELVEDGE);
    let tap =
        command.args(words).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
    let tap = tap.expect("it runs");

    let caller = mesh.workload("caller");
    let answered = std::cell::Cell::new(0_u64);
    let load = async || {
        while caller.call(call::to("reviews:9080", "/")).await.is_ok_and(|answer| answer.status == 200) {
            answered.set(answered.get() + 1);
        }
        panic!("a request failed");
    };
    let loads = futures_util::future::join_all((0..16).map(|_| load()));
    let output = tokio::task::spawn_blocking(|| tap.wait_with_output().expect("it ends"));
    let output = tokio::select! {
        output = output => output.expect("nothing panics"),
        _ = loads => unreachable!(),
    };
    let said = String::from_utf8(output.stdout).expect("text");
    assert_eq!(said.lines().count(), 300, "{said}");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains("showing requests of 1 connected proxy"), "{said}");
    // A slow machine answers fewer than a sidecar shows.
    let is_much = answered.get() > 2_000;
    assert!(!is_much || said.contains("more requests were meant: a sidecar shows 100 in a second"), "{said}");
}

#[tokio::test]
async fn top_shows_what_is_sent_again_and_again() {
    let mesh = mesh().await;
    in_force(&mesh, ROUTES).await;
    let admin = mesh.control_plane_admin_address().to_string();
    let words = ["top", "--admin", &admin, "--by", "route", "-o", "json", "--every", "1s"];
    let mut command = tokio::process::Command::new(SELVEDGE);
    let child = command.args(words).stdout(std::process::Stdio::piped()).kill_on_drop(true).spawn();
    let mut child = child.expect("it runs");
    let mut lines = tokio::io::BufReader::new(child.stdout.take().expect("a pipe")).lines();

    let route = format!("{SERVICE} VirtualService default/reviews http[0]");
    poll(TOLD, "what was sent is shown", async || {
        answering(&mesh, 200).await?;
        let line = lines.next_line().await.map_err(|error| error.to_string())?.ok_or("it has ended")?;
        let said: Value = serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))?;
        if counted(&said)[&route][0].as_u64() > Some(0) { Ok(()) } else { Err(line) }
    })
    .await;
}

#[tokio::test]
async fn opaque_connections_are_counted_with_their_bytes_and_an_identity() {
    let mut server = Spec::server("app-1", "app", 8080);
    server.app = AppKind::None;
    let mesh = Mesh::of(SELVEDGE, [server]).await;
    mesh.undeclare("app", 8080, "app-1").await;
    let app = TcpListener::bind(mesh.workload("app-1").app).await.expect("the app's address is ours");
    let configuration = mesh_client::configuration(mesh.credentials("caller"));
    for _ in 0..3 {
        let server = mesh.workload("app-1");
        let mut peer = mesh_client::connect_for(wire::Carrier::Tcp, &configuration, server).await;
        peer.write_all(&[frame(b"hello"), END.to_vec()].concat()).await.expect("it is taken");
        let (mut stream, _) = app.accept().await.expect("a connection of the sidecar's");
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.expect("all of it");
        assert_eq!(read, b"hello");
        stream.write_all(b"welcome").await.expect("it is taken");
        drop(stream);
        let mut answer = [frame(&preamble::ACCEPTED), frame(b"welcome"), END.to_vec()].concat();
        let length = answer.len();
        let expected = std::mem::replace(&mut answer, vec![0; length]);
        peer.read_exact(&mut answer).await.expect("the answer, and its end");
        assert_eq!(answer, expected);
    }

    let expected = serde_json::json!([3, 0, 100.0, 15, 21]);
    let of = |said: &Value| {
        let connections = &said["rows"][0]["connections"];
        let names = ["count", "failures", "mtls_percent", "received_bytes", "sent_bytes"];
        serde_json::json!(names.map(|name| connections[name].clone()))
    };
    until(&mesh, &["stat", "--by", "workload", "--to", "default/app-1"], &expected, of).await;
    let (said, _) = asked(&mesh, &["edges"]);
    assert_eq!(
        said["edges"][0]["client_identity"], "spiffe://cluster.local/ns/default/sa/caller",
        "{said:#}"
    );
    assert_eq!(said["edges"][0]["to"], "default/app-1:8080", "{said:#}");
}

#[tokio::test]
async fn what_a_sidecar_that_ends_has_carried_last_is_told() {
    let mut mesh = mesh().await;
    in_force(&mesh, ROUTES).await;
    let by_client = ["stat", "--by", "client", "--from", "default/caller"];
    let requests = |said: &Value| {
        let rows = said["rows"].as_array().into_iter().flatten();
        let count = |row: &Value| row["requests"]["count"].as_u64();
        serde_json::json!(rows.filter_map(count).sum::<u64>())
    };
    // As soon as one report has come there is none for 15 seconds.
    let (said, _) = poll(TOLD, "the first report has come", async || {
        let asked = asked(&mesh, &by_client);
        if requests(&asked.0) == 0 { Err(format!("{:#}", asked.0)) } else { Ok(asked) }
    })
    .await;
    let before = requests(&said).as_u64().expect("a number");
    for _ in 0..7 {
        answering(&mesh, 200).await.expect("an answer");
    }
    let sent = mesh.workload("caller").metric("selvedge_outbound_requests_total").await.expect("metrics");
    let sent = sent.expect("it has counted") as u64;
    assert!(sent >= before + 7, "{sent} of {before}");

    mesh.stop_sidecar("caller").await.expect("it ends");
    until(&mesh, &by_client, &serde_json::json!(sent), requests).await;
}
