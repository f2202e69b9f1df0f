//! What is taken once for each subject, while it is fresh: how long a start takes, and memory with idle
//! connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::load::generator::{Generator, Target};
use crate::measure::resident_kib;
use crate::pairs::{Pair, Starting};

/// How long a start may take.
const LIMIT: Duration = Duration::from_secs(20);

/// How many requests are under way at once while connections are used for the first time.
const AT_ONCE: usize = 64;

/// Resident memory of the proxies, each by itself: the client's half, then the server's.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Footprint {
    /// Fresh, after one request.
    pub(crate) idle_kib: Vec<u64>,
    /// With so many client connections that carried a request each and wait.
    pub(crate) with_connections: Vec<(usize, Vec<u64>)>,
}

impl Footprint {
    /// KiB of each proxy for each of `connections`.
    pub(crate) fn per_connection(&self, connections: usize) -> Option<Vec<f64>> {
        let (_, kib) = self.with_connections.iter().find(|(count, _)| *count == connections)?;
        let more = kib.iter().zip(&self.idle_kib).map(|(kib, idle)| kib.saturating_sub(*idle));
        Some(more.map(|kib| kib as f64 / connections as f64).collect())
    }
}

pub(crate) fn footprint(pair: &Pair, counts: &[usize]) -> anyhow::Result<Footprint> {
    let idle_kib = resident_kib(&pair.proxies())?;
    let mut with_connections = Vec::new();
    for count in counts {
        let mut generator = Generator::new(&pair.target, *count)?;
        generator.touch_each(AT_ONCE)?;
        with_connections.push((*count, resident_kib(&pair.proxies())?));
    }
    Ok(Footprint { idle_kib, with_connections })
}

/// Milliseconds from starting the client's half, with all else there, until it is ready: each of `times`.
pub(crate) fn starts(pair: &Pair, times: usize) -> anyhow::Result<Vec<f64>> {
    let mut taken = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        let Some(starting) = pair.start_another() else { break };
        let Starting { mut process, ready, path } = starting?;
        while !answers(&ready, path) {
            if began.elapsed() > LIMIT {
                return Err(process.failure("did not become ready"));
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        taken.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(taken)
}

fn answers(target: &Target, path: &str) -> bool {
    let ask = || -> anyhow::Result<()> {
        let mut stream = TcpStream::connect_timeout(&target.address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let authority = &target.authority;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start).context("no answer")?;
        ensure!(start.ends_with(b" 200"), "another answer");
        Ok(())
    };
    ask().is_ok()
}
