//! One condition of a rule: what it asks of a connection or a request, and what the answer is while that is not known.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{address::AddressSet, path::PathSet, reading::Readings, text::TextSet, truth::Truth};
use crate::{SpiffeId, facts, route::HeaderField, token::Token};

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
    /// The client's own address, which trusted proxies before a gateway may tell it.
    Remote(AddressSet),
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
    /// The path with its query (`request.headers[:path]`).
    Target(PathSet),
    /// A header, or another part of the request that is named like one.
    Header(HeaderField, TextSet),
    /// The issuer and subject of the request's verified token: `ISSUER/SUBJECT`.
    RequestPrincipal(TextSet),
    /// A claim of the request's verified token; the names lead from claim to claim.
    Claim(Vec<Box<str>>, TextSet),
    /// What this proxy cannot know, such as another filter's metadata: the condition's key. Whoever asks for it is answered
    /// so that less is allowed.
    Unknowable(Box<str>),
    /// The route of its server that the request follows, by its place among the rules of the server's table.
    Route(BTreeSet<usize>),
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// What it asks for.
    pub asks: Asks,
    /// Whether it holds if that is not so (`notPrincipals`, `notValues` and the like).
    pub negated: bool,
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
                | Asks::Target(_)
                | Asks::Header(..)
                | Asks::RequestPrincipal(_)
                | Asks::Claim(..)
                | Asks::Route(_)
        )
    }

    /// Whether it asks what only a request's token says.
    pub fn is_about_tokens(&self) -> bool {
        matches!(self.asks, Asks::RequestPrincipal(_) | Asks::Claim(..))
    }

    /// Whether it holds at `stage`. `refuses`: the rule that has it refuses what it matches.
    pub(super) fn holds(&self, stage: Stage<'_>, refuses: bool) -> Truth {
        // Whether being what is asked for leads to refusing: then each reading counts that is.
        let leads_to_refusing = refuses != self.negated;
        let is_it = match stage {
            // Istio drops such a field for a port without HTTP; a rule that permits is dropped with it.
            Stage::Opaque(_) if self.is_about_requests() => return Truth::from(refuses),
            Stage::Connection(_) if self.is_about_requests() => return Truth::Unknown(()),
            Stage::Connection(connection)
                if connection.client == facts::Client::OfRequest && matches!(self.asks, Asks::Remote(_)) =>
            {
                return Truth::Unknown(());
            }
            Stage::Request(readings) if self.is_about_requests() => {
                self.asks.of_request(readings, leads_to_refusing)
            }
            _ => self.asks.of_connection(stage.connection()).unwrap_or(leads_to_refusing),
        };
        Truth::from(is_it != self.negated)
    }
}

impl Asks {
    /// What asks for a header, or for a part of the request that is named like one.
    pub fn header(field: HeaderField, values: TextSet) -> Self {
        match field {
            HeaderField::Path => Self::Target(PathSet::with_queries(&values)),
            field => Self::Header(field, values),
        }
    }

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
            Self::Remote(set) => set.contains(connection.client_address()?),
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
            Self::Host(set) => readings.is_host(set, any),
            Self::Method(set) => readings.is_method(set, any),
            Self::Path(set) => readings.is_path(set, any),
            Self::Target(set) => readings.is_target(set, any),
            Self::Header(field, set) => readings.is_field(field, set, any),
            Self::RequestPrincipal(set) => {
                request.token.and_then(Token::principal).is_some_and(|principal| set.contains(principal))
            }
            Self::Claim(path, set) => {
                request.token.is_some_and(|token| token.has_claim(path, |text| set.contains(text)))
            }
            Self::Route(places) => readings.is_routed(|place| places.contains(&place), any),
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
    let path = principal(identity).split_once('/').map_or("", |(_, path)| path);
    path.strip_prefix("ns/").unwrap_or("")
}
