//! `Pod` (v1): a workload that a cluster runs; whether it is meshed, where it is, and who it is.
//!
//! Only what a mesh asks of a pod is read. Everything else in it is for whoever runs it, so nothing of it
//! is reported as not acted on.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use super::{
    document::{Reading, wrong},
    gateway_role::{self, GATEWAY_ANNOTATION, GatewayAnnotations},
    kinds::{CORE, Feedback, ResourceKind},
    trim,
    typed::FieldError,
    values::{SKIP_INBOUND_PORTS_ANNOTATION, annotated_ports, opaque_ports, port_number},
};
use selvedge_model::WorkloadName;

/// The sidecar's container: its ports are not the workload's.
pub const SIDECAR_CONTAINER: &str = "selvedge-proxy";

/// The label of pods that have a sidecar of ours; injection sets it.
pub const SIDECAR_LABEL: &str = "selvedge.io/sidecar";
/// The label's value.
pub const SIDECAR_INJECTED: &str = "injected";

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind = ResourceKind::new("Pod", CORE, "pods", Feedback::Nowhere)
    .trimmed(trim)
    .with_any_annotations()
    .read_as_whole::<Yaml>(|document| document.whole(read));

fn trim(object: &mut Value) {
    trim::keep_annotations(object);
    trim::keep(
        object,
        "spec",
        &["hostNetwork", "nodeName", "serviceAccountName", "containers", "initContainers"],
    );
    trim::keep(object, "status", &["phase", "podIP", "podIPs", "conditions"]);
    for list in ["/spec/containers", "/spec/initContainers"] {
        trim::each(object, list, |container| trim::keep_fields(container, &["name", "ports"]));
    }
    trim::each(object, "/status/conditions", |condition| trim::keep_fields(condition, &["type", "status"]));
    if let Some(Value::Array(conditions)) = object.pointer_mut("/status/conditions") {
        conditions.retain(|condition| condition["type"] == "Ready");
    }
}

/// What a `Pod` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSpec {
    /// Its addresses (`status.podIPs`), of either family; none until it has been given one.
    pub addresses: Vec<IpAddr>,
    /// Whether it uses its node's network, and so shares the node's addresses.
    pub host_network: bool,
    /// The node that it runs on; none until it has been given one.
    pub node: Option<String>,
    /// Its service account.
    pub service_account: String,
    /// The TCP ports that its containers say they serve; the name is empty if there is none.
    pub ports: Vec<(String, u16)>,
    /// Whether it has a sidecar of ours; never in its node's network. Istio's label says nothing here: its own pods
    /// carry it.
    pub meshed: bool,
    /// How far it has come.
    pub phase: Phase,
    /// Whether its condition `Ready` is true.
    pub ready: bool,
    /// The kind and name of what controls it, such as a ReplicaSet.
    pub owner: Option<(String, String)>,
    /// Its ports on which whatever is spoken is carried as it is; first and last of each range.
    pub opaque_ports: Vec<(u16, u16)>,
    /// Its ports that connections reach without its sidecar: nobody speaks mutual TLS there.
    pub skipped_ports: Vec<(u16, u16)>,
    /// Which gateway it is. `None`: it is none.
    pub gateway: Option<GatewayAnnotations>,
}

impl PodSpec {
    /// Whether it has ended for ever: its address may be another's by now.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }
}

/// `status.phase`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Phase {
    /// Accepted, and not running yet.
    #[default]
    Pending,
    /// At least one container runs.
    Running,
    /// All containers have ended well.
    Succeeded,
    /// All containers have ended, one of them badly.
    Failed,
    /// Its node does not say.
    Unknown,
}

#[derive(Debug, Deserialize)]
pub(super) struct Yaml {
    metadata: MetadataYaml,
    #[serde(default)]
    spec: SpecYaml,
    #[serde(default)]
    status: StatusYaml,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetadataYaml {
    #[serde(default)]
    owner_references: Vec<OwnerYaml>,
}

#[derive(Debug, Deserialize)]
struct OwnerYaml {
    kind: String,
    name: String,
    #[serde(default)]
    controller: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecYaml {
    host_network: bool,
    node_name: Option<String>,
    service_account_name: Option<String>,
    containers: Vec<ContainerYaml>,
    init_containers: Vec<ContainerYaml>,
}

impl SpecYaml {
    fn has_sidecar(&self) -> bool {
        self.containers.iter().chain(&self.init_containers).any(|one| one.name == SIDECAR_CONTAINER)
    }
}

#[derive(Debug, Deserialize)]
struct ContainerYaml {
    #[serde(default)]
    name: String,
    #[serde(default)]
    ports: Vec<PortYaml>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortYaml {
    #[serde(default)]
    name: String,
    container_port: u32,
    protocol: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusYaml {
    phase: Phase,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<IpYaml>,
    conditions: Vec<ConditionYaml>,
}

#[derive(Debug, Deserialize)]
struct IpYaml {
    ip: String,
}

#[derive(Debug, Deserialize)]
struct ConditionYaml {
    #[serde(rename = "type")]
    condition: String,
    status: String,
}

pub(super) fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<PodSpec, FieldError> {
    reading.unknown.clear();
    let Yaml { metadata, spec, status } = yaml;
    let labelled = reading.metadata.labels.get(SIDECAR_LABEL).is_some_and(|value| value == SIDECAR_INJECTED);
    if labelled && !spec.host_network && !spec.has_sidecar() {
        let message = format!(
            "says that the pod has a sidecar, but the pod has no container {SIDECAR_CONTAINER}: calls to it will fail; \
             remove the label, which only injection may set"
        );
        reading.warning(format!("metadata.labels[{SIDECAR_LABEL}]"), message);
    }
    let mut ports = Vec::new();
    let lists = [("containers", spec.containers), ("initContainers", spec.init_containers)];
    for (list, containers) in lists {
        for (index, container) in containers.into_iter().enumerate() {
            if container.name == SIDECAR_CONTAINER {
                continue;
            }
            let field = format!("spec.{list}[{index}]");
            read_ports(container.ports, &field, &mut ports)?;
        }
    }
    let service_account = spec.service_account_name.filter(|name| !name.is_empty());
    let service_account = service_account.unwrap_or_else(|| "default".to_owned());
    if WorkloadName::new("default", &service_account).is_err() {
        return Err(wrong(
            "spec.serviceAccountName",
            format!("{service_account:?} is not a service account"),
        ));
    }
    let meshed = labelled && !spec.host_network;
    let gateway = gateway_role::read(reading.metadata)?;
    if gateway.is_some() && meshed {
        let message = String::from(
            "has no effect, because the pod has a sidecar; keep injection away from it by the label selvedge.io/inject: \
             \"false\"",
        );
        reading.warning(format!("metadata.annotations[{GATEWAY_ANNOTATION}]"), message);
    }
    let owner = metadata.owner_references.into_iter().find(|owner| owner.controller);
    let ready = |condition: &ConditionYaml| condition.condition == "Ready" && condition.status == "True";
    Ok(PodSpec {
        addresses: read_addresses(status.pod_ip, status.pod_ips)?,
        host_network: spec.host_network,
        node: spec.node_name.filter(|name| !name.is_empty()),
        service_account,
        ports,
        meshed,
        phase: status.phase,
        ready: status.conditions.iter().any(ready),
        owner: owner.map(|owner| (owner.kind, owner.name)),
        opaque_ports: opaque_ports(&reading.metadata.annotations)?,
        skipped_ports: annotated_ports(&reading.metadata.annotations, SKIP_INBOUND_PORTS_ANNOTATION)?,
        gateway: gateway.filter(|_| !meshed),
    })
}

fn read_ports(yaml: Vec<PortYaml>, field: &str, ports: &mut Vec<(String, u16)>) -> Result<(), FieldError> {
    for (index, port) in yaml.into_iter().enumerate() {
        if port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP") {
            let number = port_number(port.container_port, &format!("{field}.ports[{index}].containerPort"))?;
            ports.push((port.name, number));
        }
    }
    Ok(())
}

fn read_addresses(single: Option<String>, list: Vec<IpYaml>) -> Result<Vec<IpAddr>, FieldError> {
    let texts = list.into_iter().map(|yaml| yaml.ip).chain(single).filter(|text| !text.is_empty());
    let mut addresses = Vec::new();
    for text in texts {
        let address: IpAddr = text
            .parse::<IpAddr>()
            .map_err(|_| wrong("status.podIPs", format!("{text:?} is not an IP address; remove it")))?
            .to_canonical();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}
