//! `VirtualService`: which requests to a host go where, the first match in list order; and which opaque
//! connections.
//!
//! A match with a condition that we cannot check is dropped and reported: applied without that condition
//! it would send requests where nobody asked for them to go.

use std::collections::HashMap;

use selvedge_model::Layer;
use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    export_to::{self, ExportTo},
    kinds::{Feedback, ISTIO_NETWORKING, ResourceKind},
    telemetry_annotations,
    typed::FieldError,
    values::{called_host, host_pattern, port_number, subset_name},
};

mod answers;
mod conflicts;
mod cors;
mod fault;
mod gateways;
mod headers;
mod http;
mod matches;
mod mirrors;
mod retries;
mod rewrite;
mod shadowed;
mod tcp;

pub(super) use tcp::server_name;
pub use {
    gateways::{FollowedBy, Follower, GatewayRef},
    headers::Headers,
    http::{DelegateTo, HttpRoute},
    mirrors::{Mirror, Mirrors},
    tcp::TcpRoute,
};

/// Its line in the [list of kinds](super::kinds).
pub(super) const KIND: ResourceKind =
    ResourceKind::new("VirtualService", ISTIO_NETWORKING, "virtualservices", Feedback::Conditions)
        .with_annotations(&[telemetry_annotations::OF_ROUTES])
        .read_as_spec::<Yaml>(|document| document.with_spec(read));

/// What a `VirtualService` says.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualServiceSpec {
    /// Whose clients it is for.
    pub export_to: ExportTo,
    /// The hosts as they are written, lower case: names, short names, or `*.suffix`. None: others delegate to it.
    pub hosts: Vec<String>,
    /// Who follows it; sidecars, if its gateways are absent or include `mesh`.
    pub followed_by: FollowedBy,
    /// Its HTTP routes, in order.
    pub http: Vec<HttpRoute>,
    /// Its TLS and TCP routes, in order.
    pub tcp: Vec<TcpRoute>,
}

impl VirtualServiceSpec {
    /// Its routes for opaque connections of one layer.
    pub fn opaque(&self, layer: Layer) -> impl Iterator<Item = &TcpRoute> {
        self.tcp.iter().filter(move |route| route.layer == layer)
    }
}

/// One entry of `match`, for whatever is routed.
#[derive(Debug, Clone, PartialEq)]
pub struct PortMatch<C> {
    /// Its place in the document's list.
    pub index: usize,
    /// The service port that it is for; `None` = any.
    pub port: Option<u16>,
    /// Who follows it; `None` = all who follow the document.
    pub followed_by: Option<FollowedBy>,
    /// What the request or the connection must look like.
    pub condition: C,
}

impl<C> PortMatch<C> {
    /// Whether `follower` follows it where that is asked for `port`.
    pub fn is_for(&self, port: u16, follower: Follower<'_>) -> bool {
        self.port.is_none_or(|own| own == port)
            && self.followed_by.as_ref().is_none_or(|followed_by| followed_by.includes(follower))
    }
}

/// The conditions of `matches` that are for `port` and `follower`, empty where there are no matches: everything. `None` if
/// there are, and none is for these.
pub fn asked<C: Clone>(
    matches: Option<&[PortMatch<C>]>,
    port: u16,
    follower: Follower<'_>,
) -> Option<Vec<C>> {
    let Some(matches) = matches else { return Some(Vec::new()) };
    let here = matches.iter().filter(|one| one.is_for(port, follower));
    let here: Vec<_> = here.map(|one| one.condition.clone()).collect();
    (!here.is_empty()).then_some(here)
}

/// One entry of `route`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Its place in the document.
    pub index: usize,
    /// The host as it is written, lower case.
    pub host: String,
    /// The subset, if one is named.
    pub subset: Option<String>,
    /// The port, if one is named.
    pub port: Option<u16>,
    /// Its share is this / the sum of all.
    pub weight: u32,
    /// What changes in the headers of this share alone; nothing in `tcp` and `tls`.
    pub headers: Headers,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Yaml {
    #[serde(default)]
    hosts: Vec<String>,
    gateways: Option<Vec<String>>,
    #[serde(default)]
    http: Vec<http::RouteYaml>,
    #[serde(default)]
    tls: Vec<tcp::RouteYaml>,
    #[serde(default)]
    tcp: Vec<tcp::RouteYaml>,
    export_to: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct DestinationYaml {
    destination: TargetYaml,
    weight: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct TargetYaml {
    host: String,
    subset: Option<String>,
    port: Option<PortYaml>,
}

#[derive(Debug, Deserialize)]
struct PortYaml {
    number: u32,
}

pub(super) fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<VirtualServiceSpec, FieldError> {
    if yaml.hosts.iter().any(String::is_empty) {
        return Err(wrong("spec.hosts", "has an empty name; name a host"));
    }
    if yaml.hosts.is_empty() {
        yaml.check_delegate()?;
    }
    if yaml.http.is_empty() && yaml.tls.is_empty() && yaml.tcp.is_empty() && reading.unknown.is_empty() {
        return Err(wrong("spec.hosts", "has no routes; give http, tls or tcp, or remove the document"));
    }
    telemetry_annotations::check(reading, yaml.http.len())?;
    let export_to = export_to::read_known(yaml.export_to, reading.namespace)?;
    let followed_by = gateways::read(yaml.gateways.as_deref(), "spec.gateways", reading.namespace)?;
    check_hosts(&yaml.hosts, followed_by.as_ref().is_none_or(|followed| followed.sidecars))?;
    let mut http = Vec::new();
    for (index, route) in yaml.http.into_iter().enumerate() {
        http.push(http::read(route, index, yaml.hosts.is_empty(), reading)?);
    }
    let hosts: Vec<String> = yaml.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
    let mut tcp = tcp::read(yaml.tls, Layer::Tls, &hosts, reading)?;
    tcp.extend(tcp::read(yaml.tcp, Layer::Tcp, &hosts, reading)?);
    shadowed::report(&http, hosts.is_empty(), reading);
    shadowed::report_opaque(&tcp, reading);
    Ok(VirtualServiceSpec { export_to, hosts, followed_by: followed_by.unwrap_or_default(), http, tcp })
}

/// Refuses hosts that are none, and those of which another one of them says the same. `by_sidecars`: whether these follow the
/// document.
fn check_hosts(hosts: &[String], by_sidecars: bool) -> Result<(), FieldError> {
    for (index, host) in hosts.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        host_pattern(host, &field)?;
        if host == "*" && by_sidecars {
            let message =
                "stands for every host, which only gateways serve; name hosts, or name gateways without mesh";
            return Err(wrong(field, message));
        }
    }
    match same_hosts(hosts) {
        None => Ok(()),
        Some((other, index)) => {
            let message =
                format!("{} and {} are for the same hosts; keep one of them", hosts[index], hosts[other]);
            Err(wrong(format!("spec.hosts[{index}]"), message))
        }
    }
}

/// The places of two of `hosts`, the earlier one first, of which one is a host of the other. There may be very many hosts: what
/// they are below is looked up by their ends.
fn same_hosts(hosts: &[String]) -> Option<(usize, usize)> {
    let hosts: Vec<String> = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
    // By what is behind the `*`.
    let (mut names, mut wildcards) = (HashMap::new(), HashMap::new());
    for (index, host) in hosts.iter().enumerate() {
        let first = match host.strip_prefix('*') {
            Some(end) => wildcards.insert(end, index),
            None => names.insert(host.as_str(), index),
        };
        if let Some(first) = first {
            return Some((first, index));
        }
    }
    hosts.iter().enumerate().find_map(|(index, host)| {
        let ends = (0..=host.len()).filter_map(|start| host.get(start..));
        let wide = ends.filter_map(|end| wildcards.get(end)).find(|wide| **wide != index)?;
        Some((index.min(*wide), index.max(*wide)))
    })
}

impl Yaml {
    /// Refuses what a document without hosts, to which others delegate, cannot have.
    fn check_delegate(&self) -> Result<(), FieldError> {
        if self.http.is_empty() {
            return Err(wrong("spec.hosts", "is empty; name at least one host"));
        }
        for (field, given) in [
            ("gateways", self.gateways.as_ref().is_some_and(|list| !list.is_empty())),
            ("tls", !self.tls.is_empty()),
            ("tcp", !self.tcp.is_empty()),
        ] {
            if given {
                let message = "belongs to documents with hosts; this one has none, so others delegate to it";
                return Err(wrong(format!("spec.{field}"), message));
            }
        }
        match self.http.iter().position(http::RouteYaml::delegates) {
            Some(index) => {
                let message =
                    "stands in a document without hosts, to which others delegate; that goes one level only";
                Err(wrong(format!("spec.http[{index}].delegate"), message))
            }
            None => Ok(()),
        }
    }
}

/// The port that the match at `field` asks for; 0 is any, as in Istio.
fn read_port(port: Option<u32>, field: &str) -> Result<Option<u16>, FieldError> {
    let given = port.filter(|port| *port != 0);
    given.map(|port| port_number(port, &format!("{field}.port"))).transpose()
}

fn read_destinations(yaml: Vec<DestinationYaml>, field: &str) -> Result<Vec<Destination>, FieldError> {
    let mut destinations = Vec::new();
    for (index, yaml) in yaml.into_iter().enumerate() {
        let read = read_target(yaml.destination, index, &format!("{field}[{index}].destination"))?;
        destinations.push(Destination { weight: yaml.weight.unwrap_or(0), ..read });
    }
    if let [only] = destinations.as_mut_slice() {
        // A single destination gets everything, whatever its weight.
        only.weight = 1;
        return Ok(destinations);
    }
    let several = !destinations.is_empty();
    destinations.retain(|destination| destination.weight > 0);
    if several && destinations.is_empty() {
        return Err(wrong(field, "has weights that sum to 0; give at least one destination a weight"));
    }
    Ok(destinations)
}

/// The destination `yaml`, which stands at `field`, without a weight.
fn read_target(yaml: TargetYaml, index: usize, field: &str) -> Result<Destination, FieldError> {
    if yaml.host.is_empty() || yaml.host == "*" {
        return Err(wrong(format!("{field}.host"), "names nothing; name a host"));
    }
    called_host(&yaml.host, &format!("{field}.host"))?;
    let subset = yaml.subset.filter(|subset| !subset.is_empty());
    if let Some(subset) = &subset {
        subset_name(subset, &format!("{field}.subset"))?;
    }
    let port = yaml.port.map(|port| port_number(port.number, &format!("{field}.port.number")));
    Ok(Destination {
        index,
        host: yaml.host.to_ascii_lowercase(),
        subset,
        port: port.transpose()?,
        weight: 0,
        headers: Headers::default(),
    })
}
