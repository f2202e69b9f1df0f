//! `tls` and `tcp`: which opaque connections to a host go where.

use std::collections::{BTreeMap, HashSet};

use selvedge_model::{Host, Layer, TcpMatch};
use serde::Deserialize;

use super::{Destination, DestinationYaml, PortMatch, gateways, read_destinations, read_port};
use crate::resources::{
    document::{Reading, wrong},
    label_selector,
    typed::FieldError,
    values::host_pattern,
};

/// One entry of `tls` or `tcp`.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpRoute {
    /// Its place among the entries of its layer.
    pub index: usize,
    /// In which of the two lists it stands.
    pub layer: Layer,
    /// Which connections; any of these. `None` = every one; an empty list = none.
    pub matches: Option<Vec<PortMatch<TcpMatch>>>,
    /// Whether matches are left out because they cannot be checked.
    pub left_out: bool,
    /// Where they go.
    pub destinations: Vec<Destination>,
}

impl TcpRoute {
    /// Where it stands in its document, such as `spec.tcp[0]`.
    pub fn field(&self) -> String {
        format!("spec.{}[{}]", self.list(), self.index)
    }

    /// The name of the list that it stands in.
    pub fn list(&self) -> &'static str {
        match self.layer {
            Layer::Tls => "tls",
            Layer::Tcp => "tcp",
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct RouteYaml {
    #[serde(rename = "match", default)]
    matches: Vec<MatchYaml>,
    #[serde(default)]
    route: Vec<DestinationYaml>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MatchYaml {
    #[serde(default)]
    sni_hosts: Vec<String>,
    #[serde(default)]
    destination_subnets: Vec<String>,
    port: Option<u32>,
    #[serde(default)]
    source_labels: BTreeMap<String, String>,
    source_namespace: Option<String>,
    gateways: Option<Vec<String>>,
}

/// The hosts of a document, by which names are found that are among them. There may be very many of either.
struct Hosts<'h>(HashSet<&'h str>);

impl<'h> Hosts<'h> {
    fn of(hosts: &'h [String]) -> Self {
        Self(hosts.iter().map(|host| without_dot(host)).collect())
    }

    /// Whether `name`, a name or a pattern of names in lower case, is one of them, or below one.
    fn include(&self, name: &str) -> bool {
        let (Self(hosts), name) = (self, without_dot(name));
        if hosts.contains(name) || hosts.contains("*") {
            return true;
        }
        let rest = name.strip_prefix('*').unwrap_or(name);
        let ends = (0..=rest.len()).filter_map(|start| rest.get(start..));
        ends.map(|end| format!("*{end}")).any(|wide| hosts.contains(wide.as_str()))
    }
}

/// The routes of one list.
pub(super) fn read(
    list: Vec<RouteYaml>,
    layer: Layer,
    hosts: &[String],
    reading: &mut Reading<'_>,
) -> Result<Vec<TcpRoute>, FieldError> {
    let hosts = Hosts::of(hosts);
    let read = |(index, yaml)| read_route(yaml, index, (layer, &hosts), reading);
    list.into_iter().enumerate().map(read).collect()
}

fn read_route(
    yaml: RouteYaml,
    index: usize,
    (layer, hosts): (Layer, &Hosts<'_>),
    reading: &mut Reading<'_>,
) -> Result<TcpRoute, FieldError> {
    let mut route = TcpRoute { index, layer, matches: None, left_out: false, destinations: Vec::new() };
    let field = route.field();
    let every = yaml.matches.is_empty();
    if every && layer == Layer::Tls {
        return Err(wrong(format!("{field}.match"), "is empty; name at least one of sniHosts"));
    }
    let mut matches = Vec::new();
    for (place, yaml) in yaml.matches.into_iter().enumerate() {
        let field = format!("{field}.match[{place}]");
        let unchecked = reading.take_unknown_below(&field);
        route.left_out |= !unchecked.is_empty();
        for unchecked in &unchecked {
            let message =
                "is a condition that is not acted on, so the whole match is left out; remove it or the match";
            reading.error(unchecked.field.clone(), message);
        }
        let read = read_match(yaml, place, (layer, reading.namespace), &field)?;
        among_hosts(&read.condition.server_names, hosts, &field)?;
        if unchecked.is_empty() {
            matches.push(read);
        }
    }
    route.matches = (!every).then_some(matches);
    route.destinations = read_destinations(yaml.route, &format!("{field}.route"))?;
    if route.destinations.is_empty() {
        return Err(wrong(field, "has no route; name at least one destination"));
    }
    Ok(route)
}

fn without_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// Refuses names that TLS asks for and that are not among the document's hosts, which decide whose connections follow it. An
/// address is asked for by nobody.
fn among_hosts(names: &[String], hosts: &Hosts<'_>, field: &str) -> Result<(), FieldError> {
    let is_outside = |name: &String| !matches!(name.parse(), Ok(Host::Ip(_))) && !hosts.include(name);
    match names.iter().position(is_outside) {
        None => Ok(()),
        Some(index) => {
            let message = format!(
                "{} is not among spec.hosts, so nothing that asks for it follows this document; add it there, or correct it",
                names[index]
            );
            Err(wrong(format!("{field}.sniHosts[{index}]"), message))
        }
    }
}

fn read_match(
    yaml: MatchYaml,
    index: usize,
    (layer, namespace): (Layer, &str),
    field: &str,
) -> Result<PortMatch<TcpMatch>, FieldError> {
    let followed_by = gateways::read(yaml.gateways.as_deref(), &format!("{field}.gateways"), namespace)?;
    let names_field = format!("{field}.sniHosts");
    match (layer, yaml.sni_hosts.is_empty()) {
        (Layer::Tls, true) => return Err(wrong(names_field, "is empty; name at least one host, or *")),
        (Layer::Tcp, false) => return Err(wrong(names_field, "belongs to tls routes; move the route there")),
        _ => {}
    }
    let mut server_names = Vec::new();
    for (index, name) in yaml.sni_hosts.iter().enumerate() {
        let field = format!("{names_field}[{index}]");
        host_pattern(name, &field)?;
        server_names.push(server_name(name, &field)?);
    }
    let mut destination_subnets = Vec::new();
    for (index, subnet) in yaml.destination_subnets.iter().enumerate() {
        let read = subnet.parse().ok().or_else(|| address_as_subnet(subnet));
        destination_subnets.push(read.ok_or_else(|| {
            let field = format!("{field}.destinationSubnets[{index}]");
            wrong(field, format!("{subnet:?} is not a subnet; write it as 10.1.0.0/16"))
        })?);
    }
    for (name, value) in &yaml.source_labels {
        label_selector::check(name, value, &format!("{field}.sourceLabels.{name}"))?;
    }
    let port = read_port(yaml.port, field)?;
    let condition = TcpMatch {
        server_names,
        destination_subnets,
        source_labels: yaml.source_labels,
        source_namespace: yaml.source_namespace.filter(|namespace| !namespace.is_empty()),
    };
    Ok(PortMatch { index, port, followed_by, condition })
}

fn address_as_subnet(text: &str) -> Option<ipnet::IpNet> {
    text.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from)
}

/// A name that TLS may ask for: a host, `*.suffix`, or `*`.
pub(in crate::resources) fn server_name(name: &str, field: &str) -> Result<String, FieldError> {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    if name != "*" && (rest.is_empty() || rest.contains('*')) {
        return Err(wrong(field, format!("{name:?} is not a host; write a name, *.suffix or *")));
    }
    Ok(name.to_ascii_lowercase())
}
