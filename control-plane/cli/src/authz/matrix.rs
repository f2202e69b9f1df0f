//! The matrix: what each workload's sidecar, and its client's, says of a connection between the two.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use selvedge_model::{
    ConnectionVerdict, Mesh, Protocol, SpiffeId, Verdict, Workload, WorkloadName,
    facts::{Connection, Source},
    policy::network::{NetworkVerdict, Party},
};
use selvedge_ops::plain;
use serde::Serialize;

use crate::explain::caller::{addresses, revoked};

/// Who calls whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Pair {
    /// The client's workload.
    pub(super) from: String,
    /// The server's workload.
    pub(super) to: String,
    /// The port that is called, as the server's own.
    pub(super) port: u16,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// It is let in, with all its requests.
    Allowed,
    /// It is refused.
    Denied,
    /// Only its requests say.
    DependsOnTheRequest,
}

impl Outcome {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::DependsOnTheRequest => "depends on the request",
        }
    }
}

/// What becomes of a connection, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Cell {
    /// What becomes of it.
    pub(super) outcome: Outcome,
    /// Whether the client speaks mutual TLS with the server.
    pub(super) mutual_tls: bool,
    /// The document, and its rule.
    pub(super) rule: String,
    /// Why it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
}

impl Cell {
    /// The rule, and why it refuses; as a terminal may show it.
    pub(super) fn by(&self) -> String {
        match &self.why {
            Some(why) => plain(&format!("{}: {why}", self.rule)).into_owned(),
            None => plain(&self.rule).into_owned(),
        }
    }
}

/// All pairs of different workloads of which one has a sidecar.
pub(super) fn of(mesh: &Mesh) -> BTreeMap<Pair, Cell> {
    let all = known(mesh);
    let addresses = addresses(mesh);
    let mut matrix = BTreeMap::new();
    for server in &all {
        let is_asked = |client: &&Workload| client.name != server.name && (client.meshed || server.meshed);
        for client in all.iter().filter(is_asked) {
            let ends = Ends { mesh, client, server, addresses: &addresses };
            matrix.extend(server.ports.iter().map(|port| (ends.pair(*port), ends.judge(*port))));
        }
    }
    matrix
}

/// All workloads, with the members of the sets that their policies name.
pub(super) fn known(mesh: &Mesh) -> Vec<Workload> {
    let with_sets = |workload: &Arc<Workload>| workload.with_sets(|part| mesh.sets.get(part).cloned());
    mesh.workloads.values().map(with_sets).collect()
}

/// Both ends of a connection.
struct Ends<'a> {
    mesh: &'a Mesh,
    client: &'a Workload,
    server: &'a Workload,
    addresses: &'a BTreeMap<&'a WorkloadName, IpAddr>,
}

impl Ends<'_> {
    fn pair(&self, port: u16) -> Pair {
        Pair { from: self.client.name.to_string(), to: self.server.name.to_string(), port }
    }

    fn judge(&self, port: u16) -> Cell {
        let unguarded = self.unguarded(port);
        let guarded = self.client.meshed && unguarded.is_none();
        let expected = self.server.expected_identity(port).filter(|_| guarded);
        if let Some(refused) = self.let_out(port, expected) {
            return refused;
        }
        match unguarded {
            Some(why) => {
                Cell { outcome: Outcome::Allowed, mutual_tls: false, rule: why.to_owned(), why: None }
            }
            None => self.let_in(port, expected.is_some()),
        }
    }

    /// Why no sidecar of the server's is asked, if that is so.
    fn unguarded(&self, port: u16) -> Option<&'static str> {
        if !self.server.meshed {
            return Some("nobody: the server has no sidecar");
        }
        self.is_skipped(port).then_some("nobody: connections to this port pass by the sidecar")
    }

    /// The server's address. What is not known matches no rule that names addresses.
    fn server_address(&self) -> IpAddr {
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        self.addresses.get(&self.server.name).copied().unwrap_or(unknown)
    }

    /// Whether connections to `port` reach the server's app without its sidecar.
    fn is_skipped(&self, port: u16) -> bool {
        let occupant = self.mesh.occupants.get(&self.server_address());
        occupant.is_some_and(|one| one.skipped.iter().any(|(first, last)| (*first..=*last).contains(&port)))
    }

    /// Why the client's own sidecar refuses this; `None`: it does not.
    fn let_out(&self, port: u16, expected: Option<&SpiffeId>) -> Option<Cell> {
        let rules = self.client.egress.as_ref().filter(|_| self.client.meshed)?;
        let callee = Party::endpoint(SocketAddr::new(self.server_address(), port), expected);
        match rules.judge(&callee, |_| {}) {
            NetworkVerdict::Allow(_) => None,
            NetworkVerdict::Deny(rule, why) => Some(denied(rule, why, expected.is_some())),
        }
    }

    /// What the server's sidecar says.
    fn let_in(&self, port: u16, mutual_tls: bool) -> Cell {
        let identity = mutual_tls.then_some(&self.client.identity);
        if let Some(why) = identity.and_then(|_| self.revoked()) {
            return denied(&why, "a revoked identity is refused by everybody", mutual_tls);
        }
        let connection = self.connection(identity, port);
        let policy = &self.server.policy;
        let verdict = match self.server.protocols.get(&port) {
            Some(Protocol::Tcp) => ConnectionVerdict::Final(policy.authorize_opaque(&connection)),
            _ => policy.authorize(&connection),
        };
        let (outcome, rule) = match verdict {
            ConnectionVerdict::Final(Verdict::Deny { rule, why, .. }) => {
                return denied(rule, why, mutual_tls);
            }
            // Requests that no route of the server is for are answered, whoever sends them.
            ConnectionVerdict::Final(Verdict::Allow { rule }) if policy.has_routes(port) => {
                (Outcome::DependsOnTheRequest, rule)
            }
            ConnectionVerdict::Final(Verdict::Allow { rule }) => (Outcome::Allowed, rule),
            ConnectionVerdict::DependsOnRequest { rule } => (Outcome::DependsOnTheRequest, rule),
        };
        Cell { outcome, mutual_tls, rule: rule.to_string(), why: None }
    }

    /// The document that revokes one of the two, whose identities both must prove.
    fn revoked(&self) -> Option<String> {
        let of = |workload: &Workload| revoked(self.mesh, &workload.identity, Some(&workload.name));
        of(self.client).or_else(|| of(self.server))
    }

    fn connection<'c>(&'c self, identity: Option<&'c SpiffeId>, port: u16) -> Connection<'c> {
        let namespace = identity.map(SpiffeId::namespace);
        let address = self.addresses.get(&self.client.name).copied();
        let source = Source { address, identity, namespace, ..Source::UNKNOWN };
        // Where connections are redirected, they arrive at the app's own address.
        let own = self.addresses.get(&self.server.name).filter(|_| self.server.inbound.is_none()).copied();
        let destination = own.map(|own| SocketAddr::new(own, port));
        Connection { destination, arrived_at: own, ..Connection::new(source, port) }
    }
}

fn denied(rule: &str, why: &str, mutual_tls: bool) -> Cell {
    Cell { outcome: Outcome::Denied, mutual_tls, rule: rule.to_owned(), why: Some(why.to_owned()) }
}
