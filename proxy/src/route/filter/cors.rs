//! CORS: preflights are answered, and answers say which pages may read them.

use http::{HeaderMap, HeaderValue};
use selvedge_model::filter::Crossing;

use crate::{bind::BoundFilters, body::Body};

/// What becomes of a request.
pub(super) enum Judged {
    /// It is a preflight, answered with these headers.
    Preflight(HeaderMap),
    /// It goes on; its answer may be read by pages of this origin.
    Goes(Option<HeaderValue>),
}

/// What becomes of `request`.
pub(super) fn judge(filters: &BoundFilters, request: &http::Request<Body>) -> Judged {
    let judged = filters.cors.as_ref().map(|cors| cors.judge(request.method(), request.headers()));
    match judged {
        Some(Crossing::Preflight(headers)) => Judged::Preflight(headers),
        Some(Crossing::Goes(origin)) => Judged::Goes(origin),
        None => Judged::Goes(None),
    }
}
