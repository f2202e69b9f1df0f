//! Ends that come early: answers before the body, clients that go away, answers that break off.

use std::{sync::Arc, time::Duration};

use selvedge_tests::{SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::raw::{APP, Around, CALLERS, SERVER, within};

#[tokio::test]
async fn an_answer_that_comes_before_the_body_reaches_the_client() {
    let around = Around::new().await;
    for caller in CALLERS {
        let (mut client, mut app) = around
            .asked(caller, format!("POST /x HTTP/1.1\r\nhost: {APP}\r\ncontent-length: 1000000\r\n\r\nstart"))
            .await;
        app.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig").await;

        let head = client.head().await;

        assert_eq!(head.status(), "413", "{caller}");
        assert_eq!(head.header("selvedge-error"), None, "it is the app's");
        assert_eq!(client.exactly(3).await, "big");
    }
}

/// Closing resets what is sent still. Whether a sidecar notices that first, or the answer, is a matter of moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_arrives_of_an_app_that_closes_over_a_body_it_has_not_read() {
    let around = Around::new().await;
    let body: Arc<[u8]> = vec![b'x'; 64 << 20].into();
    let head = format!("POST /x HTTP/1.1\r\nhost: {APP}\r\ncontent-length: {}\r\n\r\n", body.len());
    let [over_http2, over_http1] = CALLERS.map(|caller| around.outbound(caller));
    let ways = [over_http2, over_http1, around.mesh.workload(SERVER).inbound];
    for (round, way) in (0..20).flat_map(|round| ways.map(|way| (round, way))) {
        let (mut reader, mut writer) =
            TcpStream::connect(way).await.expect("the sidecar listens").into_split();
        writer.write_all(head.as_bytes()).await.expect("it is read");
        let body = Arc::clone(&body);
        // Who is answered so may be cut off.
        let pushing = tokio::spawn(async move { writer.write_all(&body).await });
        let mut app = around.accept().await;
        app.head().await;
        app.stream.peek(&mut [0]).await.expect("there is more");
        app.send("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
        drop(app);

        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nbig") {
            let more = within("an answer", reader.read_buf(&mut answer)).await.expect("an answer");
            assert!(more > 0, "round {round}, by {way}: {}", String::from_utf8_lossy(&answer));
        }
        assert!(answer.starts_with(b"HTTP/1.1 413 "), "round {round}, by {way}");
        pushing.abort();
    }
}

#[tokio::test]
async fn an_early_answer_of_an_app_that_reads_on_takes_nothing_of_the_body_away() {
    let around = Around::new().await;
    for caller in CALLERS {
        let (mut client, mut app) = around
            .asked(caller, format!("POST /x HTTP/1.1\r\nhost: {APP}\r\ncontent-length: 1000000\r\n\r\nstart"))
            .await;
        app.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
        assert_eq!(client.head().await.status(), "403", "{caller}: before the body has been sent");
        assert_eq!(client.exactly(2).await, "no");

        let body = vec![b'x'; 1_000_000 - "start".len()];
        let (received, ()) = tokio::join!(app.exactly(1_000_000), client.send(&body));
        assert!(received.starts_with("startxxx"), "{caller}");

        // Both connections are as good as before.
        client.send(format!("GET /next HTTP/1.1\r\nhost: {APP}\r\n\r\n")).await;
        assert_eq!(app.head().await.first_line(), "GET /next HTTP/1.1", "{caller}");
        app.answer("next").await;
        assert_eq!(client.head().await.status(), "200");
        assert_eq!(client.exactly(4).await, "next");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_with_it() {
    let around = Around::new().await;
    for caller in CALLERS {
        // In the middle of its body.
        let (client, mut app) = around
            .asked(caller, format!("POST /x HTTP/1.1\r\nhost: {APP}\r\ncontent-length: 100\r\n\r\nstart"))
            .await;
        assert_eq!(app.exactly(5).await, "start");
        drop(client);
        assert_eq!(app.rest().await, "", "{caller}");

        // In the middle of the answer's body.
        let (mut client, mut app) =
            around.asked(caller, format!("GET /x HTTP/1.1\r\nhost: {APP}\r\n\r\n")).await;
        app.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
        client.until("one\r\n").await;
        client.reset();
        within("the app's connection ends", async {
            let mut sink = [0; 64];
            // Frames go out until the reset has come all the way.
            while app.stream.write_all(b"3\r\ntwo\r\n").await.is_ok() {
                if let Ok(Ok(0) | Err(_)) =
                    tokio::time::timeout(Duration::from_millis(5), app.stream.read(&mut sink)).await
                {
                    break;
                }
            }
        })
        .await;
    }
}

/// How many requests the server's sidecar says that clients have left.
async fn left(around: &Around) -> Result<f64, String> {
    let metrics = around.mesh.workload(SERVER).admin("/metrics").await.map_err(|error| error.to_string())?;
    let metrics = metrics.text();
    let counted = metrics.lines().filter(|line| {
        line.starts_with("selvedge_inbound_requests_total") && line.contains("error_type=\"canceled\"")
    });
    Ok(counted.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}

/// How a client of HTTP/1.1 leaves.
#[derive(Debug, Clone, Copy)]
enum Leaves {
    /// It closes, as libraries do when their time is over.
    Closes,
    /// It closes only its half.
    ClosesItsHalf,
    /// It resets its connection.
    Resets,
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_takes_its_request_with_it() {
    let around = Around::new().await;
    for name in [CALLERS[0], CALLERS[1], "no sidecar"] {
        let connect = async || match name {
            "no sidecar" => around.plain_client().await,
            caller => around.client(caller).await,
        };
        for leaves in [Leaves::Closes, Leaves::ClosesItsHalf, Leaves::Resets] {
            let before = left(&around).await.unwrap();
            for request in [
                format!("GET /x HTTP/1.1\r\nhost: {APP}\r\n\r\n"),
                format!("POST /x HTTP/1.1\r\nhost: {APP}\r\ncontent-length: 3\r\n\r\nabc"),
            ] {
                let mut client = connect().await;
                client.send(request).await;
                let mut app = around.accept().await;
                app.head().await;
                let client = match leaves {
                    Leaves::Closes => {
                        drop(client);
                        None
                    }
                    Leaves::ClosesItsHalf => {
                        client.finish().await.unwrap();
                        Some(client)
                    }
                    Leaves::Resets => {
                        client.reset();
                        None
                    }
                };

                // All that the app sees is the end of its connection: it has sent nothing.
                let rest = app.rest().await;
                assert!(rest.is_empty() || rest == "abc", "{name} {leaves:?}: {rest:?}");
                if let Some(mut client) = client {
                    assert_eq!(client.rest().await, "", "{name}");
                }
            }
            poll(SOON, &format!("{name} {leaves:?}: both are counted"), async || {
                let now = left(&around).await?;
                if now == before + 2.0 { Ok(()) } else { Err(format!("{before}, then {now}")) }
            })
            .await;
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_taken_for_a_whole_one() {
    let around = Around::new().await;
    for caller in CALLERS {
        for (start, reset) in [
            ("content-length: 10\r\n\r\nstart", false),
            ("content-length: 10\r\n\r\nstart", true),
            ("transfer-encoding: chunked\r\n\r\n5\r\nstart\r\n", false),
            ("transfer-encoding: chunked\r\n\r\n5\r\nstart\r\n", true),
        ] {
            let (mut client, mut app) =
                around.asked(caller, format!("GET /x HTTP/1.1\r\nhost: {APP}\r\n\r\n")).await;
            app.send(format!("HTTP/1.1 200 OK\r\n{start}")).await;
            assert_eq!(client.head().await.status(), "200");
            client.until("start").await;
            if reset {
                app.reset();
            } else {
                drop(app);
            }

            let rest = client.rest().await;

            assert!(!rest.contains('0'), "{caller}: no last chunk, but {rest:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_to_a_client_that_knows_no_chunks() {
    let around = Around::new().await;
    for name in [CALLERS[0], CALLERS[1], "no sidecar"] {
        for (head, whole) in [
            ("transfer-encoding: chunked\r\n\r\n5\r\nstart\r\n", false),
            ("transfer-encoding: chunked\r\n\r\n5\r\nstart\r\n0\r\n\r\n", true),
            ("connection: close\r\n\r\nstart", true),
        ] {
            let mut client = match name {
                "no sidecar" => around.plain_client().await,
                caller => around.client(caller).await,
            };
            client.send(format!("GET /x HTTP/1.0\r\nhost: {APP}\r\n\r\n")).await;
            let mut app = around.accept().await;
            app.head().await;
            app.send(format!("HTTP/1.1 200 OK\r\n{head}")).await;
            assert_eq!(client.head().await.status(), "200", "{name}");
            client.until("start").await;
            drop(app);

            let end = within("the end", client.stream.read(&mut [0])).await;

            // Its end is the answer's end (RFC 9112, section 8): one that is no end must be an error.
            assert_eq!(end.is_ok_and(|read| read == 0), whole, "{name}: {head:?}");
        }
    }
}
