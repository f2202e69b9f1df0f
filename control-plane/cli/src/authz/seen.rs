//! The traffic that was really seen in the last hour, and what a change does to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use selvedge_control_plane::status::{SeenCaller, SeenTraffic};
use selvedge_model::{Mesh, SpiffeId, Workload, WorkloadName, seen::Caller};
use serde::Serialize;

use super::{
    matrix::{self, Cell, Pair},
    trying::{Change, Effect, effect},
};
use crate::{
    cluster,
    explain::{
        caller::addresses,
        ends::{Client, Ends, Server},
    },
    replicas::{Answers, PlaceArgs, REPLICA_TIME},
};

/// What a change does to those who talk now.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Comparison {
    /// Who talks now and loses something.
    pub(super) refused: Vec<Talking>,
    /// Who talks now and whose requests decide before and after, by policies that are not the same.
    pub(super) judged_anew: Vec<Talking>,
    /// Whose own sidecar has refused to call somebody, and what becomes of that.
    pub(super) refused_calls: Vec<Talking>,
    /// How many callers were compared, each at each port.
    pub(super) compared: usize,
    /// The shortest time for which a sidecar has been watching, in seconds.
    pub(super) watched_seconds: u64,
    /// Connections of callers or to ports that sidecars did not keep, because too many came.
    pub(super) left_out: BTreeMap<WorkloadName, u64>,
    /// Workloads with a sidecar of which nothing is known.
    pub(super) silent: BTreeSet<WorkloadName>,
    /// Replicas of the control plane that do not answer, and why.
    pub(super) unknown: BTreeMap<String, String>,
}

/// What changes for somebody who talks now.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Talking {
    #[serde(flatten)]
    pub(super) change: Change,
    /// How long ago it was last seen.
    pub(super) seconds_ago: u64,
}

/// What the replicas of a control plane say.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    seen: SeenTraffic,
    unknown: BTreeMap<String, String>,
}

impl Traffic {
    /// What the control plane says that is at `place`.
    ///
    /// # Errors
    /// If no replica answers.
    pub(super) fn of(place: &PlaceArgs) -> Result<Self, String> {
        let asked = cluster::runtime()
            .and_then(|runtime| runtime.block_on(place.ask::<SeenTraffic>("/seen", REPLICA_TIME)));
        asked.map(Self::merged).map_err(|error| format!("{error:#}"))
    }

    /// What all replicas say together: each knows what its own sidecars have told.
    pub(super) fn merged(replicas: Answers<SeenTraffic>) -> Self {
        let mut traffic = Self { unknown: replicas.unknown, ..Self::default() };
        replicas.told.into_values().for_each(|seen| traffic.add(seen));
        traffic
    }

    fn add(&mut self, seen: SeenTraffic) {
        for (name, more) in seen.workloads {
            let known = self.seen.workloads.entry(name).or_default();
            known.watched_seconds = known.watched_seconds.max(more.watched_seconds);
            known.left_out = known.left_out.saturating_add(more.left_out);
            known.callers.extend(more.callers);
            // Of several replicas: the one that has seen it last.
            known.callers.sort();
            known.callers.dedup_by(|one, other| (&one.caller, one.port) == (&other.caller, other.port));
            known.refused_calls.extend(more.refused_calls);
            known.refused_calls.sort();
            known
                .refused_calls
                .dedup_by(|one, other| (one.target, &one.policy) == (other.target, &other.policy));
        }
    }

    /// What the change from `before` to `after` does to it.
    pub(super) fn compared(self, before: &Mesh, after: &Mesh, changed: &BTreeSet<String>) -> Comparison {
        let (before, after) = (Side::of(before), Side::of(after));
        let mut comparison = Comparison {
            unknown: self.unknown,
            silent: before
                .meshed()
                .filter(|name| !self.seen.workloads.contains_key(*name))
                .cloned()
                .collect(),
            watched_seconds: self.seen.workloads.values().map(|one| one.watched_seconds).min().unwrap_or(0),
            ..Comparison::default()
        };
        for (name, seen) in &self.seen.workloads {
            if seen.left_out > 0 {
                comparison.left_out.insert(name.clone(), seen.left_out);
            }
            for refusal in &seen.refused_calls {
                let change = before.call(name, refusal.target).zip(after.call(name, refusal.target));
                comparison.refused_calls.extend(change.map(|((pair, before), (_, after))| Talking {
                    change: Change { pair, before, after },
                    seconds_ago: refusal.seconds_ago,
                }));
            }
            for caller in &seen.callers {
                comparison.compared += 1;
                for from in before.callers(name, caller) {
                    comparison.judge(&before, &after, &from, (name, caller), changed);
                }
            }
        }
        comparison
    }
}

impl Comparison {
    fn judge(
        &mut self,
        before: &Side<'_>,
        after: &Side<'_>,
        from: &From<'_>,
        (name, seen): (&WorkloadName, &SeenCaller),
        changed: &BTreeSet<String>,
    ) {
        let cells = before.cell(from, name, seen.port).zip(after.cell(from, name, seen.port));
        let Some((before, after)) = cells else { return };
        let pair = Pair { from: from.to_string(), to: name.to_string(), port: seen.port };
        let list = match effect(&before, &after, changed.contains(&pair.to)) {
            Effect::Refused => &mut self.refused,
            Effect::JudgedAnew => &mut self.judged_anew,
            Effect::LetIn | Effect::None => return,
        };
        list.push(Talking { change: Change { pair, before, after }, seconds_ago: seen.seconds_ago });
    }

    /// Whether somebody who talks now would be refused, or perhaps.
    pub(super) fn breaks(&self) -> bool {
        !self.refused.is_empty() || !self.judged_anew.is_empty()
    }
}

/// Who may be the caller that was seen.
#[derive(Debug)]
enum From<'a> {
    /// A workload, which calls as its sidecar does it, or in plaintext if it has none.
    Workload(&'a WorkloadName),
    /// Somebody with this identity whom no document declares now.
    Identity(&'a SpiffeId),
    /// Somebody in plaintext.
    Address(IpAddr),
}

impl std::fmt::Display for From<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Workload(name) => name.fmt(f),
            Self::Identity(identity) => identity.fmt(f),
            Self::Address(address) => write!(f, "{address} in plaintext"),
        }
    }
}

/// A mesh, before or after.
struct Side<'a> {
    mesh: &'a Mesh,
    workloads: BTreeMap<WorkloadName, Workload>,
    addresses: BTreeMap<&'a WorkloadName, IpAddr>,
}

impl<'a> Side<'a> {
    fn of(mesh: &'a Mesh) -> Self {
        let known = matrix::known(mesh).into_iter().map(|workload| (workload.name.clone(), workload));
        Self { mesh, workloads: known.collect(), addresses: addresses(mesh) }
    }

    fn meshed(&self) -> impl Iterator<Item = &WorkloadName> {
        self.workloads.values().filter(|workload| workload.meshed).map(|workload| &workload.name)
    }

    fn address(&self, name: &WorkloadName) -> Option<IpAddr> {
        self.addresses.get(name).copied()
    }

    /// The workload that alone has `address`.
    fn alone_at(&self, address: IpAddr) -> Option<&'a WorkloadName> {
        let mut theirs = self.addresses.iter().filter(|(_, known)| **known == address);
        theirs.next().filter(|_| theirs.next().is_none()).map(|(name, _)| *name)
    }

    /// Who may have been seen to call `server`: all workloads that have an identity, or the one that has an address.
    fn callers<'s>(&'s self, server: &WorkloadName, seen: &'s SeenCaller) -> Vec<From<'s>> {
        match &seen.caller {
            Caller::Identity(identity) => {
                let theirs =
                    self.workloads.values().filter(|one| one.has_proxy() && one.identity == *identity);
                let all: Vec<_> = theirs.map(|one| From::Workload(&one.name)).collect();
                if all.is_empty() { vec![From::Identity(identity)] } else { all }
            }
            Caller::Address(address) => {
                let workload = self.alone_at(*address).and_then(|name| self.workloads.get(name));
                // Of one with a proxy that calls in plaintext, its proxy did it only where nobody takes mutual TLS.
                let by_proxy = |one: &&Workload| !one.has_proxy() || !self.takes_mtls(server, seen.port);
                match workload.filter(by_proxy) {
                    Some(workload) => vec![From::Workload(&workload.name)],
                    None => vec![From::Address(*address)],
                }
            }
        }
    }

    fn takes_mtls(&self, server: &WorkloadName, port: u16) -> bool {
        let server = self.workloads.get(server);
        let server =
            server.map(|server| Server::workload(self.mesh, server, self.address(&server.name), port));
        server.is_some_and(|server| server.expected.is_some())
    }

    /// What becomes of a call of the workload `from` to the address `target`; `None`: the workload is not there.
    fn call(&self, from: &WorkloadName, target: SocketAddr) -> Option<(Pair, Cell)> {
        let client = self.workloads.get(from)?;
        let occupant = self.alone_at(target.ip());
        let server = match occupant.and_then(|name| self.workloads.get(name)) {
            Some(server) => Server::workload(self.mesh, server, Some(target.ip()), target.port()),
            None => Server::stranger(target),
        };
        let to = occupant.map_or_else(|| target.ip().to_string(), ToString::to_string);
        let client = Client::workload(client, self.address(from));
        let ends = Ends { mesh: self.mesh, client, server, request: None };
        Some((Pair { from: from.to_string(), to, port: target.port() }, Cell::of(&ends)))
    }

    /// What becomes of a connection of `from` to a workload's port; `None`: one of them is not there.
    fn cell(&self, from: &From<'_>, server: &WorkloadName, port: u16) -> Option<Cell> {
        let server = self.workloads.get(server)?;
        let plain = Client { identity: None, workload: None, address: None, egress: None };
        let client = match from {
            From::Workload(name) => Client::workload(self.workloads.get(*name)?, self.address(name)),
            From::Identity(identity) => Client { identity: Some(identity), ..plain },
            From::Address(address) => Client { address: Some(*address), ..plain },
        };
        let server = Server::workload(self.mesh, server, self.address(&server.name), port);
        let ends = Ends { mesh: self.mesh, client, server, request: None };
        Some(Cell::of(&ends))
    }
}
