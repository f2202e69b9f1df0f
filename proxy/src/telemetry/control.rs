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
    /// SVIDs of a SPIFFE agent that were put into use.
    pub svids_used: Counter,
    /// Times that its stream could not be opened, or ended.
    pub workload_api_failures: Counter,
    /// 1 while it is open.
    pub workload_api_connected: Gauge,
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
    /// Health checks of endpoints outside the mesh that were answered, or not in time.
    pub health_checks: Counter,
    /// Those of them that failed.
    pub health_checks_failed: Counter,
    /// Endpoints that are checked.
    pub endpoints_checked: Gauge,
    /// Those of them that get no requests, because they fail.
    pub endpoints_unhealthy: Gauge,
    /// Endpoints that get no requests; set when it is asked for.
    pub endpoints_out: Gauge,
    /// Attempts to open a port of a gateway that failed.
    pub gateway_listen_failures: Counter,
    /// Connections refused because of what one client has open.
    pub client_limit_refusals: Counter,
    /// Requests that were refused because their client sends too many in a second.
    pub client_rate_refusals: Counter,
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
            "selvedge_workload_api_svids",
            "SVIDs from the SPIFFE Workload API that were put into use; 0 without --workload-api",
            &self.svids_used,
        );
        counter(
            "selvedge_workload_api_failures",
            "Times that the stream of the SPIFFE Workload API could not be opened, or ended",
            &self.workload_api_failures,
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
        counter(
            "selvedge_outbound_health_checks",
            "Health checks of endpoints outside the mesh",
            &self.health_checks,
        );
        counter(
            "selvedge_outbound_health_checks_failed",
            "Health checks of endpoints outside the mesh that failed",
            &self.health_checks_failed,
        );
        counter(
            "selvedge_gateway_listen_failures",
            "Failed attempts to open a port of this gateway; each port is tried again every second",
            &self.gateway_listen_failures,
        );
        counter(
            "selvedge_gateway_client_limit_refusals",
            "Connections refused because as many are open from one client's address, or to one of several ports, as may be, or because \
             an address connects too often",
            &self.client_limit_refusals,
        );
        counter(
            "selvedge_gateway_client_rate_refusals",
            "Requests refused because their client's address sends more in a second than it may",
            &self.client_rate_refusals,
        );
        let mut gauge = |name, help, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge(
            "selvedge_control_plane_connected",
            "1 while the configuration stream is open",
            &self.connected,
        );
        gauge(
            "selvedge_workload_api_connected",
            "1 while the stream of the SPIFFE Workload API is open; 0 without --workload-api",
            &self.workload_api_connected,
        );
        gauge("selvedge_dns_names", "Names of endpoints that are looked up", &self.names);
        gauge(
            "selvedge_dns_names_failing",
            "Endpoints' DNS names whose last lookup failed",
            &self.names_failing,
        );
        gauge(
            "selvedge_outbound_endpoints_checked",
            "Endpoints outside the mesh that have health checks",
            &self.endpoints_checked,
        );
        gauge(
            "selvedge_outbound_endpoints_unhealthy",
            "Endpoints outside the mesh that get no requests because they fail their health checks",
            &self.endpoints_unhealthy,
        );
        gauge(
            "selvedge_outbound_endpoints_out",
            "Endpoints that get no requests because they are ejected or fail their health checks",
            &self.endpoints_out,
        );
    }
}
