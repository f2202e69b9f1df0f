//! Rate limits, bound to the buckets that they are counted in.
//!
//! A bucket belongs to the document and to whom the limit is for, not to a version of the document: an edit of something
//! else empties and fills none, and a changed number goes on from what is in the bucket.
//!
//! The documents of each namespace have a table of buckets of their own, so that the clients of one tenant of a gateway take
//! no places from those of another.

mod global;

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use selvedge_model::{
    SpiffeId,
    limit::{Asker, By, Limit, Quota, RateLimit, Whose},
};

use self::global::Servers;
pub use self::global::{BoundGlobal, LimitServer};
use super::Destination;
use crate::buckets::{Bucket, Buckets, Key, Overflow, Rate, Refused, Taken};

/// What holds buckets from one table to the next.
#[derive(Debug, Default)]
pub struct Limiters {
    known: Mutex<Known>,
    servers: Servers,
}

/// How many tables there are at most, of 4 MiB each. The owners beyond share one more.
const MOST_TABLES: usize = 15;

#[derive(Debug, Default)]
struct Known {
    states: HashMap<Id, Weak<State>>,
    /// The tables by their owners: a kind and a namespace, such as `RateLimit shop`.
    tables: HashMap<Box<str>, Weak<Buckets>>,
    /// That of all other owners.
    others: Weak<Buckets>,
    /// How many there have been: the number of the next.
    count: u64,
}

/// What buckets belong to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Id {
    document: Arc<str>,
    by: By,
    per: Duration,
    /// Of an exception: whose it is.
    identities: Option<BTreeSet<SpiffeId>>,
}

/// The buckets of one limit, or of one exception.
#[derive(Debug)]
struct State {
    /// Its clients in the table are told from those of others by this.
    number: u64,
    /// What all clients share.
    shared: Bucket,
    overflow: Overflow,
    /// Where each of its clients has one.
    buckets: Arc<Buckets>,
}

/// The limits that requests at one place must be within.
#[derive(Debug)]
pub struct BoundLimits {
    /// Those of each client come first.
    all: Vec<BoundLimit>,
    /// What servers are asked when a request is within all those.
    pub globals: Vec<BoundGlobal>,
}

#[derive(Debug)]
struct BoundLimit {
    document: Arc<str>,
    ports: Option<BTreeSet<u16>>,
    dry_run: bool,
    /// Whether every answer says how much is left.
    tells_all: bool,
    limit: Limit,
    /// Its own, and one for each of its exceptions.
    own: Metered,
    exceptions: Vec<Metered>,
}

/// A quota and its buckets.
#[derive(Debug)]
struct Metered {
    rate: Rate,
    quota: Quota,
    state: Arc<State>,
}

/// Where the bucket of a connection's identity is, of the limit that it was asked for last: all its requests are that
/// identity's, and most workloads have one such limit.
#[derive(Debug, Default)]
pub struct LastKey(Cell<Option<(u64, Key)>>);

/// What is left of a limit, for a client to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// How many requests may come at once.
    pub limit: u32,
    /// How many of them are left.
    pub remaining: u32,
    /// In what time all are back; `None`: nobody knows.
    pub reset: Option<Duration>,
}

impl Left {
    /// That of which less is left.
    pub fn least(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        [one, other].into_iter().flatten().min_by_key(|left| left.remaining)
    }
}

/// A request that is beyond a limit.
#[derive(Debug)]
pub struct Exceeded<'l> {
    /// The document that says so.
    pub document: &'l Arc<str>,
    /// The limit.
    pub quota: Quota,
    /// Who has a bucket of its own.
    pub by: &'l By,
    /// When there is room again.
    pub refused: Refused,
}

impl Limiters {
    /// `limits`, bound; `None`: there are none.
    pub fn bind(&self, limits: &[RateLimit]) -> Option<BoundLimits> {
        let mut all: Vec<BoundLimit> =
            limits.iter().flat_map(|one| one.limits.iter().map(|limit| self.limit(one, limit))).collect();
        let globals: Vec<_> = limits.iter().filter_map(|one| BoundGlobal::bind(one, &self.servers)).collect();
        if all.is_empty() && globals.is_empty() {
            return None;
        }
        all.sort_by_key(|bound| bound.limit.by == By::Everyone);
        Some(BoundLimits { all, globals })
    }

    /// Says where the servers are that limits ask.
    pub fn lead(&self, destinations: &HashMap<Arc<str>, Arc<Destination>>) {
        self.servers.lead(destinations);
    }

    /// The authorities of those servers.
    pub fn servers(&self) -> Vec<Arc<str>> {
        self.servers.authorities()
    }

    fn limit(&self, of: &RateLimit, limit: &Limit) -> BoundLimit {
        let metered = |quota: Quota, identities: Option<BTreeSet<SpiffeId>>| {
            let document = Arc::clone(&of.name);
            let id = Id { document, by: limit.by.clone(), per: quota.per, identities };
            let rate = Rate::new(quota.requests, quota.per, quota.burst);
            Metered { rate, quota, state: self.state(id) }
        };
        let exceptions = limit.exceptions.iter();
        BoundLimit {
            document: Arc::clone(&of.name),
            ports: of.ports.clone(),
            dry_run: of.dry_run,
            tells_all: of.tells_all && !of.dry_run,
            own: metered(limit.quota, None),
            exceptions: exceptions.map(|one| metered(one.quota, Some(one.identities.clone()))).collect(),
            limit: limit.clone(),
        }
    }

    fn state(&self, id: Id) -> Arc<State> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = known.states.get(&id).and_then(Weak::upgrade) {
            return state;
        }
        known.states.retain(|_, state| state.strong_count() > 0);
        known.count += 1;
        let buckets = known.table(&id.document);
        let (number, shared, overflow) = (known.count, Bucket::default(), Overflow::default());
        let state = State { number, shared, overflow, buckets };
        let state = Arc::new(state);
        known.states.insert(id, Arc::downgrade(&state));
        state
    }
}

impl Known {
    /// The table of whoever has written `document`, such as `RateLimit shop/per-client`.
    fn table(&mut self, document: &str) -> Arc<Buckets> {
        let owner = document.rsplit_once('/').map_or(document, |(owner, _)| owner);
        if let Some(table) = self.tables.get(owner).and_then(Weak::upgrade) {
            return table;
        }
        self.tables.retain(|_, table| table.strong_count() > 0);
        if self.tables.len() >= MOST_TABLES {
            return self.others.upgrade().unwrap_or_else(|| {
                let table = Arc::default();
                self.others = Arc::downgrade(&table);
                table
            });
        }
        let table = Arc::default();
        self.tables.insert(owner.into(), Arc::downgrade(&table));
        table
    }
}

impl BoundLimits {
    /// Takes a token for a request of `asker` to `port` that came at `now` from each limit which is for it. If one has none,
    /// nothing is taken. Returns what is left of the limit that has the least, of those that the client is told of. `last` is that of the asker's identity. `note` is told of what only a dry run would refuse.
    ///
    /// # Errors
    /// The limit that has none.
    pub fn take(
        &self,
        port: u16,
        asker: Asker<'_>,
        last: Option<&LastKey>,
        now: Instant,
        mut note: impl FnMut(Exceeded<'_>),
    ) -> Result<Option<Left>, Exceeded<'_>> {
        let mut least = None;
        for (place, bound) in self.all.iter().enumerate() {
            let Some(whose) = bound.whose(port, asker) else { continue };
            let exceeded = match bound.take(&whose, last, now) {
                Ok(left) => {
                    least = Left::least(least, left);
                    continue;
                }
                Err(exceeded) => exceeded,
            };
            if bound.dry_run {
                note(exceeded);
                continue;
            }
            give_back(&self.all[..place], port, asker);
            return Err(exceeded);
        }
        Ok(least)
    }

    /// Gives back what a request of `asker` to `port` has taken, which a server refuses.
    pub fn refused_elsewhere(&self, port: u16, asker: Asker<'_>) {
        give_back(&self.all, port, asker);
    }

    /// The same where it is refused after all [`Self::globals`] were asked. They may have written its headers, which then say
    /// nothing any more about whose tokens it has taken: those stay taken.
    pub fn refused_later(&self, port: u16, asker: Asker<'_>) {
        let is_known =
            |limit: &&BoundLimit| self.globals.is_empty() || !matches!(limit.limit.by, By::Header(_));
        give_back(self.all.iter().filter(is_known), port, asker);
    }
}

/// Gives back what a request of `asker` to `port` has taken of these limits.
fn give_back<'l>(taken: impl IntoIterator<Item = &'l BoundLimit>, port: u16, asker: Asker<'_>) {
    // A dry run counts all that comes.
    for limit in taken.into_iter().filter(|limit| !limit.dry_run) {
        if let Some(whose) = limit.whose(port, asker) {
            limit.give_back(&whose);
        }
    }
}

impl BoundLimit {
    /// Whose bucket a request draws on; `None`: the limit is not for it.
    fn whose<'a>(&'a self, port: u16, asker: Asker<'a>) -> Option<Whose<'a>> {
        let is_for = self.ports.as_ref().is_none_or(|ports| ports.contains(&port));
        if is_for { self.limit.whose(asker) } else { None }
    }

    fn metered(&self, whose: &Whose<'_>) -> &Metered {
        match whose {
            Whose::Exception(place) => self.exceptions.get(*place).unwrap_or(&self.own),
            _ => &self.own,
        }
    }

    /// Takes a token. What is left, if the client is to know.
    fn take(
        &self,
        whose: &Whose<'_>,
        last: Option<&LastKey>,
        now: Instant,
    ) -> Result<Option<Left>, Exceeded<'_>> {
        let metered = self.metered(whose);
        let Metered { rate, quota, state } = metered;
        let now = state.buckets.clock(now);
        let taken = match metered.key_of(whose, last) {
            None => state.shared.take(rate, now),
            Some(key) => state.buckets.take(key, rate, &state.overflow, now),
        };
        let exceeded =
            |refused| Exceeded { document: &self.document, quota: *quota, by: &self.limit.by, refused };
        let left = |Taken { remaining, full_after }| {
            self.tells_all.then_some(Left { limit: quota.burst, remaining, reset: Some(full_after) })
        };
        taken.map(left).map_err(exceeded)
    }

    fn give_back(&self, whose: &Whose<'_>) {
        let metered = self.metered(whose);
        let Metered { rate, state, .. } = metered;
        match metered.key(whose) {
            None => state.shared.give_back(rate),
            Some(key) => state.buckets.give_back(key, rate, &state.overflow),
        }
    }
}

impl Metered {
    /// [`Self::key`], which is not worked out again for each request of one identity.
    fn key_of(&self, whose: &Whose<'_>, last: Option<&LastKey>) -> Option<Key> {
        let Some(LastKey(last)) = last.filter(|_| matches!(whose, Whose::Identity(_))) else {
            return self.key(whose);
        };
        // The number is of no other limit, also of none that comes later.
        let number = self.state.number;
        if let Some((_, key)) = last.get().filter(|(of, _)| *of == number) {
            return Some(key);
        }
        let key = self.key(whose);
        last.set(key.map(|key| (number, key)));
        key
    }

    /// The client's key; `None`: all of whom that is so share one bucket.
    fn key(&self, whose: &Whose<'_>) -> Option<Key> {
        match whose {
            Whose::Everyone | Whose::Exception(_) | Whose::Unknown => None,
            Whose::Address(_) | Whose::Identity(_) | Whose::Header(_) => {
                Some(self.state.buckets.key((self.state.number, whose)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
