//! `Request` becomes [`Matched`]: its authority names a service, and one of the service's rules matches it.
//!
//! Keep-alive clients ask for the same authority again and again, so each connection remembers its last one. Only
//! another authority, or a newer table, costs a look-up. On a redirected connection to a service's own address, the
//! authority is not looked up at all. An address that the mesh does not know has one rule, which sends everything
//! there. At a gateway the authority names one of its virtual hosts, and never anything else.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::LocalBoxFuture;
use pin_project_lite::pin_project;
use selvedge_model::facts::Connection;
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    arrival::OriginalDestination,
    bind::{Bound, BoundRule, Destination},
    error::{Failure, Reason},
    facts::{self, authority},
    lookup::{self, at_its_address, rules, through},
    step::{Error, LastLookup, Matched, Request, Response, Step},
    worker::Worker,
};

/// The step that finds the rule that a request follows.
pub fn find<S: Step<Matched>>(worker: Rc<Worker>) -> impl Layer<S, Service = Find<S>> {
    layer_fn(move |inner| Find { worker: Rc::clone(&worker), inner })
}

/// See [`find`].
#[derive(Debug, Clone)]
pub struct Find<S> {
    worker: Rc<Worker>,
    inner: S,
}

impl<S: Step<Matched>> Service<Request> for Find<S> {
    type Response = Response;
    type Error = Error;
    type Future = Finding<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.known(&request) {
            Ok(Some(bound)) => match matched(&self.worker, request, bound) {
                Ok(matched) => Finding::Found { inner: self.inner.call(matched) },
                Err(error) => Finding::Failed { error: Some(error) },
            },
            // Seldom: the first request for an authority, or one for a name that is in no configuration.
            Ok(None) => Finding::Asking { asking: Box::pin(self.clone().ask(request)) },
            Err(error) => Finding::Failed { error: Some(error) },
        }
    }
}

pin_project! {
    /// The answer of [`Find`].
    #[project = FindingProjection]
    pub enum Finding<F> {
        Found { #[pin] inner: F },
        Asking { asking: LocalBoxFuture<'static, Result<Response, Error>> },
        Failed { error: Option<Error> },
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Finding<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            FindingProjection::Found { inner } => inner.poll(cx),
            FindingProjection::Asking { asking } => asking.as_mut().poll(cx),
            FindingProjection::Failed { error } => {
                Poll::Ready(Err(error.take().expect("a future is not polled after it is ready")))
            }
        }
    }
}

impl<S: Step<Matched>> Find<S> {
    /// The service whose rules the request follows, if that is known without asking the control plane.
    fn known(&self, request: &Request) -> Result<Option<Arc<Bound>>, Error> {
        if let Some(gateway) = request.conn.gateway() {
            return Ok(Some(lookup::virtual_host(&self.worker, gateway, authority(&request.http)?)?));
        }
        let Some(destination) = self.destination(request)? else { return Ok(None) };
        match &destination.bound {
            Some(bound) => Ok(Some(Arc::clone(bound))),
            None if destination.through.is_some() => Ok(Some(through(&self.worker, &destination)?)),
            None => Ok(None),
        }
    }

    /// What the request's authority means, if that is known without asking the control plane.
    fn destination(&self, request: &Request) -> Result<Option<Arc<Destination>>, Error> {
        let authority = authority(&request.http)?;
        let generation = self.worker.view.refresh();
        let Some(outbound) = request.conn.outbound() else { return Ok(None) };
        let mut last = outbound.last.borrow_mut();
        if let Some(destination) = last.as_ref().and_then(|last| last.again(generation, authority)) {
            return Ok(Some(Arc::clone(destination)));
        }
        let found = match (upstream(&self.worker, request), request.conn.original) {
            (Some(upstream), _) => {
                lookup::by_name(&self.worker, upstream).map(|destination| (None, destination))
            }
            (None, None) => lookup::by_name(&self.worker, authority)
                .map(|destination| (Some(Arc::clone(&destination.authority)), destination)),
            (None, Some(original)) => lookup::meant(&self.worker, original, authority),
        };
        Ok(found.map(|(authority, destination)| {
            destination.touch();
            *last = Some(LastLookup { generation, authority, destination: Arc::clone(&destination) });
            destination
        }))
    }

    /// Asks the control plane, then goes on; what it does not know passes through, if that is allowed.
    async fn ask(mut self, request: Request) -> Result<Response, Error> {
        let authority = match upstream(&self.worker, &request) {
            Some(upstream) => upstream.to_owned(),
            None => authority(&request.http)?.to_ascii_lowercase(),
        };
        let destination = match request.conn.original {
            None => lookup::ask(&self.worker, &authority).await?,
            Some(original) => lookup::ask_dialled(&self.worker, original, &authority).await?,
        };
        destination.touch();
        let destination = at_its_address(&self.worker, destination).await?;
        let bound = rules(&self.worker, &destination)?;
        let came = request.at;
        let mut matched = matched(&self.worker, request, bound)?;
        // The route's time begins when there is a route.
        matched.has_waited(came.elapsed());
        self.inner.call(matched).await
    }
}

/// The request, with the rule of `bound` that it follows.
fn matched(worker: &Worker, request: Request, bound: Arc<Bound>) -> Result<Matched, Error> {
    let Some((rule, place)) = rule(worker, &bound, &request) else {
        let what = format!("{} has routes, and none matches this request", bound.key);
        return Err(Error::at(bound, Failure::new(Reason::NoRoute, what)));
    };
    let Request { http, conn, at } = request;
    Ok(Matched { http, conn, at, waited: 0, rule, place })
}

/// The rule that `request` follows, and the place of its match.
fn rule(worker: &Worker, bound: &Bound, request: &Request) -> Option<(Arc<BoundRule>, Option<u16>)> {
    worker.view.with(|table| {
        let conn = &request.conn;
        let connection = Connection {
            destination: conn.original.and_then(OriginalDestination::dialled),
            ..facts::outgoing(worker, table.own.as_deref(), conn.peer, bound.key.port)
        };
        let (rule, place) = bound.http.find(&facts::request(&request.http, &connection).ok()?)?;
        Some((Arc::clone(rule), place.and_then(|place| u16::try_from(place).ok())))
    })
}

/// What all requests on the connection are for, whatever their authority.
fn upstream<'a>(worker: &'a Worker, request: &Request) -> Option<&'a str> {
    let place = request.conn.outbound()?.upstream?;
    worker.settings.upstreams.get(place).map(|upstream| &*upstream.authority)
}
