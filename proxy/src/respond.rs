//! Turns our own failures into answers: HTTP for HTTP clients, a gRPC status for gRPC ones, always with the header that
//! names the failure. A gRPC answer that breaks off after its headers also ends with a status (see [`crate::body`]).

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use http::{
    HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body::Body as HttpBody;
use hyper::ext::ReasonPhrase;
use pin_project_lite::pin_project;
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    body::Body,
    edge::REQUEST_ID,
    error::{Failure, Reason, SELVEDGE_ERROR},
    fields::{GRPC_MESSAGE, GRPC_STATUS, get_rare, grpc_message, is_grpc, length},
    step::{Conn, Error, Request, Response, Step},
    telemetry::access_log,
    worker::Worker,
};

/// The step that turns every error into an answer. A client that has proven no identity of the mesh is told the reason of a
/// failure, or fixed words: the rest, which names addresses and documents, goes to the log.
pub fn respond<S: Step<Request>>(worker: Rc<Worker>) -> impl Layer<S, Service = Respond<S>> {
    layer_fn(move |inner| Respond { inner, worker: Rc::clone(&worker) })
}

/// See [`respond`].
#[derive(Debug, Clone)]
pub struct Respond<S> {
    inner: S,
    worker: Rc<Worker>,
}

impl<S: Step<Request>> Service<Request> for Respond<S> {
    type Response = Response;
    type Error = Error;
    type Future = Responded<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let grpc = is_grpc(request.http.headers());
        let stranger = request
            .conn
            .is_strangers()
            .then(|| Stranger { conn: Rc::clone(&request.conn), worker: Rc::clone(&self.worker) });
        Responded { inner: self.inner.call(request), grpc, stranger }
    }
}

pin_project! {
    /// The answer of [`Respond`].
    #[derive(Debug)]
    pub struct Responded<F> {
        #[pin]
        inner: F,
        grpc: bool,
        // `None`: the client has proven who it is, or is our app.
        stranger: Option<Stranger>,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Responded<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.inner.poll(cx).map(|result| match result {
            Ok(mut response) => {
                tell_of_peers(&mut response, this.stranger.as_ref());
                if *this.grpc && is_grpc(response.http.headers()) {
                    response.http.body_mut().end().is_grpc = true;
                }
                Ok(response)
            }
            Err(error) => Ok(respond_to(error, *this.grpc, this.stranger.as_ref())),
        })
    }
}

/// A client that has proven no identity of the mesh.
#[derive(Debug)]
struct Stranger {
    conn: Rc<Conn>,
    worker: Rc<Worker>,
}

impl Stranger {
    /// Logs what the client is not told: `failure`, of the request that is called `request_id`.
    fn log(&self, failure: &str, request_id: Option<&HeaderValue>) {
        let about = ("what a stranger is not told", failure);
        if let Some(left_out) = self.worker.said.says(about, Instant::now()) {
            let request_id = request_id.and_then(|id| id.to_str().ok());
            tracing::info!(peer = %self.conn.peer, request_id, failure, left_out, "request failed; its client is not told all of it");
        }
    }
}

/// The answer to a request that ended in `error`.
fn respond_to(error: Error, grpc: bool, stranger: Option<&Stranger>) -> Response {
    let mut facts = *error.facts;
    if access_log::enabled() {
        facts.rare().error = Some(error.failure.to_string().into());
    }
    let failure = match stranger {
        None => error.failure,
        Some(stranger) => {
            // Whoever refuses by a policy, a limit, a token or a password logs that itself.
            let is_logged = matches!(
                error.failure.reason,
                Reason::Credentials
                    | Reason::Policy
                    | Reason::RateLimit
                    | Reason::RateLimitServer
                    | Reason::Token
            );
            let whole = (!is_logged).then(|| error.failure.to_string());
            let failure = error.failure.for_a_stranger();
            if let Some(whole) = whole.filter(|whole| failure.told() != *whole) {
                stranger.log(&whole, facts.request_id());
            }
            failure
        }
    };
    let mut http = Box::new(answer(&failure, grpc));
    if let Some(rare) = &mut facts.rare {
        http.headers_mut().extend(std::mem::take(&mut rare.headers));
    }
    if let Some(id) = facts.request_id().filter(|_| stranger.is_some()) {
        http.headers_mut().insert(REQUEST_ID, id.clone());
    }
    Response { http, facts }
}

/// Leaves a stranger only the reason of what a peer's sidecar says in its own answer.
fn tell_of_peers(response: &mut Response, stranger: Option<&Stranger>) {
    let Some(reason) = response.facts.reason else { return };
    if stranger.is_none() && !access_log::enabled() {
        return;
    }
    let said = get_rare(response.http.headers(), &SELVEDGE_ERROR);
    let Some(said) = said.map(|said| String::from_utf8_lossy(said.as_bytes()).into_owned()) else { return };
    if let Some(stranger) = stranger {
        stranger.log(&said, response.facts.request_id());
        leave_the_reason(&mut response.http, reason);
        if let Some(id) = response.facts.request_id() {
            response.http.headers_mut().insert(REQUEST_ID, id.clone());
        }
    }
    if access_log::enabled() {
        response.facts.rare().error = Some(said.into());
    }
}

/// Takes all words but `reason` out of an answer that a sidecar has made.
fn leave_the_reason(response: &mut http::Response<Body>, reason: Reason) {
    let has_body = !response.body().is_end_stream();
    let headers = response.headers_mut();
    headers.insert(SELVEDGE_ERROR, HeaderValue::from_static(reason.word()));
    if is_grpc(headers) {
        // It has no body.
        headers.insert(GRPC_MESSAGE, HeaderValue::from_static(reason.word()));
        return;
    }
    if has_body || headers.contains_key(CONTENT_LENGTH) {
        headers.remove(CONTENT_LENGTH);
        *response.body_mut() = Body::full(format!("{reason}\n"));
    }
}

/// The answer to a request that failed with `failure`.
pub fn answer(failure: &Failure, grpc: bool) -> http::Response<Body> {
    let text = failure.told();
    let header = header_text(&text);
    let mut response = http::Response::new(Body::default());
    if grpc {
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(failure.grpc())));
        headers.insert(GRPC_MESSAGE, grpc_message(&text));
    } else {
        let status = failure.status();
        *response.status_mut() = status;
        if !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED) {
            *response.body_mut() = Body::full(format!("{text}\n"));
            let kind = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
        }
        if let Some(seconds) = failure.reason.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
    }
    if failure.reason.is_clients_fault() {
        // What follows on an HTTP/1 connection may be meant as something else than the next request. On
        // HTTP/2, where streams are apart, hyper takes this out.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(challenge) = failure.reason.challenge() {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response.headers_mut().insert(SELVEDGE_ERROR, header);
    response
}

/// Has hyper write `response` to a client of HTTP/1 as it is.
pub fn for_http1(response: &mut http::Response<Body>) {
    let status = response.status();
    if status == StatusCode::NOT_MODIFIED
        && let Some(length) = length::stated(response.headers())
    {
        // RFC 9110, section 15.4.5: it says how long the answer to a usual GET would be.
        response.body_mut().would_be(length);
    }
    if status.canonical_reason().is_none() {
        // hyper would make words up. Those of the app, if it came by HTTP/1, stay.
        let words = response.extensions_mut();
        words.get_or_insert_with(|| const { ReasonPhrase::from_static(b"") });
    }
}

/// `text` without what a header cannot hold.
fn header_text(text: &str) -> HeaderValue {
    let safe: String = text.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect();
    HeaderValue::try_from(safe).unwrap_or_else(|_| HeaderValue::from_static("?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    #[test]
    fn a_failure_is_named_in_status_header_and_body() {
        let response = answer(&Failure::new(Reason::NoRoute, "line\nbreak é"), false);

        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()[SELVEDGE_ERROR], "no-route: line?break ?");
    }

    #[test]
    fn what_a_client_is_not_told_is_in_no_part_of_the_answer() {
        let failure = Failure::new(Reason::Policy, "secret: why");
        let told = |failure: Failure| answer(&failure, false).headers()[SELVEDGE_ERROR].clone();

        assert_eq!(told(failure.clone().told_only_the_last(0)), "policy");
        assert_eq!(told(failure.clone().told_only_the_last("why".len())), "policy: why");
        assert_eq!(answer(&failure.told_only_the_last(0), true).headers()["grpc-message"], "policy");
    }

    #[test]
    fn a_stranger_is_told_fixed_words_only() {
        let told = |failure: Failure| failure.for_a_stranger().told();

        assert_eq!(
            told(Failure::new(Reason::BadRequest, "the request has no host")),
            "bad-request: the request has no host"
        );
        assert_eq!(
            told(Failure::new(Reason::BadRequest, format!("no way to {}", "10.0.0.1:80"))),
            "bad-request"
        );
        let limited = Failure::new(Reason::Policy, "secret: why".to_owned()).told_only_the_last("why".len());
        assert_eq!(told(limited), "policy: why");
    }

    #[test]
    fn who_sends_what_is_no_request_is_not_listened_to_any_more() {
        assert_eq!(answer(&Failure::new(Reason::BadRequest, ""), false).headers()[CONNECTION], "close");
        assert!(!answer(&Failure::new(Reason::NoRoute, ""), false).headers().contains_key(CONNECTION));
    }

    #[test]
    fn a_grpc_client_gets_a_grpc_status() {
        let response = answer(&Failure::new(Reason::Timeout, "50 % é"), true);

        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "4");
        assert_eq!(response.headers()["grpc-message"], "timeout: 50 %25 %C3%A9");
    }
}
