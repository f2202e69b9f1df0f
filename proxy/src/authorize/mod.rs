//! Whether a request may come in: the model's verdict on its connection, by the policy in force now.
//!
//! Asked for each request and not once for each connection: a connection that a new policy forbids is
//! refused at its next request, and the client is told by which rule.

use std::{
    future::{Ready, ready},
    rc::Rc,
    task::{Context, Poll},
};

use futures_util::future::Either;
use selvedge_model::Verdict;
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    error::Reason,
    step::{Error, Request, Response, Step},
    worker::Worker,
};

/// The step that refuses what policy does not let in.
pub fn authorize<S: Step<Request>>(worker: Rc<Worker>) -> impl Layer<S, Service = Authorize<S>> {
    layer_fn(move |inner| Authorize { inner, worker: Rc::clone(&worker) })
}

/// See [`authorize`].
#[derive(Debug, Clone)]
pub struct Authorize<S> {
    inner: S,
    worker: Rc<Worker>,
}

impl<S: Step<Request>> Service<Request> for Authorize<S> {
    type Response = Response;
    type Error = Error;
    type Future = Either<S::Future, Ready<Result<Response, Error>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.refusal(&request) {
            None => Either::Left(self.inner.call(request)),
            Some(error) => Either::Right(ready(Err(error))),
        }
    }
}

impl<S> Authorize<S> {
    fn refusal(&self, request: &Request) -> Option<Error> {
        let conn = &request.conn;
        self.worker.view.refresh();
        let verdict = self.worker.view.with(|table| {
            table.own.as_ref().map(|own| own.policy.authorize(conn.port, conn.identity.as_ref()))
        });
        match verdict {
            Some(Verdict::Allow) => None,
            Some(Verdict::Deny { rule, why }) => {
                tracing::debug!(peer = %conn.peer, identity = ?conn.identity, %rule, why, "request refused");
                Some(Error::new(Reason::Policy, format!("{rule}: {why}")))
            }
            // Cannot happen after the connection was taken; if it does, nothing is let in.
            None => Some(Error::new(Reason::Policy, "this workload's policy is not known")),
        }
    }
}
