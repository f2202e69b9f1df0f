//! What filters do to callers of gRPC.

use selvedge_demo::{
    apps::grpc::wire::{EchoRequest, echo_client::EchoClient},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, poll};
use tonic::{Code, Status, transport::Channel};

use crate::SELVEDGE;

/// Rules of `echo`, by the text of a header.
const ECHO: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: echo}
spec:
  hosts: [echo]
  http:
  - match: [{headers: {x-case: {exact: grpc-abort}}}]
    fault: {abort: {grpcStatus: RESOURCE_EXHAUSTED, percentage: {value: 100}}}
    route: [{destination: {host: echo}}]
  - match: [{headers: {x-case: {exact: http-abort}}}]
    fault: {abort: {httpStatus: 403, percentage: {value: 100}}}
    route: [{destination: {host: echo}}]
  - match: [{headers: {x-case: {exact: direct}}}]
    directResponse: {status: 404, body: {string: not here}}
  - match: [{headers: {x-case: {exact: rewrite}}}]
    rewrite: {authority: other.example}
    headers: {response: {set: {x-rule: rewritten}}}
    route: [{destination: {host: echo}}]
  - route: [{destination: {host: echo}}]
"#;

async fn echo(mesh: &Mesh, case: &str) -> Result<tonic::Response<String>, Status> {
    let channel = Channel::from_shared(format!("http://{}", mesh.workload("caller").outbound)).unwrap();
    let channel = channel.origin("http://echo:9090".parse().unwrap()).connect().await.unwrap();
    let mut request = tonic::Request::new(EchoRequest { text: case.to_owned(), ..EchoRequest::default() });
    request.metadata_mut().insert("x-case", case.parse().unwrap());
    let answer = EchoClient::new(channel).unary(request).await?;
    Ok(answer.map(|reply| reply.text))
}

#[tokio::test]
async fn grpc_callers_are_answered_in_grpcs_words() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::grpc("echo-1")]).await;
    mesh.write("echo.yaml", ECHO).unwrap();
    poll(SOON, "the routes are in force", async || match echo(&mesh, "direct").await {
        Err(status) if status.code() == Code::Unimplemented => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    let aborted = echo(&mesh, "grpc-abort").await.unwrap_err();
    assert_eq!(aborted.code(), Code::ResourceExhausted);
    assert!(aborted.message().starts_with("fault: "), "{aborted:?}");
    assert_eq!(echo(&mesh, "http-abort").await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(echo(&mesh, "direct").await.unwrap_err().message(), "not here");
    let rewritten = echo(&mesh, "rewrite").await.unwrap();
    assert_eq!(rewritten.metadata().get("x-rule").unwrap(), "rewritten");
    assert_eq!(rewritten.get_ref(), "rewrite");
}
