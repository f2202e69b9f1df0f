//! What all replicas know together: what pages are made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use selvedge_control_plane::status::{
    AbsentShown, Config, HistoryKey, HistoryPoint, HistorySeen, PieceOfTime, SeenTraffic, ServicesShown,
};
use selvedge_model::{WorkloadName, traffic::Carried};

use super::{
    html::{kubernetes, with_port},
    told::{Found, May, Told, Wanted},
};
use crate::seeing::ask::{Traffic, all_services};

/// See the module.
#[derive(Debug)]
pub(super) struct Facts {
    /// When they were true.
    pub(super) at: SystemTime,
    pub(super) wanted: Wanted,
    pub(super) replicas: Vec<Replica>,
    /// Whether there may be replicas that were not asked.
    pub(super) is_partial: bool,
    pub(super) traffic: Traffic,
    pub(super) history: History,
    pub(super) services: ServicesShown,
    pub(super) problems: Vec<Found>,
    pub(super) problems_left_out: usize,
    pub(super) seen: SeenTraffic,
    pub(super) matrix: Option<Vec<May>>,
    /// Of whose services that no document declares some are shown as one, and how many.
    pub(super) folded: Vec<(WorkloadName, usize)>,
    /// What some replica has left out, because its answer would be too long.
    pub(super) left_out: BTreeSet<String>,
}

/// One replica, and the proxies that are connected to it.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) memory_bytes: Option<u64>,
    pub(super) config: Config,
}

/// What has happened piece by piece.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) known_seconds: u64,
    pub(super) pieces: Vec<PieceOfTime>,
    pub(super) lines: BTreeMap<HistoryKey, BTreeMap<usize, HistoryPoint>>,
    /// How many lines there was no room for.
    pub(super) left_out: usize,
}

impl Facts {
    /// What those who were asked have `told`; `is_whole`: they are all that there are.
    pub(super) fn of(
        wanted: Wanted,
        told: Vec<(String, Told)>,
        unknown: BTreeMap<String, String>,
        is_whole: bool,
    ) -> Self {
        let is_partial = !is_whole && told.iter().any(|(_, one)| one.is_in_cluster);
        let mut facts = Self {
            at: SystemTime::now(),
            wanted,
            replicas: Vec::new(),
            is_partial,
            traffic: Traffic::default(),
            history: History::default(),
            services: ServicesShown::default(),
            problems: Vec::new(),
            problems_left_out: 0,
            seen: SeenTraffic::default(),
            matrix: None,
            folded: Vec::new(),
            left_out: BTreeSet::new(),
        };
        let (mut traffic, mut services) = (Vec::new(), Vec::new());
        for (name, one) in told {
            traffic.push(one.traffic);
            facts.history.add(one.history);
            services.push(one.services);
            if facts.problems.is_empty() {
                (facts.problems, facts.problems_left_out) = (one.problems, one.problems_left_out);
            }
            for (workload, seen) in one.seen.workloads {
                let known = facts.seen.workloads.entry(workload).or_default();
                known.callers.extend(seen.callers);
                known.refused_calls.extend(seen.refused_calls);
                known.left_out = known.left_out.saturating_add(seen.left_out);
                known.watched_seconds = known.watched_seconds.max(seen.watched_seconds);
            }
            facts.matrix = facts.matrix.or(one.matrix);
            facts.left_out.extend(one.left_out);
            let (version, memory_bytes, config) = (one.version, one.memory_bytes, one.config);
            facts.replicas.push(Replica { name, version, memory_bytes, config });
        }
        facts.problems.sort();
        facts.services = all_services(services.into_iter(), is_whole && unknown.is_empty());
        facts.traffic = Traffic::of(wanted.since, traffic, unknown);
        facts.folded = facts.traffic.fold_undeclared(&facts.services);
        facts
    }

    /// The namespaces of which something is known: of services, of workloads, and of who has told something.
    pub(super) fn namespaces(&self) -> BTreeSet<&str> {
        let services = self.services.services.iter();
        let hosts = services.clone().filter_map(|one| Some(kubernetes(&one.host)?.1));
        let endpoints = services.flat_map(|one| &one.endpoints).filter_map(|one| one.workload.as_ref());
        let configs = self.replicas.iter().map(|replica| &replica.config);
        let connected = configs.clone().flat_map(|config| &config.proxies).map(|proxy| &proxy.workload);
        let expected = configs.flat_map(|config| &config.expected);
        let workloads = endpoints.chain(connected).chain(expected).chain(self.traffic.workloads.keys());
        let edges = self.traffic.workloads.values().flat_map(|one| &one.edges).map(|one| &one.edge);
        let called = edges.clone().filter_map(|edge| Some(kubernetes(&edge.host)?.1));
        let clients = edges.filter_map(|edge| Some(edge.client.as_ref()?.namespace()));
        hosts.chain(workloads.map(WorkloadName::namespace)).chain(called).chain(clients).collect()
    }

    /// Whether something is known of a service with this host.
    pub(super) fn knows_host(&self, host: &str) -> bool {
        let mut edges = self.traffic.workloads.values().flat_map(|one| &one.edges);
        self.services.services.iter().any(|one| &*one.host == host)
            || self.history.lines.keys().any(|key| &*key.host == host)
            || edges.any(|one| &*one.edge.host == host)
    }

    /// Workloads that should be connected, and are to none of the replicas that were asked.
    pub(super) fn absent(&self) -> Vec<&AbsentShown> {
        self.services.absent.iter().filter(|one| !self.services.is_awaited(one)).collect()
    }

    /// Those that may still be coming back, because a replica has just started.
    pub(super) fn awaited(&self) -> Vec<&AbsentShown> {
        self.services.absent.iter().filter(|one| self.services.is_awaited(one)).collect()
    }
}

impl History {
    fn add(&mut self, told: HistorySeen) {
        let HistorySeen { known_seconds, pieces, lines, left_out } = told;
        self.known_seconds = self.known_seconds.max(known_seconds);
        self.left_out = self.left_out.saturating_add(left_out);
        // Replicas' minutes do not begin at the same time: what is in a piece of theirs is in ours that has most of it.
        let mine = if pieces.len() > self.pieces.len() { pieces.clone() } else { self.pieces.clone() };
        let place = |piece: &PieceOfTime, all: &[PieceOfTime]| {
            let middle = piece.began.saturating_sub(piece.seconds / 2);
            // What is older than all of it is in the oldest, and not in the newest.
            if all.first().is_some_and(|oldest| middle > oldest.began) {
                return Some(0);
            }
            let found = all
                .iter()
                .position(|one| middle <= one.began && middle > one.began - one.seconds.min(one.began));
            found.or(all.len().checked_sub(1))
        };
        if mine != self.pieces {
            let before = std::mem::replace(&mut self.pieces, mine);
            for points in self.lines.values_mut() {
                let moved = std::mem::take(points);
                for (at, point) in moved {
                    if let Some(to) = before.get(at).and_then(|piece| place(piece, &self.pieces)) {
                        points.entry(to).or_default().add(&point);
                    }
                }
            }
        }
        for line in lines {
            let points = self.lines.entry(line.to).or_default();
            for (at, point) in line.points {
                if let Some(to) = pieces.get(at).and_then(|piece| place(piece, &self.pieces)) {
                    points.entry(to).or_default().add(&point);
                }
            }
        }
    }

    /// What has happened in each piece at each service's port: requests alone.
    pub(super) fn by_service(&self) -> BTreeMap<String, Vec<HistoryPoint>> {
        let mut services = BTreeMap::<String, Vec<HistoryPoint>>::new();
        for (key, points) in self.lines.iter().filter(|(key, _)| key.carried == Carried::Http) {
            let sums = services.entry(with_port(&key.host, key.port));
            let sums = sums.or_insert_with(|| vec![HistoryPoint::default(); self.pieces.len()]);
            for (at, point) in points {
                if let Some(sum) = sums.get_mut(*at) {
                    sum.add(point);
                }
            }
        }
        services
    }

    /// What has happened in each piece on all lines that are `meant`.
    pub(super) fn sum(&self, meant: impl Fn(&HistoryKey) -> bool) -> Vec<HistoryPoint> {
        let mut sums = vec![HistoryPoint::default(); self.pieces.len()];
        for (_, points) in self.lines.iter().filter(|(key, _)| meant(key)) {
            for (at, point) in points {
                if let Some(sum) = sums.get_mut(*at) {
                    sum.add(point);
                }
            }
        }
        sums
    }
}

/// What pages are made of, as often as it is wanted.
pub(super) type Shared = Arc<Facts>;

#[cfg(test)]
mod tests {
    use selvedge_control_plane::status::HistoryLine;

    use super::*;

    #[test]
    fn what_a_replica_tells_of_before_the_oldest_piece_is_in_the_oldest() {
        let told = |began: u64, count: u64| {
            let key = HistoryKey {
                host: "a".into(),
                port: 80,
                carried: Carried::Http,
                backend: "".into(),
                subset: "".into(),
            };
            let point = HistoryPoint { count, ..HistoryPoint::default() };
            HistorySeen {
                known_seconds: began,
                pieces: [began, began - 60].map(|began| PieceOfTime { began, seconds: 60 }).to_vec(),
                lines: vec![HistoryLine { to: key, points: BTreeMap::from([(0, point)]) }],
                left_out: 0,
            }
        };
        let mut history = History::default();
        history.add(told(130, 1));
        history.add(told(175, 2));

        let counts: Vec<u64> = history.sum(|_| true).iter().map(|point| point.count).collect();
        assert_eq!(counts, [3, 0]);
    }
}
