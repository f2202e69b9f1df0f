//! The answer of `/traffic`: what sidecars have carried lately, as they have told it.

use std::{collections::BTreeMap, sync::Arc};

use selvedge_model::{
    SpiffeId, WorkloadName,
    traffic::{Counts, Edge},
};
use serde::{Deserialize, Serialize};

use super::{
    EndpointTraffic, Inner, KEPT, OfOne, failing,
    slots::{FINE, Pieces, begin},
};

/// What the sidecars of this replica have told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficSeen {
    /// Of how many seconds it is.
    pub since_seconds: u64,
    /// How much is kept at all, in seconds; less than an hour if there is too much.
    pub kept_seconds: u64,
    /// Requests and connections since the start that are not kept, because there are too many edges.
    pub dropped: u64,
    /// By the workload whose sidecar has told it.
    pub workloads: BTreeMap<WorkloadName, WorkloadTraffic>,
}

/// What one sidecar has told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadTraffic {
    /// Who the sidecar has proven to be.
    pub identity: SpiffeId,
    /// Of how many seconds it is: a little more than was asked for, because it is kept in pieces; less if the sidecar is not
    /// known for so long.
    pub seconds: u64,
    /// Edges on which something has happened.
    pub edges: Vec<EdgeTraffic>,
    /// Requests and connections since the sidecar started that it cannot tell apart, because there are too many edges, and those of
    /// this answer's time that there is no room for in it.
    pub left_out: u64,
    /// What its attempts at endpoints have come to, where some have failed in this time.
    #[serde(default)]
    pub endpoints: Vec<EndpointTraffic>,
    /// Failures of attempts that are not kept, and endpoints with failures that the sidecar is still to tell of.
    #[serde(default)]
    pub endpoints_left_out: u64,
}

/// What has happened on one edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeTraffic {
    /// Between whom.
    #[serde(flatten)]
    pub edge: Edge,
    /// What.
    #[serde(flatten)]
    pub counts: Counts,
}

/// The longest answer, in bytes, nearly. Commands read 64 MiB at most.
const MOST_BYTES: usize = 40 << 20;

/// An answer, and what of its edges is still to be read: that takes a while, in which nobody else has to wait.
#[derive(Debug)]
pub(super) struct Unread {
    answer: TrafficSeen,
    of_each: Vec<OfEach>,
}

/// Of one workload.
#[derive(Debug)]
struct OfEach {
    edges: Vec<(Arc<Edge>, Pieces)>,
    failing: Vec<failing::Unread>,
}

impl Unread {
    pub(super) fn read(mut self) -> TrafficSeen {
        for (workload, of_it) in self.answer.workloads.values_mut().zip(self.of_each) {
            let OfEach { edges, failing } = of_it;
            workload.endpoints = failing.iter().filter_map(failing::read).collect();
            let read = |(edge, pieces): (Arc<Edge>, Pieces)| EdgeTraffic {
                edge: Edge::clone(&edge),
                counts: pieces.read(),
            };
            workload.edges = edges.into_iter().map(read).filter(|one| !one.counts.is_empty()).collect();
        }
        self.answer.keep_within(MOST_BYTES);
        self.answer
    }
}

impl TrafficSeen {
    /// Of those workloads that have more than their share of what is too much, only the busiest edges are shown.
    pub(super) fn keep_within(&mut self, most: usize) {
        let of_endpoints: usize =
            self.workloads.values().flat_map(|one| &one.endpoints).map(EndpointTraffic::bytes).sum();
        // A small part is for them.
        if of_endpoints > most / 8 {
            let share = most / 8 / self.workloads.len().max(1);
            self.workloads.values_mut().for_each(|workload| workload.keep_endpoints_within(share));
        }
        let all: usize = self.workloads.values().flat_map(|one| &one.edges).map(EdgeTraffic::bytes).sum();
        if all <= most {
            return;
        }
        let share = most / self.workloads.len().max(1);
        for workload in self.workloads.values_mut() {
            if workload.edges.iter().map(EdgeTraffic::bytes).sum::<usize>() <= share {
                continue;
            }
            workload.edges.sort_by_key(|one| std::cmp::Reverse(one.counts.ends()));
            let mut bytes = 0;
            let is_within = |one: &&EdgeTraffic| {
                bytes += one.bytes();
                bytes <= share
            };
            let kept = workload.edges.iter().take_while(is_within).count();
            for one in workload.edges.drain(kept..) {
                let counts = one.counts.ends().max(one.counts.connections);
                workload.left_out = workload.left_out.saturating_add(counts);
            }
        }
    }
}

impl WorkloadTraffic {
    /// Only endpoints with the most failures are shown, if all take more than this `share`.
    fn keep_endpoints_within(&mut self, share: usize) {
        if self.endpoints.iter().map(EndpointTraffic::bytes).sum::<usize>() <= share {
            return;
        }
        self.endpoints.sort_by_key(|one| std::cmp::Reverse(one.failed()));
        let mut bytes = 0;
        let is_within = |one: &&EndpointTraffic| {
            bytes += one.bytes();
            bytes <= share
        };
        let kept = self.endpoints.iter().take_while(is_within).count();
        for one in self.endpoints.drain(kept..) {
            self.endpoints_left_out = self.endpoints_left_out.saturating_add(one.failed());
        }
    }
}

impl EdgeTraffic {
    /// What it takes in an answer, nearly.
    pub(super) fn bytes(&self) -> usize {
        let Edge { host, route, subset, backend, client, .. } = &self.edge;
        let names = [host, route, subset, backend].map(|name| name.len()).into_iter().sum::<usize>();
        let client = client.as_ref().map_or(0, |client| client.as_str().len());
        300 + names + client + 140 * self.counts.outcomes.len() + 24 * self.counts.latencies.buckets().len()
    }
}

impl Inner {
    /// What has happened in the last `since` seconds.
    pub(super) fn since(&mut self, since: u64, now: u64) -> Unread {
        let since = since.clamp(1, KEPT);
        self.sweep_if_due(now);
        let kept = self.kept;
        let (mut workloads, mut of_each) = (BTreeMap::new(), Vec::new());
        for (name, known) in &self.workloads {
            let (workload, of_it) = known.since(since.min(kept), now);
            workloads.insert(name.clone(), workload);
            of_each.push(of_it);
        }
        let answer =
            TrafficSeen { since_seconds: since, kept_seconds: kept, dropped: self.dropped, workloads };
        Unread { answer, of_each }
    }
}

impl OfOne {
    /// Since when what was told from `begin` on has happened: the first of it is of the time since the report before.
    fn told_since(&self, begin: u64) -> u64 {
        let before = self.told_in.iter().rev().find(|told| **told < begin);
        // Of a longer time nothing was told, because nothing happened.
        before.map_or(begin, |told| (*told).max(begin.saturating_sub(FINE)))
    }

    fn since(&self, since: u64, now: u64) -> (WorkloadTraffic, OfEach) {
        let since = since.min(self.kept);
        let from = now.saturating_sub(since);
        // What has happened since its last report is not known, unless that would have come.
        let until = self.told_at.max(now.saturating_sub(FINE));
        let edges = self.edges.iter().map(|(edge, slots)| (Arc::clone(edge), slots.since(from, now)));
        let workload = WorkloadTraffic {
            identity: self.identity.clone(),
            seconds: until.saturating_sub(self.told_since(begin(from, now)).max(self.known_since)).max(1),
            edges: Vec::new(),
            left_out: self.left_out,
            endpoints: Vec::new(),
            endpoints_left_out: self.failing.left_out(),
        };
        (workload, OfEach { edges: edges.collect(), failing: self.failing.since(from, now) })
    }
}
