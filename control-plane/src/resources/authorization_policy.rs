//! `AuthorizationPolicy`: who may do what.

mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use selvedge_model::policy::Rule;
use serde::Deserialize;

use super::{
    kinds::{Feedback, ISTIO_SECURITY, ResourceKind},
    selector::SelectorYaml,
    targets::TargetYaml,
};

/// Has a policy decide nothing: what it would do is only counted and logged.
pub(super) const DRY_RUN: &str = "istio.io/dry-run";

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("AuthorizationPolicy", ISTIO_SECURITY, "authorizationpolicies", Feedback::Conditions)
        .policy()
        .with_annotations(&[&[DRY_RUN]])
        .read_as_spec::<Yaml>(|document| document.with_spec_or_default(read::read));

/// What an `AuthorizationPolicy` says.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthorizationPolicySpec {
    /// The labels of the workloads that it is for; empty = all of its namespace (or of the mesh).
    pub selector: BTreeMap<String, String>,
    /// Of one that cannot be used: whether it cannot be read which workloads it is for, so that it may be for each of its
    /// namespace, and for each gateway of it. With `services`: for the gateways alone.
    pub any_workload: bool,
    /// The Services of its namespace that it is for; `None` = it names neither those nor Gateways, and `selector` counts.
    pub services: Option<Vec<String>>,
    /// The Gateways of its namespace that it is for, besides.
    pub gateways: Vec<String>,
    /// What it does.
    pub action: AuthorizationAction,
    /// Whether it is only counted and logged.
    pub dry_run: bool,
    /// Its rules. Their names are empty, and a service account without a namespace is `/sa/NAME`: who compiles them knows
    /// the document.
    pub rules: Vec<Rule>,
}

/// What a policy does with what its rules match.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AuthorizationAction {
    /// Lets it in, and nothing else.
    #[default]
    Allow,
    /// Refuses it.
    Deny,
    /// Counts and logs it.
    Audit,
    /// Has an external authorizer decide.
    Custom,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Yaml {
    selector: SelectorYaml,
    target_ref: Option<TargetYaml>,
    target_refs: Vec<TargetYaml>,
    rules: Option<Vec<RuleYaml>>,
    action: AuthorizationAction,
    provider: Option<ProviderYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ProviderYaml {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuleYaml {
    from: Option<Vec<FromYaml>>,
    to: Option<Vec<ToYaml>>,
    when: Vec<WhenYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FromYaml {
    source: Option<SourceYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SourceYaml {
    principals: Vec<String>,
    not_principals: Vec<String>,
    request_principals: Vec<String>,
    not_request_principals: Vec<String>,
    namespaces: Vec<String>,
    not_namespaces: Vec<String>,
    service_accounts: Vec<String>,
    not_service_accounts: Vec<String>,
    trust_domains: Vec<String>,
    not_trust_domains: Vec<String>,
    ip_blocks: Vec<String>,
    not_ip_blocks: Vec<String>,
    remote_ip_blocks: Vec<String>,
    not_remote_ip_blocks: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToYaml {
    operation: Option<OperationYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OperationYaml {
    hosts: Vec<String>,
    not_hosts: Vec<String>,
    ports: Vec<String>,
    not_ports: Vec<String>,
    methods: Vec<String>,
    not_methods: Vec<String>,
    paths: Vec<String>,
    not_paths: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WhenYaml {
    key: String,
    values: Vec<String>,
    not_values: Vec<String>,
}
