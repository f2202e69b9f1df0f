//! The time limit of a whole request: all attempts, and the answer to its last byte.
//!
//! A route without one (the default) costs nothing; one with it costs one timer, which moves from the
//! waiting for headers into the body.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    error::Reason,
    step::{Error, Facts, Response, Routed, Step, Taken},
};

/// The step that ends a request when its route's time is over.
pub fn timeout<S: Step<Routed>>() -> impl Layer<S, Service = Timeout<S>> {
    layer_fn(|inner| Timeout { inner })
}

/// See [`timeout`].
#[derive(Debug, Clone)]
pub struct Timeout<S> {
    inner: S,
}

impl<S: Step<Routed>> Service<Routed> for Timeout<S> {
    type Response = Response;
    type Error = Error;
    type Future = Limited<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, routed: Routed) -> Self::Future {
        let limit = routed.deadline.map(|deadline| Limit {
            sleep: Box::pin(tokio::time::sleep_until(deadline.into())),
            facts: Facts {
                route: Some(Taken { bound: routed.bound.clone(), rule: Some((routed.rule, routed.place)) }),
                reason: Some(Reason::Timeout),
                ..Facts::default()
            },
        });
        Limited { inner: self.inner.call(routed), limit }
    }
}

#[derive(Debug)]
struct Limit {
    sleep: Pin<Box<Sleep>>,
    facts: Facts,
}

pin_project! {
    /// The answer of [`Timeout`].
    #[derive(Debug)]
    pub struct Limited<F> {
        #[pin]
        inner: F,
        limit: Option<Limit>,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Limited<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(result) = this.inner.poll(cx) {
            return Poll::Ready(result.map(|mut response| {
                if let Some(limit) = this.limit.take() {
                    response.http.body_mut().limit(limit.sleep);
                }
                response
            }));
        }
        if let Some(limit) = this.limit
            && limit.sleep.as_mut().poll(cx).is_ready()
        {
            let facts = std::mem::take(&mut limit.facts);
            let mut error = Error::new(Reason::Timeout, over(&facts));
            error.facts = Box::new(facts);
            return Poll::Ready(Err(error));
        }
        Poll::Pending
    }
}

fn over(facts: &Facts) -> String {
    match &facts.route {
        Some(Taken { bound, rule: Some((rule, _)) }) => {
            let rule = &bound.routes.rules()[*rule];
            format!("no answer within {:?}, the timeout of {}", rule.timeout.unwrap_or_default(), rule.name)
        }
        _ => "no answer within the route's timeout".to_owned(),
    }
}
