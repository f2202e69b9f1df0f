//! The time limit of a whole request: all attempts, and the answer to its last byte.
//!
//! A request without one (the default) costs nothing; one with it costs a place among the worker's
//! deadlines, which moves from the waiting for headers into the body.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use pin_project_lite::pin_project;
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    bind::BoundRule,
    body,
    dispatch::of_caller,
    error::Reason,
    fields::is_grpc,
    step::{AnswerFacts, Error, Matched, Response, Routed, Step, Taken},
    worker::Worker,
};

/// The step that ends a request when its route's time is over.
pub fn timeout<S: Step<Routed>>(worker: Rc<Worker>) -> impl Layer<S, Service = Timeout<S>> {
    layer_fn(move |inner| Timeout { inner, worker: Rc::clone(&worker) })
}

/// See [`timeout`].
#[derive(Debug, Clone)]
pub struct Timeout<S> {
    inner: S,
    worker: Rc<Worker>,
}

impl<S: Step<Routed>> Service<Routed> for Timeout<S> {
    type Response = Response;
    type Error = Error;
    type Future = Limited<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, routed: Routed) -> Self::Future {
        let limit = routed.deadline.map(|deadline| RouteLimit {
            time: body::TimeLimit {
                deadline: self.worker.deadlines.at(deadline),
                grpc: is_grpc(routed.http.headers()),
            },
            of_caller: of_caller(routed.conn.version, routed.http.headers()),
            rule: Arc::clone(&routed.rule),
            facts: AnswerFacts {
                route: Some(Taken::Share(Arc::clone(&routed.share))),
                reason: Some(Reason::Timeout),
                ..AnswerFacts::default()
            },
            worker: Rc::clone(&self.worker),
        });
        Limited { inner: Some(self.inner.call(routed)), limit }
    }
}

/// When a request that begins its way at `at` must have been answered: by the rule's timeout, or by the caller's if that
/// is shorter.
pub(super) fn deadline(Matched { http, conn, at, rule, .. }: &Matched) -> Option<Instant> {
    let of_caller = of_caller(conn.version, http.headers());
    let shorter = rule.timeout.into_iter().chain(of_caller).min();
    shorter.map(|timeout| *at + timeout)
}

#[derive(Debug)]
struct RouteLimit {
    time: body::TimeLimit,
    /// What the caller gave, if it is a gRPC caller that gave any.
    of_caller: Option<Duration>,
    rule: Arc<BoundRule>,
    facts: AnswerFacts,
    worker: Rc<Worker>,
}

impl RouteLimit {
    /// Whether `error` is this limit's.
    fn is_over(&self, error: &Error) -> bool {
        error.failure.reason == Reason::Timeout && self.time.deadline.is_over(Instant::now())
    }

    fn over(&self) -> String {
        let rule = &self.rule;
        match (rule.timeout, self.of_caller) {
            (of_rule, Some(limit)) if of_rule.is_none_or(|of_rule| limit < of_rule) => {
                format!("no answer within {limit:?}, the caller's own grpc-timeout")
            }
            (limit, _) => {
                format!("no answer within {:?}, the timeout of {}", limit.unwrap_or_default(), rule.name)
            }
        }
    }
}

pin_project! {
    /// The answer of [`Timeout`].
    #[derive(Debug)]
    pub struct Limited<F> {
        // `None`: it was given up.
        #[pin]
        inner: Option<F>,
        limit: Option<RouteLimit>,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Limited<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Pending };
        if let Poll::Ready(result) = inner.poll(cx) {
            return Poll::Ready(match (result, this.limit.take()) {
                (Ok(mut response), Some(limit)) => {
                    let body = response.http.body_mut();
                    if !body.is_empty() {
                        body.end().limit = Some(limit.time);
                    }
                    Ok(response)
                }
                // The last attempt had no longer than all together, and was first to notice.
                (Err(mut error), Some(limit)) if limit.is_over(&error) => {
                    error.failure.what = limit.over().into();
                    Err(error)
                }
                (result, _) => result,
            });
        }
        if let Some(limit) = this.limit
            && Pin::new(&mut limit.time.deadline).poll(cx).is_ready()
        {
            let mut error = Error::new(Reason::Timeout, limit.over());
            // Given up now, so that it says whose answer it was waiting for.
            limit.worker.late.take();
            this.inner.set(None);
            limit.facts.endpoint = limit.worker.late.take();
            error.facts = Box::new(std::mem::take(&mut limit.facts));
            return Poll::Ready(Err(error));
        }
        Poll::Pending
    }
}
