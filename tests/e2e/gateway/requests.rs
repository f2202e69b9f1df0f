//! Requests from outside, in every form in which they come.

use std::time::Duration;

use futures_util::SinkExt;
use http::{StatusCode, Version};
use selvedge_demo::{
    apps::{
        grpc::wire::{EchoRequest, echo_client::EchoClient},
        reviews,
    },
    call,
    processes::Process,
    workload::{AppKind, Spec},
};
use selvedge_tests::{SOON, needs::Need, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};
use tokio_stream::StreamExt;
use tokio_tungstenite::{accept_async, client_async, tungstenite::Message};
use tonic::{Code, transport::Channel};

use super::{Edge, HOST, gateway, http_listener, route};
use crate::foreign::succeeds;

async fn before_reviews() -> Edge {
    let edge = Edge::of([Spec::reviews("reviews-1", "v1")], &route("HTTPRoute", "reviews", 9080)).await;
    edge.served("/").await;
    edge
}

#[tokio::test]
async fn a_client_that_closes_while_it_waits_for_its_answer_ends_its_request() {
    let edge = before_reviews().await;
    let canceled = async || -> f64 {
        let metrics = edge.admin("/metrics").await.text();
        let counted = metrics
            .lines()
            .filter(|line| line.contains("_requests_total{") && line.contains("error_type=\"canceled\""));
        counted.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let before = canceled().await;

        let call = call::to(HOST, "/?delay=60s").version(version).timeout(Duration::from_millis(200));
        let left = edge.call(call).await;

        assert!(left.is_err(), "{left:?}");
        poll(SOON, &format!("{version:?}: it is counted"), async || {
            let now = canceled().await;
            if now > before { Ok(()) } else { Err(format!("{before}, then {now}")) }
        })
        .await;
    }
}

#[tokio::test]
async fn a_request_from_outside_reaches_the_app_with_the_gateways_identity() {
    let edge = before_reviews().await;

    for version in [Version::HTTP_11, Version::HTTP_2] {
        let call = call::to(HOST, "/a/../b?c")
            .version(version)
            .header("x-forwarded-for", "10.9.8.7")
            .header("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/default/sa/admin")
            .header("x-request-id", "mine");
        let answer = edge.call(call).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.summary());
        let seen: reviews::Answer = answer.json().unwrap();
        assert_eq!(seen.client_identity.as_deref(), Some("spiffe://cluster.local/ns/default/sa/edge"));
        assert_eq!(seen.path, "/b?c");
        assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
        assert_eq!(seen.headers["x-forwarded-proto"], "http");
        assert_eq!(seen.headers["x-forwarded-host"], HOST);
        assert_ne!(seen.headers["x-request-id"], "mine");
        let other = edge.call(call::to("bank.example.com", "/").version(version)).await.unwrap();
        assert_eq!(
            (other.status, other.proxy_error().map(|why| why.starts_with("no-route"))),
            (StatusCode::NOT_FOUND, Some(true))
        );
    }

    assert_eq!(edge.admin("/ready").await.status, StatusCode::OK);
    let metrics = edge.admin("/metrics").await.text();
    let counted = r#"selvedge_outbound_requests_total{server_address="shop.example.com@default/edge/http",server_port="80",route="HTTPRoute default/web"#;
    assert!(metrics.contains(counted), "{metrics}");
}

/// An app without a sidecar. It tells how each connection to it begins, and answers what is HTTP/1.1.
pub(super) async fn listening() -> (u16, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, begun) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut first = vec![0; 4096];
            let Ok(read) = stream.read(&mut first).await else { continue };
            let text = String::from_utf8_lossy(&first[..read]).into_owned();
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            // An end that comes first is the client's own business.
            let _ = stream.write_all(answer.as_bytes()).await;
            if told.send(text.lines().next().unwrap_or_default().to_owned()).is_err() {
                return;
            }
        }
    });
    (port, begun)
}

#[tokio::test]
async fn an_app_gets_the_version_that_is_declared_for_it_whatever_its_clients_speak() {
    let ((old, mut at_old), (new, mut at_new)) = (listening().await, listening().await);
    let app = |name: &str, port: u16, also: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{selector: {{app: {name}}}, ports: [{{name: web, port: 80, targetPort: {port}{also}}}]}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{address: 127.0.0.1, labels: {{app: {name}}}}}\n---\n"
        )
    };
    let rule = |name: &str| {
        format!("{{matches: [{{path: {{value: /{name}}}}}], backendRefs: [{{name: {name}, port: 80}}]}}",)
    };
    let route = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: web, namespace: default}}\n\
         spec: {{parentRefs: [{{name: edge}}], rules: [{}, {}]}}\n---\n{}{}",
        rule("old"),
        rule("new"),
        app("old", old, ""),
        app("new", new, ", appProtocol: kubernetes.io/h2c"),
    );
    let edge = Edge::of([], &route).await;
    edge.served("/old").await;
    assert_eq!(at_old.recv().await.unwrap(), "GET /old HTTP/1.1");

    for version in [Version::HTTP_11, Version::HTTP_2] {
        let call = |path: &str| call::to(HOST, path).version(version);
        assert_eq!(edge.call(call("/old")).await.unwrap().status, StatusCode::OK);
        assert_eq!(at_old.recv().await.unwrap(), "GET /old HTTP/1.1", "{version:?}");
        // It is no server of HTTP/2, so this fails.
        edge.call(call("/new")).await.unwrap();
        assert_eq!(at_new.recv().await.unwrap(), "PRI * HTTP/2.0", "{version:?}");
    }
    let grpc = call::to(HOST, "/old").version(Version::HTTP_2).header("content-type", "application/grpc");
    edge.call(grpc).await.unwrap();
    assert_eq!(at_old.recv().await.unwrap(), "PRI * HTTP/2.0", "gRPC is HTTP/2 or nothing");
}

#[tokio::test]
async fn curl_is_served_over_both_protocols() {
    let Some(curl) = Need::Curl.program() else { return };
    let edge = before_reviews().await;
    let at = edge.at(80).await;

    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let mut command = Command::new(&curl);
        command.args(["--silent", "--show-error", "--fail", "--proxy", "", protocol]);
        command.args(["--connect-to", &format!("::{at}"), &format!("http://{HOST}/curl")]);
        let answer: reviews::Answer = serde_json::from_str(&succeeds(&mut command).await).unwrap();
        assert_eq!((answer.app.as_str(), answer.path.as_str()), ("reviews", "/curl"));
    }
}

#[tokio::test]
async fn grpc_from_outside_reaches_its_server_and_failures_are_statuses() {
    let edge = Edge::of([Spec::grpc("echo-1")], &route("GRPCRoute", "echo", 9090)).await;
    let at = edge.at(80).await;
    let client = |host: &str| {
        let origin = format!("http://{host}").parse().unwrap();
        EchoClient::new(Channel::from_shared(format!("http://{at}")).unwrap().origin(origin).connect_lazy())
    };
    let request = || EchoRequest { text: "hello".to_owned(), count: 2, ..EchoRequest::default() };

    let reply = poll(SOON, "the server answers", async || {
        client(HOST).unary(request()).await.map_err(|status| status.to_string())
    })
    .await;
    assert_eq!(reply.into_inner().text, "hello");
    let mut replies = client(HOST).server_stream(request()).await.unwrap().into_inner();
    assert!(replies.message().await.unwrap().is_some());
    let status = client("bank.example.com").unary(request()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}

#[tokio::test]
async fn a_websocket_from_outside_passes_both_ways() {
    let mut server = Spec::server("chat-1", "chat", 8080);
    server.app = AppKind::None;
    let edge = Edge::of([server], &route("HTTPRoute", "chat", 8080)).await;
    let listener = TcpListener::bind(edge.mesh.workload("chat-1").app).await.unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut socket) = accept_async(tcp).await else { continue };
            while let Some(Ok(message)) = socket.next().await {
                if message.is_text() {
                    socket.send(message).await.unwrap();
                }
            }
        }
    });

    let mut socket = poll(SOON, "a WebSocket", async || {
        let tcp = TcpStream::connect(edge.at(80).await).await.map_err(|error| error.to_string())?;
        client_async(format!("ws://{HOST}/chat"), tcp).await.map_err(|error| error.to_string())
    })
    .await
    .0;
    socket.send(Message::text("hello")).await.unwrap();

    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    serving.abort();
}

#[tokio::test]
async fn listeners_come_and_go_while_others_serve() {
    let edge = before_reviews().await;
    let first = edge.at(80).await;

    let both = format!("{}, {}", http_listener("http", 80), http_listener("alt", 8080));
    edge.mesh
        .edit("edge.yaml", |text| text.replace(&gateway(&http_listener("http", 80)), &gateway(&both)))
        .unwrap();
    let second = edge.at(8080).await;
    let answer = call::send(second, call::to(HOST, "/")).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.summary());
    let mut kept = TcpStream::connect(second).await.unwrap();
    ask(&mut kept).await;

    edge.mesh
        .edit("edge.yaml", |text| text.replace(&gateway(&both), &gateway(&http_listener("alt", 8080))))
        .unwrap();
    poll(SOON, "the port is closed", async || match TcpStream::connect(first).await {
        Ok(_) => Err("it is open"),
        Err(_) => Ok(()),
    })
    .await;
    ask(&mut kept).await;
}

/// Asks on a connection that is kept, and reads the answer.
async fn ask(stream: &mut TcpStream) {
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = vec![0; 1 << 16];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..read]));
}

#[tokio::test]
async fn a_policy_for_the_gateway_is_enforced_there() {
    let edge = before_reviews().await;
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: edge, namespace: default}\n\
                  spec: {selector: {matchLabels: {app: edge}}, action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}\n";
    edge.mesh.write("policy.yaml", policy).unwrap();

    poll(SOON, "the policy is in force", async || match edge.call(call::to(HOST, "/admin")).await?.status {
        StatusCode::FORBIDDEN => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
    assert_eq!(edge.call(call::to(HOST, "/")).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_gateway_that_is_told_to_end_finishes_what_is_in_progress() {
    let edge = before_reviews().await;
    let mut idle = TcpStream::connect(edge.at(80).await).await.unwrap();
    ask(&mut idle).await;
    let slow = async { edge.call(call::to(HOST, "/?delay=3s")).await };
    let ending = async {
        poll(SOON, "a request is in progress", async || {
            let endpoints = edge.admin("/endpoints").await.text();
            if endpoints.contains("\"in_flight\":1") { Ok(()) } else { Err(endpoints) }
        })
        .await;
        edge.process.signal(rustix::process::Signal::TERM).unwrap();
        poll(SOON, "the gateway says that it is not ready", async || {
            match edge.admin("/ready").await.status {
                StatusCode::OK => Err("ready"),
                _ => Ok(()),
            }
        })
        .await;
    };

    let (answer, ()) = tokio::join!(slow, ending);

    assert_eq!(answer.unwrap().status, StatusCode::OK);
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0, "an idle connection is closed");
    ended(&edge.process).await;
}

async fn ended(process: &Process) {
    let status = process.wait(SOON).await.unwrap();
    assert!(status.success(), "{status}");
}
