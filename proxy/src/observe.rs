//! The outermost step: it begins the record of each request, and adds the answer, which may be the proxy's own. The
//! answer's body finishes the record. If the client leaves before there is an answer, this step finishes it.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use pin_project_lite::pin_project;
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    arrival::Direction,
    step::{AnswerFacts, Conn, Error, Request, Response, Step},
    telemetry::{OnPath, Record, Series, Unknown},
    worker::Worker,
};

/// The step that records what goes in `direction`. `unknown` counts what has no better place.
pub fn observe<S: Step<Request>>(
    worker: &Worker,
    direction: Direction,
    unknown: Unknown,
) -> impl Layer<S, Service = Observe<S>> + use<S> {
    let (tap, watched) = (Arc::clone(&worker.metrics.tap), Arc::clone(&worker.metrics.watched));
    let in_progress = worker.metrics.in_progress(direction);
    let path = Rc::new(OnPath { worker: worker.index, direction, unknown, tap, watched, in_progress });
    layer_fn(move |inner| Observe { inner, path: Rc::clone(&path) })
}

/// See [`observe`].
#[derive(Debug, Clone)]
pub struct Observe<S> {
    inner: S,
    path: Rc<OnPath>,
}

impl<S: Step<Request>> Service<Request> for Observe<S> {
    type Response = Response;
    type Error = Error;
    type Future = Observing<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let origin = Rc::<Conn>::clone(&request.conn);
        let size = request.http.body_mut().measured();
        let record = Record::begin(Rc::clone(&self.path), &mut request.http, origin, request.at);
        if let Some(underway) = record.underway() {
            request.http.body_mut().follow(Some(underway));
        }
        Observing { inner: self.inner.call(request), record: Some(record.receiving(size)) }
    }
}

pin_project! {
    /// The answer of [`Observe`].
    #[derive(Debug)]
    pub struct Observing<F> {
        #[pin]
        inner: F,
        // Until there is an answer.
        record: Option<Record>,
    }

    impl<F> PinnedDrop for Observing<F> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(record) = this.project().record.take() {
                // Nobody waits for the answer any more.
                record.cancel(Instant::now());
            }
        }
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Observing<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.inner.poll(cx).map(|result| {
            let record = this.record.take();
            result.map(|mut response| {
                if let Some(mut record) = record {
                    let facts = &response.facts;
                    record.answered(&response.http, facts.reason, facts.retries, series(facts));
                    if record.is_shown() && record.direction() == Direction::Outbound {
                        record.went_to(facts.went_to(), facts.access_log());
                    }
                    if let Some(rare) = response.facts.rare.take() {
                        record.explained(rare.error, rare.request_id.as_ref(), rare.forwarded_for.as_ref());
                    }
                    response.http.body_mut().end().record = Some(record);
                }
                response
            })
        })
    }
}

/// Where an answer is counted that came by a route.
fn series(facts: &AnswerFacts) -> Option<Arc<Series>> {
    let taken = facts.route.as_ref()?;
    Some(Arc::clone(taken.series().at(facts.endpoint.as_deref())))
}
