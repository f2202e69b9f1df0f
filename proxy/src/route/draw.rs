//! [`Matched`] becomes [`Routed`]: one of the rule's shares is drawn by weight, once for all attempts.

use std::{
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use tower::{Layer, Service, layer::layer_fn};

use super::timeout::deadline;
use crate::{
    bind::BoundShare,
    error::{Failure, Reason},
    step::{Error, Matched, Response, Routed, Step},
    worker::Worker,
};

/// The step that draws the backend that a request goes to.
pub fn draw<S: Step<Routed>>(worker: Rc<Worker>) -> impl Layer<S, Service = Draw<S>> {
    layer_fn(move |inner| Draw { worker: Rc::clone(&worker), inner })
}

/// See [`draw`].
#[derive(Debug, Clone)]
pub struct Draw<S> {
    worker: Rc<Worker>,
    inner: S,
}

impl<S: Step<Routed>> Service<Matched> for Draw<S> {
    type Response = Response;
    type Error = Error;
    type Future = Either<S::Future, Ready<Result<Response, Error>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, matched: Matched) -> Self::Future {
        match drawn(matched, &mut self.worker.rng.borrow_mut()) {
            Ok(routed) => Either::Left(self.inner.call(routed)),
            Err(error) => Either::Right(ready(Err(error))),
        }
    }
}

fn drawn(matched: Matched, rng: &mut fastrand::Rng) -> Result<Routed, Error> {
    let deadline = deadline(&matched);
    let Matched { http, conn, at, bound, rule } = matched;
    let Some(share) = BoundShare::draw(&rule.shares, rng).map(Arc::clone) else {
        let what = format!("the weights of {} sum to nothing", rule.name);
        return Err(Error::at(bound, Failure::new(Reason::NoBackend, what)));
    };
    Ok(Routed { http, conn, at, rule, share, deadline })
}
