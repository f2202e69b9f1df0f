//! `Matched` becomes [`Routed`]: one of the rule's shares is drawn by weight, once for all attempts, and goes through
//! the filters that it alone has.

use std::{
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, FutureExt, LocalBoxFuture, ready};
use tower::{Layer, Service, layer::layer_fn};

use super::{filter, timeout::deadline};
use crate::{
    bind::{BoundRule, BoundShare},
    dispatch::session,
    error::{Failure, Reason},
    step::{Error, Matched, Response, Routed, Step, Taken},
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
    type Future = Either<S::Future, LocalBoxFuture<'static, Result<Response, Error>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut matched: Matched) -> Self::Future {
        let of_session = of_session(&mut matched);
        let draw = || BoundShare::draw(&matched.rule.shares, &mut self.worker.rng.borrow_mut()).cloned();
        let Some(share) = of_session.or_else(draw) else {
            return Either::Right(ready(Err(nothing_to_draw(matched.rule))).boxed_local());
        };
        match share.filters.clone() {
            None => match routed(matched, share) {
                Ok(routed) => Either::Left(self.inner.call(routed)),
                Err(error) => Either::Right(ready(Err(error)).boxed_local()),
            },
            Some(filters) => {
                let mut inner = self.inner.clone();
                let most = filters.ready.max_body.unwrap_or_default();
                let next = move |matched| async move { inner.call(routed(matched, share)?).await };
                Either::Right(
                    filter::through(Rc::clone(&self.worker), filters, most, matched, next).boxed_local(),
                )
            }
        }
    }
}

/// The share that the session of `matched` belongs to, unless nothing may go there any more.
fn of_session(matched: &mut Matched) -> Option<Arc<BoundShare>> {
    let shares = &matched.rule.shares;
    let bound = matched.rule.session.as_deref().filter(|_| shares.len() > 1)?;
    let session = session::first(bound, &mut matched.http)?;
    shares.iter().find(|share| share.weight > 0 && session.is_with(&share.backend)).cloned()
}

/// `matched` on its way to `share`.
fn routed(matched: Matched, share: Arc<BoundShare>) -> Result<Routed, Error> {
    if let Some(broken) = &share.backend.broken {
        let what = format!("{} cannot be used: {broken}", share.backend.name);
        let failure = Failure::new(Reason::NoBackend, what).with_status(matched.rule.unusable_status);
        let mut error = Error::from(failure);
        error.facts.route = Some(Taken::Share(share));
        return Err(error);
    }
    let deadline = deadline(&matched);
    let Matched { http, conn, at, rule, .. } = matched;
    Ok(Routed { http, conn, at, rule, share, deadline })
}

fn nothing_to_draw(rule: Arc<BoundRule>) -> Error {
    let what = match rule.shares.len() {
        0 => format!("{} has no backend", rule.name),
        _ => format!("the weights of {} sum to nothing", rule.name),
    };
    let failure = Failure::new(Reason::NoBackend, what).with_status(rule.unusable_status);
    Error::at_rule(rule, failure)
}
