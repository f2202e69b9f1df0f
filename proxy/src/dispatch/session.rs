//! Sends the requests of a session to its endpoint, and tells the client which session it has.

use std::{sync::Arc, time::Instant};

use http::{HeaderValue, Request, header::SET_COOKIE};

use super::affinity::cookie_values;
use crate::{
    bind::{BoundBackend, BoundEndpoint, BoundSession, Carrier, Session},
    step::{Conn, Response},
};

/// The session that `http` belongs to, as it was read when its backend was drawn, or as its token says.
pub(super) fn of<B>(bound: &BoundSession, http: &Request<B>) -> Option<Session> {
    http.extensions().get().copied().or_else(|| read(bound, http))
}

/// The same of a request whose backend is not drawn yet. Its token is not opened again: all shares of a rule have the same
/// sessions.
pub(crate) fn first<B>(bound: &BoundSession, http: &mut Request<B>) -> Option<Session> {
    let session = read(bound, http)?;
    http.extensions_mut().insert(session);
    Some(session)
}

fn read<B>(bound: &BoundSession, http: &Request<B>) -> Option<Session> {
    match &bound.carrier {
        Carrier::Header(name) => bound.read(http.headers().get(name)?.as_bytes()),
        Carrier::Cookie(name, _) => cookie_values(http, name).find_map(|token| bound.read(token)),
    }
}

/// The endpoint of `session` at `backend`, if it is there and may be called.
pub(super) fn endpoint(
    session: Option<&Session>,
    backend: &BoundBackend,
    now: Instant,
) -> Option<Arc<BoundEndpoint>> {
    let session = session.filter(|session| session.is_with(backend))?;
    backend.callable_at(session.endpoint, now).cloned()
}

/// Tells the client in `response`, which `endpoint` of `backend` gave, which session it has now, if that is not what it
/// knows: the one `before`.
pub(super) fn tell(
    bound: &BoundSession,
    before: Option<Session>,
    backend: &BoundBackend,
    endpoint: &BoundEndpoint,
    conn: &Conn,
    response: &mut Response,
) {
    let is_there = |session: &Session| session.is_with(backend) && backend.is_picked_at(session.endpoint);
    let session = match before.filter(is_there) {
        Some(session) if session.endpoint == endpoint.address => bound.used_again(session),
        // Its endpoint has failed, and the session comes back to it.
        Some(_) if !bound.moves_on_failure => None,
        _ => Some(Session::new(backend, endpoint.address)),
    };
    let Some(token) = session.and_then(|session| bound.token(&session)) else { return };
    let headers = response.http.headers_mut();
    match &bound.carrier {
        Carrier::Header(name) => {
            if let Ok(value) = HeaderValue::try_from(token) {
                headers.insert(name.clone(), value);
            }
        }
        Carrier::Cookie(_, text) => {
            headers.extend(text.with(&token, conn.is_secure()).map(|cookie| (SET_COOKIE, cookie)));
        }
    }
}
