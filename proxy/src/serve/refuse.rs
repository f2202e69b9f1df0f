//! The first step that may refuse a request: for its head's form or size, or because too much is held already.
//!
//! A refusal is a failure like any other from here on: it is answered, counted and logged as all others are.

use std::{
    future::{Ready, ready},
    rc::Rc,
    task::{Context, Poll},
};

use futures_util::future::Either;
use tower::{Layer, Service, layer::layer_fn};

use super::head;
use crate::{
    budget::Action,
    error::{Reason, Refusal},
    step::{Error, Request, Response, Step},
    worker::Worker,
};

/// The refusal of a request while too many bytes are held.
pub(super) const OVERLOADED: Refusal = Refusal {
    reason: Reason::Overflow,
    what: "this proxy holds as many unread bytes as --buffer-budget allows",
};

/// The step that refuses what is malformed or too large, and everything while `worker` holds too much.
pub fn refuse<S: Step<Request>>(worker: Rc<Worker>) -> impl Layer<S, Service = Refuse<S>> {
    layer_fn(move |inner| Refuse { inner, worker: Rc::clone(&worker) })
}

/// See [`refuse`].
#[derive(Debug, Clone)]
pub struct Refuse<S> {
    inner: S,
    worker: Rc<Worker>,
}

impl<S: Step<Request>> Service<Request> for Refuse<S> {
    type Response = Response;
    type Error = Error;
    type Future = Either<S::Future, Ready<Result<Response, Error>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match refusal(&self.worker, &request) {
            None => Either::Left(self.inner.call(request)),
            Some(Refusal { reason, what }) => Either::Right(ready(Err(Error::new(reason, what)))),
        }
    }
}

/// What is wrong with a request, as far as its stream or its size tells.
fn refusal(worker: &Worker, Request { http, conn, .. }: &Request) -> Option<Refusal> {
    // HTTP/1 alone has one.
    let watch = conn.watch.get();
    if http.method().as_str() == head::REFUSED {
        return Some(watch.and_then(|watch| watch.refusal()).unwrap_or(head::NO_METHOD));
    }
    if worker.budget.is_exhausted() {
        worker.budget.acted(Action::RefusedRequest);
        return Some(OVERLOADED);
    }
    let most = worker.settings.limits.head;
    if http.headers().len() > most.count {
        return Some(head::TOO_MANY_FIELDS);
    }
    // Of HTTP/1 every byte has been counted.
    let is_too_long = watch.is_none() && head::list_size(http) > most.bytes;
    is_too_long.then_some(head::TOO_LONG)
}
