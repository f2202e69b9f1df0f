//! Filters: what a rule does to its requests before a backend is drawn for them, and to the answers.
//!
//! The order, out and back, is that of [`selvedge_model::filter`]; [`through`] is the one place that keeps it, for a rule
//! and for the one backend that is drawn. A rule without filters costs one look at whether it has any.

mod answer;
mod cors;
mod fault;
mod headers;
mod mirror;
mod rewrite;

use std::{
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, FutureExt, LocalBoxFuture};
use http::HeaderMap;
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
    let origin = match cors::judge(&filters, &matched.http) {
        cors::Judged::Preflight(headers) => return Ok(answered(&matched, answer::preflight(headers))),
        cors::Judged::Goes(origin) => origin,
    };
    let mut result = within(&worker, &filters, matched, next).await;
    if let Some(cors) = &filters.cors {
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
    fault::inject(worker, filters, &mut matched).await?;
    if let Some(own) = &filters.answer {
        let mut answer = answer::give(worker, filters, own, &matched)?;
        headers::prepared(&filters.response_headers, &matched).make(answer.headers_mut());
        return Ok(answered(&matched, answer));
    }
    headers::change_request(&filters.request_headers, &mut matched);
    rewrite::rewrite(filters, &mut matched)?;
    mirror::mirror(worker, filters, &mut matched);
    if filters.response_headers.changes.is_empty() {
        return next(matched).await;
    }
    let changes = headers::prepared(&filters.response_headers, &matched);
    let mut response = next(matched).await?;
    changes.make(response.http.headers_mut());
    Ok(response)
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
