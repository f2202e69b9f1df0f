//! Whether a request's token (JWT) is accepted, by the rules in force now.
//!
//! A request without a token passes: policies decide what it may do. One whose token is not accepted is refused with
//! 401. What an accepted token says goes on with the request, as its facts and in the headers that a rule names.

use std::{
    future::{Ready, ready},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::future::Either;
use http::{Uri, uri::PathAndQuery};
use selvedge_model::token::{Authentication, Refused, TokenError, TokenRule};
use tower::{Layer, Service, layer::layer_fn};
use tracing::field::display;

use crate::{
    authorize::refusal,
    error::{Failure, Reason},
    step::{Conn, Error, Request, Response, Step},
    telemetry::Decision,
    tokens::Tokens,
    worker::Worker,
};

/// The step that refuses tokens which are not accepted.
pub fn authenticate<S: Step<Request>>(worker: Rc<Worker>) -> impl Layer<S, Service = Authenticate<S>> {
    layer_fn(move |inner| Authenticate { inner, worker: Rc::clone(&worker) })
}

/// See [`authenticate`].
#[derive(Debug, Clone)]
pub struct Authenticate<S> {
    inner: S,
    worker: Rc<Worker>,
}

impl<S: Step<Request>> Service<Request> for Authenticate<S> {
    type Response = Response;
    type Error = Error;
    type Future = Either<S::Future, Ready<Result<Response, Error>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match check(&self.worker, &request.conn, &mut request.http) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(failure) => Either::Right(ready(Err(failure.into()))),
        }
    }
}

/// Checks the token of `request`, which came on `conn`, and gives it the facts and headers that follow from it.
///
/// # Errors
/// If it is not accepted.
pub(crate) fn check<B>(worker: &Worker, conn: &Conn, request: &mut http::Request<B>) -> Result<(), Failure> {
    let Some(entry) = conn.entry() else { return Ok(()) };
    let generation = worker.view.refresh();
    let rules = |own: &Arc<selvedge_model::Workload>| own.policy.authentication.clone();
    let Some(rules) = worker.view.with(|table| table.own.as_ref().and_then(rules)) else { return Ok(()) };
    // Whoever may not come in at all is told so, whatever token it has, and no signature is verified for it.
    let is_refused = || entry.decided_at(generation).is_none() && refusal(worker, &conn.incoming()).is_some();
    if !rules.is_for(entry.port) || is_refused() {
        return Ok(());
    }
    let accepted = apply(&worker.tokens, &rules, entry.port, request, now()).map(drop);
    accepted.map_err(|refused| {
        for url in worker.tokens.wanted() {
            worker.view.store().want_keys(&url);
        }
        refused_with(worker, conn, refused)
    })
}

/// Checks the token of `request` by `rules`, at `now` (in seconds since 1970), and gives it the facts and headers that follow
/// from it. Returns the rule that accepts it; `None`: it has no token, and policies decide.
///
/// # Errors
/// If it has one that is not accepted.
pub fn apply<'a, B>(
    tokens: &Tokens,
    rules: &'a Arc<Authentication>,
    port: u16,
    request: &mut http::Request<B>,
    now: u64,
) -> Result<Option<&'a TokenRule>, Refused<'a>> {
    let query = request.uri().query().unwrap_or_default();
    let accepted = tokens.authenticate(rules, (port, request.headers(), query), now)?;
    rules.strip(port, request.headers_mut());
    let Some(accepted) = accepted else { return Ok(None) };
    let query = query_of(request.uri());
    if let Some(query) = accepted.apply(request.headers_mut(), &query)
        && let Some(uri) = with_query(request.uri(), &query)
    {
        *request.uri_mut() = uri;
    }
    request.extensions_mut().insert(accepted.token);
    Ok(Some(accepted.rule))
}

fn query_of(uri: &Uri) -> String {
    uri.query().unwrap_or_default().to_owned()
}

fn with_query(uri: &Uri, query: &str) -> Option<Uri> {
    let path = match query {
        "" => uri.path().to_owned(),
        query => format!("{}?{query}", uri.path()),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

/// In seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// What is said of a token that is not accepted, in words for operators; and how many bytes of that, from its end, anybody may
/// know: not by which document.
pub fn words(Refused { rule, error }: &Refused<'_>) -> (String, usize) {
    let told = error.to_string();
    (format!("{}{}: {told}", rule.name, without_keys(error)), told.len())
}

/// Why there are no keys, if that is it.
fn without_keys(error: &TokenError) -> String {
    match error {
        TokenError::NoKeys(why) => format!(" ({why})"),
        _ => String::new(),
    }
}

/// Counts and logs what is refused. Strangers are not told by which document.
fn refused_with(worker: &Worker, conn: &Conn, refused: Refused<'_>) -> Failure {
    let (words, told) = words(&refused);
    let Refused { rule, error } = refused;
    worker.metrics.policy_decision(&rule.name, Decision::Deny, worker.index);
    let (peer, identity) = (conn.peer, conn.identity().map(display));
    tracing::info!(%peer, identity, rule = %rule.name, %error, "refused a token{}", without_keys(&error));
    let failure = Failure::new(Reason::Token, words);
    if conn.identity().is_some() { failure } else { failure.told_only_the_last(told) }
}
