//! What the kernel knows about processes and the machine: CPU time, memory, system calls, steal.
//!
//! CPU time is read per thread from `schedstat`, in nanoseconds: `stat` counts in ticks of 10 ms, which
//! is a percent of a short round.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;

use crate::process::{Running, installed, poll_until};

/// The CPU time that the processes have used, all their threads together.
pub(crate) fn cpu(processes: &[u32]) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    for process in processes {
        let tasks = format!("/proc/{process}/task");
        for task in fs::read_dir(&tasks).with_context(|| format!("process {process} ended while measured"))? {
            let file = task?.path().join("schedstat");
            // A thread may end between being listed and being read.
            let Ok(schedstat) = fs::read_to_string(&file) else { continue };
            let nanoseconds = schedstat.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
            total += Duration::from_nanos(nanoseconds.with_context(|| {
                format!("{} has no run time; the kernel needs CONFIG_SCHED_INFO", file.display())
            })?);
        }
    }
    Ok(total)
}

/// The CPU time of this process's children that have ended and been waited for, in ticks of 10 ms.
pub(crate) fn cpu_of_children() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    // The name may have spaces; fields 16 and 17 of proc(5) are the 14th and 15th after it.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace().skip(13).take(2));
    let ticks: u64 = fields.into_iter().flatten().filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(10 * ticks))
}

/// The resident memory of each of the processes, in KiB.
pub(crate) fn resident_kib(processes: &[u32]) -> anyhow::Result<Vec<u64>> {
    processes.iter().map(|process| status_number(*process, "VmRSS:")).collect()
}

/// The memory of a process and its children, in KiB; what several of them share counts once.
pub(crate) fn proportional_kib(process: u32) -> anyhow::Result<u64> {
    let own = number_in(process, "smaps_rollup", "Pss:")?;
    // One that takes over from another may have ended meanwhile.
    let of_children = children_of(process)?.into_iter().filter_map(|child| proportional_kib(child).ok());
    Ok(own + of_children.sum::<u64>())
}

/// How many children a process has.
pub(crate) fn children(process: u32) -> anyhow::Result<usize> {
    Ok(children_of(process)?.len())
}

fn children_of(process: u32) -> anyhow::Result<Vec<u32>> {
    let file = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    Ok(children.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect())
}

fn status_number(process: u32, name: &str) -> anyhow::Result<u64> {
    number_in(process, "status", name)
}

fn number_in(process: u32, file: &str, name: &str) -> anyhow::Result<u64> {
    let file = format!("/proc/{process}/{file}");
    let status =
        fs::read_to_string(&file).with_context(|| format!("process {process} ended while measured"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
    number.with_context(|| format!("{file} has no {name}"))
}

/// The machine's clock ticks since it started, by use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    total: u64,
    idle: u64,
    steal: u64,
}

/// How a stretch of time was used, as shares of all CPUs' time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Use {
    /// Spent on this machine's processes and its kernel.
    pub(crate) busy: f64,
    /// Taken by the host for others.
    pub(crate) steal: f64,
}

impl Machine {
    pub(crate) fn now() -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Self::parse(&stat).context("/proc/stat does not begin with the sum over all CPUs")
    }

    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let fields: Vec<u64> =
            line.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        // user nice system idle iowait irq softirq steal; what follows is counted in user already.
        let [_, _, _, idle, iowait, _, _, steal, ..] = fields[..] else { return None };
        Some(Self { total: fields[..8].iter().sum(), idle: idle + iowait, steal })
    }

    /// How the time since `self` was used.
    pub(crate) fn until(self, later: Self) -> Use {
        let total = later.total.saturating_sub(self.total).max(1) as f64;
        let idle = later.idle.saturating_sub(self.idle) as f64;
        let steal = later.steal.saturating_sub(self.steal) as f64;
        Use { busy: (1.0 - (idle + steal) / total).max(0.0), steal: steal / total }
    }
}

/// A count of system calls under way; finish it to read it.
pub(crate) struct SystemCalls {
    strace: Running,
    counts: PathBuf,
}

impl SystemCalls {
    /// Attaches to every thread of the processes; none when `strace` is not installed.
    pub(crate) fn attach(name: &str, processes: &[u32], directory: &Path) -> anyhow::Result<Option<Self>> {
        let Some(strace) = installed("strace") else { return Ok(None) };
        let counts = directory.join(format!("{name}.strace"));
        let mut command = Command::new(strace);
        command.args(["-f", "-c", "-o"]).arg(&counts);
        for process in processes {
            command.args(["-p", &process.to_string()]);
        }
        let mut strace = Running::start(&format!("{name}-strace"), command, directory)?;
        let attached = poll_until(Duration::from_secs(5), || {
            Ok(processes.iter().map(|process| all_traced(*process)).collect::<anyhow::Result<Vec<bool>>>()?)
                .map(|traced| traced.into_iter().all(|traced| traced).then_some(()))
        })?;
        match attached {
            Some(()) => Ok(Some(Self { strace, counts })),
            None => {
                Err(strace
                    .failure("did not attach; tracing may be forbidden here (kernel.yama.ptrace_scope)"))
            }
        }
    }

    /// Detaches; how many calls there were.
    pub(crate) fn finish(self) -> anyhow::Result<u64> {
        self.strace.finish(Signal::INT, Duration::from_secs(5))?;
        let summary = fs::read_to_string(&self.counts).context("strace wrote no summary")?;
        match total_calls(&summary) {
            Some(calls) => Ok(calls),
            None => bail!("strace's summary has no total:\n{summary}"),
        }
    }
}

fn all_traced(process: u32) -> anyhow::Result<bool> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"))
        .with_context(|| format!("process {process} ended while measured"))?;
    for task in tasks {
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        if status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() == "0")) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The `calls` column of the line that strace's summary ends with.
fn total_calls(summary: &str) -> Option<u64> {
    let line = summary.lines().rfind(|line| line.trim_end().ends_with(" total"))?;
    line.split_ascii_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_grows_while_a_process_works() {
        let this = [std::process::id()];
        let before = cpu(&this).unwrap();

        let grown = poll_until(Duration::from_secs(5), || Ok((cpu(&this)? > before).then_some(()))).unwrap();

        assert!(grown.is_some());
    }

    #[test]
    fn steal_is_neither_busy_nor_idle() {
        let before = Machine::parse("cpu  100 0 50 800 50 0 0 0 7 0\n").unwrap();
        let after = Machine::parse("cpu  140 0 60 830 60 0 0 10 9 0\n").unwrap();

        let shares = before.until(after);

        assert!((shares.steal - 0.1).abs() < 1e-9, "{shares:?}");
        assert!((shares.busy - 0.5).abs() < 1e-9, "{shares:?}");
    }

    #[test]
    fn the_total_is_read_with_and_without_errors() {
        let without = "100.00    0.000100           0      6300           total\n";
        let with = "100.00    0.000100           0      6300        12 total\n";

        assert_eq!(total_calls(without), Some(6300));
        assert_eq!(total_calls(with), Some(6300));
        assert_eq!(total_calls("% time     seconds\n"), None);
    }
}
