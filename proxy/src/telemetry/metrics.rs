//! All that the proxy counts, and its text for Prometheus.
//!
//! prometheus-client's own `Family` looks labels up in a locked map, and its `Histogram` locks a mutex, for each
//! request. So only its encoder is used. [`Series`] are found once, when configuration changes or a connection is
//! accepted, and added up when they are scraped.
//!
//! The number of series is bounded. Those that nothing uses any longer (of a route that is gone, of a client that has left)
//! are dropped when they have counted nothing for ten minutes, or when there is no more room. If that is not enough, the
//! rest is counted in one series with the label `overflow`.

mod text;

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{encoding, registry::Registry};
use selvedge_model::{
    BackendName, ServiceKey, SpiffeId, Telemetry, Workload, WorkloadName, naming::Naming, traffic::Carried,
};
use selvedge_ops::lag::{self, Lag};

use super::{
    compat,
    connections::Connections,
    control::ControlMetrics,
    events::{Decision, Dropped, KeyedCounts},
    in_progress::InProgress,
    labels::Labels,
    mirrored::Mirrored,
    own::{Ends, Peer},
    page::Page,
    priorities::{GroupHealth, Groups},
    registered::lock,
    series::{self, Requests, Series},
    tap::Tap,
    tcp::{Streams, TcpSeries},
    unknown::Unknown,
    watched::Watched,
};
use crate::{
    arrival::Direction,
    balance::Limit,
    budget::{Budget, Concurrency},
    error::Reason,
};

/// How many series there may be of each kind.
const SERIES_LIMIT: usize = 10_000;
/// How often series are looked for that nobody uses.
const EXPIRY_PAUSE: Duration = Duration::from_secs(60);
/// What ends a text of OpenMetrics.
const END: &str = "# EOF\n";

/// Whose metrics are told beside our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum MetricsCompat {
    /// Nobody's.
    None,
    /// Istio's `istio_requests_total` and the like, which Kiali, Flagger and dashboards ask for.
    Istio,
}

/// Everything that is counted. Shared by all threads.
#[derive(Debug)]
pub struct Metrics {
    workers: usize,
    compat: MetricsCompat,
    /// What configuration changes of others' metrics.
    told: compat::InForce,
    ends: Ends,
    requests: Requests,
    in_progress: [Arc<InProgress>; Direction::ALL.len()],
    overflow: [Arc<Series>; Direction::ALL.len()],
    mirrored: Mirrored,
    tcp: Streams,
    websockets: Streams,
    connections: [Connections; Direction::ALL.len()],
    retries: KeyedCounts<ServiceKey>,
    hedges: KeyedCounts<ServiceKey>,
    budget_exhausted: KeyedCounts<ServiceKey>,
    ejections: KeyedCounts<BackendName>,
    overflows: KeyedCounts<(BackendName, Limit)>,
    policy_decisions: KeyedCounts<(Arc<str>, Decision)>,
    egress_denied: KeyedCounts<Arc<str>>,
    /// Seconds since 1970; 0 = no certificate yet.
    certificate_expiry: AtomicU64,
    /// When each certificate expires that we show as a gateway: by its name, in seconds since 1970.
    gateway_certificates: Mutex<Vec<(String, u64)>>,
    configuration: Mutex<Option<(Arc<str>, SystemTime)>>,
    /// When it was last looked for series that nobody uses.
    expired: Mutex<Option<Instant>>,
    /// How late each worker is, and the control thread at last.
    lags: Box<[Lag]>,
    budget: OnceLock<Arc<Budget>>,
    concurrency: OnceLock<Arc<Concurrency>>,
    /// What the control thread counts.
    pub control: ControlMetrics,
    /// Who asks to see live requests.
    pub tap: Arc<Tap>,
    /// What configuration has written down and traced.
    pub watched: Arc<Watched>,
}

impl Metrics {
    /// Nothing counted yet; there are this many workers.
    pub fn new(workers: usize) -> Self {
        Self::with_limit(workers, SERIES_LIMIT, MetricsCompat::None)
    }

    /// The same of the proxy of the workload `own`, which tells others' metrics too.
    pub fn of(own: &WorkloadName, workers: usize, compat: MetricsCompat) -> Self {
        let metrics = Self::with_limit(workers, SERIES_LIMIT, compat);
        metrics.ends.begin(own);
        metrics
    }

    fn with_limit(workers: usize, limit: usize, compat: MetricsCompat) -> Self {
        let in_progress = || Arc::new(InProgress::new(workers));
        Self {
            workers,
            compat,
            told: compat::InForce::default(),
            ends: Ends::default(),
            requests: Requests::new(limit, compat != MetricsCompat::None),
            in_progress: [in_progress(), in_progress()],
            overflow: [series::overflow(workers), series::overflow(workers)],
            mirrored: Mirrored::new(limit, workers),
            tcp: Streams::new(limit, workers),
            websockets: Streams::new(limit, workers),
            connections: Default::default(),
            retries: KeyedCounts::new(workers),
            hedges: KeyedCounts::new(workers),
            budget_exhausted: KeyedCounts::new(workers),
            ejections: KeyedCounts::new(workers),
            overflows: KeyedCounts::new(workers),
            policy_decisions: KeyedCounts::new(workers),
            egress_denied: KeyedCounts::new(workers),
            certificate_expiry: AtomicU64::new(0),
            gateway_certificates: Mutex::default(),
            configuration: Mutex::default(),
            expired: Mutex::default(),
            lags: std::iter::repeat_with(Lag::default).take(workers + 1).collect(),
            budget: OnceLock::new(),
            concurrency: OnceLock::new(),
            control: ControlMetrics::default(),
            tap: Arc::default(),
            watched: Arc::new(Watched::new(workers)),
        }
    }

    /// How many workers count.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The series with these labels. Takes a lock: not for each request.
    pub fn series(&self, labels: &Labels) -> Arc<Series> {
        let overflow = &self.overflow[labels.direction as usize];
        let found = self.requests.find(&self.owned(labels), self.workers);
        found.unwrap_or_else(|| Arc::clone(overflow))
    }

    /// `labels` with the controller of our own workload.
    fn owned(&self, labels: &Labels) -> Labels {
        Labels { owner: Arc::clone(&self.ends.own().naming.owner), ..labels.clone() }
    }

    /// Takes over what configuration says of our own workload.
    pub fn set_own(&self, own: &Workload) {
        self.ends.set_own(own);
    }

    /// Takes over what configuration has written down, traced and told.
    pub fn set_telemetry(&self, telemetry: Option<&Arc<Telemetry>>) {
        if self.watched.set(telemetry) {
            self.told.set(telemetry.map(|telemetry| &**telemetry), self.tells_peers());
        }
    }

    /// Whether configuration has said who we are.
    pub(super) fn is_told_own(&self) -> bool {
        !self.ends.own().principal.is_empty()
    }

    /// What people call our own workload.
    pub fn own_naming(&self) -> Naming {
        self.ends.own().naming.clone()
    }

    /// Whether the workload at the other end tells series apart.
    pub fn tells_peers(&self) -> bool {
        self.compat != MetricsCompat::None
    }

    /// The caller that has proven to be `identity` and says that it is called so, where callers are told apart.
    pub fn caller(&self, identity: &SpiffeId, naming: impl FnOnce() -> Option<Naming>) -> Option<Arc<Peer>> {
        if self.tells_peers() { self.ends.caller(identity, naming()?) } else { None }
    }

    /// What counts the requests in progress in this direction.
    pub fn in_progress(&self, direction: Direction) -> Arc<InProgress> {
        Arc::clone(&self.in_progress[direction as usize])
    }

    /// How late the worker with this index is; without one, the control thread.
    pub fn lag(&self, worker: Option<usize>) -> Option<&Lag> {
        self.lags.get(worker.unwrap_or(self.workers))
    }

    /// The series of opaque connections with these labels. Takes a lock: once for each connection, or when
    /// configuration changes.
    pub fn tcp(&self, labels: &Labels) -> Arc<TcpSeries> {
        self.tcp.find(&self.owned(labels), self.workers)
    }

    /// The series of the WebSockets that the requests counted in `requests` have become. Takes a lock: once for each
    /// WebSocket.
    pub fn websockets(&self, requests: &Series) -> Arc<TcpSeries> {
        match requests.labels() {
            Some(labels) => self.websockets.find(labels, self.workers),
            None => {
                let inbound = &self.overflow[Direction::Inbound as usize];
                let inbound = std::ptr::eq(requests, Arc::as_ptr(inbound));
                let direction = if inbound { Direction::Inbound } else { Direction::Outbound };
                self.websockets.overflow(direction)
            }
        }
    }

    /// The series of requests to our own port. `source`: who the client has proven to be; `caller`: what it is called, if that
    /// is told apart.
    pub fn inbound(
        &self,
        own: &WorkloadName,
        port: u16,
        source: Option<&SpiffeId>,
        caller: Option<Arc<Peer>>,
    ) -> Arc<Series> {
        self.series(&Labels { peer: caller, ..Labels::inbound(own, port, source) })
    }

    /// What counts our app's requests to what is in no configuration.
    pub fn unknown_destination(self: &Arc<Self>, own: &WorkloadName) -> Unknown {
        Unknown::new(self, Labels::unknown_destination(own))
    }

    /// What counts requests to us that came before it was known which port was meant.
    pub fn unknown_source(self: &Arc<Self>, own: &WorkloadName) -> Unknown {
        Unknown::new(self, Labels::inbound(own, 0, None))
    }

    /// The series of requests that are told apart.
    pub(super) fn requests(&self) -> Vec<Arc<Series>> {
        self.requests.all()
    }

    /// Those of opaque connections and of WebSockets.
    pub(super) fn streams(&self) -> impl Iterator<Item = (Carried, Arc<TcpSeries>)> {
        let of = |carried, streams: &Streams| {
            streams.told_apart().into_iter().map(move |series| (carried, series))
        };
        of(Carried::Tcp, &self.tcp).chain(of(Carried::WebSocket, &self.websockets))
    }

    /// How many requests and connections are counted without telling them apart.
    pub(super) fn not_told_apart(&self) -> u64 {
        let requests = self.overflow.iter().map(|series| series.total());
        let streams = Direction::ALL.into_iter().map(|direction| {
            let [opened, ..] = self.tcp.overflow(direction).carried();
            opened
        });
        requests.chain(streams).fold(0, u64::wrapping_add)
    }

    /// A connection has been made (outbound: to an endpoint) or accepted (inbound), its handshake
    /// included. It counts as open until what is returned is dropped.
    pub fn connection_opened(self: &Arc<Self>, direction: Direction, mtls: bool) -> OpenConnection {
        self.connections[direction as usize].opened(mtls);
        OpenConnection { metrics: Arc::clone(self), direction }
    }

    /// A connection was not made. `mtls`: it should have been mutual TLS.
    pub fn connection_refused(&self, direction: Direction, mtls: bool, reason: Reason) {
        self.connections[direction as usize].refused(mtls, reason);
    }

    /// A connection, or what it carried, was ended by us while something was in progress.
    pub fn connection_cut(&self, direction: Direction, reason: Reason) {
        self.connections[direction as usize].cut(reason);
    }

    /// A policy, or a rule of one, has refused something or taken note of it.
    pub fn policy_decision(&self, rule: &Arc<str>, decision: Decision, worker: usize) {
        self.policy_decisions.count(&(Arc::clone(rule), decision), worker);
    }

    /// A network policy, or a rule of one, has refused to let our workload make a call.
    pub fn egress_denied(&self, rule: &Arc<str>, worker: usize) {
        self.egress_denied.count(rule, worker);
    }

    /// A worker tries a request to this service again.
    pub fn retries(&self, service: &ServiceKey, worker: usize) {
        self.retries.count(service, worker);
    }

    /// A worker sends a request to a second endpoint of this service, because the first has not answered yet.
    pub fn hedges(&self, service: &ServiceKey, worker: usize) {
        self.hedges.count(service, worker);
    }

    /// A worker would have tried a request again, but the service's retry budget is exhausted.
    pub fn retry_budget_exhausted(&self, service: &ServiceKey, worker: usize) {
        self.budget_exhausted.count(service, worker);
    }

    /// A worker has ejected an endpoint of this backend.
    pub fn ejections(&self, backend: &BackendName, worker: usize) {
        self.ejections.count(backend, worker);
    }

    /// A worker has refused something because this limit of the backend's was reached.
    pub fn overflow(&self, backend: &BackendName, limit: Limit, worker: usize) {
        self.overflows.count(&(backend.clone(), limit), worker);
    }

    /// The series of copies with these labels, which say where the copies go. Takes a lock, as [`Self::series`] does.
    pub fn mirrored(&self, labels: &Labels) -> Arc<Series> {
        self.mirrored.find(&self.owned(labels), self.workers)
    }

    /// A worker has not sent a copy to this backend, or not to its end.
    pub fn mirror_dropped(&self, backend: &BackendName, why: Dropped, worker: usize) {
        self.mirrored.dropped(backend, why, worker);
    }

    /// Our certificate is valid until then.
    pub fn set_certificate_expiry(&self, not_after: SystemTime) {
        self.certificate_expiry.store(since_1970(not_after), Ordering::Relaxed);
    }

    /// The certificates that we show as a gateway are these, each valid until then.
    pub fn set_gateway_certificates(&self, certificates: impl Iterator<Item = (String, SystemTime)>) {
        let certificates = certificates.map(|(name, not_after)| (name, since_1970(not_after)));
        *lock(&self.gateway_certificates) = certificates.collect();
    }

    /// Shows what `budget` holds and does.
    pub fn watch(&self, budget: &Arc<Budget>, concurrency: Option<&Arc<Concurrency>>) {
        // A process has only one of each.
        let _ = self.budget.set(Arc::clone(budget));
        if let Some(concurrency) = concurrency {
            let _ = self.concurrency.set(Arc::clone(concurrency));
        }
    }

    /// This configuration is in force since `at`.
    pub fn set_configuration_version(&self, version: &str, at: SystemTime) {
        *lock(&self.configuration) = Some((Arc::from(version), at));
    }

    /// Forgets series that nobody uses and that have counted nothing for a while, unless it has just looked for them.
    pub(super) fn expire(&self, now: Instant) {
        let mut last = lock(&self.expired);
        if last.is_some_and(|last| now.duration_since(last) < EXPIRY_PAUSE) {
            return;
        }
        *last = Some(now);
        drop(last);
        self.requests.expire(now);
        self.mirrored.expire(now);
        self.tcp.expire(now);
        self.websockets.expire(now);
    }

    /// The text of `/metrics`, in OpenMetrics format, with these groups of endpoints.
    pub fn render(self: &Arc<Self>, groups: Vec<GroupHealth>) -> String {
        self.expire(Instant::now());
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(self)));
        registry.register_collector(Box::new(Groups(groups)));
        self.control.register(&mut registry);
        let mut text = String::new();
        encoding::text::encode(&mut text, &registry).expect("a String takes whatever is written to it");
        text.truncate(text.strip_suffix(END).map_or(text.len(), str::len));
        // At its end, not beside it: of many routes it is some megabytes.
        let mut page = Page::after(text);
        self.write(&mut page);
        let mut text = page.into_text();
        let threads = (0..self.workers).map(|index| format!("worker-{index}"));
        let threads = threads.chain(["control".to_owned()]).zip(&self.lags);
        text.push_str(&lag::text("selvedge", threads));
        text.push_str(END);
        text
    }
}

/// An open connection; dropping it says that it has been closed.
#[derive(Debug)]
pub struct OpenConnection {
    metrics: Arc<Metrics>,
    direction: Direction,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.metrics.connections[self.direction as usize].closed();
    }
}

/// 0 for what was before.
fn since_1970(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
