//! Refuses requests that come while the app has as many in progress as it answers without delay (`--adaptive-concurrency`).

use std::{
    future::{Ready, ready},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use futures_util::future::Either;
use pin_project_lite::pin_project;
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    budget::Unanswered,
    error::Reason,
    step::{Error, Request, Response, Step},
    worker::Worker,
};

/// The step that lets in no more than the app answers without delay.
pub fn concurrency<S: Step<Request>>(worker: Rc<Worker>) -> impl Layer<S, Service = Measured<S>> {
    layer_fn(move |inner| Measured { worker: Rc::clone(&worker), inner })
}

/// See [`concurrency`].
#[derive(Debug, Clone)]
pub struct Measured<S> {
    worker: Rc<Worker>,
    inner: S,
}

impl<S: Step<Request>> Service<Request> for Measured<S> {
    type Response = Response;
    type Error = Error;
    type Future = Either<S::Future, Either<Measuring<S::Future>, Ready<Result<Response, Error>>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Some(concurrency) = &self.worker.concurrency else {
            return Either::Left(self.inner.call(request));
        };
        Either::Right(match concurrency.enter(Instant::now()) {
            Some(entered) => {
                Either::Left(Measuring { inner: self.inner.call(request), entered: Some(entered) })
            }
            None => {
                let most = concurrency.limit();
                let what = format!(
                    "the app has the {most} requests in progress that it answers without delay (--adaptive-concurrency)"
                );
                Either::Right(ready(Err(Error::new(Reason::Concurrency, what))))
            }
        })
    }
}

pin_project! {
    /// The answer of [`Measured`].
    #[derive(Debug)]
    pub struct Measuring<F> {
        #[pin]
        inner: F,
        entered: Option<Unanswered>,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Measuring<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        // What we answer ourselves says nothing about the app.
        if let (Ok(response), Some(entered)) = (&result, this.entered.take())
            && response.facts.reason.is_none()
        {
            entered.answered(Instant::now());
        }
        Poll::Ready(result)
    }
}
