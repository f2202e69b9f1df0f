//! What the control thread counts: certificates, and the conversation with the control plane.
//!
//! These are rare, and counted by one thread, so prometheus-client's own types are fast enough.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// The control thread's counts.
#[derive(Debug, Default)]
pub struct ControlMetrics {
    /// Certificates obtained from the control plane.
    pub certificates_obtained: Counter,
    /// Attempts to obtain one that failed.
    pub certificate_failures: Counter,
    /// 1 while the configuration stream is open.
    pub connected: Gauge,
    /// Transactions taken in.
    pub applied: Counter,
    /// Transactions refused.
    pub refused: Counter,
    /// Names of endpoints that are looked up.
    pub names: Gauge,
    /// Those of them whose last look-up failed.
    pub names_failing: Gauge,
    /// Look-ups of them that failed.
    pub lookups_failed: Counter,
}

impl ControlMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let mut counter = |name, help, counter: &Counter| registry.register(name, help, counter.clone());
        counter(
            "selvedge_certificates_obtained",
            "Certificates that the control plane issued to this proxy",
            &self.certificates_obtained,
        );
        counter(
            "selvedge_certificate_failures",
            "Failed attempts to get a certificate",
            &self.certificate_failures,
        );
        counter(
            "selvedge_configuration_transactions_applied",
            "Configuration transactions that were applied",
            &self.applied,
        );
        counter(
            "selvedge_configuration_transactions_refused",
            "Configuration transactions that were refused; the last good configuration stays in force",
            &self.refused,
        );
        counter(
            "selvedge_dns_lookups_failed",
            "Failed DNS lookups of endpoints' names; their last addresses stay in use",
            &self.lookups_failed,
        );
        let mut gauge = |name, help, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge(
            "selvedge_control_plane_connected",
            "1 while the configuration stream is open",
            &self.connected,
        );
        gauge("selvedge_dns_names", "Names of endpoints that are looked up", &self.names);
        gauge(
            "selvedge_dns_names_failing",
            "Endpoints' DNS names whose last lookup failed",
            &self.names_failing,
        );
    }
}
