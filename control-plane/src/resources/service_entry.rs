//! `ServiceEntry` (STATIC): a service that Kubernetes does not know, with its endpoints.

use std::{collections::BTreeMap, net::IpAddr};

use selvedge_model::Protocol;
use serde::Deserialize;

use super::{
    WorkloadEntrySpec,
    document::{Metadata, Reading, wrong},
    service::{known_protocol, protocol_of},
    typed::FieldError,
    words::port_number,
    workload_entry,
};

/// What a `ServiceEntry` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntrySpec {
    /// Its names, lower case.
    pub hosts: Vec<String>,
    /// The addresses that clients dial; several hosts of one entry share them.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<EntryPort>,
    /// Whether its endpoints belong to the mesh (`MESH_INTERNAL`) and may be meshed.
    pub internal: bool,
    /// Where it is served.
    pub endpoints: EntryEndpoints,
}

/// One port of a `ServiceEntry`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryPort {
    /// Its name.
    pub name: String,
    /// The port that clients call.
    pub number: u16,
    /// The port that endpoints serve, unless they say otherwise.
    pub target: u16,
    /// What is spoken.
    pub protocol: Protocol,
}

/// Where a `ServiceEntry` is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryEndpoints {
    /// At these.
    Inline(Vec<WorkloadEntrySpec>),
    /// By the workloads of its namespace that carry these labels.
    Selected(BTreeMap<String, String>),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Words {
    hosts: Vec<String>,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    ports: Vec<PortWords>,
    location: Option<Location>,
    resolution: Option<Resolution>,
    #[serde(default)]
    endpoints: Vec<workload_entry::Words>,
    workload_selector: Option<SelectorWords>,
    export_to: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortWords {
    number: u32,
    name: String,
    protocol: Option<String>,
    target_port: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
struct SelectorWords {
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Location {
    MeshExternal,
    MeshInternal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Resolution {
    None,
    Static,
    Dns,
    DnsRoundRobin,
    DynamicDns,
}

pub(super) fn read(words: Words, reading: &mut Reading<'_>) -> Result<ServiceEntrySpec, FieldError> {
    export_to(words.export_to.as_deref(), reading);
    if words.resolution != Some(Resolution::Static) {
        let message = "only resolution: STATIC is acted on, so this document has no effect";
        reading.not_acted_on("spec.resolution", message);
        return Ok(ServiceEntrySpec {
            hosts: Vec::new(),
            addresses: Vec::new(),
            ports: Vec::new(),
            internal: false,
            endpoints: EntryEndpoints::Inline(Vec::new()),
        });
    }
    let hosts = read_hosts(words.hosts, reading)?;
    let addresses = read_addresses(&words.addresses, reading)?;
    let mut ports: Vec<EntryPort> = Vec::new();
    for (index, port) in words.ports.into_iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        let port = read_port(port, &field)?;
        if ports.iter().any(|other| other.number == port.number || other.name == port.name) {
            return Err(wrong(field, "has the number or name of another port; both must be unique"));
        }
        ports.push(port);
    }
    let endpoints = match (words.workload_selector, words.endpoints) {
        (Some(_), endpoints) if !endpoints.is_empty() => {
            let message = "is given together with endpoints; keep one of them";
            return Err(wrong("spec.workloadSelector", message));
        }
        (Some(selector), _) => EntryEndpoints::Selected(selector.labels),
        (None, endpoints) => {
            let mut read = Vec::new();
            for (index, endpoint) in endpoints.into_iter().enumerate() {
                let field = format!("spec.endpoints[{index}]");
                read.push(workload_entry::read(endpoint, &field, &Metadata::default(), reading)?);
            }
            EntryEndpoints::Inline(read)
        }
    };
    let internal = words.location == Some(Location::MeshInternal);
    Ok(ServiceEntrySpec { hosts, addresses, ports, internal, endpoints })
}

fn read_hosts(words: Vec<String>, reading: &mut Reading<'_>) -> Result<Vec<String>, FieldError> {
    if words.is_empty() {
        return Err(wrong("spec.hosts", "is empty; name at least one host"));
    }
    let mut hosts = Vec::new();
    for (index, host) in words.into_iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        if host.is_empty() || host == "*" {
            return Err(wrong(field, format!("{host:?} names no host; write its full name")));
        }
        if host.contains('*') {
            reading.not_acted_on(field, format!("{host} is not acted on; list each host by its full name"));
            continue;
        }
        hosts.push(host.to_ascii_lowercase());
    }
    Ok(hosts)
}

fn read_addresses(words: &[String], reading: &mut Reading<'_>) -> Result<Vec<IpAddr>, FieldError> {
    let mut addresses = Vec::new();
    for (index, text) in words.iter().enumerate() {
        let field = format!("spec.addresses[{index}]");
        match text.parse() {
            Ok(address) if !addresses.contains(&address) => addresses.push(address),
            Ok(_) => {}
            Err(_) if text.contains('/') => {
                reading.not_acted_on(field, format!("{text} is not acted on; list each address by itself"));
            }
            Err(_) => return Err(wrong(field, format!("{text:?} is no IP address"))),
        }
    }
    Ok(addresses)
}

fn read_port(words: PortWords, field: &str) -> Result<EntryPort, FieldError> {
    let number = port_number(words.number, &format!("{field}.number"))?;
    let target = match words.target_port {
        None | Some(0) => number,
        Some(target) => port_number(target, &format!("{field}.targetPort"))?,
    };
    let protocol = match &words.protocol {
        None => protocol_of(None, &words.name, number),
        Some(word) => known_protocol(word).ok_or_else(|| {
            let message = format!("{word:?} is not known; use HTTP, HTTP2, GRPC, HTTPS, TLS, TCP or MONGO");
            wrong(format!("{field}.protocol"), message)
        })?,
    };
    Ok(EntryPort { name: words.name, number, target, protocol })
}

/// Reports an `exportTo` that would hide the document from some namespaces.
pub(super) fn export_to(namespaces: Option<&[String]>, reading: &mut Reading<'_>) {
    let hides = namespaces.is_some_and(|list| !list.is_empty() && !list.iter().any(|name| name == "*"));
    if hides {
        reading.not_acted_on("spec.exportTo", "not acted on: the document counts in every namespace");
    }
}
