//! The first step that may refuse a request: for its head's form or size, or because too much is held already.
//!
//! A refusal is a failure like any other from here on: it is answered, counted and logged as all others are.

use std::rc::Rc;

use tower::Layer;

use crate::{
    budget::Action,
    error::{REFUSED, Reason, Refusal},
    step::{self, Error, Request, Step},
    worker::Worker,
};

const fn too_large(what: &'static str) -> Refusal {
    Refusal { reason: Reason::HeadTooLarge, what }
}

/// The refusal of a request whose head has more bytes than the limit.
pub(crate) const TOO_LONG: Refusal = too_large("the request's head is too long");

/// The refusal of a request with more fields than the limit.
pub(crate) const TOO_MANY_FIELDS: Refusal = too_large("the request has too many header fields");

/// The refusal of a request whose method cannot be one.
pub(crate) const NO_METHOD: Refusal =
    Refusal { reason: Reason::BadRequest, what: "the request's method has a character that is not allowed" };

/// The refusal of a request while too many bytes are held.
pub(crate) const OVERLOADED: Refusal = Refusal {
    reason: Reason::Overflow,
    what: "this proxy holds as many unread bytes as --buffer-budget allows",
};

/// The step that refuses what is malformed or too large, and everything while `worker` holds too much.
pub fn refuse<S: Step<Request>>(worker: Rc<Worker>) -> impl Layer<S, Service = impl Step<Request>> {
    step::refuse_if(move |request| {
        refusal(&worker, request).map(|Refusal { reason, what }| Error::new(reason, what))
    })
}

/// What is wrong with a request, as far as its stream or its size tells.
fn refusal(worker: &Worker, Request { http, conn, .. }: &Request) -> Option<Refusal> {
    // HTTP/1 alone has one.
    let watch = conn.watch.get();
    if http.method().as_str() == REFUSED {
        return Some(watch.and_then(|watch| watch.refusal()).unwrap_or(NO_METHOD));
    }
    if worker.budget.is_exhausted() {
        worker.budget.acted(Action::RefusedRequest);
        return Some(OVERLOADED);
    }
    let most = worker.settings.limits.head;
    if http.headers().len() > most.count {
        return Some(TOO_MANY_FIELDS);
    }
    // Of HTTP/1 every byte has been counted.
    let is_too_long = watch.is_none() && list_size(http) > most.bytes;
    is_too_long.then_some(TOO_LONG)
}

/// How long the head of a request of HTTP/2 is, in bytes (RFC 9113, section 6.5.2).
fn list_size<B>(request: &http::Request<B>) -> usize {
    const FIELD: usize = 32;
    let uri = request.uri();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let pseudo =
        [":method", ":scheme", ":authority", ":path"].iter().map(|name| name.len() + FIELD).sum::<usize>()
            + request.method().as_str().len()
            + uri.scheme_str().map_or(0, str::len)
            + authority
            + path;
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD);
    pseudo + fields.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_of_http2_counts_its_fields_and_32_for_each() {
        let request = http::Request::get("http://a/b?c").header("x-y", "zz").body(()).unwrap();

        let pseudo = (7 + 3) + (7 + 4) + (10 + 1) + (5 + 4);
        assert_eq!(list_size(&request), pseudo + (3 + 2) + 5 * 32);
    }
}
