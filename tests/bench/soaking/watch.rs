//! Memory and descriptors of every sidecar, and whether they grow.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use selvedge_demo::cluster::Cluster;
use serde::Serialize;

use super::{CALLER, SERVERS};
use crate::measure::resident_kib;

/// Both low and high tide at the end must exceed those after warm-up by this share, and by these KiB, to be a
/// leak. Slow readers hold up to a window each, on whichever server they are, and the allocator gives back what
/// they held in its own time, so that either alone comes and goes by a third; what leaks lifts both.
const GROWTH: f64 = 0.1;
const GROWTH_KIB: f64 = 3072.0;

/// The same for descriptors, whose number goes up and down with the faults.
const GROWTH_DESCRIPTORS: f64 = 30.0;

#[derive(Debug, Serialize)]
pub(super) struct Watch {
    processes: Vec<Watched>,
}

#[derive(Debug, Serialize)]
struct Watched {
    name: String,
    pid: u32,
    looks: Vec<Look>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Look {
    seconds: f64,
    resident_kib: f64,
    descriptors: f64,
}

impl Watch {
    pub(super) fn of(cluster: &Cluster) -> Self {
        let sidecars = [CALLER, SERVERS[0], SERVERS[1]].into_iter().filter_map(|name| {
            let pid = cluster.workload(name).sidecar_process()?.pid();
            Some(Watched { name: name.to_owned(), pid, looks: Vec::new() })
        });
        Self { processes: sidecars.collect() }
    }

    /// Looks at all of them, and says on stderr what it sees now and then.
    pub(super) fn look(&mut self, at: Duration, asked: u64, failed: u64) -> anyhow::Result<()> {
        for watched in &mut self.processes {
            let descriptors = std::fs::read_dir(format!("/proc/{}/fd", watched.pid))
                .with_context(|| format!("{}'s sidecar is gone", watched.name))?
                .count();
            watched.looks.push(Look {
                seconds: at.as_secs_f64(),
                resident_kib: resident_kib(&[watched.pid])?.iter().sum::<u64>() as f64,
                descriptors: descriptors as f64,
            });
        }
        if self.processes.first().is_some_and(|watched| watched.looks.len() % 15 == 1) {
            let now: Vec<String> = self.processes.iter().filter_map(Watched::now).collect();
            eprintln!("{:4.0} s: {asked} GETs, {failed} failed; {}", at.as_secs_f64(), now.join(", "));
        }
        Ok(())
    }

    /// What grew that should not.
    pub(super) fn leaks(&self) -> Vec<String> {
        let grown = |watched: &Watched| {
            let rises = |(early, late): (f64, f64)| late - early > (early * GROWTH).max(GROWTH_KIB);
            let (early, late) = watched.low_tides(|look| look.resident_kib)?;
            let (few, many) = watched.low_tides(|look| look.descriptors)?;
            let memory = rises((early, late)) && rises(watched.high_tides(|look| look.resident_kib)?);
            let descriptors = many - few > GROWTH_DESCRIPTORS;
            (memory || descriptors).then(|| {
                format!("{}: {early:.0} -> {late:.0} KiB, {few:.0} -> {many:.0} descriptors", watched.name)
            })
        };
        self.processes.iter().filter_map(grown).collect()
    }
}

impl Watched {
    fn now(&self) -> Option<String> {
        let look = self.looks.last()?;
        Some(format!("{} {:.1} MiB {} fds", self.name, look.resident_kib / 1024.0, look.descriptors))
    }

    /// What nine of ten looks exceed, in the second quarter, when all is warm, and in the last.
    fn low_tides(&self, figure: fn(&Look) -> f64) -> Option<(f64, f64)> {
        self.tides(figure, 0.1)
    }

    /// What one of ten looks exceeds, in the same quarters.
    fn high_tides(&self, figure: fn(&Look) -> f64) -> Option<(f64, f64)> {
        self.tides(figure, 0.9)
    }

    fn tides(&self, figure: fn(&Look) -> f64, share: f64) -> Option<(f64, f64)> {
        let quarter = self.looks.len() / 4;
        let tide = |looks: &[Look]| {
            let mut values: Vec<f64> = looks.iter().map(figure).collect();
            values.sort_by(f64::total_cmp);
            values.get((values.len() as f64 * share) as usize).copied()
        };
        Some((tide(&self.looks[quarter..2 * quarter])?, tide(&self.looks[3 * quarter..])?))
    }

    /// KiB per minute after the first quarter, by least squares.
    fn slope(&self) -> f64 {
        let looks = &self.looks[self.looks.len() / 4..];
        let count = looks.len().max(1) as f64;
        let mean_of = |figure: fn(&Look) -> f64| looks.iter().map(figure).sum::<f64>() / count;
        let (time, memory) = (mean_of(|look| look.seconds), mean_of(|look| look.resident_kib));
        let product = |look: &Look| (look.seconds - time) * (look.resident_kib - memory);
        let square = |look: &Look| (look.seconds - time).powi(2);
        let squares: f64 = looks.iter().map(square).sum();
        60.0 * looks.iter().map(product).sum::<f64>() / squares.max(f64::MIN_POSITIVE)
    }
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n| sidecar   | MiB warm     | MiB end      | KiB/min | fds warm | fds end |")?;
        write!(f, "|-----------|--------------|--------------|--------:|---------:|--------:|")?;
        for watched in &self.processes {
            let (low, late_low) = watched.low_tides(|look| look.resident_kib).unwrap_or_default();
            let (high, late_high) = watched.high_tides(|look| look.resident_kib).unwrap_or_default();
            let (few, many) = watched.low_tides(|look| look.descriptors).unwrap_or_default();
            let span = |low: f64, high: f64| format!("{:.1} to {:.1}", low / 1024.0, high / 1024.0);
            let (warm, end) = (span(low, high), span(late_low, late_high));
            let (name, slope) = (&watched.name, watched.slope());
            write!(f, "\n| {name:9} | {warm:12} | {end:12} | {slope:>7.1} | {few:>8.0} | {many:>7.0} |")?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(resident_kib: impl Fn(f64) -> f64) -> Watch {
        let looks = (0..100).map(|at| f64::from(at) * 6.0).map(|seconds| Look {
            seconds,
            resident_kib: resident_kib(seconds),
            descriptors: 50.0,
        });
        Watch { processes: vec![Watched { name: "caller".to_owned(), pid: 1, looks: looks.collect() }] }
    }

    #[test]
    fn what_warms_up_and_stays_is_no_leak() {
        assert!(watched(|seconds| 10_000.0 + 10_000.0 * (seconds / 60.0).min(1.0)).leaks().is_empty());
    }

    #[test]
    fn what_comes_and_goes_is_no_leak() {
        let tide = |seconds: f64| if seconds % 120.0 < 60.0 { 15_000.0 } else { 0.0 };

        assert!(watched(|seconds| 25_000.0 + tide(seconds)).leaks().is_empty());
        assert!(watched(|seconds| 25_000.0 + tide(seconds + 60.0)).leaks().is_empty());
    }

    #[test]
    fn what_grows_to_the_end_is_one() {
        let growing = watched(|seconds| 20_000.0 + 20.0 * seconds);

        assert_eq!(growing.leaks().len(), 1);
        assert!((growing.processes[0].slope() - 1200.0).abs() < 1.0);
    }
}
