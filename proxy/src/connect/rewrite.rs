//! What changes in a request when it moves from one connection to another (RFC 9110, section 7.6). What it must
//! not take along has been taken from it when it came, by [`crate::normalize`]; from answers it is taken here.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri, Version,
    header::{CONNECTION, COOKIE, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    uri::{PathAndQuery, Scheme},
};
use http_body::Body as _;

use crate::{
    body::Body,
    error::{Failure, Reason},
    fields::{self, Framing, WebSocket, get_rare},
};

fn refuse_connect(request: &Request<Body>) -> Result<(), Failure> {
    if request.method() == Method::CONNECT {
        let what = "CONNECT is not served: the proxy takes requests for services, and opens no tunnels";
        return Err(Failure::new(Reason::BadRequest, what));
    }
    Ok(())
}

/// Makes `request` fit for an HTTP/1.1 connection: origin form, with a Host header, and with a body that says
/// where it ends. `to_sidecar`: it goes to a mesh peer's.
pub(super) fn for_http1(request: &mut Request<Body>, to_sidecar: bool) -> Result<(), Failure> {
    refuse_connect(request)?;
    if request.body().is_web_socket() {
        WebSocket::announce(request.headers_mut());
    } else if !to_sidecar && get_rare(request.headers(), &TE).is_some() {
        // RFC 9110, section 10.1.4: it is for this connection. A sidecar knows, and counts fields.
        request.headers_mut().insert(CONNECTION, const { HeaderValue::from_static("te") });
    }
    if let Some(authority) = request.uri().authority() {
        if !request.headers().contains_key(HOST) {
            let host = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(authority.as_str().as_bytes()))
                .map_err(|_| {
                    Failure::new(Reason::BadRequest, "the request's authority is not a host name")
                })?;
            request.headers_mut().insert(HOST, host);
        }
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
    }
    if request.version() == Version::HTTP_2 {
        join_cookies(request.headers_mut());
    }
    if !request.body().is_end_stream() {
        fields::frame_body(request.headers_mut());
    }
    *request.version_mut() = Version::HTTP_11;
    Ok(())
}

/// Takes back what [`for_http1`] has said about a connection that `request` was not sent on after all.
pub(super) fn take_back(request: &mut Request<Body>) {
    for name in [CONNECTION, UPGRADE, TRANSFER_ENCODING] {
        request.headers_mut().remove(name);
    }
}

/// Makes one Cookie header of the several that HTTP/2 allows, and HTTP/1.1 does not (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs = headers.get_all(COOKIE);
    if crumbs.iter().nth(1).is_none() {
        return;
    }
    let joined = crumbs.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    // What were values are one still, with `; ` between them.
    if let Ok(cookie) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, cookie);
    }
}

/// Makes `request` fit for an HTTP/2 connection: absolute form, without a Host header.
pub(super) fn for_http2(request: &mut Request<Body>, scheme: Scheme) -> Result<(), Failure> {
    refuse_connect(request)?;
    let host = request.headers_mut().remove(HOST);
    if request.uri().authority().is_none() {
        let invalid = || Failure::new(Reason::BadRequest, "the request has no Host header with a host name");
        let host = host.ok_or_else(invalid)?;
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.authority = Some(host.as_bytes().try_into().map_err(|_| invalid())?);
        parts.scheme = Some(scheme);
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| invalid())?;
    } else if scheme == Scheme::HTTPS && request.uri().scheme() != Some(&scheme) {
        // Servers refuse a request that says that it came in plaintext when it did not.
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(scheme);
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        let invalid = |_| Failure::new(Reason::BadRequest, "the request's target is not a URI");
        *request.uri_mut() = Uri::from_parts(parts).map_err(invalid)?;
    }
    *request.version_mut() = Version::HTTP_2;
    Ok(())
}

/// Makes `response` fit for whatever connection the request came on. `from_sidecar`: a mesh peer's sidecar sent
/// it, and may have made it.
///
/// # Errors
/// What is wrong with it.
pub(super) fn answer(response: &mut Response<Body>, from_sidecar: bool) -> Result<Framing, &'static str> {
    let (status, has_body) = (response.status(), !response.body().is_empty());
    *response.version_mut() = Version::HTTP_11;
    fields::answer(response.headers_mut(), status, has_body, from_sidecar)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;

    fn request(uri: &str) -> Request<Body> {
        Request::builder().uri(uri).body(Body::default()).unwrap()
    }

    #[test]
    fn a_request_from_http2_gets_a_host_and_origin_form() {
        let mut request = request("http://reviews:9080/a?b=c");

        for_http1(&mut request, false).unwrap();

        assert_eq!(request.uri(), "/a?b=c");
        assert_eq!(request.headers()[HOST], "reviews:9080");
    }

    #[test]
    fn crumbs_of_a_cookie_from_http2_are_one_cookie_in_http1() {
        let cookies = |version| {
            let mut request = request("http://reviews:9080/");
            *request.version_mut() = version;
            for crumb in ["a=1", "b=2"] {
                request.headers_mut().append(COOKIE, HeaderValue::from_static(crumb));
            }
            for_http1(&mut request, false).unwrap();
            request.headers().get_all(COOKIE).iter().cloned().collect::<Vec<_>>()
        };

        assert_eq!(cookies(Version::HTTP_2), ["a=1; b=2"]);
        assert_eq!(cookies(Version::HTTP_11), ["a=1", "b=2"], "what came in HTTP/1.1 goes on as it came");
    }

    #[test]
    fn a_request_from_http1_gets_an_authority() {
        let mut request = request("/a?b=c");
        request.headers_mut().insert(HOST, HeaderValue::from_static("reviews:9080"));

        for_http2(&mut request, Scheme::HTTP).unwrap();

        assert_eq!(request.uri(), "http://reviews:9080/a?b=c");
        assert!(request.headers().is_empty());
    }

    #[test]
    fn a_request_without_a_host_is_refused() {
        assert!(for_http2(&mut request("/"), Scheme::HTTP).is_err());
    }

    #[test]
    fn what_was_said_about_a_connection_is_taken_back() {
        let mut request = request("/");
        request.headers_mut().insert(HOST, HeaderValue::from_static("a"));
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        for_http1(&mut request, false).unwrap();
        assert_eq!(request.headers()[CONNECTION], "te");

        take_back(&mut request);
        for_http2(&mut request, Scheme::HTTP).unwrap();

        assert_eq!(request.headers().len(), 1, "{:?}", request.headers());
        assert_eq!(request.headers()[TE], "trailers");
    }

    #[test]
    fn a_request_without_a_body_says_nothing_of_one() {
        for method in ["GET", "POST", "OPTIONS"] {
            let mut request = request("http://a/");
            *request.method_mut() = method.parse().unwrap();

            for_http1(&mut request, false).unwrap();

            assert_eq!(request.headers().len(), 1, "{method}: {:?}", request.headers());
            assert_eq!(
                request.body().size_hint().exact(),
                None,
                "hyper would say content-length: 0 for some"
            );
        }
    }
}
