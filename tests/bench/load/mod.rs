//! The loads: what a subject is given to carry in its turn, and what is seen of it meanwhile.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use crate::measure::{Machine, cpu, cpu_of_children};
use crate::pairs::Pair;

mod answer;
mod bulk;
mod connections;
pub(crate) mod generator;
mod h2;
mod keep_alive;
mod schedule;
mod steady;
pub(crate) mod stream;

/// Rounds in which the host took more than this for others are not counted.
const MOST_STEAL: f64 = 0.03;

/// How long connections are used before they are measured.
const WARM_UP: Duration = Duration::from_millis(250);

/// Something to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    KeepAlive,
    Steady,
    H2,
    Connections,
    Resumed,
    Download,
    Upload,
}

impl Load {
    pub(crate) const ALL: [Self; 7] = [
        Self::KeepAlive,
        Self::Steady,
        Self::H2,
        Self::Connections,
        Self::Resumed,
        Self::Download,
        Self::Upload,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::Steady => "steady",
            Self::H2 => "h2",
            Self::Connections => "connections",
            Self::Resumed => "resumed",
            Self::Download => "download",
            Self::Upload => "upload",
        }
    }

    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::KeepAlive => {
                "GET of 1 KiB over keep-alive HTTP/1.1 connections, as fast as they are answered"
            }
            Self::Steady => "1,000 such requests per second, due at fixed times",
            Self::H2 => "GET of 1 KiB over 8 HTTP/2 connections of 16 streams each, by h2load",
            Self::Connections => {
                "GET of 1 KiB, each over a connection of its own; with TLS, a full handshake each"
            }
            Self::Resumed => "the same, each going on with an earlier TLS session",
            Self::Download => "one large answer over one connection",
            Self::Upload => "one large request over one connection",
        }
    }

    /// Whether it is counted in GiB, and not in requests.
    pub(crate) const fn is_bulk(self) -> bool {
        matches!(self, Self::Download | Self::Upload)
    }

    /// Why it cannot be measured on this machine, and what to do about it.
    pub(crate) fn missing(self) -> Option<String> {
        match self {
            Self::H2 => h2::missing(),
            _ => None,
        }
    }
}

/// How a turn is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) connections: usize,
    /// How long each load lasts that has no other end.
    pub(crate) duration: Duration,
    /// The size of a large body.
    pub(crate) bulk_bytes: u64,
}

/// What was carried.
#[derive(Debug)]
pub(crate) struct Work {
    /// Requests, or GiB.
    pub(crate) amount: f64,
    pub(crate) elapsed: Duration,
    pub(crate) failed: u64,
    /// Latencies in microseconds: of the middle request, and of the slowest in a hundred.
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
}

/// What one turn of one subject showed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    /// Requests, or GiB, per second.
    pub(crate) rate: f64,
    /// CPU time of both proxies: microseconds per request, or seconds per GiB.
    pub(crate) cpu: f64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) failed: u64,
    /// The share of the machine that the host took for others.
    pub(crate) steal: f64,
    /// The share of the machine that processes outside the benchmark used.
    pub(crate) elsewhere: f64,
}

impl Sample {
    /// Whether the machine was ours while it was taken.
    pub(crate) fn is_clean(&self) -> bool {
        self.steal <= MOST_STEAL
    }
}

/// Gives `pair` one load. `app` is the backend's process, which like the load generator is not charged.
pub(crate) fn take(load: Load, turn: Turn, pair: &Pair, app: u32) -> anyhow::Result<Sample> {
    let watch = Watch { load, proxies: pair.proxies(), others: [pair.beside(), vec![app]].concat() };
    let target = &pair.target;
    match load {
        Load::KeepAlive => keep_alive::take(turn, target, &watch),
        Load::Steady => steady::take(turn, target, &watch),
        Load::H2 => h2::take(turn, target, &watch),
        Load::Connections | Load::Resumed => connections::take(turn, target, &watch),
        Load::Download | Load::Upload => bulk::take(turn, target, &watch),
    }
}

/// Whose use is noted while a load is carried.
struct Watch {
    load: Load,
    /// The processes charged.
    proxies: Vec<u32>,
    /// The rest of the benchmark's, beside this one and its children.
    others: Vec<u32>,
}

impl Watch {
    /// What it took to do `work`.
    fn during(&self, work: impl FnOnce() -> anyhow::Result<Work>) -> anyhow::Result<Sample> {
        let (machine, start) = (Machine::now()?, Instant::now());
        let (proxies, everyone) = (cpu(&self.proxies)?, self.everyone()?);
        let done = work()?;
        let proxies = cpu(&self.proxies)? - proxies;
        let everyone = self.everyone()?.saturating_sub(everyone);
        let elapsed = start.elapsed();
        let used = machine.until(Machine::now()?);

        let cpus = std::thread::available_parallelism().context("cannot count the CPUs")?.get() as f64;
        let benchmark = everyone.as_secs_f64() / (elapsed.as_secs_f64() * cpus);
        let scale = if self.load.is_bulk() { 1.0 } else { 1e6 };
        Ok(Sample {
            rate: done.amount / done.elapsed.as_secs_f64(),
            cpu: proxies.as_secs_f64() * scale / done.amount,
            p50_us: done.p50_us,
            p99_us: done.p99_us,
            failed: done.failed,
            steal: used.steal,
            elsewhere: (used.busy - benchmark).max(0.0),
        })
    }

    fn everyone(&self) -> anyhow::Result<Duration> {
        let ours = [std::process::id()];
        Ok(cpu(&self.proxies)? + cpu(&self.others)? + cpu(&ours)? + cpu_of_children()?)
    }
}
