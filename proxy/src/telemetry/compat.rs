//! Istio's standard metrics (istio.io, "Istio Standard Metrics"), for those who ask for them: Kiali, Flagger, and the
//! dashboards that people have.
//!
//! Nothing is counted for them: they are our own series, told apart by the workload at the other end and measured for each
//! end, in other words. What there was no room for is not in them.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    labels::Labels,
    measured::Sum,
    own::{Own, Peer},
    page::{Page, Written},
    series::{End, Series},
    tcp::TcpSeries,
};
use crate::{arrival::Direction, error::Reason};

/// What is not known is called so.
const UNKNOWN: &str = "unknown";
/// Where requests go whose destination is in no configuration.
pub(super) const PASSTHROUGH: &str = "PassthroughCluster";
/// Where they would have gone if the outbound traffic policy let them out.
pub(super) const BLACK_HOLE: &str = "BlackHoleCluster";
/// Where those go that come to a port to which no Service leads.
const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
/// What Istio calls a cluster that has no other name.
const CLUSTER: &str = "Kubernetes";
/// What one flag or none is called.
const NO_FLAGS: &str = "-";

/// Adds all of them.
pub(super) fn write(page: &mut Page, own: &Own, requests: &[Arc<Series>], tcp: &[Arc<TcpSeries>]) {
    write_requests(page, own, requests);
    write_tcp(page, own, tcp);
}

fn write_requests(page: &mut Page, own: &Own, series: &[Arc<Series>]) {
    // Several of ours may be one here: these labels know no routes, subsets or methods.
    let mut counted: BTreeMap<Written, u64> = BTreeMap::new();
    let mut measured: BTreeMap<Written, Sum> = BTreeMap::new();
    for series in series {
        let (Some(labels), counts) = (series.labels(), series.counts()) else { continue };
        if counts.is_empty() {
            continue;
        }
        let ends = between(own, labels, PASSTHROUGH);
        let of = |end: End| match end.reason() {
            Some(Reason::RegistryOnly) => of_end(&between(own, labels, BLACK_HOLE), end),
            _ => of_end(&ends, end),
        };
        for (end, count) in counts {
            let written = end.map_or_else(|| of_others(&ends), of);
            *counted.entry(written).or_default() += count;
        }
        for (end, sum) in series.measured() {
            measured.entry(of(end)).or_default().add(&sum);
        }
    }
    page.family("istio_requests", "counter", "", "Finished requests, as Istio tells them");
    for (labels, count) in &counted {
        page.sample("istio_requests_total", labels, count);
    }
    let name = "istio_request_duration_milliseconds";
    page.family(name, "histogram", "milliseconds", "How long requests took, as Istio tells it");
    measured.iter().for_each(|(labels, sum)| sum.write_milliseconds(page, name, labels));
    let name = "istio_request_bytes";
    page.family(name, "histogram", "bytes", "Bytes of requests' bodies, as Istio tells them");
    measured.iter().for_each(|(labels, sum)| sum.write_received(page, name, labels));
    let name = "istio_response_bytes";
    page.family(name, "histogram", "bytes", "Bytes of answers' bodies, as Istio tells them");
    measured.iter().for_each(|(labels, sum)| sum.write_sent(page, name, labels));
}

fn write_tcp(page: &mut Page, own: &Own, series: &[Arc<TcpSeries>]) {
    let [mut sent, mut received, mut opened, mut closed]: [BTreeMap<Written, u64>; 4] = Default::default();
    for series in series.iter().filter(|series| series.activity() > 0) {
        let Some(labels) = series.labels() else { continue };
        let ends = |nowhere| between(own, labels, nowhere).with("request_protocol", "tcp");
        let (usual, blocked) = (ends(PASSTHROUGH), ends(BLACK_HOLE));
        let flagged = |reason: Option<Reason>| {
            let ends = if reason == Some(Reason::RegistryOnly) { &blocked } else { &usual };
            ends.clone().with("response_flags", reason.map_or(NO_FLAGS, Reason::response_flags))
        };
        let [come, from_client, to_client] = series.carried();
        *sent.entry(flagged(None)).or_default() += to_client;
        *received.entry(flagged(None)).or_default() += from_client;
        if come > 0 {
            *opened.entry(flagged(None)).or_default() += come;
        }
        for (reason, count) in series.ends() {
            *closed.entry(flagged(reason)).or_default() += count;
        }
        // One that was refused has come and gone, as Istio counts.
        for (reason, count) in series.refusals() {
            *opened.entry(flagged(Some(reason))).or_default() += count;
            *closed.entry(flagged(Some(reason))).or_default() += count;
        }
    }
    let families = [
        ("istio_tcp_sent_bytes", "Bytes of opaque TCP connections sent to clients", sent),
        ("istio_tcp_received_bytes", "Bytes of opaque TCP connections received from clients", received),
        ("istio_tcp_connections_opened", "Opaque TCP connections that have come", opened),
        ("istio_tcp_connections_closed", "Opaque TCP connections that are over", closed),
    ];
    for (name, help, counts) in families {
        let unit = if name.ends_with("_bytes") { "bytes" } else { "" };
        page.family(name, "counter", unit, &format!("{help}, as Istio tells them"));
        for (labels, count) in &counts {
            page.sample(&format!("{name}_total"), labels, count);
        }
    }
}

/// The labels that say between whom it goes. `nowhere` is what the destination is called if it is in no configuration.
fn between(own: &Own, labels: &Labels, nowhere: &str) -> Written {
    let peer = labels.peer.as_deref();
    let ours = Named {
        namespace: &own.namespace,
        owner: &own.naming.owner,
        app: &own.naming.app,
        version: &own.naming.version,
        service: &own.naming.service,
        revision: &own.naming.revision,
        principal: if labels.mtls { &own.principal } else { "" },
    };
    let named = |peer: &'_ Peer| -> [Arc<str>; 7] {
        let Peer { namespace, naming, principal } = peer;
        [namespace, &naming.owner, &naming.app, &naming.version, &naming.service, &naming.revision, principal]
            .map(Arc::clone)
    };
    let none: [Arc<str>; 7] = Default::default();
    let theirs = peer.map_or(none, named);
    let [namespace, owner, app, version, service, revision, principal] = &theirs;
    let theirs = Named { namespace, owner, app, version, service, revision, principal };
    let (reporter, source, destination) = match labels.direction {
        Direction::Outbound => ("source", ours, theirs),
        Direction::Inbound => {
            let (namespace, principal) = (&*labels.source_namespace, &*labels.source_principal);
            ("destination", Named { namespace, principal, ..theirs }, ours)
        }
    };
    let host = host(own, labels);
    let (name, namespace) = match (host, labels.direction) {
        (UNKNOWN, Direction::Outbound) => (nowhere, UNKNOWN),
        (UNKNOWN, Direction::Inbound) => (INBOUND_PASSTHROUGH, UNKNOWN),
        _ => parts(host),
    };
    let security = match (labels.direction, labels.mtls) {
        // Only the server's side knows it, as Istio tells it.
        (Direction::Outbound, _) => UNKNOWN,
        (Direction::Inbound, true) => "mutual_tls",
        (Direction::Inbound, false) => "none",
    };
    let written = Written::default().with("reporter", reporter);
    let written = destination.write(source.write(written, "source"), "destination");
    written
        .with("destination_service", host)
        .with("destination_service_name", name)
        .with("destination_service_namespace", namespace)
        .with("connection_security_policy", security)
}

/// A workload at one end. What is empty is not known.
#[derive(Debug, Clone, Copy)]
struct Named<'a> {
    namespace: &'a str,
    owner: &'a str,
    app: &'a str,
    version: &'a str,
    service: &'a str,
    revision: &'a str,
    principal: &'a str,
}

impl Named<'_> {
    fn write(&self, mut written: Written, end: &str) -> Written {
        let labels = [
            ("workload", self.owner),
            ("workload_namespace", self.namespace),
            ("principal", self.principal),
            ("app", self.app),
            ("version", self.version),
            ("canonical_service", self.service),
            ("canonical_revision", self.revision),
            ("cluster", if self.owner.is_empty() { "" } else { CLUSTER }),
        ];
        for (label, value) in labels {
            written.add(&format!("{end}_{label}"), if value.is_empty() { UNKNOWN } else { value });
        }
        written
    }
}

/// The host of the service that is meant.
fn host<'a>(own: &'a Own, labels: &'a Labels) -> &'a str {
    match labels.direction {
        Direction::Inbound => own.services.get(&labels.server_port).map_or(UNKNOWN, |host| &**host),
        Direction::Outbound if !labels.destination_service.is_empty() => {
            labels.destination_service.rsplit_once(':').map_or(&*labels.destination_service, |(host, _)| host)
        }
        Direction::Outbound => &labels.server_address,
    }
}

/// The name and the namespace of the service at `host`.
fn parts(host: &str) -> (&str, &str) {
    let mut parts = host.splitn(3, '.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(namespace), Some(rest)) if rest == "svc" || rest.starts_with("svc.") => {
            (name, namespace)
        }
        _ => (host, UNKNOWN),
    }
}

/// The labels of requests that ended so.
fn of_end(ends: &Written, end: End) -> Written {
    let status = end.status.unwrap_or_default();
    let grpc_status = end.grpc_status.map(|status| status.to_string()).unwrap_or_default();
    ends.clone()
        .with("request_protocol", if end.grpc_status.is_some() { "grpc" } else { "http" })
        .with("response_code", &status.to_string())
        .with("grpc_response_status", &grpc_status)
        .with("response_flags", end.reason().map_or(NO_FLAGS, Reason::response_flags))
}

/// The labels of requests that ended in too many ways to tell apart.
fn of_others(ends: &Written) -> Written {
    let ends = ends.clone().with("request_protocol", "http");
    ends.with("response_code", UNKNOWN).with("response_flags", NO_FLAGS)
}

#[cfg(test)]
mod tests;
