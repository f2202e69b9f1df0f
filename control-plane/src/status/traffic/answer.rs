//! The answer of `/traffic`: what sidecars have carried lately, as they have told it.

use std::collections::BTreeMap;

use selvedge_model::{
    SpiffeId, WorkloadName,
    traffic::{Counts, Edge},
};
use serde::{Deserialize, Serialize};

use super::{
    Inner, KEPT, OfOne,
    slots::{FINE, begin},
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
    /// Requests and connections since the sidecar started that it cannot tell apart, because there are too many edges.
    pub left_out: u64,
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

impl Inner {
    /// What has happened in the last `since` seconds.
    pub(super) fn seen(&mut self, since: u64, now: u64) -> TrafficSeen {
        let since = since.clamp(1, KEPT);
        self.sweep(now);
        let kept = self.kept;
        let workloads =
            self.workloads.iter().map(|(name, known)| (name.clone(), known.seen(since.min(kept), now)));
        TrafficSeen {
            since_seconds: since,
            kept_seconds: kept,
            dropped: self.dropped,
            workloads: workloads.collect(),
        }
    }
}

impl OfOne {
    fn seen(&self, since: u64, now: u64) -> WorkloadTraffic {
        let since = since.min(self.kept);
        let from = now.saturating_sub(since);
        // What has happened since its last report is not known, unless that would have come.
        let until = self.told_at.max(now.saturating_sub(FINE));
        let edges = self
            .edges
            .iter()
            .map(|(edge, slots)| EdgeTraffic { edge: Edge::clone(edge), counts: slots.since(from) });
        WorkloadTraffic {
            identity: self.identity.clone(),
            seconds: until.saturating_sub(begin(from, now).max(self.known_since)).max(1),
            edges: edges.filter(|one| !one.counts.is_empty()).collect(),
            left_out: self.left_out,
        }
    }
}
