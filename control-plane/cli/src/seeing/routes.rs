//! `selvedge routes`: where each route leads by the documents, and where requests have really gone.

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode, sync::Arc};

use selvedge_control_plane::status::{RouteShown, ServiceShown, ServicesShown, ShareShown};
use selvedge_model::{
    snapshot::Clients,
    traffic::{Carried, Way},
};
use serde::Serialize;

use super::{
    Answer,
    ask::{Missing, SinceArgs, Traffic},
    filter::Party,
    known::{Kinds, Known},
    numbers::{Connections, Requests, Sum, percent, shown_percent},
    print,
};
use crate::{
    output::OutputArgs,
    replicas::PlaceArgs,
    table::{new_table, trimmed},
};

/// Show where each route leads, how much of it each backend should get and has got, and how requests do there
///
/// Services that documents say nothing of but where their endpoints are have one route, which leads to all of these.
///
/// Exit status: 0; 1 if there is no such service; 2 if the control plane does not answer.
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

/// One backend of one route.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) service: String,
    pub(crate) route: String,
    /// The namespace whose clients alone follow it. Absent: those of all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clients: Option<String>,
    /// Where it leads. Absent: nowhere; it answers by itself, or cannot be followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backend: Option<String>,
    /// Why that cannot be used. Absent: it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broken: Option<String>,
    /// Its share by the documents.
    pub(crate) configured_percent: u32,
    /// Its share of what has followed the route. Absent: nothing has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seen_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requests: Option<Requests>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<Connections>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) seconds: u64,
    pub(crate) routes: Vec<Row>,
    #[serde(flatten)]
    pub(crate) missing: Missing,
}

/// Host, port, route, backend if it is another service, and subset.
type Key = (String, u16, String, String, String);

/// Prints the routes.
///
/// # Errors
/// If they cannot be written.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let answer = async {
        let (traffic, services) = args.place.traffic_and_services(args.since).await?;
        let report = Report::of(&traffic, &services, args.service.as_ref());
        let is_well = !report.routes.is_empty();
        Ok(Answer { text: report.to_text(), found: report, is_well, is_early: false })
    };
    print(answer, args.output)
}

impl Report {
    pub(crate) fn of(traffic: &Traffic, services: &ServicesShown, only: Option<&Party>) -> Self {
        let sums = sums(traffic);
        let mut routes = Vec::new();
        let shown = services.services.iter();
        for service in shown.filter(|one| only.is_none_or(|only| only.is_service(&one.host, one.port))) {
            for route in &service.routes {
                routes.extend(rows(service, route, &sums));
            }
        }
        let mut missing = traffic.missing.clone();
        if let Some(only) = only.filter(|_| routes.is_empty()) {
            missing.not_known.extend(Known::of(services).not_known(only, Kinds::Services));
        }
        Self { seconds: traffic.seconds, routes, missing }
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: &str| writeln!(text, "{line}").expect("writing to a String cannot fail");
        if self.routes.is_empty() && self.missing.not_known.is_empty() {
            line("there is no route");
        } else if !self.routes.is_empty() {
            let header =
                ["SERVICE", "ROUTE", "BACKEND", "SHARE", "SEEN", "SUCCESS", "RPS", "P50", "P95", "P99"];
            let mut table = new_table(header);
            for row in &self.routes {
                let dash = || "-".to_owned();
                let cells = match (&row.requests, &row.connections) {
                    (Some(requests), _) => requests.cells(),
                    (None, Some(connections)) => [connections.success(), dash(), dash(), dash(), dash()],
                    (None, None) => [(); 5].map(|()| dash()),
                };
                let route = match &row.clients {
                    Some(namespace) => format!("{} (for clients of {namespace})", row.route),
                    None => row.route.clone(),
                };
                let backend = match (&row.backend, &row.broken) {
                    (None, _) => dash(),
                    (Some(backend), None) => backend.clone(),
                    (Some(backend), Some(why)) => format!("{backend} (unusable: {why})"),
                };
                let seen = row.seen_percent.map_or_else(dash, shown_percent);
                let [success, rps, p50, p95, p99] = cells;
                let share = format!("{} %", row.configured_percent);
                table.add_row([
                    row.service.clone(),
                    route,
                    backend,
                    share,
                    seen,
                    success,
                    rps,
                    p50,
                    p95,
                    p99,
                ]);
            }
            line(&trimmed(&table));
        }
        text + &self.missing.to_text()
    }
}

/// What clients have sent by each route to each backend.
fn sums(traffic: &Traffic) -> BTreeMap<Key, Sum> {
    let mut sums = BTreeMap::<Key, Sum>::new();
    for workload in traffic.workloads.values() {
        for one in workload.edges.iter().filter(|one| one.edge.way == Way::Outbound) {
            let edge = &one.edge;
            if edge.carried == Carried::WebSocket {
                continue;
            }
            let [host, route, backend, subset] =
                [&edge.host, &edge.route, &edge.backend, &edge.subset].map(ToString::to_string);
            let sum = sums.entry((host, edge.port, route, backend, subset)).or_default();
            sum.add(edge, &one.counts, workload.seconds);
        }
    }
    sums
}

/// The namespace of those who alone follow `route`, and their labels if not all there do.
fn clients(route: &RouteShown) -> Option<String> {
    let (namespace, selected) = (Arc::clone(route.clients.as_ref()?), route.labels.clone());
    Some(Clients { namespace, selected }.to_string())
}

/// A row for each backend of `route`, or one if it has none.
fn rows(service: &ServiceShown, route: &RouteShown, sums: &BTreeMap<Key, Sum>) -> Vec<Row> {
    let of = |share: Option<&ShareShown>| {
        let other = share.filter(|share| share.host != service.host || share.port != service.port);
        let other = other.map(|other| format!("{}:{}", other.host, other.port)).unwrap_or_default();
        let subset = share.and_then(|share| share.subset.as_deref()).unwrap_or_default().to_owned();
        let sum = sums.get(&(service.host.to_string(), service.port, route.name.clone(), other, subset));
        sum.map_or((None, None), |sum| (sum.requests(), sum.connections()))
    };
    let shares: Vec<Option<&ShareShown>> = match route.backends.is_empty() {
        true => vec![None],
        false => route.backends.iter().map(Some).collect(),
    };
    let found: Vec<_> = shares.iter().map(|share| of(*share)).collect();
    let count = |(requests, connections): &(Option<Requests>, Option<Connections>)| {
        let connections = connections.as_ref().map_or(0, |one| one.count);
        requests.as_ref().map_or(0, |one| one.count).saturating_add(connections)
    };
    let all: u64 = found.iter().fold(0_u64, |sum, found| sum.saturating_add(count(found)));
    let row = |(share, found): (&Option<&ShareShown>, (Option<Requests>, Option<Connections>))| Row {
        service: format!("{}:{}", service.host, service.port),
        route: route.name.clone(),
        clients: clients(route),
        backend: share.map(|share| match &share.subset {
            Some(subset) => format!("{}:{}/{subset}", share.host, share.port),
            None => format!("{}:{}", share.host, share.port),
        }),
        broken: share.and_then(|share| share.broken.clone()),
        configured_percent: share.map_or(0, |share| share.percent),
        seen_percent: (all > 0).then(|| percent(count(&found), all)),
        requests: found.0,
        connections: found.1,
    };
    shares.iter().zip(found).map(row).collect()
}
