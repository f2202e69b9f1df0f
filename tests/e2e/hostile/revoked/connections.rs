//! Connections of every kind that a client has open.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvedge_api::{preamble, wire::Carrier};
use selvedge_certs::tls::Current;
use tokio::io::AsyncWriteExt;

use super::{Peer, STREAM, is_closed, read_until};
use crate::{
    mesh_client::{self, END, frame},
    raw::{APP, Around, Raw, SERVER, within},
    websocket::{self, SWITCHED},
};

/// A mesh peer's connections of every kind, each in use.
pub(super) struct Connections {
    pub(super) idle: Peer,
    pub(super) answering: Peer,
    pub(super) websocket: Peer,
    pub(super) opaque: Peer,
    pub(super) kept: Peer,
    pub(super) stream: hyper::body::Incoming,
    /// The app's ends of what is in progress.
    pub(super) app: Vec<(&'static str, Raw)>,
}

impl Connections {
    pub(super) async fn open(around: &Around, caller: &Current) -> Self {
        // Of every kind on one port.
        around.mesh.undeclare("app", 8080, SERVER).await;
        let server = around.mesh.workload(SERVER);
        let connect = async |carrier| mesh_client::connect_for(carrier, caller, server).await;
        let mut app = Vec::new();

        let mut idle = connect(Carrier::Http1).await;
        idle.write_all(b"GET / HTTP/1.1\r\nhost: app:8080\r\n\r\n").await.unwrap();
        let mut end = around.accept().await;
        end.head().await;
        end.answer("done").await;
        read_until(&mut idle, b"done").await;

        let mut answering = connect(Carrier::Http1).await;
        answering.write_all(b"GET / HTTP/1.1\r\nhost: app:8080\r\n\r\n").await.unwrap();
        let mut end = around.accept().await;
        end.head().await;
        end.send(STREAM).await;
        read_until(&mut answering, b"one").await;
        app.push(("an answer in progress", end));

        let mut websocket = connect(Carrier::Http1).await;
        websocket.write_all(websocket::request().as_bytes()).await.unwrap();
        let mut end = around.accept().await;
        end.head().await;
        end.send(SWITCHED).await;
        read_until(&mut websocket, b"\r\n\r\n").await;
        app.push(("a WebSocket", end));

        let mut opaque = connect(Carrier::Tcp).await;
        opaque.write_all(&frame(b"hello")).await.unwrap();
        let mut end = around.accept().await;
        end.exactly(5).await;
        end.send("welcome").await;
        read_until(&mut opaque, b"welcome").await;
        app.push(("an opaque session", end));

        let mut kept = connect(Carrier::Tcp).await;
        kept.write_all(&[frame(b"hello"), END.to_vec()].concat()).await.unwrap();
        let mut end = around.accept().await;
        end.exactly(5).await;
        end.finish().await.unwrap();
        let ended = [frame(&preamble::ACCEPTED), END.to_vec()].concat();
        read_until(&mut kept, &ended).await;

        let io = TokioIo::new(connect(Carrier::Http2).await);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get(format!("http://{APP}/")).body(Empty::<Bytes>::new()).unwrap();
        let answer = tokio::spawn(async move {
            // Kept as long as its answer: without it the connection would end.
            let answer = sender.send_request(request).await;
            (answer, sender)
        });
        let mut end = around.accept().await;
        end.head().await;
        end.send(STREAM).await;
        let (answer, sender) = within("an answer", answer).await.unwrap();
        std::mem::forget(sender);
        let mut stream = answer.unwrap().into_body();
        within("a frame", stream.frame()).await.unwrap().unwrap();
        app.push(("a stream of HTTP/2", end));

        Self { idle, answering, websocket, opaque, kept, stream, app }
    }

    /// Waits until every one has been closed, towards the client and towards the app.
    pub(super) async fn are_closed(&mut self) {
        is_closed("an idle connection", &mut self.idle).await;
        is_closed("an answer in progress", &mut self.answering).await;
        is_closed("a WebSocket", &mut self.websocket).await;
        is_closed("an opaque session", &mut self.opaque).await;
        is_closed("a connection between two sessions", &mut self.kept).await;
        within("a stream of HTTP/2", async { while matches!(self.stream.frame().await, Some(Ok(_))) {} })
            .await;
        for (what, end) in &mut self.app {
            within(&format!("the app's end of {what}"), end.rest()).await;
        }
    }
}
