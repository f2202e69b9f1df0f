//! Mirrors: backends that get copies of requests, and whose answers nobody sees.
//!
//! A copy is the request as it is after the rule's changes, with the `Host` that it has (as Istio sends it; Envoy alone
//! would append `-shadow`). It is one attempt of its own, through balancing and mutual TLS. The request never waits for
//! it: of its body a copy may be [`COPY_LIMIT`](crate::body::COPY_LIMIT) bytes behind, and with one backend
//! [`MAX_COPIES`](crate::balance::MAX_COPIES) may be in progress. What is beyond is dropped and counted.
//!
//! What becomes of WebSockets is not copied: whoever gets a copy could only be sent one half of what is said.

use std::{
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{Either, select};
use http_body_util::BodyExt;

use crate::{
    arrival::Arrival,
    balance::Copying,
    bind::{BoundFilters, BoundMirror, BoundShare},
    body::{Body, CopyWatch, Ending, reason_of},
    dispatch::{Attempt, Attempting, Beside, Tried, dispatch, is_endpoints_fault},
    error::Reason,
    fields::grpc_status,
    route::timeout::deadline,
    step::{Conn, Matched, Outbound, Response, Side},
    telemetry::{Dropped, trace},
    worker::Worker,
};

/// How long a copy may take once its request has been read to its end, where its route has no timeout: what Envoy gives
/// a route that says nothing.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of an answer to a copy that are read, so that its connection can be used again. A longer one is cut off.
const ANSWER_LIMIT: usize = 1 << 20;

/// Sends copies of `matched` to those mirrors that are drawn for it.
pub(super) fn mirror(worker: &Rc<Worker>, filters: &BoundFilters, matched: &mut Matched) {
    if matched.http.body().is_web_socket() {
        return;
    }
    for BoundMirror { share, fraction } in &filters.mirrors {
        if fraction.draw(&mut worker.rng.borrow_mut()) {
            match Mirrored::of(worker, share, matched) {
                Ok(copy) => drop(tokio::task::spawn_local(copy.carry())),
                Err(why) => dropped(worker, share, why),
            }
        }
    }
}

/// How a copy ended: the answer's status and gRPC's, whether mutual TLS carried it, and the reason for a failure.
#[derive(Debug, Default)]
struct Outcome {
    status: Option<u16>,
    grpc_status: Option<u8>,
    mtls: bool,
    reason: Option<Reason>,
}

/// A copy of a request on its way.
struct Mirrored {
    worker: Rc<Worker>,
    share: Arc<BoundShare>,
    http: Box<http::Request<Body>>,
    /// What says how the request goes on that it is a copy of.
    watch: Option<CopyWatch>,
    conn: Conn,
    began: Instant,
    /// When it must have been answered, if its route or its caller says so.
    deadline: Option<Instant>,
    /// Whether it is the endpoint's fault if it is not.
    blames: bool,
    _place: Copying,
}

impl Mirrored {
    fn of(worker: &Rc<Worker>, share: &Arc<BoundShare>, matched: &mut Matched) -> Result<Self, Dropped> {
        let backend = &share.backend;
        if backend.broken.is_some() {
            return Err(Dropped::Unusable);
        }
        if worker.budget.is_exhausted() {
            return Err(Dropped::BufferBudget);
        }
        let place = backend.counts.copy().ok_or(Dropped::TooMany)?;
        let deadline = deadline(matched);
        let blames = is_endpoints_fault(&matched.conn, &matched.http);
        let (body, watch) = matched.http.body_mut().copy(&worker.budget);
        let mut http = Box::new(http::Request::new(body));
        *http.method_mut() = matched.http.method().clone();
        *http.uri_mut() = matched.http.uri().clone();
        *http.version_mut() = matched.http.version();
        *http.headers_mut() = matched.http.headers().clone();
        *http.extensions_mut() = matched.http.extensions().clone();
        trace::forget(&mut http);
        // Nothing of what comes back may reach the client.
        let arrival = Arrival { peer: matched.conn.peer, via: None, original: None, upstream: None };
        Ok(Self {
            worker: Rc::clone(worker),
            share: Arc::clone(share),
            http,
            watch,
            conn: Conn::new(arrival, matched.conn.version, Side::Outbound(Outbound::default())),
            began: matched.at,
            deadline,
            blames,
            _place: place,
        })
    }

    /// Sends it, throws the answer away, and counts it.
    async fn carry(self) {
        let Self { worker, share, http, watch, conn, began, deadline, blames, _place } = self;
        let tried = Tried::default();
        let attempt = Attempt {
            beside: Beside::Nothing,
            conn: &conn,
            share: &share,
            tried: &tried,
            at: began,
            until: None,
            progress: None,
            deadline,
            fresh: false,
            blames,
        };
        let step = dispatch(Rc::clone(&worker));
        let sent = pin!(async { answered(step.attempt(http, &attempt).await).await });
        let over = pin!(over(&worker, watch.as_ref(), deadline));
        // First why it is over: a body that breaks off for that fails the sending too.
        let outcome = match select(over, sent).await {
            Either::Left((Over::Failed(reason), _)) => Outcome { reason: Some(reason), ..Outcome::default() },
            Either::Left((Over::Dropped(why), _)) => return dropped(&worker, &share, why),
            Either::Right((outcome, _)) => outcome,
        };
        let Outcome { status, grpc_status, mtls, reason } = outcome;
        share.series.of(mtls).record(worker.index, status, grpc_status, reason, began.elapsed());
        tracing::debug!(backend = %share.backend.name, ?status, reason = reason.map(Reason::word), "a copy has ended");
    }
}

/// Why a copy is waited for no longer.
enum Over {
    Failed(Reason),
    Dropped(Dropped),
}

/// When and why that is.
async fn over(worker: &Worker, watch: Option<&CopyWatch>, deadline: Option<Instant>) -> Over {
    if let Some(watch) = watch {
        let ended = pin!(watch.ended());
        match worker.deadlines.within(deadline, ended).await {
            None => return Over::Failed(Reason::Timeout),
            Some(Ending::Broken) => return Over::Failed(Reason::Canceled),
            Some(Ending::Dropped(why)) => return Over::Dropped(why),
            Some(Ending::Whole) => {}
        }
    }
    worker.deadlines.at(deadline.unwrap_or_else(|| Instant::now() + TIMEOUT)).await;
    Over::Failed(Reason::Timeout)
}

/// How a copy ended that was answered with `result`, whose body is thrown away.
async fn answered(result: Result<Response, crate::step::Error>) -> Outcome {
    let Response { http, facts } = match result {
        Ok(response) => response,
        Err(error) => return Outcome { reason: Some(error.failure.reason), ..Outcome::default() },
    };
    let mtls = facts.endpoint.as_ref().is_some_and(|endpoint| endpoint.target.identity.is_some());
    let (head, mut body) = http.into_parts();
    let mut outcome = Outcome {
        status: Some(head.status.as_u16()),
        grpc_status: grpc_status(&head.headers),
        mtls,
        reason: facts.reason,
    };
    let mut read = 0;
    while read < ANSWER_LIMIT {
        match body.frame().await {
            None => break,
            Some(Err(error)) => {
                outcome.reason = outcome.reason.or(Some(reason_of(&error)));
                break;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => read += data.len(),
                Err(frame) => {
                    let of_trailers = frame.trailers_ref().and_then(grpc_status);
                    outcome.grpc_status = of_trailers.or(outcome.grpc_status);
                }
            },
        }
    }
    outcome
}

fn dropped(worker: &Worker, share: &BoundShare, why: Dropped) {
    worker.metrics.mirror_dropped(&share.backend.name, why, worker.index);
    tracing::debug!(backend = %share.backend.name, why = why.word(), "a copy was dropped");
}
