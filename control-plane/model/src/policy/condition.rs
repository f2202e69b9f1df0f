//! One condition of a rule: what it asks of a connection or a request, and what the answer is while that is not known.

use std::{
    cell::OnceCell,
    collections::BTreeSet,
    ops::{BitAnd, BitOr, Not},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use super::{
    address::AddressSet,
    path::{Loose, PathSet, loosen},
    text::{TextPattern, TextSet},
};
use crate::{SpiffeId, facts, route::HeaderField};

/// Headers by which a client may ask an app to take a request for one with another method.
static METHOD_OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// What a condition asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Asks {
    /// The peer's identity, without `spiffe://`.
    Principal(TextSet),
    /// The namespace in the peer's identity.
    Namespace(TextSet),
    /// The service account in the peer's identity: `NAMESPACE/sa/NAME`.
    ServiceAccount(TextSet),
    /// The trust domain in the peer's identity.
    TrustDomain(TextSet),
    /// The address that the connection comes from.
    Source(AddressSet),
    /// The address that the connection was going to.
    Destination(AddressSet),
    /// The workload's own port.
    Port(BTreeSet<u16>),
    /// The name that the client asks for in TLS (SNI).
    ServerName(TextSet),
    /// The authority, whatever its case; with its port if the client sends one. Patterns are in lower case.
    Host(TextSet),
    /// The method.
    Method(TextSet),
    /// The path without its query.
    Path(PathSet),
    /// A header, or a part of the request that is named like one.
    Header(HeaderField, TextSet),
    /// The issuer and subject of the request's verified token: `ISSUER/SUBJECT`.
    RequestPrincipal(TextSet),
    /// A claim of the request's verified token; the names lead from claim to claim.
    Claim(Vec<Box<str>>, TextSet),
    /// What this proxy cannot know, such as another filter's metadata: the condition's key. Whoever asks for it is answered
    /// so that less is allowed.
    Unknowable(Box<str>),
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// What it asks for.
    pub asks: Asks,
    /// Whether it holds if that is not so (`notPrincipals`, `notValues` and the like).
    pub negated: bool,
}

/// Whether something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Truth {
    No,
    /// Only a request says.
    Unknown,
    Yes,
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
            Self::Yes => Self::No,
        }
    }
}

impl BitAnd for Truth {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        self.min(other)
    }
}

impl BitOr for Truth {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.max(other)
    }
}

/// A request, and how else an app may read it; each reading is made when the first condition asks for it.
#[derive(Debug)]
pub(super) struct Readings<'a> {
    pub(super) request: &'a facts::Request<'a>,
    path: OnceCell<Loose<'a>>,
    overrides: OnceCell<bool>,
}

impl<'a> Readings<'a> {
    pub(super) fn new(request: &'a facts::Request<'a>) -> Self {
        Self { request, path: OnceCell::new(), overrides: OnceCell::new() }
    }

    pub(super) fn loose_path(&self) -> &Loose<'a> {
        self.path.get_or_init(|| loosen(self.request.path))
    }

    /// Whether the request asks for other methods than its own.
    fn overrides_method(&self) -> bool {
        let asked = || METHOD_OVERRIDES.iter().any(|name| self.request.headers.contains_key(name));
        *self.overrides.get_or_init(asked)
    }

    /// The methods that an app may take the request for, besides its own.
    fn other_methods(&self) -> impl Iterator<Item = &str> {
        let names =
            METHOD_OVERRIDES.iter().take(if self.overrides_method() { METHOD_OVERRIDES.len() } else { 0 });
        names.flat_map(|name| self.request.headers.get_all(name)).map(text)
    }
}

/// What is known when a policy is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage<'a> {
    /// A connection whose requests are still to come.
    Connection(&'a facts::Connection<'a>),
    /// A connection without requests.
    Opaque(&'a facts::Connection<'a>),
    /// A request.
    Request(&'a Readings<'a>),
}

impl<'a> Stage<'a> {
    pub(super) fn connection(self) -> &'a facts::Connection<'a> {
        match self {
            Self::Connection(connection) | Self::Opaque(connection) => connection,
            Self::Request(readings) => readings.request.connection,
        }
    }
}

impl Condition {
    /// Whether it asks what only requests say.
    pub fn is_about_requests(&self) -> bool {
        matches!(
            self.asks,
            Asks::Host(_)
                | Asks::Method(_)
                | Asks::Path(_)
                | Asks::Header(..)
                | Asks::RequestPrincipal(_)
                | Asks::Claim(..)
        )
    }

    /// Whether it holds at `stage`. `refuses`: the rule that has it refuses what it matches.
    pub(super) fn holds(&self, stage: Stage<'_>, refuses: bool) -> Truth {
        // Whether being what is asked for leads to refusing: then each reading counts that is.
        let leads_to_refusing = refuses != self.negated;
        let is_it = match stage {
            // Istio drops such a field for a port without HTTP; a rule that permits is dropped with it.
            Stage::Opaque(_) if self.is_about_requests() => return Truth::from(refuses),
            Stage::Connection(_) if self.is_about_requests() => return Truth::Unknown,
            Stage::Request(readings) if self.is_about_requests() => {
                self.asks.of_request(readings, leads_to_refusing)
            }
            _ => self.asks.of_connection(stage.connection()).unwrap_or(leads_to_refusing),
        };
        Truth::from(is_it != self.negated)
    }
}

impl Asks {
    /// Whether `connection` is what is asked for; `None`: nobody knows.
    fn of_connection(&self, connection: &facts::Connection<'_>) -> Option<bool> {
        let source = &connection.source;
        let of_identity = |part: fn(&SpiffeId) -> &str, set: &TextSet| {
            source.identity.is_some_and(|peer| set.contains(part(peer)))
        };
        Some(match self {
            Self::Principal(set) => of_identity(principal, set),
            Self::Namespace(set) => of_identity(SpiffeId::namespace, set),
            Self::ServiceAccount(set) => of_identity(account, set),
            Self::TrustDomain(set) => of_identity(SpiffeId::trust_domain, set),
            Self::Source(set) => set.contains(source.address?),
            Self::Destination(set) => set.contains(connection.destination?.ip()),
            Self::Port(ports) => ports.contains(&connection.port),
            Self::ServerName(set) => set.contains(connection.server_name?),
            _ => return None,
        })
    }

    /// Whether `readings` are what is asked for: if `any`, in one reading; otherwise in each.
    fn of_request(&self, readings: &Readings<'_>, any: bool) -> bool {
        let request = readings.request;
        match self {
            Self::Host(set) => {
                is_host(set, request.authority) || (any && is_host(set, without_port(request.authority)))
            }
            Self::Method(set) => {
                let itself = set.contains(request.method.as_str());
                let is_other =
                    |method: &str| set.contains(method) || set.contains(&method.to_ascii_uppercase());
                match any {
                    true => itself || readings.other_methods().any(is_other),
                    false => itself && readings.other_methods().all(is_other),
                }
            }
            Self::Path(set) if any => {
                set.contains(request.path) || set.contains_loosely(&readings.loose_path().path)
            }
            Self::Path(set) => {
                let elsewhere = || readings.loose_path().elsewhere.as_deref();
                set.contains(request.path) && elsewhere().is_none_or(|path| set.contains(path))
            }
            Self::Header(HeaderField::Header(name), set) => is_header(set, request.headers, name, any),
            Self::Header(field, set) => field.value(request).is_some_and(|value| set.contains(&value)),
            // No request has a verified token yet.
            _ => false,
        }
    }
}

/// An identity as policies write it.
pub(super) fn principal(identity: &SpiffeId) -> &str {
    let text = identity.as_str();
    text.strip_prefix("spiffe://").unwrap_or(text)
}

/// `NAMESPACE/sa/NAME` of an identity.
pub(super) fn account(identity: &SpiffeId) -> &str {
    principal(identity).split_once("/ns/").map_or("", |(_, account)| account)
}

fn is_host(set: &TextSet, authority: &str) -> bool {
    let (exact, others) = set.parts();
    let text = authority.as_bytes();
    exact.iter().any(|host| host.as_bytes().eq_ignore_ascii_case(text))
        || others.iter().any(|pattern| match pattern {
            TextPattern::Prefix(prefix) => {
                text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
            }
            TextPattern::Suffix(suffix) => {
                let start = text.len().checked_sub(suffix.len());
                start.is_some_and(|start| text[start..].eq_ignore_ascii_case(suffix.as_bytes()))
            }
            other => other.is_match(authority),
        })
}

/// A host without its port and the dot at the end of a full name.
fn without_port(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(':') => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// Whether the header `name` is in `set`: several lines of it are one text with commas, as Envoy reads them. If `any`, one
/// line is enough, also under a name that apps take for the same; otherwise each line must be in `set`, too.
fn is_header(set: &TextSet, headers: &HeaderMap, name: &HeaderName, any: bool) -> bool {
    let is_in = |value: &HeaderValue| match value.to_str() {
        // As in Istio, `*` asks only whether the header is there.
        Ok(text) => set.contains(text) || (text.is_empty() && asks_presence(set)),
        Err(_) => set.contains(&String::from_utf8_lossy(value.as_bytes())),
    };
    let mut lines = headers.get_all(name).iter();
    let (first, second) = (lines.next(), lines.next());
    let joined = || {
        let lines: Vec<_> = headers.get_all(name).iter().map(text).collect();
        set.contains(&lines.join(","))
    };
    if any {
        let alike = || headers.iter().filter(|(other, _)| *other != name && reads_as(other, name));
        return first.is_some_and(is_in)
            || (second.is_some() && (headers.get_all(name).iter().any(is_in) || joined()))
            || alike().any(|(_, value)| is_in(value));
    }
    first.is_some_and(is_in) && (second.is_none() || (headers.get_all(name).iter().all(is_in) && joined()))
}

fn asks_presence(set: &TextSet) -> bool {
    set.parts().1.contains(&TextPattern::Present)
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("\u{fffd}")
}

/// Whether apps that make `_` of other marks (CGI, WSGI, Rack, PHP) take the two names for one.
fn reads_as(one: &HeaderName, other: &HeaderName) -> bool {
    let (one, other) = (one.as_str().as_bytes(), other.as_str().as_bytes());
    let same = |(one, other): (&u8, &u8)| {
        one == other || (!one.is_ascii_alphanumeric() && !other.is_ascii_alphanumeric())
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}
