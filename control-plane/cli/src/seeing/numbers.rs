//! What is said of requests and connections, in numbers.

use selvedge_model::traffic::{Carried, Counts, Edge};
use serde::Serialize;

/// From so many percent of success on something does well.
pub(crate) const WELL: f64 = 99.5;
/// Below so many it fails.
pub(crate) const ILL: f64 = 95.0;

/// What has happened on several edges together.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    requests: Part,
    streams: Part,
    /// Of how many seconds it is.
    seconds: u64,
}

/// Those of one kind.
#[derive(Debug, Default)]
struct Part {
    counts: Counts,
    failures: u64,
    /// How many came by mutual TLS.
    mtls: u64,
    /// How many in plaintext. The others were sent nowhere, or nobody knows.
    plain: u64,
    is_there: bool,
}

/// Numbers of requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Requests {
    /// How many have ended.
    pub(crate) count: u64,
    /// How many of them have failed: no answer, a status of 500 or more, an answer that broke off, or gRPC's like.
    pub(crate) failures: u64,
    pub(crate) success_percent: f64,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    /// Of those of which it is known how they went; `None`: of none, as if all were sent nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mtls_percent: Option<f64>,
    /// Bytes of answers' bodies.
    pub(crate) sent_bytes: u64,
}

/// Numbers of opaque connections.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Connections {
    /// How many have come.
    pub(crate) count: u64,
    /// How many have ended, those included that had come before.
    pub(crate) ended: u64,
    /// How many of them were refused or broken off by a proxy.
    pub(crate) failures: u64,
    /// As of [`Requests`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mtls_percent: Option<f64>,
    /// Bytes from clients.
    pub(crate) received_bytes: u64,
    /// Bytes to clients.
    pub(crate) sent_bytes: u64,
}

impl Sum {
    /// Adds what has happened in `seconds` on one edge. What requests have become is in them already.
    pub(crate) fn add(&mut self, edge: &Edge, counts: &Counts, seconds: u64) {
        let part = match edge.carried {
            Carried::Http => &mut self.requests,
            Carried::Tcp => &mut self.streams,
            Carried::WebSocket => return,
        };
        self.seconds = self.seconds.max(seconds);
        part.is_there = true;
        part.counts.add(counts);
        part.failures = part.failures.saturating_add(counts.failures(edge.carried));
        if edge.mtls {
            part.mtls = part.mtls.saturating_add(counts.came(edge.carried));
        }
        part.plain = part.plain.saturating_add(edge.in_plaintext(counts));
    }

    /// Adds all that has happened on others.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.seconds = self.seconds.max(other.seconds);
        self.requests.merge(&other.requests);
        self.streams.merge(&other.streams);
    }

    /// Those of requests; `None`: there were none.
    pub(crate) fn requests(&self) -> Option<Requests> {
        let Part { counts, failures, is_there, .. } = &self.requests;
        let count = counts.ends();
        let quantile = |share| rounded(counts.latencies.quantile(share).unwrap_or_default(), 3);
        is_there.then(|| Requests {
            count,
            failures: *failures,
            success_percent: percent(count.saturating_sub(*failures), count),
            per_second: rounded(count as f64 / self.seconds.max(1) as f64, 3),
            p50_ms: quantile(0.5),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
            mtls_percent: self.requests.mtls_percent(),
            sent_bytes: counts.sent,
        })
    }

    /// Those of opaque connections; `None`: there were none.
    pub(crate) fn connections(&self) -> Option<Connections> {
        let Part { counts, failures, is_there, .. } = &self.streams;
        is_there.then(|| Connections {
            count: counts.connections,
            ended: counts.ends(),
            failures: *failures,
            mtls_percent: self.streams.mtls_percent(),
            received_bytes: counts.received,
            sent_bytes: counts.sent,
        })
    }
}

impl Part {
    fn merge(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.failures = self.failures.saturating_add(other.failures);
        self.mtls = self.mtls.saturating_add(other.mtls);
        self.plain = self.plain.saturating_add(other.plain);
        self.is_there |= other.is_there;
    }

    /// Of those of which it is known how they went.
    fn mtls_percent(&self) -> Option<f64> {
        let known = self.mtls.saturating_add(self.plain);
        (known > 0).then(|| percent(self.mtls, known))
    }
}

impl Requests {
    /// Whether at least so many percent of them have succeeded: by the numbers themselves, not by what is shown of them.
    pub(crate) fn succeed(&self, least: f64) -> bool {
        // In thousand-millionths of a percent, as nobody asks for less.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 0 to 100")]
        let least = (least * 1e9).round() as u128;
        let succeeded = u128::from(self.count.saturating_sub(self.failures));
        succeeded * 100 * 1_000_000_000 >= least * u128::from(self.count)
    }

    /// Success, requests per second and the latencies, as people read them.
    pub(crate) fn cells(&self) -> [String; 5] {
        [
            shown_percent(self.success_percent),
            format!("{:.1}", self.per_second),
            milliseconds(self.p50_ms),
            milliseconds(self.p95_ms),
            milliseconds(self.p99_ms),
        ]
    }

    /// The share over mutual TLS, as people read it; `-`: it is known of none.
    pub(crate) fn mtls(&self) -> String {
        shown_if_known(self.mtls_percent)
    }
}

impl Connections {
    /// How many percent were not refused or broken off; `None`: none has come or ended.
    pub(crate) fn success_percent(&self) -> Option<f64> {
        // Of older ones no more is known than how they ended.
        let all = self.count.max(self.ended);
        (all > 0).then(|| percent(all.saturating_sub(self.failures), all))
    }

    /// The same as people read it; `-`: none has come or ended.
    pub(crate) fn success(&self) -> String {
        self.success_percent().map_or_else(|| "-".to_owned(), shown_percent)
    }

    /// As of [`Requests::mtls`].
    pub(crate) fn mtls(&self) -> String {
        shown_if_known(self.mtls_percent)
    }
}

fn shown_if_known(percent: Option<f64>) -> String {
    percent.map_or_else(|| "-".to_owned(), shown_percent)
}

/// Never 100 of what is not all, and never 0 of what is something. Of nothing all is well.
pub(crate) fn percent(part: u64, all: u64) -> f64 {
    match part {
        0 if all > 0 => 0.0,
        part if part >= all => 100.0,
        part => rounded(part as f64 * 100.0 / all as f64, 3).clamp(0.001, 99.999),
    }
}

fn rounded(number: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (number * scale).round() / scale
}

/// Never 100 % of what is not all, and never 0 % of what is something.
pub(crate) fn shown_percent(percent: f64) -> String {
    match percent {
        100.0 | 0.0 => format!("{percent:.0} %"),
        percent => format!("{:.2} %", percent.clamp(0.01, 99.99)),
    }
}

pub(crate) fn milliseconds(time: f64) -> String {
    match time {
        time if time < 10.0 => format!("{time:.1} ms"),
        time if time < 10_000.0 => format!("{time:.0} ms"),
        time => format!("{:.1} s", time / 1_000.0),
    }
}

/// As people read it.
pub(crate) fn bytes(count: u64) -> String {
    let mut size = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1024.0;
    }
    format!("{size:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_people_read_them_and_nothing_is_rounded_away() {
        let shown = [100.0, 99.999, 50.0, 0.001, 0.0].map(shown_percent);
        assert_eq!(shown, ["100 %", "99.99 %", "50.00 %", "0.01 %", "0 %"]);
        assert_eq!([0.42, 9.96, 99.6, 12_340.0].map(milliseconds), ["0.4 ms", "10.0 ms", "100 ms", "12.3 s"]);
        assert_eq!([0, 1023, 1536, 3 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]);
        assert!((percent(1, 3) - 33.333).abs() < 1e-9);
        let parts =
            [0, 1, 999_999_999, 1_000_000_000].map(|part| shown_percent(percent(part, 1_000_000_000)));
        assert_eq!(parts, ["0 %", "0.01 %", "99.99 %", "100 %"]);
        assert_eq!(shown_percent(percent(0, 0)), "100 %");
    }

    #[test]
    fn connections_succeed_that_have_come_or_ended_and_none_is_no_failure() {
        let success = |count, ended, failures| {
            let (mtls_percent, received_bytes, sent_bytes) = (None, 0, 0);
            Connections { count, ended, failures, mtls_percent, received_bytes, sent_bytes }.success()
        };
        assert_eq!(success(0, 0, 0), "-", "older ones are open");
        assert_eq!(success(0, 3, 0), "100 %", "older ones have ended well");
        assert_eq!(success(1, 4, 1), "75.00 %");
        assert_eq!(success(1_000_000, 1, 1), "99.99 %");
        assert_eq!(success(2, 2, 2), "0 %");
    }
}
