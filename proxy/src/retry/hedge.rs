//! A request at two endpoints: the second is asked when the first takes longer than most answers do.
//!
//! The first good answer counts. The other attempt is dropped, which resets its stream, or closes its connection.

use std::{
    cell::OnceCell,
    pin::pin,
    time::{Duration, Instant},
};

use crate::{
    balance::Hedging,
    body::Body,
    dispatch::{Attempt, Attempting, Beside, Tried},
    fields::grpc_status,
    step::{Error, Response},
};

/// The result of `first`, or of an attempt at another endpoint that begins if `first` has not ended after the time that
/// `hedging` says, and if `again` then gives the request another time.
pub(super) async fn attempt<S: Attempting>(
    inner: &S,
    http: Box<http::Request<Body>>,
    first: &Attempt<'_>,
    hedging: &Hedging,
    again: impl FnOnce(Instant) -> Option<Box<http::Request<Body>>>,
) -> Result<Response, Error> {
    let backend = &first.share.backend;
    let (picked, after) = (OnceCell::new(), hedging.after());
    let says = Attempt { beside: Beside::Says(&picked), ..*first };
    let mut one = pin!(inner.attempt(http, &says));
    let early = match after {
        None => Some(one.as_mut().await),
        Some(after) => tokio::time::timeout_at((first.at + after).into(), one.as_mut()).await.ok(),
    };
    let now = Instant::now();
    let waited = now.saturating_duration_since(first.at);
    if let Some(result) = early {
        if is_good(&result) {
            hedging.note(waited);
        }
        return result;
    }
    // It takes longer, however long that will be.
    hedging.note(waited.max(after.unwrap_or_default() + Duration::from_micros(1)));
    let Some(endpoint) = picked.get() else { return one.await };
    let mut tried = Tried::default();
    tried.note(backend, endpoint);
    let Some(http) = again(now) else { return one.await };
    let until = first.until.map(|until| until + waited);
    let second = Attempt { tried: &tried, at: now, until, beside: Beside::Another, ..*first };
    let mut two = pin!(inner.attempt(http, &second));
    tokio::select! {
        result = &mut one => if is_good(&result) { result } else { better(two.await, result) },
        result = &mut two => if is_good(&result) { result } else { one.await },
    }
}

/// The `late` result if it is good, otherwise the one before it.
fn better(late: Result<Response, Error>, before: Result<Response, Error>) -> Result<Response, Error> {
    if is_good(&late) { late } else { before }
}

/// Whether the app has answered, and not with a failure.
fn is_good(result: &Result<Response, Error>) -> bool {
    let Ok(response) = result else { return false };
    response.facts.reason.is_none()
        && !response.http.status().is_server_error()
        && grpc_status(response.http.headers()).is_none_or(|status| status == 0)
}
