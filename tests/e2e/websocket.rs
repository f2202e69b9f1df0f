//! WebSockets, and other wishes to leave HTTP/1.1, through a pair of sidecars.

mod ends;
mod over_http2;

use std::process::Stdio;

use futures_util::SinkExt;
use selvedge_tests::needs::Need;
use tokio::{net::TcpStream, process::Command};
use tokio_stream::StreamExt;
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async, client_async,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        handshake::server::{Request, Response},
    },
};

use crate::raw::{APP, Around, CALLERS, Raw, within};
pub(crate) use over_http2::extended_connect;

const HANDSHAKE: &str = "upgrade: websocket\r\nconnection: keep-alive, Upgrade\r\n\
                         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

pub(crate) const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
                        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Both ends of a WebSocket by a library that knows nothing of us.
#[expect(clippy::result_large_err, reason = "the library's signature")]
async fn opened(around: &Around, caller: &str) -> (WebSocketStream<TcpStream>, WebSocketStream<TcpStream>) {
    let mut request = format!("ws://{APP}/chat?room=1").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "superchat".parse().unwrap());
    let connection = TcpStream::connect(around.outbound(caller)).await.unwrap();
    let serve = async {
        let accepted = around.accept().await.stream;
        accept_hdr_async(accepted, |request: &Request, mut response: Response| {
            assert_eq!(request.uri(), "/chat?room=1");
            assert_eq!(request.headers()["host"], APP);
            assert!(request.headers()["x-forwarded-client-cert"].to_str().unwrap().ends_with(caller));
            let protocol = request.headers()["sec-websocket-protocol"].clone();
            response.headers_mut().insert("sec-websocket-protocol", protocol);
            Ok(response)
        })
        .await
        .unwrap()
    };
    let connect = async { client_async(request, connection).await.unwrap() };
    let ((client, answer), server) = within("a WebSocket", async { tokio::join!(connect, serve) }).await;
    assert_eq!(answer.headers()["sec-websocket-protocol"], "superchat");
    (client, server)
}

/// The request for a WebSocket.
pub(crate) fn request() -> String {
    format!("GET /chat HTTP/1.1\r\nhost: {APP}\r\n{HANDSHAKE}\r\n")
}

/// The client's end and the app's, with no library between.
pub(crate) async fn opened_raw(around: &Around, caller: &str) -> (Raw, Raw) {
    let mut client = around.client(caller).await;
    let app = handshake(around, &mut client).await;
    (client, app)
}

/// Makes `client` a WebSocket; returns the app's end.
async fn handshake(around: &Around, client: &mut Raw) -> Raw {
    client.send(request()).await;
    let mut app = around.accept().await;
    let request = app.head().await;
    assert_eq!(request.header("upgrade"), Some("websocket"));
    assert_eq!(request.header("connection"), Some("Upgrade"));
    app.send(SWITCHED).await;
    let answer = client.head().await;
    assert_eq!(answer.status(), "101", "{}", answer.0);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(answer.header("connection"), Some("Upgrade"));
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    app
}

#[tokio::test]
async fn messages_pass_both_ways_until_it_is_closed() {
    let around = Around::new().await;
    let large = Message::binary(vec![7; 1_000_000]);
    for caller in CALLERS {
        let (mut client, mut server) = opened(&around, caller).await;

        for round in 0..20 {
            let text = Message::text(round.to_string());
            client.send(text.clone()).await.unwrap();
            assert_eq!(within("a message", server.next()).await.unwrap().unwrap(), text);
            server.send(text.clone()).await.unwrap();
            assert_eq!(within("a message", client.next()).await.unwrap().unwrap(), text);
        }
        let (sent, received) = tokio::join!(client.send(large.clone()), within("bulk", server.next()));
        sent.unwrap();
        assert!(received.unwrap().unwrap() == large);
        server.close(None).await.unwrap();
        assert!(within("a close", client.next()).await.unwrap().unwrap().is_close());
        // The client's library has replied to the close by itself; the server's sees that, and ends.
        let served = async move { server.next().await };
        let (end, last) = within("the end", async { tokio::join!(client.next(), served) }).await;
        assert!(end.is_none_or(|end| end.is_err()), "nothing after the close");
        assert!(last.is_none_or(|last| last.is_ok_and(|last| last.is_close())));
    }
}

#[tokio::test]
async fn the_end_of_one_direction_leaves_the_other_open() {
    let around = Around::new().await;
    for caller in CALLERS {
        let (mut client, mut app) = opened_raw(&around, caller).await;

        client.send("the last word").await;
        client.finish().await.unwrap();
        assert_eq!(app.rest().await, "the last word", "{caller}");
        app.send("and an answer to it").await;
        drop(app);

        assert_eq!(client.rest().await, "and an answer to it", "{caller}");
    }
}

#[tokio::test]
async fn bytes_that_come_with_the_handshake_are_not_lost() {
    let around = Around::new().await;
    for caller in CALLERS {
        let (mut client, mut app) =
            around.asked(caller, format!("GET /chat HTTP/1.1\r\nhost: {APP}\r\n{HANDSHAKE}\r\nearly")).await;
        app.send(format!("{SWITCHED}at once")).await;

        assert_eq!(app.exactly(5).await, "early", "{caller}");
        assert_eq!(client.head().await.status(), "101");
        assert_eq!(client.exactly(7).await, "at once", "{caller}");
    }
}

#[tokio::test]
async fn an_app_that_declines_answers_as_usual_and_the_connection_goes_on() {
    let around = Around::new().await;
    for caller in CALLERS {
        let mut client = around.client(caller).await;
        for _ in 0..2 {
            client.send(request()).await;
            let mut app = around.accept().await;
            app.head().await;
            app.answer("not here").await;

            assert_eq!(client.head().await.status(), "200", "{caller}");
            assert_eq!(client.exactly(8).await, "not here");
        }
    }
}

#[tokio::test]
async fn any_other_protocol_is_not_taken_up_and_the_request_is_served() {
    let around = Around::new().await;
    for caller in CALLERS {
        for wish in [
            "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
            "upgrade: tcp\r\nconnection: upgrade\r\n",
            // Without the token in Connection it is no wish at all.
            "upgrade: websocket\r\n",
        ] {
            let mut client = around.client(caller).await;
            client.send(format!("GET /x HTTP/1.1\r\nhost: {APP}\r\n{wish}\r\n")).await;
            let mut app = around.accept().await;
            let request = app.head().await;
            for header in ["upgrade", "connection", "http2-settings"] {
                assert_eq!(request.header(header), None, "{}", request.0);
            }
            app.answer("as it is").await;

            assert_eq!(client.head().await.status(), "200", "{caller}");
        }
    }
}

#[tokio::test]
async fn curl_gets_its_answer_when_it_wishes_for_h2c() {
    let Some(curl) = Need::Curl.program() else { return };
    let around = Around::new().await;
    for caller in CALLERS {
        let url = format!("http://{}/x", around.outbound(caller));
        let host = format!("host: {APP}");
        let curl = Command::new(&curl)
            .args(["--http2", "-sS", "-m", "10", "-w", " %{http_code} %{http_version}", "-H", &host, &url])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut app = around.accept().await;
        app.head().await;
        app.answer("hello").await;

        let output = within("curl", curl.wait_with_output()).await.unwrap();

        assert_eq!(String::from_utf8_lossy(&output.stdout), "hello 200 1.1", "{caller}");
    }
}

#[tokio::test]
async fn an_app_that_switches_unasked_is_not_followed() {
    let around = Around::new().await;
    for caller in CALLERS {
        let (mut client, mut app) = around
            .asked(caller, format!("POST /x HTTP/1.1\r\nhost: {APP}\r\ncontent-length: 0\r\n\r\n"))
            .await;
        app.send(SWITCHED).await;

        let head = client.head().await;

        assert_eq!(head.status(), "502", "{caller}");
        assert!(head.header("selvedge-error").is_some_and(|why| why.starts_with("protocol:")), "{}", head.0);
        assert_eq!(app.rest().await, "", "and its connection is closed");
    }
}
