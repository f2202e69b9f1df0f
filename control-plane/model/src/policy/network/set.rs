//! Workloads that a selector selects, as a proxy knows its peers: by identity and by address.
//!
//! A set is cut into parts by its members' names, so that a workload that comes or goes changes one part. A part is
//! shared by everybody who asks for it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use ipnet::IpNet;
use serde::Serialize;

use super::{super::AddressSet, Party, Truth};
use crate::SpiffeId;

/// How many members a part has on average, at most.
pub const MEMBERS_OF_A_PART: usize = 64;
/// The most parts of a set.
pub const MOST_PARTS: u32 = 1 << 12;
/// The most members of a part.
pub const MOST_MEMBERS: usize = 10_000;

/// What a part of a set is called: `ID/PARTS/PART`, such as `3f2a90c1/4/0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartName {
    /// The set.
    pub set: SetName,
    /// Which part, from 0.
    pub part: u32,
}

/// A set, and into how many parts it is cut.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct SetName {
    /// What it is known by, for as long as it means the same; letters and digits.
    pub id: Arc<str>,
    /// How many parts it has; at least one.
    pub parts: u32,
}

impl SetName {
    /// The names of its parts.
    pub fn each(&self) -> impl Iterator<Item = PartName> + '_ {
        (0..self.parts).map(|part| PartName { set: self.clone(), part })
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.set.id, self.set.parts, self.part)
    }
}

/// A text that is not the name of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not ID/PARTS/PART")]
pub struct NotAPart;

impl FromStr for PartName {
    type Err = NotAPart;

    fn from_str(text: &str) -> Result<Self, NotAPart> {
        let mut words = text.split('/');
        let (Some(id), Some(parts), Some(part), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(NotAPart);
        };
        let number = |text: &str| text.parse::<u32>().map_err(|_| NotAPart);
        let (parts, part) = (number(parts)?, number(part)?);
        let is_one = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_one || part >= parts || parts > MOST_PARTS {
            return Err(NotAPart);
        }
        Ok(Self { set: SetName { id: Arc::from(id), parts }, part })
    }
}

/// One workload of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Member {
    /// Who it proves to be; `None`: nobody, it has no sidecar.
    pub identity: Option<SpiffeId>,
    /// Whether a workload that is not in the set may prove to be the same.
    pub shares_identity: bool,
    /// Its addresses that no workload outside the set has.
    pub addresses: BTreeSet<IpAddr>,
    /// Its addresses that a workload outside the set has, too.
    pub shared: BTreeSet<IpAddr>,
    /// Its ports at such addresses: each is nobody else's.
    pub sockets: BTreeSet<SocketAddr>,
    /// Whether it is at a name, so that nobody here knows its address.
    pub is_named: bool,
}

/// A part of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetPart {
    members: Vec<Member>,
    blocks: AddressSet,
    #[serde(skip)]
    index: Index,
}

/// What a part has, by what a peer shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Index {
    identities: HashMap<SpiffeId, Holders>,
    addresses: HashSet<IpAddr>,
    shared: HashSet<IpAddr>,
    sockets: HashSet<SocketAddr>,
}

/// The members that have one identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Holders {
    is_shared: bool,
    is_named: bool,
    addresses: HashSet<IpAddr>,
    sockets: HashSet<SocketAddr>,
}

impl SetPart {
    /// The part of `members`, and of whoever has an address in `blocks`.
    pub fn new(mut members: Vec<Member>, blocks: impl IntoIterator<Item = IpNet>) -> Self {
        members.sort_unstable();
        members.dedup();
        let mut index = Index::default();
        for member in &members {
            index.add(member);
        }
        Self { members, blocks: AddressSet::new(blocks), index }
    }

    /// Its members, sorted.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The blocks of addresses in it.
    pub fn blocks(&self) -> &AddressSet {
        &self.blocks
    }

    /// What a peer may show that is one of its members, or may be one; without [`blocks`](Self::blocks).
    pub(super) fn shown(&self) -> impl Iterator<Item = Shown<'_>> {
        let Index { identities, addresses, shared, sockets } = &self.index;
        let addresses = addresses.iter().chain(shared).copied().chain(sockets.iter().map(SocketAddr::ip));
        identities.keys().map(Shown::Identity).chain(addresses.map(Shown::Address))
    }
}

/// What a peer may show.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shown<'a> {
    Identity(&'a SpiffeId),
    Address(IpAddr),
}

impl Index {
    fn add(&mut self, member: &Member) {
        self.addresses.extend(&member.addresses);
        self.shared.extend(&member.shared);
        self.sockets.extend(&member.sockets);
        let Some(identity) = &member.identity else { return };
        let holders = self.identities.entry(identity.clone()).or_default();
        holders.is_shared |= member.shares_identity;
        holders.is_named |= member.is_named;
        holders.addresses.extend(&member.addresses);
        holders.sockets.extend(&member.sockets);
    }
}

/// All parts of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkloadSet {
    parts: Vec<Arc<SetPart>>,
}

/// What the parts of a set say of a party together.
#[derive(Debug, Default)]
struct Seen {
    is_address: bool,
    is_shared_address: bool,
    is_identity: bool,
    is_shared_identity: bool,
    /// Whether one member has both.
    is_pair: bool,
    is_named: bool,
    is_block: bool,
}

impl WorkloadSet {
    /// The set of `parts`.
    pub fn new(parts: Vec<Arc<SetPart>>) -> Self {
        Self { parts }
    }

    pub(super) fn parts(&self) -> &[Arc<SetPart>] {
        &self.parts
    }

    /// Whether `party` is in it.
    pub(super) fn contains(&self, party: &Party<'_>) -> Truth {
        let seen = self.seen(party);
        if seen.is_block {
            return Truth::Yes;
        }
        match party.identity {
            None => of_plaintext(&seen),
            Some(_) if party.is_told_by_address => of_mesh(&seen),
            Some(_) => of_identity(&seen),
        }
    }

    /// Whether one of its members is at `socket`.
    pub(super) fn serves(&self, socket: SocketAddr) -> bool {
        self.parts.iter().any(|part| part.index.sockets.contains(&socket))
    }

    fn seen(&self, party: &Party<'_>) -> Seen {
        let mut seen = Seen::default();
        let socket = |sockets: &HashSet<SocketAddr>| party.socket().is_some_and(|one| sockets.contains(&one));
        for SetPart { index, blocks, .. } in self.parts.iter().map(|part| &**part) {
            if let Some(address) = party.address {
                seen.is_block |= blocks.contains(address);
                seen.is_address |= index.addresses.contains(&address) || socket(&index.sockets);
                seen.is_shared_address |= index.shared.contains(&address);
            }
            let Some(holders) = party.identity.and_then(|identity| index.identities.get(identity)) else {
                continue;
            };
            seen.is_identity = true;
            seen.is_shared_identity |= holders.is_shared;
            seen.is_named |= holders.is_named;
            seen.is_pair |= party.address.is_some_and(|address| holders.addresses.contains(&address))
                || socket(&holders.sockets);
        }
        seen
    }
}

fn of_plaintext(seen: &Seen) -> Truth {
    match (seen.is_address, seen.is_shared_address) {
        (true, _) => Truth::Yes,
        (false, true) => Truth::Unknown(
            "its address is also that of workloads which the policy does not select, and plaintext does not tell them \
             apart; give the workload an address of its own, or a sidecar",
        ),
        (false, false) => Truth::No,
    }
}

/// Of a peer whose address tells which workload it is: both must be those of one member.
fn of_mesh(seen: &Seen) -> Truth {
    let is_alone = seen.is_identity && !seen.is_shared_identity;
    match (seen.is_pair, seen.is_identity) {
        (true, _) => Truth::Yes,
        // Nobody knows the address of one at a name, and at a shared address the identity alone tells them apart.
        _ if is_alone && (seen.is_named || seen.is_shared_address) => Truth::Yes,
        (false, true) if is_alone => {
            Truth::Unknown("its identity is selected, and the address that it comes from is not")
        }
        (false, true) => Truth::Unknown(SHARED_ACCOUNT),
        (false, false) if seen.is_address => {
            Truth::Unknown("the address that it comes from is selected, and its identity is not")
        }
        (false, false) => Truth::No,
    }
}

fn of_identity(seen: &Seen) -> Truth {
    match (seen.is_identity, seen.is_shared_identity) {
        (false, _) => Truth::No,
        (true, false) => Truth::Yes,
        (true, true) => Truth::Unknown(SHARED_ACCOUNT),
    }
}

const SHARED_ACCOUNT: &str = "its service account is also that of workloads which the policy does not select, and \
                              addresses do not tell them apart; give it a service account of its own";

impl Serialize for WorkloadSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.parts.iter().map(|part| &**part))
    }
}
