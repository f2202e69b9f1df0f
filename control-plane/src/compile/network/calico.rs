//! Calico's policies: rules that allow, deny, log or pass, in an order that goes over all policies.

use std::cell::Cell;

use ipnet::IpNet;
use selvedge_model::policy::{
    AddressSet,
    network::{NetworkAsks, NetworkCondition, NetworkRule, Peers, Ports},
};

use super::{
    Choice, Compiled, Direction, Template, Written,
    choice::CalicoChoice,
    kubernetes::{names, ranges, theirs},
    sets::{Addresses, SetMaker},
    tiers::{Tier, Tiers},
};
use crate::resources::{CalicoEntity, CalicoPolicySpec, CalicoRule, Document, PortSpec, Resources};

type Policy = Document<CalicoPolicySpec>;

/// Every set of addresses that policies may select.
pub(super) fn addresses(resources: &Resources) -> Vec<Addresses<'_>> {
    let sets = resources.network_sets.iter();
    let one = sets.map(|set| Addresses {
        namespace: Some(&*set.name.namespace).filter(|namespace| !namespace.is_empty()),
        labels: &set.metadata.labels,
        nets: &set.spec.nets,
    });
    one.collect()
}

/// Every policy that is for workloads.
pub(super) fn compiled<'a>(resources: &'a Resources, sets: &mut SetMaker<'_, 'a>) -> Vec<Compiled<'a>> {
    let tiers = Tiers::new(resources);
    let policies = resources.calico_policies.iter().filter(|document| !document.spec.is_without_effect);
    policies.map(|document| policy(document, tiers.find(&document.spec.tier), sets)).collect()
}

fn policy<'a>(document: &'a Policy, tier: Option<Tier<'a>>, sets: &mut SetMaker<'_, 'a>) -> Compiled<'a> {
    let spec = &document.spec;
    let namespace = namespace_of(document);
    let ((ingress, egress), has_room) = sets.of_policy(namespace, |sets| {
        let mut of = |rules: Option<&Vec<CalicoRule>>, direction| {
            let rules = rules?.iter().enumerate().filter(|(_, rule)| !rule.is_of_other_protocols);
            Some(rules.map(|(number, rule)| template(document, (number, rule), direction, sets)).collect())
        };
        (of(spec.ingress.as_ref(), Direction::Ingress), of(spec.egress.as_ref(), Direction::Egress))
    });
    let chosen = Choice::Calico(Box::new(CalicoChoice {
        namespace: namespace.map(str::to_owned),
        namespaces: spec.namespaces.clone(),
        selector: Some(spec.selector.clone()),
        account_selector: spec.accounts.clone(),
        ..CalicoChoice::default()
    }));
    Compiled {
        written: Written::Calico(document),
        name: document.name.to_string().into(),
        namespace,
        chosen: (!spec.any_workload).then_some(chosen),
        ingress,
        egress,
        tier,
        order: spec.order.unwrap_or(f64::INFINITY),
        selects_one: Cell::new(false),
        has_room,
    }
}

fn namespace_of(document: &Policy) -> Option<&str> {
    Some(&*document.name.namespace).filter(|namespace| !namespace.is_empty())
}

fn template(
    document: &Policy,
    (number, rule): (usize, &CalicoRule),
    direction: Direction,
    sets: &mut SetMaker<'_, '_>,
) -> Template {
    let namespace = namespace_of(document);
    let (peer, own) = match direction {
        Direction::Ingress => (&rule.source, &rule.destination),
        Direction::Egress => (&rule.destination, &rule.source),
    };
    let mut conditions: Vec<NetworkCondition> = rule.ip_version.map(of_version).into_iter().collect();
    conditions.extend(of_peer(peer, namespace, sets));
    conditions.extend(of_own_addresses(own));
    // The port that a client comes from is not known.
    let has_client_ports = rule.source.ports.is_some() || !rule.source.not_ports.is_empty();
    if has_client_ports {
        conditions.push(NetworkCondition::new(NetworkAsks::Unknowable));
    }
    let mut own_ports = Vec::new();
    let called = [
        (rule.destination.ports.as_deref(), false),
        (Some(&rule.destination.not_ports[..]).filter(|ports| !ports.is_empty()), true),
    ];
    for (ports, negated) in called {
        let Some(ports) = ports else { continue };
        if direction == Direction::Ingress {
            own_ports.extend(names(ports).map(|name| (conditions.len(), name.clone())));
        }
        conditions
            .push(NetworkCondition { asks: NetworkAsks::Port(of_ports(ports, direction, sets)), negated });
    }
    let name = format!("{} {} rule {}", document.name, direction.word(), number + 1);
    Template {
        rule: NetworkRule { name: name.into(), action: rule.action, conditions },
        own_ports,
        only: only(own, namespace),
    }
}

fn of_ports(ports: &[PortSpec], direction: Direction, sets: &mut SetMaker<'_, '_>) -> Ports {
    match direction {
        Direction::Ingress => Ports { ranges: ranges(ports), named: Vec::new() },
        Direction::Egress => theirs(ports, sets),
    }
}

fn of_version(version: u8) -> NetworkCondition {
    let all = if version == 4 { "0.0.0.0/0" } else { "::/0" };
    NetworkCondition::new(NetworkAsks::Peer(vec![block(all.parse().ok().into_iter())]))
}

fn block(nets: impl Iterator<Item = IpNet>) -> Peers {
    Peers::Block { within: AddressSet::new(nets), except: AddressSet::default() }
}

/// What a rule asks of the other side.
fn of_peer(
    peer: &CalicoEntity,
    namespace: Option<&str>,
    sets: &mut SetMaker<'_, '_>,
) -> Vec<NetworkCondition> {
    let mut conditions = Vec::new();
    let mut ask = |peers, negated| {
        conditions.push(NetworkCondition { asks: NetworkAsks::Peer(vec![peers]), negated });
    };
    if let Some(nets) = &peer.nets {
        ask(block(nets.iter().copied()), false);
    }
    if !peer.not_nets.is_empty() {
        ask(block(peer.not_nets.iter().copied()), true);
    }
    if let Some(choice) = selected(peer, namespace) {
        ask(Peers::Set(sets.set(choice)), false);
    }
    if let Some(choice) = excluded(peer) {
        ask(Peers::Set(sets.set(choice)), true);
    }
    conditions
}

/// Whom the selectors of an entity select. As in Calico, a policy in a namespace selects there, unless it selects
/// namespaces.
fn selected(entity: &CalicoEntity, namespace: Option<&str>) -> Option<Choice> {
    let CalicoEntity { selector, not_selector, namespaces, accounts, account_selector, .. } = entity;
    let asks = selector.is_some()
        || not_selector.is_some()
        || namespaces.is_some()
        || !accounts.is_empty()
        || account_selector.is_some();
    let choice = || CalicoChoice {
        namespace: namespace.filter(|_| namespaces.is_none()).map(str::to_owned),
        namespaces: namespaces.clone(),
        selector: selector.clone(),
        accounts: accounts.clone(),
        account_selector: account_selector.clone(),
    };
    let choice = asks.then(choice).filter(|choice| *choice != CalicoChoice::default());
    choice.map(|choice| Choice::Calico(Box::new(choice)))
}

fn excluded(entity: &CalicoEntity) -> Option<Choice> {
    let selector = Some(entity.not_selector.clone()?);
    Some(Choice::Calico(Box::new(CalicoChoice { selector, ..CalicoChoice::default() })))
}

/// What a rule asks of the addresses of the workload itself.
fn of_own_addresses(own: &CalicoEntity) -> Vec<NetworkCondition> {
    let within = |nets: &[IpNet]| NetworkAsks::OwnAddress(AddressSet::new(nets.iter().copied()));
    let inside = own.nets.as_deref().map(|nets| NetworkCondition::new(within(nets)));
    let outside = Some(&own.not_nets[..]).filter(|nets| !nets.is_empty());
    let outside = outside.map(|nets| NetworkCondition { asks: within(nets), negated: true });
    inside.into_iter().chain(outside).collect()
}

/// Which workloads a rule is for, of those that its policy selects.
fn only(own: &CalicoEntity, namespace: Option<&str>) -> Vec<(Choice, bool)> {
    let meant = selected(own, namespace).map(|choice| (choice, false));
    let others = excluded(own).map(|choice| (choice, true));
    meant.into_iter().chain(others).collect()
}
