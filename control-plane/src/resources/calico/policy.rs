//! `GlobalNetworkPolicy` and `NetworkPolicy` of Calico: rules in an order, of which the first that matches decides.

use ipnet::IpNet;
use selvedge_model::policy::network::NetworkAction;
use serde::Deserialize;

use super::{Expression, KEPT, WRITTEN, read};
use crate::resources::{
    kinds::{Feedback, ResourceKind},
    network_policy::PortSpec,
    unread::{Read, Unread},
    values::NumberOrName,
};

const PLURAL: &str = "networkpolicies";
const GLOBAL_PLURAL: &str = "globalnetworkpolicies";

/// Its lines in the [list of kinds](crate::resources::kinds).
pub(in crate::resources) const GLOBAL: ResourceKind =
    kind("GlobalNetworkPolicy", WRITTEN, GLOBAL_PLURAL).cluster_wide();
/// As clusters keep it.
pub(in crate::resources) const GLOBAL_KEPT: ResourceKind = kind("GlobalNetworkPolicy", KEPT, GLOBAL_PLURAL)
    .cluster_wide()
    .called("GlobalNetworkPolicy.crd.projectcalico.org");
/// In a namespace. Kubernetes has a kind of the same name.
pub(in crate::resources) const NAMESPACED: ResourceKind =
    kind("NetworkPolicy", WRITTEN, PLURAL).called("NetworkPolicy.projectcalico.org");
/// As clusters keep it.
pub(in crate::resources) const NAMESPACED_KEPT: ResourceKind =
    kind("NetworkPolicy", KEPT, PLURAL).called("NetworkPolicy.crd.projectcalico.org");

const fn kind(kind: &'static str, versions: &'static [&'static str], plural: &'static str) -> ResourceKind {
    ResourceKind::new(kind, versions, plural, Feedback::Events)
        .policy()
        .with_any_annotations()
        .read_as_spec::<Yaml>(read_document)
}

fn read_document(document: &Unread<'_>) -> Read {
    let is_global = document.name.namespace.is_empty();
    document.with_spec_or_default(|yaml, reading| read::read(yaml, is_global, reading))
}

/// What a policy of Calico says.
#[derive(Debug, Clone, PartialEq)]
pub struct CalicoPolicySpec {
    /// The workloads that it is for.
    pub selector: Expression,
    /// Of one that cannot be used: whether it cannot be read which workloads it is for, so that it may be for each.
    pub any_workload: bool,
    /// Their namespaces; `None`: all, or the policy's own.
    pub namespaces: Option<Expression>,
    /// Their service accounts, by labels; `None`: any.
    pub accounts: Option<Expression>,
    /// The tier that it is in.
    pub tier: String,
    /// Its place among others of the tier: the lowest first, and those without a number last.
    pub order: Option<f64>,
    /// What may come in to them; `None`: it says nothing of that.
    pub ingress: Option<Vec<CalicoRule>>,
    /// Whom they may call; `None`: it says nothing of that.
    pub egress: Option<Vec<CalicoRule>>,
    /// Whether it has no effect on workloads, which is reported.
    pub is_without_effect: bool,
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct CalicoRule {
    /// What it does.
    pub action: NetworkAction,
    /// Whether it is about other protocols than TCP only, so that it matches nothing here.
    pub is_of_other_protocols: bool,
    /// The only addresses that it is about: of this version of IP.
    pub ip_version: Option<u8>,
    /// Where a connection comes from.
    pub source: CalicoEntity,
    /// Where it goes.
    pub destination: CalicoEntity,
}

/// One side of a connection: all of it must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CalicoEntity {
    /// Blocks of addresses, of which one must have the address; `None`: any address.
    pub nets: Option<Vec<IpNet>>,
    /// Blocks of which none may.
    pub not_nets: Vec<IpNet>,
    /// Its labels.
    pub selector: Option<Expression>,
    /// Labels that it must not have.
    pub not_selector: Option<Expression>,
    /// Its namespace, by labels.
    pub namespaces: Option<Expression>,
    /// Its service account: by name; empty: any.
    pub accounts: Vec<String>,
    /// Its service account: by labels.
    pub account_selector: Option<Expression>,
    /// Its ports; `None`: any.
    pub ports: Option<Vec<PortSpec>>,
    /// Ports that it must not have.
    pub not_ports: Vec<PortSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Yaml {
    pub(super) tier: Option<String>,
    pub(super) order: Option<f64>,
    pub(super) ingress: Vec<RuleYaml>,
    pub(super) egress: Vec<RuleYaml>,
    pub(super) selector: String,
    pub(super) types: Vec<String>,
    pub(super) namespace_selector: Option<String>,
    pub(super) service_account_selector: Option<String>,
    pub(super) do_not_track: bool,
    #[serde(rename = "preDNAT")]
    pub(super) pre_dnat: bool,
    #[serde(rename = "applyOnForward")]
    pub(super) _apply_on_forward: bool,
    #[serde(rename = "performanceHints")]
    pub(super) _performance_hints: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RuleYaml {
    pub(super) action: String,
    pub(super) ip_version: Option<u32>,
    pub(super) protocol: Option<NumberOrName>,
    pub(super) not_protocol: Option<NumberOrName>,
    pub(super) icmp: Option<IcmpYaml>,
    #[serde(rename = "notICMP")]
    pub(super) not_icmp: Option<IcmpYaml>,
    pub(super) source: EntityYaml,
    pub(super) destination: EntityYaml,
    #[serde(rename = "metadata")]
    pub(super) _metadata: Option<RuleMetadataYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct IcmpYaml {
    #[serde(rename = "type")]
    pub(super) _type: Option<u32>,
    #[serde(rename = "code")]
    pub(super) _code: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RuleMetadataYaml {
    #[serde(rename = "annotations")]
    _annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct EntityYaml {
    pub(super) nets: Option<Vec<String>>,
    pub(super) not_nets: Vec<String>,
    pub(super) selector: Option<String>,
    pub(super) not_selector: Option<String>,
    pub(super) namespace_selector: Option<String>,
    pub(super) ports: Vec<NumberOrName>,
    pub(super) not_ports: Vec<NumberOrName>,
    pub(super) service_accounts: Option<AccountsYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AccountsYaml {
    pub(super) names: Vec<String>,
    pub(super) selector: Option<String>,
}
