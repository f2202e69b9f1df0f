//! The outermost step: every answer, the proxy's own included, is counted once, when it is over, and so is a
//! request whose client leaves before there is one.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use http::HeaderMap;
use pin_project_lite::pin_project;
use tower::{Layer, Service, layer::layer_fn};

use super::{Metrics, Series, TcpSeries, access_log};
use crate::{
    arrival::Direction,
    error::Reason,
    respond::grpc_status,
    step::{Conn, Error, Facts, Request, Response, Step},
    worker::Worker,
};

/// The step that counts and logs what goes in `direction`. `unknown` counts what has no better place.
pub fn observe<S: Step<Request>>(
    worker: Rc<Worker>,
    direction: Direction,
    unknown: Arc<Series>,
) -> impl Layer<S, Service = Observe<S>> {
    layer_fn(move |inner| Observe {
        inner,
        worker: Rc::clone(&worker),
        direction,
        unknown: Arc::clone(&unknown),
    })
}

/// See [`observe`].
#[derive(Debug, Clone)]
pub struct Observe<S> {
    inner: S,
    worker: Rc<Worker>,
    direction: Direction,
    unknown: Arc<Series>,
}

impl<S: Step<Request>> Service<Request> for Observe<S> {
    type Response = Response;
    type Error = Error;
    type Future = Observing<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (conn, started) = (Rc::clone(&request.conn), request.at);
        let line = access_log::enabled().then(|| {
            let identity = conn.identity.as_ref();
            Box::new(access_log::Line::of(self.direction, &request.http, conn.peer, identity))
        });
        Observing {
            inner: self.inner.call(request),
            conn,
            unknown: Arc::clone(&self.unknown),
            worker: self.worker.index,
            started,
            line,
            answered: false,
        }
    }
}

pin_project! {
    /// The answer of [`Observe`].
    #[derive(Debug)]
    pub struct Observing<F> {
        #[pin]
        inner: F,
        conn: Rc<Conn>,
        unknown: Arc<Series>,
        worker: usize,
        started: Instant,
        line: Option<Box<access_log::Line>>,
        answered: bool,
    }

    impl<F> PinnedDrop for Observing<F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if *this.answered {
                return;
            }
            // Nobody waits for the answer any more.
            let (duration, reason) = (this.started.elapsed(), Reason::Canceled);
            let series = unanswered(this.conn).unwrap_or_else(|| Arc::clone(this.unknown));
            series.record(*this.worker, None, None, Some(reason), duration);
            if let Some(line) = this.line.take() {
                line.write(None, Some(reason.word()), duration, 0);
            }
        }
    }
}

/// Where a request is counted that has no answer: with its connection inbound, outbound with the service that
/// was last looked up on its connection.
fn unanswered(conn: &Conn) -> Option<Arc<Series>> {
    let of_service = || {
        let last = conn.last.borrow();
        let bound = last.as_ref()?.destination.bound.as_ref()?;
        Some(Arc::clone(&bound.http.unrouted.plain))
    };
    conn.series.clone().or_else(of_service)
}

impl<F: Future<Output = Result<Response, Error>>> Future for Observing<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.inner.poll(cx).map(|result| {
            *this.answered = true;
            result.map(|mut response| {
                let observed = Observed {
                    series: series(&response.facts, this.conn).unwrap_or_else(|| Arc::clone(this.unknown)),
                    worker: *this.worker,
                    started: *this.started,
                    status: response.http.status().as_u16(),
                    grpc_status: grpc_status(response.http.headers()),
                    reason: response.facts.reason,
                    retries: response.facts.retries,
                    line: this.line.take(),
                };
                response.http.body_mut().end().observed = Some(observed);
                response
            })
        })
    }
}

/// Where an answer is counted: with its route outbound, with its connection inbound.
fn series(facts: &Facts, conn: &Conn) -> Option<Arc<Series>> {
    let Some(taken) = &facts.route else { return conn.series.clone() };
    let meshed = facts.endpoint.as_ref().is_some_and(|endpoint| endpoint.target.identity.is_some());
    Some(Arc::clone(taken.series().of(meshed)))
}

/// An answer under way, to be counted when its body has ended.
#[derive(Debug)]
pub struct Observed {
    series: Arc<Series>,
    worker: usize,
    started: Instant,
    status: u16,
    grpc_status: Option<u8>,
    reason: Option<Reason>,
    retries: u32,
    line: Option<Box<access_log::Line>>,
}

impl Observed {
    /// Where it is counted as a WebSocket, which the request has become.
    pub fn websockets(&self, metrics: &Metrics) -> Arc<TcpSeries> {
        metrics.websockets(&self.series)
    }

    /// Takes note of the answer's trailers: where gRPC says how the call ended.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        self.grpc_status = grpc_status(trailers).or(self.grpc_status);
    }

    /// Counts it. `whole`: the body came to its end.
    pub fn finish(self, whole: bool, now: Instant) {
        let reason = self.reason.or((!whole).then_some(Reason::Reset));
        let duration = now.duration_since(self.started);
        self.series.record(self.worker, Some(self.status), self.grpc_status, reason, duration);
        if let Some(line) = self.line {
            line.write(Some(self.status), reason.map(Reason::word), duration, self.retries);
        }
    }
}
