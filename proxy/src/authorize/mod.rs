//! Whether a request may come in: the model's verdict on its connection, by the policy in force now.
//!
//! Asked for each request and not once for each connection: a connection that a new policy forbids is
//! refused at its next request, and the client is told by which rule. An opaque connection has no next
//! request; so it asks again whenever policy changes, and ends when it is forbidden.
//!
//! Whether a mesh peer is allowed at all is another question than what it may do here: [`revoked`] is its one answer,
//! asked of both directions' connections when they begin, and of all that are open whenever the list changes. Those of
//! a peer that is revoked are closed at once, whatever is in progress on them.

use std::{
    future::{Ready, ready},
    rc::Rc,
    task::{Context, Poll},
};

use futures_util::future::Either;
use selvedge_certs::{tls::Live, verify::Peer};
use selvedge_model::{Holder, Revocation, SpiffeId, Verdict};
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    error::{Failure, Reason},
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
        let failure = refusal(&self.worker, conn.port, conn.identity.as_ref())?;
        tracing::debug!(peer = %conn.peer, identity = ?conn.identity, why = %failure.what, "request refused");
        Some(failure.into())
    }
}

/// Why a client that has proven to be `identity` may not come in to `port`; `None`: it may.
pub(crate) fn refusal(worker: &Worker, port: u16, identity: Option<&SpiffeId>) -> Option<Failure> {
    worker.view.refresh();
    let verdict =
        worker.view.with(|table| table.own.as_ref().map(|own| own.policy.authorize(port, identity)));
    match verdict {
        Some(Verdict::Allow) => None,
        Some(Verdict::Deny { rule, why }) => Some(Failure::new(Reason::Policy, format!("{rule}: {why}"))),
        // Cannot happen after the connection was taken; if it does, nothing is let in.
        None => Some(Failure::new(Reason::Policy, "this workload's policy is not known")),
    }
}

/// Completes when a policy that comes into force later does not let such a client in, and requests are in progress,
/// as `in_progress` says. Without any, the next request is refused, and its client told why.
pub(crate) async fn forbidden_meanwhile(
    worker: &Worker,
    port: u16,
    identity: Option<&SpiffeId>,
    in_progress: impl Fn() -> bool,
) -> Failure {
    let mut changed = worker.view.store().subscribe();
    loop {
        if changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if in_progress()
            && let Some(failure) = refusal(worker, port, identity)
        {
            return failure;
        }
    }
}

/// Completes when a policy, the one in force now or a later one, does not let such a client in.
pub(crate) async fn forbidden(worker: &Worker, port: u16, identity: Option<&SpiffeId>) -> Failure {
    let mut changed = worker.view.store().subscribe();
    loop {
        if let Some(failure) = refusal(worker, port, identity) {
            return failure;
        }
        if changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Why nothing may go to or come from this mesh peer, which is our client or our server; `None`: it may.
pub(crate) fn revoked(live: &Live, holder: Holder<'_>, part: Part) -> Option<Failure> {
    live.revocation(holder).map(|found| refused(part, &found))
}

/// Completes when nothing may go to or come from this mesh peer any longer.
pub(crate) async fn no_longer_allowed(live: &Live, peer: &Peer, part: Part) -> Failure {
    refused(part, &live.revoked(peer).await)
}

/// What a mesh peer is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// It connected to us.
    Client,
    /// We connected to it.
    Server,
}

fn refused(part: Part, found: &Revocation) -> Failure {
    let reason = match part {
        Part::Client => Reason::Policy,
        // Another endpoint of the same service may be who it should be.
        Part::Server => Reason::Identity,
    };
    Failure::new(reason, found.to_string())
}
