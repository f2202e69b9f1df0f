//! `Server`: a port of some pods, to which policies can be attached.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::access::Access;
use crate::resources::{
    document::{Reading, wrong},
    kinds::{Feedback, ResourceKind},
    label_selector::{LabelSelector, LabelSelectorYaml},
    nearest::nearest,
    typed::FieldError,
    values::{NumberOrName, port_number},
};

const VERSIONS: &[&str] =
    &["policy.linkerd.io/v1beta3", "policy.linkerd.io/v1beta2", "policy.linkerd.io/v1beta1"];

/// Its line in the [list of kinds](crate::resources::kinds).
pub(in crate::resources) const KIND: ResourceKind =
    ResourceKind::new("Server", VERSIONS, "servers", Feedback::Events)
        .policy()
        .read_as_spec::<Yaml>(|document| document.with_spec(read));

/// What a `Server` says.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSpec {
    /// The workloads of its namespace whose port it is; `None`: it is for others, that are not known here.
    pub workloads: Option<LabelSelector>,
    /// The same, if only equal labels are asked for.
    pub labels: Option<BTreeMap<String, String>>,
    /// Which port.
    pub port: ServerPort,
    /// Whether whatever is spoken there is carried as it is.
    pub is_opaque: bool,
    /// Whom it lets in besides those whom policies name.
    pub access: Access,
}

/// A port of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerPort {
    /// By its number.
    Number(u16),
    /// By its name.
    Named(String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    pod_selector: Option<LabelSelectorYaml>,
    external_workload_selector: Option<LabelSelectorYaml>,
    port: NumberOrName,
    proxy_protocol: Option<String>,
    access_policy: Option<String>,
}

/// What a `proxyProtocol` may be, and whether it is carried as it is.
const PROTOCOLS: [(&str, bool); 6] = [
    ("unknown", false),
    ("HTTP/1", false),
    ("HTTP/2", false),
    ("gRPC", false),
    ("opaque", true),
    ("TLS", true),
];

fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<ServerSpec, FieldError> {
    let selectors = (yaml.pod_selector, yaml.external_workload_selector);
    let selector = match selectors {
        (Some(_), Some(_)) => {
            let message = "cannot be set together with podSelector; write a Server for each";
            return Err(wrong("spec.externalWorkloadSelector", message));
        }
        (None, None) => {
            let message = "is missing; select pods by labels, or write {} for all of the namespace";
            return Err(wrong("spec.podSelector", message));
        }
        (Some(pods), None) => Some(pods),
        (None, Some(others)) => {
            others.read("spec.externalWorkloadSelector")?;
            let message = "is not acted on, because ExternalWorkloads are not; write a WorkloadEntry and select it by \
                           podSelector";
            reading.error("spec.externalWorkloadSelector", message);
            None
        }
    };
    let labels = selector.as_ref().and_then(LabelSelectorYaml::equal_labels);
    let access = yaml.access_policy.as_deref().map_or(Ok(Access::Deny), Access::of);
    Ok(ServerSpec {
        workloads: selector.map(|selector| selector.read("spec.podSelector")).transpose()?,
        labels,
        port: port(yaml.port)?,
        is_opaque: yaml.proxy_protocol.as_deref().map_or(Ok(false), is_opaque)?,
        access: access.map_err(|message| wrong("spec.accessPolicy", message))?,
    })
}

fn port(yaml: NumberOrName) -> Result<ServerPort, FieldError> {
    match yaml {
        NumberOrName::Number(number) => port_number(number, "spec.port").map(ServerPort::Number),
        NumberOrName::Name(name) if name.is_empty() => {
            Err(wrong("spec.port", "is empty; write the number of a port, or its name"))
        }
        NumberOrName::Name(name) => match name.parse() {
            // No port has such a name: whoever quotes the number means the number.
            Ok(number) => port_number(number, "spec.port").map(ServerPort::Number),
            Err(_) => Ok(ServerPort::Named(name)),
        },
    }
}

fn is_opaque(word: &str) -> Result<bool, FieldError> {
    if let Some((_, is_opaque)) = PROTOCOLS.iter().find(|(known, _)| *known == word) {
        return Ok(*is_opaque);
    }
    let advice = match nearest(word, PROTOCOLS.map(|(known, _)| known)) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("use {}", PROTOCOLS.map(|(known, _)| known).join(", ")),
    };
    Err(wrong("spec.proxyProtocol", format!("{word:?} is not a protocol of a Server; {advice}")))
}
