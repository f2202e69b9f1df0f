//! `NetworkPolicy` of Kubernetes: who may connect to whom.

mod read;
#[cfg(test)]
mod tests;

use ipnet::IpNet;
use serde::Deserialize;

use super::{
    kinds::{CLUSTER_NETWORKING, Feedback, ResourceKind},
    label_selector::{LabelSelector, LabelSelectorYaml},
    values::NumberOrName,
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("NetworkPolicy", CLUSTER_NETWORKING, "networkpolicies", Feedback::Events)
        .policy()
        .with_any_annotations()
        .read_as_spec::<Yaml>(|document| document.with_spec_or_default(read::read));

/// What a `NetworkPolicy` says.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkPolicySpec {
    /// The workloads that it is for.
    pub pods: LabelSelector,
    /// Of one that cannot be used: whether it cannot be read which workloads it is for, so that it may be for each.
    pub any_workload: bool,
    /// What may come in to them; `None`: it says nothing of that.
    pub ingress: Option<Vec<NetworkRuleSpec>>,
    /// Whom they may call; `None`: it says nothing of that.
    pub egress: Option<Vec<NetworkRuleSpec>>,
}

/// One rule: whom it allows, at which ports.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkRuleSpec {
    /// Who is on the other side: any of these. `None`: everybody.
    pub peers: Option<Vec<PeerSpec>>,
    /// The TCP ports that may be called; `None`: all. Empty: it is about other protocols only.
    pub ports: Option<Vec<PortSpec>>,
}

/// Some that may be on the other side.
#[derive(Debug, Clone, PartialEq)]
pub enum PeerSpec {
    /// Workloads.
    Pods {
        /// Their namespaces, by labels; `None`: the policy's own.
        namespaces: Option<LabelSelector>,
        /// Their labels.
        pods: LabelSelector,
    },
    /// Whoever has an address in a block.
    Block {
        /// The block.
        within: IpNet,
        /// What is left out.
        except: Vec<IpNet>,
    },
}

/// Ports that may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortSpec {
    /// From the first to the last.
    Numbers(u16, u16),
    /// The port that has this name at the workload that is called.
    Name(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Yaml {
    pod_selector: LabelSelectorYaml,
    policy_types: Vec<String>,
    ingress: Vec<IngressYaml>,
    egress: Vec<EgressYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IngressYaml {
    from: Vec<PeerYaml>,
    ports: Vec<PortYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EgressYaml {
    to: Vec<PeerYaml>,
    ports: Vec<PortYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PeerYaml {
    pod_selector: Option<LabelSelectorYaml>,
    namespace_selector: Option<LabelSelectorYaml>,
    ip_block: Option<BlockYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BlockYaml {
    cidr: String,
    except: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PortYaml {
    protocol: Option<String>,
    port: Option<NumberOrName>,
    end_port: Option<u32>,
}
