//! What an attempt's result says about its endpoint.

use std::{fmt, time::Instant};

use selvedge_model::traffic::FailureKind;

use crate::{
    balance::{Ejected, Outcome},
    bind::{BoundBackend, BoundEndpoint, BoundShare},
    body::{Body, Judge},
    error::{Failure, Reason, SELVEDGE_ERROR, SaidBy},
    fields::{get_rare, grpc_status, is_grpc},
    step::{Error, Response},
    telemetry::Metrics,
    worker::Worker,
};

/// The failure that a mesh peer's sidecar says it answered with itself. Of an endpoint without a sidecar nothing
/// of the kind has come this far.
pub(super) fn named_by_peer(response: &http::Response<Body>) -> Option<Reason> {
    get_rare(response.headers(), &SELVEDGE_ERROR).and_then(Reason::from_header)
}

/// What an attempt's result says about its endpoint; `None`: nothing. If it `ejects` endpoints, what gRPC says is looked for, too.
pub(super) fn judge(result: &Result<Response, Error>, ejects: bool) -> Option<Outcome> {
    let (reason, said_by) = match result {
        Ok(response) => (response.facts.reason, SaidBy::Peer),
        Err(error) => (Some(error.failure.reason), SaidBy::Us),
    };
    match (reason, result) {
        (Some(reason), Ok(_)) if reason.blames_endpoint(said_by) => Some(Outcome::GatewayFailure),
        (Some(reason), Err(_)) if reason.blames_endpoint(said_by) => Some(Outcome::NoAnswer),
        (_, Ok(response)) if ejects => Some(of_answer(&response.http)),
        (_, Ok(response)) => Some(Outcome::of_status(response.http.status().as_u16())),
        (_, Err(_)) => None,
    }
}

/// What an answer's head says: its status, and of gRPC that which comes without a message.
fn of_answer(answer: &http::Response<Body>) -> Outcome {
    match Outcome::of_status(answer.status().as_u16()) {
        Outcome::Success => match grpc_status(answer.headers()).filter(|_| is_grpc(answer.headers())) {
            Some(status) => Outcome::of_grpc_status(status),
            None => Outcome::Success,
        },
        failure => failure,
    }
}

/// What an attempt's result was, in words.
pub(super) struct Said<'a>(pub(super) &'a Result<Response, Error>);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let response = match self.0 {
            Ok(response) => response,
            Err(error) => return error.failure.fmt(f),
        };
        // A peer's sidecar names its failure in its own words.
        match get_rare(response.http.headers(), &SELVEDGE_ERROR).and_then(|named| named.to_str().ok()) {
            Some(named) if response.facts.reason.is_some() => f.write_str(named),
            _ => match grpc_status(response.http.headers()) {
                Some(status) => write!(f, "gRPC status {status}"),
                None => write!(f, "HTTP status {}", response.http.status().as_u16()),
            },
        }
    }
}

/// How an attempt ended that counts against its endpoint, in words and as what it is counted.
pub(crate) trait Ending: fmt::Display {
    /// What it is counted as.
    fn kind(&self) -> FailureKind;
}

impl Ending for Failure {
    fn kind(&self) -> FailureKind {
        Self::kind(self)
    }
}

impl Ending for Said<'_> {
    fn kind(&self) -> FailureKind {
        match self.0 {
            Err(error) => error.failure.kind(),
            Ok(response) => match response.facts.reason {
                Some(reason) if reason.blames_endpoint(SaidBy::Peer) => reason.kind(),
                // Its sidecar answers, and not for its app.
                Some(_) => FailureKind::Other,
                None if response.http.status().as_u16() >= 500 => FailureKind::Status5xx,
                None => FailureKind::GrpcStatus,
            },
        }
    }
}

impl Judge for Worker {
    /// As in Envoy, it counts as an attempt without an answer, besides the answer's head.
    fn broke_off(&self, share: &BoundShare, endpoint: &BoundEndpoint, last: &str) {
        endpoint.health.failed(FailureKind::Reset);
        record(self, &share.backend, endpoint, Outcome::NoAnswer, &last);
    }
}

/// Counts for or against an endpoint; `last` says how the attempt ended, should it be ejected for it.
pub(crate) fn count(
    worker: &Worker,
    backend: &BoundBackend,
    endpoint: &BoundEndpoint,
    outcome: Outcome,
    last: &dyn Ending,
) {
    if outcome == Outcome::Success {
        return succeeded(backend, endpoint);
    }
    endpoint.health.failed(last.kind());
    if outcome == Outcome::NoAnswer
        && let Some(name) = &endpoint.dns_name
    {
        name.doubt();
    }
    record(worker, backend, endpoint, outcome, &last);
}

/// Counts against an endpoint, where that is done.
fn record(
    worker: &Worker,
    backend: &BoundBackend,
    endpoint: &BoundEndpoint,
    outcome: Outcome,
    last: &dyn fmt::Display,
) {
    let Some(ejection) = &backend.ejection else { return };
    let ejected = ejection.record(&endpoint.health, outcome, Instant::now(), &mut worker.rng.borrow_mut());
    if let Some(ejected) = ejected {
        announce(&worker.metrics, worker.index, backend, endpoint, &ejected, last);
    }
}

/// Counts for an endpoint.
pub(crate) fn succeeded(backend: &BoundBackend, endpoint: &BoundEndpoint) {
    if let Some(ejection) = &backend.ejection {
        ejection.succeeded(&endpoint.health);
    }
}

/// Says to those who look later, in the metrics of this `worker`, and in the log that an endpoint was `ejected`, and for
/// what at `last`.
pub(crate) fn announce(
    metrics: &Metrics,
    worker: usize,
    backend: &BoundBackend,
    endpoint: &BoundEndpoint,
    ejected: &Ejected,
    last: &dyn fmt::Display,
) {
    endpoint.health.explain(ejected, last.to_string());
    metrics.ejections(&backend.name, worker);
    tracing::warn!(
        backend = %backend.name, endpoint = %endpoint.address, times = ejected.times, why = ejected.why.word(), %last,
        "ejected for {:?}", ejected.time
    );
}
