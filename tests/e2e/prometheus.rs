//! Prometheus itself, from Debian, on a mesh with traffic: every panel of the dashboards, every alert and recording rule has
//! data, and so have the queries of Kiali and Flagger with `--metrics-compat istio`.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use http::Method;
use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{Mesh, SOON, needs::Need, poll};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::SELVEDGE;

/// Two scrapes and what they need; Prometheus evaluates rules every second here.
const SCRAPED: Duration = Duration::from_secs(90);

/// Two versions that answer, and whoever fails often enough is ejected.
const ROUTES: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    connectionPool: {http: {http2MaxRequests: 4}}
    outlierDetection: {consecutive5xxErrors: 0}
  subsets:
  - {name: v1, labels: {version: v1}}
  - name: v2
    labels: {version: v2}
    trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3, baseEjectionTime: 1s, maxEjectionPercent: 100}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - retries: {attempts: 2, retryOn: 5xx}
    route:
    - {destination: {host: reviews, subset: v1}, weight: 50}
    - {destination: {host: reviews, subset: v2}, weight: 50}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-there}
spec:
  selector: {matchLabels: {app: reviews}}
  action: DENY
  rules: [{to: [{operation: {paths: [/forbidden]}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{name: tcp-db, port: 5432, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: gone}
spec:
  hosts: [gone.example]
  ports: [{name: http, number: 80, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1, ports: {http: 1}}]
"#;

/// What a small mesh cannot have: a gateway, SPIRE, and so many clients that some are turned away.
const ELSEWHERE: [&str; 3] = [
    "selvedge_gateway_certificate_expiry_timestamp_seconds",
    r#"certificate="workload-roots""#,
    r#"result="overflow""#,
];

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(deploy().join(path)).unwrap()).unwrap()
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A Prometheus that scrapes every second; ends with the test.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// `None`: it is not on this machine. `proxies` and `control_plane`: whom it scrapes.
    fn start(proxies: &[SocketAddr], control_plane: SocketAddr) -> Option<Self> {
        let program = Need::Prometheus.program()?;
        let directory = TempDir::new().unwrap();
        let targets = |addresses: &[SocketAddr]| {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            json!([{"targets": addresses}])
        };
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [
                deploy().canonicalize().unwrap().join("prometheus/alerts.yaml"),
                deploy().canonicalize().unwrap().join("prometheus/rules.yaml"),
            ],
            "scrape_configs": [
                {"job_name": "selvedge-proxy", "static_configs": targets(proxies)},
                {"job_name": "selvedge-control-plane", "static_configs": targets(&[control_plane])},
            ],
        });
        let file = directory.path().join("prometheus.json");
        fs::write(&file, config.to_string()).unwrap();
        // Nobody else takes it in the moment before Prometheus does, or it ends, and the test says so.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=exemplar-storage")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Some(Self { child, address, _directory: directory })
    }

    async fn get(&self, path: &str) -> Result<Value, String> {
        let call = call::to(&self.address.to_string(), path);
        let answer = call::send(self.address, call).await.map_err(|error| error.to_string())?;
        answer.json::<Value>().map_err(|error| error.to_string())
    }

    /// What it answers `expression`; an `Err` if that is nothing.
    async fn data(&self, expression: &str) -> Result<Vec<Value>, String> {
        let said = self.get(&format!("/api/v1/query?query={}", encoded(expression))).await?;
        if said["status"] != "success" {
            return Err(format!("{expression}: {said}"));
        }
        let result = said["data"]["result"].as_array().cloned().unwrap_or_default();
        if result.is_empty() { Err(format!("no data: {expression}")) } else { Ok(result) }
    }

    /// Waits until all of `expressions` have data.
    async fn have_data(&self, expressions: &[String]) {
        let mut missing: Vec<&String> = expressions.iter().collect();
        poll(SCRAPED, "every query has data", async || {
            let mut still = Vec::new();
            for expression in &missing {
                if let Err(error) = self.data(expression).await {
                    still.push((*expression, error));
                }
            }
            let said: Vec<String> = still.iter().map(|(_, error)| error.clone()).collect();
            missing = still.into_iter().map(|(expression, _)| expression).collect();
            if missing.is_empty() { Ok(()) } else { Err(said.join("\n")) }
        })
        .await;
    }
}

/// Percent-encoded, as RFC 3986 has it for a query.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn texts(value: &Value, key: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(key).and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| texts(value, key, found));
        }
        Value::Array(list) => list.iter().for_each(|value| texts(value, key, found)),
        _ => {}
    }
}

/// The queries of every panel, with their variables filled in.
fn panels() -> Vec<String> {
    let mut found = Vec::new();
    for file in fs::read_dir(deploy().join("grafana")).unwrap() {
        let path = file.unwrap().path();
        let before = found.len();
        texts(&json_of(&path)["panels"], "expr", &mut found);
        assert!(found.len() > before + 7, "{}", path.display());
    }
    let filled = found.into_iter().map(|expression| {
        let expression = expression.replace("$__rate_interval", "30s");
        let variables = ["$service", "$namespace", "$workload", "$caller"];
        // Of one that has one value, too, everything is meant here.
        let all = |text: String, name: &&str| {
            text.replace(&format!("=\"{name}\""), "=~\".*\"").replace(*name, ".*")
        };
        variables.iter().fold(expression, all)
    });
    filled.collect()
}

/// What the alerts look at: the operands of each expression, without their thresholds.
fn alerts() -> Vec<String> {
    let mut found = Vec::new();
    texts(&yaml("prometheus/alerts.yaml"), "expr", &mut found);
    let operands = found.iter().flat_map(|expression| operands(expression));
    operands.filter(|operand| !ELSEWHERE.iter().any(|part| operand.contains(part))).collect()
}

/// The operands of `and`, `or` and `unless`, each without what it is compared with.
fn operands(expression: &str) -> Vec<String> {
    let marked = [" unless on (job, instance) ", " and on (job, instance) ", " or "]
        .iter()
        .fold(expression.replace('\n', " "), |text, operator| text.replace(operator, "\u{1}"));
    let without_threshold = |operand: &str| {
        let at = [" < ", " > ", " == "].iter().filter_map(|sign| operand.rfind(sign)).max();
        at.map_or(operand, |at| &operand[..at]).trim().to_owned()
    };
    marked.split('\u{1}').map(without_threshold).collect()
}

#[test]
fn an_alert_is_taken_apart_at_its_operators_and_its_thresholds() {
    let found =
        operands("a - time() < 2 * 3600 unless on (job, instance) b{c=\"d\"} > 0 or rate(e[5m]) == 1");
    assert_eq!(found, ["a - time()", "b{c=\"d\"}", "rate(e[5m])"]);
}

/// The mesh that is scraped: everybody tells Istio's metrics, too.
async fn mesh() -> Mesh {
    let told = |spec: Spec| spec.flag("--metrics-compat", "istio");
    let caller = told(Spec::client("caller")).flag("--upstream", "0=db:5432");
    let servers = [
        Spec::reviews("reviews-v1", "v1"),
        Spec::reviews("reviews-v2", "v2"),
        Spec::server("db-1", "db", 8080),
    ];
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.service("reviews", 9080);
    mesh.write("routes.yaml", ROUTES).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([caller].into_iter().chain(servers.map(told))).await.unwrap();
    mesh
}

/// A bit of everything that there are metrics of. `db`: where the caller's sidecar takes opaque connections.
async fn traffic(mesh: &Mesh, db: SocketAddr) {
    let caller = mesh.workload("caller");
    let send = async |path: &str| {
        let call = call::to("reviews:9080", path);
        let traced = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        caller.call(call.header("traceparent", traced)).await.map(|answer| answer.status.as_u16())
    };
    for path in ["/", "/?bytes=65536", "/?status=404", "/forbidden"] {
        let _ = send(path).await;
    }
    let _ = caller.call(call::to("reviews:9080", "/echo").method(Method::POST).body("hello")).await;
    // Too few at once for the limit of requests, and so many in a second that their retries, of which the budget grants 10 per
    // second and a fifth of the requests, are too many: half of them go to the version that is soon ejected, which retries nothing.
    let failing = (0..3).map(|_| async {
        for _ in 0..30 {
            let _ = send("/?status=503").await;
        }
    });
    futures_util::future::join_all(failing).await;
    let many = (0..12).map(|_| send("/?delay=200ms"));
    futures_util::future::join_all(many).await;
    let _ = caller.call(call::to("gone.example:80", "/")).await;
    // To the database, which speaks HTTP, as an opaque connection; and to a sidecar what looks like TLS and is not.
    let _ = call::send(db, call::to("db", "/")).await;
    if let Ok(mut stranger) = TcpStream::connect(mesh.workload("reviews-v1").inbound).await {
        let _ = stranger.write_all(b"\x16\x03\x01\x00\x05hello").await;
        let _ = timeout(SOON, stranger.read(&mut [0; 64])).await;
    }
}

#[tokio::test]
async fn every_panel_alert_and_rule_has_data_and_so_have_kiali_and_flagger() {
    if Need::Prometheus.program().is_none() {
        return;
    }
    let mesh = mesh().await;
    let proxies = ["caller", "reviews-v1", "reviews-v2", "db-1"].map(|name| mesh.workload(name).admin);
    let prometheus = Prometheus::start(&proxies, mesh.control_plane_admin_address()).unwrap();
    let sidecar = mesh.workload("caller").sidecar_process().unwrap();
    let db = sidecar.listener("upstream db:5432", SOON).await.unwrap();

    let mut recorded = Vec::new();
    texts(&yaml("prometheus/rules.yaml"), "record", &mut recorded);
    let queries = [panels(), alerts(), recorded, kiali(), flagger()].concat();
    assert!(queries.len() > 100, "{queries:#?}");
    let sending = async {
        loop {
            traffic(&mesh, db).await;
        }
    };
    tokio::select! {
        () = sending => {}
        () = prometheus.have_data(&queries) => {}
    }

    // It has read all of it, in OpenMetrics, and every rule could be evaluated.
    let targets = prometheus.get("/api/v1/targets").await.unwrap();
    for target in targets["data"]["activeTargets"].as_array().unwrap() {
        assert_eq!((&target["health"], &target["lastError"]), (&json!("up"), &json!("")), "{target}");
    }
    let rules = prometheus.get("/api/v1/rules").await.unwrap();
    let mut errors = Vec::new();
    texts(&rules, "lastError", &mut errors);
    assert!(errors.iter().all(String::is_empty), "{errors:?}");
    let exemplars = "/api/v1/query_exemplars?start=0&end=9999999999&query=selvedge_inbound_request_duration_seconds_bucket";
    let exemplars = prometheus.get(exemplars).await.unwrap().to_string();
    assert!(exemplars.contains("0af7651916cd43dd8448eb211c80319c"), "{exemplars}");

    is_told_as_istio_does(&prometheus).await;
}

/// Who has called whom is as Istio would tell it, at both ends.
async fn is_told_as_istio_does(prometheus: &Prometheus) {
    for reporter in ["source", "destination"] {
        let security = if reporter == "source" { "unknown" } else { "mutual_tls" };
        let expected: BTreeMap<&str, &str> = [
            ("reporter", reporter),
            ("source_workload", "caller"),
            ("source_workload_namespace", "default"),
            ("source_principal", "spiffe://cluster.local/ns/default/sa/caller"),
            ("source_canonical_service", "caller"),
            ("destination_workload", "reviews-v1"),
            ("destination_workload_namespace", "default"),
            ("destination_principal", "spiffe://cluster.local/ns/default/sa/reviews"),
            ("destination_app", "reviews"),
            ("destination_version", "v1"),
            ("destination_canonical_service", "reviews"),
            ("destination_canonical_revision", "v1"),
            ("destination_service", "reviews.default.svc.cluster.local"),
            ("destination_service_name", "reviews"),
            ("destination_service_namespace", "default"),
            ("connection_security_policy", security),
            ("request_protocol", "http"),
            ("response_code", "200"),
            ("response_flags", "-"),
        ]
        .into();
        let labels: Vec<String> =
            expected.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let found = prometheus.data(&format!("istio_requests_total{{{}}}", labels.join(","))).await.unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
    }
}

/// What Kiali asks for its graph: who calls whom, how fast, how much.
fn kiali() -> Vec<String> {
    let ends = "source_cluster,source_workload_namespace,source_workload,source_canonical_service,source_canonical_revision,\
                destination_cluster,destination_service_namespace,destination_service,destination_service_name,\
                destination_workload_namespace,destination_workload,destination_canonical_service,destination_canonical_revision";
    let to = r#"reporter=~"destination|waypoint",destination_workload_namespace="default""#;
    let from = r#"reporter=~"source|waypoint",source_workload_namespace="default""#;
    let mut queries = Vec::new();
    for of in [to, from] {
        let by = format!("{ends},request_protocol,response_code,grpc_response_status,response_flags");
        queries.push(format!("sum(rate(istio_requests_total{{{of}}}[60s])) by ({by}) > 0"));
        let (name, by) = ("istio_request_duration_milliseconds", format!("{ends},request_protocol"));
        queries.push(format!(
            "histogram_quantile(0.95, sum(rate({name}_bucket{{{of}}}[60s])) by (le,{by})) > 0"
        ));
        let (sum, count) =
            (format!("rate({name}_sum{{{of}}}[60s])"), format!("rate({name}_count{{{of}}}[60s])"));
        queries.push(format!("sum({sum}) by ({by}) / sum({count}) by ({by}) > 0"));
        for bytes in ["istio_request_bytes_sum", "istio_response_bytes_sum"] {
            queries.push(format!("sum(rate({bytes}{{{of}}}[60s])) by ({by}) > 0"));
        }
        let mutual = r#"connection_security_policy="mutual_tls""#;
        if of == to {
            queries.push(format!("sum(rate(istio_requests_total{{{of},{mutual}}}[60s])) by ({ends}) > 0"));
        }
    }
    for tcp in ["istio_tcp_sent_bytes_total", "istio_tcp_received_bytes_total"] {
        queries.push(format!("sum(rate({tcp}{{{from}}}[60s])) by ({ends},response_flags)"));
    }
    queries.push(format!("sum(rate(istio_tcp_connections_opened_total{{{from}}}[60s])) by ({ends})"));
    queries
}

/// What Flagger asks of a canary: the share of requests that do not fail, and how long they take.
fn flagger() -> Vec<String> {
    let of = r#"reporter="destination",destination_workload_namespace="default",destination_workload=~"reviews-v2""#;
    vec![
        format!(
            "sum(rate(istio_requests_total{{{of},response_code!~\"5.*\"}}[1m])) / sum(rate(istio_requests_total{{{of}}}[1m])) * 100"
        ),
        format!(
            "histogram_quantile(0.99, sum(rate(istio_request_duration_milliseconds_bucket{{{of}}}[1m])) by (le))"
        ),
    ]
}

#[test]
fn what_scrapes_is_configured_as_prometheus_reads_it() {
    let Some(promtool) = Need::Promtool.program() else { return };
    let directory = TempDir::new().unwrap();
    let collector = yaml("opentelemetry/collector.yaml");
    let collector = &collector["receivers"]["prometheus"]["config"];
    let file = |name: &str, config: &Value| {
        let file = directory.path().join(name);
        fs::write(&file, config.to_string()).unwrap();
        file
    };
    // Debian's Prometheus is built without what asks an API server for pods.
    let mut kubernetes = yaml("prometheus/kubernetes.yaml");
    for job in kubernetes["scrape_configs"].as_array_mut().unwrap() {
        let asks = job.as_object_mut().unwrap().remove("kubernetes_sd_configs");
        assert_eq!(asks.unwrap()[0]["role"], "pod", "{job}");
    }
    let configs = [
        file("collector.json", collector),
        file("scrape.json", &yaml("prometheus/scrape.yaml")),
        file("kubernetes.json", &kubernetes),
    ];
    for config in configs {
        // Its files, such as those of a pod, are not here.
        let checked =
            Command::new(&promtool).args(["check", "config", "--syntax-only"]).arg(&config).output();
        let checked = checked.unwrap();
        assert!(checked.status.success(), "{}: {checked:?}", config.display());
    }
    for rules in ["alerts.yaml", "rules.yaml"] {
        let rules = deploy().join("prometheus").join(rules);
        let checked = Command::new(&promtool).args(["check", "rules"]).arg(&rules).output().unwrap();
        assert!(checked.status.success(), "{}: {checked:?}", rules.display());
    }
}
