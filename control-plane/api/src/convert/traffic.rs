//! What a proxy tells of the traffic that it carries.

use std::{sync::Arc, time::Duration};

use selvedge_model::{
    BackendName, ServiceKey,
    traffic::{
        AtEndpoint, BUCKETS, Carried, Counts, Edge, FailureKind, LONGEST_NAME, LONGEST_OUT, LONGEST_REASON,
        LONGEST_WHY, MOST_AT_ONCE, MOST_EDGES, MOST_FAILING, MOST_OUT, MOST_OUTCOMES, Out, Outcome,
        OutcomeCount, Told, Way,
    },
};

use super::{ConvertError, authorization::at_most, milliseconds, parse, port};
use crate::wire;

/// As much of `text` as may be sent.
fn within(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_owned()
}

/// A number of an edge.
fn number(edge: u32) -> Result<u32, ConvertError> {
    at_most("number of an edge", edge as usize, MOST_EDGES - 1)?;
    Ok(edge)
}

fn text(field: &'static str, text: String, most: usize) -> Result<Arc<str>, ConvertError> {
    at_most(field, text.len(), most)?;
    Ok(text.into())
}

/// As much of something as one report can have: no sum of an hour's can overflow.
fn plausible(count: u64) -> u64 {
    count.min(MOST_AT_ONCE)
}

fn plausible_bytes(count: u64) -> u64 {
    count.min(MOST_AT_ONCE << 12)
}

impl From<Carried> for wire::Carried {
    fn from(carried: Carried) -> Self {
        match carried {
            Carried::Http => Self::Http,
            Carried::Tcp => Self::Tcp,
            Carried::WebSocket => Self::Websocket,
        }
    }
}

/// What an edge carries.
fn carried(value: i32) -> Result<Carried, ConvertError> {
    match wire::Carried::try_from(value) {
        Ok(wire::Carried::Http) => Ok(Carried::Http),
        Ok(wire::Carried::Tcp) => Ok(Carried::Tcp),
        Ok(wire::Carried::Websocket) => Ok(Carried::WebSocket),
        Err(_) => Err(ConvertError::Unknown { field: "what an edge carries", value }),
    }
}

impl From<&(u32, Edge)> for wire::EdgeName {
    fn from((number, edge): &(u32, Edge)) -> Self {
        Self {
            edge: *number,
            inbound: edge.way == Way::Inbound,
            carried: wire::Carried::from(edge.carried).into(),
            host: within(&edge.host, LONGEST_NAME),
            port: edge.port.into(),
            route: within(&edge.route, LONGEST_NAME),
            subset: within(&edge.subset, LONGEST_NAME),
            backend: within(&edge.backend, LONGEST_NAME),
            mtls: edge.mtls,
            client: edge.client.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl TryFrom<wire::EdgeName> for (u32, Edge) {
    type Error = ConvertError;

    fn try_from(name: wire::EdgeName) -> Result<Self, ConvertError> {
        let named = |text_of| text("length of a name of an edge", text_of, LONGEST_NAME);
        let client = match name.client.as_str() {
            "" => None,
            client => Some(parse("client of an edge", client)?),
        };
        let edge = Edge {
            way: if name.inbound { Way::Inbound } else { Way::Outbound },
            carried: carried(name.carried)?,
            host: named(name.host)?,
            port: if name.port == 0 { 0 } else { port("port of an edge", name.port)? },
            route: named(name.route)?,
            subset: named(name.subset)?,
            backend: named(name.backend)?,
            // Mutual TLS is what proves who a client is: there is not one without the other.
            mtls: name.mtls && (!name.inbound || client.is_some()),
            client: client.filter(|_| name.mtls),
        };
        Ok((number(name.edge)?, edge))
    }
}

impl From<&(u32, Counts)> for wire::EdgeCounts {
    fn from((number, counts): &(u32, Counts)) -> Self {
        let outcome = |OutcomeCount { outcome, count }: &OutcomeCount| wire::EdgeOutcome {
            status: outcome.status.unwrap_or_default().into(),
            grpc_status: outcome.grpc_status.map(Into::into),
            reason: outcome
                .reason
                .as_deref()
                .map(|reason| within(reason, LONGEST_REASON))
                .unwrap_or_default(),
            count: *count,
        };
        let buckets = counts.latencies.buckets();
        let mut before = 0;
        let step = |(bucket, _): &(u8, u64)| u32::from(bucket - std::mem::replace(&mut before, *bucket));
        Self {
            edge: *number,
            connections: counts.connections,
            outcomes: counts.outcomes.iter().take(MOST_OUTCOMES).map(outcome).collect(),
            latency_steps: buckets.iter().map(step).collect(),
            latency_counts: buckets.iter().map(|(_, count)| *count).collect(),
            latency_micros: counts.latencies.micros(),
            received: counts.received,
            sent: counts.sent,
        }
    }
}

impl TryFrom<wire::EdgeCounts> for (u32, Counts) {
    type Error = ConvertError;

    fn try_from(told: wire::EdgeCounts) -> Result<Self, ConvertError> {
        at_most("number of an edge's outcomes", told.outcomes.len(), MOST_OUTCOMES)?;
        at_most("number of an edge's latencies", told.latency_steps.len(), BUCKETS)?;
        let mut counts = Counts {
            connections: plausible(told.connections),
            received: plausible_bytes(told.received),
            sent: plausible_bytes(told.sent),
            ..Counts::default()
        };
        for outcome in told.outcomes {
            let count = plausible(outcome.count);
            counts.ended(&outcome.try_into()?, count);
        }
        let mut bucket = 0_usize;
        for (step, count) in told.latency_steps.into_iter().zip(told.latency_counts) {
            bucket = bucket.saturating_add(step as usize);
            at_most("bucket of a latency", bucket, BUCKETS - 1)?;
            counts.latencies.note(u8::try_from(bucket).unwrap_or(u8::MAX), plausible(count));
        }
        counts.latencies.took(plausible_bytes(told.latency_micros));
        Ok((number(told.edge)?, counts))
    }
}

impl TryFrom<wire::EdgeOutcome> for Outcome {
    type Error = ConvertError;

    fn try_from(outcome: wire::EdgeOutcome) -> Result<Self, ConvertError> {
        let field = "status of an outcome";
        at_most(field, outcome.status as usize, 1023)?;
        let grpc = outcome.grpc_status;
        at_most("gRPC status of an outcome", grpc.unwrap_or_default() as usize, 16)?;
        let reason = text("length of an outcome's reason", outcome.reason, LONGEST_REASON)?;
        Ok(Self {
            status: u16::try_from(outcome.status).ok().filter(|status| *status > 0),
            grpc_status: grpc.and_then(|status| u8::try_from(status).ok()),
            reason: (!reason.is_empty()).then_some(reason),
        })
    }
}

impl From<&Out> for wire::OutEndpoint {
    fn from(out: &Out) -> Self {
        Self {
            host: within(&out.backend.service.host, LONGEST_NAME),
            port: out.backend.service.port.into(),
            subset: out
                .backend
                .subset
                .as_deref()
                .map(|subset| within(subset, LONGEST_NAME))
                .unwrap_or_default(),
            address: out.address.to_string(),
            milliseconds: out.left.map(milliseconds),
            why: within(&out.why, LONGEST_WHY),
            last_failure: within(&out.last_failure, LONGEST_WHY),
        }
    }
}

/// The backend that a proxy speaks of.
fn backend(host: String, number: u32, subset: String) -> Result<BackendName, ConvertError> {
    let host = text("length of a host's name", host, LONGEST_NAME)?;
    let subset = text("length of a subset's name", subset, LONGEST_NAME)?;
    let service = ServiceKey { host, port: if number == 0 { 0 } else { port("port of a backend", number)? } };
    Ok(BackendName { service, subset: (!subset.is_empty()).then_some(subset) })
}

impl From<&AtEndpoint> for wire::EndpointAttempts {
    fn from(one: &AtEndpoint) -> Self {
        let BackendName { service, subset } = &one.backend;
        let subset = subset.as_deref().map(|subset| within(subset, LONGEST_NAME));
        Self {
            host: within(&service.host, LONGEST_NAME),
            port: service.port.into(),
            subset: subset.unwrap_or_default(),
            address: one.address.to_string(),
            attempts: one.attempts,
            kinds: one.failures.iter().map(|(kind, _)| *kind as i32).collect(),
            failures: one.failures.iter().map(|(_, count)| *count).collect(),
        }
    }
}

impl TryFrom<wire::EndpointAttempts> for AtEndpoint {
    type Error = ConvertError;

    /// Kinds that this version does not know are one: other.
    fn try_from(one: wire::EndpointAttempts) -> Result<Self, ConvertError> {
        at_most("number of kinds of failures", one.kinds.len(), 4 * FailureKind::ALL.len())?;
        let mut counts = [0_u64; FailureKind::ALL.len()];
        for (number, count) in one.kinds.into_iter().zip(one.failures) {
            let place = usize::try_from(number).ok().filter(|place| *place < counts.len());
            let sum = &mut counts[place.unwrap_or(FailureKind::Other as usize)];
            *sum = sum.saturating_add(plausible(count));
        }
        let failures = FailureKind::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0);
        let mut read = Self {
            backend: backend(one.host, one.port, one.subset)?,
            address: parse("address of an endpoint", &one.address)?,
            attempts: 0,
            failures: failures.collect(),
        };
        // What has failed has begun.
        read.attempts = plausible(one.attempts).max(read.failed());
        Ok(read)
    }
}

impl TryFrom<wire::OutEndpoint> for Out {
    type Error = ConvertError;

    fn try_from(out: wire::OutEndpoint) -> Result<Self, ConvertError> {
        Ok(Self {
            backend: backend(out.host, out.port, out.subset)?,
            address: parse("address of an endpoint", &out.address)?,
            left: out.milliseconds.map(|left| Duration::from_millis(left).min(LONGEST_OUT)),
            why: text("length of why an endpoint is out", out.why, LONGEST_WHY)?,
            last_failure: text("length of an endpoint's last failure", out.last_failure, LONGEST_WHY)?,
        })
    }
}

/// Puts what `told` says into `report`.
pub fn put(told: &Told, report: &mut wire::Report) {
    report.edge_names = told.named.iter().map(Into::into).collect();
    report.edges = told.counts.iter().map(Into::into).collect();
    report.edges_left_out = told.left_out;
    report.out = told
        .out
        .as_ref()
        .map(|list| wire::OutEndpoints { list: list.iter().take(MOST_OUT).map(Into::into).collect() });
    report.attempts = told.at_endpoints.iter().take(MOST_FAILING).map(Into::into).collect();
    report.endpoints_left_out = told.endpoints_left_out;
}

/// What `report` says of traffic, which is taken out of it.
pub(super) fn take(report: &mut wire::Report) -> Result<Told, ConvertError> {
    at_most("number of named edges", report.edge_names.len(), MOST_EDGES)?;
    at_most("number of edges", report.edges.len(), MOST_EDGES)?;
    at_most("number of endpoints with failures", report.attempts.len(), MOST_FAILING)?;
    let out = report.out.take().map(|out| {
        at_most("number of endpoints that are out", out.list.len(), MOST_OUT)?;
        super::all(out.list)
    });
    let is_known = |name: &wire::EdgeName| wire::Carried::try_from(name.carried).is_ok();
    let (known, unknown): (Vec<_>, Vec<_>) =
        std::mem::take(&mut report.edge_names).into_iter().partition(is_known);
    Ok(Told {
        named: super::all(known)?,
        not_understood: unknown.into_iter().map(|name| number(name.edge)).collect::<Result<_, _>>()?,
        counts: super::all(std::mem::take(&mut report.edges))?,
        left_out: plausible(report.edges_left_out),
        out: out.transpose()?,
        at_endpoints: super::all(std::mem::take(&mut report.attempts))?,
        endpoints_left_out: report.endpoints_left_out,
    })
}

#[cfg(test)]
mod tests;
