//! Connections that end just when they are wanted: what a server closes while it is idle is no client's
//! business.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use selvedge_demo::load::Plan;
use selvedge_tests::{SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::raw::{APP, Around, CALLERS, Raw, SERVER};

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

/// An app that means to keep idle connections for so long, and what it says about that. What comes later meets a
/// connection that is being closed: it gets no answer.
#[derive(Debug, Clone, Copy)]
struct Keeps {
    time: Duration,
    header: &'static str,
    /// Whether it really closes them; otherwise only late requests find out.
    closes: bool,
}

/// What became of requests that came when their connection was over.
#[derive(Debug, Default)]
struct Missed {
    /// They came when it had been over for long: whoever sent them could have known.
    late: AtomicU64,
    /// They crossed the end on its way, which nobody can help.
    crossed: AtomicU64,
}

/// How long the end of a connection may take to be heard of, on a machine that does many things at once.
const ON_ITS_WAY: Duration = Duration::from_millis(100);

/// Serves POSTs and GETs with empty bodies on one connection; counts those that it does not answer.
async fn keep(mut stream: TcpStream, keeps: Keeps, missed: Arc<Missed>) {
    let mut read = Vec::new();
    loop {
        let idle_since = tokio::time::Instant::now();
        while !read.ends_with(b"\r\n\r\n") {
            let limit = if keeps.closes && read.is_empty() { keeps.time } else { Duration::from_secs(60) };
            match tokio::time::timeout(limit, stream.read_buf(&mut read)).await {
                Ok(Ok(1..)) => {}
                Err(_) if read.is_empty() => return end(stream, &missed).await,
                _ => return,
            }
        }
        read.clear();
        if idle_since.elapsed() >= keeps.time && !keeps.closes {
            missed.late.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n{}\r\nhello", keeps.header);
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Ends a connection, and counts a request that comes nevertheless.
async fn end(mut stream: TcpStream, missed: &Missed) {
    let ended = tokio::time::Instant::now();
    // The other end may have gone already.
    let _ = stream.shutdown().await;
    if matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {
        let is_late = ended.elapsed() > ON_ITS_WAY;
        let count = if is_late { &missed.late } else { &missed.crossed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The app of `around`, and what it has not answered.
fn app(around: &Arc<Around>, keeps: Keeps) -> Arc<Missed> {
    let (around, missed) = (Arc::clone(around), Arc::<Missed>::default());
    let counted = Arc::clone(&missed);
    tokio::spawn(async move {
        loop {
            let stream = around.accept_unhurried().await;
            tokio::spawn(keep(stream, keeps, Arc::clone(&counted)));
        }
    });
    missed
}

/// One request; its status.
async fn ask(client: &mut Raw, method: &str) -> String {
    client.send(format!("{method} /x HTTP/1.1\r\nhost: {APP}\r\n{}\r\n", length(method))).await;
    let head = client.head().await;
    let length = head.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    client.exactly(length).await;
    head.status().to_owned()
}

fn length(method: &str) -> &'static str {
    if method == "POST" { "content-length: 0\r\n" } else { "" }
}

/// Asks twice in each way, with a pause that is too long for the app.
async fn pauses(around: &Around, method: &str, pause: Duration) {
    let [over_http2, over_http1] = CALLERS;
    for mut client in
        [around.client(over_http2).await, around.client(over_http1).await, around.plain_client().await]
    {
        for _ in 0..3 {
            assert_eq!(ask(&mut client, method).await, "200");
            tokio::time::sleep(pause).await;
        }
    }
}

#[tokio::test]
async fn a_post_goes_on_no_connection_that_its_server_may_be_closing() {
    let around = Arc::new(Around::new().await);
    let keeps = Keeps { time: Duration::from_millis(1200), header: "", closes: false };
    let missed = app(&around, keeps);

    pauses(&around, "POST", Duration::from_millis(1300)).await;

    assert_eq!(missed.late.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_an_app_says_of_its_keep_alive_is_kept_to() {
    let around = Arc::new(Around::new().await);
    let header = "keep-alive: timeout=1\r\n";
    let missed = app(&around, Keeps { time: Duration::from_millis(600), header, closes: false });

    pauses(&around, "GET", Duration::from_millis(700)).await;

    assert_eq!(missed.late.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_destination_rules_idle_timeout_holds_between_a_sidecar_and_its_app() {
    let around = Arc::new(Around::new().await);
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: app, namespace: default}\n\
                spec: {host: app, trafficPolicy: {connectionPool: {http: {idleTimeout: 300ms}}}}\n";
    around.mesh.write("rule.yaml", rule).expect("a writable directory");
    let server = around.mesh.workload(SERVER);
    poll(SOON, "the server's sidecar has the rule", async || {
        let config = server.admin_json("/config").await.map_err(|error| error.to_string())?.to_string();
        if config.contains("300000000") { Ok(()) } else { Err(config) }
    })
    .await;
    let missed = app(&around, Keeps { time: Duration::from_millis(400), header: "", closes: false });

    pauses(&around, "GET", Duration::from_millis(500)).await;

    assert_eq!(missed.late.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn posts_at_any_time_do_not_fail_because_an_app_closes_idle_connections_soon() {
    let around = Arc::new(Around::new().await);
    let missed = app(&around, Keeps { time: Duration::from_millis(100), header: "", closes: true });
    let [over_http2, over_http1] = CALLERS;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..12_u64 {
        let around = Arc::clone(&around);
        tasks.spawn(async move {
            let connect = async || match number % 3 {
                0 => around.client(over_http2).await,
                1 => around.client(over_http1).await,
                _ => around.plain_client().await,
            };
            let (mut client, mut failed) = (connect().await, 0);
            for round in 0..30 {
                match &*ask(&mut client, "POST").await {
                    "200" => {}
                    "502" => (client, failed) = (connect().await, failed + 1),
                    status => panic!("{status}"),
                }
                // 20 to 398 ms: shorter than the app waits, and longer.
                let longer = if round % 3 == 0 { 200 } else { 0 };
                let pause = (round * 37 + number * 17) % 90 * 2 + 20 + longer;
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            failed
        });
    }
    let failed: u64 = tasks.join_all().await.into_iter().sum();
    assert_eq!(missed.late.load(Ordering::Relaxed), 0, "the end of their connections was known");
    let crossed = missed.crossed.load(Ordering::Relaxed);
    assert!(failed <= crossed && crossed < 36, "of 360 {failed} failed, and {crossed} met an end on its way");
}
