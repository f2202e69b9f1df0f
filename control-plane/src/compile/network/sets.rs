//! The sets of workloads that policies name: each made once, and cut into parts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use aws_lc_rs::digest::{SHA256, digest};
use ipnet::IpNet;
use selvedge_model::policy::network::{
    MEMBERS_OF_A_PART, MOST_PARTS, Member, PartName, SetName, SetPart, SetRef,
};

use super::{
    candidate::{Candidate, Candidates},
    choice::{Choice, NamespaceLabels},
};
use crate::compile::keep;

/// How many members the sets may have together that the policies of one namespace name. Each selector that is written otherwise is a
/// set of its own, and may select every workload of the mesh.
pub(super) const MOST_MEMBERS: usize = 1_000_000;

/// So many workloads that are looked at for a set count as one member.
const LOOKED_AT: usize = 16;

/// How much of the hash of what a set means is its name, in bytes.
const NAME_BYTES: usize = 12;

/// The sets that were made.
#[derive(Debug, Default)]
pub(super) struct Sets {
    parts: BTreeMap<PartName, Arc<SetPart>>,
    names: HashMap<Choice, SetName>,
    /// The sets that have no member.
    empty: BTreeSet<SetName>,
    /// By what sidecars that get no redirected connections cannot tell apart: one member of each set that shares its
    /// identity.
    shared: BTreeMap<SetName, SharedAccount>,
}

/// Two workloads with one service account, one of them in a set.
#[derive(Debug, Clone)]
pub(super) struct SharedAccount {
    pub(super) account: String,
    pub(super) inside: String,
    pub(super) outside: String,
}

/// Addresses that have labels (Calico's `GlobalNetworkSet` and `NetworkSet`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses<'a> {
    /// `None`: they are in no namespace.
    pub(super) namespace: Option<&'a str>,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) nets: &'a [IpNet],
}

/// Makes sets.
pub(super) struct SetMaker<'m, 'a> {
    addresses: Vec<Addresses<'a>>,
    candidates: &'m Candidates<'a>,
    namespaces: &'m NamespaceLabels<'a>,
    previous: &'m BTreeMap<PartName, Arc<SetPart>>,
    made: Sets,
    /// How many members the sets may have that one namespace asked for first.
    most: usize,
    /// How many they have.
    taken: HashMap<String, usize>,
    /// The namespace of the policy whose sets are made; `None`: it is for all namespaces, and its sets may be of any size.
    of: Option<String>,
    /// Whether there was no room for one of these.
    lacks_room: bool,
}

impl Sets {
    /// Whether nobody is in the set `name`.
    pub(super) fn is_empty(&self, name: &SetName) -> bool {
        self.empty.contains(name)
    }

    /// Two workloads that identities do not tell apart, of which only one is in the set `name`.
    pub(super) fn shared_account(&self, name: &SetName) -> Option<&SharedAccount> {
        self.shared.get(name)
    }

    pub(super) fn into_parts(self) -> BTreeMap<PartName, Arc<SetPart>> {
        self.parts
    }
}

impl<'m, 'a> SetMaker<'m, 'a> {
    /// None made yet. Parts that are the same as `previous` ones are these. `most`: as [`MOST_MEMBERS`].
    pub(super) fn new(
        addresses: Vec<Addresses<'a>>,
        candidates: &'m Candidates<'a>,
        namespaces: &'m NamespaceLabels<'a>,
        previous: &'m BTreeMap<PartName, Arc<SetPart>>,
        most: usize,
    ) -> Self {
        Self {
            addresses,
            candidates,
            namespaces,
            previous,
            made: Sets::default(),
            most,
            taken: HashMap::new(),
            of: None,
            lacks_room: false,
        }
    }

    /// What `make` makes of a policy of `namespace` (`None`: of all), and whether there was room for its sets. If not, they must not
    /// be used.
    pub(super) fn of_policy<R>(
        &mut self,
        namespace: Option<&str>,
        make: impl FnOnce(&mut Self) -> R,
    ) -> (R, bool) {
        (self.of, self.lacks_room) = (namespace.map(str::to_owned), false);
        let made = make(self);
        (made, !self.lacks_room)
    }

    /// Takes room for so many members; whether there was as much.
    fn take(&mut self, members: usize) -> bool {
        let Some(namespace) = &self.of else { return true };
        let taken = match self.taken.get_mut(namespace) {
            Some(taken) => taken,
            None => self.taken.entry(namespace.clone()).or_default(),
        };
        let has_room = members <= self.most - *taken;
        if has_room {
            *taken += members;
        }
        self.lacks_room |= !has_room;
        has_room
    }

    /// The set of `choice`, which is made if this is the first time.
    pub(super) fn set(&mut self, choice: Choice) -> SetRef {
        if let Some(name) = self.made.names.get(&choice) {
            return SetRef { name: name.clone(), members: None };
        }
        let nobody = || SetRef { name: SetName { id: id_of("nobody"), parts: 1 }, members: None };
        let candidates = self.candidates;
        let all = candidates.within(choice.namespace());
        if !self.take(all.len() / LOOKED_AT) {
            return nobody();
        }
        let inside: Vec<&Candidate<'_>> = all
            .into_iter()
            .filter(|candidate| !candidate.is_of_node && choice.contains(candidate, self.namespaces))
            .collect();
        if !self.take(inside.len()) {
            return nobody();
        }
        let members = match &choice {
            Choice::Port(port) => inside.iter().map(|one| (hash_of(one), at_port(one, port))).collect(),
            _ => self.members(&inside),
        };
        let blocks: Vec<IpNet> = self.blocks(&choice);
        let is_empty = inside.is_empty() && blocks.is_empty();
        let name = self.store(&choice.to_string(), members, &blocks);
        if is_empty {
            self.made.empty.insert(name.clone());
        }
        if let Some(shared) = self.shared_account(&inside) {
            self.made.shared.insert(name.clone(), shared);
        }
        self.made.names.insert(choice, name.clone());
        SetRef { name, members: None }
    }

    /// The blocks of all sets of addresses that `choice` has.
    fn blocks(&self, choice: &Choice) -> Vec<IpNet> {
        let meant = self
            .addresses
            .iter()
            .filter(|one| choice.contains_addresses(one.namespace, one.labels, self.namespaces));
        meant.flat_map(|one| one.nets).copied().collect()
    }

    pub(super) fn made(self) -> Sets {
        self.made
    }

    /// The members of a set that has all of `inside`, each with its hash.
    fn members(&self, inside: &[&Candidate<'_>]) -> Vec<(u32, Member)> {
        let provers = inside.iter().filter(|one| one.may_prove_identity);
        let identities = counted(provers.map(|one| one.identity));
        let addresses = counted(inside.iter().flat_map(|one| one.addresses.iter().copied()));
        let is_alone_at = |address: &IpAddr| {
            addresses.get(address).copied().unwrap_or_default() == self.candidates.with_address(*address)
        };
        let member = |one: &&Candidate<'_>| {
            let (own, shared): (BTreeSet<_>, BTreeSet<_>) =
                one.addresses.iter().partition(|ip| is_alone_at(ip));
            let known = identities.get(one.identity).copied().unwrap_or_default();
            let sockets = one.sockets.iter().filter(|socket| shared.contains(&socket.ip()));
            let member = Member {
                identity: one.is_meshed.then(|| one.identity.clone()),
                shares_identity: self.candidates.with_identity(one.identity) > known,
                sockets: sockets.copied().collect(),
                addresses: own,
                shared,
                is_named: one.is_named,
            };
            (hash_of(one), member)
        };
        inside.iter().map(member).collect()
    }

    fn shared_account(&self, inside: &[&Candidate<'_>]) -> Option<SharedAccount> {
        let names: BTreeSet<_> = inside.iter().map(|one| one.name).collect();
        let counts = counted(inside.iter().filter(|one| one.may_prove_identity).map(|one| one.identity));
        let is_shared = |identity| {
            self.candidates.with_identity(identity) > counts.get(identity).copied().unwrap_or_default()
        };
        let member = inside.iter().filter(|one| is_shared(one.identity)).min_by_key(|one| one.name)?;
        let identity = member.identity;
        // All who have it are in its namespace.
        let others = self.candidates.within(Some(identity.namespace())).into_iter();
        let others = others.filter(|one| one.may_prove_identity && one.identity == identity);
        let outside = others.filter(|one| !names.contains(one.name)).min_by_key(|one| one.name)?;
        Some(SharedAccount {
            account: format!("{}/{}", identity.namespace(), identity.service_account()),
            inside: member.name.to_string(),
            outside: outside.name.to_string(),
        })
    }

    /// Cuts a set into parts, which are those of before where they are the same.
    fn store(&mut self, text: &str, members: Vec<(u32, Member)>, blocks: &[IpNet]) -> SetName {
        let parts = members.len().div_ceil(MEMBERS_OF_A_PART).next_power_of_two();
        let parts = u32::try_from(parts).unwrap_or(MOST_PARTS).min(MOST_PARTS);
        let name = SetName { id: id_of(text), parts };
        let mut cut: Vec<Vec<Member>> = vec![Vec::new(); parts as usize];
        for (hash, member) in members {
            cut[(hash % parts) as usize].push(member);
        }
        for (part, members) in name.each().zip(cut) {
            let blocks = blocks.iter().filter(|_| part.part == 0).copied();
            let made = keep(SetPart::new(members, blocks), self.previous.get(&part));
            self.made.parts.insert(part, made);
        }
        name
    }
}

/// A member that is only at its port of the name `port`.
fn at_port(one: &Candidate<'_>, port: &str) -> Member {
    let numbers = || one.named_ports.iter().filter(|(name, _)| *name == port).map(|(_, number)| *number);
    let sockets = one.addresses.iter().flat_map(|ip| numbers().map(|number| SocketAddr::new(*ip, number)));
    Member { sockets: sockets.collect(), ..Member::default() }
}

fn counted<T: Eq + Hash>(values: impl Iterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
}

/// The same at every replica and in every run.
fn hash_of(candidate: &Candidate<'_>) -> u32 {
    let hash = digest(&SHA256, candidate.name.to_string().as_bytes());
    hash.as_ref().iter().take(4).fold(0, |hash, byte| hash << 8 | u32::from(*byte))
}

fn id_of(text: &str) -> Arc<str> {
    let hash = digest(&SHA256, text.as_bytes());
    let id: String = hash.as_ref().iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}")).collect();
    id.into()
}
