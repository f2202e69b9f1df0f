//! What the admin port answers at `/config` and `/status`.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_api::ResourceName;
use selvedge_model::WorkloadName;
use serde::{Deserialize, Serialize};

use super::{Life, Proof, Proxy, Purpose};
use crate::problem::{Problem, Severity};

/// The answer of `/config`: what every proxy of this replica holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// The newest version of the configuration; `None` before the first.
    pub configuration_version: Option<u64>,
    /// The proxies that are connected, in the order in which they came.
    pub proxies: Vec<Proxy>,
    /// The workloads that have a sidecar by the documents, and so should be connected to one of the replicas.
    #[serde(default)]
    pub expected: BTreeSet<WorkloadName>,
    /// The SHA-256 of each trust root; certificates that are signed now lead to the first.
    #[serde(default)]
    pub trust_roots: Vec<String>,
    /// The SHA-256 of each further root that workloads trust of each other, such as SPIRE's.
    #[serde(default)]
    pub workload_roots: Vec<String>,
    /// The version of the trust roots. A proxy that holds it as `bundle` trusts them.
    #[serde(default)]
    pub trust_roots_version: String,
    /// This replica's own certificates.
    #[serde(default)]
    pub certificates: BTreeMap<Purpose, Life>,
}

/// The answer of `/status`: whether the newest configuration has arrived at the proxies of this replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The newest version of the configuration; `None` before the first.
    pub configuration_version: Option<u64>,
    /// How far it has come.
    pub proxies: Arrival,
    /// How many problems there are.
    pub problems: Counts,
}

/// How far the newest configuration has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// How many proxies are connected to this replica.
    pub connected: usize,
    /// How many workloads should be connected, to this replica or another.
    pub expected: usize,
    /// Of them, those that are not connected to this replica.
    pub missing: Vec<WorkloadName>,
    /// How many proxies have the newest configuration.
    pub up_to_date: usize,
    /// Those that have not acknowledged the newest configuration yet.
    pub behind: Vec<WorkloadName>,
    /// Those whose certificates do not prove that they are this workload, but only one of its service account.
    pub unproven: Vec<WorkloadName>,
    /// Those that have refused their last transaction, and why.
    pub refused: BTreeMap<String, String>,
}

/// How many problems there are in the documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Of what does not happen.
    pub errors: usize,
    /// Of what may not be as meant.
    pub warnings: usize,
    /// Of what nothing acts on.
    pub not_acted_on: usize,
}

impl Proxy {
    /// Whether it has the configuration `newest`.
    pub fn has(&self, newest: u64) -> bool {
        self.configuration_version.is_some_and(|has| has >= newest)
    }
}

impl Config {
    /// Whether `proxy` trusts the roots that it is told to trust.
    pub fn trusts(&self, proxy: &Proxy) -> bool {
        let held = proxy.holds.lock();
        held.version(&ResourceName::Bundle).is_some_and(|held| **held == *self.trust_roots_version)
    }
}

impl Counts {
    fn of(problems: &[Problem]) -> Self {
        let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
        Self {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            not_acted_on: count(Severity::NotActedOn),
        }
    }
}

impl Summary {
    pub(super) fn of(
        configuration_version: Option<u64>,
        proxies: &[Proxy],
        expected: &BTreeSet<WorkloadName>,
        problems: &[Problem],
    ) -> Self {
        let connected: BTreeSet<_> = proxies.iter().map(|proxy| &proxy.workload).collect();
        let mut arrival = Arrival {
            connected: proxies.len(),
            expected: expected.len(),
            missing: expected.iter().filter(|name| !connected.contains(name)).cloned().collect(),
            ..Arrival::default()
        };
        for proxy in proxies {
            match configuration_version {
                Some(newest) if proxy.has(newest) => arrival.up_to_date += 1,
                _ => arrival.behind.push(proxy.workload.clone()),
            }
            if proxy.proof != Proof::Proven {
                arrival.unproven.push(proxy.workload.clone());
            }
            if let Some(refused) = &proxy.refused {
                arrival.refused.insert(proxy.workload.to_string(), refused.reason.clone());
            }
        }
        Self { configuration_version, proxies: arrival, problems: Counts::of(problems) }
    }
}
