//! Settles once what a request means, for all later steps.
//!
//! From here on the request has one path, in normal form (`path`), and one authority: what a rule matches, what a
//! policy decides on, and what the app receives are the same. The query is left as it is. `OPTIONS *` keeps its
//! asterisk. A fragment does not belong in a request: HTTP/1 requests with one are refused before they come here, and
//! the fragment of HTTP/2's has been cut off. CONNECT is refused where no tunnels are offered. Fields about the
//! client's own connection, and fields that only sidecars write, are removed here ([`crate::fields`]): what is added
//! later is ours.

use std::{
    future::{Ready, ready},
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{
    HeaderMap, Method, Uri,
    header::HOST,
    uri::{Authority, PathAndQuery},
};
use selvedge_model::normalize::{
    authority,
    path::{self, Slashes},
};
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    error::Reason,
    fields,
    step::{Error, Request, Response, Step},
};

/// The step that brings requests into normal form.
pub fn normalize<S: Step<Request>>(slashes: Slashes) -> impl Layer<S, Service = Normalize<S>> {
    layer_fn(move |inner| Normalize { inner, slashes })
}

/// See [`normalize`].
#[derive(Debug, Clone)]
pub struct Normalize<S> {
    inner: S,
    slashes: Slashes,
}

impl<S: Step<Request>> Service<Request> for Normalize<S> {
    type Response = Response;
    type Error = Error;
    type Future = Either<S::Future, Ready<Result<Response, Error>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let from_sidecar = request.conn.identity().is_some();
        let offers_tunnels = request.conn.outbound().is_some_and(|outbound| outbound.offers_tunnels);
        match settle_with(&mut request.http, from_sidecar, offers_tunnels, self.slashes) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(error) => Either::Right(ready(Err(error))),
        }
    }
}

/// Why CONNECT is refused.
pub const NO_TUNNEL: &str = "CONNECT is not served here: only the outbound listener opens tunnels, for an app whose \
                             proxy it is (https_proxy), and only where connections are not redirected";

/// Brings `request` into normal form; see the module.
///
/// # Errors
/// If it has none.
pub fn settle<B>(request: &mut http::Request<B>, from_sidecar: bool, tunnels: bool) -> Result<(), Error> {
    settle_with(request, from_sidecar, tunnels, Slashes::Kept)
}

/// As [`settle`], with what becomes of slashes in the path.
///
/// # Errors
/// If it has no normal form.
pub fn settle_with<B>(
    request: &mut http::Request<B>,
    from_sidecar: bool,
    tunnels: bool,
    slashes: Slashes,
) -> Result<(), Error> {
    if request.method() == Method::CONNECT {
        return if tunnels { tunnel(request) } else { Err(bad(NO_TUNNEL)) };
    }
    fields::request(request.headers_mut(), from_sidecar).map_err(bad)?;
    one_authority(request.uri(), request.headers())?;
    let path = request.uri().path();
    if path == "*" {
        let options = request.method() == Method::OPTIONS;
        return options.then_some(()).ok_or_else(|| bad("* is a target for OPTIONS alone"));
    }
    let normal = path::normalize_with(path, slashes).map_err(|malformed| bad(malformed.to_string()))?;
    if let Some(normal) = normal {
        *request.uri_mut() = with_path(request.uri(), normal)?;
    }
    Ok(())
}

/// Refuses a request for a tunnel that does not say to which host and port, or is for a tunnel of a certain kind
/// (RFC 8441): of those only WebSocket is known, and that has been taken up before.
fn tunnel<B>(request: &http::Request<B>) -> Result<(), Error> {
    if request.extensions().get::<hyper::ext::Protocol>().is_some() {
        return Err(bad("an extended CONNECT for another protocol than websocket is not served"));
    }
    let authority = request.uri().authority();
    let port = authority.filter(|authority| !authority.as_str().contains('@')).and_then(Authority::port_u16);
    match port {
        Some(1..) => Ok(()),
        _ => Err(bad("the target of CONNECT is not HOST:PORT")),
    }
}

/// Refuses a request whose `:authority` (or absolute target) and Host header name different hosts, or
/// that has neither: which of them counts would be another matter for each reader.
fn one_authority(uri: &Uri, headers: &HeaderMap) -> Result<(), Error> {
    let mut hosts = headers.get_all(HOST).iter();
    let named = match (uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), None, _) => authority.as_str().as_bytes(),
        (None, Some(host), None) => host.as_bytes(),
        (Some(authority), Some(host), None)
            if authority::same(authority.as_str().as_bytes(), host.as_bytes()) =>
        {
            host.as_bytes()
        }
        (Some(_), Some(_), _) => {
            return Err(bad("the request's target and its Host header name different hosts"));
        }
        (None, ..) => return Err(bad("the request must have exactly one Host header")),
    };
    authority::check(named).map_err(bad)
}

fn with_path(uri: &Uri, mut path: String) -> Result<Uri, Error> {
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let invalid = || bad("the path cannot be written in its normal form");
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(|_| invalid())?);
    Uri::from_parts(parts).map_err(|_| invalid())
}

fn bad(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Reason::BadRequest, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(method: &str, uri: &str, hosts: &[&str]) -> Result<String, String> {
        let mut request = http::Request::builder().method(method).uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let mut request = request.body(()).unwrap();
        let result = settle(&mut request, false, false);
        result.map(|()| request.uri().to_string()).map_err(|error| error.failure.to_string())
    }

    #[test]
    fn the_query_is_left_alone() {
        let uri = settled("GET", "/a/../b?c=/../%zz&d=%00", &["x"]);
        assert_eq!(uri.unwrap(), "/b?c=/../%zz&d=%00");
        assert_eq!(settled("GET", "http://x/a/../b?", &[]).unwrap(), "http://x/b?");
    }

    #[test]
    fn one_host_is_named() {
        assert!(settled("GET", "/", &["x"]).is_ok());
        assert!(settled("GET", "http://x/", &[]).is_ok());
        assert!(settled("GET", "http://x/", &["X"]).is_ok());
        assert!(settled("GET", "http://x/", &["x:80"]).is_ok());
        for (uri, hosts) in [
            ("/", &[][..]),
            ("/", &["x", "x"]),
            ("http://x/", &["y"]),
            ("http://x/", &["x", "x"]),
            ("http://me@x/", &[]),
            ("http://x:a/", &[]),
            ("/", &["x/y"]),
            ("/", &[""]),
        ] {
            let refused = settled("GET", uri, hosts).unwrap_err();
            assert!(refused.starts_with("bad-request: "), "{refused}");
        }
    }

    #[test]
    fn special_targets_follow_their_rules() {
        assert_eq!(settled("OPTIONS", "*", &["x"]).unwrap(), "*");
        assert!(settled("GET", "*", &["x"]).unwrap_err().contains("OPTIONS alone"));
        assert!(settled("CONNECT", "x:443", &["x:443"]).unwrap_err().contains(NO_TUNNEL));
        assert!(settled("GET", "/%", &["x"]).unwrap_err().starts_with("bad-request: the path has a %"));
    }
}
