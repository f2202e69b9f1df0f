//! The step that asks policy, and asks again for what is in progress.

use std::{
    future::{Ready, ready},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use futures_util::future::Either;
use pin_project_lite::pin_project;
use tower::{Layer, Service, layer::layer_fn};

use super::{admitted, refusal_meanwhile};
use crate::{
    body::Admission,
    error::{Failure, Reason},
    step::{Conn, Error, Request, Response, Step},
    worker::Worker,
};

/// The step that refuses what policy does not let in, and ends what it does not let in any more.
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
    type Future = Either<Either<S::Future, Watched<S::Future>>, Ready<Result<Response, Error>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match admitted(&self.worker, &request) {
            Ok(None) => Either::Left(Either::Left(self.inner.call(request))),
            Ok(Some(admission)) => {
                let admission = Some(admission);
                Either::Left(Either::Right(Watched { answer: self.inner.call(request), admission }))
            }
            Err(failure) => Either::Right(ready(Err(failure.into()))),
        }
    }
}

pin_project! {
    /// An answer that is awaited as long as policy allows its request.
    #[derive(Debug)]
    pub struct Watched<F> {
        #[pin]
        answer: F,
        admission: Option<Admission>,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Watched<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(admission) = this.admission
            && admission.poll_ended(cx).is_ready()
        {
            let failure = admission.take();
            let failure = failure.unwrap_or_else(|| Failure::new(Reason::Policy, "no longer allowed"));
            return Poll::Ready(Err(failure.into()));
        }
        this.answer.poll(cx).map_ok(|mut response| {
            if let Some(admission) = this.admission.take() {
                // From here on its body asks.
                response.http.body_mut().end().admission = Some(admission);
            }
            response
        })
    }
}

/// Ends the requests in progress that a policy which comes into force no longer lets in. Never ends.
pub async fn review(worker: Rc<Worker>) {
    let mut changed = worker.view.store().subscribe();
    while changed.changed().await.is_ok() {
        worker.admitted.review(|conn, head| {
            let failure = refusal_meanwhile(&worker, &conn.incoming(), head)?;
            tell(conn, head, &failure);
            Some(failure)
        });
    }
    std::future::pending().await
}

fn tell(conn: &Conn, head: &http::Request<()>, failure: &Failure) {
    let (peer, identity) = (conn.peer, conn.identity().map(tracing::field::display));
    let (method, path) = (head.method(), head.uri().path());
    tracing::info!(%peer, identity, %method, path, %failure, "ended a request in progress");
}
