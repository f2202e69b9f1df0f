//! The admin port asks the app for its probes and metrics, for everybody and whatever policies say. Nobody gets anything
//! else to the app by that way.

use std::sync::{Arc, Mutex};

use selvedge_demo::workload::Spec;
use selvedge_tests::Mesh;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{SELVEDGE, raw::within};

/// An app that keeps what it is asked.
struct App {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl App {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let keeping = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let keeping = Arc::clone(&keeping);
                tokio::spawn(async move {
                    let mut head = vec![0; 16 << 10];
                    let read = stream.read(&mut head).await.unwrap_or(0);
                    keeping.lock().unwrap().push(String::from_utf8_lossy(&head[..read]).into_owned());
                    let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\nsecret";
                    // Who asked may be gone.
                    let _ = stream.write_all(answer).await;
                });
            }
        });
        Self { port, asked }
    }

    /// What it was asked since the last look.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// What may come to the app, whoever asks.
const DECLARED: [&str; 2] = ["GET /healthz HTTP/1.1", "GET /metrics HTTP/1.1"];

/// Words that an app may believe of a sidecar, or that lead elsewhere.
const FORGED: &str = "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/default/sa/admin\r\n\
    x-original-url: /admin\r\nx-rewrite-url: /admin\r\nx-http-method-override: DELETE\r\nauthorization: Bearer stolen\r\n\
    cookie: session=stolen\r\n";

async fn send(mesh: &Mesh, request: &str) -> String {
    let mut stream = TcpStream::connect(mesh.workload("app-1").admin).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it is read");
    let mut answer = Vec::new();
    // It may be ended in the middle.
    let _ = within("an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn nothing_comes_to_the_app_by_way_of_the_admin_port_but_what_its_pod_declares() {
    let app = App::start().await;
    let probes = format!(
        r#"{{"/app-health/app/livez": {{"httpGet": {{"path": "/healthz", "port": {}}}}}}}"#,
        app.port
    );
    let metrics = format!(r#"{{"portNumber": {}, "path": "/metrics"}}"#, app.port);
    let spec =
        Spec::server("app-1", "app", 8080).flag("--app-probes", &probes).flag("--app-metrics", &metrics);
    let mesh = Mesh::of(SELVEDGE, [spec]).await;
    let deny = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                metadata: {name: nobody, namespace: default}\nspec: {}\n";
    mesh.write("deny.yaml", deny).unwrap();
    app.asked();

    let targets = [
        "/app-health/app/livez",
        "/app-health/app/livez?path=/admin",
        "/app-health/app/livez/../../../admin",
        "/app-health/app/livez%2f..%2f..%2fadmin",
        "/app-health/app/%2e%2e/admin",
        "/app-health//app/livez",
        "/app-health/app/livez;/admin",
        "/app-lifecycle/app/livez",
        "/metrics",
        "/metrics/app",
        "/metrics/app?path=/admin",
        "/metrics/app/../../admin",
        "/metrics/app/admin",
        "/admin",
        "//admin",
        "http://app:8080/admin",
        "http://127.0.0.1/app-health/app/livez/admin",
        "*",
    ];
    let mut declared = 0;
    for target in targets {
        for method in ["GET", "POST", "HEAD", "DELETE", "OPTIONS", "TRACE"] {
            let request = format!(
                "{method} {target} HTTP/1.1\r\nHost: app:8080\r\nContent-Length: 0\r\nConnection: close\r\n{FORGED}\r\n"
            );
            send(&mesh, &request).await;
            for asked in app.asked() {
                let line = asked.lines().next().unwrap_or_default();
                assert!(DECLARED.contains(&line), "{method} {target}: {asked}");
                assert!(!asked.to_lowercase().contains("stolen"), "{method} {target}: {asked}");
                assert!(!asked.contains("admin"), "{method} {target}: {asked}");
                declared += 1;
            }
        }
    }
    assert!(declared >= 2, "the app was asked {declared} times");
    for request in [
        format!("CONNECT 127.0.0.1:{} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /admin HTTP/1.1\r\n\r\n", app.port),
        "GET /app-health/app/livez HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nGET /admin HTTP/1.1\r\n\r\n"
            .to_owned(),
        "POST /app-health/app/livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n\
         0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            .to_owned(),
    ] {
        // Some of these connections stay open: nobody is waited for.
        let mut stream = TcpStream::connect(mesh.workload("app-1").admin).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it is read");
        let mut answer = [0; 4096];
        let read = within("an answer", stream.read(&mut answer)).await.unwrap_or(0);
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(!answer.starts_with("HTTP/1.1 101"), "{answer}");
        for asked in app.asked() {
            let line = asked.lines().next().unwrap_or_default();
            assert!(DECLARED.contains(&line), "{request}: {asked}");
        }
    }
    // A probe says whether the app is well, and nothing that the app says.
    let answer =
        send(&mesh, "GET /app-health/app/livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("secret"), "{answer}");
}
