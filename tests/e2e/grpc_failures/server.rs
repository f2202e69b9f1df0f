//! A server that fails as the text of the request says.

use std::{
    net::{Shutdown, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{Ping, PingPong, Reason, RecvStream, SendStream, server::SendResponse};
use http::{Request, Response};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, Notify},
};

/// One reply, of one field.
const MESSAGE: &[u8] = b"\0\0\0\0\x04\x0a\x02ok";

/// The server's end of one connection.
struct Connection {
    /// Another handle of its socket.
    socket: std::sync::Mutex<Option<std::net::TcpStream>>,
    ping: Mutex<PingPong>,
    /// The connection is to be let go of.
    over: Notify,
    /// It takes no more calls.
    drain: Notify,
    /// The calls of all connections that have got as far as they get.
    calls: Arc<AtomicUsize>,
}

/// A server; and how many calls have got there as far as they get.
pub(super) async fn serve(at: SocketAddr) -> Arc<AtomicUsize> {
    serve_on(TcpListener::bind(at).await.expect("the address is ours"))
}

/// The same on a listener that is open.
pub(super) fn serve_on(listener: TcpListener) -> Arc<AtomicUsize> {
    let calls = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(connection(tcp, Arc::clone(&counted)));
        }
    });
    calls
}

pub(super) async fn connection(tcp: TcpStream, calls: Arc<AtomicUsize>) {
    let tcp = tcp.into_std().unwrap();
    let socket = tcp.try_clone().unwrap();
    // One that breaks off at once is no client's.
    let Ok(mut http2) = h2::server::handshake(TcpStream::from_std(tcp).unwrap()).await else { return };
    let ping = Mutex::new(http2.ping_pong().expect("asked for once"));
    let socket = std::sync::Mutex::new(Some(socket));
    let shared = Arc::new(Connection { socket, ping, over: Notify::new(), drain: Notify::new(), calls });
    loop {
        tokio::select! {
            call = http2.accept() => {
                let Some(Ok((request, respond))) = call else { return };
                tokio::spawn(answer(Arc::clone(&shared), request, respond));
            }
            () = shared.drain.notified() => http2.graceful_shutdown(),
            () = shared.over.notified() => return,
        }
    }
}

/// The text of a request: its only field.
pub(super) async fn text(mut body: RecvStream) -> String {
    let mut read = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        read.extend_from_slice(&data);
    }
    String::from_utf8(read[7..].to_vec()).unwrap()
}

async fn answer(connection: Arc<Connection>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let asked = text(request.into_body()).await;
    let (failure, when) = asked.split_once(' ').unwrap();
    let head = || Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = None;
    if when == "after" {
        let mut begun = respond.send_response(head(), false).unwrap();
        begun.send_data(Bytes::from_static(MESSAGE), false).unwrap();
        stream = Some(begun);
        // Once this has come back, the client has what was sent before it.
        connection.ping.lock().await.ping(Ping::opaque()).await.unwrap();
    }
    connection.calls.fetch_add(1, Ordering::Relaxed);
    // Another call on this connection may have ended it already. To let go of the stream would reset it first.
    let socket = async || {
        let there = connection.socket.lock().unwrap().take();
        let Some(socket) = there else { return std::future::pending().await };
        socket
    };
    match failure {
        "killed" => {
            // Closed, it is reset.
            let socket = socket().await;
            SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
            drop(socket);
            connection.over.notify_one();
            // To let go of the stream would reset it first.
            std::future::pending().await
        }
        "closed" => {
            let socket = socket().await;
            socket.shutdown(Shutdown::Both).unwrap();
            std::future::pending().await
        }
        "drained" => {
            connection.drain.notify_one();
            let mut stream = stream.unwrap_or_else(|| {
                let mut begun = respond.send_response(head(), false).unwrap();
                begun.send_data(Bytes::from_static(MESSAGE), false).unwrap();
                begun
            });
            let trailers =
                [("grpc-status", "0")].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            stream.send_trailers(trailers.into_iter().collect()).unwrap();
        }
        "silent" | "endless" => std::future::pending().await,
        status if status.starts_with("status-") => {
            // An answer that is nothing but its end.
            let mut head = head();
            head.headers_mut().insert("grpc-status", status["status-".len()..].parse().unwrap());
            respond.send_response(head, true).unwrap();
        }
        code => reset(code, respond, stream),
    }
}

fn reset(code: &str, mut respond: SendResponse<Bytes>, stream: Option<SendStream<Bytes>>) {
    let code = match code {
        "REFUSED_STREAM" => Reason::REFUSED_STREAM,
        "CANCEL" => Reason::CANCEL,
        "ENHANCE_YOUR_CALM" => Reason::ENHANCE_YOUR_CALM,
        "INADEQUATE_SECURITY" => Reason::INADEQUATE_SECURITY,
        "INTERNAL_ERROR" => Reason::INTERNAL_ERROR,
        "PROTOCOL_ERROR" => Reason::PROTOCOL_ERROR,
        other => panic!("{other}"),
    };
    match stream {
        Some(mut stream) => stream.send_reset(code),
        None => respond.send_reset(code),
    }
}
