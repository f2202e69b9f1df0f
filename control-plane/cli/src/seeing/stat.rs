//! `selvedge stat`: how requests and connections do, by whom they go to or come from.

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

use selvedge_model::{
    WorkloadName,
    traffic::{Edge, Way},
};
use serde::Serialize;

use super::{
    Answer,
    ask::{Missing, SinceArgs, Traffic},
    filter::FilterArgs,
    known::Kinds,
    numbers::{Connections, Requests, Sum, bytes},
    print,
};
use crate::{
    output::OutputArgs,
    replicas::PlaceArgs,
    table::{new_table, trimmed},
};

/// Show how requests and connections do: success, rate, latency, and how many go over mutual TLS
///
/// By service, client, route and subset it is what clients' sidecars count, retries and all that is between included; by
/// workload, what its own sidecar counts. A request fails if it has no answer, a status of 500 or more, an answer that breaks
/// off or that a proxy has made itself because there was no route (404), or a gRPC status that says that it did not work.
/// Latencies are at most a quarter off.
///
/// Exit status: 0; 1 if fewer than --min-success percent of some row's requests succeed, or --from or --to names nothing that
/// is known; 2 if the control plane does not answer.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: PlaceArgs,

    /// What a row stands for
    #[arg(long, value_enum, value_name = "WHAT", default_value = "service")]
    by: By,

    #[command(flatten)]
    filter: FilterArgs,

    #[command(flatten)]
    since: SinceArgs,

    /// How many percent of each row's requests must succeed; none at all is too few, and so is what a replica does not tell
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    min_success: Option<f64>,

    #[command(flatten)]
    output: OutputArgs,
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.trim_end_matches('%').parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.0..=100.0).contains(&percent) { Ok(percent) } else { Err("it is 0 to 100".to_owned()) }
}

/// What a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum By {
    /// A service's port, as it was called.
    Service,
    /// A workload that was called, by its own sidecar.
    Workload,
    /// A workload that has called.
    Client,
    /// A service's route.
    Route,
    /// A service's subset, or the service that a route leads to instead.
    Subset,
}

/// One row.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Absent: there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requests: Option<Requests>,
    /// The same of opaque connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<Connections>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    by: By,
    /// Of how many seconds it is, at most.
    pub(crate) seconds: u64,
    /// As of [`Traffic::known_seconds`].
    #[serde(skip)]
    known_seconds: Option<u64>,
    pub(crate) rows: Vec<Row>,
    #[serde(flatten)]
    pub(crate) missing: Missing,
}

/// Prints the rows; the exit status says whether enough has succeeded.
///
/// # Errors
/// If they cannot be written.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let answer = async {
        let traffic = args.place.traffic(args.since).await?;
        let report = Report::of(&traffic, args.by, &args.filter);
        let report = report.explained(&args.place, &traffic, &args.filter).await?;
        let is_well = report.missing.not_known.is_empty()
            && args.min_success.is_none_or(|least| report.succeeds(least));
        Ok(Answer { text: report.to_text(), found: report, is_well, is_early: false })
    };
    print(answer, args.output)
}

impl By {
    /// The row of `edge`, of which the sidecar of `teller` has told; `None`: it is in no row.
    fn row(self, teller: &WorkloadName, edge: &Edge) -> Option<String> {
        let service = || match edge.port {
            0 => edge.host.to_string(),
            port => format!("{}:{port}", edge.host),
        };
        match (self, edge.way) {
            (Self::Workload, Way::Inbound) => Some(teller.to_string()),
            (Self::Workload, Way::Outbound) | (_, Way::Inbound) => None,
            (Self::Service, _) => Some(service()),
            (Self::Client, _) => Some(teller.to_string()),
            (Self::Route, _) if edge.route.is_empty() => Some(format!("{} (no route)", service())),
            (Self::Route, _) => Some(format!("{} {}", service(), edge.route)),
            (Self::Subset, _) => Some(match (&*edge.backend, &*edge.subset) {
                ("", "") => service(),
                ("", subset) => format!("{} {subset}", service()),
                (backend, "") => format!("{} → {backend}", service()),
                (backend, subset) => format!("{} → {backend} {subset}", service()),
            }),
        }
    }

    fn header(self) -> &'static str {
        match self {
            Self::Service => "SERVICE",
            Self::Workload => "WORKLOAD",
            Self::Client => "CLIENT",
            Self::Route => "ROUTE",
            Self::Subset => "SUBSET",
        }
    }
}

impl Report {
    /// The busiest first.
    pub(crate) fn sort_by_load(&mut self) {
        let load = |row: &Row| row.requests.as_ref().map_or(0.0, |requests| requests.per_second);
        self.rows.sort_by(|a, b| load(b).total_cmp(&load(a)));
    }

    pub(crate) fn of(traffic: &Traffic, by: By, filter: &FilterArgs) -> Self {
        let mut rows = BTreeMap::<String, Sum>::new();
        for (teller, workload) in &traffic.workloads {
            for one in workload.edges.iter().filter(|one| filter.admits(teller, &one.edge)) {
                if let Some(name) = by.row(teller, &one.edge) {
                    rows.entry(name).or_default().add(&one.edge, &one.counts, workload.seconds);
                }
            }
        }
        let row = |(name, sum): (String, Sum)| Row {
            name,
            requests: sum.requests(),
            connections: sum.connections(),
        };
        let rows =
            rows.into_iter().map(row).filter(|row| row.requests.is_some() || row.connections.is_some());
        let (seconds, known_seconds) = (traffic.seconds, traffic.known_seconds());
        Self { by, seconds, known_seconds, rows: rows.collect(), missing: traffic.missing.clone() }
    }

    /// The same; if it is empty, with what `filter` names that nobody knows.
    ///
    /// # Errors
    /// If the control plane at `place` does not answer.
    pub(super) async fn explained(
        mut self,
        place: &PlaceArgs,
        traffic: &Traffic,
        filter: &FilterArgs,
    ) -> anyhow::Result<Self> {
        if self.rows.is_empty() && filter.is_set() {
            let to = if self.by == By::Workload { Kinds::Workloads } else { Kinds::Services };
            self.missing.not_known = filter.not_known(&place.known(traffic).await?, to);
        }
        Ok(self)
    }

    /// Whether at least so many percent of each row's requests have succeeded, there were some, and every replica has told of its
    /// part: a gate does not pass by what is not known.
    pub(crate) fn succeeds(&self, least: f64) -> bool {
        let mut requests = self.rows.iter().filter_map(|row| row.requests.as_ref()).peekable();
        let is_whole = self.missing.unknown.is_empty();
        is_whole && requests.peek().is_some() && requests.all(|requests| requests.succeed(least))
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: &str| writeln!(text, "{line}").expect("writing to a String cannot fail");
        let mut requests =
            new_table([self.by.header(), "SUCCESS", "RPS", "P50", "P95", "P99", "MTLS", "REQUESTS"]);
        let mut connections =
            new_table([self.by.header(), "CONNECTIONS", "FAILED", "MTLS", "RECEIVED", "SENT"]);
        for row in &self.rows {
            if let Some(one) = &row.requests {
                let [success, rps, p50, p95, p99] = one.cells();
                let (mtls, count) = (one.mtls(), one.count.to_string());
                requests.add_row([row.name.clone(), success, rps, p50, p95, p99, mtls, count]);
            }
            if let Some(one) = &row.connections {
                let (count, failed) = (one.count.to_string(), one.failures.to_string());
                let mtls = one.mtls();
                let [received, sent] = [one.received_bytes, one.sent_bytes].map(bytes);
                connections.add_row([row.name.clone(), count, failed, mtls, received, sent]);
            }
        }
        if self.rows.is_empty() {
            line(&match self.known_seconds {
                None => "no sidecar has told of traffic since the control plane started".to_owned(),
                Some(known) => format!("nothing was seen in the last {} s", self.seconds.min(known)),
            });
        }
        for table in [requests, connections].iter().filter(|table| !table.is_empty()) {
            line(&trimmed(table));
        }
        // It is kept in pieces of 15 seconds, and sidecars tell as often.
        if let Some(known) = self.known_seconds.filter(|known| known + 15 < self.seconds) {
            writeln!(text, "this is of the last {known} s: before, nothing is known")
                .expect("writing to a String cannot fail");
        }
        text + &self.missing.to_text()
    }
}
