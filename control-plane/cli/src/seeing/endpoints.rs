//! `selvedge endpoints`: which endpoints a service has, how much each does, and who sends it nothing, and why.

mod failing;
mod slow;

use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr, process::ExitCode, time::SystemTime};

use selvedge_certs::facts::Utc;
use selvedge_control_plane::status::{EndpointShown, OutShown, ServiceShown, ServicesShown};
use selvedge_model::{
    SpiffeId, WorkloadName,
    traffic::{Carried, Way},
};
use serde::Serialize;

use self::failing::{Elsewhere, Failing};
pub(crate) use self::{failing::SeenFailing, slow::Slow};
use super::{
    Answer,
    ask::{Missing, SinceArgs, Traffic},
    filter::Party,
    known::{Kinds, Known},
    numbers::{Connections, ILL, Requests, Sum, WELL, milliseconds},
    print,
};
use crate::{
    output::OutputArgs,
    replicas::PlaceArgs,
    table::{new_table, trimmed},
};

/// Show the endpoints of services: how much each has to do, which get no requests, why, and for how much longer
///
/// Each client's sidecar ejects for itself, so an endpoint may be out for some clients alone. What an endpoint has to do is told by
/// its own sidecar, and whether it fails by that and by its clients' sidecars: below the table stands how many attempts of how many
/// clients have failed at which endpoint, how, and since when. If its sidecar is not connected to the control plane, nobody may answer
/// there. An endpoint is slow if its requests take four times as long as those of the service's other endpoints. Endpoints whose
/// addresses only DNS knows are not shown unless they are out or fail.
///
/// Exit status: 0; 1 if an endpoint is out, its sidecar is not connected, there is no such service, or a replica does not answer;
/// 2 if the control plane does not answer; 3 if it has just started and waits for sidecars, and nothing else is wrong: ask again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only of this service, such as reviews or reviews.default:9080, or of those of a namespace
    #[arg(value_name = "HOST[:PORT]|NAMESPACE/*")]
    service: Option<Party>,

    #[command(flatten)]
    place: PlaceArgs,

    #[command(flatten)]
    since: SinceArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// How an endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Some client's sidecar sends it nothing.
    Out,
    /// Less than [`ILL`] percent of what comes to it succeeds.
    Failing,
    /// Less than [`WELL`] percent of it does.
    SomeFailures,
    /// What comes to it succeeds, and takes far longer than at the service's other endpoints.
    Slow,
    /// What comes to it succeeds.
    Healthy,
    /// Nothing has come to it.
    Idle,
    /// It has no sidecar that could tell.
    Unknown,
    /// It should have a sidecar, and none is connected to any replica of the control plane.
    NotConnected,
    /// The same, but the control plane has just started, and sidecars may still be coming back to it.
    Awaited,
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Failing => "failing",
            Self::SomeFailures => "some failures",
            Self::Slow => "slow",
            Self::Healthy => "healthy",
            Self::Idle => "idle",
            Self::Unknown => "not known",
            Self::NotConnected => "its sidecar is not connected",
            Self::Awaited => "its sidecar is awaited",
        }
    }
}

/// One endpoint of one service.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) service: String,
    pub(crate) address: SocketAddr,
    /// Absent: none is known there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workload: Option<WorkloadName>,
    /// Who must answer. Absent: it is called in plaintext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<SpiffeId>,
    pub(crate) state: State,
    /// Whether it should have a sidecar and none is connected, also where clients send it nothing.
    #[serde(skip)]
    is_absent: bool,
    /// Since when its sidecar is not connected (RFC 3339, UTC). Absent: it is, or since the control plane started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_connected_since: Option<String>,
    /// Whether it should have a sidecar, and that may be coming back, also where clients send it nothing.
    #[serde(skip)]
    is_awaited: bool,
    /// What fails there, as its clients' sidecars see it. Absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failing: Option<SeenFailing>,
    /// How much longer its requests take than those of its siblings. Absent: they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slow: Option<Slow>,
    /// Whose sidecars send it nothing. Empty: it gets requests from all, as far as they know.
    pub(crate) out: Vec<OutFor>,
    /// What has come to it at this port, through whichever service. Absent: nothing, or it has no sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requests: Option<Requests>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<Connections>,
}

/// That one client's sidecar sends it nothing.
#[derive(Debug, Serialize)]
pub(crate) struct OutFor {
    pub(crate) client: WorkloadName,
    /// As which subset. Absent: as the whole service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subset: Option<String>,
    /// A word such as consecutive-5xx or health-check.
    pub(crate) why: String,
    pub(crate) last_failure: String,
    /// How much longer. Absent: until its health checks pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds_left: Option<u64>,
}

/// What clients' sidecars have answered themselves, because no app did.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Undelivered {
    pub(crate) service: String,
    /// How many requests they were to bring there.
    pub(crate) requests: u64,
    /// How many of them failed so.
    pub(crate) failures: u64,
    /// How many for which reason.
    pub(crate) reasons: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) seconds: u64,
    pub(crate) endpoints: Vec<Row>,
    /// Of each service of which clients' sidecars could not deliver something.
    pub(crate) undelivered: Vec<Undelivered>,
    /// Of each service of which clients' sidecars tell of failures at addresses that it does not have, or not any more.
    pub(crate) elsewhere: Vec<Elsewhere>,
    /// Failures at endpoints that sidecars have not told, or the control plane has not kept.
    pub(crate) failures_left_out: u64,
    /// The control plane has just started: for how many seconds it waits for sidecars to come back. Absent: it waits for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) starting_seconds: Option<u64>,
    #[serde(flatten)]
    pub(crate) missing: Missing,
}

/// Prints the endpoints; the exit status says whether all get requests.
///
/// # Errors
/// If they cannot be written.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let answer = async {
        let (traffic, services) = args.place.traffic_and_services(args.since).await?;
        let report = Report::of(&traffic, &services, args.service.as_ref());
        let (is_well, is_early) = (report.is_well(), report.is_early());
        Ok(Answer { text: report.to_text(), found: report, is_well, is_early })
    };
    print(answer, args.output)
}

impl Report {
    pub(crate) fn of(traffic: &Traffic, services: &ServicesShown, only: Option<&Party>) -> Self {
        let sums = sums(traffic);
        let absent = services.surely_absent().iter().map(|one| {
            let absent = Absent { since: one.since, is_awaited: services.is_awaited(one) };
            (&one.workload, absent)
        });
        let known =
            Facts { out: &services.out, sums, absent: absent.collect(), failing: Failing::of(traffic) };
        let (mut endpoints, mut elsewhere) = (Vec::new(), Vec::new());
        let shown = services.services.iter();
        for service in shown.filter(|one| only.is_none_or(|only| only.is_service(&one.host, one.port))) {
            let rows = rows(service, &known);
            elsewhere.extend(known.failing.elsewhere(service, &rows));
            endpoints.extend(rows);
        }
        let waits = endpoints.iter().any(|row: &Row| row.is_awaited) || services.services.is_empty();
        let starting = services.starting.filter(|_| waits);
        let mut missing = traffic.missing.clone();
        if let Some(only) = only.filter(|_| endpoints.is_empty()) {
            missing.not_known.extend(Known::of(services).not_known(only, Kinds::Services));
        }
        Self {
            seconds: traffic.seconds,
            endpoints,
            undelivered: undelivered(traffic, only),
            elsewhere,
            failures_left_out: known.failing.left_out,
            starting_seconds: starting.map(|starting| starting.seconds_left),
            missing,
        }
    }

    /// Whether all that is wrong is that sidecars may still be coming back to a control plane that has just started.
    pub(super) fn is_early(&self) -> bool {
        let is_wrong = |row: &Row| !row.out.is_empty() || row.is_absent;
        self.starting_seconds.is_some()
            && self.missing.unknown.is_empty()
            && !self.endpoints.iter().any(is_wrong)
    }

    /// Whether all endpoints get requests and have their sidecars, as far as every replica has told, and there is one.
    pub(super) fn is_well(&self) -> bool {
        let does_well = |row: &Row| row.out.is_empty() && !row.is_absent && !row.is_awaited;
        self.missing.unknown.is_empty() && !self.endpoints.is_empty() && self.endpoints.iter().all(does_well)
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: &str| writeln!(text, "{line}").expect("writing to a String cannot fail");
        if let Some(left) = self.starting_seconds {
            let waiting = self.endpoints.iter().filter(|row| row.is_awaited).count();
            let all = self.endpoints.len();
            line(&match waiting {
                0 => "the control plane has just started, and knows of no service yet: ask again".to_owned(),
                _ => format!(
                    "the control plane has just started: the sidecars of {waiting} of {all} endpoints may still be coming back, for {left} s at most; ask again then"
                ),
            });
        }
        if self.endpoints.is_empty() && self.missing.not_known.is_empty() && self.starting_seconds.is_none() {
            line("there is no endpoint that is known by its address");
        }
        if self.endpoints.is_empty() {
            return text + &self.missing.to_text();
        }
        let mut table = new_table(["SERVICE", "ENDPOINT", "WORKLOAD", "STATE", "SUCCESS", "RPS", "P95"]);
        for row in &self.endpoints {
            let workload = row.workload.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            let state = match row.out.len() {
                0 => row.state.word().to_owned(),
                1 => "out for 1 client".to_owned(),
                clients => format!("out for {clients} clients"),
            };
            let (success, rps, p95) = match (&row.requests, &row.connections) {
                (Some(requests), _) => {
                    let [success, rps, _, p95, _] = requests.cells();
                    (success, rps, p95)
                }
                (None, Some(connections)) => (connections.success(), "-".to_owned(), "-".to_owned()),
                (None, None) => ("-".to_owned(), "-".to_owned(), "-".to_owned()),
            };
            table.add_row([row.service.clone(), row.address.to_string(), workload, state, success, rps, p95]);
        }
        line(&trimmed(&table));
        for row in &self.endpoints {
            if let Some(why) = row.remark() {
                line(&format!("{} {why}", row.address));
            }
            for out in &row.out {
                let until = match out.seconds_left {
                    Some(left) => format!("for {left} s more"),
                    None => "until its health checks pass".to_owned(),
                };
                let OutFor { client, why, last_failure, .. } = out;
                line(&format!("{} gets nothing from {client} {until}: {why}: {last_failure}", row.address));
            }
        }
        let mut failing: Vec<(&Row, &SeenFailing)> =
            self.endpoints.iter().filter_map(|row| Some((row, row.failing.as_ref()?))).collect();
        failing.sort_by_key(|(_, failing)| std::cmp::Reverse(failing.failures));
        for (row, failing) in failing {
            line(&format!("{} {failing}", row.address));
        }
        for one in &self.undelivered {
            line(&one.to_string());
        }
        for one in &self.elsewhere {
            line(&one.to_string());
        }
        if self.failures_left_out > 0 {
            line(&format!("not shown: {} failures at further endpoints", self.failures_left_out));
        }
        text + &self.missing.to_text()
    }
}

impl Row {
    /// What its state leaves open; `None`: nothing.
    pub(crate) fn remark(&self) -> Option<String> {
        match (&self.state, &self.slow) {
            _ if self.is_absent => {
                let since = self.not_connected_since.as_deref();
                let since = since.map_or_else(
                    || "since the control plane started".to_owned(),
                    |since| format!("since {since}"),
                );
                Some(format!(
                    "has no sidecar that is connected, {since}: if it has ended, nobody answers there"
                ))
            }
            (State::Slow, Some(slow)) => {
                let (own, others) = (milliseconds(slow.own_ms), milliseconds(slow.siblings_ms));
                let percent = slow.percent;
                Some(format!(
                    "is slow: {percent} % of its requests take up to {own}, at its siblings {others}"
                ))
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for Undelivered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { service, requests, failures, reasons } = self;
        let reasons: Vec<String> =
            reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let reasons = reasons.join(", ");
        write!(f, "{service}: {failures} of {requests} requests got no whole answer from an app: {reasons}")
    }
}

/// What clients' sidecars have failed themselves, by service.
fn undelivered(traffic: &Traffic, only: Option<&Party>) -> Vec<Undelivered> {
    let mut services = BTreeMap::<String, Undelivered>::new();
    let edges = traffic.workloads.values().flat_map(|workload| &workload.edges);
    let is_meant = |host: &str, port| only.is_none_or(|only| only.is_service(host, port));
    for one in edges.filter(|one| one.edge.way == Way::Outbound && one.edge.carried == Carried::Http) {
        // Where the route leads, if that is another service.
        let backend = one.edge.backend.rsplit_once(':');
        let (host, port) = backend.map_or((&*one.edge.host, one.edge.port), |(host, port)| {
            (host, port.parse().unwrap_or_default())
        });
        if !is_meant(host, port) {
            continue;
        }
        let service = if port == 0 { host.to_owned() } else { format!("{host}:{port}") };
        let sum = services.entry(service.clone()).or_insert_with(|| Undelivered {
            service,
            requests: 0,
            failures: 0,
            reasons: BTreeMap::new(),
        });
        for end in &one.counts.outcomes {
            sum.requests = sum.requests.saturating_add(end.count);
            let reason = end.outcome.reason.as_deref().filter(|_| end.outcome.is_failure(Carried::Http));
            if let Some(reason) = reason {
                sum.failures = sum.failures.saturating_add(end.count);
                let of_reason = sum.reasons.entry(reason.to_owned()).or_default();
                *of_reason = of_reason.saturating_add(end.count);
            }
        }
    }
    services.into_values().filter(|one| one.failures > 0).collect()
}

/// What has come to each port of each workload.
fn sums(traffic: &Traffic) -> BTreeMap<(&WorkloadName, u16), Sum> {
    let mut sums = BTreeMap::<_, Sum>::new();
    for (name, workload) in &traffic.workloads {
        for one in workload.edges.iter().filter(|one| one.edge.way == Way::Inbound) {
            let sum = sums.entry((name, one.edge.port)).or_default();
            sum.add(&one.edge, &one.counts, workload.seconds);
        }
    }
    sums
}

/// A workload whose sidecar is not connected.
struct Absent {
    since: Option<SystemTime>,
    is_awaited: bool,
}

/// What is known of all endpoints.
struct Facts<'a> {
    out: &'a [OutShown],
    sums: BTreeMap<(&'a WorkloadName, u16), Sum>,
    absent: BTreeMap<&'a WorkloadName, Absent>,
    failing: Failing<'a>,
}

/// A row for each endpoint of `service`, and for those others that are out, or that fail and may be its own.
fn rows(service: &ServiceShown, known: &Facts<'_>) -> Vec<Row> {
    let Facts { sums, absent, failing, .. } = known;
    let out: Vec<&OutShown> =
        known.out.iter().filter(|out| out.host == service.host && out.port == service.port).collect();
    let of = |address: SocketAddr| {
        let out = out.iter().filter(|out| out.address == address);
        let told = |out: &&OutShown| OutFor {
            client: out.by.clone(),
            subset: out.subset.as_deref().map(str::to_owned),
            why: out.why.to_string(),
            last_failure: out.last_failure.to_string(),
            seconds_left: out.seconds_left,
        };
        out.map(told).collect::<Vec<_>>()
    };
    let row = |endpoint: &EndpointShown| {
        let sum = endpoint.workload.as_ref().and_then(|name| sums.get(&(name, endpoint.address.port())));
        let out = of(endpoint.address);
        let (requests, connections) = (sum.and_then(Sum::requests), sum.and_then(Sum::connections));
        let failing = failing.at(service, endpoint.address);
        let share = [
            requests.as_ref().map(|one| one.success_percent),
            connections.as_ref().and_then(Connections::success_percent),
            failing.as_ref().map(|failing| failing.seen_percent(requests.is_some() || connections.is_some())),
        ];
        let gone = endpoint.workload.as_ref().and_then(|name| absent.get(name));
        let is_awaited = gone.is_some_and(|gone| gone.is_awaited);
        let gone = gone.filter(|gone| !gone.is_awaited);
        let state = match share.into_iter().flatten().min_by(f64::total_cmp) {
            _ if !out.is_empty() => State::Out,
            _ if gone.is_some() => State::NotConnected,
            Some(percent) if percent < ILL => State::Failing,
            Some(percent) if percent < WELL => State::SomeFailures,
            _ if is_awaited => State::Awaited,
            Some(_) => State::Healthy,
            None if connections.is_some() => State::Healthy,
            None if endpoint.identity.is_some() => State::Idle,
            None => State::Unknown,
        };
        Row {
            service: format!("{}:{}", service.host, service.port),
            address: endpoint.address,
            workload: endpoint.workload.clone(),
            identity: endpoint.identity.clone(),
            state,
            is_absent: gone.is_some(),
            not_connected_since: gone.and_then(|gone| gone.since).map(|since| Utc(since).to_string()),
            is_awaited,
            failing,
            slow: None,
            out,
            requests,
            connections,
        }
    };
    let mut rows: Vec<Row> = service.endpoints.iter().map(row).collect();
    for other in &out {
        if rows.iter().all(|row| row.address != other.address) {
            rows.push(row(&EndpointShown { address: other.address, workload: None, identity: None }));
        }
    }
    // Which addresses a name has only sidecars know.
    if service.endpoints.is_empty() {
        for address in failing.addresses(service) {
            if rows.iter().all(|row| row.address != address) {
                rows.push(row(&EndpointShown { address, workload: None, identity: None }));
            }
        }
    }
    slow::mark(&mut rows);
    rows
}
