//! `selvedge edges`: who talks to whom, and whether that is secured.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    process::ExitCode,
};

use selvedge_control_plane::status::ServicesShown;
use selvedge_model::{
    SpiffeId, WorkloadName,
    traffic::{Carried, Edge, Way},
};
use serde::Serialize;

use super::{
    Answer,
    ask::{Missing, PlaceArgs, SinceArgs, Traffic},
    filter::FilterArgs,
    numbers::{Connections, Requests, Sum, shown_percent},
    print,
};
use crate::{
    output::OutputArgs,
    table::{new_table, trimmed},
};

/// Show who talks to whom, whether mutual TLS secures it, and who each end has proven to be
///
/// A row is what the client's sidecar tells, or, if the client has none that tells of itself, what the server's does.
///
/// Exit status: 0; 1 with --require-mtls if something goes in plaintext; 2 if the control plane does not answer.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: PlaceArgs,

    #[command(flatten)]
    filter: FilterArgs,

    #[command(flatten)]
    since: SinceArgs,

    /// Fail if something goes in plaintext
    #[arg(long)]
    require_mtls: bool,

    /// Show what servers' sidecars tell of those clients, too, that tell of themselves
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    output: OutputArgs,
}

/// Whose sidecar tells of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SeenBy {
    Client,
    Server,
}

/// One edge.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) seen_by: SeenBy,
    /// The client: a workload, or, seen by the server, its proven identity. Absent: a client in plaintext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<String>,
    /// The server: a service's port, or, seen by the server, its workload's.
    pub(super) to: String,
    pub(super) mtls: bool,
    /// Who the client has proven to be. Absent: nobody, as in plaintext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_identity: Option<SpiffeId>,
    /// Who the server has to prove to be: one of these. Empty: nobody, as in plaintext.
    pub(super) server_identities: BTreeSet<SpiffeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requests: Option<Requests>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connections: Option<Connections>,
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    seconds: u64,
    pub(super) edges: Vec<Row>,
    #[serde(flatten)]
    missing: Missing,
}

/// What makes one edge of several.
type Key = (SeenBy, Option<String>, String, bool);

/// Prints the edges; the exit status says whether all are secured, if they must be.
///
/// # Errors
/// If they cannot be written.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let answer = async {
        let traffic = args.place.traffic(args.since).await?;
        let services = args.place.services().await?;
        let report = Report::of(traffic, &services, &args.filter, args.all);
        let is_well = !args.require_mtls || report.edges.iter().all(|edge| edge.mtls);
        Ok(Answer { text: report.to_text(), found: report, is_well })
    };
    print(answer, args.output)
}

impl Report {
    pub(super) fn of(traffic: Traffic, services: &ServicesShown, filter: &FilterArgs, all: bool) -> Self {
        // Those who tell of what they send.
        let tellers: BTreeSet<&SpiffeId> =
            traffic.workloads.values().map(|workload| &workload.identity).collect();
        let mut rows = BTreeMap::<Key, (Row, Sum)>::new();
        for (teller, workload) in &traffic.workloads {
            for one in workload.edges.iter().filter(|one| filter.admits(teller, &one.edge)) {
                let edge = &one.edge;
                let told_twice = edge.client.as_ref().is_some_and(|client| tellers.contains(client));
                if edge.carried == Carried::WebSocket || (told_twice && !all) {
                    continue;
                }
                let row = || Row::of(teller, &workload.identity, edge, services);
                let (_, sum) = rows.entry(key(teller, edge)).or_insert_with(|| (row(), Sum::default()));
                sum.add(edge, &one.counts, workload.seconds);
            }
        }
        let row = |(row, sum): (Row, Sum)| {
            let (requests, connections) = (sum.requests(), sum.connections());
            Row { requests, connections, ..row }
        };
        let edges = rows.into_values().map(row).collect();
        Self { seconds: traffic.seconds, edges, missing: traffic.missing }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: &str| writeln!(text, "{line}").expect("writing to a String cannot fail");
        if self.edges.is_empty() {
            line(&format!("nobody has talked in the last {} s", self.seconds));
        } else {
            let mut table =
                new_table(["FROM", "TO", "SECURED", "SUCCESS", "RPS", "CLIENT IDENTITY", "SERVER IDENTITY"]);
            for row in &self.edges {
                let (success, rps) = row.success();
                let secured = if row.mtls { "mutual TLS" } else { "no" };
                let from = row.from.as_deref().unwrap_or("in plaintext");
                let client = row.client_identity.as_ref().map_or("-", SpiffeId::as_str);
                let servers: Vec<&str> = row.server_identities.iter().map(SpiffeId::as_str).collect();
                let servers = if servers.is_empty() { "-".to_owned() } else { servers.join(", ") };
                table.add_row([from, &row.to, secured, &success, &rps, client, &servers]);
            }
            line(&trimmed(&table));
        }
        text + &self.missing.to_text()
    }
}

fn key(teller: &WorkloadName, edge: &Edge) -> Key {
    match edge.way {
        Way::Outbound => (SeenBy::Client, Some(teller.to_string()), to(&edge.host, edge.port), edge.mtls),
        Way::Inbound => {
            let client = edge.client.as_ref().map(ToString::to_string);
            (SeenBy::Server, client, to(&teller.to_string(), edge.port), edge.mtls)
        }
    }
}

fn to(host: &str, port: u16) -> String {
    if port == 0 { host.to_owned() } else { format!("{host}:{port}") }
}

impl Row {
    fn of(teller: &WorkloadName, identity: &SpiffeId, edge: &Edge, services: &ServicesShown) -> Self {
        let (seen_by, from, to, mtls) = key(teller, edge);
        let (client_identity, server_identities) = match (edge.way, mtls) {
            (Way::Inbound, true) => (edge.client.clone(), BTreeSet::from([identity.clone()])),
            (Way::Outbound, true) => (Some(identity.clone()), expected(edge, services)),
            (_, false) => (None, BTreeSet::new()),
        };
        Self {
            seen_by,
            from,
            to,
            mtls,
            client_identity,
            server_identities,
            requests: None,
            connections: None,
        }
    }

    /// Of requests, or of connections if there were no requests.
    fn success(&self) -> (String, String) {
        match (&self.requests, &self.connections) {
            (Some(requests), _) => {
                let [success, rps, ..] = requests.cells();
                (success, rps)
            }
            (None, Some(Connections { count, failures, .. })) => {
                let share = count.saturating_sub(*failures) as f64 * 100.0 / (*count).max(1) as f64;
                (if *count == 0 { "-".to_owned() } else { shown_percent(share) }, "-".to_owned())
            }
            (None, None) => ("-".to_owned(), "-".to_owned()),
        }
    }
}

/// Who the endpoints of the service have to prove to be that `edge` leads to.
fn expected(edge: &Edge, services: &ServicesShown) -> BTreeSet<SpiffeId> {
    let (host, port) = match edge.backend.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().unwrap_or_default()),
        None => (&*edge.host, edge.port),
    };
    let service = services.services.iter().filter(|service| &*service.host == host && service.port == port);
    service.flat_map(|service| &service.endpoints).filter_map(|endpoint| endpoint.identity.clone()).collect()
}
