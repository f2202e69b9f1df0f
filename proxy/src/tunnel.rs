//! CONNECT: a request for a stream of bytes to a host and port (RFC 9110, section 9.3.6). Apps send it if they are told
//! of a proxy for HTTPS (`https_proxy`).
//!
//! What the tunnel carries is opaque. It follows its service's routes for connections, or passes through to what the
//! mesh does not know, if the outbound traffic policy allows it. The client is answered only when there is a
//! connection, so that a failure is an answer with a reason. If the server name in the client's TLS decides on the
//! route, the client must be answered first: it sends the name only after the answer.
//!
//! CONNECT is met in four places. `serve` refuses a malformed one of HTTP/1, and one on a connection that offers no
//! tunnels, before hyper sees it, and then reads nothing on that connection until the answer says whether it is a
//! tunnel. [`crate::normalize`] does the same for HTTP/2, where each stream may ask for a tunnel: it refuses those on a
//! connection that offers none, those that name no port, and an extended CONNECT (RFC 8441) for anything but a
//! WebSocket. This step opens the way to the endpoint, and its answer carries it. [`crate::upgrade`] joins the client's
//! end to it once that answer is sent, and copies bytes.

use std::{
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, FutureExt, LocalBoxFuture};
use http::Method;
use selvedge_model::Protocol;
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    body::Body,
    error::{Failure, Reason},
    facts::authority,
    lookup,
    opaque::{Outgoing, PromisedTunnel},
    step::{AnswerFacts, Error, Request, Response, Step, Taken},
    worker::Worker,
};

/// The step that opens tunnels, for requests that ask for one; all others go on.
pub fn tunnel<S: Step<Request>>(worker: Rc<Worker>) -> impl Layer<S, Service = Tunnel<S>> {
    layer_fn(move |inner| Tunnel { worker: Rc::clone(&worker), inner })
}

/// See [`tunnel`].
#[derive(Debug, Clone)]
pub struct Tunnel<S> {
    worker: Rc<Worker>,
    inner: S,
}

impl<S: Step<Request>> Service<Request> for Tunnel<S> {
    type Response = Response;
    type Error = Error;
    type Future = Either<S::Future, LocalBoxFuture<'static, Result<Response, Error>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if *request.http.method() == Method::CONNECT {
            return Either::Right(open(Rc::clone(&self.worker), request).boxed_local());
        }
        Either::Left(self.inner.call(request))
    }
}

/// Opens the way that `request` asks for; the answer carries it.
async fn open(worker: Rc<Worker>, request: Request) -> Result<Response, Error> {
    worker.view.refresh();
    let asked = authority(&request.http)?.to_ascii_lowercase();
    let destination = match lookup::by_name(&worker, &asked) {
        Some(known) => known,
        None => lookup::ask(&worker, &asked).await?,
    };
    destination.touch();
    let route = destination.bound.as_ref().map(|bound| Taken::Service(Arc::clone(bound)));
    let mut facts = AnswerFacts { route, ..AnswerFacts::default() };
    let opened = match destination.bound.as_ref().map(|bound| bound.protocol) {
        Some(Protocol::Http | Protocol::Http2) => Err(speaks_http(&asked)),
        _ => {
            PromisedTunnel::open(worker, Outgoing::to(request.conn.peer, asked.parse().ok(), destination))
                .await
        }
    };
    match opened {
        Ok(tunnel) => {
            let mut http = Box::new(http::Response::new(Body::default()));
            http.body_mut().end().tunnel = Some(Box::new(tunnel));
            Ok(Response { http, facts })
        }
        Err(failure) => {
            facts.reason = Some(failure.reason);
            Err(Error { failure, facts: Box::new(facts), request: None })
        }
    }
}

/// Its policies and routes are for requests, which nobody could see in a tunnel.
fn speaks_http(authority: &str) -> Failure {
    let what = format!(
        "{authority} is declared to speak HTTP, and HTTP cannot go through a tunnel; send the request itself \
         (http_proxy), or declare the port as tcp or tls"
    );
    Failure::new(Reason::BadRequest, what)
}
