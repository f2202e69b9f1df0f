//! HTTP/2 from the client, by h2load (nghttp2): a generator of somebody else's, whose own use is not charged.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::generator::Target;
use super::{Sample, Turn, Watch, Work};
use crate::process::{installed, output};

const CONNECTIONS: u32 = 8;
const STREAMS: u32 = 16;

/// Requests that show how many fill a turn.
const TRIAL: u64 = 4000;

pub(super) fn missing() -> Option<String> {
    installed("h2load")
        .is_none()
        .then(|| "h2load is not installed: apt-get install nghttp2-client".to_owned())
}

pub(super) fn take(turn: Turn, target: &Target, watch: &Watch) -> anyhow::Result<Sample> {
    let trial = run(target, TRIAL)?;
    let requests = trial.amount / trial.elapsed.as_secs_f64() * turn.duration.as_secs_f64();
    watch.during(|| run(target, (requests as u64).max(TRIAL)))
}

fn run(target: &Target, requests: u64) -> anyhow::Result<Work> {
    let mut command = Command::new(installed("h2load").context("h2load is not installed")?);
    command.args([&format!("-n{requests}"), &format!("-c{CONNECTIONS}"), &format!("-m{STREAMS}"), "-t1"]);
    command.args(["--header", &format!(":authority: {}", target.authority)]);
    let scheme = if target.tls.is_some() { "https" } else { "http" };
    command.arg(format!("{scheme}://{}/", target.address));
    let told = output(command)?;
    read(&told).with_context(|| format!("h2load said:\n{told}"))
}

/// What h2load's report says.
fn read(told: &str) -> anyhow::Result<Work> {
    let line = |start| told.lines().find_map(|line: &str| line.strip_prefix(start));
    let finished = line("finished in ").and_then(|rest| rest.split(',').next()).context("no time")?;
    let elapsed = duration(finished).context("no time that can be read")?;
    let statuses = line("status codes: ").context("no status codes")?;
    let good: u64 = statuses.split(' ').next().and_then(|count| count.parse().ok()).context("no count")?;
    let requests = line("requests: ").context("no requests")?;
    let total: u64 = requests.split(' ').next().and_then(|count| count.parse().ok()).context("no total")?;
    ensure!(good > 0, "no request was answered well");
    // It tells means of latencies only.
    Ok(Work { amount: good as f64, elapsed, failed: total - good, p50_us: None, p99_us: None })
}

/// `1.23s`, `4.56ms` or `789us`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        _ => return None,
    };
    Duration::try_from_secs_f64(digits.parse::<f64>().ok()? * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = "\
finished in 1.50s, 66666.67 req/s, 70.31MB/s
requests: 100000 total, 100000 started, 100000 done, 99990 succeeded, 10 failed, 0 errored, 0 timeout
status codes: 99990 2xx, 0 3xx, 0 4xx, 10 5xx
traffic: 105.47MB (110597376) total, 488.28KB (500000) headers (space savings 96.30%), 97.66MB (102400000) data
";

    #[test]
    fn its_report_is_read() {
        let work = read(TOLD).unwrap();

        assert_eq!((work.amount, work.failed, work.elapsed), (99_990.0, 10, Duration::from_millis(1500)));
        assert!(read("unable to connect").is_err());
    }
}
