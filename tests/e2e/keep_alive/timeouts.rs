//! Connections that are not used again once their server may be closing them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use selvedge_tests::{SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::raw::{APP, Around, CALLERS, Raw, SERVER};

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
