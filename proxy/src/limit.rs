//! Refuses requests that are beyond a rate limit, with 429, and those that a server should count and does not, with 500.
//!
//! Limits of workloads are asked by the step [`limit`], after policies have let a request in. Those of a route are asked by
//! the filters of its rules. Where nothing is limited, the step costs one look, and where no server is asked, nothing waits.

mod concurrency;
mod global;
mod server;

use std::{
    future::{Ready, ready},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, FutureExt, LocalBoxFuture};
use http::{HeaderMap, HeaderName, HeaderValue, header::RETRY_AFTER};
use humantime::format_duration;
use selvedge_model::{limit::Asker, policy::Says};
use tower::{Layer, Service, layer::layer_fn};
use tracing::field::display;

pub use self::concurrency::concurrency;
use self::global::refused;
pub(crate) use self::global::{Added, Asking};
use crate::{
    bind::{BoundLimits, Exceeded, Left},
    buckets::Refused,
    error::{Failure, Reason},
    fields::{GRPC_PUSHBACK, is_grpc},
    step::{Conn, Error, Request, Response, Step},
    telemetry::Decision,
    worker::Worker,
};

/// How many requests may come at once. The names are those of Envoy, and of Kong, GitHub and others.
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
/// How many of them are left.
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
/// In how many seconds all are back.
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The step that refuses what is beyond a limit of this workload.
pub fn limit<S: Step<Request>>(worker: Rc<Worker>) -> impl Layer<S, Service = Limited<S>> {
    layer_fn(move |inner| Limited { worker: Rc::clone(&worker), inner })
}

/// See [`limit`].
#[derive(Debug, Clone)]
pub struct Limited<S> {
    worker: Rc<Worker>,
    inner: S,
}

impl<S: Step<Request>> Service<Request> for Limited<S> {
    type Response = Response;
    type Error = Error;
    type Future = Either<
        S::Future,
        Either<LocalBoxFuture<'static, Result<Response, Error>>, Ready<Result<Response, Error>>>,
    >;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let worker = &self.worker;
        let asks = worker.view.with(|table| match &table.limits {
            None => Ok(None),
            Some(limits) => {
                let left = refusal(worker, limits, &request)?;
                let asks = !limits.globals.is_empty();
                Ok((asks || left.is_some()).then(|| (Arc::clone(limits), left)))
            }
        });
        match asks {
            Ok(None) => Either::Left(self.inner.call(request)),
            Ok(Some((limits, left))) => {
                let asked = asked(Rc::clone(worker), limits, left, request, self.inner.clone());
                Either::Right(Either::Left(asked.boxed_local()))
            }
            Err(error) => Either::Right(Either::Right(ready(Err(error)))),
        }
    }
}

/// Asks the servers of `limits` about `request`, if there are any, and lets it go on to what is `next` if they do. The client is
/// told what is `left`.
async fn asked(
    worker: Rc<Worker>,
    limits: Arc<BoundLimits>,
    left: Option<Left>,
    mut request: Request,
    mut next: impl Step<Request>,
) -> Result<Response, Error> {
    let conn = Rc::clone(&request.conn);
    let port = conn.entry().map_or(0, |entry| entry.port);
    let asking = Asking { worker: &worker, limits: &limits, port, conn: &conn, route: None };
    let mut added = asking.ask(&mut request.http).await?;
    added.note(left);
    let mut result = next.call(request).await;
    added.to(&mut result);
    result
}

fn refusal(worker: &Worker, limits: &BoundLimits, request: &Request) -> Result<Option<Left>, Error> {
    let Some(entry) = request.conn.entry() else { return Ok(None) };
    take(worker, limits, entry.port, &request.conn, &request.http, request.at)
}

/// Gives back what `http`, a request on `conn`, has taken of the limits of this workload, and is refused by another.
pub(crate) fn give_back<B>(worker: &Worker, conn: &Conn, http: &http::Request<B>) {
    let Some(entry) = conn.entry() else { return };
    let address = Some(conn.client_address(http));
    let asker = Asker { address, identity: conn.identity(), headers: http.headers(), route: None };
    worker.view.with(|table| {
        if let Some(limits) = &table.limits {
            limits.refused_later(entry.port, asker);
        }
    });
}

/// Takes a token from each of `limits` for a request on `conn` to `port`. Returns what is left that the client is told of.
///
/// # Errors
/// If one has none. The error has the headers that say when to try again.
pub(crate) fn take<B>(
    worker: &Worker,
    limits: &BoundLimits,
    port: u16,
    conn: &Conn,
    http: &http::Request<B>,
    at: std::time::Instant,
) -> Result<Option<Left>, Error> {
    let address = Some(conn.client_address(http));
    let asker = Asker { address, identity: conn.identity(), headers: http.headers(), route: None };
    let dry_run = |exceeded: Exceeded<'_>| report(worker, conn, asker, &exceeded, Says::WouldDeny.into());
    let last = conn.entry().map(|entry| &entry.limited);
    let taken = limits.take(port, asker, last, at, dry_run);
    taken.map_err(|exceeded| {
        report(worker, conn, asker, &exceeded, Decision::Deny);
        error(&exceeded, is_grpc(http.headers()))
    })
}

/// Counts what is beyond a limit; and logs it, once in a while for each client.
fn report(worker: &Worker, conn: &Conn, asker: Asker<'_>, exceeded: &Exceeded<'_>, decision: Decision) {
    let Exceeded { document, quota, by, .. } = exceeded;
    let (peer, identity) = (asker.address.map(display), asker.identity.map(display));
    if let Some(left_out) = counted(worker, document, asker, decision) {
        let port = conn.entry().map(|entry| entry.port);
        let outcome = if decision == Decision::Deny { "refused" } else { "noted" };
        tracing::info!(peer, identity, port, rule = %document, requests = quota.requests, per = %format_duration(quota.per), burst = quota.burst, by = %by, left_out, "{outcome} by rate limit");
    }
}

/// Counts what `document` decides about `asker`. If the log is to say so now: how many lines were left out.
fn counted(worker: &Worker, document: &Arc<str>, asker: Asker<'_>, decision: Decision) -> Option<u64> {
    worker.metrics.policy_decision(document, decision, worker.index);
    let stranger = asker.address.filter(|_| asker.identity.is_none());
    worker.said.says((&**document, asker.identity, stranger, decision), std::time::Instant::now())
}

fn error(exceeded: &Exceeded<'_>, grpc: bool) -> Error {
    let Exceeded { document, quota, by, refused: again } = exceeded;
    let what =
        format!("{document}: more than {} requests in {} ({by})", quota.requests, format_duration(quota.per));
    beyond(&what, quota.burst, again, grpc)
}

/// Says in `headers` what is `left`, unless they say something of the kind already: a limit that is nearer to the app has been
/// asked later.
fn tell(left: Left, headers: &mut HeaderMap) {
    if [LIMIT, REMAINING, RESET].iter().any(|name| headers.contains_key(name)) {
        return;
    }
    headers.insert(LIMIT, HeaderValue::from(left.limit));
    headers.insert(REMAINING, HeaderValue::from(left.remaining));
    if let Some(reset) = left.reset {
        headers.insert(RESET, HeaderValue::from(whole(reset)));
    }
}

/// The answer to a request that is beyond a limit, as `what` says, of so many at once.
pub(crate) fn beyond(what: &str, burst: u32, again: &Refused, grpc: bool) -> Error {
    let retry_after = whole(again.retry_after);
    let what = format!("{what}; try again in {retry_after} s");
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(RETRY_AFTER, HeaderValue::from(retry_after));
    tell(Left { limit: burst, remaining: 0, reset: Some(again.full_after) }, &mut headers);
    if grpc {
        let milliseconds = again.retry_after.as_nanos().div_ceil(1_000_000) as u64;
        headers.insert(GRPC_PUSHBACK, HeaderValue::from(milliseconds));
    }
    refused(Failure::new(Reason::RateLimit, what), headers)
}

/// `time` in whole seconds, at least one.
pub(crate) fn whole(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u64::MAX).max(1)
}
