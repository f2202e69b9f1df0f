//! `Service` (v1): a name, its ports, and the labels of the workloads behind it.

use std::{collections::BTreeMap, net::IpAddr};

use selvedge_model::{Hedge, Host, Protocol, service::OPAQUE_PORTS};
use serde::Deserialize;
use serde_json::Value;

use super::{
    document::{Reading, wrong},
    hedge::{self, HEDGE_ANNOTATION},
    kinds::{CORE, Feedback, ResourceKind},
    linkerd::{self, Annotated, Calls},
    load_balancer::{self, AffinityConfigYaml, BalancerBlock},
    locality_setting::{DISTRIBUTION_ANNOTATION, TrafficDistribution, traffic_distribution},
    trim,
    typed::{FieldError, Present},
    values::{NumberOrName, OPAQUE_PORTS_ANNOTATION, opaque_ports, port_number},
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind = ResourceKind::new("Service", CORE, "services", Feedback::Events)
    .trimmed(trim)
    .with_annotations(&[
        &[
            OPAQUE_PORTS_ANNOTATION,
            load_balancer::BALANCER_ANNOTATION,
            HEDGE_ANNOTATION,
            DISTRIBUTION_ANNOTATION,
        ],
        linkerd::ANNOTATIONS,
    ])
    .read_as_spec::<Yaml>(|document| document.with_spec(read));

/// What is left out is for kube-proxy, load balancers and DNS, and they do act on it.
fn trim(object: &mut Value) {
    trim::status(object);
    trim::keep_annotations(object);
    let fields = [
        "selector",
        "ports",
        "clusterIP",
        "clusterIPs",
        "type",
        "externalName",
        "sessionAffinity",
        "sessionAffinityConfig",
        "internalTrafficPolicy",
        "trafficDistribution",
        "publishNotReadyAddresses",
    ];
    trim::keep(object, "spec", &fields);
    trim::each(object, "/spec/ports", |port| {
        trim::keep_fields(port, &["name", "port", "targetPort", "protocol", "appProtocol"]);
    });
    let is_external = object.pointer("/spec/type").is_some_and(|kind| kind == "ExternalName");
    if let Some(spec) = object.get_mut("spec").filter(|_| !is_external) {
        trim::remove(spec, "type");
    }
    trim::drop_if(object, "sessionAffinity", "None");
    trim::drop_if(object, "internalTrafficPolicy", "Cluster");
}

/// What a `Service` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// The labels that its workloads carry; empty = endpoints come from `EndpointSlice`s alone.
    pub selector: BTreeMap<String, String>,
    /// Its TCP ports.
    pub ports: Vec<ServicePort>,
    /// The addresses of its own that clients dial (`clusterIPs`); empty = it has none: a headless
    /// service, or one outside Kubernetes.
    pub addresses: Vec<IpAddr>,
    /// Whether it says that it has none (`clusterIP: None`): whoever dials one of its endpoints means that one.
    pub headless: bool,
    /// The name that it stands for (`type: ExternalName`): another service's, or one that DNS knows.
    pub external_name: Option<Host>,
    /// What its annotations say of requests to it.
    pub annotated: Annotated,
    /// How endpoints are chosen where no `DestinationRule` says it; `None`: as usual.
    pub balancer: Option<BalancerBlock>,
    /// When requests to it go to a second endpoint, too, where no `DestinationRule` says it.
    pub hedge: Option<Hedge>,
    /// Which endpoints come first where no `DestinationRule` says it; `None`: all are alike.
    pub distribution: Option<TrafficDistribution>,
    /// Whether clients call only endpoints on their own nodes (`internalTrafficPolicy: Local`).
    pub node_local: bool,
}

/// One port of a `Service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty if it is the only port and has none.
    pub name: String,
    /// The port that clients call.
    pub port: u16,
    /// The port that workloads serve.
    pub target: TargetPort,
    /// What is spoken.
    pub protocol: Protocol,
}

/// Where a service's port leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// The same number as the service's port.
    Same,
    /// This number.
    Number(u16),
    /// The workload's port of this name.
    Named(String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    #[serde(default)]
    selector: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<PortYaml>,
    #[serde(rename = "type")]
    service_type: Option<String>,
    external_name: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    session_affinity: Option<String>,
    #[serde(default)]
    session_affinity_config: AffinityConfigYaml,
    internal_traffic_policy: Option<String>,
    traffic_distribution: Option<String>,
    publish_not_ready_addresses: Option<bool>,
    #[serde(default, rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    // What a cluster adds by default.
    #[serde(rename = "ipFamilies")]
    _ip_families: Option<Present>,
    #[serde(rename = "ipFamilyPolicy")]
    _ip_family_policy: Option<Present>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortYaml {
    #[serde(default)]
    name: String,
    port: u32,
    target_port: Option<NumberOrName>,
    protocol: Option<String>,
    app_protocol: Option<String>,
}

/// What the value of a field means for those who do not act on it.
fn unless_default(reading: &mut Reading<'_>, field: &str, value: Option<&str>, default: &str, what: &str) {
    if let Some(value) = value.filter(|value| *value != default) {
        reading.not_acted_on(format!("spec.{field}"), format!("{value} is not acted on: {what}"));
    }
}

pub(super) fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<ServiceSpec, FieldError> {
    let external_name = read_external_name(&yaml)?;
    let kind = yaml.service_type.as_deref().filter(|_| external_name.is_none());
    unless_default(reading, "type", kind, "ClusterIP", "only callers inside the mesh are served");
    let balancer = read_affinity(&yaml, reading)?;
    let distribution = traffic_distribution(yaml.traffic_distribution.as_deref(), reading)?;
    let node_local = match yaml.internal_traffic_policy.as_deref() {
        None | Some("" | "Cluster") => false,
        Some("Local") => true,
        Some(other) => {
            let message = format!("{other:?} is not a policy; write Cluster or Local");
            return Err(wrong("spec.internalTrafficPolicy", message));
        }
    };
    let (selector, addresses) = match &external_name {
        Some(_) => (BTreeMap::new(), Vec::new()),
        None => (yaml.selector, read_addresses(yaml.cluster_ip.as_deref(), &yaml.cluster_ips)?),
    };
    if yaml.publish_not_ready_addresses == Some(true) {
        reading.not_acted_on("spec.publishNotReadyAddresses", "not acted on: only ready endpoints are used");
    }
    // A headless service without ports is how StatefulSets name their pods in DNS.
    let headless = yaml.cluster_ip.as_deref() == Some("None");
    if yaml.ports.is_empty() && !headless && external_name.is_none() {
        return Err(wrong("spec.ports", "is empty; name at least one port"));
    }
    let several = yaml.ports.len() > 1;
    let opaque = opaque_ports(&reading.metadata.annotations)?;
    let mut ports: Vec<ServicePort> = Vec::new();
    for (index, port) in yaml.ports.into_iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        if several && port.name.is_empty() {
            return Err(wrong(field, "has no name; each of several ports needs one"));
        }
        if let Some(transport) = port.protocol.as_deref().filter(|transport| *transport != "TCP") {
            reading
                .not_acted_on(format!("{field}.protocol"), format!("{transport} is not carried, only TCP"));
            continue;
        }
        let mut port = read_port(port, &field)?;
        if opaque.iter().any(|(first, last)| (*first..=*last).contains(&port.port)) {
            port.protocol = Protocol::Tcp;
        }
        if let Some(other) = ports.iter().find(|other| other.port == port.port || other.name == port.name) {
            let message = format!(
                "has the number or name of port {} {:?}; both must be unique",
                other.port, other.name
            );
            return Err(wrong(field, message));
        }
        ports.push(port);
    }
    let headless = yaml.cluster_ip.iter().chain(&yaml.cluster_ips).any(|ip| ip == "None");
    let annotated = linkerd::read(reading, Calls::Any)?;
    let hedge = hedge::read(reading)?;
    Ok(ServiceSpec {
        selector,
        ports,
        addresses,
        headless,
        external_name,
        annotated,
        balancer,
        hedge,
        distribution,
        node_local,
    })
}

/// How endpoints are chosen where no `DestinationRule` says it; `None`: as usual.
fn read_affinity(yaml: &Yaml, reading: &mut Reading<'_>) -> Result<Option<BalancerBlock>, FieldError> {
    let annotated = load_balancer::of_service(reading)?;
    match yaml.session_affinity.as_deref() {
        None | Some("None") => Ok(annotated),
        Some("ClientIP") if annotated.is_some() => {
            let message =
                "ClientIP and the annotation config.selvedge.io/load-balancer exclude each other; remove one";
            Err(wrong("spec.sessionAffinity", message))
        }
        Some("ClientIP") => {
            if let Some(seconds) = yaml.session_affinity_config.unusual_timeout() {
                let message = format!(
                    "{seconds} is not acted on: a client stays at its endpoint for as long as that is there, however \
                     long it pauses"
                );
                reading.not_acted_on("spec.sessionAffinityConfig.clientIP.timeoutSeconds", message);
            }
            Ok(Some(load_balancer::by_client_address()))
        }
        Some(other) => Err(wrong(
            "spec.sessionAffinity",
            format!("{other:?} is not an affinity; write ClientIP or None"),
        )),
    }
}

/// The name that a service of the type ExternalName stands for; `None`: it is of another type.
fn read_external_name(yaml: &Yaml) -> Result<Option<Host>, FieldError> {
    if yaml.service_type.as_deref() != Some("ExternalName") {
        return Ok(None);
    }
    let name = yaml.external_name.as_deref().unwrap_or_default();
    let host = name.parse().map_err(|error| {
        wrong(
            "spec.externalName",
            format!("{name:?} is {error}; write the DNS name that this Service stands for"),
        )
    })?;
    Ok(Some(host))
}

/// The addresses in `clusterIP` and `clusterIPs`. Kubernetes keeps the first of the list equal to the single
/// one; written by hand, either may be there alone. `None` is its word for a service without one.
fn read_addresses(cluster_ip: Option<&str>, cluster_ips: &[String]) -> Result<Vec<IpAddr>, FieldError> {
    let single = cluster_ip.map(|ip| ("spec.clusterIP".to_owned(), ip));
    let listed = cluster_ips.iter().enumerate();
    let listed = listed.map(|(index, ip)| (format!("spec.clusterIPs[{index}]"), ip.as_str()));
    let mut addresses = Vec::new();
    for (field, text) in single.into_iter().chain(listed).filter(|(_, text)| !["", "None"].contains(text)) {
        let Ok(address) = text.parse::<IpAddr>() else {
            return Err(wrong(field, format!("{text:?} is not an IP address; write one, or None")));
        };
        let address = address.to_canonical();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn read_port(yaml: PortYaml, field: &str) -> Result<ServicePort, FieldError> {
    let port = port_number(yaml.port, &format!("{field}.port"))?;
    let target = match yaml.target_port {
        None => TargetPort::Same,
        Some(NumberOrName::Number(number)) => {
            TargetPort::Number(port_number(number, &format!("{field}.targetPort"))?)
        }
        // Kubernetes reads a quoted number as a number here.
        Some(NumberOrName::Name(name)) => match name.parse() {
            Ok(number) => TargetPort::Number(port_number(number, &format!("{field}.targetPort"))?),
            Err(_) => TargetPort::Named(name),
        },
    };
    let protocol = protocol_of(yaml.app_protocol.as_deref(), &yaml.name, port);
    Ok(ServicePort { name: yaml.name, port, target, protocol })
}

/// What is spoken on a port: `appProtocol` beats the part of the name before `-`.
pub(crate) fn protocol_of(app_protocol: Option<&str>, port_name: &str, port: u16) -> Protocol {
    let by_name = || known_protocol(port_name.split('-').next().unwrap_or_default());
    let by_number = || if OPAQUE_PORTS.contains(&port) { Protocol::Tcp } else { Protocol::Unspecified };
    app_protocol.and_then(known_protocol).or_else(by_name).unwrap_or_else(by_number)
}

/// The protocol that Istio's word for it names.
pub(super) fn known_protocol(word: &str) -> Option<Protocol> {
    match word.to_ascii_lowercase().as_str() {
        // gRPC-Web travels over either version of HTTP.
        "http" | "http_proxy" | "grpc-web" | "kubernetes.io/ws" => Some(Protocol::Http),
        "http2" | "grpc" | "kubernetes.io/h2c" => Some(Protocol::Http2),
        "tcp" | "tls" | "https" | "mongo" | "redis" | "mysql" | "kubernetes.io/wss" => Some(Protocol::Tcp),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
