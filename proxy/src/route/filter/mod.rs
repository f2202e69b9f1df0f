//! Filters: what a rule does to its requests before a backend is drawn for them, and to the answers.
//!
//! The order, out and back, is that of [`selvedge_model::filter`]; [`through`] is the one place that keeps it, for a rule
//! and for the one backend that is drawn. A rule without filters costs one look at whether it has any.

mod answer;
mod credentials;
mod fault;
mod headers;
mod mirror;

use std::{
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, FutureExt, LocalBoxFuture, ready};
use selvedge_model::filter::Crossing;
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    bind::{BoundFilters, BoundLimits},
    body::{Body, body_too_long},
    error::{Failure, Reason},
    limit::{self, Added, Asking},
    step::{AnswerFacts, Error, Matched, Response, Step, Taken, headers_of},
    worker::Worker,
};

/// The step that applies the filters of a rule.
pub fn filter<S: Step<Matched>>(worker: Rc<Worker>) -> impl Layer<S, Service = Filter<S>> {
    layer_fn(move |inner| Filter { worker: Rc::clone(&worker), inner })
}

/// See [`filter`].
#[derive(Debug, Clone)]
pub struct Filter<S> {
    worker: Rc<Worker>,
    inner: S,
}

impl<S: Step<Matched>> Service<Matched> for Filter<S> {
    type Response = Response;
    type Error = Error;
    type Future = Either<S::Future, LocalBoxFuture<'static, Result<Response, Error>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut matched: Matched) -> Self::Future {
        let Some(filters) = &matched.rule.filters else {
            // What holds for the gateway as a whole; nothing does for a sidecar.
            return match limit_body(&mut matched, self.worker.settings.max_body) {
                Ok(()) => Either::Left(self.inner.call(matched)),
                Err(error) => Either::Right(ready(Err(error)).boxed_local()),
            };
        };
        let filters = Arc::clone(filters);
        let most = filters.ready.max_body.unwrap_or(self.worker.settings.max_body);
        let mut inner = self.inner.clone();
        let next = move |matched| inner.call(matched);
        Either::Right(through(Rc::clone(&self.worker), filters, most, matched, next).boxed_local())
    }
}

/// Takes a request, whose body may have `most` bytes, through `filters`, then to what is `next`, and the answer back.
pub(super) async fn through<N, F>(
    worker: Rc<Worker>,
    filters: Arc<BoundFilters>,
    most: u64,
    mut matched: Matched,
    next: N,
) -> Result<Response, Error>
where
    N: FnOnce(Matched) -> F,
    F: Future<Output = Result<Response, Error>>,
{
    let address = matched.conn.client_address(&matched.http);
    if !filters.ready.may_ask(address) {
        let what = format!("{} does not answer {}", matched.rule.name, address.to_canonical());
        return Err(failed(&matched, Failure::new(Reason::Policy, what)));
    }
    let mut added = Added::default();
    if let Some(limits) = &filters.limits {
        let (port, conn, http) = (matched.rule.service.port, &matched.conn, &matched.http);
        let taken = limit::take(&worker, limits, port, conn, http, matched.at);
        // What a route refuses uses up nothing of what its gateway lets in.
        let refused = |error, matched: &Matched| {
            limit::give_back(&worker, &matched.conn, &matched.http);
            at_rule(matched, error)
        };
        let left = taken.map_err(|error| refused(error, &matched))?;
        if !limits.globals.is_empty() {
            // Boxed, so that rules that ask nobody carry nothing for it.
            let asked = Box::pin(ask(&worker, limits, &mut matched)).await;
            added = asked.map_err(|error| refused(error, &matched))?;
        }
        added.note(left);
    }
    let origin = match filters.ready.crossing(matched.http.method(), matched.http.headers()) {
        Crossing::Preflight(headers) => {
            let mut answer = Ok(answered(&matched, answer::preflight(headers)));
            added.to(&mut answer);
            return answer;
        }
        Crossing::Goes(origin) => origin,
    };
    let asked = match &filters.basic {
        // Boxed, so that rules that ask for no password carry nothing for it.
        Some(basic) => Box::pin(credentials::judge(&worker, basic, address, &mut matched)).await,
        None => Ok(()),
    };
    let mut result = match asked {
        Ok(()) => within(&worker, &filters, most, matched, next).await,
        Err(error) => Err(error),
    };
    if let Some(cors) = &filters.ready.cors {
        cors.allow(headers_of(&mut result), origin.as_ref());
    }
    added.to(&mut result);
    result
}

/// Asks the servers of `limits` about `matched`.
async fn ask(worker: &Rc<Worker>, limits: &BoundLimits, matched: &mut Matched) -> Result<Added, Error> {
    let (rule, conn) = (&matched.rule, &matched.conn);
    let asking = Asking { worker, limits, port: rule.service.port, conn, route: Some(&rule.name) };
    asking.ask(&mut matched.http).await
}

/// What CORS lets through, takes through the other filters.
async fn within<N, F>(
    worker: &Rc<Worker>,
    filters: &BoundFilters,
    most: u64,
    mut matched: Matched,
    next: N,
) -> Result<Response, Error>
where
    N: FnOnce(Matched) -> F,
    F: Future<Output = Result<Response, Error>>,
{
    let ready = &filters.ready;
    limit_body(&mut matched, most)?;
    fault::inject(worker, ready, &mut matched).await?;
    if let Some(own) = &ready.answer {
        let mut answer = answer::give(worker, ready, own, &matched)?;
        headers::said(&ready.response_headers, &matched).apply(answer.headers_mut());
        return Ok(answered(&matched, answer));
    }
    headers::change_request(&ready.request_headers, &mut matched);
    rewrite(filters, &mut matched)?;
    mirror::mirror(worker, filters, &mut matched);
    if ready.response_headers.changes.is_empty() {
        return next(matched).await;
    }
    let changes = headers::said(&ready.response_headers, &matched);
    let mut response = next(matched).await?;
    changes.apply(response.http.headers_mut());
    Ok(response)
}

/// Lets the body of `matched` have at most `most` bytes; 0: any number.
///
/// # Errors
/// If it says that it has more.
fn limit_body(matched: &mut Matched, most: u64) -> Result<(), Error> {
    if most == 0 || matched.http.body_mut().limit(most) {
        return Ok(());
    }
    Err(failed(matched, body_too_long(most)))
}

/// Rewrites what `filters` say.
///
/// # Errors
/// If the outcome cannot be sent.
fn rewrite(filters: &BoundFilters, matched: &mut Matched) -> Result<(), Error> {
    let of_rule = matched.rule.filters.as_deref().filter(|of_rule| !std::ptr::eq(*of_rule, filters));
    let before = of_rule.map(|of_rule| &of_rule.ready);
    let place = matched.place.map(usize::from);
    filters.ready.rewrite(&mut matched.http, place, before).map_err(|why| unusable(matched, why))
}

/// `http` as the answer to `matched`, which no backend was drawn for.
fn answered(matched: &Matched, http: http::Response<Body>) -> Response {
    let route = Some(Taken::Rule(Arc::clone(&matched.rule)));
    Response { http: Box::new(http), facts: AnswerFacts { route, ..AnswerFacts::default() } }
}

/// The failure of `matched` at its own rule.
fn failed(matched: &Matched, failure: Failure) -> Error {
    Error::at_rule(Arc::clone(&matched.rule), failure)
}

/// `error` at the rule of `matched`.
fn at_rule(matched: &Matched, mut error: Error) -> Error {
    error.facts.route = Some(Taken::Rule(Arc::clone(&matched.rule)));
    error
}

/// That a filter of the rule that `matched` follows cannot be used.
fn unusable(matched: &Matched, why: &str) -> Error {
    failed(matched, Failure::new(Reason::Filter, format!("{}: {why}", matched.rule.name)))
}
