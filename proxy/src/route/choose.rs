//! `Request` becomes `Routed`: its authority names a service, the service's rules name a backend.
//!
//! Keep-alive clients ask for the same authority again and again, so each connection remembers its last
//! one; only another authority, or a newer table, costs a look-up. On a redirected connection to an address
//! that is a service's own, the authority is not looked up at all.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::Method;
use pin_project_lite::pin_project;
use selvedge_model::facts::Connection;
use tower::{Layer, Service, layer::layer_fn};

use super::{
    dialled, grpc_timeout,
    pass_through::{at_its_address, pass_through},
    tunnel,
};
use crate::{
    bind::{Bound, BoundRule, BoundShare, Destination},
    discovery::store::LOOKUP_TIMEOUT,
    error::{Failure, Reason},
    facts::{self, authority},
    step::{Error, Found, HttpVersion, Request, Response, Routed, Step, Taken},
    worker::Worker,
};

/// The step that turns a request into a routed one.
pub fn choose<S: Step<Routed>>(worker: Rc<Worker>) -> impl Layer<S, Service = Choose<S>> {
    layer_fn(move |inner| Choose { worker: Rc::clone(&worker), inner })
}

/// See [`choose`].
#[derive(Debug, Clone)]
pub struct Choose<S> {
    worker: Rc<Worker>,
    inner: S,
}

impl<S: Step<Routed>> Service<Request> for Choose<S> {
    type Response = Response;
    type Error = Error;
    type Future = Chosen<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if *request.http.method() == Method::CONNECT {
            return Chosen::Asking { asking: Box::pin(tunnel::open(Rc::clone(&self.worker), request)) };
        }
        match self.known(&request) {
            Ok(Some(destination)) if destination.bound.is_some() => match self.route(request, &destination) {
                Ok(routed) => Chosen::Routed { inner: self.inner.call(routed) },
                Err(error) => Chosen::Failed { error: Some(error) },
            },
            // Seldom: the first request for an authority, or one that is in no configuration.
            Ok(_) => Chosen::Asking { asking: Box::pin(self.clone().ask(request)) },
            Err(error) => Chosen::Failed { error: Some(error) },
        }
    }
}

pin_project! {
    /// The answer of [`Choose`].
    #[project = ChosenProjection]
    pub enum Chosen<F> {
        Routed { #[pin] inner: F },
        Asking { asking: Pin<Box<dyn Future<Output = Result<Response, Error>>>> },
        Failed { error: Option<Error> },
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Chosen<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            ChosenProjection::Routed { inner } => inner.poll(cx),
            ChosenProjection::Asking { asking } => asking.as_mut().poll(cx),
            ChosenProjection::Failed { error } => {
                Poll::Ready(Err(error.take().expect("a future is not polled after it is ready")))
            }
        }
    }
}

impl<S: Step<Routed>> Choose<S> {
    /// What the request's authority means, if that is known without asking the control plane.
    fn known(&self, request: &Request) -> Result<Option<Arc<Destination>>, Error> {
        let authority = authority(&request.http)?;
        let generation = self.worker.view.refresh();
        let mut last = request.conn.last.borrow_mut();
        if let Some(destination) = last.as_ref().and_then(|last| last.again(generation, authority)) {
            return Ok(Some(Arc::clone(destination)));
        }
        let found = match (upstream(&self.worker, request), request.conn.original) {
            (Some(upstream), _) => named(&self.worker, upstream).map(|destination| (None, destination)),
            (None, None) => named(&self.worker, authority)
                .map(|destination| (Some(Arc::clone(&destination.authority)), destination)),
            (None, Some(original)) => dialled::meant(&self.worker, original, authority),
        };
        Ok(found.map(|(authority, destination)| {
            destination.touch();
            *last = Some(Found { generation, authority, destination: Arc::clone(&destination) });
            destination
        }))
    }

    /// Finds the rule, and draws a backend by its weights.
    fn route(&self, request: Request, destination: &Arc<Destination>) -> Result<Routed, Error> {
        let Some(bound) = destination.bound.clone() else {
            return Err(unknown(&destination.authority).into());
        };
        let Some(rule) = find(&self.worker, &bound, &request) else {
            let what = format!("{} has routes, and none matches this request", bound.key);
            return Err(at(&bound, Error::new(Reason::NoRoute, what)));
        };
        let drawn = BoundShare::draw(&rule.shares, &mut self.worker.rng.borrow_mut());
        let Some(share) = drawn.map(Arc::clone) else {
            let what = format!("the weights of {} sum to nothing", rule.name);
            return Err(at(&bound, Error::new(Reason::NoBackend, what)));
        };
        let timeout = timeout(rule.timeout, &request);
        let rule = Arc::clone(rule);
        let Request { http, conn, at } = request;
        let deadline = timeout.map(|timeout| at + timeout);
        Ok(Routed { http, conn, at, rule, share, deadline })
    }

    /// Asks the control plane, then goes on; what it does not know passes through, if that is allowed.
    async fn ask(mut self, mut request: Request) -> Result<Response, Error> {
        let authority = match upstream(&self.worker, &request) {
            Some(upstream) => upstream.to_owned(),
            None => authority(&request.http)?.to_ascii_lowercase(),
        };
        let destination = match request.conn.original {
            None => ask(&self.worker, &authority).await?,
            Some(original) => dialled::ask(&self.worker, original, &authority).await?,
        };
        destination.touch();
        let destination = at_its_address(&self.worker, destination).await?;
        // The route's time begins when there is a route.
        request.at = Instant::now();
        if destination.bound.is_none() {
            return pass_through(&self.worker, request, &authority, &destination).await;
        }
        let routed = self.route(request, &destination)?;
        self.inner.call(routed).await
    }
}

/// What all requests on the connection are for, whatever their authority.
fn upstream<'a>(worker: &'a Worker, request: &Request) -> Option<&'a str> {
    let place = request.conn.upstream?;
    worker.settings.upstreams.get(place).map(|upstream| &*upstream.authority)
}

/// What `authority` means; `None`: the control plane has not said it in time.
pub async fn destination(worker: &Worker, authority: &str) -> Option<Arc<Destination>> {
    worker.view.refresh();
    let found = match named(worker, authority) {
        Some(known) => known,
        None => ask(worker, authority).await.ok()?,
    };
    found.touch();
    Some(found)
}

/// What `authority` means, if that is known without asking the control plane.
pub(super) fn named(worker: &Worker, authority: &str) -> Option<Arc<Destination>> {
    worker.view.with(|table| {
        table.destinations.get(authority).cloned().or_else(|| {
            let lower = authority.bytes().any(|byte| byte.is_ascii_uppercase());
            lower.then(|| table.destinations.get(authority.to_ascii_lowercase().as_str()).cloned())?
        })
    })
}

/// What `authority` means, as the control plane says in time.
pub(super) async fn ask(worker: &Worker, authority: &str) -> Result<Arc<Destination>, Error> {
    worker.view.store().destination(authority).await.ok_or_else(|| {
        let what = format!(
            "the control plane has not said within {LOOKUP_TIMEOUT:?} what {authority} is; \
             see /config on this proxy's admin port for its connection"
        );
        Error::new(Reason::Discovery, what)
    })
}

pub(super) fn unknown(authority: &str) -> Failure {
    let what = format!("{authority} is in no Service or ServiceEntry that this workload may see");
    Failure::new(Reason::RegistryOnly, what)
}

/// `error`, with the service that it came from.
fn at(bound: &Arc<Bound>, mut error: Error) -> Error {
    error.facts.route = Some(Taken::Service(Arc::clone(bound)));
    error
}

/// The route's timeout, or the caller's if that is shorter. Only HTTP/2 carries gRPC.
fn timeout(of_route: Option<Duration>, request: &Request) -> Option<Duration> {
    let of_caller = match request.conn.version {
        HttpVersion::Http1 => None,
        HttpVersion::Http2 => grpc_timeout::given(request.http.headers()),
    };
    of_route.into_iter().chain(of_caller).min()
}

fn find<'a>(worker: &Worker, bound: &'a Bound, request: &Request) -> Option<&'a Arc<BoundRule>> {
    worker.view.with(|table| {
        let conn = &request.conn;
        let connection = Connection {
            destination: facts::dialled(conn.original),
            ..facts::outgoing(worker, table.own.as_deref(), conn.peer, bound.key.port)
        };
        bound.http.find(&facts::request(&request.http, &connection).ok()?)
    })
}
