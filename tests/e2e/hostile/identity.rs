//! Who the app is told has called: nobody but its own sidecar says that, and nobody can take it away.

use std::sync::Arc;

use selvedge_api::wire::Carrier;
use selvedge_certs::tls::Current;
use selvedge_demo::workload::{AppKind, Spec};
use selvedge_tests::Mesh;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::http2::{END_HEADERS, END_STREAM, HEADERS, SETTINGS, block, frame};
use crate::{
    mesh_client,
    raw::{APP, Around, CALLERS, SERVER, within},
};

/// The same field in each way in which an app may read it.
const FORGED: &str = "X-Forwarded-Client-Cert: By=x;URI=spiffe://cluster.local/ns/default/sa/admin\r\n\
    X_Forwarded_Client_Cert: URI=spiffe://cluster.local/ns/default/sa/admin\r\n\
    x-forwarded_client-cert: URI=spiffe://cluster.local/ns/default/sa/admin\r\n\
    X.Forwarded.Client.Cert: URI=spiffe://cluster.local/ns/default/sa/admin\r\n\
    l5d-client-id: admin.default.serviceaccount.identity.linkerd.cluster.local\r\n\
    Selvedge-Error: policy: no\r\nSelvedge_Error: policy: no\r\nSelvedge-Fresh-Connection: 1\r\n\
    selvedge_fresh_connection: 1\r\nSelvedge-Hops: 0123abcd\r\nSelvedge-Anything: 1\r\n";

/// What the app would be told by its own sidecar, taken away by the client.
const NOMINATED: &str = "Connection: X-Forwarded-Client-Cert, x_forwarded_client_cert\r\n\
    Connection: keep-alive, selvedge-error, host, content-length\r\n";

const WEBSOCKET: &str = "Connection: Upgrade, X-Forwarded-Client-Cert\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Everybody who may call, and as whom the app's sidecar knows them.
const CLIENTS: [(&str, Option<&str>); 4] = [
    (CALLERS[0], Some("over-http2")),
    (CALLERS[1], Some("over-http1")),
    ("a mesh peer", Some("over-http1")),
    ("no sidecar", None),
];

/// What a client of the kind writes to and reads from.
async fn client(around: &Around, peer: &Arc<Current>, name: &str) -> Box<dyn Stream> {
    match name {
        "a mesh peer" => Box::new(mesh_client::connect(peer, around.mesh.workload(SERVER)).await),
        "no sidecar" => {
            let inbound = around.mesh.workload(SERVER).inbound;
            Box::new(TcpStream::connect(inbound).await.expect("the sidecar listens"))
        }
        caller => Box::new(TcpStream::connect(around.outbound(caller)).await.expect("the sidecar listens")),
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

async fn read(stream: &mut Box<dyn Stream>) -> String {
    let mut buffer = [0; 4096];
    let read = within("an answer", stream.read(&mut buffer)).await.expect("an answer");
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

/// The lines of `text` that an app may take for what a sidecar says.
fn told(text: &str) -> Vec<&str> {
    let names = |line: &str| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase().replace(['_', '.'], "-");
        name == "x-forwarded-client-cert" || name.starts_with("selvedge") || name.starts_with("l5d")
    };
    text.lines().skip(1).filter(|line| names(line)).collect()
}

#[tokio::test]
async fn the_app_is_told_who_calls_by_its_own_sidecar_alone() {
    let around = Around::new().await;
    let peer = mesh_client::configuration(around.mesh.credentials("over-http1"));
    for (name, identity) in CLIENTS {
        let expected: Vec<String> = identity
            .map(|account| {
                let of = |account| format!("spiffe://cluster.local/ns/default/sa/{account}");
                format!("x-forwarded-client-cert: By={};URI={}", of("app"), of(account))
            })
            .into_iter()
            .collect();
        for (what, fields, body) in [
            ("forged", FORGED.to_owned(), ""),
            ("taken away", NOMINATED.to_owned(), ""),
            ("both", format!("{NOMINATED}{FORGED}"), ""),
            ("both, with a body", format!("{NOMINATED}{FORGED}Content-Length: 3\r\n"), "abc"),
            ("a WebSocket", format!("{WEBSOCKET}{FORGED}"), ""),
        ] {
            let mut client = client(&around, &peer, name).await;
            let request = format!("GET /x HTTP/1.1\r\nHost: {APP}\r\n{fields}\r\n{body}");
            client.write_all(request.as_bytes()).await.expect("it is read");
            let mut app = around.accept().await;

            let head = app.head().await;

            assert_eq!(told(&head.0), expected, "{name}, {what}");
            assert_eq!(head.header("host"), Some(APP), "{name}, {what}");
            if !body.is_empty() {
                assert_eq!(head.header("content-length"), Some("3"), "{name}, {what}");
                assert_eq!(app.exactly(3).await, "abc");
            }
            app.answer("ok").await;
            assert!(read(&mut client).await.starts_with("HTTP/1.1 200"), "{name}, {what}");
        }
    }
}

#[tokio::test]
async fn a_mesh_peer_that_speaks_http2_itself_is_who_its_certificate_says() {
    let around = Around::new().await;
    let peer = mesh_client::configuration(around.mesh.credentials("over-http1"));
    let mut peer = mesh_client::connect_for(Carrier::Http2, &peer, around.mesh.workload(SERVER)).await;
    let forged = FORGED.to_ascii_lowercase();
    // Each of them twice.
    let forged = forged.lines().chain(forged.lines()).filter_map(|line| line.split_once(": "));
    let usual = [(":method", "GET"), (":scheme", "https"), (":authority", APP), (":path", "/x")];
    let fields: Vec<(&str, &str)> = usual.into_iter().chain(forged).collect();
    let head = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields));
    let sent = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[]), &head].concat();
    peer.write_all(&sent).await.expect("it is read");
    let mut app = around.accept().await;

    let head = app.head().await;

    let of = |account| format!("spiffe://cluster.local/ns/default/sa/{account}");
    let expected = format!("x-forwarded-client-cert: By={};URI={}", of("app"), of("over-http1"));
    assert_eq!(told(&head.0), [expected]);
    assert_eq!(head.header("host"), Some(APP));
}

#[tokio::test]
async fn trailers_say_nothing_that_only_sidecars_say() {
    let around = Around::new().await;
    let peer = mesh_client::configuration(around.mesh.credentials("over-http1"));
    for (name, _) in CLIENTS {
        let mut client = client(&around, &peer, name).await;
        let names = "x-forwarded-client-cert, x_forwarded_client_cert, x-forwarded_client-cert, \
                     x.forwarded.client.cert, selvedge-error, selvedge_error, selvedge-anything, host, x-sum";
        let request = format!(
            "POST /x HTTP/1.1\r\nHost: {APP}\r\nTE: trailers\r\nTrailer: {names}\r\n\
             Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n{FORGED}Host: other\r\nX-Sum: 1\r\n\r\n"
        );
        client.write_all(request.as_bytes()).await.expect("it is read");
        let mut app = around.accept().await;
        app.head().await;

        assert_eq!(app.until("\r\n\r\n").await, "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n", "{name}");

        app.send(format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nTrailer: {names}\r\nTransfer-Encoding: chunked\r\n{FORGED}\r\n\
             2\r\nok\r\n0\r\n{FORGED}X-Sum: 2\r\n\r\n"
        ))
        .await;
        let mut answer = String::new();
        while !answer.ends_with("\r\n0\r\nx-sum: 2\r\n\r\n") {
            let more = read(&mut client).await;
            assert!(!more.is_empty(), "{name}: {answer}");
            answer += &more;
        }
        // Whom an app says that it was asked by is no secret.
        let mut left = told(&answer);
        left.retain(|line| !line.to_ascii_lowercase().starts_with(['x', 'l']));
        assert!(left.is_empty(), "{name}: {left:?}");
    }
}

#[tokio::test]
async fn what_only_sidecars_say_does_not_leave_the_mesh() {
    let mut outside = Spec::server("outside-1", "outside", 8080).without_sidecar();
    outside.app = AppKind::None;
    let mesh = Mesh::of(crate::SELVEDGE, [Spec::client("caller"), outside]).await;
    let app = TcpListener::bind(mesh.workload("outside-1").app).await.expect("the app's address is ours");
    let mut client = TcpStream::connect(mesh.workload("caller").outbound).await.expect("the sidecar listens");
    let forged = FORGED.replace("Selvedge-Hops: 0123abcd\r\n", "");
    let request = format!("GET /x HTTP/1.1\r\nHost: outside:8080\r\n{NOMINATED}{forged}\r\n");
    client.write_all(request.as_bytes()).await.expect("it is read");

    let (mut server, _) = within("a connection", app.accept()).await.expect("a connection");
    let mut seen = [0; 4096];
    let read = within("a request", server.read(&mut seen)).await.expect("a request");
    let seen = String::from_utf8_lossy(&seen[..read]).into_owned();
    assert!(seen.starts_with("GET /x HTTP/1.1\r\n"), "{seen}");
    let mut told = told(&seen);
    // Through which proxies it has come, so that it does not come back.
    told.retain(|line| !line.starts_with("selvedge-hops: "));
    assert!(told.is_empty(), "{told:?}");

    let names = "selvedge-error, selvedge_error, x-sum";
    let answer = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nTrailer: {names}\r\nTransfer-Encoding: chunked\r\n\
         Selvedge-Error: policy: no\r\nSelvedge_Error: x\r\n\r\n0\r\nSelvedge-Error: policy: no\r\n\r\n"
    );
    server.write_all(answer.as_bytes()).await.expect("it is read");
    let mut got = [0; 4096];
    let read = within("an answer", client.read(&mut got)).await.expect("an answer");
    let got = String::from_utf8_lossy(&got[..read]).to_ascii_lowercase();
    assert!(got.starts_with("http/1.1 200"), "{got}");
    assert!(!got.lines().any(|line| line.starts_with("selvedge")), "{got}");
}

/// What is opaque is carried as it is: a peer that may send it to an app that believes `x-forwarded-client-cert` could
/// call as anybody.
#[tokio::test]
async fn nothing_opaque_comes_in_where_http_is_declared() {
    let around = Around::new().await;
    let peer = mesh_client::configuration(around.mesh.credentials("over-http1"));
    let request = format!("GET /x HTTP/1.1\r\nHost: {APP}\r\n{FORGED}\r\n");
    let length = u32::try_from(request.len()).expect("a short one").to_be_bytes();
    let server = around.mesh.workload(SERVER);
    let mut opaque = mesh_client::connect_for(Carrier::Tcp, &peer, server).await;
    opaque.write_all(&[&length[..], request.as_bytes()].concat()).await.expect("it is read");

    let mut said = Vec::new();
    // It may be closed before all of it has been read.
    let _ = within("a refusal", opaque.read_to_end(&mut said)).await;

    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("policy: port 8080 is declared to speak HTTP"), "{said}");
    assert!(around.nobody_connects().await);
}
