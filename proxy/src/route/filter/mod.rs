//! Filters: what a rule does to its requests before a backend is drawn for them, and to the answers.
//!
//! The order, out and back, is that of [`selvedge_model::filter`]; [`through`] is the one place that keeps it, for a rule
//! and for the one backend that is drawn. A rule without filters costs one look at whether it has any.

mod answer;
mod fault;
mod headers;
mod mirror;

use std::{
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, FutureExt, LocalBoxFuture};
use http::HeaderMap;
use selvedge_model::filter::Crossing;
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    bind::BoundFilters,
    body::Body,
    error::{Failure, Reason},
    step::{AnswerFacts, Error, Matched, Response, Step, Taken},
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

    fn call(&mut self, matched: Matched) -> Self::Future {
        let Some(filters) = &matched.rule.filters else { return Either::Left(self.inner.call(matched)) };
        let filters = Arc::clone(filters);
        let mut inner = self.inner.clone();
        let next = move |matched| inner.call(matched);
        Either::Right(through(Rc::clone(&self.worker), filters, matched, next).boxed_local())
    }
}

/// Takes a request through `filters`, then to what is `next`, and the answer back.
pub(super) async fn through<N, F>(
    worker: Rc<Worker>,
    filters: Arc<BoundFilters>,
    matched: Matched,
    next: N,
) -> Result<Response, Error>
where
    N: FnOnce(Matched) -> F,
    F: Future<Output = Result<Response, Error>>,
{
    let origin = match filters.ready.crossing(matched.http.method(), matched.http.headers()) {
        Crossing::Preflight(headers) => return Ok(answered(&matched, answer::preflight(headers))),
        Crossing::Goes(origin) => origin,
    };
    let mut result = within(&worker, &filters, matched, next).await;
    if let Some(cors) = &filters.ready.cors {
        cors.allow(headers_of(&mut result), origin.as_ref());
    }
    result
}

/// What CORS lets through, takes through the other filters.
async fn within<N, F>(
    worker: &Rc<Worker>,
    filters: &BoundFilters,
    mut matched: Matched,
    next: N,
) -> Result<Response, Error>
where
    N: FnOnce(Matched) -> F,
    F: Future<Output = Result<Response, Error>>,
{
    let ready = &filters.ready;
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

/// That a filter of the rule that `matched` follows cannot be used.
fn unusable(matched: &Matched, why: &str) -> Error {
    failed(matched, Failure::new(Reason::Filter, format!("{}: {why}", matched.rule.name)))
}

/// The headers of an answer, whether it is made already or will be.
fn headers_of(result: &mut Result<Response, Error>) -> &mut HeaderMap {
    match result {
        Ok(response) => response.http.headers_mut(),
        Err(error) => error.facts.headers.get_or_insert_default(),
    }
}
