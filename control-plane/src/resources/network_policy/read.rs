//! The YAML of a `NetworkPolicy` to what it means. What the API server refuses is refused here, too
//! (`ValidateNetworkPolicySpec` in its `apis/networking/validation`).

use ipnet::IpNet;

use super::{BlockYaml, NetworkPolicySpec, NetworkRuleSpec, PeerSpec, PeerYaml, PortSpec, PortYaml, Yaml};
use crate::resources::{
    document::{Reading, wrong},
    typed::FieldError,
    values::{NumberOrName, port_number},
};

/// The longest name of a port, in bytes (`IANA_SVC_NAME`).
const LONGEST_PORT_NAME: usize = 15;

/// Which directions a policy is for.
struct Directions {
    ingress: bool,
    egress: bool,
}

pub(super) fn read(yaml: Yaml, reading: &mut Reading<'_>) -> Result<NetworkPolicySpec, FieldError> {
    let directions = directions(&yaml, reading)?;
    let pods = yaml.pod_selector.read("spec.podSelector")?;
    let mut ingress = Vec::new();
    for (number, rule) in yaml.ingress.into_iter().enumerate() {
        let field = format!("spec.ingress[{number}]");
        ingress.push(rule_of(rule.from, rule.ports, (&field, "from"), reading)?);
    }
    let mut egress = Vec::new();
    for (number, rule) in yaml.egress.into_iter().enumerate() {
        let field = format!("spec.egress[{number}]");
        egress.push(rule_of(rule.to, rule.ports, (&field, "to"), reading)?);
    }
    Ok(NetworkPolicySpec {
        pods,
        any_workload: false,
        ingress: directions.ingress.then_some(ingress),
        egress: directions.egress.then_some(egress),
    })
}

/// As Kubernetes has it: without `policyTypes` always ingress, and egress if there are rules for it.
fn directions(yaml: &Yaml, reading: &mut Reading<'_>) -> Result<Directions, FieldError> {
    let types = &yaml.policy_types;
    if types.is_empty() {
        return Ok(Directions { ingress: true, egress: !yaml.egress.is_empty() });
    }
    if types.len() > 2 {
        return Err(wrong("spec.policyTypes", "has more than two entries; write Ingress, Egress or both"));
    }
    for (number, one) in types.iter().enumerate() {
        if one != "Ingress" && one != "Egress" {
            let message = format!("{one:?} is not a direction; write Ingress or Egress");
            return Err(wrong(format!("spec.policyTypes[{number}]"), message));
        }
    }
    let has = |direction: &str| types.iter().any(|one| one == direction);
    let directions = Directions { ingress: has("Ingress"), egress: has("Egress") };
    for (is_meant, rules, field) in [
        (directions.ingress, yaml.ingress.len(), "ingress"),
        (directions.egress, yaml.egress.len(), "egress"),
    ] {
        if !is_meant && rules > 0 {
            let message = "has no effect, because policyTypes does not name this direction; add it there";
            reading.warning(format!("spec.{field}"), message);
        }
    }
    Ok(directions)
}

fn rule_of(
    peers: Vec<PeerYaml>,
    ports: Vec<PortYaml>,
    (field, to_or_from): (&str, &str),
    reading: &mut Reading<'_>,
) -> Result<NetworkRuleSpec, FieldError> {
    let mut read = Vec::new();
    for (number, peer) in peers.into_iter().enumerate() {
        read.push(peer_of(peer, &format!("{field}.{to_or_from}[{number}]"))?);
    }
    Ok(NetworkRuleSpec {
        // As in Kubernetes, an empty list is as good as none: everybody, and every port.
        peers: (!read.is_empty()).then_some(read),
        ports: ports_of(ports, field, reading)?,
    })
}

fn peer_of(peer: PeerYaml, field: &str) -> Result<PeerSpec, FieldError> {
    let PeerYaml { pod_selector, namespace_selector, ip_block } = peer;
    if let Some(block) = ip_block {
        if pod_selector.is_some() || namespace_selector.is_some() {
            let message = "stands beside a selector; make two entries of it";
            return Err(wrong(format!("{field}.ipBlock"), message));
        }
        return block_of(&block, &format!("{field}.ipBlock"));
    }
    if pod_selector.is_none() && namespace_selector.is_none() {
        return Err(wrong(field, "says nobody; give podSelector, namespaceSelector or ipBlock"));
    }
    let namespaces = namespace_selector
        .map(|selector| selector.read(&format!("{field}.namespaceSelector")))
        .transpose()?;
    let pods = pod_selector.unwrap_or_default().read(&format!("{field}.podSelector"))?;
    Ok(PeerSpec::Pods { namespaces, pods })
}

fn block_of(block: &BlockYaml, field: &str) -> Result<PeerSpec, FieldError> {
    let net = |text: &str, field: &str| {
        let message = format!("{text:?} is not a block of addresses; write for example 10.0.0.0/8");
        text.parse::<IpNet>().map_err(|_| wrong(field, message))
    };
    let within = net(&block.cidr, &format!("{field}.cidr"))?;
    let mut except = Vec::new();
    for (number, text) in block.except.iter().enumerate() {
        let at = format!("{field}.except[{number}]");
        let one = net(text, &at)?;
        if !within.contains(&one.addr()) || one.prefix_len() <= within.prefix_len() {
            return Err(wrong(at, format!("{text} is not a part of {within}; remove or correct it")));
        }
        except.push(one);
    }
    Ok(PeerSpec::Block { within, except })
}

fn ports_of(
    ports: Vec<PortYaml>,
    field: &str,
    reading: &mut Reading<'_>,
) -> Result<Option<Vec<PortSpec>>, FieldError> {
    if ports.is_empty() {
        return Ok(None);
    }
    let mut read = Vec::new();
    for (number, port) in ports.into_iter().enumerate() {
        let at = format!("{field}.ports[{number}]");
        let is_tcp = is_tcp(&port, &at, reading)?;
        let port = port_of(port, &at)?;
        if is_tcp {
            read.push(port);
        }
    }
    Ok(Some(read))
}

fn is_tcp(port: &PortYaml, field: &str, reading: &mut Reading<'_>) -> Result<bool, FieldError> {
    match port.protocol.as_deref() {
        None | Some("TCP") => Ok(true),
        Some(protocol @ ("UDP" | "SCTP")) => {
            let message = format!(
                "{protocol} does not pass a sidecar: here the policy neither allows nor refuses any of it"
            );
            reading.warning(format!("{field}.protocol"), message);
            Ok(false)
        }
        Some(other) => {
            let message = format!("{other:?} is not a protocol; write TCP, UDP or SCTP");
            Err(wrong(format!("{field}.protocol"), message))
        }
    }
}

fn port_of(PortYaml { port, end_port, .. }: PortYaml, field: &str) -> Result<PortSpec, FieldError> {
    let end_field = format!("{field}.endPort");
    let field = format!("{field}.port");
    match (port, end_port) {
        (None, None) => Ok(PortSpec::Numbers(1, u16::MAX)),
        (None, Some(_)) => Err(wrong(end_field, "needs a port, which is the first of the range")),
        (Some(NumberOrName::Name(_)), Some(_)) => {
            Err(wrong(end_field, "stands beside the name of a port; write both as numbers"))
        }
        (Some(NumberOrName::Name(name)), None) => {
            check_port_name(&name, &field)?;
            Ok(PortSpec::Name(name))
        }
        (Some(NumberOrName::Number(first)), end) => {
            let first = port_number(first, &field)?;
            let last = end.map(|end| port_number(end, &end_field)).transpose()?.unwrap_or(first);
            if last < first {
                return Err(wrong(end_field, format!("{last} is less than port, which is {first}")));
            }
            Ok(PortSpec::Numbers(first, last))
        }
    }
}

fn check_port_name(name: &str, field: &str) -> Result<(), FieldError> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_one = (1..=LONGEST_PORT_NAME).contains(&name.len())
        && name.bytes().all(is_allowed)
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if is_one {
        return Ok(());
    }
    let message = format!(
        "{name:?} is not the name of a port; use at most {LONGEST_PORT_NAME} lower-case letters, digits and single '-'"
    );
    Err(wrong(field, message))
}
