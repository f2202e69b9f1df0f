//! What the admin port tells people on this host: problems, and what every proxy holds.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Json, Router, extract::State, routing::get};
use selvedge_model::WorkloadName;
use tokio::sync::watch;

use super::{Config, OwnCertificates, Problems, Proxies, Seen, SeenTraffic, Summary};
use crate::{problem::Problem, snapshot::Store, sources::Loaded};

/// What the admin port tells people on this host.
#[derive(Debug, Clone)]
pub(crate) struct Overview {
    pub(crate) store: Arc<Store>,
    pub(crate) problems: Arc<Problems>,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) certificates: Arc<OwnCertificates>,
    pub(crate) loaded: watch::Receiver<Arc<Loaded>>,
}

impl Overview {
    pub(crate) fn routes(self) -> Router {
        Router::new()
            .route("/problems", get(Self::show_problems))
            .route("/config", get(Self::show_config))
            .route("/seen", get(Self::show_seen))
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
        let with_proxy = snapshot.mesh().workloads.values().filter(|workload| workload.has_proxy());
        let expected = with_proxy.map(|workload| &workload.name);
        expected.filter(|name| !ending.contains(&(name.namespace(), name.name()))).cloned().collect()
    }

    async fn show_problems(State(overview): State<Self>) -> Json<Arc<Vec<Problem>>> {
        Json(overview.problems.now())
    }

    async fn show_seen(State(overview): State<Self>) -> Json<SeenTraffic> {
        Json(overview.seen.now())
    }

    async fn show_status(State(overview): State<Self>) -> Json<Summary> {
        let version = overview.store.current().map(|snapshot| snapshot.version());
        let expected = overview.expected();
        Json(Summary::of(version, &overview.proxies.connected(), &expected, &overview.problems.now()))
    }

    async fn show_config(State(overview): State<Self>) -> Json<Config> {
        let snapshot = overview.store.current();
        let trusted = snapshot.as_ref();
        Json(Config {
            configuration_version: trusted.map(|snapshot| snapshot.version()),
            trust_roots: trusted.map(|snapshot| snapshot.roots().to_vec()).unwrap_or_default(),
            workload_roots: trusted.map(|snapshot| snapshot.workload_roots().to_vec()).unwrap_or_default(),
            trust_roots_version: trusted
                .map(|snapshot| snapshot.bundle().version().to_string())
                .unwrap_or_default(),
            proxies: overview.proxies.connected(),
            expected: overview.expected(),
            certificates: overview.certificates.now(),
        })
    }
}
