//! Who may talk to whom, by network policies: rules in order, of which the first that matches decides.
//!
//! The rules of Kubernetes' `NetworkPolicy` only allow, so their order does not matter. Those of Calico allow, deny, log
//! or pass, tier after tier. What matches is decided by what is known of the other side (a [`Party`]). Where that is not
//! enough, what is not known is refused: something is allowed only if it would be, whatever turned out to be so.

mod index;
mod set;
#[cfg(test)]
mod tests;
mod tier;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::Serialize;

use self::{
    index::{Index, MOST_FILED},
    tier::Outcome,
};
pub use self::{
    set::{
        MEMBERS_OF_A_PART, MOST_MEMBERS, MOST_PARTS, Member, NotAPart, PartName, SetName, SetPart,
        WorkloadSet,
    },
    tier::{EndOfTier, MOST_TIERS, NetworkTier},
};
use super::AddressSet;
use crate::{SpiffeId, facts};

/// The rules of all policies that select a workload, for one direction. There are none where no policy selects it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NetworkRules {
    tiers: Vec<NetworkTier>,
    /// The workload's own identity, if no other workload has it: nothing keeps a workload from itself.
    pub itself: Option<SpiffeId>,
    /// Of each tier, where that helps.
    #[serde(skip)]
    indexes: Vec<Option<Index>>,
}

impl PartialEq for NetworkRules {
    fn eq(&self, other: &Self) -> bool {
        (&self.tiers, &self.itself) == (&other.tiers, &other.itself)
    }
}

impl Eq for NetworkRules {}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkRule {
    /// Document and rule, such as `NetworkPolicy shop/allow-web ingress rule 1` (counted from 1).
    pub name: Arc<str>,
    /// What it does.
    pub action: NetworkAction,
    /// All of these must hold.
    pub conditions: Vec<NetworkCondition>,
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum NetworkAction {
    /// It may pass.
    Allow,
    /// It is refused.
    Deny,
    /// It is logged and counted, and the next rule is tried.
    Log,
    /// No other rule of its tier is tried: the next tier decides.
    Pass,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkCondition {
    /// What it asks for.
    pub asks: NetworkAsks,
    /// Whether it holds if that is not so.
    pub negated: bool,
}

/// What a condition asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum NetworkAsks {
    /// That the other side is any of these.
    Peer(Vec<Peers>),
    /// That the port which is called is any of these.
    Port(Ports),
    /// That the workload's own address is in the set.
    OwnAddress(AddressSet),
    /// What a proxy cannot see, such as the port that a client comes from.
    Unknowable,
}

/// Some that may be on the other side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Peers {
    /// The workloads of a set.
    Set(SetRef),
    /// Whoever has an address in `within` and not in `except`.
    Block {
        /// Addresses.
        within: AddressSet,
        /// Addresses in `within` that do not count.
        except: AddressSet,
    },
}

/// Ports that are called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Ports {
    /// First and last of each range.
    pub ranges: Vec<(u16, u16)>,
    /// Ports that have a name, which is another number at each workload: sets of workloads with that port.
    pub named: Vec<SetRef>,
}

/// A set, by name, and its members as far as they are known here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetRef {
    /// The set.
    pub name: SetName,
    /// Its members; `None`: they have not arrived, so nobody knows who is in it.
    pub members: Option<Arc<WorkloadSet>>,
}

/// The other side of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Party<'a> {
    /// Who it has proven to be, or must prove to be; `None`: the connection is plaintext.
    pub identity: Option<&'a SpiffeId>,
    /// Its address; `None`: not known.
    pub address: Option<IpAddr>,
    /// Whether the address tells which workload it is: where connections are redirected, and on the way out.
    pub is_told_by_address: bool,
    /// The port that is called.
    pub port: u16,
    /// Whether that port is the other side's.
    pub is_callee: bool,
    /// The address at which the workload itself is called; `None`: not known.
    pub own_address: Option<IpAddr>,
}

impl<'a> Party<'a> {
    /// A peer that comes in.
    pub fn incoming(connection: &facts::Connection<'a>) -> Self {
        let facts::Connection { source, port, destination, arrived_at, .. } = connection;
        Self {
            identity: source.identity,
            address: source.address.map(|address| address.to_canonical()),
            is_told_by_address: arrived_at.is_some(),
            port: *port,
            is_callee: false,
            own_address: destination.map(|address| address.ip()).or(*arrived_at),
        }
    }

    /// An endpoint at `address`, which must prove to be `identity` (`None`: it is called in plaintext).
    pub fn endpoint(address: SocketAddr, identity: Option<&'a SpiffeId>) -> Self {
        Self {
            identity,
            address: Some(address.ip().to_canonical()),
            is_told_by_address: true,
            port: address.port(),
            is_callee: true,
            own_address: None,
        }
    }

    /// The address and port that is called at the other side.
    fn socket(&self) -> Option<SocketAddr> {
        self.address.filter(|_| self.is_callee).map(|address| SocketAddr::new(address, self.port))
    }
}

/// Whether something holds; if nobody knows, why.
type Truth = super::truth::Truth<&'static str>;

/// What network policies say of a party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkVerdict<'p> {
    /// It may pass, by this rule; `None`: the workload calls itself.
    Allow(Option<&'p Arc<str>>),
    /// It is refused, by this rule or document, and why.
    Deny(&'p Arc<str>, &'static str),
}

const NOT_ARRIVED: &str = "the workloads that it selects are not known here yet";

impl NetworkRules {
    /// Those of the one tier that mesh and cluster have if nobody makes another: what none of `rules` allows is denied by
    /// `policies`.
    pub fn one_tier(rules: Vec<NetworkRule>, policies: Vec<Arc<str>>) -> Self {
        Self::new(vec![NetworkTier { rules, policies, otherwise: EndOfTier::Deny }], None)
    }

    /// Those of `tiers`, which are tried in this order: those that have a policy for the workload. What the last one
    /// passes may pass, because what comes after all policies (Calico's profiles of namespaces) allows it. `itself`: see
    /// the field.
    pub fn new(tiers: Vec<NetworkTier>, itself: Option<SpiffeId>) -> Self {
        let mut left = MOST_FILED;
        let indexes = tiers.iter().map(|tier| Index::over(&tier.rules, &mut left)).collect();
        Self { tiers, itself, indexes }
    }

    /// In the order in which they are tried.
    pub fn tiers(&self) -> &[NetworkTier] {
        &self.tiers
    }

    /// Whether what `party` wants may pass. `log` is called with each rule that only logs it.
    pub fn judge<'p>(&'p self, party: &Party<'_>, mut log: impl FnMut(&'p Arc<str>)) -> NetworkVerdict<'p> {
        if self.is_itself(party) {
            return NetworkVerdict::Allow(None);
        }
        let mut doubt = None;
        let mut passed = None;
        for (tier, index) in self.tiers.iter().zip(&self.indexes) {
            let outcome = match index {
                Some(index) => tier.judge(index.candidates(party), party, &mut doubt, &mut log),
                None => tier.judge(0..tier.rules.len(), party, &mut doubt, &mut log),
            };
            match outcome {
                Outcome::Allow(rule) => return NetworkVerdict::Allow(Some(rule)),
                Outcome::Deny(rule, why) => return NetworkVerdict::Deny(rule, why),
                Outcome::Next(by) => passed = by.or(passed),
            }
        }
        NetworkVerdict::Allow(passed)
    }

    /// Whether it has rules that log.
    pub fn logs(&self) -> bool {
        self.rules().any(|rule| rule.action == NetworkAction::Log)
    }

    /// The rules of all tiers, in the order in which they are tried.
    pub fn rules(&self) -> impl Iterator<Item = &NetworkRule> {
        self.tiers.iter().flat_map(|tier| &tier.rules)
    }

    /// The documents that select the workload, tier by tier.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<str>> {
        self.tiers.iter().flat_map(|tier| &tier.policies)
    }

    fn is_itself(&self, party: &Party<'_>) -> bool {
        let is_own_address = party.own_address.is_some() && party.own_address == party.address;
        is_own_address || (party.identity.is_some() && party.identity == self.itself.as_ref())
    }

    /// The sets that it names; one may come several times.
    pub fn sets(&self) -> impl Iterator<Item = &SetName> {
        let conditions = self.rules().flat_map(|rule| &rule.conditions);
        conditions.flat_map(|condition| condition.asks.sets()).map(|set| &set.name)
    }

    /// The same rules, with the members of their sets as `find` says.
    #[must_use]
    pub fn resolved(&self, mut find: impl FnMut(&SetName) -> Option<Arc<WorkloadSet>>) -> Self {
        let mut tiers = self.tiers.clone();
        let rules = tiers.iter_mut().flat_map(|tier| &mut tier.rules);
        let conditions = rules.flat_map(|rule| &mut rule.conditions);
        for set in conditions.flat_map(|condition| condition.asks.sets_mut()) {
            set.members = find(&set.name);
        }
        Self::new(tiers, self.itself.clone())
    }
}

impl NetworkRule {
    fn matches(&self, party: &Party<'_>) -> Truth {
        let mut held = Truth::Yes;
        for condition in &self.conditions {
            match condition.holds(party) {
                Truth::No => return Truth::No,
                unknown @ Truth::Unknown(_) if held == Truth::Yes => held = unknown,
                _ => {}
            }
        }
        held
    }
}

impl NetworkCondition {
    /// One that holds if what it asks for is so.
    pub fn new(asks: NetworkAsks) -> Self {
        Self { asks, negated: false }
    }

    fn holds(&self, party: &Party<'_>) -> Truth {
        let is_so = self.asks.is_so(party);
        if self.negated { !is_so } else { is_so }
    }
}

impl NetworkAsks {
    fn is_so(&self, party: &Party<'_>) -> Truth {
        match self {
            Self::Peer(any) => {
                let mut found = Truth::No;
                for peers in any {
                    match peers.contains(party) {
                        Truth::Yes => return Truth::Yes,
                        unknown @ Truth::Unknown(_) if found == Truth::No => found = unknown,
                        _ => {}
                    }
                }
                found
            }
            Self::Port(ports) => ports.contains(party),
            Self::OwnAddress(set) => match party.own_address {
                Some(address) => set.contains(address).into(),
                None => Truth::Unknown("the workload's own address is not known here"),
            },
            Self::Unknowable => Truth::Unknown("it asks for what a proxy cannot see"),
        }
    }

    fn sets(&self) -> impl Iterator<Item = &SetRef> {
        let (peers, ports) = match self {
            Self::Peer(any) => (&any[..], &[][..]),
            Self::Port(ports) => (&[][..], &ports.named[..]),
            Self::OwnAddress(_) | Self::Unknowable => (&[][..], &[][..]),
        };
        let of_peers = peers.iter().filter_map(|peers| match peers {
            Peers::Set(set) => Some(set),
            Peers::Block { .. } => None,
        });
        of_peers.chain(ports)
    }

    fn sets_mut(&mut self) -> impl Iterator<Item = &mut SetRef> {
        let (peers, ports) = match self {
            Self::Peer(any) => (&mut any[..], &mut [][..]),
            Self::Port(ports) => (&mut [][..], &mut ports.named[..]),
            Self::OwnAddress(_) | Self::Unknowable => (&mut [][..], &mut [][..]),
        };
        let of_peers = peers.iter_mut().filter_map(|peers| match peers {
            Peers::Set(set) => Some(set),
            Peers::Block { .. } => None,
        });
        of_peers.chain(ports)
    }
}

impl Peers {
    fn contains(&self, party: &Party<'_>) -> Truth {
        match self {
            Self::Set(SetRef { members: Some(members), .. }) => members.contains(party),
            Self::Set(_) => Truth::Unknown(NOT_ARRIVED),
            Self::Block { within, except } => match party.address {
                Some(address) => (within.contains(address) && !except.contains(address)).into(),
                None => Truth::Unknown("its address is not known"),
            },
        }
    }
}

impl Ports {
    fn contains(&self, party: &Party<'_>) -> Truth {
        if self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&party.port)) {
            return Truth::Yes;
        }
        let mut found = Truth::No;
        for named in &self.named {
            match (&named.members, party.socket()) {
                (Some(members), Some(socket)) if members.serves(socket) => return Truth::Yes,
                (None, Some(_)) => found = Truth::Unknown(NOT_ARRIVED),
                _ => {}
            }
        }
        found
    }
}
