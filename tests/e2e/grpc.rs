//! gRPC where the proxy has a word of its own: deadlines, retries, and failures in gRPC's terms.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt};
use http::{Method, Version};
use selvedge_demo::{
    apps::grpc::wire::{
        EchoReply, EchoRequest,
        echo_client::EchoClient,
        echo_server::{Echo, EchoServer},
    },
    call::{self, Answer},
    workload::{AppKind, Spec},
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Request, Response, Status, Streaming,
    metadata::MetadataValue,
    transport::{Channel, Server},
};

use crate::SELVEDGE;

/// What is asked of the server, in the request's text.
const NEVER: &str = "never answer";
const FLAKY: &str = "fail the first time";
const LONG: &str = "end with long trailers";

/// How long the trailer's value is that [`LONG`] orders.
const LENGTH: usize = 8 << 10;

/// A server that keeps count.
#[derive(Debug, Clone, Default)]
struct Counting {
    calls: Arc<AtomicUsize>,
    under_way: Arc<AtomicUsize>,
}

/// A call, from its arrival until nobody waits for it any more.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counting {
    fn arrived(&self) -> (usize, UnderWay) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        (self.calls.fetch_add(1, Ordering::Relaxed), UnderWay(Arc::clone(&self.under_way)))
    }
}

type Replies = Pin<Box<dyn Stream<Item = Result<EchoReply, Status>> + Send>>;

#[tonic::async_trait]
impl Echo for Counting {
    type ServerStreamStream = Replies;
    type BidirectionalStream = Replies;

    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        let (before, _under_way) = self.arrived();
        let text = request.into_inner().text;
        match text.as_str() {
            NEVER => std::future::pending().await,
            FLAKY if before == 0 => Err(Status::unavailable("not yet")),
            _ => Ok(Response::new(EchoReply { text, ..EchoReply::default() })),
        }
    }

    async fn server_stream(&self, request: Request<EchoRequest>) -> Result<Response<Replies>, Status> {
        let (_, under_way) = self.arrived();
        let text = request.into_inner().text;
        let first = tokio_stream::iter([Ok(EchoReply { text: text.clone(), ..EchoReply::default() })]);
        let rest = async move {
            let _under_way = under_way;
            match text.as_str() {
                NEVER => std::future::pending().await,
                LONG => {
                    let mut status = Status::data_loss("with details");
                    let value = MetadataValue::try_from("x".repeat(LENGTH)).unwrap();
                    status.metadata_mut().insert("x-long", value);
                    Err(status)
                }
                _ => Err(Status::unavailable("no more")),
            }
        };
        Ok(Response::new(Box::pin(first.chain(futures_util::stream::once(rest)))))
    }

    async fn client_stream(
        &self,
        _request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<EchoReply>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn bidirectional(
        &self,
        _request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<Replies>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }
}

/// A caller, and this test as the server behind its own sidecar.
async fn served() -> (Mesh, Counting) {
    let mesh = called().await;
    let counting = Counting::default();
    let listener = TcpListener::bind(mesh.workload("echo-1").app).await.expect("the app's address is ours");
    let server = Server::builder().add_service(EchoServer::new(counting.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (mesh, counting)
}

/// The same, with nobody serving.
async fn called() -> Mesh {
    let mut server = Spec::grpc("echo-1");
    server.app = AppKind::None;
    Mesh::of(SELVEDGE, [Spec::client("caller"), server]).await
}

async fn client(mesh: &Mesh) -> EchoClient<Channel> {
    let channel = Channel::from_shared(format!("http://{}", mesh.workload("caller").outbound)).unwrap();
    EchoClient::new(channel.origin("http://echo:9090".parse().unwrap()).connect().await.unwrap())
}

fn message(text: &str) -> EchoRequest {
    EchoRequest { text: text.to_owned(), ..EchoRequest::default() }
}

/// A call by hand: gRPC's libraries end a call themselves when its time is over, and would hide who did.
async fn by_hand(mesh: &Mesh, method: &str, text: &str, timeout: &str) -> Answer {
    // Field 1 of EchoRequest, behind gRPC's own five bytes: not compressed, and the length.
    let length = u8::try_from(text.len()).unwrap();
    let mut body = vec![0, 0, 0, 0, length + 2, 0x0a, length];
    body.extend_from_slice(text.as_bytes());
    let call = call::to("echo:9090", &format!("/selvedge.demo.v1.Echo/{method}"))
        .method(Method::POST)
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .body(body);
    mesh.workload("caller").call(call).await.unwrap()
}

async fn nothing_is_under_way(counting: &Counting) {
    poll(SOON, "the server's call is cancelled", async || match counting.under_way.load(Ordering::Relaxed) {
        0 => Ok(()),
        some => Err(format!("{some} under way")),
    })
    .await;
}

#[tokio::test]
async fn a_call_ends_with_the_time_that_its_caller_gave_it() {
    let (mesh, counting) = served().await;
    let began = Instant::now();

    let answer = by_hand(&mesh, "Unary", NEVER, "300m").await;

    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!((answer.status.as_u16(), &answer.headers["grpc-status"]), (200, &"4".parse().unwrap()));
    assert_eq!(answer.headers["content-type"], "application/grpc");
    let why = answer.proxy_error().expect("the proxy's own answer");
    assert!(why.starts_with("timeout: ") && why.contains("300ms, the caller's own grpc-timeout"), "{why}");
    nothing_is_under_way(&counting).await;
    assert_eq!(counting.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_stream_ends_with_a_status_when_its_time_is_over() {
    let (mesh, counting) = served().await;

    let answer = by_hand(&mesh, "ServerStream", NEVER, "300m").await;

    assert!(answer.text().contains(NEVER), "the first message arrived");
    let trailers = answer.trailers.expect("trailers");
    assert_eq!(trailers["grpc-status"], "4");
    nothing_is_under_way(&counting).await;
}

#[tokio::test]
async fn a_call_that_is_answered_in_time_knows_nothing_of_its_limit() {
    let (mesh, _) = served().await;

    let answer = by_hand(&mesh, "Unary", "hello", "10S").await;

    assert!(answer.text().contains("hello") && answer.proxy_error().is_none());
    assert_eq!(answer.trailers.expect("trailers")["grpc-status"], "0");
}

#[tokio::test]
async fn unavailable_is_tried_again_unless_an_answer_has_begun() {
    let (mesh, counting) = served().await;
    let mut client = client(&mesh).await;

    let reply = client.unary(message(FLAKY)).await.unwrap().into_inner();

    assert_eq!(reply.text, FLAKY);
    assert_eq!(counting.calls.swap(0, Ordering::Relaxed), 2);
    poll(SOON, "the retry is counted", async || {
        let counted = mesh.workload("caller").metric("selvedge_outbound_retries_total").await;
        match counted.map_err(|error| error.to_string())? {
            Some(1.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    let mut replies = client.server_stream(message("once")).await.unwrap().into_inner();
    assert_eq!(replies.message().await.unwrap().unwrap().text, "once");
    assert_eq!(replies.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(counting.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn long_trailers_pass() {
    let (mesh, _) = served().await;

    let mut replies = client(&mesh).await.server_stream(message(LONG)).await.unwrap().into_inner();
    assert_eq!(replies.message().await.unwrap().unwrap().text, LONG);
    let status = replies.message().await.unwrap_err();

    assert_eq!((status.code(), status.message()), (Code::DataLoss, "with details"));
    assert_eq!(status.metadata().get("x-long").unwrap().len(), LENGTH);
}

#[tokio::test]
async fn a_failure_of_the_meshs_own_is_a_status_that_names_it() {
    let mesh = called().await;
    let mut client = client(&mesh).await;

    let unreachable = client.unary(message("anybody?")).await.unwrap_err();

    assert_eq!(unreachable.code(), Code::Unavailable);
    assert!(unreachable.message().starts_with("app-unreachable: "), "{}", unreachable.message());
    assert!(unreachable.metadata().get("selvedge-error").is_some());

    mesh.write(
        "virtualservice.yaml",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: echo}\nspec:\n  \
         hosts: [echo]\n  http:\n    - match: [{uri: {prefix: /elsewhere}}]\n      \
         route: [{destination: {host: echo}}]\n",
    )
    .unwrap();
    poll(SOON, "the rule is in force", async || {
        let status = client.unary(message("anybody?")).await.unwrap_err();
        let named = status.message().starts_with("no-route: ");
        if named && status.code() == Code::Unimplemented { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_is_heard_by_the_server() {
    let (mesh, counting) = served().await;
    let mut client = client(&mesh).await;
    let mut replies = client.server_stream(message(NEVER)).await.unwrap().into_inner();
    assert_eq!(replies.message().await.unwrap().unwrap().text, NEVER);
    assert_eq!(counting.under_way.load(Ordering::Relaxed), 1);

    drop(replies);

    nothing_is_under_way(&counting).await;
}

#[tokio::test]
async fn a_stream_whose_server_dies_does_not_end_well() {
    let mut mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::grpc("echo-1")]).await;
    let mut client = client(&mesh).await;
    let endless = EchoRequest { count: u32::MAX, ..message("tick") };
    let mut replies = client.server_stream(endless).await.unwrap().into_inner();
    assert_eq!(replies.message().await.unwrap().unwrap().number, 0);

    mesh.kill_app("echo-1").await.unwrap();

    let end = async {
        loop {
            match replies.message().await {
                Ok(Some(_)) => {}
                end => break end,
            }
        }
    };
    let end = tokio::time::timeout(SOON, end).await.expect("the stream ends");
    assert!(end.is_err(), "{end:?}");
}
