//! Calls in progress that a new policy forbids, although it lets their client in: they end, and no others.

use std::{
    fmt::Write as _,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use selvedge_demo::{
    apps::grpc::wire::{EchoReply, echo_client::EchoClient, echo_server::EchoServer},
    workload::{AppKind, Spec},
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{net::TcpListener, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Streaming,
    transport::{Channel, Server},
};

use crate::{
    SELVEDGE,
    long_lived::{Slow, request},
};

/// From when the sidecar has a policy, this much later no call goes on that it forbids.
const LIMIT: Duration = Duration::from_secs(1);

/// Lets in calls of these methods, and no others.
fn policy(name: &str, methods: &[&str]) -> String {
    let mut text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  selector: {{matchLabels: {{app: echo}}}}\n  rules:\n  - to: [{{operation: {{paths: ["
    );
    for method in methods {
        let _ = write!(text, "/selvedge.demo.v1.Echo/{method}, ");
    }
    text + "]}}]\n"
}

async fn replying(replies: &mut Streaming<EchoReply>) {
    let reply = timeout(SOON, replies.message()).await.expect("a reply in time");
    reply.expect("the call goes on").expect("and has not ended");
}

/// How the call ends, and when.
async fn ended(mut replies: Streaming<EchoReply>) -> (Option<Code>, Instant) {
    let ending = async {
        loop {
            match replies.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status.code()),
            }
        }
    };
    let code = timeout(SOON, ending).await.expect("it ends");
    (code, Instant::now())
}

/// When the sidecar shows that it has the policy called `name`.
async fn arrived(mesh: &Mesh, name: &str) -> Instant {
    poll(SOON, "the policy arrives", async || {
        let config =
            mesh.workload("echo-1").admin("/config").await.map_err(|error| error.to_string())?.text();
        if config.contains(&format!("default/{name}")) { Ok(Instant::now()) } else { Err(config) }
    })
    .await
}

#[tokio::test]
async fn a_call_that_a_new_policy_forbids_ends_within_a_second_and_others_on_its_connection_go_on() {
    let mut echo = Spec::grpc("echo-1").flag("--drain-timeout", "1s");
    echo.app = AppKind::None;
    let mesh = Mesh::of(SELVEDGE, [echo, Spec::client("caller")]).await;
    let listener = TcpListener::bind(mesh.workload("echo-1").app).await.expect("the address is ours");
    let slow = Slow::default();
    let called = Arc::clone(&slow.unary);
    let server = Server::builder().add_service(EchoServer::new(slow));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    mesh.write("policy.yaml", &policy("before", &["ServerStream", "Bidirectional", "Unary"]))
        .expect("a directory");
    arrived(&mesh, "before").await;
    let channel =
        Channel::from_shared(format!("http://{}", mesh.workload("caller").outbound)).expect("an address");
    let channel =
        channel.origin("http://echo:9090".parse().expect("a URI")).connect().await.expect("a sidecar");
    let client = || EchoClient::new(channel.clone());
    let mut watching = client().server_stream(request()).await.expect("a server's stream").into_inner();
    replying(&mut watching).await;
    let (say, said) = tokio::sync::mpsc::channel(1);
    let asked = client().bidirectional(tokio_stream::wrappers::ReceiverStream::new(said)).await;
    let mut both = asked.expect("a stream both ways").into_inner();
    say.send(request()).await.expect("it is open");
    replying(&mut both).await;
    // One whose answer has not begun.
    let mut own = client();
    let unary = tokio::spawn(async move { (own.unary(request()).await, Instant::now()) });
    poll(SOON, "the unary call is in progress", async || match called.load(Ordering::Relaxed) {
        0 => Err("it has not come"),
        _ => Ok(()),
    })
    .await;

    mesh.write("policy.yaml", &policy("after", &["Bidirectional"])).expect("a directory");
    let (arrived, (code, at)) = tokio::join!(arrived(&mesh, "after"), ended(watching));

    assert_eq!(code, Some(Code::PermissionDenied));
    assert!(at <= arrived + LIMIT, "{:?} after its arrival", at - arrived);
    let (answer, at) = unary.await.expect("no panic");
    assert_eq!(answer.expect_err("it is forbidden").code(), Code::PermissionDenied);
    assert!(at <= arrived + LIMIT, "{:?} after its arrival", at - arrived);
    say.send(request()).await.expect("it is open");
    replying(&mut both).await;
    let log = mesh.workload("echo-1").sidecar_process().expect("it runs").whole_log().expect("a log");
    assert!(log.contains("ended a request in progress"), "{log}");
    let denials = mesh.workload("echo-1").admin("/metrics").await.expect("an answer").text();
    assert!(denials.contains("default/after"), "{denials}");
}
