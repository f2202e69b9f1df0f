//! Which answers of gRPC are tried again: those that end without a message, wherever they say their status.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Method, Response, Version};
use selvedge_demo::{
    call::{self, Answer},
    workload::{AppKind, Spec},
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::net::{TcpListener, TcpStream};

use crate::SELVEDGE;

/// One service whose annotation asks for retries, and one whose `VirtualService` does.
const DOCUMENTS: &str = r#"
apiVersion: v1
kind: Service
metadata:
  name: annotated
  annotations: {retry.linkerd.io/grpc: unavailable}
spec: {selector: {app: stub}, ports: [{name: grpc, port: 80, targetPort: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: routed}
spec: {selector: {app: stub}, ports: [{name: grpc, port: 80, targetPort: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: routed}
spec:
  hosts: [routed]
  http: [{retries: {attempts: 1, retryOn: unavailable}, route: [{destination: {host: routed}}]}]
"#;

/// gRPC's UNAVAILABLE.
const UNAVAILABLE: u8 = 14;

fn status(code: u8) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from(u16::from(code)))])
}

/// Answers the first request of all as its path says, the others well.
fn answer(path: &str, is_first: bool, mut respond: SendResponse<Bytes>) {
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    if is_first && path == "/stub.Stub/Headers" {
        head.headers_mut().extend(status(UNAVAILABLE));
        respond.send_response(head, true).expect("the request is open");
        return;
    }
    let mut body = respond.send_response(head, false).expect("the request is open");
    if !is_first || path == "/stub.Stub/Message" {
        body.send_data(Bytes::from_static(b"\0\0\0\0\0"), false).expect("the answer is open");
    }
    let code = if is_first && path != "/stub.Stub/Good" { UNAVAILABLE } else { 0 };
    body.send_trailers(status(code)).expect("the answer is open");
}

async fn serve(address: SocketAddr) -> Arc<AtomicUsize> {
    let seen = Arc::<AtomicUsize>::default();
    let (listener, counted) =
        (TcpListener::bind(address).await.expect("the address is ours"), Arc::clone(&seen));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(connection(tcp, Arc::clone(&counted)));
        }
    });
    seen
}

async fn connection(tcp: TcpStream, seen: Arc<AtomicUsize>) {
    let Ok(mut connection) = h2::server::handshake(tcp).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let is_first = seen.fetch_add(1, Ordering::SeqCst) == 0;
        answer(request.uri().path(), is_first, respond);
    }
}

async fn mesh() -> (Mesh, Arc<AtomicUsize>) {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write("documents.yaml", DOCUMENTS).unwrap();
    mesh.start_control_plane().await.unwrap();
    let server = Spec { app: AppKind::None, ..Spec::server("stub-1", "stub", 9080) };
    mesh.add([Spec::client("caller"), server]).await.unwrap();
    let seen = serve(mesh.workload("stub-1").app).await;
    poll(SOON, "the server answers", async || {
        let answer = ask(&mesh, "annotated", "Good").await?;
        if grpc_status(&answer) == Some("0") { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
    (mesh, seen)
}

async fn ask(mesh: &Mesh, service: &str, method: &str) -> Result<Answer, String> {
    let call =
        call::to(service, &format!("/stub.Stub/{method}")).method(Method::POST).version(Version::HTTP_2);
    let call = call.header("content-type", "application/grpc").header("te", "trailers");
    mesh.workload("caller").call(call).await.map_err(|error| error.to_string())
}

/// The status of an answer of gRPC, in its trailers or its headers.
fn grpc_status(answer: &Answer) -> Option<&str> {
    let in_trailers = answer.trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
    in_trailers.or(answer.headers.get("grpc-status"))?.to_str().ok()
}

#[tokio::test]
async fn an_answer_of_grpc_without_a_message_is_tried_again_wherever_it_says_its_status() {
    let (mesh, seen) = mesh().await;

    for service in ["annotated", "routed"] {
        for (method, status, requests) in
            [("Headers", "0", 2), ("Trailers", "0", 2), ("Message", "14", 1), ("Good", "0", 1)]
        {
            seen.store(0, Ordering::SeqCst);
            let answer = ask(&mesh, service, method).await.unwrap();

            assert_eq!(grpc_status(&answer), Some(status), "{service} {method}: {answer:?}");
            assert_eq!(seen.load(Ordering::SeqCst), requests, "{service} {method}");
        }
    }
}
