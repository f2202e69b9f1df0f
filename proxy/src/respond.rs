//! Turns our own failures into answers: HTTP for HTTP clients, a gRPC status for gRPC ones, always with the header that
//! names the failure. A gRPC answer that breaks off after its headers also ends with a status (see [`crate::body`]).

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{
    HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use hyper::ext::ReasonPhrase;
use pin_project_lite::pin_project;
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    body::Body,
    error::{Failure, SELVEDGE_ERROR},
    fields::{GRPC_STATUS, grpc_message, is_grpc, length},
    step::{Error, Request, Response, Step},
};

/// The step that turns every error into an answer.
pub fn respond<S: Step<Request>>() -> impl Layer<S, Service = Respond<S>> {
    layer_fn(|inner| Respond { inner })
}

/// See [`respond`].
#[derive(Debug, Clone)]
pub struct Respond<S> {
    inner: S,
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
        Responded { inner: self.inner.call(request), grpc }
    }
}

pin_project! {
    /// The answer of [`Respond`].
    #[derive(Debug)]
    pub struct Responded<F> {
        #[pin]
        inner: F,
        grpc: bool,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Responded<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.inner.poll(cx).map(|result| match result {
            Ok(mut response) => {
                if *this.grpc && is_grpc(response.http.headers()) {
                    response.http.body_mut().end().is_grpc = true;
                }
                Ok(response)
            }
            Err(error) => {
                let mut http = Box::new(answer(&error.failure, *this.grpc));
                let mut facts = error.facts;
                if let Some(added) = facts.headers.take() {
                    http.headers_mut().extend(*added);
                }
                Ok(Response { http, facts: *facts })
            }
        })
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
        headers.insert("grpc-message", grpc_message(&text));
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
