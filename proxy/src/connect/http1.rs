//! HTTP/1.1 connections: one request at a time, idle ones kept in a stack.

mod driven;
mod open;
mod pooled;

use std::{rc::Rc, time::Duration};

pub(super) use self::{
    open::IDLE_MESH,
    pooled::{Connections, DOUBTFUL},
};
use self::{open::open_or_wait, pooled::Connection};
use super::{
    Pool,
    answered::{SendError, answer, failed},
    interim::Client,
    rewrite,
    settings::PoolSettings,
    terms::Terms,
};
use crate::{
    bind::Target,
    body::{Body, Lease},
    error::{Failure, Reason},
    fields::{Framing, WebSocket, get_rare},
};
use http::{HeaderMap, HeaderName, StatusCode};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Sends one request; `client` is to have interim answers to it. A pooled connection that turns out to have died is
/// replaced, as long as hyper hands the request back unsent: that is never the caller's concern.
#[expect(clippy::manual_async_fn, reason = "an async fn would hold its arguments twice")]
pub(super) fn send(
    pool: &Rc<Pool>,
    target: &Target,
    settings: &PoolSettings,
    mut request: Box<http::Request<Body>>,
    client: Option<Client>,
    terms: &Terms<'_>,
) -> impl Future<Output = Result<Box<http::Response<Body>>, SendError>> {
    async move {
        rewrite::for_http1(&mut request, target.identity.is_some())?;
        let asked = request.body().is_web_socket();
        let idempotent = request.method().is_idempotent();
        let fresh = target.identity.is_none() && terms.fresh;
        loop {
            let in_turn = fresh || (terms.circuit.is_some() && pool.http1.waiting.is_busy());
            let kept = if in_turn { None } else { pool.http1.take(idempotent, terms).await };
            let (mut connection, reused) = match kept {
                Some(connection) => (connection, true),
                // Boxed: a handshake is rare, and its future is much larger than a request's.
                None => match Box::pin(open_or_wait(pool, target, settings, terms, idempotent)).await {
                    Ok(connection) => connection,
                    Err(failure) => {
                        rewrite::take_back(&mut request);
                        return Err(SendError { failure, request: Some(request) });
                    }
                },
            };
            connection.listener.listen(client.clone());
            match connection.driven.ask(&mut connection.sender, *request).await {
                Ok(response) => return received(target, connection, response, asked),
                Err(mut error) => {
                    let failure = failed(target, error.error(), || connection.lifetime.refusal());
                    match error.take_message() {
                        Some(unsent) if reused => *request = unsent,
                        Some(unsent) => {
                            let mut unsent = Box::new(unsent);
                            rewrite::take_back(&mut unsent);
                            let failure = failure.never_delivered();
                            return Err(SendError { failure, request: Some(unsent) });
                        }
                        None => return Err(failure.into()),
                    }
                }
            }
        }
    }
}

/// An answer; its connection comes back when it has been read, if it is HTTP still.
fn received(
    target: &Target,
    mut connection: Box<Connection>,
    response: Box<http::Response<Body>>,
    asked: bool,
) -> Result<Box<http::Response<Body>>, SendError> {
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switched && !(asked && WebSocket::is_named_in(response.headers())) {
        let what = format!("{} switched to a protocol that the request did not ask for", target.dial);
        return Err(Failure::new(Reason::Protocol, what).into());
    }
    if let Some(said) = keep_alive(response.headers()).filter(|_| target.identity.is_none()) {
        connection.promised = connection.promised.min(said);
    }
    let (mut response, framing) = answer(target, response)?;
    if switched {
        WebSocket::announce(response.headers_mut());
        let end = response.body_mut().end();
        end.standing = connection.lifetime.standing().cloned();
        end.permit = connection.lifetime.permit().cloned();
    } else {
        connection.requests = connection.requests.saturating_add(1);
        if framing == Framing::Doubtful {
            connection.kept = connection.kept.no_longer();
        }
        response.body_mut().end().lease = Some(Lease::Whole(connection));
    }
    Ok(response)
}

/// How long a server says that it keeps the connection (`Keep-Alive: timeout=5`, RFC 2068, section 19.7.1.1), less
/// what a request may take to get there.
fn keep_alive(headers: &HeaderMap) -> Option<Duration> {
    let parameters = get_rare(headers, &KEEP_ALIVE)?.to_str().ok()?;
    let seconds = parameters.split(',').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| value.trim().parse::<u32>().ok())?
    })?;
    let promised = Duration::from_secs(seconds.into());
    Some(promised.saturating_sub(Duration::from_secs(1)).max(promised / 2))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_connection_is_let_go_before_its_server_closes_it() {
        for (said, kept) in [
            ("timeout=5", Some(4_000)),
            ("max=100, Timeout = 2", Some(1_000)),
            ("timeout=1", Some(500)),
            ("timeout=0", Some(0)),
            ("max=100", None),
            ("timeout=soon", None),
        ] {
            let headers = HeaderMap::from_iter([(KEEP_ALIVE, HeaderValue::from_static(said))]);
            assert_eq!(keep_alive(&headers), kept.map(Duration::from_millis), "{said}");
        }
    }
}
