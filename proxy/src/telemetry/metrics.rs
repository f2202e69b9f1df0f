//! All that the proxy counts, and its text for Prometheus.
//!
//! prometheus-client's own `Family` looks labels up in a locked map and its `Histogram` locks a mutex;
//! both would be paid for each request. So only its encoder is used: [`Series`] are found once, when
//! configuration changes or a connection is accepted, and added up when they are scraped.
//!
//! The number of series is bounded. When there is no more room, those that nobody holds any longer (a
//! route that is gone, a client that has left) are dropped; if that does not help, the rest is counted in
//! one series with the label `overflow`.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabel, EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, NoLabelSet, text,
    },
    metrics::MetricType,
    registry::{Registry, Unit},
};
use selvedge_model::{BackendName, ServiceKey, SpiffeId, WorkloadName};

use super::{
    control::ControlMetrics,
    series::{BUCKETS_MS, DurationLabels, Durations, End, Labels, Series},
    tcp::{self, Kind, TcpSeries},
};
use crate::{arrival::Direction, balance::Limit, budget::Budget, error::Reason};

/// Series that there is room for.
const SERIES_LIMIT: usize = 10_000;

/// After a search for room that found none, so many new series are turned away before the next one.
const TURNED_AWAY: usize = 1_000;

const DIRECTIONS: [Direction; 2] = [Direction::Inbound, Direction::Outbound];

/// Everything that is counted. Shared by all threads.
#[derive(Debug)]
pub struct Metrics {
    workers: usize,
    series: Registered<Labels, Series>,
    durations: Registered<DurationLabels, Durations>,
    overflow: [Arc<Series>; DIRECTIONS.len()],
    tcp: Streams,
    websockets: Streams,
    connections: [Connections; DIRECTIONS.len()],
    retries: KeyedCounts<ServiceKey>,
    budget_exhausted: KeyedCounts<ServiceKey>,
    ejections: KeyedCounts<BackendName>,
    overflows: KeyedCounts<(BackendName, Limit)>,
    /// Seconds since 1970; 0 = no certificate yet.
    certificate_expiry: AtomicU64,
    configuration: Mutex<Option<Arc<str>>>,
    budget: OnceLock<Arc<Budget>>,
    /// What the control thread counts.
    pub control: ControlMetrics,
}

impl Metrics {
    /// Nothing counted yet, by so many workers.
    pub fn new(workers: usize) -> Self {
        Self::with_limit(workers, SERIES_LIMIT)
    }

    fn with_limit(workers: usize, limit: usize) -> Self {
        let overflow = || {
            let durations = Arc::new(Durations::new(None, workers));
            Arc::new(Series::new(None, workers, durations))
        };
        Self {
            workers,
            series: Registered::new(limit),
            durations: Registered::new(limit),
            overflow: [overflow(), overflow()],
            tcp: Streams::new(limit, workers),
            websockets: Streams::new(limit, workers),
            connections: Default::default(),
            retries: KeyedCounts::new(workers),
            budget_exhausted: KeyedCounts::new(workers),
            ejections: KeyedCounts::new(workers),
            overflows: KeyedCounts::new(workers),
            certificate_expiry: AtomicU64::new(0),
            configuration: Mutex::default(),
            budget: OnceLock::new(),
            control: ControlMetrics::default(),
        }
    }

    /// How many workers count.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The series with these labels. Takes a lock: not for each request.
    pub fn series(&self, labels: &Labels) -> Arc<Series> {
        let overflow = &self.overflow[labels.direction as usize];
        let found = self.series.find_or_make(labels, || {
            let few = DurationLabels::of(labels);
            let make = || Some(Arc::new(Durations::new(Some(few.clone()), self.workers)));
            let durations = self.durations.find_or_make(&few, make)?;
            Some(Arc::new(Series::new(Some(labels.clone()), self.workers, durations)))
        });
        found.unwrap_or_else(|| Arc::clone(overflow))
    }

    /// The series of opaque connections with these labels. Takes a lock: once for each connection, or when
    /// configuration changes.
    pub fn tcp(&self, labels: &Labels) -> Arc<TcpSeries> {
        self.tcp.find(labels, self.workers)
    }

    /// The series of WebSockets that requests have become which are counted in `requests`. Takes a lock: once
    /// for each WebSocket.
    pub fn websockets(&self, requests: &Series) -> Arc<TcpSeries> {
        match requests.labels() {
            Some(labels) => self.websockets.find(labels, self.workers),
            None => {
                let inbound = &self.overflow[Direction::Inbound as usize];
                let inbound = std::ptr::eq(requests, Arc::as_ptr(inbound));
                let direction = if inbound { Direction::Inbound } else { Direction::Outbound };
                Arc::clone(&self.websockets.overflow[direction as usize])
            }
        }
    }

    /// The series of requests to our own port. `source`: who the client has proven to be.
    pub fn inbound(&self, own: &WorkloadName, port: u16, source: Option<&SpiffeId>) -> Arc<Series> {
        self.series(&Labels::inbound(own, port, source))
    }

    /// The series of our app's requests to what is in no configuration.
    pub fn unknown_destination(&self, own: &WorkloadName) -> Arc<Series> {
        self.series(&Labels::unknown_destination(own))
    }

    /// The series of requests to us that came before it was known which port was meant.
    pub fn unknown_source(&self, own: &WorkloadName) -> Arc<Series> {
        self.series(&Labels::inbound(own, 0, None))
    }

    /// A connection has been made (outbound: to an endpoint) or accepted (inbound), its handshake
    /// included. It counts as open until what is returned is dropped.
    pub fn connection_opened(self: &Arc<Self>, direction: Direction, mtls: bool) -> OpenConnection {
        let connections = &self.connections[direction as usize];
        connections.count(mtls, None);
        connections.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection { metrics: Arc::clone(self), direction }
    }

    /// A connection has not come about. `mtls`: it was meant to be mutual TLS.
    pub fn connection_refused(&self, direction: Direction, mtls: bool, reason: Reason) {
        self.connections[direction as usize].count(mtls, Some(reason));
    }

    /// A connection, or what it carried, was ended by us while something was in progress.
    pub fn connection_cut(&self, direction: Direction, reason: Reason) {
        self.connections[direction as usize].cut[reason.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// A worker tries a request to this service again.
    pub fn retries(&self, service: &ServiceKey, worker: usize) {
        self.retries.count(service, worker);
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

    /// Our certificate is valid until then.
    pub fn set_certificate_expiry(&self, not_after: SystemTime) {
        let seconds = not_after.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.certificate_expiry.store(seconds, Ordering::Relaxed);
    }

    /// Shows what `budget` holds and does.
    pub fn watch(&self, budget: &Arc<Budget>) {
        // There is but one in a process.
        let _ = self.budget.set(Arc::clone(budget));
    }

    /// This configuration is in force.
    pub fn set_configuration_version(&self, version: &str) {
        *lock(&self.configuration) = Some(Arc::from(version));
    }

    /// The text of `/metrics`, in OpenMetrics format.
    pub fn render(self: &Arc<Self>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(self)));
        self.control.register(&mut registry);
        let mut text = String::new();
        text::encode(&mut text, &registry).expect("a String takes whatever is written to it");
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
        self.metrics.connections[self.direction as usize].open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections of one direction. Rare enough for shared atomics.
#[derive(Debug, Default)]
struct Connections {
    open: AtomicI64,
    /// By mutual TLS (no, yes), then by result: made, or the reason why not.
    total: [[AtomicU64; Reason::ALL.len() + 1]; 2],
    /// Ended by us with something in progress, by why.
    cut: [AtomicU64; Reason::ALL.len()],
}

impl Connections {
    fn count(&self, mtls: bool, refused: Option<Reason>) {
        let result = refused.map_or(0, |reason| reason.index() + 1);
        self.total[usize::from(mtls)][result].fetch_add(1, Ordering::Relaxed);
    }

    /// Mutual TLS or not, the result, and how many; only what has happened.
    fn totals(&self) -> impl Iterator<Item = (bool, &'static str, u64)> {
        let results = || std::iter::once("ok").chain(Reason::ALL.into_iter().map(Reason::word));
        [false, true]
            .into_iter()
            .zip(&self.total)
            .flat_map(move |(mtls, totals)| results().zip(totals).map(move |(result, n)| (mtls, result, n)))
            .map(|(mtls, result, total)| (mtls, result, total.load(Ordering::Relaxed)))
            .filter(|(_, _, total)| *total > 0)
    }
}

/// What is shared by its key: found, or made if there is room.
#[derive(Debug)]
struct Registered<K, V> {
    limit: usize,
    entries: Mutex<Entries<K, V>>,
}

#[derive(Debug)]
struct Entries<K, V> {
    by_key: BTreeMap<K, Arc<V>>,
    /// How many more are turned away before room is searched for.
    turned_away: usize,
}

impl<K: Ord + Clone, V> Registered<K, V> {
    fn new(limit: usize) -> Self {
        Self { limit, entries: Mutex::new(Entries { by_key: BTreeMap::new(), turned_away: 0 }) }
    }

    /// `None`: there is no room.
    fn find_or_make(&self, key: &K, make: impl FnOnce() -> Option<Arc<V>>) -> Option<Arc<V>> {
        let mut entries = lock(&self.entries);
        if let Some(found) = entries.by_key.get(key) {
            return Some(Arc::clone(found));
        }
        if !entries.make_room(self.limit) {
            return None;
        }
        let made = make()?;
        entries.by_key.insert(key.clone(), Arc::clone(&made));
        Some(made)
    }

    fn all(&self) -> Vec<Arc<V>> {
        lock(&self.entries).by_key.values().cloned().collect()
    }
}

impl<K: Ord, V> Entries<K, V> {
    fn make_room(&mut self, limit: usize) -> bool {
        if self.by_key.len() < limit {
            return true;
        }
        // Looking through all of them for each new client would be a way to keep us busy.
        if self.turned_away > 0 {
            self.turned_away -= 1;
            return false;
        }
        self.by_key.retain(|_, value| Arc::strong_count(value) > 1);
        let found = self.by_key.len() < limit;
        if !found {
            self.turned_away = TURNED_AWAY;
        }
        found
    }
}

/// The series of one kind of byte streams.
#[derive(Debug)]
struct Streams {
    series: Registered<Labels, TcpSeries>,
    overflow: [Arc<TcpSeries>; DIRECTIONS.len()],
}

impl Streams {
    fn new(limit: usize, workers: usize) -> Self {
        let overflow = || Arc::new(TcpSeries::new(None, workers));
        Self { series: Registered::new(limit), overflow: [overflow(), overflow()] }
    }

    fn find(&self, labels: &Labels, workers: usize) -> Arc<TcpSeries> {
        let make = || Some(Arc::new(TcpSeries::new(Some(labels.clone()), workers)));
        let found = self.series.find_or_make(labels, make);
        found.unwrap_or_else(|| Arc::clone(&self.overflow[labels.direction as usize]))
    }

    fn of(&self, direction: Direction) -> Vec<Arc<TcpSeries>> {
        let mut all = self.series.all();
        all.retain(|series| series.is_of(direction));
        all.push(Arc::clone(&self.overflow[direction as usize]));
        all
    }
}

/// Counts of what is rare, by a key that is looked up each time. Each worker has its own map, whose lock
/// nobody else takes but a scrape.
#[derive(Debug)]
struct KeyedCounts<K> {
    shards: Box<[Mutex<BTreeMap<K, u64>>]>,
}

impl<K: Ord + Clone> KeyedCounts<K> {
    fn new(workers: usize) -> Self {
        Self { shards: std::iter::repeat_with(Mutex::default).take(workers).collect() }
    }

    fn count(&self, key: &K, worker: usize) {
        let Some(shard) = self.shards.get(worker) else { return };
        let mut counts = lock(shard);
        if let Some(count) = counts.get_mut(key) {
            *count += 1;
        } else if counts.len() < SERIES_LIMIT {
            counts.insert(key.clone(), 1);
        }
    }

    fn totals(&self) -> BTreeMap<K, u64> {
        let mut totals = BTreeMap::new();
        for shard in &self.shards {
            for (key, count) in lock(shard).iter() {
                *totals.entry(key.clone()).or_default() += count;
            }
        }
        totals
    }
}

/// Whoever panicked with the lock held left no half-done change that matters to a count.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (series, durations) = (self.series.all(), self.durations.all());
        for direction in DIRECTIONS {
            let word = direction.word();
            let overflow = &self.overflow[direction as usize];
            let series = series.iter().filter(|series| series.is_of(direction)).chain([overflow]);
            encode_requests(&mut encoder, word, series)?;
            let durations = durations.iter().filter(|durations| durations.is_of(direction));
            let durations = durations.chain([overflow.durations()]);
            encode_durations(&mut encoder, word, durations)?;
            encode_connections(&mut encoder, word, &self.connections[direction as usize])?;
            tcp::encode(&mut encoder, Kind::Tcp, direction, &self.tcp.of(direction))?;
            tcp::encode(&mut encoder, Kind::WebSocket, direction, &self.websockets.of(direction))?;
        }
        self.encode_rare(&mut encoder)?;
        self.encode_budget(&mut encoder)?;
        self.encode_state(&mut encoder)
    }
}

fn encode_requests<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    direction: &str,
    series: impl Iterator<Item = &'a Arc<Series>>,
) -> fmt::Result {
    let name = format!("selvedge_{direction}_requests");
    let help = "Finished requests, by how they ended.";
    let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
    for series in series {
        for (end, count) in series.counts() {
            let labels = RequestLabels { labels: series.labels(), end };
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
    }
    Ok(())
}

fn encode_durations<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    direction: &str,
    durations: impl Iterator<Item = &'a Arc<Durations>>,
) -> fmt::Result {
    let name = format!("selvedge_{direction}_request_duration");
    let help = "Time from the first byte of a request to the last byte of its answer.";
    let mut metric = encoder.encode_descriptor(&name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    let bounds = BUCKETS_MS.map(|bound| bound as f64 / 1_000.0).into_iter().chain([f64::INFINITY]);
    for durations in durations {
        let histogram = durations.histogram();
        if histogram.count > 0 {
            let labels = FewLabels(durations.labels());
            let buckets: Vec<(f64, u64)> = bounds.clone().zip(histogram.buckets).collect();
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                histogram.sum.as_secs_f64(),
                histogram.count,
                &buckets,
                None,
            )?;
        }
    }
    Ok(())
}

fn encode_connections(
    encoder: &mut DescriptorEncoder<'_>,
    direction: &str,
    connections: &Connections,
) -> fmt::Result {
    let name = format!("selvedge_{direction}_connections_open");
    encoder
        .encode_descriptor(&name, "Open connections.", None, MetricType::Gauge)?
        .encode_gauge(&connections.open.load(Ordering::Relaxed))?;
    let name = format!("selvedge_{direction}_connections");
    let help = "Connections made or accepted (result ok), and failed ones, by reason.";
    let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
    for (mtls, result, total) in connections.totals() {
        let labels = ConnectionLabels { mtls, result };
        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&total, None)?;
    }
    let name = format!("selvedge_{direction}_connections_cut");
    let help = "Connections that this proxy closed with something in progress, by reason.";
    let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
    for (reason, total) in Reason::ALL.into_iter().zip(&connections.cut) {
        let total = total.load(Ordering::Relaxed);
        if total > 0 {
            let labels = [("reason", reason.word())];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&total, None)?;
        }
    }
    Ok(())
}

impl Metrics {
    fn encode_rare(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = "selvedge_outbound_retries";
        encode_counts(
            encoder,
            name,
            "Retries: attempts after the first of a request.",
            self.retries.totals(),
            Of::Service,
        )?;
        let name = "selvedge_retry_budget_exhausted";
        let help = "Retries that were not made because the retry budget of the service was exhausted.";
        encode_counts(encoder, name, help, self.budget_exhausted.totals(), Of::Service)?;
        let name = "selvedge_outbound_endpoint_ejections";
        let help = "Endpoints ejected because they kept failing.";
        encode_counts(encoder, name, help, self.ejections.totals(), Of::Backend)?;
        let name = "selvedge_outbound_overflows";
        let help = "Requests, retries and opaque connections refused because a limit of the backend's connectionPool was reached.";
        let of = |(backend, limit)| Of::Limit(backend, limit);
        encode_counts(encoder, name, help, self.overflows.totals(), of)
    }

    fn encode_budget(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(budget) = self.budget.get() else { return Ok(()) };
        let help = "Bytes that have arrived and were not read yet, and bytes that are kept for a retry.";
        encoder
            .encode_descriptor("selvedge_buffered", help, Some(&Unit::Bytes), MetricType::Gauge)?
            .encode_gauge(&budget.held())?;
        let help = "What the proxy did because more bytes were buffered than --buffer-budget allows.";
        let mut metric =
            encoder.encode_descriptor("selvedge_buffer_overflows", help, None, MetricType::Counter)?;
        for (action, count) in budget.actions() {
            let labels = [("action", action.word())];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        let help = "HTTP/2 connections closed because of too many frames without content, by who sent them.";
        let mut metric =
            encoder.encode_descriptor("selvedge_http2_floods", help, None, MetricType::Counter)?;
        for (from, count) in budget.floods() {
            let labels = [("from", from)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        Ok(())
    }

    fn encode_state(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let expiry = self.certificate_expiry.load(Ordering::Relaxed);
        if expiry > 0 {
            let help = "When the workload's certificate expires, in seconds since 1970.";
            let name = "selvedge_certificate_expiry_timestamp";
            encoder
                .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?
                .encode_gauge(&expiry)?;
        }
        let version = lock(&self.configuration).clone();
        if let Some(version) = version {
            let help = "The configuration in force.";
            encoder
                .encode_descriptor("selvedge_configuration_version", help, None, MetricType::Info)?
                .encode_info(&[("version", version)])?;
        }
        Ok(())
    }
}

fn encode_counts<K>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    counts: BTreeMap<K, u64>,
    labels: impl Fn(K) -> Of,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (key, count) in counts {
        metric.encode_family(&labels(key))?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
    }
    Ok(())
}

/// Writes labels; leaves out those that are empty.
pub(super) struct LabelWriter<'a, 'b>(pub(super) &'a mut LabelSetEncoder<'b>);

impl LabelWriter<'_, '_> {
    fn label(&mut self, name: &str, value: impl EncodeLabelValue) -> fmt::Result {
        (name, value).encode(self.0.encode_label())
    }

    pub(super) fn text(&mut self, name: &str, value: &str) -> fmt::Result {
        if value.is_empty() { Ok(()) } else { self.label(name, value) }
    }

    /// What tells one series from another.
    pub(super) fn labels(&mut self, labels: Option<&Labels>) -> fmt::Result {
        let Some(labels) = labels else { return self.label("overflow", true) };
        self.server(&labels.server_address, labels.server_port)?;
        self.text("route", &labels.route)?;
        self.text("destination_subset", &labels.destination_subset)?;
        self.label("mtls", labels.mtls)?;
        self.text("source_workload", &labels.source_workload)?;
        self.text("source_namespace", &labels.source_namespace)?;
        self.text("source_principal", &labels.source_principal)
    }

    fn backend(&mut self, backend: &BackendName) -> fmt::Result {
        self.server(&backend.service.host, backend.service.port)?;
        self.text("destination_subset", backend.subset.as_deref().unwrap_or_default())
    }

    fn server(&mut self, address: &str, port: u16) -> fmt::Result {
        self.text("server_address", address)?;
        if port == 0 { Ok(()) } else { self.label("server_port", port) }
    }
}

#[derive(Debug)]
struct RequestLabels<'a> {
    labels: Option<&'a Labels>,
    end: Option<End>,
}

impl EncodeLabelSet for RequestLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut writer = LabelWriter(encoder);
        writer.labels(self.labels)?;
        let Some(end) = self.end else { return writer.text("error_type", "_OTHER") };
        if let Some(status) = end.status {
            writer.label("http_response_status_code", status)?;
        }
        if let Some(status) = end.grpc_status {
            writer.label("rpc_grpc_status_code", status)?;
        }
        writer.text("error_type", end.error_type().unwrap_or_default())
    }
}

#[derive(Debug)]
struct FewLabels<'a>(Option<&'a DurationLabels>);

impl EncodeLabelSet for FewLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut writer = LabelWriter(encoder);
        let Some(labels) = self.0 else { return writer.label("overflow", true) };
        writer.server(&labels.server_address, labels.server_port)?;
        writer.label("mtls", labels.mtls)
    }
}

#[derive(Debug)]
struct ConnectionLabels {
    mtls: bool,
    result: &'static str,
}

impl EncodeLabelSet for ConnectionLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut writer = LabelWriter(encoder);
        writer.label("mtls", self.mtls)?;
        writer.text("result", self.result)
    }
}

/// What a rare event is counted of.
#[derive(Debug)]
enum Of {
    Service(ServiceKey),
    Backend(BackendName),
    Limit(BackendName, Limit),
}

impl EncodeLabelSet for Of {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut writer = LabelWriter(encoder);
        match self {
            Self::Service(service) => writer.server(&service.host, service.port),
            Self::Backend(backend) => writer.backend(backend),
            Self::Limit(backend, limit) => {
                writer.backend(backend)?;
                writer.text("limit", limit.word())
            }
        }
    }
}

#[cfg(test)]
mod tests;
