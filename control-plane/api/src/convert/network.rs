//! Who may connect to whom, and the sets of workloads that are asked for.

use std::{collections::BTreeSet, fmt, str::FromStr, sync::Arc};

use selvedge_model::policy::{
    AddressSet, MOST_CONDITIONS, MOST_RULES, MOST_VALUES,
    network::{
        EndOfTier, MOST_MEMBERS, MOST_PARTS, MOST_TIERS, Member, NetworkAction, NetworkAsks,
        NetworkCondition, NetworkRule, NetworkRules, NetworkTier, Peers, Ports, SetName, SetPart, SetRef,
    },
};

use super::{ConvertError, all, authorization::at_most, invalid, parse, port, required};
use crate::wire::{self, network_condition::Asks, network_peer::Kind};

impl From<&NetworkRules> for wire::NetworkRules {
    fn from(rules: &NetworkRules) -> Self {
        let itself = rules.itself.as_ref().map(ToString::to_string);
        let names = |policies: &[Arc<str>]| policies.iter().map(ToString::to_string).collect();
        match rules.tiers() {
            [NetworkTier { rules, policies, otherwise: EndOfTier::Deny }] => Self {
                rules: rules.iter().map(Into::into).collect(),
                policies: names(policies),
                itself,
                tiers: Vec::new(),
            },
            // A proxy that knows of no tiers has policies without a rule, so that it refuses everything.
            tiers => Self {
                rules: Vec::new(),
                policies: rules.policies().map(ToString::to_string).collect(),
                itself,
                tiers: tiers.iter().map(Into::into).collect(),
            },
        }
    }
}

impl TryFrom<wire::NetworkRules> for NetworkRules {
    type Error = ConvertError;

    fn try_from(rules: wire::NetworkRules) -> Result<Self, ConvertError> {
        let wire::NetworkRules { rules, policies, itself, tiers } = rules;
        let counted = |first: usize, of: fn(&wire::NetworkTier) -> usize| {
            tiers.iter().map(of).fold(first, usize::saturating_add)
        };
        at_most(
            "number of a workload's network rules",
            counted(rules.len(), |tier| tier.rules.len()),
            MOST_RULES,
        )?;
        let named = counted(policies.len(), |tier| tier.policies.len());
        at_most("number of a workload's network policies", named, MOST_RULES)?;
        at_most("number of a workload's tiers", tiers.len(), MOST_TIERS)?;
        let tiers = match tiers.is_empty() {
            false => all(tiers)?,
            true if rules.is_empty() && policies.is_empty() => Vec::new(),
            true => {
                let policies = policies.into_iter().map(Arc::from).collect();
                vec![NetworkTier { rules: all(rules)?, policies, otherwise: EndOfTier::Deny }]
            }
        };
        let itself = itself.map(|identity| parse("the workload's own identity", &identity)).transpose()?;
        Ok(Self::new(tiers, itself))
    }
}

impl From<&NetworkTier> for wire::NetworkTier {
    fn from(tier: &NetworkTier) -> Self {
        Self {
            rules: tier.rules.iter().map(Into::into).collect(),
            policies: tier.policies.iter().map(ToString::to_string).collect(),
            passes_otherwise: tier.otherwise == EndOfTier::Pass,
        }
    }
}

impl TryFrom<wire::NetworkTier> for NetworkTier {
    type Error = ConvertError;

    fn try_from(tier: wire::NetworkTier) -> Result<Self, ConvertError> {
        Ok(Self {
            rules: all(tier.rules)?,
            policies: tier.policies.into_iter().map(Arc::from).collect(),
            otherwise: if tier.passes_otherwise { EndOfTier::Pass } else { EndOfTier::Deny },
        })
    }
}

impl From<NetworkAction> for wire::NetworkAction {
    fn from(action: NetworkAction) -> Self {
        match action {
            NetworkAction::Allow => Self::Allow,
            NetworkAction::Deny => Self::Deny,
            NetworkAction::Log => Self::Log,
            NetworkAction::Pass => Self::Pass,
        }
    }
}

fn action(number: i32) -> Result<NetworkAction, ConvertError> {
    Ok(match wire::NetworkAction::try_from(number) {
        Ok(wire::NetworkAction::Allow) => NetworkAction::Allow,
        Ok(wire::NetworkAction::Deny) => NetworkAction::Deny,
        Ok(wire::NetworkAction::Log) => NetworkAction::Log,
        Ok(wire::NetworkAction::Pass) => NetworkAction::Pass,
        Ok(wire::NetworkAction::Unspecified) | Err(_) => {
            return Err(ConvertError::Unknown { field: "action of a network rule", value: number });
        }
    })
}

impl From<&NetworkRule> for wire::NetworkRule {
    fn from(rule: &NetworkRule) -> Self {
        Self {
            name: rule.name.to_string(),
            action: wire::NetworkAction::from(rule.action).into(),
            conditions: rule.conditions.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::NetworkRule> for NetworkRule {
    type Error = ConvertError;

    fn try_from(rule: wire::NetworkRule) -> Result<Self, ConvertError> {
        at_most("number of a network rule's conditions", rule.conditions.len(), MOST_CONDITIONS)?;
        Ok(Self {
            name: Arc::from(rule.name),
            action: action(rule.action)?,
            conditions: all(rule.conditions)?,
        })
    }
}

impl From<&NetworkCondition> for wire::NetworkCondition {
    fn from(condition: &NetworkCondition) -> Self {
        let asks = match &condition.asks {
            NetworkAsks::Peer(any) => {
                Asks::Peers(wire::NetworkPeers { list: any.iter().map(Into::into).collect() })
            }
            NetworkAsks::Port(ports) => Asks::Ports(ports.into()),
            NetworkAsks::OwnAddress(set) => Asks::OwnAddress(set.into()),
            NetworkAsks::Unknowable => Asks::Unknowable(true),
        };
        Self { negated: condition.negated, asks: Some(asks) }
    }
}

impl TryFrom<wire::NetworkCondition> for NetworkCondition {
    type Error = ConvertError;

    fn try_from(condition: wire::NetworkCondition) -> Result<Self, ConvertError> {
        let asks = match required("what a network rule asks for", condition.asks)? {
            Asks::Peers(peers) => {
                at_most("number of a network rule's peers", peers.list.len(), MOST_VALUES)?;
                NetworkAsks::Peer(all(peers.list)?)
            }
            Asks::Ports(ports) => NetworkAsks::Port(ports.try_into()?),
            Asks::OwnAddress(set) => NetworkAsks::OwnAddress(set.try_into()?),
            Asks::Unknowable(true) => NetworkAsks::Unknowable,
            Asks::Unknowable(false) => {
                return Err(invalid(
                    "what a network rule asks for",
                    "unknowable: false",
                    &"only true is known",
                ));
            }
        };
        Ok(Self { asks, negated: condition.negated })
    }
}

impl From<&Peers> for wire::NetworkPeer {
    fn from(peers: &Peers) -> Self {
        let kind = match peers {
            Peers::Set(set) => Kind::Set(set.into()),
            Peers::Block { within, except } => {
                Kind::Block(wire::AddressBlock { within: Some(within.into()), except: Some(except.into()) })
            }
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::NetworkPeer> for Peers {
    type Error = ConvertError;

    fn try_from(peer: wire::NetworkPeer) -> Result<Self, ConvertError> {
        Ok(match required("kind of a network peer", peer.kind)? {
            Kind::Set(set) => Self::Set(set.try_into()?),
            Kind::Block(block) => Self::Block {
                within: required("addresses of a block", block.within)?.try_into()?,
                except: required("exceptions of a block", block.except)?.try_into()?,
            },
        })
    }
}

impl From<&Ports> for wire::NetworkPorts {
    fn from(ports: &Ports) -> Self {
        let range =
            |(first, last): &(u16, u16)| wire::PortRange { first: u32::from(*first), last: u32::from(*last) };
        Self {
            ranges: ports.ranges.iter().map(range).collect(),
            named: ports.named.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::NetworkPorts> for Ports {
    type Error = ConvertError;

    fn try_from(ports: wire::NetworkPorts) -> Result<Self, ConvertError> {
        at_most("number of a network rule's ports", ports.ranges.len() + ports.named.len(), MOST_VALUES)?;
        let range = |range: wire::PortRange| {
            Ok((port("port of a network rule", range.first)?, port("port of a network rule", range.last)?))
        };
        Ok(Self {
            ranges: ports.ranges.into_iter().map(range).collect::<Result<_, ConvertError>>()?,
            named: all(ports.named)?,
        })
    }
}

impl From<&SetRef> for wire::SetRef {
    fn from(set: &SetRef) -> Self {
        Self { id: set.name.id.to_string(), parts: set.name.parts }
    }
}

impl TryFrom<wire::SetRef> for SetRef {
    type Error = ConvertError;

    /// Its members arrive by themselves.
    fn try_from(set: wire::SetRef) -> Result<Self, ConvertError> {
        if set.parts == 0 || set.parts > MOST_PARTS {
            let (value, largest) = (set.parts.into(), MOST_PARTS.into());
            return Err(ConvertError::OutOfRange { field: "number of a set's parts", value, largest });
        }
        Ok(Self { name: SetName { id: Arc::from(set.id), parts: set.parts }, members: None })
    }
}

impl From<&SetPart> for wire::SetPart {
    fn from(part: &SetPart) -> Self {
        Self {
            members: part.members().iter().map(Into::into).collect(),
            blocks: (*part.blocks() != AddressSet::default()).then(|| part.blocks().into()),
        }
    }
}

impl TryFrom<wire::SetPart> for SetPart {
    type Error = ConvertError;

    fn try_from(part: wire::SetPart) -> Result<Self, ConvertError> {
        at_most("number of a set's members", part.members.len(), MOST_MEMBERS)?;
        let blocks = part.blocks.map(AddressSet::try_from).transpose()?.unwrap_or_default();
        Ok(Self::new(all(part.members)?, blocks.blocks()))
    }
}

impl From<&Member> for wire::SetMember {
    fn from(member: &Member) -> Self {
        Self {
            identity: member.identity.as_ref().map(ToString::to_string),
            shares_identity: member.shares_identity,
            addresses: texts(&member.addresses),
            shared: texts(&member.shared),
            sockets: texts(&member.sockets),
            is_named: member.is_named,
        }
    }
}

impl TryFrom<wire::SetMember> for Member {
    type Error = ConvertError;

    fn try_from(member: wire::SetMember) -> Result<Self, ConvertError> {
        Ok(Self {
            identity: member.identity.map(|identity| parse("identity of a set", &identity)).transpose()?,
            shares_identity: member.shares_identity,
            addresses: parsed(&member.addresses)?,
            shared: parsed(&member.shared)?,
            sockets: parsed(&member.sockets)?,
            is_named: member.is_named,
        })
    }
}

fn texts<T: ToString>(values: &BTreeSet<T>) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn parsed<T: FromStr<Err: fmt::Display> + Ord>(texts: &[String]) -> Result<BTreeSet<T>, ConvertError> {
    at_most("number of a member's addresses", texts.len(), MOST_VALUES)?;
    texts.iter().map(|text| parse("address of a set", text)).collect()
}

#[cfg(test)]
mod tests;
