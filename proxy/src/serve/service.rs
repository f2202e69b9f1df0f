//! A path as hyper calls it, on one connection.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use http::{HeaderValue, StatusCode, header::CONNECTION};
use hyper::{
    body::{Body as _, Incoming},
    service::Service as HttpService,
};

use crate::{
    body::{Body, Pace},
    budget::Ledger,
    clients::{UnderWay, Watch},
    error::Reason,
    fields::is_grpc,
    refuse::limit_head,
    respond,
    step::{Conn, HttpVersion, Request, Step},
    upgrade::UpgradeRequest,
    worker::Worker,
};

/// A path, on one connection.
#[derive(Debug)]
pub(super) struct Connected<S> {
    /// Used in place: a copy for each request would change reference counts in every step.
    pub(super) path: RefCell<S>,
    pub(super) conn: Rc<Conn>,
    pub(super) watch: Arc<Watch>,
    pub(super) worker: Rc<Worker>,
    /// `None`: it is HTTP/1.
    pub(super) ledger: Option<Rc<Ledger>>,
}

impl<S: Step<Request>> HttpService<http::Request<Incoming>> for Connected<S> {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Answer<S::Future>;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        let asked = UpgradeRequest::by(&mut request, &self.conn);
        self.watch.request();
        if self.ledger.is_none() {
            self.watch.awaited.begin(request.version() >= http::Version::HTTP_11);
        } else {
            limit_head(&mut request, self.worker.settings.limits.head, self.conn.identity().is_some());
        }
        let is_web_socket = asked.as_ref().is_some_and(|asked| asked.is_for_web_socket());
        let length = request.body().size_hint().exact();
        let strangers = length.is_none() && self.conn.gateway().is_some() && !is_grpc(request.headers());
        let mut unknown = None;
        let http = Box::new(request.map(|body| {
            if is_web_socket {
                return Body::web_socket();
            }
            let pace = Pace::of(length, strangers, self.worker.settings.pace, &self.worker.deadlines);
            if length.is_none() {
                unknown.clone_from(&pace);
            }
            Body::arriving(body, self.ledger.as_ref(), pace)
        }));
        let request = Request { http, conn: Rc::clone(&self.conn), at: Instant::now() };
        let asked = asked.map(|asked| (asked, Rc::clone(&self.worker)));
        let under_way = Some(UnderWay::new(Arc::clone(&self.watch)));
        let version = if self.ledger.is_some() { HttpVersion::Http2 } else { HttpVersion::Http1 };
        let stranger = self.conn.is_strangers().then_some(version);
        Answer { stranger, inner: self.path.borrow_mut().call(request), asked, under_way, unknown }
    }
}

pin_project_lite::pin_project! {
    /// The answer of a whole path.
    pub(super) struct Answer<F> {
        #[pin]
        inner: F,
        asked: Option<(Box<UpgradeRequest>, Rc<Worker>)>,
        // What an inbound client speaks that has proven nothing.
        stranger: Option<HttpVersion>,
        // Until there is an answer.
        under_way: Option<UnderWay>,
        // The pace of a body of unknown length.
        unknown: Option<Rc<Pace>>,
    }
}

impl<F: Future<Output = Result<crate::step::Response, crate::step::Error>>> Future for Answer<F> {
    type Output = Result<http::Response<Body>, std::convert::Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.inner.poll(cx).map(|result| {
            if let Some(pace) = this.unknown.take() {
                pace.release();
            }
            let is_http1 = this.under_way.as_ref().is_some_and(|UnderWay(watch)| watch.awaited.end());
            let reason = result.as_ref().ok().and_then(|answer| answer.facts.reason);
            let dismissed = this.stranger.filter(|_| reason.is_some_and(Reason::dismisses_strangers));
            let mut http = match result {
                Ok(response) => *response.http,
                // `respond` leaves no error; should a path be built without it, the answer is still one.
                Err(error) => respond::answer(&error.failure, false),
            };
            if is_http1 {
                respond::for_http1(&mut http);
                let closes =
                    this.under_way.as_ref().is_some_and(|UnderWay(watch)| watch.closes_after_answer());
                if closes && http.status() != StatusCode::SWITCHING_PROTOCOLS {
                    http.headers_mut().insert(CONNECTION, const { HeaderValue::from_static("close") });
                }
            }
            match dismissed {
                None => {}
                Some(HttpVersion::Http1) => {
                    http.headers_mut().insert(CONNECTION, const { HeaderValue::from_static("close") });
                }
                Some(HttpVersion::Http2) => this.under_way.iter().for_each(|UnderWay(watch)| watch.dismiss()),
            }
            if dismissed.is_some() {
                // The end of the connection does not wait until the client has read this.
                this.under_way.take();
            }
            let Some((asked, worker)) = this.asked.take() else {
                http.body_mut().end().under_way = this.under_way.take();
                return Ok(http);
            };
            let watch = this.under_way.as_ref().map(|UnderWay(watch)| Arc::clone(watch));
            http.body_mut().end().under_way = this.under_way.take();
            let becomes_tunnel = asked.answered(&mut http, &worker);
            if let Some(watch) = watch.filter(|_| becomes_tunnel) {
                // The client sends no HTTP any more once it has this answer, and not before.
                watch.become_tunnel();
            }
            Ok(http)
        })
    }
}
