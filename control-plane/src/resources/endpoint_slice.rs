//! `EndpointSlice` (discovery.k8s.io/v1): addresses behind a service, listed by hand or by a cluster.

use std::{net::IpAddr, sync::Arc};

use selvedge_ops::metadata::is_link_local;
use serde::Deserialize;
use serde_json::Value;

use super::{
    document::{Reading, wrong},
    kinds::{DISCOVERY, Feedback, ResourceKind},
    trim,
    typed::{FieldError, Present},
    values::port_number,
};

/// The label that names an `EndpointSlice`'s service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("EndpointSlice", DISCOVERY, "endpointslices", Feedback::Nowhere)
        .trimmed(trim)
        .read_as_whole::<Yaml>(|document| document.whole(read));

fn trim(object: &mut Value) {
    trim::deletion(object);
    if let Some(metadata) = object.get_mut("metadata") {
        trim::remove(metadata, "annotations");
        if let Some(Value::Object(labels)) = metadata.get_mut("labels") {
            labels.retain(|name, _| name == SERVICE_LABEL);
        }
    }
    trim::each(object, "/endpoints", |endpoint| {
        trim::keep_fields(endpoint, &["addresses", "conditions", "hints", "nodeName", "targetRef", "zone"]);
        if let Some(target) = endpoint.get_mut("targetRef") {
            trim::keep_fields(target, &["kind", "namespace", "name"]);
        }
    });
}

/// What an `EndpointSlice` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSliceSpec {
    /// The service in the same namespace.
    pub service: String,
    /// The ready addresses, in their order.
    pub addresses: Vec<SliceAddress>,
    /// Those that still serve while they end: used only where a service has no ready address at all, as
    /// kube-proxy does.
    pub ending: Vec<SliceAddress>,
    /// The ports by name; `None` = every port of the service, at its own number.
    pub ports: Option<Vec<SlicePort>>,
}

/// An address of an `EndpointSlice`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceAddress {
    /// Where.
    pub ip: IpAddr,
    /// The pod that it is said to be (`targetRef`).
    pub pod: Option<TargetPod>,
    /// Its zone.
    pub zone: Option<String>,
    /// The node that it is on.
    pub node: Option<String>,
    /// The zones whose clients it is meant for.
    pub for_zones: Vec<String>,
    /// The nodes whose clients it is meant for.
    pub for_nodes: Vec<String>,
}

/// The pod that an `EndpointSlice` says an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPod {
    /// `None`: the slice's own.
    pub namespace: Option<Arc<str>>,
    /// Its name.
    pub name: Arc<str>,
}

/// A port of an `EndpointSlice`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// The service port's name; empty if that has none.
    pub name: String,
    /// The number at these addresses; `None` = the service's own.
    pub port: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    #[serde(rename = "apiVersion")]
    _api_version: Present,
    #[serde(rename = "kind")]
    _kind: Present,
    #[serde(rename = "metadata")]
    _metadata: Present,
    address_type: String,
    #[serde(default)]
    endpoints: Vec<EndpointYaml>,
    ports: Option<Vec<PortYaml>>,
}

#[derive(Debug, Deserialize)]
struct EndpointYaml {
    addresses: Vec<String>,
    #[serde(default)]
    conditions: ConditionYaml,
    #[serde(rename = "targetRef")]
    target_ref: Option<TargetYaml>,
    #[serde(rename = "nodeName")]
    node_name: Option<String>,
    zone: Option<String>,
    #[serde(default)]
    hints: HintsYaml,
}

/// Whose clients an address is meant for.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HintsYaml {
    for_zones: Vec<HintYaml>,
    for_nodes: Vec<HintYaml>,
}

#[derive(Debug, Deserialize)]
struct HintYaml {
    name: String,
}

/// Whom an address belongs to.
#[derive(Debug, Deserialize)]
struct TargetYaml {
    #[serde(default)]
    kind: String,
    namespace: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(rename = "uid")]
    _uid: Option<Present>,
    #[serde(rename = "apiVersion")]
    _api_version: Option<Present>,
    #[serde(rename = "resourceVersion")]
    _resource_version: Option<Present>,
    #[serde(rename = "fieldPath")]
    _field_path: Option<Present>,
}

#[derive(Debug, Default, Deserialize)]
struct ConditionYaml {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortYaml {
    #[serde(default)]
    name: String,
    port: Option<u32>,
    protocol: Option<String>,
    #[serde(rename = "appProtocol")]
    _app_protocol: Option<Present>,
}

/// What `ip` is, if it means something else in each network.
fn nobodys(ip: IpAddr) -> Option<&'static str> {
    if is_link_local(ip) {
        Some("a link-local address")
    } else if ip.is_unspecified() {
        Some("the unspecified address")
    } else if ip.is_multicast() {
        Some("a multicast address")
    } else {
        None
    }
}

pub(super) fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<EndpointSliceSpec, FieldError> {
    let Some(service) = reading.metadata.labels.get(SERVICE_LABEL) else {
        return Err(wrong("metadata.labels", format!("has no {SERVICE_LABEL}; name the service with it")));
    };
    let service = service.clone();
    match yaml.address_type.as_str() {
        "IPv4" | "IPv6" => {}
        "FQDN" => {
            reading.not_acted_on("addressType", "FQDN is not acted on; list addresses");
            return Ok(EndpointSliceSpec {
                service,
                addresses: Vec::new(),
                ending: Vec::new(),
                ports: Some(Vec::new()),
            });
        }
        other => return Err(wrong("addressType", format!("{other:?} is not known; use IPv4 or IPv6"))),
    }
    let (mut addresses, mut ending) = (Vec::new(), Vec::new());
    for (index, endpoint) in yaml.endpoints.into_iter().enumerate() {
        let field = format!("endpoints[{index}].addresses");
        let Some(first) = endpoint.addresses.first() else {
            return Err(wrong(field, "is empty; list one address"));
        };
        let ip: IpAddr = first
            .parse()
            .map_err(|_| wrong(format!("{field}[0]"), format!("{first:?} is not an IP address")))?;
        let ip = ip.to_canonical();
        if let Some(what) = nobodys(ip) {
            // As an API server does. It allows no loopback address either, which is where apps are on one host.
            let message = format!(
                "{ip} is {what}, which is no endpoint's: each proxy would call its own host or network there, so it is left out; \
                 give the address of a server"
            );
            reading.error(format!("{field}[0]"), message);
            continue;
        }
        if endpoint.addresses.len() > 1 {
            reading.not_acted_on(format!("{field}[1]"), "only the first address of an endpoint is used");
        }
        let pod = endpoint.target_ref.filter(|target| target.kind == "Pod").map(|target| TargetPod {
            namespace: target.namespace.filter(|namespace| !namespace.is_empty()).map(Arc::from),
            name: target.name.into(),
        });
        let names = |hints: Vec<HintYaml>| hints.into_iter().map(|hint| hint.name).collect();
        let address = SliceAddress {
            ip,
            pod,
            zone: endpoint.zone.filter(|zone| !zone.is_empty()),
            node: endpoint.node_name.filter(|node| !node.is_empty()),
            for_zones: names(endpoint.hints.for_zones),
            for_nodes: names(endpoint.hints.for_nodes),
        };
        let conditions = endpoint.conditions;
        if conditions.ready.unwrap_or(true) {
            addresses.push(address);
        } else if conditions.serving == Some(true) && conditions.terminating == Some(true) {
            ending.push(address);
        }
    }
    let ports = yaml.ports.map(|ports| read_ports(ports, reading)).transpose()?;
    Ok(EndpointSliceSpec { service, addresses, ending, ports })
}

fn read_ports(yaml: Vec<PortYaml>, reading: &mut Reading<'_>) -> Result<Vec<SlicePort>, FieldError> {
    let mut ports = Vec::new();
    for (index, port) in yaml.into_iter().enumerate() {
        let field = format!("ports[{index}]");
        if let Some(transport) = port.protocol.as_deref().filter(|transport| *transport != "TCP") {
            reading
                .not_acted_on(format!("{field}.protocol"), format!("{transport} is not carried, only TCP"));
            continue;
        }
        let number = port.port.map(|number| port_number(number, &format!("{field}.port"))).transpose()?;
        ports.push(SlicePort { name: port.name, port: number });
    }
    Ok(ports)
}
