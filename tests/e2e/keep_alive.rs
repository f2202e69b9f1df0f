//! Connections that end just when they are wanted: what a server closes while it is idle is no client's
//! business.

mod timeouts;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use selvedge_demo::load::Plan;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::raw::{APP, Around, CALLERS};

const REQUESTS: u64 = 3000;

/// When the app closes a connection after an answer, without a word about it in the answer.
#[derive(Debug, Clone, Copy)]
enum Closes {
    /// At once.
    AtOnce,
    /// At some moment in the next milliseconds, or not: often just as the next request arrives.
    Sometime,
}

/// Answers on one connection until it closes it; counts requests that were read.
async fn serve(mut stream: TcpStream, closes: Closes, seen: Arc<AtomicU64>) {
    let mut read = Vec::new();
    loop {
        while !read.ends_with(b"\r\n\r\n") {
            match stream.read_buf(&mut read).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        read.clear();
        let number = seen.fetch_add(1, Ordering::Relaxed);
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await.is_err() {
            return;
        }
        match closes {
            Closes::AtOnce => return,
            // Spread over 0 to 3 ms, without a random number that could not be repeated.
            Closes::Sometime if number.is_multiple_of(3) => {
                tokio::time::sleep(Duration::from_micros(number * 37 % 3000)).await;
                return;
            }
            Closes::Sometime => {}
        }
    }
}

#[tokio::test]
async fn an_app_that_closes_its_connections_as_it_likes_fails_no_get() {
    let around = Arc::new(Around::new().await);
    for closes in [Closes::AtOnce, Closes::Sometime] {
        let seen = Arc::new(AtomicU64::new(0));
        let (server, counted) = (Arc::clone(&around), Arc::clone(&seen));
        let serving = tokio::spawn(async move {
            loop {
                let stream = server.accept_unhurried().await;
                tokio::spawn(serve(stream, closes, Arc::clone(&counted)));
            }
        });

        for caller in CALLERS {
            let plan = Plan::new(around.outbound(caller), APP).connections(8).requests(REQUESTS);
            let report = plan.run().await;

            assert_eq!(report.failed(), 0, "{closes:?}, {caller}: {}", report.summary());
            assert_eq!(report.ok, REQUESTS);
        }
        assert!(seen.load(Ordering::Relaxed) >= 2 * REQUESTS);
        serving.abort();
    }
}

#[tokio::test]
async fn a_post_whose_connection_broke_is_not_sent_twice() {
    let around = Around::new().await;
    for caller in CALLERS {
        let mut client = around.client(caller).await;
        // A connection to the app that is in use again.
        client.send(format!("GET /x HTTP/1.1\r\nhost: {APP}\r\n\r\n")).await;
        let mut app = around.accept().await;
        app.head().await;
        app.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        client.head().await;
        client.send(format!("POST /x HTTP/1.1\r\nhost: {APP}\r\ncontent-length: 5\r\n\r\nhello")).await;
        app.head().await;
        assert_eq!(app.exactly(5).await, "hello");
        drop(app);

        let head = client.head().await;

        assert_eq!(head.status(), "502", "{caller}");
        assert!(head.header("selvedge-error").is_some_and(|why| why.starts_with("reset: ")), "{}", head.0);
        assert!(around.nobody_connects().await, "{caller}: it may have been carried out");
    }
}

#[tokio::test]
async fn a_post_for_which_there_was_only_a_dead_connection_arrives_once() {
    let around = Around::new().await;
    for caller in CALLERS {
        let (mut client, mut app) =
            around.asked(caller, format!("GET /x HTTP/1.1\r\nhost: {APP}\r\n\r\n")).await;
        app.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        client.head().await;
        // The app closes it as a server does whose keep-alive time is over, and its sidecar hears of it.
        app.finish().await.unwrap();
        assert_eq!(app.rest().await, "");

        client.send(format!("POST /x HTTP/1.1\r\nhost: {APP}\r\ncontent-length: 5\r\n\r\nhello")).await;
        let mut app = around.accept().await;
        app.head().await;
        assert_eq!(app.exactly(5).await, "hello");
        app.answer("done").await;

        assert_eq!(client.head().await.status(), "200", "{caller}");
    }
}
