//! Istio's standard metrics (istio.io, "Istio Standard Metrics"), for those who ask for them: Kiali, Flagger, and the
//! dashboards that people have.
//!
//! Nothing is counted for them: they are our own series, told apart by the workload at the other end and measured for each
//! end, in other words. What there was no room for is not in them.

mod told;

use std::{collections::BTreeMap, sync::Arc};

use selvedge_model::telemetry::StandardMetric;

use self::told::{Building, Group};
pub(super) use self::told::{InForce, Told};

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

/// Adds all of them that are told.
pub(super) fn write(
    page: &mut Page,
    own: &Own,
    told: &Told,
    requests: &[Arc<Series>],
    tcp: &[Arc<TcpSeries>],
) {
    write_requests(page, own, &told.requests, requests);
    write_tcp(page, own, &told.streams, tcp);
}

/// What metrics with the same labels tell.
#[derive(Debug, Default)]
struct Requests {
    counted: BTreeMap<Written, u64>,
    measured: BTreeMap<Written, Sum>,
}

impl Requests {
    fn of(group: &Group, own: &Own, series: &[Arc<Series>]) -> Self {
        // Several of ours may be one here: these labels know no routes, subsets or methods.
        let mut all = Self::default();
        for series in series {
            let (Some(labels), counts) = (series.labels(), series.counts()) else { continue };
            let Some(begun) = group.begin(labels).filter(|_| !counts.is_empty()) else { continue };
            let ends = between(begun.clone(), own, labels, PASSTHROUGH);
            let of = |end: End| match end.reason() {
                Some(Reason::RegistryOnly) => {
                    of_end(&between(begun.clone(), own, labels, BLACK_HOLE), labels, end)
                }
                _ => of_end(&ends, labels, end),
            };
            if group.has(StandardMetric::RequestCount) {
                for (end, count) in counts {
                    let written = end.map_or_else(|| of_others(&ends, labels), of);
                    *all.counted.entry(written).or_default() += count;
                }
            }
            if MEASURED.iter().any(|(metric, ..)| group.has(*metric)) {
                for (end, sum) in series.measured() {
                    all.measured.entry(of(end)).or_default().add(&sum);
                }
            }
        }
        all
    }
}

type Write = fn(&Sum, &mut Page, &str, &Written);

/// The histograms of requests: each with its name, its unit, what it says, and how it is written.
const MEASURED: [(StandardMetric, &str, &str, &str, Write); 3] = [
    (
        StandardMetric::RequestDuration,
        "istio_request_duration_milliseconds",
        "milliseconds",
        "How long requests took, as Istio tells it",
        Sum::write_milliseconds,
    ),
    (
        StandardMetric::RequestSize,
        "istio_request_bytes",
        "bytes",
        "Bytes of requests' bodies, as Istio tells them",
        Sum::write_received,
    ),
    (
        StandardMetric::ResponseSize,
        "istio_response_bytes",
        "bytes",
        "Bytes of answers' bodies, as Istio tells them",
        Sum::write_sent,
    ),
];

fn write_requests(page: &mut Page, own: &Own, groups: &[Group], series: &[Arc<Series>]) {
    let groups: Vec<(&Group, Requests)> =
        groups.iter().map(|group| (group, Requests::of(group, own, series))).collect();
    let of = |metric| groups.iter().filter(move |(group, _)| group.has(metric)).map(|(_, told)| told);
    page.family("istio_requests", "counter", "", "Finished requests, as Istio tells them");
    for (labels, count) in of(StandardMetric::RequestCount).flat_map(|told| &told.counted) {
        page.sample("istio_requests_total", labels, count);
    }
    for (metric, name, unit, help, write) in MEASURED {
        page.family(name, "histogram", unit, help);
        of(metric).flat_map(|told| &told.measured).for_each(|(labels, sum)| write(sum, page, name, labels));
    }
}

/// The counters of opaque connections: each with its name, and what it says.
const STREAMS: [(StandardMetric, &str, &str); 4] = [
    (StandardMetric::TcpSentBytes, "istio_tcp_sent_bytes", "Bytes of opaque TCP connections sent to clients"),
    (
        StandardMetric::TcpReceivedBytes,
        "istio_tcp_received_bytes",
        "Bytes of opaque TCP connections received from clients",
    ),
    (
        StandardMetric::TcpOpenedConnections,
        "istio_tcp_connections_opened",
        "Opaque TCP connections that have come",
    ),
    (
        StandardMetric::TcpClosedConnections,
        "istio_tcp_connections_closed",
        "Opaque TCP connections that are over",
    ),
];

/// How much was counted of each of [`STREAMS`]; `None`: nothing is told of it.
type Counts = [Option<u64>; STREAMS.len()];

/// Adds what `more` has to `counts`.
fn add(counts: &mut Counts, more: Counts) {
    for (count, more) in counts.iter_mut().zip(more) {
        *count = count.map_or(more, |count| Some(count + more.unwrap_or_default()));
    }
}

/// What the metrics of `group` tell. Labels are made once for all of them.
fn streams(group: &Group, own: &Own, series: &[Arc<TcpSeries>]) -> BTreeMap<Written, Counts> {
    let mut all = BTreeMap::<Written, Counts>::new();
    for series in series.iter().filter(|series| series.activity() > 0) {
        let Some(labels) = series.labels() else { continue };
        let Some(begun) = group.begin(labels) else { continue };
        let ends = between(begun.clone(), own, labels, PASSTHROUGH).with("request_protocol", "tcp");
        for (reason, counts) in counted(series) {
            let ends = match reason {
                Some(Reason::RegistryOnly) => {
                    between(begun.clone(), own, labels, BLACK_HOLE).with("request_protocol", "tcp")
                }
                _ => ends.clone(),
            };
            let flags = reason.map_or(NO_FLAGS, Reason::response_flags);
            let written = ends.with("response_flags", flags).finish(labels, None);
            add(all.entry(written).or_default(), counts);
        }
    }
    all
}

/// What `series` has counted, by why.
fn counted(series: &TcpSeries) -> Vec<(Option<Reason>, Counts)> {
    let [come, from_client, to_client] = series.carried();
    let mut all = vec![(None, [Some(to_client), Some(from_client), (come > 0).then_some(come), None])];
    let mut count =
        |reason: Option<Reason>, counts: Counts| match all.iter_mut().find(|(of, _)| *of == reason) {
            Some((_, known)) => add(known, counts),
            None => all.push((reason, counts)),
        };
    series.ends().for_each(|(reason, closed)| count(reason, [None, None, None, Some(closed)]));
    // One that was refused has come and gone, as Istio counts.
    for (reason, refused) in series.refusals() {
        count(Some(reason), [None, None, Some(refused), Some(refused)]);
    }
    all
}

fn write_tcp(page: &mut Page, own: &Own, groups: &[Group], series: &[Arc<TcpSeries>]) {
    let groups: Vec<(&Group, BTreeMap<Written, Counts>)> =
        groups.iter().map(|group| (group, streams(group, own, series))).collect();
    for (place, (metric, name, help)) in STREAMS.into_iter().enumerate() {
        let unit = if name.ends_with("_bytes") { "bytes" } else { "" };
        page.family(name, "counter", unit, &format!("{help}, as Istio tells them"));
        let total = format!("{name}_total");
        for (_, told) in groups.iter().filter(|(group, _)| group.has(metric)) {
            for (labels, counts) in told {
                if let Some(count) = counts[place] {
                    page.sample(&total, labels, count);
                }
            }
        }
    }
}

/// The labels that say between whom it goes. `nowhere` is what the destination is called if it is in no configuration.
fn between<'g>(begun: Building<'g>, own: &Own, labels: &Labels, nowhere: &str) -> Building<'g> {
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
    let written = begun.with("reporter", reporter);
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
    fn write<'g>(&self, mut written: Building<'g>, end: &str) -> Building<'g> {
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
fn of_end(ends: &Building<'_>, labels: &Labels, end: End) -> Written {
    let status = end.status.unwrap_or_default();
    let grpc_status = end.grpc_status.map(|status| status.to_string()).unwrap_or_default();
    ends.clone()
        .with("request_protocol", if end.grpc_status.is_some() { "grpc" } else { "http" })
        .with("response_code", &status.to_string())
        .with("grpc_response_status", &grpc_status)
        .with("response_flags", end.reason().map_or(NO_FLAGS, Reason::response_flags))
        .finish(labels, Some(end))
}

/// The labels of requests that ended in too many ways to tell apart.
fn of_others(ends: &Building<'_>, labels: &Labels) -> Written {
    let ends = ends.clone().with("request_protocol", "http");
    ends.with("response_code", UNKNOWN).with("response_flags", NO_FLAGS).finish(labels, None)
}

#[cfg(test)]
mod tests;
