//! Who may come in: the mutual-TLS mode of a workload's ports, and the verdict on a connection or a request.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::Serialize;

use crate::facts;

/// How a port treats connections without a mesh certificate (`PeerAuthentication` `mtls.mode`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub enum MtlsMode {
    /// Only peers with a certificate of this mesh.
    Strict,
    /// Both; Istio's default.
    #[default]
    Permissive,
    /// Plaintext only.
    Disable,
}

impl fmt::Display for MtlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "STRICT",
            Self::Permissive => "PERMISSIVE",
            Self::Disable => "DISABLE",
        })
    }
}

/// A mode, and the document that set it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct MtlsRule {
    /// The mode.
    pub mode: MtlsMode,
    /// Such as `PeerAuthentication default/default`, or `mesh default`.
    pub name: Arc<str>,
}

impl Default for MtlsRule {
    fn default() -> Self {
        Self { mode: MtlsMode::default(), name: Arc::from("mesh default") }
    }
}

/// What one workload's sidecar lets in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InboundPolicy {
    /// For every port that `ports` does not name.
    pub default: MtlsRule,
    /// By workload (container) port.
    pub ports: BTreeMap<u16, MtlsRule>,
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
        why: &'static str,
    },
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

impl<'p> ConnectionVerdict<'p> {
    /// The answer to a connection that carries no requests: what depends on a request is refused.
    pub fn without_requests(self) -> Verdict<'p> {
        match self {
            Self::Final(verdict) => verdict,
            Self::DependsOnRequest { rule } => {
                Verdict::Deny { rule, why: "it decides by HTTP requests, and the connection carries none" }
            }
        }
    }
}

impl InboundPolicy {
    /// The rule that governs `port`.
    pub fn rule(&self, port: u16) -> &MtlsRule {
        self.ports.get(&port).unwrap_or(&self.default)
    }

    /// Whether a client must call `port` with mutual TLS if it can.
    pub fn takes_mtls(&self, port: u16) -> bool {
        self.rule(port).mode != MtlsMode::Disable
    }

    /// Whether `connection` is let in. Its `port` is the workload's own.
    pub fn authorize(&self, connection: &facts::Connection<'_>) -> ConnectionVerdict<'_> {
        ConnectionVerdict::Final(self.mtls(connection))
    }

    /// Whether `request` is let in.
    pub fn authorize_request(&self, request: &facts::Request<'_>) -> Verdict<'_> {
        self.mtls(request.connection)
    }

    fn mtls(&self, connection: &facts::Connection<'_>) -> Verdict<'_> {
        let MtlsRule { mode, name: rule } = self.rule(connection.port);
        match (mode, connection.source.identity) {
            (MtlsMode::Strict, None) => {
                Verdict::Deny { rule, why: "mutual TLS is required (STRICT) and the connection is plaintext" }
            }
            (MtlsMode::Disable, Some(_)) => {
                Verdict::Deny { rule, why: "mutual TLS is disabled (DISABLE) on this port" }
            }
            _ => Verdict::Allow { rule },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{SpiffeId, facts::Source};

    fn peer() -> SpiffeId {
        "spiffe://cluster.local/ns/a/sa/b".parse().unwrap()
    }

    fn policy(mode: MtlsMode) -> InboundPolicy {
        InboundPolicy { default: MtlsRule { mode, name: Arc::from("rule") }, ports: BTreeMap::new() }
    }

    /// Whether a connection and each request on it are let in; and the rule that says so.
    fn authorized(policy: &InboundPolicy, port: u16, peer: Option<&SpiffeId>) -> (bool, String) {
        let connection = facts::Connection::new(Source::peer(Ipv4Addr::LOCALHOST.into(), peer), port);
        let request = facts::Request {
            connection: &connection,
            method: &http::Method::GET,
            scheme: "http",
            authority: "a",
            path: "/",
            query: "",
            headers: &http::HeaderMap::new(),
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

    #[test]
    fn what_depends_on_a_request_is_refused_where_none_comes() {
        let rule = Arc::from("rule");
        let allow = Verdict::Allow { rule: &rule };

        assert_eq!(ConnectionVerdict::Final(allow).without_requests(), allow);
        let depends = ConnectionVerdict::DependsOnRequest { rule: &rule };
        assert!(matches!(depends.without_requests(), Verdict::Deny { rule, .. } if &**rule == "rule"));
    }
}
