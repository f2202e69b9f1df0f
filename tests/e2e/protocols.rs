//! What HTTP/1.1 promises, through a pair of sidecars: framing, expectations, early ends and broken ones.
//!
//! Each rule is proved with HTTP/2 and with HTTP/1.1 between the sidecars, against an app and a client that
//! are this test.

mod early;
mod large;

use selvedge_demo::workload::sum_of;
use selvedge_tests::{SOON, poll};

use crate::raw::{APP, Around, CALLERS, Raw, SERVER};

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

    // They count as answered, and not as given up.
    for (name, way, count) in
        [(CALLERS[0], "outbound", 1.0), (CALLERS[1], "outbound", 1.0), (SERVER, "inbound", 2.0)]
    {
        let total = format!("selvedge_{way}_requests_total");
        let metrics = poll(SOON, "the requests are counted", async || {
            let answer =
                around.mesh.workload(name).admin("/metrics").await.map_err(|error| error.to_string())?;
            let metrics = answer.text();
            if sum_of(&metrics, &total) == Some(count) { Ok(metrics) } else { Err(metrics) }
        })
        .await;
        let mut lines = metrics.lines().filter(|line| line.starts_with(&total));
        assert!(lines.all(|line| !line.contains("canceled") && !line.contains("reset")), "{name}: {metrics}");
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
