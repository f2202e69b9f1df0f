//! What is in progress for long, under certificates that end much sooner: it goes on, and ends when its peer is no
//! longer allowed or by a limit that somebody set, which is said.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt, future::join_all};
use hyper_util::rt::TokioIo;
use selvedge_demo::{
    apps::grpc::wire::{
        EchoReply, EchoRequest,
        echo_client::EchoClient,
        echo_server::{Echo, EchoServer},
    },
    workload::{AppKind, Spec},
};
use selvedge_tests::{SOON, policies::peer_authentication, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Instant, interval, sleep, timeout},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Server},
};

use crate::{
    raw::{APP, Around, CALLERS, Raw, SERVER, within},
    websocket::{extended_connect, opened_raw},
};

/// How long certificates live.
const CERTIFICATE: &str = "6s";

/// How long everything is in progress: certificates are renewed several times, and the first end.
const LONG: Duration = Duration::from_secs(16);

/// What is sent again and again, and how often.
const WORD: &str = "tick";
const PAUSE: Duration = Duration::from_millis(250);

const CHUNK: &str = "4\r\ntick\r\n";

/// Sends `bytes` from one end, and has the other get [`WORD`], as long as everything lasts.
async fn goes_on(what: String, mut from: Raw, bytes: &str, mut to: Raw) {
    let until = Instant::now() + LONG;
    let mut rounds = interval(PAUSE);
    while Instant::now() < until {
        rounds.tick().await;
        from.send(bytes).await;
        timeout(SOON, to.until(WORD)).await.unwrap_or_else(|_| panic!("{what}: nothing came"));
    }
}

/// An answer that does not end, and the app that sends it.
async fn answering(around: &Around, mut client: Raw) -> (Raw, Raw) {
    client.send(format!("GET /watch HTTP/1.1\r\nhost: {APP}\r\naccept: text/event-stream\r\n\r\n")).await;
    let mut app = around.accept().await;
    app.head().await;
    app.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    app.send(CHUNK).await;
    assert_eq!(client.head().await.status(), "200");
    within("the first word", client.until(WORD)).await;
    (client, app)
}

/// A body that does not end.
async fn uploading(around: &Around, mut client: Raw) -> (Raw, Raw) {
    client
        .send(format!("POST /log HTTP/1.1\r\nhost: {APP}\r\ntransfer-encoding: chunked\r\n\r\n{CHUNK}"))
        .await;
    let mut app = around.accept().await;
    app.head().await;
    within("the first word", app.until(WORD)).await;
    (client, app)
}

async fn extended_connect_goes_on(around: &Around, caller: &str) -> impl Future<Output = ()> + use<> {
    let serve = async {
        let mut app = around.accept().await;
        app.head().await;
        app.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n")
            .await;
        app
    };
    let (mut answer, mut app) = tokio::join!(extended_connect(around, caller), serve);
    let mut client = TokioIo::new(hyper::upgrade::on(&mut answer).await.expect("an upgrade"));
    async move {
        let until = Instant::now() + LONG;
        let mut rounds = interval(PAUSE);
        while Instant::now() < until {
            rounds.tick().await;
            client.write_all(WORD.as_bytes()).await.expect("it goes on");
            app.until(WORD).await;
            app.send(WORD).await;
            let mut word = [0; WORD.len()];
            within("an answer", client.read_exact(&mut word)).await.expect("it goes on");
        }
        drop(answer);
    }
}

/// A server whose calls last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slow {
    /// How many unary calls have come.
    pub(crate) unary: Arc<AtomicUsize>,
}

type Replies = Pin<Box<dyn Stream<Item = Result<EchoReply, Status>> + Send>>;

fn reply() -> EchoReply {
    EchoReply { text: WORD.to_owned(), ..EchoReply::default() }
}

pub(crate) fn request() -> EchoRequest {
    EchoRequest { text: WORD.to_owned(), ..EchoRequest::default() }
}

fn ticks() -> impl Stream<Item = ()> + Send {
    let until = Instant::now() + LONG;
    let rounds = futures_util::stream::unfold(interval(PAUSE), |mut rounds| async move {
        rounds.tick().await;
        Some(((), rounds))
    });
    rounds.take_while(move |()| std::future::ready(Instant::now() < until))
}

#[tonic::async_trait]
impl Echo for Slow {
    type ServerStreamStream = Replies;
    type BidirectionalStream = Replies;

    async fn unary(&self, _: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        self.unary.fetch_add(1, Ordering::Relaxed);
        sleep(LONG).await;
        Ok(Response::new(reply()))
    }

    async fn server_stream(&self, _: Request<EchoRequest>) -> Result<Response<Replies>, Status> {
        Ok(Response::new(Box::pin(ticks().map(|()| Ok(reply())))))
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<EchoReply>, Status> {
        let mut requests = request.into_inner();
        while requests.message().await?.is_some() {}
        Ok(Response::new(reply()))
    }

    async fn bidirectional(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<Replies>, Status> {
        Ok(Response::new(Box::pin(request.into_inner().map(|request| request.map(|_| reply())))))
    }
}

/// All kinds of calls at once; none may fail.
async fn calls_go_on(around: &Around, caller: &str) {
    let channel = Channel::from_shared(format!("http://{}", around.outbound(caller))).expect("an address");
    let channel =
        channel.origin("http://echo:9090".parse().expect("a URI")).connect().await.expect("a sidecar");
    let client = || EchoClient::new(channel.clone());
    let unary = async { drop(client().unary(request()).await.expect("a unary call")) };
    let server = async {
        let mut replies = client().server_stream(request()).await.expect("a server's stream").into_inner();
        let mut count = 0;
        while replies.message().await.expect("a server's stream goes on").is_some() {
            count += 1;
        }
        assert!(count > 10, "{count}");
    };
    let sending = async {
        drop(client().client_stream(ticks().map(|()| request())).await.expect("a client's stream"));
    };
    let both = async {
        let asked = client().bidirectional(ticks().map(|()| request())).await;
        let mut replies = asked.expect("a stream both ways").into_inner();
        let mut count = 0;
        while replies.message().await.expect("a stream both ways goes on").is_some() {
            count += 1;
        }
        assert!(count > 10, "{count}");
    };
    tokio::join!(unary, server, sending, both);
}

/// How often the sidecar of `workload` has had a new certificate.
fn certificates(around: &Around, workload: &str) -> usize {
    let sidecar = around.mesh.workload(workload).sidecar_process().expect("it runs");
    sidecar.whole_log().expect("a log").matches("certificate in use").count()
}

async fn counted(around: &Around, workload: &str, line: &str) {
    poll(SOON, line, async || {
        let metrics =
            around.mesh.workload(workload).admin("/metrics").await.map_err(|error| error.to_string())?.text();
        if metrics.lines().any(|found| found == line) { Ok(()) } else { Err(metrics) }
    })
    .await;
}

async fn told(around: &Around, workload: &str, words: &[&str]) {
    let sidecar = around.mesh.workload(workload).sidecar_process().expect("it runs");
    poll(SOON, &format!("the log of {workload} says {words:?}"), async || {
        let log = sidecar.whole_log().map_err(|error| error.to_string())?;
        let says = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        if says { Ok(()) } else { Err(log) }
    })
    .await;
}

#[tokio::test]
async fn what_is_in_progress_outlives_certificates_whatever_it_is() {
    let mut around = Around::with(&[("--certificate-ttl", CERTIFICATE)]).await;
    around.mesh.service("echo", 9090);
    let mut echo = Spec::grpc("echo-1").flag("--certificate-ttl", CERTIFICATE).flag("--drain-timeout", "1s");
    echo.app = AppKind::None;
    around.mesh.add([echo]).await.expect("a workload");
    let listener = TcpListener::bind(around.mesh.workload("echo-1").app).await.expect("the address is ours");
    let server = Server::builder().add_service(EchoServer::new(Slow::default()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    let mut all: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    for caller in CALLERS {
        let (client, app) = answering(&around, around.client(caller).await).await;
        all.push(Box::pin(goes_on(format!("an answer {caller}"), app, CHUNK, client)));
        let (client, app) = uploading(&around, around.client(caller).await).await;
        all.push(Box::pin(goes_on(format!("a body {caller}"), client, CHUNK, app)));
        let (client, app) = opened_raw(&around, caller).await;
        all.push(Box::pin(goes_on(format!("a WebSocket {caller}"), client, WORD, app)));
        let (client, app) = opened_raw(&around, caller).await;
        all.push(Box::pin(goes_on(format!("a WebSocket's answers {caller}"), app, WORD, client)));
        all.push(Box::pin(extended_connect_goes_on(&around, caller).await));
        all.push(Box::pin(calls_go_on(&around, caller)));
    }
    let (client, app) = answering(&around, around.plain_client().await).await;
    all.push(Box::pin(goes_on("a plain client's answer".to_owned(), app, CHUNK, client)));
    let before = [CALLERS[0], CALLERS[1], SERVER].map(|workload| certificates(&around, workload));

    join_all(all).await;

    for (workload, before) in [CALLERS[0], CALLERS[1], SERVER].into_iter().zip(before) {
        let now = certificates(&around, workload);
        assert!(now >= before + 2, "{workload}: its certificate was renewed only {} times", now - before);
    }
}

#[tokio::test]
async fn a_policy_that_forbids_a_client_ends_its_requests_in_progress_and_answers_its_next() {
    let around = Around::new().await;
    let (mut watching, mut app) = answering(&around, around.plain_client().await).await;
    let mut idle = around.plain_client().await;
    idle.send(format!("GET / HTTP/1.1\r\nhost: {APP}\r\n\r\n")).await;
    let mut its = around.accept().await;
    its.head().await;
    its.answer("hello").await;
    assert_eq!(idle.head().await.status(), "200");
    idle.exactly(5).await;
    let (of_the_mesh, its_app) = answering(&around, around.client(CALLERS[0]).await).await;

    let strict = peer_authentication(Some("app"), "STRICT");
    around.mesh.write("policy.yaml", &strict).expect("a writable directory");

    assert_eq!((watching.rest().await, app.rest().await), ("\r\n".to_owned(), String::new()));
    idle.send(format!("GET / HTTP/1.1\r\nhost: {APP}\r\n\r\n")).await;
    assert_eq!(idle.head().await.status(), "403");
    counted(&around, SERVER, "selvedge_inbound_connections_cut_total{reason=\"policy\"} 1").await;
    told(&around, SERVER, &["ended a connection with requests in progress", "age=", "policy:"]).await;
    ended(&around, SERVER, "selvedge_inbound_requests_total", "200", "policy").await;
    let (mut of_the_mesh, mut its_app) = (of_the_mesh, its_app);
    its_app.send(CHUNK).await;
    of_the_mesh.until(WORD).await;
}

#[tokio::test]
async fn what_is_in_progress_ends_at_the_age_that_is_set_and_that_is_said() {
    let around = Around::with(&[("--max-connection-age", "3s")]).await;
    let began = Instant::now();
    for caller in CALLERS {
        let (mut client, _app) = answering(&around, around.client(caller).await).await;
        let (mut websocket, _its_app) = opened_raw(&around, caller).await;

        client.rest().await;
        websocket.rest().await;

        assert!(began.elapsed() > Duration::from_millis(2500));
        let name = "selvedge_outbound_connections_cut_total{reason=\"timeout\"} 2";
        counted(&around, caller, name).await;
        told(&around, caller, &["ended a WebSocket in progress", "--max-connection-age"]).await;
        told(&around, caller, &["ended a connection with requests in progress", "--max-connection-age"])
            .await;
        for status in ["101", "200"] {
            ended(&around, caller, "selvedge_outbound_requests_total", status, "timeout").await;
        }
    }
}

/// `metric` of `workload` has requests with this status that have ended for this reason, and none that say `reset`.
async fn ended(around: &Around, workload: &str, metric: &str, status: &str, reason: &str) {
    let labels = [
        format!("{metric}{{"),
        format!("http_response_status_code=\"{status}\""),
        format!("error_type=\"{reason}\""),
    ];
    poll(SOON, &format!("{workload} counts {labels:?}"), async || {
        let metrics = around.mesh.workload(workload).admin("/metrics").await;
        let metrics = metrics.map_err(|error| error.to_string())?.text();
        assert!(
            !metrics.lines().any(|line| line.starts_with(metric) && line.contains("\"reset\"")),
            "{metrics}"
        );
        let is_counted = |line: &str| labels.iter().all(|one| line.contains(one.as_str()));
        if metrics.lines().any(is_counted) { Ok(()) } else { Err(metrics) }
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_its_rule_ends_is_counted_by_why_and_not_as_reset() {
    let around = Around::new().await;
    let rule = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: app}\nspec:\n  \
                hosts: [app]\n  http:\n    - route: [{destination: {host: app}}]\n      timeout: 1s\n";
    around.mesh.write("rule.yaml", rule).expect("a writable directory");
    for caller in CALLERS {
        poll(SOON, "the rule is in force", async || {
            let mut client = around.client(caller).await;
            client.send(format!("GET /slow HTTP/1.1\r\nhost: {APP}\r\n\r\n")).await;
            let mut app = around.accept().await;
            app.head().await;
            app.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ntick\r\n").await;
            match timeout(Duration::from_secs(3), client.rest()).await {
                Ok(_) => {
                    // If it ended its own connection before, that would be why.
                    app.rest().await;
                    Ok(())
                }
                Err(_) => {
                    // It comes to its end: nothing of this round is a failure.
                    app.send("0\r\n\r\n").await;
                    client.until("0\r\n\r\n").await;
                    Err("the answer goes on".to_owned())
                }
            }
        })
        .await;

        ended(&around, caller, "selvedge_outbound_requests_total", "200", "timeout").await;
    }
    // To the server's sidecar it is its client who leaves.
    ended(&around, SERVER, "selvedge_inbound_requests_total", "200", "canceled").await;
}
