//! What a client from outside says about itself, and about how it came: a gateway replaces it by what it knows. Whoever
//! reads it behind the gateway can believe it.
//!
//! | field | what becomes of it |
//! |---|---|
//! | `x-forwarded-for` | the address that the client connects from |
//! | `x-forwarded-proto` | `http` or `https`: what the client speaks with the gateway |
//! | `x-forwarded-host` | the authority that the client asks for |
//! | `x-request-id` | a new random one (UUID, version 4) |
//! | `forwarded`, `x-real-ip`, any other `x-forwarded-…`, and all other fields of [`crate::fields::claims`] | removed |
//!
//! With `--trusted-hops` N the last N proxies before the gateway are believed. `x-forwarded-for` is appended to, and its
//! entry N from the right is the client's address (as Envoy's `xff_num_trusted_hops` has it). `x-forwarded-proto`,
//! `x-forwarded-host` and `x-request-id` stay as they come, if they come once.
//!
//! A name counts in every spelling that an app may take for it, as in [`crate::fields::reserved`].
//! `x-forwarded-client-cert` says what the client has proven by a certificate, where its listener asks for one.

mod pace;

use std::{
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::HOST,
    uri::{Authority, PathAndQuery, Scheme},
};
use pin_project_lite::pin_project;
use tower::{Layer, Service, layer::layer_fn};

pub use self::pace::pace;
use crate::{
    facts::ClientAddress,
    fields::{FORWARDED_CLIENT_CERT, claims::is_claim, get_rare, shared},
    step::{Conn, Error, LastNamed, Request, Response, Step, address_value},
    telemetry::access_log,
};

/// The addresses that a request came by.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// What a request is called in logs.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The step that replaces what a client says about itself.
pub fn edge<S: Step<Request>>() -> impl Layer<S, Service = Edge<S>> {
    layer_fn(|inner| Edge { inner })
}

/// See [`edge`].
#[derive(Debug, Clone)]
pub struct Edge<S> {
    inner: S,
}

impl<S: Step<Request>> Service<Request> for Edge<S> {
    type Response = Response;
    type Error = Error;
    type Future = Edged<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let id = settle(&mut request.http, &request.conn);
        let headers = request.http.headers();
        let addresses = if access_log::enabled() { get_rare(headers, &FORWARDED_FOR).cloned() } else { None };
        if let Some(underway) = request.http.body().underway() {
            underway.settled(id.clone(), addresses.clone());
        }
        Edged { inner: self.inner.call(request), id, addresses }
    }
}

pin_project! {
    /// The answer of [`Edge`].
    #[derive(Debug)]
    pub struct Edged<F> {
        #[pin]
        inner: F,
        // What the request is called behind this gateway, and so in the log.
        id: Option<HeaderValue>,
        // By which addresses it came, as this gateway says it; `None`: nothing needs it.
        addresses: Option<HeaderValue>,
    }
}

impl<F: Future<Output = Result<Response, Error>>> Future for Edged<F> {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.inner.poll(cx).map(|mut result| {
            let facts = match &mut result {
                Ok(response) if response.facts.reason.is_some() || access_log::enabled() => {
                    Some(&mut response.facts)
                }
                Ok(_) => None,
                Err(error) => Some(&mut *error.facts),
            };
            if let Some(facts) = facts {
                let rare = facts.rare();
                (rare.request_id, rare.forwarded_for) = (this.id.take(), this.addresses.take());
            }
            result
        })
    }
}

/// Says in `request` what is known of its client, if it came to a gateway on `conn`. Returns what it is called from here on.
pub(crate) fn settle<B>(request: &mut http::Request<B>, conn: &Conn) -> Option<HeaderValue> {
    let gateway = conn.gateway()?;
    let spoken = if conn.is_secure() { Scheme::HTTPS } else { Scheme::HTTP };
    let address = gateway.address_of(conn.peer);
    let mut named = gateway.named.borrow_mut();
    let id = tell_as(request, (conn.peer.ip(), address), &spoken, gateway.trusted_hops, &mut named);
    // What the client says of it, `normalize` has taken away.
    if let Some(client) = &gateway.xfcc {
        request.headers_mut().insert(FORWARDED_CLIENT_CERT, client.clone());
    }
    Some(id)
}

/// Says in `request` what is known of its client: it connects from `peer`, speaks `spoken` with us, and the last
/// `trusted_hops` proxies before us are believed. Returns what it is called from here on.
pub fn tell<B>(
    request: &mut http::Request<B>,
    peer: IpAddr,
    spoken: &Scheme,
    trusted_hops: u8,
) -> HeaderValue {
    tell_as(request, (peer, address_value(peer)), spoken, trusted_hops, &mut None)
}

/// The same of a peer whose address is also given as a header's value, and what the last request has `named`.
fn tell_as<B>(
    request: &mut http::Request<B>,
    peer: (IpAddr, HeaderValue),
    spoken: &Scheme,
    trusted_hops: u8,
    named: &mut Option<LastNamed>,
) -> HeaderValue {
    match trusted_hops {
        0 => replace(request, peer.1, spoken, named),
        hops => append(request, peer, spoken, hops.into(), named),
    }
}

/// Believes what trusted proxies, the last of which is `peer`, say of a client that is `hops` of them away.
fn append<B>(
    request: &mut http::Request<B>,
    (peer, address): (IpAddr, HeaderValue),
    spoken: &Scheme,
    hops: usize,
    named: &mut Option<LastNamed>,
) -> HeaderValue {
    let headers = request.headers_mut();
    let only = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).cloned()
    };
    let (proto, host, id) = (only(&FORWARDED_PROTO), only(&FORWARDED_HOST), only(&REQUEST_ID));
    // All of every line: whoever could hide a line would hide what a trusted proxy has appended to it.
    let lines = headers.get_all(FORWARDED_FOR).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let before = lines.collect::<Vec<_>>().join(", ");
    let client = client_address(&before, hops).unwrap_or(peer);
    let spoken = match proto.as_ref().map(HeaderValue::as_bytes) {
        Some(b"https") => &Scheme::HTTPS,
        Some(b"http") => &Scheme::HTTP,
        _ => spoken,
    };
    let own = replace(request, address, spoken, named);
    let headers = request.headers_mut();
    if !before.is_empty()
        && let Ok(all) = HeaderValue::try_from(format!("{before}, {peer}"))
    {
        headers.insert(FORWARDED_FOR, all);
    }
    let kept = [(FORWARDED_HOST, host), (REQUEST_ID, id.clone())];
    for (name, value) in kept.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        headers.insert(name, value);
    }
    request.extensions_mut().insert(ClientAddress(client));
    id.unwrap_or(own)
}

/// The address at the place `hops` from the right of what proxies have said, each appending whom it was called by.
fn client_address(said: &str, hops: usize) -> Option<IpAddr> {
    let entry = said.rsplit(',').nth(hops.checked_sub(1)?)?.trim();
    let with_port = || entry.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']')).unwrap_or(entry);
    bare.parse().ok().or_else(with_port).map(|ip: IpAddr| ip.to_canonical())
}

/// Says in `request` what is known of a client at `peer` that speaks `spoken` with us. What it names, if it is not what the
/// last one has `named`, is remembered. Returns what it is called from here on.
fn replace<B>(
    request: &mut http::Request<B>,
    peer: HeaderValue,
    spoken: &Scheme,
    named: &mut Option<LastNamed>,
) -> HeaderValue {
    remove_claims(request.headers_mut());
    remember(request, named);
    let proto = match *spoken == Scheme::HTTPS {
        true => const { HeaderValue::from_static("https") },
        false => const { HeaderValue::from_static("http") },
    };
    let headers = request.headers_mut();
    headers.insert(FORWARDED_FOR, peer);
    headers.insert(FORWARDED_PROTO, proto);
    if let Some(LastNamed { host, .. }) = named {
        headers.insert(FORWARDED_HOST, host.clone());
    }
    let id = request_id();
    headers.insert(REQUEST_ID, id.clone());
    if request.uri().scheme().unwrap_or(&Scheme::HTTP) != spoken
        && let Some(LastNamed { authority: Some(authority), .. }) = named
    {
        set_scheme(request, spoken, authority.clone());
    }
    id
}

/// Notes in `last` what `request` names: nothing, if it names nothing.
fn remember<B>(request: &http::Request<B>, last: &mut Option<LastNamed>) {
    let named = match request.uri().authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => get_rare(request.headers(), &HOST).map(HeaderValue::as_bytes).unwrap_or_default(),
    };
    if last.as_ref().is_none_or(|last| last.host.as_bytes() != named) {
        // Copied: a part of the request would keep all of the buffer that it was read into.
        let host = HeaderValue::from_bytes(named).ok().filter(|_| !named.is_empty());
        *last = host.map(|host| LastNamed { host, authority: Authority::try_from(named).ok() });
    }
}

/// Removes what the client has no right to say.
fn remove_claims(headers: &mut HeaderMap) {
    if headers.keys().any(|name| is_claim(name.as_str())) {
        let claims: Vec<HeaderName> =
            headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
        for claim in claims {
            headers.remove(claim);
        }
    }
}

/// What the client speaks counts for rules and redirects, whatever the request says.
fn set_scheme<B>(request: &mut http::Request<B>, scheme: &Scheme, authority: Authority) {
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(scheme.clone());
    parts.authority = Some(authority);
    parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

/// A random UUID of version 4 (RFC 9562, section 5.4).
fn request_id() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    const VERSION: u128 = 4 << 76;
    const VARIANT: u128 = 0b10 << 62;
    let random = fastrand::u128(..) & !(0xf << 76) & !(0b11 << 62);
    let mut text = [b'-'; 36];
    let bytes = (random | VERSION | VARIANT).to_be_bytes();
    let places = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    for (byte, place) in bytes.into_iter().zip(places) {
        text[place] = DIGITS[usize::from(byte >> 4)];
        text[place + 1] = DIGITS[usize::from(byte & 0xf)];
    }
    shared(text).expect("hexadecimal digits and dashes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> (IpAddr, HeaderValue) {
        ([192, 0, 2, 7].into(), HeaderValue::from_static("192.0.2.7"))
    }

    fn settled(claims: &[(&'static str, &'static str)], spoken: &Scheme) -> http::Request<()> {
        let mut request = http::Request::get("/a?b").header(HOST, "shop.example.com:8080").body(()).unwrap();
        for (name, value) in claims {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        replace(&mut request, HeaderValue::from_static("192.0.2.7"), spoken, &mut None);
        request
    }

    /// What a gateway behind `hops` proxies makes of `forwarded`: the client's address, and what the app gets.
    fn appended(forwarded: &[&'static str], hops: usize) -> (String, String) {
        let mut request = http::Request::get("/").header(HOST, "shop.example.com").body(()).unwrap();
        for line in forwarded {
            request.headers_mut().append(FORWARDED_FOR, HeaderValue::from_static(line));
        }
        append(&mut request, peer(), &Scheme::HTTP, hops, &mut None);
        let ClientAddress(client) = request.extensions().get().unwrap();
        (client.to_string(), request.headers()[FORWARDED_FOR].to_str().unwrap().to_owned())
    }

    #[test]
    fn the_client_is_so_many_hops_from_the_right() {
        // The examples of Envoy's documentation of x-forwarded-for.
        let said = &["203.0.113.128, 203.0.113.10, 203.0.113.1"];
        let all = "203.0.113.128, 203.0.113.10, 203.0.113.1, 192.0.2.7";
        assert_eq!(appended(said, 2), ("203.0.113.10".to_owned(), all.to_owned()));
        assert_eq!(appended(said, 1).0, "203.0.113.1");
        assert_eq!(appended(said, 4).0, "192.0.2.7", "there are not so many");
        assert_eq!(appended(&[], 1), ("192.0.2.7".to_owned(), "192.0.2.7".to_owned()));
        assert_eq!(appended(&["203.0.113.1, nonsense"], 1).0, "192.0.2.7");
        assert_eq!(appended(&["203.0.113.1", "[2001:db8::1]:80"], 1).0, "2001:db8::1");
        for line in [&b"\xe9, 203.0.113.9"[..], b"10.0.0.1, \xff\xfe, 203.0.113.9"] {
            let mut request = http::Request::get("/").header(HOST, "shop.example.com").body(()).unwrap();
            request.headers_mut().insert(FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap());
            append(&mut request, peer(), &Scheme::HTTP, 1, &mut None);
            let ClientAddress(client) = request.extensions().get().unwrap();
            assert_eq!(client.to_string(), "203.0.113.9", "bytes that are no text hide nothing");
            assert!(request.headers()[FORWARDED_FOR].as_bytes().ends_with(b"203.0.113.9, 192.0.2.7"));
        }
        assert_eq!(appended(&["203.0.113.1", "203.0.113.2:8080"], 1).0, "203.0.113.2");
    }

    #[test]
    fn what_trusted_proxies_say_stays() {
        let mut request = http::Request::get("/a").header(HOST, "shop.example.com").body(()).unwrap();
        for (name, value) in
            [("x-forwarded-proto", "https"), ("x-request-id", "theirs"), ("forwarded", "for=10.0.0.1")]
        {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }

        append(&mut request, peer(), &Scheme::HTTP, 1, &mut None);

        assert_eq!(request.headers()[FORWARDED_PROTO], "https");
        assert_eq!(request.uri(), "https://shop.example.com/a");
        assert_eq!(request.headers()[REQUEST_ID], "theirs");
        assert!(!request.headers().contains_key("forwarded"));
    }

    #[test]
    fn what_a_stranger_says_about_itself_is_replaced() {
        let claims = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x_forwarded_for", "10.0.0.3"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "bank.example"),
            ("x-forwarded-prefix", "/admin"),
            ("x-request-id", "1"),
            ("x_real-ip", "10.0.0.4"),
            ("forwarded", "for=10.0.0.5"),
            ("x-envoy-external-address", "10.0.0.6"),
            ("true-client-ip", "10.0.0.7"),
            ("x_original_url", "/admin"),
            ("x-other", "stays"),
        ];

        let request = settled(&claims, &Scheme::HTTP);

        let headers = request.headers();
        assert_eq!(headers[FORWARDED_FOR], "192.0.2.7");
        assert_eq!(headers[FORWARDED_PROTO], "http");
        assert_eq!(headers[FORWARDED_HOST], "shop.example.com:8080");
        assert_ne!(headers[REQUEST_ID], "1");
        assert_eq!(headers["x-other"], "stays");
        assert_eq!(headers.len(), 6, "{headers:?}");
        assert_eq!(request.uri(), "/a?b");
    }

    #[test]
    fn what_the_client_speaks_is_the_scheme() {
        let request = settled(&[], &Scheme::HTTPS);
        assert_eq!(request.uri(), "https://shop.example.com:8080/a?b");
        assert_eq!(request.headers()[FORWARDED_PROTO], "https");

        let mut request = http::Request::get("https://shop.example.com/").body(()).unwrap();
        replace(&mut request, HeaderValue::from_static("192.0.2.7"), &Scheme::HTTP, &mut None);
        assert_eq!(request.uri(), "http://shop.example.com/");
    }

    #[test]
    fn what_the_last_request_of_a_connection_has_named_is_not_said_of_the_next() {
        let mut named = None;
        let mut told = |target: &'static str, host: Option<&'static str>| {
            let mut request = http::Request::get(target).body(()).unwrap();
            if let Some(host) = host {
                request.headers_mut().insert(HOST, HeaderValue::from_static(host));
            }
            replace(&mut request, HeaderValue::from_static("192.0.2.7"), &Scheme::HTTPS, &mut named);
            let host = request.headers().get(FORWARDED_HOST).map(|host| host.to_str().unwrap().to_owned());
            (host, request.uri().to_string())
        };
        let both = |host: &str, uri: &str| (Some(host.to_owned()), uri.to_owned());

        for _ in 0..2 {
            assert_eq!(told("/a", Some("one.example")), both("one.example", "https://one.example/a"));
        }
        assert_eq!(told("/a", Some("two.example")), both("two.example", "https://two.example/a"));
        assert_eq!(told("http://one.example/b", None), both("one.example", "https://one.example/b"));
        assert_eq!(told("https://two.example/c", None), both("two.example", "https://two.example/c"));
        assert_eq!(told("/d", None), (None, "/d".to_owned()));
        assert_eq!(told("/a", Some("two.example:443")), both("two.example:443", "https://two.example:443/a"));
    }

    #[test]
    fn each_request_has_an_id_of_its_own() {
        let (one, other) = (request_id(), request_id());

        assert_ne!(one, other);
        let one = one.to_str().unwrap();
        assert_eq!((one.len(), &one[14..15], one.matches('-').count()), (36, "4", 4), "{one}");
        assert!("89ab".contains(&one[19..20]), "{one}");
    }
}
