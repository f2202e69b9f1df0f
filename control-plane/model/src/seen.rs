//! Who has called a workload lately, as its own sidecar tells it, and whom that sidecar has refused to call: what a change of
//! policies is compared with.
//!
//! It says who was let in, and whom the sidecar refused to call; what it says of requests is in [`traffic`](crate::traffic).
//! What is said of a workload is only as true as its sidecar is.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{SpiffeId, traffic::Told};

/// How long ago a connection may have ended to count, in seconds.
pub const LATELY: u64 = 3600;
/// The most callers that a workload's sidecar keeps of each kind: with mutual TLS, and without.
pub const MOST_CALLERS: usize = 512;
/// The most ports that are kept of one caller.
pub const MOST_PORTS: usize = 16;

/// The most refused targets that a workload's sidecar keeps, each with the rule that refuses it.
pub const MOST_REFUSED: usize = 256;

/// Somebody who has called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Caller {
    /// With mutual TLS: who it has proven to be.
    Identity(SpiffeId),
    /// In plaintext: where it has connected from.
    Address(IpAddr),
}

/// That somebody has called one of a workload's ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Called {
    /// The workload's own port.
    pub port: u16,
    /// How long ago the last of its connections has ended, in seconds; 0: one is open.
    pub seconds_ago: u64,
}

/// A call of the workload's that its own sidecar has refused, by network policies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefusedCall {
    /// What was to be called.
    pub target: SocketAddr,
    /// The rule or document that refuses it.
    pub policy: Arc<str>,
    /// How long ago that was last so, in seconds.
    pub seconds_ago: u64,
}

/// That peers are shown a certificate which an agent of the SPIFFE Workload API gives the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Svid {
    /// Its last second, since 1970; `None`: there is none that can be used.
    pub expires_at: Option<u64>,
}

/// What a sidecar tells of who has called its workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Who has called, and which ports; only what is new.
    pub callers: Vec<(Caller, Vec<Called>)>,
    /// Whom the sidecar has refused to call; only what is new.
    pub refused: Vec<RefusedCall>,
    /// Which certificate peers are shown, if an agent gives it; `None`: there is no agent, or nothing new.
    pub svid: Option<Svid>,
    /// How many connections came of callers or to ports that are not kept, because too many are; since the last report.
    pub left_out: u64,
    /// For how long the sidecar has been watching, in seconds.
    pub watched: u64,
    /// What it has carried since the last report.
    pub traffic: Told,
    /// What the sidecar's process has in memory, in bytes; 0: not known.
    pub memory: u64,
}
