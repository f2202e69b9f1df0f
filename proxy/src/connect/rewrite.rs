//! What changes in a message when it moves from one connection to another (RFC 9110, section 7.6).

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version,
    header::{CONNECTION, COOKIE, EXPECT, HOST, PROXY_AUTHENTICATE, TE, TRANSFER_ENCODING, UPGRADE},
    uri::{PathAndQuery, Scheme},
};

use super::{Failure, Reason};
use crate::{seldom, upgrade::WebSocket};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what only concerns the connection that a message came on.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // One look at each name there is costs less than a look-up of each that there might be.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    if let Some(connection) = headers.remove(CONNECTION) {
        let named = connection.to_str().unwrap_or_default().split(',').map(str::trim);
        for name in named.filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()) {
            // `Connection: close, host` must not take away what the request is about.
            if name != HOST && name != TE {
                headers.remove(name);
            }
        }
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE] {
        headers.remove(name);
    }
    if headers.get(TE).is_some_and(|te| te != "trailers") {
        headers.remove(TE);
    }
}

/// Whether a field of this name may have to go.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-authenticate"
            | "te"
    )
}

/// Removes from a request what is for us alone.
fn strip_request(request: &mut Request<crate::body::Body>) -> Result<(), Failure> {
    if request.method() == Method::CONNECT {
        let what = "CONNECT is not served: the proxy takes requests for services, and opens no tunnels";
        return Err(Failure::new(Reason::BadRequest, what));
    }
    strip_hop_by_hop(request.headers_mut());
    // `Expect: 100-continue` has been met: the server that read the request says 100 as soon as somebody
    // wants the body, which is when there is a connection for it.
    seldom::remove(request.headers_mut(), &EXPECT);
    Ok(())
}

/// Makes `request` fit for an HTTP/1.1 connection: origin form, with a Host header.
pub(super) fn for_http1(request: &mut Request<crate::body::Body>) -> Result<(), Failure> {
    strip_request(request)?;
    if WebSocket::is_asked_by(request) {
        WebSocket::announce(request.headers_mut());
    }
    if let Some(authority) = request.uri().authority() {
        if !request.headers().contains_key(HOST) {
            let host = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(authority.as_str().as_bytes()))
                .map_err(|_| Failure::new(Reason::BadRequest, "the request's authority is no host name"))?;
            request.headers_mut().insert(HOST, host);
        }
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
    }
    if request.version() == Version::HTTP_2 {
        join_cookies(request.headers_mut());
    }
    *request.version_mut() = Version::HTTP_11;
    Ok(())
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
pub(super) fn for_http2(request: &mut Request<crate::body::Body>, scheme: Scheme) -> Result<(), Failure> {
    strip_request(request)?;
    let host = request.headers_mut().remove(HOST);
    if request.uri().authority().is_none() {
        let invalid = || Failure::new(Reason::BadRequest, "the request has no Host header that names a host");
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
        let invalid = |_| Failure::new(Reason::BadRequest, "the request's target is no URI");
        *request.uri_mut() = Uri::from_parts(parts).map_err(invalid)?;
    }
    *request.version_mut() = Version::HTTP_2;
    Ok(())
}

/// Makes `response` fit for whatever connection the request came on.
pub(super) fn answer(response: &mut Response<crate::body::Body>) {
    strip_hop_by_hop(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
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

        for_http1(&mut request).unwrap();

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
            for_http1(&mut request).unwrap();
            request.headers().get_all(COOKIE).iter().cloned().collect::<Vec<_>>()
        };

        assert_eq!(cookies(Version::HTTP_2), ["a=1; b=2"]);
        assert_eq!(cookies(Version::HTTP_11), ["a=1", "b=2"], "what came in HTTP/1.1 goes on as it came");
    }

    #[test]
    fn a_request_from_http1_gets_an_authority() {
        let mut request = request("/a?b=c");
        request.headers_mut().insert(HOST, HeaderValue::from_static("reviews:9080"));
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("keep-alive, x-hop"));
        request.headers_mut().insert("x-hop", HeaderValue::from_static("1"));

        for_http2(&mut request, Scheme::HTTP).unwrap();

        assert_eq!(request.uri(), "http://reviews:9080/a?b=c");
        assert!(request.headers().is_empty());
    }

    #[test]
    fn a_request_without_a_host_is_refused() {
        assert!(for_http2(&mut request("/"), Scheme::HTTP).is_err());
    }

    #[test]
    fn connection_cannot_name_host_away() {
        let mut request = request("/");
        request.headers_mut().insert(HOST, HeaderValue::from_static("a"));
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("host, te"));
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));

        for_http1(&mut request).unwrap();

        assert_eq!(request.headers()[HOST], "a");
        assert_eq!(request.headers()[TE], "trailers");
    }
}
