//! Instructions in user space, counted by valgrind's callgrind: the same in each run, however busy the machine is. Where a change
//! makes no other system calls, this tells costs that are smaller than what the CPU times of two turns differ by.
//!
//! Only of the threads that carry traffic. What others do each second, such as sending spans, is a part of a request that is as
//! much larger here as callgrind makes all slower.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::load::generator::{Generator, Until};
use crate::pairs::{Kind, Site};
use crate::process::{installed, output, poll_until};
use crate::report::base_of;

/// Carried before it is counted, so that all connections are open that there will be.
const WARM_UP: u64 = 5_000;

/// How many of them carry requests.
const CONNECTIONS: usize = 64;

/// What requests of one subject take.
#[derive(Debug, Serialize)]
pub(crate) struct Counted {
    pub(crate) name: &'static str,
    /// Instructions of its worker for a request, in the client's half and in the server's, or in the one proxy.
    pub(crate) proxies: Vec<f64>,
}

impl Counted {
    fn sum(&self) -> f64 {
        self.proxies.iter().sum()
    }

    /// As a multiple of what it is compared with, if that is among `all`.
    pub(crate) fn ratio(&self, all: &[Self]) -> Option<f64> {
        let base = all.iter().find(|other| other.name == base_of(self.name))?;
        Some(self.sum() / base.sum())
    }
}

/// Why it cannot be counted on this machine, and what to do about it.
pub(crate) fn missing() -> Option<String> {
    let is_there = installed("valgrind").is_some() && installed("callgrind_control").is_some();
    (!is_there).then(|| "valgrind is not installed: apt-get install valgrind".to_owned())
}

/// What starts `program` so that its instructions are counted.
pub(crate) fn counting(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["-q", "--tool=callgrind", "--separate-threads=yes"]);
    command.arg(format!("--callgrind-out-file={}", directory.join("callgrind.%p").display()));
    command.arg(program);
    command
}

/// Starts `kind` alone, and counts over so many requests.
pub(crate) fn take(kind: Kind, site: &Site, requests: u64) -> anyhow::Result<Counted> {
    let site = Site { counts_instructions: true, ..site.clone() };
    let pair = kind.start(&site)?;
    let mut generator = Generator::new(&pair.target, CONNECTIONS)?;
    let mut carry = |requests| {
        let outcome = generator.closed(Until::Requests(requests))?;
        ensure!(outcome.failed == 0, "{} of {requests} requests failed", outcome.failed);
        anyhow::Ok(())
    };
    carry(WARM_UP)?;
    let proxies = pair.proxies();
    for proxy in &proxies {
        since_the_last(*proxy, 1, &site.directory)?;
    }
    carry(requests)?;
    let counts = proxies.iter().map(|proxy| since_the_last(*proxy, 2, &site.directory));
    let counts = counts.collect::<anyhow::Result<Vec<u64>>>()?;
    let proxies = counts.into_iter().map(|count| count as f64 / requests as f64).collect();
    Ok(Counted { name: kind.name(), proxies })
}

/// How many instructions the busiest thread of `process` has taken since this was asked last, which is done for the `time`th time.
fn since_the_last(process: u32, time: u32, directory: &Path) -> anyhow::Result<u64> {
    let mut dump = Command::new("callgrind_control");
    dump.args(["--dump", &process.to_string()]);
    output(dump)?;
    // It has written one file for each thread, with the thread's number at the end.
    let prefix = format!("callgrind.{process}.{time}-");
    let mut busiest = None;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            busiest = busiest.max(Some(written(&entry.path())?));
        }
    }
    busiest.with_context(|| format!("callgrind wrote no {prefix}* into {}", directory.display()))
}

/// The total in `file`, once it is there.
fn written(file: &Path) -> anyhow::Result<u64> {
    let count = poll_until(Duration::from_secs(10), || {
        Ok(fs::read_to_string(file).ok().and_then(|text| total(&text)))
    })?;
    count.with_context(|| format!("callgrind wrote no total into {}", file.display()))
}

/// The line in which callgrind's format has the sum of all costs.
fn total(dump: &str) -> Option<u64> {
    dump.lines().rev().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_dump_is_its_last_lines() {
        assert_eq!(total("events: Ir\nsummary: 12\n\nfn=(1)\n1 12\n\ntotals: 12\n"), Some(12));
        assert_eq!(total("events: Ir\nfn=(1)\n1 12\n"), None, "it is still being written");
    }

    #[test]
    fn a_ratio_is_of_all_proxies_together() {
        let all = [("selvedge-h1", [40.0, 60.0]), ("traces-1", [40.0, 62.0]), ("balance-random", [1.0, 1.0])];
        let all = all.map(|(name, proxies)| Counted { name, proxies: proxies.to_vec() });

        assert_eq!(all[1].ratio(&all), Some(1.02));
        assert_eq!(all[2].ratio(&all), None, "what it is compared with was not counted");
    }
}
