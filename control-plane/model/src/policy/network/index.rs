//! Which of many rules can match a party at all: those that select its identity or its address, and those that ask for
//! something else.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    iter,
};

use super::{
    NetworkAsks, NetworkCondition, NetworkRule, Party, Peers, SetRef,
    set::{SetPart, Shown},
};

/// So few rules are tried one after the other sooner than an index finds those that can match.
const FEW: usize = 8;
/// How many identities and addresses of all tiers' rules together are filed, at most: more would cost every proxy more than 1 MiB.
pub(super) const MOST_FILED: usize = 1 << 16;

/// A hash, and the place of a rule in the order in which they are tried.
type Filed = (u64, u32);

/// See the module. Of two hashes that happen to be equal, the rules of both are tried.
#[derive(Debug, Clone)]
pub(super) struct Index {
    hasher: RandomState,
    /// By the hash of an identity or of an address, sorted.
    shown: Vec<Filed>,
    /// The rules that are tried whoever the party is, sorted.
    always: Vec<Filed>,
}

impl Index {
    /// Over `rules`; `None`: they are so few, or so large, that one after the other is tried. So many may be filed as are
    /// `left`, which becomes less by them.
    pub(super) fn over(rules: &[NetworkRule], left: &mut usize) -> Option<Self> {
        if rules.len() <= FEW {
            return None;
        }
        let mut index = Self { hasher: RandomState::new(), shown: Vec::new(), always: Vec::new() };
        for (place, rule) in (0..).zip(rules) {
            let parts = rule.conditions.iter().find_map(parts_of);
            if parts.is_none_or(|parts| !index.file(&parts, place, left)) {
                index.always.push((0, place));
            }
        }
        if index.shown.is_empty() {
            return None;
        }
        index.shown.sort_unstable();
        index.shown.dedup();
        Some(index)
    }

    /// Files the rule at `place` under all that members of `parts` show; `false`: they are more than are `left`.
    fn file(&mut self, parts: &[&SetPart], place: u32, left: &mut usize) -> bool {
        let before = self.shown.len();
        for shown in parts.iter().flat_map(|part| part.shown()) {
            if self.shown.len() - before >= *left {
                self.shown.truncate(before);
                return false;
            }
            let hash = match shown {
                Shown::Identity(identity) => self.hash(identity),
                Shown::Address(address) => self.hash(&address),
            };
            self.shown.push((hash, place));
        }
        *left -= self.shown.len() - before;
        true
    }

    fn hash<T: Hash + ?Sized>(&self, shown: &T) -> u64 {
        self.hasher.hash_one(shown)
    }

    fn filed_under(&self, hash: Option<u64>) -> &[Filed] {
        let Some(hash) = hash else { return &[] };
        let start = self.shown.partition_point(|(filed, _)| *filed < hash);
        let from_there = &self.shown[start..];
        let count = from_there.iter().take_while(|(filed, _)| *filed == hash).count();
        &from_there[..count]
    }

    /// The places of the rules that may match `party`, in the order in which they are tried.
    pub(super) fn candidates(&self, party: &Party<'_>) -> impl Iterator<Item = usize> {
        let identity = party.identity.map(|identity| self.hash(identity));
        let address = party.address.map(|address| self.hash(&address));
        let mut lists = [self.filed_under(identity), self.filed_under(address), &self.always];
        iter::from_fn(move || {
            let next = lists.iter().filter_map(|list| list.first()).map(|(_, place)| *place).min()?;
            for list in &mut lists {
                if let Some(((_, place), rest)) = list.split_first()
                    && *place == next
                {
                    *list = rest;
                }
            }
            usize::try_from(next).ok()
        })
    }
}

/// The parts whose members alone can match `condition`, by what they show. `None`: others can, too.
fn parts_of(condition: &NetworkCondition) -> Option<Vec<&SetPart>> {
    let NetworkCondition { asks: NetworkAsks::Peer(any), negated: false } = condition else { return None };
    let mut parts = Vec::new();
    for peers in any {
        let Peers::Set(SetRef { members: Some(members), .. }) = peers else { return None };
        parts.extend(members.parts().iter().map(|part| &**part));
    }
    parts.iter().all(|part| part.blocks().is_empty()).then_some(parts)
}
