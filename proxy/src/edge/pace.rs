//! Refuses what one client's address sends a gateway beyond `--max-request-rate-per-client`, with 429.
//!
//! It is asked before tokens and policies: whoever floods a gateway is to cost little. Without the setting, it costs one look.

use std::{
    future::{Ready, ready},
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use futures_util::future::Either;
use selvedge_model::limit::network;
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    fields::is_grpc,
    limit::beyond,
    step::{Error, Request, Response, Step},
    worker::Worker,
};

/// The step that lets one client's address send so many requests in a second.
pub fn pace<S: Step<Request>>(worker: Rc<Worker>) -> impl Layer<S, Service = Paced<S>> {
    layer_fn(move |inner| Paced { worker: Rc::clone(&worker), inner })
}

/// See [`pace`].
#[derive(Debug, Clone)]
pub struct Paced<S> {
    worker: Rc<Worker>,
    inner: S,
}

impl<S: Step<Request>> Service<Request> for Paced<S> {
    type Response = Response;
    type Error = Error;
    type Future = Either<S::Future, Ready<Result<Response, Error>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if self.worker.places.rates().limits_requests()
            && let Err(error) = ask(&self.worker, &request)
        {
            return Either::Right(ready(Err(error)));
        }
        Either::Left(self.inner.call(request))
    }
}

fn ask(worker: &Worker, request: &Request) -> Result<(), Error> {
    let client = request.conn.client_address(&request.http);
    worker.places.rates().request(client, request.at).map_err(|too_often| {
        worker.metrics.control.client_rate_refusals.inc();
        let most = too_often.each_second;
        // As it is limited: one network has more addresses than the log has room for lines.
        if let Some(left_out) = worker.said.says(("a client's requests", network(client)), Instant::now()) {
            tracing::info!(%client, limit = "--max-request-rate-per-client", most, left_out, "requests refused: their client sends more in a second than it may");
        }
        let what = format!("more than {most} requests in a second from one client's address");
        beyond(&what, most, &too_often.refused, is_grpc(request.http.headers()))
    })
}
