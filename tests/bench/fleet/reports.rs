//! What simulated proxies report: ten edges, on each of which as much has happened as on a busy one.

use std::{sync::atomic::Ordering, time::Duration};

use anyhow::ensure;
use selvedge_api::wire;
use selvedge_control_plane::status::TrafficSeen;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Fleet, LIMIT, REST,
    proxies::{Identity, Record},
    report::Case,
};
use crate::measure::{cpu, resident_kib};

/// How each edge's requests of one report have ended: status, reason, and how many.
const OUTCOMES: [(u32, &str, u64); 3] = [(200, "", 1_480), (404, "", 15), (503, "no-endpoint", 5)];
/// The lowest bucket of their times, and how many beside it have some, too.
const BUCKETS: (u32, usize) = (40, 15);

/// How many requests one report tells of on each edge.
pub(super) fn of_edge() -> u64 {
    OUTCOMES.iter().map(|(.., count)| count).sum()
}

impl Fleet {
    /// Every proxy reports ten busy edges, again and again. CPU time is that of a minute.
    pub(super) async fn reports(&mut self, (every, lasting): (Duration, Duration)) -> anyhow::Result<Case> {
        let pid = self.pid()?;
        self.rest().await?;
        let memory = resident_kib(&[pid])?[0];
        self.record.every.send_replace(Some(every));
        // The first ones have the names of edges, and come within the first round.
        tokio::time::sleep(every).await;
        let (used, own, began) = (cpu(&[pid])?, cpu(&[std::process::id()])?, Instant::now());
        tokio::time::sleep(lasting).await;
        let minutes = began.elapsed().as_secs_f64() / 60.0;
        let used = cpu(&[pid])?.saturating_sub(used).div_f64(minutes);
        let own = cpu(&[std::process::id()])?.saturating_sub(own).div_f64(minutes);
        self.record.every.send_replace(None);
        let now = resident_kib(&[pid])?[0];
        let mut seconds = Vec::new();
        let wanted = self.record.reported.load(Ordering::Acquire);
        let deadline = Instant::now() + LIMIT;
        loop {
            let asked = Instant::now();
            let seen = self.traffic().await?;
            seconds.push(asked.elapsed());
            if seen == wanted {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "the control plane knows of {seen} requests, and not of {wanted}"
            );
            tokio::time::sleep(REST).await;
        }
        Ok(Case {
            name: "reports",
            seconds,
            cpu: Some(used),
            own: Some(own),
            memory_kib: Some(now),
            kib_for_each: Some(now.saturating_sub(memory) as f64 / self.proxies.len() as f64),
            ..Case::default()
        })
    }

    /// How many requests the control plane knows of, all edges of the last hour together.
    async fn traffic(&self) -> anyhow::Result<u64> {
        let seen: TrafficSeen = serde_json::from_str(&self.ask("/traffic?since=3600").await?)?;
        ensure!(seen.dropped == 0, "the control plane has dropped {} requests", seen.dropped);
        let edges = seen.workloads.values().flat_map(|workload| &workload.edges);
        let told: u64 = edges.map(|edge| edge.counts.ends()).sum();
        // What an answer has no room for is not told, and counted.
        Ok(told + seen.workloads.values().map(|workload| workload.left_out).sum::<u64>())
    }
}

/// The reports of one proxy on one stream.
#[derive(Debug)]
pub(super) struct Reports<'p> {
    identity: &'p Identity,
    record: &'p Record,
    every: watch::Receiver<Option<Duration>>,
    /// `None`: it does not report.
    next: Option<Instant>,
    are_named: bool,
}

impl<'p> Reports<'p> {
    pub(super) fn new(identity: &'p Identity, record: &'p Record) -> Self {
        let mut every = record.every.subscribe();
        every.mark_changed();
        Self { identity, record, every, next: None, are_named: false }
    }

    /// Until the next one is to be sent. May be dropped and asked again.
    pub(super) async fn due(&mut self) {
        loop {
            let sleeping = async {
                match self.next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleeping => return,
                changed = self.every.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    // Not all at the same moment: they have not started at the same moment, either.
                    let every = *self.every.borrow_and_update();
                    self.next = every.map(|every| Instant::now() + every.mul_f64(fastrand::f64()));
                }
            }
        }
    }

    /// The report that is due.
    pub(super) fn next(&mut self) -> wire::Report {
        let every = *self.every.borrow();
        self.next = self.next.zip(every).map(|(next, every)| next + every);
        let edges = 0..u32::try_from(self.identity.authorities.len()).unwrap_or(0);
        let names = if self.are_named { 0..0 } else { edges.clone() };
        self.are_named = true;
        self.record.reported.fetch_add(of_edge() * u64::from(edges.end), Ordering::Relaxed);
        wire::Report {
            watched_seconds: 60,
            edge_names: names.zip(&self.identity.authorities).map(|(edge, name)| named(edge, name)).collect(),
            edges: edges.map(counts).collect(),
            memory_bytes: 20 << 20,
            ..wire::Report::default()
        }
    }
}

fn named(edge: u32, authority: &str) -> wire::EdgeName {
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    wire::EdgeName {
        edge,
        host: host.to_owned(),
        port: port.parse().unwrap_or_default(),
        route: "default".to_owned(),
        mtls: true,
        ..wire::EdgeName::default()
    }
}

fn counts(edge: u32) -> wire::EdgeCounts {
    let outcome = |(status, reason, count): (u32, &str, u64)| wire::EdgeOutcome {
        status,
        reason: reason.to_owned(),
        count,
        ..wire::EdgeOutcome::default()
    };
    let (first, more) = BUCKETS;
    let each = of_edge() / (more as u64 + 1);
    let rest = of_edge() - each * more as u64;
    wire::EdgeCounts {
        edge,
        outcomes: OUTCOMES.into_iter().map(outcome).collect(),
        latency_steps: std::iter::once(first).chain(std::iter::repeat_n(1, more)).collect(),
        latency_counts: std::iter::once(rest).chain(std::iter::repeat_n(each, more)).collect(),
        latency_micros: of_edge() * 2_000,
        sent: of_edge() * 1_024,
        ..wire::EdgeCounts::default()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use selvedge_model::traffic::{Counts, Edge};

    use super::*;

    #[test]
    fn ten_busy_edges_are_told_in_a_kibibyte_as_control_planes_understand_it() {
        let edges: Vec<wire::EdgeCounts> = (0..10).map(counts).collect();
        let report = wire::Report { edges: edges.clone(), memory_bytes: 20 << 20, ..wire::Report::default() };
        assert!(report.encoded_len() <= 1_024, "{} bytes", report.encoded_len());
        for one in edges {
            let (_, counts) = <(u32, Counts)>::try_from(one).expect("it is understood");
            assert_eq!((counts.ends(), counts.latencies.count()), (of_edge(), of_edge()));
        }
        let (_, edge) = <(u32, Edge)>::try_from(named(3, "svc3.team0.svc.cluster.local:80")).expect("a name");
        assert_eq!((&*edge.host, edge.port, edge.mtls), ("svc3.team0.svc.cluster.local", 80, true));
    }
}
