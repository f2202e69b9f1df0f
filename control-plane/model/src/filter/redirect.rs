//! Answers that need no backend (Gateway API `RequestRedirect`; `VirtualService` `redirect`, `directResponse`).

use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::{PathRewrite, with_query};
use crate::{StringMatch, facts};

/// An answer with a `Location`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Redirect {
    /// The status: 301, 302, 303, 307 or 308.
    pub status: u16,
    /// The scheme; `None` = the request's.
    pub scheme: Option<String>,
    /// The host; `None` = the request's. It holds a port only if the document gave the authority one.
    pub host: Option<String>,
    /// The port.
    pub port: RedirectPort,
    /// The path; `None` = the request's. The query stays.
    pub path: Option<PathRewrite>,
    /// If there are any, the whole `Location` is put together from these, and all but the status means nothing (nginx's
    /// `return` with variables).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<LocationPiece>,
}

/// A piece of a `Location`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum LocationPiece {
    /// As it is written.
    Text(String),
    /// The request's scheme.
    Scheme,
    /// The host that it names, without a port.
    Host,
    /// The same with the port, if it names one.
    Authority,
    /// Its path.
    Path,
    /// Its query, without a question mark.
    Query,
    /// A question mark, if it has a query.
    QuestionMark,
    /// What this group of the regular expression found that the match asks of the path; nothing, if there is none.
    Group(u8),
}

impl Redirect {
    /// To the same over TLS, at the port of `https`.
    pub fn to_https(status: u16) -> Self {
        let scheme = Some("https".to_owned());
        Self { status, scheme, host: None, port: RedirectPort::Default, path: None, pieces: Vec::new() }
    }

    /// One that is put together from pieces.
    pub fn put_together(status: u16, pieces: Vec<LocationPiece>) -> Self {
        Self { pieces, scheme: None, ..Self::to_https(status) }
    }

    /// Whether it matters what the match asked of the path.
    pub fn asks_for_match(&self) -> bool {
        let by_group = self.pieces.iter().any(|piece| matches!(piece, LocationPiece::Group(_)));
        by_group || self.path.as_ref().is_some_and(PathRewrite::asks_for_match)
    }

    /// The `Location` for `request`, whose match asks `matched` of the path. The port that it was sent to is its
    /// connection's, unless trusted proxies stand between: then it is what the request's authority says.
    pub fn location(&self, request: &facts::Request<'_>, matched: Option<&StringMatch>) -> String {
        if !self.pieces.is_empty() {
            return self.pieces.iter().map(|piece| piece.of(request, matched)).collect();
        }
        let scheme = self.scheme.as_deref().unwrap_or(request.scheme);
        let asked = host_and_port(request.authority);
        let (host, own_port) = self.host.as_deref().map_or((asked.0, None), host_and_port);
        let port = match self.port {
            RedirectPort::Explicit(port) => Some(port),
            RedirectPort::OfScheme if self.scheme.is_some() => None,
            RedirectPort::OfScheme | RedirectPort::OfRequest => port_asked(request, asked.1),
            RedirectPort::OfAuthority if self.host.is_some() => own_port,
            RedirectPort::OfAuthority => {
                let is_old_schemes = scheme != request.scheme && asked.1 == port_of(request.scheme);
                asked.1.filter(|_| !is_old_schemes)
            }
            RedirectPort::Default => None,
        };
        let path = match &self.path {
            Some(rewrite) => rewrite.apply(request.path, matched),
            None => request.path.to_owned(),
        };
        let path = with_query(path, request.query);
        match port.filter(|port| Some(*port) != port_of(scheme)) {
            Some(port) => format!("{scheme}://{host}:{port}{path}"),
            None => format!("{scheme}://{host}{path}"),
        }
    }
}

impl LocationPiece {
    /// What it is for `request`, whose match asks `matched` of the path.
    fn of<'p>(&'p self, request: &facts::Request<'p>, matched: Option<&StringMatch>) -> &'p str {
        match self {
            Self::Text(text) => text,
            Self::Scheme => request.scheme,
            Self::Host => host_and_port(request.authority).0,
            Self::Authority => request.authority,
            Self::Path => request.path,
            Self::Query => request.query,
            Self::QuestionMark if request.query.is_empty() => "",
            Self::QuestionMark => "?",
            Self::Group(group) => match matched {
                Some(StringMatch::Regex(regex)) => {
                    regex.group(request.path, (*group).into()).unwrap_or_default()
                }
                _ => "",
            },
        }
    }
}

/// The port that the client of `request` called, whose authority names `named`; `None`: the scheme's own.
fn port_asked(request: &facts::Request<'_>, named: Option<u16>) -> Option<u16> {
    if request.connection.client == facts::Client::Source {
        return Some(request.connection.port);
    }
    // A proxy that ends TLS says https, and may leave the port of its own connection to us in the authority.
    let other_scheme = if request.scheme == "https" { "http" } else { "https" };
    named.filter(|port| Some(*port) != port_of(other_scheme))
}

/// The port that a scheme has if none is named.
fn port_of(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// The two parts of an authority; an IPv6 address keeps its brackets.
fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    let parts = authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parts {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// The port of a [`Redirect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum RedirectPort {
    /// This one; left out where it is the scheme's own.
    Explicit(u16),
    /// The scheme's own if the redirect names a scheme, and otherwise the port that the request was sent to; left out
    /// where it is the scheme's own (Gateway API `requestRedirect.port`).
    OfScheme,
    /// As the request's authority has it, unless the redirect names an authority; left out where the redirect changes
    /// the scheme and it is the old scheme's own (Envoy; `VirtualService` without `port`).
    OfAuthority,
    /// The port that the request was sent to (`VirtualService` `derivePort: FROM_REQUEST_PORT`).
    OfRequest,
    /// The scheme's own (`VirtualService` `derivePort: FROM_PROTOCOL_DEFAULT`).
    Default,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DirectResponse {
    /// The status, 200–599.
    pub status: u16,
    /// The body, at most 1 MiB.
    #[serde(serialize_with = "text")]
    pub body: Bytes,
}

fn text<S: Serializer>(body: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(body))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::facts::{Client, Connection, Source};

    /// The location for a request for `authority` that was sent to `port`.
    fn location(redirect: &Redirect, scheme: &str, authority: &str, port: u16) -> String {
        location_on(&Connection::new(Source::UNKNOWN, port), redirect, scheme, authority)
    }

    fn location_on(
        connection: &Connection<'_>,
        redirect: &Redirect,
        scheme: &str,
        authority: &str,
    ) -> String {
        let request = facts::Request {
            connection,
            method: &Method::GET,
            scheme,
            authority,
            path: "/a/b",
            query: "c=d",
            headers: &HeaderMap::new(),
            token: None,
        };
        redirect.location(&request, Some(&StringMatch::PathPrefix("/a".to_owned())))
    }

    fn redirect(scheme: Option<&str>, host: Option<&str>, port: RedirectPort) -> Redirect {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Redirect { status: 302, scheme: owned(scheme), host: owned(host), port, ..Redirect::to_https(302) }
    }

    #[test]
    fn the_port_is_as_each_rule_says_and_a_schemes_own_is_left_out() {
        use RedirectPort::{Default, Explicit, OfAuthority, OfRequest, OfScheme};
        for (scheme, host, port, asked, sent_to, becomes) in [
            // Gateway API, HTTPRequestRedirectFilter: port.
            (None, None, OfScheme, "a:8080", 8080, "http://a:8080"),
            (None, Some("b"), OfScheme, "a", 8080, "http://b:8080"),
            (None, None, OfScheme, "a", 80, "http://a"),
            (Some("https"), None, OfScheme, "a:8080", 8080, "https://a"),
            (Some("http"), None, OfScheme, "a:8080", 8080, "http://a"),
            (Some("https"), None, Explicit(443), "a", 80, "https://a"),
            (Some("https"), None, Explicit(80), "a", 80, "https://a:80"),
            (None, None, Explicit(80), "a:8080", 8080, "http://a"),
            (None, None, Explicit(9000), "a:8080", 8080, "http://a:9000"),
            // Envoy.
            (None, None, OfAuthority, "a:8080", 8080, "http://a:8080"),
            (None, None, OfAuthority, "a", 8080, "http://a"),
            (None, Some("b"), OfAuthority, "a:8080", 8080, "http://b"),
            (None, Some("b:9"), OfAuthority, "a:8080", 8080, "http://b:9"),
            (Some("https"), None, OfAuthority, "a:80", 80, "https://a"),
            (Some("https"), None, OfAuthority, "a:8080", 8080, "https://a:8080"),
            (None, None, OfRequest, "a", 8080, "http://a:8080"),
            (Some("https"), None, OfRequest, "a:1", 8080, "https://a:8080"),
            (None, None, Default, "a:8080", 8080, "http://a"),
            (None, Some("[::1]:9"), OfAuthority, "a", 80, "http://[::1]:9"),
            (None, None, Explicit(9), "[::1]", 80, "http://[::1]:9"),
            (None, None, OfAuthority, "[::1]:8080", 80, "http://[::1]:8080"),
        ] {
            let redirect = redirect(scheme, host, port);
            let found = location(&redirect, "http", asked, sent_to);
            assert_eq!(found, format!("{becomes}/a/b?c=d"), "{redirect:?} {asked} {sent_to}");
        }
    }

    #[test]
    fn behind_proxies_that_are_trusted_the_port_is_what_the_client_asked_for() {
        use RedirectPort::{OfRequest, OfScheme};
        let at = |client, port| Connection { client, ..Connection::new(Source::UNKNOWN, port) };
        let told = Client::At(std::net::Ipv4Addr::LOCALHOST.into());
        for (connection, scheme, asked, becomes) in [
            (at(told, 80), "https", "a", "https://a"),
            (at(told, 8080), "https", "a", "https://a"),
            (at(Client::OfRequest, 8080), "https", "a", "https://a"),
            (at(told, 8080), "https", "a:80", "https://a"),
            (at(told, 8080), "https", "a:8443", "https://a:8443"),
            (at(told, 8080), "http", "a", "http://a"),
            (at(told, 8080), "http", "a:8080", "http://a:8080"),
            (at(Client::Source, 80), "https", "a", "https://a:80"),
            (at(Client::Source, 8443), "https", "a", "https://a:8443"),
        ] {
            for port in [OfScheme, OfRequest] {
                let redirect = redirect(None, None, port);
                let found = location_on(&connection, &redirect, scheme, asked);
                assert_eq!(found, format!("{becomes}/a/b?c=d"), "{port:?} {connection:?} {scheme} {asked}");
            }
        }
    }

    #[test]
    fn the_path_is_rewritten_as_anywhere() {
        let mut to = redirect(None, None, RedirectPort::Default);
        to.path = Some(PathRewrite::PrefixBySegments("/x".to_owned()));
        assert_eq!(location(&to, "https", "a", 443), "https://a/x/b?c=d");
        to.path = Some(PathRewrite::Full("/x?y=z".to_owned()));
        assert_eq!(location(&to, "http", "a", 80), "http://a/x?y=z");
    }
}
