//! What became of a request that was sent: an answer, or why there is none.

use std::net::SocketAddr;

use super::rewrite;
use crate::{
    bind::Target,
    body::Body,
    budget::is_flood,
    error::{Failure, Reason},
    fields::Framing,
};

/// Why a request was not answered.
#[derive(Debug)]
pub struct SendError {
    /// What failed.
    pub failure: Failure,
    /// The request, if no byte of it was sent.
    pub request: Option<Box<http::Request<Body>>>,
}

impl From<Failure> for SendError {
    fn from(failure: Failure) -> Self {
        Self { failure, request: None }
    }
}

/// What an error of hyper's means for the request that it came to. `ended` says why we have ended its connection, if we have:
/// all that hyper knows is that it broke, or that whoever was to carry it is gone, for which it blames who uses it.
pub(super) fn failed(
    target: &Target,
    error: &hyper::Error,
    ended: impl FnOnce() -> Option<Failure>,
) -> Failure {
    let failure = said(target, error);
    let may_be_ended = failure.reason == Reason::Reset || error.is_user();
    if !may_be_ended || failure.undelivered {
        return failure;
    }
    ended().map_or(failure, Failure::breaking_off)
}

/// What hyper says.
fn said(target: &Target, error: &hyper::Error) -> Failure {
    let dial = target.dial;
    let http2 = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    if let Some(failure) = http2.and_then(|error| of_http2(dial, error)) {
        return failure;
    }
    if is_flood(error) {
        let what = format!(
            "the connection to {dial} was ended, because it sent too much that is no answer: {error}"
        );
        return Failure::new(Reason::Protocol, what);
    }
    if let Some(alert) = alert(error) {
        // In TLS 1.3 a client learns only now that the server did not accept its certificate; the server
        // has looked at nothing that came after it.
        let what = format!("{dial} ended the TLS handshake: {}", selvedge_certs::tls::explain(alert));
        return Failure::new(Reason::Tls, what).never_delivered();
    }
    if error.is_parse() {
        return Failure::new(Reason::Protocol, format!("{dial} did not answer as HTTP requires: {error}"));
    }
    if error.is_user() || error.is_body_write_aborted() {
        return Failure::new(Reason::BadRequest, format!("the request could not be sent to {dial}: {error}"));
    }
    Failure::new(Reason::Reset, format!("the connection to {dial} broke before its answer: {error}"))
}

/// What an error of HTTP/2 means, if that tells more than that the connection broke.
fn of_http2(dial: SocketAddr, error: &h2::Error) -> Option<Failure> {
    if error.is_go_away() && error.is_remote() {
        // RFC 9113, section 6.8: streams above the last one that GOAWAY names were not processed.
        let what = format!("{dial} is shutting down and did not take the request");
        return Some(Failure::new(Reason::Reset, what).never_delivered());
    }
    if error.reason() == Some(h2::Reason::REFUSED_STREAM) {
        // RFC 9113, section 8.7: a refused stream was not processed.
        let what = format!("{dial} refused the stream");
        return Some(Failure::new(Reason::Reset, what).never_delivered());
    }
    if let Some(code) = error.reason().filter(|_| error.is_reset() && error.is_remote()) {
        let what = format!("{dial} reset the stream before its answer: {code}");
        return Some(Failure::new(Reason::Reset, what).of_reset(code));
    }
    if error.is_reset() && !error.is_remote() && !error.is_library() {
        // hyper itself gave the stream up, which it does where it cannot read what it is to send.
        let what = format!("the request's body ended early on its way to {dial}");
        return Some(Failure::new(Reason::BadRequest, what));
    }
    None
}

/// The TLS alert that ended the connection, if one did.
fn alert(error: &hyper::Error) -> Option<&std::io::Error> {
    let mut causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let io = causes.find_map(|cause| match cause.downcast_ref::<h2::Error>() {
        Some(http2) => http2.get_io(),
        None => cause.downcast_ref::<std::io::Error>(),
    })?;
    let tls = io.get_ref()?.downcast_ref::<tokio_rustls::rustls::Error>()?;
    matches!(tls, tokio_rustls::rustls::Error::AlertReceived(_)).then_some(io)
}

/// Makes an answer fit to be passed on, and says whether its end is beyond doubt.
///
/// # Errors
/// [`Reason::Protocol`]: it cannot be passed on.
pub(super) fn answer(
    target: &Target,
    mut response: Box<http::Response<Body>>,
) -> Result<(Box<http::Response<Body>>, Framing), Failure> {
    let framing = rewrite::answer(&mut response, target.identity.is_some())
        .map_err(|what| Failure::new(Reason::Protocol, format!("{} answered with {what}", target.dial)))?;
    Ok((response, framing))
}
