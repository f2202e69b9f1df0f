//! From samples to what is told: medians over the clean rounds, and medians of ratios within rounds.

use std::fmt;
use std::time::SystemTime;

use anyhow::Context;
use serde::Serialize;

use crate::sample::{Sample, Turn};

/// Who is compared with whom: the product with its floor and the peers, and the floor with the peers to
/// show that it is a floor.
const COMPARED: [(&str, &str); 8] = [
    ("selvedge-h1", "floor-h1"),
    ("selvedge-h2", "floor-h2"),
    ("selvedge-h1", "nginx"),
    ("selvedge-h1", "haproxy-h1"),
    ("selvedge-h2", "haproxy-h2"),
    ("floor-h1", "nginx"),
    ("floor-h1", "haproxy-h1"),
    ("floor-h2", "haproxy-h2"),
];

/// Everything that a run found out.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) conditions: Conditions,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) skipped: Vec<Skipped>,
}

/// Under what the figures were taken.
#[derive(Debug, Serialize)]
pub(crate) struct Conditions {
    taken_at: String,
    label: String,
    kernel: String,
    cpu: String,
    cpus: usize,
    rounds: u32,
    seconds_per_load: f64,
    connections: usize,
}

impl Conditions {
    pub(crate) fn now(label: String, turn: Turn, rounds: u32) -> anyhow::Result<Self> {
        let read = |file: &str| std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"));
        let cpuinfo = read("/proc/cpuinfo")?;
        let model = cpuinfo
            .lines()
            .find(|line| line.starts_with("model name"))
            .and_then(|line| line.split_once(": "));
        Ok(Self {
            taken_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            label,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpu: model.map_or("unknown", |(_, model)| model).to_owned(),
            cpus: std::thread::available_parallelism()?.get(),
            rounds,
            seconds_per_load: turn.duration.as_secs_f64(),
            connections: turn.connections,
        })
    }
}

/// Something that was not measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Skipped {
    pub(crate) name: &'static str,
    pub(crate) why: String,
}

/// What was seen of one subject; its samples are in the order of the rounds.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) footprint: Option<Footprint>,
    pub(crate) system_calls: Option<f64>,
    pub(crate) samples: Vec<Sample>,
}

/// Resident memory of both proxies.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Footprint {
    pub(crate) idle_kib: u64,
    pub(crate) with_connections_kib: u64,
}

impl Subject {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, footprint: None, system_calls: None, samples: Vec::new() }
    }

    fn median(&self, figure: impl Fn(&Sample) -> f64) -> Option<f64> {
        median(self.samples.iter().filter(|sample| sample.is_clean()).map(figure).collect())
    }

    /// The median over the rounds that were clean for both, of what `combine` makes of the two.
    fn paired(&self, other: &Self, combine: impl Fn(&Sample, &Sample) -> f64) -> Option<f64> {
        let pairs = self.samples.iter().zip(&other.samples);
        median(
            pairs
                .filter(|(one, two)| one.is_clean() && two.is_clean())
                .map(|(one, two)| combine(one, two))
                .collect(),
        )
    }
}

/// The middle of the values, or between the two middle ones; none of no value.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some((values[middle - 1] + upper) / 2.0)
}

/// What is printed.
#[derive(Debug, Serialize)]
pub(crate) struct Summary<'a> {
    conditions: &'a Conditions,
    subjects: Vec<Row<'a>>,
    ratios: Vec<Ratio>,
    skipped: &'a [Skipped],
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'static str,
    rounds_kept: usize,
    requests_per_second: Option<f64>,
    cpu_us_per_request: Option<f64>,
    system_calls_per_request: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    /// At 1,000 requests a second: the median request's latency, less that of the app alone.
    added_p50_us: Option<f64>,
    light_p50_us: Option<f64>,
    light_p99_us: Option<f64>,
    light_cpu_us_per_request: Option<f64>,
    rss_idle_kib: Option<u64>,
    rss_1000_connections_kib: Option<u64>,
    failed_requests: u64,
    /// Of the machine, by processes outside the benchmark, in the median round.
    elsewhere: Option<f64>,
    samples: &'a [Sample],
}

/// One subject's figures as multiples of another's, taken within rounds.
#[derive(Debug, Serialize)]
struct Ratio {
    of: &'static str,
    to: &'static str,
    requests_per_second: Option<f64>,
    cpu_per_request: Option<f64>,
    light_cpu_per_request: Option<f64>,
}

impl Report {
    pub(crate) fn summary(&self) -> Summary<'_> {
        let direct = self.subject("direct");
        Summary {
            conditions: &self.conditions,
            subjects: self.subjects.iter().map(|subject| row(subject, direct)).collect(),
            ratios: COMPARED.into_iter().filter_map(|(of, to)| self.ratio(of, to)).collect(),
            skipped: &self.skipped,
        }
    }

    fn subject(&self, name: &str) -> Option<&Subject> {
        self.subjects.iter().find(|subject| subject.name == name)
    }

    fn ratio(&self, of: &'static str, to: &'static str) -> Option<Ratio> {
        let (one, other) = (self.subject(of)?, self.subject(to)?);
        let ratio = |figure: fn(&Sample) -> f64| one.paired(other, |one, other| figure(one) / figure(other));
        Some(Ratio {
            of,
            to,
            requests_per_second: ratio(|sample| sample.requests_per_second),
            cpu_per_request: ratio(|sample| sample.cpu_us),
            light_cpu_per_request: ratio(|sample| sample.light_cpu_us),
        })
    }
}

fn row<'a>(subject: &'a Subject, direct: Option<&Subject>) -> Row<'a> {
    let proxied = subject.footprint.is_some();
    let of_proxies = |figure: fn(&Sample) -> f64| subject.median(figure).filter(|_| proxied);
    let added =
        direct.and_then(|direct| subject.paired(direct, |one, other| one.light_p50_us - other.light_p50_us));
    Row {
        name: subject.name,
        rounds_kept: subject.samples.iter().filter(|sample| sample.is_clean()).count(),
        requests_per_second: subject.median(|sample| sample.requests_per_second),
        cpu_us_per_request: of_proxies(|sample| sample.cpu_us),
        system_calls_per_request: subject.system_calls,
        p50_us: subject.median(|sample| sample.p50_us),
        p99_us: subject.median(|sample| sample.p99_us),
        added_p50_us: added.filter(|_| proxied),
        light_p50_us: subject.median(|sample| sample.light_p50_us),
        light_p99_us: subject.median(|sample| sample.light_p99_us),
        light_cpu_us_per_request: of_proxies(|sample| sample.light_cpu_us),
        rss_idle_kib: subject.footprint.map(|footprint| footprint.idle_kib),
        rss_1000_connections_kib: subject.footprint.map(|footprint| footprint.with_connections_kib),
        failed_requests: subject.samples.iter().map(|sample| sample.failed).sum(),
        elsewhere: subject.median(|sample| sample.elsewhere),
        samples: &subject.samples,
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.conditions.fmt(f)?;
        writeln!(f)?;
        writeln!(
            f,
            "|             | saturated  |          |          |        | at 1,000/s |          | resident MiB |           |"
        )?;
        writeln!(
            f,
            "| pair        | requests/s | CPU us/r | sysc./r  | p99 us | added p50  | CPU us/r | idle         | 1000 conn |"
        )?;
        writeln!(
            f,
            "|-------------|-----------:|---------:|---------:|-------:|-----------:|---------:|-------------:|----------:|"
        )?;
        for row in &self.subjects {
            row.fmt(f)?;
        }
        if !self.ratios.is_empty() {
            writeln!(f, "\n| ratio, median within rounds | CPU per request | requests/s | CPU at 1,000/s |")?;
            writeln!(f, "|-----------------------------|----------------:|-----------:|---------------:|")?;
            for ratio in &self.ratios {
                ratio.fmt(f)?;
            }
        }
        self.warnings(f)
    }
}

impl Summary<'_> {
    fn warnings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for skipped in self.skipped {
            writeln!(f, "not measured: {} ({})", skipped.name, skipped.why)?;
        }
        for row in &self.subjects {
            if row.failed_requests > 0 {
                writeln!(f, "{}: {} requests FAILED", row.name, row.failed_requests)?;
            }
            if row.rounds_kept < row.samples.len() {
                let taken = row.samples.len();
                writeln!(
                    f,
                    "{}: {} of {taken} rounds kept, the others lost to steal",
                    row.name, row.rounds_kept
                )?;
            }
            if let Some(elsewhere) = row.elsewhere.filter(|share| *share > 0.05) {
                let percent = elsewhere * 100.0;
                writeln!(
                    f,
                    "{}: other programs used {percent:.0} % of the machine; take it again when it is quiet",
                    row.name
                )?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { taken_at, label, kernel, cpu, cpus, rounds, seconds_per_load, connections } = self;
        let label = if label.is_empty() { String::new() } else { format!(", {label}") };
        writeln!(f, "{taken_at}{label}; {cpus} x {cpu}, Linux {kernel}")?;
        writeln!(
            f,
            "GET of 1 KiB over {connections} keep-alive connections, {rounds} rounds of 2 x {seconds_per_load} s"
        )
    }
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| {:11} | {:>10} | {:>8} | {:>8} | {:>6} | {:>10} | {:>8} | {:>12} | {:>9} |",
            self.name,
            number(self.requests_per_second, 0),
            number(self.cpu_us_per_request, 1),
            number(self.system_calls_per_request, 2),
            number(self.p99_us, 0),
            number(self.added_p50_us, 0),
            number(self.light_cpu_us_per_request, 0),
            mebibytes(self.rss_idle_kib),
            mebibytes(self.rss_1000_connections_kib),
        )
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| {:27} | {:>15} | {:>10} | {:>14} |",
            format!("{} / {}", self.of, self.to),
            number(self.cpu_per_request, 2),
            number(self.requests_per_second, 2),
            number(self.light_cpu_per_request, 2),
        )
    }
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
}

fn mebibytes(kib: Option<u64>) -> String {
    number(kib.map(|kib| kib as f64 / 1024.0), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu_us: f64, steal: f64) -> Sample {
        Sample {
            requests_per_second: 10_000.0,
            cpu_us,
            p50_us: 100.0,
            p99_us: 200.0,
            light_cpu_us: 300.0,
            light_p50_us: 150.0,
            light_p99_us: 250.0,
            failed: 0,
            steal,
            elsewhere: 0.0,
        }
    }

    fn subject(name: &'static str, samples: Vec<Sample>) -> Subject {
        Subject { samples, ..Subject::new(name) }
    }

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn a_ratio_is_taken_within_rounds_and_not_between_medians() {
        let one = subject("selvedge-h1", vec![sample(10.0, 0.0), sample(200.0, 0.0), sample(33.0, 0.0)]);
        let other = subject("floor-h1", vec![sample(10.0, 0.0), sample(100.0, 0.0), sample(30.0, 0.0)]);

        let ratio = one.paired(&other, |one, other| one.cpu_us / other.cpu_us).unwrap();

        assert!((ratio - 1.1).abs() < 1e-9, "{ratio}");
    }

    #[test]
    fn a_round_with_steal_counts_for_neither_median_nor_ratio() {
        let one = subject("selvedge-h1", vec![sample(10.0, 0.0), sample(90.0, 0.5)]);
        let other = subject("floor-h1", vec![sample(5.0, 0.2), sample(9.0, 0.0)]);

        assert_eq!(one.median(|sample| sample.cpu_us), Some(10.0));
        assert_eq!(one.paired(&other, |one, other| one.cpu_us / other.cpu_us), None);
    }
}
