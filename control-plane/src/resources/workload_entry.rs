//! `WorkloadEntry`: a workload outside Kubernetes, with its address, labels, ports and service account.
//!
//! Two things that Kubernetes knows about a pod are said here by a label and an annotation: whether there
//! is a sidecar (`security.istio.io/tlsMode: istio`, as Istio has it), and where its inbound listener
//! is when nothing redirects connections to it (`config.selvedge.io/inbound: HOST:PORT`).

use std::collections::BTreeMap;

use selvedge_model::{Host, HostPort, Locality, WorkloadName};
use serde::Deserialize;

use super::{
    document::{Metadata, Reading, wrong},
    gateway_role::{self, GATEWAY_ANNOTATION, GATEWAY_PORTS_ANNOTATION, GatewayAnnotations},
    kinds::{Feedback, ISTIO_NETWORKING, ResourceKind},
    label_selector,
    linkerd_policy::access,
    locality_setting::locality,
    telemetry_annotations::{ACCESS_LOG_ANNOTATION, ACCESS_LOG_FILTER_ANNOTATION, TRACE_SAMPLING_ANNOTATION},
    typed::FieldError,
    values::{OPAQUE_PORTS_ANNOTATION, is_socket, opaque_ports, port_name, port_number},
};

/// The label that says that a workload has a sidecar.
const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";
/// What the label may say: Istio's two words, and nothing.
const TLS_MODES: [&str; 3] = ["istio", "disabled", ""];
/// The annotation that says where a workload's inbound listener is.
pub(super) const INBOUND_ANNOTATION: &str = "config.selvedge.io/inbound";

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("WorkloadEntry", ISTIO_NETWORKING, "workloadentries", Feedback::Conditions)
        .with_annotations(&[&[
            INBOUND_ANNOTATION,
            OPAQUE_PORTS_ANNOTATION,
            access::ANNOTATION,
            GATEWAY_ANNOTATION,
            GATEWAY_PORTS_ANNOTATION,
            ACCESS_LOG_ANNOTATION,
            ACCESS_LOG_FILTER_ANNOTATION,
            TRACE_SAMPLING_ANNOTATION,
        ]])
        .read_as_spec::<Yaml>(|document| {
            document.with_spec(|yaml, reading| read(yaml, "spec", reading.metadata, reading))
        });

/// What a `WorkloadEntry` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadEntrySpec {
    /// Where it is: an IP address, or a name that each client resolves in its own network. `None`: a Unix
    /// socket (which is reported).
    pub address: Option<Host>,
    /// Its labels; those of `spec` beat those of `metadata`.
    pub labels: BTreeMap<String, String>,
    /// The ports that it serves, by name.
    pub ports: BTreeMap<String, u16>,
    /// Its service account.
    pub service_account: String,
    /// Whether it has a sidecar.
    pub meshed: bool,
    /// Its sidecar's inbound listener, in explicit mode.
    pub inbound: Option<HostPort>,
    /// Its ports on which whatever is spoken is carried as it is; first and last of each range.
    pub opaque_ports: Vec<(u16, u16)>,
    /// Its share of requests, beside others behind the same service; not 0.
    pub weight: u32,
    /// Where it is.
    pub locality: Locality,
    /// Which gateway it is. `None`: it is none.
    pub gateway: Option<GatewayAnnotations>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    address: String,
    #[serde(default)]
    ports: BTreeMap<String, u32>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    service_account: Option<String>,
    #[serde(default)]
    weight: u32,
    locality: Option<String>,
}

pub(super) fn read(
    yaml: Yaml,
    field: &str,
    metadata: &Metadata,
    reading: &mut Reading<'_>,
) -> Result<WorkloadEntrySpec, FieldError> {
    let address = read_address(&yaml.address, &format!("{field}.address"), reading)?;
    let mut ports = BTreeMap::new();
    let is_socket = address.is_none();
    for (name, number) in yaml.ports {
        if is_socket {
            let message = "is a port, and the address is a Unix socket, which has none; remove it";
            return Err(wrong(format!("{field}.ports.{name}"), message));
        }
        port_name(&name, &format!("{field}.ports.{name}"))?;
        let port = port_number(number, &format!("{field}.ports.{name}"))?;
        ports.insert(name, port);
    }
    // They are sent to all who call it, and shown.
    for (name, value) in &metadata.labels {
        label_selector::check(name, value, "metadata.labels")?;
    }
    for (name, value) in &yaml.labels {
        label_selector::check(name, value, &format!("{field}.labels"))?;
    }
    let said_here = yaml.labels.contains_key(TLS_MODE_LABEL);
    let mut labels = metadata.labels.clone();
    labels.extend(yaml.labels);
    let service_account = yaml.service_account.unwrap_or_else(|| "default".to_owned());
    if WorkloadName::new("default", &service_account).is_err() {
        let message =
            format!("{service_account:?} is not a service account; use lower-case letters, digits and '-'");
        return Err(wrong(format!("{field}.serviceAccount"), message));
    }
    let inbound = read_inbound(metadata)?;
    if let Some(mode) = labels.get(TLS_MODE_LABEL).filter(|mode| !TLS_MODES.contains(&mode.as_str())) {
        let message = format!(
            "{mode:?} is not a value of this label; write istio (it has a sidecar) or disabled (it has no sidecar)"
        );
        let holder = if said_here { field } else { "metadata" };
        return Err(wrong(format!("{holder}.labels[{TLS_MODE_LABEL}]"), message));
    }
    let meshed = is_meshed(&labels);
    if inbound.is_some() && !meshed {
        let message = format!("has no effect without the label {TLS_MODE_LABEL}: istio");
        reading.warning(format!("metadata.annotations[{INBOUND_ANNOTATION}]"), message);
    }
    let gateway = gateway_role::read(metadata)?;
    if gateway.is_some() && meshed {
        let message = format!(
            "a gateway accepts no mutual TLS of the mesh, so sidecars cannot call it; remove the label {TLS_MODE_LABEL}"
        );
        return Err(wrong(format!("metadata.annotations[{GATEWAY_ANNOTATION}]"), message));
    }
    let opaque_ports = opaque_ports(&metadata.annotations)?;
    // As in Istio, where 0 means the default.
    let weight = yaml.weight.max(1);
    let locality = locality(yaml.locality.as_deref(), &format!("{field}.locality"), reading);
    Ok(WorkloadEntrySpec {
        address,
        labels,
        ports,
        service_account,
        meshed,
        inbound,
        opaque_ports,
        weight,
        locality,
        gateway,
    })
}

/// Where the annotation says that the sidecar's inbound listener is.
fn read_inbound(metadata: &Metadata) -> Result<Option<HostPort>, FieldError> {
    let Some(text) = metadata.annotations.get(INBOUND_ANNOTATION) else { return Ok(None) };
    let address = text.parse().map_err(|_| {
        let message =
            format!("{text:?} is not an address; write HOST:PORT of the sidecar's inbound listener");
        wrong(format!("metadata.annotations[{INBOUND_ANNOTATION}]"), message)
    })?;
    Ok(Some(address))
}

/// Whether a workload with `labels` has a sidecar.
fn is_meshed(labels: &BTreeMap<String, String>) -> bool {
    labels.get(TLS_MODE_LABEL).is_some_and(|mode| mode == "istio")
}

fn read_address(text: &str, field: &str, reading: &mut Reading<'_>) -> Result<Option<Host>, FieldError> {
    if let Some(path) = text.strip_prefix("unix://") {
        if !is_socket(path) {
            let message =
                format!("{path:?} is not the place of a Unix socket; write unix:///PATH, or unix://@NAME");
            return Err(wrong(field, message));
        }
        let message = "is a Unix socket, which is not acted on: nothing is sent there";
        reading.not_acted_on(field, message);
        return Ok(None);
    }
    let host = text.parse().map_err(|error| wrong(field, format!("{text:?} is {error}; correct it")))?;
    Ok(Some(host))
}
