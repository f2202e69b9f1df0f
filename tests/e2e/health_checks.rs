//! Health checks of endpoints outside the mesh: who fails them gets no requests.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{Mesh, SOON, poll};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::SELVEDGE;

/// What a server answers checks with instead of a status: nothing.
const HANG: u16 = 0;

/// A server outside the mesh. It answers requests with its name always, and checks as it is told.
struct Server {
    name: &'static str,
    address: SocketAddr,
    answer: Arc<AtomicU16>,
    running: JoinSet<()>,
}

impl Server {
    async fn start(name: &'static str, address: SocketAddr) -> Self {
        let mut server =
            Self { name, address, answer: Arc::new(AtomicU16::new(200)), running: JoinSet::new() };
        server.listen().await;
        server
    }

    async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let (name, answer) = (self.name, Arc::clone(&self.answer));
        self.running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, name, Arc::clone(&answer)));
            }
        });
    }

    fn answers(&self, status: u16) {
        self.answer.store(status, Ordering::Relaxed);
    }

    async fn kill(&mut self) {
        self.running.shutdown().await;
    }
}

async fn serve(stream: TcpStream, name: &'static str, answer: Arc<AtomicU16>) {
    let service = service_fn(move |request: Request<Incoming>| respond(request, name, Arc::clone(&answer)));
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(
    request: Request<Incoming>,
    name: &'static str,
    answer: Arc<AtomicU16>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let answer = answer.load(Ordering::Relaxed);
    let host = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = request.uri().path();
    if path != "/" && answer == HANG {
        std::future::pending::<()>().await;
    }
    match path {
        "/healthz" => {
            let status = if host == "check.test" { answer } else { 400 };
            let body = Full::new(Bytes::new()).boxed_unsync();
            Ok(Response::builder().status(status).body(body).unwrap())
        }
        "/grpc.health.v1.Health/Check" => {
            // SERVING, or NOT_SERVING, as protobuf in one gRPC message.
            let message = vec![0, 0, 0, 0, 2, 8, if answer == 200 { 1 } else { 2 }];
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let body = Full::new(Bytes::from(message)).with_trailers(async { Some(Ok(trailers)) });
            let response = Response::builder().header("content-type", "application/grpc");
            Ok(response.body(body.boxed_unsync()).unwrap())
        }
        _ => Ok(Response::new(Full::new(Bytes::from(name)).boxed_unsync())),
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A caller, and four servers outside the mesh, which an entry calls `shop.test`, with these annotations.
async fn world(annotations: &str) -> (Mesh, [Server; 4]) {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller")]).await;
    let mut servers = Vec::new();
    for (name, host) in NAMES.into_iter().zip(201..) {
        servers.push(Server::start(name, mesh.ground().socket(host, 8090).unwrap()).await);
    }
    let endpoint = |server: &Server| {
        format!("{{address: {}, ports: {{http: {}}}}}", server.address.ip(), server.address.port())
    };
    let endpoints: Vec<_> = servers.iter().map(endpoint).collect();
    let entry = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: shop, annotations: {{{annotations}}}}}\n\
         spec: {{hosts: [shop.test], resolution: STATIC, ports: [{{number: 80, name: http}}], endpoints: [{}]}}\n",
        endpoints.join(", ")
    );
    mesh.write("entry.yaml", &entry).unwrap();
    let servers = servers.try_into().unwrap_or_else(|_| panic!("there are four"));
    poll(SOON, "all pass", async || all_are(&mesh, &[true; 4]).await).await;
    (mesh, servers)
}

/// Who answers one request.
async fn answering(mesh: &Mesh) -> Result<String, String> {
    let answer = mesh.workload("caller").call(call::to("shop.test", "/")).await;
    let answer = answer.map_err(|error| error.to_string())?;
    if answer.status == 200 { Ok(answer.text()) } else { Err(answer.summary()) }
}

async fn checks(mesh: &Mesh) -> Vec<Value> {
    let all = mesh.workload("caller").admin_json("/endpoints").await.unwrap();
    let ours = |one: &&Value| one["backend"].as_str().is_some_and(|backend| backend.starts_with("shop.test"));
    all.as_array().unwrap().iter().filter(ours).cloned().collect()
}

async fn all_are(mesh: &Mesh, passing: &[bool]) -> Result<(), String> {
    answering(mesh).await?;
    let all = checks(mesh).await;
    let found: Vec<_> = all.iter().map(|one| one["health_check"]["passing"].as_bool()).collect();
    let wanted: Vec<_> = passing.iter().copied().map(Some).collect();
    if found == wanted { Ok(()) } else { Err(format!("{all:?}")) }
}

/// Waits until exactly those pass; says what the last failure of the `which` is.
async fn until(mesh: &Mesh, passing: [bool; 4], which: usize) -> String {
    poll(SOON, &format!("{passing:?}"), async || all_are(mesh, &passing).await).await;
    checks(mesh).await[which]["health_check"]["last_failure"].as_str().unwrap_or_default().to_owned()
}

/// Who answers so many requests, all of which succeed.
async fn answer(mesh: &Mesh, count: usize) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for _ in 0..count {
        names.insert(answering(mesh).await.unwrap());
    }
    names
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[tokio::test]
async fn an_endpoint_that_fails_its_http_checks_gets_no_requests_until_it_passes_them() {
    let (mesh, [a, b, mut c, _d]) = world(
        "config.selvedge.io/health-check: HTTP, config.selvedge.io/health-check-path: /healthz, \
         config.selvedge.io/health-check-host: check.test, config.selvedge.io/health-check-interval: 1s, \
         config.selvedge.io/health-check-timeout: 500ms",
    )
    .await;

    a.answers(500);
    let failure = until(&mesh, [false, true, true, true], 0).await;
    assert!(failure.contains("GET /healthz") && failure.contains("500"), "{failure}");
    b.answers(HANG);
    let failure = until(&mesh, [false, false, true, true], 1).await;
    assert!(failure.contains("no answer within 500ms"), "{failure}");
    assert_eq!(answer(&mesh, 24).await, names(["c", "d"]));

    // A change of configuration forgets nothing.
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: shop}\nspec: {host: shop.test, \
                trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}\n";
    mesh.write("rule.yaml", rule).unwrap();
    poll(SOON, "the rule is followed", async || {
        assert!(answer(&mesh, 4).await.is_subset(&names(["c", "d"])));
        let config =
            mesh.workload("caller").admin("/config").await.map_err(|error| error.to_string())?.text();
        if config.contains("RoundRobin") { Ok(()) } else { Err(config) }
    })
    .await;
    assert_eq!(answer(&mesh, 4).await, names(["c", "d"]));
    all_are(&mesh, &[false, false, true, true]).await.unwrap();

    // Where fewer than half are left, all are called: nobody knows whether the checks are right.
    c.kill().await;
    let failure = until(&mesh, [false, false, false, true], 2).await;
    assert!(failure.contains("no connection to"), "{failure}");
    let metric = mesh.workload("caller").metric("selvedge_outbound_endpoints_unhealthy").await;
    assert_eq!(metric.unwrap(), Some(3.0));
    assert!(answer(&mesh, 24).await.is_superset(&names(["a", "b", "d"])));

    c.listen().await;
    a.answers(204);
    until(&mesh, [true, false, true, true], 0).await;
    assert_eq!(answer(&mesh, 24).await, names(["a", "c", "d"]));
    let failed = mesh.workload("caller").metric("selvedge_outbound_health_checks_failed_total").await;
    assert!(failed.unwrap() >= Some(6.0), "two of each of three");
}

#[tokio::test]
async fn a_server_that_says_not_serving_or_takes_no_connection_gets_no_requests() {
    let (mesh, [_a, b, mut c, _d]) = world(
        "config.selvedge.io/health-check: GRPC, config.selvedge.io/health-check-interval: 1s, \
         config.selvedge.io/health-check-unhealthy-threshold: '1'",
    )
    .await;
    b.answers(500);
    let failure = until(&mesh, [true, false, true, true], 1).await;
    assert!(failure.contains("NOT_SERVING"), "{failure}");
    assert_eq!(answer(&mesh, 24).await, names(["a", "c", "d"]));

    // A rule goes before the entry. The same server is well by another question.
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: shop, annotations: \
                {config.selvedge.io/health-check: TCP, config.selvedge.io/health-check-interval: 1s}}\nspec: {host: \
                shop.test}\n";
    mesh.write("rule.yaml", rule).unwrap();
    until(&mesh, [true; 4], 1).await;
    c.kill().await;
    until(&mesh, [true, true, false, true], 2).await;
    assert_eq!(answer(&mesh, 24).await, names(["a", "b", "d"]));

    // Without checks everybody gets requests again.
    mesh.remove("rule.yaml").unwrap();
    mesh.edit("entry.yaml", |text| text.replace("health-check: GRPC", "x: y")).unwrap();
    c.listen().await;
    poll(SOON, "nobody is checked", async || {
        answering(&mesh).await?;
        let all = checks(&mesh).await;
        if all.iter().all(|one| one["health_check"].is_null()) { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    assert_eq!(answer(&mesh, 40).await, names(NAMES));
}

#[tokio::test]
async fn a_check_may_ask_another_port_than_requests() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller")]).await;
    let (server, check) =
        (mesh.ground().socket(201, 8090).unwrap(), mesh.ground().socket(201, 8091).unwrap());
    let _server = Server::start("a", server).await;
    let mut asked = Server::start("check", check).await;
    let entry = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: shop, annotations: \
         {{config.selvedge.io/health-check: HTTP, config.selvedge.io/health-check-path: /healthz, \
         config.selvedge.io/health-check-host: check.test, config.selvedge.io/health-check-port: '{}', config.selvedge.io/health-check-interval: 1s}}}}\nspec: {{hosts: \
         [shop.test], resolution: STATIC, ports: [{{number: 80, name: http, targetPort: {}}}], endpoints: [{{address: \
         {}}}]}}\n",
        check.port(),
        server.port(),
        server.ip()
    );
    mesh.write("entry.yaml", &entry).unwrap();
    poll(SOON, "it passes", async || all_are(&mesh, &[true]).await).await;
    assert_eq!(answer(&mesh, 4).await, names(["a"]));

    asked.answers(500);
    poll(SOON, "it fails", async || all_are(&mesh, &[false]).await).await;
    asked.answers(200);
    poll(SOON, "it passes again", async || all_are(&mesh, &[true]).await).await;
    asked.kill().await;
    poll(SOON, "nobody is there", async || all_are(&mesh, &[false]).await).await;
    let failure = checks(&mesh).await[0]["health_check"]["last_failure"].as_str().unwrap().to_owned();
    assert!(failure.contains(&format!("no connection to {check}")), "{failure}");
}
