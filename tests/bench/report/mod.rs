//! From samples to what is told: medians over the clean rounds, and medians of ratios within rounds.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde::Serialize;

use crate::hosts::Taken;
use crate::instructions::Counted;
use crate::load::{Load, Sample, Turn};
use crate::once::Footprint;

mod text;

/// Who is compared with whom: the product with its floor and the peers, and the floor with the peers to
/// show that it is a floor.
const COMPARED: [(&str, &str); 24] = [
    ("selvedge-h1", "floor-h1"),
    ("selvedge-h2", "floor-h2"),
    ("selvedge-h1", "nginx"),
    ("selvedge-h1", "haproxy-h1"),
    ("selvedge-h1", "envoy-h1"),
    ("selvedge-h2", "haproxy-h2"),
    ("selvedge-h2", "envoy-h2"),
    ("floor-h2", "floor-h1"),
    ("floor-h1", "nginx"),
    ("floor-h1", "haproxy-h1"),
    ("floor-h1", "envoy-h1"),
    ("floor-h2", "haproxy-h2"),
    ("floor-h2", "envoy-h2"),
    ("selvedge-tcp", "floor-tcp"),
    ("selvedge-tcp", "haproxy-tcp"),
    ("selvedge-tcp", "envoy-tcp"),
    ("floor-tcp", "haproxy-tcp"),
    ("floor-tcp", "envoy-tcp"),
    ("edge-selvedge", "edge-nginx"),
    ("edge-selvedge", "edge-haproxy"),
    ("edge-selvedge", "edge-envoy"),
    ("mesh-selvedge", "mesh-nginx"),
    ("mesh-selvedge", "mesh-haproxy"),
    ("mesh-selvedge", "mesh-envoy"),
];

/// The product as it is used, with which its variants are compared.
const BASE: &str = "selvedge-h1";

/// What algorithms of balancing are compared with, and what their names begin with.
const BASE_OF_BALANCING: &str = "balance-least-request";
const BALANCING: &str = "balance-";

/// What the product called `name` is compared with, where one thing is changed.
pub(crate) fn base_of(name: &str) -> &'static str {
    match name {
        "endpoints-10000" => BASE_OF_BALANCING,
        "tenant-limit-100000" => "tenants-100000",
        "adaptive-concurrency" => "connections-3",
        name if name.starts_with(BALANCING) => BASE_OF_BALANCING,
        _ => BASE,
    }
}

/// Everything that a run found out.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) conditions: Conditions,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) growth: Vec<Subject>,
    pub(crate) slow: Vec<Subject>,
    pub(crate) hosts: Vec<Taken>,
    pub(crate) instructions: Vec<Counted>,
    pub(crate) skipped: Vec<Skipped>,
}

/// Under what the figures were taken.
#[derive(Debug, Serialize)]
pub(crate) struct Conditions {
    ended_at: String,
    minutes: f64,
    label: String,
    kernel: String,
    cpu: String,
    cpus: usize,
    rounds: u32,
    seconds_per_load: f64,
    connections: usize,
    bulk_mib: u64,
}

impl Conditions {
    pub(crate) fn now(label: String, turn: Turn, rounds: u32, took: Duration) -> anyhow::Result<Self> {
        let read = |file: &str| std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"));
        let cpuinfo = read("/proc/cpuinfo")?;
        let model = cpuinfo
            .lines()
            .find(|line| line.starts_with("model name"))
            .and_then(|line| line.split_once(": "));
        Ok(Self {
            ended_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            minutes: took.as_secs_f64() / 60.0,
            label,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpu: model.map_or("unknown", |(_, model)| model).to_owned(),
            cpus: std::thread::available_parallelism()?.get(),
            rounds,
            seconds_per_load: turn.duration.as_secs_f64(),
            connections: turn.connections,
            bulk_mib: turn.bulk_bytes >> 20,
        })
    }
}

/// Something that was not measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Skipped {
    pub(crate) name: &'static str,
    pub(crate) why: String,
}

/// What was seen of one subject; the samples of a load are in the order of the rounds.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    /// Whether there are proxies whose use was charged.
    pub(crate) proxied: bool,
    pub(crate) samples: BTreeMap<Load, Vec<Sample>>,
    pub(crate) footprint: Option<Footprint>,
    pub(crate) starts_ms: Vec<f64>,
    pub(crate) system_calls: Option<f64>,
}

impl Subject {
    pub(crate) const fn new(name: &'static str, proxied: bool) -> Self {
        Self {
            name,
            proxied,
            samples: BTreeMap::new(),
            footprint: None,
            starts_ms: Vec::new(),
            system_calls: None,
        }
    }

    fn of(&self, load: Load) -> &[Sample] {
        self.samples.get(&load).map_or(&[], Vec::as_slice)
    }

    fn median(&self, load: Load, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.of(load).iter().filter(|sample| sample.is_clean()).filter_map(figure).collect())
    }

    /// The median over the rounds that were clean for both, of what `combine` makes of the two.
    fn paired(
        &self,
        other: &Self,
        load: Load,
        combine: impl Fn(&Sample, &Sample) -> Option<f64>,
    ) -> Option<f64> {
        let pairs = self.of(load).iter().zip(other.of(load));
        let clean = pairs.filter(|(one, two)| one.is_clean() && two.is_clean());
        median(clean.filter_map(|(one, two)| combine(one, two)).collect())
    }

    /// By how much a run like this one may be wrong about [`cpu_ratio`](Self::cpu_ratio): the standard error of a median, from
    /// the median of what single rounds differ from it (for a normal distribution 1.4826 of that is its standard deviation, and
    /// a median's error is 1.2533 of a mean's).
    fn cpu_error(&self, other: &Self, load: Load) -> Option<f64> {
        let ratio = self.cpu_ratio(other, load)?;
        let rounds =
            self.of(load).iter().zip(other.of(load)).filter(|(one, two)| one.is_clean() && two.is_clean());
        let differences = self.paired(other, load, |one, other| Some((one.cpu / other.cpu - ratio).abs()))?;
        Some(1.2533 * 1.4826 * differences / (rounds.count() as f64).sqrt())
    }

    /// CPU time as a multiple of another's.
    fn cpu_ratio(&self, other: &Self, load: Load) -> Option<f64> {
        self.paired(other, load, |one, other| Some(one.cpu / other.cpu))
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
    loads: Vec<Table<'a>>,
    ratios: Vec<Ratio>,
    once: Vec<Once>,
    growth: Vec<Growth<'a>>,
    /// With one slow endpoint.
    slow: Vec<Row<'a>>,
    /// Many hosts at the edge.
    hosts: &'a [Taken],
    /// In user space, for a request.
    instructions: &'a [Counted],
    skipped: &'a [Skipped],
}

/// Everybody at one load.
#[derive(Debug, Serialize)]
struct Table<'a> {
    load: Load,
    what: &'static str,
    rows: Vec<Row<'a>>,
}

/// One subject at one load.
#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'static str,
    rounds_kept: usize,
    /// Requests or GiB per second.
    rate: Option<f64>,
    /// CPU microseconds per request, or seconds per GiB.
    cpu: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    /// The median request's latency, less that of the app alone.
    added_p50_us: Option<f64>,
    failed: u64,
    /// Of the machine, by processes outside the benchmark, in the median round.
    elsewhere: Option<f64>,
    samples: &'a [Sample],
}

/// One subject's CPU time as multiples of another's, taken within rounds.
#[derive(Debug, Serialize)]
struct Ratio {
    of: &'static str,
    to: &'static str,
    cpu: BTreeMap<Load, f64>,
}

/// What is taken once for each.
#[derive(Debug, Serialize)]
struct Once {
    name: &'static str,
    start_ms: Option<f64>,
    system_calls_per_request: Option<f64>,
    /// Of the client's half, and of the server's.
    rss_idle_kib: Option<Vec<u64>>,
    rss_kib_per_connection: Vec<(usize, Vec<f64>)>,
}

/// The product with one thing changed.
#[derive(Debug, Serialize)]
struct Growth<'a> {
    name: &'static str,
    /// CPU time per request, as a multiple of the product's without the change; of an algorithm of balancing, of
    /// `LEAST_REQUEST`.
    ratio: Option<f64>,
    /// The standard error of that.
    error: Option<f64>,
    row: Row<'a>,
}

impl Report {
    pub(crate) fn summary(&self) -> Summary<'_> {
        let tables = Load::ALL.into_iter().map(|load| self.table(load));
        let ratios = COMPARED.into_iter().filter_map(|(of, to)| self.ratio(of, to));
        Summary {
            conditions: &self.conditions,
            loads: tables.filter(|table| !table.rows.is_empty()).collect(),
            ratios: ratios.filter(|ratio| !ratio.cpu.is_empty()).collect(),
            once: self.subjects.iter().filter(|subject| subject.proxied).filter_map(once).collect(),
            growth: self.growth(),
            slow: self.slow.iter().map(|subject| row(subject, Load::Steady, None)).collect(),
            hosts: &self.hosts,
            instructions: &self.instructions,
            skipped: &self.skipped,
        }
    }

    fn subject(&self, name: &str) -> Option<&Subject> {
        self.subjects.iter().find(|subject| subject.name == name)
    }

    fn table(&self, load: Load) -> Table<'_> {
        let direct = self.subject("direct");
        let took_part = self.subjects.iter().filter(|subject| !subject.of(load).is_empty());
        Table { load, what: load.what(), rows: took_part.map(|subject| row(subject, load, direct)).collect() }
    }

    fn ratio(&self, of: &'static str, to: &'static str) -> Option<Ratio> {
        let (one, other) = (self.subject(of)?, self.subject(to)?);
        let ratios = Load::ALL.into_iter().filter_map(|load| Some((load, one.cpu_ratio(other, load)?)));
        Some(Ratio { of, to, cpu: ratios.collect() })
    }

    fn growth(&self) -> Vec<Growth<'_>> {
        let base = |of: &Subject| {
            let base = base_of(of.name);
            self.growth.iter().find(|subject| subject.name == base)
        };
        let grown = self.growth.iter().map(|subject| Growth {
            name: subject.name,
            ratio: base(subject).and_then(|base| subject.cpu_ratio(base, Load::KeepAlive)),
            error: base(subject).and_then(|base| subject.cpu_error(base, Load::KeepAlive)),
            row: row(subject, Load::KeepAlive, None),
        });
        grown.collect()
    }
}

fn row<'a>(subject: &'a Subject, load: Load, direct: Option<&Subject>) -> Row<'a> {
    let added = |one: &Sample, other: &Sample| Some(one.p50_us? - other.p50_us?);
    let added = direct.and_then(|direct| subject.paired(direct, load, added));
    let samples = subject.of(load);
    Row {
        name: subject.name,
        rounds_kept: samples.iter().filter(|sample| sample.is_clean()).count(),
        rate: subject.median(load, |sample| Some(sample.rate)),
        cpu: subject.median(load, |sample| Some(sample.cpu)).filter(|_| subject.proxied),
        p50_us: subject.median(load, |sample| sample.p50_us),
        p99_us: subject.median(load, |sample| sample.p99_us),
        added_p50_us: added.filter(|_| subject.proxied),
        failed: samples.iter().map(|sample| sample.failed).sum(),
        elsewhere: subject.median(load, |sample| Some(sample.elsewhere)),
        samples,
    }
}

fn once(subject: &Subject) -> Option<Once> {
    let footprint = subject.footprint.as_ref();
    let counts = footprint.into_iter().flat_map(|footprint| &footprint.with_connections);
    let per_connection =
        counts.filter_map(|(count, _)| Some((*count, footprint?.per_connection(*count)?))).collect();
    let once = Once {
        name: subject.name,
        start_ms: median(subject.starts_ms.clone()),
        system_calls_per_request: subject.system_calls,
        rss_idle_kib: footprint.map(|footprint| footprint.idle_kib.clone()),
        rss_kib_per_connection: per_connection,
    };
    let anything = once.start_ms.is_some() || footprint.is_some() || once.system_calls_per_request.is_some();
    anything.then_some(once)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load::KeepAlive;

    fn sample(cpu: f64, steal: f64) -> Sample {
        let (p50_us, p99_us) = (Some(100.0), Some(200.0));
        Sample { rate: 10_000.0, cpu, p50_us, p99_us, failed: 0, steal, elsewhere: 0.0 }
    }

    fn subject(name: &'static str, samples: Vec<Sample>) -> Subject {
        Subject { samples: BTreeMap::from([(LOAD, samples)]), ..Subject::new(name, true) }
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

        let ratio = one.cpu_ratio(&other, LOAD).unwrap();

        assert!((ratio - 1.1).abs() < 1e-9, "{ratio}");
    }

    #[test]
    fn the_error_of_a_ratio_is_what_rounds_differ_by_and_shrinks_with_their_number() {
        let rounds = |times: usize| {
            let one = [9.0, 10.0, 10.0, 11.0].map(|cpu| sample(cpu, 0.0));
            let one = subject("selvedge-h1", one.iter().cycle().take(4 * times).cloned().collect());
            let other = subject("floor-h1", vec![sample(10.0, 0.0); 4 * times]);
            one.cpu_error(&other, LOAD).unwrap()
        };

        assert!((rounds(1) - 1.2533 * 1.4826 * 0.05 / 2.0).abs() < 1e-9, "{}", rounds(1));
        assert!((rounds(1) / rounds(4) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_round_with_steal_counts_for_neither_median_nor_ratio() {
        let one = subject("selvedge-h1", vec![sample(10.0, 0.0), sample(90.0, 0.5)]);
        let other = subject("floor-h1", vec![sample(5.0, 0.2), sample(9.0, 0.0)]);

        assert_eq!(one.median(LOAD, |sample| Some(sample.cpu)), Some(10.0));
        assert_eq!(one.cpu_ratio(&other, LOAD), None);
    }
}
