//! Many clients' token buckets in bounded memory.
//!
//! A set-associative table: a client's key says in which set it can be, and a set has [`WAYS`] places. Nothing is locked;
//! a place is taken over, and a token spent, by one compare-and-swap each.
//!
//! A bucket that is full again says no more than one that is not there, so its place may go to another client and
//! nothing is forgotten. A bucket that is not full keeps its place. So a flood of new clients frees nobody from its limit.
//! Nor does it push out a client that has called at least twice: that one keeps its place for [`KEPT`] after its bucket
//! is full. A new client for whom its set has no place shares a bucket with others of the same limit and the same fate
//! ([`Overflow`]). So there is never more let in than the limit says; during a flood that holds a whole set, a new client
//! may be let in less often.
//!
//! Keys are hashed with a secret of the process: nobody can choose whose set is filled. Two workers that meet in one place
//! at the same nanosecond, while it goes from one client to another, may charge a token to the wrong of the two.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::rate::{Rate, Refused, Taken, spend};

/// How many clients can be in one set.
const WAYS: usize = 16;

/// How many sets there are: 4 MiB in all.
const SETS: usize = 1 << 14;

/// How long a client keeps its place whose bucket is full, if it has called at least twice.
const KEPT: Duration = Duration::from_secs(60);

/// How many shared buckets a limit has, for as many groups of sets.
const SHARED: usize = 1 << 12;

/// Whose bucket it is: a secret hash of a limit and a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u64);

/// See the module.
#[derive(Debug)]
pub struct Buckets {
    /// A power of two.
    count: usize,
    /// Made for the first client.
    sets: OnceLock<Box<[Set]>>,
    secret: RandomState,
    /// What all times count from.
    since: Instant,
}

/// Places of clients; one cache line pair each for who they are and for their buckets.
#[derive(Debug)]
#[repr(align(64))]
struct Set {
    /// Who has the place; 0: nobody.
    keys: [AtomicU64; WAYS],
    /// When its bucket is full, in nanoseconds, times 2; and 1 if its client has called again.
    words: [AtomicU64; WAYS],
}

/// The buckets of those clients of one limit for whom the table has no place. They are made when there is such a client.
#[derive(Debug, Default)]
pub struct Overflow {
    words: OnceLock<Box<[AtomicU64]>>,
}

impl Default for Buckets {
    fn default() -> Self {
        Self::with_sets(SETS)
    }
}

impl Buckets {
    /// A table with this number of sets, a power of two.
    fn with_sets(sets: usize) -> Self {
        Self { count: sets, sets: OnceLock::new(), secret: RandomState::new(), since: Instant::now() }
    }

    /// `now` as buckets count it: in nanoseconds, and never 0.
    pub fn clock(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.since).as_nanos();
        u64::try_from(passed).unwrap_or(u64::MAX >> 2).min(u64::MAX >> 2) + 1
    }

    /// The key of a limit's client: `whose` holds both.
    pub fn key(&self, whose: impl Hash) -> Key {
        Key(self.secret.hash_one(whose).max(1))
    }

    /// Takes a token of the client `key` at `now`, in nanoseconds of [`Self::clock`].
    ///
    /// # Errors
    /// If it has none.
    pub fn take(&self, key: Key, rate: &Rate, overflow: &Overflow, now: u64) -> Result<Taken, Refused> {
        let set = self.set(key);
        if let Some(place) = set.find(key) {
            return spend(&set.words[place], |seen| {
                let (full_at, taken) = rate.take(seen >> 1, now)?;
                Ok(((full_at << 1) | 1, taken))
            });
        }
        // Who comes out of a shared bucket does not begin with a full one.
        let begins = overflow.full_at(key);
        rate.take(begins, now)?;
        match set.take_place(key, now) {
            Some(place) => spend(&set.words[place], |seen| {
                let (full_at, taken) = rate.take((seen >> 1).max(begins), now)?;
                Ok((full_at << 1, taken))
            }),
            None => spend(overflow.word(key), |full_at| rate.take(full_at, now)),
        }
    }

    /// Gives back a token of the client `key` that was taken for nothing.
    pub fn give_back(&self, key: Key, rate: &Rate, overflow: &Overflow) {
        let set = self.set(key);
        let _ = match set.find(key) {
            Some(place) => spend(&set.words[place], |seen| {
                Ok::<_, ()>(((rate.give_back(seen >> 1) << 1) | (seen & 1), ()))
            }),
            None => spend(overflow.word(key), |full_at| Ok((rate.give_back(full_at), ()))),
        };
    }

    fn set(&self, key: Key) -> &Set {
        let empty = || std::array::from_fn(|_| AtomicU64::new(0));
        let sets = self
            .sets
            .get_or_init(|| (0..self.count).map(|_| Set { keys: empty(), words: empty() }).collect());
        &sets[key.set() & (self.count - 1)]
    }
}

impl Key {
    /// Which set it is in: these bits of it; all of them tell clients apart within the set.
    fn set(self) -> usize {
        (self.0 >> 32) as usize
    }
}

impl Set {
    fn find(&self, key: Key) -> Option<usize> {
        self.keys.iter().position(|held| held.load(Ordering::Relaxed) == key.0)
    }

    /// Gives a place to `key`, which has none; `None`: there is none for it.
    fn take_place(&self, key: Key, now: u64) -> Option<usize> {
        loop {
            let (place, holder) = self.free(now)?;
            let taken_over =
                self.keys[place].compare_exchange(holder, key.0, Ordering::Relaxed, Ordering::Relaxed);
            if taken_over.is_ok() {
                return Some(place);
            }
            // Another worker was there first; perhaps with the same client.
            if let Some(place) = self.find(key) {
                return Some(place);
            }
        }
    }

    /// The first place that may go to another client, and who has it.
    fn free(&self, now: u64) -> Option<(usize, u64)> {
        let may_go = |word: u64| {
            let kept = if word & 1 == 1 { KEPT.as_nanos() as u64 } else { 0 };
            (word >> 1).saturating_add(kept) <= now
        };
        let mut places = self.keys.iter().zip(&self.words).enumerate();
        places.find_map(|(place, (key, word))| {
            // Who has it is read first: if it changes meanwhile, taking it over fails.
            let holder = key.load(Ordering::Acquire);
            may_go(word.load(Ordering::Relaxed)).then_some((place, holder))
        })
    }
}

impl Overflow {
    fn word(&self, key: Key) -> &AtomicU64 {
        let words = self.words.get_or_init(|| (0..SHARED).map(|_| AtomicU64::new(0)).collect());
        &words[key.set() % SHARED]
    }

    /// When the shared bucket of `key` is full.
    fn full_at(&self, key: Key) -> u64 {
        let words = self.words.get();
        words.map_or(0, |words| words[key.set() % SHARED].load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;
