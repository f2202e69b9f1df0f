//! A gateway that is told to end: its clients are told to move first, and nobody loses a request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use http::Version;
use selvedge_demo::call::{self, Answer};
use selvedge_tests::{Mesh, SOON, gateway::Gateway, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    gateway as gateway_of, http_listener,
    tls::{mesh_with, reviews_as, route},
};

const HOST: &str = "one.test";

async fn before_reviews(flags: &[&str]) -> (Mesh, Gateway) {
    let documents = [
        reviews_as("one", "two"),
        gateway_of(&http_listener("http", 80)),
        route("HTTPRoute", "one", "http", ""),
    ];
    let (mesh, gateway) = mesh_with(&documents.concat(), "default/edge", flags).await;
    poll(SOON, "the gateway serves", async || {
        let answer = ask(&gateway, Version::HTTP_11).await?;
        if answer.status.is_success() { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
    (mesh, gateway)
}

async fn ask(gateway: &Gateway, version: Version) -> Result<Answer, String> {
    let answer = gateway.call(80, call::to(HOST, "/").version(version)).await;
    answer.map_err(|error| call::causes(&error))
}

/// Sends a request on a connection that is kept, and reads the head of the answer and what comes with it.
async fn ask_on(stream: &mut TcpStream) -> String {
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = vec![0; 1 << 16];
    let read = timeout(SOON, stream.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..read]).to_ascii_lowercase()
}

async fn told(gateway: &Gateway) {
    gateway.process.signal(rustix::process::Signal::TERM).unwrap();
    poll(SOON, "the gateway says that it drains", async || {
        let answer = call::send(gateway.admin, call::to("admin", "/ready")).await;
        match answer.map_err(|error| error.to_string())? {
            answer if answer.status == 503 => Ok(()),
            answer => Err(answer.summary()),
        }
    })
    .await;
}

#[tokio::test]
async fn clients_are_told_to_move_while_the_ports_are_still_open() {
    let (_mesh, gateway) = before_reviews(&["--drain-delay=1h", "--drain-timeout=2h"]).await;
    let mut kept = TcpStream::connect(gateway.at(80)).await.unwrap();
    let before = ask_on(&mut kept).await;
    assert!(before.starts_with("http/1.1 200") && !before.contains("connection: close"), "{before}");
    let mut of_http2 = TcpStream::connect(gateway.at(80)).await.unwrap();
    of_http2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();

    told(&gateway).await;

    // One that comes now is served for a moment, and then told so.
    let mut new = TcpStream::connect(gateway.at(80)).await.unwrap();
    let last = poll(SOON, "an answer says that it is the last", async || {
        let answer = ask_on(&mut new).await;
        if answer.contains("connection: close") { Ok(answer) } else { Err(answer) }
    })
    .await;
    assert!(last.starts_with("http/1.1 200"), "{last}");
    let answer = ask_on(&mut kept).await;
    assert!(answer.starts_with("http/1.1 200") && answer.contains("connection: close"), "{answer}");
    let mut rest = Vec::new();
    timeout(SOON, kept.read_to_end(&mut rest)).await.expect("it is closed").unwrap();
    goes_away(&mut of_http2).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        assert_eq!(ask(&gateway, version).await.unwrap().status, 200, "new clients are served");
    }
}

/// Reads frames of HTTP/2 until GOAWAY.
async fn goes_away(stream: &mut TcpStream) {
    let frames = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.expect("GOAWAY comes before the end");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            stream.read_exact(&mut payload).await.expect("a whole frame");
            if head[3] == 7 {
                return;
            }
        }
    };
    timeout(SOON, frames).await.expect("it is told to go away");
}

#[tokio::test]
async fn no_request_is_lost_of_clients_that_come_as_long_as_a_load_balancer_sends_them() {
    let (_mesh, gateway) = before_reviews(&["--drain-delay=3s", "--drain-timeout=30s"]).await;
    let gateway = Arc::new(gateway);
    let (sends, served) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (gateway, sends, served) = (Arc::clone(&gateway), Arc::clone(&sends), Arc::clone(&served));
            let version = if client % 2 == 0 { Version::HTTP_11 } else { Version::HTTP_2 };
            tokio::spawn(async move {
                while sends.load(Ordering::Relaxed) {
                    let answer =
                        ask(&gateway, version).await.map_err(|error| format!("{version:?}: {error}"))?;
                    assert_eq!(answer.status, 200, "{version:?}: {}", answer.summary());
                    served.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, String>(())
            })
        })
        .collect();

    told(&gateway).await;
    let before = served.load(Ordering::Relaxed);
    // As a load balancer does, whose next check fails.
    tokio::time::sleep(Duration::from_secs(2)).await;
    sends.store(false, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap().unwrap();
    }

    assert!(served.load(Ordering::Relaxed) > before, "they were served meanwhile");
    let status = gateway.process.wait(SOON).await.unwrap();
    assert!(status.success(), "{status}");
}
