//! What the admin port shows to people on this host: problems, and the configuration that every proxy has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{Json, Router, extract::State, routing::get};
use selvedge_model::WorkloadName;
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    problem::{Problem, Severity},
    snapshot::Store,
    sources::Loaded,
    status::{Life, OwnCertificates, Problems, Proof, Proxies, Proxy, Purpose},
};

/// What the admin port tells people on this host.
#[derive(Debug, Clone)]
pub(super) struct Overview {
    pub(super) store: Arc<Store>,
    pub(super) problems: Arc<Problems>,
    pub(super) proxies: Arc<Proxies>,
    pub(super) certificates: Arc<OwnCertificates>,
    pub(super) loaded: watch::Receiver<Arc<Loaded>>,
}

#[derive(Debug, Serialize)]
struct Config {
    /// `None` before the first.
    configuration_version: Option<u64>,
    proxies: Vec<Proxy>,
    /// The workloads that have a sidecar by the documents, and so should be connected to one of the replicas.
    expected: BTreeSet<WorkloadName>,
    /// This replica's own.
    certificates: BTreeMap<Purpose, Life>,
}

/// Whether the configuration has arrived: the answer to "has my change arrived?", as far as the proxies of
/// this replica are concerned.
#[derive(Debug, PartialEq, Serialize)]
struct Summary {
    /// `None` before the first.
    configuration_version: Option<u64>,
    proxies: Arrived,
    problems: Counts,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Arrived {
    connected: usize,
    /// The workloads that should be connected, to this replica or another.
    expected: usize,
    /// Of them, those that are not connected to this replica.
    missing: Vec<WorkloadName>,
    up_to_date: usize,
    /// Those that have not acknowledged the newest configuration yet.
    behind: Vec<WorkloadName>,
    /// Those whose certificates do not prove that they are this workload, but only one of its service account.
    unproven: Vec<WorkloadName>,
    /// Those that have refused their last transaction, and why.
    refused: BTreeMap<String, String>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Counts {
    errors: usize,
    warnings: usize,
    not_acted_on: usize,
}

impl Summary {
    fn of(
        configuration_version: Option<u64>,
        proxies: &[Proxy],
        expected: &BTreeSet<WorkloadName>,
        problems: &[Problem],
    ) -> Self {
        let connected: BTreeSet<_> = proxies.iter().map(|proxy| &proxy.workload).collect();
        let mut arrived = Arrived {
            connected: proxies.len(),
            expected: expected.len(),
            missing: expected.iter().filter(|name| !connected.contains(name)).cloned().collect(),
            ..Arrived::default()
        };
        for proxy in proxies {
            match (proxy.configuration_version, configuration_version) {
                (Some(has), Some(newest)) if has >= newest => arrived.up_to_date += 1,
                _ => arrived.behind.push(proxy.workload.clone()),
            }
            if proxy.proof != Proof::Proven {
                arrived.unproven.push(proxy.workload.clone());
            }
            if let Some(refused) = &proxy.refused {
                arrived.refused.insert(proxy.workload.to_string(), refused.reason.clone());
            }
        }
        let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
        let problems = Counts {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            not_acted_on: count(Severity::NotActedOn),
        };
        Self { configuration_version, proxies: arrived, problems }
    }
}

impl Overview {
    pub(super) fn routes(self) -> Router {
        Router::new()
            .route("/problems", get(Self::show_problems))
            .route("/config", get(Self::show_config))
            .route("/status", get(Self::show_status))
            .with_state(self)
    }

    /// A pod that is ending may have lost its sidecar already, and one that has ended has none.
    fn expected(&self) -> BTreeSet<WorkloadName> {
        let Some(snapshot) = self.store.current() else { return BTreeSet::new() };
        let loaded = Arc::clone(&self.loaded.borrow());
        let pods = loaded.resources.pods.iter();
        let ending: BTreeSet<(&str, &str)> = pods
            .filter(|pod| pod.metadata.ending || pod.spec.has_ended())
            .map(|pod| (&*pod.name.namespace, &*pod.name.name))
            .collect();
        let meshed = snapshot.mesh().workloads.values().filter(|workload| workload.meshed);
        let expected = meshed.map(|workload| &workload.name);
        expected.filter(|name| !ending.contains(&(name.namespace(), name.name()))).cloned().collect()
    }

    async fn show_problems(State(overview): State<Self>) -> Json<Arc<Vec<Problem>>> {
        Json(overview.problems.now())
    }

    async fn show_status(State(overview): State<Self>) -> Json<Summary> {
        let version = overview.store.current().map(|snapshot| snapshot.version());
        let expected = overview.expected();
        Json(Summary::of(version, &overview.proxies.connected(), &expected, &overview.problems.now()))
    }

    async fn show_config(State(overview): State<Self>) -> Json<Config> {
        Json(Config {
            configuration_version: overview.store.current().map(|snapshot| snapshot.version()),
            proxies: overview.proxies.connected(),
            expected: overview.expected(),
            certificates: overview.certificates.now(),
        })
    }
}
