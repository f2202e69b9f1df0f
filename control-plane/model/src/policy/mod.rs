//! Who may come in: the mutual-TLS mode of a workload's ports, its policies, and the verdict on a connection or a
//! request.
//!
//! Mutual TLS is asked first, then the [network policies](NetworkRules), then the [policies](Authorization) that may ask
//! for requests: each of them has to let it in. What needs no request is decided once for a connection.

pub mod address;
mod authorization;
mod condition;
mod index;
mod mtls;
pub mod network;
pub mod path;
mod reading;
mod rule;
mod server;
pub mod text;
mod truth;

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

pub use self::{
    address::AddressSet,
    authorization::{Authorization, Note, Says},
    condition::{Asks, Condition},
    mtls::{MtlsMode, MtlsRule},
    network::NetworkRules,
    path::{PathSet, PathTemplate},
    rule::{Action, Policy, Rule},
    server::{MOST_ROUTES, ServerRoutes, Servers},
    text::{TextPattern, TextSet},
};
use self::{
    condition::Stage,
    network::{NetworkVerdict, Party},
    reading::Readings,
};
use crate::{facts, limit::RateLimits, token::Authentication};

/// The most rules that the policies of one workload may have together.
pub const MOST_RULES: usize = 10_000;
/// The most texts, addresses or ports that one condition may have.
pub const MOST_VALUES: usize = 10_000;
/// The most conditions that one rule may have.
pub const MOST_CONDITIONS: usize = 1_000;
/// The longest text in a policy, in bytes.
pub const LONGEST_TEXT: usize = 4096;

/// What one workload's sidecar lets in.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct InboundPolicy {
    /// For every port that `ports` does not name.
    pub default: MtlsRule,
    /// By workload (container) port.
    pub ports: BTreeMap<u16, MtlsRule>,
    /// Who may connect, of those whom mutual TLS lets in (`NetworkPolicy`). `None`: everybody.
    pub network: Option<Arc<NetworkRules>>,
    /// Who may do what, of those whom mutual TLS and `network` let in. `None`: everybody may do everything.
    pub authorization: Option<Arc<Authorization>>,
    /// Whose tokens are accepted. `None`: nobody's, and a request's tokens are its app's own business.
    pub authentication: Option<Arc<Authentication>>,
    /// The same in Linkerd's words: what both let in comes in. `None`: everybody may do everything.
    pub servers: Option<Arc<Servers>>,
    /// How many requests are let in, of those that all else lets in. `None`: all.
    pub limits: Option<Arc<RateLimits>>,
}

/// The answer to a request, or to a connection that is decided as a whole; with the rule that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'p> {
    /// Let it in.
    Allow {
        /// The document that says so.
        rule: &'p Arc<str>,
    },
    /// Refuse it.
    Deny {
        /// The document that says so.
        rule: &'p Arc<str>,
        /// What the peer lacks, in words for its operator.
        why: &'p str,
        /// Which kind of policy says so.
        by: By,
    },
}

/// Which kind of policy refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The mode of mutual TLS: the client sees for itself what is asked of it.
    Mtls,
    /// A network policy.
    Network,
    /// A policy that says who may do what.
    Authorization,
    /// A server has routes, and the request matches none of them.
    Route,
}

/// The answer to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionVerdict<'p> {
    /// It holds for the connection and for every request on it, as long as the policy is in force.
    Final(Verdict<'p>),
    /// Ask again with each request ([`InboundPolicy::authorize_request`]).
    DependsOnRequest {
        /// The first document that asks what only a request says.
        rule: &'p Arc<str>,
    },
}

impl InboundPolicy {
    /// The rule that governs `port`.
    pub fn rule(&self, port: u16) -> &MtlsRule {
        self.ports.get(&port).unwrap_or(&self.default)
    }

    /// The same for a workload that is a gateway. Its clients are strangers, and the mode of mutual TLS is not about them
    /// (Istio: `PeerAuthentication` does not apply to gateways).
    #[must_use]
    pub fn at_gateway(&self) -> Self {
        let open = MtlsRule { mode: MtlsMode::Disable, name: "gateway".into() };
        Self { default: open, ports: BTreeMap::new(), ..self.clone() }
    }

    /// Whether a client must call `port` with mutual TLS if it can.
    pub fn takes_mtls(&self, port: u16) -> bool {
        self.rule(port).mode != MtlsMode::Disable
    }

    /// Whether `connection` is let in, which may carry requests. Its `port` is the workload's own.
    pub fn authorize(&self, connection: &facts::Connection<'_>) -> ConnectionVerdict<'_> {
        match self.verdict(Stage::Connection(connection)) {
            Ok(verdict) => ConnectionVerdict::Final(verdict),
            Err(rule) => ConnectionVerdict::DependsOnRequest { rule },
        }
    }

    /// Whether `connection` is let in, which carries no requests that the proxy understands. As in Istio, a rule that
    /// allows and asks for something of HTTP allows nothing here, and one that denies is asked without that.
    pub fn authorize_opaque(&self, connection: &facts::Connection<'_>) -> Verdict<'_> {
        self.verdict(Stage::Opaque(connection)).unwrap_or_else(needs_request)
    }

    /// Whether `request` is let in.
    pub fn authorize_request(&self, request: &facts::Request<'_>) -> Verdict<'_> {
        self.verdict(Stage::Request(&Readings::new(request))).unwrap_or_else(needs_request)
    }

    /// The same of a request whose connection is not refused, as [`authorize`](Self::authorize) has said of it: network
    /// policies, which ask for the connection alone, are not asked again. If nothing else says anything of the request, its
    /// verdict names the rule of mutual TLS.
    pub fn authorize_next_request(&self, request: &facts::Request<'_>) -> Verdict<'_> {
        let connected = self.mtls(request.connection);
        self.verdict_on(connected, Stage::Request(&Readings::new(request))).unwrap_or_else(needs_request)
    }

    /// Whether policies say something of connections or requests that is only to be counted and logged.
    pub fn has_notes(&self) -> bool {
        self.network.as_ref().is_some_and(|network| network.logs())
            || self.servers.as_ref().is_some_and(|servers| servers.authorization().has_notes())
            || self.authorization.as_ref().is_some_and(|authorization| authorization.has_notes())
    }

    /// Whether requests to `port` follow routes of its server, so that also a client which may do nothing is told which
    /// of them there are not.
    pub fn has_routes(&self, port: u16) -> bool {
        self.servers.as_ref().is_some_and(|servers| servers.routes().contains_key(&port))
    }

    /// Calls `note` with what policies say of `request` that is only to be counted and logged.
    pub fn notes_on_request<'p>(&'p self, request: &facts::Request<'_>, mut note: impl FnMut(Note<'p>)) {
        if self.has_notes() {
            self.notes(Stage::Request(&Readings::new(request)), &mut note);
        }
    }

    /// The same of a connection that carries no requests.
    pub fn notes_on_opaque<'p>(&'p self, connection: &facts::Connection<'_>, mut note: impl FnMut(Note<'p>)) {
        self.notes(Stage::Opaque(connection), &mut note);
    }

    fn notes<'p>(&'p self, stage: Stage<'_>, note: &mut dyn FnMut(Note<'p>)) {
        if let Some(network) = self.network.as_ref().filter(|network| network.logs()) {
            network.judge(&Party::incoming(stage.connection()), |rule| note(Note { rule, says: Says::Log }));
        }
        if let Some(servers) = &self.servers {
            servers.notes(stage, note);
        }
        if let Some(authorization) = &self.authorization {
            authorization.notes(stage, note);
        }
    }

    /// The verdict; if only a request says, the document that asks for it.
    fn verdict(&self, stage: Stage<'_>) -> Result<Verdict<'_>, &Arc<str>> {
        self.verdict_on(self.connected(stage.connection()), stage)
    }

    /// The same, where the connection alone is answered by `connected`.
    fn verdict_on<'p>(
        &'p self,
        connected: Verdict<'p>,
        stage: Stage<'_>,
    ) -> Result<Verdict<'p>, &'p Arc<str>> {
        if let Verdict::Deny { .. } = connected {
            return Ok(connected);
        }
        let servers = match &self.servers {
            Some(servers) => servers.verdict(stage),
            None => Ok(None),
        };
        let authorization = match &self.authorization {
            Some(authorization) => authorization.decide(stage).verdict(),
            None => Ok(None),
        };
        match (servers, authorization) {
            (Ok(Some(refused @ Verdict::Deny { .. })), _) | (_, Ok(Some(refused @ Verdict::Deny { .. }))) => {
                Ok(refused)
            }
            (Err(rule), _) | (_, Err(rule)) => Err(rule),
            (Ok(servers), Ok(authorization)) => Ok(authorization.or(servers).unwrap_or(connected)),
        }
    }

    /// What is decided by the connection alone: mutual TLS, and network policies.
    fn connected(&self, connection: &facts::Connection<'_>) -> Verdict<'_> {
        let mtls = self.mtls(connection);
        let (Verdict::Allow { .. }, Some(network)) = (mtls, &self.network) else { return mtls };
        match network.judge(&Party::incoming(connection), |_| {}) {
            NetworkVerdict::Allow(rule) => rule.map_or(mtls, |rule| Verdict::Allow { rule }),
            NetworkVerdict::Deny(rule, why) => Verdict::Deny { rule, why, by: By::Network },
        }
    }

    fn mtls(&self, connection: &facts::Connection<'_>) -> Verdict<'_> {
        let MtlsRule { mode, name: rule } = self.rule(connection.port);
        let deny = |why| Verdict::Deny { rule, why, by: By::Mtls };
        match (mode, connection.source.identity) {
            (MtlsMode::Strict, None) => {
                deny("mutual TLS is required (STRICT) and the connection is plaintext")
            }
            (MtlsMode::Disable, Some(_)) => deny("mutual TLS is disabled (DISABLE) on this port"),
            _ => Verdict::Allow { rule },
        }
    }
}

/// What is refused because only a request could say more.
fn needs_request(rule: &Arc<str>) -> Verdict<'_> {
    Verdict::Deny { rule, why: "it decides by HTTP requests, and there is none", by: By::Authorization }
}

#[cfg(test)]
mod naive;
#[cfg(test)]
mod unit;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{SpiffeId, facts::Source};

    fn peer() -> SpiffeId {
        "spiffe://cluster.local/ns/a/sa/b".parse().unwrap()
    }

    fn policy(mode: MtlsMode) -> InboundPolicy {
        InboundPolicy {
            default: MtlsRule { mode, name: Arc::from("rule") },
            ports: BTreeMap::new(),
            network: None,
            authorization: None,
            authentication: None,
            servers: None,
            limits: None,
        }
    }

    /// Whether a connection and each request on it are let in; and the rule that says so.
    fn authorized(policy: &InboundPolicy, port: u16, peer: Option<&SpiffeId>) -> (bool, String) {
        let connection = facts::Connection::new(Source::peer(Ipv4Addr::LOCALHOST.into(), peer), port);
        assert_eq!(
            policy.authorize(&connection),
            ConnectionVerdict::Final(policy.authorize_opaque(&connection))
        );
        let request = facts::Request {
            connection: &connection,
            method: &http::Method::GET,
            scheme: "http",
            authority: "a",
            path: "/",
            query: "",
            headers: &http::HeaderMap::new(),
            token: None,
        };
        let verdict = policy.authorize_request(&request);
        assert_eq!(policy.authorize(&connection), ConnectionVerdict::Final(verdict));
        match verdict {
            Verdict::Allow { rule } => (true, rule.to_string()),
            Verdict::Deny { rule, .. } => (false, rule.to_string()),
        }
    }

    #[test]
    fn strict_refuses_plaintext_and_names_its_rule() {
        let strict = policy(MtlsMode::Strict);

        assert_eq!(authorized(&strict, 80, None), (false, "rule".to_owned()));
        assert_eq!(authorized(&strict, 80, Some(&peer())), (true, "rule".to_owned()));
    }

    #[test]
    fn permissive_lets_both_in() {
        assert!(authorized(&policy(MtlsMode::Permissive), 80, None).0);
        assert!(authorized(&policy(MtlsMode::Permissive), 80, Some(&peer())).0);
    }

    #[test]
    fn a_port_has_its_own_rule() {
        let mut policy = policy(MtlsMode::Strict);
        policy.ports.insert(9090, MtlsRule { mode: MtlsMode::Disable, name: Arc::from("port") });

        assert_eq!(authorized(&policy, 9090, None), (true, "port".to_owned()));
        assert_eq!(authorized(&policy, 9090, Some(&peer())), (false, "port".to_owned()));
    }
}
