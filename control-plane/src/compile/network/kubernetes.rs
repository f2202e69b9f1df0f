//! `NetworkPolicy` of Kubernetes: rules that allow.

use std::cell::Cell;

use selvedge_model::policy::{
    AddressSet,
    network::{NetworkAction, NetworkAsks, NetworkCondition, NetworkRule, Peers, Ports},
};

use super::{Choice, Compiled, Direction, Template, Written, sets::SetMaker, tiers::Tier};
use crate::resources::{Document, NetworkPolicySpec, NetworkRuleSpec, PeerSpec, PortSpec, Resources};

/// Where Calico has them among its own policies.
const ORDER: f64 = 1000.0;

/// Every `NetworkPolicy`.
pub(super) fn compiled<'a>(resources: &'a Resources, sets: &mut SetMaker<'_, 'a>) -> Vec<Compiled<'a>> {
    resources.network_policies.iter().map(|document| policy(document, sets)).collect()
}

fn policy<'a>(document: &'a Document<NetworkPolicySpec>, sets: &mut SetMaker<'_, 'a>) -> Compiled<'a> {
    let spec = &document.spec;
    let namespace = &*document.name.namespace;
    let whose = (!namespace.is_empty()).then_some(namespace);
    let ((ingress, egress), has_room) = sets.of_policy(whose, |sets| {
        let mut of = |rules: Option<&Vec<NetworkRuleSpec>>, direction| {
            let rules = rules?.iter().enumerate();
            Some(rules.map(|(number, rule)| template(document, (number, rule), direction, sets)).collect())
        };
        (of(spec.ingress.as_ref(), Direction::Ingress), of(spec.egress.as_ref(), Direction::Egress))
    });
    Compiled {
        written: Written::Kubernetes(document),
        name: document.name.to_string().into(),
        namespace: whose,
        chosen: (!spec.any_workload).then(|| Choice::Pods(namespace.to_owned(), spec.pods.clone())),
        ingress,
        egress,
        tier: Some(Tier::default()),
        order: ORDER,
        selects_one: Cell::new(false),
        has_room,
    }
}

fn template(
    document: &Document<NetworkPolicySpec>,
    (number, rule): (usize, &NetworkRuleSpec),
    direction: Direction,
    sets: &mut SetMaker<'_, '_>,
) -> Template {
    let mut conditions = Vec::new();
    if let Some(peers) = &rule.peers {
        let peers = peers.iter().map(|peer| peers_of(peer, &document.name.namespace, sets)).collect();
        conditions.push(NetworkCondition::new(NetworkAsks::Peer(peers)));
    }
    let mut own_ports = Vec::new();
    if let Some(ports) = &rule.ports {
        conditions.push(NetworkCondition::new(NetworkAsks::Port(match direction {
            Direction::Ingress => own(ports, &mut own_ports),
            Direction::Egress => theirs(ports, sets),
        })));
    }
    let name = format!("{} {} rule {}", document.name, direction.word(), number + 1);
    let place = conditions.len().saturating_sub(1);
    let own_ports = own_ports.into_iter().map(|name| (place, name)).collect();
    let only = Vec::new();
    Template {
        rule: NetworkRule { name: name.into(), action: NetworkAction::Allow, conditions },
        own_ports,
        only,
    }
}

fn peers_of(peer: &PeerSpec, namespace: &str, sets: &mut SetMaker<'_, '_>) -> Peers {
    match peer {
        PeerSpec::Pods { namespaces: None, pods } => {
            Peers::Set(sets.set(Choice::Pods(namespace.to_owned(), pods.clone())))
        }
        PeerSpec::Pods { namespaces: Some(namespaces), pods } => {
            Peers::Set(sets.set(Choice::InNamespaces(namespaces.clone(), pods.clone())))
        }
        PeerSpec::Block { within, except } => Peers::Block {
            within: AddressSet::new([*within]),
            except: AddressSet::new(except.iter().copied()),
        },
    }
}

pub(super) fn ranges(ports: &[PortSpec]) -> Vec<(u16, u16)> {
    let numbers = ports.iter().filter_map(|port| match port {
        PortSpec::Numbers(first, last) => Some((*first, *last)),
        PortSpec::Name(_) => None,
    });
    numbers.collect()
}

pub(super) fn names(ports: &[PortSpec]) -> impl Iterator<Item = &String> {
    ports.iter().filter_map(|port| match port {
        PortSpec::Name(name) => Some(name),
        PortSpec::Numbers(..) => None,
    })
}

/// Ports of the workload itself; what they are called goes to `own_ports`.
fn own(ports: &[PortSpec], own_ports: &mut Vec<String>) -> Ports {
    own_ports.extend(names(ports).cloned());
    Ports { ranges: ranges(ports), named: Vec::new() }
}

/// Ports of whom it calls.
pub(super) fn theirs(ports: &[PortSpec], sets: &mut SetMaker<'_, '_>) -> Ports {
    let named = names(ports).map(|name| sets.set(Choice::Port(name.clone()))).collect();
    Ports { ranges: ranges(ports), named }
}
