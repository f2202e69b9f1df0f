//! A load generator: HTTP/1.1 over kept connections, as an app sends its requests to its own sidecar.
//!
//! With a pace, a request's latency counts from the moment at which it was *due*, so that a stall cannot hide
//! behind requests that were never sent. A request that provably never left (hyper hands it back) is sent again
//! on a new connection and is not a failure; every other fault is one, kept with its words.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet};

use crate::call::causes;

/// How many failures are kept in words.
const FAILURES_KEPT: usize = 20;

/// How often a request that never left is tried on yet another connection.
const UNSENT_ATTEMPTS: usize = 5;

/// What to send, where, and how fast.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where to connect: a sidecar's outbound listener, or an app itself.
    pub address: SocketAddr,
    /// Whom to ask: the request's authority.
    pub authority: String,
    /// The path and query.
    pub path: String,
    /// More headers.
    pub headers: HeaderMap,
    /// How many requests may be in progress at once; each has its own connection.
    pub connections: usize,
    /// Requests per second; none = each connection sends as soon as it is answered.
    pub pace: Option<f64>,
    /// How many requests; none = until stopped.
    pub requests: Option<u64>,
    /// How long one request may take.
    pub timeout: Duration,
    /// The texts of a JSON answer by which answers are counted, such as `version`.
    pub keys: Vec<&'static str>,
}

impl Plan {
    /// GETs of `/` from `authority` through `address`, on 8 connections, until stopped.
    pub fn new(address: SocketAddr, authority: &str) -> Self {
        Self {
            address,
            authority: authority.to_owned(),
            path: "/".to_owned(),
            headers: HeaderMap::new(),
            connections: 8,
            pace: None,
            requests: None,
            timeout: Duration::from_secs(10),
            keys: Vec::new(),
        }
    }

    /// Counting answers by these keys of their JSON.
    #[must_use]
    pub fn keys(mut self, keys: &[&'static str]) -> Self {
        self.keys = keys.to_vec();
        self
    }

    /// On so many connections.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// So many requests each second.
    #[must_use]
    pub fn pace(mut self, per_second: f64) -> Self {
        self.pace = Some(per_second);
        self
    }

    /// So many requests in all.
    #[must_use]
    pub fn requests(mut self, requests: u64) -> Self {
        self.requests = Some(requests);
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    /// Of another path.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Sends all of it, and reports.
    pub async fn run(self) -> Report {
        let mut load = self.start();
        while load.senders.join_next().await.is_some() {}
        load.report()
    }

    /// Starts sending beside everything else.
    pub fn start(self) -> Load {
        let course = Arc::new(Course {
            plan: self,
            began: Instant::now(),
            next: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            tally: Mutex::new(Report::default()),
        });
        let mut senders = JoinSet::new();
        for _ in 0..course.plan.connections {
            senders.spawn(Arc::clone(&course).send());
        }
        Load { course, senders }
    }
}

/// Load in progress. Dropping it stops it at once.
#[derive(Debug)]
pub struct Load {
    course: Arc<Course>,
    senders: JoinSet<()>,
}

impl Load {
    /// When it began: what the times of [`Report::timeline`] count from.
    pub fn began(&self) -> Instant {
        self.course.began
    }

    /// Looks at what came back until now; senders wait meanwhile, so be quick.
    pub fn look<T>(&self, look: impl FnOnce(&Report) -> T) -> T {
        look(&self.course.tally())
    }

    /// Sends nothing new, waits for what is in progress, and reports.
    pub async fn stop(mut self) -> Report {
        self.course.stopped.store(true, Ordering::Release);
        while self.senders.join_next().await.is_some() {}
        self.report()
    }

    fn report(&self) -> Report {
        let mut report = self.course.tally().clone();
        report.elapsed = self.course.began.elapsed();
        report
    }
}

/// One answer on the timeline.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it was whole, counted from the start of the load.
    pub at: Duration,
    /// Its status; none = it failed without one.
    pub status: Option<u16>,
    /// The values of the plan's keys, in order; empty where the answer has none.
    pub values: Vec<Arc<str>>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Report {
    /// Requests that have ended, well or not.
    pub requests: u64,
    /// Those answered with 2xx.
    pub ok: u64,
    /// Answers by status.
    pub by_status: BTreeMap<u16, u64>,
    /// Answers by the values of each of the plan's keys.
    pub by_key: BTreeMap<&'static str, BTreeMap<Arc<str>, u64>>,
    /// Latencies of whole answers, in microseconds.
    pub latency: Histogram<u64>,
    /// Every answer, in the order in which they ended.
    pub timeline: Vec<Sample>,
    /// The first failures, in words, with the moment.
    pub failures: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            requests: 0,
            ok: 0,
            by_status: BTreeMap::new(),
            by_key: BTreeMap::new(),
            // Up to a minute, to three digits.
            latency: Histogram::new_with_bounds(1, 60_000_000, 3).expect("constant bounds in order"),
            timeline: Vec::new(),
            failures: Vec::new(),
            elapsed: Duration::ZERO,
        }
    }
}

impl Report {
    /// Requests that got no 2xx.
    pub fn failed(&self) -> u64 {
        self.requests - self.ok
    }

    /// How many answers had `value` for `key`.
    pub fn count(&self, key: &str, value: &str) -> u64 {
        self.by_key.get(key).and_then(|values| values.get(value)).copied().unwrap_or(0)
    }

    /// The latency that `quantile` (0 to 1) of all answers did not exceed.
    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.latency.value_at_quantile(quantile))
    }

    /// Adds what another load got; timelines are kept apart, since they count from other moments.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.ok += other.ok;
        for (status, count) in &other.by_status {
            *self.by_status.entry(*status).or_default() += count;
        }
        for (key, values) in &other.by_key {
            for (value, count) in values {
                *self.by_key.entry(key).or_default().entry(Arc::clone(value)).or_default() += count;
            }
        }
        self.latency.add(&other.latency).expect("equal bounds");
        let room = FAILURES_KEPT.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.iter().take(room).cloned());
        self.elapsed += other.elapsed;
    }

    /// One line: how many, how many failed, and the first failure's words.
    pub fn summary(&self) -> String {
        let mut text = format!("{} requests, {} failed", self.requests, self.failed());
        if let Some(first) = self.failures.first() {
            text = format!("{text} (first: {first})");
        }
        text
    }

    fn record(&mut self, at: Duration, latency: Duration, keys: &[&'static str], outcome: &Outcome) {
        self.requests += 1;
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency.saturating_record(micros.max(1));
        let mut sample = Sample { at, status: outcome.status, values: Vec::with_capacity(keys.len()) };
        if let Some(status) = outcome.status {
            *self.by_status.entry(status).or_default() += 1;
            self.ok += u64::from((200..300).contains(&status));
        }
        for (key, text) in keys.iter().zip(&outcome.values) {
            let values = self.by_key.entry(key).or_default();
            let value = values.get_key_value(text.as_str()).map(|(value, _)| Arc::clone(value));
            let value = value.unwrap_or_else(|| Arc::from(text.as_str()));
            *values.entry(Arc::clone(&value)).or_default() += 1;
            sample.values.push(value);
        }
        self.timeline.push(sample);
        if let Some(words) = &outcome.failure
            && self.failures.len() < FAILURES_KEPT
        {
            self.failures.push(format!("at {:.3} s: {words}", at.as_secs_f64()));
        }
    }
}

/// One request's end.
#[derive(Debug, Default)]
struct Outcome {
    status: Option<u16>,
    values: Vec<String>,
    failure: Option<String>,
}

impl Outcome {
    fn failed(words: String) -> Self {
        Self { failure: Some(words), ..Self::default() }
    }
}

/// What all senders of one load share.
#[derive(Debug)]
struct Course {
    plan: Plan,
    began: Instant,
    next: AtomicU64,
    stopped: AtomicBool,
    tally: Mutex<Report>,
}

type Sender = SendRequest<Empty<Bytes>>;

impl Course {
    fn tally(&self) -> MutexGuard<'_, Report> {
        self.tally.lock().expect("no sender panics while it counts")
    }

    /// One connection's life: request after request, until the plan is fulfilled or stopped.
    async fn send(self: Arc<Self>) {
        let mut connection = None;
        while let Some(due) = self.next_due().await {
            let exchange = self.exchange(&mut connection);
            let outcome = match tokio::time::timeout(self.plan.timeout, exchange).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(words)) => Outcome::failed(words),
                Err(_) => Outcome::failed(format!("no whole answer within {:?}", self.plan.timeout)),
            };
            if outcome.status.is_none() {
                connection = None;
            }
            let now = Instant::now();
            let (at, latency) = (now - self.began, now.saturating_duration_since(due));
            self.tally().record(at, latency, &self.plan.keys, &outcome);
        }
    }

    /// Waits until the next request is due; none = there is no next.
    async fn next_due(&self) -> Option<Instant> {
        if self.stopped.load(Ordering::Acquire) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if self.plan.requests.is_some_and(|requests| number >= requests) {
            return None;
        }
        let Some(pace) = self.plan.pace else { return Some(Instant::now()) };
        let due = self.began + Duration::from_secs_f64(number as f64 / pace);
        tokio::time::sleep_until(due.into()).await;
        (!self.stopped.load(Ordering::Acquire)).then_some(due)
    }

    /// Sends one request, on the kept connection if it still stands. `Err` = failed, in words.
    async fn exchange(&self, connection: &mut Option<Sender>) -> Result<Outcome, String> {
        let mut request = self.request();
        for _ in 0..UNSENT_ATTEMPTS {
            let mut sender = match connection.take() {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            if sender.ready().await.is_err() {
                continue; // closed while idle
            }
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let outcome = read(response, &self.plan.keys).await?;
                    *connection = Some(sender);
                    return Ok(outcome);
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(causes(error.error())),
                },
            }
        }
        Err(format!("{UNSENT_ATTEMPTS} connections were closed before the request was taken"))
    }

    async fn connect(&self) -> Result<Sender, String> {
        let address = self.plan.address;
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| format!("cannot connect to {address}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| causes(&error))?;
        // Ends with its sender; its error comes out of the request that meets it.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.plan.path.parse().expect("a path from our own source");
        *request.headers_mut() = self.plan.headers.clone();
        let host = HeaderValue::from_str(&self.plan.authority).expect("an authority from our own source");
        request.headers_mut().insert(http::header::HOST, host);
        request
    }
}

async fn read(response: Response<Incoming>, keys: &[&'static str]) -> Result<Outcome, String> {
    let (parts, body) = response.into_parts();
    let status = parts.status;
    let body = body.collect().await;
    let body =
        body.map_err(|error| format!("the answer ({status}) ended early: {}", causes(&error)))?.to_bytes();
    let failure = (!status.is_success()).then(|| {
        let reason =
            parts.headers.get("selvedge-error").map(|reason| String::from_utf8_lossy(reason.as_bytes()));
        reason.map_or_else(|| status.to_string(), |reason| format!("{status}, selvedge-error: {reason}"))
    });
    let json = (!keys.is_empty()).then(|| serde_json::from_slice(&body).unwrap_or(Value::Null));
    let values = json.map_or_else(Vec::new, |json| {
        let text = |key: &&str| json.get(*key).and_then(Value::as_str).unwrap_or_default().to_owned();
        keys.iter().map(text).collect()
    });
    Ok(Outcome { status: Some(status.as_u16()), values, failure })
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::apps::reviews;

    async fn reviews_started() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { reviews::serve(listener, "reviews-v1-a", "v1").await });
        address
    }

    /// A server that treats its `n`th connection as it is told.
    async fn scripted(script: fn(usize) -> &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for n in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await.unwrap();
                stream.write_all(script(n)).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn every_request_is_counted_by_status_and_key() {
        let plan = Plan::new(reviews_started().await, "reviews:9080").keys(&["version", "pod"]);

        let report = plan.requests(200).run().await;

        assert_eq!((report.requests, report.ok, report.failed()), (200, 200, 0));
        assert_eq!(report.by_status, BTreeMap::from([(200, 200)]));
        assert_eq!(report.count("version", "v1"), 200);
        assert_eq!(report.count("pod", "reviews-v1-a"), 200);
        assert_eq!(report.timeline.len(), 200);
        assert!(report.quantile(0.5) > Duration::ZERO);
    }

    #[tokio::test]
    async fn other_answers_than_2xx_are_failures_with_their_reason() {
        let address =
            scripted(|_| b"HTTP/1.1 503 x\r\nselvedge-error: no-endpoint: none\r\ncontent-length: 0\r\n\r\n")
                .await;

        let report = Plan::new(address, "reviews:9080").connections(1).requests(1).run().await;

        assert_eq!(report.failed(), 1);
        assert!(report.failures[0].ends_with("503 Service Unavailable, selvedge-error: no-endpoint: none"));
    }

    #[tokio::test]
    async fn a_connection_closed_between_requests_is_no_failure() {
        let address =
            scripted(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;

        let report = Plan::new(address, "reviews:9080").connections(1).requests(5).run().await;

        assert_eq!((report.ok, report.failures), (5, Vec::new()));
    }

    #[tokio::test]
    async fn a_connection_that_breaks_under_a_request_is_a_failure() {
        let address =
            scripted(|n| if n == 0 { b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf" } else { b"" });

        let report = Plan::new(address.await, "reviews:9080").connections(1).requests(2).run().await;

        assert_eq!((report.requests, report.failed()), (2, 2));
        assert!(report.failures[0].contains("the answer (200 OK) ended early"), "{:?}", report.failures);
    }

    #[tokio::test]
    async fn a_pace_is_kept_and_a_stall_is_not_hidden() {
        let plan = Plan::new(reviews_started().await, "reviews:9080").connections(1);

        // One connection, 20 ms for each answer, one request due every 10 ms: the queue grows.
        let report = plan.path("/?delay=20ms").pace(100.0).requests(20).run().await;

        assert_eq!(report.ok, 20);
        assert!(report.quantile(1.0) >= Duration::from_millis(150), "{:?}", report.quantile(1.0));
    }

    #[tokio::test]
    async fn load_runs_until_it_is_stopped() {
        let load = Plan::new(reviews_started().await, "reviews:9080").start();

        crate::wait::until(Duration::from_secs(5), "50 answers", async || {
            let seen = load.look(|report| report.requests);
            if seen >= 50 { Ok(()) } else { Err(seen) }
        })
        .await
        .unwrap();

        let report = load.stop().await;
        assert!(report.requests >= 50);
        assert_eq!(report.failed(), 0);
    }
}
