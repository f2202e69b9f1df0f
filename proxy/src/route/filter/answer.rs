//! Answers that the proxy gives itself: redirects, fixed answers, and that a filter cannot be used.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};
use selvedge_model::{
    facts::Connection,
    filter::{ReadyAnswer, ReadyFilters, Redirect, grpc_of},
};

use super::unusable;
use crate::{
    body::Body,
    facts,
    fields::{GRPC_STATUS, grpc_message, is_grpc},
    step::{Error, Matched},
    worker::Worker,
};

/// The answer to a preflight.
pub(super) fn preflight(headers: HeaderMap) -> http::Response<Body> {
    let mut answer = http::Response::new(Body::default());
    *answer.headers_mut() = headers;
    answer
}

/// The answer to `matched`.
///
/// # Errors
/// If a filter cannot be used.
pub(super) fn give(
    worker: &Worker,
    filters: &ReadyFilters,
    answer: &ReadyAnswer,
    matched: &Matched,
) -> Result<http::Response<Body>, Error> {
    match answer {
        ReadyAnswer::Redirect(status, redirect) => {
            self::redirect(worker, filters, *status, redirect, matched)
        }
        ReadyAnswer::Direct(status, body) => Ok(direct(*status, body, is_grpc(matched.http.headers()))),
        ReadyAnswer::Unusable(why) => Err(unusable(matched, why)),
    }
}

fn redirect(
    worker: &Worker,
    filters: &ReadyFilters,
    status: StatusCode,
    redirect: &Redirect,
    matched: &Matched,
) -> Result<http::Response<Body>, Error> {
    let Matched { http, conn, rule, place, .. } = matched;
    let connection = facts::outgoing(worker, None, conn.peer, rule.service.port);
    // Whether trusted proxies stand before us: the port is theirs then.
    let connection = Connection { client: conn.incoming().client, ..connection };
    let place = place.map(usize::from);
    let location = filters.location(redirect, &facts::request(http, &connection)?, place);
    let location = location.map_err(|why| unusable(matched, why))?;
    let mut answer = http::Response::new(Body::default());
    *answer.status_mut() = status;
    answer.headers_mut().insert(LOCATION, location);
    Ok(answer)
}

/// To a gRPC caller the body is the status message, as from Envoy.
fn direct(status: StatusCode, body: &Bytes, grpc: bool) -> http::Response<Body> {
    let mut answer = http::Response::new(Body::default());
    let headers = answer.headers_mut();
    if grpc {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(grpc_of(status))));
        headers.insert("grpc-message", grpc_message(&String::from_utf8_lossy(body)));
        return answer;
    }
    let may_have_body =
        !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    if may_have_body && !body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        *answer.body_mut() = Body::full(body.clone());
    }
    *answer.status_mut() = status;
    answer
}
