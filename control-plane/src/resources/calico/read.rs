//! The YAML of Calico's policies to what it means. What Calico refuses is refused here, too.

use selvedge_model::policy::network::NetworkAction;

use super::{
    Expression,
    network_set::nets,
    policy::{CalicoEntity, CalicoPolicySpec, CalicoRule, EntityYaml, RuleYaml, Yaml},
    tier::{DEFAULT_TIER, TIERS_OF_KUBERNETES},
};
use crate::resources::{
    document::{Reading, wrong},
    nearest::nearest,
    network_policy::PortSpec,
    typed::FieldError,
    values::{NumberOrName, port_number},
};

const ACTIONS: [&str; 4] = ["Allow", "Deny", "Log", "Pass"];
const PROTOCOLS: [&str; 6] = ["TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite"];
/// The number of TCP among IP's protocols.
const TCP: u32 = 6;

pub(super) fn read(
    yaml: Yaml,
    is_global: bool,
    reading: &mut Reading<'_>,
) -> Result<CalicoPolicySpec, FieldError> {
    let is_without_effect = is_without_effect(&yaml, reading);
    if !is_global && yaml.namespace_selector.is_some() {
        return Err(wrong("spec.namespaceSelector", "is a field of GlobalNetworkPolicy; remove it"));
    }
    let (has_ingress, has_egress) = directions(&yaml)?;
    let selector = expression(&yaml.selector, "spec.selector")?;
    let namespaces = optional(yaml.namespace_selector.as_deref(), "spec.namespaceSelector")?;
    let accounts = optional(yaml.service_account_selector.as_deref(), "spec.serviceAccountSelector")?;
    let ingress = rules(yaml.ingress, "spec.ingress", reading)?;
    let egress = rules(yaml.egress, "spec.egress", reading)?;
    report_source_ports(&ingress, "spec.ingress", reading);
    report_source_ports(&egress, "spec.egress", reading);
    for (is_meant, rules, field) in [(has_ingress, &ingress, "ingress"), (has_egress, &egress, "egress")] {
        if !is_meant && !rules.is_empty() {
            let message = "has no effect, because types does not name this direction; add it there";
            reading.warning(format!("spec.{field}"), message);
        }
    }
    Ok(CalicoPolicySpec {
        selector,
        any_workload: false,
        namespaces,
        accounts,
        tier: tier(yaml.tier)?,
        order: yaml.order,
        ingress: has_ingress.then_some(ingress),
        egress: has_egress.then_some(egress),
        is_without_effect,
    })
}

/// Whether the policy is not for workloads.
fn is_without_effect(yaml: &Yaml, reading: &mut Reading<'_>) -> bool {
    for (is_set, field) in [(yaml.do_not_track, "doNotTrack"), (yaml.pre_dnat, "preDNAT")] {
        if is_set {
            let message = "is for hosts, so this policy has no effect on workloads; remove it";
            reading.error(format!("spec.{field}"), message);
        }
    }
    yaml.do_not_track || yaml.pre_dnat
}

/// The tier that a policy is in.
fn tier(written: Option<String>) -> Result<String, FieldError> {
    let tier = written.filter(|tier| !tier.is_empty()).unwrap_or_else(|| DEFAULT_TIER.to_owned());
    if TIERS_OF_KUBERNETES.contains(&&*tier) {
        let message = format!(
            "the tier {tier:?} is for AdminNetworkPolicy, which is not enforced; use the tier {DEFAULT_TIER}, or one of \
             your own"
        );
        return Err(wrong("spec.tier", message));
    }
    Ok(tier)
}

/// As Calico has it: without `types`, those directions that it has rules for; ingress if it has none.
fn directions(yaml: &Yaml) -> Result<(bool, bool), FieldError> {
    if yaml.types.is_empty() {
        let egress = !yaml.egress.is_empty();
        return Ok((!yaml.ingress.is_empty() || !egress, egress));
    }
    for (number, one) in yaml.types.iter().enumerate() {
        if one != "Ingress" && one != "Egress" {
            let message = format!("{one:?} is not a direction; write Ingress or Egress");
            return Err(wrong(format!("spec.types[{number}]"), message));
        }
    }
    let has = |direction: &str| yaml.types.iter().any(|one| one == direction);
    Ok((has("Ingress"), has("Egress")))
}

fn expression(text: &str, field: &str) -> Result<Expression, FieldError> {
    Expression::parse(text).map_err(|error| wrong(field, format!("{text:?} is not a selector: {error}")))
}

fn optional(text: Option<&str>, field: &str) -> Result<Option<Expression>, FieldError> {
    text.filter(|text| !text.is_empty()).map(|text| expression(text, field)).transpose()
}

fn rules(list: Vec<RuleYaml>, field: &str, reading: &mut Reading<'_>) -> Result<Vec<CalicoRule>, FieldError> {
    let rules = list.into_iter().enumerate();
    rules.map(|(number, rule)| rule_of(rule, &format!("{field}[{number}]"), reading)).collect()
}

fn rule_of(yaml: RuleYaml, field: &str, reading: &mut Reading<'_>) -> Result<CalicoRule, FieldError> {
    let is_of_other_protocols = is_of_other_protocols(&yaml, field, reading)?;
    let ip_version = match yaml.ip_version {
        None => None,
        Some(4) => Some(4),
        Some(6) => Some(6),
        Some(other) => {
            return Err(wrong(
                format!("{field}.ipVersion"),
                format!("{other} is not a version; write 4 or 6"),
            ));
        }
    };
    let has_ports = |entity: &EntityYaml| !entity.ports.is_empty() || !entity.not_ports.is_empty();
    if yaml.protocol.is_none() && (has_ports(&yaml.source) || has_ports(&yaml.destination)) {
        let message = "is missing, and the rule names ports; write TCP, UDP or SCTP";
        return Err(wrong(format!("{field}.protocol"), message));
    }
    Ok(CalicoRule {
        action: action(&yaml.action, &format!("{field}.action"))?,
        is_of_other_protocols,
        ip_version,
        source: entity(yaml.source, &format!("{field}.source"))?,
        destination: entity(yaml.destination, &format!("{field}.destination"))?,
    })
}

fn action(text: &str, field: &str) -> Result<NetworkAction, FieldError> {
    Ok(match text {
        "Allow" => NetworkAction::Allow,
        "Deny" => NetworkAction::Deny,
        "Log" => NetworkAction::Log,
        "Pass" => NetworkAction::Pass,
        other => {
            let advice = match nearest(other, ACTIONS) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("write {}", ACTIONS.join(", ")),
            };
            return Err(wrong(field, format!("{other:?} is not an action; {advice}")));
        }
    })
}

/// Whether the rule is not about TCP. Nothing else passes a sidecar.
fn is_of_other_protocols(
    yaml: &RuleYaml,
    field: &str,
    reading: &mut Reading<'_>,
) -> Result<bool, FieldError> {
    let is_tcp = |protocol: &NumberOrName, at: &str| match protocol {
        NumberOrName::Number(number @ 1..=255) => Ok(*number == TCP),
        NumberOrName::Name(name) if PROTOCOLS.contains(&name.as_str()) => Ok(name == "TCP"),
        NumberOrName::Number(_) | NumberOrName::Name(_) => {
            let message = format!("is not a protocol; write {}, or a number", PROTOCOLS.join(", "));
            Err(wrong(at, message))
        }
    };
    let at = format!("{field}.protocol");
    let other = yaml.protocol.as_ref().map(|protocol| is_tcp(protocol, &at)).transpose()? == Some(false);
    let not_at = format!("{field}.notProtocol");
    let not_tcp =
        yaml.not_protocol.as_ref().map(|protocol| is_tcp(protocol, &not_at)).transpose()? == Some(true);
    let message =
        "only TCP passes a sidecar: of other protocols the policy neither allows nor refuses anything here";
    for (is_so, field) in [
        (other, at),
        (not_tcp, not_at),
        (yaml.icmp.is_some() && !other, format!("{field}.icmp")),
        (yaml.not_icmp.is_some() && !other, format!("{field}.notICMP")),
    ] {
        if is_so {
            reading.warning(field, message);
        }
    }
    Ok(other || not_tcp || yaml.icmp.is_some() || yaml.not_icmp.is_some())
}

fn entity(yaml: EntityYaml, field: &str) -> Result<CalicoEntity, FieldError> {
    let at = |name: &str| format!("{field}.{name}");
    let (names, account_selector) = match yaml.service_accounts {
        Some(accounts) => (accounts.names, accounts.selector),
        None => (Vec::new(), None),
    };
    Ok(CalicoEntity {
        nets: yaml.nets.filter(|list| !list.is_empty()).map(|list| nets(&list, &at("nets"))).transpose()?,
        not_nets: nets(&yaml.not_nets, &at("notNets"))?,
        selector: optional(yaml.selector.as_deref(), &at("selector"))?,
        not_selector: optional(yaml.not_selector.as_deref(), &at("notSelector"))?,
        namespaces: optional(yaml.namespace_selector.as_deref(), &at("namespaceSelector"))?,
        accounts: names,
        account_selector: optional(account_selector.as_deref(), &at("serviceAccounts.selector"))?,
        ports: match yaml.ports.is_empty() {
            true => None,
            false => Some(ports(yaml.ports, &at("ports"))?),
        },
        not_ports: ports(yaml.not_ports, &at("notPorts"))?,
    })
}

fn ports(list: Vec<NumberOrName>, field: &str) -> Result<Vec<PortSpec>, FieldError> {
    let ports = list.into_iter().enumerate();
    ports.map(|(number, port)| port_of(port, &format!("{field}[{number}]"))).collect()
}

/// A number, a range as `1000:2000`, or a name.
fn port_of(port: NumberOrName, field: &str) -> Result<PortSpec, FieldError> {
    let text = match port {
        NumberOrName::Number(number) => {
            let number = port_number(number, field)?;
            return Ok(PortSpec::Numbers(number, number));
        }
        NumberOrName::Name(text) => text,
    };
    let (first, last) = text.split_once(':').unwrap_or((&text, &text));
    match (first.parse::<u32>(), last.parse::<u32>()) {
        (Ok(first), Ok(last)) if first <= last => {
            Ok(PortSpec::Numbers(port_number(first, field)?, port_number(last, field)?))
        }
        (Err(_), Err(_)) if !text.is_empty() && !text.contains(':') => Ok(PortSpec::Name(text)),
        _ => {
            let message =
                format!("{text:?} is not a port; write a number, a range such as 1000:2000, or a name");
            Err(wrong(field, message))
        }
    }
}

/// The port that a client comes from is its sidecar's, not the app's.
fn report_source_ports(rules: &[CalicoRule], field: &str, reading: &mut Reading<'_>) {
    for (number, rule) in rules.iter().enumerate().filter(|(_, rule)| !rule.is_of_other_protocols) {
        if rule.source.ports.is_some() || !rule.source.not_ports.is_empty() {
            let what = match rule.action {
                NetworkAction::Allow | NetworkAction::Pass => "this rule matches nothing",
                NetworkAction::Deny | NetworkAction::Log => {
                    "this rule is asked as if any port were one of them"
                }
            };
            let message = format!("the port of a client is not known where a sidecar is between, so {what}");
            reading.warning(format!("{field}[{number}].source.ports"), message);
        }
    }
}
