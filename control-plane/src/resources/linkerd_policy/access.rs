//! Whom a port lets in besides those whom policies name: a `Server`'s `accessPolicy`, and the annotation of a namespace or
//! workload that counts for ports without a `Server`.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use crate::resources::nearest::nearest;

/// Says who may come in at ports that no `Server` selects.
pub const ANNOTATION: &str = "config.linkerd.io/default-inbound-policy";

/// The networks that Linkerd takes for a cluster's own unless it is told others (`clusterNetworks` of its chart).
const CLUSTER: [(&str, u8); 5] =
    [("10.0.0.0", 8), ("100.64.0.0", 10), ("172.16.0.0", 12), ("192.168.0.0", 16), ("fd00::", 8)];

/// Whom a port lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Everybody.
    AllUnauthenticated,
    /// Who has an identity of the mesh.
    AllAuthenticated,
    /// Who connects from a network of the cluster.
    ClusterUnauthenticated,
    /// Who has an identity, and connects from a network of the cluster.
    ClusterAuthenticated,
    /// Nobody.
    Deny,
    /// Everybody; who would not be let in without it is counted and logged.
    Audit,
}

const WORDS: [(&str, Access); 6] = [
    ("all-unauthenticated", Access::AllUnauthenticated),
    ("all-authenticated", Access::AllAuthenticated),
    ("cluster-unauthenticated", Access::ClusterUnauthenticated),
    ("cluster-authenticated", Access::ClusterAuthenticated),
    ("deny", Access::Deny),
    ("audit", Access::Audit),
];

impl Access {
    /// What `word` means.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub fn of(word: &str) -> Result<Self, String> {
        if let Some((_, access)) = WORDS.iter().find(|(known, _)| *known == word) {
            return Ok(*access);
        }
        let advice = match nearest(word, WORDS.map(|(known, _)| known)) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("use {}", WORDS.map(|(known, _)| known).join(", ")),
        };
        Err(format!("{word:?} is not a policy for whom to let in; {advice}"))
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        WORDS.iter().find(|(_, known)| *known == self).map_or("deny", |(word, _)| word)
    }

    /// What the annotation says; `None`: there is none.
    pub fn annotated(annotations: &BTreeMap<String, String>) -> Option<Result<Self, String>> {
        annotations.get(ANNOTATION).map(|word| Self::of(word.trim()))
    }

    /// Whether an identity is asked for.
    pub fn asks_identity(self) -> bool {
        matches!(self, Self::AllAuthenticated | Self::ClusterAuthenticated)
    }

    /// Whether an address of the cluster is asked for.
    pub fn asks_cluster(self) -> bool {
        matches!(self, Self::ClusterUnauthenticated | Self::ClusterAuthenticated)
    }
}

/// The networks of a cluster.
pub fn cluster_networks() -> impl Iterator<Item = IpNet> {
    let network = |(address, length): &(&str, u8)| IpNet::new(address.parse::<IpAddr>().ok()?, *length).ok();
    CLUSTER.iter().filter_map(network)
}
