//! What the admin port tells people on this host: problems, and what every proxy holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    routing::get,
};
use selvedge_model::WorkloadName;
use selvedge_ops::{LogLevel, Readiness};
use serde::Deserialize;
use tokio::sync::watch;

use super::{
    AbsentShown, Config, HistorySeen, LevelAnswer, LevelQuestion, Levels, OwnCertificates, Problems, Proxies,
    Seen, SeenTraffic, ServicesShown, Starting, Summary, TapAnswer, TapQuestion, Taps, Traffic, TrafficSeen,
};
use crate::{
    problem::Problem,
    snapshot::{Snapshot, Store},
    sources::Loaded,
};

/// The header of requests of our own commands.
pub const COMMAND: &str = "selvedge-command";

/// Of how many seconds traffic is shown unless it is said.
const USUAL_SINCE: u64 = 60;

/// Of which traffic is asked.
#[derive(Debug, Deserialize)]
struct Asked {
    /// Of the last so many seconds.
    since: Option<u64>,
    /// Whether sidecars are to report every second for a while.
    #[serde(default)]
    often: bool,
}

/// What the admin port tells people on this host.
#[derive(Debug, Clone)]
pub struct Overview {
    pub(crate) store: Arc<Store>,
    pub(crate) problems: Arc<Problems>,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) taps: Arc<Taps>,
    pub(crate) levels: Arc<Levels>,
    /// What the control plane itself logs.
    pub(crate) log_level: LogLevel,
    pub(crate) certificates: Arc<OwnCertificates>,
    pub(crate) loaded: watch::Receiver<Arc<Loaded>>,
    pub(crate) is_in_cluster: bool,
    /// Whose remarks say that proxies come faster than they are let in.
    pub(crate) readiness: Readiness,
}

impl Overview {
    pub(crate) fn routes(self) -> Router {
        Router::new()
            .route("/problems", get(Self::show_problems))
            .route("/config", get(Self::show_config))
            .route("/documents", get(Self::show_documents))
            .route("/seen", get(Self::show_seen))
            .route("/services", get(Self::show_services))
            .route("/tap", get(Self::show_live))
            .route("/logs", get(Self::set_levels))
            .route("/traffic", get(Self::show_traffic))
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

    async fn show_traffic(State(overview): State<Self>, Query(asked): Query<Asked>) -> Json<TrafficSeen> {
        if asked.often {
            overview.taps.look_often();
        }
        let traffic = Arc::clone(&overview.traffic);
        let seen = move || traffic.seen(asked.since.unwrap_or(USUAL_SINCE));
        // It may take a while, in which this thread has streams to serve.
        Json(tokio::task::spawn_blocking(seen).await.unwrap_or_default())
    }

    async fn show_live(
        State(overview): State<Self>,
        Query(question): Query<TapQuestion>,
    ) -> Result<Json<TapAnswer>, (StatusCode, String)> {
        let connected =
            || overview.proxies.connected().into_iter().map(|proxy| proxy.workload).collect::<Vec<_>>();
        let answer = overview.taps.ask(question, connected).await;
        answer.map(Json).map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")))
    }

    /// Only of our own commands, which say so in a header that no web page can send here.
    async fn set_levels(
        State(overview): State<Self>,
        headers: HeaderMap,
        Query(question): Query<LevelQuestion>,
    ) -> Result<Json<LevelAnswer>, (StatusCode, String)> {
        if !headers.contains_key(COMMAND) {
            let message = format!("/logs is answered to requests with the header {COMMAND} alone\n");
            return Err((StatusCode::FORBIDDEN, message));
        }
        let connected = overview.proxies.connected().into_iter();
        let connected = connected.map(|proxy| (proxy.workload, proxy.takes_log_levels)).collect();
        let answer = overview.levels.ask(question, connected, &overview.log_level);
        answer.map(Json).map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")))
    }

    async fn show_services(State(overview): State<Self>) -> Json<ServicesShown> {
        Json(overview.services())
    }

    async fn show_status(State(overview): State<Self>) -> Json<Summary> {
        let version = overview.store.current().map(|snapshot| snapshot.version());
        let expected = overview.expected();
        Json(Summary::of(version, &overview.proxies.connected(), &expected, &overview.problems.now()))
    }

    /// How many documents there are of each kind, and nothing of what they say.
    async fn show_documents(State(overview): State<Self>) -> Json<BTreeMap<Arc<str>, usize>> {
        Json(overview.loaded.borrow().resources.counts())
    }

    async fn show_config(State(overview): State<Self>) -> Json<Config> {
        Json(overview.config())
    }

    /// What every proxy of this replica holds: the answer of `/config`.
    pub fn config(&self) -> Config {
        let snapshot = self.store.current();
        let trusted = snapshot.as_ref();
        Config {
            configuration_version: trusted.map(|snapshot| snapshot.version()),
            trust_roots: trusted.map(|snapshot| snapshot.roots().to_vec()).unwrap_or_default(),
            workload_roots: trusted.map(|snapshot| snapshot.workload_roots().to_vec()).unwrap_or_default(),
            trust_roots_version: trusted
                .map(|snapshot| snapshot.bundle().version().to_string())
                .unwrap_or_default(),
            proxies: self.proxies.connected(),
            expected: self.expected(),
            certificates: self.certificates.now(),
        }
    }

    /// What services there are: the answer of `/services`.
    pub fn services(&self) -> ServicesShown {
        let now = SystemTime::now();
        let Some(snapshot) = self.store.current() else {
            return ServicesShown {
                is_in_cluster: self.is_in_cluster,
                starting: Starting::of(now, false, now),
                ..ServicesShown::default()
            };
        };
        let is_crowded = !self.readiness.remarks().is_empty();
        let connected = self.proxies.connected();
        let there: BTreeSet<&WorkloadName> = connected.iter().map(|proxy| &proxy.workload).collect();
        let shown = ServicesShown::of(snapshot.mesh(), self.traffic.out(), |name| there.contains(name));
        let absent = self.proxies.absent(&self.expected()).into_iter();
        ServicesShown {
            absent: absent.map(|(workload, since)| AbsentShown { workload, since }).collect(),
            is_in_cluster: self.is_in_cluster,
            starting: Starting::of(snapshot.since(), is_crowded, now),
            ..shown
        }
    }

    /// What has happened in the last `since` seconds: the answer of `/traffic`. It may take a while.
    pub fn traffic(&self, since: u64) -> TrafficSeen {
        self.traffic.seen(since)
    }

    /// What has happened piece by piece in the last hour. It may take a while.
    pub fn history(&self) -> HistorySeen {
        self.traffic.history()
    }

    /// Who has called whom in the last hour: the answer of `/seen`.
    pub fn seen(&self) -> SeenTraffic {
        self.seen.now()
    }

    /// What is wrong with the documents: the answer of `/problems`.
    pub fn problems(&self) -> Arc<Vec<Problem>> {
        self.problems.now()
    }

    /// The mesh in force, with its version; `None` before the first.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.store.current()
    }

    /// Has sidecars report every second for five seconds.
    pub fn look_often(&self) {
        self.taps.look_often();
    }

    /// Whether the documents come from a cluster, in which there may be other replicas.
    pub fn is_in_cluster(&self) -> bool {
        self.is_in_cluster
    }
}
