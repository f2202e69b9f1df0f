//! What keys are looked up in, and what stands in for it until it is made.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use selvedge_model::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    super::{Candidate, Eligible, Member},
    maglev::{self, Maglev},
    ring::{self, Ring},
};

/// The most bytes that all tables of this process take. What comes beyond is not made: the keys of such a backend find
/// their endpoints by [scores](Table::highest).
const MOST_BYTES: usize = 256 << 20;

/// A table of more places than this is made by a thread of its own. One of this many takes a few milliseconds.
const LARGE: usize = 100_000;

/// What all tables take now, in bytes.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// What keys are looked up in.
#[derive(Debug)]
pub(super) struct Table {
    /// What it is made of.
    how: HashTable,
    members: Box<[Member]>,
    keys: Box<[u64]>,
    weights: u64,
    /// Unset: they are not made yet, or there was no memory for them. Whoever binds endpoints next tries again.
    places: OnceLock<Places>,
    /// What keys are looked up in until then.
    meanwhile: ArcSwapOption<Meanwhile>,
}

/// The table before, for endpoints that may have come or left since.
#[derive(Debug)]
struct Meanwhile {
    table: Arc<Table>,
    /// Which of the endpoints now is each of its own; `None`: it has left.
    now: Box<[Option<u32>]>,
}

/// A table that is to be made. It is not if nothing uses it any more.
#[derive(Debug)]
pub struct Unmade(Weak<Table>);

/// The endpoint of each place.
#[derive(Debug)]
pub(super) struct Places {
    kind: Kind,
    /// What they take of [`MOST_BYTES`].
    _taken: Taken,
}

#[derive(Debug)]
enum Kind {
    Ring(Ring),
    Maglev(Maglev),
}

/// A part of [`MOST_BYTES`].
#[derive(Debug)]
struct Taken(usize);

impl Taken {
    /// `None`: there is not so much left.
    fn take(bytes: usize) -> Option<Self> {
        let within = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= MOST_BYTES);
        let taken = TAKEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within);
        taken.is_ok().then(|| Self(bytes))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        TAKEN.fetch_sub(self.0, Ordering::Relaxed);
    }
}

impl Places {
    pub(super) fn len(&self) -> usize {
        match &self.kind {
            Kind::Ring(ring) => ring.len(),
            Kind::Maglev(maglev) => maglev.len(),
        }
    }

    /// The place of a key; there is at least one.
    pub(super) fn of(&self, key: u64) -> usize {
        match &self.kind {
            Kind::Ring(ring) => ring.place(key),
            Kind::Maglev(maglev) => maglev.place(key),
        }
    }

    /// The endpoint that has a place.
    pub(super) fn at(&self, place: usize) -> usize {
        match &self.kind {
            Kind::Ring(ring) => ring.at(place),
            Kind::Maglev(maglev) => maglev.at(place),
        }
    }
}

impl Unmade {
    /// Makes it, which may take a second.
    pub fn make(self) {
        if let Some(table) = self.0.upgrade() {
            table.make();
        }
    }
}

impl Table {
    /// A table of this kind. A large one is not made yet; until then keys are looked up in the one `before`.
    pub(super) fn over(how: HashTable, members: &[Member], before: Option<&Arc<Self>>) -> Self {
        let table = Self {
            how,
            members: members.into(),
            keys: members.iter().map(Member::key).collect(),
            weights: members.iter().map(|member| u64::from(member.weight)).sum(),
            places: OnceLock::new(),
            meanwhile: ArcSwapOption::empty(),
        };
        if table.is_large() {
            table.meanwhile.store(before.and_then(|before| before.for_members(members)).map(Arc::new));
        } else {
            table.make();
        }
        table
    }

    /// Whether it takes long to make.
    fn is_large(&self) -> bool {
        self.size().0 > LARGE
    }

    /// How many places it has, and what they take in bytes.
    fn size(&self) -> (usize, usize) {
        match self.how {
            HashTable::Ring { minimum } => {
                let points = ring::points(minimum, &self.members);
                (points, points * Ring::POINT_BYTES)
            }
            HashTable::Maglev { size } => {
                let places = maglev::places(size, self.members.len());
                (places, places * size_of::<u32>())
            }
        }
    }

    fn make(&self) {
        if self.places.get().is_some() {
            return;
        }
        let (_, bytes) = self.size();
        let without_the_one_before = || {
            self.meanwhile.store(None);
            Taken::take(bytes)
        };
        let Some(taken) = Taken::take(bytes).or_else(without_the_one_before) else {
            tracing::warn!(
                endpoints = self.members.len(),
                bytes,
                most_bytes = MOST_BYTES,
                "a hash table is not made, because the tables of this proxy take too much memory; until there is room its \
                 endpoints are found by scores, which costs more for each request: make tableSize or minimumRingSize smaller"
            );
            return;
        };
        let kind = match self.how {
            HashTable::Ring { minimum } => Kind::Ring(Ring::over(minimum, &self.members, &self.keys)),
            HashTable::Maglev { size } => Kind::Maglev(Maglev::over(size, &self.members, &self.keys)),
        };
        // Another thread may have made it meanwhile.
        let _ = self.places.set(Places { kind, _taken: taken });
        self.meanwhile.store(None);
    }

    /// Whether it is, or will be, made of these.
    pub(super) fn is_of(&self, how: HashTable, members: &[Member]) -> bool {
        // Who is there does not matter.
        let alike =
            |(one, other): (&Member, &Member)| (one.address, one.weight) == (other.address, other.weight);
        self.how == how && self.members.len() == members.len() && self.members.iter().zip(members).all(alike)
    }

    /// `table`, if it is not made yet.
    pub(super) fn unmade(table: &Arc<Self>) -> Option<Unmade> {
        table.places.get().is_none().then(|| Unmade(Arc::downgrade(table)))
    }

    /// What keys of `members` are looked up in until they have a table: this one, or what stands in for it.
    fn for_members(self: &Arc<Self>, members: &[Member]) -> Option<Meanwhile> {
        let table = match self.places.get() {
            Some(_) => Arc::clone(self),
            None => Arc::clone(&self.meanwhile.load().as_ref()?.table),
        };
        let places = members.iter().map(|member| member.address).zip(0_u32..);
        let places: HashMap<_, _> = places.collect();
        let now = table.members.iter().map(|member| places.get(&member.address).copied()).collect();
        Some(Meanwhile { table, now })
    }

    /// What `look` finds in the places that there are. If they are of a table before, it is told which endpoint stands for
    /// each of theirs. `None`: there are no places.
    pub(super) fn with_places<T>(
        &self,
        look: impl FnOnce(&Places, Option<&[Option<u32>]>) -> Option<T>,
    ) -> Option<T> {
        if let Some(places) = self.places.get() {
            return look(places, None);
        }
        let meanwhile = self.meanwhile.load();
        match meanwhile.as_deref() {
            Some(Meanwhile { table, now }) => look(table.places.get()?, Some(now)),
            // It may just have been made.
            None => look(self.places.get()?, None),
        }
    }

    /// What an endpoint weighs.
    pub(super) fn weight(&self, index: usize) -> u32 {
        self.members[index].weight
    }

    /// What all endpoints weigh.
    pub(super) fn weights(&self) -> u64 {
        self.weights
    }

    /// Of the eligible endpoints, the one that `key` belongs to where walking on has found none: the one with the highest
    /// score for this key (rendezvous hashing), which also is the same for all proxies.
    pub(super) fn highest<C: Candidate>(&self, eligible: &Eligible<'_, C>, key: u64) -> Option<usize> {
        let score = |index: &usize| {
            let hash = xxh3_64_with_seed(&key.to_le_bytes(), self.keys[*index]);
            // Above 0, below 1.
            let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            f64::from(self.members[*index].weight) / -uniform.ln()
        };
        let eligible = (0..eligible.len()).filter(|index| eligible.has(*index));
        eligible.max_by(|one, other| score(one).total_cmp(&score(other)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: u16) -> Vec<Member> {
        (1..=count)
            .map(|port| Member { address: ([10, 0, 0, 1], port).into(), weight: 1, occupant: 0 })
            .collect()
    }

    /// All that is left.
    fn rest() -> Taken {
        loop {
            let left = MOST_BYTES - TAKEN.load(Ordering::Relaxed);
            if let Some(taken) = Taken::take(left) {
                return taken;
            }
        }
    }

    #[test]
    fn a_table_that_had_no_memory_is_made_when_there_is_some() {
        let rest = rest();
        let table = Arc::new(Table::over(HashTable::MAGLEV, &members(3), None));
        let made = |table: &Table| table.with_places(|places, _| Some(places.len())).is_some();
        assert!(!made(&table));

        Table::unmade(&table).expect("it is not made").make();
        assert!(!made(&table), "there is no memory yet");
        drop(rest);
        Table::unmade(&table).expect("it is still not made").make();

        assert!(made(&table) && Table::unmade(&table).is_none());
    }

    #[test]
    fn the_table_before_goes_first_if_there_is_no_memory_for_both() {
        let large = HashTable::Maglev { size: 100_003 };
        let before = Arc::new(Table::over(large, &members(3), None));
        Table::unmade(&before).expect("it is large").make();
        let table = Arc::new(Table::over(large, &members(4), Some(&before)));
        drop(before);
        let rest = rest();

        Table::unmade(&table).expect("it is large").make();

        assert!(Table::unmade(&table).is_none());
        drop(rest);
    }
}
