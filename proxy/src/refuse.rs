//! The first step that may refuse a request: for its head's form or size, or because too much is held already.
//!
//! A refusal is a failure like any other from here on: it is answered, counted and logged as all others are.

use std::rc::Rc;

use tower::Layer;

use crate::{
    budget::Action,
    error::{REFUSED, Reason, Refusal},
    settings::HeadLimits,
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
    http.extensions().get::<Refusal>().copied()
}

/// Has `request`, which has just come by HTTP/2, refused if its head is larger than the `limits`; the first steps of its path add
/// to it. A sidecar (`is_peers`) has added to it already. The heads of HTTP/1 are judged as they are read.
pub(crate) fn limit_head<B>(request: &mut http::Request<B>, limits: HeadLimits, is_peers: bool) {
    let limits = if is_peers { limits.with_room_for_a_sidecar() } else { limits };
    let refusal = if request.headers().len() > limits.count {
        TOO_MANY_FIELDS
    } else if list_size(request) > limits.bytes {
        TOO_LONG
    } else {
        return;
    };
    request.extensions_mut().insert(refusal);
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

    #[test]
    fn a_head_is_judged_as_it_came_and_a_sidecar_may_have_added_to_it() {
        let limits = HeadLimits { bytes: 300, count: 2 };
        let refusal = |fields: &[(&str, &str)], is_peers| {
            let mut request = http::Request::get("http://a/").body(()).unwrap();
            for (name, value) in fields {
                let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
                request.headers_mut().append(name, value.parse().unwrap());
            }
            limit_head(&mut request, limits, is_peers);
            request.extensions().get::<Refusal>().copied()
        };
        let (two, three) = ([("a", "b"); 2], [("a", "b"); 3]);
        let (long, longer) = (&*"x".repeat(300), &*"x".repeat(9_000));

        assert_eq!([refusal(&two, false), refusal(&three, true)], [None, None]);
        assert_eq!(refusal(&three, false), Some(TOO_MANY_FIELDS));
        assert_eq!(refusal(&[("a", "b"); 100], true), Some(TOO_MANY_FIELDS));
        assert_eq!([refusal(&[("a", long)], false), refusal(&[("a", long)], true)], [Some(TOO_LONG), None]);
        assert_eq!(refusal(&[("a", longer)], true), Some(TOO_LONG));
    }
}
