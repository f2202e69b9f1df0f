//! What the control plane counts.
//!
//! Labels are closed sets: no workload, authority or document name is one.

mod found;

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};
use selvedge_ops::{
    build,
    lag::{self, Lag},
};

use self::found::Found;
use crate::problem::{Problem, Severity};

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TransactionOutcome {
    /// It was sent.
    Sent,
    /// The proxy applied it.
    Acknowledged,
    /// The proxy refused it, and said why.
    Refused,
}

impl TransactionOutcome {
    fn word(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Acknowledged => "acknowledged",
            Self::Refused => "refused",
        }
    }
}

/// A stage of a configuration change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// Documents become a mesh.
    Compile,
    /// It is found out whom the mesh concerns.
    Publish,
    /// It is found out what a proxy is to hold, and what of that is new to it; what nobody has encoded before is encoded.
    View,
    /// The transaction waits until the connection takes it.
    Write,
    /// The proxy applies it.
    Acknowledge,
}

impl Stage {
    fn word(self) -> &'static str {
        match self {
            Self::Compile => "compile",
            Self::Publish => "publish",
            Self::View => "view",
            Self::Write => "write",
            Self::Acknowledge => "acknowledge",
        }
    }
}

fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::NotActedOn => "not-acted-on",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySeverity {
    severity: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

/// A closed set of words, such as the reasons of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStage {
    stage: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByForm {
    form: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCertificate {
    certificate: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByProof {
    proof: &'static str,
}

/// Every metric of the control plane, and the registry that writes them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    connected_proxies: Gauge,
    transactions: Family<ByOutcome, Counter>,
    streams_refused: Family<ByReason, Counter>,
    certificates_signed: Family<ByProof, Counter>,
    certificates_refused: Family<ByReason, Counter>,
    certificate_expiry: Family<ByCertificate, Gauge>,
    problems: Family<BySeverity, Gauge>,
    compile_duration: Histogram,
    configuration_version: Gauge,
    key_fetches: Family<ByOutcome, Counter>,
    key_sets: Family<ByState, Gauge>,
    traffic_dropped: Counter,
    /// How late the event loop is.
    pub(crate) lag: Lag,
    stages: Family<ByStage, Counter<f64, AtomicU64>>,
    endpoints_sent: Family<ByForm, Counter>,
    /// What each delivery counts, found once.
    found: Found,
    /// In a registry of its own, because its name says nothing of the control plane: the proxies have a part in it.
    change_to_ack: Histogram,
    shared: Registry,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("selvedge_control_plane"),
            connected_proxies: Gauge::default(),
            transactions: Family::default(),
            streams_refused: Family::default(),
            certificates_signed: Family::default(),
            certificates_refused: Family::default(),
            certificate_expiry: Family::default(),
            problems: Family::default(),
            compile_duration: Histogram::new([0.0001, 0.001, 0.005, 0.025, 0.1, 0.5, 2.0]),
            configuration_version: Gauge::default(),
            key_fetches: Family::default(),
            key_sets: Family::default(),
            traffic_dropped: Counter::default(),
            lag: Lag::default(),
            stages: Family::default(),
            endpoints_sent: Family::default(),
            found: Found::default(),
            change_to_ack: Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
            shared: Registry::with_prefix("selvedge"),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "connected_proxies",
            "Proxies with an open configuration stream",
            self.connected_proxies.clone(),
        );
        registry.register("transactions", "Configuration transactions", self.transactions.clone());
        registry.register(
            "streams_refused",
            "Configuration streams that were refused or ended by us",
            self.streams_refused.clone(),
        );
        registry.register("certificates_signed", "Certificates signed", self.certificates_signed.clone());
        registry.register(
            "certificates_refused",
            "Certificate requests refused",
            self.certificates_refused.clone(),
        );
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When a certificate of the control plane's own ends, since 1970",
            Unit::Seconds,
            self.certificate_expiry.clone(),
        );
        registry.register("problems", "Problems in the configuration now", self.problems.clone());
        registry.register_with_unit(
            "compile_duration",
            "Time to compile documents into a mesh",
            Unit::Seconds,
            self.compile_duration.clone(),
        );
        registry.register(
            "configuration_version",
            "Counts the configurations published since the start",
            self.configuration_version.clone(),
        );
        registry.register("key_fetches", "Fetches of issuers' keys", self.key_fetches.clone());
        registry.register(
            "key_sets",
            "Issuers' keys that documents name: fetched last time, kept from before, or missing",
            self.key_sets.clone(),
        );
        registry.register(
            "traffic_dropped",
            "Requests and connections that proxies have told and that are not kept, because there are too many edges",
            self.traffic_dropped.clone(),
        );
        registry.register_with_unit(
            "stage",
            "Time that each stage of configuration changes has taken, all streams together",
            Unit::Seconds,
            self.stages.clone(),
        );
        registry.register_with_unit(
            "endpoints_sent",
            "Lists of endpoints that were sent, whole or only what has changed",
            Unit::Bytes,
            self.endpoints_sent.clone(),
        );
        self.shared.register_with_unit(
            "change_to_ack",
            "From when a change was read until a proxy that it concerns has acknowledged it",
            Unit::Seconds,
            self.change_to_ack.clone(),
        );
        registry.register("build", "Which build this is", Info::new(vec![("version", build::VERSION)]));
    }

    /// All metrics as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let written = text::encode_registry(&mut text, &self.registry)
            .and_then(|()| text::encode_registry(&mut text, &self.shared));
        written.expect("a String takes whatever is written");
        text.push_str(&lag::text("selvedge_control_plane", [("runtime".to_owned(), &self.lag)].into_iter()));
        text.push_str("# EOF\n");
        text
    }

    pub(crate) fn set_connected_proxies(&self, count: usize) {
        self.connected_proxies.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn transaction(&self, outcome: TransactionOutcome) {
        let new = || self.transactions.get_or_create_owned(&ByOutcome { outcome: outcome.word() });
        self.found.transactions[outcome as usize].get_or_init(new).inc();
    }

    pub(crate) fn stream_refused(&self, reason: &'static str) {
        self.streams_refused.get_or_create(&ByReason { reason }).inc();
    }

    pub(crate) fn certificate_signed(&self, proof: &'static str) {
        self.certificates_signed.get_or_create(&ByProof { proof }).inc();
    }

    pub(crate) fn certificate_refused(&self, reason: &'static str) {
        self.certificates_refused.get_or_create(&ByReason { reason }).inc();
    }

    pub(crate) fn certificate_expires(&self, certificate: &'static str, at: SystemTime) {
        let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let gauge = self.certificate_expiry.get_or_create(&ByCertificate { certificate });
        gauge.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    pub(crate) fn set_problems(&self, problems: &[Problem]) {
        for severity in [Severity::Error, Severity::Warning, Severity::NotActedOn] {
            let count = problems.iter().filter(|problem| problem.severity == severity).count();
            let gauge = self.problems.get_or_create(&BySeverity { severity: severity_word(severity) });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn compiled(&self, duration: Duration) {
        self.compile_duration.observe(duration.as_secs_f64());
        self.spent(Stage::Compile, duration);
    }

    /// `stage` has taken so long.
    pub(crate) fn spent(&self, stage: Stage, duration: Duration) {
        let new = || self.stages.get_or_create_owned(&ByStage { stage: stage.word() });
        self.found.stages[stage as usize].get_or_init(new).inc_by(duration.as_secs_f64());
    }

    /// A proxy has acknowledged a transaction so long after it was `sent`, and after its earliest change was noticed.
    pub(crate) fn acknowledged(&self, sent: Duration, since: Option<Duration>) {
        self.spent(Stage::Acknowledge, sent);
        if let Some(since) = since {
            self.change_to_ack.observe(since.as_secs_f64());
        }
    }

    /// A list of endpoints is sent in so many bytes: whole, or only what has changed.
    pub(crate) fn endpoints_sent(&self, is_delta: bool, bytes: usize) {
        let form = if is_delta { "delta" } else { "whole" };
        let new = || self.endpoints_sent.get_or_create_owned(&ByForm { form });
        self.found.endpoints_sent[usize::from(is_delta)].get_or_init(new).inc_by(bytes as u64);
    }

    pub(crate) fn keys_fetched(&self, is_ok: bool) {
        let outcome = if is_ok { "fetched" } else { "failed" };
        self.key_fetches.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// How many key sets are fresh, are kept from before because there are no newer ones, and are missing.
    pub(crate) fn set_key_sets(&self, counts: [usize; 3]) {
        for (state, count) in ["fresh", "kept", "missing"].into_iter().zip(counts) {
            self.key_sets.get_or_create(&ByState { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn traffic_dropped(&self, count: u64) {
        self.traffic_dropped.inc_by(count);
    }

    pub(crate) fn published(&self, version: u64) {
        self.configuration_version.set(i64::try_from(version).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_written_in_the_words_of_the_documentation() {
        let metrics = Metrics::default();
        metrics.set_connected_proxies(2);
        metrics.transaction(TransactionOutcome::Acknowledged);
        metrics.stream_refused("identity");
        metrics.certificate_signed("token");
        metrics.certificate_refused("token-expired");
        metrics.certificate_expires("webhook", UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        metrics.set_problems(&[Problem::with_path(Severity::Error, "a.yaml".as_ref(), "wrong")]);
        metrics.compiled(Duration::from_millis(250));
        metrics.spent(Stage::View, Duration::from_millis(500));
        metrics.acknowledged(Duration::from_millis(250), Some(Duration::from_millis(750)));
        metrics.published(3);
        metrics.keys_fetched(true);
        metrics.traffic_dropped(5);
        metrics.set_key_sets([2, 1, 0]);
        metrics.endpoints_sent(true, 90);

        // Series of one metric come in any order.
        let sorted = |text: &str| -> Vec<String> {
            let text = text.replace(build::VERSION, "VERSION");
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&metrics.encode()), sorted(include_str!("metrics/expected.txt")));
    }
}
