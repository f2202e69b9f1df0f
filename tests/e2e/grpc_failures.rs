//! What gRPC clients see when something fails, with the mesh and without it: the table in `proxy/errors.md`.
//!
//! The server is made by hand, so that it can fail in every way that there is: it does what the text of the
//! request says, `before` any answer or `after` the first message.

mod server;

use std::{collections::BTreeSet, net::SocketAddr, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::Request;
use selvedge_demo::{
    apps::grpc::wire::{EchoRequest, echo_client::EchoClient},
    workload::{AppKind, Spec},
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tonic::transport::Channel;

use crate::{
    SELVEDGE,
    foreign::{script, succeeds},
};
use server::{serve, serve_on};

/// How long any one call may take.
const LIMIT: Duration = Duration::from_secs(20);

/// The time that a call has whose server says nothing.
const DEADLINE: Duration = Duration::from_secs(1);

/// What a client sees that waits for ever.
const NOTHING: &str = "nothing";

/// What becomes of a call, in each client's word for it.
struct Row {
    /// The failure, as the server is asked for it.
    asked: &'static str,
    /// grpcio without the mesh, and with it.
    grpcio: [&'static str; 2],
    /// tonic without the mesh, and with it.
    tonic: [&'static str; 2],
}

const fn row(asked: &'static str, grpcio: [&'static str; 2], tonic: [&'static str; 2]) -> Row {
    Row { asked, grpcio, tonic }
}

/// Each holds for unary calls and for streams.
const TABLE: &[Row] = &[
    row("killed before", ["UNAVAILABLE"; 2], LOST),
    row("killed after", ["UNAVAILABLE"; 2], LOST),
    row("closed before", ["UNAVAILABLE"; 2], LOST),
    row("closed after", ["UNAVAILABLE"; 2], LOST),
    row("drained before", ["OK"; 2], ["Ok"; 2]),
    row("drained after", ["OK"; 2], ["Ok"; 2]),
    row("REFUSED_STREAM before", ["UNAVAILABLE"; 2], ["Unavailable"; 2]),
    row("REFUSED_STREAM after", ["UNAVAILABLE"; 2], ["Unavailable"; 2]),
    row("CANCEL before", ["CANCELLED"; 2], ["Cancelled"; 2]),
    row("CANCEL after", ["CANCELLED"; 2], ["Cancelled"; 2]),
    row("ENHANCE_YOUR_CALM before", ["RESOURCE_EXHAUSTED"; 2], ["ResourceExhausted"; 2]),
    row("ENHANCE_YOUR_CALM after", ["RESOURCE_EXHAUSTED"; 2], ["ResourceExhausted"; 2]),
    row("INADEQUATE_SECURITY before", ["PERMISSION_DENIED"; 2], ["PermissionDenied"; 2]),
    row("INTERNAL_ERROR before", ["INTERNAL"; 2], ["Internal"; 2]),
    row("INTERNAL_ERROR after", ["INTERNAL"; 2], ["Internal"; 2]),
    row("PROTOCOL_ERROR before", ["INTERNAL"; 2], ["Internal"; 2]),
    // tonic ends such a call itself, in its own word.
    row("silent before", ["DEADLINE_EXCEEDED"; 2], ["Cancelled"; 2]),
    // Once there are headers, tonic waits for ever. The mesh keeps the caller's deadline.
    row("silent after", ["DEADLINE_EXCEEDED"; 2], [NOTHING, "DeadlineExceeded"]),
];

/// tonic has no status of its own for a connection that it has lost. The mesh says what gRPC has for it, which is what
/// policies for retries look for.
const LOST: [&str; 2] = ["Unknown", "Unavailable"];

/// A client's and a server's sidecar, and nobody behind it.
async fn mesh(caller: Spec, mut server: Spec) -> Mesh {
    server.app = AppKind::None;
    Mesh::of(SELVEDGE, [caller, server]).await
}

/// The server itself, and the way there through the mesh.
fn ways(mesh: &Mesh) -> [SocketAddr; 2] {
    [mesh.workload("echo-1").app, mesh.workload("caller").outbound]
}

/// What grpcio says that became of a unary call and of a stream for each of `asked`, as `KIND ASKED: CODE`.
async fn grpcio(at: SocketAddr, asked: impl IntoIterator<Item = &str>) -> Option<String> {
    let mut script = script("grpc_failures.py")?;
    script.args([at.ip().to_string(), at.port().to_string(), "echo:9090".to_owned()]).args(asked);
    Some(succeeds(&mut script).await)
}

/// What tonic says that became of a unary call and of a stream.
async fn tonic(at: SocketAddr, asked: &str) -> [String; 2] {
    tonic_for("echo:9090", at, asked).await
}

/// The same of calls for `authority`.
async fn tonic_for(authority: &str, at: SocketAddr, asked: &str) -> [String; 2] {
    let limit = if asked.starts_with("silent") { DEADLINE } else { LIMIT };
    let patience = limit * 3;
    let request = || {
        let mut request =
            tonic::Request::new(EchoRequest { text: asked.to_owned(), ..EchoRequest::default() });
        request.set_timeout(limit);
        request
    };
    let unary = async {
        match client(authority, at).await?.unary(request()).await {
            Ok(_) => Ok::<_, tonic::Status>(()),
            Err(status) => Err(status),
        }
    };
    let stream = async {
        let mut replies = client(authority, at).await?.server_stream(request()).await?.into_inner();
        while replies.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    };
    let code = |ended: Result<Result<(), tonic::Status>, _>| match ended {
        Ok(Ok(())) => "Ok".to_owned(),
        Ok(Err(status)) => format!("{:?}", status.code()),
        Err(_) => NOTHING.to_owned(),
    };
    let (unary, stream) = tokio::join!(timeout(patience, unary), timeout(patience, stream));
    [code(unary), code(stream)]
}

async fn client(authority: &str, at: SocketAddr) -> Result<EchoClient<Channel>, tonic::Status> {
    let origin = format!("http://{authority}").parse().unwrap();
    let channel = Channel::from_shared(format!("http://{at}")).unwrap().origin(origin);
    let channel = channel.connect().await.map_err(|error| tonic::Status::from_error(error.into()))?;
    Ok(EchoClient::new(channel))
}

#[tokio::test]
async fn tonic_sees_the_same_failures_as_without_the_mesh() {
    let mesh = mesh(Spec::client("caller"), Spec::grpc("echo-1")).await;
    serve(mesh.workload("echo-1").app).await;
    let ways = ways(&mesh);
    let mut wrong = Vec::new();
    for Row { asked, tonic: expected, .. } in TABLE {
        for (at, expected) in ways.into_iter().zip(expected) {
            let ended = tonic(at, asked).await;
            if ended != [*expected, *expected] {
                wrong.push(format!("{asked}, {}: {ended:?}", if at == ways[0] { "direct" } else { "mesh" }));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn grpcio_sees_the_same_failures_as_without_the_mesh() {
    let mesh = mesh(Spec::client("caller"), Spec::grpc("echo-1")).await;
    serve(mesh.workload("echo-1").app).await;
    let mut wrong = Vec::new();
    for (place, at) in ways(&mesh).into_iter().enumerate() {
        let Some(said) = grpcio(at, TABLE.iter().map(|row| row.asked)).await else { return };
        let expected = TABLE.iter().flat_map(|Row { asked, grpcio, .. }| {
            ["unary", "stream"].map(|kind| format!("{kind} {asked}: {}", grpcio[place]))
        });
        for (said, expected) in said.lines().zip(expected) {
            if said != expected {
                wrong.push(format!("{} {said}", ["direct", "mesh"][place]));
            }
        }
        assert_eq!(said.lines().count(), 2 * TABLE.len(), "{said}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn an_endpoint_that_keeps_answering_that_it_is_unavailable_is_ejected() {
    let mesh = mesh(Spec::client("caller"), Spec::grpc("echo-1")).await;
    serve(mesh.workload("echo-1").app).await;
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: echo}\nspec: {host: echo, \
                trafficPolicy: {outlierDetection: {consecutive5xxErrors: 2, baseEjectionTime: 300s}}}\n";
    mesh.write("eject.yaml", rule).unwrap();
    let caller = mesh.workload("caller");
    poll(SOON, "the rule is in force", async || {
        tonic(caller.outbound, "status-5 before").await;
        let metrics = caller.admin("/metrics").await.map_err(|error| error.to_string())?.text();
        let healthy = metrics.lines().find(|line| {
            line.starts_with("selvedge_outbound_priority_endpoints_healthy") && line.ends_with(" 1.0")
        });
        healthy.map(drop).ok_or(metrics)
    })
    .await;
    let state = async || caller.admin_json("/endpoints").await.unwrap()[0].clone();

    // Nobody finds what is not there: that speaks of the call.
    for _ in 0..3 {
        assert_eq!(tonic(caller.outbound, "status-5 before").await, ["NotFound"; 2]);
    }
    assert_eq!(state().await["ejected"], false);

    assert_eq!(tonic(caller.outbound, "status-14 before").await, ["Unavailable"; 2]);
    let state = state().await;
    assert_eq!((&state["ejected"], &state["ejection"]["reason"]), (&true.into(), &"consecutive-5xx".into()));
    assert_eq!(state["ejection"]["last_failure"], "gRPC status 14");
}

#[tokio::test]
async fn nobody_at_the_endpoint_is_unavailable() {
    let mesh = mesh(Spec::client("caller"), Spec::grpc("echo-1")).await;
    for at in ways(&mesh) {
        assert_eq!(tonic(at, "anything").await, ["Unavailable"; 2], "{at}");
        if let Some(said) = grpcio(at, ["anything"]).await {
            assert_eq!(said, "unary anything: UNAVAILABLE\nstream anything: UNAVAILABLE\n", "{at}");
        }
    }
}

/// Calls of both kinds that never end by themselves, before and after their first message, by both clients. Once all are
/// under way, something `happens`. What became of them, each end once: tonic's, and grpcio's.
async fn ends(mesh: &mut Mesh, happens: impl AsyncFnOnce(&mut Mesh)) -> [BTreeSet<String>; 2] {
    let begun = serve(mesh.workload("echo-1").app).await;
    let through = mesh.workload("caller").outbound;
    let [before, after] = ENDLESS;
    let calls =
        async { tokio::join!(tonic(through, before), tonic(through, after), grpcio(through, together())) };
    let all = if script("grpc_failures.py").is_some() { 8 } else { 4 };
    let then = async {
        poll(SOON, "all calls are under way", async || match begun.load(Ordering::Relaxed) {
            some if some == all => Ok(()),
            some => Err(format!("{some} of {all}")),
        })
        .await;
        happens(mesh).await;
    };
    let ((before, after, grpcio), ()) = tokio::join!(calls, then);
    let grpcio = grpcio.unwrap_or_default();
    let grpcio = grpcio.lines().filter_map(|line| line.rsplit_once(": ")).map(|(_, code)| code.to_owned());
    [before.into_iter().chain(after).collect(), grpcio.collect()]
}

const ENDLESS: [&str; 2] = ["endless before", "endless after"];

fn together() -> impl Iterator<Item = &'static str> {
    ["--together"].into_iter().chain(ENDLESS)
}

fn only(code: &str) -> BTreeSet<String> {
    BTreeSet::from([code.to_owned()])
}

/// That grpcio, if it is there, says nothing else.
fn says_only(said: &BTreeSet<String>, code: &str) {
    assert!(said.is_empty() || *said == only(code), "{said:?}");
}

#[tokio::test]
async fn what_a_servers_sidecar_cuts_off_when_it_drains_is_unavailable() {
    let mut mesh = mesh(Spec::client("caller"), Spec::grpc("echo-1").flag("--drain-timeout", "1s")).await;

    let [tonic, grpcio] = ends(&mut mesh, async |mesh| mesh.stop_sidecar("echo-1").await.unwrap()).await;

    assert_eq!(tonic, only("Unavailable"));
    says_only(&grpcio, "UNAVAILABLE");
}

#[tokio::test]
async fn what_a_clients_own_sidecar_cuts_off_is_a_lost_connection() {
    let mut mesh = mesh(Spec::client("caller").flag("--drain-timeout", "1s"), Spec::grpc("echo-1")).await;

    let [tonic, grpcio] = ends(&mut mesh, async |mesh| mesh.stop_sidecar("caller").await.unwrap()).await;

    assert_eq!(tonic, only(LOST[0]));
    says_only(&grpcio, "UNAVAILABLE");
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_unavailable_once_its_time_is_over() {
    let caller = Spec::client("caller").flag("--ping-interval", "1s").flag("--ping-timeout", "1s");
    let mut mesh = mesh(caller, Spec::grpc("echo-1")).await;

    let [tonic, grpcio] = ends(&mut mesh, async |mesh| {
        mesh.workload("echo-1").sidecar_process().unwrap().freeze().await.unwrap();
    })
    .await;

    assert_eq!(tonic, only("Unavailable"));
    says_only(&grpcio, "UNAVAILABLE");
}

#[tokio::test]
async fn a_deadline_holds_for_what_no_document_knows_too() {
    let mesh = mesh(Spec::client("caller"), Spec::grpc("echo-1")).await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let unknown = listener.local_addr().unwrap().to_string();
    serve_on(listener);
    let through = mesh.workload("caller").outbound;

    assert_eq!(tonic_for(&unknown, through, "drained after").await, ["Ok"; 2], "it gets there");
    assert_eq!(tonic_for(&unknown, through, "silent after").await, ["DeadlineExceeded"; 2]);

    // tonic would end such a call itself.
    let (mut client, connection) =
        h2::client::handshake(TcpStream::connect(through).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://{unknown}/selvedge.Echo/Unary"));
    let request = request.header("content-type", "application/grpc").header("grpc-timeout", "300m");
    let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(Bytes::from_static(b"\0\0\0\0\x0f\x0a\x0dsilent before"), true).unwrap();
    let answer = timeout(LIMIT, answer).await.expect("it is not waited for").unwrap();
    let header = |name| answer.headers().get(name).map_or("", |value| value.to_str().unwrap());
    assert_eq!(header("grpc-status"), "4");
    assert_eq!(header("selvedge-error"), "timeout: no answer within 300ms, the caller's own grpc-timeout");
}

/// Makes the two calls again until one of them finds the room for one and keeps it. Both are refused while the call
/// before them still ends, or while another asks whether there is room.
async fn until_held(at: SocketAddr, way: &'static str) {
    loop {
        tonic(at, way).await;
    }
}

#[tokio::test]
async fn a_limit_that_is_reached_is_what_a_servers_own_limit_is() {
    let mesh = mesh(Spec::client("caller"), Spec::grpc("echo-1")).await;
    let begun = serve(mesh.workload("echo-1").app).await;
    let through = mesh.workload("caller").outbound;
    mesh.write(
        "limit.yaml",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: echo}\nspec:\n  host: echo\n  \
         trafficPolicy: {connectionPool: {http: {http2MaxRequests: 1}}}\n",
    )
    .unwrap();
    let exhausted = "ResourceExhausted";
    poll(SOON, "the limit is in force", async || {
        let ended = tonic(through, "drained before").await;
        if ended.iter().any(|one| one == exhausted) { Ok(()) } else { Err(format!("{ended:?}")) }
    })
    .await;
    let before = begun.load(Ordering::Relaxed);
    let held = tokio::spawn(until_held(through, "endless after"));
    poll(SOON, "a call is held", async || {
        let now = begun.load(Ordering::Relaxed);
        if now == before + 1 { Ok(()) } else { Err(now) }
    })
    .await;

    assert_eq!(tonic(through, "drained before").await, [exhausted; 2]);
    if let Some(said) = grpcio(through, ["drained before"]).await {
        assert_eq!(
            said,
            "unary drained before: RESOURCE_EXHAUSTED\nstream drained before: RESOURCE_EXHAUSTED\n"
        );
    }
    held.abort();

    let Some(mut server) = script("grpc_server.py") else { return };
    let direct = mesh.workload("caller").app;
    let server = server.args([direct.ip().to_string(), direct.port().to_string(), "1".to_owned()]);
    let _server = server.kill_on_drop(true).spawn().expect("it starts");
    poll(SOON, "the server listens", async || TcpStream::connect(direct).await.map(drop)).await;
    let held = tokio::spawn(until_held(direct, "never"));
    poll(SOON, "the server has no room", async || {
        let ended = tonic(direct, "anything").await;
        if ended == [exhausted; 2] { Ok(()) } else { Err(format!("{ended:?}")) }
    })
    .await;
    held.abort();
}
