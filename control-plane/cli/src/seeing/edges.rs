//! `selvedge edges`: who talks to whom, and whether that is secured.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    process::ExitCode,
};

use selvedge_control_plane::status::{EdgeTraffic, EndpointShown, ServiceShown, ServicesShown};
use selvedge_model::{
    SpiffeId, WorkloadName,
    traffic::{Carried, Edge, Way},
};
use serde::Serialize;

use super::{
    Answer,
    ask::{Missing, SinceArgs, Traffic},
    filter::FilterArgs,
    known::Kinds,
    numbers::{Connections, Requests, Sum},
    print,
};
use crate::{
    output::OutputArgs,
    replicas::PlaceArgs,
    table::{new_table, trimmed},
};

/// Show who talks to whom, whether mutual TLS secures it, and who each end has proven to be
///
/// A row is what the client's sidecar tells. What the server's does is shown where no client's row is, as of clients that have
/// none. What was sent nowhere (no endpoint, no connection) or was given up before there was an answer is no plaintext.
///
/// Exit status: 0; 1 with --require-mtls if something has gone in plaintext, or if --from or --to names nothing that is known;
/// 2 if the control plane does not answer.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: PlaceArgs,

    #[command(flatten)]
    filter: FilterArgs,

    #[command(flatten)]
    since: SinceArgs,

    /// Fail if something goes in plaintext, or a replica does not tell what it knows
    #[arg(long)]
    require_mtls: bool,

    /// Show what servers' sidecars tell of those clients, too, whose own rows are shown
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    output: OutputArgs,
}

/// Whose sidecar tells of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SeenBy {
    Client,
    Server,
}

/// How it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Secured {
    MutualTls,
    Plaintext,
    /// Nothing of it has reached an endpoint for certain.
    NotSent,
}

/// One edge.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) seen_by: SeenBy,
    /// The client: a workload, or, seen by the server, its proven identity. Absent: a client in plaintext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    /// The server: a service's port, or, seen by the server, its workload's.
    pub(crate) to: String,
    pub(crate) mtls: bool,
    pub(crate) secured: Secured,
    /// Who the client has proven to be. Absent: nobody, as in plaintext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_identity: Option<SpiffeId>,
    /// Who the server has to prove to be: one of these. Empty: nobody, as in plaintext.
    pub(crate) server_identities: BTreeSet<SpiffeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requests: Option<Requests>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<Connections>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) seconds: u64,
    pub(crate) edges: Vec<Row>,
    #[serde(flatten)]
    pub(crate) missing: Missing,
}

/// Services by their hosts and ports.
type ByName<'a> = BTreeMap<(&'a str, u16), &'a ServiceShown>;

/// What makes one edge of several.
type Key = (SeenBy, Option<String>, String, Secured);

/// Prints the edges; the exit status says whether all are secured, if they must be.
///
/// # Errors
/// If they cannot be written.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let answer = async {
        let (traffic, services) = args.place.traffic_and_services(args.since).await?;
        let mut report = Report::of(&traffic, &services, &args.filter, args.all);
        if report.edges.is_empty() && args.filter.is_set() {
            let known = args.place.known(&traffic).await?;
            report.missing.not_known = args.filter.not_known(&known, Kinds::Both);
        }
        let is_well = report.missing.not_known.is_empty() && (!args.require_mtls || report.is_secured());
        Ok(Answer { text: report.to_text(), found: report, is_well, is_early: false })
    };
    print(answer, args.output)
}

impl Report {
    pub(crate) fn of(traffic: &Traffic, services: &ServicesShown, filter: &FilterArgs, all: bool) -> Self {
        let services = by_name(services);
        let told = told_by_clients(traffic, &services, filter);
        let mut rows = BTreeMap::<Key, (Row, Sum)>::new();
        for (teller, workload) in &traffic.workloads {
            for one in workload.edges.iter().filter(|one| filter.admits(teller, &one.edge)) {
                let edge = &one.edge;
                let told_twice = edge.client.as_ref().is_some_and(|client| told.contains(&(client, teller)));
                if edge.carried == Carried::WebSocket || (told_twice && !all) {
                    continue;
                }
                let key = key(teller, one);
                let mut row = Row::of(&key, &workload.identity, edge, &services);
                let servers = std::mem::take(&mut row.server_identities);
                let (row, sum) = rows.entry(key).or_insert_with(|| (row, Sum::default()));
                row.server_identities.extend(servers);
                sum.add(edge, &one.counts, workload.seconds);
            }
        }
        fold_unsent(&mut rows);
        let row = |(row, sum): (Row, Sum)| {
            let (requests, connections) = (sum.requests(), sum.connections());
            Row { requests, connections, ..row }
        };
        let edges = rows.into_values().map(row).collect();
        Self { seconds: traffic.seconds, edges, missing: traffic.missing.clone() }
    }

    /// Whether nothing goes in plaintext, as far as every replica has told.
    pub(crate) fn is_secured(&self) -> bool {
        let is_plaintext = |row: &Row| row.secured == Secured::Plaintext;
        self.missing.unknown.is_empty() && !self.edges.iter().any(is_plaintext)
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
                let secured = match row.secured {
                    Secured::MutualTls => "mutual TLS",
                    Secured::Plaintext => "no",
                    Secured::NotSent => "not sent",
                };
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

fn by_name(services: &ServicesShown) -> ByName<'_> {
    services.services.iter().map(|service| ((&*service.host, service.port), service)).collect()
}

/// Which clients' rows are shown for which servers: each client's identity, with the workloads that it calls over mutual TLS.
fn told_by_clients<'a>(
    traffic: &'a Traffic,
    services: &ByName<'a>,
    filter: &FilterArgs,
) -> BTreeSet<(&'a SpiffeId, &'a WorkloadName)> {
    let mut told = BTreeSet::new();
    for (teller, workload) in &traffic.workloads {
        let sent = workload.edges.iter().map(|one| &one.edge);
        let sent = sent.filter(|edge| edge.way == Way::Outbound && edge.mtls && filter.admits(teller, edge));
        for edge in sent {
            let servers = called(edge, services).filter_map(|endpoint| endpoint.workload.as_ref());
            told.extend(servers.map(|server| (&workload.identity, server)));
        }
    }
    told
}

/// What was sent nowhere is a part of the edge on which the rest was sent.
fn fold_unsent(rows: &mut BTreeMap<Key, (Row, Sum)>) {
    let unsent: Vec<Key> = rows.keys().filter(|key| key.3 == Secured::NotSent).cloned().collect();
    for key in unsent {
        let of = |secured| (key.0, key.1.clone(), key.2.clone(), secured);
        let sent = [Secured::MutualTls, Secured::Plaintext].map(of);
        if let Some(sent) = sent.iter().find(|sent| rows.contains_key(*sent))
            && let Some((_, sum)) = rows.remove(&key)
            && let Some((_, all)) = rows.get_mut(sent)
        {
            all.merge(&sum);
        }
    }
}

fn key(teller: &WorkloadName, EdgeTraffic { edge, counts }: &EdgeTraffic) -> Key {
    let secured = match edge.mtls {
        true => Secured::MutualTls,
        false if edge.in_plaintext(counts) > 0 => Secured::Plaintext,
        false => Secured::NotSent,
    };
    match edge.way {
        Way::Outbound => (SeenBy::Client, Some(teller.to_string()), to(&edge.host, edge.port), secured),
        Way::Inbound => {
            let client = edge.client.as_ref().map(ToString::to_string);
            (SeenBy::Server, client, to(&teller.to_string(), edge.port), secured)
        }
    }
}

fn to(host: &str, port: u16) -> String {
    if port == 0 { host.to_owned() } else { format!("{host}:{port}") }
}

impl Row {
    fn of(key: &Key, identity: &SpiffeId, edge: &Edge, services: &ByName<'_>) -> Self {
        let (seen_by, from, to, secured) = key.clone();
        let (client_identity, server_identities) = match (edge.way, edge.mtls) {
            (Way::Inbound, true) => (edge.client.clone(), BTreeSet::from([identity.clone()])),
            (Way::Outbound, true) => {
                let expected = called(edge, services).filter_map(|endpoint| endpoint.identity.clone());
                (Some(identity.clone()), expected.collect())
            }
            (_, false) => (None, BTreeSet::new()),
        };
        Self {
            seen_by,
            from,
            to,
            mtls: secured == Secured::MutualTls,
            secured,
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
            (None, Some(connections)) => (connections.success(), "-".to_owned()),
            (None, None) => ("-".to_owned(), "-".to_owned()),
        }
    }
}

/// The endpoints of the service that `edge` leads to.
fn called<'a>(edge: &Edge, services: &ByName<'a>) -> impl Iterator<Item = &'a EndpointShown> + use<'a> {
    let (host, port) = match edge.backend.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().unwrap_or_default()),
        None => (&*edge.host, edge.port),
    };
    let found = services.get(&(host, port)).copied();
    found.into_iter().flat_map(|service| &service.endpoints)
}
