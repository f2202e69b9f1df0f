//! HTTP/1.1, HTTP/2 and gRPC through a pair of sidecars: what goes in comes out.

use std::time::Duration;

use http::Method;
use selvedge_demo::{
    apps::{grpc::DETAIL, grpc::wire, identity, reviews},
    call::{self, Call},
    workload::Spec,
};
use selvedge_tests::Mesh;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Request, transport::Channel};
use wire::{EchoRequest, echo_client::EchoClient};

use crate::{BOTH_VERSIONS, SELVEDGE};

const CALLER: &str = "spiffe://cluster.local/ns/default/sa/caller";

/// How long any one message may take.
const LIMIT: Duration = Duration::from_secs(10);

async fn pair() -> Mesh {
    Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::server("reviews-v1-a", "reviews", 9080)]).await
}

async fn answer(mesh: &Mesh, call: Call) -> call::Answer {
    let answer = mesh.workload("caller").call(call).await.unwrap();
    assert!(answer.proxy_error().is_none(), "{}", answer.summary());
    answer
}

#[tokio::test]
async fn either_protocol_arrives_with_the_callers_proven_identity() {
    let mesh = pair().await;

    for version in BOTH_VERSIONS {
        let request = call::to("reviews:9080", "/ratings?x=1")
            .version(version)
            .header("end-user", "jason")
            .header(identity::HEADER, "URI=spiffe://cluster.local/ns/default/sa/admin");
        let answer = answer(&mesh, request).await;

        assert_eq!((answer.status.as_u16(), answer.version), (200, version));
        let seen: reviews::Answer = answer.json().unwrap();
        assert_eq!(seen.client_identity.as_deref(), Some(CALLER), "what the client claims is stripped");
        assert_eq!(seen.path, "/ratings?x=1");
        assert_eq!(seen.headers["end-user"], "jason");
    }
}

/// What a sidecar adds to a head that its client has filled to the last byte and the last field is let in at the next one.
#[tokio::test]
async fn a_head_that_may_come_to_the_first_sidecar_may_come_to_the_second() {
    let specs = [Spec::client("caller"), Spec::reviews("reviews-v1", "v1")]
        .map(|spec| spec.flag("--max-headers", "20").flag("--max-header-bytes", "1024"));
    let mesh = Mesh::of(SELVEDGE, specs).await;
    let status = async |fields: usize, bytes: usize| {
        let mut head = "GET / HTTP/1.1\r\nhost: reviews:9080\r\nconnection: close\r\n".to_owned();
        head.push_str(&"x-a: b\r\n".repeat(fields - 3));
        let filler = "x".repeat(bytes - head.len() - "x-b: \r\n\r\n".len());
        head.push_str(&format!("x-b: {filler}\r\n\r\n"));
        let mut stream = TcpStream::connect(mesh.workload("caller").outbound).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        timeout(LIMIT, stream.read_exact(&mut status)).await.expect("it is answered in time").unwrap();
        String::from_utf8(status[9..].to_vec()).unwrap()
    };

    assert_eq!(status(20, 1_024).await, "200");
    assert_eq!(status(21, 1_000).await, "431");
    assert_eq!(status(20, 1_025).await, "431");
}

#[tokio::test]
async fn bodies_methods_and_statuses_pass_unchanged() {
    let mesh = pair().await;
    let large: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();

    for version in BOTH_VERSIONS {
        let echo = call::to("reviews:9080", "/echo").version(version).body(large.clone());
        assert!(answer(&mesh, echo).await.body == large, "{version:?}: the echo differs");

        let download = call::to("reviews:9080", "/?bytes=1000000").version(version);
        assert_eq!(answer(&mesh, download).await.body.len(), 1_000_000);

        for status in [204, 301, 404, 500] {
            let ordered = call::to("reviews:9080", &format!("/?status={status}")).version(version);
            assert_eq!(answer(&mesh, ordered).await.status, status);
        }
        for method in [Method::HEAD, Method::OPTIONS, Method::DELETE, Method::PATCH] {
            let call = call::to("reviews:9080", "/").version(version).method(method.clone());
            assert_eq!(answer(&mesh, call).await.status, 200, "{method}");
        }
    }
}

#[tokio::test]
async fn trailers_pass() {
    let mesh = pair().await;

    for version in BOTH_VERSIONS {
        let request = call::to("reviews:9080", "/trailers").version(version).header("te", "trailers");
        let answer = answer(&mesh, request).await;

        assert_eq!(answer.body, "hello");
        let trailers = answer.trailers.unwrap_or_else(|| panic!("{version:?}: no trailers"));
        assert_eq!(trailers["x-checksum"], "sha-of-hello");
    }
}

#[tokio::test]
async fn http1_between_the_sidecars_carries_the_same() {
    let specs =
        [Spec::client("caller").flag("--carrier", "http1"), Spec::server("reviews-v1-a", "reviews", 9080)];
    let mesh = Mesh::of(SELVEDGE, specs).await;

    let seen: reviews::Answer = answer(&mesh, call::to("reviews:9080", "/")).await.json().unwrap();
    let echo = answer(&mesh, call::to("reviews:9080", "/echo").body("round and round")).await;

    assert_eq!(seen.client_identity.as_deref(), Some(CALLER));
    assert_eq!(echo.body, "round and round");
}

/// A client whose requests for `echo` leave by the caller's sidecar, which finds the service by authority.
async fn echo() -> (Mesh, EchoClient<Channel>) {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::grpc("echo-1")]).await;
    let outbound = mesh.workload("caller").outbound;
    let channel = Channel::from_shared(format!("http://{outbound}")).unwrap();
    let channel = channel.origin("http://echo:9090".parse().unwrap()).timeout(LIMIT).connect().await.unwrap();
    (mesh, EchoClient::new(channel))
}

fn message(text: &str) -> EchoRequest {
    EchoRequest { text: text.to_owned(), ..EchoRequest::default() }
}

#[tokio::test]
async fn a_grpc_call_is_answered_with_the_callers_identity() {
    let (_mesh, mut echo) = echo().await;

    let reply = echo.unary(message("hello")).await.unwrap().into_inner();

    assert_eq!((reply.text.as_str(), reply.pod.as_str()), ("hello", "echo-1"));
    assert_eq!(reply.client_identity, CALLER);
}

#[tokio::test]
async fn a_grpc_failure_keeps_its_status_and_its_trailers() {
    let (_mesh, mut echo) = echo().await;

    for code in [Code::NotFound, Code::Unavailable, Code::ResourceExhausted] {
        let ordered = EchoRequest { status: u32::try_from(i32::from(code)).unwrap(), ..message("x") };
        let status = echo.unary(ordered).await.unwrap_err();

        assert_eq!((status.code(), status.message()), (code, "as ordered"));
        assert_eq!(status.metadata().get(DETAIL).unwrap(), "ordered");
    }
}

#[tokio::test]
async fn a_server_stream_ends_with_the_status_in_its_trailers() {
    let (_mesh, mut echo) = echo().await;

    let ordered = EchoRequest { count: 100, status: 13, ..message("tick") };
    let mut replies = echo.server_stream(ordered).await.unwrap().into_inner();
    for number in 0..100 {
        let reply = replies.message().await.unwrap().unwrap();
        assert_eq!((reply.number, reply.text.as_str()), (number, "tick"));
    }
    let status = replies.message().await.unwrap_err();

    assert_eq!(status.code(), Code::Internal);
    assert_eq!(status.metadata().get(DETAIL).unwrap(), "ordered");
}

#[tokio::test]
async fn a_client_stream_arrives_whole() {
    let (_mesh, mut echo) = echo().await;
    let texts: Vec<String> = (0..50).map(|n| n.to_string()).collect();

    let requests = tokio_stream::iter(texts.clone()).map(|text| message(&text));
    let reply = echo.client_stream(requests).await.unwrap().into_inner();

    assert_eq!((reply.text, reply.number), (texts.join(","), 50));
}

#[tokio::test]
async fn both_directions_of_a_stream_flow_message_by_message() {
    let (_mesh, mut echo) = echo().await;
    let (requests, receiver) = mpsc::channel(1);

    // The first message is on its way before the answer to the call is awaited: the server answers to it.
    requests.send(message("0")).await.unwrap();
    let call = echo.bidirectional(Request::new(ReceiverStream::new(receiver)));
    let mut replies = tokio::time::timeout(LIMIT, call).await.unwrap().unwrap().into_inner();
    for number in 0..20_u32 {
        let reply = tokio::time::timeout(LIMIT, replies.message()).await;
        let reply = reply.expect("each reply comes before the next request").unwrap().unwrap();
        assert_eq!((reply.number, reply.text), (number, number.to_string()));
        requests.send(message(&(number + 1).to_string())).await.unwrap();
    }
    drop(requests);

    assert_eq!(replies.message().await.unwrap().unwrap().number, 20);
    assert!(replies.message().await.unwrap().is_none());
}
