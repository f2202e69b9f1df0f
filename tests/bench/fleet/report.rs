//! What a run with a fleet has found out.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde::Serialize;
use serde_json::json;

/// One case. What is not measured is `None`.
#[derive(Debug, Default)]
pub(super) struct Case {
    pub(super) name: &'static str,
    /// How long it took: once, or to each proxy that it concerned.
    pub(super) seconds: Vec<Duration>,
    /// The control plane's CPU time, of one change where there are several.
    pub(super) cpu: Option<Duration>,
    /// The fleet's.
    pub(super) own: Option<Duration>,
    /// Time to compile.
    pub(super) compile: Option<Duration>,
    /// The control plane's memory, or what it had more.
    pub(super) memory_kib: Option<u64>,
    pub(super) kib_for_each: Option<f64>,
    /// Attempts to connect that failed.
    pub(super) failed: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Row {
    case: &'static str,
    arrivals: usize,
    p50_seconds: f64,
    p99_seconds: f64,
    /// How many times that of `endpoint`, of a case beside which there is something else.
    p99_to_alone: Option<f64>,
    cpu_seconds: Option<f64>,
    fleet_cpu_seconds: Option<f64>,
    compile_seconds: Option<f64>,
    memory_mib: Option<f64>,
    kib_for_each_proxy: Option<f64>,
    failed_connections: Option<usize>,
}

impl From<Case> for Row {
    fn from(mut case: Case) -> Self {
        case.seconds.sort_unstable();
        let seconds = |time: Duration| time.as_secs_f64();
        Self {
            case: case.name,
            arrivals: case.seconds.len(),
            p50_seconds: percentile(&case.seconds, 50).as_secs_f64(),
            p99_seconds: percentile(&case.seconds, 99).as_secs_f64(),
            p99_to_alone: None,
            cpu_seconds: case.cpu.map(seconds),
            fleet_cpu_seconds: case.own.map(seconds),
            compile_seconds: case.compile.map(seconds),
            memory_mib: case.memory_kib.map(|kib| kib as f64 / 1024.0),
            kib_for_each_proxy: case.kib_for_each,
            failed_connections: case.failed,
        }
    }
}

/// The smallest time that so many percent of the `sorted` ones do not exceed; zero, if there are none.
pub(super) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

/// Everything that a run found out.
#[derive(Debug)]
pub(super) struct Report {
    label: String,
    proxies: usize,
    services: usize,
    cpu: String,
    rows: Vec<Row>,
}

impl Report {
    pub(super) fn new(label: String, proxies: usize, services: usize) -> anyhow::Result<Self> {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let model = model.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, model)| model);
        let cpu = format!("{} CPUs ({model})", std::thread::available_parallelism()?);
        Ok(Self { label, proxies, services, cpu, rows: Vec::new() })
    }

    pub(super) fn add(&mut self, case: Case) {
        let mut row = Row::from(case);
        if row.case.starts_with("endpoint-beside") {
            let alone = self.rows.iter().find(|row| row.case == "endpoint");
            row.p99_to_alone = alone.map(|alone| row.p99_seconds / alone.p99_seconds);
        }
        eprintln!("{}: p99 {:.3} s", row.case, row.p99_seconds);
        self.rows.push(row);
    }

    pub(super) fn print(&self, as_json: bool) -> anyhow::Result<()> {
        let ended_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let Self { label, proxies, services, cpu, rows } = self;
        if as_json {
            let whole = json!({
                "ended_at": ended_at, "label": label, "proxies": proxies, "services": services, "cpus": cpu, "cases": rows,
            });
            println!("{}", serde_json::to_string_pretty(&whole)?);
            return Ok(());
        }
        println!(
            "{ended_at}, {label}; {proxies} proxies, {services} services, on {cpu}, which the fleet shares\n"
        );
        println!(
            "| case | arrivals | p50 s | p99 s | to `endpoint` | CPU s | the fleet's | compile s | memory MiB | KiB each | failed connections |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        for row in rows {
            println!(
                "| {} | {} | {:.3} | {:.3} | {} | {} | {} | {} | {} | {} | {} |",
                row.case,
                row.arrivals,
                row.p50_seconds,
                row.p99_seconds,
                number(row.p99_to_alone, 2),
                number(row.cpu_seconds, 3),
                number(row.fleet_cpu_seconds, 3),
                number(row.compile_seconds, 4),
                number(row.memory_mib, 1),
                number(row.kib_for_each_proxy, 1),
                row.failed_connections.map_or_else(|| "-".to_owned(), |count| count.to_string()),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();

        assert_eq!(percentile(&times, 50), Duration::from_millis(100));
        assert_eq!(percentile(&times, 99), Duration::from_millis(198));
        assert_eq!(percentile(&times[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
