//! `DestinationRule`: how clients treat a host, and which subsets its endpoints form.

use std::collections::{BTreeMap, HashSet};

use selvedge_model::{
    HealthCheck, Hedge, HttpTunnel, LoadBalancer, OutlierDetection, ProxyProtocol, RetryBudget, UpstreamTls,
};
use serde::Deserialize;

use super::{
    client_tls::TlsYaml,
    connection_pool::{PoolBlock, PoolYaml},
    document::{Reading, wrong},
    export_to::{self, ExportTo},
    health_check,
    hedge::{self, HEDGE_ANNOTATION},
    kinds::{Feedback, ISTIO_NETWORKING, ResourceKind},
    label_selector,
    load_balancer::{self, BALANCER_ANNOTATION, BOUND_ANNOTATION, BalancerBlock, BalancerYaml},
    locality_setting::LocalitySetting,
    outlier_detection::{self, OutlierYaml},
    retry_budget::RetryBudgetYaml,
    selector::SelectorYaml,
    through::{ProxyProtocolYaml, TunnelYaml},
    typed::FieldError,
    values::{called_host, port_number, subset_name},
};

/// What the names of our own annotations begin with.
const OUR_ANNOTATIONS: &str = "config.selvedge.io/";

/// Where a rule says which clients it is for.
pub(super) const SELECTOR: &str = "spec.workloadSelector";

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("DestinationRule", ISTIO_NETWORKING, "destinationrules", Feedback::Conditions)
        .with_annotations(&[
            &[BALANCER_ANNOTATION, BOUND_ANNOTATION, HEDGE_ANNOTATION],
            &outlier_detection::ANNOTATIONS,
            &health_check::ANNOTATIONS,
        ])
        .read_as_spec::<Yaml>(|document| document.with_spec(read));

/// What a `DestinationRule` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationRuleSpec {
    /// Whose clients it is for: those of its own namespace if it selects some.
    pub export_to: ExportTo,
    /// The labels of those clients that it is for. `None`: it does not select any, and is for all.
    pub selector: Option<BTreeMap<String, String>>,
    /// The host as it is written, lower case: a name, a short name, or `*.suffix`.
    pub host: String,
    /// How its endpoints are treated.
    pub policy: PolicyBlocks,
    /// Its subsets.
    pub subsets: Vec<Subset>,
    /// How its endpoints outside the mesh are asked whether they are well.
    pub health_check: Option<HealthCheck>,
    /// When requests to any of its endpoints go to a second one, too.
    pub hedge: Option<Hedge>,
}

/// The endpoints of a host that carry some labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    /// Its name.
    pub name: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// What it sets for itself.
    pub policy: PolicyBlocks,
}

/// A `trafficPolicy`, block by block: a subset's block replaces its host's whole block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyBlocks {
    /// `loadBalancer`.
    pub load_balancer: Option<BalancerBlock>,
    /// `outlierDetection`.
    pub outlier_detection: Option<OutlierDetection>,
    /// `connectionPool`.
    pub connection_pool: Option<PoolBlock>,
    /// `tls`. Its server name is still as it is written: `None` = the host's.
    pub tls: Option<UpstreamTls>,
    /// `retryBudget`.
    pub retry_budget: Option<RetryBudget>,
    /// `proxyProtocol`.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// `tunnel`.
    pub tunnel: Option<HttpTunnel>,
    /// `portLevelSettings`, by the service's port: each replaces all blocks above that it can have, also those that it
    /// does not give. It can have none of the last three.
    pub ports: BTreeMap<u16, Self>,
    /// Of one of `ports`: its place among `portLevelSettings`.
    pub place: usize,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    host: String,
    traffic_policy: Option<PolicyYaml>,
    #[serde(default)]
    subsets: Vec<SubsetYaml>,
    export_to: Option<Vec<String>>,
    workload_selector: Option<SelectorYaml>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubsetYaml {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    traffic_policy: Option<PolicyYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PolicyYaml {
    load_balancer: Option<BalancerYaml>,
    outlier_detection: Option<OutlierYaml>,
    connection_pool: Option<PoolYaml>,
    tls: Option<TlsYaml>,
    retry_budget: Option<RetryBudgetYaml>,
    proxy_protocol: Option<ProxyProtocolYaml>,
    tunnel: Option<TunnelYaml>,
    port_level_settings: Vec<PortPolicyYaml>,
}

impl PolicyYaml {
    /// Whether it has no field that is known here.
    fn is_empty(&self) -> bool {
        let Self {
            load_balancer,
            outlier_detection,
            connection_pool,
            tls,
            retry_budget,
            proxy_protocol,
            tunnel,
            port_level_settings,
        } = self;
        let (balancer, outlier, pool) =
            (load_balancer.is_none(), outlier_detection.is_none(), connection_pool.is_none());
        let through = proxy_protocol.is_none() && tunnel.is_none();
        balancer
            && outlier
            && pool
            && through
            && tls.is_none()
            && retry_budget.is_none()
            && port_level_settings.is_empty()
    }
}

/// [`PolicyYaml`] for one port. It repeats the fields, because a flattened struct would lose their lines.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortPolicyYaml {
    port: PortYaml,
    load_balancer: Option<BalancerYaml>,
    outlier_detection: Option<OutlierYaml>,
    connection_pool: Option<PoolYaml>,
    tls: Option<TlsYaml>,
}

#[derive(Debug, Deserialize)]
struct PortYaml {
    number: u32,
}

/// What the annotations of a document ask for.
#[derive(Debug, Clone, Copy)]
struct Annotated {
    balancer: load_balancer::Annotated,
    outlier: outlier_detection::Annotated,
}

impl PolicyBlocks {
    /// Those of its own and of its ports.
    fn balancers(&self) -> impl Iterator<Item = &LoadBalancer> + Clone {
        let blocks = std::iter::once(self).chain(self.ports.values());
        blocks.filter_map(|blocks| Some(&blocks.load_balancer.as_ref()?.balancer))
    }

    fn has_outlier_detection(&self) -> bool {
        self.outlier_detection.is_some() || self.ports.values().any(Self::has_outlier_detection)
    }
}

pub(super) fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<DestinationRuleSpec, FieldError> {
    if yaml.host.is_empty() {
        return Err(wrong("spec.host", "is empty; name a host"));
    }
    called_host(&yaml.host, "spec.host")?;
    let export_to = export_to::read_known(yaml.export_to.clone(), reading.namespace)?;
    let (selector, export_to) = match yaml.workload_selector {
        Some(selector) => {
            let selector = selected(selector, reading)?;
            (
                Some(selector),
                of_selected(yaml.export_to.is_some_and(|words| !words.is_empty()), &export_to, reading)?,
            )
        }
        None => (None, export_to),
    };
    let annotated = Annotated {
        balancer: load_balancer::Annotated::read(reading)?,
        outlier: outlier_detection::Annotated::read(reading)?,
    };
    let policy = read_whole(yaml.traffic_policy, "spec.trafficPolicy", false, annotated, reading)?;
    let mut subsets: Vec<Subset> = Vec::new();
    let mut names = HashSet::new();
    for (index, subset) in yaml.subsets.into_iter().enumerate() {
        let field = format!("spec.subsets[{index}]");
        subset_name(&subset.name, &format!("{field}.name"))?;
        for (name, value) in &subset.labels {
            label_selector::check(name, value, &format!("{field}.labels.{name}"))?;
        }
        if !names.insert(subset.name.clone()) {
            let message = format!("{:?} is defined twice; the first is used", subset.name);
            reading.error(format!("{field}.name"), message);
            continue;
        }
        let of_subset = format!("{field}.trafficPolicy");
        let policy = read_whole(subset.traffic_policy, &of_subset, true, annotated, reading)?;
        subsets.push(Subset { name: subset.name, labels: subset.labels, policy });
    }
    let all = std::iter::once(&policy).chain(subsets.iter().map(|subset| &subset.policy));
    if !all.clone().any(PolicyBlocks::has_outlier_detection) {
        outlier_detection::Annotated::report_unused(reading);
    }
    annotated.balancer.report_unused(all.flat_map(PolicyBlocks::balancers), reading);
    report_without_outlier_detection(&policy, &subsets, reading);
    let host = yaml.host.to_ascii_lowercase();
    let health_check = health_check::read(reading)?;
    let hedge = hedge::read(reading)?;
    Ok(DestinationRuleSpec { export_to, selector, host, policy, subsets, health_check, hedge })
}

/// The labels of the clients that a rule is for.
///
/// # Errors
/// As in Istio, if it is one that no workload can have.
fn selected(
    selector: SelectorYaml,
    reading: &mut Reading<'_>,
) -> Result<BTreeMap<String, String>, FieldError> {
    let labels = selector.read_at(SELECTOR, reading)?;
    for (name, value) in &labels {
        label_selector::check(name, value, &format!("{SELECTOR}.matchLabels.{name}"))?;
    }
    if labels.is_empty() {
        let message = "has no matchLabels, so it selects all clients in the document's own namespace; give labels, or write \
                       exportTo: [\".\"] instead";
        reading.warning(SELECTOR, message);
    }
    Ok(labels)
}

/// Whose clients a rule is for that selects some of them.
///
/// # Errors
/// As in Istio, if it is to be exported. Read over, it would not reach those for whom it is meant.
fn of_selected(is_given: bool, export_to: &ExportTo, reading: &Reading<'_>) -> Result<ExportTo, FieldError> {
    if is_given && !export_to.is_own_alone(reading.namespace) {
        let message = "a rule with workloadSelector is for clients in its own namespace alone; write [\".\"], or remove one of \
                       the two";
        return Err(wrong("spec.exportTo", message));
    }
    Ok(ExportTo::own())
}

/// The `trafficPolicy` at `field`, if there is one. As in Istio, one that says nothing is a mistake.
fn read_whole(
    yaml: Option<PolicyYaml>,
    field: &str,
    inherits: bool,
    annotated: Annotated,
    reading: &mut Reading<'_>,
) -> Result<PolicyBlocks, FieldError> {
    if yaml.as_ref().is_some_and(PolicyYaml::is_empty) {
        says_something(field, reading)?;
    }
    read_policy(yaml.unwrap_or_default(), field, inherits, annotated, reading)
}

/// Refuses the block at `field`, of which nothing was read, unless it has fields that are not acted on, or annotations say
/// what is meant.
fn says_something(field: &str, reading: &Reading<'_>) -> Result<(), FieldError> {
    let inner = format!("{field}.");
    let has_unknown = reading.unknown.iter().any(|unknown| unknown.field.starts_with(&inner));
    let annotations = &reading.metadata.annotations;
    if has_unknown || annotations.keys().any(|name| name.starts_with(OUR_ANNOTATIONS)) {
        return Ok(());
    }
    Err(wrong(field, "says nothing; give for example loadBalancer, or remove it"))
}

/// The policy at `field`, in a document with these annotations. `inherits`: whether a block that is not there is another's.
fn read_policy(
    yaml: PolicyYaml,
    field: &str,
    inherits: bool,
    annotated: Annotated,
    reading: &mut Reading<'_>,
) -> Result<PolicyBlocks, FieldError> {
    let mut ports = BTreeMap::new();
    for (index, yaml) in yaml.port_level_settings.into_iter().enumerate() {
        let field = format!("{field}.portLevelSettings[{index}]");
        let port = port_number(yaml.port.number, &format!("{field}.port.number"))?;
        let yaml = PolicyYaml {
            load_balancer: yaml.load_balancer,
            outlier_detection: yaml.outlier_detection,
            connection_pool: yaml.connection_pool,
            tls: yaml.tls,
            ..PolicyYaml::default()
        };
        if yaml.is_empty() {
            says_something(&field, reading)?;
        }
        let policy = PolicyBlocks { place: index, ..read_policy(yaml, &field, false, annotated, reading)? };
        report_setting(&policy, &field, reading);
        if ports.insert(port, policy).is_some() {
            return Err(wrong(field, format!("port {port} is given twice; keep one of them")));
        }
    }
    if yaml.proxy_protocol.is_some() && yaml.tunnel.is_some() {
        let message = "has both proxyProtocol and tunnel, which exclude each other; remove one of them";
        return Err(wrong(field, message));
    }
    let tls = yaml.tls.map(|tls| tls.read(&format!("{field}.tls"), reading)).transpose()?;
    let load_balancer = match yaml.load_balancer {
        Some(yaml) => Some(yaml.read(&format!("{field}.loadBalancer"), annotated.balancer, reading)?),
        None if inherits => None,
        None => annotated.balancer.without_block(),
    };
    let outlier = yaml.outlier_detection;
    let outlier_detection = outlier
        .map(|yaml| yaml.read(&format!("{field}.outlierDetection"), annotated.outlier, reading))
        .transpose()?;
    let connection_pool = match yaml.connection_pool {
        None => None,
        Some(yaml) => Some(yaml.read(&format!("{field}.connectionPool"), reading)?),
    };
    let retry_budget = match yaml.retry_budget {
        None => None,
        Some(yaml) => Some(yaml.read(&format!("{field}.retryBudget"))?),
    };
    let proxy_protocol = yaml.proxy_protocol.map(ProxyProtocolYaml::read);
    let tunnel = match yaml.tunnel {
        None => None,
        Some(yaml) => Some(yaml.read(&format!("{field}.tunnel"))?),
    };
    Ok(PolicyBlocks {
        load_balancer,
        outlier_detection,
        connection_pool,
        tls,
        retry_budget,
        proxy_protocol,
        tunnel,
        ports,
        place: 0,
    })
}

/// Reports settings of places that need outlier detection where there is none: nobody would ever be passed over.
fn report_without_outlier_detection(policy: &PolicyBlocks, subsets: &[Subset], reading: &mut Reading<'_>) {
    // A subset may detect outliers by itself, and takes over the rest.
    if subsets.iter().all(|subset| subset.policy.outlier_detection.is_none()) {
        report_setting(policy, "spec.trafficPolicy", reading);
    }
    if policy.outlier_detection.is_none() {
        for (index, subset) in subsets.iter().enumerate() {
            report_setting(&subset.policy, &format!("spec.subsets[{index}].trafficPolicy"), reading);
        }
    }
}

/// Reports the setting of places in `blocks` at `field`, if it needs outlier detection and there is none beside it.
fn report_setting(blocks: &PolicyBlocks, field: &str, reading: &mut Reading<'_>) {
    let setting = blocks.load_balancer.as_ref().and_then(|block| block.locality.as_ref());
    if matches!(setting, Some(LocalitySetting::Failover(_))) && blocks.outlier_detection.is_none() {
        let message = "is not acted on without outlierDetection in the same trafficPolicy, which says when an endpoint \
                       fails; add it, for example consecutive5xxErrors: 5";
        reading.not_acted_on(format!("{field}.loadBalancer.localityLbSetting"), message);
    }
}
