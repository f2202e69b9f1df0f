//! The load generator: HTTP/1.1 keep-alive GETs, closed loop (each connection asks again as soon as
//! it is answered) or open loop (requests fall due at a fixed rate, whatever becomes of them).
//!
//! In the open loop a latency runs from the moment at which the request fell due, not from when a
//! connection was free to carry it: a proxy that stalls cannot hide the requests it held up
//! ("coordinated omission"). The schedule is a kernel timer, since waits of `epoll` end on milliseconds.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;

use super::Work;
use super::answer::{Received, parse};
use super::schedule::{Schedule, expirations, timer};
use super::stream::{ClientStream, ClientTls, Handshake};
use crate::readiness::Readiness;

/// The number under which the open loop's timer is watched; connections count from 0.
const TIMER: u64 = u64::MAX;

/// How long the last answers may take to come.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Beyond this many failures, and more failures than answers, nothing is being measured.
const FAILURES_WORTH_GOING_ON: u64 = 100;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to send requests.
    #[arg(long)]
    address: SocketAddr,
    /// The Host header.
    #[arg(long, default_value = "app")]
    authority: String,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests per second; without it, as many as the connections can carry.
    #[arg(long)]
    rate: Option<u32>,
    /// How long to load.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

/// Runs one load and prints its figures.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let target = Target::plain(args.address, &args.authority);
    let mut generator = Generator::new(&target, args.connections)?;
    let duration = Duration::try_from_secs_f64(args.seconds)?;
    let outcome = match args.rate {
        Some(rate) => generator.open(rate, duration)?,
        None => generator.closed(Until::Elapsed(duration))?,
    };
    println!(
        "{:.0} requests/s, {} failed, p50 {:.1} us, p99 {:.1} us",
        outcome.requests as f64 / outcome.elapsed.as_secs_f64(),
        outcome.failed,
        outcome.quantile_us(0.5),
        outcome.quantile_us(0.99),
    );
    Ok(())
}

/// Whom to ask, by which name.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) authority: String,
    /// How, if not in plaintext.
    pub(crate) tls: Option<ClientTls>,
    /// Requests say in `x-tenant` whose they are, each of so many in turn; 0: they do not.
    pub(crate) tenants: u32,
    /// The most connections that it is loaded with.
    pub(crate) most_connections: usize,
}

impl Target {
    /// In plaintext.
    pub(crate) fn plain(address: SocketAddr, authority: &str) -> Self {
        Self { address, authority: authority.to_owned(), tls: None, tenants: 0, most_connections: usize::MAX }
    }
}

/// When a closed loop stops asking.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    Elapsed(Duration),
    Requests(u64),
}

/// What a load did.
#[derive(Debug)]
pub(crate) struct LoadResult {
    /// Answers with status 200, to their last byte.
    pub(crate) requests: u64,
    /// Other answers, and connections that broke under a request.
    pub(crate) failed: u64,
    pub(crate) elapsed: Duration,
    latency_ns: Histogram<u64>,
}

impl LoadResult {
    fn new() -> Self {
        let latency_ns = Histogram::new_with_bounds(1_000, 60_000_000_000, 3)
            .expect("the bounds are in order and the precision is one that the histogram offers");
        Self { requests: 0, failed: 0, elapsed: Duration::ZERO, latency_ns }
    }

    pub(crate) fn work(&self) -> Work {
        Work {
            amount: self.requests.max(1) as f64,
            elapsed: self.elapsed,
            failed: self.failed,
            p50_us: Some(self.quantile_us(0.5)),
            p99_us: Some(self.quantile_us(0.99)),
        }
    }

    fn quantile_us(&self, quantile: f64) -> f64 {
        self.latency_ns.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// A set of connections that carry one request each at a time.
pub(crate) struct Generator {
    target: Target,
    requests: Requests,
    /// Every request has a connection of its own, which begins so.
    anew: Option<Handshake>,
    readiness: Readiness,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    in_flight: usize,
    outcome: LoadResult,
}

struct Connection {
    stream: ClientStream,
    /// When the request that it carries was due; none while it is idle.
    due: Option<Instant>,
    /// An answer whose end has not arrived.
    partial: Vec<u8>,
}

impl Generator {
    /// Connects; nothing is asked yet.
    pub(crate) fn new(target: &Target, connections: usize) -> anyhow::Result<Self> {
        Self::with_fields(target, connections, "")
    }

    /// Connects for each request, `at_once` at a time.
    pub(crate) fn connecting_anew(
        target: &Target,
        at_once: usize,
        handshake: Handshake,
    ) -> anyhow::Result<Self> {
        let mut generator = Self::with_fields(target, at_once, "connection: close\r\n")?;
        generator.anew = Some(handshake);
        Ok(generator)
    }

    fn with_fields(target: &Target, connections: usize, fields: &str) -> anyhow::Result<Self> {
        let connections = connections.min(target.most_connections);
        let mut generator = Self {
            target: target.clone(),
            requests: Requests::new(target, fields),
            anew: None,
            readiness: Readiness::new()?,
            connections: Vec::with_capacity(connections),
            buffer: vec![0; 64 * 1024],
            in_flight: 0,
            outcome: LoadResult::new(),
        };
        for index in 0..connections {
            let connection = generator.connect(index)?;
            generator.connections.push(connection);
        }
        Ok(generator)
    }

    /// Keeps every connection busy until the end.
    pub(crate) fn closed(&mut self, until: Until) -> anyhow::Result<LoadResult> {
        let start = Instant::now();
        let mut sent = 0;
        for index in 0..self.connections.len() {
            if goes_on(until, start, sent, Instant::now()) {
                sent += 1;
                self.ask(index, Instant::now())?;
            }
        }
        let mut ready = Vec::new();
        let mut last_progress = Instant::now();
        while self.in_flight > 0 {
            self.wait(&mut ready, last_progress)?;
            for id in &ready {
                let index = *id as usize;
                if self.receive(index)? {
                    last_progress = Instant::now();
                    if goes_on(until, start, sent, last_progress) {
                        sent += 1;
                        self.ask(index, last_progress)?;
                    }
                }
            }
        }
        Ok(self.finish(start))
    }

    /// Asks `rate` times a second for as long as `duration`, on whichever connections are free.
    pub(crate) fn open(&mut self, rate: u32, duration: Duration) -> anyhow::Result<LoadResult> {
        ensure!(rate > 0 && rate <= 1_000_000, "a rate of {rate} requests per second: give 1 to 1000000");
        let interval = Duration::from_secs(1) / rate;
        let total = (duration.as_secs_f64() * f64::from(rate)) as u64;
        let start = Instant::now();
        let timer = timer(interval)?;
        self.readiness.watch(&timer, TIMER)?;
        let mut schedule = Schedule::new(start, interval, total);
        let mut waiting = VecDeque::new();
        let mut free: VecDeque<usize> = (0..self.connections.len()).collect();
        let mut ready = Vec::new();
        let mut last_progress = start;
        while !schedule.is_over() || self.in_flight > 0 || !waiting.is_empty() {
            self.wait(&mut ready, last_progress)?;
            for id in &ready {
                if *id == TIMER {
                    last_progress = Instant::now();
                    waiting.extend(schedule.advance(expirations(&timer)?));
                } else if self.receive(*id as usize)? {
                    last_progress = Instant::now();
                    free.push_back(*id as usize);
                }
            }
            while !waiting.is_empty()
                && let Some(index) = free.pop_front()
            {
                let due = waiting.pop_front().expect("the loop ends when nothing waits");
                self.ask(index, due)?;
            }
        }
        Ok(self.finish(start))
    }

    /// One request on each connection, `at_once` at a time; the connections stay open and idle.
    pub(crate) fn touch_each(&mut self, at_once: usize) -> anyhow::Result<()> {
        let indexes: Vec<usize> = (0..self.connections.len()).collect();
        for group in indexes.chunks(at_once) {
            for index in group {
                self.ask(*index, Instant::now())?;
            }
            let start = Instant::now();
            let mut ready = Vec::new();
            while self.in_flight > 0 {
                self.wait(&mut ready, start)?;
                for id in &ready {
                    self.receive(*id as usize)?;
                }
            }
        }
        let outcome = self.finish(Instant::now());
        ensure!(outcome.failed == 0, "{} of {} requests failed", outcome.failed, indexes.len());
        Ok(())
    }

    fn wait(&mut self, ready: &mut Vec<u64>, last_progress: Instant) -> anyhow::Result<()> {
        self.readiness.wait(ready, Some(Duration::from_millis(100)))?;
        if ready.is_empty() && self.in_flight > 0 && last_progress.elapsed() > LAST_ANSWERS {
            bail!("{} requests to {} unanswered for {LAST_ANSWERS:?}", self.in_flight, self.target.address);
        }
        Ok(())
    }

    fn finish(&mut self, start: Instant) -> LoadResult {
        let mut outcome = std::mem::replace(&mut self.outcome, LoadResult::new());
        outcome.elapsed = start.elapsed();
        outcome
    }

    fn connect(&self, index: usize) -> anyhow::Result<Connection> {
        let stream = ClientStream::connect(&self.target, self.anew.unwrap_or(Handshake::Full))?;
        stream.set_nonblocking()?;
        self.readiness.watch(&stream, index as u64)?;
        Ok(Connection { stream, due: None, partial: Vec::new() })
    }

    fn ask(&mut self, index: usize, due: Instant) -> anyhow::Result<()> {
        if self.anew.is_some() {
            self.connections[index] = self.connect(index)?;
        }
        // One request is far smaller than a socket's buffer, so it is written whole or not at all.
        self.requests.go_on();
        if self.connections[index].stream.write_all(self.requests.next()).is_err() {
            self.failed()?;
            self.connections[index] = self.connect(index)?;
            self.connections[index].stream.write_all(self.requests.next()).with_context(|| {
                format!("{} closes connections before they carry anything", self.target.address)
            })?;
        }
        self.connections[index].due = Some(due);
        self.in_flight += 1;
        Ok(())
    }

    /// Reads what has come; true if that ended the connection's request, well or badly.
    fn receive(&mut self, index: usize) -> anyhow::Result<bool> {
        let connection = &mut self.connections[index];
        let received = connection.receive(&mut self.buffer);
        let due = connection.due;
        match (received, due) {
            (Ok(Received::Partial), _) => Ok(false),
            (Ok(Received::Complete { status: 200 }), Some(due)) => {
                let latency = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
                self.outcome.latency_ns.saturating_record(latency);
                self.outcome.requests += 1;
                self.answered(index);
                Ok(true)
            }
            (Ok(Received::Complete { .. }), Some(_)) => {
                self.answered(index);
                self.failed()?;
                Ok(true)
            }
            // An idle connection was closed: not a request lost.
            (Err(_), None) => {
                self.connections[index] = self.connect(index)?;
                Ok(false)
            }
            (Err(_), Some(_)) => {
                self.answered(index);
                self.failed()?;
                self.connections[index] = self.connect(index)?;
                Ok(true)
            }
            (Ok(Received::Complete { status }), None) => {
                bail!("{} sent an answer ({status}) that nobody asked for", self.target.address)
            }
        }
    }

    fn answered(&mut self, index: usize) {
        self.connections[index].due = None;
        self.in_flight -= 1;
    }

    fn failed(&mut self) -> anyhow::Result<()> {
        self.outcome.failed += 1;
        let LoadResult { requests, failed, .. } = self.outcome;
        ensure!(
            failed <= FAILURES_WORTH_GOING_ON || failed <= requests,
            "{failed} requests to {} ({}) failed and {requests} were answered: nothing to measure",
            self.target.address,
            self.target.authority
        );
        Ok(())
    }
}

/// What is asked, all of one length, made before anything is measured.
struct Requests {
    bytes: Vec<u8>,
    length: usize,
    at: usize,
}

impl Requests {
    fn new(target: &Target, fields: &str) -> Self {
        let head = format!("GET / HTTP/1.1\r\nhost: {}\r\n{fields}", target.authority);
        let mut bytes = Vec::new();
        for tenant in 0..target.tenants {
            bytes.extend_from_slice(format!("{head}x-tenant: {tenant:010}\r\n\r\n").as_bytes());
        }
        if bytes.is_empty() {
            bytes = format!("{head}\r\n").into_bytes();
        }
        let length = bytes.len() / target.tenants.max(1) as usize;
        Self { bytes, length, at: 0 }
    }

    fn next(&self) -> &[u8] {
        &self.bytes[self.at..self.at + self.length]
    }

    fn go_on(&mut self) {
        self.at = (self.at + self.length) % self.bytes.len();
    }
}

fn goes_on(until: Until, start: Instant, sent: u64, now: Instant) -> bool {
    match until {
        Until::Elapsed(duration) => now - start < duration,
        Until::Requests(total) => sent < total,
    }
}

impl Connection {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let read = match self.stream.read_available(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Partial),
            Err(error) => return Err(error),
        };
        if self.partial.is_empty() {
            let received = parse(&buffer[..read])?;
            if received == Received::Partial {
                self.partial.extend_from_slice(&buffer[..read]);
            }
            return Ok(received);
        }
        self.partial.extend_from_slice(&buffer[..read]);
        let received = parse(&self.partial)?;
        if received != Received::Partial {
            self.partial.clear();
        }
        Ok(received)
    }
}
