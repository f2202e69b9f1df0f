//! WebSockets of clients of HTTP/2 (RFC 8441).

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http2, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvedge_tests::{SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::SWITCHED;
use crate::raw::{APP, Around, CALLERS, within};

/// Asks for a WebSocket over HTTP/2 (RFC 8441).
pub(crate) async fn extended_connect(around: &Around, caller: &str) -> http::Response<Incoming> {
    let connection = TcpStream::connect(around.outbound(caller)).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(connection)).await.unwrap();
    tokio::spawn(connection);
    let mut asked = None;
    poll(SOON, "the sidecar's settings allow extended CONNECT", async || {
        let request = http::Request::connect(format!("http://{APP}/chat"))
            .extension(Protocol::from_static("websocket"))
            .header("sec-websocket-protocol", "superchat")
            .body(Empty::<Bytes>::new())
            .unwrap();
        asked = Some(sender.send_request(request).await.map_err(|error| format!("{error:?}"))?);
        Ok::<_, String>(())
    })
    .await;
    // As long as the answer is, so is the sender: without it, the connection would wind down.
    let mut answer = asked.expect("it was answered");
    answer.extensions_mut().insert(sender);
    answer
}

#[tokio::test]
async fn a_client_of_http2_gets_its_websocket_by_extended_connect() {
    let around = Around::new().await;
    for caller in CALLERS {
        let serve = async {
            let mut app = around.accept().await;
            let request = app.head().await;
            assert_eq!(request.first_line(), "GET /chat HTTP/1.1");
            assert_eq!(request.header("upgrade"), Some("websocket"));
            assert_eq!(request.header("sec-websocket-protocol"), Some("superchat"));
            assert_eq!(request.header("sec-websocket-version"), Some("13"));
            assert_eq!(request.header("sec-websocket-key").map(str::len), Some(24));
            app.send(SWITCHED).await;
            app
        };
        let (mut answer, mut app) = tokio::join!(extended_connect(&around, caller), serve);
        assert_eq!(answer.status(), 200, "{caller}");
        for header in ["upgrade", "connection", "sec-websocket-accept"] {
            assert_eq!(answer.headers().get(header), None);
        }
        let mut client = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());

        client.write_all(b"ping").await.unwrap();
        assert_eq!(app.exactly(4).await, "ping", "{caller}");
        app.send("pong").await;
        let mut pong = [0; 4];
        within("an answer", client.read_exact(&mut pong)).await.unwrap();
        assert_eq!(&pong, b"pong");
        client.shutdown().await.unwrap();
        assert_eq!(app.rest().await, "");
    }
}

#[tokio::test]
async fn a_client_of_http2_hears_of_an_app_that_declines() {
    let around = Around::new().await;
    for caller in CALLERS {
        for (answer, status) in [("403 Forbidden", 403), ("200 OK", 502)] {
            let serve = async {
                let mut app = around.accept().await;
                app.head().await;
                app.send(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"))
                    .await;
            };
            let (heard, ()) = tokio::join!(extended_connect(&around, caller), serve);

            assert_eq!(heard.status(), status, "{caller}");
        }
    }
}

#[tokio::test]
async fn nobody_is_given_a_tunnel_by_connect() {
    let around = Around::new().await;
    for caller in CALLERS {
        let mut client = around.client(caller).await;
        client.send(format!("CONNECT {APP} HTTP/1.1\r\nhost: {APP}\r\n\r\n")).await;

        let head = client.head().await;

        assert_eq!(head.status(), "400", "{}", head.0);
    }
}
