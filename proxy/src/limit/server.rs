//! One question to a server that counts for all proxies together: Envoy's rate limit service, over gRPC.
//!
//! It goes the way of any request that leaves: by the routes to the server's service, its balancing and mutual TLS, over
//! the worker's own connections. Filters and retries of those routes are not for it: its time is short.

use std::{
    borrow::Cow,
    fmt::Display,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Uri, Version, header::CONTENT_TYPE, header::TE};
use http_body_util::BodyExt;
use prost::Message;
use selvedge_api::rls::{
    RateLimitDescriptor, RateLimitRequest, RateLimitResponse, rate_limit_descriptor::Entry,
};

use crate::{
    arrival::Arrival,
    bind::{BoundGlobal, BoundShare, LimitServer},
    body::{Body, reason_of},
    dispatch::{Attempt, Attempting, Beside, Tried, dispatch},
    error::{Failure, Reason},
    facts,
    fields::grpc_status,
    lookup::rules,
    step::{Conn, HttpVersion, Outbound, Response, Side},
    worker::Worker,
};

/// The one call of the service.
const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 64 << 10;
/// What comes before a message of gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What a server is told of a request: descriptors, each of keys and values.
pub(super) type Told<'a> = Vec<Vec<(&'a str, Cow<'a, str>)>>;

/// Asks the server of `bound` about a request that came on `conn`, of which `told` is told.
///
/// # Errors
/// Why there is no answer.
pub(super) async fn ask(
    worker: &Rc<Worker>,
    bound: &BoundGlobal,
    conn: &Conn,
    told: Told<'_>,
) -> Result<RateLimitResponse, String> {
    let server = bound.server.as_deref().ok_or("the document may not name it")?;
    let (now, timeout, conn) = (Instant::now(), bound.global.timeout, own(conn));
    let deadline = now + timeout;
    let http = Box::new(request(server, frame(&bound.global.domain, told), timeout)?);
    let share = share(worker, server, &conn, &http)?;
    let asked = Asked { worker, share: &share, conn: &conn, now, deadline };
    let answering = pin!(asked.answer(http));
    let (mut outcome, answer) = match worker.deadlines.within(Some(deadline), answering).await {
        Some(answered) => answered,
        None => {
            let outcome = Outcome { reason: Some(Reason::Timeout), ..Outcome::default() };
            (outcome, Err(format!("it has not answered within {timeout:?}")))
        }
    };
    if answer.is_err() {
        outcome.reason.get_or_insert(Reason::Protocol);
    }
    let Outcome { status, grpc_status, mtls, reason } = outcome;
    share.series.of(mtls).record(worker.index, status, grpc_status, reason, now.elapsed());
    answer
}

/// The message that is sent.
fn frame(domain: &str, told: Told<'_>) -> Bytes {
    let entry = |(key, value): (&str, Cow<'_, str>)| Entry { key: key.to_owned(), value: value.into_owned() };
    let descriptor = |one: Vec<_>| RateLimitDescriptor { entries: one.into_iter().map(entry).collect() };
    let descriptors = told.into_iter().map(descriptor).collect();
    let request = RateLimitRequest { domain: domain.to_owned(), descriptors, hits_addend: 0 };
    let length = request.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    request.encode_raw(&mut framed);
    framed.freeze()
}

/// A connection of our own, for what a request on `conn` makes us ask.
fn own(conn: &Conn) -> Conn {
    let arrival = Arrival { peer: conn.peer, via: None, original: None, upstream: None };
    Conn::new(arrival, HttpVersion::Http2, Side::Outbound(Outbound::default()))
}

/// The backend where the server is that `request` asks.
fn share(
    worker: &Worker,
    server: &LimitServer,
    conn: &Conn,
    request: &Request<Body>,
) -> Result<Arc<BoundShare>, String> {
    let said = |failure: Failure| failure.to_string();
    let destination = server.destination().ok_or("the control plane has not said yet where it is")?;
    destination.touch();
    let bound = rules(worker, &destination).map_err(said)?;
    let share = worker.view.with(|table| {
        let connection = facts::outgoing(worker, table.own.as_deref(), conn.peer, bound.key.port);
        let (rule, _) = bound.http.find(&facts::request(request, &connection).ok()?)?;
        BoundShare::draw(&rule.shares, &mut worker.rng.borrow_mut()).cloned()
    });
    share.ok_or_else(|| format!("no route of {} has a backend for it", bound.key))
}

/// The request that asks `server`.
fn request(server: &LimitServer, message: Bytes, timeout: Duration) -> Result<Request<Body>, String> {
    let uri = Uri::builder().scheme("http").authority(&*server.authority).path_and_query(PATH).build();
    let uri = uri.map_err(|error| format!("{} is no host and port: {error}", server.authority))?;
    let mut request = Request::new(Body::full(message));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let timeout = HeaderValue::try_from(format!("{}m", timeout.as_millis().max(1)));
    headers.insert("grpc-timeout", timeout.expect("digits and a letter"));
    Ok(request)
}

/// How a call ended, for those who count it.
#[derive(Debug, Default)]
struct Outcome {
    status: Option<u16>,
    grpc_status: Option<u8>,
    mtls: bool,
    reason: Option<Reason>,
}

/// One call.
struct Asked<'a> {
    worker: &'a Rc<Worker>,
    share: &'a Arc<BoundShare>,
    conn: &'a Conn,
    now: Instant,
    deadline: Instant,
}

impl Asked<'_> {
    /// What comes back. A call of which no byte was sent is sent once more: its connection was at its end.
    async fn answer(&self, mut http: Box<Request<Body>>) -> (Outcome, Result<RateLimitResponse, String>) {
        let tried = Tried::default();
        let step = dispatch(Rc::clone(self.worker));
        let mut fresh = false;
        loop {
            let attempt = Attempt {
                conn: self.conn,
                share: self.share,
                tried: &tried,
                at: self.now,
                until: None,
                progress: None,
                deadline: Some(self.deadline),
                fresh,
                blames: true,
                beside: Beside::Nothing,
            };
            match step.attempt(http, &attempt).await {
                Ok(response) => return read(response).await,
                Err(crate::step::Error { request: Some(again), .. }) if !fresh => http = again,
                Err(error) => {
                    let outcome = Outcome { reason: Some(error.failure.reason), ..Outcome::default() };
                    return (outcome, Err(error.failure.to_string()));
                }
            }
            fresh = true;
        }
    }
}

/// What `response` says.
async fn read(Response { http, facts }: Response) -> (Outcome, Result<RateLimitResponse, String>) {
    let (head, mut body) = http.into_parts();
    let mut outcome = Outcome {
        status: Some(head.status.as_u16()),
        grpc_status: grpc_status(&head.headers),
        mtls: facts.endpoint.as_ref().is_some_and(|endpoint| endpoint.target.identity.is_some()),
        reason: facts.reason,
    };
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) if bytes.len() + data.len() > LONGEST_ANSWER => {
                return (outcome, Err(format!("its answer is longer than {LONGEST_ANSWER} bytes")));
            }
            Ok(Ok(data)) => bytes.extend_from_slice(&data),
            Ok(Err(frame)) => {
                outcome.grpc_status = frame.trailers_ref().and_then(grpc_status).or(outcome.grpc_status);
            }
            Err(error) => {
                outcome.reason = outcome.reason.or(Some(reason_of(&error)));
                return (outcome, Err(format!("its answer broke off: {error}")));
            }
        }
    }
    let answer = match (outcome.grpc_status, head.status.as_u16()) {
        (Some(0), 200) => decode(&bytes),
        (Some(status), 200) => Err(format!("it answered with the status {status} of gRPC")),
        (_, status) => Err(format!("it answered {status}, which is no answer of gRPC's")),
    };
    (outcome, answer)
}

/// The one message of an answer.
fn decode(bytes: &[u8]) -> Result<RateLimitResponse, String> {
    let wrong = |why: &dyn Display| format!("its answer cannot be read: {why}");
    let (prefix, message) = bytes.split_at_checked(PREFIX).ok_or_else(|| wrong(&"it has no message"))?;
    let [compressed, length @ ..] = prefix else { return Err(wrong(&"it has no message")) };
    let length = length.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte));
    if *compressed != 0 || length != message.len() {
        return Err(wrong(&"it is not one message without compression"));
    }
    RateLimitResponse::decode(message).map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_question_is_read_as_it_was_meant() {
        let framed = frame("shop", vec![vec![("user", "alice".into()), ("generic_key", "a".into())]]);

        assert_eq!(framed[..PREFIX], [0, 0, 0, 0, u8::try_from(framed.len() - PREFIX).unwrap()]);
        let request = RateLimitRequest::decode(&framed[PREFIX..]).unwrap();
        assert_eq!(request.domain, "shop");
        let entries = request.descriptors[0].entries.iter().map(|entry| (&*entry.key, &*entry.value));
        assert_eq!(entries.collect::<Vec<_>>(), [("user", "alice"), ("generic_key", "a")]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
        }
    }
}
