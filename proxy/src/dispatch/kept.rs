//! What an attempt is kept together with other requests by, and what its answer tells the client of that.

use std::sync::Arc;

use http::{HeaderValue, Request, header::SET_COOKIE};

use super::{
    Attempt,
    affinity::hashed,
    choose::{Asked, choose},
    session,
};
use crate::{
    arrival::OriginalDestination,
    bind::{Affinity, AffinityCookie, BoundBackend, BoundEndpoint, BoundSession, Session},
    error::Failure,
    step::{Error, Response},
    worker::Worker,
};

/// What the answer may have to tell; `None`: nothing. It is held while the answer is waited for, and so it is small.
pub(super) struct Kept<'a>(Option<Box<Telling<'a>>>);

struct Telling<'a> {
    /// The cookie that the client is given, by whose value its requests are kept together.
    cookie: Option<HeaderValue>,
    /// The rule's sessions, and the one that the request belongs to.
    session: Option<(&'a BoundSession, Option<Session>)>,
}

impl<'a> Kept<'a> {
    /// What keeps `http` together with others, and the endpoint that follows from it.
    pub(super) fn choose<B>(
        worker: &Worker,
        attempt: &Attempt<'a>,
        http: &Request<B>,
    ) -> Result<(Self, Arc<BoundEndpoint>), Failure> {
        let Attempt { share, conn, tried, at, .. } = *attempt;
        let is_first = tried.len() == 0;
        let (hash, cookie) = hashed(worker, &share.backend, http, conn, !is_first);
        let session = share.session.as_deref().map(|bound| (bound, session::of(bound, http)));
        let of_session = session.as_ref().filter(|_| is_first).and_then(|(_, session)| session.as_ref());
        let endpoint = match session::endpoint(of_session, &share.backend, at) {
            Some(endpoint) => endpoint,
            None => {
                let asked = Asked { hash, dialled: conn.original.and_then(OriginalDestination::dialled) };
                choose(worker, &share.backend, tried, at, asked)?
            }
        };
        let told = |(bound, session): &(&BoundSession, Option<Session>)| {
            session.is_some() || !session::is_the_apps(bound, http)
        };
        let session = session.filter(told);
        let tells = cookie.is_some() || session.is_some();
        Ok((
            Self(tells.then(|| Box::new(Telling { cookie: cookie.map(|cookie| *cookie), session }))),
            endpoint,
        ))
    }

    /// Tells the client in the `result` that `endpoint` gave, what it must know.
    pub(super) fn tell(
        &mut self,
        attempt: &Attempt<'_>,
        endpoint: &BoundEndpoint,
        result: &mut Result<Response, Error>,
    ) {
        let (Ok(response), Some(telling)) = (result, self.0.take()) else { return };
        let Telling { cookie, session } = *telling;
        if let Some(cookie) = cookie
            && !is_set(&attempt.share.backend, response)
        {
            response.http.headers_mut().append(SET_COOKIE, cookie);
        }
        if let Some((bound, before)) = session {
            session::tell(bound, before, &attempt.share.backend, endpoint, attempt.conn, response);
        }
    }
}

/// Whether the app sets the cookie itself by which requests to `backend` are kept together. A client keeps the last of two, so
/// ours would take the app's place.
fn is_set(backend: &BoundBackend, response: &Response) -> bool {
    let Some(Affinity::Cookie(AffinityCookie { given: Some(given), .. })) = &backend.affinity else {
        return false;
    };
    response.http.headers().get_all(SET_COOKIE).iter().any(|cookie| given.is_set_by(cookie))
}
