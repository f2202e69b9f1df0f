//! The matrix: what each workload's sidecar, and its client's, says of a connection between the two.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use selvedge_model::{Mesh, Workload, WorkloadName};
use selvedge_ops::plain;
use serde::{Deserialize, Serialize};

use super::filter::Filter;
pub(crate) use crate::explain::ends::Outcome;
use crate::explain::{
    caller::addresses,
    ends::{Client, Ends, Judgement, Server},
};

/// Who calls whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Pair {
    /// The client's workload.
    pub(crate) from: String,
    /// The server's workload.
    pub(crate) to: String,
    /// The port that is called, as the server's own.
    pub(crate) port: u16,
}

/// What becomes of a connection, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// Whether the client speaks mutual TLS with the server.
    pub(crate) mutual_tls: bool,
    /// What becomes of it.
    #[serde(flatten)]
    pub(crate) judgement: Judgement,
}

impl Cell {
    /// What becomes of a connection between these ends.
    pub(crate) fn of(ends: &Ends<'_>) -> Self {
        Self { mutual_tls: ends.expected().is_some(), judgement: ends.judge() }
    }

    /// What becomes of it.
    pub(crate) fn outcome(&self) -> Outcome {
        self.judgement.outcome
    }

    /// The rule, and why it refuses; as a terminal may show it.
    pub(crate) fn by(&self) -> String {
        plain(&self.judgement.reason()).into_owned()
    }
}

/// All pairs of different workloads of which the client has a sidecar or is a gateway, or the server has a sidecar.
pub(crate) fn of(mesh: &Mesh) -> BTreeMap<Pair, Cell> {
    of_some(mesh, &Filter::default())
}

/// Those of them whose client and server are asked for.
pub(crate) fn of_some(mesh: &Mesh, filter: &Filter) -> BTreeMap<Pair, Cell> {
    let all = known(mesh);
    let addresses = addresses(mesh);
    let mut matrix = BTreeMap::new();
    for server in all.iter().filter(|server| filter.is_server(server)) {
        let is_asked =
            |client: &&Workload| client.name != server.name && (client.has_proxy() || server.meshed);
        for client in all.iter().filter(is_asked).filter(|client| filter.is_client(client)) {
            matrix.extend(server.ports.iter().map(|port| {
                let pair = Pair { from: client.name.to_string(), to: server.name.to_string(), port: *port };
                (pair, cell(mesh, client, server, *port, &addresses))
            }));
        }
    }
    matrix
}

/// All workloads, with the members of the sets that their policies name.
pub(crate) fn known(mesh: &Mesh) -> Vec<Workload> {
    let with_sets = |workload: &Arc<Workload>| workload.with_sets(|part| mesh.sets.get(part).cloned());
    mesh.workloads.values().map(with_sets).collect()
}

fn cell(
    mesh: &Mesh,
    client: &Workload,
    server: &Workload,
    port: u16,
    addresses: &BTreeMap<&WorkloadName, IpAddr>,
) -> Cell {
    let address = |workload: &Workload| addresses.get(&workload.name).copied();
    let ends = Ends {
        mesh,
        client: Client::workload(client, address(client)),
        server: Server::workload(mesh, server, address(server), port),
        request: None,
    };
    Cell::of(&ends)
}
