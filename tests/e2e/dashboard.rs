//! The dashboard of the control plane's admin port: against the mesh's own figures, and against who may not see it.

mod browser;

use std::process::Command;

use http::Method;
use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{Mesh, SOON, poll};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::SELVEDGE;

const SERVICE: &str = "reviews.default.svc.cluster.local:9080";

/// Three quarters to v1, without retries.
const ROUTES: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 0}}
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
    - {destination: {host: reviews, subset: v1}, weight: 75}
    - {destination: {host: reviews, subset: v2}, weight: 25}
";

pub(crate) async fn mesh() -> Mesh {
    let servers = [Spec::reviews("reviews-v1", "v1"), Spec::reviews("reviews-v2", "v2")];
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller")].into_iter().chain(servers)).await;
    mesh.write("routes.yaml", ROUTES).expect("a writable directory");
    poll(SOON, "the routes are read", async || {
        let documents =
            mesh.control_plane_admin("/documents").await.map_err(|error| error.to_string())?.text();
        if documents.contains("VirtualService") { Ok(()) } else { Err(documents) }
    })
    .await;
    mesh
}

/// Sends so many requests that are answered with this status.
pub(crate) async fn send(mesh: &Mesh, status: u16, count: usize) {
    for _ in 0..count {
        poll(SOON, "an answer", async || {
            let call = call::to("reviews:9080", &format!("/?status={status}"));
            let answer = mesh.workload("caller").call(call).await.map_err(|error| error.to_string())?;
            if answer.status == status { Ok(()) } else { Err(answer.summary()) }
        })
        .await;
    }
}

/// The page at this path.
async fn page(mesh: &Mesh, path: &str) -> String {
    let answer = mesh.control_plane_admin(path).await.expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.text()
}

/// What the command says of the same time.
fn stat(mesh: &Mesh) -> Value {
    let admin = mesh.control_plane_admin_address().to_string();
    let words = ["stat", "--to", "reviews", "--since", "1h", "-o", "json", "--admin", &admin];
    let output = Command::new(SELVEDGE).args(words).output().expect("the command runs");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    said["rows"][0]["requests"].clone()
}

/// How many have failed, as the command says it.
pub(crate) fn failures(mesh: &Mesh) -> u64 {
    stat(mesh)["failures"].as_u64().unwrap_or_default()
}

/// Waits until the control plane knows of all that the caller has sent.
pub(crate) async fn all_is_told(mesh: &Mesh) {
    poll(SOON + SOON, "all is told", async || {
        let metrics = mesh.workload("caller").metric("selvedge_outbound_requests_total").await;
        let sent = metrics.map_err(|error| error.to_string())?.unwrap_or_default();
        let admin = mesh.control_plane_admin_address().to_string();
        let words = ["stat", "--by", "client", "--since", "1h", "-o", "json", "--admin", &admin];
        let output = Command::new(SELVEDGE).args(words).output().map_err(|error| error.to_string())?;
        let said: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        let told = said["rows"][0]["requests"]["count"].as_f64();
        if told == Some(sent) { Ok(()) } else { Err(format!("{told:?} of {sent}")) }
    })
    .await;
}

#[tokio::test]
async fn pages_show_the_figures_of_the_commands() {
    let mesh = mesh().await;
    send(&mesh, 200, 30).await;
    send(&mesh, 500, 10).await;

    let text = poll(SOON + SOON, "all is told, and shown as the command says it", async || {
        let said = stat(&mesh);
        if said["count"].as_u64() < Some(40) || said["failures"].as_u64() < Some(10) {
            return Err(said.to_string());
        }
        let (failures, count) = (&said["failures"], &said["count"]);
        let text = page(&mesh, &format!("/dashboard/service/{SERVICE}?since=1h")).await;
        let overview = page(&mesh, "/dashboard/overview?since=1h").await;
        let shown = text.contains(&format!("{failures} failed of {count}"))
            && overview.contains(&format!("{failures} of {count} requests have failed"))
            && overview.contains("Needs attention");
        if shown { Ok(text) } else { Err(format!("{said}: {text} {overview}")) }
    })
    .await;
    for part in [
        "Traffic split",
        "configured",
        "75 %",
        "25 %",
        "VirtualService default/reviews http[0]",
        "default/caller",
        "default/reviews-v1",
        &mesh.workload("reviews-v2").app.to_string(),
        "default/reviews",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let map = page(&mesh, "/dashboard/topology?since=1h").await;
    assert!(
        map.contains("data-from=\"service default/caller\" data-to=\"service default/reviews\""),
        "{map}"
    );
    assert!(map.contains("mutual TLS"), "{map}");
    let policies = page(&mesh, "/dashboard/policies").await;
    assert!(policies.contains("Who may call whom") && policies.contains("✓"), "{policies}");
    let certificates = page(&mesh, "/dashboard/certificates").await;
    assert!(certificates.contains("issuer") && certificates.contains("default/caller"), "{certificates}");
    let proxies = poll(SOON + SOON, "proxies tell how much memory they have", async || {
        let proxies = page(&mesh, "/dashboard/proxies").await;
        if proxies.matches("MiB").count() >= 5 { Ok(proxies) } else { Err(proxies) }
    })
    .await;
    assert!(proxies.contains("up to date") && proxies.contains("default/reviews-v2"), "{proxies}");
}

#[tokio::test]
async fn problems_are_shown_with_document_and_line_and_hostile_names_as_text() {
    let mesh = mesh().await;
    let hostile = "<img src=x onerror=alert(1)>";
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: \"{hostile}\", namespace: default}}\nspec: {{hosts: [\"<script>alert(2)</script>\"], http: [{{route: [{{destination: {{host: nobody}}}}]}}]}}\n"
    );
    mesh.write("hostile<b>.yaml", &text).expect("a writable directory");

    let text = poll(SOON, "the problem is shown", async || {
        let text = page(&mesh, "/dashboard/problems").await;
        if text.contains("hostile&lt;b&gt;.yaml:") { Ok(text) } else { Err(text) }
    })
    .await;
    for tag in ["<img", "<script>", "<b>"] {
        assert!(!text.contains(tag), "{tag}: {text}");
    }
    for path in [
        "/dashboard/%3Cscript%3E",
        "/dashboard/service/%3Cscript%3E:80",
        "/dashboard/topology?ns=%3Cscript%3E&focus=%3Cimg%3E",
    ] {
        let answer = mesh.control_plane_admin(path).await.expect("an answer");
        assert!(
            !answer.text().contains("<script>") && !answer.text().contains("<img"),
            "{path}: {}",
            answer.text()
        );
    }
    assert_eq!(mesh.control_plane_admin("/dashboard/nothing").await.expect("an answer").status, 404);
}

/// A request as it is written here, and all of the answer.
async fn raw(mesh: &Mesh, request: &str) -> String {
    let mut stream = TcpStream::connect(mesh.control_plane_admin_address()).await.expect("the admin port");
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn pages_are_for_this_host_and_change_nothing() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller")]).await;
    let get = |path: &str, host: &str, more: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n")
    };
    let paths = ["/dashboard/overview", "/dashboard/facts?since=60", "/dashboard/topology", "/"];
    for path in paths {
        for host in ["evil.example", "evil.example:9990", "localhost.evil.example"] {
            let answer = raw(&mesh, &get(path, host, "")).await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{path} by {host}: {answer}");
        }
        let answer = raw(&mesh, &get(path, "localhost", "Origin: http://evil.example\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{path}: {answer}");
    }
    let answer = raw(&mesh, &get("/dashboard/overview", "localhost", "")).await;
    let head = answer.split_once("\r\n\r\n").expect("a head").0.to_ascii_lowercase();
    for part in [
        "http/1.1 200",
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
    ] {
        assert!(head.contains(part), "{part}: {head}");
    }
    assert!(!head.contains("unsafe"), "{head}");
    // Its files have names that change with them, and are kept.
    let style = answer.split("href=\"").find(|part| part.contains(".css\"")).expect("a style sheet");
    let style = style.split_once('"').expect("an end").0;
    let css = raw(&mesh, &get(style, "localhost", "")).await;
    assert!(css.contains("text/css") && css.contains("immutable"), "{css}");

    let before = page(&mesh, "/config").await;
    for path in paths {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let answer = raw(&mesh, &request).await;
            assert!(answer.starts_with("HTTP/1.1 405"), "{method} {path}: {answer}");
        }
    }
    for name in ["overview", "topology", "policies", "certificates", "problems", "proxies"] {
        page(&mesh, &format!("/dashboard/{name}")).await;
    }
    let versions =
        |config: &str| serde_json::from_str::<Value>(config).expect("JSON")["configuration_version"].clone();
    assert_eq!(versions(&before), versions(&page(&mesh, "/config").await));
}

/// Somebody who looks on at a page.
struct Onlooker {
    stream: TcpStream,
    heard: String,
}

impl Onlooker {
    async fn of(mesh: &Mesh, path: &str) -> Self {
        let mut stream =
            TcpStream::connect(mesh.control_plane_admin_address()).await.expect("the admin port");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it is sent");
        Self { stream, heard: String::new() }
    }

    /// Reads until it has heard `word`; `None`: the stream has ended.
    async fn hears(&mut self, word: &str) -> Option<()> {
        let mut buffer = vec![0; 64 << 10];
        while !self.heard.contains(word) {
            let count = self.stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
            self.heard.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        Some(())
    }
}

#[tokio::test]
async fn whoever_looks_on_is_told_what_is_new() {
    let mesh = mesh().await;
    send(&mesh, 200, 1).await;
    all_is_told(&mesh).await;
    let path = format!("/dashboard/service/{SERVICE}?since=1h&often=1");
    let mut onlooker = Onlooker::of(&mesh, &path).await;
    onlooker.hears("event: content").await.expect("the page");
    assert!(onlooker.heard.contains("content-type: text/event-stream"), "{}", onlooker.heard);

    let failed = failures(&mesh) + 7;
    send(&mesh, 500, 7).await;
    let words = format!("{failed} failed of ");
    assert!(!onlooker.heard.contains(&words), "{}", onlooker.heard);
    // A stream ends now and then, and is asked for again, as browsers do it.
    poll(SOON + SOON, "it is told", async || {
        match tokio::time::timeout(SOON, onlooker.hears(&words)).await {
            Ok(Some(())) => Ok(()),
            _ => {
                let heard = std::mem::take(&mut onlooker.heard);
                onlooker = Onlooker::of(&mesh, &path).await;
                Err(heard)
            }
        }
    })
    .await;
}

#[tokio::test]
async fn only_so_many_look_on_at_a_time() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller")]).await;
    let mut onlookers = Vec::new();
    for _ in 0..16 {
        let mut one = Onlooker::of(&mesh, "/dashboard/overview").await;
        one.hears("event: content").await.expect("the page");
        onlookers.push(one);
    }
    let mut more = Onlooker::of(&mesh, "/dashboard/overview").await;
    more.hears("event: full").await.expect("an answer");
    assert!(!more.heard.contains("event: content"), "{}", more.heard);
    // Pages themselves are still there, and there is room again for those who come when others have left.
    page(&mesh, "/dashboard/overview").await;
    onlookers.clear();
    poll(SOON, "there is room", async || {
        let mut one = Onlooker::of(&mesh, "/dashboard/overview").await;
        one.hears("event: ").await.ok_or("ended")?;
        if one.heard.contains("event: content") { Ok(()) } else { Err("full") }
    })
    .await;
}

#[tokio::test]
async fn the_command_says_where_the_pages_are() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller")]).await;
    let admin = mesh.control_plane_admin_address().to_string();
    let output = Command::new(SELVEDGE)
        .args(["dashboard", "--no-browser", "--admin", &admin])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).expect("text");
    assert_eq!(said, format!("http://{admin}/dashboard/overview\n"));
    let output = Command::new(SELVEDGE)
        .args(["dashboard", "--no-browser", "--admin", "127.0.0.1:1"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[tokio::test]
async fn an_archive_for_a_bug_report_has_what_is_known_and_no_secret() {
    let mesh = mesh().await;
    send(&mesh, 200, 1).await;
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: hidden, namespace: default}\nstringData: {key: hunter2-hunter2}\n";
    mesh.write("secret.yaml", secret).expect("a writable directory");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("report.tar.gz");
    let admin = mesh.control_plane_admin_address().to_string();
    let run = || {
        Command::new(SELVEDGE)
            .arg("diagnostics")
            .arg(&file)
            .args(["--admin", &admin])
            .output()
            .expect("it runs")
    };
    let output = run();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(run().status.code(), Some(2), "nothing is replaced");

    let unpacked =
        Command::new("tar").arg("-xzf").arg(&file).arg("-C").arg(directory.path()).status().expect("tar");
    assert!(unpacked.success());
    let inside = directory.path().join("selvedge-diagnostics");
    let read = |name: &str| {
        std::fs::read_to_string(inside.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let (readme, proxies) = (read("README.txt"), read("control-plane/proxies.json"));
    assert!(readme.contains("documents.json") && readme.contains("no Secret"), "{readme}");
    assert!(proxies.contains("default/caller"), "{proxies}");
    let documents: Value = serde_json::from_str(&read("control-plane/documents.json")).expect("JSON");
    assert!(documents["VirtualService"].as_u64() == Some(1), "{documents}");
    assert!(read("control-plane/metrics.txt").contains("selvedge_control_plane_"));
    assert!(read("versions.txt").contains("selvedge "));
    for name in ["status", "proxies", "problems", "documents", "services", "traffic", "seen"] {
        let text = read(&format!("control-plane/{name}.json"));
        for word in ["hunter2", "BEGIN ", "PRIVATE"] {
            assert!(!text.contains(word), "{name}: {text}");
        }
    }
}
