//! What HTTP/1.1 promises, through a pair of sidecars: framing, expectations, early ends and broken ones.
//!
//! Each rule is proved with HTTP/2 and with HTTP/1.1 between the sidecars, against an app and a client that
//! are this test.

use std::{sync::Arc, time::Duration};

use selvedge_tests::{SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::raw::{APP, Around, CALLERS, LIMIT, Raw, SERVER, within};

#[tokio::test]
async fn a_message_without_a_body_says_what_the_app_said_and_the_connection_goes_on() {
    let around = Around::new().await;
    for caller in CALLERS {
        let mut client = around.client(caller).await;
        for (method, answer, length) in [
            ("HEAD", "200 OK\r\ncontent-length: 1234\r\n", Some("1234")),
            ("HEAD", "200 OK\r\ntransfer-encoding: chunked\r\n", None),
            ("GET", "204 No Content\r\n", None),
            ("GET", "304 Not Modified\r\netag: \"7\"\r\n", None),
            ("GET", "200 OK\r\ncontent-length: 0\r\n", Some("0")),
            ("DELETE", "200 OK\r\ncontent-length: 0\r\n", Some("0")),
        ] {
            client.send(format!("{method} /x HTTP/1.1\r\nhost: {APP}\r\n\r\n")).await;
            let mut app = around.accept().await;
            let request = app.head().await;
            assert_eq!(request.first_line(), format!("{method} /x HTTP/1.1"));
            assert_eq!(request.header("content-length"), None, "{caller} {method}: no body came");
            app.send(format!("HTTP/1.1 {answer}connection: close\r\n\r\n")).await;

            let head = client.head().await;

            assert_eq!(head.status(), &answer[..3], "{caller}");
            assert_eq!(head.header("content-length"), length, "{caller} {method}: {}", head.0);
            let tag = answer.contains("etag").then_some("\"7\"");
            assert_eq!(head.header("etag"), tag, "{caller}");
        }
    }
}

#[tokio::test]
async fn an_expected_100_comes_when_the_body_is_wanted_and_the_body_arrives_whole() {
    let around = Around::new().await;
    for caller in CALLERS {
        let mut client = around.client(caller).await;
        client
            .send(format!(
                "PUT /x HTTP/1.1\r\nhost: {APP}\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
            ))
            .await;
        let mut app = around.accept().await;
        let request = app.head().await;
        assert_eq!(request.header("expect"), None, "it has been met");

        assert_eq!(client.head().await.status(), "100", "{caller}");
        client.send("hello").await;
        assert_eq!(app.exactly(5).await, "hello");
        app.answer("thanks").await;

        assert_eq!(client.head().await.status(), "200");
        assert_eq!(client.exactly(6).await, "thanks");
    }
}

#[tokio::test]
async fn nothing_is_expected_of_a_client_whose_request_goes_nowhere() {
    let around = Around::new().await;
    for caller in CALLERS {
        let mut client = around.client(caller).await;
        client
            .send("PUT /x HTTP/1.1\r\nhost: nobody.invalid\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
            .await;

        let head = client.head().await;

        assert!(head.header("selvedge-error").is_some(), "no 100 before the refusal: {}", head.0);
    }
}

/// A client, and what it is to see before its answer.
struct Hinted {
    name: &'static str,
    client: Raw,
    request: &'static str,
    interim: &'static [&'static str],
}

#[tokio::test]
async fn interim_answers_are_passed_on_where_http1_goes_all_the_way_and_never_taken_for_the_answer() {
    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nLink: </b.css>\r\n\r\n";
    let around = Around::new().await;
    let [over_http2, over_http1] = CALLERS;
    let hinted = |name, client, request, interim| Hinted { name, client, request, interim };
    let all = &["103", "102"];
    for Hinted { name, mut client, request, interim } in [
        hinted(over_http1, around.client(over_http1).await, "GET /x HTTP/1.1\r\n", all),
        hinted("no sidecar", around.plain_client().await, "GET /x HTTP/1.1\r\n", all),
        // RFC 9110, section 15.2: a client of HTTP/1.0 does not know of them.
        hinted("HTTP/1.0", around.plain_client().await, "GET /x HTTP/1.0\r\n", &[]),
        hinted(over_http2, around.client(over_http2).await, "GET /x HTTP/1.1\r\n", &[]),
    ] {
        client.send(format!("{request}host: {APP}\r\n\r\n")).await;
        let mut app = around.accept().await;
        app.head().await;
        app.send(HINTS).await;
        if let Some(status) = interim.first() {
            let hints = client.head().await;
            assert_eq!(hints.status(), *status, "{name}: before the app has answered");
            assert_eq!(hints.0.matches("link: <").count(), 2, "{name}: {}", hints.0);
        }
        app.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n").await;
        app.answer("at last").await;
        for status in interim.iter().skip(1) {
            assert_eq!(client.head().await.status(), *status, "{name}");
        }

        assert_eq!(client.head().await.status(), "200", "{name}");
        assert_eq!(client.exactly(7).await, "at last");
    }
}

#[tokio::test]
async fn header_names_keep_their_case_over_http1_if_that_is_wished_for() {
    let around = Around::with(&[("--preserve-header-case", "")]).await;
    let [over_http2, over_http1] = CALLERS;
    for (name, mut client, kept) in [
        (over_http1, around.client(over_http1).await, true),
        ("no sidecar", around.plain_client().await, true),
        (over_http2, around.client(over_http2).await, false),
    ] {
        client
            .send(format!("GET /x HTTP/1.1\r\nHost: {APP}\r\nX-Odd-CASE: 1\r\nx-even-case: 2\r\n\r\n"))
            .await;
        let mut app = around.accept().await;
        let request = app.head().await.0;
        app.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Answered-BY: app\r\nconnection: close\r\n\r\n")
            .await;
        let answer = client.head().await.0;

        assert_eq!(request.contains("\r\nX-Odd-CASE: 1\r\n"), kept, "{name}: {request}");
        assert!(request.contains("\r\nx-even-case: 2\r\n"), "{name}: {request}");
        assert_eq!(answer.contains("\r\nX-Answered-BY: app\r\n"), kept, "{name}: {answer}");
    }
}

#[tokio::test]
async fn an_http10_client_gets_an_http10_answer() {
    let around = Around::new().await;
    for caller in CALLERS {
        // Without keep-alive, and an answer of unknown length: its end is the connection's.
        let mut client = around.client(caller).await;
        client.send(format!("GET /x HTTP/1.0\r\nhost: {APP}\r\n\r\n")).await;
        let mut app = around.accept().await;
        assert_eq!(app.head().await.first_line(), "GET /x HTTP/1.1");
        app.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n").await;
        app.send("3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!(head.first_line(), "HTTP/1.0 200 OK", "{caller}");
        assert_eq!(head.header("transfer-encoding"), None);
        assert_eq!(client.rest().await, "abcdef");

        // With keep-alive, and an answer of known length: the connection goes on.
        let mut client = around.client(caller).await;
        for _ in 0..2 {
            client.send(format!("GET /x HTTP/1.0\r\nhost: {APP}\r\nconnection: keep-alive\r\n\r\n")).await;
            let mut app = around.accept().await;
            app.head().await;
            app.answer("again").await;
            let head = client.head().await;
            assert_eq!(head.first_line(), "HTTP/1.0 200 OK", "{caller}");
            assert_eq!(head.header("connection"), Some("keep-alive"), "{caller}");
            assert_eq!(client.exactly(5).await, "again");
        }

        // There is nothing to find its destination by.
        let mut client = around.client(caller).await;
        client.send("GET /x HTTP/1.0\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!(head.status(), "400");
        assert!(head.header("selvedge-error").is_some_and(|why| why.contains("Host")), "{}", head.0);
    }
}

#[tokio::test]
async fn chunks_and_trailers_flow_both_ways_as_they_come() {
    let around = Around::new().await;
    for caller in CALLERS {
        let mut client = around.client(caller).await;
        client
            .send(format!(
                "POST /x HTTP/1.1\r\nhost: {APP}\r\nte: trailers\r\ntrailer: x-sum\r\n\
                 transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n"
            ))
            .await;
        let mut app = around.accept().await;
        let request = app.head().await;
        assert_eq!(request.header("transfer-encoding"), Some("chunked"), "{}", request.0);
        assert_eq!(app.until("first\r\n").await, "5\r\nfirst\r\n", "{caller}: before the second was sent");
        app.send(
            "HTTP/1.1 200 OK\r\ntrailer: x-total\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n",
        )
        .await;
        app.send("3\r\none\r\n").await;
        let head = client.head().await;
        assert_eq!(head.header("transfer-encoding"), Some("chunked"), "{}", head.0);
        assert_eq!(client.until("one\r\n").await, "3\r\none\r\n", "{caller}: before the request has ended");

        client.send("6\r\nsecond\r\n0\r\nx-sum: 11\r\n\r\n").await;
        assert_eq!(app.until("\r\n\r\n").await, "6\r\nsecond\r\n0\r\nx-sum: 11\r\n\r\n", "{caller}");
        app.send("0\r\nx-total: 3\r\n\r\n").await;
        assert_eq!(client.until("\r\n\r\n").await, "0\r\nx-total: 3\r\n\r\n", "{caller}");
    }
}

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
async fn requests_that_are_sent_together_are_answered_in_their_order() {
    let around = Around::new().await;
    for caller in CALLERS {
        let mut client = around.client(caller).await;
        let request = |path| format!("GET {path} HTTP/1.1\r\nhost: {APP}\r\n\r\n");
        client.send(request("/1") + &request("/2") + &request("/3")).await;

        for path in ["/1", "/2", "/3"] {
            let mut app = around.accept().await;
            assert_eq!(app.head().await.first_line(), format!("GET {path} HTTP/1.1"), "{caller}");
            app.answer(path).await;
            assert_eq!(client.head().await.status(), "200");
            assert_eq!(client.exactly(2).await, path);
        }
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

#[tokio::test]
async fn a_client_that_breaks_its_connection_before_the_answer_takes_its_request_with_it() {
    let around = Around::new().await;
    for name in [CALLERS[0], CALLERS[1], "no sidecar"] {
        let connect = async || match name {
            "no sidecar" => around.plain_client().await,
            caller => around.client(caller).await,
        };
        for request in [
            format!("GET /x HTTP/1.1\r\nhost: {APP}\r\n\r\n"),
            format!("POST /x HTTP/1.1\r\nhost: {APP}\r\ncontent-length: 3\r\n\r\nabc"),
        ] {
            let mut client = connect().await;
            client.send(request).await;
            let mut app = around.accept().await;
            app.head().await;
            client.reset();

            // All that the app sees is the end of its connection: it has sent nothing.
            let rest = app.rest().await;
            assert!(rest.is_empty() || rest == "abc", "{name}: {rest:?}");
        }
        poll(SOON, &format!("{name}: it is counted"), async || {
            let metrics = around.mesh.workload(SERVER).admin("/metrics").await;
            let metrics = metrics.map_err(|error| error.to_string())?.text();
            let counted = metrics.lines().any(|line| line.contains("error_type=\"canceled\""));
            if counted { Ok(()) } else { Err(metrics) }
        })
        .await;

        // One that closes its half is answered, and so is what it has asked before.
        let mut client = connect().await;
        let request = |path| format!("GET {path} HTTP/1.1\r\nhost: {APP}\r\n\r\n");
        client.send(request("/1")).await;
        let mut app = around.accept().await;
        app.head().await;
        client.send(request("/2")).await;
        client.finish().await.unwrap();
        app.answer("1").await;
        let mut app = around.accept().await;
        app.head().await;
        app.answer("2").await;
        let answers = client.rest().await;
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{name}: {answers}");
        assert!(answers.ends_with('2'), "{name}: {answers}");
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

/// A body that would not fit into the memory that the sidecars may use.
const LARGE: usize = 100 << 20;

/// What a sidecar may have needed at its peak: windows of HTTP/2 both ways, and the program itself.
const PEAK: u64 = 48 << 20;

#[tokio::test]
async fn large_bodies_pass_without_being_held() {
    let around = Around::new().await;
    for caller in CALLERS {
        let mut client = around.client(caller).await;
        client.send(format!("POST /x HTTP/1.1\r\nhost: {APP}\r\ncontent-length: {LARGE}\r\n\r\n")).await;
        let mut app = around.accept().await;
        let request = app.head().await;
        assert_eq!(request.header("content-length"), Some(LARGE.to_string().as_str()));

        // Nobody reads at first: whoever writes must come to a halt long before the end.
        let (mut from_client, mut to_client) = (app.stream, client.stream);
        let mut sent = until_it_stops(&mut to_client).await;
        let upload = send(&mut to_client, LARGE - sent);
        let received = whole(upload, read(&mut from_client, LARGE)).await;
        assert_eq!(received, LARGE, "{caller}");

        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\nconnection: close\r\n\r\n");
        from_client.write_all(head.as_bytes()).await.expect("the sidecar takes it");
        sent = until_it_stops(&mut from_client).await;
        let download = send(&mut from_client, LARGE - sent);
        let received = whole(download, read(&mut to_client, LARGE)).await;
        assert!(received >= LARGE, "{caller}: {received} bytes");

        for sidecar in [caller, SERVER] {
            let pid = around.mesh.workload(sidecar).sidecar_process().expect("it runs").pid();
            let peak = peak_memory(pid);
            assert!(peak < PEAK, "{sidecar}: {} MiB at its peak", peak >> 20);
        }
    }
}

static CHUNK: [u8; 64 << 10] = [b'x'; 64 << 10];

/// Writes until no more is taken; returns how much was.
async fn until_it_stops(to: &mut TcpStream) -> usize {
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), to.write(&CHUNK)).await {
        sent += written.expect("the sidecar takes it");
        assert!(sent < LARGE / 2, "{sent} bytes went to somebody who reads none");
    }
    sent
}

async fn send(to: &mut TcpStream, mut length: usize) {
    while length > 0 {
        length -= to.write(&CHUNK[..CHUNK.len().min(length)]).await.expect("the sidecar takes it");
    }
}

/// Both ends of a transfer; what was received.
async fn whole(sending: impl Future<Output = ()>, receiving: impl Future<Output = usize>) -> usize {
    let both = async { tokio::join!(sending, receiving).1 };
    tokio::time::timeout(LIMIT * 6, both).await.expect("100 MiB take no minute")
}

/// Reads at least `length` bytes; returns how many.
async fn read(from: &mut TcpStream, length: usize) -> usize {
    let mut buffer = vec![0; 64 << 10];
    let mut received = 0;
    while received < length {
        match from.read(&mut buffer).await.expect("the sidecar sends it") {
            0 => break,
            some => received += some,
        }
    }
    received
}

/// The most memory that a process has had, in bytes (proc(5), `VmHWM`).
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says it");
    let kib: u64 = line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number");
    kib << 10
}
