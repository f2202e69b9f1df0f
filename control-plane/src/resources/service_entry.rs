//! `ServiceEntry`: a service that Kubernetes does not know, with its endpoints, or where to look for them.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;
use selvedge_model::{HealthCheck, Host, Protocol};
use serde::Deserialize;

use super::{
    WorkloadEntrySpec,
    document::{Metadata, Reading, wrong},
    export_to::{self, ExportTo},
    health_check,
    kinds::{Feedback, ISTIO_NETWORKING, ResourceKind},
    locality_setting::{DISTRIBUTION_ANNOTATION, TrafficDistribution, traffic_distribution},
    service::{known_protocol, protocol_of},
    typed::FieldError,
    values::{port_name, port_number},
    workload_entry,
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("ServiceEntry", ISTIO_NETWORKING, "serviceentries", Feedback::Conditions)
        .with_annotations(&[&[DISTRIBUTION_ANNOTATION], &health_check::ANNOTATIONS])
        .read_as_spec::<Yaml>(|document| document.with_spec(read));

/// What a `ServiceEntry` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntrySpec {
    /// Whose clients it is for.
    pub export_to: ExportTo,
    /// Its names, lower case.
    pub hosts: Vec<String>,
    /// The addresses that clients dial; several hosts of one entry share them.
    pub addresses: Vec<IpAddr>,
    /// The same, as ranges.
    pub ranges: Vec<IpNet>,
    /// Its ports.
    pub ports: Vec<EntryPort>,
    /// Whether its endpoints belong to the mesh (`MESH_INTERNAL`) and may be meshed.
    pub internal: bool,
    /// How the addresses of its endpoints are found.
    pub resolution: Resolution,
    /// What its servers' certificates may say instead of the host, where TLS is begun to them.
    pub subject_alt_names: Vec<String>,
    /// Where it is served.
    pub endpoints: EntryEndpoints,
    /// How endpoints outside the mesh are asked whether they are well.
    pub health_check: Option<HealthCheck>,
    /// Which endpoints come first where no `DestinationRule` says it; `None`: all are alike.
    pub distribution: Option<TrafficDistribution>,
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
    /// At the addresses of its hosts' own names.
    Hosts,
}

/// How the addresses of a `ServiceEntry`'s endpoints are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// They are written down.
    Static,
    /// By DNS, which each sidecar asks.
    Dns {
        /// Whether one address of a name is used at a time (`DNS_ROUND_ROBIN`).
        one_address: bool,
    },
    /// A request goes wherever it says (`NONE`, `DYNAMIC_DNS`).
    Requested,
}

/// How many endpoints and addresses all hosts of one document may have at all of its ports. Few lines come to very many.
const MOST: usize = 1_000_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    hosts: Vec<String>,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    ports: Vec<PortYaml>,
    location: Option<LocationWord>,
    #[serde(default)]
    resolution: ResolutionWord,
    #[serde(default)]
    endpoints: Vec<workload_entry::Yaml>,
    workload_selector: Option<SelectorYaml>,
    export_to: Option<Vec<String>>,
    #[serde(default)]
    subject_alt_names: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortYaml {
    number: u32,
    name: String,
    protocol: Option<String>,
    target_port: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
struct SelectorYaml {
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum LocationWord {
    MeshExternal,
    MeshInternal,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ResolutionWord {
    #[default]
    None,
    Static,
    Dns,
    DnsRoundRobin,
    DynamicDns,
}

pub(super) fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<ServiceEntrySpec, FieldError> {
    let export_to = export_to::read(yaml.export_to, reading.namespace)?;
    let resolution = match yaml.resolution {
        ResolutionWord::Static => Resolution::Static,
        ResolutionWord::Dns => Resolution::Dns { one_address: false },
        ResolutionWord::DnsRoundRobin => Resolution::Dns { one_address: true },
        ResolutionWord::None | ResolutionWord::DynamicDns => Resolution::Requested,
    };
    let hosts = read_hosts(yaml.hosts)?;
    let (addresses, ranges) = read_addresses(&yaml.addresses)?;
    let written_as_range = yaml.addresses.iter().any(|address| address.contains('/'));
    let takes_ranges = matches!(yaml.resolution, ResolutionWord::None | ResolutionWord::Static);
    if written_as_range && !takes_ranges {
        let message = "has a range, and DNS says which addresses are called; write resolution: NONE or STATIC, or single \
                       addresses";
        return Err(wrong("spec.addresses", message));
    }
    if let Some(index) = told_apart_by_nothing(&yaml.ports)
        .filter(|_| hosts.len() > 1 && yaml.resolution != ResolutionWord::None)
    {
        let message =
            "carries bytes that name no host, and there are several hosts; write a document for each of them";
        return Err(wrong(format!("spec.ports[{index}].protocol"), message));
    }
    let ports = read_ports(yaml.ports)?;
    let endpoints = read_endpoints(yaml.workload_selector, yaml.endpoints, reading)?;
    fits(resolution, &hosts, &endpoints, ports.len())?;
    let listed = if let EntryEndpoints::Inline(list) = &endpoints { list.len() } else { 0 };
    let each = listed.saturating_add(addresses.len()).saturating_add(ranges.len()).saturating_add(1);
    let needed = hosts.len().saturating_mul(ports.len().max(1)).saturating_mul(each);
    if needed > MOST {
        let message = format!(
            "has {} hosts, {} ports, and {listed} endpoints, {} addresses and {} ranges of addresses: each host has all of \
             these at each port, which comes to {needed}, and {MOST} is the most; split it",
            hosts.len(),
            ports.len(),
            addresses.len(),
            ranges.len()
        );
        return Err(wrong("spec", message));
    }
    if let EntryEndpoints::Inline(list) = &endpoints {
        ports_are_known(list, &ports)?;
    }
    let endpoints = match (resolution, endpoints) {
        (Resolution::Dns { .. }, EntryEndpoints::Inline(list)) if list.is_empty() => EntryEndpoints::Hosts,
        (_, endpoints) => endpoints,
    };
    report_nothing_there(resolution, &ports, &endpoints, reading);
    let internal = yaml.location == Some(LocationWord::MeshInternal);
    let subject_alt_names = yaml.subject_alt_names;
    let health_check = health_check::read(reading)?;
    Ok(ServiceEntrySpec {
        export_to,
        hosts,
        addresses,
        ranges,
        ports,
        internal,
        resolution,
        subject_alt_names,
        endpoints,
        health_check,
        distribution: traffic_distribution(None, reading)?,
    })
}

/// The first of `ports` at which nothing that is sent says which host is meant, as far as its protocol says. As in Istio, that
/// must be written down.
fn told_apart_by_nothing(ports: &[PortYaml]) -> Option<usize> {
    let is_bytes =
        |word: &str| ["", "tcp", "mongo", "mysql", "redis"].contains(&word.to_ascii_lowercase().as_str());
    ports.iter().position(|port| is_bytes(port.protocol.as_deref().unwrap_or_default()))
}

fn read_ports(yaml: Vec<PortYaml>) -> Result<Vec<EntryPort>, FieldError> {
    let (mut ports, mut numbers, mut names) = (Vec::new(), HashSet::new(), HashSet::new());
    for (index, port) in yaml.into_iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        let port = read_port(port, &field)?;
        let is_new = numbers.insert(port.number);
        if !names.insert(port.name.clone()) || !is_new {
            return Err(wrong(field, "has the number or name of another port; both must be unique"));
        }
        ports.push(port);
    }
    Ok(ports)
}

fn read_endpoints(
    selector: Option<SelectorYaml>,
    endpoints: Vec<workload_entry::Yaml>,
    reading: &mut Reading<'_>,
) -> Result<EntryEndpoints, FieldError> {
    if let Some(selector) = selector {
        if !endpoints.is_empty() {
            let message = "is given together with endpoints; keep one of them";
            return Err(wrong("spec.workloadSelector", message));
        }
        for (name, value) in &selector.labels {
            if name.is_empty() || name.contains('*') || value.contains('*') {
                let message = format!(
                    "{name}={value} is not a label with a value, which stand for themselves; write both out"
                );
                return Err(wrong(format!("spec.workloadSelector.labels.{name}"), message));
            }
        }
        return Ok(EntryEndpoints::Selected(selector.labels));
    }
    let mut read = Vec::new();
    for (index, endpoint) in endpoints.into_iter().enumerate() {
        let field = format!("spec.endpoints[{index}]");
        read.push(workload_entry::read(endpoint, &field, &Metadata::default(), reading)?);
    }
    Ok(EntryEndpoints::Inline(read))
}

/// Whether the endpoints can be found in the way that is asked for.
fn fits(
    resolution: Resolution,
    hosts: &[String],
    endpoints: &EntryEndpoints,
    ports: usize,
) -> Result<(), FieldError> {
    let list = match endpoints {
        EntryEndpoints::Inline(list) => list.as_slice(),
        EntryEndpoints::Selected(_) | EntryEndpoints::Hosts => &[],
    };
    let selected = matches!(endpoints, EntryEndpoints::Selected(_));
    match resolution {
        Resolution::Static => {
            let by_name =
                list.iter().enumerate().find_map(|(index, one)| Some((index, one.address.as_ref()?.name()?)));
            if let Some((index, name)) = by_name {
                let message = format!("{name} is not an IP address; write resolution: DNS");
                return Err(wrong(format!("spec.endpoints[{index}].address"), message));
            }
            if let Some(index) = list.iter().position(|one| one.address.is_none()).filter(|_| ports != 1) {
                let message = "is a Unix socket, which can serve one port alone; give the entry one port";
                return Err(wrong(format!("spec.endpoints[{index}].address"), message));
            }
        }
        Resolution::Dns { one_address } => {
            if let Some(index) = list.iter().position(|one| one.address.is_none()) {
                let message = "is a Unix socket, which DNS says nothing of; write resolution: STATIC";
                return Err(wrong(format!("spec.endpoints[{index}].address"), message));
            }
            let wildcard = hosts.iter().position(|host| host.starts_with('*'));
            if let Some(index) = wildcard.filter(|_| list.is_empty()) {
                let message = format!(
                    "{} is not a name that DNS can be asked for; list endpoints, or write resolution: DYNAMIC_DNS or NONE",
                    hosts[index]
                );
                return Err(wrong(format!("spec.hosts[{index}]"), message));
            }
            if one_address && list.len() > 1 {
                let message = "DNS_ROUND_ROBIN has one endpoint at most; write DNS to use several";
                return Err(wrong("spec.endpoints", message));
            }
        }
        Resolution::Requested if selected => {
            let message = "has no effect with this resolution, because a request goes to the host that it names; write STATIC";
            return Err(wrong("spec.workloadSelector", message));
        }
        Resolution::Requested if !list.is_empty() => {
            let message = "have no effect with this resolution, because a request goes to the host that it names; \
                           write resolution: STATIC or DNS";
            return Err(wrong("spec.endpoints", message));
        }
        Resolution::Requested => {}
    }
    Ok(())
}

/// Reports an entry that Istio takes, too, and at which nothing can be called.
fn report_nothing_there(
    resolution: Resolution,
    ports: &[EntryPort],
    endpoints: &EntryEndpoints,
    reading: &mut Reading<'_>,
) {
    if ports.is_empty() {
        reading.warning("spec.ports", "is empty, so nothing can be called by this entry; add its ports");
    }
    let has_none = matches!(endpoints, EntryEndpoints::Inline(list) if list.is_empty());
    if resolution == Resolution::Static && has_none {
        let message = "is empty, and resolution: STATIC says that all endpoints are written down, so calls are answered 503; list \
                       them, or give workloadSelector, or write resolution: DNS";
        reading.warning("spec.endpoints", message);
    }
}

/// Refuses endpoints with a port that the entry does not have.
fn ports_are_known(list: &[WorkloadEntrySpec], ports: &[EntryPort]) -> Result<(), FieldError> {
    let known: HashSet<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    for (index, endpoint) in list.iter().enumerate() {
        if let Some(name) = endpoint.ports.keys().find(|name| !known.contains(name.as_str())) {
            let message = "is the port of an endpoint, and the entry has no port of this name; add it to spec.ports, or correct the \
                           name";
            return Err(wrong(format!("spec.endpoints[{index}].ports.{name}"), message));
        }
    }
    Ok(())
}

fn read_hosts(yaml: Vec<String>) -> Result<Vec<String>, FieldError> {
    if yaml.is_empty() {
        return Err(wrong("spec.hosts", "is empty; name at least one host"));
    }
    let mut hosts = Vec::new();
    for (index, host) in yaml.into_iter().enumerate() {
        let name = host.strip_prefix("*.").unwrap_or(&host);
        if !matches!(name.parse(), Ok(Host::Name(_))) {
            let message = format!("{host:?} is not a host; write a DNS name, or *. and a domain");
            return Err(wrong(format!("spec.hosts[{index}]"), message));
        }
        hosts.push(host.strip_suffix('.').unwrap_or(&host).to_ascii_lowercase());
    }
    Ok(hosts)
}

fn read_addresses(yaml: &[String]) -> Result<(Vec<IpAddr>, Vec<IpNet>), FieldError> {
    let (mut addresses, mut ranges) = (Vec::new(), Vec::new());
    let (mut known, mut known_ranges) = (HashSet::new(), HashSet::new());
    for (index, text) in yaml.iter().enumerate() {
        // The smallest range is an address.
        let range = text.parse::<IpNet>().map(|range| canonical(range.trunc()));
        let single = range.as_ref().ok().filter(|range| range.prefix_len() == range.max_prefix_len());
        let address = text.parse().ok().map(|address: IpAddr| address.to_canonical());
        match (address.or(single.map(IpNet::addr)), range) {
            (Some(address), _) if !known.insert(address) => {}
            (Some(address), _) => addresses.push(address),
            (None, Ok(range)) if !known_ranges.insert(range) => {}
            (None, Ok(range)) => ranges.push(range),
            (None, Err(_)) => {
                let message = format!("{text:?} is neither an IP address nor a range such as 10.0.0.0/8");
                return Err(wrong(format!("spec.addresses[{index}]"), message));
            }
        }
    }
    Ok((addresses, ranges))
}

/// A range of IPv4 addresses that are written as IPv6 (`::ffff:192.0.2.0/120`) is the IPv4 one.
fn canonical(range: IpNet) -> IpNet {
    let bits_of_v4 = range.prefix_len().checked_sub(96).filter(|_| range.addr().to_canonical().is_ipv4());
    let v4 = |bits| IpNet::new(range.addr().to_canonical(), bits).ok();
    if range.addr().is_ipv6() { bits_of_v4.and_then(v4).unwrap_or(range) } else { range }
}

fn read_port(yaml: PortYaml, field: &str) -> Result<EntryPort, FieldError> {
    let number = port_number(yaml.number, &format!("{field}.number"))?;
    port_name(&yaml.name, &format!("{field}.name"))?;
    let target = match yaml.target_port {
        None | Some(0) => number,
        Some(target) => port_number(target, &format!("{field}.targetPort"))?,
    };
    let protocol = match &yaml.protocol {
        None => protocol_of(None, &yaml.name, number),
        Some(word) => known_protocol(word).ok_or_else(|| {
            let message = format!("{word:?} is not known; use HTTP, HTTP2, GRPC, HTTPS, TLS, TCP or MONGO");
            wrong(format!("{field}.protocol"), message)
        })?,
    };
    Ok(EntryPort { name: yaml.name, number, target, protocol })
}
