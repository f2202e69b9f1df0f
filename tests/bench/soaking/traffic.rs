//! What a soak's clients do beside GETs: upload in both versions of HTTP, hang up in the middle, and take
//! their time.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use selvedge_demo::call;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::AUTHORITY;

/// Reasons that a fault explains, for a request that cannot be sent twice; `broken` is an answer or connection
/// that ended early.
const EXPLAINED: [&str; 5] = ["app-unreachable", "connect-failure", "reset", "no-endpoint", "broken"];

/// The share of uploads that may fail.
const MOST_FAILED: f64 = 0.02;

const LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, Default, Clone)]
struct Tally {
    uploads: u64,
    /// Those that failed, by the mesh's own reason or what we saw.
    failures: BTreeMap<String, u64>,
    cut: u64,
    slow: u64,
}

type Shared = Arc<Mutex<Tally>>;

/// All clients, as long as they run.
pub(super) struct Traffic {
    clients: JoinSet<()>,
    tally: Shared,
}

/// What came of it.
pub(super) struct TrafficTotals(Tally);

impl Traffic {
    pub(super) fn start(outbound: SocketAddr) -> Self {
        let (mut clients, tally) = (JoinSet::new(), Shared::default());
        for version in [Version::HTTP_11, Version::HTTP_2] {
            clients.spawn(uploads(outbound, version, Arc::clone(&tally)));
        }
        clients.spawn(cuts(outbound, Arc::clone(&tally)));
        for _ in 0..10 {
            clients.spawn(slow_reader(outbound, Arc::clone(&tally)));
            clients.spawn(slow_sender(outbound, Arc::clone(&tally)));
        }
        Self { clients, tally }
    }

    pub(super) async fn stop(mut self) -> TrafficTotals {
        self.clients.shutdown().await;
        TrafficTotals(self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn count(tally: &Shared, change: impl FnOnce(&mut Tally)) {
    change(&mut tally.lock().unwrap_or_else(PoisonError::into_inner));
}

/// 256 KiB there and back, ten times a second.
async fn uploads(outbound: SocketAddr, version: Version, tally: Shared) {
    let body = Bytes::from(vec![b'x'; 256 << 10]);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tick.tick().await;
        let request = call::to(AUTHORITY, "/echo").version(version).body(body.clone()).timeout(LIMIT);
        let failure = match call::send(outbound, request).await {
            Ok(answer) if answer.status == 200 && answer.body == body => None,
            Ok(answer) => Some(match answer.proxy_error() {
                Some(error) => error.split(':').next().unwrap_or_default().to_owned(),
                None => format!("status {} with {} bytes", answer.status, answer.body.len()),
            }),
            Err(_) => Some("broken".to_owned()),
        };
        count(&tally, |tally| {
            tally.uploads += 1;
            if let Some(failure) = failure {
                *tally.failures.entry(failure).or_default() += 1;
            }
        });
    }
}

/// Clients that send a part of a request, or read a part of an answer, and are gone.
async fn cuts(outbound: SocketAddr, tally: Shared) {
    let whole = format!("GET /?bytes=1000000 HTTP/1.1\r\nhost: {AUTHORITY}\r\n\r\n");
    let upload = format!("POST /echo HTTP/1.1\r\nhost: {AUTHORITY}\r\ncontent-length: 1000\r\n\r\nstart");
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    for number in 0_usize.. {
        tick.tick().await;
        let Ok(mut stream) = TcpStream::connect(outbound).await else { continue };
        let text = if number.is_multiple_of(2) { &whole } else { &upload };
        // Every length comes up in time, with and without an answer begun.
        let part = number % (text.len() + 1);
        let _ = stream.write_all(&text.as_bytes()[..part]).await;
        if part == whole.len() {
            let _ = tokio::time::timeout(LIMIT, stream.read(&mut [0; 1000])).await;
        }
        if number.is_multiple_of(3) {
            let _ = stream.set_zero_linger();
        }
        count(&tally, |tally| tally.cut += 1);
    }
}

/// Reads a large answer a little at a time, and hangs up before its end.
async fn slow_reader(outbound: SocketAddr, tally: Shared) {
    let request = format!("GET /?bytes=4000000 HTTP/1.1\r\nhost: {AUTHORITY}\r\n\r\n");
    loop {
        if let Ok(mut stream) = TcpStream::connect(outbound).await {
            let _ = stream.write_all(request.as_bytes()).await;
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(200)).await;
                if !matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {
                    break;
                }
            }
        }
        count(&tally, |tally| tally.slow += 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Sends a head byte by byte, until it is refused or done.
async fn slow_sender(outbound: SocketAddr, tally: Shared) {
    let request = format!("GET / HTTP/1.1\r\nhost: {AUTHORITY}\r\nconnection: close\r\n\r\n");
    loop {
        if let Ok(mut stream) = TcpStream::connect(outbound).await {
            for byte in request.as_bytes() {
                tokio::time::sleep(Duration::from_millis(300)).await;
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
            let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut Vec::new())).await;
        }
        count(&tally, |tally| tally.slow += 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl TrafficTotals {
    /// What the rule does not allow.
    pub(super) fn outside_the_rule(&self) -> Vec<String> {
        let Self(Tally { uploads, failures, .. }) = self;
        let unexplained = failures.iter().filter(|(reason, _)| !EXPLAINED.contains(&reason.as_str()));
        let mut wrong: Vec<String> =
            unexplained.map(|(reason, count)| format!("{count} uploads failed: {reason}")).collect();
        let failed: u64 = failures.values().sum();
        if failed as f64 > MOST_FAILED * *uploads as f64 {
            wrong.push(format!("{failed} of {uploads} uploads failed"));
        }
        wrong
    }
}

impl fmt::Display for TrafficTotals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Tally { uploads, failures, cut, slow }) = self;
        write!(
            f,
            "uploads: {uploads}, failed by reason: {failures:?}; {cut} clients hung up, {slow} were slow"
        )
    }
}
