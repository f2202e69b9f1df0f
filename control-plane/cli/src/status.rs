//! `selvedge status`: what the proxies hold, and whether the newest change has arrived everywhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

use selvedge_certs::facts::Utc;
use selvedge_control_plane::status::{Config, Proxy};
use selvedge_model::WorkloadName;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    cluster,
    output::{OutputArgs, verdict},
    replicas::{Answers, PlaceArgs, REPLICA_TIME},
    table::{new_table, trimmed},
};

/// Between two looks while `--wait`ing.
const PAUSE: Duration = Duration::from_millis(500);

/// Show whether every sidecar is connected and has the newest configuration
///
/// Exit status: 0 if all are connected and have it; 1 if a sidecar is missing, is behind or refused it, or if there is
/// no sidecar at all; 2 if the control plane does not answer.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: PlaceArgs,

    /// List every proxy, not only those that are behind
    #[arg(long)]
    all: bool,

    /// How many workloads must be connected at least; those that have a sidecar by their document or Pod must be anyway
    #[arg(long, value_name = "NUMBER")]
    expect: Option<usize>,

    /// Wait until all are connected and have the newest configuration, for this time at most
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,

    #[command(flatten)]
    output: OutputArgs,
}

/// How far the newest configuration has come at one proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// It has refused a part of it, and keeps what it had before.
    Refused,
    /// It has not taken it yet.
    Behind,
    /// It has it.
    UpToDate,
}

/// One proxy.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) workload: WorkloadName,
    identity: String,
    /// The control plane's replica that it is connected to.
    replica: String,
    proxy_version: String,
    /// How many resources it has been given.
    holds: usize,
    pub(crate) state: State,
    /// Of a refusal, when and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    certificate_expires_at: String,
    /// Who gives it the certificate that its peers see.
    identity_from: IdentitySource,
    /// When that ends, if it is not the certificate of above; `None`: it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    svid_expires_at: Option<String>,
}

/// Who gives a proxy the certificate that its peers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum IdentitySource {
    ControlPlane,
    WorkloadApi,
}

#[derive(Debug, Serialize)]
struct Report {
    arrived: bool,
    up_to_date: usize,
    proxies: Vec<Row>,
    /// Workloads that should be connected and are not.
    missing: BTreeSet<WorkloadName>,
    /// How many should be connected: those that are known, or as many as `--expect` says.
    expected: usize,
    /// The SHA-256 of each root that proxies are told to trust.
    trust_roots: BTreeSet<String>,
    /// The same of roots that vouch for workloads alone, such as SPIRE's.
    workload_roots: BTreeSet<String>,
    /// Replicas that could not be asked, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unknown: BTreeMap<String, String>,
}

/// How long one replica may take at the end of a time that was asked for.
const LEAST_TIME: Duration = Duration::from_secs(2);

/// Prints the proxies; the exit status says whether the newest change has arrived.
///
/// # Errors
/// If the report cannot be written.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let report = match cluster::runtime()?.block_on(crate::patience::patiently(watch(&args))) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("selvedge: {error:#}");
            return Ok(ExitCode::from(2));
        }
    };
    let text = if args.output.is_json() {
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        report.to_text(args.all)
    };
    verdict(&text, report.arrived)
}

/// One look, or with `--wait` as many as it takes.
async fn watch(args: &Args) -> anyhow::Result<Report> {
    let deadline = args.wait.map(|wait| Instant::now() + wait);
    let mut is_told = false;
    loop {
        // No longer than was asked for, and still long enough for an answer.
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let limit = left.map_or(REPLICA_TIME, |left| REPLICA_TIME.min(left.max(LEAST_TIME)));
        let look = args.place.ask("/config", limit).await.map(|replicas| Report::new(replicas, args.expect));
        let has_arrived = look.as_ref().is_ok_and(|report| report.arrived);
        if has_arrived || deadline.is_none_or(|deadline| Instant::now() >= deadline) {
            return look;
        }
        // Such as that a control plane starts anew just now. Other reasons do not pass, and whoever waits shall know them.
        if let Err(error) = &look
            && !is_told
        {
            is_told = true;
            eprintln!("selvedge: {error:#}; trying again until the time is over");
        }
        sleep(PAUSE).await;
    }
}

/// The proxies of the replica called `replica`.
pub(crate) fn rows(config: &Config, replica: &str) -> Vec<Row> {
    config.proxies.iter().map(|proxy| Row::new(proxy, replica, config.configuration_version)).collect()
}

impl Row {
    fn new(proxy: &Proxy, replica: &str, newest: Option<u64>) -> Self {
        let state = match &proxy.refused {
            _ if newest.is_none_or(|newest| proxy.has(newest)) => State::UpToDate,
            Some(_) => State::Refused,
            None => State::Behind,
        };
        let refused = proxy.refused.as_ref().filter(|_| state == State::Refused);
        Self {
            workload: proxy.workload.clone(),
            identity: proxy.identity.to_string(),
            replica: replica.to_owned(),
            proxy_version: proxy.proxy_version.clone(),
            holds: proxy.holds.lock().len(),
            state,
            reason: refused.map(|refused| format!("{} at {}", refused.reason, Utc(refused.at))),
            certificate_expires_at: Utc(proxy.certificate_expires_at).to_string(),
            identity_from: match proxy.svid {
                None => IdentitySource::ControlPlane,
                Some(_) => IdentitySource::WorkloadApi,
            },
            svid_expires_at: proxy.svid.and_then(|svid| svid.expires_at).map(|seconds| {
                let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
                at.map_or_else(|| "never".to_owned(), |at| Utc(at).to_string())
            }),
        }
    }

    /// When the certificate ends that its peers see, and who gives it, if that is not the control plane.
    fn certificate_ends(&self) -> String {
        match (self.identity_from, &self.svid_expires_at) {
            (IdentitySource::ControlPlane, _) => self.certificate_expires_at.clone(),
            (IdentitySource::WorkloadApi, Some(at)) => format!("{at} (Workload API)"),
            (IdentitySource::WorkloadApi, None) => "none (Workload API)".to_owned(),
        }
    }
}

impl Report {
    fn new(replicas: Answers<Config>, expect: Option<usize>) -> Self {
        let Answers { told, unknown } = replicas;
        let (mut proxies, mut expected) = (Vec::new(), BTreeSet::new());
        let (mut trust_roots, mut workload_roots) = (BTreeSet::new(), BTreeSet::new());
        for (replica, config) in told {
            proxies.extend(rows(&config, &replica));
            expected.extend(config.expected);
            trust_roots.extend(config.trust_roots);
            workload_roots.extend(config.workload_roots);
        }
        proxies.sort_by(|a: &Row, b: &Row| (a.state, &a.workload).cmp(&(b.state, &b.workload)));
        let up_to_date = proxies.iter().filter(|row| row.state == State::UpToDate).count();
        // Each is connected to one of the replicas.
        let connected: BTreeSet<&WorkloadName> = proxies.iter().map(|row| &row.workload).collect();
        let missing: BTreeSet<WorkloadName> =
            expected.into_iter().filter(|workload| !connected.contains(workload)).collect();
        // Of nothing at all, "everywhere" says nothing, unless that is what is expected.
        let expected = expect.unwrap_or(1).max(connected.len() + missing.len());
        let arrived = up_to_date == proxies.len() && unknown.is_empty() && connected.len() >= expected;
        Self { arrived, up_to_date, proxies, missing, expected, trust_roots, workload_roots, unknown }
    }

    /// By service account how many there are; then one by one those that are not up to date, or all.
    fn to_text(&self, all: bool) -> String {
        let mut text = self.by_identity();
        let shown: Vec<&Row> =
            self.proxies.iter().filter(|row| all || row.state != State::UpToDate).collect();
        if !shown.is_empty() {
            let mut table =
                new_table(["WORKLOAD", "STATE", "VERSION", "HOLDS", "CERTIFICATE ENDS", "REPLICA"]);
            for row in &shown {
                let (workload, holds) = (row.workload.to_string(), row.holds.to_string());
                table.add_row([
                    &workload,
                    row.state.word(),
                    &row.proxy_version,
                    &holds,
                    &row.certificate_ends(),
                    &row.replica,
                ]);
            }
            writeln!(text, "\n{}", trimmed(&table)).expect("writing to a String cannot fail");
        }
        for row in &self.proxies {
            if let Some(reason) = &row.reason {
                writeln!(text, "{} refused: {reason}", row.workload)
                    .expect("writing to a String cannot fail");
            }
        }
        if all {
            for root in &self.trust_roots {
                writeln!(text, "trusted root: {root}").expect("writing to a String cannot fail");
            }
            for root in &self.workload_roots {
                writeln!(text, "trusted root of workloads alone: {root}")
                    .expect("writing to a String cannot fail");
            }
        }
        for (replica, why) in &self.unknown {
            writeln!(text, "replica {replica} does not answer: {why}")
                .expect("writing to a String cannot fail");
        }
        for workload in &self.missing {
            writeln!(text, "{workload} is not connected; look at its sidecar's log and /ready")
                .expect("writing to a String cannot fail");
        }
        writeln!(text, "{}", self.verdict()).expect("writing to a String cannot fail");
        text
    }

    fn verdict(&self) -> String {
        let verdict = match self.arrived {
            true => "the newest configuration has arrived everywhere",
            false => "the newest configuration has not arrived everywhere",
        };
        // A workload may have two, for a moment.
        let all = self.expected.max(self.proxies.len());
        let reason = match self.proxies.is_empty() && self.missing.is_empty() && !self.arrived {
            true => "; no document or Pod declares a workload with a sidecar",
            false => "",
        };
        format!("{verdict}: {} of {all} proxies have it{reason}", self.up_to_date)
    }

    fn by_identity(&self) -> String {
        let mut groups: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for row in &self.proxies {
            let (proxies, up_to_date) = groups.entry(&row.identity).or_default();
            *proxies += 1;
            *up_to_date += usize::from(row.state == State::UpToDate);
        }
        if groups.is_empty() {
            return "no proxy is connected\n".to_owned();
        }
        let mut table = new_table(["IDENTITY", "PROXIES", "UP TO DATE"]);
        for (identity, (proxies, up_to_date)) in groups {
            table.add_row([identity.to_owned(), proxies.to_string(), up_to_date.to_string()]);
        }
        trimmed(&table) + "\n"
    }
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Behind => "behind",
            Self::UpToDate => "up to date",
        }
    }
}

#[cfg(test)]
mod tests;
