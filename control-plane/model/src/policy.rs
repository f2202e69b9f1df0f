//! Who may come in: the mutual-TLS mode of a workload's ports, and the verdict on one connection.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::Serialize;

use crate::SpiffeId;

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

/// The answer to one connection, with the rule that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Let it in.
    Allow,
    /// Refuse it.
    Deny {
        /// The document that says so.
        rule: Arc<str>,
        /// What the peer lacks, in words for its operator.
        why: &'static str,
    },
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

    /// Whether a connection to `port` from `peer` (`None`: plaintext) is let in.
    pub fn authorize(&self, port: u16, peer: Option<&SpiffeId>) -> Verdict {
        let rule = self.rule(port);
        let why = match (rule.mode, peer) {
            (MtlsMode::Strict, None) => "mutual TLS is required (STRICT) and the connection is plaintext",
            (MtlsMode::Disable, Some(_)) => "mutual TLS is disabled (DISABLE) on this port",
            _ => return Verdict::Allow,
        };
        Verdict::Deny { rule: Arc::clone(&rule.name), why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> SpiffeId {
        "spiffe://cluster.local/ns/a/sa/b".parse().unwrap()
    }

    fn policy(mode: MtlsMode) -> InboundPolicy {
        InboundPolicy { default: MtlsRule { mode, name: Arc::from("rule") }, ports: BTreeMap::new() }
    }

    #[test]
    fn strict_refuses_plaintext_and_names_its_rule() {
        let verdict = policy(MtlsMode::Strict).authorize(80, None);

        assert!(matches!(verdict, Verdict::Deny { rule, .. } if &*rule == "rule"));
        assert_eq!(policy(MtlsMode::Strict).authorize(80, Some(&peer())), Verdict::Allow);
    }

    #[test]
    fn permissive_lets_both_in() {
        assert_eq!(policy(MtlsMode::Permissive).authorize(80, None), Verdict::Allow);
        assert_eq!(policy(MtlsMode::Permissive).authorize(80, Some(&peer())), Verdict::Allow);
    }

    #[test]
    fn a_port_has_its_own_rule() {
        let mut policy = policy(MtlsMode::Strict);
        policy.ports.insert(9090, MtlsRule { mode: MtlsMode::Disable, name: Arc::from("port") });

        assert_eq!(policy.authorize(9090, None), Verdict::Allow);
        assert!(matches!(policy.authorize(9090, Some(&peer())), Verdict::Deny { .. }));
    }
}
