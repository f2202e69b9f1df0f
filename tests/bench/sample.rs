//! One subject's turn in a round: a saturating load, then 1,000 requests a second.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use crate::load::{Generator, Target, Until};
use crate::measure::{Machine, cpu};

/// The rate at which the added latency is measured: far below what any subject can carry.
pub(crate) const LIGHT_RATE: u32 = 1000;

/// Rounds in which the host took more than this for others are not counted.
const MOST_STEAL: f64 = 0.03;

/// How long the connections are used before they are measured.
const WARM_UP: Duration = Duration::from_millis(250);

/// What one turn of one subject showed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) requests_per_second: f64,
    /// CPU time of both proxies per request, in microseconds.
    pub(crate) cpu_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// The same at [`LIGHT_RATE`].
    pub(crate) light_cpu_us: f64,
    pub(crate) light_p50_us: f64,
    pub(crate) light_p99_us: f64,
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

/// How a turn is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) connections: usize,
    /// How long each of the two loads lasts.
    pub(crate) duration: Duration,
}

/// Takes one sample. `proxies` are the processes charged; `others` are the rest of the benchmark's.
pub(crate) fn take(turn: Turn, target: &Target, proxies: &[u32], others: &[u32]) -> anyhow::Result<Sample> {
    let mut generator = Generator::new(target, turn.connections)?;
    generator.closed(Until::Elapsed(WARM_UP))?;

    let everyone: Vec<u32> = proxies.iter().chain(others).copied().collect();
    let machine = Machine::now()?;
    let start = Instant::now();
    let (ours, all) = (cpu(proxies)?, cpu(&everyone)?);
    let saturated = generator.closed(Until::Elapsed(turn.duration))?;
    let between = cpu(proxies)?;
    let light = generator.open(LIGHT_RATE, turn.duration)?;
    let (ours_after, all_after) = (cpu(proxies)?, cpu(&everyone)?);
    let elapsed = start.elapsed();
    let used = machine.until(Machine::now()?);

    let cpus = std::thread::available_parallelism().context("cannot count the CPUs")?.get() as f64;
    let benchmark = (all_after - all).as_secs_f64() / (elapsed.as_secs_f64() * cpus);
    Ok(Sample {
        requests_per_second: saturated.rate(),
        cpu_us: per_request(between - ours, saturated.requests),
        p50_us: saturated.quantile_us(0.5),
        p99_us: saturated.quantile_us(0.99),
        light_cpu_us: per_request(ours_after - between, light.requests),
        light_p50_us: light.quantile_us(0.5),
        light_p99_us: light.quantile_us(0.99),
        failed: saturated.failed + light.failed,
        steal: used.steal,
        elsewhere: (used.busy - benchmark).max(0.0),
    })
}

fn per_request(cpu: Duration, requests: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / requests.max(1) as f64
}
