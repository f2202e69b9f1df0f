//! Limits that all proxies share: a server of Envoy's rate limit service that counts in a real Redis, behind its own sidecar.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use http::StatusCode;
use selvedge_api::rls::{
    self, HeaderValue, RateLimitDescriptor, RateLimitRequest, RateLimitResponse,
    rate_limit_response::{Code, DescriptorStatus, RateLimit},
    rate_limit_service_server::{RateLimitService, RateLimitServiceServer},
};
use selvedge_demo::{
    apps::reviews,
    call::{self, Answer},
    workload::{AppKind, Spec},
};
use selvedge_tests::{Mesh, SOON, gateway::Gateway, needs::Need, poll};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, UnixStream},
    process::{Child, Command},
    runtime::Runtime,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::SELVEDGE;

/// So many requests of one user are let in; of those who only look whether the limit is in force, any number.
const LIMIT: u32 = 20;
const LOOKS: &str = "looks";
const HOST: &str = "shop.example.com";

/// What is written first; tests edit it.
const DOCUMENT: &str = "
apiVersion: selvedge.io/v1alpha1
kind: RateLimit
metadata: {name: shared, namespace: default}
spec:
  targetRefs: [{kind: Service, name: app}]
  global:
    service: default/limits:8081
    domain: shop
    timeout: 5s
    descriptors:
    - entries: [{header: x-user, key: user}]
";

/// Whatever comes without mutual TLS is refused, by the server of the limits too.
const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
";

/// What the server of the limits shares with the test.
#[derive(Debug, Clone, Default)]
struct Counting {
    redis: PathBuf,
    is_silent: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<RateLimitRequest>>>,
}

impl Counting {
    /// What Redis answers to `command`: a number.
    async fn redis(&self, command: &str) -> Result<i64, Status> {
        let ask = async || {
            let mut redis = BufReader::new(UnixStream::connect(&self.redis).await?);
            redis.write_all(format!("{command}\r\n").as_bytes()).await?;
            let mut line = String::new();
            redis.read_line(&mut line).await?;
            Ok::<_, std::io::Error>(line)
        };
        let line = ask().await.map_err(|error| Status::unavailable(error.to_string()))?;
        line.trim().trim_start_matches(':').parse().map_err(|_| Status::internal(line))
    }

    async fn count(
        &self,
        domain: &str,
        descriptor: &RateLimitDescriptor,
    ) -> Result<DescriptorStatus, Status> {
        let entries = descriptor.entries.iter().map(|entry| format!("{}={}", entry.key, entry.value));
        let key = format!("{domain}|{}", entries.collect::<Vec<_>>().join("|").replace(' ', "_"));
        let count = self.redis(&format!("INCR {key}")).await?;
        if count == 1 {
            self.redis(&format!("EXPIRE {key} 3600")).await?;
        }
        let is_over = count > LIMIT.into() && !key.ends_with(LOOKS);
        Ok(DescriptorStatus {
            code: if is_over { Code::OverLimit } else { Code::Ok }.into(),
            current_limit: Some(RateLimit { requests_per_unit: LIMIT, unit: 3 }),
            limit_remaining: LIMIT.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX)),
            duration_until_reset: Some(rls::Duration {
                seconds: self.redis(&format!("TTL {key}")).await?,
                nanos: 0,
            }),
        })
    }
}

#[tonic::async_trait]
impl RateLimitService for Counting {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        if self.is_silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let request = request.into_inner();
        let mut statuses = Vec::new();
        for descriptor in &request.descriptors {
            statuses.push(self.count(&request.domain, descriptor).await?);
        }
        self.asked.lock().unwrap().push(request);
        let is_over = statuses.iter().any(|status| status.code() == Code::OverLimit);
        let header =
            |key: &str| HeaderValue { key: key.into(), value: "redis".into(), raw_value: Vec::new() };
        Ok(Response::new(RateLimitResponse {
            overall_code: if is_over { Code::OverLimit } else { Code::Ok }.into(),
            statuses,
            response_headers_to_add: vec![header("x-counted-in"), header("selvedge-error")],
            request_headers_to_add: vec![header("x-limited-by")],
        }))
    }
}

/// Redis, at a socket in `directory`.
async fn start_redis(program: &Path, directory: &Path) -> (Child, PathBuf) {
    let socket = directory.join("redis.sock");
    let mut redis = Command::new(program);
    redis.args(["--port", "0", "--save", "", "--logfile", "redis.log", "--unixsocket"]).arg(&socket);
    let redis = redis.current_dir(directory).kill_on_drop(true).spawn().expect("redis-server starts");
    poll(SOON, "Redis listens", async || UnixStream::connect(&socket).await.map(drop)).await;
    (redis, socket)
}

/// Serves `counting` as the app of `limits-1`, until the runtime is shut down.
fn serve(mesh: &Mesh, counting: &Counting) -> Runtime {
    let runtime = Runtime::new().expect("a runtime");
    let (at, counting) = (mesh.workload("limits-1").app, counting.clone());
    runtime.spawn(async move {
        let listener = TcpListener::bind(at).await.expect("the app's address is ours");
        let server = Server::builder().add_service(RateLimitServiceServer::new(counting));
        server.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("it serves");
    });
    runtime
}

/// A caller, two instances of an app, and the server of the limits; Redis; and what serves.
struct Limited {
    mesh: Mesh,
    counting: Counting,
    server: Option<Runtime>,
    _redis: Child,
}

impl Drop for Limited {
    fn drop(&mut self) {
        // A runtime may not be dropped where it would wait.
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }
}

impl Limited {
    /// `None`: there is no Redis on this machine.
    async fn new() -> Option<Self> {
        let program = Need::RedisServer.program()?;
        let mut limits = Spec::server("limits-1", "limits", 8081);
        limits.app = AppKind::None;
        let apps = ["app-1", "app-2"].map(|name| Spec::server(name, "app", 8080));
        let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), limits].into_iter().chain(apps)).await;
        let (redis, socket) = start_redis(&program, mesh.directory()).await;
        let counting = Counting { redis: socket, ..Counting::default() };
        let server = Some(serve(&mesh, &counting));
        mesh.write("strict.yaml", STRICT).unwrap();
        let limited = Self { mesh, counting, server, _redis: redis };
        limited.in_force(DOCUMENT, |answer| answer.headers.contains_key("x-counted-in")).await;
        Some(limited)
    }

    /// What a request of `user` gets.
    async fn ask(&self, user: &str) -> Answer {
        let request = call::to("app:8080", "/").header("x-user", user);
        self.mesh.workload("caller").call(request).await.expect("an answer")
    }

    /// Writes `document`, and waits until each of the apps answers as is `expected`.
    async fn in_force(&self, document: &str, expected: impl Fn(&Answer) -> bool) {
        self.mesh.write("limits.yaml", document).unwrap();
        poll(SOON, "it is in force at both apps", async || {
            for _ in 0..10 {
                let answer = self.ask(LOOKS).await;
                if !expected(&answer) {
                    return Err(format!("{}: {:?}", answer.summary(), answer.headers));
                }
            }
            Ok(())
        })
        .await;
    }
}

/// The same, with these lines instead of the usual time.
fn with(lines: &str) -> String {
    DOCUMENT.replace("timeout: 5s", lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_proxies_share_a_limit_that_a_server_counts_and_its_failure_is_handled_as_the_document_says() {
    let Some(mut limited) = Limited::new().await else { return };
    limited.share_a_limit().await;
    limited.tell_the_app().await;
    limited.ask_by_what_the_client_wrote().await;

    // A slow server.
    limited.counting.is_silent.store(true, Ordering::Relaxed);
    let open =
        |answer: &Answer| answer.status == StatusCode::OK && !answer.headers.contains_key("x-counted-in");
    let closed = |answer: &Answer| {
        let told = answer.proxy_error().is_some_and(|error| {
            error.starts_with(
                "rate-limit-server: RateLimit default/shared: limits.default.svc.cluster.local:8081",
            )
        });
        answer.status == StatusCode::INTERNAL_SERVER_ERROR && told
    };
    limited.in_force(&with("timeout: 50ms"), open).await;
    limited.in_force(&with("timeout: 50ms\n    failureMode: Closed"), closed).await;

    // None at all.
    limited.server.take().expect("it serves").shutdown_background();
    limited.in_force(&with("timeout: 5s\n    failureMode: Closed"), closed).await;
    limited.in_force(&with("timeout: 5s"), open).await;
    let counted =
        "selvedge_inbound_policy_decisions_total{policy=\"RateLimit default/shared\",decision=\"error\"}";
    let count = limited.mesh.workload("app-1").metric(counted).await.expect("an answer");
    assert!(count.is_some(), "{counted} is not there");

    // It comes back.
    limited.counting.is_silent.store(false, Ordering::Relaxed);
    limited.server = Some(serve(&limited.mesh, &limited.counting));
    limited.in_force(DOCUMENT, |answer| answer.headers.contains_key("x-counted-in")).await;
}

impl Limited {
    /// As many requests of one user are let in as the server allows, whichever proxy they come to.
    async fn share_a_limit(&self) {
        let mut pods = Vec::new();
        for _ in 0..LIMIT {
            let answer = self.ask("alice").await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.summary());
            pods.push(answer.json::<reviews::Answer>().expect("what the app saw").pod);
        }
        assert!(["app-1", "app-2"].iter().all(|name| pods.iter().any(|pod| pod == name)), "{pods:?}");
        for _ in 0..4 {
            let refused = self.ask("alice").await;
            assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{}", refused.summary());
            let told = refused.proxy_error().expect("a reason");
            let expected = "rate-limit: RateLimit default/shared: limits.default.svc.cluster.local:8081 says";
            assert!(told.starts_with(expected), "{told}");
            let says = |name: &str| refused.headers[name].to_str().unwrap().parse::<u64>();
            assert!((3_000..=3_600).contains(&says("retry-after").unwrap()), "{:?}", refused.headers);
            assert_eq!((says("x-ratelimit-limit"), says("x-ratelimit-remaining")), (Ok(20), Ok(0)));
            assert_eq!(refused.headers["x-counted-in"], "redis");
        }
        assert_eq!(self.ask("bob").await.status, StatusCode::OK);
    }

    /// What one document's server has the app told says nothing to that of another, which is told what the client wrote.
    async fn ask_by_what_the_client_wrote(&self) {
        let second = DOCUMENT
            .replace("name: shared", "name: shared-too")
            .replace("{header: x-user, key: user}", "{header: x-limited-by, key: seen}");
        let is_counted = |answer: &Answer| answer.headers.contains_key("x-counted-in");
        self.in_force(&format!("{DOCUMENT}---{second}"), is_counted).await;
        let seen = poll(SOON, "both are asked", async || {
            let request =
                call::to("app:8080", "/").header("x-user", LOOKS).header("x-limited-by", "client-looks");
            let answer =
                self.mesh.workload("caller").call(request).await.map_err(|error| error.to_string())?;
            let asked = self.counting.asked.lock().unwrap();
            let entries = asked.iter().flat_map(|asked| &asked.descriptors).flat_map(|told| &told.entries);
            let seen = entries.filter(|entry| entry.key == "seen").map(|entry| entry.value.clone());
            let seen: Vec<_> = seen.collect();
            if seen.is_empty() { Err(answer.summary()) } else { Ok(seen) }
        })
        .await;
        assert!(seen.iter().all(|value| value == "client-looks"), "{seen:?}");
    }

    /// What the server says of a request, the app is told; and who says nothing that is counted is not asked about.
    async fn tell_the_app(&self) {
        let request = call::to("app:8080", "/").header("x-user", LOOKS).header("x-limited-by", "nobody");
        let answer = self.mesh.workload("caller").call(request).await.expect("an answer");
        let saw = answer.json::<reviews::Answer>().expect("what the app saw");
        assert_eq!(saw.headers["x-limited-by"], "redis");
        assert_eq!(answer.headers["x-counted-in"], "redis");
        assert!(!answer.headers.contains_key("selvedge-error"), "{:?}", answer.headers);

        let before = self.counting.asked.lock().unwrap().len();
        let caller = self.mesh.workload("caller");
        let answer = caller.call(call::to("app:8080", "/")).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(self.counting.asked.lock().unwrap().len(), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limits_server_is_told_the_service_that_a_request_is_for() {
    let Some(limited) = Limited::new().await else { return };
    let document = DOCUMENT.replace("{header: x-user, key: user}", "{from: service}, {header: x-user}");
    limited.mesh.write("limits.yaml", &document).unwrap();

    poll(SOON, "the server is told the service", async || {
        let answer = limited.ask(LOOKS).await;
        let asked = limited.counting.asked.lock().unwrap().last().cloned().ok_or_else(|| answer.summary())?;
        let told = asked.descriptors.iter().map(|one| {
            let entries = one.entries.iter().map(|entry| format!("{}={}", entry.key, entry.value));
            entries.collect::<Vec<_>>().join(" ")
        });
        let told: Vec<String> = told.collect();
        let expected = format!("service=app.default.svc.cluster.local x-user={LOOKS}");
        if told == [expected] { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_tells_a_limits_server_the_rule_and_the_address_that_a_request_comes_by() {
    let Some(limited) = Limited::new().await else { return };
    let documents = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: default}}
spec: {{gatewayClassName: selvedge, listeners: [{{name: http, port: 80, protocol: HTTP}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web, namespace: default}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [{HOST}]
  rules:
  - name: pay
    matches: [{{path: {{type: PathPrefix, value: /pay}}}}]
    backendRefs: [{{name: app, port: 8080}}]
  - backendRefs: [{{name: app, port: 8080}}]
---
apiVersion: selvedge.io/v1alpha1
kind: RateLimit
metadata: {{name: pays, namespace: default}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web, sectionName: pay}}]
  global:
    service: limits:8081
    domain: edge
    timeout: 5s
    failureMode: Closed
    descriptors:
    - entries: [{{from: route}}, {{from: clientAddress}}, {{value: a b}}]
"
    );
    limited.mesh.write("edge.yaml", &documents).unwrap();
    let gateway = Gateway::start(&limited.mesh, "default/edge", &[80]).await;
    let ask =
        async |path: &str| gateway.call(80, call::to(HOST, path)).await.map_err(|error| error.to_string());
    poll(SOON, "the gateway asks", async || {
        let answer = ask("/pay").await?;
        if answer.headers.contains_key("x-counted-in") { Ok(()) } else { Err(answer.summary()) }
    })
    .await;

    let asked = limited.counting.asked.lock().unwrap().last().cloned().expect("a question");
    let entries = asked.descriptors[0].entries.iter().map(|entry| (&*entry.key, &*entry.value));
    let [("route", rule), ("remote_address", "127.0.0.1"), ("generic_key", "a b")] =
        entries.collect::<Vec<_>>()[..]
    else {
        panic!("{asked:?}")
    };
    assert!(rule.contains("web"), "{rule}");
    let mut admitted = 0;
    let refused = loop {
        let answer = ask("/pay").await.expect("an answer");
        match answer.status {
            StatusCode::OK => admitted += 1,
            _ => break answer,
        }
    };
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{}", refused.summary());
    assert!(admitted < LIMIT, "{admitted}");
    // Strangers are told no names.
    assert_eq!(refused.headers["selvedge-error"], "rate-limit");
    let other = ask("/other").await.expect("an answer");
    assert_eq!((other.status, other.headers.contains_key("x-counted-in")), (StatusCode::OK, false));
}
