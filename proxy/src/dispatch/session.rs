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
        Carrier::Cookie(name, _) => tokens(cookie_values(http, name)).find_map(|token| bound.read(token)),
    }
}

/// How many cookies are decrypted: as many as a client may have honestly, for several paths.
const MOST_TOKENS: usize = 4;

/// Those of `values` that are worth a look.
fn tokens<'v>(values: impl Iterator<Item = &'v [u8]>) -> impl Iterator<Item = &'v [u8]> {
    values.filter(|value| BoundSession::is_token(value)).take(MOST_TOKENS)
}

/// Whether what would carry the session of `http` carries something of the app's instead, which must not be replaced.
pub(super) fn is_the_apps<B>(bound: &BoundSession, http: &Request<B>) -> bool {
    match &bound.carrier {
        Carrier::Header(name) => are_the_apps(http.headers().get_all(name).iter().map(HeaderValue::as_bytes)),
        Carrier::Cookie(name, _) => are_the_apps(cookie_values(http, name)),
    }
}

/// Where one of `values` is a token, whatever it says, the app's is for another path or domain, and stays.
fn are_the_apps<'v>(values: impl Iterator<Item = &'v [u8]>) -> bool {
    let mut values = values.filter(|value| !value.is_empty()).peekable();
    values.peek().is_some() && values.all(|value| !BoundSession::is_token(value))
}

/// Whether the app sets itself what would carry the session. A client keeps the last of two cookies, so ours would take the
/// place of the app's.
fn is_set(carrier: &Carrier, response: &Response) -> bool {
    let headers = response.http.headers();
    match carrier {
        Carrier::Header(name) => {
            headers.get_all(name).iter().any(|value| !BoundSession::is_token(value.as_bytes()))
        }
        Carrier::Cookie(_, text) => headers.get_all(SET_COOKIE).iter().any(|cookie| text.is_set_by(cookie)),
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
    if is_set(&bound.carrier, response) {
        return;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_is_the_apps_and_few_are_decrypted() {
        let token = "A".repeat(95);
        let values = ["of-the-app"; 3].into_iter().chain([token.as_str(); 9]).map(str::as_bytes);

        assert!(BoundSession::is_token(token.as_bytes()));
        for (values, expected) in [
            (vec![], false),
            (vec![""], false),
            (vec!["of-the-app"], true),
            (vec!["", "of-the-app"], true),
            (vec!["of-the-app", token.as_str()], false),
        ] {
            assert_eq!(are_the_apps(values.iter().map(|value| value.as_bytes())), expected, "{values:?}");
        }
        assert_eq!(tokens(values).collect::<Vec<_>>(), [token.as_bytes(); MOST_TOKENS]);
    }
}
